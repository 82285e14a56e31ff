"""Confinement: what a request names is read only if it is bundled or inside the given folders."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import effsim
from effsim import _api
from effsim.errors import DataError, EffsimError, SpecError, UnknownNameError
from effsim.importers import torch_file
from effsim.importers.surface import import_source
from effsim.memory import preset
from effsim.spec import catalogue
from effsim.spec.confine import carried, confined, exists, is_file, layers, readable

MARK = "PLANTED-SECRET-5e1f"
QUICK: dict[str, Any] = {"engine": "roofline", "sensitivity": False}
SERVED = ["workload.serving.arrivals.requests=2"]
STUDY = {
    "kind": "study",
    "name": "s",
    "hardware": "gpu_a100",
    "workload": "llama3_8b_decode",
    "reading": "roofline",
    "parameters": [{"path": "workload.batch", "values": [1]}],
    "objectives": [{"name": "time_s", "goal": "min"}],
}
PLAN = {
    "kind": "plan",
    "name": "p",
    "workload": "llama3_70b_chat",
    "slo": {"ttft": {"p95": "10 s"}},
    "candidates": [{"hardware": "gpu_h100"}],
    "parallelism": [{"tensor": 4}],
    "set": ["workload.serving.arrivals.requests=2"],
}


def _run(*assignments: str) -> None:
    effsim.run("gpu_a100", "llama3_8b_decode", set=list(assignments), **QUICK)


def _serve(*assignments: str) -> None:
    effsim.serve("gpu_h100", "llama3_8b_vllm", set=[*SERVED, *assignments])


def _sweep(tmp: Path, **changes: Any) -> None:
    """A sweep; what its only point says, where only that fails."""
    found = effsim.sweep({**STUDY, **changes}, out=tmp / "points", fresh=True)
    told = [str(row) for row in found.table.to_pylist() if row["status"] != "ok"]
    if told:
        raise DataError(told[0])


def _text(suffix: str) -> str:
    """A secret that each reader of such a file would take, or would tell from."""
    hf = {"model_type": MARK}
    return {
        ".json": json.dumps(hf),
        ".csv": f"TIMESTAMP,ContextTokens,GeneratedTokens,kind\n{MARK},1,1,x\n",
        ".cfg": f"{MARK}\n",
        ".py": f"raise SystemExit('{MARK}')\n",
        ".onnx": MARK,
    }.get(suffix, f"kind: {MARK}\n{MARK}: 1\n")


Door = Callable[[str, Path], Any]
"""Uses a path; the folder is one that may be written to."""

DOORS: dict[str, tuple[str, Door]] = {
    "hardware": (".yaml", lambda p, _: effsim.run(p, "llama3_8b_decode", **QUICK)),
    "hardware of another simulator": (".cfg", lambda p, _: effsim.run(p, "llama3_8b_decode", **QUICK)),
    "workload": (".yaml", lambda p, _: effsim.run("gpu_a100", p, **QUICK)),
    "topology": (".csv", lambda p, _: effsim.run("gpu_a100", p, **QUICK)),
    "model": (".yaml", lambda p, _: _run(f"workload.model={p}")),
    "configuration": (".json", lambda p, _: _run(f"workload.model={p}")),
    "engine": (".yaml", lambda p, _: _run(f"workload.engine={p}")),
    "dram": (".yaml", lambda p, _: _run(f"hardware.memory.dram={{preset: {p}, refresh: all_bank}}")),
    "group": (
        ".yaml",
        lambda p, _: effsim.run("system_4xa100", "llama3_8b_decode", set=[f"hardware.devices.0.hardware={p}"], **QUICK),
    ),
    "trace": (".csv", lambda p, _: _serve(f"workload.serving.arrivals={{process: trace, trace: {p}}}")),
    "trace lines": (".json", lambda p, _: _serve(f"workload.serving.arrivals={{process: trace, trace: {p}}}")),
    "draft": (
        ".yaml",
        lambda p, _: _serve(
            f"workload.serving.speculative={{method: draft_model, model: {p}, tokens: 2, acceptance: 0.5}}"
        ),
    ),
    "decode hardware": (".yaml", lambda p, _: _serve(f"workload.serving.disaggregated={{decode_hardware: {p}}}")),
    "compare": (".yaml", lambda p, _: effsim.compare([p, "gpu_a100"], "llama3_8b_decode", engine="roofline")),
    "explain": (".yaml", lambda p, _: effsim.explain(p, "llama3_8b_decode", "x")),
    "check": (".yaml", lambda p, _: _api.check_file(p)),
    "import": (".json", lambda p, _: _api.import_config(p)),
    "import torch": (".py", lambda p, _: torch_file._split(f"{p}:build")),
    "import onnx": (".onnx", lambda p, _: import_source(p)),
    "import topology": (".csv", lambda p, _: import_source(p)),
    "table": (".csv", lambda p, _: _api.kernel_table("gpu_a100", p)),
    "study": (".yaml", lambda p, d: effsim.sweep(p, out=d / "points")),
    "hardware of a study": (".yaml", lambda p, d: _sweep(d, hardware=p)),
    "workload of a study": (".yaml", lambda p, d: _sweep(d, workload=p)),
    "engine of a study": (".yaml", lambda p, d: _sweep(d, engine=p)),
    "axis of a study": (".yaml", lambda p, d: _sweep(d, parameters=[{"path": "hardware", "values": [p]}])),
    "engines of a study": (".yaml", lambda p, d: _sweep(d, parameters=[{"path": "engine", "values": [p]}])),
    "models of a study": (".json", lambda p, d: _sweep(d, parameters=[{"path": "workload.model", "values": [p]}])),
    "assignment of a study": (".json", lambda p, d: _sweep(d, set=[f"workload.model={p}"])),
    "plan": (".yaml", lambda p, _: effsim.plan(p)),
    "workload of a plan": (".yaml", lambda p, _: effsim.plan({**PLAN, "workload": p})),
    "candidate of a plan": (".yaml", lambda p, _: effsim.plan({**PLAN, "candidates": [{"hardware": p}]})),
    "engine of a plan": (".yaml", lambda p, _: effsim.plan(PLAN, set=[f"workload.engine={p}"])),
    "model of a plan": (".json", lambda p, _: effsim.plan(PLAN, set=[f"workload.model={p}"])),
    "trace of a plan": (
        ".csv",
        lambda p, _: effsim.plan(PLAN, set=[f"workload.serving.arrivals={{process: trace, trace: {p}}}"]),
    ),
}


def _said(door: Door, path: str, folder: Path) -> tuple[type, int, str]:
    """Class, exit code and message of what a door answers, without the name and without the root."""
    with pytest.raises(EffsimError) as caught:
        door(path, folder)
    assert MARK not in str(caught.value)
    told = str(caught.value).replace(Path(path).stem, "STEM").replace(f"{folder.parent}/root/", "")
    return type(caught.value), caught.value.exit_code, told


@pytest.fixture
def folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, Path]:
    """The one that may be read, one outside of it (where we stand), one to write to."""
    base = tmp_path_factory.mktemp("t")  # a short name: messages cut long paths
    found = base / "root", base / "outside", base / "out"
    for folder in found:
        folder.mkdir()
    monkeypatch.chdir(found[1])
    return found


def _outside(form: str, root: Path, outside: Path, name: str) -> str:
    """A path to a file outside, in one of the ways to write it."""
    if form == "link":
        (root / name).symlink_to(outside / name)
        return str(root / name)
    return {
        "absolute": str(outside / name),
        "relative": name,
        "up": str(root / ".." / "outside" / name),
        "up from here": f"../outside/{name}",
    }[form]


@pytest.mark.parametrize(
    ("name", "form"),
    [(name, form) for name in DOORS for form in ("absolute", "link")]
    + [(name, form) for name in ("hardware", "model", "engine", "trace", "group") for form in ("relative", "up")],
)
def test_every_door_takes_a_file_outside_for_missing(name: str, form: str, folders: tuple[Path, Path, Path]) -> None:
    suffix, door = DOORS[name]
    if suffix == ".onnx":
        pytest.importorskip("onnx")
    root, outside, out = folders
    (outside / f"zq_there{suffix}").write_text(_text(suffix))
    present = _outside(form, root, outside, f"zq_there{suffix}")
    missing = _outside(form, root, outside, f"zq_wrong{suffix}")
    with confined(root, out):
        said = _said(door, present, out)
        assert said == _said(door, missing, out)
    assert said[1] == 2
    if form != "link" and name != "decode hardware":  # the message that a missing file has anyway
        assert said == _said(door, missing, out)


@pytest.mark.parametrize("name", sorted(set(DOORS) - {"import torch"}))
def test_without_confinement_every_door_is_open(name: str, folders: tuple[Path, Path, Path]) -> None:
    """So that the refusals above are refusals: each door tells a file from none."""
    suffix, door = DOORS[name]
    if suffix == ".onnx":
        pytest.importorskip("onnx")
    _, outside, out = folders
    (outside / f"zq_there{suffix}").write_text(_text(suffix))
    with pytest.raises(EffsimError) as caught:
        door(str(outside / f"zq_there{suffix}"), out)
    told = str(caught.value).replace("zq_there", "zq_wrong")
    with pytest.raises(EffsimError) as other:
        door(str(outside / f"zq_wrong{suffix}"), out)
    assert told != str(other.value)


@pytest.mark.parametrize("parent", ["{outside}/zq_there.yaml", "../outside/zq_there.yaml", "link.yaml"])
@pytest.mark.parametrize("section", ["hardware", "workload", "study", "plan"])
def test_extends_leads_out_of_no_folder(section: str, parent: str, folders: tuple[Path, Path, Path]) -> None:
    root, outside, out = folders
    (outside / "zq_there.yaml").write_text(f"{MARK}: 1\n")
    (root / "link.yaml").symlink_to(outside / "zq_there.yaml")
    uses: dict[str, Callable[[str], Any]] = {
        "hardware": lambda p: effsim.run(p, "llama3_8b_decode", **QUICK),
        "workload": lambda p: effsim.run("gpu_a100", p, **QUICK),
        "study": lambda p: effsim.sweep(p, out=out / "points"),
        "plan": effsim.plan,
    }
    said = []
    for name in (parent.format(outside=outside), parent.format(outside=outside).replace("zq_there", "zq_wrong")):
        (root / "mine.yaml").write_text(f"extends: {name}\n")
        with confined(root), pytest.raises(UnknownNameError) as caught:
            uses[section](str(root / "mine.yaml"))
        assert MARK not in str(caught.value)
        said.append(str(caught.value).replace(name, "PATH"))
    assert said[0] == said[1]
    assert said[0].startswith("mine.yaml:1:10: extends: ")


def _own_files(root: Path) -> tuple[str, str]:
    """A machine and a workload that name files beside them."""
    (root / "card.yaml").write_text("extends: gpu_a100\nname: Mine\n")
    (root / "loop.yaml").write_text(catalogue.find("engines", "cuda-graph").read_text())
    (root / "net.yaml").write_text(catalogue.find("architectures", "llama3_8b").read_text())
    (root / "work.yaml").write_text("extends: llama3_8b_decode\nmodel: net.yaml\nengine: loop.yaml\n")
    return str(root / "card.yaml"), str(root / "work.yaml")


def test_files_of_a_root_and_bundled_ones_give_what_they_give_anyway(folders: tuple[Path, Path, Path]) -> None:
    root, _, out = folders
    hardware, workload = _own_files(root)
    free = effsim.run(hardware, workload, **QUICK)
    with confined(root):
        assert effsim.run(hardware, workload, **QUICK) == free
        assert effsim.run("gpu_a100", "llama3_8b_decode", **QUICK).time_s == free.time_s
        assert _api.check_file("system_4xa100")[0] == "system"
        assert effsim.sweep({**STUDY, "workload": workload}, out=out / "points").statuses == {"ok": 1}
    with confined():
        assert effsim.run("system_4xa100", "llama3_8b_decode", **QUICK).time_s > 0
        with pytest.raises(UnknownNameError):
            effsim.run(hardware, "llama3_8b_decode", **QUICK)


def test_a_file_here_is_read_where_here_is_a_root(folders: tuple[Path, Path, Path], monkeypatch: Any) -> None:
    root, _, _ = folders
    _own_files(root)
    monkeypatch.chdir(root)
    with confined(Path()):
        assert effsim.run("card.yaml", "work.yaml", **QUICK).hardware == "Mine"


def test_messages_name_files_without_their_folders(folders: tuple[Path, Path, Path]) -> None:
    root, _, out = folders
    (root / "bad.yaml").write_text("extends: gpu_a100\nmemory: {bandwith: 1}\n")
    (root / "bad.json").write_text("{")
    bundled = str(catalogue.find("hardware", "gpu_a100").parent.parent)
    with confined(root):
        with pytest.raises(SpecError) as inside:
            effsim.run(str(root / "bad.yaml"), "llama3_8b_decode", **QUICK)
        within = str(inside.value)
    assert str(inside.value).startswith("bad.yaml:2:10: ")
    assert inside.value.location is not None
    assert inside.value.location.file == "bad.yaml"
    with pytest.raises(DataError, match=r"bad\.json:1:2: not JSON") as config, confined(root):
        _run(f"workload.model={root / 'bad.json'}")
    with pytest.raises(SpecError, match="hw_configs/system_4xa100") as system, confined(root):
        effsim.run("system_4xa100", "llama3_8b_decode", set=["hardware.devices.0.count=3"], **QUICK)
    with pytest.raises(DataError) as row, confined(root):
        _sweep(out, parameters=[{"path": "hardware", "values": [str(root / "bad.yaml")]}])
    for told in (within, str(inside.value), str(config.value), str(system.value), str(row.value)):
        assert str(root) not in told
        assert bundled not in told


def test_nested_confinement_only_narrows(tmp_path: Path) -> None:
    for name in ("a/b", "c"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "f").write_text("")
    (tmp_path / "a/f").write_text("")
    a, b, c = (tmp_path / name for name in ("a", "a/b", "c"))

    def seen() -> list[bool]:
        return [is_file(folder / "f") for folder in (a, b, c)]

    with confined(a):
        assert seen() == [True, True, False]
        with confined(b, c):
            assert seen() == [False, True, False]
            with confined():
                assert seen() == [False, False, False]
        with confined(tmp_path):
            assert seen() == [True, True, False]
    assert seen() == [True, True, True]


@pytest.mark.parametrize("raised", [ValueError, DataError, KeyboardInterrupt])
def test_an_error_inside_ends_the_confinement(raised: type[BaseException], tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(raised), confined(tmp_path / "x"):
        raise raised("text")
    assert layers() is None
    assert readable(tmp_path / "f") == tmp_path / "f"
    assert str(DataError(f"{tmp_path}/x/y")) == f"{tmp_path}/x/y"


@pytest.mark.parametrize("text", ["", "\0", "a" * 5000, "a/" * 3000, "/", "..", "/proc/self/environ", "~/x"])
def test_what_is_no_path_is_refused_like_one(text: str, tmp_path: Path) -> None:
    with confined(tmp_path):
        assert not is_file(Path(text))
        assert not exists(Path(text))
        with pytest.raises(FileNotFoundError):
            readable(Path(text))


def test_links_in_a_circle_are_missing(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with confined(tmp_path):
        assert not is_file(tmp_path / "a")


def test_a_root_behind_a_link_and_a_sibling_of_like_name(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "realistic").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for folder in ("real", "realistic"):
        (tmp_path / folder / "f").write_text("")
    with confined(tmp_path / "link"):
        assert is_file(tmp_path / "link" / "f")
        assert is_file(tmp_path / "real" / "f")
        assert not is_file(tmp_path / "realistic" / "f")


def test_no_file_outside_is_even_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = os.lstat

    def watched(path: Any, *args: Any, **named: Any) -> os.stat_result:
        asked.append(str(path))
        return real(path, *args, **named)

    monkeypatch.setattr(os, "lstat", watched)
    with confined(tmp_path / "root"):
        asked.clear()
        assert not is_file(tmp_path / "secret")
    assert asked == []


def test_threads_start_free_and_stay_apart(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    seen: list[bool] = []
    with confined():
        worker = threading.Thread(target=lambda: seen.append(is_file(tmp_path / "f")))
        worker.start()
        worker.join()
        assert not is_file(tmp_path / "f")
    assert seen == [True]


def test_what_is_kept_of_a_free_request_is_not_given_to_a_confined_one(
    folders: tuple[Path, Path, Path],
) -> None:
    _, outside, _ = folders
    part = catalogue.find("dram", "hbm2e").read_text()
    preset._bundled.cache_clear()
    (outside / "hbm2e").write_text(part.replace("one stack", MARK, 1))
    try:
        assert preset.load_preset("hbm2e").spec.description.startswith(MARK)  # a file here hides the bundled one
        with confined():
            assert not preset.load_preset("hbm2e").spec.description.startswith(MARK)
    finally:
        preset._bundled.cache_clear()


@pytest.fixture
def secrets(folders: tuple[Path, Path, Path]) -> Path:
    _, outside, _ = folders
    (outside / "card.yaml").write_text("extends: gpu_a100\nname: Mine\n")
    return outside / "card.yaml"


def test_a_job_carries_its_confinement(secrets: Path, folders: tuple[Path, Path, Path]) -> None:
    """What a worker process gets is applied there, whatever holds in it."""
    from effsim.explore.sweep.execute import Chunk, Job, work
    from effsim.explore.sweep.sampling import Points
    from effsim.spec.study import StudySpec

    study = StudySpec.model_validate({**STUDY, "parameters": [{"path": "hardware", "values": [str(secrets)]}]})
    points = tuple(Points(study, 0).take(0, 1))
    text = json.dumps(study.model_dump(mode="json"), sort_keys=True)
    statuses = []
    for root in (None, folders[0], None):
        found = None
        if root is not None:
            with confined(root):
                found = layers()
        statuses += [row["status"] for row in work(Job(text, ".", found), Chunk(0, 1, points))[1]]
    assert statuses[0] == statuses[2] == "ok"
    assert statuses[1] != "ok"


def test_processes_of_a_plan_start_confined(tmp_path: Path) -> None:
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    from effsim.spec.confine import enter

    (tmp_path / "f").write_text("")
    with (
        confined(tmp_path / "root"),
        ProcessPoolExecutor(1, get_context("spawn"), initializer=enter, initargs=(layers(),)) as pool,
    ):
        assert pool.submit(layers).result() == layers()
        assert pool.submit(is_file, tmp_path / "f").result() is False


def test_every_section_of_the_catalogue_is_bundled() -> None:
    with confined():
        for section in (*catalogue.SECTIONS, "generations"):
            for name in catalogue.names(section):
                assert is_file(catalogue.find(section, name))


def test_carrying_nothing_changes_nothing(tmp_path: Path) -> None:
    with confined(tmp_path):
        before = layers()
        with carried(None):
            assert layers() == before

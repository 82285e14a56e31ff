"""Whole sweeps: processes, kills, schedulers, what is on disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import effsim
from effsim.errors import DataError, SpecError
from effsim.explore.sweep import sweep as sweeping
from effsim.explore.sweep.execute import Chunk, Job, Processes, work
from effsim.explore.sweep.identity import digest
from effsim.spec.study import StudySpec

pytest.importorskip("pyarrow")
import pyarrow.parquet as pq

STUDY: dict[str, Any] = {
    "kind": "study",
    "name": "small",
    "hardware": "gpu_a100",
    "workload": "llama7b_decode",
    "parameters": [
        {"path": "hardware.memory.bandwidth", "range": {"low": "1 TB/s", "high": "2 TB/s", "points": 6}},
        {"path": "workload.batch", "values": [1, 32, 4096]},
        {"path": "workload.precision.activations", "values": ["fp16", "fp8"]},
    ],
    "constraints": ["memory.fits"],
    "objectives": [{"name": "time_s", "goal": "min"}, {"name": "tokens_per_s", "goal": "max"}],
}


def content(folder: Path) -> bytes:
    return (folder / "points.parquet").read_bytes()


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "CHUNK", {"roofline": 7, "analytic": 7, "events": 7})


@pytest.mark.usefixtures("small_parts")
def test_failures_are_rows_and_findings_are_those_of_the_rest(tmp_path: Path) -> None:
    found = effsim.sweep(STUDY, out=tmp_path / "a", processes=1)
    rows = found.table.to_pylist()
    assert [row["index"] for row in rows] == list(range(36))
    assert found.statuses == {"ok": 12, "does_not_fit": 12, "unsupported": 12}
    for row in rows:
        if row["workload.precision.activations"] == "fp8":  # an A100 has no fp8
            assert row["status"] in ("unsupported", "does_not_fit")
            assert row["message"]
        if row["workload.batch"] == 4096:
            assert row["status"] != "ok"
        assert (row["time_s"] is not None) == (row["status"] == "ok")
        assert row["feasible"] == (row["status"] == "ok")
    best = found.best["time_s"]
    assert best is not None
    assert best["time_s"] == min(row["time_s"] for row in rows if row["feasible"])
    assert best["hardware.memory.bandwidth"] == 2e12
    assert {i.path for i in found.importance} == {"hardware.memory.bandwidth", "workload.batch"}
    said = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert (said["schema"], said["points"], said["ok"] + said["failed"]) == ("effsim/sweep@1", 36, 36)


@pytest.mark.usefixtures("small_parts")
def test_a_sweep_goes_on_where_it_was_and_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    effsim.sweep(STUDY, out=tmp_path / "whole", processes=1)
    effsim.sweep(STUDY, out=tmp_path / "again", processes=1)
    parts = sorted((tmp_path / "again" / "parts").iterdir())
    kept = parts[1].stat().st_mtime_ns
    parts[3].unlink()
    (tmp_path / "again" / "points.parquet").unlink()
    (tmp_path / "again" / "parts" / ".part-000000021-000000028.parquet.1.tmp").write_bytes(b"half")
    done = []
    monkeypatch.setattr(sweeping.Store, "write", _spied(sweeping.Store.write, done))
    effsim.sweep(STUDY, out=tmp_path / "again", processes=1)
    assert done == [(21, 28)]
    assert parts[1].stat().st_mtime_ns == kept
    assert content(tmp_path / "again") == content(tmp_path / "whole")
    assert not list((tmp_path / "again" / "parts").glob(".*"))


def _spied(write: Any, done: list[tuple[int, int]]) -> Any:
    def spy(self: Any, start: int, stop: int, rows: Any) -> None:
        done.append((start, stop))
        write(self, start, stop, rows)

    return spy


def test_parts_of_another_study_are_not_mixed_in(tmp_path: Path) -> None:
    out = tmp_path / "out"
    effsim.sweep(STUDY, out=out, processes=1)
    other = STUDY | {"workload": "llama7b_prefill"}
    with pytest.raises(SpecError, match=r"another study.*--fresh"):
        effsim.sweep(other, out=out, processes=1)
    with pytest.raises(SpecError, match="another study"):
        effsim.sweep(STUDY, out=out, processes=1, seed=5)
    effsim.sweep(other, out=out, processes=1, fresh=True)
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "thesis.txt").write_text("years of work", encoding="utf-8")
    for fresh in (False, True):
        with pytest.raises(SpecError, match="not empty and holds no sweep"):
            effsim.sweep(STUDY, out=strange, processes=1, fresh=fresh)
    assert (strange / "thesis.txt").exists()


def test_a_changed_workload_file_is_another_study(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    text = "extends: llama7b_decode\nkind: workload\nname: mine\nbatch: 2\n"
    file.write_text(text, encoding="utf-8")
    study = tmp_path / "study.yaml"
    study.write_text(json.dumps(STUDY | {"workload": "mine.yaml", "parameters": STUDY["parameters"][:1]}))
    found = effsim.sweep(str(study), out=tmp_path / "out", processes=1)
    assert found.statuses == {"ok": 6}
    file.write_text(text.replace("batch: 2", "batch: 3"), encoding="utf-8")
    with pytest.raises(SpecError, match="files or a version that have changed"):
        effsim.sweep(str(study), out=tmp_path / "out", processes=1)


def test_without_pyarrow_one_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"pip install 'effsim\[sweep\]'"):
        effsim.sweep(STUDY, out=tmp_path / "out", processes=1)


@pytest.mark.parametrize(("module", "change"), [("optuna", {"method": "optuna", "samples": 4}), ("distributed", {})])
def test_without_optional_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, change: dict[str, Any]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    scheduler = "tcp://localhost:1" if module == "distributed" else None
    with pytest.raises(DataError, match=r"pip install 'effsim\[sweep\]'"):
        effsim.sweep(STUDY | change, out=tmp_path / "out", processes=1, scheduler=scheduler)


def test_duckdb_reads_the_points(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    effsim.sweep(STUDY, out=tmp_path / "a", processes=1)
    for files in ("parts/*.parquet", "points.parquet"):
        query = f"select count(*), sum(feasible::int) from '{tmp_path / 'a' / files}' where status = 'ok'"
        assert duckdb.sql(query).fetchall() == [(12, 12)]


def optuna_study(samples: int) -> dict[str, Any]:
    parameters = [
        {"path": "workload.batch", "range": {"low": 1, "high": 64, "scale": "log", "integer": True}},
        {"path": "hardware.memory.bandwidth", "range": {"low": "1 TB/s", "high": "4 TB/s"}},
    ]
    return STUDY | {"parameters": parameters, "method": "optuna", "samples": samples}


@pytest.mark.parametrize("several", [False, True])
def test_optuna_repeats_itself_after_an_interruption(tmp_path: Path, several: bool) -> None:
    pytest.importorskip("optuna")
    study = optuna_study(40)
    if not several:
        study["objectives"] = [{"name": "tokens_per_s", "goal": "max"}]
    found = effsim.sweep(study, out=tmp_path / "a", processes=1)
    assert found.table.num_rows == 40
    effsim.sweep(study, out=tmp_path / "b", processes=1)
    last = max((tmp_path / "b" / "parts").iterdir())
    last.unlink()
    effsim.sweep(study, out=tmp_path / "b", processes=1)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    if not several:
        tokens = [row["tokens_per_s"] for row in found.table.to_pylist()]
        assert sum(tokens[20:]) > sum(tokens[:20])  # the search found better places


def test_dask_gives_the_same_rows(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    effsim.sweep(STUDY, out=tmp_path / "here", processes=1)
    options = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        effsim.sweep(STUDY, out=tmp_path / "there", scheduler=client)
    assert content(tmp_path / "here") == content(tmp_path / "there")


def test_a_scheduler_that_is_none(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    with pytest.raises(SpecError, match="not the address of a scheduler"):
        effsim.sweep(STUDY, out=tmp_path / "out", scheduler="localhost")


# --- processes --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("small_parts")
def test_rows_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    for count in (1, 2, 3):
        effsim.sweep(STUDY, out=tmp_path / str(count), processes=count)
    assert content(tmp_path / "1") == content(tmp_path / "2") == content(tmp_path / "3")


def _chunks(job: Job, count: int) -> list[Chunk]:
    from effsim.explore.sweep.sampling import Points
    from effsim.spec.study import StudySpec

    points = Points(StudySpec.model_validate(json.loads(job.study)), 0)
    return [Chunk(i, i + 2, tuple(points.take(i, i + 2))) for i in range(0, 2 * count, 2)]


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_no_row_is_lost() -> None:
    job = Job(json.dumps(STUDY), ".")
    chunks = _chunks(job, 18)
    pool, found, killed = Processes(2), {}, False
    for chunk, rows in pool.run(job, chunks):
        found[chunk.start] = rows
        if not killed:
            os.kill(next(iter(pool._pool._processes)), signal.SIGKILL)
            killed = True
    pool.close()
    assert found == {chunk.start: work(job, chunk)[1] for chunk in chunks}


LONG = STUDY | {
    "parameters": [
        {"path": "workload.prompt", "range": {"low": 16, "high": 2000, "points": 90, "integer": True}},
        {"path": "workload.batch", "values": [1, 2]},
    ],
    "reading": "events",
}


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_sweep_killed_at_any_moment_continues_to_identical_results(tmp_path: Path, processes: str) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(json.dumps(LONG), encoding="utf-8")

    def command(out: str) -> list[str]:
        options = ["--out", str(tmp_path / out), "--processes", processes, "--quiet"]
        return [sys.executable, "-m", "effsim", "sweep", str(study), *options]

    subprocess.run(command("whole"), check=True)
    parts = tmp_path / "killed" / "parts"
    for wanted in (1, 4):
        run = subprocess.Popen(command("killed"))
        while run.poll() is None and len(list(parts.glob("part-*"))) < wanted if parts.exists() else True:
            time.sleep(0.02)
        run.send_signal(signal.SIGKILL)
        run.wait()
    assert not (tmp_path / "killed" / "points.parquet").exists()
    assert len(list(parts.glob("part-*"))) >= 4
    subprocess.run(command("killed"), check=True)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    assert pq.read_table(tmp_path / "killed" / "points.parquet").num_rows == 180


FILES = {
    "system.yaml": "kind: system\nname: pair\ndevices: [{hardware: parts/card.yaml, count: 2}]\n"
    "topology: [{name: nvlink, size: 2, kind: switch, bandwidth: 300 GB/s, latency: 1 us}]\n",
    "parts/card.yaml": "extends: gpu_a100\nname: card\nmemory: {bandwidth: 1.9 TB/s, dram: {preset: %s/parts/dram.yaml}}\n",
    "parts/dram.yaml": "extends: hbm2e\nname: part\n",
    "work.yaml": "extends: llama7b_decode\nname: work\nmodel: net.yaml\nengine: own.yaml\n",
    "net.yaml": "extends: llama2_7b\nname: net\n",
    "own.yaml": "extends: trtllm-like\nname: own\n",
}
"""A study's files, one named by another."""


@pytest.mark.parametrize("changed", FILES)
def test_a_study_is_another_when_a_file_inside_a_file_changes(changed: str, tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    for name, text in FILES.items():
        (tmp_path / name).write_text(text.replace("%s", str(tmp_path)))
    study = StudySpec.model_validate(STUDY | {"hardware": "system.yaml", "workload": "work.yaml"})
    before = digest(study, 0, tmp_path)
    assert digest(study, 0, tmp_path) == before
    with (tmp_path / changed).open("a") as file:
        file.write("notes: changed\n")
    assert digest(study, 0, tmp_path) != before
    assert digest(study, 1, tmp_path) != before

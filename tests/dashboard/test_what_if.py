"""The what-if page: its parameters, its controls, and that it shows what ``effsim.run`` computes."""

from __future__ import annotations

import io
import json
import zipfile
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("dash")

from dash import no_update
from dash.exceptions import PreventUpdate
from dashboard_browser import text
from hypothesis import given, settings
from hypothesis import strategies as st

import effsim
from effsim.dashboard import controls, parameters, what_if_actions, what_if_report
from effsim.dashboard.pages import what_if
from effsim.dashboard.service import Asked, RefusedError, Service
from effsim.dashboard.view import View
from effsim.devices.registry import load_machine
from effsim.program.workload_file import load_workload
from effsim.report import words
from effsim.units import DIMENSIONS, parse

CASES = (
    ("gpu_a100", "llama7b_decode"),
    ("cpu_xeon", "bert_base"),
    ("fpga_u280", "explicit_mlp_block"),
    ("system_dgx_h100", "llama3_70b_generate"),
    ("system_h100_attacc", "llama7b_decode"),
)
BANDWIDTH = "hardware.memory.bandwidth"
A100 = Asked("gpu_a100", "llama7b_decode", "analytic")
PAIRS = {case: parameters.tree(load_machine(case[0]), load_workload(case[1])[0]) for case in CASES}


def numbers(result: Any) -> dict[str, Any]:
    """What a run says without what depends on the origin of its numbers (an assumed one widens the interval)."""
    out: dict[str, Any] = result.to_dict()
    for name in (
        "assumptions",
        "sensitivity",
        "interval",
        "time_low_s",
        "time_high_s",
        "energy_low_j",
        "energy_high_j",
    ):
        out.pop(name)
    rows = [
        {k: v for k, v in row.items() if k not in ("time_low_s", "time_high_s", "evidence")} for row in out["operators"]
    ]
    phases = {
        n: {k: v for k, v in p.items() if "_low_" not in k and "_high_" not in k} for n, p in out["phases"].items()
    }
    return out | {"operators": rows, "phases": phases}


def run(asked: Asked, changes: tuple[str, ...] = ()) -> Any:
    return effsim.run(asked.hardware, asked.workload, engine=asked.engine, set=changes, sensitivity=False)


def parts_of(component: Any) -> Iterator[dict[str, Any]]:
    """Every component of an answer, as JSON."""
    yield from _walk(json.loads(text(component)))


def _walk(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from _walk(value)
    elif isinstance(node, list):
        for value in node:
            yield from _walk(value)


# --- parameters -------------------------------------------------------------------------------------------------------


@given(st.data())
@settings(max_examples=15, deadline=None)
def test_setting_a_parameter_to_its_own_text_changes_nothing(data: st.DataObject) -> None:
    case = data.draw(st.sampled_from(CASES))
    held = data.draw(st.sampled_from(list(PAIRS[case].parameters.values())))
    asked = Asked(*case, "roofline")
    changes = parameters.assigned((), held, held.text or parameters.NOTHING)
    assert numbers(run(asked, changes)) == numbers(run(asked))


@given(st.sampled_from(sorted(DIMENSIONS)), st.floats(1e-12, 1e15))
def test_the_text_of_a_quantity_is_read_as_the_same_number(dimension: str, value: float) -> None:
    value = float(round(value) + 1) if dimension == "count" else value
    if dimension == "ratio":
        value = value % 10.0 or 1.0
    assert parse(parameters.quantity_text(value, dimension), dimension) == value


@given(st.one_of(st.text(max_size=12), st.integers(-9, 10**6), st.booleans(), st.floats(0.0, 1e9)))
def test_the_text_of_a_plain_value_is_read_as_the_same_value(value: Any) -> None:
    from effsim.spec.overrides import apply
    from effsim.spec.yaml_loader import load_yaml_text

    if isinstance(value, str) and not value.isprintable():
        return
    document = apply(load_yaml_text("a: b", "t"), [f"hardware.a={parameters.scalar_text(value)}"], "hardware")
    assert document.data["a"] == value


@pytest.mark.parametrize("case", CASES)
def test_every_number_of_the_files_is_in_one_group(case: tuple[str, str]) -> None:
    found = PAIRS[case]
    machine = load_machine(case[0])
    device = "hardware.device" if machine.system else "hardware"
    listed = [p.path for held in found.groups.values() for p in held]
    assert sorted(listed) == sorted(found.parameters)
    lists = {p.path for p in found.parameters.values() if p.text.startswith("[")}
    for path, leaf in machine.spec.leaves():
        whole = f"{device}.{path}"
        if whole.rpartition(".")[0] not in lists:
            assert found.parameters[whole].number == float(leaf)
    assert max(len(held) for held in found.groups.values()) <= parameters.LARGE


def test_search_finds_paths_by_parts_of_words() -> None:
    found = [p.path for p in PAIRS[CASES[0]].search("bandw mem")]
    assert found[0] == BANDWIDTH
    assert PAIRS[CASES[0]].search("no such path") == []
    assert any(p.path.startswith("hardware.device.") for p in PAIRS[CASES[3]].search("bandw"))


def test_absent_fields_and_choices_come_from_the_model() -> None:
    held = PAIRS[CASES[0]].parameters
    cache = held["workload.precision.kv_cache"]
    assert cache.text == ""
    assert cache.optional
    assert {"fp8", "int8"} <= set(cache.choices)
    assert "eager-pytorch" in held["workload.engine"].choices
    assert held["hardware.l2.unified"].choices == ("true", "false")
    assert held["hardware.memory.bandwidth"].kind == "datasheet"
    assert held["hardware.memory.bandwidth"].source


def test_a_change_replaces_what_is_set_at_and_below_it() -> None:
    changes = ("workload.parallelism={tensor: 2}", "workload.parallelism.tensor=4", "workload.batch=2")
    assert parameters.with_change(changes, "workload.parallelism", "auto") == ("workload.parallelism=auto", changes[2])
    assert parameters.with_change(changes, "workload.batch", None) == changes[:2]


# --- sliders ----------------------------------------------------------------------------------------------------------


SLID = [p for found in PAIRS.values() for p in found.parameters.values() if controls.scale(p) is not None]


@given(st.sampled_from(SLID), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_a_slider_gives_valid_values_in_order(held: parameters.Parameter, first: float, second: float) -> None:
    around = controls.scale(held)
    assert around is not None
    low, high = sorted((first, second))
    ends = [around.low + share * (around.high - around.low) for share in (low, high)]
    values = [parse(around.text(p), held.dimension) if held.dimension else float(around.text(p)) for p in ends]
    assert values[0] <= values[1]
    for value in values:
        assert value > 0.0
        assert value >= held.least
        assert held.most is None or value <= held.most
        assert not held.whole or value.is_integer()


@pytest.mark.parametrize("held", SLID[::37], ids=lambda p: p.path)
def test_a_slider_that_nobody_moves_says_nothing(held: parameters.Parameter) -> None:
    around = controls.scale(held)
    assert around is not None
    assert what_if_actions._slid(held, around.position(around.base), ()) is None


# --- controls to changes ----------------------------------------------------------------------------------------------


def act(service: Service, kind: Any, value: Any, changes: tuple[str, ...] = (), path: Any = BANDWIDTH) -> Any:
    asked = Asked(A100.hardware, A100.workload, A100.engine, changes)
    return what_if_actions.acted(service, asked, (), {"type": kind, "path": path}, value)


def test_controls_become_changes(service: Service) -> None:
    assert act(service, "what-slider", 1.0) == ([f"{BANDWIDTH}=4.08 TB/s"], no_update)
    assert act(service, "what-text", " 4 TB/s ") == ([f"{BANDWIDTH}=4 TB/s"], no_update)
    assert act(service, "what-text", "2.039 TB/s", (f"{BANDWIDTH}=4 TB/s",)) == ([], no_update)
    assert act(service, "what-text", "", (f"{BANDWIDTH}=4 TB/s",)) == ([], no_update)
    path = "workload.precision.kv_cache"
    assert act(service, "what-choice", "fp8", (), path) == ([f"{path}=fp8"], no_update)
    assert act(service, "what-choice", "null", (f"{path}=fp8",), path) == ([], no_update)
    assert act(service, "what-undo", 1, (f"{BANDWIDTH}=4 TB/s", "workload.batch=2")) == (
        ["workload.batch=2"],
        no_update,
    )
    asked = Asked(A100.hardware, A100.workload, A100.engine, ("workload.batch=2",))
    assert what_if_actions.acted(service, asked, (), "what-reset", 1) == ([], no_update)
    assert what_if_actions.acted(service, asked, (), "what-pin-now", 1) == (no_update, ["workload.batch=2"])
    assert what_if_actions.acted(service, asked, ("workload.batch=2",), "what-unpin", 1) == (no_update, [])


@pytest.mark.parametrize(
    ("kind", "value", "path"),
    [
        ("what-slider", 0.0, BANDWIDTH),
        ("what-slider", "nan", BANDWIDTH),
        ("what-slider", [], BANDWIDTH),
        ("what-slider", 1.0, "../../etc/passwd"),
        ("what-text", {"a": 1}, BANDWIDTH),
        ("what-text", "x" * 10_000, BANDWIDTH),
        ("what-text", "2.039 TB/s", BANDWIDTH),
        ("what-undo", 0, BANDWIDTH),
        ("what-slider", 1.0, 5),
        (None, None, BANDWIDTH),
    ],
)
def test_what_says_nothing_is_no_update(service: Service, kind: Any, value: Any, path: Any) -> None:
    with pytest.raises(PreventUpdate):
        act(service, kind, value, (), path)


def test_a_forged_path_is_refused_by_the_parser(service: Service) -> None:
    for path in ("../../etc/passwd", "hardware.__class__", "workload.model=x\n", "os.system"):
        changes, _ = act(service, "what-text", "1", (), path)
        asked = Asked(A100.hardware, A100.workload, "analytic", tuple(changes))
        children, state, said = what_if.answer(service, asked, (), "what-shown")
        assert children is no_update
        assert state == "what-stale"
        assert "error" in text(said)


def test_controls_that_are_there_follow_the_changes(service: Service) -> None:
    asked = Asked(A100.hardware, A100.workload, "analytic", (f"{BANDWIDTH}=4078 GB/s",))
    kv = "workload.precision.kv_cache"
    got = what_if_actions.followed(service, asked, [[BANDWIDTH], [BANDWIDTH, "no.such"], [kv], [BANDWIDTH, kv]])
    assert got == [[1.0], ["4078 GB/s", no_update], ["null"], ["what-parameter what-moved", "what-parameter"]]


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "changes", "pin"),
    [
        (A100, (f"{BANDWIDTH}=3 TB/s", "workload.batch=8"), ()),
        (A100, ("workload.batch=8",), (f"{BANDWIDTH}=1 TB/s",)),
        (Asked("system_dgx_h100", "llama3_70b_generate", "roofline"), ("hardware.device.memory.bandwidth=4 TB/s",), ()),
        (Asked("cpu_xeon", "bert_base", "analytic"), ("hardware.memory.bandwidth=100 GB/s",), ()),
    ],
)
def test_what_is_shown_is_what_a_run_computes(
    service: Service, asked: Asked, changes: tuple[str, ...], pin: tuple[str, ...]
) -> None:
    before, now = run(asked, pin), run(asked, changes)
    changed = Asked(asked.hardware, asked.workload, asked.engine, changes)
    found = list(parts_of(what_if_report.report(service, changed, Asked(*changed_files(asked), pin))))
    cards = {p["data-key"]: text(p) for p in found if "data-key" in p}
    lines = {m.key: m for m in what_if_report.measures(now)}
    assert {"memory", "energy_j", "cost_usd"} <= cards.keys()
    for key, card in cards.items():
        assert json.dumps(lines[key].shown, ensure_ascii=False) in card
    for line, (name, phase) in zip(words.headlines(now), now.phases.items(), strict=False):
        assert any(json.dumps(line.value, ensure_ascii=False) in card for card in cards.values()), (name, phase)
    assert words.difference_sentence(before, now) in json.loads(json.dumps(what_if_report.cause(before, now)))
    figure = next(p["figure"] for p in found if p.get("id") == "what-figure-seconds")
    for trace, result in zip(figure["data"], (now, before), strict=True):
        shown = {name: said for name, said in zip(trace["y"], trace["customdata"], strict=True) if said != "0 ps"}
        assert shown == {name: words.seconds(s) for name, s in words.seconds_by_resource(result).items() if s > 0.0}
    memory = next(p["figure"] for p in found if p.get("id") == "what-figure-memory")
    used = [sum(t["x"][row] for t in memory["data"] if t["type"] == "bar") for row in (0, 1)]
    assert used == pytest.approx([float(r.memory["used_bytes"]) / words.GIB for r in (now, before)])
    command = next(p["content"] for p in found if "content" in p)
    assert all(change.partition("=")[0] in command for change in changes)


def changed_files(asked: Asked) -> tuple[str, str, str]:
    return asked.hardware, asked.workload, asked.engine


def test_differences_have_words() -> None:
    made = what_if_report.Measure
    assert what_if_report.difference(made("a", "a", 1.0, ""), made("a", "a", 2.0, "")) == ("+100.0 %, slower", "worse")
    rate = made("a", "a", 2.0, "", ("slower", "faster"), True)
    assert what_if_report.difference(made("a", "a", 1.0, ""), rate) == ("+100.0 %, faster", "better")
    assert what_if_report.difference(rate, rate) == ("unchanged", "soft")
    assert what_if_report.difference(None, rate)[0] == "not in the baseline"
    assert what_if_report.difference(rate, made("a", "a", None, "unknown"))[0] == ""


def test_what_does_not_fit_leaves_the_last_answer_in_grey(service: Service) -> None:
    asked = Asked("gpu_a100", "llama7b_decode", "analytic", ("workload.batch=100000",))
    children, state, said = what_if.answer(service, asked, (), "what-shown")
    assert children is no_update
    assert state == "what-stale"
    assert "does not fit" in text(said)
    children, state, said = what_if.answer(service, asked, (), "what-new")
    assert "no answer yet" in text(children)
    assert state == "what-new"
    assert "does not fit" in text(said)
    # the controls stay, so that it can be taken back
    made, options, group = what_if.control_list(service, asked, "workload", "")
    assert "workload.batch" in text(made)
    assert options
    assert group == "workload"


def test_a_link_restores_the_page(service: Service) -> None:
    view = View.parse(
        "?hardware=cpu_xeon&workload=bert_base&engine=events&set=workload.batch%3D2&pin=workload.batch%3D4&find=bandw"
    )
    shown = text(what_if.layout(service, view, []))
    for said in ('"cpu_xeon"', '"bert_base"', '"events"', '["workload.batch=2"]', '["workload.batch=4"]', '"bandw"'):
        assert said in shown
    listed = text(what_if.changed_list(service, what_if.asked_of(view), view.many("pin")))
    assert "undo workload.batch" in listed
    assert "workload.batch=4" in listed
    assert what_if.asked_of(View()).engine == "analytic"


def test_controls_of_a_group_and_of_a_search(service: Service) -> None:
    made, options, group = what_if.control_list(service, A100, "", "")
    assert group == "hardware.memory"
    assert {"hardware.clock", "workload.precision"} <= {o["value"] for o in options}
    shown = list(parts_of(made))
    ids = [p["id"] for p in shown if isinstance(p.get("id"), dict)]
    labels = {p["htmlFor"] for p in shown if "htmlFor" in p}
    for part in ids:
        if part["type"] in ("what-text", "what-choice"):
            assert controls.element_id(part["type"], part["path"]) in labels
    paths = frozenset(part["path"] for part in ids)
    assert what_if.control_list(service, A100, group, "", paths) == (no_update, no_update, no_update)
    made, _, _ = what_if.control_list(service, A100, "", "bandw")
    assert BANDWIDTH in text(made)
    assert "Not given" not in text(made)
    assert "No path" in text(what_if.control_list(service, A100, "", "zzz")[0])
    wrong = Asked("../../etc/passwd", "bert_base", "analytic")
    assert "error" in text(what_if.control_list(service, wrong, "", "")[0])


def test_degrees_can_be_given_instead_of_auto(service: Service) -> None:
    asked = Asked("gpu_a100", "llama70b_decode", "analytic")
    made, _, _ = what_if.control_list(service, asked, "workload", "")
    assert "degrees {tensor: 2}" in text(made)
    given = Asked(asked.hardware, asked.workload, "analytic", ("workload.parallelism={tensor: 2}",))
    changes, _ = what_if_actions.acted(
        service, given, (), {"type": "what-text", "path": "workload.parallelism.tensor"}, "4"
    )
    assert run(asked, tuple(changes)).parallelism["tensor"] == 4


def test_saved_files_compute_the_same(service: Service, tmp_path: Path) -> None:
    changes = (f"{BANDWIDTH}=3 TB/s", "workload.batch=8")
    asked = Asked(A100.hardware, A100.workload, "analytic", changes)
    files = [unpacked(what_if.saved(service, asked, what), tmp_path / what) for what in ("hardware", "workload")]
    again = effsim.run(str(files[0]), str(files[1]), engine="analytic", sensitivity=False)
    assert again.time_s == run(A100, changes).time_s
    assert json.loads(what_if.saved(service, asked, "json")["content"])["time_s"] == again.time_s
    assert what_if.saved(service, asked, "csv")["content"].count("\n") == len(again.operators) + 1
    with pytest.raises(RefusedError):
        what_if.saved(service, Asked("gpu_a100", "../x", "analytic"), "json")


def unpacked(download: dict[str, Any], folder: Path) -> Path:
    """The last file of a download, written with the others."""
    folder.mkdir()
    if not download.get("base64"):
        path = folder / download["filename"]
        path.write_text(download["content"], encoding="utf-8")
        return path
    with zipfile.ZipFile(io.BytesIO(b64decode(download["content"]))) as archive:
        archive.extractall(folder)
        return folder / archive.namelist()[-1]

"""The Chrome trace: valid, without overlaps, and true to the timeline and the tiles."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_runs import KINDS

from effsim import DataError
from effsim._api import FullRun
from effsim.report.trace import _COMPUTE, _HOST, _LINKS, _SIDE, MAX_DEVICES, match, trace_document, write_trace
from effsim.report.trace_tiles import FIRST_PROCESSOR, _budgets, processor_events

Event = dict[str, Any]
SLACK_US = 2e-6  # two picoseconds: a float of microseconds is rounded


_KEPT: dict[int, dict[str, Any]] = {}


def document(full: FullRun) -> dict[str, Any]:
    """The trace of a run; runs live as long as the session, so that their identity is a key."""
    if id(full) not in _KEPT:
        _KEPT[id(full)] = trace_document(full.result, full.machine.device, full.program)
    return _KEPT[id(full)]


def bars(events: Iterable[Event], pid: int = 0) -> dict[int, list[Event]]:
    """Bars of a process by thread, in order of time."""
    out: dict[int, list[Event]] = {}
    for event in events:
        if event["ph"] == "X" and event["pid"] == pid:
            out.setdefault(event["tid"], []).append(event)
    return {tid: sorted(found, key=lambda e: float(e["ts"])) for tid, found in out.items()}


@pytest.mark.parametrize("kind", ["generate", "train", "operators"])
@pytest.mark.parametrize("engine", ["events", "analytic", "roofline"])
def test_every_file_is_valid(full: Callable[..., FullRun], tmp_path: Path, kind: str, engine: str) -> None:
    run = full(kind, engine)
    path = tmp_path / "trace.json"
    write_trace(run.result, run.machine.device, run.program, path)
    data = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(name))
    for event in data["traceEvents"]:
        assert event["ph"] in "XMC"
        if event["ph"] == "X":
            assert event["ts"] >= -SLACK_US
            assert event["dur"] >= 0.0
        if event["ph"] != "M":
            assert isinstance(event["ts"], float)
    named = {(e["pid"], e["tid"]) for e in data["traceEvents"] if e["name"] == "thread_name"}
    assert {(e["pid"], e["tid"]) for e in data["traceEvents"] if e["ph"] == "X"} <= named


@pytest.mark.parametrize("kind", KINDS)
def test_bars_of_a_thread_do_not_overlap(full: Callable[..., FullRun], kind: str) -> None:
    for found in bars(document(full(kind))["traceEvents"]).values():
        for before, after in pairwise(found):
            assert before["ts"] + before["dur"] <= after["ts"] + SLACK_US


@pytest.mark.parametrize("kind", KINDS)
def test_streams_hold_the_timeline(full: Callable[..., FullRun], kind: str) -> None:
    run = full(kind)
    threads = bars(document(run)["traceEvents"])
    streams = [event for tid in (_COMPUTE, _LINKS, _SIDE) for event in threads.get(tid, [])]
    slices = run.result.timeline.slices
    assert len(streams) == len(slices)
    assert sum(e["dur"] for e in streams) == pytest.approx(sum(s.duration_ps for s in slices) / 1e6, rel=1e-9)
    compute = sum(s.duration_ps for s in slices if s.track == "compute") / 1e6
    assert sum(e["dur"] for e in threads[_COMPUTE]) == pytest.approx(compute, rel=1e-9)
    assert (_SIDE in threads) == any(r.node.overlap for r in match(run.result, run.machine.device, run.program))


def test_overlapped_collectives_have_a_thread_of_their_own(full: Callable[..., FullRun]) -> None:
    threads = bars(document(full("train"))["traceEvents"])
    assert {e["cat"] for e in threads[_SIDE]} == {"collective"}
    assert _LINKS in threads


@pytest.mark.parametrize("kind", KINDS)
def test_tiles_lie_inside_their_kernel(full: Callable[..., FullRun], kind: str) -> None:
    threads = bars(document(full(kind))["traceEvents"])
    tiles = [e for tid, found in threads.items() if tid >= FIRST_PROCESSOR for e in found]
    assert tiles
    starts = [kernel["ts"] for kernel in threads[_COMPUTE]]
    for tile in tiles:
        kernel = threads[_COMPUTE][bisect_right(starts, tile["ts"] + SLACK_US) - 1]
        assert tile["name"] == kernel["name"]
        assert tile["ts"] + tile["dur"] <= kernel["ts"] + kernel["dur"] + SLACK_US


def test_all_tiles_of_a_small_kernel_are_there_and_a_cap_is_kept(full: Callable[..., FullRun]) -> None:
    run = full("operators")
    runs = match(run.result, run.machine.device, run.program)
    first = [r for r in runs if r.first and r.kernel.classes]
    whole = sum(r.kernel.tiles for r in first)
    assert sum(e["ph"] == "X" for e in processor_events(0, runs)) == whole
    assert sum(e["ph"] == "X" for e in processor_events(0, runs, limit=10)) == 10


def test_only_the_first_copy_of_a_repeated_block_has_tiles(full: Callable[..., FullRun]) -> None:
    threads = bars(document(full("operators"))["traceEvents"])
    copies = [e for e in threads[_COMPUTE] if e["name"] == "block.soft"]
    tiles = [e for tid, found in threads.items() if tid >= FIRST_PROCESSOR for e in found if e["name"] == "block.soft"]
    assert len(copies) == 2
    assert max(e["ts"] + e["dur"] for e in tiles) <= copies[0]["ts"] + copies[0]["dur"] + SLACK_US


@pytest.mark.parametrize("kind", ["eager", "isolated", "decode"])
def test_a_kernel_starts_after_its_dispatch(full: Callable[..., FullRun], kind: str) -> None:
    threads = bars(document(full(kind))["traceEvents"])
    device = sorted((e for t in (_COMPUTE, _LINKS) for e in threads.get(t, [])), key=lambda e: float(e["ts"]))
    assert len(threads[_HOST]) == len(device)
    for launch, kernel in zip(threads[_HOST], device, strict=True):
        assert launch["name"] == f"launch {kernel['name']}"
        assert launch["ts"] + launch["dur"] <= kernel["ts"] + SLACK_US


def test_counters_give_back_the_bytes(full: Callable[..., FullRun]) -> None:
    run = full("operators")
    events = [e for e in document(run)["traceEvents"] if e["ph"] == "C" and e["name"].startswith("memory")]
    events.sort(key=lambda e: (e["ts"], e["args"]["bytes_per_s"] > 0.0))
    moved = sum(e["args"]["bytes_per_s"] * (after["ts"] - e["ts"]) / 1e6 for e, after in pairwise(events))
    runs = match(run.result, run.machine.device, run.program)
    assert moved == pytest.approx(sum(r.kernel.memory_bytes for r in runs), rel=1e-6)


def test_a_process_a_device_and_the_rest_is_named(full: Callable[..., FullRun]) -> None:
    run = full("generate")
    names = [e["args"]["name"] for e in document(run)["traceEvents"] if e["name"] == "process_name"]
    assert len(names) == 2
    many = replace(run.result, devices=MAX_DEVICES + 4)
    events = trace_document(many, run.machine.device, run.program)["traceEvents"]
    names = [e["args"]["name"] for e in events if e["name"] == "process_name"]
    assert len(names) == MAX_DEVICES
    assert "(devices 8 to 11 do the same)" in names[-1]


def test_without_a_schedule_operators_lie_end_to_end_and_the_name_says_so(full: Callable[..., FullRun]) -> None:
    run = full("decode", "analytic")
    events = document(run)["traceEvents"]
    assert "no schedule" in next(e["args"]["name"] for e in events if e["name"] == "process_name")
    found = sorted((e for es in bars(events).values() for e in es), key=lambda e: float(e["ts"]))
    assert found[-1]["ts"] + found[-1]["dur"] == pytest.approx(run.result.time_s / 4 * 1e6, rel=1e-9)  # four steps


def test_a_timeline_of_another_program_is_refused(full: Callable[..., FullRun]) -> None:
    one, other = full("decode"), full("operators")
    with pytest.raises(DataError, match="belong"):
        trace_document(one.result, other.machine.device, other.program)


@given(st.lists(st.integers(1, 100_000), max_size=20), st.integers(0, 60_000))
def test_budgets_spend_what_there_is_and_no_more(wanted: list[int], limit: int) -> None:
    given_out = _budgets(wanted, limit)
    assert sum(given_out) <= limit
    assert all(0 <= got <= want for got, want in zip(given_out, wanted, strict=True))
    assert sum(given_out) == min(limit, sum(wanted)) or limit - sum(given_out) < len(wanted)

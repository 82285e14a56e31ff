"""Figures: they exist for every task, and what they show adds up to the result."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from report_runs import DISTINCT, HOSTILE

from effsim import UnknownNameError
from effsim._api import FullRun
from effsim.report import words
from effsim.report.figure_style import look
from effsim.report.figures import compare_figure, figure, roofline_figure
from effsim.report.page import page

NAMES = ("operators", "energy", "roofline", "memory", "timeline", "sensitivity")


@pytest.mark.parametrize("kind", DISTINCT)
@pytest.mark.parametrize("name", NAMES)
def test_every_figure_of_every_task_is_plain_json(full: Callable[..., FullRun], kind: str, name: str) -> None:
    drawn = figure(full(kind).result, name)
    data = json.loads(drawn.to_json(), parse_constant=lambda constant: pytest.fail(constant))
    assert data["data"]


def test_an_engine_without_a_timeline_says_so(full: Callable[..., FullRun]) -> None:
    drawn = figure(full("decode", "analytic").result, "timeline")
    assert not drawn.data
    assert "no timeline" in drawn.layout.annotations[0].text


def test_bars_of_operators_sum_to_the_time(full: Callable[..., FullRun]) -> None:
    result = full("generate").result
    drawn = figure(result, "operators")
    unit = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}[drawn.layout.xaxis.title.text.split("(")[1].split(")")[0]]
    assert sum(sum(trace.x) for trace in drawn.data if trace.type == "bar") * unit == pytest.approx(
        result.time_s, rel=1e-9
    )


def test_bars_of_energy_sum_to_it(full: Callable[..., FullRun]) -> None:
    result = full("generate").result
    drawn = figure(result, "energy")
    scales = {"MJ": 1e6, "kJ": 1e3, "J": 1.0, "mJ": 1e-3, "µJ": 1e-6}
    unit = scales[drawn.layout.xaxis.title.text.split("(")[1].split(")")[0]]
    bars = {name: joules * unit for trace in drawn.data for name, joules in zip(trace.y, trace.x, strict=True)}
    assert sum(bars.values()) == pytest.approx(result.energy_j, rel=1e-9)
    assert bars["idle power"] == pytest.approx(result.idle_energy_j, rel=1e-9)
    shown = [bars[name] for name in drawn.layout.yaxis.categoryarray if not name.endswith("more")]
    assert shown == sorted(shown, reverse=True)


def test_unknown_energy_is_said_not_drawn(full: Callable[..., FullRun]) -> None:
    result = replace(full("decode").result, energy_j=None, idle_energy_j=None)
    drawn = figure(result, "energy")
    assert not drawn.data
    assert "unknown" in drawn.layout.annotations[0].text
    assert "Energy by operator" not in page(result)
    assert "Energy by operator" in page(full("decode").result)


def test_memory_bars_sum_to_the_used_bytes(full: Callable[..., FullRun]) -> None:
    result = full("train").result
    drawn = figure(result, "memory")
    used = sum(trace.x[0] for trace in drawn.data if trace.type == "bar") * words.GIB
    assert used == pytest.approx(result.memory["used_bytes"], rel=1e-9)


@pytest.mark.parametrize("kind", DISTINCT)
def test_no_operator_stands_above_the_highest_roof(full: Callable[..., FullRun], kind: str) -> None:
    result = full(kind).result
    peak = max(c.value for c in result.ceilings if c.kind == "compute")
    for point in words.roof_points(result):
        assert point.attained <= peak * (1 + 1e-9)
        assert point.share <= 1 + 1e-9


def test_comparing_stacks_the_time_of_each_machine(full: Callable[..., FullRun]) -> None:
    results = [full("decode").result, full("decode", "analytic").result]
    drawn = compare_figure(results)
    assert len(set(drawn.data[0].y)) == 2  # two bars although the machines have one name
    unit = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}[drawn.layout.xaxis.title.text.split("(")[1].split(")")[0]]
    for index, result in enumerate(results):
        bars = [trace for trace in drawn.data if trace.type == "bar"]  # beside them are the intervals
        assert sum(trace.x[index] for trace in bars) * unit == pytest.approx(result.time_s, rel=1e-9)
    assert roofline_figure(results).data


def test_unknown_figure_names_the_nearest(full: Callable[..., FullRun]) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'roofline'"):
        full("decode").result.figure("rooflin")


def test_unknown_resources_have_a_steady_colour() -> None:
    assert look("bank") == look("bank")
    assert look("memory") != look("matrix")


def test_names_in_figures_are_no_markup(full: Callable[..., FullRun]) -> None:
    from dataclasses import replace

    result = full("decode").result
    hostile = replace(result, operators=tuple(replace(row, name=HOSTILE) for row in result.operators))
    for name in ("operators", "roofline"):
        text = figure(hostile, name).to_json()
        assert "<script" not in text
        assert "u003cscript" not in text

"""Figures of several pairs of a machine and a workload; each result carries its pair's label as its hardware."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING, Any, Final

from ..report import words
from ..report.figure_style import BAR_PX, FRAME_PX, INK, RESOURCES, bar_label, base_figure, distinct, filling
from ..report.figures import compare_figure, roofline_figure
from ..report.result import RunResult

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

SYMBOLS: Final = (
    *("circle", "diamond", "square", "triangle-up", "cross", "star", "x", "pentagon", "hexagram", "triangle-down"),
    *("hourglass", "bowtie", "circle-open", "diamond-open", "square-open", "triangle-up-open", "cross-open"),
    *("star-open", "x-open", "pentagon-open", "hexagram-open", "triangle-down-open", "hourglass-open", "bowtie-open"),
)
"""One for every pair that a page compares."""
_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#999999")
_LEGEND_PX: Final = 22
_WIDE: Final = 20.0
"""Largest over smallest value from which an axis is logarithmic."""


def time_figure(results: Sequence[RunResult], bars: str) -> Figure:
    """Time of the whole run by resource, with its interval; or the share of each resource."""
    return _share_figure(results) if bars == "share" else compare_figure(results)


def _share_figure(results: Sequence[RunResult]) -> Figure:
    import plotly.graph_objects as go

    labels = distinct([bar_label(result.hardware) for result in results])
    totals = [words.seconds_by_resource(result) for result in results]
    found = {name for total in totals for name in total}
    order = {name: place for place, name in enumerate(RESOURCES)}
    out = base_figure(FRAME_PX + 2 * BAR_PX * len(results), bargap=0.35)
    for name in sorted(found, key=lambda name: (order.get(name, len(order)), name)):
        each = zip(totals, results, strict=True)
        shares = [100.0 * t.get(name, 0.0) / r.time_s if r.time_s else 0.0 for t, r in each]
        hover = f"%{{y}}<br>{escape(words.plain(name))} %{{x:.3g}} %<extra></extra>"
        bar = {"y": labels, "x": shares, "orientation": "h", "marker": filling(name), "hovertemplate": hover}
        out.add_trace(go.Bar(name=escape(words.plain(name)), **bar))
    out.update_yaxes(autorange="reversed", showgrid=False)
    out.update_xaxes(title={"text": "share of the whole run (%)"})
    return out


def rooflines(results: Sequence[RunResult]) -> Figure:
    """Rooflines of all pairs: the marker's shape tells the pair, its colour what binds the operator.

    The legend has one entry a pair, which shows and hides its roofs and operators.
    """
    out = roofline_figure(results)
    if len(results) == 1:
        return out
    names = [escape(words.plain(result.hardware)) for result in results]
    places: dict[str, int] = {}
    for trace in out.data:
        name = str(trace.name)
        place = next((i for i, n in enumerate(names) if name.startswith(f"{n}: ") or name.endswith(f"({n})")), 0)
        trace.legendgroup, trace.showlegend = str(place), False
        if trace.mode == "markers":
            trace.marker.symbol = SYMBOLS[place % len(SYMBOLS)]
            trace.hovertemplate = f"{names[place]}<br>%{{text}}<extra></extra>"
        places[str(place)] = place
    for place in places.values():
        _entry(out, names[place], place)
    out.update_layout(height=out.layout.height + _LEGEND_PX * max(0, len(results) - 3), hoverlabel={"namelength": -1})
    return out


def _entry(out: Figure, name: str, place: int) -> None:
    """An entry of the legend that stands for everything of a pair."""
    import plotly.graph_objects as go

    marker = {"symbol": SYMBOLS[place % len(SYMBOLS)], "size": 10, "color": INK}
    out.add_trace(go.Scatter(x=[None], y=[None], mode="markers", name=name, marker=marker, legendgroup=str(place)))


def cost_figure(results: Sequence[RunResult], machines: Sequence[str]) -> Figure | None:
    """US dollars per million tokens against tokens a second, with names of *machines*; None where no pair has both."""
    import plotly.graph_objects as go

    named = [replace(result, hardware=name) for result, name in zip(results, machines, strict=True)]
    known = [(r, t, d) for r in named if (t := words.tokens_per_s(r)) and (d := words.dollars_per_million(r))]
    if not known:
        return None
    out = base_figure(420)
    workloads = list(dict.fromkeys(result.workload for result, _, _ in known))
    for index, workload in enumerate(workloads):
        mine = [entry for entry in known if entry[0].workload == workload]
        ends = [_rate_ends(result, tokens) for result, tokens, _ in mine]
        error: dict[str, Any] = {"type": "data", "color": INK, "thickness": 1.2, "width": 4}
        error |= {"array": [above for _, above in ends], "arrayminus": [below for below, _ in ends]}
        out.add_trace(
            go.Scatter(
                x=[tokens for _, tokens, _ in mine],
                y=[dollars for _, _, dollars in mine],
                error_x=error,
                mode="markers+text",
                name=escape(words.plain(workload)),
                text=[bar_label(result.hardware) for result, _, _ in mine],
                textposition="top center",
                marker={"size": 12, "color": _COLOURS[index % len(_COLOURS)], "symbol": SYMBOLS[index % len(SYMBOLS)]},
                showlegend=len(workloads) > 1,
                hovertemplate="%{text}<br>%{x:,.4g} tokens/s<br>$%{y:.3g} per million tokens<extra></extra>",
            )
        )
    out.update_xaxes(title={"text": "tokens/s (right is faster)"}, **_axis([t for _, t, _ in known]))
    out.update_yaxes(title={"text": "US$ per million tokens"}, **_axis([d for _, _, d in known]))
    return out


def _rate_ends(result: RunResult, tokens: float) -> tuple[float, float]:
    """How far the rate reaches below and above, as the interval of the run's time says."""
    if not result.time_low_s or not result.time_high_s:
        return 0.0, 0.0
    return tokens * (1.0 - result.time_s / result.time_high_s), tokens * (result.time_s / result.time_low_s - 1.0)


def _axis(values: Sequence[float]) -> dict[str, Any]:
    if max(values) > _WIDE * min(values):
        return {"type": "log", "exponentformat": "SI"}
    return {"rangemode": "tozero"}

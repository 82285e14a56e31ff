"""Plotly figures of a run, in the style of :mod:`~.figure_style`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Final

from ..errors import UnknownNameError, nearest
from ..explore.sensitivity import STEP
from ..units import format_quantity
from . import words
from .energy_figure import energy_figure
from .figure_style import (
    BAR_PX,
    FRAME_PX,
    INK,
    RESOURCES,
    TOP,
    bar_label,
    base_figure,
    distinct,
    empty_figure,
    filling,
    look,
    row_label,
)
from .result import Ceiling, OperatorRow, RunResult

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_MAX_BARS: Final = 3000
_PS_PER_US: Final = 1e6
_MARKER_MIN, _MARKER_SPAN = 8.0, 26.0
_ROOF_MARGIN: Final = 4.0
_TEXT_ROOM: Final = 0.2
_MEMORY_COLOURS: Final = ("#0072B2", "#56B4E9", "#009E73", "#E69F00", "#CC79A7", "#D55E00", "#F0E442", "#999999")
_MACHINE_SYMBOLS: Final = ("circle", "diamond", "square", "triangle-up", "cross", "star")


def figure(result: RunResult, which: str) -> Figure:
    """A figure of one run: ``operators``, ``energy``, ``roofline``, ``memory``, ``timeline`` or ``sensitivity``.

    Raises:
        UnknownNameError: no such figure.
    """
    draw = _FIGURES.get(which)
    if draw is None:
        names = ", ".join(_FIGURES)
        raise UnknownNameError(f"no figure {which!r}", expected=f"one of {names}", suggestion=nearest(which, _FIGURES))
    return draw(result)


def _scaled(values: Iterable[float]) -> tuple[float, str]:
    """Divisor and unit that make the largest of *values* (seconds) readable."""
    largest = max(values, default=0.0)
    for limit, scale, unit in ((1.0, 1.0, "s"), (1e-3, 1e-3, "ms"), (1e-6, 1e-6, "µs")):
        if largest >= limit:
            return scale, unit
    return 1e-9, "ns"


def _resources(rows: Sequence[OperatorRow]) -> list[str]:
    """Resources of *rows*, in the palette's order, so that stacks look alike in every figure."""
    found = words.seconds_by_resource(rows)
    order = {name: index for index, name in enumerate(RESOURCES)}
    return sorted(found, key=lambda name: (order.get(name, len(order)), name))


def _operators(result: RunResult) -> Figure:
    """Time of the longest operators, stacked by resource."""
    import plotly.graph_objects as go

    rows = words.by_time(result.operators)
    many = len(result.phases) > 1
    shown, rest = rows[:TOP], rows[TOP:]
    bars = [(row_label(row, many), row.time_s, row.terms) for row in shown]
    if rest:
        bars.append((f"{len(rest)} more", sum(r.time_s for r in rest), words.seconds_by_resource(rest)))
    scale, unit = _scaled(time for _, time, _ in bars)
    out = base_figure(FRAME_PX + BAR_PX * len(bars), bargap=0.25)
    labels = distinct([label for label, _, _ in bars])
    names = [escape(row.name) for row in shown] + [""] * bool(rest)
    for resource in _resources(rows):
        values = [terms.get(resource, 0.0) / scale for _, _, terms in bars]
        out.add_trace(
            go.Bar(
                y=labels,
                x=values,
                name=escape(resource),
                orientation="h",
                marker=filling(resource),
                customdata=names,
                hovertemplate=f"%{{y}}<br>{escape(resource)} %{{x:.4g}} {unit}<extra></extra>",
            )
        )
    _error_bars(out, shown, labels, scale, unit)
    out.update_yaxes(autorange="reversed", showgrid=False)
    out.update_xaxes(title={"text": f"time ({unit}), whole run"}, rangemode="tozero")
    return out


def _error_bars(
    out: Figure, rows: Sequence[OperatorRow | RunResult], labels: Sequence[str], scale: float, unit: str
) -> None:
    """Whiskers at the ends of the bars: the interval of each operator's or run's time."""
    import plotly.graph_objects as go

    known = [(row, label) for row, label in zip(rows, labels, strict=False) if row.time_high_s is not None]
    if not known:
        return
    above = [((row.time_high_s or row.time_s) - row.time_s) / scale for row, _ in known]
    below = [(row.time_s - (row.time_low_s or 0.0)) / scale for row, _ in known]
    ends = [f"{words.seconds(row.time_low_s or 0.0)} to {words.seconds(row.time_high_s or 0.0)}" for row, _ in known]
    out.add_trace(
        go.Scatter(
            x=[row.time_s / scale for row, _ in known],
            y=[label for _, label in known],
            mode="markers",
            marker={"size": 1, "color": INK},
            name="nine measurements of ten",
            customdata=ends,
            error_x={"type": "data", "array": above, "arrayminus": below, "color": INK, "thickness": 1.2, "width": 4},
            hovertemplate=f"%{{y}}<br>%{{x:.4g}} {unit}, %{{customdata}}<extra></extra>",
        )
    )


def _roofline(result: RunResult) -> Figure:
    """Operators under the roofs of one device."""
    return roofline_figure([result])


def roofline_figure(results: Sequence[RunResult]) -> Figure:
    """Log-log roofline of one device: every compute peak and bandwidth as a roof, operators sized by their time.

    With several machines only the highest roofs of each are drawn, and the marker's shape tells the machine.
    """
    out = base_figure(520)
    spans = [[p.intensity for p in words.roof_points(r) if p.intensity > 0.0] for r in results]
    low, high = _span([value for span in spans for value in span], [c for r in results for c in r.ceilings])
    for index, result in enumerate(results):
        _roofs(out, result, low, high, single=len(results) == 1, index=index)
        _points(out, result, single=len(results) == 1, index=index)
    tick = {"exponentformat": "power", "dtick": 1}
    out.update_xaxes(type="log", title={"text": "arithmetic intensity (FLOP/byte)"}, **tick)
    out.update_yaxes(type="log", title={"text": "FLOP/s of one device"}, **tick)
    return out


def _span(intensities: Sequence[float], ceilings: Sequence[Ceiling]) -> tuple[float, float]:
    """Range of intensities that shows all points and the ridge of the roof."""
    peaks = [c.value for c in ceilings if c.kind == "compute"]
    rates = [c.value for c in ceilings if c.kind == "bandwidth"]
    ridge = [max(peaks) / min(rates)] if peaks and rates else [1.0]
    every = [*intensities, *ridge]
    return min(every) / _ROOF_MARGIN, max(every) * _ROOF_MARGIN


def _roofs(out: Figure, result: RunResult, low: float, high: float, *, single: bool, index: int) -> None:
    import plotly.graph_objects as go

    peaks = [c for c in result.ceilings if c.kind == "compute" and c.value > 0.0]
    rates = [c for c in result.ceilings if c.kind == "bandwidth" and c.value > 0.0]
    if not single:
        peaks, rates = peaks[:1], rates[:1]
    top = max((c.value for c in peaks), default=0.0)
    steepest = max((c.value for c in rates), default=0.0)
    machine = "" if single else f"{words.plain(result.hardware)}: "
    for order, roof in enumerate(rates + peaks):
        if roof.kind == "bandwidth":
            knee = top / roof.value if top else high
            xs = [low, min(high, max(low, knee))]
            ys = [x * roof.value for x in xs]
            colour, text = RESOURCES["memory"][0], format_quantity(roof.value, "bandwidth")
        else:
            xs = [min(high, max(low, roof.value / steepest if steepest else low)), high]
            ys = [roof.value, roof.value]
            colour, text = RESOURCES["matrix"][0], format_quantity(roof.value, "flop_rate")
        name = escape(f"{machine}{words.plain(roof.name)} {text}")
        dash = ("solid", "dash", "dot", "dashdot")[(order if single else index) % 4]
        line = {"color": colour, "width": 2, "dash": dash}
        out.add_trace(go.Scatter(x=xs, y=ys, mode="lines", name=name, line=line, hoverinfo="name"))


def _points(out: Figure, result: RunResult, *, single: bool, index: int) -> None:
    import plotly.graph_objects as go

    points = [p for p in words.roof_points(result) if p.intensity > 0.0]
    if not points:
        return
    longest = max(p.row.time_s for p in points)
    groups: dict[str, list[words.RoofPoint]] = {}
    for point in points:
        groups.setdefault(point.row.bound, []).append(point)
    machine = "" if single else f" ({words.plain(result.hardware)})"
    for bound, group in groups.items():
        sizes = [_MARKER_MIN + _MARKER_SPAN * (p.row.time_s / longest) ** 0.5 for p in group]
        line = {"width": 1, "color": "white"}
        symbol = _MACHINE_SYMBOLS[index % len(_MACHINE_SYMBOLS)]
        out.add_trace(
            go.Scatter(
                x=[p.intensity for p in group],
                y=[p.attained for p in group],
                mode="markers",
                name=escape(f"{words.plain(bound)}-bound{machine}"),
                marker={"size": sizes, "color": look(bound)[0], "opacity": 0.8, "line": line, "symbol": symbol},
                text=[_point_text(p) for p in group],
                customdata=[escape(p.row.name) for p in group],
                hovertemplate="%{text}<extra></extra>",
            )
        )


def _point_text(point: words.RoofPoint) -> str:
    terms = "<br>".join(f"{escape(words.plain(k))} {words.seconds(v)}" for k, v in point.row.terms.items())
    return (
        f"<b>{escape(words.plain(point.row.name))}</b> ({escape(point.row.phase)})<br>"
        f"{point.intensity:.3g} FLOP/byte, {format_quantity(point.attained, 'flop_rate')} a device<br>"
        f"{words.percent(point.share)} of its roof ({escape(words.plain(point.roof))})<br>"
        f"{words.seconds(point.row.time_s)} in all<br>{terms}"
    )


def _memory(result: RunResult) -> Figure:
    """What fills one device, against its capacity."""
    return memory_figure([result])


def memory_figure(results: Sequence[RunResult]) -> Figure:
    """One stacked bar a machine (per device, GiB) with a line at its capacity."""
    import plotly.graph_objects as go

    out = base_figure(FRAME_PX + 2 * BAR_PX * len(results), bargap=0.35)
    labels = distinct([bar_label(result.hardware) for result in results])
    for (part, key), colour in zip(words.MEMORY_PARTS, _MEMORY_COLOURS, strict=True):
        sizes = [float(result.memory.get(key, 0.0)) / words.GIB for result in results]
        if any(size > 0.0 for size in sizes):
            hover = f"{part} %{{x:.3g}} GiB<extra></extra>"
            marker = {"color": colour, "line": {"color": "white", "width": 1}}
            out.add_trace(go.Bar(y=labels, x=sizes, name=part, orientation="h", marker=marker, hovertemplate=hover))
    capacities = [float(result.memory["capacity_bytes"]) / words.GIB for result in results]
    out.add_trace(
        go.Scatter(
            x=capacities,
            y=labels,
            mode="markers",
            name="capacity",
            marker={"symbol": "line-ns", "size": 34, "line": {"width": 3, "color": INK}},
            hovertemplate="capacity %{x:.4g} GiB<extra></extra>",
        )
    )
    out.update_xaxes(title={"text": "GiB on one device"}, rangemode="tozero")
    out.update_yaxes(autorange="reversed", showgrid=False)
    return out


def _timeline(result: RunResult) -> Figure:
    """Bars of the first step of each phase, one row a stream, coloured by what binds the kernel."""
    import plotly.graph_objects as go

    slices = result.timeline.slices
    tracks = list(dict.fromkeys(s.track for s in slices))
    if not slices:
        return empty_figure("no timeline: this engine computes times without a schedule", FRAME_PX + 60)
    out = base_figure(FRAME_PX + 60 * len(tracks))
    groups: dict[str, list[Any]] = {}
    for bar in slices[:_MAX_BARS]:
        groups.setdefault(str(dict(bar.detail).get("bound", "other")), []).append(bar)
    for bound, bars in groups.items():
        out.add_trace(
            go.Bar(
                y=[bar_label(bar.track) for bar in bars],
                x=[bar.duration_ps / _PS_PER_US for bar in bars],
                base=[bar.start_ps / _PS_PER_US for bar in bars],
                name=escape(words.plain(bound)),
                orientation="h",
                marker=filling(bound),
                text=[_slice_text(bar) for bar in bars],
                textposition="none",
                hovertemplate="%{text}<br>%{x:.4g} µs from %{base:.4g} µs<extra></extra>",
            )
        )
    out.update_layout(barmode="overlay", bargap=0.2)
    title = "µs" if len(slices) <= _MAX_BARS else f"µs (the first {_MAX_BARS} of {len(slices)} kernels)"
    out.update_xaxes(title={"text": title}, exponentformat="none", separatethousands=True, rangemode="tozero")
    out.update_yaxes(autorange="reversed", showgrid=False, categoryorder="array", categoryarray=tracks)
    return out


def _slice_text(bar: Any) -> str:
    kernel = dict(bar.detail).get("kernel", "")
    return f"<b>{escape(words.plain(bar.name))}</b><br>{escape(words.plain(str(kernel)))}"


def _sensitivity(result: RunResult) -> Figure:
    """What 10 % more of each parameter does to the time."""
    import plotly.graph_objects as go

    rows = words.strongest(result, TOP)
    changes = [100.0 * (STEP ** float(row["elasticity"]) - 1.0) for row in rows]
    labels = distinct([bar_label(str(row["path"]).removeprefix("hardware.")) for row in rows])
    out = base_figure(FRAME_PX + BAR_PX * max(1, len(rows)), bargap=0.3)
    out.add_trace(
        go.Bar(
            y=labels,
            x=changes,
            orientation="h",
            showlegend=False,
            marker={"color": [RESOURCES["memory" if change < 0.0 else "matrix"][0] for change in changes]},
            text=[words.signed_percent(change / 100.0) for change in changes],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y} +10 %<br>time %{text}<extra></extra>",
        )
    )
    out.update_yaxes(autorange="reversed", showgrid=False)
    low, high = min([*changes, 0.0]), max([*changes, 0.0])
    room = _TEXT_ROOM * (high - low or 1.0)  # for the numbers at the ends of the bars
    span = [low - room if low < 0.0 else 0.0, high + room if high > 0.0 else room]
    title = {"text": "change of the time for 10 % more (%)"}
    out.update_xaxes(title=title, range=span, zeroline=True, zerolinecolor=INK)
    return out


def compare_figure(results: Sequence[RunResult]) -> Figure:
    """Time of one workload on several machines, stacked by the resource that binds it."""
    import plotly.graph_objects as go

    scale, unit = _scaled(result.time_s for result in results)
    labels = distinct([bar_label(result.hardware) for result in results])
    totals = [words.seconds_by_resource(result) for result in results]
    out = base_figure(FRAME_PX + 2 * BAR_PX * len(results), bargap=0.35)
    for resource in _resources([row for result in results for row in result.operators]):
        out.add_trace(
            go.Bar(
                y=labels,
                x=[total.get(resource, 0.0) / scale for total in totals],
                name=escape(words.plain(resource)),
                orientation="h",
                marker=filling(resource),
                hovertemplate=f"%{{y}}<br>{escape(resource)} %{{x:.4g}} {unit}<extra></extra>",
            )
        )
    _error_bars(out, results, labels, scale, unit)
    out.update_yaxes(autorange="reversed", showgrid=False)
    out.update_xaxes(title={"text": f"time ({unit}), whole run"})
    return out


_FIGURES: Final[Mapping[str, Callable[[RunResult], Figure]]] = {
    "operators": _operators,
    "energy": energy_figure,
    "roofline": _roofline,
    "memory": _memory,
    "timeline": _timeline,
    "sensitivity": _sensitivity,
}

"""Figures of accuracy: how errors are spread, and every measurement beside its prediction."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Final

from ..report import words
from ..report.figure_style import FRAME_PX, INK, base_figure, distinct
from ..validation.record import Figure as Score
from .accuracy import FITTED, Rows, counts, target

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_ROW_PX: Final = 34
_NAME: Final = 27
_MOST_POINTS: Final = 40_000
_MOST_LABELS: Final = 4_000
"""Points that carry the name of their operator."""
_KINDS: Final = 10
_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#B59F00", "#A3704C")
_OTHER: Final = "#999999"
_BIN, _LOW, _HIGH = 0.05, -1.0, 1.5
_TITLES: Final = {"s": "time (s)", "J": "energy (J)", "B": "memory (bytes)", "tokens/s": "tokens/s"}


def spread_figure(scores: Sequence[Score]) -> Figure:
    """The signed errors of each figure as lines and a mark; the size of the errors where no record of their spread is.

    Thin: from 5 to 95 % of the rows; thick: the middle half; mark: the median row; diamond: the mean.
    """
    signed = all(score.quantiles is not None for score in scores)
    labels = distinct([_label(score) for score in scores])
    out = base_figure(FRAME_PX + _ROW_PX * len(scores))
    told = [_told(score) for score in scores]
    limits = [target(score) for score in scores]
    if signed:
        band = [(-limit, limit) if limit is not None else None for limit in limits]
        _segments(out, labels, band, "± target of the median size", {"width": 16, "color": "rgba(128,128,128,0.28)"})
        ends = [score.quantiles or (0.0,) * 7 for score in scores]
        _segments(out, labels, [(e[0], e[6]) for e in ends], "5 to 95 %", {"width": 2, "color": "#0072B2"})
        _segments(out, labels, [(e[2], e[4]) for e in ends], "25 to 75 %", {"width": 9, "color": "#56B4E9"})
        _marks(out, labels, [e[3] for e in ends], "median error", "line-ns", told)
        _marks(out, labels, [score.bias for score in scores], "bias (mean)", "diamond", told)
        title = "error (%)"
    else:
        ends_of = [(score.median, score.p90) for score in scores]
        _segments(out, labels, ends_of, "median to p90", {"width": 2, "color": "#0072B2"})
        _marks(out, labels, [score.median for score in scores], "median size", "circle", told)
        known = [(label, limit) for label, limit in zip(labels, limits, strict=True) if limit is not None]
        _marks(out, [label for label, _ in known], [limit for _, limit in known], "target", "line-ns", [])
        title = "size of the error (%)"
    out.update_xaxes(title={"text": title}, zeroline=True, zerolinecolor=INK)
    out.update_yaxes(categoryorder="array", categoryarray=labels[::-1], showgrid=False, range=[-0.7, len(labels) - 0.3])
    return out


def _label(score: Score) -> str:
    """Where and what below each other, short enough for a phone."""
    where, what = words.plain(score.where), words.plain(score.what)
    where = where if len(where) <= _NAME else f"…{where[-_NAME + 1 :]}"
    return f"{escape(where)}<br>{escape(words.shorten(what, _NAME))}"


def _told(score: Score) -> str:
    bias = f"bias {words.signed_percent(score.bias)}"
    worst = "" if score.worst is None else f", worst {words.signed_percent(score.worst)}"
    return (
        f"{escape(words.plain(score.where))}: {escape(words.plain(score.what))}<br>{score.n:,} rows, median size "
        f"{words.percent(score.median)}, p90 {words.percent(score.p90)}<br>{bias}{worst}"
    )


def _segments(
    out: Figure,
    labels: Sequence[str],
    ends: Sequence[tuple[float, float] | None],
    name: str,
    line: dict[str, Any],
) -> None:
    import plotly.graph_objects as go

    xs: list[float | None] = []
    ys: list[str | None] = []
    for label, pair in zip(labels, ends, strict=True):
        if pair is not None:
            xs += [100.0 * pair[0], 100.0 * pair[1], None]
            ys += [label, label, None]
    if xs:
        out.add_trace(go.Scatter(x=xs, y=ys, mode="lines", name=name, line=line, hoverinfo="skip"))


def _marks(
    out: Figure, labels: Sequence[str], values: Sequence[float], name: str, symbol: str, told: Sequence[str]
) -> None:
    import plotly.graph_objects as go

    line = symbol.startswith("line")
    marker: dict[str, Any] = {"symbol": symbol, "size": 14 if line else 8, "color": INK if line else "#D55E00"}
    marker["line"] = {"width": 3 if line else 0, "color": INK}
    out.add_trace(
        go.Scatter(
            x=[100.0 * value for value in values],
            y=list(labels),
            mode="markers",
            name=name,
            marker=marker,
            text=list(told) or None,
            hovertemplate="%{text}<extra></extra>" if told else f"{name} %{{x:.1f}} %<extra></extra>",
        )
    )


def scatter_figure(rows: Rows, unit: str) -> Figure:
    """Predicted against measured of one unit, both logarithmic, with the diagonal; colours are kinds.

    Of more than 40,000 rows every second, third … is drawn.
    """
    import numpy as np
    import plotly.graph_objects as go

    step = -(-len(rows) // _MOST_POINTS)
    rows = rows.where(np.arange(len(rows)) % step == 0)
    kinds = np.array(rows.of("what"))
    top = list(counts(rows.of("what")))[:_KINDS]
    out = base_figure(560)
    low = float(min(rows.measured.min(), rows.predicted[rows.predicted > 0.0].min(initial=rows.measured.min())))
    high = float(max(rows.measured.max(), rows.predicted.max()))
    diagonal = {"width": 1.5, "color": INK, "dash": "dash"}
    out.add_trace(go.Scatter(x=[low, high], y=[low, high], mode="lines", name="equal", line=diagonal, hoverinfo="skip"))
    many = len(rows) > _MOST_LABELS
    for index, kind in enumerate([*top, ""]):
        mask = kinds == kind if kind else ~np.isin(kinds, top)
        mine = rows.where(mask & (rows.predicted > 0.0))
        if not len(mine):
            continue
        name = escape(words.shorten(words.plain(kind), 40)) if kind else "other kinds"
        colour = _COLOURS[index % len(_COLOURS)] if kind else _OTHER
        label = None if many else [escape(words.shorten(words.plain(text), 120)) for text in mine.labels]
        head = name if many else f"{name}<br>%{{text}}"
        out.add_trace(
            go.Scattergl(
                x=mine.measured,
                y=mine.predicted,
                mode="markers",
                name=name,
                text=label,
                marker={"size": 5, "opacity": 0.55, "color": colour},
                hovertemplate=f"{head}<br>measured %{{x:.4g}}<br>predicted %{{y:.4g}}<extra></extra>",
            )
        )
    tick = {"type": "log", "exponentformat": "power", "dtick": 1}
    title = _TITLES.get(unit, escape(unit))
    out.update_xaxes(title={"text": f"measured {title}"}, **tick)
    out.update_yaxes(title={"text": f"predicted {title}"}, **tick)
    out.update_layout(legend={"itemsizing": "constant"})
    return out


def error_figure(rows: Rows) -> Figure:
    """How often each signed error occurs; what is beyond the ends is in the last bars."""
    import numpy as np
    import plotly.graph_objects as go

    edges = np.linspace(_LOW, _HIGH, round((_HIGH - _LOW) / _BIN) + 1)
    middles = 100.0 * (edges[:-1] + edges[1:]) / 2.0
    out = base_figure(380, bargap=0.05)
    for (value, name), colour in zip(FITTED.items(), ("#56B4E9", "#0072B2", _OTHER), strict=True):
        errors = np.clip(rows.error[rows.fitted == value], _LOW, np.nextafter(_HIGH, 0.0))
        if len(errors):
            found, _ = np.histogram(errors, edges)
            hover = f"{name}<br>near %{{x:.0f}} %: %{{y:,}} rows<extra></extra>"
            out.add_trace(go.Bar(x=middles, y=found, name=name, marker={"color": colour}, hovertemplate=hover))
    out.update_xaxes(title={"text": f"error (%), last bar: {100 * _HIGH:.0f} and more"})
    out.update_yaxes(title={"text": "rows"})
    return out

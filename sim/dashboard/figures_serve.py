"""Figures of the Serve page that reports do not have: one load after another."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from ..report.figure_style import INK, base_figure
from ..report.serving_figures import BLUE, GREEN, ORANGE
from ..serving.metrics import ServeResult
from ..units import format_quantity

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Points = Sequence[tuple[float, ServeResult]]
"""(times the load, what came of it), by growing load."""
_HEIGHT: Final = 300
_WIDE: Final = 20.0
"""Ratio of latencies from which an axis is logarithmic."""


def curve_figures(points: Points, *, offered: float, unit: str) -> list[tuple[str, Figure]]:
    """p95 latencies and goodput over the load. *offered* is the load at 1, in *unit*."""
    x = [times * offered for times, _ in points]
    promised = points[0][1].slo
    return [
        ("p95 of the time to first token", _latency(x, points, lambda r: r.ttft_s, promised["ttft_s"], unit)),
        ("p95 of the time a token after it", _latency(x, points, lambda r: r.tpot_s, promised["tpot_s"], unit)),
        ("requests a second within both promises", _goodput(x, points, unit)),
    ]


def _latency(x: Sequence[float], points: Points, of: Callable[[ServeResult], Any], limit: float, unit: str) -> Figure:
    import plotly.graph_objects as go

    values = [None if (p := of(result)) is None else float(p["p95"]) for _, result in points]
    text = ["" if v is None else format_quantity(v, "time") for v in values]
    out = _base(unit)
    line = {"color": BLUE, "width": 2.5}
    hover = f"%{{text}} at %{{x:.3g}} {unit}<extra></extra>"
    out.add_trace(go.Scatter(x=list(x), y=values, mode="lines+markers", line=line, text=text, hovertemplate=hover))
    known = [v for v in values if v] + [limit]
    logarithmic = max(known) > _WIDE * min(known)
    out.add_hline(y=limit, line={"color": ORANGE, "width": 2, "dash": "dash"})
    out.add_annotation(
        x=0.0,
        xref="paper",
        xanchor="left",
        y=math.log10(limit) if logarithmic else limit,
        yanchor="bottom",
        showarrow=False,
        text=f"promised {format_quantity(limit, 'time')}",
    )
    if logarithmic:
        ticks = [v for e in range(-6, 6) for v in (1.0 * 10.0**e, 3.0 * 10.0**e)]
        out.update_yaxes(type="log", tickvals=ticks, ticktext=[format_quantity(v, "time") for v in ticks])
    else:
        out.update_yaxes(title={"text": "s"}, rangemode="tozero")
    return out


def _goodput(x: Sequence[float], points: Points, unit: str) -> Figure:
    import plotly.graph_objects as go

    ended = [r.completed / r.duration_s if r.duration_s else 0.0 for _, r in points]
    good = [r.goodput_requests_per_s for _, r in points]
    out = _base(unit, showlegend=True)
    rows = (("all that ended", ended, INK, "dot"), ("within both promises", good, GREEN, "solid"))
    for name, values, colour, dash in rows:
        line = {"color": colour, "width": 2.5, "dash": dash}
        hover = f"{name}: %{{y:.3g}} requests/s at %{{x:.3g}} {unit}<extra></extra>"
        out.add_trace(go.Scatter(x=list(x), y=values, mode="lines+markers", name=name, line=line, hovertemplate=hover))
    out.update_yaxes(title={"text": "requests/s"}, rangemode="tozero")
    return out


def _base(unit: str, *, showlegend: bool = False) -> Figure:
    out = base_figure(_HEIGHT, showlegend=showlegend)
    out.update_xaxes(title={"text": f"load ({unit})"}, rangemode="tozero")
    out.update_layout(margin={"l": 8, "r": 12, "t": 76, "b": 44})
    return out

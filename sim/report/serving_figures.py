"""Plotly figures of a served load."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Final

from ..serving.metrics import ServeResult
from ..units import format_quantity
from .figure_style import INK, base_figure
from .serving_lines import Fleet, distribution, finished, rates

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

BLUE, ORANGE, GREEN, YELLOW, PINK = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7"
_STATES: Final = {"starting": YELLOW, "draining": PINK, "down": ORANGE}
SHOWN: Final = 0.99
"""Share of requests up to which a distribution is drawn; what took longer is found by zooming out."""
_HEIGHT: Final = 300
_NARROW: Final[dict[str, Any]] = {"margin": {"l": 8, "r": 12, "t": 44, "b": 44}}


def latency_figures(result: ServeResult) -> list[tuple[str, Figure]]:
    """Cumulative distributions of the three latencies, with the promises as lines."""
    done = finished(result)
    tpot = [t for t in (r.tpot_s for r in done) if t is not None]
    return [
        ("time to first token", _cdf([r.ttft_s for r in done], result.slo["ttft_s"])),
        ("time a token after it", _cdf(tpot, result.slo["tpot_s"])),
        ("whole request", _cdf([r.e2e_s for r in done], None)),
    ]


def _cdf(values: Sequence[float], promised: float | None) -> Figure:
    import plotly.graph_objects as go

    scale, unit = (1.0, "s") if max(values, default=0.0) >= 1.0 else (1e-3, "ms")
    x, y = distribution(values)
    out = base_figure(_HEIGHT, showlegend=False)
    hover = f"%{{y:.1%}} within %{{x:.4g}} {unit}<extra></extra>"
    line = {"color": BLUE, "width": 2.5, "shape": "hv"}
    out.add_trace(go.Scatter(x=[v / scale for v in x], y=y, mode="lines", line=line, hovertemplate=hover))
    if promised is not None:
        out.add_vline(x=promised / scale, line={"color": ORANGE, "width": 2, "dash": "dash"})
    most = next((v for v, share in zip(x, y, strict=True) if share >= SHOWN), 0.0)
    reach = max(most, promised or 0.0) / scale
    if promised is not None:
        out.add_annotation(
            x=promised / scale,
            y=1.02,
            xanchor="right" if promised / scale > reach / 2 else "left",
            yanchor="bottom",
            showarrow=False,
            text=escape(f"promised {format_quantity(promised, 'time')}"),
        )
    out.update_xaxes(title={"text": unit}, rangemode="tozero", range=[0.0, 1.05 * reach])
    out.update_yaxes(range=[0.0, 1.02], tickformat=".0%")
    out.update_layout(**_NARROW)
    return out


def _lines(times: Sequence[float], rows: Sequence[tuple[str, Sequence[float], str, str]], title: str) -> Figure:
    """Lines over time: (name, values, colour, dash)."""
    import plotly.graph_objects as go

    out = base_figure(_HEIGHT, hovermode="x unified")
    for name, values, colour, dash in rows:
        line = {"color": colour, "width": 2, "shape": "hv", "dash": dash}
        out.add_trace(go.Scatter(x=list(times), y=list(values), mode="lines", name=escape(name), line=line))
    out.update_xaxes(title={"text": "time (s)"}, rangemode="tozero")
    out.update_yaxes(title={"text": title}, rangemode="tozero")
    return out


def queue_figure(fleet: Fleet) -> Figure:
    """Requests that wait, run, or are anywhere."""
    rows = [
        ("in flight", fleet.in_flight, INK, "dot"),
        ("in a batch", fleet.running, BLUE, "solid"),
        ("in a queue", fleet.waiting, ORANGE, "solid"),
    ]
    return _lines(fleet.times_s, rows, "requests")


def cache_figure(fleet: Fleet) -> Figure:
    """How full the caches are."""
    rows = [
        ("fullest replica", fleet.cache_most, ORANGE, "dot"),
        ("mean of the replicas", fleet.cache_mean, BLUE, "solid"),
    ]
    out = _lines(fleet.times_s, rows, "share of pages in use")
    out.update_yaxes(range=[0.0, 1.02], tickformat=".0%")
    return out


def replica_figure(fleet: Fleet) -> Figure:
    """Replicas by what they do."""
    serving = iter((BLUE, GREEN))
    rows = [
        (name, values, _STATES[name] if name in _STATES else next(serving), "dash" if name in _STATES else "solid")
        for name, values in fleet.replicas.items()
    ]
    return _lines(fleet.times_s, rows, "replicas")


def rate_figure(result: ServeResult) -> Figure:
    """Requests that ended a second: those that kept both promises, and the others on top."""
    import plotly.graph_objects as go

    times, good, late = rates(result)
    out = base_figure(_HEIGHT, bargap=0.05)
    for name, values, colour, hatch in (("within both promises", good, GREEN, ""), ("late", late, ORANGE, "/")):
        marker = {"color": colour, "line": {"width": 0}, "pattern": {"shape": hatch, "fillmode": "overlay"}}
        hover = f"{name}: %{{y:.3g}} requests/s<extra></extra>"
        out.add_trace(go.Bar(x=times, y=values, name=name, marker=marker, hovertemplate=hover))
    out.update_xaxes(title={"text": "time (s)"})
    out.update_yaxes(title={"text": "requests/s that ended"})
    return out

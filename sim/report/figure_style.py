"""The look of figures. Colours are by resource, from a palette that colour-blind readers can tell apart; hatching,
order and labels repeat what colour says. Backgrounds are transparent, so that a figure stands on light and dark pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Final

from . import words
from .result import OperatorRow

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

CONFIG: Final[dict[str, Any]] = {
    "displaylogo": False,
    "responsive": True,
    "modeBarButtonsToRemove": ["lasso2d", "select2d", "sendChartToCloud"],
    "showSendToCloud": False,
    "plotlyServerURL": "",
}
"""Options of plotly.js for every page: nothing is sent anywhere."""

INK: Final = "#767676"
"""Grey with a contrast of 4.5 to 1 on both white and black."""

GRID: Final = "rgba(128,128,128,0.25)"
_HATCH: Final = "rgba(255,255,255,0.7)"
FONT: Final = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"

RESOURCES: Final[dict[str, tuple[str, str]]] = {
    "matrix": ("#D55E00", ""),
    "vector": ("#E69F00", ""),
    "special": ("#F0E442", "x"),
    "l1": ("#8CC7EE", "\\"),
    "l2": ("#56B4E9", "/"),
    "memory": ("#0072B2", ""),
    "network": ("#009E73", ""),
    "latency": ("#999999", "."),
    "launch": ("#CC79A7", ""),
    "host": ("#7A5195", "-"),
}
"""Colour (Okabe and Ito, 2008, and neighbours) and hatching of each resource; others take what is left, by name."""

_SPARE: Final = (("#B59F00", "/"), ("#5E81AC", "x"), ("#A3704C", "\\"), ("#6B8E23", "."))
TOP: Final = 14
_NAME: Final = 34
BAR_PX, FRAME_PX = 26, 160


def look(resource: str) -> tuple[str, str]:
    """Colour and hatching of a resource, the same in every figure."""
    known = RESOURCES.get(resource)
    return known or _SPARE[sum(resource.encode()) % len(_SPARE)]


def filling(resource: str) -> dict[str, Any]:
    """Filling of a resource's bars: its colour, with its hatching drawn over it."""
    colour, hatch = look(resource)
    pattern = {"shape": hatch, "fillmode": "overlay", "fgcolor": _HATCH, "fgopacity": 1.0, "size": 6}
    return {"color": colour, "pattern": pattern, "line": {"width": 0}}


def base_figure(height: int, **layout: Any) -> Figure:
    """An empty figure in the style of the reports."""
    import plotly.graph_objects as go

    out = go.Figure()
    out.update_layout(
        template="none",
        height=height,
        font={"family": FONT, "size": 13, "color": INK},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 10, "r": 16, "t": 76, "b": 44},
        legend={"orientation": "h", "x": 0.0, "y": 1.02, "yanchor": "bottom", "traceorder": "normal"},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": INK, "activecolor": RESOURCES["memory"][0]},
        hoverlabel={"align": "left", "font": {"family": FONT, "size": 12}},
        barmode="stack",
        **layout,
    )
    axis = {"gridcolor": GRID, "zerolinecolor": GRID, "linecolor": INK, "automargin": True}
    out.update_xaxes(**axis)
    out.update_yaxes(**axis)
    return out


def bar_label(name: str) -> str:
    """A name for a plot: no markup, the informative end kept when it is long."""
    text = words.plain(name)
    return escape(text if len(text) <= _NAME else f"…{text[-_NAME + 1 :]}")


def row_label(row: OperatorRow, many: bool) -> str:
    """The name of a row's bar, with its phase where a run has several."""
    return bar_label(f"{row.phase}: {row.name}" if many else row.name)


def distinct(labels: Sequence[str]) -> list[str]:
    """Labels made unique: categories of an axis that are equal would fall together."""
    seen: dict[str, int] = {}
    out = []
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        out.append(label if seen[label] == 1 else f"{label} ({seen[label]})")
    return out


def empty_figure(text: str, height: int) -> Figure:
    """A figure that says why there is nothing to show."""
    out = base_figure(height)
    out.add_annotation(text=text, showarrow=False, xref="paper", yref="paper", x=0.5, y=0.5)
    out.update_xaxes(visible=False)
    out.update_yaxes(visible=False)
    return out

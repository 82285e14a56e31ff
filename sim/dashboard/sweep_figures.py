"""Figures of a sweep: points with their Pareto front, parallel coordinates, what matters."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from ..report.figure_style import GRID, INK
from ..report.sweep_words import column_title
from .sweep_drawing import (
    HEIGHTS,
    MOST_TICKS,
    PALETTE,
    TICKS,
    Figure,
    colours,
    escaped,
    frame,
    number,
    packed,
    positions,
    short,
)
from .sweep_points import Column, Points
from .sweep_view import Chosen, Controls

FRONT: Final = "#d1495b"
FLAGS: Final = [[0.0, "#9aa0a6"], [1.0, "#d95f02"]]
"""Colours of lines that are not, and that are selected."""
_FEW_DECADES: Final = 2.5
_BAR_PX: Final = 18


# --- points and front -------------------------------------------------------------------------------------------------


def scatter(points: Points, controls: Controls, chosen: Chosen) -> Figure:
    """Two columns against each other, coloured by a third; the Pareto front on top."""
    x, y = points.columns[controls.x], points.columns[controls.y]
    out = frame(
        HEIGHTS["scatter"], dragmode="zoom", hovermode="closest", uirevision=f"{x.name} {y.name} {controls.log}"
    )
    groups = places(points)
    names = ("within the constraints", "outside the constraints") if len(groups) > 1 else ("points",)
    selected = chosen.mask(points) if chosen.source else None
    for at, (name, group) in enumerate(zip(names, groups, strict=True)):
        marker = colours(points, controls.colour, group, bar=at == 0)
        marker |= {"size": 6, "opacity": 0.9} if at == 0 else {"size": 7, "symbol": "x-thin-open", "opacity": 0.45}
        trace = _trace(points, controls, group, name) | {"mode": "markers", "marker": marker}
        if selected is not None:
            trace["selectedpoints"] = positions(selected[group])
        out["data"].append(trace)
    out["data"].append(_front(points, controls))
    layout = out["layout"]
    layout["xaxis"] |= _axis(x, points, "x" in controls.log)
    layout["yaxis"] |= _axis(y, points, "y" in controls.log)
    layout["margin"] |= {"l": 56, "b": 52, "t": 64}
    return out


def _axis(column: Column, points: Points, log: bool) -> Figure:
    """Title, scale and ticks of an axis."""
    out: Figure = {"title": {"text": escaped(column.title)}, "type": "log" if log else "linear"}
    known = column.values[points.ok & (column.values > 0.0)]
    if log and len(known):
        few = math.log10(float(known.max()) / float(known.min())) < _FEW_DECADES
        out["dtick"] = "D2" if few else 1
    return out


def places(points: Points) -> list[Any]:
    """Rows of the table that are drawn, by trace: those that keep the constraints, and those that do not."""
    kept = points.feasible[points.drawn]
    if not points.study.constraints or kept.all():
        return [points.drawn]
    return [points.drawn[kept], points.drawn[~kept]]


def _trace(points: Points, controls: Controls, members: Any, name: str) -> Figure:
    """What traces of the scatter plot have in common."""
    x, y, colour = (points.columns[name] for name in (controls.x, controls.y, controls.colour))
    lines = [f"{escaped(c.title)}: %{{{axis}:,.4g}}" for c, axis in ((x, "x"), (y, "y"))]
    third = escaped(column_title(colour.name))
    said = None
    if colour.words or colour.log:
        said = [escaped(colour.text(v)) for v in colour.values[members].tolist()]
        lines.append(f"{third}: %{{text}}")
    else:
        lines.append(f"{escaped(colour.title)}: %{{marker.color:,.4g}}")
    out: Figure = {
        "type": "scattergl",
        "name": name,
        "x": packed(x.values[members]),
        "y": packed(y.values[members]),
        "customdata": points.index[members].tolist(),
        "hovertemplate": "<br>".join(["point %{customdata}", *lines]) + "<extra></extra>",
        "unselected": {"marker": {"opacity": 0.12}},
        "selected": {"marker": {"opacity": 1.0}},
    }
    return out | ({"text": said} if said is not None else {})


def _front(points: Points, controls: Controls) -> Figure:
    """The front: a line where both objectives are on the axes, marks elsewhere."""
    x, y = points.columns[controls.x], points.columns[controls.y]
    order = points.front[np.argsort(x.values[points.front], kind="stable")]
    several = len(points.objectives) > 1
    both = len(points.objectives) == 2 and {x.name, y.name} == {*points.objectives}
    trace = _trace(points, controls, order, "Pareto front" if several else "best")
    trace |= {
        "mode": "lines+markers" if both else "markers",
        # What a front gives between two of its points is what the worse of them gives.
        "line": {"color": FRONT, "width": 2, "shape": "hv" if points.goal(x.name) == "min" else "vh"},
        "marker": {"size": 11, "symbol": "circle-open", "color": FRONT, "line": {"width": 2.5}},
        "unselected": {"marker": {"opacity": 0.6}},
    }
    trace["hovertemplate"] = trace["hovertemplate"].rsplit("<br>", 1)[0] + "<br>on the front<extra></extra>"
    trace.pop("text", None)
    return trace


# --- parallel coordinates ---------------------------------------------------------------------------------------------


def parallel(points: Points, controls: Controls, chosen: Chosen) -> Figure:
    """A line a point, across the axes of the study and its objectives."""
    dimensions = [_dimension(points, name, chosen) for name in dimension_names(points)]
    out = frame(HEIGHTS["parallel"], uirevision=chosen.revision)
    out["data"].append(
        {
            "type": "parcoords",
            "dimensions": dimensions,
            "line": lines(points, controls, chosen),
            "labelangle": -14,
            "labelside": "top",
            "labelfont": {"size": 12, "color": INK},
            "tickfont": {"size": 11, "color": INK},
            "rangefont": {"size": 1, "color": "rgba(0,0,0,0)"},
            "unselected": {"line": {"color": "#9aa0a6", "opacity": 0.12}},
        }
    )
    out["layout"]["margin"] = {"l": 100, "r": 84, "t": 96, "b": 28}
    return out


def dimension_names(points: Points) -> list[str]:
    """Columns of the parallel coordinates: the axes and the objectives that are known somewhere."""
    names = dict.fromkeys([*points.parameters, *points.objectives])
    return [n for n in names if len(points.drawn) and not np.isnan(points.columns[n].values[points.drawn]).all()]


def _dimension(points: Points, name: str, chosen: Chosen) -> Figure:
    column = points.columns[name]
    shown = column.shown[points.drawn]
    known = shown[~np.isnan(shown)]
    low, high = float(known.min()), float(known.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    # What is not known stands below everything that is.
    out: Figure = {
        "name": name,
        "label": short(column.title),
        "values": packed(np.where(np.isnan(shown), low - 0.08 * (high - low), shown).astype(np.float32)),
        "range": [low - 0.1 * (high - low) if len(known) < len(shown) else low, high],
    }
    if column.words:
        out |= {
            "tickvals": list(range(len(column.words)))[:MOST_TICKS],
            "ticktext": [short(word) for word in column.words[:MOST_TICKS]],
        }
    else:
        at = np.unique(known) if len(np.unique(known)) <= 2 * TICKS else np.linspace(low, high, TICKS)
        out |= {"tickvals": at.tolist(), "ticktext": [number(10.0**v if column.log else v) for v in at.tolist()]}
    if len(known) < len(shown):
        out["tickvals"] = [low - 0.08 * (high - low), *out["tickvals"]]
        out["ticktext"] = ["unknown", *out["ticktext"]]
    pairs = chosen.ranges.get(name)
    return out | ({"constraintrange": [[*pair] for pair in pairs]} if pairs else {})


def lines(points: Points, controls: Controls, chosen: Chosen) -> Figure:
    """Colours of the lines: of the column that is chosen, or selected and not where another figure selects."""
    if chosen.source == "scatter":
        flags = chosen.mask(points)[points.drawn].astype(np.uint8)
        return {"color": packed(flags), "colorscale": FLAGS, "cmin": 0, "cmax": 1, "showscale": False}
    out = colours(points, controls.colour, points.drawn, bar=False)
    out.pop("colorbar")
    return out


# --- what matters -----------------------------------------------------------------------------------------------------


def importance(points: Points) -> Figure:
    """Bars of the first-order Sobol indices, grouped by parameter."""
    found = points.result.importance
    paths = list(reversed(dict.fromkeys(i.path for i in found)))
    objectives = list(dict.fromkeys(i.objective for i in found))
    out = frame(120 + _BAR_PX * max(1, len(objectives)) * max(2, len(paths)), barmode="group")
    for at, name in enumerate(objectives):
        values = {i.path: i.value for i in found if i.objective == name}
        bars = [values.get(path) for path in paths]
        out["data"].append(
            {
                "type": "bar",
                "orientation": "h",
                "name": escaped(name),
                "y": [short(column_title(path)) for path in paths],
                "x": bars,
                "text": ["" if v is None else f"{100 * v:.0f} %" for v in bars],
                "textposition": "outside",
                "cliponaxis": False,
                "marker": {"color": PALETTE[at % len(PALETTE)], "line": {"width": 0}},
                "hovertemplate": "%{y}: %{x:.3f}<extra>" + escaped(name) + "</extra>",
            }
        )
    out["layout"]["xaxis"] |= {"range": [0, 1.12], "tickformat": ".0%", "tickvals": [0, 0.25, 0.5, 0.75, 1]}
    out["layout"]["margin"] |= {"t": 44, "b": 36, "l": 20}
    out["layout"]["yaxis"] |= {"gridcolor": GRID}
    return out

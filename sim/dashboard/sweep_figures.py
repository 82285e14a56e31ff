"""Figures of a sweep: points with their Pareto front, parallel coordinates, a heat map, what matters."""

from __future__ import annotations

import base64
import copy
import math
from functools import cache
from html import escape
from typing import Any, Final

import numpy as np

from ..report import words
from ..report.figure_style import GRID, INK, RESOURCES, base_figure, look
from ..report.sweep_words import column_title
from .sweep_points import Column, Points
from .sweep_view import Chosen, Controls

FRONT: Final = "#d1495b"
FLAGS: Final = [[0.0, "#9aa0a6"], [1.0, "#d95f02"]]
"""Colours of lines that are not, and that are selected."""
PALETTE: Final = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#B59F00", "#7A5195", "#999999", "#A3704C",
)  # fmt: skip
"""Okabe and Ito (2008), and neighbours."""
SCALE: Final = "Viridis"
MOST_TICKS: Final = 24
HEIGHTS: Final = {"scatter": 520, "parallel": 420, "heat": 480}
"""Pixels of figures that change while they stand."""
_BINS: Final = 16
_MOST_TEXT: Final = 120
_TICKS: Final = 5
_FEW_DECADES: Final = 2.5
_BAR_PX: Final = 18
_LONG: Final = 28
Figure = dict[str, Any]


@cache
def _bare(height: int) -> Figure:
    made: Figure = base_figure(height).to_plotly_json()
    return {"data": [], "layout": made["layout"]}


def _frame(height: int, **layout: Any) -> Figure:
    """An empty figure in the style of the reports, as plain data."""
    out = copy.deepcopy(_bare(height))
    out["layout"] |= layout
    return out


def _e(text: str) -> str:
    return escape(words.plain(text))


def number(value: float) -> str:
    """Three digits, without an exponent where it can be helped.

    >>> number(2310.4), number(0.91234), number(3.2e12)
    ('2,310', '0.912', '3.2e+12')
    """
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:.3g}"


def _short(text: str) -> str:
    return _e(text if len(text) <= _LONG else f"…{text[-_LONG + 1 :]}")


# --- points and front -------------------------------------------------------------------------------------------------


def scatter(points: Points, controls: Controls, chosen: Chosen) -> Figure:
    """Two columns against each other, coloured by a third; the Pareto front on top."""
    x, y = points.columns[controls.x], points.columns[controls.y]
    out = _frame(
        HEIGHTS["scatter"], dragmode="zoom", hovermode="closest", uirevision=f"{x.name} {y.name} {controls.log}"
    )
    groups = places(points)
    names = ("within the constraints", "outside the constraints") if len(groups) > 1 else ("points",)
    selected = chosen.mask(points) if chosen.source else None
    for at, (name, group) in enumerate(zip(names, groups, strict=True)):
        marker = _colours(points, controls.colour, group, bar=at == 0)
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
    out: Figure = {"title": {"text": _e(column.title)}, "type": "log" if log else "linear"}
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


def positions(flags: Any) -> list[int]:
    """Where *flags* are set."""
    found: list[int] = np.flatnonzero(flags).tolist()
    return found


def packed(values: Any) -> dict[str, str]:
    """An array as the browser's typed array: a third of the characters that digits take, and nothing to parse."""
    array = np.ascontiguousarray(values)
    names = {"f8": "f8", "f4": "f4", "i8": "i4", "u1": "u1"}
    kind = names[array.dtype.str[1:]]
    return {"dtype": kind, "bdata": base64.b64encode(array.astype(f"<{kind}").tobytes()).decode()}


def _trace(points: Points, controls: Controls, members: Any, name: str) -> Figure:
    """What traces of the scatter plot have in common."""
    x, y, colour = (points.columns[name] for name in (controls.x, controls.y, controls.colour))
    lines = [f"{_e(c.title)}: %{{{axis}:,.4g}}" for c, axis in ((x, "x"), (y, "y"))]
    third = _e(column_title(colour.name))
    said = None
    if colour.words or colour.log:
        said = [_e(colour.text(v)) for v in colour.values[members].tolist()]
        lines.append(f"{third}: %{{text}}")
    else:
        lines.append(f"{_e(colour.title)}: %{{marker.color:,.4g}}")
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


def _colours(points: Points, name: str, members: Any, *, bar: bool) -> Figure:
    """Marker colours of a column: a scale for numbers, a palette for words."""
    column = points.columns[name]
    out: Figure = {"color": packed(column.shown[members].astype(np.float32)), "showscale": bar}
    title = {"text": _short(column_title(name)), "side": "right"}
    if not column.words:
        known = column.shown[points.ok]
        low, high = (float(np.nanmin(known)), float(np.nanmax(known))) if len(known) else (0.0, 1.0)
        bar_ = {"title": title | {"text": _short(column.title)}, "thickness": 12, "outlinewidth": 0}
        bar_ |= _log_ticks(low, high) if column.log else {}
        return out | {"colorscale": SCALE, "cmin": low, "cmax": high if high > low else low + 1.0, "colorbar": bar_}
    count = len(column.words)
    return out | {
        "colorscale": word_scale(column),
        "cmin": -0.5,
        "cmax": count - 0.5,
        "colorbar": {
            "title": title,
            "thickness": 12,
            "outlinewidth": 0,
            "tickvals": list(range(min(count, MOST_TICKS))),
            "ticktext": [_short(word) for word in column.words[:MOST_TICKS]],
        },
    }


def _log_ticks(low: float, high: float) -> Figure:
    """Ticks of a bar whose colours are of logarithms."""
    steps = [math.log10(m) + e for e in range(math.floor(low), math.ceil(high) + 1) for m in (1, 2, 5)]
    at = [v for v in steps if low <= v <= high]
    at = [v for v in at if v == round(v)] if len(at) > 2 * _TICKS else at
    return {"tickvals": at, "ticktext": [number(10.0**v) for v in at]}


def word_scale(column: Column) -> list[list[Any]]:
    """A colour a word, in steps; resources have the colours of all reports."""
    count = len(column.words)
    out: list[list[Any]] = []
    for i, word in enumerate(column.words):
        colour = look(word)[0] if word in RESOURCES else PALETTE[i % len(PALETTE)]
        out += [[i / count, colour], [(i + 1) / count, colour]]
    return out


# --- parallel coordinates ---------------------------------------------------------------------------------------------


def parallel(points: Points, controls: Controls, chosen: Chosen) -> Figure:
    """A line a point, across the axes of the study and its objectives."""
    dimensions = [_dimension(points, name, chosen) for name in dimension_names(points)]
    out = _frame(HEIGHTS["parallel"], uirevision=chosen.revision)
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
        "label": _short(column.title),
        "values": packed(np.where(np.isnan(shown), low - 0.08 * (high - low), shown).astype(np.float32)),
        "range": [low - 0.1 * (high - low) if len(known) < len(shown) else low, high],
    }
    if column.words:
        out |= {
            "tickvals": list(range(len(column.words)))[:MOST_TICKS],
            "ticktext": [_short(word) for word in column.words[:MOST_TICKS]],
        }
    else:
        at = np.unique(known) if len(np.unique(known)) <= 2 * _TICKS else np.linspace(low, high, _TICKS)
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
    out = _colours(points, controls.colour, points.drawn, bar=False)
    out.pop("colorbar")
    return out


# --- heat map ---------------------------------------------------------------------------------------------------------


def heat(points: Points, controls: Controls, mask: Any) -> Figure:
    """A column over two axes, of the points in *mask*: the best or the median of each cell, or how many there are."""
    x, y, z = (points.columns[name] for name in (controls.heat_x, controls.heat_y, controls.heat_z))
    x_codes, x_names = cells_of(x, points.ok)
    y_codes, y_names = cells_of(y, points.ok)
    members = mask & (x_codes >= 0) & (y_codes >= 0)
    cell = (y_codes * len(x_names) + x_codes)[members]
    size = len(x_names) * len(y_names)
    counts = np.bincount(cell, minlength=size)
    if controls.how == "count":
        values = np.where(counts > 0, counts.astype(float), np.nan)
    else:
        values = summarised(z.values[members], cell, size, controls.how, points.goal(z.name))
    shape = (len(y_names), len(x_names))
    what = "points" if controls.how == "count" else f"{controls.how} {_e(z.title)}"
    titles = [f"{_e(x.title)}: %{{x}}", f"{_e(y.title)}: %{{y}}", f"{what}: %{{text}}", "%{customdata} points"]
    log = z.log and controls.how != "count"
    bar = {"thickness": 12, "outlinewidth": 0, "title": {"text": _short(what), "side": "right"}}
    if log and counts.any():
        bar |= _log_ticks(float(np.nanmin(np.log10(values))), float(np.nanmax(np.log10(values))))
    drawn = (np.log10(values) if log else values).reshape(shape).tolist()
    out = _frame(HEIGHTS["heat"])
    out["data"].append(
        {
            "type": "heatmap",
            "x": x_names,
            "y": y_names,
            "z": [[None if math.isnan(v) else v for v in row] for row in drawn],
            "text": [["" if math.isnan(v) else number(v) for v in row] for row in values.reshape(shape).tolist()],
            "customdata": counts.reshape(shape).tolist(),
            "colorscale": SCALE,
            "reversescale": controls.how != "count" and points.goal(z.name) == "min",
            "hoverongaps": False,
            "hovertemplate": "<br>".join(titles) + "<extra></extra>",
            "xgap": 1,
            "ygap": 1,
            "colorbar": bar,
        }
    )
    if size <= _MOST_TEXT:
        out["data"][0] |= {"texttemplate": "%{text}", "textfont": {"size": 11}}
    for axis, column in (("xaxis", x), ("yaxis", y)):
        out["layout"][axis] |= {"title": {"text": _e(column.title)}, "type": "category", "showgrid": False}
    out["layout"]["margin"] |= {"l": 70, "b": 64, "t": 20}
    return out


def cells_of(column: Column, ok: Any) -> tuple[Any, list[str]]:
    """The cell of each point along an axis (−1: none), and what cells are called: values, or neighbouring ones."""
    values = column.values
    known = ok & ~np.isnan(values)
    codes = np.full(len(values), -1, dtype=np.int64)
    distinct = np.unique(values[known])
    if column.words or len(distinct) <= MOST_TICKS:
        codes[known] = np.searchsorted(distinct, values[known])
        if column.words:
            return codes, _distinct([[_short(w), _e(w)] for w in (column.words[int(v)] for v in distinct.tolist())])
        return codes, _distinct([[f"{v:,.6g}", repr(v)] for v in distinct.tolist()])
    shown = column.shown
    low, high = float(shown[known].min()), float(shown[known].max())
    codes[known] = np.minimum(((shown[known] - low) / (high - low) * _BINS).astype(np.int64), _BINS - 1)
    edges = np.linspace(low, high, _BINS + 1)
    ends = 10.0**edges if column.log else edges
    pairs = list(zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True))
    return codes, _distinct([[f"{number(a)} – {number(b)}", f"{a!r} – {b!r}"] for a, b in pairs])


def _distinct(spellings: list[list[str]]) -> list[str]:
    """A name a cell, the shortest spelling in which they all differ: equal names would become one cell."""
    for names in zip(*spellings, strict=True):
        if len({*names}) == len(names):
            return list(names)
    return [f"{names[0]} ({at})" for at, names in enumerate(spellings, start=1)]


def summarised(values: Any, cell: Any, size: int, how: str, goal: str) -> Any:
    """The best (by *goal*) or the median of the known values of each of *size* cells; NaN where there is none."""
    out = np.full(size, np.nan)
    known = ~np.isnan(values)
    values, cell = values[known], cell[known]
    if not len(values):
        return out
    order = np.lexsort((values, cell))
    values, cell = values[order], cell[order]
    first = np.flatnonzero(np.r_[True, cell[1:] != cell[:-1]])
    last = np.r_[first[1:], len(cell)] - 1
    if how == "median":
        found = (values[(first + last) // 2] + values[(first + last + 1) // 2]) / 2.0
    else:
        found = values[first] if goal == "min" else values[last]
    out[cell[first]] = found
    return out


# --- what matters -----------------------------------------------------------------------------------------------------


def importance(points: Points) -> Figure:
    """Bars of the first-order Sobol indices, grouped by parameter."""
    found = points.result.importance
    paths = list(reversed(dict.fromkeys(i.path for i in found)))
    objectives = list(dict.fromkeys(i.objective for i in found))
    out = _frame(120 + _BAR_PX * max(1, len(objectives)) * max(2, len(paths)), barmode="group")
    for at, name in enumerate(objectives):
        values = {i.path: i.value for i in found if i.objective == name}
        bars = [values.get(path) for path in paths]
        out["data"].append(
            {
                "type": "bar",
                "orientation": "h",
                "name": _e(name),
                "y": [_short(column_title(path)) for path in paths],
                "x": bars,
                "text": ["" if v is None else f"{100 * v:.0f} %" for v in bars],
                "textposition": "outside",
                "cliponaxis": False,
                "marker": {"color": PALETTE[at % len(PALETTE)], "line": {"width": 0}},
                "hovertemplate": "%{y}: %{x:.3f}<extra>" + _e(name) + "</extra>",
            }
        )
    out["layout"]["xaxis"] |= {"range": [0, 1.12], "tickformat": ".0%", "tickvals": [0, 0.25, 0.5, 0.75, 1]}
    out["layout"]["margin"] |= {"t": 44, "b": 36, "l": 20}
    out["layout"]["yaxis"] |= {"gridcolor": GRID}
    return out

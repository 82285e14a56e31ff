"""The heat map of a sweep: a column summarised in the cells of two others."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from .sweep_drawing import HEIGHTS, MOST_TICKS, SCALE, Figure, escaped, frame, log_ticks, number, short
from .sweep_points import Column, Points
from .sweep_view import Controls

_BINS: Final = 16
_MOST_TEXT: Final = 120


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
    what = "points" if controls.how == "count" else f"{controls.how} {escaped(z.title)}"
    titles = [
        f"{escaped(x.title)}: %{{x}}",
        f"{escaped(y.title)}: %{{y}}",
        f"{what}: %{{text}}",
        "%{customdata} points",
    ]
    log = z.log and controls.how != "count"
    bar = {"thickness": 12, "outlinewidth": 0, "title": {"text": short(what), "side": "right"}}
    if log and counts.any():
        bar |= log_ticks(float(np.nanmin(np.log10(values))), float(np.nanmax(np.log10(values))))
    drawn = (np.log10(values) if log else values).reshape(shape).tolist()
    out = frame(HEIGHTS["heat"])
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
        out["layout"][axis] |= {"title": {"text": escaped(column.title)}, "type": "category", "showgrid": False}
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
            return codes, _distinct([[short(w), escaped(w)] for w in (column.words[int(v)] for v in distinct.tolist())])
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

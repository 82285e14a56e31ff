"""What figures of a sweep are drawn with: frames, packed numbers, texts, colours of columns."""

from __future__ import annotations

import base64
import copy
import math
from functools import cache
from html import escape
from typing import Any, Final

import numpy as np

from ..report import words
from ..report.figure_style import RESOURCES, base_figure, look
from ..report.sweep_words import column_title
from .sweep_points import Column, Points

PALETTE: Final = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#B59F00", "#7A5195", "#999999", "#A3704C",
)  # fmt: skip
"""Okabe and Ito (2008), and neighbours."""
SCALE: Final = "Viridis"
MOST_TICKS: Final = 24
TICKS: Final = 5
HEIGHTS: Final = {"scatter": 520, "parallel": 420, "heat": 480}
"""Pixels of figures that change while they stand."""
_LONG: Final = 28
Figure = dict[str, Any]


@cache
def _bare(height: int) -> Figure:
    made: Figure = base_figure(height).to_plotly_json()
    return {"data": [], "layout": made["layout"]}


def frame(height: int, **layout: Any) -> Figure:
    """An empty figure in the style of the reports, as plain data."""
    out = copy.deepcopy(_bare(height))
    out["layout"] |= layout
    return out


def escaped(text: str) -> str:
    """A text for where Plotly reads HTML."""
    return escape(words.plain(text))


def number(value: float) -> str:
    """Three digits, without an exponent where it can be helped.

    >>> number(2310.4), number(0.91234), number(3.2e12)
    ('2,310', '0.912', '3.2e+12')
    """
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:.3g}"


def short(text: str) -> str:
    """The end of a long text, escaped."""
    return escaped(text if len(text) <= _LONG else f"…{text[-_LONG + 1 :]}")


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


def colours(points: Points, name: str, members: Any, *, bar: bool) -> Figure:
    """Marker colours of a column: a scale for numbers, a palette for words."""
    column = points.columns[name]
    out: Figure = {"color": packed(column.shown[members].astype(np.float32)), "showscale": bar}
    title = {"text": short(column_title(name)), "side": "right"}
    if not column.words:
        known = column.shown[points.ok]
        low, high = (float(np.nanmin(known)), float(np.nanmax(known))) if len(known) else (0.0, 1.0)
        bar_ = {"title": title | {"text": short(column.title)}, "thickness": 12, "outlinewidth": 0}
        bar_ |= log_ticks(low, high) if column.log else {}
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
            "ticktext": [short(word) for word in column.words[:MOST_TICKS]],
        },
    }


def log_ticks(low: float, high: float) -> Figure:
    """Ticks of a bar whose colours are of logarithms."""
    steps = [math.log10(m) + e for e in range(math.floor(low), math.ceil(high) + 1) for m in (1, 2, 5)]
    at = [v for v in steps if low <= v <= high]
    at = [v for v in at if v == round(v)] if len(at) > 2 * TICKS else at
    return {"tickvals": at, "ticktext": [number(10.0**v) for v in at]}


def word_scale(column: Column) -> list[list[Any]]:
    """A colour a word, in steps; resources have the colours of all reports."""
    count = len(column.words)
    out: list[list[Any]] = []
    for i, word in enumerate(column.words):
        colour = look(word)[0] if word in RESOURCES else PALETTE[i % len(PALETTE)]
        out += [[i / count, colour], [(i + 1) / count, colour]]
    return out

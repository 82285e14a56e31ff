"""What the sweep page shows of its points: the values of its controls, and which points are selected."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from .sweep_points import Points
from .view import View

HOW: Final = {"best": "best of the others", "median": "median of the others", "count": "number of points"}
_MOST_SHAPES: Final = 8
_MOST_CORNERS: Final = 2000
_MOST_IN_LINK: Final = 1500
Pair = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Controls:
    """Columns on the axes of the figures; which axes are logarithmic; the point that is looked at (its index)."""

    x: str
    y: str
    colour: str
    log: tuple[str, ...]
    heat_x: str
    heat_y: str
    heat_z: str
    how: str
    point: int | None = None

    @classmethod
    def of(cls, points: Points, view: View) -> Controls:
        """What a view says, where it makes sense for these points; else what is worth seeing first."""
        numeric, objectives, axes = points.numeric, points.objectives, points.parameters
        known = [name for name in objectives if name in numeric] or numeric or [*points.columns]
        first = [name for name in axes if name in numeric]
        x = known[0] if len(known) > 1 else (first or known)[0]
        y = known[1] if len(known) > 1 else known[0]
        varied = sorted(axes, key=lambda a: -_importance(points, a, known[0])) or [*points.columns]
        matters = next((name for name in varied if name in points.colourable), y)

        def one(field_: str, offered: list[str], default: str) -> str:
            value = view.one(field_)
            return value if value in offered else default

        log = view.one("log", _logs(points, x, y))
        text = view.one("point")
        return cls(
            x=one("x", numeric, x),
            y=one("y", numeric, y),
            colour=one("colour", points.colourable, matters),
            log=tuple(axis for axis in ("x", "y") if axis in log),
            heat_x=one("heat_x", axes, varied[0]),
            heat_y=one("heat_y", axes, varied[min(1, len(varied) - 1)]),
            heat_z=one("heat", numeric, known[0]),
            how=one("how", [*HOW], "best"),
            point=int(text) if text.isdecimal() and len(text) < 12 else None,
        )

    def checked(self, points: Points, **values: Any) -> Controls:
        """These controls with what a request says, where that is an offered value."""
        asked = {name: str(value) for name, value in values.items() if isinstance(value, str)}
        offered = {"x": points.numeric, "y": points.numeric, "colour": points.colourable, "heat_z": points.numeric}
        offered |= {"heat_x": points.parameters, "heat_y": points.parameters, "how": [*HOW]}
        kept: dict[str, Any] = {name: value for name, value in asked.items() if value in offered.get(name, ())}
        out = replace(self, **kept)
        if isinstance(values.get("log"), list):
            out = replace(out, log=tuple(axis for axis in ("x", "y") if axis in values["log"]))
        if "point" in values:
            point = values["point"]
            whole = isinstance(point, int | float) and not isinstance(point, bool) and 0 <= point < 1e12
            out = replace(out, point=int(point) if whole else None)
        return out

    def fields(self, points: Points) -> dict[str, str | None]:
        """The fields of the address: what differs from what is shown first."""
        first = Controls.of(points, View())._all()
        return {name: value if value != first[name] else None for name, value in self._all().items()}

    def _all(self) -> dict[str, str | None]:
        return {
            "x": self.x,
            "y": self.y,
            "colour": self.colour,
            "log": "".join(self.log) or "none",
            "heat_x": self.heat_x,
            "heat_y": self.heat_y,
            "heat": self.heat_z,
            "how": self.how,
            "point": None if self.point is None else str(self.point),
        }


def _importance(points: Points, path: str, objective: str) -> float:
    return next((i.value for i in points.result.importance if (i.path, i.objective) == (path, objective)), 0.0)


def _logs(points: Points, x: str, y: str) -> str:
    names = (("x", x), ("y", y))
    return "".join(axis for axis, name in names if points.columns[name].log) or "none"


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which points are selected: those in any of some boxes and lassos over two columns, or those in ranges of columns.

    ``boxes`` are x0, x1, y0, y1 in the columns' units, ``lassos`` corners; ``ranges`` are in the space of the parallel
    coordinates. ``source`` is the figure where it was done; empty: nothing is selected.
    """

    source: str = ""
    x: str = ""
    y: str = ""
    log: tuple[str, ...] = ()
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    lassos: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...] = ()
    ranges: Mapping[str, tuple[Pair, ...]] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: Any) -> Chosen:
        """What the browser says was selected; what is malformed selects nothing."""
        if not isinstance(data, Mapping):
            return cls()
        if data.get("source") == "parallel" and isinstance(data.get("ranges"), Mapping):
            ranges = {
                str(name): tuple(p for p in map(_pair, given[:_MOST_SHAPES]) if p)
                for name, given in list(data["ranges"].items())[:100]
                if isinstance(given, list)
            }
            kept = {name: pairs for name, pairs in ranges.items() if pairs}
            return cls("parallel", ranges=kept) if kept else cls()
        if data.get("source") != "scatter":
            return cls()
        boxes = [_numbers(b, 4) for b in _listed(data.get("boxes"))]
        lassos = [_lasso(shape) for shape in _listed(data.get("lassos"))]
        log = tuple(axis for axis in ("x", "y") if axis in _listed(data.get("log")))
        found = cls(
            "scatter",
            str(data.get("x", "")),
            str(data.get("y", "")),
            log,
            tuple((b[0], b[1], b[2], b[3]) for b in boxes if b),
            tuple(shape for shape in lassos if shape),
        )
        return found if found.boxes or found.lassos else cls()

    @classmethod
    def of(cls, view: View) -> Chosen:
        """What a view says is selected."""
        try:
            return cls.parse(json.loads(view.one("select", "null")))
        except (ValueError, RecursionError):
            return cls()

    def as_data(self) -> dict[str, Any]:
        """What :meth:`parse` reads."""
        if self.source == "parallel":
            return {"source": "parallel", "ranges": {n: [[*p] for p in pairs] for n, pairs in self.ranges.items()}}
        if not self.source:
            return {}
        lassos = [[[*xs], [*ys]] for xs, ys in self.lassos]
        boxes = [[*b] for b in self.boxes]
        return {"source": "scatter", "x": self.x, "y": self.y, "log": [*self.log], "boxes": boxes, "lassos": lassos}

    @property
    def revision(self) -> str:
        """Another text for another selection."""
        return json.dumps(self.as_data())

    @property
    def text(self) -> str | None:
        """The field of the address; None where nothing is selected, or what is has too many corners for one."""
        out = json.dumps(self.as_data(), separators=(",", ":")) if self.source else ""
        return out if 0 < len(out) <= _MOST_IN_LINK else None

    def mask(self, points: Points) -> Any:
        """Which points (of all, in the order of the table) are selected; all that run where nothing is."""
        if not self.source:
            return points.ok.copy()
        if self.source == "parallel":
            out = points.ok.copy()
            for name, pairs in self.ranges.items():
                column = points.columns.get(name)
                if column is not None:
                    shown = column.shown
                    out &= np.any([(shown >= low) & (shown <= high) for low, high in pairs], axis=0)
            return out
        if self.x not in points.columns or self.y not in points.columns:
            return points.ok.copy()
        return points.ok & self._inside(points.columns[self.x].values, points.columns[self.y].values)

    def _inside(self, x: Any, y: Any) -> Any:
        out = np.zeros(len(x), dtype=bool)
        for x0, x1, y0, y1 in self.boxes:
            out |= (x >= min(x0, x1)) & (x <= max(x0, x1)) & (y >= min(y0, y1)) & (y <= max(y0, y1))
        with np.errstate(invalid="ignore", divide="ignore"):
            for xs, ys in self.lassos:  # its sides are straight on the screen
                on_x = (np.log10(x), np.log10(np.array(xs))) if "x" in self.log else (x, np.array(xs))
                on_y = (np.log10(y), np.log10(np.array(ys))) if "y" in self.log else (y, np.array(ys))
                out |= in_polygon(on_x[0], on_y[0], on_x[1], on_y[1])
        return out


def in_polygon(x: Any, y: Any, xs: Any, ys: Any) -> Any:
    """Which points lie inside a polygon: a ray to the right crosses its sides an odd number of times."""
    inside = np.zeros(len(x), dtype=bool)
    with np.errstate(invalid="ignore", divide="ignore"):
        for i in range(len(xs)):
            ax, ay, bx, by = xs[i - 1], ys[i - 1], xs[i], ys[i]
            crosses = (ay > y) != (by > y)
            inside ^= crosses & (x < (bx - ax) * (y - ay) / (by - ay) + ax)
    return inside


def _listed(value: Any) -> list[Any]:
    return value[:_MOST_SHAPES] if isinstance(value, list) else []


def _numbers(value: Any, count: int) -> tuple[float, ...]:
    if not isinstance(value, list) or len(value) != count:
        return ()
    if not all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e300 for v in value):
        return ()
    found = tuple(float(v) for v in value)
    return found if all(math.isfinite(v) for v in found) else ()


def _pair(value: Any) -> Pair | None:
    found = _numbers(value, 2)
    return (min(found), max(found)) if found else None


def _lasso(value: Any) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[0], list):
        return None
    count = len(value[0])
    if not 3 <= count <= _MOST_CORNERS:
        return None
    xs, ys = _numbers(value[0], count), _numbers(value[1], count)
    return (xs, ys) if xs and ys else None

"""Points of a sweep as columns to draw, and the run that is behind each of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..errors import DataError, UnitError
from ..explore.sweep.sampling import choice, quantity
from ..explore.sweep.sweep import SweepResult
from ..report.sweep_words import cell, column_title
from ..spec.study import METRICS, ParameterSpec, StudySpec, split_number
from ..units import format_quantity, parse
from .shelf import Shelf
from .sweep_tables import Opened
from .view import View

MOST_DRAWN: Final = 50_000
"""Points of a figure; evenly spaced ones of more, and the whole front."""
_LARGER_IS_BETTER: Final = ("tokens_per_s", "tokens_per_s_per_device")
_WORDS: Final = ("status", "feasible", "memory_fits", "bound")
_DECADES: Final = 1.5
_LEFT_OUT: Final = ("index", "message")
_NEIGHBOURS: Final = 4


@dataclass(frozen=True, slots=True)
class Column:
    """One column. ``values`` (a number a point, NaN: unknown) are in ``unit``; for words they are places in ``words``.

    ``shown`` is what parallel coordinates draw: the logarithm (to base 10) where ``log``.
    """

    name: str
    unit: str
    scale: float
    values: Any
    words: tuple[str, ...] = ()
    log: bool = False

    @property
    def title(self) -> str:
        """Its name for people, with the unit."""
        return f"{column_title(self.name)} ({self.unit})" if self.unit else column_title(self.name)

    @property
    def shown(self) -> Any:
        """Values as parallel coordinates draw them."""
        return np.log10(self.values) if self.log else self.values

    def text(self, value: float) -> str:
        """A value (in this column's unit) for people."""
        if math.isnan(value):
            return "unknown"
        if self.words:
            return self.words[int(value)]
        return f"{value:,.4g} {self.unit}".strip() if abs(value) < 1e6 else f"{value:.4g} {self.unit}".strip()


@dataclass(frozen=True, slots=True)
class Points:
    """All points of a sweep. Arrays are in the order of the table's rows."""

    opened: Opened
    columns: Mapping[str, Column]
    index: Any
    ok: Any
    feasible: Any
    front: Any
    drawn: Any

    @classmethod
    def of(cls, opened: Opened) -> Points:
        """Columns of a sweep's table."""
        result = opened.result
        table = result.table
        units = {p.path: _unit(p) for p in result.study.parameters}
        columns = {
            name: _column(name, table[name], units.get(name)) for name in table.column_names if name not in _LEFT_OUT
        }
        ok = np.array([status == "ok" for status in table["status"].to_pylist()], dtype=bool)
        index = np.array(table["index"].to_pylist(), dtype=np.int64)
        place = {number: at for at, number in enumerate(index.tolist())}
        front = np.array(sorted(place[row["index"]] for row in result.pareto), dtype=np.int64)
        drawn = np.flatnonzero(ok)
        if len(drawn) > MOST_DRAWN:
            drawn = np.union1d(drawn[:: math.ceil(len(drawn) / MOST_DRAWN)], front)
        feasible = np.array(table["feasible"].to_pylist(), dtype=bool)
        return cls(opened, columns, index, ok, feasible, front, drawn)

    @property
    def result(self) -> SweepResult:
        """The sweep."""
        return self.opened.result

    @property
    def study(self) -> StudySpec:
        """Its study, or what could be guessed of it."""
        return self.opened.result.study

    @property
    def parameters(self) -> list[str]:
        """The axes."""
        return [p.path for p in self.study.parameters]

    @property
    def objectives(self) -> list[str]:
        """What is wanted."""
        return [o.name for o in self.study.objectives]

    @property
    def numeric(self) -> list[str]:
        """Columns of numbers that are known for some point that runs: parameters and objectives first."""
        first = [*self.objectives, *self.parameters]
        names = [*dict.fromkeys([*first, *self.columns])]
        return [n for n in names if not self.columns[n].words and not np.isnan(self.columns[n].values[self.ok]).all()]

    @property
    def colourable(self) -> list[str]:
        """Columns that colour points."""
        words = [name for name, column in self.columns.items() if column.words and name != "status"]
        return [*self.numeric, *words]

    def goal(self, name: str) -> str:
        """``min`` or ``max``: as the study wants it, else what is better of a metric."""
        wanted = {o.name: o.goal for o in self.study.objectives}
        return wanted.get(name, "max" if name in _LARGER_IS_BETTER else "min")

    def place(self, index: int) -> int | None:
        """The row of a point in the table; None where there is no such point."""
        found = np.flatnonzero(self.index == index)
        return int(found[0]) if len(found) else None

    def row(self, place: int) -> dict[str, Any]:
        """All values of one point."""
        row: dict[str, Any] = self.result.table.slice(place, 1).to_pylist()[0]
        return row

    def text(self, name: str, value: Any) -> str:
        """A value of the table for people."""
        column = self.columns.get(name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if column is not None and column.unit and name not in METRICS and number:
            return column.text(float(value) / column.scale)
        return cell(name, value)


def _column(name: str, data: Any, unit: tuple[str, float] | None) -> Column:
    listed = data.to_pylist()
    if name in _WORDS or any(isinstance(v, str | bool) for v in listed):
        said = [None if v is None else str(v).lower() if isinstance(v, bool) else str(v) for v in listed]
        words = tuple(sorted({v for v in said if v is not None}, key=_natural)) or ("unknown",)
        codes = {word: float(i) for i, word in enumerate(words)}
        return Column(name, "", 1.0, np.array([math.nan if v is None else codes[v] for v in said]), words)
    raw = np.array([math.nan if v is None else float(v) for v in listed])
    raw[~np.isfinite(raw)] = math.nan
    known = raw[~np.isnan(raw)]
    symbol, scale = unit or _metric_unit(name, known)
    positive = len(known) > 0 and float(known.min()) > 0.0
    log = positive and math.log10(float(known.max()) / float(known.min())) > _DECADES
    return Column(name, symbol, scale, raw / scale, log=log)


def _natural(word: str) -> tuple[float, str]:
    """Order of words: numbers in them as numbers, ``fp8`` before ``fp16``."""
    digits = "".join(c for c in word if c.isdecimal())
    return (0.0, word) if not digits or len(digits) > 9 else (float(digits), word)


def _metric_unit(name: str, known: Any) -> tuple[str, float]:
    """A unit in which the median reads well."""
    dimension = METRICS.get(name, "")
    if dimension not in ("time", "bytes", "energy") or not len(known):
        return "", 1.0
    symbol = format_quantity(float(np.median(known)), dimension).partition(" ")[2]
    return symbol, float(parse(f"1 {symbol}", dimension))


def _unit(parameter: ParameterSpec) -> tuple[str, float]:
    """Unit of a parameter, as its study writes it, and what one of it is in SI."""
    first = parameter.range.low if parameter.range is not None else (parameter.values or [""])[0]
    try:
        symbol = split_number(first)[1] if isinstance(first, str) and quantity(first) is not None else ""
    except ValueError:
        symbol = ""
    size = quantity(f"1 {symbol}") if symbol else None
    return (symbol, size) if size else ("", 1.0)


# --- the run behind a point -------------------------------------------------------------------------------------------


def assigned(parameter: ParameterSpec, stored: Any) -> str:
    """The text that ``--set`` takes for a value of the table: the choice that the study made there.

    Raises:
        DataError: the study has no such choice.
    """
    if parameter.values is not None:
        for value in parameter.values:
            made = choice(value)
            held = made.value if isinstance(made.value, str) or not isinstance(stored, str) else json.dumps(made.value)
            if held == stored and isinstance(held, bool) == isinstance(stored, bool):
                return made.text
        raise DataError(f"{parameter.path}: {str(stored)[:60]} is no value of the study")
    given = parameter.range
    assert given is not None
    number = float(stored)
    unit = split_number(given.low)[1]
    if not unit:
        return repr(round(number) if given.integer else number)
    return _in_unit(number, unit)


def _in_unit(number: float, unit: str) -> str:
    """A number in SI, in *unit*, such that reading it gives the number again (or what rounds next to it)."""
    try:
        size = quantity(f"1 {unit}")
    except UnitError:
        size = None
    if not size:
        raise DataError(f"unknown unit {unit[:20]!r}")
    near = number / size
    text = f"{near!r} {unit}"
    if quantity(text) == number:
        return text
    tried = [text]
    for towards in (-math.inf, math.inf):
        other = near
        for _ in range(_NEIGHBOURS):
            other = math.nextafter(other, towards)
            tried.append(f"{other!r} {unit}")
    return min(tried, key=lambda text: abs((quantity(text) or 0.0) - number))


def full_run(shelf: Shelf, points: Points, row: Mapping[str, Any]) -> tuple[str, str]:
    """The query of the Run page that gives exactly a point; or an empty one, and why there is none."""
    if not points.opened.known:
        return "", "the file does not say which study its points are of, so what did not vary is not known"
    study = points.study
    whole: dict[str, str | None] = {"hardware": study.hardware, "workload": study.workload, "engine": study.engine}
    changes = list(study.set)
    try:
        for parameter in study.parameters:
            text = assigned(parameter, row[parameter.path])
            if parameter.path in whole:
                whole[parameter.path] = text
            elif parameter.path != "fleet.replicas":
                changes.append(f"{parameter.path}={text}")
    except (DataError, ValueError, TypeError, OverflowError) as error:
        return "", str(error)
    if any(change.startswith("engine.") for change in changes):
        return "", "a run takes no assignments to the engine's profile (engine.…): copy the profile and change the copy"
    hardware = _choice(shelf, "hardware", str(whole["hardware"]))
    workload = _choice(shelf, "workloads", str(whole["workload"]))
    for found, name in ((hardware, whole["hardware"]), (workload, whole["workload"])):
        if not found:
            return "", f"{str(name)[:60]} is neither bundled nor uploaded here"
    if whole["engine"]:
        if _choice(shelf, "engines", whole["engine"]) != whole["engine"]:
            return "", f"the engine's profile {whole['engine'][:60]} is not bundled"
        changes.insert(0, f"workload.engine={whole['engine']}")
    view = View.of(hardware=hardware, workload=workload, engine=study.reading, set=changes)
    return view.query, ""


def _choice(shelf: Shelf, section: str, name: str) -> str:
    """A name in a study as a choice of the shelf: bundled or uploaded; else empty."""
    bundled = shelf.names(section)
    for known in (name, name.removesuffix(".yaml")):
        if known in bundled:
            return known
    found = shelf.upload(Path(name).stem)
    return found.token if found is not None and found.section == section else ""

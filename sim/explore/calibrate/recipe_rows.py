"""Rows that a recipe fits to or judges by: what was measured, and what a device with given numbers predicts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from ...devices.device import Device
from ...devices.registry import Machine, rebuild
from ...errors import DataError, UnsupportedError, nearest
from ...graph.operator import Operator
from ...graph.table import from_row
from ...readings.launch import single_launch_s
from ...spec.fit_recipe import FitRows, FitSpan
from ..kernel_table import energy_with_idle
from ..sensitivity import with_value
from .fit import place_of


class MeasuredRow(Protocol):
    """One row of a table of measured kernels, as whoever knows the table's format hands it over."""

    @property
    def label(self) -> str:
        """Group in reports, such as ``linear bfloat16``."""

    @property
    def kind(self) -> str:
        """Kind of the kernel table."""

    @property
    def cells(self) -> Mapping[str, Any]:
        """Columns of that kind."""

    @property
    def measured_s(self) -> float:
        """Seconds."""

    @property
    def measured_j(self) -> float | None:
        """Joules, where watts were measured."""

    @property
    def launch(self) -> str:
        """``graph`` or ``eager``."""


Reader = Callable[[Path, str, int], Iterable[MeasuredRow]]
"""Rows of a table, given its path, the hardware that ran it, and the least number of readings of its watts."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row to predict; ``measured`` is seconds or watts."""

    op: Operator
    launch: str
    measured: float


@dataclass(frozen=True, slots=True)
class RowSet:
    """Rows of one table on one machine, those to fit to and those held out; ``left``: rows that cannot be predicted."""

    what: str
    machine: Machine
    quantity: str
    fitted: tuple[Row, ...]
    held_out: tuple[Row, ...]
    left: int = 0


def row_set(rows: Iterable[MeasuredRow], chosen: FitRows, machine: Machine, **split: Any) -> RowSet:
    """Convert, filter, draw and split the rows of one table; *split* is as for :func:`divide`.

    Raises:
        DataError: the table has no such label or column, or nothing is left on one side.
    """
    kept: list[Row] = []
    left, device = 0, machine.device
    power = chosen.quantity == "power"
    labels, columns = set[str](), set[str]()
    for row in rows:
        labels.add(row.label)
        if row.label not in chosen.labels:
            continue
        columns |= row.cells.keys()
        if not matches(row.cells, chosen):
            continue
        watts = None if row.measured_j is None else row.measured_j / row.measured_s
        if (power and watts is None) or not _within(watts, chosen.watts):
            continue
        try:
            op = from_row(row.kind, row.cells)
            lowered = device.lower(op)
        except (DataError, UnsupportedError):
            left += 1
            continue
        if power and device.energy_j(op, lowered) is None:
            left += 1
            continue
        kept.append(Row(op, row.launch, watts if power and watts is not None else row.measured_s))
    _there(chosen, "label", chosen.labels, labels)
    _there(chosen, "column", [*chosen.where, *chosen.without], columns)
    fitted, held_out = divide(kept, chosen.most, **split)
    if not held_out or not (fitted or split["fraction"] == 0.0):
        wanted = ", ".join(chosen.labels)
        raise DataError(f"{chosen.table}: {len(kept)} rows of {wanted} are too few to fit to and to judge by")
    what = f"{PurePosixPath(chosen.table).stem}: {', '.join(chosen.labels)}"
    return RowSet(what, machine, chosen.quantity, fitted, held_out, left)


def _there(chosen: FitRows, what: str, wanted: Iterable[str], known: set[str]) -> None:
    """Refuse a name that no row has: misspelt, it would change in silence which rows are fitted to."""
    for name in wanted:
        if name not in known:
            guess = nearest(name, known)
            hint = f"; did you mean {guess!r}?" if guess else ""
            raise DataError(f"{chosen.table}: no row has the {what} {name!r}{hint}")


def matches(cells: Mapping[str, Any], chosen: FitRows) -> bool:
    """Whether the row's columns are those that the recipe keeps; a column that the row lacks is not."""
    for column, wanted in chosen.where.items():
        value = cells.get(column)
        if isinstance(wanted, FitSpan):
            if not _within(value, wanted):
                return False
        elif value not in wanted:
            return False
    return not any(cells.get(column) in refused for column, refused in chosen.without.items())


def _within(value: Any, span: FitSpan | None) -> bool:
    """Whether a number is there and inside the span; without a span anything is."""
    return span is None or (isinstance(value, int | float) and span.low <= value <= span.high)


def divide(rows: Sequence[Row], most: int, *, fraction: float, seed: int) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """(to fit to, held out) of at most *most* rows, both decided by what a row computes and the seed."""
    drawn = rows
    if len(rows) > most:
        ranked = sorted(range(len(rows)), key=lambda i: (place_of(rows[i].op, seed + 1), i))
        drawn = [rows[i] for i in sorted(ranked[:most])]
    sides = [place_of(row.op, seed) < fraction for row in drawn]
    fitted = tuple(row for row, side in zip(drawn, sides, strict=True) if side)
    return fitted, tuple(row for row, side in zip(drawn, sides, strict=True) if not side)


def predict(device: Device, rows: Sequence[Row], quantity: str) -> list[float]:
    """Seconds, or watts (``quantity`` is ``power``), of every row."""
    out = []
    for row in rows:
        lowered = device.lower(row.op)
        seconds = lowered.analytic_s + single_launch_s(device.launch, row.launch, lowered)
        if quantity == "power":
            joules = energy_with_idle(device, device.energy_j(row.op, lowered), seconds)
            assert joules is not None
            out.append(joules / seconds)
        else:
            out.append(seconds)
    return out


def changed(machine: Machine, values: Mapping[str, float]) -> Device:
    """The machine's device with the numbers at these paths."""
    spec = machine.spec
    for path, value in values.items():
        spec = with_value(spec, path, value)
    return rebuild(machine, spec, machine.system).device

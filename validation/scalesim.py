"""Systolic arrays against SCALE-Sim 3: cycles of ``systolic_scalesim`` next to the tool's own, row by row.

Rows come from running the tool (``scalesim_cycles.csv``). ``CALC`` rows must be equal; ``USER`` rows, which stall on
memory, are scored. The same rows are also read with effsim's own model, to show what its assumptions are worth.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from effsim.devices.registry import load_machine
from effsim.devices.systolic.device import SystolicDevice
from effsim.errors import DataError
from effsim.graph.operators.linear import Linear

FILE = "scalesim_cycles.csv"
HARDWARE = "systolic_scalesim"
WITHIN = 0.10
OWN_MODEL = (
    "hardware.compat=null",
    "hardware.weight_double_buffer=true",
    "hardware.os_drain=shift",
    "hardware.psum_home=accumulator",
)
"""What the habits of a pipelined array change: see :data:`WHY_DIFFERENT`."""

WHY_DIFFERENT = (
    "weights (inputs) of the next fold load behind the current one: a fold costs max(T, R), not 2R + C + T − 2",
    "results of an output-stationary fold are shifted out in R cycles instead of at no cost",
    "one memory bus carries all operands, instead of a port each that was filled before the first cycle",
    "partial sums stay in accumulators, instead of being written to memory after every fold",
    "cycles are counted from 1, and a wait for memory counts once",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One run of the tool."""

    workload: str
    mode: str
    rows: int
    columns: int
    dataflow: str
    m: int
    n: int
    k: int
    width: int
    kib: int
    cycles: int
    cpu_s: float

    @property
    def assignments(self) -> tuple[str, ...]:
        """The ``--set`` options that turn the bundled file into the array of this run."""
        out = [
            f"hardware.array.rows={self.rows}",
            f"hardware.array.columns={self.columns}",
            f"hardware.dataflow={self.dataflow}",
        ]
        out += [f"hardware.sram.{operand}={self.kib} KiB" for operand in ("input", "weight", "output")]
        if self.mode == "USER":
            out += ["hardware.interface.mode=user", f"hardware.interface.bandwidth={self.width} B/cycle"]
        return tuple(out)

    @property
    def operator(self) -> Linear:
        """The product; a word of the tool is a byte."""
        return Linear(self.m, self.n, self.k, "int8")


@dataclass(frozen=True, slots=True)
class Compared:
    """One row with effsim's cycles: the tool's count, and its own model's of the same array."""

    row: Row
    cycles: float
    own_cycles: float

    @property
    def error(self) -> float:
        """Signed relative error of the compatible count."""
        return self.cycles / self.row.cycles - 1.0

    @property
    def own_ratio(self) -> float:
        """Cycles of effsim's own model over the tool's."""
        return self.own_cycles / self.row.cycles


@dataclass(frozen=True, slots=True)
class Summary:
    """Agreement on the rows of one mode; errors are absolute shares of the tool's cycles."""

    mode: str
    n: int
    exact: int
    median: float
    p90: float
    within: int
    worst: float
    worst_row: str
    own_ratio: float

    @classmethod
    def of(cls, mode: str, compared: Sequence[Compared]) -> Summary:
        """Score rows; there must be one at least."""
        errors = sorted(abs(c.error) for c in compared)
        worst = max(compared, key=lambda c: abs(c.error))
        return cls(
            mode=mode,
            n=len(errors),
            exact=sum(1 for c in compared if c.cycles == c.row.cycles),
            median=median(errors),
            p90=errors[math.ceil(0.9 * len(errors)) - 1],
            within=sum(1 for error in errors if error <= WITHIN),
            worst=abs(worst.error),
            worst_row=f"{worst.row.workload} {worst.row.rows}x{worst.row.columns} {worst.row.dataflow}",
            own_ratio=median(c.own_ratio for c in compared),
        )


def read_rows(folder: Path) -> list[Row]:
    """Rows of ``scalesim_cycles.csv`` in *folder*.

    Raises:
        DataError: the file is missing or has a row that is no run (names the line).
    """
    path = folder / FILE
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    out = []
    with path.open(newline="", encoding="utf-8") as file:
        for line, cells in enumerate(csv.DictReader(file), start=2):
            try:
                out.append(_row(cells))
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(f"{path}:{line}:1: not a run of the tool: {error}") from None
    return out


def _row(cells: dict[str, str]) -> Row:
    return Row(
        workload=cells["workload"],
        mode=cells["mode"],
        rows=int(cells["array_rows"]),
        columns=int(cells["array_cols"]),
        dataflow=cells["dataflow"],
        m=int(cells["M"]),
        n=int(cells["N"]),
        k=int(cells["K"]),
        width=int(cells["bw_words_per_cycle"] or 0),
        kib=int(cells["sram_kB_each"]),
        cycles=int(cells["total_cycles"]),
        cpu_s=float(cells.get("cpu_s") or 0.0),
    )


def device_of(row: Row, *, own_model: bool = False) -> SystolicDevice:
    """The array of a run: counting as the tool does, or with effsim's own model (a shared bus instead of its ports)."""
    extra: tuple[str, ...] = ()
    if own_model:
        bus = "mode: calc" if row.mode == "CALC" else "mode: shared"
        extra = (*OWN_MODEL, f"hardware.interface={{{bus}}}")
        if row.mode == "USER":
            extra += (f"hardware.memory.bandwidth={row.width} GB/s",)  # words a cycle at 1 GHz
    device = load_machine(HARDWARE, (*row.assignments, *extra)).device
    if not isinstance(device, SystolicDevice):
        raise DataError(f"{HARDWARE} is no systolic array")
    return device


def compare(rows: Iterable[Row]) -> list[Compared]:
    """Cycles of every row, counted as the tool does and by effsim's own model."""
    out = []
    for row in rows:
        counts = []
        for own in (False, True):
            device = device_of(row, own_model=own)
            counts.append(device.cycles(device.lower(row.operator)))
        out.append(Compared(row, counts[0], counts[1]))
    return out


def summarise(compared: Sequence[Compared]) -> list[Summary]:
    """One summary a mode, in order of first appearance."""
    modes = dict.fromkeys(c.row.mode for c in compared)
    return [Summary.of(mode, [c for c in compared if c.row.mode == mode]) for mode in modes]


def validate(folder: Path) -> list[Summary]:
    """Compare with all rows in *folder*: n, exact, median, p90, within 10 %, worst, ratio of the own model.

    Raises:
        DataError: there is no such table.
    """
    return summarise(compare(read_rows(folder)))

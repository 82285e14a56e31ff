"""Command programs issued one command after another: each at the earliest clock that bank and bus state allow.

Slow and exact. It knows only pairwise constraints; :func:`effsim.devices.pim.commands.program_clocks` must agree.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from .commands import Bank, Nest, phases_per_row, rows_per_phase

Kind = Literal["input", "multiply", "result"]
REGISTERS = -2
RESULTS = -3
"""Rows of the last bank set that hold registers and stored sums; data rows count from 0."""


@dataclass(frozen=True, slots=True)
class Step:
    """A run of equal commands: ``count`` of them, the first at column 0 of ``row`` of bank set ``place``.

    ``fresh``: the first phase that uses input data written since the phase before.
    """

    kind: Kind
    count: int
    place: int = 0
    row: int = 0
    column: int = 0
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Issued:
    """One command with its clock."""

    clock: float
    name: Literal["activate", "precharge", "refresh", "input", "multiply", "result"]
    place: int
    row: int


def steps(bank: Bank, nest: Nest) -> Iterator[Step]:
    """The program in order; with double buffers the next chunk is written before the phases of the present one."""
    plan = list(_phases(bank, nest))
    chunks = sum(1 for phase in plan if phase[0])
    written = 0
    for start, end, place, row, column in plan:
        if start:
            ahead = 1 if not bank.double else (2 if written == 0 else 1)
            for _ in range(min(ahead, chunks - written)):
                yield Step("input", nest.writes)
                written += 1
        yield Step("multiply", nest.columns, place, row, column, start)
        if end:
            yield Step("result", nest.results)


def _phases(bank: Bank, nest: Nest) -> Iterator[tuple[bool, bool, int, int, int]]:
    """(new inputs, sums complete, set, row, column) of every phase."""
    share, rows = phases_per_row(bank, nest), rows_per_phase(bank, nest)
    whole = -(-nest.phases // share) * rows
    outer, inner = (nest.chunks, nest.tiles) if nest.inputs_outer else (nest.tiles, nest.chunks)
    half = -(-nest.chunks // 2) if bank.sets == 2 else 0
    for run in range(nest.runs):
        first_row = run // nest.vectors * whole
        for index in range(outer * inner):
            a, b = divmod(index, inner)
            chunk = a if nest.inputs_outer else b
            place = 0 if not bank.rows or chunk < half else bank.sets - 1
            row, column = first_row + index // share * rows, index % share * nest.columns
            if nest.inputs_outer:
                yield b == 0, True, place, row, column
            else:
                fresh = nest.chunks > 1 or a == 0 or bank.rows
                yield fresh, chunk == nest.chunks - 1, place, row, column


@dataclass(slots=True)
class _Set:
    """One bank of every unit."""

    row: int | None = None
    opened: float = -math.inf
    may_close: float = 0.0
    may_open: float = 0.0


@dataclass(slots=True)
class Interpreter:
    """State of one channel. ``first_refresh`` is the clock of the first refresh; log keeps issued commands."""

    bank: Bank
    first_refresh: float = math.inf
    keep_log: bool = False
    log: list[Issued] = field(default_factory=list)
    end: float = 0.0
    refreshes: int = 0
    _sets: list[_Set] = field(default_factory=list)
    _next_refresh: float = math.inf
    _last: float = 0.0
    _read_ok: float = 0.0
    _write_ok: float = 0.0
    _bus: float = 0.0
    _loads: list[float] = field(default_factory=list)
    _ends: list[float] = field(default_factory=list)
    _sums: list[float] = field(default_factory=list)

    def run(self, nest: Nest) -> float:
        """Clocks from the start to the last sum, setup included."""
        self._sets = [_Set() for _ in range(self.bank.sets)]
        self._next_refresh = self.first_refresh
        issue = self._on_rows if self.bank.rows else self._on_bus
        for step in steps(self.bank, nest):
            issue(step)
        return self.end + self.bank.setup

    def _note(self, clock: float, name: str, place: int, row: int) -> None:
        if self.keep_log:
            self.log.append(Issued(clock, name, place, row))  # type: ignore[arg-type]

    def _close(self, place: int, at: float) -> None:
        bank_set = self._sets[place]
        if bank_set.row is None:
            return
        clock = max(at, bank_set.may_close)
        bank_set.may_open = max(bank_set.may_open, clock + self.bank.precharge)
        self._note(clock, "precharge", place, bank_set.row)
        bank_set.row = None

    def _open(self, place: int, row: int, at: float, write: bool) -> float:
        """Have *row* open; returns the first clock a column of it may use."""
        bank_set, b = self._sets[place], self.bank
        delay = b.activate_write if write else b.activate
        if bank_set.row is not None and b.hidden_rows:
            bank_set.row = row
        if bank_set.row != row:
            self._close(place, at)
            bank_set.opened = max(at, bank_set.may_open)
            bank_set.row = row
            bank_set.may_close = bank_set.opened + b.active
            self._note(bank_set.opened, "activate", place, row)
        return bank_set.opened + delay

    def _refresh(self, at: float) -> float:
        """Refresh if it is due at *at*; returns the clock from which rows may be opened."""
        if at < self._next_refresh:
            return at
        for place in range(len(self._sets)):
            self._close(place, self._last)
        start = max(s.may_open for s in self._sets)
        for bank_set in self._sets:
            bank_set.may_open = start + self.bank.refresh
        self._note(start, "refresh", -1, -1)
        self._next_refresh += self.bank.refresh_interval
        self.refreshes += 1
        return start + self.bank.refresh

    def _columns(self, step: Step, ready: float, pace: float) -> float:
        """Multiply *step*, row by row, from *ready* on; returns the clock of the last column."""
        b, clock, row, column, left = self.bank, ready, step.row, step.column, step.count
        while left:
            first = max(clock, self._open(step.place, row, self._last, False))
            if first >= self._next_refresh:
                resumed = self._refresh(first)
                clock = max(clock, self._open(step.place, row, resumed, False))
                continue
            until = (
                max(1, math.ceil((self._next_refresh - first) / pace)) if not math.isinf(self._next_refresh) else left
            )
            now = min(left, b.columns - column, until)
            last = first + (now - 1) * pace
            for i in range(now if self.keep_log else 0):
                self._note(first + i * pace, "multiply", step.place, row)
            bank_set = self._sets[step.place]
            bank_set.may_close = max(bank_set.may_close, last + b.read_to_precharge)
            self._last, clock, left, column = last, last + pace, left - now, column + now
            if column == b.columns:
                row, column = row + 1, 0
        return self._last

    def _on_bus(self, step: Step) -> None:
        b = self.bank
        slots = 2 if b.double else 1
        if step.kind == "input":
            # A buffer is free when the last phase that read it is over.
            users = len(self._loads) - slots
            start = max(self._bus, self._ends[users] + b.interval if users >= 0 else 0.0)
            self._bus = start + step.count * b.input_write
            self._loads.append(self._bus + b.input_latency)
        elif step.kind == "result":
            start = max(self._bus, self._last + b.result_latency)
            self._bus = start + step.count * b.result_read
            self._sums.append(self._bus)
            self.end = max(self.end, self._bus)
        else:
            if step.fresh:
                self._ends.append(0.0)
            sums = self._sums[-slots] if len(self._sums) >= slots else 0.0
            after = self._last + b.interval if self._last else 0.0
            ready = max(self._loads[len(self._ends) - 1], sums, after)
            self._ends[-1] = self._columns(step, ready, b.interval)
            self.end = max(self.end, self._ends[-1])

    def _on_rows(self, step: Step) -> None:
        b = self.bank
        if step.kind == "multiply":
            for place in range(b.sets):
                if place != step.place:
                    self._close(place, self._last)
            last = self._columns(step, self._read_ok, b.interval)
            self._read_ok, self._write_ok = last + b.interval, last + b.read_to_write
            self.end = max(self.end, last)
            return
        place, row = b.sets - 1, REGISTERS if step.kind == "input" else RESULTS
        pace = b.input_write if step.kind == "input" else b.result_read
        for other in range(b.sets - 1):
            self._close(other, self._last)
        first = max(self._write_ok, self._open(place, row, self._last, True))
        if first >= self._next_refresh:
            resumed = self._refresh(first)
            first = max(first, self._open(place, row, resumed, True))
        last = first + (step.count - 1) * pace
        for i in range(step.count if self.keep_log else 0):
            self._note(first + i * pace, step.kind, place, row)
        bank_set = self._sets[place]
        bank_set.may_close = max(bank_set.may_close, last + b.write_to_precharge)
        self._last, self._write_ok = last, last + pace
        self._read_ok = max(self._read_ok, last + b.write_to_read)
        self.end = max(self.end, last)

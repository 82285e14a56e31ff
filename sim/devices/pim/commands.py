"""Command programs of matrix-vector products in DRAM banks, and how many clocks they take in closed form.

All banks of a channel act in lockstep. A program is a nest of *phases*: the units multiply ``columns`` columns of open
rows with input data that were written before; sums leave after the last column they collect. The exact counterpart,
which issues one command after another, is :mod:`effsim.devices.pim.interpreter`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...errors import UnsupportedError
from ...spec.pim import Commands, MacUnit, PimDram


@dataclass(frozen=True, slots=True)
class Bank:
    """Clocks of one lockstep channel. ``activate`` is from the (first) activation command to the first column."""

    columns: int
    access_bytes: float
    interval: float
    activate: float
    activate_write: float
    precharge: float
    active: float
    read_to_precharge: float
    write_to_precharge: float
    write_to_read: float
    read_to_write: float
    input_write: float
    input_latency: float
    result_read: float
    result_latency: float
    refresh: float
    refresh_interval: float
    setup: float
    rows: bool
    sets: int
    hidden_rows: bool
    double: bool

    @classmethod
    def from_spec(cls, dram: PimDram, unit: MacUnit, commands: Commands, slowdown: int = 1) -> Bank:
        """Clocks of a device file; ``slowdown`` intervals a column where a unit has fewer lanes than it holds words."""
        t = dram.timing
        group = (int(commands.activations) - 1) * float(commands.activation_gap)
        data = float(t.cwl) + float(t.burst)
        return cls(
            columns=int(dram.organization.columns),
            access_bytes=float(dram.organization.access),
            interval=float(unit.interval) * slowdown,
            activate=group + float(unit.rcd),
            activate_write=group + float(t.rcd_write),
            precharge=float(t.rp),
            active=group + float(t.ras),
            read_to_precharge=float(t.rtp),
            write_to_precharge=data + float(t.wr),
            write_to_read=data + float(t.wtr_l),
            read_to_write=float(t.read_to_write),
            input_write=float(commands.input_write),
            input_latency=data,
            result_read=float(commands.result_read),
            result_latency=float(unit.latency),
            refresh=float(t.rfc) if dram.refresh else 0.0,
            refresh_interval=float(t.refi) if dram.refresh else math.inf,
            setup=float(commands.setup),
            rows=unit.operands == "rows",
            sets=int(unit.bank_sets),
            hidden_rows=unit.hidden_rows,
            double=int(unit.input_buffers) > 1,
        )

    @property
    def refresh_loss(self) -> float:
        """Clocks that one refresh costs: rows closed, tRFC, rows opened again."""
        if math.isinf(self.refresh_interval):
            return 0.0
        return self.read_to_precharge + self.precharge + self.refresh + self.activate - self.interval


@dataclass(frozen=True, slots=True)
class Nest:
    """A program: for every matrix and vector, tiles of outputs and chunks of inputs, one inside the other.

    ``inputs_outer``: a chunk of inputs is written once and serves all output tiles, whose partial sums leave a chunk.
    Otherwise a tile's sums stay until all chunks are through, and every tile writes its chunks again.
    ``writes`` and ``results`` are transfers of a chunk and of a tile, ``columns`` those of one phase.
    """

    vectors: int
    tiles: int
    chunks: int
    writes: int
    columns: int
    results: int
    inputs_outer: bool = False
    matrices: int = 1

    @property
    def runs(self) -> int:
        """Products of one matrix and one vector."""
        return self.matrices * self.vectors

    @property
    def phases(self) -> int:
        """Phases of one vector."""
        return self.tiles * self.chunks


@dataclass(frozen=True, slots=True)
class ProgramClocks:
    """Clocks of a program: ``total`` with its parts; ``exposed`` is what is neither multiplying, refresh nor setup."""

    total: float
    multiply: float
    refresh: float
    setup: float
    row_openings: int

    @property
    def exposed(self) -> float:
        """Row openings, operand writes, result reads and turnarounds that show."""
        return max(0.0, self.total - self.multiply - self.refresh - self.setup)


def program_clocks(bank: Bank, nest: Nest) -> ProgramClocks:
    """Clocks of *nest* on *bank*.

    Sum over phases of ``(columns − 1)·interval`` with a row change every ``bank.columns``, plus gaps between phases:
    the later of the bank (``tRTP + tRP + tRCD`` to a new row, tRAS kept) and the operand path (sums out, inputs in,
    with tWTR and tRTW where registers are rows). Refresh stretches the sum by ``tREFI / (tREFI − loss)``, its mean over
    all phases of the refresh timer. Clocks throughout. Valid where the rest of a set's precharge hides behind the
    other set's columns, as on every part of the catalogue. Source: JEDEC pairwise constraints.

    Raises:
        UnsupportedError: refresh takes longer than its interval.
    """
    loss = bank.refresh_loss
    if loss >= bank.refresh_interval:
        raise UnsupportedError("a refresh takes longer than the refresh interval of this memory")
    work = work_clocks(bank, nest)
    total = work / (1.0 - loss / bank.refresh_interval)
    multiply = nest.runs * nest.phases * nest.columns * bank.interval
    opened = nest.runs * (-(-nest.phases // phases_per_row(bank, nest))) * rows_per_phase(bank, nest)
    return ProgramClocks(total + bank.setup, multiply, total - work, bank.setup, opened)


def work_clocks(bank: Bank, nest: Nest) -> float:
    """Clocks without setup and refresh, which order programs of one product as the total does."""
    return _rows_program(bank, nest) if bank.rows else _bus_program(bank, nest)


def rows_per_phase(bank: Bank, nest: Nest) -> int:
    """Rows that one phase runs through."""
    return -(-nest.columns // bank.columns)


def phases_per_row(bank: Bank, nest: Nest) -> int:
    """Phases that share a row; a phase never straddles rows that it could avoid."""
    return 1 if bank.rows else max(1, bank.columns // nest.columns)


def _phase(bank: Bank, nest: Nest) -> tuple[float, int]:
    """Clocks from a phase's first to its last column, and the columns in its last row."""
    crossings = rows_per_phase(bank, nest) - 1
    full = bank.activate + (bank.columns - 1) * bank.interval
    cross = _row_change(bank, full)
    return (nest.columns - 1 - crossings) * bank.interval + crossings * cross, nest.columns - crossings * bank.columns


def _row_change(bank: Bank, held: float) -> float:
    """Last column of a row to the first of another, the row being open for *held* clocks at its last column."""
    if bank.hidden_rows:
        return bank.interval
    return max(bank.read_to_precharge, bank.active - held) + bank.precharge + bank.activate


def _bus_program(bank: Bank, nest: Nest) -> float:
    once, last_columns = _phase(bank, nest)
    head = max(nest.writes * bank.input_write + bank.input_latency, bank.activate)
    tail = bank.result_latency + nest.results * bank.result_read
    inside, again, other = _bus_gaps(bank, nest, once, last_columns)
    turns = nest.matrices * (nest.vectors - 1) * again + (nest.matrices - 1) * other
    banks = nest.runs * (nest.phases * once + inside) + turns
    if not bank.double:
        return head + banks + tail
    bus_out = nest.phases if nest.inputs_outer else nest.tiles
    bus_in = nest.chunks if nest.inputs_outer or nest.chunks == 1 else nest.phases
    bus = nest.runs * (bus_in * nest.writes * bank.input_write + bus_out * nest.results * bank.result_read)
    return max(head + banks, bus) + tail


def _bus_gaps(bank: Bank, nest: Nest, once: float, last_columns: int) -> tuple[float, float, float]:
    """Clocks of all gaps inside one run, of the gap to the next vector, and of the gap to the next matrix.

    A gap is a turn of the inner loop or not, and ends a row or not.
    """
    share, last = phases_per_row(bank, nest), nest.phases - 1
    single = (
        nest.inputs_outer or nest.chunks == 1
    )  # inputs are written at the turn of the inner loop, sums leave always
    inner = nest.tiles if single else nest.chunks
    plain = max(bank.interval, _path(bank, nest, not single, single))
    turn = max(bank.interval, _path(bank, nest, True, True))
    change = _row_change(bank, _held(bank, share, once, last_columns, plain))
    turns, fresh, both = last // inner, last // share, last // math.lcm(inner, share)
    inside = (last - turns - fresh + both) * plain + (turns - both) * turn
    inside += (fresh - both) * max(plain, change) + both * max(turn, change)
    left = nest.phases - last // share * share
    away = max(turn, _row_change(bank, _held(bank, left, once, last_columns, plain)))
    return inside, away if fresh or rows_per_phase(bank, nest) > 1 else turn, away


def _path(bank: Bank, nest: Nest, takes_in: bool, gives_out: bool) -> float:
    """Clocks that sums out and inputs in take between two phases; none where they run beside them."""
    if bank.double:
        return 0.0
    path = bank.result_latency + nest.results * bank.result_read if gives_out else 0.0
    if takes_in:
        path = max(path, bank.interval) + nest.writes * bank.input_write + bank.input_latency
    return path


def _held(bank: Bank, count: int, once: float, last_columns: int, gap: float) -> float:
    """Clocks for which a row is open at the last column of the *count* phases that share it."""
    if count > 1:
        return bank.activate + count * once + (count - 1) * gap
    return bank.activate + (last_columns - 1) * bank.interval


def _rows_program(bank: Bank, nest: Nest) -> float:
    """Registers in rows of the last set: writing inputs opens that row, multiplying opens the data's."""
    once, last_columns = _phase(bank, nest)
    writing = (nest.writes - 1) * bank.input_write
    storing = (nest.results - 1) * bank.result_read
    held_in = max(bank.write_to_precharge, bank.active - bank.activate_write - writing)
    held_out = max(bank.write_to_precharge, bank.active - bank.activate_write - storing)
    held_data = max(bank.read_to_precharge, bank.active - bank.activate - (last_columns - 1) * bank.interval)
    same_in = max(bank.write_to_read, held_in + bank.precharge + bank.activate)
    other_in = max(bank.write_to_read, bank.activate)
    same_out = max(bank.read_to_write, held_data + bank.precharge + bank.activate_write)
    other_out = max(bank.read_to_write, bank.activate_write)
    others = -(-nest.chunks // 2) if bank.sets == 2 else 0
    same = nest.chunks - others
    tile = nest.chunks * (writing + once) + others * (other_in + other_out) + same * (same_in + same_out) + storing
    turn = held_out + bank.precharge + bank.activate_write
    runs = nest.runs * nest.tiles
    return bank.activate_write + runs * tile + (runs - 1) * turn

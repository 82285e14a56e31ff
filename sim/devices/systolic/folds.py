"""Closed forms of a systolic grid: what one fold takes, how folds follow each other, how work is cut into them.

A fold is one stationary tile: weights (``ws``), inputs (``is``) or results (``os``). ``models/systolic.py`` runs the
same schedules register by register; tests hold both equal for random shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ...graph.operator import ceil_div


@dataclass(frozen=True, slots=True)
class Grid:
    """Schedule of one grid of *rows* × *columns* cells.

    ``double_buffer``: the stationary operand of the next fold is loaded (``os``: the results of the last one shifted
    out) while the current fold streams. ``drain_shift``: results of an ``os`` fold leave through the rows; otherwise
    they appear at no cost.
    """

    rows: int
    columns: int
    dataflow: str
    double_buffer: bool
    drain_shift: bool = True

    @property
    def load(self) -> int:
        """Cycles to shift a stationary operand in: R; none for ``os``."""
        return 0 if self.dataflow == "os" else self.rows

    @property
    def skew(self) -> int:
        """Cycles from the first operand at the corner to the last cell's first: R + C − 2."""
        return self.rows + self.columns - 2

    @property
    def drain(self) -> int:
        """Cycles to shift results out: R for ``os`` where they are shifted."""
        return self.rows if self.dataflow == "os" and self.drain_shift else 0

    def interval(self, steps: float) -> float:
        """Cycles from one fold to the next when each streams *steps* lines.

        Pipelined ``max(T, load, drain)``, otherwise ``load + T + skew + drain``.
        """
        if self.double_buffer:
            return max(steps, float(self.load), float(self.drain), 1.0)
        return self.load + steps + self.skew + self.drain

    @property
    def fill(self) -> int:
        """Cycles in front of and behind the streams that pipelining cannot hide: paid once."""
        return self.load + self.skew if self.double_buffer else 0

    @property
    def tail(self) -> int:
        """Cycles of the last drain, paid once where folds are pipelined."""
        return self.drain if self.double_buffer else 0

    def cycles(self, folds: int, steps: int) -> int:
        """Cycles of *folds* folds of *steps* lines on one grid with operands always there.

        ``load + (n − 1)·max(T, load, drain) + T + skew + drain`` pipelined, ``n·(load + T + skew + drain)`` otherwise.

        >>> Grid(32, 32, "ws", False).cycles(16, 128), Grid(32, 32, "ws", True).cycles(16, 128)
        (3552, 2142)
        """
        if not self.double_buffer:
            return folds * (self.load + steps + self.skew + self.drain)
        step = max(steps, self.load, self.drain, 1)
        return self.load + (folds - 1) * step + steps + self.skew + self.drain


@dataclass(frozen=True, slots=True)
class Mapping:
    """A product ``[m, k] · [k, n]`` on a dataflow: extents along rows and columns, steps in time."""

    along_rows: int
    along_columns: int
    steps: int

    @classmethod
    def of(cls, dataflow: str, m: int, n: int, k: int) -> Mapping:
        """What lies where: ``ws`` (k, n, m), ``is`` (k, m, n), ``os`` (m, n, k)."""
        if dataflow == "os":
            return cls(m, n, k)
        return cls(k, n, m) if dataflow == "ws" else cls(k, m, n)

    def folds(self, rows: int, columns: int) -> tuple[int, int]:
        """Folds along rows and columns."""
        return ceil_div(self.along_rows, rows), ceil_div(self.along_columns, columns)


def grid_cycles(m: int, n: int, k: int, grid: Grid) -> int:
    """Cycles of a product on one grid whose operands are always there.

    >>> grid_cycles(128, 128, 128, Grid(32, 32, "os", False, drain_shift=False))
    3040
    """
    mapping = Mapping.of(grid.dataflow, m, n, k)
    down, across = mapping.folds(grid.rows, grid.columns)
    return grid.cycles(down * across, mapping.steps)


@dataclass(frozen=True, slots=True)
class Buffers:
    """Bytes of on-chip memory that one step of the schedule can use (halves where double-buffered).

    ``shared`` > 0 replaces the three. ``accumulators`` hold partial sums.
    """

    input: float
    weight: float
    output: float
    shared: float
    accumulators: float

    def of(self, operand: str) -> float:
        """Bytes for one operand: its own, or a third of what all share."""
        if self.shared:
            return self.shared / 3.0
        return self.input if operand == "a" else self.weight


@dataclass(frozen=True, slots=True)
class Work:
    """One product with the bytes that its operands take in memory (all batches together)."""

    m: int
    n: int
    k: int
    batch: int
    a_bytes: float
    b_bytes: float
    c_bytes: float
    a_cold: float = 1.0
    b_cold: float = 1.0
    c_cold: float = 1.0


class Cut(NamedTuple):
    """Work cut into folds: tiles of *steps* lines, and what crosses the memory ports in all."""

    down: int
    across: int
    blocks: int
    steps: int
    a_traffic: float
    b_traffic: float
    c_traffic: float

    @property
    def folds(self) -> int:
        """Folds of one batch."""
        return self.down * self.across * self.blocks


ACCUMULATOR_BYTES = 4.0
"""Bytes of one partial sum (fp32 or int32)."""

_BLOCKS = sorted({1 << i for i in range(31)} | {3 << i for i in range(29)})
"""Numbers of blocks that the streamed extent may be cut into."""


def cuts(work: Work, grid: Grid, buffers: Buffers, units: int, psum_in_memory: bool) -> list[Cut]:
    """Schedules worth pricing.

    ``ws`` and ``is`` stream one operand past the pinned one. The stream is cut into ``b`` blocks of lines; for each
    block, groups of ``g`` column folds run row fold by row fold with the partial sums of the whole group in the
    accumulators (``lines · columns · g`` sums a grid). The pinned operand is read once a block unless it fits its
    scratchpad whole. The streamed block is read once where it fits, otherwise once a group: each of its row folds stays
    for the group's columns. Partial sums whose home is memory are written by every row fold and read back by all but
    the first.

    ``os`` keeps results; the rows' operand or the columns' operand stays for a whole sweep of the other.
    """
    mapping = Mapping.of(grid.dataflow, work.m, work.n, work.k)
    down, across = mapping.folds(grid.rows, grid.columns)
    if grid.dataflow == "os":
        return _output_cuts(work, buffers, grid, mapping, units)
    stream, pinned = ("a", "b") if grid.dataflow == "ws" else ("b", "a")
    sizes = {"a": work.a_bytes, "b": work.b_bytes}
    cold = {"a": work.a_cold, "b": work.b_cold}
    side = min(units, across * work.batch)
    sums = buffers.accumulators / (grid.columns * ACCUMULATOR_BYTES * side)  # lines of one column fold on every grid
    fits = sizes[pinned] <= buffers.of(pinned)
    results = work.c_bytes * work.c_cold
    if psum_in_memory and down > 1:
        results = (2.0 * down - 1.0) * work.m * work.n * work.batch * ACCUMULATOR_BYTES
    out = []
    for blocks in _BLOCKS:
        steps = ceil_div(mapping.steps, blocks)
        group = int(sums / steps)
        if group < 1 and steps > 1 and not psum_in_memory:
            continue
        share = sizes[stream] / (work.batch * blocks)
        stays = share <= buffers.of(stream)
        if psum_in_memory or share / down > buffers.of(stream):
            group = 1
        rounds = 1 if stays else ceil_div(across, min(units, across) * max(1, group))
        moved = sizes[stream] * cold[stream] * rounds
        kept = sizes[pinned] * cold[pinned] * (1 if fits else blocks)
        a, b = (moved, kept) if stream == "a" else (kept, moved)
        out.append(Cut(down, across, blocks, steps, a, b, results))
        if steps == 1 or (blocks >= units and stays):
            break
    return out


def _output_cuts(work: Work, buffers: Buffers, grid: Grid, mapping: Mapping, units: int) -> list[Cut]:
    """Both orders: strips of one operand stay while the other sweeps past; what fits whole is read once."""
    down, across = mapping.folds(grid.rows, grid.columns)
    one = {"a": work.a_bytes / work.batch, "b": work.b_bytes / work.batch}
    times = {}
    for stays, moves, strips, sweeps in (("b", "a", across, down), ("a", "b", down, across)):
        side = min(units, strips)
        kept = one[stays] / strips * side <= buffers.of(stays)
        again = {moves: ceil_div(strips, side), stays: 1 if kept else sweeps}
        times[stays] = {name: 1 if one[name] <= buffers.of(name) else again[name] for name in ("a", "b")}
    c = work.c_bytes * work.c_cold
    return [
        Cut(
            down,
            across,
            1,
            mapping.steps,
            work.a_bytes * work.a_cold * count["a"],
            work.b_bytes * work.b_cold * count["b"],
            c,
        )
        for count in times.values()
    ]

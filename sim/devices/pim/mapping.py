"""Where a matrix lies in channels, units and rows, and the program that multiplies it: the cheapest placement."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from ...graph.dtypes import size_of
from ...spec.pim import MacUnit, PimSpec
from .commands import Bank, Nest, ProgramClocks, program_clocks, work_clocks
from .interpreter import Interpreter

MOST_INPUT_SHARES = 16
"""Channels over which the inputs of one output are divided at most; more only adds partial sums."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A product in the memory.

    ``seconds`` is the program, ``alone_clocks`` the same for a program that starts half way between two refreshes,
    ``readout_bytes`` what the host must still read and ``readout_adds`` what it must add up.
    """

    name: str
    seconds: float
    alone_clocks: float
    readout_bytes: float
    readout_adds: float
    units: int
    detail: tuple[tuple[str, float | str], ...]


class Engine(Protocol):
    """What multiplies in the memory."""

    clock_s: float

    @property
    def peak_bytes_per_s(self) -> float:
        """Bytes a second that all units together read."""

    def peak_flops(self, dtype: str) -> float:
        """FLOP/s of all units in *dtype*; 0 where they lack it."""

    def takes(self, dtype: str, stored: str) -> bool:
        """Whether operands of these types can be multiplied."""

    def place(self, m: int, n: int, k: int, batch: int, dtype: str) -> Placed:
        """``batch`` matrices ``[n, k]``, each times ``m`` vectors."""


@dataclass(frozen=True, slots=True)
class _Placement:
    """``channels`` a matrix, its inputs over ``shares`` of them; ``rounds`` matrices one after another."""

    channels: int
    shares: int
    rounds: int


class MacEngine:
    """Multiply-accumulate units driven by command programs."""

    def __init__(self, spec: PimSpec) -> None:
        assert isinstance(spec.unit, MacUnit)
        assert spec.dram is not None
        assert spec.commands is not None
        self._spec, self._unit, self._dram, self._commands = spec, spec.unit, spec.dram, spec.commands
        o = spec.dram.organization
        self.channels = int(o.channels) * int(o.pseudo_channels) * int(o.ranks)
        self.units = int(spec.unit.count)
        self.clock_s = float(spec.dram.clock)
        self._access = float(o.access)
        self._sums, self._padded = int(spec.unit.accumulators), spec.unit.padded
        self._input, self._result = float(spec.unit.input), float(spec.unit.result)
        self._known: dict[str, tuple[Bank, float, int]] = {}

    def _stored(self, dtype: str) -> str:
        return str(self._unit.substitutes.get(dtype, dtype))  # type: ignore[call-overload]

    def _lanes(self, dtype: str) -> int:
        return int(self._unit.lanes.get(self._stored(dtype), 0))  # type: ignore[call-overload]

    @property
    def peak_bytes_per_s(self) -> float:
        """One access a unit and interval."""
        return self.channels * self.units * self._access / (float(self._unit.interval) * self.clock_s)

    def peak_flops(self, dtype: str) -> float:
        """Two FLOP a lane and interval."""
        lanes = min(float(self._lanes(dtype)), self._access / size_of(dtype))
        return 2.0 * self.channels * self.units * lanes / (float(self._unit.interval) * self.clock_s)

    def takes(self, dtype: str, stored: str) -> bool:
        """Units multiply what is stored in the type of the arithmetic; they widen nothing."""
        return self._lanes(dtype) > 0 and (not stored or size_of(stored) == size_of(dtype))

    def _type(self, dtype: str) -> tuple[Bank, float, int]:
        """Clocks of a channel, bytes of a word, and words that a unit's input buffer holds."""
        found = self._known.get(dtype)
        if found is None:
            word = size_of(dtype)
            slowdown = max(1, math.ceil(self._access / word / self._lanes(dtype)))
            bank = Bank.from_spec(self._dram, self._unit, self._commands, slowdown)
            found = self._known[dtype] = (bank, word, max(1, int(self._input / word)))
        return found

    def place(self, m: int, n: int, k: int, batch: int, dtype: str) -> Placed:
        """The placement and loop order whose program takes the fewest clocks.

        A matrix takes a group of channels; groups work on different matrices (heads, experts) at the same time. Each
        unit owns whole outputs, whose weights follow each other along rows, so that every activation is used up.
        """
        bank, word, held = self._type(dtype)
        best: tuple[float, Nest, _Placement] | None = None
        group, least = 0, math.inf
        for where in self._placements(batch):
            for nest in self._nests(where, bank.rows, m, n, k, word, held):
                if where.channels != group:
                    group, least = where.channels, math.inf
                columns = nest.runs * nest.phases * nest.columns
                # Where registers are rows, dividing inputs further can only save columns (padding).
                if bank.rows and columns >= least:
                    continue
                least = min(least, columns)
                clocks = work_clocks(bank, nest)
                if best is None or clocks < best[0] * (1.0 - 1e-9):
                    best = (clocks, nest, where)
        assert best is not None
        return self._placed(bank, program_clocks(bank, best[1]), best[1], best[2], m * n * batch, dtype)

    def _placements(self, batch: int) -> Iterator[_Placement]:
        group = self.channels
        while group >= 1:
            rounds = math.ceil(batch / (self.channels // group))
            shares = 1
            while shares <= min(group, MOST_INPUT_SHARES):
                yield _Placement(group, shares, rounds)
                shares *= 2
            if batch == 1 or self.channels // group >= batch:
                return
            group //= 2

    def _nests(self, where: _Placement, rows: bool, m: int, n: int, k: int, word: float, held: int) -> Iterator[Nest]:
        """Programs of *m* vectors on one placement; words of *word* bytes, *held* of them in the input buffer."""
        own = -(-n // ((where.channels // where.shares) * self.units))
        sums = self._sums if self._padded else min(self._sums, own)
        inputs = -(-k // where.shares)
        chunks = -(-inputs // held)
        chunk = held if self._padded else -(-inputs // chunks)
        columns = math.ceil(chunk * word / self._access)
        results = sums if rows else sums * math.ceil(self.units * self._result / self._access)
        tiles = -(-own // sums)
        yield Nest(m, tiles, chunks, columns, sums * columns, results, False, where.rounds)
        if not rows and chunks > 1 and tiles > 1:
            yield Nest(m, tiles, chunks, columns, sums * columns, results, True, where.rounds)

    def _placed(
        self, bank: Bank, clocks: ProgramClocks, nest: Nest, where: _Placement, outputs: int, dtype: str
    ) -> Placed:
        lanes = 1 if self._unit.reduced else self._lanes(dtype)
        partial = where.shares * (nest.chunks if nest.inputs_outer else 1)
        read = outputs * where.shares * self._access if self._unit.operands == "rows" else 0.0
        detail: tuple[tuple[str, float | str], ...] = (
            ("channels", where.channels),
            ("input_shares", where.shares),
            ("output_tiles", nest.tiles),
            ("input_chunks", nest.chunks),
            ("vectors", nest.vectors),
            ("matrices", nest.matrices),
            ("columns", nest.columns),
            ("row_openings", clocks.row_openings),
            ("multiply_s", clocks.multiply * self.clock_s),
            ("rows_operands_s", clocks.exposed * self.clock_s),
            ("refresh_s", clocks.refresh * self.clock_s),
            ("setup_s", clocks.setup * self.clock_s),
        )
        return Placed(
            name=f"{nest.tiles}x{nest.chunks} tiles",
            seconds=clocks.total * self.clock_s,
            alone_clocks=self._alone(bank, clocks),
            readout_bytes=read,
            readout_adds=outputs * (lanes * partial - 1.0),
            units=self.channels,
            detail=detail,
        )

    def _alone(self, bank: Bank, clocks: ProgramClocks) -> float:
        """Clocks with whole refreshes: the timer stands at half its interval when the program starts."""
        work = clocks.total - clocks.refresh
        if math.isinf(bank.refresh_interval):
            return work
        count = math.floor((work + bank.refresh_interval / 2.0) / (bank.refresh_interval - bank.refresh_loss))
        return work + count * bank.refresh_loss

    def interpreted(self, nest: Nest, dtype: str, keep_log: bool = False) -> Interpreter:
        """The same program issued command by command, its first refresh after half an interval."""
        bank = self._type(dtype)[0]
        run = Interpreter(bank, bank.refresh_interval / 2.0, keep_log)
        run.run(nest)
        return run

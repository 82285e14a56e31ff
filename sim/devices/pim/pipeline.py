"""Small processors inside DRAM chips: instructions, transfers from their bank, and the host that feeds them."""

from __future__ import annotations

import math

from ...graph.dtypes import size_of
from ...spec.pim import PimSpec, PipelineUnit
from .mapping import MOST_INPUT_SHARES, Placed


class PipelineEngine:
    """Processors that run several threads in turn, one instruction a clock in all."""

    def __init__(self, spec: PimSpec) -> None:
        assert isinstance(spec.unit, PipelineUnit)
        u = self._unit = spec.unit
        self.clock_s = 1.0 / float(u.clock)
        self.units = int(u.count)
        self._rate = float(u.clock) * min(1.0, int(u.threads) / int(u.revolver))

    @property
    def peak_bytes_per_s(self) -> float:
        """All transfers between banks and scratchpads together."""
        return self.units * float(self._unit.dma) * float(self._unit.clock)

    def peak_flops(self, dtype: str) -> float:
        """One multiply-add every so many instructions."""
        needed = self._unit.instructions.get(dtype)  # type: ignore[call-overload]
        return 2.0 * self.units * self._rate / float(needed) if needed else 0.0

    def takes(self, dtype: str, stored: str) -> bool:
        """Types with an instruction sequence, stored as they are."""
        return dtype in self._unit.instructions and (not stored or size_of(stored) == size_of(dtype))

    def place(self, m: int, n: int, k: int, batch: int, dtype: str) -> Placed:
        """Outputs over processors, inputs over up to a few shares of them.

        ``start + broadcast + max(instructions, transfers) + gather``; a block of weights serves all vectors while it
        lies in the scratchpad. Source: the execution model of UPMEM's processors, see the device file.
        """
        best: Placed | None = None
        shares = 1
        while shares <= min(MOST_INPUT_SHARES, self.units, k):
            placed = self._placed(m, n, k, batch, dtype, shares)
            if best is None or placed.seconds < best.seconds * (1.0 - 1e-9):
                best = placed
            shares *= 2
        assert best is not None
        return best

    def _placed(self, m: int, n: int, k: int, batch: int, dtype: str, shares: int) -> Placed:
        u, word = self._unit, size_of(dtype)
        own, inputs = math.ceil(n * batch * shares / self.units), math.ceil(k / shares)
        used = min(self.units, n * batch * shares)
        products = min(batch, math.ceil(own / n) + (1 if batch > 1 and own % n else 0))
        compute = m * own * inputs * float(u.instructions[dtype]) / self._rate  # type: ignore[index]
        size = own * inputs * word
        transfer = (size / float(u.dma) + math.ceil(size / float(u.block)) * float(u.dma_setup)) * self.clock_s
        broadcast = used * products * m * inputs * word / float(u.broadcast)
        sums = float(m) * n * batch * shares
        gather = sums * word / float(u.gather)
        seconds = float(u.start) + broadcast + max(compute, transfer) + gather
        detail: tuple[tuple[str, float | str], ...] = (
            ("processors", used),
            ("input_shares", shares),
            ("outputs_each", own),
            ("instructions_s", compute),
            ("transfer_s", transfer),
            ("broadcast_s", broadcast),
            ("gather_s", gather),
            ("start_s", float(u.start)),
        )
        return Placed(
            name=f"{used} processors",
            seconds=seconds,
            alone_clocks=seconds / self.clock_s,
            readout_bytes=0.0,
            readout_adds=sums - sums / shares,
            units=self.units,
            detail=detail,
        )

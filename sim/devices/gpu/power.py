"""Power and energy of a GPU: idle board, busy processors, operations, bytes; and what a power limit does to a clock.

The power of a kernel has four parts:

    ``idle + active · share + (Σ operations · energy + Σ bytes · energy) / time``

``idle`` is drawn whatever runs. ``active`` is what processors draw at full clock once they hold blocks (clock trees,
schedulers, register files), whatever those blocks do; ``share`` of them do. Energies of operations and bytes are taken
as independent of the clock: measured H200 products below and at the limit agree in them within the spread of the data,
so a voltage that falls with the clock does not show. Host, links and the chassis are not in it, and neither are the
values of the operands: products with zeros draw far less (a stream of zeros on H200 about half of one of noise).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ...graph.operator import Operator
from ...spec.hardware import GpuSpec, PowerEnvelope
from ..kernel import Kernel, KernelTime, kernel_time

SLOWDOWN = "power_slowdown"
"""Name of the detail of a kernel that says how much a power limit stretched it."""


@dataclass(frozen=True, slots=True)
class PowerModel:
    """Watts and joules of one GPU; ``None`` where its file does not say. ``matrix_j`` by element type."""

    limit_w: float | None
    idle_w: float
    active_w: float
    matrix_j: Mapping[str, float]
    vector_j: float | None
    memory_j: float | None
    l2_j: float | None
    matrix_types: frozenset[str]

    @classmethod
    def of(cls, spec: GpuSpec) -> PowerModel | None:
        """From a GPU file; None where it gives no idle power."""
        power, e = spec.power, spec.energy
        if power.idle is None:
            return None
        return cls(
            limit_w=_limit_w(power),
            idle_w=float(power.idle),
            active_w=float(power.active or 0.0),
            matrix_j={str(t): float(j) for t, j in (e.matrix or {}).items()},
            vector_j=None if e.vector is None else float(e.vector),
            memory_j=None if e.memory is None else float(e.memory),
            l2_j=None if e.l2 is None else float(e.l2),
            matrix_types=frozenset(str(t) for t in spec.matrix),
        )

    def energy_j(self, op: Operator, kernels: Iterable[Kernel], times: Iterable[KernelTime]) -> float | None:
        """Energy of one run beyond the idle board; None where an energy that is needed is unknown.

        A type without a matrix unit is computed by the vector units, at their energy.
        """
        work, kernels = op.arithmetic(), tuple(kernels)
        dtype = str(getattr(op, "dtype", "fp32"))
        terms = (
            (work.matrix, self.matrix_j.get(dtype) if dtype in self.matrix_types else self.vector_j),
            (work.vector + work.special, self.vector_j),
            (sum(k.memory_bytes for k in kernels), self.memory_j),
            (sum(k.l2_bytes for k in kernels), self.l2_j),
        )
        total = 0.0
        for amount, energy in terms:
            if amount:
                if energy is None:
                    return None
                total += amount * energy
        return total + self.active_w * sum(active_s(k, t.total_s) for k, t in zip(kernels, times, strict=True))

    def held(self, kernel: Kernel, flops: float, dtype: str) -> Kernel:
        """*kernel* with all its rates lowered as far as the limit demands.

        ``time ≥ (energy + active · share · time at full clock) / (limit − idle)``: the clock, and with it what busy
        processors draw, comes down until the energy of the work, spread over its time, fits.
        """
        per_flop = self.matrix_j.get(dtype)
        if self.limit_w is None or per_flop is None or self.memory_j is None or self.l2_j is None:
            return kernel
        energy = flops * per_flop + kernel.memory_bytes * self.memory_j + kernel.l2_bytes * self.l2_j
        total_s = kernel_time(kernel).total_s
        energy += self.active_w * active_s(kernel, total_s)
        slower = energy / ((self.limit_w - self.idle_w) * total_s)
        if slower <= 1.0:
            return kernel
        classes = tuple(
            replace(
                c, busy_s=c.busy_s * slower, serial_s=c.serial_s * slower, flow_bytes_per_s=c.flow_bytes_per_s / slower
            )
            for c in kernel.classes
        )
        return replace(
            kernel,
            classes=classes,
            l2_bytes_per_s=kernel.l2_bytes_per_s / slower,
            memory_bytes_per_s=kernel.memory_bytes_per_s / slower,
            setup_s=kernel.setup_s * slower,
            detail=(*kernel.detail, (SLOWDOWN, slower)),
        )


def _limit_w(power: PowerEnvelope) -> float | None:
    """Watts that clocks come down to: those held, else the board's limit where it has the time to act."""
    if power.held is not None:
        return float(power.held)
    return None if power.brief else float(power.limit)


def active_s(kernel: Kernel, total_s: float) -> float:
    """Time for which processors hold tiles of *kernel*, times the share of them that do; its start does not count.

    Where the clock was lowered, the time that the same clock cycles take at the full one.

    >>> from ..kernel import TileClass
    >>> k = Kernel("k", (TileClass(2, 1.0, 0.0, 0.0, 0.0),), 4, 1, 1.0, 1.0, (), setup_s=0.5)
    >>> active_s(k, kernel_time(k).total_s)  # one second on half the processors
    0.5
    """
    slower = 1.0
    for name, value in kernel.detail:  # the last one counts
        if name == SLOWDOWN:
            slower = float(value)
    return min(1.0, kernel.tiles / kernel.units) * max(0.0, total_s - kernel.setup_s) / slower

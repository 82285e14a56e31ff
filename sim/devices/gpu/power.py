"""The board's power limit: what a kernel may draw, and how much slower its clocks make it run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ...spec.hardware import GpuSpec
from ..kernel import Kernel, kernel_time


@dataclass(frozen=True, slots=True)
class PowerBudget:
    """Watts that operations and moved bytes may take beyond the idle board, and joules of each.

    Clocks come down until the energy of the work, spread over its time, fits: ``time ≥ energy / watts``. Energies are
    taken as independent of the clock (the part of the voltage range in which boards are held is small).
    """

    watts: float
    matrix_j: Mapping[str, float]
    memory_j: float
    l2_j: float

    @classmethod
    def of(cls, spec: GpuSpec) -> PowerBudget | None:
        """The budget of a GPU file; None where it gives no held power or not all energies."""
        power, energy = spec.power, spec.energy
        known = power.held is not None and power.idle is not None and energy.matrix is not None
        if not known or energy.memory is None or energy.l2 is None or energy.matrix is None:
            return None
        watts = float(power.held or 0.0) - float(power.idle or 0.0)
        return cls(watts, {str(t): float(j) for t, j in energy.matrix.items()}, float(energy.memory), float(energy.l2))

    def apply(self, kernel: Kernel, flops: float, dtype: str) -> Kernel:
        """*kernel* with all its rates lowered as far as its power demands."""
        per_flop = self.matrix_j.get(dtype)
        if per_flop is None:
            return kernel
        energy = flops * per_flop + kernel.memory_bytes * self.memory_j + kernel.l2_bytes * self.l2_j
        slower = energy / self.watts / kernel_time(kernel).total_s
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
            detail=(*kernel.detail, ("power_slowdown", slower)),
        )

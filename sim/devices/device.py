"""The seam between operators and hardware: a device lowers an operator to kernels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from ..graph.operator import Operator
from .kernel import Kernel, KernelTime, kernel_time


@dataclass(frozen=True, slots=True)
class LaunchCosts:
    """Launch costs of a device in seconds, by mode (see the hardware file).

    ``gap_s`` lies between kernels replayed from a graph, ``stream_gap_s`` between kernels queued in a stream,
    ``dispatch_s`` is host time of one framework operator, ``isolated_s`` the cost of one synchronised operator.
    """

    gap_s: float
    stream_gap_s: float
    dispatch_s: float
    isolated_s: float


@dataclass(frozen=True, slots=True)
class Lowered:
    """Kernels of one operator with their closed-form times."""

    kernels: tuple[Kernel, ...]
    times: tuple[KernelTime, ...]

    @property
    def analytic_s(self) -> float:
        """Sum of the kernels, without launches."""
        return sum(t.total_s for t in self.times)

    @property
    def roofline_s(self) -> float:
        """Sum of the kernels' rooflines."""
        return sum(k.roofline_s for k in self.kernels)

    @property
    def bound(self) -> str:
        """What binds the longest kernel."""
        if not self.times:
            return "none"
        return max(self.times, key=lambda t: t.total_s).bound


class Device(ABC):
    """Hardware of one kind, built from its specification.

    A new kind of device is a subclass in a folder of its own. Results of :meth:`lower` are kept by content.
    """

    name: str
    launch: LaunchCosts
    memory_capacity_bytes: float
    memory_reserved_bytes: float
    memory_peak_bytes_per_s: float
    power_limit_w: float | None
    price_usd_per_hour: float | None

    def __init__(self) -> None:
        self._kept: dict[tuple[Operator, bool], Lowered] = {}

    @abstractmethod
    def kernels_of(self, op: Operator, fused: bool) -> tuple[Kernel, ...]:
        """Kernels that compute *op*; ``fused`` False gives what an eager framework launches.

        Raises:
            UnsupportedError: the device cannot run it (a dtype it lacks, a kind it does not know).
        """

    @abstractmethod
    def peak_matrix_flops(self, dtype: str) -> float:
        """Dense peak FLOP/s of the matrix unit (or what stands in for it)."""

    def cycles(self, lowered: Lowered) -> float | None:
        """Cycles of the device's own clock for an operator; None where a kernel has no such clock of its own."""
        return None

    def more_roofs(self) -> tuple[tuple[str, str, float], ...]:
        """Further roofs of the roofline plot as (name, "compute" or "bandwidth", value)."""
        return ()

    def lower(self, op: Operator, fused: bool = True) -> Lowered:
        """Kernels of *op* with their closed-form times, remembered by content."""
        key = (op, fused)
        found = self._kept.get(key)
        if found is None:
            kernels = self.kernels_of(op, fused)
            found = Lowered(kernels, tuple(kernel_time(k) for k in kernels))
            self._kept[key] = found
        return found

"""The seam between operators and hardware: a device lowers an operator to kernels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import UnsupportedError
from ..graph.graph import Graph
from ..graph.operator import Launched, Operator
from ..graph.operators.communication import Collective
from .communication import Communication
from .kernel import Kernel, KernelTime, kernel_time


@dataclass(frozen=True, slots=True)
class LaunchCosts:
    """Launch costs of a device in seconds, by mode (see the hardware file).

    ``gap_s`` lies between kernels replayed from a graph, ``stream_gap_s`` between kernels queued in a stream,
    ``dispatch_s`` is host time of one framework operator, ``isolated_s`` the cost of one synchronised operator: a
    library's product; ``native_s`` and ``compiled_s`` that of the other launch classes, the same where negative.
    ``host_speed`` divides the host times of engine profiles; the times here are those of this host already.
    """

    gap_s: float
    stream_gap_s: float
    dispatch_s: float
    isolated_s: float
    native_s: float = -1.0
    compiled_s: float = -1.0
    host_speed: float = 1.0

    def alone_s(self, launched: Launched) -> float:
        """Cost of one synchronised operator of a launch class.

        >>> LaunchCosts(0.0, 0.0, 0.0, 21e-6, native_s=12e-6).alone_s("native")
        1.2e-05
        """
        found = {"native": self.native_s, "compiled": self.compiled_s}.get(launched, -1.0)
        return self.isolated_s if found < 0.0 else found


@dataclass(frozen=True, slots=True)
class Lowered:
    """Kernels of one operator with their closed-form times and what readings ask of them again and again.

    ``analytic_s`` and ``roofline_s`` are sums over the kernels, without launches; ``shares`` splits ``analytic_s`` by
    resource (work under what binds it, the rest as latency); ``bounds`` does so for the rooflines. ``seconds`` are the
    kernels' own times, ``flops``, ``bytes_moved`` and the launch class ``launched`` those of the operator.
    """

    kernels: tuple[Kernel, ...]
    times: tuple[KernelTime, ...]
    analytic_s: float
    roofline_s: float
    shares: tuple[tuple[str, float], ...]
    bounds: tuple[tuple[str, float], ...]
    seconds: tuple[float, ...]
    flops: float
    bytes_moved: float
    launched: Launched = "library"

    @classmethod
    def of(cls, op: Operator, kernels: tuple[Kernel, ...]) -> Lowered:
        """Price the *kernels* of *op*."""
        times = tuple([kernel_time(k) for k in kernels])
        shares: dict[str, float] = {}
        bounds: dict[str, float] = {}
        total = roofline_total = 0.0
        for kernel, time in zip(kernels, times, strict=True):
            shares[time.bound] = shares.get(time.bound, 0.0) + time.work_s
            if time.latency_s:
                shares["latency"] = shares.get("latency", 0.0) + time.latency_s
            name, roofline_s = kernel.roofline
            bounds[name] = bounds.get(name, 0.0) + roofline_s
            total += time.total_s
            roofline_total += roofline_s
        parts = (tuple(shares.items()), tuple(bounds.items()))
        seconds = tuple([t.total_s for t in times])
        own = (op.flops, op.bytes_moved)
        return cls(kernels, times, total, roofline_total, *parts, seconds, *own, launched=op.launched)

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
    collective_share: float = 0.0
    """Share of the processors that a running collective of the communication library takes from other kernels."""

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

    def energy_j(self, op: Operator, lowered: Lowered) -> float | None:
        """Energy of one run of *op* beyond idle power; None where the device's file does not say."""
        return None

    @property
    def idle_power_w(self) -> float | None:
        """Power that is drawn whatever runs; None where unknown."""
        return None

    def communication(self, op: Collective, fused: bool = True) -> Communication:
        """A collective as this device's library does it on its network.

        Raises:
            UnsupportedError: devices of this kind are not joined.
        """
        raise UnsupportedError(f"{self.name}: devices of this kind run no collectives")

    def cycles(self, lowered: Lowered) -> float | None:
        """Cycles of the device's own clock for an operator; None where a kernel has no such clock of its own."""
        return None

    def cycle_parts(self, op: Operator, fused: bool) -> dict[str, float]:
        """Cycles of one run of *op* by cause, with their ``total``; empty where the device does not tell them apart."""
        return {}

    def more_roofs(self) -> tuple[tuple[str, str, float], ...]:
        """Further roofs of the roofline plot as (name, "compute" or "bandwidth", value)."""
        return ()

    def prepare(self, graph: Graph) -> object:
        """Look at a whole graph before its operators are lowered, where the device maps graphs rather than operators.

        Raises:
            DoesNotFitError: the graph does not fit the device's fabric.
        """
        return None

    def depends_on(self, path: str, operators: Iterable[Operator]) -> bool:
        """Whether the time of a program of *operators* may depend on the number at *path* of the hardware's files."""
        return True

    def inherit(self, other: Device, path: str) -> int:
        """Take over what *other* lowered that does not depend on the number at *path*, the only one that differs.

        Returns how many operators that were; times are the same with and without.
        """
        return 0

    def lower(self, op: Operator, fused: bool = True) -> Lowered:
        """Kernels of *op* with their closed-form times, remembered by content."""
        key = (op, fused)
        found = self._kept.get(key)
        if found is None:
            found = self._kept[key] = Lowered.of(op, self.kernels_of(op, fused))
        return found

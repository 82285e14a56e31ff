"""A device that prices primitive steps: what a CPU and an FPGA overlay have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from ..errors import UnsupportedError
from ..graph.operator import Operator
from ..graph.operators.communication import Collective, HostTransfer
from ..network.collectives import ENGINE, CollectiveCosts
from ..network.topology import Network, NetworkLevel
from .communication import Communication
from .device import Device
from .kernel import Kernel
from .steps import AttentionStep, BackwardStep, ProductStep, Step, SweepStep, TransferStep, steps_of


class LinkLike(Protocol):
    """What a link in a device file offers; bandwidth counts one direction."""

    @property
    def bandwidth(self) -> float:
        """Bytes a second."""

    @property
    def latency(self) -> float:
        """Seconds of one hop."""

    @property
    def max_devices(self) -> int:
        """Devices that the link joins."""


def bare_network(links: Mapping[str, LinkLike]) -> Network:
    """Devices side by side on the fastest link of a bare device file that joins any."""
    joining = {name: link for name, link in links.items() if int(link.max_devices) > 1} or links
    if not joining:
        return Network(())
    name, link = max(joining.items(), key=lambda item: float(item[1].bandwidth))
    level = NetworkLevel(name, "switch", int(link.max_devices), float(link.bandwidth), float(link.latency))
    return Network((level,))


class SteppedDevice(Device):
    """A device whose kernels are those of :func:`effsim.devices.steps.steps_of`, one step a kernel."""

    network: Network
    collective_costs: CollectiveCosts
    host_bytes_per_s: float
    host_latency_s: float

    @abstractmethod
    def product_kernel(self, step: ProductStep) -> Kernel:
        """The kernel of a matrix product."""

    @abstractmethod
    def sweep_kernel(self, step: SweepStep) -> Kernel:
        """The kernel of a pass over data."""

    @abstractmethod
    def attention_kernel(self, step: AttentionStep) -> Kernel:
        """The kernel of fused attention."""

    def kernels_of(self, op: Operator, fused: bool) -> tuple[Kernel, ...]:
        """See :meth:`Device.kernels_of`."""
        return tuple(kernel for step in steps_of(op, fused, self.name) for kernel in self._price(step))

    def _price(self, step: Step) -> tuple[Kernel, ...]:
        if isinstance(step, ProductStep):
            return (self.product_kernel(step),)
        if isinstance(step, SweepStep):
            return (self.sweep_kernel(step),)
        if isinstance(step, AttentionStep):
            return (self.attention_kernel(step),)
        if isinstance(step, TransferStep):
            op = step.op
            return (self._collective_kernel(op) if isinstance(op, Collective) else self._host_copy(op),)
        kernels = tuple(kernel for inner in step.steps for kernel in self._price(inner))
        return tuple(_scaled(kernel, step) for kernel in kernels)

    def communication(self, op: Collective, fused: bool = True) -> Communication:
        """See :meth:`Device.communication`."""
        beside_s = 0.0 if op.beside is None else self.lower(op.beside, fused).analytic_s
        return Communication(self.network, self.collective_costs, op, ENGINE, True, beside_s)

    def _collective_kernel(self, op: Collective) -> Kernel:
        done = self.communication(op)
        kernel = self._fixed(f"{op.op} {done.priced.algorithm}", done.seconds, "network", done.bound_s, done.detail)
        return replace(kernel, queued=done.queued)

    def _host_copy(self, op: HostTransfer) -> Kernel:
        if self.host_bytes_per_s <= 0.0:
            raise UnsupportedError(f"{self.name}: a host transfer needs the way to its host in its file")
        seconds = op.payload_bytes / self.host_bytes_per_s
        detail = (("transfer_s", seconds), ("latency_s", self.host_latency_s))
        return self._fixed("host copy", seconds + self.host_latency_s, "host", seconds, detail)

    def _fixed(
        self, name: str, seconds: float, label: str, bound: float, detail: tuple[tuple[str, float | str], ...] = ()
    ) -> Kernel:
        """A kernel without tiles."""
        return Kernel(
            name=name,
            classes=(),
            units=1,
            slots=1,
            l2_bytes_per_s=self.memory_peak_bytes_per_s,
            memory_bytes_per_s=self.memory_peak_bytes_per_s,
            terms=((label, bound),),
            fixed_s=seconds,
            fixed_label=label,
            detail=detail,
        )


def _scaled(kernel: Kernel, step: BackwardStep) -> Kernel:
    """The forward's tiles with more work each; bounds grow no more than the operators' own numbers do."""
    work, base, factor = step.op.arithmetic(), step.forward.arithmetic(), step.factor
    pairs = {
        "matrix": (work.matrix, base.matrix),
        "vector": (work.vector + work.special, base.vector + base.special),
        "memory": (step.op.bytes_moved, step.forward.bytes_moved),
    }
    grown = {label: min(factor, new / old) for label, (new, old) in pairs.items() if old > 0.0}
    classes = tuple(
        replace(c, busy_s=c.busy_s * factor, l2_bytes=c.l2_bytes * factor, memory_bytes=c.memory_bytes * factor)
        for c in kernel.classes
    )
    terms = tuple((label, value * grown.get(label, min(1.0, factor))) for label, value in kernel.terms)
    return replace(
        kernel, name=f"{kernel.name} backward", classes=classes, terms=terms, fixed_s=kernel.fixed_s * factor
    )

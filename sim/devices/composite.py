"""A mixed system behind the device seam: each operator goes to the group that its placement names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import UnsupportedError
from ..graph.graph import Graph
from ..graph.operator import Operator
from ..graph.operators.placement import Placed, Transfer
from .device import Device, Lowered
from .kernel import Kernel


@dataclass(frozen=True, slots=True)
class BridgeLink:
    """Bandwidth (one direction, all links together) and latency between two groups."""

    bytes_per_s: float
    latency_s: float


class CompositeDevice(Device):
    """Device groups with bridges; the first group is the one whose launch costs and roofs stand for the whole."""

    def __init__(
        self, groups: Mapping[str, Device], counts: Mapping[str, int], bridges: Mapping[frozenset[str], BridgeLink]
    ) -> None:
        super().__init__()
        self.groups, self.counts, self.bridges = dict(groups), dict(counts), dict(bridges)
        self.main_group = next(iter(groups))
        main = self.groups[self.main_group]
        self.name = " + ".join(f"{counts[name]} × {device.name}" for name, device in groups.items())
        self.launch = main.launch
        self.memory_capacity_bytes = main.memory_capacity_bytes
        self.memory_reserved_bytes = main.memory_reserved_bytes
        self.memory_peak_bytes_per_s = main.memory_peak_bytes_per_s
        limits = [device.power_limit_w for device in self.groups.values()]
        known = [limit * counts[name] for name, limit in zip(groups, limits, strict=True) if limit is not None]
        # Reports multiply by the devices of the first group, so the others are spread over them.
        self.power_limit_w = sum(known) / counts[self.main_group] if len(known) == len(limits) else None
        prices = [device.price_usd_per_hour for device in self.groups.values()]
        paid = [price * counts[name] for name, price in zip(groups, prices, strict=True) if price is not None]
        self.price_usd_per_hour = sum(paid) / counts[self.main_group] if len(paid) == len(prices) else None

    def lower(self, op: Operator, fused: bool = True) -> Lowered:
        """Lower on the operator's group; transfers on the bridge."""
        if isinstance(op, Placed):
            return self.groups[op.place].lower(op.op, fused)
        if isinstance(op, Transfer):
            return super().lower(op, fused)
        return self.groups[self.main_group].lower(op, fused)

    def kernels_of(self, op: Operator, fused: bool) -> tuple[Kernel, ...]:
        """A transfer: latency and bytes over the bridge between its two groups."""
        if not isinstance(op, Transfer):
            return self.groups[self.main_group].kernels_of(op, fused)
        link = self.bridges.get(frozenset((op.source, op.target)))
        if link is None:
            raise UnsupportedError(f"no bridge between {op.source!r} and {op.target!r}")
        seconds = op.payload_bytes / link.bytes_per_s
        kernel = Kernel(
            name=f"transfer {op.source} to {op.target}",
            classes=(),
            units=1,
            slots=1,
            l2_bytes_per_s=link.bytes_per_s,
            memory_bytes_per_s=link.bytes_per_s,
            terms=(("network", seconds),),
            fixed_s=seconds + link.latency_s,
            detail=(("transfer_s", seconds), ("latency_s", link.latency_s)),
        )
        return (kernel,)

    def prepare(self, graph: Graph) -> object:
        """Groups that map whole graphs are not mixed with others; each still gets to see it."""
        return [device.prepare(graph) for device in self.groups.values()]

    def peak_matrix_flops(self, dtype: str) -> float:
        """Of one device of the first group."""
        return self.groups[self.main_group].peak_matrix_flops(dtype)

    def more_roofs(self) -> tuple[tuple[str, str, float], ...]:
        """Roofs of the first group, and the memory of the others."""
        others = [name for name in self.groups if name != self.main_group]
        own = self.groups[self.main_group].more_roofs()
        return (*own, *((f"{name} memory", "bandwidth", self.groups[name].memory_peak_bytes_per_s) for name in others))

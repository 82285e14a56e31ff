"""How devices are joined: levels of a hierarchy, innermost first, and who shares which level."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import UnsupportedError
from ..spec.hardware import Link
from ..spec.system import Level


@dataclass(frozen=True, slots=True)
class NetworkLevel:
    """One level: ``size`` members, each with ``bytes_per_s`` into it in one direction; ``payload``: useful share.

    ``shared_by`` devices use one such link; ``leaf`` members (0: all) stand below one leaf switch of a fat tree, whose
    uplinks have an ``oversubscription``-th of their rate.
    """

    name: str
    kind: str
    size: int
    bytes_per_s: float
    latency_s: float
    reduces: bool = False
    payload: float = 1.0
    shared_by: int = 1
    oversubscription: float = 1.0
    leaf: int = 0

    @property
    def can_contend(self) -> bool:
        """Groups that run at the same time may share its links."""
        return self.shared_by > 1 or self.oversubscription > 1.0 or self.kind == "ring"


@dataclass(frozen=True, slots=True)
class Network:
    """Levels, innermost first. The product of their sizes is the number of devices.

    ``algorithm``: of its collectives where it is forced, else empty.
    """

    levels: tuple[NetworkLevel, ...]
    algorithm: str = ""

    @property
    def devices(self) -> int:
        """Devices joined."""
        total = 1
        for level in self.levels:
            total *= level.size
        return total

    @classmethod
    def from_levels(cls, levels: Iterable[Level], algorithm: str = "auto") -> Network:
        """From the topology of a system file, with the algorithm it forces."""
        return cls(
            tuple(
                NetworkLevel(
                    name=level.name,
                    kind=level.kind,
                    size=int(level.size),
                    bytes_per_s=float(level.bandwidth),
                    latency_s=float(level.latency),
                    reduces=level.in_network_reduction,
                    payload=float(level.payload),
                    shared_by=int(level.shared_by),
                    oversubscription=float(level.oversubscription),
                    leaf=int(level.leaf or 0),
                )
                for level in levels
            ),
            "" if algorithm == "auto" else algorithm,
        )

    @classmethod
    def from_links(cls, links: dict[str, Link]) -> Network:
        """What a bare device file implies: devices side by side on their fastest link, as many as it reaches."""
        if not links:
            return cls(())
        name, link = max(links.items(), key=lambda item: float(item[1].bandwidth))
        return cls(
            (
                NetworkLevel(
                    name=name,
                    kind="switch",
                    size=int(link.max_devices),
                    bytes_per_s=float(link.bandwidth),
                    latency_s=float(link.latency),
                    reduces=link.in_network_reduction,
                ),
            )
        )

    def spans(self, devices: int, stride: int) -> list[tuple[NetworkLevel, int]]:
        """Levels that a group of *devices* ranks, *stride* apart, crosses, with its members on each.

        Eight ranks a stride of 1 apart on nodes of 8 stay inside; a stride of 8 leaves every node at once.

        Raises:
            UnsupportedError: the group is larger than the network.
        """
        out, left, step = [], devices, stride
        for level in self.levels:
            inside = max(1, level.size // step) if step < level.size else 1
            members = min(left, inside)
            step = max(1, step // level.size)
            if members > 1:
                out.append((level, members))
                left = -(-left // members)
            if left == 1:
                return out
        if left > 1:
            raise UnsupportedError(f"a group of {devices} devices does not fit on a network of {self.devices}")
        return out

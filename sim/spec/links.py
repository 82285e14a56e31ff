"""Links out of a device: one description for every kind of machine."""

from __future__ import annotations

from pydantic import Field

from .fields import Bandwidth, Count, NonNegativeTime, SpecModel


class DeviceLink(SpecModel):
    """A link out of a device; each kind of machine says which technologies it has. Bandwidth counts one direction."""

    kind: str = Field(description="technology; the same word as the key")
    bandwidth: Bandwidth = Field(description="one direction, all lanes, ports or links together")
    latency: NonNegativeTime = Field(description="one hop, device to device, as a message sees it")
    max_devices: Count = Field(
        1, validate_default=True, description="devices reachable at this bandwidth without leaving the node"
    )
    in_network_reduction: bool = Field(False, description="the switch can add (NVLink SHARP, InfiniBand SHARP)")

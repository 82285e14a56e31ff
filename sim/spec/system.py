"""What a user writes to join devices: the ``kind: system`` file (a node, a rack, a cluster)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .fields import Bandwidth, Count, Power, SpecModel, Time
from .hardware import Price, Provenance


class DeviceGroup(SpecModel):
    """So many of one catalogue device."""

    hardware: str = Field(description="name of a bundled file or a path relative to this file")
    count: Count


class Level(SpecModel):
    """One level of the network, innermost first. Bandwidth is per member and direction."""

    name: Annotated[str, Field(min_length=1)]
    kind: Literal["switch", "ring", "fully_connected", "fat_tree"]
    size: Count = Field(description="members joined by this level: devices at the innermost level, groups above")
    bandwidth: Bandwidth = Field(description="of one device into this level, one direction")
    latency: Time
    in_network_reduction: bool = Field(False, description="the switch can add (NVLink SHARP, InfiniBand SHARP)")


class SystemSpec(SpecModel):
    """Devices and the network that joins them."""

    kind: Literal["system"]
    name: Annotated[str, Field(min_length=1, max_length=120)]
    description: str = ""
    provenance: Provenance | None = None
    devices: Annotated[list[DeviceGroup], Field(min_length=1)]
    topology: Annotated[list[Level], Field(min_length=1)]
    power: Power | None = Field(None, description="of the whole system at full load, hosts and fans included")
    price: Price = Field(default_factory=lambda: Price())

    @model_validator(mode="after")
    def _sizes_multiply(self) -> SystemSpec:
        members = 1
        for level in self.topology:
            members *= level.size
        devices = sum(group.count for group in self.devices)
        if members != devices:
            sizes = " × ".join(str(int(level.size)) for level in self.topology)
            raise ValueError(f"the topology joins {sizes} = {members} devices but 'devices' lists {devices}")
        return self

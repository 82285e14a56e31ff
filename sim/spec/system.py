"""What a user writes to join devices: the ``kind: system`` file (a node, a rack, a cluster)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .fields import Bandwidth, Count, Power, SpecModel, Time
from .hardware import Price, Provenance


class DeviceGroup(SpecModel):
    """So many of one catalogue device."""

    hardware: str = Field(description="name of a bundled file or a path relative to this file")
    count: Count = Field(description="devices of this sort")


class Level(SpecModel):
    """One level of the network, innermost first. Bandwidth is per member and direction."""

    name: Annotated[str, Field(min_length=1)] = Field(description="name in reports")
    kind: Literal["switch", "ring", "fully_connected", "fat_tree"] = Field(
        description="shape of the level: a switch or fat tree reaches everybody in one step, a ring only neighbours"
    )
    size: Count = Field(description="members joined by this level: devices at the innermost level, groups above")
    bandwidth: Bandwidth = Field(description="of one device into this level, one direction")
    latency: Time = Field(description="one hop, as a message sees it")
    in_network_reduction: bool = Field(False, description="the switch can add (NVLink SHARP, InfiniBand SHARP)")


class SystemSpec(SpecModel):
    """Devices and the network that joins them."""

    kind: Literal["system"] = Field(description="always 'system'")
    name: Annotated[str, Field(min_length=1, max_length=120)] = Field(description="name in reports")
    description: str = Field("", description="free text")
    provenance: Provenance | None = Field(None, description="origin of the numbers that carry none themselves")
    devices: Annotated[list[DeviceGroup], Field(min_length=1)] = Field(
        description="devices in the system; all of one sort for now"
    )
    topology: Annotated[list[Level], Field(min_length=1)] = Field(
        description="levels of the network, innermost first; the product of their sizes is the number of devices"
    )
    power: Power | None = Field(None, description="of the whole system at full load, hosts and fans included")
    price: Price = Field(default_factory=lambda: Price(), description="what the whole system costs")

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

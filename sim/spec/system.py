"""What a user writes to join devices: the ``kind: system`` file (a node, a rack, a cluster, a mix of machines)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .fields import Bandwidth, Count, Factor, Power, Ratio, SpecModel, Time
from .hardware import Price, Provenance
from .workload import Algorithm


class Level(SpecModel):
    """One level of the network, innermost first. Bandwidth is per member and direction."""

    name: Annotated[str, Field(min_length=1, description="shown in reports and collective algorithms")]
    kind: Literal["switch", "ring", "fully_connected", "fat_tree"] = Field(
        description="decides which collective algorithms the level offers"
    )
    size: Count = Field(description="members joined by this level: devices at the innermost level, groups above")
    bandwidth: Bandwidth = Field(description="of one device into this level, one direction")
    latency: Time = Field(description="one hop, as a message sees it")
    payload: Ratio = Field(1.0, description="share of the bandwidth that is payload (headers, flow control)")
    in_network_reduction: bool = Field(False, description="the switch can add (NVLink SHARP, InfiniBand SHARP)")
    shared_by: Count = Field(
        1, validate_default=True, description="devices that share one link of this bandwidth (an adapter for two, say)"
    )
    oversubscription: Factor = Field(
        1.0, description="fat_tree: bandwidth into a leaf switch over that of its uplinks; 1: non-blocking"
    )
    leaf: Count | None = Field(None, description="fat_tree: members below one leaf switch; all of them if absent")

    @model_validator(mode="after")
    def _fat_tree(self) -> Level:
        if self.oversubscription < 1.0:
            raise ValueError(f"oversubscription is {self.oversubscription:g}; expected 1 or more")
        if self.kind != "fat_tree" and (self.oversubscription > 1.0 or self.leaf is not None):
            raise ValueError("'oversubscription' and 'leaf' are for levels of kind fat_tree")
        if self.oversubscription > 1.0 and (self.leaf is None or self.leaf >= self.size):
            raise ValueError("an oversubscribed fat tree needs 'leaf', the members below one leaf switch, below 'size'")
        return self


class DeviceGroup(SpecModel):
    """So many of one catalogue device."""

    hardware: str = Field(description="name of a bundled file or a path relative to this file")
    count: Count = Field(description="devices of this kind")
    name: str = Field("", description="what placement rules and bridges call the group; its hardware name if empty")
    topology: list[Level] | None = Field(
        None, description="how the group is joined in itself, in a mixed system; its device file's links if absent"
    )

    @property
    def label(self) -> str:
        """Name of the group."""
        return self.name or self.hardware


class Bridge(SpecModel):
    """The connection of two device groups; bandwidth is of all their links together, one direction."""

    between: Annotated[list[str], Field(min_length=2, max_length=2, description="names of the two groups")]
    bandwidth: Bandwidth = Field(description="all links between the groups together, one direction")
    latency: Time = Field(description="one transfer, as the receiving side sees it")


class PlacementRule(SpecModel):
    """Operators that a group runs: a shell-style pattern over their dotted names."""

    operators: Annotated[str, Field(min_length=1, description="pattern such as *.attention or layers.experts")]
    group: Annotated[str, Field(min_length=1, description="name of a device group")]


class SystemSpec(SpecModel):
    """Devices and the network that joins them. Several device groups make a mixed system with placement rules."""

    kind: Literal["system"] = Field(description="marks the file as a system")
    name: Annotated[str, Field(min_length=1, max_length=120, description="shown in reports")]
    description: str = Field("", description="free text")
    provenance: Provenance | None = Field(None, description="origin of the bare numbers of this file")
    devices: Annotated[list[DeviceGroup], Field(min_length=1, description="groups; the first runs what no rule moves")]
    topology: list[Level] | None = Field(None, description="network of a system of one kind of device, innermost first")
    collectives: Algorithm = Field("auto", description="algorithm of collectives, where it is forced")
    bridges: list[Bridge] = Field(default_factory=list, description="connections between the groups of a mixed system")
    placement: list[PlacementRule] = Field(
        default_factory=list, description="which operators run on which group; the first pattern that matches wins"
    )
    power: Power | None = Field(None, description="of the whole system at full load, hosts and fans included")
    price: Price = Field(default_factory=lambda: Price(), description="of the whole system")

    @property
    def mixed(self) -> bool:
        """Groups that work differently: of several kinds, or told apart by bridges and placement."""
        return bool(self.bridges or self.placement) or len({group.hardware for group in self.devices}) > 1

    @model_validator(mode="after")
    def _joined(self) -> SystemSpec:
        if self.mixed:
            return self._check_mixed()
        if not self.topology:
            raise ValueError("a system of one kind of device needs a 'topology'")
        members = 1
        for level in self.topology:
            members *= level.size
        devices = sum(group.count for group in self.devices)
        if members != devices:
            sizes = " × ".join(str(int(level.size)) for level in self.topology)
            raise ValueError(f"the topology joins {sizes} = {members} devices but 'devices' lists {devices}")
        return self

    def _check_mixed(self) -> SystemSpec:
        names = [group.label for group in self.devices]
        if len(names) < 2:
            raise ValueError("'bridges' and 'placement' need at least two device groups")
        if len(set(names)) != len(names):
            raise ValueError(f"two device groups have the same name; give each a 'name' (found {', '.join(names)})")
        if self.topology:
            raise ValueError("a mixed system has a 'topology' in each device group, not one of its own")
        used = [rule.group for rule in self.placement] + [end for bridge in self.bridges for end in bridge.between]
        for name in used:
            if name not in names:
                raise ValueError(f"no device group {name!r}; the groups are {', '.join(names)}")
        if not self.placement:
            raise ValueError("a mixed system needs 'placement' rules, or its other groups would never be used")
        linked = {frozenset(bridge.between) for bridge in self.bridges}
        for rule in self.placement:
            if rule.group != names[0] and frozenset((rule.group, names[0])) not in linked:
                raise ValueError(f"no bridge between {names[0]!r} and {rule.group!r}")
        return self

"""What a machine offers to a program: memory, and how many devices can be joined."""

from __future__ import annotations

from ..program.memory import Capacity
from ..program.placement import Group, Placement
from .composite import CompositeDevice
from .registry import Machine


def capacity_of(machine: Machine) -> Capacity:
    """What a machine offers to a program."""
    network = machine.network
    return Capacity(
        placement=_placement(machine),
        device=machine.device.name,
        total_bytes=machine.device.memory_capacity_bytes,
        reserved_bytes=machine.device.memory_reserved_bytes,
        devices=_most_devices(machine),
        inner_devices=network.levels[0].size if network.levels else 1,
    )


def _most_devices(machine: Machine) -> int:
    """Devices of the first kind that can be joined."""
    joined = max(1, machine.network.devices)
    if machine.system is None:
        return joined
    return min(joined, int(machine.system.devices[0].count)) if machine.system.mixed else joined


def _placement(machine: Machine) -> Placement | None:
    """Placement of a mixed system; None where there is one kind of device."""
    device, system = machine.device, machine.system
    if not isinstance(device, CompositeDevice) or system is None:
        return None
    groups = {
        name: Group(name, part.name, device.counts[name], part.memory_capacity_bytes, part.memory_reserved_bytes)
        for name, part in device.groups.items()
        if name != device.main_group
    }
    return Placement(device.main_group, tuple((r.operators, r.group) for r in system.placement), groups)

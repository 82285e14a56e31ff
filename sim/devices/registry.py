"""From a hardware file to a machine: the device, how it is joined, how many there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import SpecError, UnsupportedError
from ..network.topology import Network
from ..spec.build import build_by_kind
from ..spec.catalogue import load_document
from ..spec.fields import SpecModel
from ..spec.hardware import GpuSpec
from ..spec.overrides import apply
from ..spec.system import SystemSpec
from .device import Device


def _gpu(spec: SpecModel, network: Network | None) -> Device:
    from .gpu.device import GpuDevice

    assert isinstance(spec, GpuSpec)
    return GpuDevice(spec, network)


DEVICE_SPECS: dict[str, type[SpecModel]] = {"gpu": GpuSpec}
"""Specification of every device kind, by the ``kind:`` of its file."""

_BUILDERS: dict[type[SpecModel], Callable[[SpecModel, Network | None], Device]] = {GpuSpec: _gpu}
"""What turns each specification into a device; modules are imported when their kind is used."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One kind of device and the network that joins copies of it.

    ``system`` is None where a bare device file was given; its own links then say what it can be joined to.
    """

    name: str
    spec: SpecModel
    system: SystemSpec | None
    network: Network
    device: Device

    @property
    def price_usd_per_hour(self) -> float | None:
        """Price of one device an hour: its own, or its share of the system's."""
        if self.system is not None and self.system.price.hourly is not None:
            return float(self.system.price.hourly) / self.network.devices
        return self.device.price_usd_per_hour


def build_device(spec: SpecModel, network: Network | None = None) -> Device:
    """The device of a specification.

    Raises:
        UnsupportedError: no device of that kind.
    """
    builder = _BUILDERS.get(type(spec))
    if builder is None:
        raise UnsupportedError(f"no device for a specification of type {type(spec).__name__}")
    return builder(spec, network)


def load_machine(name_or_path: str, assignments: Sequence[str] = ()) -> Machine:
    """A machine by bundled name or path, with ``--set hardware.…`` assignments applied.

    In a system, ``hardware.device.…`` reaches into its device's file.

    Raises:
        SpecError: the file or an assignment is wrong.
        UnknownNameError: no such file.
    """
    document = load_document("hardware", name_or_path)
    into_device = [a for a in assignments if a.startswith("hardware.device.")]
    document = apply(document, [a for a in assignments if a not in into_device], "hardware")
    kinds: dict[str, type[SpecModel]] = {**DEVICE_SPECS, "system": SystemSpec}
    spec = build_by_kind(kinds, document, root="hardware")
    if isinstance(spec, SystemSpec):
        return _load_system(spec, Path(document.file), into_device)
    if into_device:
        raise SpecError(f"command line: {into_device[0]}: 'hardware.device' is for systems; this is a single device")
    device = build_device(spec)
    return Machine(device.name, spec, None, device_network(spec), device)


def _load_system(system: SystemSpec, file: Path, assignments: Sequence[str]) -> Machine:
    names = {group.hardware for group in system.devices}
    if len(names) > 1:
        raise SpecError(f"{file}: a system of several device kinds ({', '.join(sorted(names))}) cannot be run yet")
    name = system.devices[0].hardware
    nearby = file.parent / name
    document = load_document("hardware", str(nearby) if nearby.exists() else name)
    inner = [a.replace("hardware.device.", "hardware.", 1) for a in assignments]
    kinds: dict[str, type[SpecModel]] = dict(DEVICE_SPECS)
    spec = build_by_kind(kinds, apply(document, inner, "hardware"), root="hardware.device")
    network = Network.from_levels(system.topology)
    return Machine(system.name, spec, system, network, build_device(spec, network))


def device_network(spec: SpecModel) -> Network:
    """What a bare device file implies about its peers."""
    links = getattr(spec, "links", {})
    return Network.from_links({str(name): link for name, link in links.items()})


def rebuild(machine: Machine, spec: SpecModel, system: SystemSpec | None) -> Machine:
    """The same machine with changed specifications (for sensitivities and sweeps)."""
    network = device_network(spec) if system is None else Network.from_levels(system.topology)
    return Machine(machine.name, spec, system, network, build_device(spec, network))

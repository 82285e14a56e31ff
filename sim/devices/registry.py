"""From a hardware file to a machine: the device, how it is joined, how many there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import SpecError, UnsupportedError
from ..network.topology import Network
from ..spec.build import build_by_kind
from ..spec.catalogue import load_document
from ..spec.confine import exists
from ..spec.cpu import CpuSpec
from ..spec.fields import SpecModel
from ..spec.fpga import FpgaSpec
from ..spec.hardware import GpuSpec
from ..spec.overrides import apply
from ..spec.pim import PimSpec
from ..spec.system import SystemSpec
from ..spec.systolic import SystolicSpec
from ..spec.yaml_loader import Document
from .composite import BridgeLink, CompositeDevice
from .device import Device


def _gpu(spec: SpecModel, network: Network | None) -> Device:
    from .gpu.device import GpuDevice

    assert isinstance(spec, GpuSpec)
    return GpuDevice(spec, network)


def _cpu(spec: SpecModel, network: Network | None) -> Device:
    from .cpu.device import CpuDevice

    assert isinstance(spec, CpuSpec)
    return CpuDevice(spec, network)


def _fpga(spec: SpecModel, network: Network | None) -> Device:
    from .fpga.device import FpgaDevice

    assert isinstance(spec, FpgaSpec)
    return FpgaDevice(spec, network)


def _systolic(spec: SpecModel, network: Network | None) -> Device:
    from .systolic.device import SystolicDevice

    assert isinstance(spec, SystolicSpec)
    return SystolicDevice(spec, network)


def _pim(spec: SpecModel, network: Network | None) -> Device:
    from .pim.device import PimDevice

    assert isinstance(spec, PimSpec)
    return PimDevice(spec, network)


DEVICE_SPECS: dict[str, type[SpecModel]] = {
    "gpu": GpuSpec,
    "cpu": CpuSpec,
    "fpga": FpgaSpec,
    "systolic": SystolicSpec,
    "pim": PimSpec,
}
"""Specification of every device kind, by the ``kind:`` of its file."""

_BUILDERS: dict[type[SpecModel], Callable[[SpecModel, Network | None], Device]] = {
    GpuSpec: _gpu,
    CpuSpec: _cpu,
    FpgaSpec: _fpga,
    SystolicSpec: _systolic,
    PimSpec: _pim,
}
"""What turns each specification into a device; modules are imported when their kind is used."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One kind of device and the network that joins copies of it.

    ``system`` is None where a bare device file was given; its own links then say what it can be joined to. In a mixed
    system ``spec`` is that of the first group and ``others`` are (name, specification) of the rest.
    """

    name: str
    spec: SpecModel
    system: SystemSpec | None
    network: Network
    device: Device
    others: tuple[tuple[str, SpecModel], ...] = ()

    @property
    def price_usd_per_hour(self) -> float | None:
        """Price of one device an hour: its own, or its share of the system's."""
        if self.system is not None and self.system.price.hourly is not None:
            counts = [int(group.count) for group in self.system.devices]
            return float(self.system.price.hourly) / (counts[0] if self.system.mixed else sum(counts))
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
    document = _machine_document(name_or_path)
    groups = _group_names(document)
    into_device = [a for a in assignments if a.split(".")[:2] in [["hardware", name] for name in ("device", *groups)]]
    document = apply(document, [a for a in assignments if a not in into_device], "hardware")
    kinds: dict[str, type[SpecModel]] = {**DEVICE_SPECS, "system": SystemSpec}
    spec = build_by_kind(kinds, document, root="hardware")
    if isinstance(spec, SystemSpec):
        return _load_system(spec, Path(document.file), into_device)
    if into_device:
        raise SpecError(f"command line: {into_device[0]}: 'hardware.device' is for systems; this is a single device")
    device = build_device(spec)
    return Machine(device.name, spec, None, device_network(spec), device)


def _machine_document(name_or_path: str) -> Document:
    """A hardware file, or the configuration file of another simulator."""
    path = Path(name_or_path)
    if path.suffix == ".cfg":
        from ..importers.scalesim import machine_document

        return machine_document(path)
    return load_document("hardware", name_or_path)


def _group_names(document: Document) -> list[str]:
    """Names of the device groups of a system file, as far as they can be read before it is validated."""
    kind, groups = document.node(("kind",)), document.node(("devices",))
    if kind is None or kind.content != "system" or groups is None or not isinstance(groups.data, list):
        return []
    return [str(g.get("name") or g.get("hardware")) for g in groups.data if isinstance(g, dict)]


def _load_system(system: SystemSpec, file: Path, assignments: Sequence[str]) -> Machine:
    specs = []
    for index, group in enumerate(system.devices):
        nearby = file.parent / group.hardware
        document = load_document("hardware", str(nearby) if exists(nearby) else group.hardware)
        owners = ("device", group.label) if index == 0 else (group.label,)
        mine = ["hardware." + a.split(".", 2)[2] for a in assignments if a.split(".")[1] in owners]
        specs.append(build_by_kind(dict(DEVICE_SPECS), apply(document, mine, "hardware"), root="hardware.device"))
    return _join(system.name, system, specs)


def _join(name: str, system: SystemSpec, specs: Sequence[SpecModel]) -> Machine:
    """The machine of a system with these device specifications, one a group."""
    if not system.mixed:
        network = Network.from_levels(system.topology or [], system.collectives)
        return Machine(name, specs[0], system, network, build_device(specs[0], network))
    devices, counts, networks = {}, {}, []
    for group, spec in zip(system.devices, specs, strict=True):
        network = Network.from_levels(group.topology) if group.topology else device_network(spec)
        networks.append(network)
        devices[group.label], counts[group.label] = build_device(spec, network), int(group.count)
    bridges = {frozenset(b.between): BridgeLink(float(b.bandwidth), float(b.latency)) for b in system.bridges}
    composite = CompositeDevice(devices, counts, bridges)
    others = tuple(zip((group.label for group in system.devices[1:]), specs[1:], strict=True))
    return Machine(name, specs[0], system, networks[0], composite, others)


def device_network(spec: SpecModel) -> Network:
    """What a bare device file implies about its peers."""
    links = getattr(spec, "links", {})
    return Network.from_links({str(name): link for name, link in links.items()})


def timed_briefly(machine: Machine) -> Machine:
    """The same machine as tables of kernels see it: timed in runs that end before a board's power limit acts.

    What a file says to be held (``power.held``) is held there, too.
    """
    spec = machine.spec
    if not isinstance(spec, GpuSpec) or spec.power.brief or machine.others:
        return machine
    power = spec.power.model_copy(update={"brief": True})
    return rebuild(machine, spec.model_copy(update={"power": power}), machine.system)


def rebuild(machine: Machine, spec: SpecModel, system: SystemSpec | None) -> Machine:
    """The same machine with changed specifications (for sensitivities and sweeps)."""
    if system is not None:
        return _join(machine.name, system, [spec, *(other for _, other in machine.others)])
    network = device_network(spec)
    return Machine(machine.name, spec, system, network, build_device(spec, network))

"""Every number of a hardware file with where it comes from, and what of its predictions was compared with hardware."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..devices.registry import Machine, load_machine
from ..explore.sensitivity import shown_path
from ..intervals.classes import RUN, kind_of
from ..intervals.kernel import DeviceIntervals
from ..spec.fields import AnyQuantity, SpecModel
from .service import Service

KINDS: Final = {
    "datasheet": "stated by the maker",
    "measured": "measured by someone who is named",
    "fitted": "fitted to measurements",
    "assumed": "assumed, with a reason",
    "unverified": "taken from a source that nobody checked",
}
"""Origins of numbers, the firmest first."""


@dataclass(frozen=True, slots=True)
class Number:
    """One number, or the numbers of a list of tiles that have one origin: path, SI values, origin."""

    path: str
    values: tuple[float, ...]
    kind: str
    source: str

    @property
    def shown(self) -> str:
        """The value with four digits, or how many there are."""
        return f"{self.values[0]:.4g}" if len(self.values) == 1 else f"{len(self.values)} numbers"


@dataclass(frozen=True, slots=True)
class Compared:
    """A class of kernels: what stands behind its interval on a device, which bounds ln(measured / predicted)."""

    name: str
    evidence: str
    rows: int
    devices: tuple[str, ...]
    low: float
    high: float


def machine_of(service: Service, choice: str) -> Machine:
    """The machine of a choice.

    Raises:
        EffsimError: unknown, or its file is wrong.
    """

    def load() -> Machine:
        return load_machine(service.shelf.argument("hardware", choice))

    return service.ask(("machine", choice), load)


def numbers(machine: Machine) -> list[Number]:
    """All numbers of a machine's files, as :attr:`effsim.report.result.RunResult.assumptions` names them, and those of
    datasheets.
    """
    owners: list[tuple[str, SpecModel]] = [("device", machine.spec), *machine.others]
    if machine.system is not None:
        owners.append(("system", machine.system))
    found: dict[tuple[str, str, str], list[float]] = {}
    for owner, spec in owners:
        for path, leaf in spec.leaves():
            head, tiles, _ = shown_path(machine, owner, path).partition(".tiles.")
            key = (f"{head}.tiles" if tiles else head, *_origin(leaf))
            found.setdefault(key, []).append(float(leaf))
    return [Number(path, tuple(values), kind, source) for (path, kind, source), values in found.items()]


def _origin(leaf: AnyQuantity) -> tuple[str, str]:
    return leaf.kind or "assumed", leaf.source or ""


def filtered(found: Sequence[Number], kinds: Sequence[str], text: str) -> list[Number]:
    """Numbers of these kinds (none: all) whose path or source holds every word of *text*."""
    wanted = text.lower().split()
    return [
        number
        for number in found
        if (not kinds or number.kind in kinds)
        and all(word in f"{number.path} {number.source}".lower() for word in wanted)
    ]


def counted(found: Sequence[Number]) -> dict[str, int]:
    """How many numbers each kind has, the firmest first; tiles are counted one by one."""
    out = dict.fromkeys(KINDS, 0)
    for number in found:
        out[number.kind] = out.get(number.kind, 0) + len(number.values)
    return {kind: n for kind, n in out.items() if n}


def compared(machine: Machine) -> list[Compared]:
    """Every class of kernels that was compared with hardware, and what that says about this machine's device."""
    held = DeviceIntervals(machine.device)
    out = []
    for name in held.residuals.classes:
        if kind_of(name) == RUN:
            _, phase, engine, _ = name.split("|")
            band = held.whole_run(phase, engine) or held.residuals.unknown("a whole run with this engine")
        else:
            band = held.behind(name)
        out.append(Compared(name, band.evidence, band.rows, band.devices, band.low, band.high))
    return out

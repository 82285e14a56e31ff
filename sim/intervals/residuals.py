"""Residuals of validated kernel classes: what is left between measurements and predictions, as bundled numbers.

``hw_configs/intervals/residuals.json`` holds, for every kernel class (:mod:`.classes`), bounds of
``ln(measured / predicted)`` that contain a stated share of the rows: on each device the class was validated on
(``own``), and for a device it was not (``elsewhere``, widened by how much devices differ). ``effsim validate kernels
--residuals`` writes it (:mod:`effsim.validation.residuals`); measured times themselves are not in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from ..devices.device import Device
from ..errors import DataError
from .classes import ENERGY, kind_of
from .origins import bundled, rules

SCHEMA: Final = "effsim/residuals@1"
FILE: Final = "residuals.json"
FAMILY: Final = "family:"
"""Begins the names of groups that hold several kinds."""
ALL: Final = "all"
"""Regime that stands for every regime of a class."""
SAME: Final = 1e-6
"""Relative difference of two numbers up to which a device is the one that was measured."""

VALIDATED, TRANSFERRED, RELATED, UNVALIDATED = "validated", "transferred", "related", "unvalidated"
"""Evidence of an interval, best first: the class on this device; the class on other devices; another phase, type or
kind of the same model; nothing."""
EVIDENCE: Final = (VALIDATED, TRANSFERRED, RELATED, UNVALIDATED)


@dataclass(frozen=True, slots=True)
class Band:
    """Bounds of ln(measured / predicted); ``low`` ≤ 0 ≤ ``high``.

    ``evidence`` is one of :data:`EVIDENCE`, ``rows`` how many measurements stand behind it, ``devices`` on which they
    were made, ``note`` says it in words.
    """

    low: float
    high: float
    evidence: str
    rows: int = 0
    devices: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Residuals:
    """The content of a residual file, and how bands are found in it."""

    level: float
    unvalidated: float
    devices: Mapping[str, Mapping[str, Any]]
    classes: Mapping[str, Mapping[str, Any]]
    groups: Mapping[str, Mapping[str, Any]]
    made: Mapping[str, Any]

    @classmethod
    def of(cls, data: Mapping[str, Any], file: str = FILE) -> Residuals:
        """Read plain data.

        Raises:
            DataError: another schema, or a part is missing.
        """
        if data.get("schema") != SCHEMA:
            raise DataError(f"{file}: schema {data.get('schema')!r}; expected {SCHEMA!r}")
        try:
            parts = (data["devices"], data["classes"], data["groups"], data["made"])
            return cls(float(data["level"]), float(data["unvalidated"]), *parts)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{file}: not a residual file: {error}") from None

    def identity(self, device: Device) -> str:
        """The name of *device* where it is one of those measured: same name, same memory; else empty."""
        entry = self.devices.get(device.name)
        if entry is None:
            return ""
        known = (entry["memory_bytes_per_s"], entry["memory_capacity_bytes"])
        found = (device.memory_peak_bytes_per_s, device.memory_capacity_bytes)
        same = all(abs(a - b) <= SAME * b for a, b in zip(found, known, strict=True))
        return device.name if same else ""

    def uncertainty(self, devices: tuple[str, ...]) -> dict[str, float]:
        """Root mean square over *devices* of what the numbers behind each resource bring, when they were measured."""
        sums: dict[str, float] = {}
        for name in devices:
            for resource, value in self.devices[name]["uncertainty"].items():
                sums[resource] = sums.get(resource, 0.0) + float(value) ** 2 / len(devices)
        return {resource: value**0.5 for resource, value in sums.items()}

    def band(self, name: str, regime: str, own: str, vendor: str) -> Band:
        """The narrowest band with evidence for a class.

        Args:
            name: the class (:func:`~.classes.kernel_class`).
            regime: its regime (:func:`~.classes.regime`).
            own: name of the device where its measurements apply as they are; empty for another device.
            vendor: maker of the device: residuals of other makers' devices alone are no evidence of their size.
        """
        kind = kind_of(name)
        entry = self.classes.get(name)
        if entry is not None:
            mine = entry["own"].get(own)
            if mine is not None:
                return _band(mine, regime, VALIDATED, (own,), "validated on this device")
            found = self._elsewhere(entry["elsewhere"], regime, vendor, TRANSFERRED, "validated on other devices")
            if found is not None:
                return found
        for key, note in _wider(name):
            group = self.groups.get(key)
            found = None if group is None else self._elsewhere(group, ALL, vendor, RELATED, note)
            if found is not None:
                return found
        return self.unknown(kind)

    def run_band(self, name: str, own: str, vendor: str) -> Band | None:
        """The band of whole runs of a class; None where none of that phase and engine profile were compared."""
        entry = self.classes.get(name)
        if entry is None:
            return None
        mine = entry["own"].get(own)
        if mine is not None:
            return _band(mine, ALL, VALIDATED, (own,), "whole runs with this engine were compared on this device")
        note = "whole runs with this engine were compared on other devices"
        return self._elsewhere(entry["elsewhere"], ALL, vendor, TRANSFERRED, note)

    def _elsewhere(self, entry: Mapping[str, Any], regime: str, vendor: str, evidence: str, note: str) -> Band | None:
        """A pooled band; None where none of its devices is of this *vendor*."""
        devices = tuple(entry["devices"])
        if vendor not in {str(self.devices[name]["vendor"]) for name in devices}:
            return None
        return _band(entry, regime, evidence, devices, note)

    def unknown(self, kind: str) -> Band:
        """The wide band of what nobody measured."""
        return Band(-self.unvalidated, self.unvalidated, UNVALIDATED, note=f"{kind} was never compared with hardware")


def _wider(name: str) -> Iterator[tuple[str, str]]:
    """Groups that stand in for a class, nearest first, and what that means in words."""
    kind, launch = kind_of(name), name.rpartition("|")[2]
    family = ENERGY if kind.startswith(ENERGY) else rules().families.get(kind, "")
    yield group_key(kind, launch), f"{kind} is validated, not in this phase and these types"
    if family:
        others = "other kinds" if family == ENERGY else f"others of the family {family}"
        yield group_key(f"{FAMILY}{family}", launch), f"{kind} was never measured, {others} were"
    yield kind, f"{kind} is validated, not launched this way"


def group_key(kind: str, launch: str) -> str:
    """The name of a group of classes: a kind or family, with one way of launching."""
    return f"{kind}|{launch}"


def _band(entry: Mapping[str, Any], regime: str, evidence: str, devices: tuple[str, ...], note: str) -> Band:
    low, high, rows = entry["regimes"].get(regime) or entry["regimes"][ALL]
    return Band(float(low), float(high), evidence, int(rows), devices, note)


@lru_cache(maxsize=1)
def bundled_residuals() -> Residuals:
    """The residuals that come along, read at the first interval.

    Raises:
        DataError: the file is missing or is no residual file.
    """
    return read_residuals(bundled(FILE))


def read_residuals(path: Path) -> Residuals:
    """Residuals of a file.

    Raises:
        DataError: it is missing or is no residual file.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as residuals: {error}") from None
    if not isinstance(data, dict):
        raise DataError(f"{path}: not a residual file")
    return Residuals.of(data, str(path))

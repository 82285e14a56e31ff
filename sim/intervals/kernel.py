"""The interval of one operator's predicted time on one device."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ..devices.composite import CompositeDevice
from ..devices.device import Device, Lowered
from ..graph.operator import Operator
from ..graph.operators.placement import Placed
from .classes import energy_class, kernel_class, kind_of, regime, run_class
from .origins import is_what_if, resource_uncertainty
from .residuals import ALL, UNVALIDATED, Band, Residuals, bundled_residuals

Z: Final = 1.645
"""Standard deviations of a two-sided 90 % of a normal distribution."""


ROUNDED: Final = 1e-3
"""Differences of two uncertainties that are none: those of the measured devices are kept rounded."""


@dataclass(frozen=True, slots=True)
class Relative:
    """How far off a time can be, free of units.

    ``band`` are bounds of ln(measured / predicted) from residuals, under the key ``name`` (its class); ``parameters``
    are (resource, half-width of ln) from numbers that are less well known than those of the measured devices.
    ``low`` and ``high`` are the bounds of both together, in quadrature.
    """

    name: str
    band: Band
    parameters: tuple[tuple[str, float], ...] = ()
    low: float = field(init=False)
    high: float = field(init=False)

    def __post_init__(self) -> None:
        extra = sum(p * p for _, p in self.parameters) if self.parameters else 0.0
        object.__setattr__(self, "low", -math.sqrt(self.band.low**2 + extra))
        object.__setattr__(self, "high", math.sqrt(self.band.high**2 + extra))

    @property
    def cause(self) -> str:
        """What the residual part is called; everything that was never validated errs together at worst."""
        return (
            UNVALIDATED
            if self.band.evidence == UNVALIDATED
            else "residual of " + " ".join(part for part in self.name.split("|") if part)
        )

    def interval(self, seconds: float) -> tuple[float, float]:
        """Bounds of a predicted time; they contain it."""
        return seconds * math.exp(self.low), seconds * math.exp(self.high)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the factors on the prediction and where each part comes from."""
        return {
            "low_factor": math.exp(self.low),
            "high_factor": math.exp(self.high),
            "evidence": self.band.evidence,
            "note": self.band.note,
            "class": self.name,
            "rows": self.band.rows,
            "devices": list(self.band.devices),
            "residual": {"low_factor": math.exp(self.band.low), "high_factor": math.exp(self.band.high)},
            "parameters": {resource: math.exp(half) for resource, half in self.parameters},
        }


@dataclass(slots=True)
class DeviceIntervals:
    """Intervals on one device; bands are looked up once a class and regime.

    A band that was measured on this very device is used as it is: the errors of its parameters are among its
    residuals. Elsewhere, and as far as this device's numbers are of a worse origin than those of the measured devices
    were (``excess``, by resource), the share of the time that each resource binds times its excess widens it:
    ``half = √(band² + Σ_r (Z · share_r · excess_r)²)`` in logarithms. A what-if (a number set on the command line) is
    another device than the measured one; the number itself counts as exact.

    ``excluded`` leaves the device's own measurements out, for judging how well the others stand in for it.
    """

    device: Device
    residuals: Residuals = field(default_factory=bundled_residuals)
    excluded: bool = False
    _own: str = field(init=False)
    _kind: str = field(init=False)
    _vendor: str = field(init=False)
    _uncertainty: Mapping[str, float] = field(init=False)
    _bands: dict[tuple[str, str], tuple[Relative, Mapping[str, float]]] = field(init=False, default_factory=dict)
    _energies: dict[tuple[str, str], Relative] = field(init=False, default_factory=dict)
    _asked: tuple[Operator, Lowered, float, str, tuple[str, str]] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        spec = getattr(self.device, "spec", None)
        self._kind = str(getattr(spec, "kind", ""))
        self._vendor = str(getattr(spec, "vendor", ""))
        leaves = () if spec is None else tuple(spec.leaves())
        self._uncertainty = resource_uncertainty(leaves)
        own = self.residuals.identity(self.device) if spec is not None and not is_what_if(leaves) else ""
        self._own = "" if self.excluded else own

    def relative(self, op: Operator, lowered: Lowered, launch_s: float, launch: str = "graph") -> Relative:
        """How far the time of *op* (kernels and *launch_s*) can be off; ``launch`` as in :func:`kernel_class`."""
        seconds = lowered.analytic_s + launch_s
        name, place = self._where(op, lowered, launch_s, launch)
        plain, excess = self._band(name, place)
        if not excess or seconds <= 0.0:
            return plain
        shares = dict(lowered.shares)
        shares["launch"] = shares.get("launch", 0.0) + launch_s
        parts = tuple(
            (resource, Z * excess[resource] * share / seconds)
            for resource, share in shares.items()
            if share > 0.0 and resource in excess
        )
        return Relative(plain.name, plain.band, parts)

    def energy(self, op: Operator, lowered: Lowered, launch_s: float, launch: str = "graph") -> Relative:
        """How far the energy of *op* can be off, idle board included.

        The residuals are of energies (measured watts times seconds); the device's energies a byte and an operation
        widen them as far as they are of a worse origin than those of the measured devices.
        """
        name, place = self._where(op, lowered, launch_s, launch)
        found = self._energies.get((name, place))
        if found is None:
            plain, excess = self._band(energy_class(name), place)
            own = excess.get("energy", 0.0)
            found = Relative(plain.name, plain.band, (("energy", Z * own),)) if own else plain
            self._energies[name, place] = found
        return found

    def _where(self, op: Operator, lowered: Lowered, launch_s: float, launch: str) -> tuple[str, str]:
        """Class and regime; time and energy of one operator are asked for one after the other."""
        asked = self._asked
        if asked is None or asked[0] is not op or asked[1] is not lowered or asked[2:4] != (launch_s, launch):
            place = regime(lowered.analytic_s + launch_s, lowered.roofline_s, self.device.launch.gap_s)
            asked = self._asked = (op, lowered, launch_s, launch, (kernel_class(op, launch), place))
        return asked[4]

    def whole_run(self, phase: str, engine: str) -> Band | None:
        """What whole runs of *phase* with an *engine* profile were found to be off; None where none were compared."""
        if not self._measurable:
            return None
        return self.residuals.run_band(run_class(phase, engine), self._own, self._vendor)

    def behind(self, name: str) -> Band:
        """What stands behind a class (:func:`~.classes.kernel_class`) here, over all its regimes."""
        return self._band(name, ALL)[0].band

    def unknown(self, kind: str) -> Relative:
        """What is no operator (host work): nothing was compared."""
        return Relative(f"{kind}|||", self.residuals.unknown(kind))

    def _band(self, name: str, place: str) -> tuple[Relative, Mapping[str, float]]:
        """The residual of a class and regime, and what this device's numbers add by resource; looked up once."""
        key = (name, place)
        found = self._bands.get(key)
        if found is None:
            if self._measurable:
                band = self.residuals.band(name, place, self._own, self._vendor)
            else:
                band = self.residuals.unknown(f"{kind_of(name)} on a device of kind {self._kind or 'unknown'}")
            found = self._bands[key] = (Relative(name, band), self._excess(band))
        return found

    @property
    def _measurable(self) -> bool:
        """Whether any device of this kind was measured."""
        return any(entry["kind"] == self._kind for entry in self.residuals.devices.values())

    def _excess(self, band: Band) -> dict[str, float]:
        """Uncertainty of this device's numbers beyond that of the measured devices', by resource."""
        known = {} if band.evidence == UNVALIDATED else self.residuals.uncertainty(band.devices)
        grown = {r: (u, known.get(r, 0.0)) for r, u in self._uncertainty.items()}
        return {r: math.sqrt(u * u - before * before) for r, (u, before) in grown.items() if u > before + ROUNDED}


class SystemIntervals:
    """Intervals on a device or on the groups of a mixed system; an operator's group decides."""

    def __init__(self, device: Device, residuals: Residuals | None = None) -> None:
        self.device = device
        known = residuals or bundled_residuals()
        groups = device.groups if isinstance(device, CompositeDevice) else {}
        self._groups = {name: DeviceIntervals(part, known) for name, part in groups.items()}
        main = self._groups[device.main_group] if isinstance(device, CompositeDevice) else None
        self._main = main or DeviceIntervals(device, known)

    def whole_run(self, phase: str, engine: str) -> Band | None:
        """As :meth:`DeviceIntervals.whole_run`; mixed systems were not compared."""
        return None if self._groups else self._main.whole_run(phase, engine)

    def relative(self, op: Operator | None, kind: str, launch_s: float, fused: bool, energy: bool = False) -> Relative:
        """How far the time (or the *energy*) of *op* inside a run can be off; *kind* names what is no operator.

        ``launch_s``: launch time of one execution.
        """
        if op is None:
            return self._main.unknown(energy_class(kind) if energy else kind)
        group = self._groups.get(op.place, self._main) if isinstance(op, Placed) else self._main
        inner = op.op if isinstance(op, Placed) else op
        found = group.energy if energy else group.relative
        return found(inner, self.device.lower(op, fused), launch_s)


def half_widths(relative: Sequence[tuple[float, Relative]]) -> dict[str, tuple[float, float]]:
    """Seconds below and above by independent cause, of (seconds, relative) pairs; the same cause adds up.

    The causes of one pair in quadrature are exactly the ends of its own interval.
    """
    out: dict[str, tuple[float, float]] = {}
    for seconds, one in relative:
        below, above = -seconds * math.expm1(one.low), seconds * math.expm1(one.high)
        parts = [(one.cause, one.band.low, one.band.high)]
        parts += [(f"parameters of {resource}", -half, half) for resource, half in one.parameters]
        for cause, low, high in parts:
            so_far = out.get(cause, (0.0, 0.0))
            down = below * low / one.low if one.low else 0.0
            up = above * high / one.high if one.high else 0.0
            out[cause] = (so_far[0] + down, so_far[1] + up)
    return out

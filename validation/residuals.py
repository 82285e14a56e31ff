"""Fits the bundled residuals: bounds of ln(measured / predicted) by kernel class, on one half of the measured rows.

A row belongs to the half that a hash of its GPU and columns says (:func:`held_out`), so the halves do not
depend on order, and rows of equal columns are never on both sides. Bounds are fitted on one half; coverage is judged on
the other (``effsim validate kernels``).

For a class on a device with ``n`` rows the bounds are the narrowest pair of quantiles that holds the stated level
(raised by ``1 + 1/n``, as conformal prediction does for a finite sample) and contains 0. Regimes with few rows lean on
their class, a device with few rows on the other devices: ``(n·own + K·wider) / (n + K)``. For a device that was not
measured the pooled rows, centred device by device, give the residual; the spread between devices is added in
quadrature, as large as it takes to hold the level when each measured device is left out in turn. ``unvalidated``, for
what nobody measured, is the half-width that would have held the stated level of rows in the stated level of all
(device, class) pairs.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effsim.devices.device import Device
from effsim.errors import DataError
from effsim.intervals.classes import ENERGY, RUN, kind_of
from effsim.intervals.kernel import Z
from effsim.intervals.origins import resource_uncertainty, rules
from effsim.intervals.residuals import ALL, FAMILY, SCHEMA, group_key

from .tables import Measured

LEVEL = 0.90
SPLIT_SEED = 20261122
PRIOR_ROWS = 8
"""``K``: rows of its own that a group needs to count as much as the wider group around it."""
PRIOR_DEVICES = 2
"""Devices' worth of weight of the spread between devices over all classes, against a class's own."""
TAILS = tuple(i / 10 for i in range(11))
"""Shares of what is left out that lie below the lower bound; the narrowest pair of bounds is taken."""
MOST_SPREAD, BISECTIONS = 1.0, 12
"""Largest spread between units that is looked for (a factor e), and halvings of it."""
DIGITS = 4

Floats = NDArray[np.float64]
Bounds = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Residual:
    """One measured row as the fit sees it: ``value`` is ln(measured / predicted).

    Rows of one ``point`` (the same columns) have one prediction and count as one where it is asked how many there are.
    """

    device: str
    name: str
    regime: str
    value: float
    point: int


def held_out(row: Measured, seed: int = SPLIT_SEED) -> bool:
    """Whether a row is one of those that coverage is judged on."""
    return bool(point_of(row, seed) & 1)


def point_of(row: Measured, seed: int = SPLIT_SEED) -> int:
    """A number for the columns of a row on its GPU."""
    cells = ",".join(f"{k}={row.cells[k]}" for k in sorted(row.cells))
    text = f"{seed}:{row.hardware}:{row.kind}:{cells}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def bounds(values: Floats, weights: Floats | None = None, level: float = LEVEL, rows: int | None = None) -> Bounds:
    """The narrowest pair of quantiles that holds *level* of the rows and contains 0.

    Args:
        values: residuals, any order, at least one.
        weights: of the rows; equal if absent.
        level: share to hold, before the correction for a finite sample.
        rows: size of the sample; default: how many values there are.

    >>> low, high = bounds(np.linspace(-1.0, 1.0, 2001))
    >>> round(high - low, 2)
    1.8
    """
    order = np.argsort(values)
    ranked = values[order]
    mass = np.ones(len(ranked)) if weights is None else weights[order]
    place = (np.cumsum(mass) - 0.5 * mass) / mass.sum()
    left = 1.0 - min(1.0, level * (1.0 + 1.0 / (rows or len(ranked))))
    pairs = [np.interp([left * t, 1.0 - left * (1.0 - t)], place, ranked) for t in TAILS]
    ends = [(min(0.0, float(a)), max(0.0, float(b))) for a, b in pairs]
    return min(ends, key=lambda e: e[1] - e[0])


def shrunk(own: Bounds, rows: int, wider: Bounds) -> Bounds:
    """*own* bounds of few rows moved towards those of the wider group."""
    share = rows / (rows + PRIOR_ROWS)
    return (share * own[0] + (1.0 - share) * wider[0], share * own[1] + (1.0 - share) * wider[1])


Unit = tuple[str, Floats]
"""A device and its residuals of one class."""


@dataclass(frozen=True, slots=True)
class Within:
    """Residuals of several units around their medians: the shared ``middle``, bounds around it, and the medians'
    ``square`` deviations from each other."""

    middle: float
    low: float
    high: float
    square: float
    units: int


def within(units: Sequence[Unit], picks: Sequence[NDArray[np.bool_]] | None = None) -> Within:
    """Rows centred on their unit's median, every unit weighing the same; *picks* keeps some rows of each (a regime).

    The shared median is drawn to 0 as one more unit there would draw it.
    """
    medians = np.array([np.median(values) for _, values in units])
    if picks is None:
        picks = [np.ones(len(values), dtype=bool) for _, values in units]
    parts = [values[pick] - median for (_, values), pick, median in zip(units, picks, medians, strict=True)]
    parts = [part for part in parts if len(part)]
    weights = np.concatenate([np.full(len(part), 1.0 / len(part)) for part in parts])
    low, high = bounds(np.concatenate(parts), weights, rows=min(len(part) for part in parts))
    square = float(((medians - medians.mean()) ** 2).sum())
    return Within(float(medians.mean()) * len(units) / (len(units) + 1), low, high, square, len(units))


def pooled(inner: Within, prior: float) -> Bounds:
    """Bounds for a device (or class) that is none of the units.

    The spread between units, ``Z·τ·√(1 + 1/G)``, is added in quadrature; ``τ²`` is that of the ``G`` units' medians
    and, with :data:`PRIOR_DEVICES` units' weight, *prior* squared.
    """
    spread = math.sqrt((PRIOR_DEVICES * prior**2 + inner.square) / (PRIOR_DEVICES + inner.units - 1))
    extra = Z * spread * math.sqrt(1.0 + 1.0 / inner.units)
    return min(0.0, inner.middle - math.hypot(inner.low, extra)), max(0.0, inner.middle + math.hypot(inner.high, extra))


def between(groups: Iterable[Sequence[Unit]]) -> float:
    """The spread between units with which bounds from the others hold; 0 where there are no two of a kind.

    Each unit of a group is left out in turn: the smallest ``τ`` with which its rows lie inside to :data:`LEVEL`, in the
    mean over all units.
    """
    cases = []
    for units in groups:
        for place, (_, values) in enumerate(units):
            rest = [*units[:place], *units[place + 1 :]]
            if rest:
                cases.append((within(rest), values))
    if not cases:
        return 0.0

    def inside(prior: float) -> float:
        shares = []
        for inner, values in cases:
            low, high = pooled(inner, prior)
            shares.append(float(np.mean((values >= low) & (values <= high))))
        return float(np.mean(shares))

    low, high = 0.0, MOST_SPREAD
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if inside(middle) >= LEVEL else (middle, high)
    return high


@dataclass(slots=True)
class _Class:
    """Rows of one class on one device."""

    values: Floats
    regimes: NDArray[np.str_]
    points: NDArray[np.uint64]

    def of(self, regime: str) -> tuple[Bounds, int]:
        """Bounds of one regime or of all, and how many different points stand behind them."""
        pick = slice(None) if regime == ALL else self.regimes == regime
        count = len(np.unique(self.points[pick]))
        return bounds(self.values[pick], rows=count), count


def fit(rows: Sequence[Residual], devices: Mapping[str, Mapping[str, Any]], made: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a residual file.

    Args:
        rows: residuals of the half that is fitted on, of times and of energies.
        devices: what identifies each device (:func:`describe`).
        made: how the rows came about; kept in the file.

    Raises:
        DataError: no times.
    """
    times = _by_class(row for row in rows if not _apart(row))
    if not times:
        raise DataError("no rows to fit residuals on")
    units = _units(times)
    prior, groups = between(units.values()), _groups(units)
    kinds = between(groups.values())
    every = np.array([np.quantile(np.abs(values), LEVEL) for members in units.values() for _, values in members])
    energies = _by_class(row for row in rows if row.name.startswith(ENERGY))
    runs = _by_class(row for row in rows if kind_of(row.name) == RUN)
    of_energy = _groups(_units(energies))
    # Energies are measured on too few devices for a spread of their own: that of times, which they contain, stands in.
    return {
        "schema": SCHEMA,
        "level": LEVEL,
        "made": dict(made),
        "between_devices": round(prior, DIGITS),
        "between_classes": round(kinds, DIGITS),
        "unvalidated": round(float(np.quantile(every, LEVEL)), DIGITS),
        "devices": {name: dict(devices[name]) for name in sorted({row.device for row in rows})},
        "classes": {name: _class_entry(by, prior) for name, by in (times | energies | runs).items()},
        "groups": {name: _group_entry(members, kinds) for name, members in (groups | of_energy).items()},
    }


def _apart(row: Residual) -> bool:
    """Whether a row is no kernel's time: an energy, or a whole run."""
    return row.name.startswith(ENERGY) or kind_of(row.name) == RUN


def _by_class(rows: Iterable[Residual]) -> dict[str, dict[str, _Class]]:
    """Rows by class and device."""
    keyed: dict[tuple[str, str], list[Residual]] = {}
    for row in rows:
        keyed.setdefault((row.name, row.device), []).append(row)
    found: dict[str, dict[str, _Class]] = {}
    for (name, device), members in sorted(keyed.items()):
        values = np.array([m.value for m in members])
        regimes = np.array([m.regime for m in members])
        points = np.array([m.point for m in members], dtype=np.uint64)
        found.setdefault(name, {})[device] = _Class(values, regimes, points)
    return found


def _units(found: Mapping[str, Mapping[str, _Class]]) -> dict[str, list[Unit]]:
    return {name: [(device, one.values) for device, one in by.items()] for name, by in found.items()}


def _groups(units: Mapping[str, Sequence[Unit]]) -> dict[str, list[Unit]]:
    """Units of every kind, of every kind launched one way, and of every family of kinds launched one way."""
    families = rules().families
    out: dict[str, list[Unit]] = {}
    for name, members in units.items():
        kind, launch = kind_of(name), name.rpartition("|")[2]
        family = ENERGY if kind.startswith(ENERGY) else families.get(kind)
        keys = [kind, group_key(kind, launch)]
        if family is not None:
            keys.append(group_key(f"{FAMILY}{family}", launch))
        for key in keys:
            out.setdefault(key, []).extend(members)
    return dict(sorted(out.items()))


def _entry(ends: Bounds, rows: int) -> list[float]:
    return [round(ends[0], DIGITS), round(ends[1], DIGITS), rows]


def _group_entry(members: Sequence[Unit], prior: float) -> dict[str, Any]:
    rows = sum(len(values) for _, values in members)
    return {"devices": sorted({d for d, _ in members}), "regimes": {ALL: _entry(pooled(within(members), prior), rows)}}


def _class_entry(by: Mapping[str, _Class], prior: float) -> dict[str, Any]:
    units = [(device, c.values) for device, c in by.items()]
    wide = pooled(within(units), prior)
    regimes = sorted({str(r) for c in by.values() for r in np.unique(c.regimes)})
    elsewhere = {ALL: _entry(wide, sum(len(v) for _, v in units))}
    for name in regimes:
        picks = [c.regimes == name for c in by.values()]
        rows = int(sum(pick.sum() for pick in picks))
        elsewhere[name] = _entry(shrunk(pooled(within(units, picks), prior), rows, wide), rows)
    own = {}
    for device, c in by.items():
        whole = shrunk(*c.of(ALL), wide)
        parts = {ALL: _entry(whole, len(c.values))}
        for name in map(str, np.unique(c.regimes)):
            parts[name] = _entry(shrunk(*c.of(name), whole), int((c.regimes == name).sum()))
        own[device] = {"median": round(float(np.median(c.values)), DIGITS), "regimes": parts}
    return {"own": own, "elsewhere": {"devices": sorted(by), "regimes": elsewhere}}


def describe(device: Device) -> dict[str, Any]:
    """What identifies a measured device, and how well its numbers were known."""
    spec: Any = device.spec  # type: ignore[attr-defined]
    return {
        "kind": str(spec.kind),
        "vendor": str(spec.vendor),
        "generation": str(spec.generation),
        "memory_bytes_per_s": device.memory_peak_bytes_per_s,
        "memory_capacity_bytes": device.memory_capacity_bytes,
        "uncertainty": {r: round(u, DIGITS) for r, u in resource_uncertainty(spec.leaves()).items()},
    }


def write_residuals(content: Mapping[str, Any], path: Path) -> None:
    """Write a residual file, one class a line; whole or not at all.

    Raises:
        DataError: the folder does not exist.
    """
    if not path.parent.is_dir():
        raise DataError(f"{path}: the folder {path.parent} does not exist")
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(_text(content))
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _text(content: Mapping[str, Any]) -> str:
    """JSON with a line for each device, class and group, so that changes can be read."""
    dump: Callable[[Any], str] = json.dumps
    lines = []
    for key, value in content.items():
        if key in ("devices", "classes", "groups"):
            inner = ",\n".join(f"  {dump(name)}: {dump(entry)}" for name, entry in value.items())
            lines.append(f" {dump(key)}: {{\n{inner}\n }}")
        else:
            lines.append(f" {dump(key)}: {dump(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"

"""How often measurements lie inside the predicted interval, on rows that it was not fitted on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean, median
from typing import Any

from effsim.devices.device import Device
from effsim.explore.kernel_table import energy_with_idle
from effsim.graph.operator import Operator
from effsim.intervals.classes import energy_class, kernel_class, regime
from effsim.intervals.kernel import DeviceIntervals, Relative
from effsim.intervals.residuals import Residuals, bundled_residuals

from .residuals import LEVEL, SPLIT_SEED, Residual, describe, fit, held_out, point_of
from .runs import RunResiduals, run_coverage
from .tables import Measured

Row = tuple[Measured, Operator, float]
"""A measured row, its operator, its predicted time."""
Key = tuple[str, bool]
"""A GPU and whether the row is a collective (then its device knows the node's network)."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One row and its interval.

    ``low_s`` and ``high_s`` are the interval, ``inside`` whether the measurement lies in it; ``elsewhere`` the same
    for the interval without any row of this GPU (None: nothing else was measured). ``fitted``: the interval was fitted
    on this row, so that it says nothing about coverage.
    """

    low_s: float
    high_s: float
    width: float
    inside: bool
    elsewhere: bool | None
    energy: bool | None = None
    fitted: bool = False


@dataclass(frozen=True, slots=True)
class Coverage:
    """Shares of ``rows`` inside the interval; ``width`` is the median of (high − low) / predicted.

    ``energy``: share of the energies inside theirs, where they were measured.
    """

    rows: int
    inside: float
    width: float
    elsewhere: float | None
    energy: float | None = None


def coverage(found: Sequence[Judged | None]) -> Coverage | None:
    """Coverage of the judged rows of a group that were not fitted on; None where there are none."""
    rows = [one for one in found if one is not None and not one.fitted]
    if not rows:
        return None
    others = [float(one.elsewhere) for one in rows if one.elsewhere is not None]
    energies = [float(one.energy) for one in rows if one.energy is not None]
    return Coverage(
        rows=len(rows),
        inside=mean(float(one.inside) for one in rows),
        width=median(one.width for one in rows),
        elsewhere=mean(others) if others else None,
        energy=mean(energies) if energies else None,
    )


def judged(
    rows: Sequence[Row], devices: Mapping[Key, Device], runs: RunResiduals | None
) -> tuple[list[Judged], dict[str, Any]]:
    """Judge every row by the bundled residuals; those that are not held out are marked as fitted.

    With *runs* (whole runs) the residuals are fitted anew on the rows not held out, and their content is returned too.

    The interval *elsewhere* is always fitted anew, on the other GPUs' rows that are not held out.
    """
    sample = [_residual(row, devices[_key(row[0])]) for row in rows]
    apart = [held_out(row[0]) for row in rows]
    known = {device.name: describe(device) for device in devices.values()}
    training = [one for both, out in zip(sample, apart, strict=True) if not out for one in both]
    content: dict[str, Any] = {}
    if runs is not None:
        content = fit([*training, *runs.training], runs.devices | known, _made(rows, apart))
        content["made"]["whole_runs_held_out"] = run_coverage(runs.held_out, Residuals.of(content))
    residuals = Residuals.of(content) if content else bundled_residuals()
    own = {key: DeviceIntervals(device, residuals) for key, device in devices.items()}
    others = _without_each(training, known, devices)
    out: list[Judged] = []
    for row, hidden in zip(rows, apart, strict=True):
        key = _key(row[0])
        judge = _judge(row, own[key], others.get(key) if hidden else None)
        out.append(judge if hidden else replace(judge, fitted=True))
    return out, content


def _without_each(
    training: Sequence[Residual], known: Mapping[str, Any], devices: Mapping[Key, Device]
) -> dict[Key, DeviceIntervals]:
    """Intervals of every GPU from the rows of the others."""
    fits: dict[str, Residuals | None] = {}
    for device in devices.values():
        if device.name not in fits:
            rest = [one for one in training if one.device != device.name]
            fits[device.name] = Residuals.of(fit(rest, known, {})) if rest else None
    out = {}
    for key, device in devices.items():
        found = fits[device.name]
        if found is not None:
            out[key] = DeviceIntervals(device, found, excluded=True)
    return out


def _key(row: Measured) -> Key:
    return row.hardware, row.kind == "collective"


def _residual(row: Row, device: Device) -> list[Residual]:
    """What is left of a row's time and, where it was measured, of its energy."""
    measured, op, predicted_s = row
    place = regime(predicted_s, device.lower(op).roofline_s, device.launch.gap_s)
    name, point = kernel_class(op, measured.launch), point_of(measured)
    out = [Residual(device.name, name, place, math.log(measured.measured_s / predicted_s), point)]
    joules = _predicted_j(row, device)
    if measured.measured_j is not None and joules is not None:
        left = math.log(measured.measured_j / joules)
        out.append(Residual(device.name, energy_class(name), place, left, point))
    return out


def _predicted_j(row: Row, device: Device) -> float | None:
    """Predicted energy of a row; None where unknown, or where no energy was measured to compare with."""
    measured, op, predicted_s = row
    if measured.measured_j is None:
        return None
    return energy_with_idle(device, device.energy_j(op, device.lower(op)), predicted_s)


def _relative(row: Row, source: DeviceIntervals) -> Relative:
    measured, op, predicted_s = row
    lowered = source.device.lower(op)
    return source.relative(op, lowered, predicted_s - lowered.analytic_s, measured.launch)


def _judge(row: Row, own: DeviceIntervals, others: DeviceIntervals | None) -> Judged:
    measured_s, predicted_s = row[0].measured_s, row[2]
    low, high = _relative(row, own).interval(predicted_s)
    elsewhere = None
    if others is not None:
        ends = _relative(row, others).interval(predicted_s)
        elsewhere = ends[0] <= measured_s <= ends[1]
    inside = low <= measured_s <= high
    return Judged(low, high, (high - low) / predicted_s, inside, elsewhere, _energy_inside(row, own))


def _energy_inside(row: Row, own: DeviceIntervals) -> bool | None:
    measured, op, predicted_s = row
    joules = _predicted_j(row, own.device)
    if joules is None or measured.measured_j is None:
        return None
    lowered = own.device.lower(op)
    low, high = own.energy(op, lowered, predicted_s - lowered.analytic_s, measured.launch).interval(joules)
    return low <= measured.measured_j <= high


def _made(rows: Sequence[Row], apart: Sequence[bool]) -> dict[str, Any]:
    return {
        "by": "effsim validate kernels --residuals",
        "level": LEVEL,
        "split_seed": SPLIT_SEED,
        "rows_fitted": apart.count(False),
        "rows_held_out": apart.count(True),
        "tables": sorted({f"{row[0].hardware}: {row[0].source}" for row in rows}),
    }

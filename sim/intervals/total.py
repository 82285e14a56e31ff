"""Intervals of a whole reading: of every operator, every phase and the run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..devices.device import Device
from ..program.program import Program
from ..readings.launch import node_launch_s
from ..readings.result import OperatorTime, Reading
from .kernel import Relative, SystemIntervals, half_widths
from .residuals import EVIDENCE, Band

GENERATE = "generate"
"""Name under which runs of several phases are compared."""
WHOLE = "whole runs with this engine"
BOUND = "roofline"
"""Engine whose times are lower bounds, not predictions."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Bounds of a time in seconds; ``causes`` are the parts (cause → seconds below and above), largest first."""

    low_s: float
    high_s: float
    causes: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReadingIntervals:
    """Intervals of a reading: ``operators`` and ``relatives`` by (phase, operator), ``phases`` by name, ``whole``.

    ``evidence`` is the share of the time by :data:`~.residuals.EVIDENCE`; ``whole_runs`` that of whole runs with this
    engine profile, empty where none were compared: the interval then is that of its operators.
    """

    whole: Interval
    phases: Mapping[str, Interval]
    operators: Mapping[tuple[str, str], Interval]
    relatives: Mapping[tuple[str, str], Relative]
    evidence: Mapping[str, float]
    whole_runs: str = ""


def combine(seconds: float, parts: Iterable[tuple[float, Relative]]) -> Interval:
    """The interval of a sum of times.

    Errors of one kernel class are taken as fully correlated (the same model, off the same way), and so is everything
    that was never validated; errors of different classes are independent, and so are the numbers behind each resource,
    which all operators share:
    ``below = √Σ_causes (Σ_operators below)²``, and so above. *seconds* is the sum; it may exceed that of the *parts*
    (time without a cause of its own, such as idling behind others), which then widens in proportion.
    """
    pairs = list(parts)
    known = sum(time for time, _ in pairs)
    grow = seconds / known if known > 0.0 else 0.0
    causes = {cause: (below * grow, above * grow) for cause, (below, above) in half_widths(pairs).items()}
    below = math.sqrt(sum(b * b for b, _ in causes.values()))
    above = math.sqrt(sum(a * a for _, a in causes.values()))
    ordered = dict(sorted(causes.items(), key=lambda item: -max(item[1])))
    return Interval(max(0.0, seconds - below), seconds + above, ordered)


def widened(interval: Interval, seconds: float, band: Band | None) -> Interval:
    """*interval* of the operators together, at least as wide as whole runs were found to be off.

    Whole runs contain the errors of their kernels, so the wider of the two bounds counts, not both.
    """
    if band is None:
        return interval
    low, high = seconds * math.exp(band.low), seconds * math.exp(band.high)
    causes = {WHOLE: (seconds - low, high - seconds)} | dict(interval.causes)
    ordered = dict(sorted(causes.items(), key=lambda item: -max(item[1])))
    return Interval(min(interval.low_s, low), max(interval.high_s, high), ordered)


def reading_intervals(
    program: Program, source: SystemIntervals, reading: Reading, engine: str = ""
) -> ReadingIntervals:
    """Intervals of everything in *reading*, as *source* knows the device.

    *engine* names the engine profile, for what whole runs were off.

    A time of the roofline reading is a lower bound: its interval reaches from itself to the upper bound of what the
    analytic reading says of the same operators.
    """
    device = source.device
    operators: dict[tuple[str, str], Interval] = {}
    relatives: dict[tuple[str, str], Relative] = {}
    weights: dict[str, float] = {}
    phases: dict[str, Interval] = {}
    every: list[tuple[float, Relative]] = []
    bound = reading.engine == BOUND
    for phase in reading.phases:
        pairs = []
        for row in phase.operators:
            one = _relative(program, source, row)
            seconds = _predicted(program, device, row) if bound else row.time_s
            key = (phase.name, row.name)
            relatives[key] = one
            operators[key] = _from(row.time_s, combine(seconds, [(seconds, one)]), bound)
            if row.kind != "idle":
                pairs.append((seconds, one))
                weights[one.band.evidence] = weights.get(one.band.evidence, 0.0) + seconds
        whole = sum(seconds for seconds, _ in pairs) if bound else phase.time_s
        band = source.whole_run(phase.name, engine)
        phases[phase.name] = _from(phase.time_s, widened(combine(whole, pairs), whole, band), bound)
        every += pairs
    whole = sum(seconds for seconds, _ in every) if bound else reading.time_s
    total = sum(weights.values()) or 1.0
    evidence = {name: weights[name] / total for name in EVIDENCE if name in weights}
    band = source.whole_run(reading.phases[0].name if len(reading.phases) == 1 else GENERATE, engine)
    found = _from(reading.time_s, widened(combine(whole, every), whole, band), bound)
    return ReadingIntervals(found, phases, operators, relatives, evidence, band.evidence if band else "")


def energy_bounds(program: Program, source: SystemIntervals, reading: Reading, energy_j: float) -> tuple[float, float]:
    """Bounds of a run's energy: operators weighted by their joules, idle power spread over them by their time.

    Combined as times are (:func:`combine`); the same kernels in all devices err together.
    """
    device = source.device
    pairs, idle = [], device.idle_power_w or 0.0
    for phase in reading.phases:
        for row in phase.operators:
            if row.op is None or row.kind == "idle":
                continue
            lowered = device.lower(row.op, program.fused_pointwise)
            own = (device.energy_j(row.op, lowered) or 0.0) + idle * lowered.analytic_s
            work = lowered.analytic_s or 1.0
            one = _relative(program, source, row, energy=True)
            pairs.append((own * row.time_s / work, one))
    found = combine(energy_j, pairs)
    return found.low_s, found.high_s


def _from(time_s: float, interval: Interval, bound: bool) -> Interval:
    """The interval of a bound starts at the bound."""
    return Interval(time_s, max(time_s, interval.high_s), interval.causes) if bound else interval


def _relative(program: Program, source: SystemIntervals, row: OperatorTime, energy: bool = False) -> Relative:
    if row.op is None:
        return source.relative(None, row.kind, 0.0, program.fused_pointwise, energy)
    lowered = source.device.lower(row.op, program.fused_pointwise)
    launch = node_launch_s(source.device.launch, program.launch, program.host, row.op, lowered.seconds)
    return source.relative(row.op, row.kind, launch, program.fused_pointwise, energy)


def _predicted(program: Program, device: Device, row: OperatorTime) -> float:
    """Analytic time of a row of a roofline reading: its bound times what one execution takes over its own bound."""
    if row.op is None:
        return row.time_s
    lowered = device.lower(row.op, program.fused_pointwise)
    launch = node_launch_s(device.launch, program.launch, program.host, row.op, lowered.seconds)
    if lowered.roofline_s <= 0.0:
        return row.time_s
    return row.time_s * max(1.0, (lowered.analytic_s + launch) / lowered.roofline_s)

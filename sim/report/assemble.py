"""One result of what was read: times with their intervals, memory, energy, cost, bounds, and what they lean on."""

from __future__ import annotations

from collections.abc import Sequence

from ..devices.registry import Machine
from ..explore.sensitivity import Sensitivity, shown_path
from ..intervals.kernel import SystemIntervals
from ..intervals.total import Interval, energy_bounds, reading_intervals
from ..program.program import Program
from ..readings.energy import energy_parts
from ..readings.result import PhaseTime, Reading
from ..spec.fields import SpecModel
from ..spec.workload import WorkloadSpec
from .result import Assumption, Ceiling, OperatorRow, RunResult


def assemble(
    machine: Machine, spec: WorkloadSpec, program: Program, reading: Reading, elastic: Sequence[Sensitivity]
) -> RunResult:
    """Put program, reading, its intervals and sensitivities into one result."""
    intervals = SystemIntervals(machine.device)
    known = reading_intervals(program, intervals, reading, engine=spec.engine)
    energy = energy_parts(program, machine.device, reading)
    energy_ends: tuple[float | None, float | None] = (None, None)
    if energy.total_j is not None:
        energy_ends = energy_bounds(program, intervals, reading, energy.total_j)
    rows = tuple(
        OperatorRow(
            name=o.name,
            kind=o.kind,
            phase=phase.name,
            count=o.count,
            flops=o.flops,
            bytes_moved=o.bytes_moved,
            time_s=o.time_s,
            roofline_s=o.roofline_s,
            bound=o.bound,
            terms=dict(o.shares),
            cycles={} if o.op is None else machine.device.cycle_parts(o.op, program.fused_pointwise),
            time_low_s=known.operators[phase.name, o.name].low_s,
            time_high_s=known.operators[phase.name, o.name].high_s,
            evidence=known.relatives[phase.name, o.name].band.evidence,
            energy_j=energy.of(phase.name, o),
        )
        for phase in reading.phases
        for o in phase.operators
    )
    memory = program.memory
    price, limit = machine.price_usd_per_hour, machine.device.power_limit_w
    device_seconds = reading.time_s * program.devices
    return RunResult(
        hardware=machine.name,
        workload=program.name,
        engine=reading.engine,
        devices=program.devices,
        parallelism=program.degrees.shown(),
        time_s=reading.time_s,
        roofline_s=reading.roofline_s,
        phases={phase.name: _phase(phase, known.phases[phase.name]) for phase in reading.phases},
        memory={
            "capacity_bytes": memory.capacity_bytes,
            "used_bytes": memory.used_bytes,
            "weights_bytes": memory.weights_bytes,
            "kv_cache_bytes": memory.kv_cache_bytes,
            "state_bytes": memory.state_bytes,
            "activation_bytes": memory.activation_bytes,
            "gradient_bytes": memory.gradient_bytes,
            "optimizer_bytes": memory.optimizer_bytes,
            "transient_bytes": memory.transient_bytes,
            "reserved_bytes": memory.reserved_bytes,
            "fits": memory.fits,
        },
        flops=sum(row.flops for row in rows),
        bytes_moved=sum(row.bytes_moved for row in rows),
        energy_j=energy.total_j,
        idle_energy_j=energy.idle_j,
        energy_limit_j=None if limit is None else limit * device_seconds,
        cost_usd=None if price is None else price * device_seconds / 3600.0,
        bound=reading.shares(),
        operators=rows,
        sensitivity=tuple({"path": s.path, "value": s.value, "elasticity": s.elasticity} for s in elastic),
        assumptions=_assumptions(machine, program, elastic),
        ceilings=_ceilings(machine, spec, program.devices),
        notes=program.notes + _link_note(machine, program) + _turn_notes(reading),
        timeline=reading.timeline,
        time_low_s=known.whole.low_s,
        time_high_s=known.whole.high_s,
        energy_low_j=energy_ends[0],
        energy_high_j=energy_ends[1],
        evidence=known.evidence,
        interval_causes=known.whole.causes,
        whole_runs=known.whole_runs,
    )


def _phase(phase: PhaseTime, known: Interval) -> dict[str, float]:
    out = {"time_s": phase.time_s, "time_low_s": known.low_s, "time_high_s": known.high_s}
    out["roofline_s"] = phase.roofline_s
    if phase.time_s > 0:
        out["tokens_per_s"] = phase.tokens / phase.time_s
    if phase.name == "decode":
        out["time_per_token_s"] = phase.time_s / phase.steps
        out["time_per_token_low_s"] = known.low_s / phase.steps
        out["time_per_token_high_s"] = known.high_s / phase.steps
    return out


def _assumptions(machine: Machine, program: Program, elastic: Sequence[Sensitivity]) -> tuple[Assumption, ...]:
    """Every number that is not a datasheet figure, most influential first; tile lists are one entry."""
    matters = {s.path: s.elasticity for s in elastic}
    out: dict[str, Assumption] = {}
    owners: list[tuple[str, SpecModel]] = [("device", machine.spec), *machine.others]
    if machine.system is not None:
        owners.append(("system", machine.system))
    for owner, spec in owners:
        for path, leaf in spec.leaves():
            if leaf.kind == "datasheet":
                continue
            shown = shown_path(machine, owner, path)
            head, tiles, _ = shown.partition(".tiles.")
            key = f"{head}.tiles" if tiles else shown
            entry = Assumption(key, float(leaf), leaf.kind or "assumed", leaf.source or "", matters.get(shown))
            out.setdefault(key, entry)
    for number in program.host_numbers:
        path = f"engine.{number.field}"
        out[path] = Assumption(path, number.value, number.kind, number.source)
    order = sorted(out.values(), key=lambda a: (-abs(a.elasticity or 0.0), a.path))
    return tuple(order)


def _ceilings(machine: Machine, spec: WorkloadSpec, devices: int) -> tuple[Ceiling, ...]:
    dtype = spec.precision.activations
    device = machine.device
    roofs = [
        Ceiling(f"{dtype} matrix", "compute", device.peak_matrix_flops(dtype)),
        Ceiling("memory", "bandwidth", device.memory_peak_bytes_per_s),
    ]
    roofs += [Ceiling(name, kind, value) for name, kind, value in device.more_roofs()]
    if devices > 1:
        roofs += [Ceiling(level.name, "bandwidth", level.bytes_per_s, link=True) for level in machine.network.levels]
    return tuple(roofs)


def _turn_notes(reading: Reading) -> tuple[str, ...]:
    """Who waits for whom, where sub-batches take turns on device groups."""
    return tuple(note for note in reading.timeline.notes if "take turns" in note or "waits" in note)


def _link_note(machine: Machine, program: Program) -> tuple[str, ...]:
    if program.devices == 1 or machine.system is not None or not machine.network.levels:
        return ()
    level = machine.network.levels[0]
    rate = level.bytes_per_s / 1e9
    return (f"{program.devices} devices are assumed to be joined by {level.name} at {rate:.4g} GB/s a direction",)

"""The Python surface: what the commands call, same names, same results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .devices.registry import Machine, load_machine
from .errors import SpecError
from .explore.sensitivity import Sensitivity, sensitivities, shown_path
from .program.memory import Capacity
from .program.place import place
from .program.program import Program
from .readings.analytic import analytic, roofline
from .readings.events import events
from .readings.result import PhaseTime, Reading
from .report.result import Assumption, Ceiling, OperatorRow, RunResult
from .spec.build import build
from .spec.catalogue import load_document
from .spec.engine import EngineSpec
from .spec.overrides import apply
from .spec.workload import WorkloadSpec

READINGS = {"roofline": roofline, "analytic": analytic, "events": events}


def load_workload(name_or_path: str, assignments: Sequence[str] = ()) -> tuple[WorkloadSpec, Path]:
    """A workload by bundled name or path, with ``--set workload.…`` applied, and the folder it stands in."""
    document = apply(load_document("workloads", name_or_path), list(assignments), "workload")
    return build(WorkloadSpec, document, root="workload"), Path(document.file).parent


def load_engine(name_or_path: str, base: Path | None = None) -> EngineSpec:
    """An engine profile by bundled name or path (relative to *base* where it exists there)."""
    nearby = (base / name_or_path) if base is not None else None
    found = str(nearby) if nearby is not None and nearby.is_file() else name_or_path
    return build(EngineSpec, load_document("engines", found), root="engine")


def plan_on(machine: Machine, workload: WorkloadSpec, base: Path | None = None) -> Program:
    """Place a workload on a machine.

    Raises:
        DoesNotFitError: it does not fit, with what would make it fit.
    """
    network = machine.network
    capacity = Capacity(
        device=machine.device.name,
        total_bytes=machine.device.memory_capacity_bytes,
        reserved_bytes=machine.device.memory_reserved_bytes,
        devices=max(1, network.devices),
        inner_devices=network.levels[0].size if network.levels else 1,
    )
    return place(workload, load_engine(workload.engine, base), capacity, base)


def run(
    hardware: str,
    workload: str,
    *,
    engine: str = "events",
    set: Sequence[str] = (),
    sensitivity: bool = True,
) -> RunResult:
    """Run a workload on a machine and explain the time.

    Args:
        hardware: path or bundled name of a device or system file.
        workload: path or bundled name of a workload file.
        engine: ``roofline``, ``analytic`` or ``events``.
        set: ``path=value`` assignments on any field (``hardware.…`` or ``workload.…``).
        sensitivity: also compute elasticities to hardware parameters.

    Raises:
        SpecError, UnknownNameError, UnitError: bad input, with its position.
        DoesNotFitError: the workload does not fit the machine.
        UnsupportedError: the device cannot run it.

    Example:
        >>> run("gpu_a100", "llama70b_decode", engine="roofline", sensitivity=False).devices
        2
    """
    if engine not in READINGS:
        raise SpecError(f"unknown engine {engine!r}; expected one of {', '.join(READINGS)}")
    machine = load_machine(hardware, set)
    spec, base = load_workload(workload, set)
    program = plan_on(machine, spec, base)
    reading = READINGS[engine](program, machine.device)
    elastic = sensitivities(program, machine) if sensitivity else ()
    return assemble(machine, spec, program, reading, elastic)


def assemble(
    machine: Machine, spec: WorkloadSpec, program: Program, reading: Reading, elastic: Sequence[Sensitivity]
) -> RunResult:
    """Put program, reading and sensitivities into one result."""
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
        phases={phase.name: _phase(phase) for phase in reading.phases},
        memory={
            "capacity_bytes": memory.capacity_bytes,
            "used_bytes": memory.used_bytes,
            "weights_bytes": memory.weights_bytes,
            "kv_cache_bytes": memory.kv_cache_bytes,
            "state_bytes": memory.state_bytes,
            "activation_bytes": memory.activation_bytes,
            "gradient_bytes": memory.gradient_bytes,
            "optimizer_bytes": memory.optimizer_bytes,
            "reserved_bytes": memory.reserved_bytes,
            "fits": memory.fits,
        },
        flops=sum(row.flops for row in rows),
        bytes_moved=sum(row.bytes_moved for row in rows),
        energy_j=None,
        energy_limit_j=None if limit is None else limit * device_seconds,
        cost_usd=None if price is None else price * device_seconds / 3600.0,
        bound=reading.shares(),
        operators=rows,
        sensitivity=tuple({"path": s.path, "value": s.value, "elasticity": s.elasticity} for s in elastic),
        assumptions=_assumptions(machine, program, elastic),
        ceilings=_ceilings(machine, spec),
        notes=program.notes + _link_note(machine, program),
        timeline=reading.timeline,
    )


def _phase(phase: PhaseTime) -> dict[str, float]:
    out = {"time_s": phase.time_s, "roofline_s": phase.roofline_s}
    if phase.time_s > 0:
        out["tokens_per_s"] = phase.tokens / phase.time_s
    if phase.name == "decode":
        out["time_per_token_s"] = phase.time_s / phase.steps
    return out


def _assumptions(machine: Machine, program: Program, elastic: Sequence[Sensitivity]) -> tuple[Assumption, ...]:
    """Every number that is not a datasheet figure, most influential first; tile lists are one entry."""
    matters = {s.path: s.elasticity for s in elastic}
    out: dict[str, Assumption] = {}
    owners = [("device", machine.spec)] + ([("system", machine.system)] if machine.system is not None else [])
    for owner, spec in owners:
        for path, leaf in spec.leaves():
            if leaf.kind == "datasheet":
                continue
            shown = shown_path(machine, owner, path)
            head, tiles, _ = shown.partition(".tiles.")
            key = f"{head}.tiles" if tiles else shown
            entry = Assumption(key, float(leaf), leaf.kind or "assumed", leaf.source or "", matters.get(shown))
            out.setdefault(key, entry)
    if program.host_per_step_s:
        out["engine.host_per_step"] = Assumption(
            "engine.host_per_step", program.host_per_step_s, "fitted", "engine profile of the workload"
        )
    order = sorted(out.values(), key=lambda a: (-abs(a.elasticity or 0.0), a.path))
    return tuple(order)


def _ceilings(machine: Machine, spec: WorkloadSpec) -> tuple[Ceiling, ...]:
    dtype = spec.precision.activations
    device = machine.device
    roofs = [
        Ceiling(f"{dtype} matrix", "compute", device.peak_matrix_flops(dtype)),
        Ceiling("memory", "bandwidth", device.memory_peak_bytes_per_s),
    ]
    roofs += [Ceiling(name, kind, value) for name, kind, value in device.more_roofs()]
    return tuple(roofs)


def _link_note(machine: Machine, program: Program) -> tuple[str, ...]:
    if program.devices == 1 or machine.system is not None or not machine.network.levels:
        return ()
    level = machine.network.levels[0]
    rate = level.bytes_per_s / 1e9
    return (f"{program.devices} devices are assumed to be joined by {level.name} at {rate:.4g} GB/s a direction",)

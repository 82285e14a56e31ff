"""The Python surface: what the commands call, same names, same results."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .devices.capacity import capacity_of
from .devices.registry import DEVICE_SPECS, Machine, load_machine, timed_briefly
from .errors import SpecError
from .explore.kernel_table import PredictedTable, predict
from .explore.sensitivity import sensitivities
from .program.parallel import least_batch
from .program.place import needed_memory, place
from .program.program import Memory, Program
from .program.workload_file import WorkloadFile, load_engine, open_workload
from .readings.analytic import analytic, roofline
from .readings.events import events
from .readings.result import Reading
from .report.assemble import assemble
from .report.explain import explain_operator
from .report.result import RunResult
from .serving.metrics import ServeResult
from .spec.architecture import ArchitectureSpec
from .spec.build import build
from .spec.catalogue import find, load_document, names
from .spec.confine import is_file
from .spec.dram import DramSpec
from .spec.engine import EngineSpec
from .spec.fields import SpecModel
from .spec.fit_recipe import FitSpec
from .spec.overrides import apply
from .spec.plan import PlanSpec
from .spec.study import StudySpec
from .spec.system import SystemSpec
from .spec.workload import WorkloadSpec
from .spec.yaml_loader import load_yaml, load_yaml_text

if TYPE_CHECKING:
    from .explore.plan.plan import PlanResult
    from .explore.sweep.sweep import SweepResult

READINGS = {"roofline": roofline, "analytic": analytic, "events": events}


def plan_on(
    machine: Machine, workload: WorkloadSpec, base: Path | None = None, file: WorkloadFile | None = None
) -> Program:
    """Place a workload on a machine. *file* lets errors point into the workload's file.

    Raises:
        DoesNotFitError: it does not fit, with what would make it fit.
    """
    capacity = capacity_of(machine)
    with file.blame("engine") if file is not None else nullcontext():
        engine = load_engine(workload.engine, base)
    with file.blame("model") if file is not None else nullcontext():
        return place(workload, engine, capacity, base)


def serve(
    hardware: str,
    workload: str | WorkloadSpec,
    *,
    set: Sequence[str] = (),
    seed: int = 0,
    progress: Callable[[Iterator[Any]], Iterable[Any]] = iter,
    record: bool = False,
) -> ServeResult:
    """Serve a load request by request: latencies, goodput, queues and cache over time.

    Args:
        hardware: path or bundled name of a device or system file.
        workload: path or bundled name of a workload file; its ``serving:`` part says when requests come, how long they
            are and how they are scheduled.
        set: ``path=value`` assignments on any field.
        seed: seed of arrivals and lengths.
        progress: wraps the requests while they arrive.
        record: keep a log of steps, for traces.

    Raises:
        SpecError, DataError: bad input, with its position.
        DoesNotFitError: the model, or a cache beside it, does not fit.
    """
    from .serving.simulate import simulate

    machine = load_machine(hardware, set)
    file = open_workload(workload, set)
    # Memory is judged by the cache that remains, not by a batch of full sequences: one sequence a rank is placed.
    single = file.spec.model_copy(update={"batch": type(file.spec.batch)(least_batch(file.spec))})
    program = plan_on(machine, single, file.folder, file)
    engine = load_engine(file.spec.engine, file.folder)
    with file.blame("serving"):
        return simulate(
            machine,
            file.spec,
            engine,
            capacity_of(machine),
            program,
            file.folder,
            seed=seed,
            progress=progress,
            record=record,
        )


def sweep(
    study: str | Mapping[str, Any],
    *,
    out: Path | str | None = None,
    processes: int | None = 1,
    scheduler: Any = None,
    seed: int | None = None,
    fresh: bool = False,
    progress: Callable[[Any], Iterable[Any]] = iter,
) -> SweepResult:
    """Explore the design space of a study: every point, the Pareto front, what matters.

    Args:
        study: path or bundled name of a study file, or its content as a mapping.
        out: folder of the points (``sweep_<study>`` here if None); one that holds some of them is continued.
        processes: processes of this machine; as many as it has processors if None. The rows do not depend on it. They
            are started anew, so a script that asks for several guards its own code by ``if __name__ == "__main__"``.
        scheduler: address of a Dask scheduler (``tcp://…``), or a connected ``distributed.Client``, instead.
        seed: replaces the study's.
        fresh: forget the points that the folder holds.
        progress: wraps the chunks while they come.

    Raises:
        SpecError: the study is wrong, with its position, or the folder holds points of another one.
        DataError: an optional library is missing.
    """
    from .explore.sweep.sweep import default_folder
    from .explore.sweep.sweep import sweep as explore

    if isinstance(study, str):
        document, name = load_document("studies", study), study
    else:
        name = str(study.get("name", "study"))
        document = load_yaml_text(json.dumps(dict(study)), name)
    folder = default_folder(name) if out is None else Path(out)
    return explore(
        document, folder, seed=seed, processes=processes, scheduler=scheduler, fresh=fresh, progress=progress
    )


def plan(
    study: str | Mapping[str, Any],
    *,
    set: Sequence[str] = (),
    seed: int | None = None,
    processes: int | None = 1,
    progress: Callable[[Any], Iterable[Any]] = iter,
) -> PlanResult:
    """Find the smallest or cheapest fleet that keeps promised latencies under a load.

    Args:
        study: path or bundled name of a plan (``kind: plan``), or its content as a mapping.
        set: ``path=value`` assignments: ``plan.…`` on the plan itself, ``workload.…`` and ``hardware.…`` for every
            candidate.
        seed: replaces the plan's.
        processes: processes of this machine; as many as it has processors if None. The result does not depend on it.
            They are started anew, so a script that asks for several guards its own code by
            ``if __name__ == "__main__"``.
        progress: wraps the configurations while they are answered.

    Returns:
        The answer; ``solved`` is False where no fleet keeps the promises, and ``nearest`` then says what is missing.

    Raises:
        SpecError: the plan is wrong, with its position.
        DataError: a trace cannot be read.
    """
    from .explore.plan.plan import plan as find_fleet

    if isinstance(study, str):
        document = load_document("plans", study)
    else:
        document = load_yaml_text(json.dumps(dict(study)), str(study.get("name", "plan")))
    document = apply(document, list(set), "plan")
    others = [a for a in set if not a.startswith("plan.")]
    return find_fleet(document, assignments=others, seed=seed, processes=processes, progress=progress)


@dataclass(frozen=True, slots=True)
class FullRun:
    """A result with what it was computed from."""

    result: RunResult
    machine: Machine
    program: Program
    reading: Reading


def memory_on(machine: Machine, workload: WorkloadSpec) -> Memory:
    """What a workload with given degrees needs on one device, whether it fits or not."""
    return needed_memory(workload, load_engine(workload.engine), capacity_of(machine))


def run(
    hardware: str,
    workload: str | WorkloadSpec,
    *,
    engine: str = "events",
    set: Sequence[str] = (),
    sensitivity: bool = True,
    seed: int = 0,
) -> RunResult:
    """Run a workload on a machine and explain the time.

    Args:
        hardware: path or bundled name of a device or system file.
        workload: path or bundled name of a workload file, or a workload (as :func:`from_torch` gives).
        engine: ``roofline``, ``analytic`` or ``events``.
        set: ``path=value`` assignments on any field (``hardware.…`` or ``workload.…``).
        sensitivity: also compute elasticities to hardware parameters.
        seed: seed of random parts; a run of one workload has none, so every seed gives the same bytes.

    Raises:
        SpecError, UnknownNameError, UnitError: bad input, with its position.
        DoesNotFitError: the workload does not fit the machine.
        UnsupportedError: the device cannot run it.

    Example:
        >>> run("gpu_a100", "llama70b_decode", engine="roofline", sensitivity=False).devices
        2
    """
    return run_full(hardware, workload, engine=engine, set=set, sensitivity=sensitivity, seed=seed).result


def run_full(
    hardware: str,
    workload: str | WorkloadSpec,
    *,
    engine: str = "events",
    set: Sequence[str] = (),
    sensitivity: bool = True,
    seed: int = 0,
) -> FullRun:
    """As :func:`run`, and keep the machine, the program and the reading (for traces and explanations)."""
    machine = load_machine(hardware, set)
    file = open_workload(workload, set)
    return run_specs(machine, file.spec, file.folder, engine=engine, sensitivity=sensitivity, file=file)


def run_specs(
    machine: Machine,
    spec: WorkloadSpec,
    base: Path | None,
    *,
    engine: str = "events",
    sensitivity: bool = True,
    file: WorkloadFile | None = None,
) -> FullRun:
    """Run loaded specifications; *base* is the folder that relative paths in the workload refer to."""
    if engine not in READINGS:
        raise SpecError(f"unknown engine {engine!r}; expected one of {', '.join(READINGS)}")
    program = plan_on(machine, spec, base, file)
    with file.blame("precision", "activations") if file is not None else nullcontext():
        reading = READINGS[engine](program, machine.device)
        if engine == "events" and not program.folded:
            from .readings.unfolded import by_rank

            reading = by_rank(program, machine.device, reading)
    elastic = sensitivities(program, machine) if sensitivity else ()
    return FullRun(assemble(machine, spec, program, reading, elastic), machine, program, reading)


def compare(
    hardware: Sequence[str], workload: str | WorkloadSpec, *, engine: str = "analytic", set: Sequence[str] = ()
) -> list[RunResult]:
    """The same workload on several machines, in the order given."""
    return [run(name, workload, engine=engine, set=set) for name in hardware]


def roofline_table(result: RunResult) -> dict[str, Any]:
    """Roofs of one device and every operator's intensity and attained rate under them."""
    rows = []
    for row in result.operators:
        if row.time_s <= 0 or row.bytes_moved <= 0:
            continue
        rows.append(
            {
                "name": row.name,
                "phase": row.phase,
                "intensity_flop_per_byte": row.flops / row.bytes_moved,
                "attained_flop_per_s": row.flops / row.time_s / result.devices,
                "attained_bytes_per_s": row.bytes_moved / row.time_s / result.devices,
                "roofline_fraction": row.roofline_s / row.time_s,
                "bound": row.bound,
                "time_s": row.time_s,
            }
        )
    roofs = [{"name": c.name, "kind": c.kind, "value": c.value} for c in result.ceilings]
    return {"hardware": result.hardware, "workload": result.workload, "roofs": roofs, "operators": rows}


def explain(hardware: str, workload: str | WorkloadSpec, operator: str, *, set: Sequence[str] = ()) -> dict[str, Any]:
    """The terms of one operator's time: kernels, tiles, bounds, launches, and the parameters behind them.

    Raises:
        UnknownNameError: no operator of that name, with the nearest one.
    """
    machine = load_machine(hardware, set)
    file = open_workload(workload, set)
    program = plan_on(machine, file.spec, file.folder, file)
    return explain_operator(machine, program, operator)


def kernel_table(
    hardware: str,
    table: Path | str,
    *,
    launch: str = "graph",
    set: Sequence[str] = (),
    progress: Callable[[Sequence[Any]], Iterable[Any]] = iter,
) -> PredictedTable:
    """Predict a table of kernels (CSV or Parquet); see :mod:`effsim.explore.kernel_table`."""
    machine = timed_briefly(load_machine(hardware, set))
    return predict(machine.device, Path(table), launch, progress)


def check_file(file: str) -> tuple[str, str]:
    """Validate one file of any kind; returns its kind and name.

    Raises:
        SpecError: it is wrong; the message says where.
    """
    sections = {"workload": "workloads", "engine": "engines", "architecture": "architectures", "dram": "dram"}
    sections |= {"study": "studies", "plan": "plans", "fit": "fits"}
    path = find_any(file)
    document = load_yaml(path)
    kind = document.data.get("kind")
    section = sections.get(kind, "hardware") if isinstance(kind, str) else "hardware"
    if section == "hardware":
        return str(kind), load_machine(str(path)).name
    document = load_document(section, str(path))
    models: dict[str, type[SpecModel]] = {
        "workloads": WorkloadSpec,
        "engines": EngineSpec,
        "architectures": ArchitectureSpec,
        "dram": DramSpec,
        "studies": StudySpec,
        "fits": FitSpec,
        "plans": PlanSpec,
    }
    built = build(models[section], document, root=str(kind))
    return str(kind), str(getattr(built, "name", ""))


def find_any(name_or_path: str) -> Path:
    """A path, or a bundled file of any section.

    Raises:
        UnknownNameError: neither.
    """
    if is_file(Path(name_or_path)):
        return Path(name_or_path)
    for section in ("hardware", "workloads", "architectures", "engines", "studies", "plans", "fits"):
        if Path(name_or_path).name.removesuffix(".yaml") in names(section):
            return find(section, name_or_path)
    return find("hardware", name_or_path)


def schemas() -> dict[str, Any]:
    """JSON Schema of every kind of file."""
    models: dict[str, type[SpecModel]] = {
        **DEVICE_SPECS,
        "dram": DramSpec,
        "system": SystemSpec,
        "workload": WorkloadSpec,
        "engine": EngineSpec,
        "architecture": ArchitectureSpec,
        "study": StudySpec,
        "fit": FitSpec,
        "plan": PlanSpec,
    }
    return {kind: model.model_json_schema() for kind, model in models.items()}


def import_config(path: Path | str, *, name: str = "") -> str:
    """A Hugging Face ``config.json`` as architecture YAML.

    Raises:
        DataError: unreadable; UnsupportedError: a model type that is not known (lists those that are).
    """
    from .importers.huggingface import from_config, load_config, to_yaml

    spec = from_config(load_config(path), name=name or Path(path).resolve().parent.name, file=str(path))
    return to_yaml(spec)

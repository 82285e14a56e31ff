"""Points to rows: machines, programs and readings are kept, points that differ only in rates are read together."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

from ...devices.capacity import capacity_of
from ...devices.device import Device
from ...devices.registry import Machine, load_machine
from ...errors import DoesNotFitError, EffsimError, SpecError, UnsupportedError
from ...program.lengths import DecodeFamily, DecodePart
from ...program.memory import Capacity
from ...program.place import place
from ...program.program import Program
from ...program.source import load_model
from ...readings.analytic import analytic, roofline
from ...readings.energy import energy_j
from ...readings.events import events
from ...spec.architecture import ArchitectureSpec
from ...spec.build import build
from ...spec.catalogue import load_document
from ...spec.confine import is_file
from ...spec.engine import EngineSpec
from ...spec.overrides import apply
from ...spec.study import StudySpec, parse_constraint
from ...spec.workload import WorkloadSpec
from ...spec.yaml_loader import Document
from .columns import Columns
from .counts import apart, with_counts
from .lane_gpu import LaneGpu, rate_path
from .lane_reading import LaneReading, readable
from .length_reading import LengthReading, columns_of
from .metrics import failed, measured
from .sampling import Choice, Point

READINGS = {"roofline": roofline, "analytic": analytic, "events": events}
MOST_KEPT = 256
"""Machines, workloads and programs that an evaluator keeps of each."""
FEW = 4
"""Fewer points than this, of those that differ in hardware, are read one by one."""
PROMPT = "workload.prompt"
"""The parameter of the workload whose values are read together, in a decode."""

T = TypeVar("T")
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Group:
    """What points have in common: files, assignments by file, copies."""

    hardware: str
    workload: str
    engine: str | None
    replicas: int
    on_hardware: tuple[str, ...]
    on_workload: tuple[str, ...]
    on_engine: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Points that differ only in the prompt, before they are read: ``members`` among all, one a place of the part."""

    machine: Machine
    part: DecodePart
    members: list[int]
    replicas: int


class Evaluator:
    """Evaluates points of one study; *folder* is where its relative paths start."""

    def __init__(self, study: StudySpec, folder: str) -> None:
        from ...accelerate import expect_many

        expect_many()
        self._study, self._folder = study, Path(folder)
        self._paths = [p.path for p in study.parameters]
        self._constraints = [parse_constraint(text) for text in study.constraints]
        self._kept: dict[Hashable, Any] = {}

    def rows(self, points: Sequence[Point]) -> list[Row]:
        """A row a point, in the same order: parameters by path, then :data:`~.metrics.COLUMNS`."""
        found: list[Row | None] = [None] * len(points)
        groups: dict[tuple[_Group, tuple[int, ...]], list[int]] = {}
        for index, point in enumerate(points):
            groups.setdefault(self._group(point), []).append(index)
        waiting: list[_Waiting] = []
        for (group, lanes), members in groups.items():
            if not lanes or self._paths[lanes[0]] == PROMPT:
                waiting += self._lengths(group, lanes[0] if lanes else None, points, members)
            else:
                self._together(group, lanes, points, members, found)
        self._read_lengths(waiting, found)
        for index, point in enumerate(points):
            if found[index] is None:
                found[index] = self._alone(self._group(point, lanes=False)[0])
        return [
            {path: c.value for path, c in zip(self._paths, point, strict=True)} | self._judged(row or {})
            for point, row in zip(points, found, strict=True)
        ]

    def misspelt(self, position: int, value: Choice) -> SpecError | None:
        """What is wrong with a parameter whatever the others are: a field that is not there, a unit that is not its."""
        path = self._paths[position]
        first = path.partition(".")[0]
        if first == "fleet" or first in self._paths:  # the file itself varies
            return None
        study, text = self._study, f"{path}={value.text}"
        assigned = {first: (*(a for a in study.set if a.startswith(f"{first}.")), text)}
        nothing: tuple[str, ...] = ()
        group = _Group(
            study.hardware,
            study.workload,
            study.engine,
            1,
            assigned.get("hardware", nothing),
            assigned.get("workload", nothing),
            assigned.get("engine", nothing),
        )
        try:
            if first == "hardware":
                self._machine(group.hardware, group.on_hardware)
            elif first == "workload":
                self._workload(group)
            else:
                self._engine(group, *self._workload(group))
        except SpecError as error:
            return error if error.path == path else None  # others may depend on further parameters
        except EffsimError:
            return None
        return None

    def _judged(self, row: Row) -> Row:
        if row["status"] == "ok":
            row["feasible"] = all(c.holds(row[c.metric]) for c in self._constraints)
        return row

    # --- grouping -----------------------------------------------------------------------------------------------------

    def _group(self, point: Point, lanes: bool = True) -> tuple[_Group, tuple[int, ...]]:
        """What a point shares with others, and which of its parameters may differ within the group."""
        study = self._study
        whole: dict[str, str | None] = {"hardware": study.hardware, "workload": study.workload, "engine": study.engine}
        replicas = int(study.fleet.replicas)
        sets: dict[str, list[str]] = {"hardware": [], "workload": [], "engine": []}
        for assignment in study.set:
            sets[assignment.split(".", 1)[0]].append(assignment)
        varying: list[tuple[int, Choice]] = []
        for position, (path, c) in enumerate(zip(self._paths, point, strict=True)):
            if path in whole:
                whole[path] = c.text
            elif path == "fleet.replicas":
                replicas = int(c.text) if c.text.isdigit() else 0
            else:
                varying.append((position, c))
        machine = self._base_machine(str(whole["hardware"]), tuple(sets["hardware"])) if lanes else None
        free: list[int] = []
        for position, c in varying:
            rated = machine is not None and isinstance(c.value, float) and c.value > 0.0
            if rated and machine is not None and rate_path(machine, self._paths[position]) is not None:
                free.append(position)
        if lanes and not free:  # numbers of the hardware are quicker
            free = [at for at, c in varying if self._paths[at] == PROMPT and type(c.value) is int]
        for position, c in varying:
            if position not in free:
                path = self._paths[position]
                sets[path.split(".", 1)[0]].append(f"{path}={c.text}")
        group = _Group(
            str(whole["hardware"]),
            str(whole["workload"]),
            whole["engine"],
            replicas,
            tuple(sets["hardware"]),
            tuple(sets["workload"]),
            tuple(sets["engine"]),
        )
        return group, tuple(free)

    def _base_machine(self, name: str, assignments: tuple[str, ...]) -> Machine | None:
        """The machine before any parameter is set; None where only the parameters make it right."""
        try:
            return self._machine(name, assignments)
        except EffsimError:
            return None

    # --- what is kept -------------------------------------------------------------------------------------------------

    def _keep(self, key: Hashable, make: Callable[[], T]) -> T:
        """The kept result of *make*, an error as well as a value."""
        kept: tuple[Any, EffsimError | None] | None = self._kept.get(key)
        if kept is None:
            if len(self._kept) > MOST_KEPT:
                self._kept.clear()
            try:
                kept = (make(), None)
            except EffsimError as error:
                kept = (None, error)
            self._kept[key] = kept
        if kept[1] is not None:
            raise kept[1]
        return cast(T, kept[0])

    def _file(self, name: str) -> str:
        nearby = self._folder / name
        return str(nearby) if is_file(nearby) else name

    def _machine(self, name: str, assignments: tuple[str, ...]) -> Machine:
        return self._keep(("machine", name, assignments), lambda: load_machine(self._file(name), assignments))

    def _document(self, section: str, name: str) -> Document:
        return self._keep((section, name), lambda: load_document(section, name))

    def _workload(self, group: _Group) -> tuple[WorkloadSpec, Path]:
        others, numbers = apart(group.on_workload)
        if numbers:
            try:
                workload, base = self._whole_workload(group.workload, others)
            except EffsimError:  # it may be right with these numbers alone
                return self._whole_workload(group.workload, group.on_workload)
            return with_counts(workload, numbers), base
        return self._whole_workload(group.workload, group.on_workload)

    def _whole_workload(self, name: str, assignments: tuple[str, ...]) -> tuple[WorkloadSpec, Path]:
        """A workload read from its file, with all *assignments*."""
        document = self._document("workloads", self._file(name))

        def make() -> tuple[WorkloadSpec, Path]:
            changed = apply(document, assignments, "workload")
            return build(WorkloadSpec, changed, root="workload"), Path(document.file).parent

        return self._keep(("workload", name, assignments), make)

    def _engine(self, group: _Group, workload: WorkloadSpec, base: Path) -> EngineSpec:
        name = workload.engine if group.engine is None else self._file(group.engine)
        nearby = base / name
        document = self._document("engines", str(nearby) if is_file(nearby) else name)
        make = lambda: build(EngineSpec, apply(document, group.on_engine, "engine"), root="engine")  # noqa: E731
        return self._keep(("engine", document.file, group.on_engine), make)

    def _program(self, group: _Group, machine: Machine) -> Program:
        workload, base = self._workload(group)
        engine = self._engine(group, workload, base)
        capacity: Capacity = capacity_of(machine)
        key = ("program", group.workload, group.on_workload, group.engine, group.on_engine, repr(capacity))
        return self._keep(key, lambda: place(workload, engine, capacity, base, self._model(workload, base)))

    def _model(self, workload: WorkloadSpec, base: Path) -> ArchitectureSpec | None:
        name = workload.model
        return None if name is None else self._keep(("model", name, base), lambda: load_model(name, base))

    # --- reading ------------------------------------------------------------------------------------------------------

    def _alone(self, group: _Group) -> Row:
        """One point, as ``effsim run`` computes it."""
        try:
            if group.replicas < 1:
                return failed("invalid", "fleet.replicas is not a whole number from 1")
            machine = self._machine(group.hardware, group.on_hardware)
            program = self._program(group, machine)
            reading = READINGS[self._study.reading](program, machine.device)
            joules = energy_j(program, machine.device, reading)
        except DoesNotFitError as error:
            return failed("does_not_fit", str(error))
        except UnsupportedError as error:
            return failed("unsupported", str(error))
        except EffsimError as error:
            return failed("invalid", str(error))
        operators = [o for phase in reading.phases for o in phase.operators]
        work = (sum(o.flops for o in operators), sum(o.bytes_moved for o in operators))
        phase_s = {phase.name: phase.time_s for phase in reading.phases}
        row = measured(machine, program, phase_s, reading.roofline_s, work, joules, group.replicas)
        return row | {"bound": next(iter(reading.shares()), "none")}

    def _together(
        self, group: _Group, lanes: tuple[int, ...], points: Sequence[Point], members: list[int], out: list[Row | None]
    ) -> None:
        """Points that differ only in rates, where they can be read together; the others are left as they are."""
        if len(members) < FEW or group.replicas < 1:
            return
        values = [[float(points[i][position].value) for position in lanes] for i in members]
        try:
            machine = self._machine(group.hardware, group.on_hardware)
            for extreme in (min, max):  # bounds of fields are checked as for any other assignment
                texts = [extreme((points[i][p] for i in members), key=lambda c: float(c.value)).text for p in lanes]
                extra = tuple(f"{self._paths[p]}={text}" for p, text in zip(lanes, texts, strict=True))
                self._machine(group.hardware, (*group.on_hardware, *extra))
            program = self._program(group, machine)
            if not readable(program, self._study.reading, machine.device):
                return
            paths = [rate_path(machine, self._paths[p]) or "" for p in lanes]
            found = LaneReading(program, LaneGpu(machine, paths, values), self._study.reading)
        except EffsimError:
            return  # said point by point
        bound = found.bound()
        columns = measured(
            machine, program, found.phase_s, found.roofline_s, found.work, found.energy_j, group.replicas
        )
        columns["bound"] = bound
        plain = {name: _plain(column, len(members)) for name, column in columns.items()}
        for place_, index in enumerate(members):
            out[index] = {name: column[place_] for name, column in plain.items()}

    def _lengths(
        self, group: _Group, position: int | None, points: Sequence[Point], members: list[int]
    ) -> Iterator[_Waiting]:
        """Points of a decode that differ only in the prompt (at *position*) or not at all, where these can be read.

        Even a single one: its operators are lowered together with those of other groups.
        """
        if group.replicas < 1:
            return
        try:
            machine = self._machine(group.hardware, group.on_hardware)
            if position is None:
                workload, base = self._workload(group)
                prompts = [int(workload.prompt)] * len(members)
            else:
                prompts = [int(points[i][position].value) for i in members]
                for extreme in (min(prompts), max(prompts)):  # bounds are checked as for any other assignment
                    checked = replace(group, on_workload=(*group.on_workload, f"{PROMPT}={extreme}"))
                    workload, base = self._workload(checked)
            model = self._model(workload, base)
            if model is None or type(machine.device).prepare is not Device.prepare:
                return
            family = DecodeFamily(workload, self._engine(group, workload, base), capacity_of(machine), base, model)
            for part in family.parts(prompts):
                if readable(part.program, self._study.reading, machine.device):
                    yield _Waiting(machine, part, [members[place_] for place_ in part.places], group.replicas)
        except EffsimError:
            return  # said point by point

    def _read_lengths(self, waiting: Sequence[_Waiting], out: list[Row | None]) -> None:
        """Rows of the points of *waiting*; operators of all of them are lowered together, machine by machine."""
        columns = {id(one.machine): Columns(one.machine.device) for one in waiting}
        needed = [columns_of(one.part, columns[id(one.machine)]) for one in waiting]
        for one, of_it in zip(waiting, needed, strict=True):
            machine, program = one.machine, one.part.program
            try:
                found = LengthReading(one.part, of_it, machine.device, self._study.reading)
            except EffsimError:
                continue  # said point by point
            times, lowest, work, joules = found.phase_s, found.roofline_s, found.work, found.energy_j
            row = measured(machine, program, times, lowest, work, joules, one.replicas)
            row |= {"bound": found.bound(), "memory_used_bytes": one.part.used_bytes}
            plain = {name: _plain(column, len(one.members)) for name, column in row.items()}
            for place_, index in enumerate(one.members):
                out[index] = {name: column[place_] for name, column in plain.items()}


def _plain(column: Any, count: int) -> list[Any]:
    """A column as a list of plain values."""
    if isinstance(column, list):
        return column
    return column.tolist() if hasattr(column, "tolist") else [column] * count

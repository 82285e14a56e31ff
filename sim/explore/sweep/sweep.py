"""A sweep from study to findings: points, parts on disk, Pareto front, importance of the parameters."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import EffsimError, SpecError, located
from ...spec.build import build
from ...spec.catalogue import load_document
from ...spec.confine import is_file, layers
from ...spec.study import StudySpec
from ...spec.yaml_loader import Document
from .evaluate import Evaluator, Row
from .execute import Chunk, Executor, Job, cut, executor
from .identity import digest
from .importance import first_order
from .optuna_search import BATCH, search
from .pareto import pareto
from .sampling import Point, Points
from .store import Store

CHUNK = {"roofline": 2048, "analytic": 2048, "events": 16}
"""Points of a part, by reading: a few seconds of work, which is what a kill can cost."""
MOST_SHOWN = 1000
"""Rows of a Pareto front that a result lists."""

Progress = Callable[[Any], Iterable[Any]]


@dataclass(frozen=True, slots=True)
class Importance:
    """First-order Sobol index of one parameter for one objective (see :mod:`~.importance`)."""

    path: str
    objective: str
    value: float


@dataclass(frozen=True, slots=True)
class SweepResult:
    """Findings of a sweep. ``table`` is an Arrow table of all points, also kept in ``folder`` as ``points.parquet``."""

    study: StudySpec
    seed: int
    folder: Path
    table: Any
    statuses: dict[str, int]
    feasible: int
    pareto: tuple[Row, ...]
    front: int
    importance: tuple[Importance, ...]
    best: dict[str, Row | None]

    def as_dict(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            "schema": "effsim/sweep@1",
            "study": self.study.name,
            "method": self.study.method,
            "seed": self.seed,
            "points": self.table.num_rows,
            "ok": self.statuses.get("ok", 0),
            "failed": self.table.num_rows - self.statuses.get("ok", 0),
            "feasible": self.feasible,
            "statuses": self.statuses,
            "objectives": {o.name: o.goal for o in self.study.objectives},
            "pareto": list(self.pareto),
            "pareto_points": self.front,
            "importance": [{"path": i.path, "objective": i.objective, "value": i.value} for i in self.importance],
            "best": self.best,
            "out": str(self.folder),
        }


def sweep(
    document: Document,
    out: Path,
    *,
    seed: int | None = None,
    processes: int | None = None,
    scheduler: Any = None,
    fresh: bool = False,
    progress: Progress = iter,
) -> SweepResult:
    """Evaluate every point of a study that *out* does not hold yet, then look at all of them.

    Raises:
        SpecError: the study is wrong, or *out* holds another.
        DataError: an optional library is missing, or a folder cannot be written.
    """
    study = build(StudySpec, document, root="study")
    seed = int(study.seed) if seed is None else seed
    folder = str(Path(document.file).resolve().parent)
    _check(study, document, folder)
    store = Store(out, study, digest(study, seed, Path(folder)), fresh=fresh)
    job = Job(json.dumps(study.model_dump(mode="json"), sort_keys=True), folder, layers())
    if study.method == "optuna":
        _adaptive(study, seed, store, job, processes, scheduler, progress)
    else:
        _fixed(study, seed, store, job, processes, scheduler, progress)
    return findings(study, seed, out, store.table(seed))


def _check(study: StudySpec, document: Document, folder: str) -> None:
    """What is the same for every point has to be right before the first is evaluated."""
    swept = {p.path for p in study.parameters}
    sections = {"hardware": "hardware", "workload": "workloads", "engine": "engines"}
    for field, section in sections.items():
        name = getattr(study, field)
        if name is None or field in swept:
            continue
        try:
            nearby = Path(folder) / name
            load_document(section, str(nearby) if is_file(nearby) else name)
        except EffsimError as error:
            raise located(error, document.location((field,))) from None
    evaluator = Evaluator(study, folder)
    for index, parameter in enumerate(study.parameters):
        wrong = evaluator.misspelt(index, Points.first(parameter))
        if wrong is not None:
            raise SpecError(
                wrong.what,
                location=document.location(("parameters", index, "path")),
                path=parameter.path,
                expected=wrong.expected,
                suggestion=wrong.suggestion,
            )


def _fixed(
    study: StudySpec, seed: int, store: Store, job: Job, processes: int | None, scheduler: Any, progress: Progress
) -> None:
    """Points that are known beforehand."""
    points = Points(study, seed)
    done = store.done()
    left = [span for span in cut(0, points.count, CHUNK[study.reading]) if span not in done]
    if not left:
        return

    def chunks() -> Iterator[Chunk]:
        for start, stop in left:
            yield Chunk(start, stop, tuple(points.take(start, stop)))

    runner = executor(processes, scheduler, len(left))
    try:
        for chunk, rows in progress(_Sized(runner.run(job, chunks()), len(left))):
            store.write(chunk.start, chunk.stop, rows)
    finally:
        runner.close()


class _Sized:
    """An iterator whose length is known: what progress bars ask for."""

    def __init__(self, items: Iterator[Any], count: int) -> None:
        self._items, self._count = items, count

    def __iter__(self) -> Iterator[Any]:
        return self._items

    def __len__(self) -> int:
        return self._count


def _adaptive(
    study: StudySpec, seed: int, store: Store, job: Job, processes: int | None, scheduler: Any, progress: Progress
) -> None:
    """Points that Optuna chooses, a batch a part."""
    done = store.done()
    runner: list[Executor] = []
    size = BATCH // 4

    def evaluate(start: int, points: list[Point]) -> list[Row]:
        stop = start + len(points)
        if (start, stop) in done:
            return store.rows(start, stop)
        if not runner:
            runner.append(executor(processes, scheduler, BATCH // size))
        chunks = [Chunk(a, b, tuple(points[a - start : b - start])) for a, b in cut(start, stop, size)]
        found = sorted(runner[0].run(job, chunks), key=lambda pair: pair[0].start)
        rows = [row for _, part in found for row in part]
        store.write(start, stop, rows)
        return store.rows(start, stop)  # as a continued search would read them

    try:
        search(study, seed, evaluate)
    finally:
        for one in runner:
            one.close()
    list(progress([]))


def findings(study: StudySpec, seed: int, folder: Path, table: Any) -> SweepResult:
    """Pareto front, importance and best points of all rows."""
    feasible = table.filter(table["feasible"])
    ok = table.filter([status == "ok" for status in table["status"].to_pylist()])
    names = [o.name for o in study.objectives]
    columns = [_numbers(feasible[name]) for name in names]
    front = pareto(list(zip(*columns, strict=True)), tuple(o.goal == "max" for o in study.objectives))
    important = []
    for name in names:
        y = _numbers(ok[name])
        known = [i for i, value in enumerate(y) if value == value]  # not NaN
        for p in study.parameters:
            x = ok[p.path].to_pylist()
            value = first_order([x[i] for i in known], [y[i] for i in known])
            if value is not None:
                important.append(Importance(p.path, name, value))
    best: dict[str, Row | None] = {}
    for o, column in zip(study.objectives, columns, strict=True):
        known = [i for i, value in enumerate(column) if value == value]
        sign = 1.0 if o.goal == "min" else -1.0
        chosen = min(known, key=lambda i: (sign * column[i], i), default=None)
        best[o.name] = None if chosen is None else _row(feasible, chosen)
    statuses: dict[str, int] = {}
    for status in table["status"].to_pylist():
        statuses[status] = statuses.get(status, 0) + 1
    return SweepResult(
        study=study,
        seed=seed,
        folder=folder,
        table=table,
        statuses=statuses,
        feasible=feasible.num_rows,
        pareto=tuple(_row(feasible, i) for i in front[:MOST_SHOWN]),
        front=len(front),
        importance=tuple(sorted(important, key=lambda i: (names.index(i.objective), -i.value, i.path))),
        best=best,
    )


def _numbers(column: Any) -> list[float]:
    return [float("nan") if value is None else float(value) for value in column.to_pylist()]


def _row(table: Any, index: int) -> Row:
    row: Row = table.slice(index, 1).to_pylist()[0]
    return row


def default_folder(name_or_path: str) -> Path:
    """Where a study's points go without ``--out``: ``sweep_<study>`` in the working directory."""
    stem = Path(name_or_path).name.removesuffix(".yaml").removesuffix(".yml")
    return Path(f"sweep_{stem}")

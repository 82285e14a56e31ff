"""``effsim calibrate --fit RECIPE``: the fitted numbers of a hardware file, from tables, the same every time.

A stage moves one to four numbers together between the recipe's bounds until the loss over the rows to fit to is
smallest (:mod:`.search`), then the next stage begins. Nothing starts from the numbers that the file holds, so that the
result does not depend on them: a stage whose rows answer to a number of a later stage is refused. The rows held out,
and tables that are never fitted to, say what the numbers are worth, beside the numbers that the file held.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from ...accelerate import expect_many
from ...devices.registry import Machine, load_machine, timed_briefly
from ...errors import DataError, SpecError, UnknownNameError, nearest
from ...spec.build import build
from ...spec.catalogue import find, load_document
from ...spec.confine import is_file
from ...spec.fields import IntQuantity
from ...spec.fit_recipe import MOST_FITTED, FitRows, FitSpec, FitStage
from ...spec.study import split_number
from ...spec.yaml_loader import Document, KeyPath, load_yaml
from ...units import parse
from ..kernel_table import Score
from .entries import fitted_entries
from .fitted import dimension_of
from .recipe_result import Judgement, Number, RecipeResult, StageResult
from .recipe_rows import Reader, RowSet, changed, predict, row_set
from .search import Box, flat, rounded, smallest

SOFT_SCALE = 0.1
"""Logarithm from which on the soft loss counts a row less than its square."""

AT_BOUND = 1.01
"""A number within this factor of a bound sits on it."""


@dataclass(frozen=True, slots=True)
class _Bounded:
    """A parameter in the units of the models: ``scale`` is the size of the recipe's unit."""

    paths: tuple[str, ...]
    low: float
    high: float
    scale: float
    unit: str
    stored: float


def load_recipe(name_or_path: str) -> tuple[FitSpec, Document]:
    """Read and check a recipe.

    Raises:
        UnknownNameError: there is no such recipe.
        SpecError: it is wrong; says where.
    """
    document = load_document("fits", name_or_path)
    return build(FitSpec, document, root="fit"), document


def run_recipe(
    name_or_path: str, data: Path, read: Reader, *, progress: Callable[[Sequence[Any]], Iterable[Any]] = iter
) -> RecipeResult:
    """Fit what a recipe names to the tables under *data*.

    Args:
        name_or_path: a bundled recipe or a file.
        data: folder of measurements that the recipe's tables are in.
        read: gives the rows of a table (the formats are not this module's business).
        progress: wraps the stages.

    Raises:
        SpecError: the recipe or a path in it is wrong, a stage depends on a later one, or more than twelve numbers of
            the file would be fitted.
        DataError: a table is missing or holds too few rows.
    """
    spec, document = load_recipe(name_or_path)
    target = _target(spec, document)
    machine = timed_briefly(load_machine(spec.device))
    machines = {spec.device: machine}
    bounded = {stage.name: _parameters(stage, i, machine, document) for i, stage in enumerate(spec.stages)}
    uncovered = _count(spec, target, document)
    values: dict[str, float] = {}
    stages = []
    expect_many()
    for index, stage in enumerate(progress(spec.stages)):
        sets = [_rows(r, spec, data, read, machines, document, ("stages", index, "rows", i))
                for i, r in enumerate(stage.rows)]  # fmt: skip
        judges = [_rows(r, spec, data, read, machines, document, ("stages", index, "judge", i), whole=True)
                  for i, r in enumerate(stage.judge)]  # fmt: skip
        later = [p for other in spec.stages[index + 1 :] for p in bounded[other.name]]
        _independent(sets, later, document.location(("stages", index)))
        found = _fit(stage, bounded[stage.name], sets, judges, values)
        values |= {path: n.value for n in found.numbers for path in n.paths}
        stages.append(found)
    return RecipeResult(spec.name, str(target), spec.split.fraction, spec.split.seed, tuple(stages), tuple(uncovered))


# --- what the recipe names --------------------------------------------------------------------------------------------


def _target(spec: FitSpec, document: Document) -> Path:
    for section in ("generations", "hardware"):
        try:
            return find(section, spec.writes)
        except UnknownNameError:
            continue
    raise UnknownNameError(
        f"no file and no bundled generation or hardware {spec.writes!r}",
        location=document.location(("writes",)),
        path="fit.writes",
    )


def _count(spec: FitSpec, target: Path, document: Document) -> list[str]:
    """Paths of fitted entries of the file that the recipe does not cover; more than twelve in all are refused."""
    covered = {path for stage in spec.stages for parameter in stage.parameters for path in parameter.paths}
    uncovered = sorted(set(fitted_entries(load_yaml(target))) - covered)
    count = sum(len(stage.parameters) for stage in spec.stages) + len(uncovered)
    if count > MOST_FITTED:
        raise SpecError(
            f"{target.name} would have {count} fitted numbers (not in this recipe: {', '.join(uncovered) or 'none'})",
            location=document.location(("stages",)),
            path="fit.stages",
            expected=f"at most {MOST_FITTED}",
        )
    return uncovered


def _parameters(stage: FitStage, index: int, machine: Machine, document: Document) -> list[_Bounded]:
    leaves = dict(machine.spec.leaves())
    out = []
    for i, parameter in enumerate(stage.parameters):
        at: KeyPath = ("stages", index, "parameters", i)
        for j, path in enumerate(parameter.paths):
            leaf, here = leaves.get(path), document.location((*at, "paths", j))
            if leaf is None:
                close = nearest(path, leaves)
                raise SpecError(f"{machine.name} has no number {path!r}", location=here, path="fit", suggestion=close)
            if isinstance(leaf, IntQuantity):
                raise SpecError(f"{path!r} is a count; only continuous numbers can be fitted", location=here)
        dimension = dimension_of(type(machine.spec), parameter.paths[0])
        number, unit = split_number(parameter.low)
        bounds = []
        for key in ("low", "high"):
            try:
                bounds.append(parse(getattr(parameter, key), dimension))
            except SpecError as error:
                raise SpecError(error.what, location=document.location((*at, key)), expected=error.expected) from None
        stored = float(leaves[parameter.paths[0]])
        out.append(_Bounded(tuple(parameter.paths), bounds[0], bounds[1], bounds[0] / number, unit, stored))
    return out


def _rows(
    chosen: FitRows,
    spec: FitSpec,
    data: Path,
    read: Reader,
    machines: dict[str, Machine],
    document: Document,
    at: KeyPath,
    whole: bool = False,
) -> RowSet:
    name, path = chosen.device or spec.device, data / chosen.table
    if not is_file(path):
        raise DataError(f"{document.location((*at, 'table'))}: {path}: no such table")
    machine = machines.get(name) or machines.setdefault(name, timed_briefly(load_machine(name)))
    fraction = 0.0 if whole else spec.split.fraction
    rows = read(path, name, chosen.readings)
    return row_set(rows, chosen, machine, fraction=fraction, seed=spec.split.seed)


def _independent(sets: Sequence[RowSet], later: Sequence[_Bounded], where: Any) -> None:
    """Refuse a stage whose rows answer to a number of a later one, which is not fitted yet."""
    for parameter in later:
        moved = {path: math.sqrt(parameter.low * parameter.high) * 0.97 for path in parameter.paths}
        for rows in sets:
            before = predict(rows.machine.device, rows.fitted, rows.quantity)
            if predict(changed(rows.machine, moved), rows.fitted, rows.quantity) != before:
                what = f"its rows answer to {parameter.paths[0]}, which a later stage fits"
                raise SpecError(what, location=where, path="fit", expected="both in one stage, or the other order")


# --- fitting ----------------------------------------------------------------------------------------------------------


def _fit(
    stage: FitStage,
    parameters: Sequence[_Bounded],
    sets: Sequence[RowSet],
    judges: Sequence[RowSet],
    before: Mapping[str, float],
) -> StageResult:
    def values(point: Sequence[float]) -> dict[str, float]:
        pairs = zip(parameters, point, strict=True)
        return {**before, **{path: x for parameter, x in pairs for path in parameter.paths}}

    def predictions(point: Sequence[float], held: Sequence[RowSet], fitted: bool) -> list[list[tuple[float, float]]]:
        out = []
        for rows in held:
            device = changed(rows.machine, values(point))
            part = rows.fitted if fitted else rows.held_out
            times = predict(device, part, rows.quantity)
            out.append([(time, row.measured) for time, row in zip(times, part, strict=True)])
        return out

    def loss(point: Sequence[float]) -> float:
        return math.fsum(loss_of(stage.loss, pairs) for pairs in predictions(point, sets, True)) / len(sets)

    box = Box(loss, tuple(p.low for p in parameters), tuple(p.high for p in parameters))
    best, least = smallest(box)
    spans = [flat(box, best, least, axis) for axis in range(len(best))]
    spelt = rounded(box, best, least, [p.scale for p in parameters])
    stored = tuple(p.stored for p in parameters)
    numbers = tuple(
        Number(p.paths, p.stored, x, low, high, p.unit, p.scale, not p.low * AT_BOUND < x < p.high / AT_BOUND)
        for p, x, (low, high) in zip(parameters, spelt, spans, strict=True)
    )
    parts = (("fitted to", sets, True), ("held out", sets, False), ("never fitted to", judges, False))
    judged = [
        Judgement(rows.what, part, score_of(then), score_of(now))
        for part, held, side in parts
        for rows, then, now in zip(held, predictions(stored, held, side), predictions(spelt, held, side), strict=True)
    ]
    n = sum(len(rows.fitted) for rows in sets)
    of = n + sum(len(rows.held_out) for rows in sets)
    left = sum(rows.left for rows in (*sets, *judges))
    return StageResult(
        stage.name, stage.source, stage.loss, n, of, left, loss(stored), loss(spelt), numbers,
        tuple(judged), box.evaluations,
    )  # fmt: skip


def loss_of(kind: str, pairs: Sequence[tuple[float, float]]) -> float:
    """Loss of (predicted, measured) pairs.

    >>> round(loss_of("absolute", [(2.0, 1.0), (1.0, 2.0)]), 3), loss_of("median", [(1.5, 1.0)])
    (0.693, 0.5)
    """
    if kind == "median":
        return median(abs(p / m - 1.0) for p, m in pairs)
    logs = [math.log(p / m) for p, m in pairs]
    if kind == "soft":
        return math.fsum(2.0 * (math.sqrt(1.0 + (x / SOFT_SCALE) ** 2) - 1.0) for x in logs) / len(logs)
    return math.fsum(abs(x) for x in logs) / len(logs)


def score_of(pairs: Sequence[tuple[float, float]]) -> Score:
    """Errors of (predicted, measured) pairs."""
    return Score.of([(i, p / m - 1.0) for i, (p, m) in enumerate(pairs)])

"""Points that depend on the results before them: Optuna asks, this module answers, batch by batch.

Batches have a fixed size and are told in the order of their points, so the search is the same whatever the number of
processes; a search that was interrupted is asked again from the start and answered from the parts that are there.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from ...errors import DataError
from ...spec.study import StudySpec, parse_constraint, split_number
from .evaluate import Row
from .sampling import Choice, Point, choice, from_number

BATCH = 16
"""Points that are asked for at once: the last of them do not know of the first."""
WORST = 1e300
"""What an objective counts that a point does not have."""


def search(study: StudySpec, seed: int, evaluate: Callable[[int, list[Point]], list[Row]]) -> None:
    """Ask for points in batches; *evaluate* takes the index of the first and the points, and returns their rows.

    Raises:
        DataError: Optuna is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise DataError("method 'optuna' needs Optuna; install it with: pip install 'effsim[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    several = len(study.objectives) > 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 'constraints_func' is marked experimental
        options: dict[str, Any] = {"seed": seed, "constraints_func": _violations}
        sampler: Any = optuna.samplers.NSGAIISampler if several else optuna.samplers.TPESampler
        goals: Any = ["minimize" if o.goal == "min" else "maximize" for o in study.objectives]
        asked = optuna.create_study(directions=goals, sampler=sampler(**options))
        assert study.samples is not None
        for start in range(0, study.samples, BATCH):
            trials = [asked.ask() for _ in range(min(BATCH, study.samples - start))]
            rows = evaluate(start, [_point(study, trial) for trial in trials])
            for trial, row in zip(trials, rows, strict=True):
                trial.set_user_attr("violations", _missed(study, row))
                asked.tell(trial, _scores(study, row))


def _point(study: StudySpec, trial: Any) -> Point:
    found: list[Choice] = []
    for p in study.parameters:
        if p.values is not None:
            found.append(choice(p.values[trial.suggest_categorical(p.path, list(range(len(p.values))))]))
            continue
        assert p.range is not None
        low, high, log = split_number(p.range.low)[0], split_number(p.range.high)[0], p.range.scale == "log"
        ask = trial.suggest_int if p.range.integer else trial.suggest_float
        bounds = (int(low), int(high)) if p.range.integer else (low, high)
        found.append(from_number(p.range, ask(p.path, *bounds, log=log)))
    return tuple(found)


def _scores(study: StudySpec, row: Row) -> list[float]:
    """Objectives of a row; a bad value where it has none."""
    worst = [WORST if o.goal == "min" else -WORST for o in study.objectives]
    return [w if row[o.name] is None else float(row[o.name]) for o, w in zip(study.objectives, worst, strict=True)]


def _missed(study: StudySpec, row: Row) -> list[float]:
    """How far each constraint is missed, relative to its bound; at most 0 where it is kept."""
    out = [0.0 if row["status"] == "ok" else 1.0]
    for constraint in map(parse_constraint, study.constraints):
        value = row[constraint.metric]
        if constraint.holds(value):
            out.append(0.0)
        elif value is None:
            out.append(1.0)
        else:
            out.append(abs(float(value) - constraint.bound) / (abs(constraint.bound) or 1.0) + 1e-9)
    return out


def _violations(trial: Any) -> Sequence[float]:
    found: Sequence[float] = trial.user_attrs["violations"]
    return found

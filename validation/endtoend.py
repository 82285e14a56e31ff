"""Published times of whole models against effsim: static batches, prompts and generated tokens, without a queue.

Which rows are used, and why others are not, is decided in :mod:`effsim.validation.published`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from effsim._api import run_specs
from effsim.devices.registry import Machine, load_machine
from effsim.errors import DoesNotFitError
from effsim.explore.kernel_table import Score

from .published import Case, convert
from .tables import read_csv


@dataclass(frozen=True, slots=True)
class EndToEnd:
    """Score of one source, machine, model and task.

    ``worst`` names the row that is furthest off; ``unfit`` counts rows that effsim says do not fit.
    """

    source: str
    machine: str
    label: str
    score: Score | None
    unfit: int
    worst: str = ""
    engine: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Rows of a published run that are not compared, and why."""

    source: str
    reason: str
    rows: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One row with its predicted seconds, as :func:`predicted_s`, and their interval; None where it does not fit."""

    case: Case
    predicted_s: float | None
    low_s: float | None = None
    high_s: float | None = None


def predicted_s(case: Case, machine: Machine) -> float:
    """Analytic time of a case; of one step for ``decode``.

    Raises:
        DoesNotFitError: the model and its caches do not fit as the row says they were run.
    """
    seconds = predict(case, machine).predicted_s
    assert seconds is not None
    return seconds


def predict(case: Case, machine: Machine) -> Outcome:
    """Analytic time of a case (of one step for ``decode``) with its interval.

    Raises:
        DoesNotFitError: the model and its caches do not fit as the row says they were run.
    """
    result = run_specs(machine, case.workload, None, engine="analytic", sensitivity=False).result
    decode = result.phases.get("decode")
    if case.workload.task == "decode" and decode:
        ends = (decode.get(f"time_per_token_{end}_s") for end in ("low", "high"))
        return Outcome(case, decode["time_per_token_s"], *ends)
    return Outcome(case, result.time_s, result.time_low_s, result.time_high_s)


def cases(path: Path) -> Iterator[tuple[int, Case]]:
    """Every row that is compared, with its number."""
    for index, row in enumerate(read_csv(path)):
        case = convert(row, path)
        if isinstance(case, Case):
            yield index, case


def validate_end_to_end(data: Path) -> tuple[EndToEnd, ...]:
    """Scores of the published runs of *data*; empty where the file is missing."""
    return scores(outcomes(data))


def outcomes(data: Path) -> tuple[Outcome, ...]:
    """Every published run of *data* that is compared, predicted; empty where the file is missing."""
    path = data / "published.csv"
    machines: dict[str, Machine] = {}
    found = []
    for _, case in cases(path) if path.is_file() else ():
        machine = machines.setdefault(case.machine, load_machine(case.machine))
        try:
            found.append(predict(case, machine))
        except DoesNotFitError:
            found.append(Outcome(case, None))
    return tuple(found)


def scores(rows: Iterable[Outcome]) -> tuple[EndToEnd, ...]:
    """Scores of published runs by source, machine, model and task."""
    errors: dict[tuple[str, str, str, str], list[tuple[int, float]]] = {}
    unfit: dict[tuple[str, str, str, str], int] = {}
    names: dict[int, str] = {}
    for index, row in enumerate(rows):
        case = row.case
        key = (case.source, case.machine, case.label, case.workload.engine)
        held, names[index] = errors.setdefault(key, []), case.row
        if row.predicted_s is None:
            unfit[key] = unfit.get(key, 0) + 1
        else:
            held.append((index, row.predicted_s / case.measured_s - 1.0))
    scored = {key: Score.of(found) if found else None for key, found in sorted(errors.items())}
    return tuple(
        EndToEnd(*key[:3], score, unfit.get(key, 0), names[score.worst_row] if score else "", key[3])
        for key, score in scored.items()
    )


def left_out(data: Path) -> tuple[LeftOut, ...]:
    """Whole-model rows of *data* that are not compared; empty where the file is missing. Those under load are apart."""
    path = data / "published.csv"
    if not path.is_file():
        return ()
    counts: dict[tuple[str, str], int] = {}
    for row in read_csv(path):
        reason = convert(row, path)
        if isinstance(reason, str) and row.get("phase") != "serving-online":
            key = (str(row["source"]).partition("@")[0].partition(" (")[0], reason)
            counts[key] = counts.get(key, 0) + 1
    return tuple(LeftOut(*key, rows) for key, rows in sorted(counts.items()))

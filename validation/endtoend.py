"""Published times of whole models against effsim: static batches, prompts and generated tokens, without a queue.

Which rows are used, and why others are not, is decided in :mod:`effsim.validation.published`.
"""

from __future__ import annotations

from collections.abc import Iterator
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


def predicted_s(case: Case, machine: Machine) -> float:
    """Analytic time of a case; of one step for ``decode``.

    Raises:
        DoesNotFitError: the model and its caches do not fit as the row says they were run.
    """
    result = run_specs(machine, case.workload, None, engine="analytic", sensitivity=False).result
    decode = result.phases.get("decode")
    return decode["time_per_token_s"] if case.workload.task == "decode" and decode else result.time_s


def cases(path: Path) -> Iterator[tuple[int, Case]]:
    """Every row that is compared, with its number."""
    for index, row in enumerate(read_csv(path)):
        case = convert(row, path)
        if isinstance(case, Case):
            yield index, case


def validate_end_to_end(data: Path) -> tuple[EndToEnd, ...]:
    """Scores of the published runs of *data*; empty where the file is missing."""
    path = data / "published.csv"
    if not path.is_file():
        return ()
    machines: dict[str, Machine] = {}
    errors: dict[tuple[str, str, str, str], list[tuple[int, float]]] = {}
    unfit: dict[tuple[str, str, str, str], int] = {}
    names: dict[int, str] = {}
    for index, case in cases(path):
        key = (case.source, case.machine, case.label, case.workload.engine)
        machine = machines.setdefault(case.machine, load_machine(case.machine))
        found, names[index] = errors.setdefault(key, []), case.row
        try:
            found.append((index, predicted_s(case, machine) / case.measured_s - 1.0))
        except DoesNotFitError:
            unfit[key] = unfit.get(key, 0) + 1
    scores = {key: Score.of(found) if found else None for key, found in sorted(errors.items())}
    return tuple(
        EndToEnd(*key[:3], score, unfit.get(key, 0), names[score.worst_row] if score else "", key[3])
        for key, score in scores.items()
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

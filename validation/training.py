"""Published training figures: time of a step and memory of a GPU, by source, machine and model.

Used are the rows of ``published.csv`` that state a whole training step: llm-foundry's throughput tables (FSDP),
torchtitan's reports (FSDP, tensor and pipeline parallelism) and the Megatron figures that calculon holds (iteration
time, activation memory). What a row does not state is taken from the source's own files: :mod:`.training_rows`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from effsim._api import memory_on, plan_on
from effsim.devices.registry import Machine, load_machine
from effsim.errors import DoesNotFitError
from effsim.explore.kernel_table import Score
from effsim.readings.analytic import analytic

from .tables import read_csv
from .training_rows import Case, case_of, unused_reason

WORST = 3
"""Worst rows that a report names."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One row: what was published and what is predicted (seconds or bytes); None where effsim says it does not fit."""

    case: Case
    predicted: float | None

    @property
    def error(self) -> float | None:
        """Signed, as a share of what was published."""
        return None if self.predicted is None else self.predicted / self.case.measured - 1.0


@dataclass(frozen=True, slots=True)
class TrainingScore:
    """Score of one quantity (time, memory) of one source, machine and model; ``unfit``: rows that do not fit."""

    quantity: str
    source: str
    machine: str
    model: str
    score: Score | None
    unfit: int
    worst: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """Scores of groups, their totals by quantity and machine, rows not used with the reason, and the rows used."""

    groups: tuple[TrainingScore, ...]
    totals: tuple[TrainingScore, ...]
    unused: Mapping[str, str]
    outcomes: tuple[Outcome, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "groups": [group.as_dict() for group in self.groups],
            "totals": [total.as_dict() for total in self.totals],
            "unused": dict(self.unused),
        }


def predict(case: Case, machine: Machine) -> float:
    """Seconds of one step, or bytes on the fullest GPU.

    Raises:
        DoesNotFitError: the step does not fit as the row says it was run.
    """
    if case.quantity.startswith("time"):
        return analytic(plan_on(machine, case.workload), machine.device).time_s
    memory = memory_on(machine, case.workload)
    if case.quantity == "activation memory":
        return memory.activation_bytes
    return memory.used_bytes - memory.reserved_bytes


def outcomes(data: Path) -> tuple[Outcome, ...]:
    """Every usable row of *data*, predicted; empty where the file is missing."""
    path = data / "published.csv"
    if not path.is_file():
        return ()
    machines: dict[str, Machine] = {}
    found = []
    for row in read_csv(path):
        case = case_of(row, path)
        if case is None:
            continue
        machine = machines.setdefault(case.machine, load_machine(case.machine))
        try:
            found.append(Outcome(case, predict(case, machine)))
        except DoesNotFitError:
            found.append(Outcome(case, None))
    return tuple(found)


def validate_training(data: Path) -> TrainingReport | None:
    """Scores of the published training figures of *data*; None where there are none."""
    rows = outcomes(data)
    if not rows:
        return None
    groups: dict[tuple[str, str, str, str], list[Outcome]] = {}
    totals: dict[tuple[str, str, str, str], list[Outcome]] = {}
    for row in rows:
        c = row.case
        groups.setdefault((c.quantity, c.source, c.machine, c.model), []).append(row)
        totals.setdefault((c.quantity, "all", "all", "all"), []).append(row)
        totals.setdefault((c.quantity, c.source, c.machine, "all"), []).append(row)
    unused = {str(row["id"]): reason for row in read_csv(data / "published.csv") if (reason := unused_reason(row))}
    return TrainingReport(
        tuple(_score(key, part) for key, part in sorted(groups.items())),
        tuple(_score(key, part) for key, part in sorted(totals.items())),
        unused,
        rows,
    )


def _score(key: tuple[str, str, str, str], rows: list[Outcome]) -> TrainingScore:
    errors = [(index, row.error) for index, row in enumerate(rows) if row.error is not None]
    score = Score.of([(index, error) for index, error in errors]) if errors else None
    worst = sorted(errors, key=lambda e: -abs(e[1]))[:WORST]
    named = ", ".join(f"{rows[index].case.row} {100 * error:+.0f} %" for index, error in worst)
    return TrainingScore(*key, score, sum(row.error is None for row in rows), named)


HEAD = ("quantity", "source", "machine", "model", "n", "median", "p90", "bias", "said not to fit", "worst rows")
"""Columns of :func:`cells`."""


def cells(score: TrainingScore) -> tuple[str, ...]:
    """One line of the table of groups or totals."""
    s = score.score
    errors = ("", "", "") if s is None else tuple(f"{100 * e:.1f} %" for e in (s.median, s.p90, s.bias))
    names = (score.quantity, score.source, score.machine, score.model, str(s.n if s else 0))
    return (*names, *errors, str(score.unfit or ""), score.worst)


def open_rows(report: TrainingReport) -> list[str]:
    """Rows that are not scored, by reason."""
    reasons: dict[str, list[str]] = {}
    for row, reason in report.unused.items():
        reasons.setdefault(reason, []).append(row)
    return [f"- {reason}: {', '.join(rows)}" for reason, rows in sorted(reasons.items())]

"""Published latencies of servers under load against ``effsim serve``: request time, first token, time between tokens.

Which rows are used, and how they become workloads, is decided in :mod:`effsim.validation.serving_rows`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any, Final

from effsim._api import serve
from effsim.errors import DoesNotFitError
from effsim.explore.kernel_table import Score
from effsim.serving.metrics import ServeResult

from .serving_rows import Case, Stage, convert
from .tables import read_csv

COUNTED_APART = 0.10
"""Where a request's time over its time a token differs more than this from its tokens, they were counted otherwise."""
TARGETS: Final = {"e2e": 0.10, "itl": 0.10, "ttft": 0.20}
"""Limits of the median error of mean latencies."""
NAMES: Final = {
    "e2e": "request, first to last",
    "ttft": "first token",
    "itl": "between tokens",
    "throughput": "tokens a second",
}


@dataclass(frozen=True, slots=True)
class ServingScore:
    """Errors of one quantity of one source: ``what`` says which statistic of it; ``worst`` is the row furthest off."""

    source: str
    machine: str
    quantity: str
    statistic: str
    whole: bool
    score: Score
    worst: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ServingReport:
    """Scores, every case with what is predicted for it, and rows that are not compared by reason."""

    scores: tuple[ServingScore, ...]
    outcomes: tuple[tuple[Case, float], ...]
    left_out: Mapping[str, int]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        rows = [
            {
                "row": c.row,
                "run": c.run,
                "metric": f"{c.statistic}_{c.quantity}",
                "measured": c.measured,
                "predicted": p,
            }
            for c, p in self.outcomes
        ]
        return {"scores": [s.as_dict() for s in self.scores], "rows": rows, "left_out": dict(self.left_out)}


class Served:
    """Results of stages, each simulated once."""

    def __init__(self) -> None:
        self._kept: dict[str, ServeResult] = {}

    def result(self, machine: str, stage: Stage) -> ServeResult:
        """Serve a stage.

        Raises:
            DoesNotFitError: model or cache do not fit.
        """
        key = machine + stage.workload.model_copy(update={"name": "row"}).model_dump_json()
        if key not in self._kept:
            self._kept[key] = serve(machine, stage.workload)
        return self._kept[key]

    def predicted(self, case: Case) -> float:
        """What is predicted for a row, in its unit: seconds, or tokens a second."""
        parts = [(stage, self.result(case.machine, stage)) for stage in case.stages]
        if case.quantity == "throughput":
            return parts[0][1].output_tokens_per_s
        total = sum(stage.requests for stage, _ in parts)
        return sum(stage.requests * _of(case, stage, result) for stage, result in parts) / total


def _of(case: Case, stage: Stage, result: ServeResult) -> float:
    """Seconds of one stage."""
    over_tokens = case.quantity == "itl" and case.per_token
    held = {"e2e": result.e2e_s, "ttft": result.ttft_s, "itl": result.e2e_s if over_tokens else result.itl_s}
    found = held[case.quantity]
    assert found is not None
    return found[case.statistic] / (int(stage.workload.generate) if over_tokens else 1)


def validate_serving(data: Path) -> ServingReport | None:
    """Scores of the rows of *data* under load; None where there are none."""
    path = data / "published.csv"
    if not path.is_file():
        return None
    left_out: dict[str, int] = {}
    found = []
    for row in read_csv(path):
        case = convert(row, path)
        if isinstance(case, str):
            left_out[case] = left_out.get(case, 0) + 1
        elif case is not None:
            found.append(case)
    served, outcomes = Served(), []
    otherwise = set(_counted_otherwise(found))
    for case in found:
        reason = "output tokens were counted on text that was tokenised again" if case.row in otherwise else ""
        try:
            if not reason:
                outcomes.append((case, served.predicted(case)))
        except DoesNotFitError:
            reason = "effsim says that it does not fit"
        if reason:
            left_out[reason] = left_out.get(reason, 0) + 1
    return ServingReport(tuple(_scores(outcomes)), tuple(outcomes), left_out) if found else None


def _counted_otherwise(cases: Sequence[Case]) -> Iterator[str]:
    """Rows whose time a token is over other tokens than were asked for."""
    times = {_load(c): c.measured for c in cases if (c.statistic, c.quantity) == ("mean", "e2e")}
    for case in cases:
        request_s = times.get(_load(case))
        if case.per_token and case.quantity == "itl" and request_s is not None:
            asked = int(case.stages[0].workload.generate)
            if abs(request_s / case.measured / asked - 1.0) > COUNTED_APART:
                yield case.row


def _load(case: Case) -> tuple[str, str, tuple[float, ...]]:
    """What the rows of one run, or of one stage of it, share."""
    return (
        case.machine,
        case.run,
        tuple(float(s.workload.serving.arrivals.rate) for s in case.stages if s.workload.serving),
    )


def _scores(outcomes: Sequence[tuple[Case, float]]) -> Iterator[ServingScore]:
    groups: dict[tuple[str, str, str, str, bool], list[tuple[int, float]]] = {}
    for index, (case, predicted) in enumerate(outcomes):
        key = (case.source, case.machine, case.quantity, case.statistic, case.whole)
        groups.setdefault(key, []).append((index, predicted / case.measured - 1.0))
    order = ("e2e", "itl", "ttft", "throughput")
    for key in sorted(groups, key=lambda k: (k[0], k[1], not k[4], order.index(k[2]), k[3])):
        score = Score.of(groups[key])
        worst = outcomes[score.worst_row][0]
        yield ServingScore(*key, score, f"{worst.row} ({worst.run})")


HEAD = ("source", "machine", "what", "rows", "n", "median", "MAPE", "p90", "bias", "target", "worst")


def cells(score: ServingScore) -> tuple[str, ...]:
    """One line of the table."""
    from .page import percent

    s = score.score
    errors = (percent(s.median), percent(s.mape), percent(s.p90), percent(s.bias, signed=True))
    limit = TARGETS.get(score.quantity) if score.statistic == "mean" and score.whole else None
    what = f"{score.statistic} {NAMES[score.quantity]}"
    rows = "whole runs" if score.whole else "stages"
    target = "" if limit is None else percent(limit)
    return (score.source, score.machine, what, rows, str(s.n), *errors, target, score.worst)


def section(report: ServingReport) -> list[str]:
    """The page's part."""
    from .page import percent, table

    out = ["## Serving under load, published", PROSE, table(HEAD, [cells(s) for s in report.scores])]
    runs: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for case, predicted in report.outcomes:
        if case.statistic == "mean" and case.whole:
            held = runs.setdefault((case.source, case.machine, case.run), {})
            held.setdefault(case.quantity, []).append(predicted / case.measured - 1.0)
    lines = []
    for (source, machine, run), held in runs.items():
        errors = [percent(mean(held[q]), signed=True) if q in held else "–" for q in ("e2e", "itl", "ttft")]
        lines.append((run, source, machine, *errors))
    out += ["Signed errors run by run:", table(("run", "source", "machine", "request", "token", "first token"), lines)]
    if report.left_out:
        out.append("\n".join(f"- not compared: {why} ({rows} rows)" for why, rows in sorted(report.left_out.items())))
    return out


PROSE: Final = """Requests arriving over time, simulated request by request (`effsim serve`) on workloads made of the
rows' settings: `validation/serving_rows.py` says what is taken from the sources' own files. The rows of vLLM repeat one
prompt a user, so almost all of them hit the prefix cache; what a first token waits for is then the step that runs, the
step that is planned already (asynchronous scheduling), its own step, and the way through the server."""

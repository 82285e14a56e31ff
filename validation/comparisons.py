"""Every compared measurement of a report as a row of one form (:class:`~.record.rows.Row`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from . import blocks, collectives, endtoend, energy, kernels, runs, serving, training
from .record.rows import Row
from .residuals import held_out

EVERYWHERE = "all, all"
"""Where the figures of all sources and machines together stand."""
MOST_LABEL = 300
"""Characters of a label; a longer one is cut."""


def counted(rows: Iterable[Row]) -> dict[tuple[str, str, str], list[Row]]:
    """Rows by the figure that they count for; those of training also for the one of all sources together."""
    out: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        out.setdefault((row.check, row.where, row.what), []).append(row)
        if row.what.startswith(TRAINING):
            out.setdefault((row.check, EVERYWHERE, row.what), []).append(row)
    return out


TRAINING = "training "


def described(kind: str, cells: Mapping[str, Any]) -> str:
    """An operator and its shape in a line.

    >>> described("linear", {"m": 8, "n": 64, "bias": 0, "dtype": "bf16"})
    'linear, m 8, n 64, dtype bf16'
    """
    return _line(", ".join([kind, *(f"{name} {value}" for name, value in cells.items() if value not in (0, "", None))]))


def _line(text: str) -> str:
    """*text* on one printable line of bounded length."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= MOST_LABEL else line[: MOST_LABEL - 1] + "…"


def of_kernels(report: kernels.KernelReport | None) -> Iterator[Row]:
    """Times of kernels; the interval was fitted on one half of them."""
    for one in report.outcomes if report is not None else ():
        row, mark = one.row, one.judged
        place = ("kernels", row.hardware, row.label, row.source, described(row.kind, row.cells))
        if mark is None:
            yield Row(*place, row.measured_s, one.predicted_s, "s")
        else:
            yield Row(*place, row.measured_s, one.predicted_s, "s", mark.low_s, mark.high_s, mark.fitted)


def of_energy(outcomes: Iterable[energy.EnergyOutcome]) -> Iterator[Row]:
    """Energies of kernels.

    The interval was fitted on rows of one half, which may or may not have been these: whether one of that half was
    among them is not known.
    """
    for one in outcomes:
        row = one.row
        low, high = one.interval_j or (None, None)
        label = f"{described(row.kind, row.cells)}; power read {energy.class_of(one.readings)}"
        place = ("energy", row.hardware, row.label, row.source, label)
        fitted = False if held_out(row) else None
        yield Row(*place, one.watts * row.measured_s, one.predicted_j, "J", low, high, fitted)


def of_training(report: training.TrainingReport | None) -> Iterator[Row]:
    """Steps and memory of training."""
    for one in report.outcomes if report is not None else ():
        case, work = one.case, one.case.workload
        if one.predicted is None:
            continue
        place = ("published", f"{case.source}, {case.machine}", f"{TRAINING}{case.quantity}, all", case.source)
        label = _line(f"{case.row}: {case.model}, batch {work.batch}, length {work.prompt}")
        unit = "s" if case.quantity.startswith("time") else "B"
        yield Row(*place, label, case.measured, one.predicted, unit)


def of_collectives(outcomes: Iterable[tuple[collectives.Case, float]]) -> Iterator[Row]:
    """Published collectives."""
    for case, seconds in outcomes:
        what = f"{case.label}, {'above' if case.above else 'below'} 1 MiB"
        label = f"{case.op} of {case.size_bytes:.10g} B, {case.devices} devices, {case.dtype}"
        source = _line(case.source) or "published"
        place = ("published", "collectives, published", what, source, label)
        yield Row(*place, case.measured_s, seconds, "s", fitted=False)


def of_serving(report: serving.ServingReport | None) -> Iterator[Row]:
    """Servers under load; means of whole runs count for a figure, other statistics and single stages do not."""
    for case, value in report.outcomes if report is not None else ():
        statistic = "" if case.statistic == "mean" else f"{case.statistic} "
        what = f"serving, {statistic}{case.quantity}{'' if case.whole else ', one stage'}"
        unit = "tokens/s" if case.quantity == "throughput" else "s"
        place = ("published", f"{case.source}, {case.machine}", what, case.source, _line(f"{case.row}: {case.run}"))
        yield Row(*place, case.measured, value, unit)


def of_runs(outcomes: Iterable[endtoend.Outcome]) -> Iterator[Row]:
    """Published runs of whole models; the interval was fitted on the even points."""
    for one in outcomes:
        case, work = one.case, one.case.workload
        if one.predicted_s is None:
            continue
        ranks = "auto" if isinstance(work.parallelism, str) else work.parallelism.tensor
        sizes = f"batch {work.batch}, prompt {work.prompt}, new {work.generate}, tensor {ranks}"
        place = ("published", f"{case.source}, {case.machine}", case.label, case.source, _line(f"{case.row}: {sizes}"))
        fitted = not runs.point_of(case) & 1
        yield Row(*place, case.measured_s, one.predicted_s, "s", one.low_s, one.high_s, fitted)


def of_blocks(found: Sequence[blocks.Block]) -> Iterator[Row]:
    """Operators of the blocks; they count for no figure."""
    for block in found:
        for part in block.parts:
            place = ("published", blocks.HARDWARE, f"block {block.workload}", blocks.FILES[block.workload], part.name)
            yield Row(*place, part.measured_s, part.predicted_s, "s")

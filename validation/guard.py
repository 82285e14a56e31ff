"""Errors of today against errors on record: a figure that became more than a tenth worse is a regression."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .comparisons import EVERYWHERE, counted
from .record.figures import LEVELS, SCHEMA, Figure, load_record
from .record.rows import Row

if TYPE_CHECKING:
    from .report import Report

TOLERANCE, SLACK = 0.10, 0.003
"""A figure may grow by a tenth of itself and three tenths of a per cent, which is what moves with compilers."""


def figures(report: Report) -> Iterator[Figure]:
    """Every figure of a report that a record keeps; how its errors are spread as far as the report has the rows."""
    rows = counted(report.rows)
    for figure in _plain(report):
        yield spread(figure, rows.get(figure.key, ()))


def spread(figure: Figure, rows: Sequence[Row]) -> Figure:
    """*figure* with quantiles and worst of the signed errors of its *rows*, and the share inside their intervals.

    Rows that an interval was fitted on, or may have been, say nothing about it and are not counted in the share.

    Raises:
        ValueError: the rows are not those of the figure.
    """
    if not rows:
        return figure
    if len(rows) != figure.n:
        raise ValueError(f"{figure.key}: {len(rows)} rows, but the figure is of {figure.n}")
    errors = sorted(row.error for row in rows)
    within = [
        row.low <= row.measured <= row.high
        for row in rows
        if row.low is not None and row.high is not None and row.fitted is False
    ]
    return replace(
        figure,
        quantiles=tuple(errors[round(level * (len(errors) - 1))] for level in LEVELS),
        inside=sum(within) / len(within) if within else None,
        worst=max(errors, key=abs),
    )


def _plain(report: Report) -> Iterator[Figure]:
    """Figures without their spread."""
    for g in report.kernels.groups if report.kernels is not None else ():
        if g.bucket == "all":
            yield Figure("kernels", g.hardware, g.label, g.score.n, g.score.median, g.score.p90, g.score.bias)
    for e in report.energy:
        if e.readings == "all":
            yield Figure("energy", e.hardware, e.label, e.energy.n, e.energy.median, e.energy.p90, e.energy.bias)
    for t in report.training.totals if report.training is not None else ():
        if t.score is not None:
            s = t.score
            where = EVERYWHERE if t.source == "all" else f"{t.source}, {t.machine}"
            yield Figure("published", where, f"training {t.quantity}, {t.model}", s.n, s.median, s.p90, s.bias)
    for c in report.collectives:
        where, what = "collectives, published", f"{c.label}, {'above' if c.above else 'below'} 1 MiB"
        yield Figure("published", where, what, c.score.n, c.score.median, c.score.p90, c.score.bias)
    for one in report.serving.scores if report.serving is not None else ():
        if one.statistic == "mean" and one.whole:
            s = one.score
            where = f"{one.source}, {one.machine}"
            yield Figure("published", where, f"serving, {one.quantity}", s.n, s.median, s.p90, s.bias)
    for run in report.runs or ():
        if run.score is not None:
            s = run.score
            yield Figure("published", f"{run.source}, {run.machine}", run.label, s.n, s.median, s.p90, s.bias)


def record(report: Report) -> str:
    """The figures of *report* as JSON, rounded to what can be told apart."""
    rows = [
        {name: _rounded(value) for name, value in asdict(figure).items() if value is not None}
        for figure in figures(report)
    ]
    held = {"schema": SCHEMA, "quantiles_at": list(LEVELS), "figures": rows}
    return LISTED.sub(lambda found: f"[{' '.join(found[1].split())}]", json.dumps(held, indent=1)) + "\n"


LISTED = re.compile(r"\[([^\[\]{}\"]*)\]")
"""A list of numbers, which is written on one line."""


def _rounded(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_rounded(one) for one in value]
    return round(value, 4) if isinstance(value, float) else value


def read_record(path: Path) -> dict[tuple[str, str, str], Figure]:
    """Figures on record.

    Raises:
        DataError: missing, not JSON, or not such a record.
    """
    return {figure.key: figure for figure in load_record(path)}


def regressions(report: Report, held: Mapping[tuple[str, str, str], Figure]) -> list[str]:
    """What became worse, or is no longer compared, one line each; empty if nothing.

    Only checks that *report* made are looked for. The limit of a median or p90 is ``old × 1.1 + 0.003``.
    """
    now = {figure.key: figure for figure in figures(report)}
    made = {check for check, _, _ in now}
    places = {where for _, where, _ in now}
    out = []
    for key, old in held.items():
        if old.check not in made or old.where not in places:
            continue
        new = now.get(key)
        if new is None:
            out.append(f"{old.where}, {old.what}: on record and not compared any more")
            continue
        for name in ("median", "p90"):
            before, after = getattr(old, name), getattr(new, name)
            if after > before * (1.0 + TOLERANCE) + SLACK:
                out.append(f"{old.where}, {old.what}: {name} error {100 * before:.1f} % became {100 * after:.1f} %")
    return out

"""Errors of today against errors on record: a figure that became more than a tenth worse is a regression."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from effsim.errors import DataError

if TYPE_CHECKING:
    from .report import Report

SCHEMA: Final = "effsim/accuracy@1"
TOLERANCE, SLACK = 0.10, 0.003
"""A figure may grow by a tenth of itself and three tenths of a per cent, which is what moves with compilers."""


@dataclass(frozen=True, slots=True)
class Figure:
    """Errors of one comparison as fractions; ``where`` is a GPU, a machine or a source, ``what`` the kernel or task."""

    check: str
    where: str
    what: str
    n: int
    median: float
    p90: float
    bias: float

    @property
    def key(self) -> tuple[str, str, str]:
        """What identifies the figure in a record."""
        return (self.check, self.where, self.what)


def figures(report: Report) -> Iterator[Figure]:
    """Every figure of a report that a record keeps."""
    for g in report.kernels.groups if report.kernels is not None else ():
        if g.bucket == "all":
            yield Figure("kernels", g.hardware, g.label, g.score.n, g.score.median, g.score.p90, g.score.bias)
    for e in report.energy:
        if e.readings == "all":
            yield Figure("energy", e.hardware, e.label, e.energy.n, e.energy.median, e.energy.p90, e.energy.bias)
    for t in report.training.totals if report.training is not None else ():
        if t.score is not None:
            s = t.score
            where = f"{t.source}, {t.machine}"
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
        {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(figure).items()}
        for figure in figures(report)
    ]
    return json.dumps({"schema": SCHEMA, "figures": rows}, indent=1) + "\n"


def read_record(path: Path) -> dict[tuple[str, str, str], Figure]:
    """Figures on record.

    Raises:
        DataError: missing, not JSON, or not such a record.
    """
    try:
        held: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a record of accuracy: {error}") from None
    if not isinstance(held, Mapping) or held.get("schema") != SCHEMA:
        raise DataError(f"{path}: not a record of accuracy; expected schema {SCHEMA!r}")
    try:
        found = [Figure(**row) for row in held["figures"]]
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: not a record of accuracy: {error}") from None
    return {figure.key: figure for figure in found}


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

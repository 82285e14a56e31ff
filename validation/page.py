"""The result as a page (Markdown) and on the terminal."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effsim.errors import DataError
from effsim.units import format_quantity

from . import collectives, energy, prose, serving, targets
from .blocks import Block
from .charts import write_charts
from .coverage import Coverage
from .endtoend import EndToEnd, LeftOut
from .guard import record
from .kernels import GroupScore
from .peers import Peers, sections, tables
from .report import Report
from .training import HEAD, TrainingReport, cells, open_rows

if TYPE_CHECKING:
    from rich.console import Console

CHARTS = "validation"
"""Folder of the pictures, beside the page."""
KERNEL_HEAD = (
    "kernel",
    "measured",
    "n",
    "median",
    "MAPE",
    "p90",
    "bias",
    "roofline",
    "rule of thumb",
    "inside",
    "elsewhere",
    "width",
)


def percent(value: float, signed: bool = False) -> str:
    """A fraction in per cent.

    >>> percent(0.1234), percent(-0.05, signed=True)
    ('12.3 %', '-5.0 %')
    """
    return f"{100 * value:{'+' if signed else ''}.1f} %"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column to the left, the others to the right.

    >>> print(table(("a", "b"), [("x", "1")]))
    | a | b |
    |---|--:|
    | x | 1 |
    """
    lines = ["| " + " | ".join(head) + " |", "|---|" + "--:|" * (len(head) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def kernel_cells(group: GroupScore) -> tuple[str, ...]:
    """One line of the kernel table."""
    s = group.score
    label = f"**{group.label}**" if group.bucket == "all" else ""
    errors = (percent(s.median), percent(s.mape), percent(s.p90), percent(s.bias, signed=True))
    simple = (percent(group.roofline.median), percent(group.naive.median))
    return (label, group.bucket, str(s.n), *errors, *simple, *coverage_cells(group.coverage))


def coverage_cells(found: Coverage | None) -> tuple[str, str, str]:
    """Coverage on rows not fitted, the same without this GPU's own rows, and the median width of the interval.

    >>> coverage_cells(None)
    ('–', '–', '–')
    """
    if found is None:
        return "–", "–", "–"
    elsewhere = "–" if found.elsewhere is None else f"{100 * found.elsewhere:.0f} %"
    return f"{100 * found.inside:.0f} %", elsewhere, f"{100 * found.width:.0f} %"


def _kernels(groups: Sequence[GroupScore]) -> list[str]:
    out = ["## Kernels", prose.KERNELS]
    for composite in (False, True):
        part = [g for g in groups if g.composite == composite]
        if not part:
            continue
        if composite:
            out += ["## Rows that time more than the kernel", prose.COMPOSITE]
        for hardware in sorted({g.hardware for g in part}):
            picture = f"![Spread of predictions around measurements on {hardware}]({CHARTS}/accuracy_{hardware}.svg)"
            rows = [kernel_cells(g) for g in part if g.hardware == hardware]
            out += [f"### {hardware}", *([] if composite else [picture]), table(KERNEL_HEAD, rows)]
    return out


def weakest(groups: Sequence[GroupScore]) -> list[GroupScore]:
    """Spans of kernels with the largest median errors, composite rows apart."""
    found = [
        g
        for g in groups
        if not g.composite and g.bucket != "all" and g.score.n >= prose.WEAK_ROWS and g.score.median > prose.WEAK_MEDIAN
    ]
    return sorted(found, key=lambda g: -g.score.median)[: prose.WEAK_SHOWN]


def _beaten(groups: Sequence[GroupScore]) -> list[str]:
    """What a formula of one line predicts better; empty if nothing."""
    better = [f"{g.hardware} {g.label}" for g in groups if min(g.naive.median, g.roofline.median) < g.score.median]
    return [f"One of the two formulas is closer in the median on: {'; '.join(better)}."] if better else []


def _weak(groups: Sequence[GroupScore]) -> list[str]:
    rows = []
    for g in weakest(groups):
        far = ", ".join(f"{k} {v}" for k, v in g.worst.items() if not k.endswith("_s") and v not in (0, ""))
        times = " / ".join(format_quantity(g.worst[k], "time") for k in ("measured_s", "predicted_s"))
        errors = (percent(g.score.median), percent(g.score.bias, signed=True))
        rows.append((f"{g.hardware} {g.label}", g.bucket, str(g.score.n), *errors, far, times))
    head = ("kernel", "measured", "n", "median", "bias", "worst row", "measured / predicted")
    return ["## The weakest spots", prose.WEAK, table(head, rows), prose.MECHANISMS]


def _blocks(blocks: Sequence[Block]) -> list[str]:
    out = ["## A GPT-3 block on four A100", prose.BLOCKS]
    for block in blocks:
        parts = [*block.parts, block.total]
        rows = [
            (
                p.name,
                format_quantity(p.measured_s, "time"),
                format_quantity(p.predicted_s, "time"),
                percent(p.error, True),
            )
            for p in parts
        ]
        out += [f"### {block.workload}", table(("operator", "measured", "predicted", "error"), rows)]
        out.append(f"The event reading gives {format_quantity(block.events_s, 'time')} for the whole block.")
    return out


RUN_HEAD = ("source", "machine", "engine", "model and task", "n", "median", "MAPE", "p90", "bias", "worst", "unfit")


def run_cells(run: EndToEnd) -> tuple[str, ...]:
    """One line of the table of whole models; ``worst`` is the row furthest off, ``unfit`` rows said not to fit."""
    s = run.score
    errors = ("0", "", "", "", "") if s is None else (str(s.n), percent(s.median), percent(s.mape), percent(s.p90))
    bias = () if s is None else (percent(s.bias, signed=True),)
    return (run.source, run.machine, run.engine, run.label, *errors, *bias, run.worst, str(run.unfit or ""))


def _runs(runs: Sequence[EndToEnd], left_out: Sequence[LeftOut]) -> list[str]:
    out = ["## Whole models, published", prose.RUNS, table(RUN_HEAD, [run_cells(run) for run in runs])]
    if left_out:
        lines = [f"- {left.source}: {left.reason} ({left.rows} rows)" for left in left_out]
        out += ["### Published runs that are not compared", "\n".join(lines)]
    return out


def _training(training: TrainingReport) -> list[str]:
    lines = [cells(score) for score in (*training.totals, *training.groups)]
    return ["## Training steps, published", prose.TRAINING, table(HEAD, lines), "\n".join(open_rows(training))]


PEERS_BEGIN, PEERS_END = "<!-- peers -->", "<!-- peers end -->"
"""Marks around the section on other simulators, which can be written without the rest."""


def _peers(peers: Peers) -> list[str]:
    return [PEERS_BEGIN, *sections(peers), PEERS_END]


def updated(report: Report, text: str) -> str:
    """The page *text* with only its section on other simulators made anew; the whole page where it has none."""
    only_peers = report.peers is not None and report.kernels is None and report.blocks is None
    if not only_peers or report.peers is None or PEERS_BEGIN not in text or PEERS_END not in text:
        return page(report)
    head, _, rest = text.partition(PEERS_BEGIN)
    _, _, tail = rest.partition(PEERS_END)
    return head + "\n\n".join(_peers(report.peers)) + tail


def page(report: Report) -> str:
    """The page in Markdown."""
    parts = [prose.INTRODUCTION]
    if report.kernels is not None:
        overall = [g for g in report.kernels.groups if g.bucket == "all" and not g.composite]
        parts += ["## In short", table(("GPU", *KERNEL_HEAD[:1], *KERNEL_HEAD[2:]), [_short(g) for g in overall])]
        parts += _beaten(overall) + targets.section(targets.standings(report)) + _weak(report.kernels.groups)
    if report.blocks is not None:
        parts += _blocks(report.blocks)
    if report.runs:
        parts += _runs(report.runs, report.runs_left_out)
    if report.serving is not None:
        parts += serving.section(report.serving)
    if report.training is not None:
        parts += _training(report.training)
    if report.collectives:
        parts += collectives.section(report.collectives)
    if report.energy:
        parts += energy.section(report.energy)
    if report.peers is not None:
        parts += _peers(report.peers)
    if report.kernels is not None:
        parts += _kernels(report.kernels.groups)
        if report.kernels.left_out:
            lines = [f"- {reason} ({rows} rows)" for reason, rows in sorted(report.kernels.left_out.items())]
            parts += ["## Left out", "Rows that the bundled device refuses:", "\n".join(lines)]
    return "\n\n".join([*parts, prose.REPEAT]) + "\n"


def _short(group: GroupScore) -> tuple[str, ...]:
    cells = kernel_cells(group)
    return (group.hardware, group.label, *cells[2:])


def write_page(report: Report, path: Path) -> None:
    """Write the page, its pictures and, after a whole comparison, the figures that the next one is held to.

    Each file is replaced in one step.

    Raises:
        DataError: the folder does not exist.
    """
    if not path.parent.is_dir():
        raise DataError(f"{path}: the folder {path.parent} does not exist")
    if report.kernels is not None:
        write_charts([g for g in report.kernels.groups if not g.composite], path.parent / CHARTS)
    _replace(path, updated(report, path.read_text(encoding="utf-8") if path.is_file() else ""))
    if report.kernels is not None and report.runs:
        _replace(path.with_suffix(".json"), record(report))


def _replace(path: Path, text: str) -> None:
    """Write *text* under a temporary name and rename it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)  # a temporary file is private; a page is not
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def print_report(report: Report, console: Console) -> None:
    """Summary tables on the terminal."""
    from rich.table import Table

    def show(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        shown: Any = Table(*head, title=title)
        for row in rows:
            shown.add_row(*row)
        console.print(shown)

    if report.kernels is not None:
        overall = [_short(g) for g in report.kernels.groups if g.bucket == "all"]
        show("kernels: error against measurements", ("GPU", *KERNEL_HEAD[:1], *KERNEL_HEAD[2:]), overall)
    for block in report.blocks or ():
        rows = [
            (
                p.name,
                format_quantity(p.measured_s, "time"),
                format_quantity(p.predicted_s, "time"),
                percent(p.error, True),
            )
            for p in (*block.parts, block.total)
        ]
        show(block.workload, ("operator", "measured", "predicted", "error"), rows)
    if report.peers is not None:
        for title, head, lines in tables(report.peers):
            show(title, head, lines)
    if report.runs:
        show("whole models, published", RUN_HEAD, [run_cells(run) for run in report.runs])
        reasons = [(left.source, left.reason, str(left.rows)) for left in report.runs_left_out]
        show("published runs that are not compared", ("source", "why", "rows"), reasons)
    if report.serving is not None:
        show("serving under load, published", serving.HEAD, [serving.cells(score) for score in report.serving.scores])
    if report.training is not None:
        show("training steps, published", HEAD, [cells(score) for score in report.training.totals])

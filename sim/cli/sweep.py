"""``effsim sweep``: a design space, its Pareto front and what matters in it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import SpecError
from .options import Html, Json, Quiet, console, print_json

if TYPE_CHECKING:
    from ..explore.sweep.sweep import SweepResult


def sweep(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="Study file, or a bundled name (effsim list studies).")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the points (default: sweep_<study> here).")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Processes (default: one a processor).")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Dask scheduler to work on instead, e.g. tcp://host:8786.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue what the folder holds (the default).")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what the folder holds.")] = False,
    html: Html = None,
    json_: Json = False,
    quiet: Quiet = False,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Seed of random points (default: the study's).")
    ] = None,
) -> None:
    """Explore a design space: every point as Parquet, the Pareto front, what matters; a killed sweep goes on."""
    from .. import sweep as explore
    from .progress import progress

    if resume and fresh:
        raise SpecError("--resume and --fresh exclude each other")
    bar = partial(progress, label="sweeping", quiet=quiet or json_)
    result = explore(study, out=out, processes=processes, scheduler=scheduler, seed=seed, fresh=fresh, progress=bar)
    if html is not None:
        from ..report.sweep_page import write_sweep_page

        write_sweep_page(result, html)
    if json_:
        print_json(result.as_dict())
    elif not quiet:
        _show(result)


def _show(result: SweepResult) -> None:
    from rich.markup import escape
    from rich.table import Table

    from ..report.sweep_words import cell, column_title, counted, shown_columns

    out = console()
    out.print(escape(f"{result.study.name}: {counted(result)}"))
    names = shown_columns(result)
    if result.study.constraints and not result.feasible:
        out.print("no point keeps every constraint")
    table = Table(*(escape(column_title(name)) for name in names), box=None, pad_edge=False)
    for row in result.pareto[:12]:
        table.add_row(*(escape(cell(name, row[name])) for name in names))
    if result.pareto:
        more = f", {result.front - 12} more in the report" if result.front > 12 else ""
        out.print(f"Pareto front ({result.front} points{more}):" if len(result.best) > 1 else "best:")
        out.print(table)
    for name in result.best:
        shares = [f"{i.path} {100 * i.value:.0f} %" for i in result.importance if i.objective == name]
        if shares:
            out.print(escape(f"what {name} depends on: {', '.join(shares)}"))
    out.print(escape(f"points: {result.folder / 'points.parquet'}"))

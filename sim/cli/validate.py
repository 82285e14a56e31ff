"""``effsim validate``: predictions against measurements of real hardware, models and counts against PyTorch."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..errors import SpecError
from .options import Json, Quiet, console, print_json


class Check(StrEnum):
    """What to compare with."""

    kernels = "kernels"
    published = "published"
    peers = "peers"
    numerics = "numerics"
    counting = "counting"
    timing = "timing"


WITH_TORCH = (Check.numerics, Check.counting, Check.timing)
"""Comparisons with PyTorch on this machine; they need no measurements."""


def validate(
    check: Annotated[
        Check | None,
        typer.Argument(
            metavar="[kernels|published|peers|numerics|counting|timing]",
            help="One kind of comparison; default: all that need measurements. The last three need PyTorch.",
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of measurements (default: $EFFSIM_MEASUREMENTS).")
    ] = None,
    gpu: Annotated[str, typer.Option(metavar="NAME", help="Kernels of one GPU only, e.g. gpu_a100.")] = "",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the result as a page (Markdown).")] = None,
    residuals: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="kernels: fit the intervals anew on half of the rows and write them here."),
    ] = None,
    hardware: Annotated[
        str, typer.Option(metavar="FILE", help="timing: file that 'effsim calibrate' wrote; default: calibrate first.")
    ] = "",
    rows: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="kernels, published: write every compared measurement with its prediction (.csv or .parquet).",
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Figures on record (docs/accuracy.json): end with code 1 if one got worse."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="numerics, counting, timing: fewer cases.")] = False,
    seed: Annotated[int, typer.Option(metavar="N", help="numerics: seed of the random cases.")] = 0,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare predictions with measured kernels and published results; says how far off they are and where."""
    if rows is not None and check not in (None, Check.kernels, Check.published):
        raise SpecError(f"--rows: {check.value if check else ''} compares no measurements of kernels or published runs")
    if check in WITH_TORCH:
        _with_torch(check, hardware, quick, seed, out, json_, quiet)
        return
    from ..validation.guard import read_record, regressions
    from ..validation.page import print_report, write_page
    from ..validation.report import validate as compare
    from ..validation.row_files import check_target, write_rows

    if rows is not None:
        check_target(rows)
    held = read_record(against) if against is not None else {}
    report = compare(data, check.value if check else "", gpu, residuals)
    if out is not None:
        write_page(report, out)
    if rows is not None:
        write_rows(report.rows, rows)
    if json_:
        print_json(report.as_dict())
    elif not quiet:
        print_report(report, console())
    broken = report.peers.failures() if report.peers is not None else []
    worse = regressions(report, held)
    for line in worse:
        typer.echo(f"effsim: less accurate than on record: {line}", err=True)
    for line in broken:
        typer.echo(f"effsim: bound broken: {line}", err=True)
    if broken or worse:
        raise typer.Exit(1)


def _with_torch(
    check: Check, hardware: str, quick: bool, seed: int, out: Path | None, json_: bool, quiet: bool
) -> None:
    """Run a comparison with PyTorch, print it, and end with code 1 if a bound is broken."""
    from ..validation.against_torch import compare

    report = compare(check.value, hardware=hardware, quick=quick, seed=seed)
    if out is not None:
        report.write(out)
    if json_:
        print_json(report.as_dict())
    elif not quiet:
        report.print(console())
    for line in report.failures:
        typer.echo(f"effsim: bound broken: {line}", err=True)
    if report.failures:
        raise typer.Exit(1)

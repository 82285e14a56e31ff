"""``effsim validate``: predictions against measurements of real hardware."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .options import Json, Quiet, console, print_json


class Check(StrEnum):
    """What to compare with."""

    kernels = "kernels"
    published = "published"
    peers = "peers"


def validate(
    check: Annotated[
        Check | None, typer.Argument(metavar="[kernels|published|peers]", help="One kind of comparison; default: all.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of measurements (default: $EFFSIM_MEASUREMENTS).")
    ] = None,
    gpu: Annotated[str, typer.Option(metavar="NAME", help="Kernels of one GPU only, e.g. gpu_a100.")] = "",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the result as a page (Markdown).")] = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare predictions with measured kernels and published results; says how far off they are and where."""
    from ..validation.page import print_report, write_page
    from ..validation.report import validate as compare

    report = compare(data, check.value if check else "", gpu)
    if out is not None:
        write_page(report, out)
    if json_:
        print_json(report.as_dict())
    elif not quiet:
        print_report(report, console())
    broken = report.peers.failures() if report.peers is not None else []
    for line in broken:
        typer.echo(f"effsim: bound broken: {line}", err=True)
    if broken:
        raise typer.Exit(1)

"""``effsim schema``: JSON Schema of the YAML formats, for editors; reference pages, for people."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .options import print_json


class Kind(StrEnum):
    """Kinds of files."""

    gpu = "gpu"
    cpu = "cpu"
    pim = "pim"
    systolic = "systolic"
    fpga = "fpga"
    dram = "dram"
    system = "system"
    workload = "workload"
    engine = "engine"
    study = "study"
    fit = "fit"
    architecture = "architecture"


def schema(
    kind: Annotated[Kind | None, typer.Argument(help="One kind of file; all of them if left out.")] = None,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", metavar="DIR", help="Write reference pages there instead.")
    ] = None,
) -> None:
    """JSON Schema of the YAML formats (point your editor's YAML support at it)."""
    if markdown is not None:
        from ..report.schema_page import write_pages

        for path in write_pages(markdown, () if kind is None else (kind.value,)):
            typer.echo(f"wrote {path}", err=True)
        return
    from .._api import schemas

    found = schemas()
    print_json(found[kind.value] if kind is not None else found)

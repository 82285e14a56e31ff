"""``effsim list``: what is bundled."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from .options import Json, print_json


class Section(StrEnum):
    """Parts of the catalogue."""

    hardware = "hardware"
    workloads = "workloads"
    architectures = "architectures"
    techniques = "techniques"
    engines = "engines"
    studies = "studies"
    plans = "plans"
    dram = "dram"
    fits = "fits"


def list_(
    section: Annotated[Section | None, typer.Argument(help="One part of the catalogue; all if left out.")] = None,
    json_: Json = False,
) -> None:
    """The bundled hardware, workloads, architectures, techniques, engines, studies, plans, DRAM presets and fits."""
    from ..spec.catalogue import names

    wanted = [section] if section is not None else list(Section)
    found = {part.value: names(part.value) for part in wanted}
    if json_:
        print_json(found)
        return
    for part, entries in found.items():
        if len(found) > 1:
            typer.echo(f"{part}:")
        for entry in entries:
            typer.echo(f"  {entry}" if len(found) > 1 else entry)

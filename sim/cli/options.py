"""Arguments and options that several commands share."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console


class Engine(StrEnum):
    """How a program is read."""

    roofline = "roofline"
    analytic = "analytic"
    events = "events"


class LaunchMode(StrEnum):
    """How kernels of a table were launched when they were timed."""

    graph = "graph"
    eager = "eager"


Hardware = Annotated[str, typer.Argument(metavar="HW", help="Hardware file, or a bundled name (effsim list hardware).")]
Workload = Annotated[
    str, typer.Argument(metavar="WORKLOAD", help="Workload file, or a bundled name (effsim list workloads).")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Change any field, e.g. hardware.memory.bandwidth=4TB/s."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON to stdout and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of everything random; results repeat for the same seed.")]
Html = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a self-contained page.")]
Trace = Annotated[Path | None, typer.Option("--trace", metavar="FILE", help="Write a trace for Perfetto.")]
Parquet = Annotated[Path | None, typer.Option("--parquet", metavar="DIR", help="Write the tables as Parquet.")]


def console() -> Console:
    """A rich console on stdout; a pipe gets 120 columns and no colours."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def print_json(value: Any) -> None:
    """JSON to stdout; NaN and infinity are refused rather than printed."""
    import json

    typer.echo(json.dumps(value, indent=1, allow_nan=False))

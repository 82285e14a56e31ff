"""``effsim compare``: one workload on several machines."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import SpecError
from .options import Engine, Html, Json, Quiet, Set, console, print_json


def compare(
    names: Annotated[list[str], typer.Argument(metavar="HW... WORKLOAD", help="Machines, then the workload.")],
    engine: Annotated[Engine, typer.Option(help="How to read the program.")] = Engine.analytic,
    set_: Set = None,
    json_: Json = False,
    html: Html = None,
    quiet: Quiet = False,
) -> None:
    """The same workload on several machines, and why they differ."""
    if len(names) < 2:
        raise SpecError("compare needs at least one machine and a workload")
    from .._api import compare as compare_runs

    results = compare_runs(names[:-1], names[-1], engine=engine.value, set=set_ or [])
    if html is not None:
        from ..report.page import write_page

        write_page(results, html)
    if json_:
        print_json({"schema": "effsim/compare@1", "results": [result.to_dict() for result in results]})
    elif not quiet:
        from ..report.terminal import print_compare

        print_compare(results, console())

"""``effsim roofline``: operators under the roofs of one or several machines."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import SpecError
from .options import Engine, Html, Json, Quiet, Set, console, print_json


def roofline(
    names: Annotated[list[str], typer.Argument(metavar="HW... WORKLOAD", help="Machines, then the workload.")],
    engine: Annotated[Engine, typer.Option(help="Which reading gives the attained rates.")] = Engine.analytic,
    set_: Set = None,
    json_: Json = False,
    html: Html = None,
    quiet: Quiet = False,
) -> None:
    """Operators on the (hierarchical) roofline, as table and plot."""
    if len(names) < 2:
        raise SpecError("roofline needs at least one machine and a workload")
    from .._api import compare as compare_runs
    from .._api import roofline_table

    results = compare_runs(names[:-1], names[-1], engine=engine.value, set=set_ or [])
    if html is not None:
        from ..report.page import write_page

        write_page(results, html)
    if json_:
        print_json({"schema": "effsim/roofline@1", "machines": [roofline_table(result) for result in results]})
    elif not quiet:
        from ..report.terminal import print_roofline

        print_roofline(results, console())

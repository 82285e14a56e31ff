"""``effsim explain``: the terms of one operator's time."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import Hardware, Json, Set, Workload, console, print_json


def explain(
    hardware: Hardware,
    workload: Workload,
    operator: Annotated[str, typer.Argument(metavar="OPERATOR", help="Its name in the report, e.g. layers.attention.")],
    set_: Set = None,
    json_: Json = False,
) -> None:
    """The terms of one operator's time, its bound, the origin of each parameter."""
    from .._api import explain as explain_operator

    info = explain_operator(hardware, workload, operator, set=set_ or [])
    if json_:
        print_json(info)
    else:
        from ..report.terminal import print_explain

        print_explain(info, console())

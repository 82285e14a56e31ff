"""``effsim run``: the main job."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import Engine, Hardware, Html, Json, Parquet, Quiet, Seed, Set, Trace, Workload, console


def run(
    hardware: Hardware,
    workload: Workload,
    engine: Annotated[Engine, typer.Option(help="How to read the program.")] = Engine.events,
    set_: Set = None,
    json_: Json = False,
    html: Html = None,
    trace: Trace = None,
    parquet: Parquet = None,
    all_rows: Annotated[bool, typer.Option("--all", help="Every operator in the table.")] = False,
    quiet: Quiet = False,
    seed: Seed = 0,
) -> None:
    """Time, memory, cost, bottleneck and operator table of a workload on a machine."""
    from .._api import run_full

    full = run_full(hardware, workload, engine=engine.value, set=set_ or [], seed=seed)
    result = full.result
    if html is not None:
        from ..report.page import write_page

        write_page(result, html)
    if trace is not None:
        from ..report.trace import write_trace

        write_trace(result, full.machine.device, full.program, trace)
    if parquet is not None:
        from ..report.files import write_parquet

        write_parquet(result, parquet)
    if json_:
        typer.echo(result.to_json())
    elif not quiet:
        from ..report.terminal import print_run

        print_run(result, console(), all_rows=all_rows)

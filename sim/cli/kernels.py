"""``effsim kernels``: predict a table of kernels."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from .options import Hardware, Json, LaunchMode, Quiet, Set, console, print_json
from .progress import progress


def kernels(
    hardware: Hardware,
    table: Annotated[
        Path, typer.Argument(metavar="TABLE", help="CSV or Parquet, a row a kernel, with a 'kind' column.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write rows with predictions (.csv or .parquet).")
    ] = None,
    launch: Annotated[LaunchMode, typer.Option(help="How the kernels were timed.")] = LaunchMode.graph,
    set_: Set = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Predict a table of kernels; with a measured_s column, score the predictions."""
    from .._api import kernel_table

    bar = partial(progress, label="predicting", quiet=quiet or json_)
    predicted = kernel_table(hardware, table, launch=launch.value, set=set_ or [], progress=bar)
    if out is not None:
        predicted.write(out)
    if json_:
        print_json(predicted.summary())
    elif not quiet:
        predicted.print(console())

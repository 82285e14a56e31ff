"""``effsim check``: validate files without running them."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import EffsimError
from .options import Quiet


def check(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Hardware, system, workload, engine or architecture files.")
    ],
    quiet: Quiet = False,
) -> None:
    """Validate YAML files; print one line a file, exit 2 if any is wrong."""
    from .._api import check_file

    failed = 0
    for file in files:
        try:
            kind, name = check_file(file)
        except EffsimError as error:
            failed += 1
            typer.echo(f"effsim: {error}", err=True)
        else:
            if not quiet:
                typer.echo(f"{file}: ok ({kind}: {name})")
    if failed:
        raise typer.Exit(2)

"""``effsim import``: foreign model descriptions to effsim YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def import_(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A Hugging Face config.json.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write here instead of stdout.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the architecture.")] = "",
) -> None:
    """Turn a Hugging Face config.json into an architecture YAML."""
    from .._api import import_config

    text = import_config(source, name=name)
    if out is None:
        typer.echo(text, nl=False)
        return
    from ..report.files import atomic_write_text

    atomic_write_text(out, text)
    typer.echo(f"wrote {out}", err=True)

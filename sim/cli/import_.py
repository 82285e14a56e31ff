"""``effsim import``: foreign model descriptions to effsim YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def import_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="A Hugging Face config.json, an .onnx file, a SCALE-Sim topology .csv, or 'torch'."
        ),
    ],
    target: Annotated[
        str | None, typer.Argument(metavar="FILE.py:FUNCTION", help="After 'torch': what makes the module.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write here instead of stdout.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the architecture or workload.")] = "",
    dim: Annotated[
        list[str] | None, typer.Option("--dim", metavar="NAME=SIZE", help="Size of a named dimension of an ONNX input.")
    ] = None,
    real: Annotated[bool, typer.Option("--real", help="Build the torch module with real tensors.")] = False,
) -> None:
    """Turn a Hugging Face config.json into an architecture, or a torch module, ONNX file or topology into a workload.

    'effsim import torch FILE.py:FUNCTION' runs the file. FUNCTION() returns (module, inputs) or (module, args, kwargs).
    """
    from ..importers.surface import import_source

    imported = import_source(source, target, name=name, dimensions=dim or (), real=real)
    for warning in imported.warnings:
        typer.echo(f"effsim: warning: {warning}", err=True)
    if out is None:
        typer.echo(imported.text, nl=False)
        return
    from ..report.files import atomic_write_text

    atomic_write_text(out, imported.text)
    typer.echo(f"wrote {out}", err=True)

"""All commands on one application."""

from __future__ import annotations

from typing import Annotated

import typer

from . import (
    calibrate,
    check,
    compare,
    dashboard,
    dram,
    explain,
    import_,
    kernels,
    list_,
    plan,
    roofline,
    run,
    schema,
    serve,
    sweep,
    validate,
)

app = typer.Typer(
    name="effsim",
    help="How long, how much memory, how much energy, how much money a neural network takes on hardware, and why.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from ..version import VERSION

        typer.echo(VERSION)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before any command."""


for name, function in (
    ("run", run.run),
    ("serve", serve.serve),
    ("sweep", sweep.sweep),
    ("plan", plan.plan),
    ("roofline", roofline.roofline),
    ("compare", compare.compare),
    ("explain", explain.explain),
    ("kernels", kernels.kernels),
    ("calibrate", calibrate.calibrate),
    ("validate", validate.validate),
    ("dram", dram.dram),
    ("import", import_.import_),
    ("list", list_.list_),
    ("check", check.check),
    ("schema", schema.schema),
    ("dashboard", dashboard.dashboard),
):
    app.command(name)(function)

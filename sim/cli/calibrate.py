"""``effsim calibrate``: measure this machine, or fit a hardware file to a kernel table."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import SpecError
from .options import Json, LaunchMode, Quiet, Seed, console, print_json
from .progress import progress

if TYPE_CHECKING:
    from ..explore.calibrate.fit import Fit


TABLES = (".csv", ".parquet", ".pq")
"""Endings of a table; a recipe is a YAML file or the name of a bundled one."""

MEASURING, TABLE, RECIPE = "measuring this machine", "--fit TABLE", "--fit RECIPE"
OPTIONS = {
    MEASURING: ("out", "device", "threads", "quick"),
    TABLE: ("out", "hardware", "parameter", "split", "rows", "launch", "seed"),
    RECIPE: ("data", "write", "check"),
}
"""Options that only some uses of the command have."""


class MeasuredDevice(StrEnum):
    """What PyTorch runs on."""

    cpu = "cpu"
    cuda = "cuda"


def calibrate(
    context: typer.Context,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Hardware file to write (default: cpu_this_machine.yaml).")
    ] = None,
    device: Annotated[MeasuredDevice, typer.Option(help="What to measure.")] = MeasuredDevice.cpu,
    threads: Annotated[int, typer.Option(min=0, help="Cores to measure with; 0: all of them.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer samples and types.")] = False,
    fit: Annotated[
        str,
        typer.Option(
            metavar="TABLE|RECIPE",
            help="Fit instead: --hardware to a table (with measured_s), or what a recipe names to its tables.",
        ),
    ] = "",
    hardware: Annotated[str, typer.Option(metavar="HW", help="Hardware file to fit, or a bundled name.")] = "",
    parameter: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH", help="Number to fit; repeatable. Default: those fitted or assumed in the file."),
    ] = None,
    split: Annotated[float, typer.Option(help="Share of the rows to fit to; the others judge.")] = 0.5,
    rows: Annotated[int, typer.Option(min=4, help="Most rows that are used of a larger table.")] = 1000,
    launch: Annotated[LaunchMode, typer.Option(help="How the kernels of the table were timed.")] = LaunchMode.graph,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Recipe: folder of its tables (default: $EFFSIM_MEASUREMENTS)."),
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Recipe: put the numbers into the hardware file.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Recipe: change nothing; end with code 1 if a stored number does not stand.")
    ] = False,
    seed: Seed = 0,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure this machine under PyTorch and write its hardware file; or fit a file to tables of measured kernels."""
    bar = partial(progress, label="calibrating", quiet=quiet or json_)
    use = MEASURING if not fit else TABLE if fit.endswith(TABLES) else RECIPE
    _refuse_others(context, use)
    if use == RECIPE:
        _recipe(fit, data, write, check, json_, quiet)
        return
    if use == MEASURING:
        from ..explore.calibrate.command import calibrate as measure

        path = out or Path(f"{device.value}_this_machine.yaml")
        done = measure(path, device=device.value, threads=threads, quick=quick, progress=bar)
        if json_:
            print_json(done.as_dict())
        elif not quiet:
            typer.echo(f"{done.path}: {done.name}, from {len(done.samples)} benchmarks")
        return
    if not hardware:
        raise SpecError("--fit needs --hardware: the file whose numbers it may move")
    from ..explore.calibrate.command import fit_table

    result = fit_table(
        hardware,
        Path(fit),
        parameter or [],
        out,
        split=split,
        seed=seed,
        most_rows=rows,
        launch=launch.value,
        progress=bar,
    )
    if json_:
        print_json(result.as_dict())
    elif not quiet:
        _print(result, out)


def _refuse_others(context: typer.Context, use: str) -> None:
    """Refuse options that were given and that this use of the command would not look at."""
    for name in sorted({option for options in OPTIONS.values() for option in options}.difference(OPTIONS[use])):
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            uses = " and ".join(other for other, options in OPTIONS.items() if name in options)
            raise SpecError(f"--{name} does not go with {use}; it belongs to {uses}")


def _recipe(recipe: str, data: Path | None, write: bool, check: bool, json_: bool, quiet: bool) -> None:
    """Fit by a recipe; print, then write or show what would be written. Code 1: a stored number does not stand."""
    from ..explore.calibrate.entries import difference, write_entries
    from ..explore.calibrate.recipe import run_recipe
    from ..validation.fit_rows import read
    from ..validation.tables import data_folder

    if write and check:
        raise SpecError("--write changes the stored numbers and --check judges them; give one of them")
    bar = partial(progress, label="fitting", quiet=quiet or json_)
    result = run_recipe(recipe, data or data_folder(), read, progress=bar)
    file = Path(result.file)
    if json_:
        print_json(result.as_dict())
    elif not quiet:
        result.print(console())
    if check:
        for line in result.refused():
            typer.echo(f"effsim: {file.name}: {line}", err=True)
        raise typer.Exit(1 if result.refused() else 0)
    if write:
        changed = write_entries(file, result.entries())
        if not (json_ or quiet):
            typer.echo(f"{'written' if changed else 'unchanged'}: {file}")
    elif not (json_ or quiet):
        typer.echo(difference(file, result.entries()), nl=False)


def _print(result: Fit, out: Path | None) -> None:
    """What moved, what was refused, errors before and after."""
    from rich.table import Table

    screen = console()
    moved = Table("parameter", "old", "new", "elasticity", title=f"{result.hardware} fitted to {result.table}")
    for m in result.moved:
        moved.add_row(m.path, f"{m.old:.4g}", f"{m.new:.4g}", f"{m.elasticity:.3f}")
    screen.print(moved)
    for path, why in result.refused:
        screen.print(f"not moved: {path}: {why}")
    errors = Table("rows", "", "n", "median", "p90", "bias", "worst row", title="error against measured_s")
    for half in ("train", "test"):
        for when in ("before", "after"):
            s = getattr(getattr(result, when), half)
            cells = (f"{100 * s.median:.1f} %", f"{100 * s.p90:.1f} %", f"{100 * s.bias:+.1f} %")
            errors.add_row(half, when, str(s.n), *cells, str(s.worst_row))
    screen.print(errors)
    if result.used < result.rows:
        screen.print(f"{result.used} of {result.rows} rows were used (--rows)")
    if out is not None:
        screen.print(f"written: {out}")

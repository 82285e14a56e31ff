"""``effsim dram``: drive the DRAM model alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .options import Json, Quiet, console, print_json

if TYPE_CHECKING:
    from ..memory.simulate import DramResult

_REASONS = {
    "refresh": "rows being refreshed",
    "tCCD_L": "consecutive accesses to one bank group",
    "tFAW": "limits on activations (tFAW, tRRD)",
    "turnaround": "data bus turned between read and write, or between ranks",
    "row_conflict": "rows being closed and opened",
    "injection": "no request for the bus: too few outstanding, or blocked behind another channel",
    "scheduling": "command bus and order of requests",
}


def dram(
    preset: Annotated[str, typer.Argument(metavar="PRESET", help="DRAM file, or a bundled name (effsim list dram).")],
    trace: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            help="seq_read, seq_write, mixed_2r1w, triad, stride, random_read, random_mixed or chase.",
        ),
    ] = "seq_read",
    bytes_: Annotated[str, typer.Option("--bytes", metavar="SIZE", help="Bytes to move, e.g. 64MiB.")] = "16 MiB",
    stride: Annotated[str | None, typer.Option(metavar="SIZE", help="Step of --trace stride.")] = None,
    mapping: Annotated[
        str | None,
        typer.Option(help="hashed, RoBaRaCoCh, MOP4CLXOR, or six fields from high to low such as rochrababgco."),
    ] = None,
    refresh: Annotated[str, typer.Option(metavar="on|off", help="Also all_bank or per_bank.")] = "on",
    channels: Annotated[int | None, typer.Option(help="Number of channels; the preset's if left out.")] = None,
    page: Annotated[str | None, typer.Option(metavar="open|closed", help="Page policy.")] = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Bandwidth, latency and row hits of a DRAM under a trace, and why it is below its peak."""
    from ..errors import SpecError
    from ..memory.simulate import simulate_dram
    from ..units import parse

    if trace == "stride" and stride is None:
        raise SpecError("--trace stride without --stride", expected="a step such as --stride 4KiB")
    if trace != "stride" and stride is not None:
        raise SpecError(f"--stride with --trace {trace}", expected="--trace stride")
    step = 0 if stride is None else int(parse(_number(stride), "bytes"))
    size = parse(_number(bytes_), "bytes")
    result = simulate_dram(
        preset,
        trace=trace,
        bytes_moved=size,
        stride=step,
        mapping=mapping,
        refresh=refresh,
        channels=channels,
        page=page,
    )
    if json_:
        print_json(result.to_json())
    elif not quiet:
        _show(result)


def _number(text: str) -> str | float:
    """A bare number is bytes."""
    try:
        return float(text)
    except ValueError:
        return text


def _show(result: DramResult) -> None:
    from rich.table import Table

    from ..units import format_quantity

    out = console()
    rate, peak = (format_quantity(x, "bandwidth") for x in (result.bandwidth_bytes_per_s, result.peak_bytes_per_s))
    out.print(f"{result.preset}: {result.trace}, mapping {result.mapping}")
    moved, time = format_quantity(result.bytes_moved, "bytes"), format_quantity(result.time_s, "time")
    out.print(f"{moved} in {time} ({result.cycles:,.0f} clocks): {rate} of {peak}, {result.fraction:.1%}")
    latency = "-" if result.read_latency_s is None else format_quantity(result.read_latency_s, "time")
    energy = "unknown" if result.energy_j is None else format_quantity(result.energy_j, "energy")
    out.print(f"row hits {result.row_hit_rate:.1%}, mean read latency {latency}, energy {energy}")
    if result.simulated_requests < result.requests:
        out.print(
            f"{result.simulated_requests:,} of {result.requests:,} requests simulated, the rest at their steady rate"
        )
    table = Table("lost to", "clocks", "of all", "meaning", box=None, pad_edge=False)
    for name, cycles in sorted(result.limiters.items(), key=lambda item: -item[1]):
        table.add_row(name, f"{cycles:,.0f}", f"{cycles / result.cycles:.1%}", _REASONS[name])
    table.add_row(
        "all", f"{result.cycles - result.ideal_cycles:,.0f}", f"{1 - result.ideal_cycles / result.cycles:.1%}", ""
    )
    out.print(table)

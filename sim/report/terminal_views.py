"""The smaller terminal reports (``compare``, ``roofline``, ``explain``) and what all of them are laid out with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..units import format_quantity
from . import ranges, words
from .result import RunResult

if TYPE_CHECKING:
    from rich.console import Console

NARROW: Final = 100
WIDE_BAR: Final = 30
_SOURCE_WIDTH: Final = 90
_UNITS: Final = {
    "compute": "flop_rate",
    "bandwidth": "bandwidth",
}


def heading(console: Console, text: str, *, first: bool = False) -> None:
    """A section title with a blank line before it."""
    if not first:
        console.print()
    console.print(Text(text, style="bold"))


def say(console: Console, text: str, *, indent: int = 0, style: str = "") -> None:
    """A paragraph that wraps with a hanging indent, so that no line is cut; never read as markup."""
    console.print(Padding(Text(text, style=style), (0, 0, 0, indent)))


def column(table: Table, name: str, justify: str) -> None:
    """A column of numbers or short words: never wrapped, and never cut as long as a name column can fold."""
    side: Literal["left", "right"] = "right" if justify == "right" else "left"
    table.add_column(name, justify=side, no_wrap=True)


def bar(share: float, width: int) -> str:
    """A bar of *width* characters for a share of 1; what is above zero but below half a character is a thin line."""
    filled = round(min(1.0, max(0.0, share)) * width)
    return "█" * filled if filled or share <= 0.0 else "▏"


def grid(*justify: str) -> Table:
    """A table without lines or headings, indented like the paragraphs; ``fold`` makes a column of text."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for side in justify:
        if side == "fold":
            table.add_column(overflow="fold")
        else:
            column(table, "", side)
    return table


def show(console: Console, table: Table) -> None:
    """Print a grid, indented."""
    console.print(Padding(table, (0, 0, 0, 2)))


def print_compare(results: Sequence[RunResult], console: Console) -> None:
    """Print one workload on several machines: times, memory, cost, and which resources make the difference."""
    first = results[0]
    heading(console, f"{words.plain(first.workload)} on {len(results)} machines", first=True)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("  machine", overflow="fold", min_width=18)
    wide = console.width >= NARROW
    for name in ("dev", "time", "90 %", "speed") if wide else ("dev", "time", "speed"):
        column(table, name, "right")
    decode = any("decode" in result.phases for result in results)
    column(table, "per token" if decode else "tokens/s", "right")
    for name in ("GiB used/of", "cost"):
        column(table, name, "right")
    column(table, "limited by", "left")
    for result in results:
        table.add_row(*_compare_row(result, first, decode, wide))
    console.print(table)
    for line in () if wide else [_interval_line(result) for result in results if result.time_low_s is not None]:
        say(console, line, indent=2)
    notes = [f"note ({result.hardware}): {note}" for result in results for note in result.notes]
    for note in dict.fromkeys(notes):
        say(console, words.plain(note), indent=2)
    if len(results) > 1:
        heading(console, f"Why they differ (against {words.plain(first.hardware)})")
        for other in results[1:]:
            say(console, words.difference_sentence(first, other), indent=2)


def _interval_line(result: RunResult) -> str:
    """The interval of one machine on a line of its own, where columns are short."""
    interval = ranges.ends(result.time_s, result.time_low_s, result.time_high_s)
    return f"{words.plain(result.hardware)}: {words.seconds(result.time_s)}{interval}"


def _compare_row(result: RunResult, first: RunResult, decode: bool, wide: bool) -> tuple[Text | str, ...]:
    phase = result.phases.get("decode" if decode else next(iter(result.phases), ""), {})
    if decode:
        pace = words.seconds(phase["time_per_token_s"]) if "time_per_token_s" in phase else "–"
    else:
        pace = words.rate(phase["tokens_per_s"]).removesuffix(" tokens/s") if "tokens_per_s" in phase else "–"
    used, capacity = (float(result.memory[key]) / words.GIB for key in ("used_bytes", "capacity_bytes"))
    speed = f"{first.time_s / result.time_s:.2f}×" if result.time_s > 0.0 else "–"
    largest = max(result.bound.items(), key=lambda item: item[1], default=("–", 0.0))
    interval = ranges.ends(result.time_s, result.time_low_s, result.time_high_s).strip(" ()") or "–"
    return (
        Text(f"  {words.plain(result.hardware)}"),
        f"{result.devices}",
        words.seconds(result.time_s),
        *((interval,) if wide else ()),
        speed,
        pace,
        f"{used:.1f}/{capacity:.1f}",
        words.dollars(result.cost_usd),
        f"{words.plain(largest[0])} {100.0 * largest[1]:.0f} %",
    )


def print_roofline(results: Sequence[RunResult], console: Console) -> None:
    """Print, for each machine, its roofs and where the operators stand below them."""
    for index, result in enumerate(results):
        heading(console, f"Roofline: {words.title(result)} (engine {result.engine})", first=index == 0)
        for note in result.notes:
            say(console, f"note: {words.plain(note)}", indent=2)
        roofs = ", ".join(f"{words.plain(c.name)} {format_quantity(c.value, _UNITS[c.kind])}" for c in result.ceilings)
        say(console, f"roofs of one device: {roofs}", indent=2)
        _roof_table(result, console)
        say(console, "'of roof' is the lower bound of the operator's time over its time.", indent=2)


def _roof_table(result: RunResult, console: Console) -> None:
    many = len(result.phases) > 1
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("  operator", overflow="fold", min_width=18)
    for name in ("time", "FLOP/byte", "FLOP/s a device", "of roof"):
        column(table, name, "right")
    column(table, "roof", "left")
    for point in words.roof_points(result):
        name = f"{point.row.phase}: {point.row.name}" if many else point.row.name
        table.add_row(
            Text(f"  {words.plain(name)}"),
            words.seconds(point.row.time_s),
            f"{point.intensity:.3g}" if point.intensity else "–",
            format_quantity(point.attained, "flop_rate") if point.attained else "–",
            words.percent(point.share),
            words.plain(point.roof),
        )
    console.print(table)


def print_explain(info: Mapping[str, Any], console: Console) -> None:
    """Print the terms of one operator: its dimensions, kernels with what each resource would need, parameters.

    *info* holds ``name``, ``operator`` (dimensions), ``time_s``, ``launch_s``, ``roofline_s``, ``count``, ``rows``
    (kernel, tiles, slots, time_s, bound, terms in seconds, detail) and ``parameters`` (path, value, kind, source).
    """
    operator = dict(info.get("operator", {}))
    name = words.plain(str(info.get("name") or operator.get("kind", "operator")))
    where = f" of {info['workload']} on {info['hardware']}" if "workload" in info and "hardware" in info else ""
    heading(console, f"{name}{words.plain(where)}: one run of it", first=True)
    say(console, ", ".join(f"{words.plain(str(k))} {_shown(v)}" for k, v in operator.items() if v != ""), indent=2)
    time_s, launch_s, roofline_s = (float(info.get(key, 0.0)) for key in ("time_s", "launch_s", "roofline_s"))
    say(console, f"time      {words.seconds(time_s)}, of which launch {words.seconds(launch_s)}", indent=2)
    _interval(info.get("interval", {}), time_s, console)
    reached = f", reached to {words.percent(roofline_s / time_s)}" if time_s > 0.0 else ""
    say(console, f"roofline  {words.seconds(roofline_s)}{reached}", indent=2)
    if int(info.get("count", 1)) > 1:
        say(console, f"runs      {info['count']} times in a step", indent=2)
    for row in info.get("rows", ()):
        _kernel(row, console)
    _parameters(info.get("parameters", ()), console)


def _interval(interval: Mapping[str, Any], time_s: float, console: Console) -> None:
    """The terms of the interval: its residual, and the numbers of the device that widen it."""
    if not interval:
        return
    low, high = (float(interval[key]) for key in ("low_factor", "high_factor"))
    shown = ranges.ends(time_s, time_s * low, time_s * high).strip(" ()")
    say(console, f"interval  {shown}, {low:.2f} to {high:.2f} times: {words.plain(str(interval['note']))}", indent=2)
    part = interval["residual"]
    behind = (
        f"{interval['rows']} rows of its regime on {', '.join(interval['devices'])}" if interval["rows"] else "no rows"
    )
    residual = f"{part['low_factor']:.2f} to {part['high_factor']:.2f} times, {words.plain(behind)}"
    say(console, f"residual of {words.plain(str(interval['class']))}: {residual}", indent=12)
    for resource, factor in dict(interval["parameters"]).items():
        say(console, f"numbers behind {resource}, less well known here: × or ÷ {factor:.2f}", indent=12)


def _kernel(row: Mapping[str, Any], console: Console) -> None:
    kernel = words.plain(str(row["kernel"]))
    heading(console, f"Kernel {kernel}: {words.seconds(float(row['time_s']))}, bound by {row['bound']}")
    if row.get("tiles"):
        say(console, f"{row['tiles']} tiles, {row['slots']} at a time on one processor", indent=2)
    table = grid("left", "right", "left")
    terms = sorted(dict(row.get("terms", {})).items(), key=lambda item: -float(item[1]))
    longest = max((float(value) for _, value in terms), default=0.0)
    for resource, value in terms:
        share = float(value) / longest if longest else 0.0
        table.add_row(Text(words.plain(str(resource))), words.seconds(float(value)), bar(share, WIDE_BAR))
    show(console, table)
    detail = ", ".join(f"{words.plain(str(k))} {_shown(v)}" for k, v in dict(row.get("detail", {})).items())
    if detail:
        say(console, detail, indent=2)


def _parameters(parameters: Sequence[Mapping[str, Any]], console: Console) -> None:
    if not parameters:
        return
    heading(console, "Parameters (SI units) and where they come from")
    for item in parameters:
        source = words.shorten(words.plain(str(item.get("source") or "")), _SOURCE_WIDTH)
        origin = f"{item['kind']}: {source}" if source else f"{item['kind']}"
        say(console, f"{words.plain(str(item['path']))} = {_shown(item['value'])} ({origin})", indent=2)


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else words.plain(str(value))

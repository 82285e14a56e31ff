"""Reports on a terminal: ``run`` here; ``compare``, ``roofline`` and ``explain`` beside it.

Everything reads at 80 columns and without colour; what users wrote is never read as markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

from . import ranges, words
from .result import Assumption, OperatorRow, RunResult
from .terminal_views import (
    NARROW,
    WIDE_BAR,
    bar,
    column,
    grid,
    heading,
    print_compare,
    print_explain,
    print_roofline,
    say,
    show,
)

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["print_compare", "print_explain", "print_roofline", "print_run"]

TOP_ROWS: Final = 12
_STRONGEST: Final = 5
_SOURCE_WIDTH: Final = 100


def print_run(result: RunResult, console: Console, *, all_rows: bool = False) -> None:
    """Print a run: notes, times, memory, bottleneck, operators, sensitivities, cost, assumptions.

    *all_rows* prints every operator instead of the longest twelve of a phase.
    """
    heading(console, words.title(result), first=True)
    for note in result.notes:
        say(console, f"note: {words.plain(note)}", indent=2, style="bold")
    say(console, words.setup(result), indent=2)
    _headlines(result, console)
    _memory(result, console)
    _bottleneck(result, console)
    for phase in result.phases:
        _operators(result, phase, console, all_rows)
    _sensitivities(result, console)
    heading(console, "Cost and energy (all devices)")
    say(console, words.cost_line(result), indent=2)
    say(console, words.energy_line(result), indent=2)
    _assumptions(result, console)


def _headlines(result: RunResult, console: Console) -> None:
    table = grid("left", "right", "fold")
    for line in words.headlines(result):
        table.add_row(Text(line.label), Text(line.value, style="bold"), Text(line.aside))
    show(console, table)
    for sentence in ranges.evidence_lines(result):
        say(console, words.plain(sentence), indent=2)


def _memory(result: RunResult, console: Console) -> None:
    heading(console, "Memory of one device")
    say(console, words.memory_line(result), indent=2)
    capacity = float(result.memory["capacity_bytes"])
    table = grid("left", "right", "right", "left")
    used = 0.0
    for label, size in words.memory_parts(result):
        used += size
        share = size / capacity if capacity else 0.0
        table.add_row(label, words.gib(size), words.percent(share), bar(share, WIDE_BAR))
    free = max(0.0, capacity - used)
    if capacity:
        table.add_row("free", words.gib(free), words.percent(free / capacity), bar(free / capacity, WIDE_BAR))
    show(console, table)


def _bottleneck(result: RunResult, console: Console) -> None:
    heading(console, "What limits it (share of the time)")
    table = grid("left", "right", "left")
    for name, share in sorted(result.bound.items(), key=lambda item: -item[1]):
        table.add_row(Text(words.plain(name)), words.percent(share), bar(share, WIDE_BAR))
    show(console, table)


def _operators(result: RunResult, phase: str, console: Console, all_rows: bool) -> None:
    """One phase's operators: the longest on their own lines, the others in one, and the sum of the phase."""
    rows = words.by_time(row for row in result.operators if row.phase == phase)
    if not rows:
        return
    shown = rows if all_rows or len(rows) <= TOP_ROWS + 1 else rows[:TOP_ROWS]
    rest = rows[len(shown) :]
    whole = sum(row.time_s for row in rows)
    narrow = console.width < NARROW
    heading(console, f"Operators of {phase} (longest first; all devices' FLOPs and bytes)")
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("  operator", overflow="fold", min_width=18)
    for name in ("runs", "time", "share") if narrow else ("runs", "time", "90 %", "share"):
        column(table, name, "right")
    column(table, "bound", "left")
    for name in ("of roof" if not narrow else "roof", "FLOP", "bytes"):
        column(table, name, "right")
    for row in shown:
        table.add_row(Text(f"  {words.plain(row.name)}"), f"{row.count}", *_cells(row, whole, narrow))
    if rest:
        table.add_row(f"  {len(rest)} more", "", *_cells(_summed(rest), whole, narrow))
    if len(rows) > 1:
        known = result.phases[phase]
        total = replace(_summed(rows), time_low_s=known.get("time_low_s"), time_high_s=known.get("time_high_s"))
        table.add_row("  sum", "", *_cells(total, whole, narrow), style="bold")
    console.print(table)


def _cells(row: OperatorRow, whole: float, narrow: bool) -> tuple[str, ...]:
    share = words.percent(row.time_s / whole) if whole else "–"
    flops, moved = words.flop_count(row.flops), words.byte_count(row.bytes_moved)
    time = (words.seconds(row.time_s),) if narrow else (words.seconds(row.time_s), ranges.percent_ends(row))
    return *time, share, words.plain(row.bound), words.efficiency(row), flops, moved


def _summed(rows: Sequence[OperatorRow]) -> OperatorRow:
    """One row that stands for several; bound by what takes most of their time."""
    by_resource = words.seconds_by_resource(rows)
    return OperatorRow(
        name="",
        kind="",
        phase="",
        count=0,
        flops=sum(row.flops for row in rows),
        bytes_moved=sum(row.bytes_moved for row in rows),
        time_s=sum(row.time_s for row in rows),
        roofline_s=sum(row.roofline_s for row in rows),
        bound=next(iter(by_resource), ""),
        terms=by_resource,
    )


def _sensitivities(result: RunResult, console: Console) -> None:
    if not result.sensitivity:
        return
    heading(console, "What would change the time most")
    for row in words.strongest(result, _STRONGEST):
        say(console, words.sensitivity_sentence(row), indent=2)


def _assumptions(result: RunResult, console: Console) -> None:
    listed, counted = words.weak_assumptions(result)
    if not listed and not counted:
        return
    heading(console, "Numbers it leans on that no datasheet or measurement gives")
    if not listed:
        say(console, "none that moves the time noticeably", indent=2)
    for line in _assumption_lines(listed):
        say(console, line, indent=2)
    if counted:
        say(console, f"not shown: {counted} (all of them are in --json and --html)", indent=2)


def _assumption_lines(listed: Iterable[Assumption]) -> Iterable[str]:
    for item in listed:
        source = words.shorten(words.plain(item.source), _SOURCE_WIDTH)
        yield f"{words.plain(item.path)} = {item.value:.4g} ({item.kind}): {source}"

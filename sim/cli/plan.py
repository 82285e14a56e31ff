"""``effsim plan``: the smallest or cheapest fleet that keeps what users were promised."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Html, Json, Parquet, Quiet, Set, console, print_json

if TYPE_CHECKING:
    from ..explore.plan.plan import PlanResult

MOST_RUNNERS_UP = 8


def plan(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="Plan file, or a bundled name (effsim list plans).")],
    processes: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Processes (default: one a processor).")
    ] = None,
    set_: Set = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Seed of the load (default: the plan's).")] = None,
    html: Html = None,
    parquet: Parquet = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find the smallest or cheapest fleet within promised latencies; without one: exit 1 and the nearest miss."""
    from .. import plan as find
    from .progress import progress

    bar = partial(progress, label="planning", quiet=quiet or json_)
    result = find(study, set=list(set_ or []), seed=seed, processes=processes, progress=bar)
    if html is not None:
        from ..report.plan_page import write_plan_page

        write_plan_page(result, html)
    if parquet is not None:
        from ..report.plan_files import write_plan_tables

        write_plan_tables(result, parquet)
    if json_:
        print_json(result.as_dict())
    elif not quiet:
        _show(result)
    if not result.solved:
        raise typer.Exit(1)


def _show(result: PlanResult) -> None:
    from rich.markup import escape

    from ..report import plan_words as words

    out = console()

    def say(text: str) -> None:
        out.print(escape(text), soft_wrap=True)

    answer = result.answer
    say(f"{result.plan.name}: {words.asked(result)}")
    say(words.counted(result))
    if answer.winner is None:
        say("no solution")
        for line in words.nearest_lines(result):
            say(f"  {line}")
    else:
        say(f"winner: {words.fleet_text(answer.winner)}")
        for line in words.winner_lines(result):
            say(f"  {line}")
        if result.explanation is not None:
            for line in words.limit_lines(result.explanation, solved=True):
                say(f"  {line}")
        _fleets(result)
        _upgrades(result)
    for index in range(len(result.whatif)):
        say(f"what if {words.whatif_line(result, index)}")
    for note in result.notes:
        say(f"note: {note}")


def _fleets(result: PlanResult) -> None:
    from rich.markup import escape
    from rich.table import Table

    from ..report import plan_words as words

    answer = result.answer
    table = Table(*map(escape, words.columns(result)), box=None, pad_edge=False)
    for found in (*answer.fleets, *answer.unpriced)[: MOST_RUNNERS_UP + 1]:
        table.add_row(*map(escape, words.cells(found)))
    console().print(table)


def _upgrades(result: PlanResult) -> None:
    from rich.markup import escape
    from rich.table import Table

    from ..report import plan_words as words

    e = result.explanation
    if e is None:
        return
    table = Table("next upgrade", "load within promises", "US$/h", box=None, pad_edge=False)
    for upgrade in words.shown_upgrades(e):
        table.add_row(*map(escape, words.upgrade_cells(upgrade, e)))
    console().print(table)

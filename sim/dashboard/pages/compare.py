"""Compare: several machines on one workload, one machine on several workloads, or a few of both, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from dash import Input, Output, State, ctx, dcc, html, no_update
from dash.exceptions import PreventUpdate

from ...errors import EffsimError
from ...report import words
from ...report.figures import memory_figure
from .. import parts
from ..app import Page
from ..comparison import (
    BARS,
    Column,
    Comparison,
    Pair,
    best,
    chosen,
    columns,
    command_lines,
    differences,
    ran,
    run_pairs,
    saved,
)
from ..figures_compare import cost_figure, rooflines, time_figure
from ..pickers import Uploads, picker, register_picker
from ..service import ENGINES, Service
from ..view import View, assignment_line, assignments

_EXPORTS: Final = {
    "json": "Results (JSON)",
    "csv": "Table (CSV)",
    "html": "Report (HTML)",
    "yaml": "YAML of all",
}
_WHERE: Final = "Choose fewer files, or change the line of changes."
_F: Final = "compare-figure-"
_LAST, _FIRST = 1e308, -1.0
"""What is unknown is sorted behind what is known: the largest number where less is better, else the smallest."""


def layout(service: Service, view: View, uploads: Uploads) -> Any:
    """The form as the view says; its answer follows."""
    comparison = Comparison.of(view)
    machines, workloads = list(comparison.hardware), list(comparison.workloads)
    form = html.Div(
        [
            picker(service, "compare-hardware", "hardware", "Machines", machines, uploads, multi=True),
            picker(service, "compare-workload", "workloads", "Workloads", workloads, uploads, multi=True),
            parts.choice("compare-engine", "Reading", list(ENGINES), comparison.engine),
            parts.choice(
                "compare-bars",
                "Bars of the figure of times",
                [{"label": label, "value": value} for value, label in BARS.items()],
                comparison.bars if comparison.bars in BARS else "time",
            ),
            html.Div(
                parts.text_input(
                    "compare-changes",
                    "Changes",
                    assignment_line(comparison.changes),
                    placeholder="workload.batch=8 workload.prompt=512",
                    hint="path=value, separated by spaces; they apply to every pair, as --set on the command line",
                ),
                className="wide",
            ),
        ],
        className="form",
    )
    return [html.H1("Compare"), form, parts.waiting(html.Div(parts.computing(), id="compare-report"))]


def register(app: Any, service: Service) -> None:
    """The callbacks of the page."""
    register_picker(app, service, "compare-hardware", "hardware", multi=True)
    register_picker(app, service, "compare-workload", "workloads", multi=True)
    names = [f"compare-{name}" for name in ("hardware", "workload", "engine", "changes", "bars")]

    @app.callback(  # type: ignore[untyped-decorator]
        Output("compare-report", "children"),
        Output("link", "data", allow_duplicate=True),
        *[Input(name, "value") for name in names],
        prevent_initial_call="initial_duplicate",
    )
    def show(*values: Any) -> Any:
        return shown(service, values)

    @app.callback(  # type: ignore[untyped-decorator]
        Output("download", "data", allow_duplicate=True),
        Output("compare-saved", "children"),
        *[Input(f"compare-save-{name}", "n_clicks") for name in _EXPORTS],
        *[State(name, "value") for name in names],
        prevent_initial_call=True,
    )
    def save(*values: Any) -> Any:
        what = str(ctx.triggered_id).removeprefix("compare-save-")
        if not any(values[: len(_EXPORTS)]) or what not in _EXPORTS:
            raise PreventUpdate
        try:
            return saved(service, asked(*values[len(_EXPORTS) :]), what), ""
        except EffsimError as error:
            return no_update, parts.error(str(error))


def shown(service: Service, values: Sequence[Any]) -> tuple[Any, Any]:
    """The answer to a form's values, and its link; no link where there is an error in them."""
    try:
        comparison = asked(*values)
    except EffsimError as error:
        return parts.error(str(error), _WHERE), no_update
    return answer(service, comparison), {"path": PAGE.path, "query": comparison.view.query}


def asked(hardware: Any, workloads: Any, engine: Any, changes: Any, bars: Any) -> Comparison:
    """What the form asks for; a value that no control gives is left out.

    Raises:
        DataError: the line of changes is longer than an address can be.
    """
    line = changes if isinstance(changes, str) else ""
    return Comparison(
        chosen(hardware), chosen(workloads), str(engine), assignments(line), bars if bars in list(BARS) else "time"
    )


def answer(service: Service, comparison: Comparison) -> Any:
    """The comparison as components, or what to do where there is none."""
    if not comparison.hardware or not comparison.workloads:
        return parts.empty("Choose at least one machine and one workload above.")
    try:
        return report(service, comparison, run_pairs(service, comparison))
    except EffsimError as error:
        return parts.error(str(error), _WHERE)


def report(service: Service, comparison: Comparison, pairs: Sequence[Pair]) -> list[Any]:
    """Pairs side by side."""
    out: list[Any] = [html.H2(_title(service, comparison), className="first")]
    if len(pairs) == 1:
        out.append(html.P("Add a machine or a workload above to see what differs.", className="soft"))
    out += [_table(service, pairs), _differences(service, pairs), *_notes(pairs)]
    out += [parts.command(line) for line in command_lines(service, comparison, pairs)]
    left = [pair.label for pair in pairs if pair.result is None]
    if left and len(left) < len(pairs):
        out.append(html.P(f"Without what does not run: {', '.join(left)}.", className="soft"))
    buttons = [parts.button(f"compare-save-{name}", text) for name, text in _EXPORTS.items()]
    out += [parts.toolbar(html.Span("Save:", className="soft"), *buttons), html.Div(id="compare-saved", role="status")]
    return out + (_figures(service, pairs, comparison) if len(left) < len(pairs) else [])


def _title(service: Service, comparison: Comparison) -> str:
    def count(choices: Sequence[str], many: str) -> str:
        return service.shelf.label(choices[0]) if len(choices) == 1 else f"{len(choices)} {many}"

    return words.plain(f"{count(comparison.workloads, 'workloads')} on {count(comparison.hardware, 'machines')}")


def _table(service: Service, pairs: Sequence[Pair]) -> Any:
    shown = columns(pairs)
    marked = [best(pairs, column) for column in shown]
    heads = [("hardware", ""), ("workload", ""), *((column.head, "n") for column in shown)]
    rows = []
    for place, pair in enumerate(pairs):
        cells = [_cell(pair, column, place in stars) for column, stars in zip(shown, marked, strict=True)]
        rows.append([_machine(service, pair), service.shelf.label(pair.asked.workload), *cells])
    several = len({pair.asked.hardware for pair in pairs}) > 1
    of = "of a workload's machines" if several else "of the workloads"
    said = (
        f"★ is the best {of} where it is known. In brackets: where nine of ten measurements are expected. Time and "
        "energy are of the whole run, memory is of one device; ? is unknown, not zero. Tokens are those generated "
        "where the run decodes, else those read. A name leads to the full run; a click on a heading sorts."
    )
    made = parts.table(heads, rows, name="compare-table")
    for row, pair in zip(made.children.children[-1].children, pairs, strict=True):
        if pair.result is None:  # why takes the place of the numbers
            why = html.Div(f"Does not run: {pair.why}", className="why")
            row.children = [*row.children[:2], html.Td(why, colSpan=len(shown))]
    return html.Div([made, html.P(said, className="hint")])


def _machine(service: Service, pair: Pair) -> list[Any]:
    """The machine as a link to its full run."""
    href = f"/{pair.asked.view.query}"
    cell: list[Any] = [dcc.Link(service.shelf.label(pair.asked.hardware), href=href)]
    if pair.result is None:
        return cell
    return [*cell, html.Div(words.plain(pair.result.hardware), className="soft")]


def _cell(pair: Pair, column: Column, star: bool) -> tuple[Any, float]:
    value = None if pair.result is None else column.value(pair.result)
    number = (_LAST if column.better < 0 else _FIRST) if value is None else value
    if pair.result is None:
        return "–", number
    shown, below = column.shown(pair.result)
    under = html.Div(below.strip(), className="soft") if below else None
    if not star:
        return [shown, under], number
    told: dict[str, Any] = {"aria-label": "best:"}
    mark = html.Span("★ ", className="star", title="the best", **told)
    return [mark, html.B(shown), under], number


def _differences(service: Service, pairs: Sequence[Pair]) -> Any:
    found = differences(service, pairs)
    if not found:
        return None
    blocks: list[Any] = []
    for title, lines in found:
        blocks += [html.P(f"{title}:"), html.Ul([html.Li(line) for line in lines])]
    return parts.section("Why they differ", *blocks, name="compare-differences")


def _notes(pairs: Sequence[Pair]) -> list[Any]:
    """Notes of all runs; one that several have is said once, with their names."""
    found: dict[str, list[str]] = {}
    for pair in pairs:
        for note in pair.result.notes if pair.result is not None else ():
            found.setdefault(note, []).append(pair.label)
    lines = [html.Div(words.plain(f"{', '.join(labels)}: {note}")) for note, labels in found.items()]
    return [html.Div(lines, className="note")] if lines else []


def _figures(service: Service, pairs: Sequence[Pair], comparison: Comparison) -> list[Any]:
    results = ran(pairs)
    times = time_figure(results, comparison.bars)
    cost = cost_figure(results, [service.shelf.label(p.asked.hardware) for p in pairs if p.result is not None])
    unpriced = [result.hardware for result in results if words.dollars_per_million(result) is None]
    rest = f"Not shown, because price or tokens are unknown: {', '.join(unpriced)}." if unpriced and cost else ""
    shown = (
        parts.empty("No pair has a price and tokens.")
        if cost is None
        else parts.plot(cost, f"{_F}cost", label="Cost against speed")
    )
    memory = parts.plot(memory_figure(results), f"{_F}memory", label="Memory of one device")
    roofs = parts.plot(rooflines(results), f"{_F}roofline", label="Rooflines")
    hint = "A shape is a pair, a colour what binds the operator; a click on a name hides it."
    sections = [
        parts.section("Time by resource", parts.plot(times, f"{_F}time", label="Time by resource")),
        parts.section("Memory of one device", memory),
        parts.section("Cost against speed", shown, soft=rest),
        parts.section("Rooflines of one device", roofs, soft=hint if len(results) > 1 else ""),
    ]
    return [html.Div(sections, className="figures")]


PAGE: Final = Page("/compare", "Compare", layout, register)

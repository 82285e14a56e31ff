"""Run: one workload on one machine, with everything the command line says about it, to look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import unescape
from typing import Any, Final

from dash import ClientsideFunction, Input, Output, State, ctx, dcc, html, no_update
from dash.exceptions import PreventUpdate

from ...errors import EffsimError
from ...report import ranges, words
from ...report.result import Assumption, RunResult
from .. import exports, parts, tables
from ..app import Page
from ..pickers import Uploads, picker, register_picker
from ..service import ENGINES, Asked, Service
from ..view import View, assignment_line

FIGURES: Final = (
    (
        "roofline",
        "Roofline of one device",
        "Each point is an operator, as large as its time.",
    ),
    ("operators", "Time by operator", "Choose a bar to have the operator explained below."),
    ("energy", "Energy by operator", "Whole run, all devices; without host and links."),
    ("memory", "Memory of one device", ""),
    ("timeline", "Timeline of the first step", "Drag to zoom, double-click to see all; one row a resource."),
    ("sensitivity", "What would change the time", "What 10 % more of a number brings."),
)
SAVED: Final = {
    "hardware": "Hardware YAML",
    "workload": "Workload YAML",
    "json": "Result (JSON)",
    "csv": "Operators (CSV)",
    "html": "Report (HTML)",
}
_CLICKED: Final = ("roofline", "operators")
"""Figures whose points carry the names of operators."""
_WHERE: Final = "Choose another file, or change the line of changes."
_EVERY: Final = "all"


def layout(service: Service, view: View, uploads: Uploads) -> Any:
    """The form as the view says; its answer follows."""
    asked = Asked.of(view)
    changes = parts.text_input(
        "run-changes",
        "Changes",
        assignment_line(asked.changes),
        placeholder="hardware.memory.bandwidth=4TB/s workload.batch=8",
        hint="path=value, separated by spaces; as --set on the command line",
    )
    form = html.Div(
        [
            picker(service, "run-hardware", "hardware", "Hardware", asked.hardware, uploads),
            picker(service, "run-workload", "workloads", "Workload (or a config.json)", asked.workload, uploads),
            parts.choice("run-engine", "Reading", list(ENGINES), asked.engine),
            html.Div(changes, className="wide"),
        ],
        className="form",
    )
    chosen = dcc.Store(id="run-chosen", data={"operator": view.one("operator"), "kind": view.one("kind", _EVERY)})
    # Figures come by themselves: their library is several megabytes, and the headline need not wait for it.
    areas = [html.Div(parts.computing(), id="run-report"), html.Div(id="run-figures"), html.Div(id="run-rest")]
    stores = [chosen, dcc.Store(id="run-shown"), dcc.Store(id="run-drawn")]
    return [html.H1("Run"), form, *map(parts.waiting, areas), *stores]


def register(app: Any, service: Service) -> None:
    """The callbacks of the page."""
    register_picker(app, service, "run-hardware", "hardware")
    register_picker(app, service, "run-workload", "workloads")
    names = ("run-hardware", "run-workload", "run-engine", "run-changes")
    form, held = [Input(name, "value") for name in names], [State(name, "value") for name in names]

    @app.callback(  # type: ignore[untyped-decorator]
        Output("run-report", "children"), Output("run-shown", "data"), *form
    )
    def show(*values: Any) -> Any:
        return shown(service, values)

    later = ClientsideFunction("effsim", "later")
    app.clientside_callback(later, Output("run-drawn", "data"), Input("run-shown", "data"), prevent_initial_call=True)

    @app.callback(  # type: ignore[untyped-decorator]
        Output("run-figures", "children"), Input("run-drawn", "data"), prevent_initial_call=True
    )
    def draw(query: Any) -> Any:
        return below(query, lambda asked: figures(service, asked))

    @app.callback(  # type: ignore[untyped-decorator]
        Output("run-rest", "children"),
        Input("run-drawn", "data"),
        State("run-chosen", "data"),
        prevent_initial_call=True,
    )
    def tell(query: Any, chosen: Any) -> Any:
        return below(query, lambda asked: rest(service, asked, *_chosen(chosen)))

    @app.callback(  # type: ignore[untyped-decorator]
        Output("link", "data", allow_duplicate=True),
        *form,
        Input("run-chosen", "data"),
        prevent_initial_call="initial_duplicate",
    )
    def link(hardware: Any, workload: Any, engine: Any, changes: Any, chosen: Any) -> Any:
        operator, kind = _chosen(chosen)
        view = _asked(hardware, workload, engine, changes).view
        view = view.with_fields(operator=operator, kind="" if kind == _EVERY else kind)
        return {"path": PAGE.path, "query": view.query}

    @app.callback(  # type: ignore[untyped-decorator]
        Output("run-chosen", "data"),
        Input("run-operator", "value"),
        Input("run-kind", "value"),
        prevent_initial_call=True,
    )
    def keep(operator: Any, kind: Any) -> Any:
        return {"operator": _text(operator), "kind": _text(kind)}

    @app.callback(  # type: ignore[untyped-decorator]
        Output("download", "data", allow_duplicate=True),
        *[Input(f"run-save-{name}", "n_clicks") for name in SAVED],
        *held,
        prevent_initial_call=True,
    )
    def save(*values: Any) -> Any:
        if not any(values[: len(SAVED)]):
            raise PreventUpdate
        try:
            return saved(service, _asked(*values[len(SAVED) :]), str(ctx.triggered_id).removeprefix("run-save-"))
        except EffsimError:  # the page says it already
            raise PreventUpdate from None

    for name in _CLICKED:  # one callback a figure: not every run has every figure
        app.callback(
            Output("run-operator", "value", allow_duplicate=True),
            Input(f"run-figure-{name}", "clickData"),
            State("run-operator", "options"),
            prevent_initial_call=True,
        )(clicked)

    @app.callback(  # type: ignore[untyped-decorator]
        Output("run-explained", "children"), Input("run-operator", "value"), *held, prevent_initial_call=True
    )
    def explain(operator: Any, hardware: Any, workload: Any, engine: Any, changes: Any) -> Any:
        return explained(service, _asked(hardware, workload, engine, changes), _text(operator))

    @app.callback(  # type: ignore[untyped-decorator]
        Output("run-assumptions", "children"), Input("run-kind", "value"), *held, prevent_initial_call=True
    )
    def assume(kind: Any, hardware: Any, workload: Any, engine: Any, changes: Any) -> Any:
        try:
            result = service.run(_asked(hardware, workload, engine, changes))
        except EffsimError:
            raise PreventUpdate from None
        return tables.assumptions(of_kind(result.assumptions, _text(kind)))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _chosen(data: Any) -> tuple[str, str]:
    """Operator that is explained, and kind of numbers that are listed."""
    held = data if isinstance(data, dict) else {}
    return _text(held.get("operator")), _text(held.get("kind")) or _EVERY


def _asked(*form: Any) -> Asked:
    """What the form asks for, for all but the report: that says what is wrong with the form.

    Raises:
        PreventUpdate: it asks for nothing that can be.
    """
    try:
        return Asked.given(*form)
    except EffsimError:
        raise PreventUpdate from None


def shown(service: Service, form: Sequence[Any]) -> tuple[Any, str]:
    """(headline, of what figures and tables are drawn) of a form: hardware, workload, reading, line of changes."""
    try:
        asked = Asked.given(*form)
        return report(service, asked), asked.view.query
    except EffsimError as error:
        return parts.error(str(error), _WHERE), ""


def below(query: Any, draw: Callable[[Asked], list[Any]]) -> list[Any]:
    """What comes after the headline; nothing where that says what is wrong."""
    try:
        return draw(Asked.of(View.parse(_text(query)))) if query else []
    except EffsimError:
        return []


def report(service: Service, asked: Asked) -> list[Any]:
    """The headline of a run and what belongs to it.

    Raises:
        EffsimError: as :func:`effsim.run`.
    """
    result = service.run(asked)
    link = html.A("What if…", href=f"/what-if{asked.view.query}", className="button")
    out: list[Any] = [html.H2(words.title(result), className="first"), html.P(words.setup(result), className="soft")]
    out += [*parts.notes(result.notes), parts.headline(result), _sentences(result)]
    return [*out, parts.command(exports.command_line(service, asked)), _toolbar(link)]


def figures(service: Service, asked: Asked) -> list[Any]:
    """Its figures; raises as :func:`report`."""
    result, out = service.run(asked), []
    for name, title, hint in FIGURES:
        if _has(result, name):
            graph = parts.plot(service.figure(asked, name), f"run-figure-{name}", label=title)
            out.append(parts.section(title, graph, name=f"run-{name}", soft=hint))
    return out


def rest(service: Service, asked: Asked, operator: str = "", kind: str = _EVERY) -> list[Any]:
    """Its tables: *operator* is explained, assumptions of *kind* are listed; raises as :func:`report`."""
    result = service.run(asked)
    area = _explain_section(service, asked, result, operator)
    return [area, _operator_section(result), _assumption_section(result, kind)]


def _sentences(result: RunResult) -> Any:
    shares = ", ".join(f"{words.plain(name)} {words.percent(share)}" for name, share in result.bound.items())
    lines = [f"Limited by: {shares}.", f"{words.cost_line(result)}.", f"{words.energy_line(result)}."]
    first = [html.P(line[:1].upper() + line[1:]) for line in lines]
    return html.Div([*first, *(html.P(words.plain(line), className="soft") for line in ranges.evidence_lines(result))])


def _toolbar(*more: Any) -> Any:
    buttons = [parts.button(f"run-save-{name}", text) for name, text in SAVED.items()]
    return parts.toolbar(*more, html.Span("Save:", className="soft"), *buttons)


def _has(result: RunResult, name: str) -> bool:
    """Whether there is something to draw."""
    if name == "timeline":
        return bool(result.timeline.slices)
    if name == "energy":
        return result.energy_j is not None
    return name != "sensitivity" or bool(result.sensitivity)


def _explain_section(service: Service, asked: Asked, result: RunResult, operator: str) -> Any:
    names = list(dict.fromkeys(row.name for row in words.by_time(result.operators) if row.kind != "host"))
    value = operator if operator in names else None
    pick = dcc.Dropdown(names, value, id="run-operator", placeholder="choose an operator, or one in a figure")
    area = [html.Label("Operator", htmlFor="run-operator"), pick]
    answer = html.Div(explained(service, asked, value or ""), id="run-explained")
    return parts.section("One operator explained", html.Div(area, className="field"), answer)


def _operator_section(result: RunResult) -> Any:
    return parts.section("Operators", tables.operators(result), name="run-table")


def _assumption_section(result: RunResult, kind: str) -> Any:
    counts = dict.fromkeys((*words.WEAK_KINDS, "measured", "datasheet"), 0)
    for a in result.assumptions:
        counts[a.kind] = counts.get(a.kind, 0) + 1
    options = [{"label": f"all ({len(result.assumptions)})", "value": _EVERY}]
    options += [{"label": f"{name} ({n})", "value": name} for name, n in counts.items() if n]
    value = kind if kind in counts else _EVERY
    pick = dcc.RadioItems(options, value, id="run-kind", inline=True, className="radios")
    return parts.section(
        "Numbers it leans on",
        pick,
        html.Div(tables.assumptions(of_kind(result.assumptions, value)), id="run-assumptions"),
        name="run-numbers",
        soft="Elasticity: percent of time for a percent of the number. Datasheet numbers that nothing is known to be "
        "wrong with are not listed.",
    )


def of_kind(listed: Sequence[Assumption], kind: str) -> list[Assumption]:
    """Assumptions of a kind (or all), those that matter most first."""
    chosen = [a for a in listed if kind in (_EVERY, a.kind)]
    return sorted(chosen, key=lambda a: (-abs(a.elasticity or 0.0), a.path))


def clicked(data: Any, offered: Any) -> Any:
    """The operator of the point or bar that was clicked; what else can be clicked (an interval) names none."""
    try:
        name = unescape(data["points"][0]["customdata"])
    except (TypeError, KeyError, IndexError):
        return no_update
    known = [one.get("value") if isinstance(one, dict) else one for one in offered or () if isinstance(offered, list)]
    return name if name in known else no_update


def explained(service: Service, asked: Asked, operator: str) -> Any:
    """One operator explained, or what is missing."""
    if not operator:
        return parts.empty("Choose an operator to see its kernels, what each resource would need, and its parameters.")
    try:
        return tables.explained(service.explain(asked, operator))
    except EffsimError as error:
        return parts.error(str(error), "Choose another operator.")


def saved(service: Service, asked: Asked, what: str) -> dict[str, Any]:
    """The file that a button saves.

    Raises:
        EffsimError: as :func:`effsim.run`.
    """
    if what in ("hardware", "workload"):
        section, choice = ("hardware", asked.hardware) if what == "hardware" else ("workloads", asked.workload)
        return exports.download(exports.yaml_files(service, section, choice, asked.changes))
    result = service.run(asked)
    if what == "json":
        return {"content": result.to_json(), "filename": "result.json"}
    if what == "csv":
        return {"content": exports.operators_csv(result), "filename": "operators.csv"}
    from ...report.page import page

    return {"content": page(result, command=exports.command_line(service, asked)), "filename": "report.html"}


PAGE: Final = Page("/", "Run", layout, register)

"""What-if: any parameter of either file moved, against a pinned baseline, with the difference and its cause."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from dash import ALL, Input, Output, State, ctx, dcc, html, no_update
from dash.exceptions import PreventUpdate

from ...errors import EffsimError
from .. import controls, exports, parts, what_if_report
from ..app import Page
from ..parameters import Parameter, Tree, path_of
from ..pickers import Uploads, picker, register_picker
from ..service import ENGINES, START, Asked, Service
from ..view import View
from ..what_if_actions import BUTTONS, KINDS, MAX_TEXT, acted, followed, tree_of

READING: Final = "analytic"
"""What answers while a slider moves; the others are a choice away."""
_DEGREES: Final = "workload.parallelism"
_FIRST_GROUP: Final = "memory"
_ADVICE: Final = "Undo it in the list of changes, or give another value; the last answer stays below, in grey."
_NOT_YET: Final = "There is no answer yet. Undo the change that the message names, or choose other files."


def asked_of(view: View) -> Asked:
    """The run that a view asks for; the reading is the quick one where it does not say."""
    hardware, workload = view.one("hardware", START["hardware"]), view.one("workload", START["workload"])
    return Asked(hardware, workload, view.one("engine", READING), view.many("set"))


def layout(service: Service, view: View, uploads: Uploads) -> Any:
    """The page for a view."""
    asked = asked_of(view)
    group = view.one("group")  # a list keeps only values that it offers; the others come with the parameters
    form = html.Div(
        [
            picker(service, "what-hardware", "hardware", "Hardware", asked.hardware, uploads),
            picker(service, "what-workload", "workloads", "Workload", asked.workload, uploads),
            parts.choice("what-engine", "Reading", list(ENGINES), asked.engine),
        ],
        className="form",
    )
    search = dcc.Input(
        id="what-search",
        type="text",
        value=view.one("find"),
        debounce=0.3,
        placeholder="bandwidth, tiles, …",
        autoComplete="off",
        spellCheck="false",
    )
    left = html.Div(
        [
            html.H2("Changed", className="first"),
            html.Div(id="what-changed", role="region", **controls.named("changes")),
            parts.toolbar(
                parts.button("what-pin-now", "Pin as baseline"),
                parts.button("what-unpin", "Unpin"),
                parts.button("what-reset", "Reset all"),
            ),
            html.Div(id="what-said", role="status"),
            html.Div(
                [
                    parts.choice("what-group", "Group of parameters", [group] if group else [], group or None),
                    parts.field("what-search", "or search in all paths", search),
                ],
                className="what-find",
            ),
            html.Div(id="what-controls", role="group", **controls.named("parameters")),
        ],
        className="what-left",
    )
    right = html.Div(
        parts.computing(),
        id="what-report",
        className="what-new",
        role="region",
        **controls.named("answer"),
    )
    stores = [
        dcc.Store(id="what-changes", data=list(asked.changes)),
        dcc.Store(id="what-pin", data=list(view.many("pin"))),
    ]
    answered = html.Div([right, what_if_report.saves()], className="what-right")
    return [html.H1("What-if"), form, *stores, html.Div([left, answered], className="what-if")]


def register(app: Any, service: Service) -> None:
    """The callbacks of the page."""
    register_picker(app, service, "what-hardware", "hardware")
    register_picker(app, service, "what-workload", "workloads")
    _register_changes(app, service)
    _register_answers(app, service)
    files = [Input("what-hardware", "value"), Input("what-workload", "value")]

    @app.callback(  # type: ignore[untyped-decorator]
        Output("what-controls", "children"),
        Output("what-group", "options"),
        Output("what-group", "value"),
        *files,
        Input("what-changes", "data"),
        Input("what-group", "value"),
        Input("what-search", "value"),
        State("what-engine", "value"),
        State({"type": "what-row", "path": ALL}, "id"),
    )
    def show_controls(
        hardware: Any, workload: Any, changes: Any, group: Any, search: Any, engine: Any, rows: Any
    ) -> Any:
        asked = _asked(hardware, workload, engine, changes)
        moved = [part["prop_id"] for part in ctx.triggered] == ["what-changes.data"]
        shown = frozenset(row.get("path") for row in rows or () if isinstance(row, dict)) if moved else frozenset()
        return control_list(service, asked, str(group or ""), str(search or ""), shown)

    @app.callback(  # type: ignore[untyped-decorator]
        Output("link", "data", allow_duplicate=True),
        *files,
        Input("what-engine", "value"),
        Input("what-changes", "data"),
        Input("what-pin", "data"),
        Input("what-group", "value"),
        Input("what-search", "value"),
        prevent_initial_call="initial_duplicate",
    )
    def link(hardware: Any, workload: Any, engine: Any, changes: Any, pin: Any, group: Any, search: Any) -> Any:
        view = _asked(hardware, workload, engine, changes).view
        view = view.with_fields(pin=texts(pin), group=str(group or ""), find=str(search or ""))
        return {"path": PAGE.path, "query": view.query}


def _register_changes(app: Any, service: Service) -> None:
    """From controls to changes."""

    @app.callback(  # type: ignore[untyped-decorator]
        Output("what-changes", "data"),
        Output("what-pin", "data"),
        *[Output({"type": kind, "path": ALL}, "value") for kind in KINDS],
        Output({"type": "what-row", "path": ALL}, "className"),
        *[Input({"type": kind, "path": ALL}, "value") for kind in KINDS],
        Input({"type": "what-undo", "path": ALL}, "n_clicks"),
        *[Input(name, "n_clicks") for name in BUTTONS],
        State("what-hardware", "value"),
        State("what-workload", "value"),
        State("what-changes", "data"),
        State("what-pin", "data"),
        prevent_initial_call=True,
    )
    def act(*values: Any) -> Any:
        hardware, workload, changes, pin = values[-4:]
        if not ctx.triggered or ctx.triggered_id is None:
            raise PreventUpdate
        asked = _asked(hardware, workload, READING, changes)
        changes, pin = acted(service, asked, texts(pin), ctx.triggered_id, ctx.triggered[0].get("value"))
        # Controls that are there follow, without being made anew: the keyboard's place on the page stays.
        lists = [[part.get("id", {}).get("path") for part in found] for found in ctx.outputs_list[2:]]
        if not isinstance(changes, list):
            return changes, pin, *[[no_update] * len(found) for found in lists]
        after = _asked(hardware, workload, READING, changes)
        return changes, pin, *followed(service, after, lists)


def _register_answers(app: Any, service: Service) -> None:
    """From changes to what they do."""
    form = [Input("what-hardware", "value"), Input("what-workload", "value"), Input("what-engine", "value")]
    lists = ("what-changes", "what-pin")

    @app.callback(  # type: ignore[untyped-decorator]
        Output("what-report", "children"),
        Output("what-report", "className"),
        Output("what-said", "children"),
        Output("what-changed", "children"),
        *[Output(name, "disabled") for name in BUTTONS],
        *form,
        *[Input(name, "data") for name in lists],
        State("what-report", "className"),
    )
    def show(hardware: Any, workload: Any, engine: Any, changes: Any, pin: Any, state: Any) -> Any:
        asked = _asked(hardware, workload, engine, changes)
        pinned = texts(pin)
        disabled = (not asked.changes, asked.changes == pinned, not pinned)
        return (*answer(service, asked, pinned, str(state)), changed_list(service, asked, pinned), *disabled)

    @app.callback(  # type: ignore[untyped-decorator]
        Output("download", "data", allow_duplicate=True),
        Output("what-said", "children", allow_duplicate=True),
        *[Input(f"what-save-{name}", "n_clicks") for name, _ in what_if_report.SAVES],
        *[State(part.component_id, "value") for part in form],
        State("what-changes", "data"),
        prevent_initial_call=True,
    )
    def save(*values: Any) -> Any:
        if not any(values[: len(what_if_report.SAVES)]):
            raise PreventUpdate
        try:
            what = str(ctx.triggered_id).removeprefix("what-save-")
            return saved(service, _asked(*values[-4:]), what), no_update
        except EffsimError as error:
            return no_update, parts.error(str(error), "There is nothing to save before this is changed.")


# --- what callbacks answer --------------------------------------------------------------------------------------------


def texts(value: Any) -> tuple[str, ...]:
    """The texts of a list that a request sends; anything else is none."""
    return tuple(v for v in value if isinstance(v, str)) if isinstance(value, list | tuple) else ()


def _asked(hardware: Any, workload: Any, engine: Any, changes: Any) -> Asked:
    return Asked(str(hardware), str(workload), str(engine), texts(changes))


def answer(service: Service, asked: Asked, pin: tuple[str, ...], state: str) -> tuple[Any, str, Any]:
    """The report, its class (which says whether it is of now), and what is wrong."""
    baseline = Asked(asked.hardware, asked.workload, asked.engine, pin)
    try:
        return what_if_report.report(service, asked, baseline), "what-shown", None
    except EffsimError as error:
        first = state not in ("what-shown", "what-stale")
        said = parts.error(str(error), "" if first else _ADVICE)
        return (parts.empty(_NOT_YET) if first else no_update), ("what-new" if first else "what-stale"), said


def changed_list(service: Service, asked: Asked, pin: tuple[str, ...]) -> Any:
    """Every change with a button that undoes it, and the baseline."""
    items = [_changed(service, change) for change in asked.changes]
    none = html.P("Nothing yet: the files as they are.", className="soft")
    pinned = ", ".join(service.shelf.readable(change) for change in pin) if pin else "the files as they are"
    return [
        html.Ul(items, className="what-list") if items else none,
        html.P(["Baseline: ", html.Span(pinned, id="what-baseline")], className="soft"),
    ]


def _changed(service: Service, change: str) -> Any:
    path, _, value = change.partition("=")
    name = {"type": "what-undo", "path": path.strip()}
    undo = html.Button("Undo", id=name, n_clicks=0, type="button", className="link", **controls.named(f"undo {path}"))
    shown = service.shelf.readable(value.strip())
    return html.Li([html.Code(path), " = ", html.B(shown), " ", undo])


def control_list(
    service: Service, asked: Asked, group: str, search: str, shown: frozenset[Any] = frozenset()
) -> tuple[Any, Any, Any]:
    """The controls of a group (or of what a search finds), and the groups to choose from.

    No update where *shown*, the paths on the page, are those already.
    """
    try:
        base = tree_of(service, asked, ())
    except EffsimError as error:
        return parts.error(str(error), "Choose another file."), [], None
    try:
        now = tree_of(service, asked, asked.changes)
    except EffsimError:
        now = base  # the error stands beside the list of changes
    options = [{"label": _group_label(name, len(held)), "value": name} for name, held in now.groups.items()]
    if group not in now.groups:
        group = next((name for name in now.groups if name.endswith(f".{_FIRST_GROUP}")), next(iter(now.groups), ""))
    if search.strip():
        found, prefix = now.search(search[:MAX_TEXT]), ""
        if not found:
            return parts.empty("No path has these words in it: try a shorter one."), options, group
    else:
        found, prefix = list(now.groups.get(group, ())), f"{group}."
    if shown and shown == {parameter.path for parameter in found}:
        return no_update, no_update, no_update
    return _controls(service, asked, base, found, prefix), options, group


def _group_label(name: str, size: int) -> str:
    """A group in the list; one without a dot holds what stands at the top of its file."""
    return f"{name} ({size})" if "." in name else f"{name}: top level ({size})"


def _controls(service: Service, asked: Asked, base: Tree, found: Sequence[Parameter], prefix: str) -> Any:
    changed = {path_of(change) for change in asked.changes}
    given: list[Any] = []
    absent: list[Any] = []
    for parameter in found:
        # A slider stands around the value of the file, so that it does not run away from under the pointer.
        held = base.parameters.get(parameter.path, parameter)
        now = _with_degrees(service, asked, controls.present(parameter, asked.changes))
        title = parameter.path.removeprefix(prefix)
        made = controls.control(
            held, now, title, changed=parameter.path in changed, labels=_labels(service, parameter.path)
        )
        (given if now.text or parameter.path in changed else absent).append(made)
    if not absent:
        return given
    more = html.Details([html.Summary(f"Not given in the file ({len(absent)})"), *absent], open=not given)
    return [*given, more]


def _labels(service: Service, path: str) -> Any:
    """How choices of a parameter are shown."""

    def shown(choice: str) -> str:
        if path == _DEGREES and choice.startswith("{"):
            return f"degrees {choice}"
        return service.shelf.readable(choice)

    return shown


def _with_degrees(service: Service, asked: Asked, now: Parameter) -> Parameter:
    """Automatic degrees offer those that were found, to start from."""
    if now.path != _DEGREES or "{}" not in now.choices:
        return now
    try:
        result = service.run(asked, sensitivity=False)
    except EffsimError:
        return now
    degrees = ", ".join(f"{name}: {n}" for name, n in result.parallelism.items() if n > 1) or "tensor: 1"
    choices = tuple(f"{{{degrees}}}" if choice == "{}" else choice for choice in now.choices)
    return replace(now, choices=choices)


def saved(service: Service, asked: Asked, what: str) -> dict[str, Any]:
    """The file that a button saves."""
    if what == "hardware":
        return exports.download(exports.yaml_files(service, "hardware", asked.hardware, asked.changes))
    if what == "workload":
        return exports.download(exports.yaml_files(service, "workloads", asked.workload, asked.changes))
    result = service.run(asked, sensitivity=False)
    if what == "csv":
        return {"content": exports.operators_csv(result), "filename": "operators.csv"}
    return {"content": result.to_json(), "filename": "result.json"}


PAGE: Final = Page("/what-if", "What-if", layout, register)

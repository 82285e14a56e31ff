"""Sweep: a design space, run here or opened; its Pareto front, what is selected in it, the run behind each point."""

from __future__ import annotations

from typing import Any, Final

from dash import ClientsideFunction, Input, Output, Patch, State, ctx, dcc, html, no_update
from dash.exceptions import PreventUpdate

from ...errors import EffsimError
from .. import parts, sweep_drawing, sweep_figures, sweep_heat, sweep_parts, sweep_work
from ..app import Page
from ..pickers import Uploads, picker, register_picker
from ..service import Service
from ..sweep_points import Points
from ..sweep_view import Chosen, Controls
from ..view import View

POLL_MS: Final = 500
_CONTROLS: Final = {
    "x": "sweep-x",
    "y": "sweep-y",
    "colour": "sweep-colour",
    "log": "sweep-log",
    "heat_z": "sweep-heat-z",
    "heat_x": "sweep-heat-x",
    "heat_y": "sweep-heat-y",
    "how": "sweep-how",
    "point": "sweep-point",
}
_ADVICE: Final = "Choose another study or file above."
_WHAT_A_STUDY_IS: Final = (
    "A study says what varies, how points are chosen and what is wanted; a sweep evaluates every point of it. Choose "
    "one above, upload your own, or open the points.parquet that effsim sweep has written. Or start with an example:"
)


def layout(service: Service, view: View, uploads: Uploads) -> Any:
    """The choice of a study or a table as the view says; what they hold follows."""
    study, table = view.one("study"), view.one("table")
    form = html.Div(
        [
            picker(service, "sweep-study", "studies", "Study", study, uploads),
            picker(service, "sweep-table", "tables", "Or open points.parquet", table, uploads, clearable=True),
        ],
        className="form",
    )
    examples = [parts.button(f"sweep-example-{name}", text) for name, text in sweep_parts.EXAMPLES.items()]
    start = html.Div(
        [html.P(_WHAT_A_STUDY_IS), html.Div(examples, className="sweep-examples")], id="sweep-empty", className="empty"
    )
    run = html.Div(
        [
            parts.button("sweep-run", "Run", primary=True),
            html.Button("Cancel", id="sweep-cancel", n_clicks=0, type="button", className="plain", hidden=True),
        ],
        id="sweep-buttons",
        className="sweep-run",
        hidden=True,
    )
    stores = [
        dcc.Store(id="sweep-source"),
        dcc.Store(id="sweep-start", data=view.query),
        dcc.Interval(id="sweep-tick", interval=POLL_MS, disabled=True),
    ]
    return [
        html.H1("Sweep"),
        form,
        start,
        html.Div(id="sweep-what"),
        run,
        html.Div(id="sweep-progress"),
        parts.waiting(html.Div(id="sweep-report")),
        *stores,
    ]


def follow(service: Service, study: Any, table: Any, did: Any, source: Any) -> tuple[Any, ...]:
    """What stands above the points: examples hidden, description, buttons hidden, cancel hidden, progress, no more
    polling, source. *did* is the button that was pressed, if any.
    """
    if table:
        shown = f"{sweep_work.TABLE}{table}"
        return True, None, True, True, None, True, no_update if shown == source else shown
    if not study:
        return False, None, True, True, None, True, no_update if source is None else None
    choice = str(study)
    gone = no_update if source is None else None
    try:
        described = sweep_work.study_of(service, choice)
        total = sweep_work.count(described)
        if did == "sweep-run":
            sweep_work.start(service, choice)
        job = sweep_work.job_of(service, choice)
        if job is not None and did == "sweep-cancel":
            service.jobs.cancel(job.key)
        if job is None:
            return True, sweep_parts.describe(described, total), False, True, None, True, gone
        done = sweep_work.points_done(service, choice)
    except EffsimError as error:
        return True, parts.error(service.shelf.readable(str(error)), _ADVICE), True, True, None, True, gone
    if job.state == "done":
        shown = f"{sweep_work.STUDY}{choice}"
        return True, None, True, True, None, True, no_update if shown == source else shown
    what = sweep_parts.describe(described, total)
    progress = sweep_parts.progress(job, done, total)
    return True, what, not job.ended, job.ended, progress, job.ended, gone


def draw(service: Service, source: Any, query: Any) -> Any:
    """The report of a source, with the controls as the address said when the page was opened."""
    if not source:
        return None
    try:
        points = sweep_work.points_of(service, source)
    except EffsimError as error:
        return parts.error(service.shelf.readable(str(error)), _ADVICE)
    view = View.parse(str(query or ""))
    if source_of(view) != source:
        view = View()
    return sweep_parts.report(service, points, str(source), Controls.of(points, view), Chosen.of(view))


def source_of(view: View) -> str:
    """The source of points that a view names."""
    if view.one("table"):
        return f"{sweep_work.TABLE}{view.one('table')}"
    return f"{sweep_work.STUDY}{view.one('study')}" if view.one("study") else ""


def base_view(study: Any, table: Any) -> View:
    """The fields of the address that say which points are shown."""
    return View.of(table=str(table)) if table else View.of(study=str(study) if study else None)


def asked(service: Service, source: Any, values: dict[str, Any], chosen: Any) -> tuple[Points, Controls, Chosen]:
    """The points, the controls and the selection of a request.

    Raises:
        PreventUpdate: there are no such points.
    """
    try:
        points = sweep_work.points_of(service, source)
    except EffsimError:
        raise PreventUpdate from None
    return points, Controls.of(points, View()).checked(points, **values), Chosen.parse(chosen)


def selected(service: Service, points: Points, controls: Controls, chosen: Chosen, changed: bool) -> tuple[Any, ...]:
    """Heat map, table and count of what is selected; where the selection *changed*, also what the figures mark."""
    mask = chosen.mask(points)
    heat = sweep_heat.heat(points, controls, mask)
    if not changed:
        return heat, no_update, no_update, no_update, no_update
    marks: Any = no_update
    if chosen.source != "scatter":
        marks = Patch()
        for at, places in enumerate(sweep_figures.places(points)):
            found = sweep_drawing.positions(mask[places]) if chosen.source else None
            marks["data"][at]["selectedpoints"] = found
        marks["layout"]["selections"] = []
        marks["layout"]["selectionrevision"] = chosen.revision
    lines: Any = Patch()
    lines["data"][0]["line"] = sweep_figures.lines(points, controls, chosen)
    if chosen.source != "parallel":
        for at in range(len(sweep_figures.dimension_names(points))):
            lines["data"][0]["dimensions"][at]["constraintrange"] = None
        lines["layout"]["uirevision"] = chosen.revision
    words = sweep_parts.selected_words(points, chosen)
    return heat, sweep_parts.selection(service, points, chosen), words, marks, lines


def register(app: Any, service: Service) -> None:
    """The callbacks of the page."""
    register_picker(app, service, "sweep-study", "studies")
    register_picker(app, service, "sweep-table", "tables")
    _register_choice(app, service)
    _register_report(app, service)


def _register_choice(app: Any, service: Service) -> None:
    @app.callback(  # type: ignore[untyped-decorator]
        Output("sweep-empty", "hidden"),
        Output("sweep-what", "children"),
        Output("sweep-buttons", "hidden"),
        Output("sweep-cancel", "hidden"),
        Output("sweep-run", "disabled"),
        Output("sweep-progress", "children"),
        Output("sweep-tick", "disabled"),
        Output("sweep-source", "data"),
        Output("link", "data", allow_duplicate=True),
        Input("sweep-study", "value"),
        Input("sweep-table", "value"),
        Input("sweep-run", "n_clicks"),
        Input("sweep-cancel", "n_clicks"),
        Input("sweep-tick", "n_intervals"),
        State("sweep-source", "data"),
        State("sweep-start", "data"),
        prevent_initial_call="initial_duplicate",
    )
    def chosen(study: Any, table: Any, run: Any, cancel: Any, tick: Any, source: Any, query: Any) -> Any:
        did = ctx.triggered_id if (run or cancel) else None
        empty, what, buttons, no_cancel, progress, quiet, shown = follow(service, study, table, did, source)
        link = base_view(study, table)
        start = View.parse(str(query or ""))
        kept = start if source_of(start) == source_of(link) and not source else link
        address = {"path": PAGE.path, "query": kept.query} if ctx.triggered_id != "sweep-tick" else no_update
        return empty, what, buttons and no_cancel, no_cancel, buttons, progress, quiet, shown, address

    @app.callback(  # type: ignore[untyped-decorator]
        Output("sweep-table", "value", allow_duplicate=True), Input("sweep-study", "value"), prevent_initial_call=True
    )
    def instead(study: Any) -> Any:
        if not study:
            raise PreventUpdate
        return None

    @app.callback(  # type: ignore[untyped-decorator]
        Output("sweep-study", "value", allow_duplicate=True),
        *[Input(f"sweep-example-{name}", "n_clicks") for name in sweep_parts.EXAMPLES],
        prevent_initial_call=True,
    )
    def example(*clicks: Any) -> Any:
        if not any(clicks):
            raise PreventUpdate
        return str(ctx.triggered_id).removeprefix("sweep-example-")

    @app.callback(  # type: ignore[untyped-decorator]
        Output("sweep-report", "children"), Input("sweep-source", "data"), State("sweep-start", "data")
    )
    def report(source: Any, query: Any) -> Any:
        return draw(service, source, query)


def _register_report(app: Any, service: Service) -> None:
    app.clientside_callback(
        ClientsideFunction("effsim_sweep", "chosen"),
        Output("sweep-chosen", "data"),
        Input("sweep-scatter", "selectedData"),
        Input("sweep-parallel", "restyleData"),
        Input("sweep-clear", "n_clicks"),
        State("sweep-x", "value"),
        State("sweep-y", "value"),
        State("sweep-log", "value"),
        State("sweep-chosen", "data"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("effsim_sweep", "clicked"),
        Output("sweep-point", "value"),
        Input("sweep-scatter", "clickData"),
        prevent_initial_call=True,
    )

    @app.callback(  # type: ignore[untyped-decorator]
        Output("sweep-scatter", "figure"),
        Output("sweep-parallel", "figure"),
        *[Input(_CONTROLS[name], "value") for name in ("x", "y", "colour", "log")],
        State("sweep-id", "data"),
        State("sweep-chosen", "data"),
        prevent_initial_call=True,
    )
    def drawn(x: Any, y: Any, colour: Any, log: Any, source: Any, data: Any) -> Any:
        points, controls, chosen = asked(service, source, {"x": x, "y": y, "colour": colour, "log": log}, data)
        lines: Any = no_update
        if ctx.triggered_id == "sweep-colour":
            lines = Patch()
            lines["data"][0]["line"] = sweep_figures.lines(points, controls, chosen)
        return sweep_figures.scatter(points, controls, chosen), lines

    @app.callback(  # type: ignore[untyped-decorator]
        Output("sweep-heat", "figure"),
        Output("sweep-selection", "children"),
        Output("sweep-count", "children"),
        Output("sweep-scatter", "figure", allow_duplicate=True),
        Output("sweep-parallel", "figure", allow_duplicate=True),
        Input("sweep-chosen", "data"),
        *[Input(_CONTROLS[name], "value") for name in ("heat_z", "heat_x", "heat_y", "how")],
        State("sweep-colour", "value"),
        State("sweep-id", "data"),
        prevent_initial_call=True,
    )
    def linked(data: Any, heat_z: Any, heat_x: Any, heat_y: Any, how: Any, colour: Any, source: Any) -> Any:
        values = {"heat_z": heat_z, "heat_x": heat_x, "heat_y": heat_y, "how": how, "colour": colour}
        points, controls, chosen = asked(service, source, values, data)
        return selected(service, points, controls, chosen, ctx.triggered_id == "sweep-chosen")

    @app.callback(  # type: ignore[untyped-decorator]
        Output("sweep-panel", "children"),
        Input("sweep-point", "value"),
        State("sweep-id", "data"),
        prevent_initial_call=True,
    )
    def looked_at(point: Any, source: Any) -> Any:
        points, controls, _ = asked(service, source, {"point": point}, None)
        return sweep_parts.panel(service, points, controls.point)

    @app.callback(  # type: ignore[untyped-decorator]
        Output("link", "data", allow_duplicate=True),
        *[Input(name, "value") for name in _CONTROLS.values()],
        Input("sweep-chosen", "data"),
        State("sweep-id", "data"),
        prevent_initial_call=True,
    )
    def link(*values: Any) -> Any:
        *given, data, source = values
        points, controls, chosen = asked(service, source, dict(zip(_CONTROLS, given, strict=True)), data)
        name, _, choice = str(source).partition(":")
        view = View.of(**{name: choice}).with_fields(**controls.fields(points), select=chosen.text)
        return {"path": PAGE.path, "query": view.query}

    @app.callback(  # type: ignore[untyped-decorator]
        Output("download", "data", allow_duplicate=True),
        Output("sweep-save-said", "children"),
        *[Input(f"sweep-save-{name}", "n_clicks") for name in sweep_parts.EXPORTS],
        State("sweep-id", "data"),
        prevent_initial_call=True,
    )
    def save(*values: Any) -> Any:
        *clicks, source = values
        if not any(clicks):
            raise PreventUpdate
        try:
            return sweep_work.saved(service, str(source), str(ctx.triggered_id).removeprefix("sweep-save-")), ""
        except EffsimError as error:
            return no_update, parts.error(service.shelf.readable(str(error)))


PAGE: Final = Page("/sweep", "Sweep", layout, register)

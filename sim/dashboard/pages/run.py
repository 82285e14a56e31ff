"""Run: one workload on one machine, with everything the command line says about it, to look at."""

from __future__ import annotations

from typing import Any, Final

from dash import Input, Output, State, ctx, dcc, html, no_update
from dash.exceptions import PreventUpdate

from ...errors import EffsimError
from ...report import words
from ...report.result import RunResult
from .. import exports, parts
from ..app import Page
from ..pickers import Uploads, picker, register_picker
from ..service import ENGINES, Asked, Service
from ..view import View, assignment_line, assignments

FIGURES: Final = (
    (
        "roofline",
        "Roofline of one device",
        "Each point is an operator, as large as its time: point at one for its terms.",
    ),
    ("operators", "Time by operator", ""),
    ("memory", "Memory of one device", ""),
    ("timeline", "Timeline of the first step", "Drag to zoom, double-click to see all."),
    ("sensitivity", "What would change the time", ""),
)
_EXPORTS: Final = ("hardware", "workload", "json", "csv", "html")
_WHERE: Final = "Choose another file, or change the line of changes."


def layout(service: Service, view: View, uploads: Uploads) -> Any:
    """The form as the view says; its answer follows."""
    asked = Asked.of(view)
    form = html.Div(
        [
            picker(service, "run-hardware", "hardware", "Hardware", asked.hardware, uploads),
            picker(
                service, "run-workload", "workloads", "Workload, or a Hugging Face config.json", asked.workload, uploads
            ),
            parts.choice("run-engine", "Reading", list(ENGINES), asked.engine),
            html.Div(
                parts.text_input(
                    "run-changes",
                    "Changes",
                    assignment_line(asked.changes),
                    placeholder="hardware.memory.bandwidth=4TB/s workload.batch=8",
                    hint="path=value, separated by spaces; as --set on the command line",
                ),
                className="wide",
            ),
        ],
        className="form",
    )
    return [html.H1("Run"), form, parts.waiting(html.Div(id="run-report")), dcc.Store(id="run-operator")]


def register(app: Any, service: Service) -> None:
    """The callbacks of the page."""
    register_picker(app, service, "run-hardware", "hardware")
    register_picker(app, service, "run-workload", "workloads")
    form = [
        Input("run-hardware", "value"),
        Input("run-workload", "value"),
        Input("run-engine", "value"),
        Input("run-changes", "value"),
    ]

    @app.callback(  # type: ignore[untyped-decorator]
        Output("run-report", "children"),
        Output("link", "data", allow_duplicate=True),
        *form,
        prevent_initial_call="initial_duplicate",
    )
    def show(hardware: str, workload: str, engine: str, changes: str | None) -> Any:
        asked = Asked(str(hardware), str(workload), str(engine), assignments(changes))
        link = {"path": PAGE.path, "query": asked.view.query}
        try:
            return report(service, asked), link
        except EffsimError as error:
            return parts.error(str(error), _WHERE), link

    @app.callback(  # type: ignore[untyped-decorator]
        Output("download", "data", allow_duplicate=True),
        *[Input(f"run-save-{name}", "n_clicks") for name in _EXPORTS],
        *[State(part.component_id, "value") for part in form],
        prevent_initial_call=True,
    )
    def save(*values: Any) -> Any:
        if not any(values[: len(_EXPORTS)]):
            raise PreventUpdate
        hardware, workload, engine, changes = values[len(_EXPORTS) :]
        asked = Asked(str(hardware), str(workload), str(engine), assignments(changes))
        return saved(service, asked, str(ctx.triggered_id).removeprefix("run-save-"))

    @app.callback(  # type: ignore[untyped-decorator]
        Output("run-explained", "children"),
        Input("run-figure-roofline", "clickData"),
        Input("run-figure-operators", "clickData"),
        *[State(part.component_id, "value") for part in form],
        prevent_initial_call=True,
    )
    def explain(roofline: Any, operators: Any, hardware: str, workload: str, engine: str, changes: str | None) -> Any:
        clicked = roofline if ctx.triggered_id == "run-figure-roofline" else operators
        if not clicked:
            return no_update
        return html.Pre(str(clicked))


def report(service: Service, asked: Asked) -> list[Any]:
    """A run as components.

    Raises:
        EffsimError: as :func:`effsim.run`.
    """
    result = service.run(asked)
    out: list[Any] = [html.H2(words.title(result), className="first"), html.P(words.setup(result), className="soft")]
    out += parts.notes(result.notes)
    out += [
        parts.headline(result),
        html.P(f"Limited by: {_shares(result)}"),
        html.P(words.cost_line(result)),
        html.P(words.energy_line(result)),
    ]
    out += [parts.command(exports.command_line(service, asked)), _toolbar()]
    for name, title, hint in FIGURES:
        if _has(result, name):
            out.append(
                parts.section(title, parts.plot(result.figure(name), f"run-figure-{name}", label=title), soft=hint)
            )
    return [*out, html.Div(id="run-explained")]


def _toolbar() -> Any:
    texts = ("Hardware YAML", "Workload YAML", "Result (JSON)", "Operators (CSV)", "Report (HTML)")
    buttons = [parts.button(f"run-save-{name}", text) for name, text in zip(_EXPORTS, texts, strict=True)]
    return parts.toolbar(html.Span("Save:", className="soft"), *buttons)


def _shares(result: RunResult) -> str:
    return ", ".join(f"{words.plain(name)} {words.percent(share)}" for name, share in result.bound.items())


def _has(result: RunResult, name: str) -> bool:
    """Whether there is something to draw."""
    if name == "timeline":
        return bool(result.timeline.slices)
    if name == "energy":
        return result.energy_j is not None
    return name in ("roofline", "operators", "memory") or bool(result.sensitivity)


def saved(service: Service, asked: Asked, what: str) -> dict[str, Any]:
    """The file that a button saves."""
    if what == "hardware":
        return exports.download(exports.yaml_files(service, "hardware", asked.hardware, asked.changes))
    if what == "workload":
        return exports.download(exports.yaml_files(service, "workloads", asked.workload, asked.changes))
    result = service.run(asked)
    if what == "json":
        return {"content": result.to_json(), "filename": "result.json"}
    if what == "csv":
        return {"content": exports.operators_csv(result), "filename": "operators.csv"}
    from ...report.page import page

    return {"content": page(result, command=exports.command_line(service, asked)), "filename": "report.html"}


PAGE: Final = Page("/", "Run", layout, register)

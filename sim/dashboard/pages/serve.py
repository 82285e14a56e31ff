"""Serve: a load of requests on a fleet, with its latencies, queues, caches and promises; and a curve over the load."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from dash import Input, Output, ctx, dcc, html, no_update
from dash.exceptions import PreventUpdate

from ...errors import EffsimError
from ...spec.serving import ServingSpec
from ...units import format_quantity
from .. import parts, serve_report
from ..app import Page
from ..background import Background, panel, register_background, register_saves, saved_file, start_button
from ..jobs import Job
from ..pickers import Uploads, picker, register_picker
from ..serve_form import (
    CONTROLS,
    FASTEST,
    LOADS,
    POLICIES,
    SLOWEST,
    Asked,
    Form,
    base_rate,
    curve_request,
    request,
    serving_of,
    with_serving,
)
from ..service import Service
from ..serving_kept import MOST_REQUESTS
from ..view import View, assignment_line, assignments

_FIELDS: Final = ("hardware", "workload", *CONTROLS, "changes", "seed")
_MARKS: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def _inputs() -> list[Input]:
    return [Input(f"serve-{name}", "value") for name in _FIELDS]


def _request(service: Service, values: Sequence[Any]) -> dict[str, Any]:
    return request(service, Form.of_values(values).asked(service))


def _report(service: Service, job: Job) -> Any:
    return serve_report.report(service, Asked.of(job.arguments["asked"]), job.result.full())


def _curve_request(service: Service, values: Sequence[Any]) -> dict[str, Any]:
    job = SERVE.job(service, values[0])
    if job is None:
        raise PreventUpdate
    return curve_request(service, Asked.of(job.arguments["asked"]))


def _curve(service: Service, job: Job) -> Any:
    path, _, value = job.arguments["loads"][LOADS.index(1.0)][1].partition("=")
    unit = "requests/s" if path.endswith("rate") else "× the recorded speed"
    return serve_report.curve(job.result, offered=float(value), unit=unit)


SERVE: Final = Background(
    name="serve",
    kind="serve",
    verb="Serve",
    doing="serving",
    unit="requests",
    request=_request,
    report=_report,
    idle="Nothing has been served with these settings yet. Press Serve: it takes some seconds, and you can go on here "
    "meanwhile.",
)
CURVE: Final = Background(
    name="serve-curve",
    kind="load_curve",
    verb="Draw the load curve",
    doing="serving one load after another",
    unit="loads",
    request=_curve_request,
    report=_curve,
    idle=f"The same requests at {', '.join(f'{x:g}' for x in LOADS)} times the load above: where do latencies leave "
    "their promises?",
)


def layout(service: Service, view: View, uploads: Uploads) -> Any:
    """The form as the view says; what was served before follows."""
    form = Form.of_view(service, view)
    serving = serving_of(service, form.workload, form.rest)
    slider, texts = described(serving, form.controls.get("rate", ""))
    fields = html.Div(
        [
            picker(service, "serve-hardware", "hardware", "Hardware", form.hardware, uploads),
            picker(
                service,
                "serve-workload",
                "workloads",
                "Workload (“load”: its file describes one)",
                form.workload,
                uploads,
                arrange=lambda offered: with_serving(service, offered),
            ),
            parts.text_input(
                "serve-seed", "Seed", str(form.seed or ""), placeholder="0", hint="of arrivals and lengths"
            ),
            _load(slider, form.controls.get("rate", ""), texts),
            _text("ttft", "Promised time to first token", form, texts),
            _text("tpot", "Promised time a token after it", form, texts),
            _policy(form, texts),
            _text("replicas", "Replicas", form, texts),
            html.Div(
                parts.text_input(
                    "serve-changes",
                    "Other changes",
                    assignment_line(form.rest),
                    placeholder="workload.serving.arrivals.requests=5000 hardware.memory.bandwidth=4TB/s",
                    hint="path=value, separated by spaces; as --set on the command line. At most "
                    f"{MOST_REQUESTS:,} requests.",
                ),
                className="wide",
            ),
        ],
        className="form",
    )
    curve = parts.section("Load curve", parts.toolbar(start_button(CURVE)), panel(CURVE))
    return [
        html.H1("Serve"),
        fields,
        parts.toolbar(start_button(SERVE)),
        panel(SERVE),
        html.Div(curve, id="serve-curve-part", hidden=True),
    ]


def _load(slider: float, rate: str, texts: dict[str, str]) -> Any:
    marks = {math.log10(x): f"{x:g}×" for x in _MARKS}
    control = dcc.Slider(
        math.log10(SLOWEST),
        math.log10(FASTEST),
        0.01,
        value=slider,
        marks=marks,
        included=False,
        allow_direct_input=False,
        id="serve-load",
    )
    exact = dcc.Input(
        id="serve-rate", type="text", value=rate, placeholder=texts["rate"], debounce=True, autoComplete="off"
    )
    label = html.Label("Load", htmlFor="serve-rate", id="serve-load-label")
    hint = html.Span(texts["load"], id="serve-load-hint", className="hint")
    row = html.Div(
        [html.Div(control, className="load-slider"), html.Div(exact, className="load-exact")], className="load"
    )
    return html.Div([label, row, hint], className="field wide")


def _text(name: str, title: str, form: Form, texts: dict[str, str]) -> Any:
    control = dcc.Input(
        id=f"serve-{name}",
        type="text",
        value=form.controls.get(name, ""),
        placeholder=texts[name],
        debounce=True,
        autoComplete="off",
    )
    return parts.field(f"serve-{name}", title, control)


def _policy(form: Form, texts: dict[str, str]) -> Any:
    value = form.controls.get("policy", "")
    known = [*POLICIES, *([value] if value and value not in POLICIES else [])]
    offered = [{"label": texts["policy"], "value": ""}, *({"label": name, "value": name} for name in known)]
    return parts.choice("serve-policy", "Scheduler", offered, value)


def described(serving: ServingSpec, rate: str) -> tuple[float, dict[str, str]]:
    """Where the slider stands for a rate, and what fields say when nothing is written in them."""
    base = base_rate(serving)
    try:
        times = float(rate) / base if rate else 1.0
    except (ValueError, OverflowError):
        times = math.nan
    unit = "requests/s" if serving.arrivals.trace is None else "× the recorded speed"
    known = math.isfinite(times) and times > 0.0
    at = min(max(times, SLOWEST), FASTEST) if known else 1.0
    texts = {
        "rate": f"{base:g}",
        "load": f"{times:.3g} × the file's {base:g} {unit}" if known else f"{unit}; the file says {base:g}",
        "ttft": _of_file(format_quantity(float(serving.slo.ttft), "time")),
        "tpot": _of_file(format_quantity(float(serving.slo.tpot), "time")),
        "policy": _of_file(serving.scheduler.policy),
        "replicas": _of_file("two pools" if serving.disaggregated is not None else str(int(serving.replicas))),
    }
    return round(math.log10(at), 2), texts


def _of_file(value: str) -> str:
    return f"{value} (the file's)"


def moved(service: Service, what: str, values: Sequence[Any]) -> tuple[Any, ...]:
    """Slider, rate and texts after *what* has changed: (slider, rate, hint, and what empty fields say).

    *values*: slider, rate, workload, line of changes.
    """
    slider, rate, workload, line = values
    if any(not isinstance(value, str | int | float | None) for value in values):
        raise PreventUpdate
    try:
        changes = assignments(str(line or ""))
    except EffsimError:  # the form says it
        raise PreventUpdate from None
    serving = serving_of(service, str(workload), changes)
    text = "" if rate is None else str(rate).strip()
    if what == "serve-load":
        try:
            times = 10.0 ** min(max(float(slider), -2.0), 2.0)
        except (TypeError, ValueError):
            raise PreventUpdate from None
        text = "" if float(slider) == 0.0 else f"{base_rate(serving) * times:.4g}"
    elif what == "serve-workload":
        text = ""  # a rate is that of its workload
    at, texts = described(serving, text)
    stands: Any = no_update if what == "serve-load" else at
    offered = [{"label": texts["policy"], "value": ""}, *({"label": name, "value": name} for name in POLICIES)]
    named = (texts["rate"], texts["ttft"], texts["tpot"], texts["replicas"])
    return (stands, text if text != rate else no_update, texts["load"], *named, offered)


def linked(service: Service, values: Sequence[Any]) -> Any:
    """The address of a form; none for one that is wrong."""
    try:
        asked = Form.of_values(values).asked(service)
    except EffsimError:
        return no_update
    return {"path": PAGE.path, "query": asked.view.query}


def register(app: Any, service: Service) -> None:
    """The callbacks of the page."""
    register_picker(app, service, "serve-hardware", "hardware")
    register_picker(app, service, "serve-workload", "workloads", arrange=lambda offered: with_serving(service, offered))
    register_background(app, service, SERVE, _inputs())
    register_background(app, service, CURVE, [Input("serve-job", "data")])
    _register_form(app, service)
    _register_rest(app, service)


def _register_form(app: Any, service: Service) -> None:
    @app.callback(  # type: ignore[untyped-decorator]
        Output("serve-load", "value"),
        Output("serve-rate", "value"),
        Output("serve-load-hint", "children"),
        *[Output(f"serve-{name}", "placeholder") for name in ("rate", "ttft", "tpot", "replicas")],
        Output("serve-policy", "options"),
        Input("serve-load", "value"),
        Input("serve-rate", "value"),
        Input("serve-workload", "value"),
        Input("serve-changes", "value"),
        prevent_initial_call=True,
    )
    def move(*values: Any) -> Any:
        return moved(service, str(ctx.triggered_id), values)

    @app.callback(  # type: ignore[untyped-decorator]
        Output("link", "data", allow_duplicate=True), *_inputs(), prevent_initial_call="initial_duplicate"
    )
    def link(*values: Any) -> Any:
        return linked(service, values)


def _register_rest(app: Any, service: Service) -> None:
    @app.callback(  # type: ignore[untyped-decorator]
        Output("serve-curve-part", "hidden"), Input("serve-ended", "data"), prevent_initial_call=True
    )
    def reveal(ended: Any) -> bool:
        job = SERVE.job(service, ended)
        return job is None or job.state != "done" or not job.result.bare.completed

    register_saves(app, service, SERVE, serve_report.EXPORTS, saved)


def saved(service: Service, ended: Any, what: str) -> tuple[Any, Any]:
    """(the file that a button saves, what went wrong)."""

    def write(job: Job) -> Any:
        return serve_report.saved(service, Asked.of(job.arguments["asked"]), job.result.full(), what)

    return saved_file(service, SERVE, ended, write)


PAGE: Final = Page("/serve", "Serve", layout, register)

"""Plan: the cheapest fleet within promises, why it is at its limit, and what another load or price would change."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from dash import ALL, Input, Output, ctx, dcc, html, no_update
from dash.exceptions import PreventUpdate

from ...errors import EffsimError
from ...report import plan_words as say
from ...report import words
from .. import parts, plan_report
from ..app import Page
from ..background import Background, panel, register_background, register_saves, saved_file, start_button
from ..jobs import Job
from ..pickers import Uploads, picker, register_picker
from ..plan_form import LEAST, MOST, OBJECTIVES, Asked, Form, candidates, opened, request, times
from ..service import Service
from ..view import View, assignment_line

_FIELDS: Final = ("plan", "load", "headroom", "objective", "changes", "seed")
_IDS: Final = {"plan": "plan-file", "load": "plan-load-exact"}
_MARKS: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_PRICES: Final = {"type": "plan-price", "name": ALL}


def _inputs() -> list[Input]:
    fields = [Input(_IDS.get(name, f"plan-{name}"), "value") for name in _FIELDS]
    return [*fields, Input(_PRICES, "value"), Input(_PRICES, "id")]


def asked_of(values: Sequence[Any]) -> Asked:
    """What the components of the form ask for: their fields, then prices and the candidates these are of.

    Raises:
        SpecError: something is no text or number.
    """
    *fields, texts, ids = values
    names = [i.get("name") if isinstance(i, dict) else None for i in ids] if isinstance(ids, list) else []
    held = texts if isinstance(texts, list) else []
    prices = {str(name): text for name, text in zip(names, held, strict=False)}
    return Form.of_values(fields, prices).asked


def _request(service: Service, values: Sequence[Any]) -> Mapping[str, Any]:
    return request(service, asked_of(values))


def _report(service: Service, job: Job) -> Any:
    return plan_report.report(service, Asked.of(job.arguments["asked"]), job.result)


PLAN: Final = Background(
    name="plan",
    kind="plan",
    verb="Plan",
    doing="looking for a fleet, part by part",
    unit="in this part",
    request=_request,
    report=_report,
    idle="Nothing has been planned with these settings yet. Press Plan: it takes up to some minutes, and you can go on "
    "here meanwhile.",
)


def layout(service: Service, view: View, uploads: Uploads) -> Any:
    """The form as the view says; what was planned before follows."""
    form = Form.of_view(view)
    fields = html.Div(
        [
            picker(service, "plan-file", "plans", "Plan", form.plan, uploads),
            parts.choice(
                "plan-objective",
                "What is to be least",
                [{"label": "as the plan says", "value": ""}, *OBJECTIVES],
                form.objective if form.objective in OBJECTIVES else "",
            ),
            _text("headroom", "Headroom", form.headroom, "as the plan says", "such as 20 %: more load that must hold"),
            _text("seed", "Seed", str(form.seed or ""), "as the plan says", "of arrivals and lengths"),
            html.Div(about(service, form.plan), id="plan-about", className="wide"),
            _load(form),
            html.Div(prices(service, form.plan, form.prices), id="plan-prices", className="wide"),
            html.Div(
                parts.text_input(
                    "plan-changes",
                    "Other changes",
                    assignment_line(form.line),
                    placeholder="plan.slo.ttft.p95='2 s' hardware.memory.bandwidth=4TB/s",
                    hint="path=value, separated by spaces; as --set on the command line",
                ),
                className="wide",
            ),
        ],
        className="form",
    )
    return [html.H1("Plan"), fields, parts.toolbar(start_button(PLAN)), panel(PLAN)]


def _text(name: str, title: str, value: str, placeholder: str, hint: str) -> Any:
    return parts.text_input(f"plan-{name}", title, value, placeholder=placeholder, hint=hint)


def _load(form: Form) -> Any:
    slider = dcc.Slider(
        math.log10(LEAST),
        math.log10(MOST),
        0.01,
        value=_position(form.load),
        marks={math.log10(x): f"{x:g}×" for x in _MARKS},
        included=False,
        allow_direct_input=False,
        id="plan-load",
    )
    exact = dcc.Input(
        id="plan-load-exact",
        type="text",
        value=str(form.load or ""),
        placeholder="1",
        debounce=True,
        autoComplete="off",
    )
    row = html.Div([html.Div(slider, className="load-slider"), html.Div(exact)], className="load")
    hint = "times the plan's requests a second; it lasts as long, with so many times the requests"
    label = html.Label("Load", htmlFor="plan-load-exact")
    return html.Div([label, row, html.Span(hint, className="hint")], className="field wide")


def _position(load: Any) -> float:
    try:
        return round(math.log10(min(max(times(load), LEAST), MOST)), 2)
    except EffsimError:
        return 0.0


def about(service: Service, choice: str) -> Any:
    """What a plan asks, before it is answered."""
    try:
        spec = opened(service, choice).spec
    except EffsimError:
        return None  # what is wrong stands where the answer would
    limits = ", ".join(f"{a} {b} ≤ {say.seconds(c)}" for a, b, c in spec.slo.limits())
    lead: list[Any] = [
        html.Strong(words.plain(spec.name)),
        f": {words.plain(spec.description.strip())}" if spec.description else "",
    ]
    devices = ", ".join(candidates(spec))
    asks = f"Workload {spec.workload}; {limits}; {100 * float(spec.headroom):.0f} % headroom; on {devices}."
    return [html.P(lead), html.P(words.plain(asks), className="soft")]


def prices(service: Service, choice: str, given: Mapping[str, str]) -> Any:
    """A field for each candidate's price."""
    try:
        names = candidates(opened(service, choice).spec)
    except EffsimError:
        return None
    fields = [
        html.Label(
            [
                html.Span(words.plain(name), className="hint"),
                dcc.Input(
                    id={"type": "plan-price", "name": name},
                    type="text",
                    value=given.get(name, ""),
                    placeholder="list price",
                    debounce=True,
                    autoComplete="off",
                ),
            ]
        )
        for name in names
    ]
    return [
        html.Span("Prices of one device, US$ an hour", className="soft"),
        html.Div(fields, className="prices"),
    ]


def moved(what: str, slider: Any, exact: Any) -> tuple[Any, Any]:
    """(slider, exact load) after one of them has changed."""
    if what != "plan-load":
        return _position(exact if isinstance(exact, str | int | float) else ""), no_update
    try:
        value = 10.0 ** min(max(float(slider), -1.0), 1.0)
    except (TypeError, ValueError):
        raise PreventUpdate from None
    return no_update, "" if value == 1.0 else f"{value:.3g}"


def linked(values: Sequence[Any]) -> Any:
    """The address of a form; none for one that is wrong."""
    try:
        return {"path": PAGE.path, "query": asked_of(values).view.query}
    except EffsimError:
        return no_update


def register(app: Any, service: Service) -> None:
    """The callbacks of the page."""
    register_picker(app, service, "plan-file", "plans")
    register_background(app, service, PLAN, _inputs())

    @app.callback(  # type: ignore[untyped-decorator]
        Output("plan-load", "value"),
        Output("plan-load-exact", "value"),
        Input("plan-load", "value"),
        Input("plan-load-exact", "value"),
        prevent_initial_call=True,
    )
    def move(slider: Any, exact: Any) -> Any:
        return moved(str(ctx.triggered_id), slider, exact)

    @app.callback(  # type: ignore[untyped-decorator]
        Output("plan-about", "children"),
        Output("plan-prices", "children"),
        Input("plan-file", "value"),
        prevent_initial_call=True,
    )
    def other(choice: Any) -> Any:
        return about(service, str(choice)), prices(service, str(choice), {})

    @app.callback(  # type: ignore[untyped-decorator]
        Output("link", "data", allow_duplicate=True), *_inputs(), prevent_initial_call="initial_duplicate"
    )
    def link(*values: Any) -> Any:
        return linked(values)

    register_saves(app, service, PLAN, plan_report.EXPORTS, saved)


def saved(service: Service, ended: Any, what: str) -> tuple[Any, Any]:
    """(the file that a button saves, what went wrong)."""

    def write(job: Job) -> Any:
        return plan_report.saved(service, Asked.of(job.arguments["asked"]), job.result, what)

    return saved_file(service, PLAN, ended, write)


PAGE: Final = Page("/plan", "Plan", layout, register)

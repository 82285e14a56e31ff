"""The dashboard: pick a machine, a workload and an engine, and look at the run. Needs the extra ``dashboard``."""

from __future__ import annotations

import socket
import threading
import webbrowser
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from ..errors import DataError, EffsimError
from . import words
from .figures import CONFIG, figure
from .result import RunResult

if TYPE_CHECKING:
    from dash import Dash

ENGINES: Final = ("events", "analytic", "roofline")
DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8050

_FIGURES: Final = (
    ("roofline", "Operators under the roofs of one device"),
    ("operators", "Time by operator"),
    ("memory", "Memory of one device"),
    ("timeline", "Timeline of the first step"),
    ("sensitivity", "What would change the time"),
)
_START: Final = ("gpu_a100", "llama70b_decode")
_BROWSER_DELAY_S: Final = 1.0
_CSS: Final = """
body { margin: 0; font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif;
  background: #fff; color: #1c1e21; }
main { max-width: 1120px; margin: 0 auto; padding: 20px; }
h1 { font-size: 1.4rem; margin: 0 0 12px; } h2 { font-size: 1.25rem; margin: 20px 0 6px; overflow-wrap: anywhere; }
h3 { font-size: 1.05rem; margin: 28px 0 4px; border-top: 1px solid #d9dce0; padding-top: 10px; }
.form { display: grid; grid-template-columns: 2fr 2fr 1fr auto; gap: 12px; align-items: end; background: #f6f7f9;
  border: 1px solid #d9dce0; border-radius: 8px; padding: 14px; }
.form label { font-size: .86rem; color: #5b6168; display: block; }
.form input { width: 100%; padding: 7px 8px; font: inherit; border: 1px solid #b9bfc6; border-radius: 4px; }
.wide { grid-column: 1 / -1; }
.run { font: inherit; font-weight: 600; padding: 8px 22px; border: 0; border-radius: 6px; background: #0b5cad;
  color: #fff; cursor: pointer; min-height: 38px; }
.note { background: #fff6dd; border-left: 4px solid #d9a400; padding: 8px 12px; margin: 8px 0; }
.error { background: #fdeceb; border-left: 4px solid #b3261e; padding: 10px 12px; margin: 14px 0;
  white-space: pre-wrap; overflow-wrap: anywhere; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); gap: 12px; margin: 14px 0; }
.card { background: #f6f7f9; border: 1px solid #d9dce0; border-radius: 8px; padding: 12px 14px; }
.card b { display: block; font-size: 1.4rem; } .card span { display: block; color: #5b6168; font-size: .86rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; padding: 5px 10px 5px 0; border-bottom: 1px solid #d9dce0; vertical-align: top; }
td.n, th.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.soft { color: #5b6168; }
@media (max-width: 640px) { .form { grid-template-columns: 1fr; } main { padding: 12px; } }
"""
_PAGE: Final = """<!DOCTYPE html>
<html lang="en"><head>{%metas%}<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{%title%}</title>{%favicon%}{%css%}<style>STYLE</style></head>
<body>{%app_entry%}<footer>{%config%}{%scripts%}{%renderer%}</footer></body></html>"""


def _dash() -> Any:
    """The dash package.

    Raises:
        DataError: it is not installed.
    """
    try:
        import dash
    except ImportError as error:
        raise DataError('the dashboard needs dash: pip install "effsim[dashboard]"') from error
    return dash


Runner = Callable[..., RunResult]
"""``run(hardware, workload, engine=…, set=…)``: given to the page, because the public functions stand above reports."""


def build_app(run: Runner) -> Dash:
    """The Dash application, not yet listening; *run* is :func:`effsim.run`.

    Raises:
        DataError: dash is not installed.
    """
    dash = _dash()
    app = dash.Dash("effsim", title="effsim", update_title="effsim: running…", assets_folder="")
    app.index_string = _PAGE.replace("STYLE", _CSS)
    app.layout = _layout(dash)
    fields = [dash.State(name, "value") for name in ("hardware", "workload", "engine", "changes")]

    def pressed(clicks: int, hardware: str, workload: str, engine: str, changes: str | None) -> Any:
        return on_run(run, hardware, workload, engine, changes)

    wire = app.callback(
        dash.Output("report", "children"), dash.Input("run", "n_clicks"), *fields, prevent_initial_call=True
    )
    wire(pressed)
    result: Dash = app
    return result


def _layout(dash: Any) -> Any:
    from ..spec.catalogue import names

    html, dcc = dash.html, dash.dcc
    hardware, workloads = names("hardware"), names("workloads")

    def choice(name: str, title: str, options: list[str], value: str) -> Any:
        picked = value if value in options else options[0]
        return html.Div([html.Label(title, htmlFor=name), dcc.Dropdown(options, picked, id=name, clearable=False)])

    changes = dcc.Input(id="changes", type="text", placeholder="hardware.memory.bandwidth=4TB/s workload.batch=8")
    form = html.Div(
        [
            choice("hardware", "Hardware", hardware, _START[0]),
            choice("workload", "Workload", workloads, _START[1]),
            choice("engine", "Engine", list(ENGINES), ENGINES[0]),
            html.Button("Run", id="run", className="run", n_clicks=0),
            html.Div(
                [html.Label("Changes (path=value, separated by spaces)", htmlFor="changes"), changes], className="wide"
            ),
        ],
        className="form",
    )
    return html.Main([html.H1("effsim"), form, dcc.Loading(html.Div(id="report"), type="dot")])


def on_run(run: Runner, hardware: str, workload: str, engine: str, changes: str | None) -> Any:
    """What *Run* shows: the report, or the error as text."""
    html = _dash().html
    try:
        result = run(hardware, workload, engine=engine, set=(changes or "").split())
    except EffsimError as error:
        return html.Div(str(error), className="error", role="alert")
    return report(result)


def report(result: RunResult) -> list[Any]:
    """A run as Dash components. Dash renders text as text, so that names need no escaping."""
    dash = _dash()
    html, dcc = dash.html, dash.dcc
    out: list[Any] = [html.H2(words.title(result)), html.P(words.setup(result), className="soft")]
    out += [html.Div(words.plain(note), className="note") for note in result.notes]
    cards = [(line.label, line.value, line.aside) for line in words.headlines(result)]
    cards.append(("Memory of one device", words.gib(float(result.memory["used_bytes"])), words.memory_line(result)))
    out.append(html.Div([_card(html, *card) for card in cards], className="cards"))
    shares = ", ".join(f"{words.plain(name)} {words.percent(share)}" for name, share in result.bound.items())
    out += [html.P(f"Limited by: {shares}"), html.P(words.cost_line(result)), html.P(words.energy_line(result))]
    for name, title in _FIGURES:
        if (name == "timeline" and not result.timeline.slices) or (name == "sensitivity" and not result.sensitivity):
            continue
        out += [html.H3(title), dcc.Graph(figure=figure(result, name), config=CONFIG)]
    return [
        *out,
        html.H3("Operators"),
        _operators(html, result),
        html.H3("Numbers it leans on"),
        _assumptions(html, result),
    ]


def _card(html: Any, label: str, value: str, aside: str) -> Any:
    return html.Div([html.Span(label), html.B(value), html.Span(aside)], className="card")


def _table(html: Any, heads: Sequence[tuple[str, str]], rows: Sequence[tuple[str, ...]]) -> Any:
    """A table; each head is a name and a class (``n`` for numbers)."""
    head = html.Thead(html.Tr([html.Th(name, className=kind) for name, kind in heads]))
    body = [
        html.Tr([html.Td(cell, className=kind) for cell, (_, kind) in zip(row, heads, strict=True)]) for row in rows
    ]
    return html.Div(html.Table([head, html.Tbody(body)]), className="scroll")


def _operators(html: Any, result: RunResult) -> Any:
    heads = [
        ("phase", ""),
        ("operator", ""),
        ("runs", "n"),
        ("time", "n"),
        ("share", "n"),
        ("bound", ""),
        ("of roof", "n"),
    ]
    heads += [("FLOP", "n"), ("bytes", "n")]
    rows = [
        (
            words.plain(row.phase),
            words.plain(row.name),
            f"{row.count}",
            words.seconds(row.time_s),
            words.percent(row.time_s / result.time_s if result.time_s else 0.0),
            words.plain(row.bound),
            words.efficiency(row),
            words.flop_count(row.flops),
            words.byte_count(row.bytes_moved),
        )
        for row in words.by_time(result.operators)
    ]
    return _table(html, heads, rows)


def _assumptions(html: Any, result: RunResult) -> Any:
    heads = [("parameter", ""), ("value (SI)", "n"), ("kind", ""), ("elasticity", "n"), ("source", "")]
    rows = [
        (
            words.plain(a.path),
            f"{a.value:.4g}",
            a.kind,
            "–" if a.elasticity is None else f"{a.elasticity:+.3f}".replace("-", "−"),
            words.plain(a.source),
        )
        for a in result.assumptions
    ]
    return _table(html, heads, rows)


def serve(run: Runner, host: str = DEFAULT_HOST, port: int = DEFAULT_PORT, open_browser: bool = False) -> None:
    """Serve the dashboard until interrupted.

    There is no login: whoever reaches *host* can run simulations, so that the default is this machine only.

    Raises:
        DataError: dash is not installed, or the address cannot be listened on.
    """
    app = build_app(run)
    _check_address(host, port)
    if open_browser:
        timer = threading.Timer(_BROWSER_DELAY_S, webbrowser.open, [f"http://{host}:{port}/"])
        timer.daemon = True
        timer.start()
    app.run(host=host, port=str(port), debug=False)


def _check_address(host: str, port: int) -> None:
    """Refuse an address that cannot be listened on; the web server itself would leave the process."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except (OSError, OverflowError) as error:
        raise DataError(f"cannot listen on {host}:{port}: {getattr(error, 'strerror', None) or error}") from error

"""The Dash application: a frame around pages, and which page an address means."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..errors import DataError, EffsimError
from .service import Asked, Service
from .view import View

if TYPE_CHECKING:
    from dash import Dash

ASSETS: Final = Path(__file__).with_name("assets")
_INDEX: Final = """<!DOCTYPE html>
<html lang="en"><head>{%metas%}<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{%title%}</title>{%favicon%}<script>
(function(){try{var t=localStorage.getItem('effsim-theme');
if(t)document.documentElement.dataset.theme=t;}catch(e){}})();
</script>{%css%}</head><body><a class="skip" href="#page">Skip to the page</a>{%app_entry%}
<noscript>This page needs JavaScript; the same is computed by the command line: effsim run --help</noscript>
<footer>{%config%}{%scripts%}{%renderer%}</footer></body></html>"""
_QUICKLY_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Page:
    """A page: where it is, its name, its content for a view (given the visitor's uploads), and its callbacks."""

    path: str
    title: str
    layout: Callable[[Service, View, Sequence[dict[str, str]]], Any]
    register: Callable[[Any, Service], None]


def pages() -> tuple[Page, ...]:
    """All pages, in the order of the menu."""
    from .pages import accuracy, compare, plan, run, serve, sweep, what_if

    return tuple(module.PAGE for module in (run, what_if, compare, sweep, serve, plan, accuracy))


def require_dash() -> None:
    """Say what to install where Dash is missing.

    Raises:
        DataError: it is.
    """
    try:
        import dash  # noqa: F401
    except ImportError as error:
        raise DataError('the dashboard needs dash: pip install "effsim[dashboard]"') from error


def build_app(service: Service | None = None, host: str = "127.0.0.1") -> Dash:
    """The application, not yet listening.

    Raises:
        DataError: dash is not installed.
    """
    require_dash()
    import dash
    import numpy as np

    from .server import guard

    # Answers become JSON in many threads, and its writer looks for NumPy's types as soon as the module is listed: one
    # that another thread has only half imported would end the process.
    assert np.ndarray is not None

    asked = service or Service()
    app = dash.Dash(
        "effsim",
        title="effsim",
        update_title="",
        assets_folder=str(ASSETS),
        suppress_callback_exceptions=True,
        serve_locally=True,
        index_string=_INDEX,
        on_error=answer_to_error,
    )
    guard(app.server, host)
    every = pages()
    app.layout = _frame(every)
    _route(app, asked, every)
    for page in every:
        page.register(app, asked)
    result: Dash = app
    return result


def answer_to_error(error: Exception) -> None:
    """What a page says where a callback did not expect an error: words of ours, and to the log what happened.

    Nothing else of the page changes.
    """
    import dash

    from . import parts

    if isinstance(error, EffsimError):
        shown = parts.error(str(error))
    else:
        report_error()
        shown = parts.error("This did not work, for a reason nobody thought of.", "The server's log says more.")
    dash.set_props("problem", {"children": shown})


def report_error() -> None:
    """Write the error that is being handled to the log (the standard error), with where it happened."""
    sys.stderr.write(f"effsim dashboard: {traceback.format_exc()}\n")


def warm(service: Service) -> None:
    """Make the first page's answer before anyone asks, beside the start of the server."""

    def ask() -> None:
        with suppress(EffsimError):
            for name in ("roofline", "operators", "memory", "timeline", "sensitivity"):
                service.figure(Asked.of(View()), name)

    timer = threading.Timer(_QUICKLY_S, ask)
    timer.daemon = True  # never in the way of the end
    timer.start()


def _frame(every: Sequence[Page]) -> Any:
    from dash import dcc, html

    links = [dcc.Link(page.title, href=page.path, id=f"menu-{page.title.lower().replace(' ', '-')}") for page in every]
    theme = html.Button(
        "Theme: auto", id="theme", type="button", n_clicks=0, title="light, dark, or as the system says"
    )
    stores = [
        dcc.Location(id="url", refresh=False),
        dcc.Store(id="link"),
        dcc.Store(id="uploads", storage_type="session"),
        dcc.Download(id="download"),
    ]
    share = html.Button("Copy link", id="share", type="button", n_clicks=0, title="an address that restores this view")
    named: dict[str, Any] = {"aria-label": "pages"}
    header = html.Header([html.A("effsim", href="/", className="brand"), html.Nav(links, **named), share, theme])
    return html.Div(
        [
            *stores,
            header,
            html.Div(id="problem"),
            html.Main(id="page", tabIndex=-1),
            html.Div(id="announce", role="status", className="unseen"),
        ]
    )


def _route(app: Any, service: Service, every: Sequence[Page]) -> None:
    import dash
    from dash import Input, Output, State

    from . import parts
    from .pickers import visitors

    known = {page.path: page for page in every}

    @app.callback(  # type: ignore[untyped-decorator]
        Output("page", "children"),
        Output("problem", "children"),
        Input("url", "pathname"),
        Input("url", "search"),
        State("uploads", "data"),
    )
    def show(path: Any, query: Any, uploads: Any) -> Any:
        page = known.get((path if isinstance(path, str) else "/").rstrip("/") or "/")
        if page is None:
            return parts.error("There is no page at this address.", "Choose one from the menu above."), None
        return page.layout(service, View.parse(query), visitors(uploads)), None

    call = dash.ClientsideFunction("effsim", "link")
    done = [Output("announce", "children"), Output("problem", "children", allow_duplicate=True)]
    app.clientside_callback(call, *done, Input("link", "data"), prevent_initial_call=True)
    call = dash.ClientsideFunction("effsim", "menu")
    app.clientside_callback(call, Output("announce", "title"), Input("url", "pathname"), Input("link", "data"))
    call = dash.ClientsideFunction("effsim", "theme")
    app.clientside_callback(call, Output("theme", "children"), Input("theme", "n_clicks"))
    call = dash.ClientsideFunction("effsim", "share")
    app.clientside_callback(call, Output("share", "title"), Input("share", "n_clicks"), prevent_initial_call=True)


def serve(
    host: str = "127.0.0.1", port: int = 8050, *, open_browser: bool = False, say: Callable[[str], None] = print
) -> None:
    """Serve the dashboard until interrupted; *say* is told the address, and a warning where others can reach it.

    Raises:
        DataError: dash or waitress is not installed, or the address cannot be listened on.
    """
    from .server import address, check_address, ended_by_signals, listen, require_waitress, warning

    require_dash()
    require_waitress()
    with suppress(KeyboardInterrupt), ended_by_signals():
        check_address(host, port)
        service = Service()
        try:
            app = build_app(service, host)
            warm(service)
            for line in (warning(host), f"effsim dashboard at {address(host, port)} (Ctrl+C ends it)"):
                if line:
                    say(line)
            listen(app.server, host, port, open_browser=open_browser)
        finally:
            service.close()

"""Choosing a file: a list of bundled names and of the visitor's uploads, and a place to drop a new one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from dash import ClientsideFunction, Input, Output, State, dcc, html, no_update
from dash.exceptions import PreventUpdate

from ..errors import EffsimError
from ..spec.yaml_loader import MAX_BYTES
from . import parts
from .service import Service

Uploads = Sequence[dict[str, str]]
"""``token``, ``section`` and ``label`` of what a visitor has uploaded."""
Options = list[dict[str, str]]
Arrange = Callable[[Options], Options]
"""Another order, or other labels, of what a list offers."""
_MOST: Final = 32
_ACCEPT: Final = {
    "hardware": ".yaml,.yml",
    "workloads": ".yaml,.yml,.json",
    "studies": ".yaml,.yml",
    "plans": ".yaml,.yml",
}


def options(service: Service, section: str, uploads: Uploads) -> list[dict[str, str]]:
    """What the list offers: uploads that are still held first, then bundled names."""
    mine = [u for u in uploads if u.get("section") == section and service.library.upload(str(u.get("token")))]
    out = [{"label": f"⇧ {service.library.label(u['token'])}", "value": u["token"]} for u in mine]
    return out + [{"label": name, "value": name} for name in service.library.names(section)]


def picker(
    service: Service,
    name: str,
    section: str,
    title: str,
    value: str | Sequence[str],
    uploads: Uploads,
    *,
    multi: bool = False,
    arrange: Arrange = list,
) -> Any:
    """A list with an upload below it. ``{name}`` is the list; register its upload with :func:`register_picker`."""
    offered = arrange(options(service, section, uploads))
    known = {option["value"] for option in offered}
    # A link may name an upload of another visit: it stays chosen, and the page says that it is gone.
    extra = [v for v in ([value] if isinstance(value, str) else value) if v and v not in known]
    offered = [*({"label": service.library.label(v)[:60], "value": v} for v in extra), *offered]
    upload = dcc.Upload(
        html.Button("Upload…", type="button", className="link"),
        id=f"{name}-upload",
        accept=_ACCEPT[section],
        multiple=False,
        className="upload",
        className_active="upload active",
    )
    return html.Div(
        [
            html.Label(title, htmlFor=name),
            dcc.Dropdown(offered, value, id=name, clearable=multi, multi=multi, searchable=True),
            html.Div([upload, html.Span(id=f"{name}-said", className="said", role="status")], className="upload-row"),
            dcc.Store(id=f"{name}-sent"),
        ],
        className="field",
    )


def register_picker(
    app: Any, service: Service, name: str, section: str, *, multi: bool = False, arrange: Arrange = list
) -> None:
    """The callbacks of a picker's upload: sized in the browser, checked for everything at the server, then chosen."""
    app.clientside_callback(
        ClientsideFunction("effsim", "sent"),
        Output(f"{name}-sent", "data"),
        Output(f"{name}-said", "children"),
        Input(f"{name}-upload", "contents"),
        State(f"{name}-upload", "filename"),
        prevent_initial_call=True,
    )

    @app.callback(  # type: ignore[untyped-decorator]
        Output(name, "options"),
        Output(name, "value"),
        Output(f"{name}-said", "children", allow_duplicate=True),
        Output("uploads", "data", allow_duplicate=True),
        Input(f"{name}-sent", "data"),
        State(name, "value"),
        State("uploads", "data"),
        prevent_initial_call=True,
    )
    def arrived(sent: Any, value: Any, uploads: list[dict[str, str]] | None) -> Any:
        if not isinstance(sent, dict):
            raise PreventUpdate
        from .uploads import decode, receive

        try:
            kept = receive(service.library, section, str(sent.get("name", "")), decode(str(sent.get("contents", ""))))
        except EffsimError as error:
            shown = parts.error(service.library.readable(str(error)))
            return no_update, no_update, shown, no_update
        held = [u for u in (uploads or []) if u.get("token") != kept.token][-_MOST:]
        held = [{"token": kept.token, "section": section, "label": kept.label}, *held]
        chosen = [*(value or []), kept.token] if multi else kept.token
        return arrange(options(service, section, held)), chosen, f"{kept.label} is in the list", held


LIMIT_BYTES: Final = MAX_BYTES
"""The browser refuses larger files before they are sent (``assets/behaviour.js`` says the same number)."""

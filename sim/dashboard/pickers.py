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
_KEYS: Final = ("token", "section", "label")
_ACCEPT: Final = {
    "hardware": ".yaml,.yml",
    "workloads": ".yaml,.yml,.json",
    "studies": ".yaml,.yml",
    "plans": ".yaml,.yml",
    "tables": ".parquet",
}


def visitors(held: object) -> list[dict[str, str]]:
    """The uploads that a browser says are its own: whatever it sends, texts under the three names."""
    if not isinstance(held, list):
        return []
    mine = [one for one in held[:_MOST] if isinstance(one, dict)]
    return [{key: one[key] for key in _KEYS} for one in mine if all(isinstance(one.get(key), str) for key in _KEYS)]


def options(service: Service, section: str, uploads: Uploads) -> list[dict[str, str]]:
    """What the list offers: uploads that are still held first, then bundled names."""
    mine = [u for u in uploads if u.get("section") == section and service.shelf.upload(str(u.get("token")))]
    out = [{"label": f"⇧ {service.shelf.label(u['token'])}", "value": u["token"]} for u in mine]
    return out + [{"label": name, "value": name} for name in service.shelf.names(section)]


def picker(
    service: Service,
    name: str,
    section: str,
    title: str,
    value: str | Sequence[str],
    uploads: Uploads,
    *,
    multi: bool = False,
    clearable: bool = False,
    arrange: Arrange = list,
) -> Any:
    """A list with an upload below it. ``{name}`` is the list; register its upload with :func:`register_picker`."""
    offered = arrange(options(service, section, uploads))
    known = {option["value"] for option in offered}
    # A link may name an upload of another visit: it stays chosen, and the page says that it is gone.
    extra = [v for v in ([value] if isinstance(value, str) else value) if v and v not in known]
    offered = [*({"label": service.shelf.label(v)[:60], "value": v} for v in extra), *offered]
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
            dcc.Dropdown(offered, value or None, id=name, clearable=multi or clearable, multi=multi, searchable=True),
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
        Output(f"{name}-upload", "contents"),
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
    def arrived(sent: Any, value: Any, uploads: Any) -> Any:
        if not isinstance(sent, dict):
            raise PreventUpdate
        try:
            chosen = (value or []) if multi else None
            offered, value, said, held = taken(service, section, sent, chosen, visitors(uploads))
            return arrange(offered), value, said, held
        except EffsimError as error:
            return no_update, no_update, parts.error(service.shelf.readable(str(error))), no_update


def taken(
    service: Service, section: str, sent: dict[str, Any], chosen: object, uploads: Uploads
) -> tuple[list[dict[str, str]], str | list[str], str, list[dict[str, str]]]:
    """Keep a file that was sent: the options, the choice (added to a list that is *chosen* from), what to say, and
    the visitor's uploads.

    Raises:
        EffsimError: the file is refused.
    """
    from .uploads import decode, receive

    kept = receive(service.shelf, section, str(sent.get("name", "")), decode(str(sent.get("contents", ""))))
    mine = {"token": kept.token, "section": section, "label": kept.label}
    held = [mine, *(u for u in uploads if u["token"] != kept.token)][:_MOST]
    value: str | list[str] = kept.token
    if isinstance(chosen, list):
        value = [*(c for c in chosen if isinstance(c, str) and c != kept.token), kept.token]
    return options(service, section, held), value, f"{kept.label} is in the list", held


LIMIT_BYTES: Final = MAX_BYTES
"""The browser refuses larger files before they are sent (``assets/behaviour.js`` says the same number)."""

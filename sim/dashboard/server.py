"""Listening: a WSGI server with limits, and what it refuses before any page is asked.

There is no login. Whoever reaches the address can run simulations and see uploads' results, so the default is this
machine only, and requests that a page of another site sends (a foreign Host or Origin) are refused.
"""

from __future__ import annotations

import socket
import threading
import webbrowser
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from ..errors import DataError
from .library import MAX_TABLE_BYTES

if TYPE_CHECKING:
    from flask import Flask, Response

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8050
MAX_REQUEST_BYTES: Final = MAX_TABLE_BYTES * 4 // 3 + 2**20
"""An upload in base64, and the rest of its request."""
THREADS: Final = 8
LOCAL: Final = ("127.0.0.1", "localhost", "::1")
_ANY: Final = ("0.0.0.0", "::")
_BROWSER_DELAY_S: Final = 1.0
_HEADERS: Final = {
    # Dash puts its configuration and small functions into the page; everything is served from here.
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; worker-src 'self' blob:; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def guard(server: Flask, host: str = DEFAULT_HOST) -> None:
    """Refuse what is too large or sent by another site's page; add headers that keep a page to itself."""
    from flask import abort, request

    server.config["MAX_CONTENT_LENGTH"] = MAX_REQUEST_BYTES
    hosts = None if host in _ANY else {*LOCAL, host}

    @server.before_request
    def refuse() -> None:
        name = urlsplit(f"//{request.host}").hostname or ""
        if hosts is not None and name not in hosts:
            abort(403, "another host name than the one that is listened on")
        origin = request.headers.get("Origin")
        if origin and urlsplit(origin).netloc != request.host:
            abort(403, "a request from another site's page")

    @server.after_request
    def protect(response: Response) -> Response:
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        return response


def warning(host: str) -> str:
    """What to say before listening on an address that others can reach; empty for this machine's own."""
    if host in LOCAL:
        return ""
    return (
        f"warning: listening on {host}: there is no login, and everyone who reaches this address can run simulations "
        "here and open uploads whose links they know"
    )


def listen(server: Flask, host: str, port: int, *, open_browser: bool = False) -> None:
    """Serve until interrupted.

    Raises:
        DataError: waitress is not installed, or the address cannot be listened on.
    """
    try:
        import waitress
    except ImportError as error:
        raise DataError('the dashboard needs waitress: pip install "effsim[dashboard]"') from error
    check_address(host, port)
    if open_browser:
        timer = threading.Timer(_BROWSER_DELAY_S, webbrowser.open, [address(host, port)])
        timer.daemon = True
        timer.start()
    waitress.serve(
        server, host=host, port=port, threads=THREADS, max_request_body_size=MAX_REQUEST_BYTES, ident=None, _quiet=True
    )


def address(host: str, port: int) -> str:
    """The address to open."""
    shown = LOCAL[0] if host in _ANY else host
    return f"http://[{shown}]:{port}/" if ":" in shown else f"http://{shown}:{port}/"


def check_address(host: str, port: int) -> None:
    """Refuse an address that cannot be listened on.

    Raises:
        DataError: it cannot.
    """
    family: Any = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except (OSError, OverflowError) as error:
        raise DataError(f"cannot listen on {host}:{port}: {getattr(error, 'strerror', None) or error}") from error

"""Listening: a WSGI server with limits, and what it refuses before any page is asked.

There is no login. Whoever reaches the address can run simulations and see uploads' results, so the default is this
machine only, and requests that a page of another site sends (a foreign Host or Origin) are refused.
"""

from __future__ import annotations

import ipaddress
import signal
import socket
import sys
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from ..errors import DataError
from .shelf import MAX_TABLE_BYTES

if TYPE_CHECKING:
    from flask import Flask, Response

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8050
MAX_REQUEST_BYTES: Final = MAX_TABLE_BYTES * 4 // 3 + 2**20
"""An upload in base64, and the rest of its request."""
THREADS: Final = 8
LOCAL: Final = ("127.0.0.1", "localhost", "::1")
_ANSWERS: Final = "/_dash-update-component"
_SUITES: Final = "/_dash-component-suites/"
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
    "Cross-Origin-Opener-Policy": "same-origin",
}


def guard(server: Flask, host: str = DEFAULT_HOST) -> None:
    """Refuse what is too large or sent by another site's page; add headers that keep a page to itself.

    What Dash cannot take apart is answered in a line; what went wrong is in the log.
    """
    from flask import Response, abort, request
    from werkzeug.exceptions import HTTPException

    server.config["MAX_CONTENT_LENGTH"] = MAX_REQUEST_BYTES
    hosts = None if is_open(host) else {*LOCAL, _plain(host)}

    @server.before_request
    def refuse() -> None:
        if hosts is not None and _name_of(request.host) not in hosts:
            abort(403, "another host name than the one that is listened on")
        origin = request.headers.get("Origin")
        if origin and origin not in (f"http://{request.host}", f"https://{request.host}"):
            abort(403, "a request from another site's page")

    @server.errorhandler(Exception)
    def answer(error: Exception) -> Response:
        if isinstance(error, HTTPException):
            status, text = error.code or 500, error.description or error.name
        elif request.path.startswith(_SUITES):
            status, text = 404, "there is no such file"
        elif request.path == _ANSWERS:  # errors of callbacks are answered before (app.answer_to_error)
            status, text = 400, "this is no request of a page, or its answer cannot be sent; the log says more"
        else:
            status, text = 500, "this did not work; the log of the server says more"
        if not isinstance(error, HTTPException) and status != 404:
            sys.stderr.write(f"effsim dashboard: {request.path[:80]!r}: {type(error).__name__}: {str(error)[:500]!r}\n")
        return Response(f"{text}\n", status, mimetype="text/plain")

    @server.after_request
    def protect(response: Response) -> Response:
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        return response


def _name_of(host: str) -> str:
    """The name or address in a Host header, in one spelling; empty if it is malformed."""
    try:
        return _plain(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return ""


def _plain(host: str) -> str:
    """One spelling of a name or an address."""
    try:
        return str(ipaddress.ip_address(host.split("%")[0]))
    except ValueError:
        return host.lower().rstrip(".")


def is_local(host: str) -> bool:
    """Whether only this machine can reach the address."""
    return all(address.is_loopback for address in _addresses(host))


def is_open(host: str) -> bool:
    """Whether it stands for every address of this machine."""
    return any(address.is_unspecified for address in _addresses(host))


def _addresses(host: str) -> list[Any]:
    """Where a host name leads, also in spellings such as ``0`` and ``127.1``.

    Raises:
        DataError: nowhere.
    """
    if not host:  # the sockets' word for every address
        raise DataError("cannot listen on a host without a name; 0.0.0.0 means every address")
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return [ipaddress.ip_address(str(entry[4][0]).split("%")[0]) for entry in found]
    except (OSError, ValueError) as error:  # also a name that cannot be one
        raise DataError(f"cannot listen on {host[:80]!r}: {getattr(error, 'strerror', None) or error}") from None


def warning(host: str) -> str:
    """What to say before listening on an address that others can reach; empty for this machine's own."""
    if is_local(host):
        return ""
    return (
        f"warning: listening on {host}: there is no login, and everyone who reaches this address can run simulations "
        "here and open uploads whose links they know"
    )


def require_waitress() -> None:
    """Say what to install where waitress is missing.

    Raises:
        DataError: it is.
    """
    try:
        import waitress  # noqa: F401
    except ImportError as error:
        raise DataError('the dashboard needs waitress: pip install "effsim[dashboard]"') from error


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl+C does, with everything that is to be cleared away."""

    def end(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield  # only there signals can be heard
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def listen(server: Flask, host: str, port: int, *, open_browser: bool = False) -> None:
    """Serve until interrupted.

    Raises:
        DataError: waitress is not installed, or the address cannot be listened on.
    """
    require_waitress()
    import waitress

    check_address(host, port)
    try:
        listening = waitress.create_server(
            server, host=host, port=port, threads=THREADS, max_request_body_size=MAX_REQUEST_BYTES, ident=None
        )
    except OSError as error:  # taken since
        raise DataError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    if open_browser:
        timer = threading.Timer(_BROWSER_DELAY_S, webbrowser.open, [address(host, port)])
        timer.daemon = True
        timer.start()
    try:
        listening.run()  # returns on Ctrl+C
    finally:
        listening.close()


def address(host: str, port: int) -> str:
    """The address to open."""
    shown = LOCAL[0] if is_open(host) else host
    return f"http://[{shown}]:{port}/" if ":" in shown else f"http://{shown}:{port}/"


def check_address(host: str, port: int) -> None:
    """Refuse an address that cannot be listened on.

    Raises:
        DataError: it cannot.
    """
    if not 0 <= port < 2**16:
        raise DataError(f"cannot listen on {host}:{port}: ports end at 65535")
    family: Any = socket.AF_INET6 if _addresses(host)[0].version == 6 else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise DataError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error

"""``effsim dashboard``: the Dash application."""

from __future__ import annotations

from typing import Annotated

import typer


def dashboard(
    host: Annotated[str, typer.Option(help="Address to listen on; there is no login.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8050,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open a browser window.")] = False,
) -> None:
    """Explore in a browser (needs the extra: pip install "effsim[dashboard]")."""
    from ..dashboard.app import serve

    serve(host, port, open_browser=open_browser, say=lambda line: typer.echo(line, err=True))

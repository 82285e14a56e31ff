"""Starts the dashboard: ``python dash_app.py [--host 127.0.0.1] [--port 8050] [--open]``."""

from __future__ import annotations

import argparse
import sys

from effsim import EffsimError
from effsim.dashboard.app import serve
from effsim.dashboard.server import DEFAULT_HOST, DEFAULT_PORT


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and serve; an error is one line and exit code 2."""
    parser = argparse.ArgumentParser(prog="dash_app.py", description="The effsim dashboard.")
    parser.add_argument("--host", default=DEFAULT_HOST, help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT)
    parser.add_argument("--open", action="store_true", help="open a browser window")
    options = parser.parse_args(arguments)
    try:
        serve(options.host, options.port, open_browser=options.open)
    except EffsimError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The command line. Commands import what they need when they run, so that ``effsim --help`` stays quick."""

from __future__ import annotations

import os
import sys

from ..errors import EffsimError


def main() -> None:
    """Entry point: run a command, turn errors into one line and an exit code.

    0 done; 1 the answer is no (does not fit); 2 bad input.
    """
    from .app import app

    try:
        app(standalone_mode=True)
    except EffsimError as error:
        sys.stderr.write(f"effsim: {error}\n")
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader (head, less) went away; leave nothing for the interpreter to flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)

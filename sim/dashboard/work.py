"""What runs in a process of its own: the long public functions, with their progress sent to the server."""

from __future__ import annotations

import operator
import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from ..errors import EffsimError
from ..spec.confine import confined

_EVERY_S: Final = 0.2
_LEAST_MEMORY: Final = 4 * 2**30
_NICE: Final = 5
Progress = Callable[[Any], Iterable[Any]]


def _serve(arguments: Mapping[str, Any], progress: Progress) -> Any:
    from .serving_kept import Kept

    return Kept.of(_served(arguments, arguments["set"], arguments["requests"], progress))


def _load_curve(arguments: Mapping[str, Any], progress: Progress) -> Any:
    """The same load at several rates: (times the load, what the JSON of each says without its course)."""
    points = []
    for times, change, requests in progress(arguments["loads"]):
        result = _served(arguments, [*arguments["set"], change], requests, iter)
        points.append((times, replace(result, history=(), pools=(), served=None)))
    return points


def _served(arguments: Mapping[str, Any], changes: Any, requests: int, progress: Progress) -> Any:
    from .._api import serve
    from .serving_kept import Counted

    def counted(items: Any) -> Iterable[Any]:
        return progress(Counted(items, requests))

    return serve(arguments["hardware"], arguments["workload"], set=changes, seed=arguments["seed"], progress=counted)


def _plan(arguments: Mapping[str, Any], progress: Progress) -> Any:
    from .._api import plan

    return plan(arguments["plan"], set=arguments["set"], seed=arguments.get("seed"), progress=progress)


def _sweep(arguments: Mapping[str, Any], progress: Progress) -> Any:
    from .._api import sweep

    return sweep(arguments["study"], out=Path(arguments["out"]), progress=progress)


WORK: Final[Mapping[str, Callable[[Mapping[str, Any], Progress], Any]]] = {
    "serve": _serve,
    "load_curve": _load_curve,
    "plan": _plan,
    "sweep": _sweep,
}
"""Kinds of work by name; nothing else can be started. ``arguments["root"]`` is the folder of uploads."""


def work(pipe: Connection, kind: str, arguments: Mapping[str, Any]) -> None:
    """Do a piece of work and send ``("progress", done, total)``, then ``("done", result)`` or ``("failed", why)``."""
    _be_modest()
    _follow_parent()
    try:
        with confined(Path(arguments["root"])):
            result = WORK[kind](arguments, lambda items: _counted(items, pipe))
        pipe.send(("done", result))
    except EffsimError as error:
        pipe.send(("failed", str(error)))
    except MemoryError:
        pipe.send(("failed", "out of memory; ask for less"))
    except BrokenPipeError:
        pass  # nobody listens any more
    except Exception:  # a defect: words for the page, the rest for the server's log
        traceback.print_exc()
        with suppress(OSError):
            pipe.send(("failed", "the work stopped for a reason nobody thought of; the server's log says more"))


def _follow_parent() -> None:
    """End with the server, however that ends; an interruption from the keyboard is the server's to hear."""
    import signal

    from ..explore.processes import end_with_parent

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def _counted(items: Any, pipe: Connection) -> Iterator[Any]:
    """The items, with word of how many have passed."""
    total, last = operator.length_hint(items, 0), 0.0
    for done, item in enumerate(items):
        if time.monotonic() - last > _EVERY_S:
            last = time.monotonic()
            pipe.send(("progress", done, total))
        yield item


def _be_modest() -> None:
    """Leave the processor to the server, and the memory to the machine."""
    with suppress(OSError, AttributeError):
        os.nice(_NICE)
    try:
        import resource
    except ImportError:  # not on this system
        return
    have = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = max(_LEAST_MEMORY, have // 2)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

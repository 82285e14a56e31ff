"""Progress bars: on stderr, on a terminal only, and only for work of more than a second."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sized
from time import monotonic
from typing import TypeVar

T = TypeVar("T")

PATIENCE_S = 1.0


def progress(items: Iterable[T], *, label: str = "working", quiet: bool = False) -> Iterator[T]:
    """Yield *items*; show how far they are once a second has passed."""
    if quiet or not sys.stderr.isatty():
        yield from items
        return
    start, bar, task = monotonic(), None, None
    try:
        for done, item in enumerate(items):
            yield item
            if bar is None and monotonic() - start > PATIENCE_S:
                from rich.console import Console
                from rich.progress import Progress

                bar = Progress(console=Console(stderr=True), transient=True)
                bar.start()
                task = bar.add_task(label, total=len(items) if isinstance(items, Sized) else None)
            if bar is not None and task is not None:
                bar.update(task, completed=done + 1)
    finally:
        if bar is not None:
            bar.stop()

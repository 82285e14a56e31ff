"""Tracks of a device's processors in a trace: the tiles that each worked on, from the simulation inside a kernel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from ..readings.tiles import tile_log
from . import words

if TYPE_CHECKING:
    from ..devices.kernel import Kernel
    from .trace import Run

PS_PER_US: Final = 1e6
MAX_SLICES: Final = 60_000
"""Tiles in one trace; Perfetto opens a file of that size in seconds."""

FIRST_PROCESSOR: Final = 100
"""Thread of processor 0; smaller numbers are streams."""

_US: Final = 1e6


def processor_events(pid: int, runs: Sequence[Run], limit: int = MAX_SLICES) -> Iterator[dict[str, Any]]:
    """Tiles of the first run of each kernel, on one track a processor, inside the kernel's own bar.

    A processor works on one tile at a time: the bar is that work, ``waited_us`` the latency and queueing before it.
    Where a kernel has more tiles than its share of *limit*, those that end first are shown and the bar's ``shown`` says
    how many there are.
    """
    first = [run for run in runs if run.first and run.kernel.classes and run.bar.duration_ps > 0]
    used: set[int] = set()
    budgets = _budgets([run.kernel.tiles for run in first], limit)
    logs: dict[tuple[Kernel, int], list[tuple[int, int, float, float, float]]] = {}
    for run, budget in zip(first, budgets, strict=True):
        key = (run.kernel, budget)
        if key not in logs:
            rows = tile_log(run.kernel, budget)
            logs[key] = [(int(unit), int(kind), float(s), float(w), float(e)) for unit, kind, s, w, e in rows]
        begin, length = run.bar.start_ps / PS_PER_US, run.bar.duration_ps / PS_PER_US
        for unit, kind, since, worked, end in logs[key]:
            # The simulation is in floating seconds, bars in whole picoseconds: the last tile may end a hair late.
            start, stop = worked * _US, min(end * _US, length)
            if stop <= start:
                continue
            used.add(unit)
            args = {"tile class": kind, "waited_us": (worked - since) * _US, "shown": f"{budget} of {run.kernel.tiles}"}
            yield {
                "ph": "X",
                "pid": pid,
                "tid": FIRST_PROCESSOR + unit,
                "name": words.plain(run.bar.name),
                "cat": "tile",
                "ts": begin + start,
                "dur": stop - start,
                "args": args,
            }
    for unit in sorted(used):
        tid = FIRST_PROCESSOR + unit
        yield {"ph": "M", "pid": pid, "tid": tid, "name": "thread_name", "args": {"name": f"processor {unit}"}}
        yield {"ph": "M", "pid": pid, "tid": tid, "name": "thread_sort_index", "args": {"sort_index": tid}}


def _budgets(wanted: Sequence[int], limit: int) -> list[int]:
    """Divide *limit* slices: small kernels get all their tiles, the large ones equal parts of what is left.

    >>> _budgets([10, 500, 900], 410)
    [10, 200, 200]
    """
    out = [0] * len(wanted)
    left = limit
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    for place, index in enumerate(order):
        out[index] = min(wanted[index], left // (len(order) - place))
        left -= out[index]
    return out

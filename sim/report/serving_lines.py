"""Numbers behind the pictures of a served load: distributions, and what there was at evenly spaced times."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ..serving.metrics import ServeResult
from ..serving.request import Request

MOST_POINTS: Final = 400
"""Points of a line."""
WINDOWS: Final = 48
"""Bars of a rate over time."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """What there was at ``times_s``: requests in queues and in batches, fullest and mean cache, replicas by state."""

    times_s: list[float]
    waiting: list[int]
    running: list[int]
    in_flight: list[int]
    cache_mean: list[float]
    cache_most: list[float]
    replicas: dict[str, list[int]]


def distribution(values: Iterable[float]) -> tuple[list[float], list[float]]:
    """Points (value, share of values up to it) of a cumulative distribution, at most :data:`MOST_POINTS`.

    >>> distribution([3.0, 1.0])
    ([1.0, 3.0], [0.5, 1.0])
    """
    held = sorted(values)
    count = len(held)
    if count <= MOST_POINTS:
        ranks = list(range(1, count + 1))
    else:
        ranks = sorted({1 + round(i * (count - 1) / (MOST_POINTS - 1)) for i in range(MOST_POINTS)})
    return [held[rank - 1] for rank in ranks], [rank / count for rank in ranks]


def over_time(result: ServeResult) -> Fleet:
    """The fleet at evenly spaced times up to the last token."""
    end = result.duration_s
    times = [end * i / (MOST_POINTS - 1) for i in range(MOST_POINTS)]
    waiting, running = [0] * len(times), [0] * len(times)
    caches: list[list[float]] = [[] for _ in times]
    for history in result.history:
        stamps = [entry[0] for entry in history]
        for i, time in enumerate(times):
            at = bisect_right(stamps, time) - 1
            if at >= 0:
                waiting[i] += history[at][1]
                running[i] += history[at][2]
                caches[i].append(history[at][3])
    return Fleet(
        times,
        waiting,
        running,
        in_flight(finished(result), times),
        [sum(c) / max(1, n) for c, n in zip(caches, _working(result, times), strict=True)],
        [max(c, default=0.0) for c in caches],
        _replicas(result, times),
    )


def _working(result: ServeResult, times: Sequence[float]) -> list[int]:
    """Replicas that serve or drain."""
    out = [0] * len(times)
    for pool in result.pools:
        stamps = [change[0] for change in pool.changes]
        for i, time in enumerate(times):
            at = bisect_right(stamps, time) - 1
            out[i] += pool.changes[at][1] + pool.changes[at][3] if at >= 0 else 0
    return out


def finished(result: ServeResult) -> Sequence[Request]:
    """Requests that ended, by number."""
    return result.served.requests if result.served is not None else ()


def in_flight(requests: Sequence[Request], times: Sequence[float]) -> list[int]:
    """Requests that have arrived and not ended, at each time."""
    came = sorted(r.arrival_s for r in requests)
    went = sorted(r.finish_s or 0.0 for r in requests)
    return [bisect_right(came, t) - bisect_right(went, t) for t in times]


def _replicas(result: ServeResult, times: Sequence[float]) -> dict[str, list[int]]:
    """Replicas of each pool that serve, and those of all pools that start, drain or are down."""
    out: dict[str, list[int]] = {}
    for pool in result.pools:
        stamps = [change[0] for change in pool.changes]
        at = [bisect_right(stamps, t) - 1 for t in times]
        name = "serving" if len(result.pools) == 1 else f"{pool.name}: serving"
        out[name] = [pool.changes[i][1] if i >= 0 else 0 for i in at]
        for column, state in ((2, "starting"), (3, "draining"), (4, "down")):
            here = [int(pool.changes[i][column]) if i >= 0 else 0 for i in at]
            if any(change[column] for change in pool.changes):
                before = out.get(state, [0] * len(times))
                out[state] = [a + b for a, b in zip(before, here, strict=True)]
    return out


def rates(result: ServeResult) -> tuple[list[float], list[float], list[float]]:
    """(middles of windows, requests a second that ended well, that ended late) over the run."""
    width = result.duration_s / WINDOWS
    good, late = [0] * WINDOWS, [0] * WINDOWS
    for request in finished(result):
        window = min(WINDOWS - 1, int((request.finish_s or 0.0) / width))
        (good if request.within(**result.slo) else late)[window] += 1
    return [width * (i + 0.5) for i in range(WINDOWS)], [n / width for n in good], [n / width for n in late]

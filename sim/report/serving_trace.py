"""Chrome trace events of a served load, for Perfetto: steps of every replica, requests, queues and caches.

A process is a replica with one thread for steps that read prompts and one for steps that only generate; another process
holds the requests as nested asynchronous slices (queue, prompt, transfer, generation). ``ts`` is in microseconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ..serving.fleet import PoolServed
from ..serving.metrics import PoolResult, ServeResult
from ..serving.request import Request
from . import words
from .files import atomic_write_text
from .serving_lines import finished

MOST_REQUESTS: Final = 4000
"""Requests that are drawn; evenly spaced ones of more."""
MOST_COUNTS: Final = 40_000
"""Entries of all histories that are drawn; evenly spaced ones of more."""

_US: Final = 1e6
_REQUESTS: Final = 1
_FIRST: Final = 10
_PROMPTS, _TOKENS = 1, 2
Event = dict[str, Any]


def write_serving_trace(result: ServeResult, path: str | Path) -> None:
    """Write the trace of a load that was served with ``record``.

    Raises:
        DataError: the file cannot be written.
    """
    document = serving_trace(result)
    atomic_write_text(path, json.dumps(document, separators=(",", ":"), allow_nan=False))


def serving_trace(result: ServeResult) -> dict[str, Any]:
    """The trace as plain data."""
    shown, notes = _sample(finished(result), MOST_REQUESTS), list(result.notes)
    if len(shown) < len(finished(result)):
        notes.append(f"{len(shown)} of {len(finished(result))} requests are drawn, evenly spaced")
    events = [*_process(_REQUESTS, "requests", {})]
    for request in shown:
        events += _request(request)
    pools = result.served.pools if result.served is not None else []
    replicas = max(1, sum(len(pool.tallies) for pool in pools))
    history = iter(result.history)
    for pool, about in zip(pools, result.pools, strict=True):
        events += _states(about)
        for place, log in zip(pool.places, pool.logs, strict=True):
            events += _process(_FIRST + place, _name(pool, place), {_PROMPTS: "with prompts", _TOKENS: "generation"})
            events += _steps(_FIRST + place, [] if log is None else log.spans)
            events += _counters(_FIRST + place, _sample(next(history), max(2, MOST_COUNTS // replicas)))
    return {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {
            "tool": "effsim",
            "hardware": result.hardware,
            "workload": result.workload,
            "notes": notes,
        },
    }


def _sample(items: Sequence[Any], most: int) -> list[Any]:
    """All items, or *most* evenly spaced ones with the first and the last."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def _name(pool: PoolServed, place: int) -> str:
    return f"replica {place}" if pool.name == "replicas" else f"replica {place} ({pool.name})"


def _process(pid: int, name: str, threads: dict[int, str]) -> Iterator[Event]:
    yield {"ph": "M", "pid": pid, "name": "process_name", "args": {"name": words.plain(name)}}
    yield {"ph": "M", "pid": pid, "name": "process_sort_index", "args": {"sort_index": pid}}
    for tid, thread in threads.items():
        yield {"ph": "M", "pid": pid, "tid": tid, "name": "thread_name", "args": {"name": thread}}


def _steps(pid: int, spans: Sequence[Any]) -> Iterator[Event]:
    """A bar for every span of steps."""
    for span in spans:
        name = f"{span.steps} step{'s' if span.steps != 1 else ''}"
        yield {
            "ph": "X",
            "pid": pid,
            "tid": _PROMPTS if span.prompts else _TOKENS,
            "name": name,
            "cat": "prefill" if span.prompts else "decode",
            "ts": span.start_s * _US,
            "dur": (span.end_s - span.start_s) * _US,
            "args": {
                "steps": span.steps,
                "prompt tokens": span.prompt_tokens,
                "generated tokens": span.tokens,
                "busy_s": span.busy_s,
            },
        }


def _counters(pid: int, history: Sequence[tuple[float, int, int, float]]) -> Iterator[Event]:
    for time, waiting, running, cache in history:
        yield _counter(pid, "requests", time, {"waiting": waiting, "running": running})
        yield _counter(pid, "KV cache (share of pages)", time, {"used": cache})


def _states(pool: PoolResult) -> Iterator[Event]:
    """Replicas by state, as counters beside the requests."""
    for time, serving, starting, draining, failed in pool.changes:
        values = {"serving": serving, "starting": starting, "draining": draining, "failed": failed}
        yield _counter(_REQUESTS, f"{pool.name}: replicas" if pool.name != "replicas" else "replicas", time, values)


def _counter(pid: int, name: str, time: float, values: Mapping[str, float]) -> Event:
    return {"ph": "C", "pid": pid, "name": name, "ts": time * _US, "args": values}


def _request(request: Request) -> Iterator[Event]:
    """A request with its parts. What a failed replica undid is part of the queue."""
    assert request.finish_s is not None
    assert request.first_token_s is not None
    admitted = min(request.arrival_s if request.admitted_s is None else request.admitted_s, request.first_token_s)
    parts = [("queue", request.arrival_s, admitted), ("prompt", admitted, request.first_token_s)]
    moved = request.moved_s
    if moved is not None and request.first_token_s <= moved <= request.finish_s:
        parts.append(("transfer", request.first_token_s, moved))
    begun = parts[-1][2]
    if request.finish_s > begun:
        parts.append(("generation", begun, request.finish_s))
    args = {
        "prompt": request.prompt,
        "output": request.output,
        "cached": request.cached,
        "replica": request.replica,
        "preemptions": request.preemptions,
        "retries": request.retries,
    }
    yield _async("b", request, f"request {request.index}", request.arrival_s, args)
    for name, start, end in parts:
        if end > start:
            yield _async("b", request, name, start, {})
            yield _async("e", request, name, end, {})
    yield _async("e", request, f"request {request.index}", request.finish_s, {})


def _async(ph: str, request: Request, name: str, time: float, args: dict[str, Any]) -> Event:
    return {
        "ph": ph,
        "cat": "request",
        "id": str(request.index),
        "pid": _REQUESTS,
        "tid": 1,
        "name": name,
        "ts": time * _US,
        "args": args,
    }

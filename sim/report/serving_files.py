"""Tables of a served load as Parquet: requests, queues and caches over time, replicas over time, the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from ..serving.metrics import ServeResult
from ..serving.request import Request
from .files import import_pyarrow, write_tables

TABLES: Final = ("requests", "timeline", "replicas", "run")
SCHEMA: Final = "effsim/serving@1"


def write_serving_parquet(result: ServeResult, directory: str | Path) -> None:
    """Write :data:`TABLES` into *directory*, which appears complete or not at all.

    Raises:
        DataError: pyarrow is missing; the directory holds something else; it cannot be written.
    """
    write_tables(tables(result), directory, SCHEMA)


def tables(result: ServeResult) -> dict[str, Any]:
    """Arrow tables by name. Times are seconds of simulated time, empty where not reached."""
    arrow, _ = import_pyarrow()
    return {
        "requests": _requests(arrow, result),
        "timeline": _timeline(arrow, result),
        "replicas": _replicas(arrow, result),
        "run": arrow.table({name: arrow.array([value]) for name, value in _scalars(result).items()}),
    }


def _requests(arrow: Any, result: ServeResult) -> Any:
    served = result.served
    done: list[Request] = served.requests if served is not None else []
    refused: list[Request] = served.refused if served is not None else []
    every = sorted(done + refused, key=lambda r: r.index)
    ended = [r.finish_s is not None for r in every]
    both = list(zip(every, ended, strict=True))
    whole, number = arrow.int64(), arrow.float64()
    columns = {
        "request": ([r.index for r in every], whole),
        "status": (["completed" if e else "refused" for e in ended], arrow.string()),
        "arrival_s": ([r.arrival_s for r in every], number),
        "prompt_tokens": ([r.prompt for r in every], whole),
        "output_tokens": ([r.output for r in every], whole),
        "cached_tokens": ([r.cached for r in every], whole),
        "priority": ([r.priority for r in every], whole),
        "replica": ([r.replica if e else None for r, e in both], whole),
        "admitted_s": ([r.admitted_s for r in every], number),
        "first_token_s": ([r.first_token_s for r in every], number),
        "moved_s": ([r.moved_s for r in every], number),
        "finish_s": ([r.finish_s for r in every], number),
        "ttft_s": ([r.ttft_s if e else None for r, e in both], number),
        "tpot_s": ([r.tpot_s if e else None for r, e in both], number),
        "e2e_s": ([r.e2e_s if e else None for r, e in both], number),
        "preemptions": ([r.preemptions for r in every], whole),
        "retries": ([r.retries for r in every], whole),
        "within_slo": ([e and r.within(**result.slo) for r, e in both], arrow.bool_()),
    }
    return arrow.table({name: arrow.array(values, kind) for name, (values, kind) in columns.items()})


def _timeline(arrow: Any, result: ServeResult) -> Any:
    """Queue, batch and cache of every replica after its events, at most about 2,000 entries a replica."""
    rows = [(number, *entry) for number, history in enumerate(result.history) for entry in history]
    kinds = (arrow.int64(), arrow.float64(), arrow.int64(), arrow.int64(), arrow.float64())
    names = ("replica", "time_s", "waiting", "running", "cache_fraction")
    return arrow.table({n: arrow.array([row[i] for row in rows], kinds[i]) for i, n in enumerate(names)})


def _replicas(arrow: Any, result: ServeResult) -> Any:
    rows = [(pool.name, *change) for pool in result.pools for change in pool.changes]
    whole = arrow.int64()
    kinds = (arrow.string(), arrow.float64(), whole, whole, whole, whole)
    names = ("pool", "time_s", "serving", "starting", "draining", "failed")
    return arrow.table({n: arrow.array([row[i] for row in rows], kinds[i]) for i, n in enumerate(names)})


def _scalars(result: ServeResult) -> dict[str, Any]:
    """One row: numbers as they are, percentiles as columns of their own, the rest as JSON text."""
    out: dict[str, Any] = {}
    for name, value in result.as_dict().items():
        if name in ("history", "pools"):
            continue
        if name.endswith("_s") and isinstance(value, dict):
            out |= {f"{name[:-2]}_{key}_s": float(v) for key, v in value.items()}
        elif isinstance(value, dict | list):
            out[name] = json.dumps(value)
        elif value is not None or name not in ("ttft_s", "tpot_s", "itl_s", "e2e_s"):
            out[name] = float("nan") if value is None else value
    return out

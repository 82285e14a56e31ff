"""What users felt and what it cost: percentiles, goodput, utilisation, queues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .fleet import Served

PERCENTILES = (50, 90, 95, 99)


def percentiles(values: Sequence[float]) -> dict[str, float] | None:
    """Mean, percentiles (nearest rank) and the largest of *values*; None without any.

    >>> percentiles([1.0, 2.0, 3.0, 4.0])["p50"]
    2.0
    """
    if not values:
        return None
    held = sorted(values)
    out = {"mean": sum(held) / len(held)}
    for p in PERCENTILES:
        out[f"p{p}"] = held[max(0, -(-p * len(held) // 100) - 1)]
    out["max"] = held[-1]
    return out


def weighted_percentiles(counts: Mapping[int, int]) -> dict[str, float] | None:
    """As :func:`percentiles`, of whole microseconds that occur so often; in seconds."""
    total = sum(counts.values())
    if not total:
        return None
    out = {"mean": sum(k * n for k, n in counts.items()) / total * 1e-6}
    held, reached, wanted = sorted(counts), 0, list(PERCENTILES)
    for key in held:
        reached += counts[key]
        while wanted and reached * 100 >= wanted[0] * total:
            out[f"p{wanted.pop(0)}"] = key * 1e-6
    out["max"] = held[-1] * 1e-6
    return out


@dataclass(frozen=True, slots=True)
class PoolResult:
    """Replicas of one kind.

    Attributes:
        name: ``replicas``, or ``prefill`` and ``decode``.
        replicas, most: at the start, and most that served at once; ``devices``: of one replica.
        replica_seconds: for which devices were held: while they started, served, drained or were down.
        utilisation: share of these spent in steps.
        scale_outs, scale_ins: replicas added and given back.
        changes: (time, serving, starting, draining, failed) from then on.
    """

    name: str
    hardware: str
    parallelism: Mapping[str, int]
    replicas: int
    most: int
    devices: int
    cache_tokens: int
    replica_seconds: float
    utilisation: float
    steps: int
    scale_outs: int
    scale_ins: int
    cost_usd: float | None
    changes: Sequence[tuple[float, int, int, int, int]]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        names = ("time_s", "serving", "starting", "draining", "failed")
        out: dict[str, Any] = {n: getattr(self, n) for n in self.__slots__ if n != "changes"}
        out["changes"] = [dict(zip(names, change, strict=True)) for change in self.changes]
        return out


@dataclass(frozen=True, slots=True)
class ServeResult:
    """Result of ``effsim serve``. Times in seconds; ``history`` is (time, waiting, running, share of pages in use).

    ``devices`` are most that were held at once, ``utilisation`` is over the time for which replicas were held.
    ``lost_tokens`` were in caches of replicas that failed. ``served``, what happened in full, is not in the JSON.
    """

    hardware: str
    workload: str
    engine: str
    devices: int
    replicas: int
    parallelism: Mapping[str, int]
    requests: int
    completed: int
    refused: int
    duration_s: float
    ttft_s: Mapping[str, float] | None
    tpot_s: Mapping[str, float] | None
    itl_s: Mapping[str, float] | None
    e2e_s: Mapping[str, float] | None
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    recomputed_tokens: int
    preemptions: int
    evicted_blocks: int
    goodput_requests_per_s: float
    slo: Mapping[str, float]
    slo_attainment: float
    utilisation: float
    cache_tokens: int
    peak_cache_fraction: float
    steps: int
    cost_usd: float | None
    history: Sequence[Sequence[tuple[float, int, int, float]]]
    notes: tuple[str, ...] = ()
    energy_j: float | None = None
    device_seconds: float = 0.0
    pools: Sequence[PoolResult] = ()
    failures: int = 0
    retries: int = 0
    lost_tokens: int = 0
    transfer: Mapping[str, Any] | None = None
    served: Served | None = None

    @property
    def output_tokens_per_s(self) -> float:
        """Tokens generated a second, over the whole run."""
        return self.output_tokens / self.duration_s if self.duration_s else 0.0

    def as_dict(self) -> dict[str, Any]:
        """The JSON of ``effsim serve --json``."""
        names = [n for n in self.__slots__ if n not in ("history", "notes", "pools", "served")]
        out: dict[str, Any] = {"schema": "effsim/serving@1"} | {n: getattr(self, n) for n in names}
        out["output_tokens_per_s"] = self.output_tokens_per_s
        out["requests_per_s"] = self.completed / self.duration_s if self.duration_s else 0.0
        out["history"] = [
            [{"time_s": t, "waiting": w, "running": r, "cache_fraction": c} for t, w, r, c in replica]
            for replica in self.history
        ]
        out["pools"] = [pool.as_dict() for pool in self.pools]
        out["notes"] = list(self.notes)
        return out


def latencies(served: Served, ttft_slo_s: float, tpot_slo_s: float) -> dict[str, Any]:
    """Latency fields of a result: percentiles, and how many requests kept both promises."""
    tpot = [t for t in (r.tpot_s for r in served.requests) if t is not None]
    good = sum(r.within(ttft_slo_s, tpot_slo_s) for r in served.requests)
    gaps: dict[int, int] = {}
    for tally in served.tallies:
        for gap, count in tally.gaps.items():
            gaps[gap] = gaps.get(gap, 0) + count
    done = len(served.requests)
    return {
        "ttft_s": percentiles([r.ttft_s for r in served.requests]),
        "tpot_s": percentiles(tpot),
        "itl_s": weighted_percentiles(gaps),
        "e2e_s": percentiles([r.e2e_s for r in served.requests]),
        "goodput_requests_per_s": good / served.end_s if served.end_s else 0.0,
        "slo_attainment": good / (done + len(served.refused)) if done + len(served.refused) else 1.0,
    }

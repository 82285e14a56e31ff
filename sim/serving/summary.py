"""From what happened to the result that users see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..spec.serving import ServingSpec
from ..spec.workload import WorkloadSpec
from .energy import energy_j
from .fleet import FleetPlan, PoolServed, Served
from .metrics import PoolResult, ServeResult, latencies, percentiles
from .replica_kind import ReplicaKind

History = Sequence[tuple[float, int, int, float]]


def summarise(
    hardware: str,
    workload: WorkloadSpec,
    serving: ServingSpec,
    plan: FleetPlan,
    kinds: Sequence[ReplicaKind],
    served: Served,
) -> ServeResult:
    """The result of a simulation; *kinds* are those of its pools."""
    starts = [plan.replicas] + ([plan.decode.replicas] if plan.decode is not None else [])
    pools = [_pool(pool, kind, start, plan.page) for pool, kind, start in zip(served.pools, kinds, starts, strict=True)]
    slo = {"ttft_s": float(serving.slo.ttft), "tpot_s": float(serving.slo.tpot)}
    histories = [h for pool, kind in zip(served.pools, kinds, strict=True) for h in _histories(pool, kind)]
    held = sum(pool.replica_seconds for pool in pools)
    prices = [pool.cost_usd for pool in pools]
    return ServeResult(
        hardware=hardware,
        workload=workload.name,
        engine=workload.engine,
        devices=_most_devices(served, kinds),
        replicas=sum(pool.most for pool in pools),
        parallelism=kinds[0].degrees.shown(),
        requests=len(served.requests) + len(served.refused),
        completed=len(served.requests),
        refused=len(served.refused),
        duration_s=served.end_s,
        input_tokens=sum(r.prompt for r in served.requests),
        output_tokens=sum(r.output for r in served.requests),
        cached_tokens=sum(r.cached for r in served.requests),
        recomputed_tokens=sum(t.recomputed_tokens for t in served.tallies),
        preemptions=sum(t.preemptions for t in served.tallies),
        evicted_blocks=served.evicted_blocks,
        slo=slo,
        utilisation=sum(t.busy_s for t in served.tallies) / held if held else 0.0,
        cache_tokens=pools[-1].cache_tokens,
        peak_cache_fraction=max(
            t.most_pages / kind.pages for pool, kind in zip(served.pools, kinds, strict=True) for t in pool.tallies
        ),
        steps=sum(t.steps for t in served.tallies),
        cost_usd=None if None in prices else sum(p for p in prices if p is not None),
        history=histories,
        notes=tuple(_notes(served, plan, serving)),
        energy_j=energy_j(kinds, served),
        device_seconds=sum(pool.replica_seconds * pool.devices for pool in pools),
        pools=pools,
        failures=served.failures,
        retries=served.retries,
        lost_tokens=served.lost_tokens,
        transfer=_transfer(served, plan),
        served=served,
        **latencies(served, slo["ttft_s"], slo["tpot_s"]),
    )


def _pool(pool: PoolServed, kind: ReplicaKind, start: int, page: int) -> PoolResult:
    price = kind.usd_per_hour
    busy = sum(t.busy_s for t in pool.tallies)
    return PoolResult(
        name=pool.name,
        hardware=kind.machine.name,
        parallelism=kind.degrees.shown(),
        replicas=start,
        most=max(serving for _, serving, *_ in pool.changes),
        devices=kind.devices,
        cache_tokens=kind.pages * page,
        replica_seconds=pool.paid_s,
        utilisation=busy / pool.paid_s if pool.paid_s else 0.0,
        steps=sum(t.steps for t in pool.tallies),
        scale_outs=pool.outs,
        scale_ins=pool.ins,
        cost_usd=None if price is None else price * pool.paid_s / 3600.0,
        changes=pool.changes,
    )


def _histories(pool: PoolServed, kind: ReplicaKind) -> list[History]:
    return [[(t, w, r, used / kind.pages) for t, w, r, used in tally.history] for tally in pool.tallies]


def _most_devices(served: Served, kinds: Sequence[ReplicaKind]) -> int:
    """Most devices held at once, in any state."""
    held, most = [0] * len(kinds), 0
    changes = sorted((c[0], i, sum(c[1:])) for i, pool in enumerate(served.pools) for c in pool.changes)
    for _, number, count in changes:
        held[number] = count * kinds[number].devices
        most = max(most, sum(held))
    return most


def _transfer(served: Served, plan: FleetPlan) -> dict[str, Any] | None:
    """What moved between the pools; ``wait_s``: from the end of a prompt to its cache's arrival."""
    tally = served.transfers
    if tally is None or plan.decode is None:
        return None
    ends = sum(pool.paid_s for pool in served.pools if pool.name == "prefill")
    return {
        "transfers": tally.transfers,
        "bytes": tally.bytes_moved,
        "bytes_per_s": plan.decode.bytes_per_s,
        "latency_s": plan.decode.latency_s,
        "link_utilisation": tally.used_s / ends if ends else 0.0,
        "wait_s": percentiles(tally.waits),
    }


def _notes(served: Served, plan: FleetPlan, serving: ServingSpec) -> list[str]:
    out = []
    fetched = sum(t.fetched_tokens for t in served.tallies)
    if fetched:
        tiers = ", ".join(tier.name for tier in serving.cache.offload)
        out.append(f"{fetched} tokens of prompts were fetched from {tiers}")
    drafted = sum(t.drafted for t in served.tallies)
    if drafted:
        out.append(f"{sum(t.accepted for t in served.tallies)} of {drafted} drafted tokens were accepted")
    if served.refused:
        tokens = plan.page * min([plan.pages] + ([plan.decode.pages] if plan.decode is not None else []))
        out.append(f"{len(served.refused)} requests are longer than the cache of {tokens} tokens")
    return out

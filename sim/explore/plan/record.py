"""A plan's answer as plain mappings: ``effsim/plan@1``, and the rows of its tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .explain import Explanation
from .screen import Screened
from .work import Found

if TYPE_CHECKING:
    from .plan import Answer, PlanResult

SCHEMA = "effsim/plan@1"


def plan_record(result: PlanResult) -> dict[str, Any]:
    """What ``effsim plan --json`` prints."""
    spec, answer = result.plan, result.answer
    winner = answer.winner
    return {
        "schema": SCHEMA,
        "plan": spec.name,
        "workload": spec.workload,
        "solved": result.solved,
        "objective": spec.objective,
        "seed": result.seed,
        "load": result.load,
        "slo": [{"latency": a, "percentile": b, "limit_s": c} for a, b, c in spec.slo.limits()],
        "headroom_asked": float(spec.headroom),
        "winner": None if winner is None else fleet_record(winner),
        "runners_up": [fleet_record(f) for f in answer.fleets[1:]],
        "unpriced": [fleet_record(f) for f in answer.unpriced if f is not winner],
        "missed": [fleet_record(f) for f in answer.missed],
        "proven": answer.proven,
        "simulations": answer.simulations,
        "explanation": None if result.explanation is None else explanation_record(result.explanation),
        "nearest_miss": None if result.nearest is None else explanation_record(result.nearest),
        "whatif": [_changed(c.name, c.answer, answer) for c in result.whatif],
        "screened": [screened_record(s) for s in answer.screened],
        "notes": list(result.notes),
    }


def fleet_record(found: Found) -> dict[str, Any]:
    """A fleet: what it is, what it costs, how it keeps the promises."""
    c, m = found.configuration, found.measured
    p, precision, serving = c.parallelism, c.workload.precision, c.workload.serving
    assert serving is not None
    replicas = found.shown
    return {
        "fleet": c.label,
        "device": c.device,
        "within_slo": found.replicas is not None,
        "replicas": replicas,
        "devices_per_replica": c.replica_devices,
        "devices": None if replicas is None else c.bought(replicas),
        "pools": None if replicas is None else [pool.as_dict() for pool in c.pools(replicas)],
        "parallelism": {n: int(getattr(p, n)) for n in ("tensor", "pipeline", "data", "expert", "context")},
        "precision": {
            "activations": precision.activations,
            "weights": precision.weights or precision.activations,
            "kv_cache": precision.kv_cache or precision.activations,
        },
        "scheduler": {
            "policy": serving.scheduler.policy,
            "max_sequences": int(serving.scheduler.max_sequences),
            "max_tokens": int(serving.scheduler.max_tokens),
        },
        "usd_per_device_hour": c.price,
        "usd_per_hour": None if replicas is None else c.usd_per_hour(replicas),
        "usd_per_million_output_tokens": found.usd_per_million("output"),
        "usd_per_million_tokens": found.usd_per_million("all"),
        "power_w": found.power_w,
        "energy_j_per_output_token": None if m is None else m.joules_per_output_token,
        "measured": None if m is None else m.as_dict(),
        "at_headroom": None if found.at_headroom is None else found.at_headroom.as_dict(),
    }


def screened_record(s: Screened) -> dict[str, Any]:
    """One configuration as the screening saw it."""
    return {
        "fleet": s.configuration.label,
        "device": s.configuration.device,
        "status": s.status,
        "message": s.message,
        "least_replicas": s.least if s.status == "ok" else None,
        "estimated_replicas": s.estimated if s.status == "ok" else None,
        "estimated_usd_per_hour": s.usd_per_hour if s.status == "ok" else None,
        "estimated_ttft_s": s.estimated_ttft_s,
        "estimated_tpot_s": s.estimated_tpot_s,
        "batch": s.batch,
        "alone_over_promised": s.floor,
        "cache_tokens": s.cache_tokens,
    }


def explanation_record(e: Explanation) -> dict[str, Any]:
    """What binds, and what changes would buy."""
    return {
        "fleet": fleet_record(e.fleet),
        "most_load": e.load,
        "breaks_first": e.promise,
        "binds": e.binds or None,
        "why": e.why,
        "upgrades": [u.as_dict() for u in e.upgrades],
        "curve": [
            {"load": m.load, "within_slo": m.holds, "promises": {p.name: p.value_s for p in m.promises}}
            for m in sorted(e.curve, key=lambda m: m.load)
        ],
    }


def _changed(name: str, answer: Answer, before: Answer) -> dict[str, Any]:
    winner = answer.winner
    row: dict[str, Any] = {"name": name, "solved": winner is not None, "winner": None}
    if winner is not None:
        row["winner"] = fleet_record(winner)
        first = None if before.winner is None else before.winner.usd_per_hour
        now = winner.usd_per_hour
        row["usd_per_hour_over_before"] = now / first if now is not None and first else None
    elif answer.missed:
        row["nearest"] = fleet_record(answer.missed[0])
    return row

"""From files to a served load: the replica's memory, its step costs, the requests, the simulation, the result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..devices.registry import Machine
from ..errors import DoesNotFitError, UnsupportedError
from ..program.memory import Capacity
from ..program.place import StepGraph, step_graphs
from ..program.program import Degrees, Program
from ..spec.engine import EngineSpec
from ..spec.serving import OffloadSpec, ServingSpec
from ..spec.workload import WorkloadSpec
from .arrivals import requests as random_requests
from .fleet import FleetPlan, Served, serve_requests
from .metrics import ServeResult, latencies
from .replica import Scheduling
from .request import Request
from .speculation import Acceptance, draft_graphs, speculative_cost
from .step_cost import Costs, StepCost
from .tiers import TierPlan
from .traces import read_trace

NOTES_A_RUN = 2000
"""About so many entries of queue and cache history a replica."""
SAMPLE_TOKENS = 4096
"""Context at which the cache of a token is measured."""


@dataclass(frozen=True, slots=True)
class CacheRoom:
    """Bytes a replica's device has for caches, and what a token and a sequence take of them."""

    bytes_free: float
    token_bytes: float
    sequence_bytes: float


def cache_room(graphs: StepGraph, capacity: Capacity, fraction: float, most_tokens: int) -> CacheRoom:
    """What is left of *fraction* of a device's memory after weights and the activations of the largest step.

    Raises:
        DoesNotFitError: nothing is left.
    """
    step = graphs("context", 1, most_tokens, most_tokens, 1)
    long, short = (graphs("generation", 1, 1, n, 1) for n in (SAMPLE_TOKENS, 1))
    # Blocks reuse their activations: the widest operator's input and output are alive at once.
    widest = max(node.op.input_bytes + node.op.output_bytes for _, node, _ in step.walk())
    have = fraction * capacity.total_bytes - capacity.reserved_bytes
    free = have - step.weight_bytes - widest
    if free <= 0.0:
        raise DoesNotFitError(
            f"{step.weight_bytes / 2**30:.4g} GiB of weights and {widest / 2**30:.3g} GiB of activations leave no room "
            f"for a cache in {have / 2**30:.4g} GiB of {capacity.device}; use more devices or narrower weights"
        )
    token = (long.cache_bytes - short.cache_bytes) / (SAMPLE_TOKENS - 1)
    return CacheRoom(free, token, short.state_bytes)


def simulate(
    machine: Machine,
    workload: WorkloadSpec,
    engine: EngineSpec,
    capacity: Capacity,
    program: Program,
    base: Path,
    *,
    seed: int = 0,
    progress: Callable[[Iterator[Request]], Iterable[Request]] = iter,
) -> ServeResult:
    """Serve the load of *workload* on replicas divided as *program* is.

    Raises:
        UnsupportedError: pipelines, and systems that mix devices, which are not served yet.
        DoesNotFitError: no room for a cache, or more replicas than devices.
    """
    if workload.task == "training_step":
        raise UnsupportedError(
            f"{workload.name}: a training step is not served; expected task prefill, decode or generate"
        )
    serving = workload.serving or ServingSpec()
    degrees, device = replace(program.degrees, data=1, microbatches=1), machine.device
    if degrees.pipeline > 1 or capacity.placement is not None:
        raise UnsupportedError("serving over pipeline stages or mixed devices is not modelled; use tensor parallelism")
    replicas = int(serving.replicas)
    if capacity.devices > 1 and replicas * degrees.devices > capacity.devices:
        raise DoesNotFitError(
            f"{replicas} replicas of {degrees.devices} devices need {replicas * degrees.devices}; "
            f"{capacity.device} joins {capacity.devices}"
        )
    if serving.sampling == "filtered" and engine.filtered_passes is not None:
        engine = engine.model_copy(update={"sampling_passes": engine.filtered_passes})
    graphs = step_graphs(workload, engine, capacity, degrees, base)
    arrivals, block = _load(serving, workload, base, seed)
    scheduling = _scheduling(serving)
    room = cache_room(graphs, capacity, float(serving.cache.memory_fraction), scheduling.most_tokens)
    page, speculative = int(serving.cache.page), serving.speculative
    drafting = speculative and draft_graphs(speculative, workload, engine, capacity, degrees, base)
    if drafting:
        fraction = float(serving.cache.memory_fraction)
        room = _beside(room, cache_room(drafting, capacity, fraction, scheduling.most_tokens), capacity, fraction)
    slots = _slots(room, page, scheduling, workload)
    ends = {
        "most_tokens": scheduling.most_tokens,
        "most_sequences": slots.most_sequences,
        "longest": max(2 * page, min(slots.pages * page, 2**20)),
    }
    host = program.host
    cost: Costs
    if speculative is None:
        cost = StepCost(graphs, device, engine, host, **ends)
    else:
        cost = speculative_cost(speculative, graphs, drafting or None, device, engine, host, ends, base)
        scheduling = replace(scheduling, acceptance=Acceptance.of(speculative.chances, seed))
    scheduling = replace(
        scheduling,
        most_sequences=slots.most_sequences,
        plans_ahead=host.asynchronous,
        on_the_way_s=host.per_arrival_s / device.launch.host_speed,
    )
    block = (block or int(serving.cache.block)) if serving.cache.prefix and not room.sequence_bytes else 0
    scheduling = replace(
        scheduling,
        tiers=tuple(_tier(tier, block * room.token_bytes) for tier in serving.cache.offload) if block else (),
        state_swap_s=room.sequence_bytes / float(serving.cache.swap_bandwidth),
        blocking_fetch=serving.cache.fetch == "blocking",
    )
    plan = FleetPlan(
        replicas=replicas,
        pages=slots.pages,
        page=page,
        block=block,
        routing=serving.routing,
        swap_page_s=page * room.token_bytes / float(serving.cache.swap_bandwidth),
        note_every_s=_span(serving) / NOTES_A_RUN,
    )
    served = serve_requests(arrivals, cost, scheduling, plan, progress)
    return _result(machine, workload, serving, degrees, plan, served, device.price_usd_per_hour)


def _tier(tier: OffloadSpec, block_bytes: float) -> TierPlan:
    """A tier in blocks of one device's share."""
    return TierPlan(
        tier.name,
        int(float(tier.capacity) // block_bytes),
        block_bytes / float(tier.bandwidth),
        float(tier.latency),
    )


def _beside(target: CacheRoom, draft: CacheRoom, capacity: Capacity, fraction: float) -> CacheRoom:
    """What is left beside a draft model, whose cache holds the same tokens.

    Raises:
        DoesNotFitError: nothing is left.
    """
    taken = fraction * capacity.total_bytes - capacity.reserved_bytes - draft.bytes_free
    if target.bytes_free <= taken:
        raise DoesNotFitError(
            f"{taken / 2**30:.4g} GiB of the draft model do not fit the {target.bytes_free / 2**30:.4g} GiB that "
            f"{capacity.device} has left beside the model it drafts for"
        )
    return CacheRoom(
        target.bytes_free - taken,
        target.token_bytes + draft.token_bytes,
        target.sequence_bytes + draft.sequence_bytes,
    )


@dataclass(frozen=True, slots=True)
class _Slots:
    pages: int
    most_sequences: int


def _slots(room: CacheRoom, page: int, scheduling: Scheduling, workload: WorkloadSpec) -> _Slots:
    """Pages and sequences that fit: states of recurrent layers take their part first."""
    most = scheduling.most_sequences
    if room.sequence_bytes:
        most = min(most, int(room.bytes_free // room.sequence_bytes))
        if most < 1:
            raise DoesNotFitError(f"{workload.name}: no room for the state of one sequence")
    left = room.bytes_free - most * room.sequence_bytes
    # Without a cache (recurrent models) pages cost nothing: what limits is the number of states.
    pages = int(left // (page * room.token_bytes)) if room.token_bytes else 2**40 // page
    if pages < 1:
        raise DoesNotFitError(f"{workload.name}: no room for one page of cache; fewer sequences or narrower weights")
    return _Slots(pages, most)


def _scheduling(serving: ServingSpec) -> Scheduling:
    s = serving.scheduler
    return Scheduling(s.policy, s.order, int(s.max_sequences), int(s.max_tokens), s.preemption, float(serving.slo.tpot))


def _span(serving: ServingSpec) -> float:
    """About how long the load lasts."""
    a = serving.arrivals
    if a.process == "trace" or (a.duration is None and a.requests is None):
        return 3600.0
    spans = [float(a.duration)] if a.duration is not None else []
    if a.requests is not None:
        spans.append(int(a.requests) / float(a.rate))
    return min(spans)


def _load(serving: ServingSpec, workload: WorkloadSpec, base: Path, seed: int) -> tuple[Iterable[Request], int]:
    """Requests, and the tokens a block name of theirs stands for (0: the cache's own)."""
    arrivals = serving.arrivals
    if arrivals.trace is None:
        return random_requests(serving, int(workload.prompt), int(workload.generate), seed), 0
    path = Path(arrivals.trace)
    if not path.is_absolute() and (base / path).is_file():
        path = base / path
    found, block = read_trace(path, None if arrivals.requests is None else int(arrivals.requests))
    for request in found:
        request.arrival_s /= float(arrivals.speed)
    if arrivals.duration is not None:
        found = [r for r in found if r.arrival_s <= float(arrivals.duration)]
    return found, block


def _result(
    machine: Machine,
    workload: WorkloadSpec,
    serving: ServingSpec,
    degrees: Degrees,
    plan: FleetPlan,
    served: Served,
    price: float | None,
) -> ServeResult:
    devices = degrees.devices * plan.replicas
    busy = sum(t.busy_s for t in served.tallies)
    slo = {"ttft_s": float(serving.slo.ttft), "tpot_s": float(serving.slo.tpot)}
    histories: list[Sequence[tuple[float, int, int, float]]] = [
        [(t, w, r, used / plan.pages) for t, w, r, used in tally.history] for tally in served.tallies
    ]
    notes = []
    fetched = sum(t.fetched_tokens for t in served.tallies)
    if fetched:
        notes.append(
            f"{fetched} tokens of prompts were fetched from {', '.join(t.name for t in serving.cache.offload)}"
        )
    drafted = sum(t.drafted for t in served.tallies)
    if drafted:
        notes.append(f"{sum(t.accepted for t in served.tallies)} of {drafted} drafted tokens were accepted")
    if served.refused:
        notes.append(f"{len(served.refused)} requests are longer than the cache of {plan.pages * plan.page} tokens")
    return ServeResult(
        hardware=machine.name,
        workload=workload.name,
        engine=workload.engine,
        devices=devices,
        replicas=plan.replicas,
        parallelism=degrees.shown(),
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
        utilisation=busy / (plan.replicas * served.end_s) if served.end_s else 0.0,
        cache_tokens=plan.pages * plan.page,
        peak_cache_fraction=max((h[3] for one in histories for h in one), default=0.0),
        steps=sum(t.steps for t in served.tallies),
        cost_usd=None if price is None else price * devices * served.end_s / 3600.0,
        history=histories,
        notes=tuple(notes),
        **latencies(served, slo["ttft_s"], slo["tpot_s"]),
    )

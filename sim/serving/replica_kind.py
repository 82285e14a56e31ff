"""One kind of replica: the devices it is divided over, what its memory holds, how long its steps take."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ..devices.registry import Machine
from ..errors import DoesNotFitError, UnsupportedError
from ..program.memory import Capacity, stage
from ..program.place import StepGraph, step_graphs
from ..program.program import Degrees, Program
from ..spec.engine import EngineSpec
from ..spec.serving import OffloadSpec, ServingSpec
from ..spec.workload import WorkloadSpec
from .scheduling import Scheduling
from .speculation import Acceptance, draft_graphs, speculative_cost
from .step_cost import Costs, StepCost
from .tiers import TierPlan

SAMPLE_TOKENS = 4096
"""Context at which the cache of a token is measured."""


@dataclass(frozen=True, slots=True)
class CacheRoom:
    """Bytes a replica's device has for caches, and what a token and a sequence take of them."""

    bytes_free: float
    token_bytes: float
    sequence_bytes: float


def cache_room(
    graphs: StepGraph, capacity: Capacity, fraction: float, most_tokens: int, degrees: Degrees | None = None
) -> CacheRoom:
    """What is left of *fraction* of a device's memory after weights and the activations of the largest step.

    Pipeline stages divide weights and caches, data ranks the sequences (*degrees*).

    Raises:
        DoesNotFitError: nothing is left.
    """
    step = graphs("context", 1, most_tokens, most_tokens, 1)
    long, short = (graphs("generation", 1, 1, n, 1) for n in (SAMPLE_TOKENS, 1))
    # Blocks reuse their activations: the widest operator's input and output are alive at once.
    widest = max(node.op.input_bytes + node.op.output_bytes for _, node, _ in step.walk())
    have = fraction * capacity.total_bytes - capacity.reserved_bytes
    degrees = degrees or Degrees()
    weights, parts = stage(step, degrees.pipeline).weight_bytes, degrees.pipeline * degrees.data
    free = have - weights - widest
    if free <= 0.0:
        raise DoesNotFitError(
            f"{weights / 2**30:.4g} GiB of weights and {widest / 2**30:.3g} GiB of activations leave no room "
            f"for a cache in {have / 2**30:.4g} GiB of {capacity.device}; use more devices or narrower weights"
        )
    token = (long.cache_bytes - short.cache_bytes) / (SAMPLE_TOKENS - 1)
    return CacheRoom(free, token / parts, short.state_bytes / parts)


def replica_degrees(degrees: Degrees) -> tuple[Degrees, int]:
    """Degrees of one replica, and how many independent ones the data ranks are.

    Data ranks that share experts step together: they are one replica. Others have nothing to do with each other.

    >>> replica_degrees(Degrees(tensor=2, data=4, expert=2))[1]
    4
    >>> replica_degrees(Degrees(data=8, expert=8))
    (Degrees(tensor=1, pipeline=1, data=8, expert=8, microbatches=1, context=1), 1)
    """
    coupled = max(1, degrees.expert // degrees.tensor)
    return replace(degrees, data=coupled, microbatches=1), degrees.data // coupled


@dataclass(frozen=True, slots=True)
class ReplicaKind:
    """Replicas that are all alike. Bytes are those of one device.

    Attributes:
        cost: of steps, with those of drafts where decoding is speculative; ``plain_cost``: without.
        block: tokens that prompts share together; 0: they share none.
        layers: parts of its cache that are complete one after another.
        copies: how many of them one replica that was asked for stands for: data ranks that share nothing.
    """

    machine: Machine
    capacity: Capacity
    degrees: Degrees
    cost: Costs
    plain_cost: StepCost
    scheduling: Scheduling
    room: CacheRoom
    pages: int
    block: int
    swap_page_s: float
    weight_bytes: float
    layers: int
    copies: int = 1

    @property
    def devices(self) -> int:
        """Of one replica."""
        return self.degrees.devices

    @property
    def usd_per_hour(self) -> float | None:
        """Price of one replica an hour."""
        price = self.machine.price_usd_per_hour
        return None if price is None else price * self.devices


@dataclass(frozen=True, slots=True)
class Deployment:
    """What replicas are made from: a workload on a machine, divided as *program* is.

    Attributes:
        serving: of the workload, or what is tried instead.
        base: folder of the workload's file.
        block: tokens of a block that prompts share, where the load says so (0: as the workload does).
        seed: of the drafts that are accepted.
    """

    machine: Machine
    workload: WorkloadSpec
    serving: ServingSpec
    engine: EngineSpec
    capacity: Capacity
    program: Program
    base: Path
    block: int = 0
    seed: int = 0


def kind_of_replica(deployment: Deployment) -> ReplicaKind:
    """Replicas of a deployment.

    Raises:
        UnsupportedError: systems that mix devices.
        DoesNotFitError: no room for a cache.
    """
    machine, workload, serving = deployment.machine, deployment.workload, deployment.serving
    engine, capacity, program, base = deployment.engine, deployment.capacity, deployment.program, deployment.base
    degrees, copies = replica_degrees(program.degrees)
    if capacity.placement is not None:
        raise UnsupportedError("serving on mixed devices is not modelled; use a system of one kind of device")
    if serving.sampling == "filtered" and engine.filtered_passes is not None:
        engine = engine.model_copy(update={"sampling_passes": engine.filtered_passes})
    graphs = step_graphs(workload, engine, capacity, degrees, base)
    scheduling = _scheduling(serving)
    fraction, page, speculative = float(serving.cache.memory_fraction), int(serving.cache.page), serving.speculative
    room = cache_room(graphs, capacity, fraction, scheduling.most_tokens, degrees)
    drafting = speculative and draft_graphs(speculative, workload, engine, capacity, degrees, base)
    if drafting:
        room = _beside(
            room, cache_room(drafting, capacity, fraction, scheduling.most_tokens, degrees), capacity, fraction
        )
    slots = _slots(room, page, scheduling, workload)
    ends = {
        "most_tokens": scheduling.most_tokens,
        "most_sequences": slots.most_sequences,
        "longest": max(2 * page, min(slots.pages * page, 2**20)),
    }
    host, cost = program.host, StepCost(graphs, machine.device, engine, program.host, **ends)
    costs: Costs = cost
    if speculative is not None:
        costs = speculative_cost(speculative, graphs, drafting or None, machine.device, engine, host, ends, base)
    # States are not shared between prompts, so blocks of recurrent models are not kept.
    block = (deployment.block or int(serving.cache.block)) if serving.cache.prefix and not room.sequence_bytes else 0
    scheduling = replace(
        scheduling,
        most_sequences=slots.most_sequences,
        acceptance=None if speculative is None else Acceptance.of(speculative.chances, deployment.seed),
        tiers=tuple(_tier(tier, block * room.token_bytes) for tier in serving.cache.offload) if block else (),
        state_swap_s=room.sequence_bytes / float(serving.cache.swap_bandwidth),
        blocking_fetch=serving.cache.fetch == "blocking",
        plans_ahead=host.asynchronous,
        on_the_way_s=host.per_arrival_s / machine.device.launch.host_speed,
    )
    one = graphs("generation", 1, 1, 1, 1)
    return ReplicaKind(
        machine,
        capacity,
        degrees,
        costs,
        cost,
        scheduling,
        room,
        slots.pages,
        block,
        page * room.token_bytes / float(serving.cache.swap_bandwidth),
        stage(one, degrees.pipeline).weight_bytes,
        max(1, sum(count for _, node, count in one.walk() if node.op.cache_bytes)),
        copies,
    )


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

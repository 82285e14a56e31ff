"""Replicas behind a router, from the first arrival to the last token: they may fail, grow in number, share the work."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import UnsupportedError
from .autoscaling import Scaler, ScalingPlan
from .disaggregated import DecodePool, Transfers, TransferTally
from .failures import FailurePlan, Failures
from .kv_pool import KvPool
from .replica import Replica
from .replica_pool import Change, Member, ReplicaPool, State
from .request import Request
from .routing import Router
from .scheduling import Scheduling, Tally
from .step_cost import Costs
from .step_log import StepLog

if TYPE_CHECKING:
    import simpy


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """Replicas and their caches.

    Attributes:
        replicas: at the start.
        pages, page, block: see :class:`KvPool`.
        routing: see :class:`Router`.
        swap_page_s, note_every_s: see :class:`Replica`.
        decode: where it is given, the replicas above only read prompts, and these continue.
        failures: how replicas fail; None: never.
        scaling: how every pool is scaled; None: not at all.
        record: keep a log of steps.
    """

    replicas: int
    pages: int
    page: int
    block: int
    routing: str
    swap_page_s: float
    note_every_s: float
    decode: DecodePool | None = None
    failures: FailurePlan | None = None
    scaling: ScalingPlan | None = None
    record: bool = False


@dataclass(frozen=True, slots=True)
class PoolServed:
    """What the replicas of one kind did: ``places`` are their numbers, ``changes`` how many there were over time."""

    name: str
    places: range
    tallies: list[Tally]
    logs: list[StepLog | None]
    changes: list[Change]
    paid_s: float
    outs: int = 0
    ins: int = 0


@dataclass(frozen=True, slots=True)
class Served:
    """What happened: every request with its times, those refused, and what each replica did."""

    requests: list[Request]
    refused: list[Request]
    tallies: list[Tally]
    end_s: float
    evicted_blocks: int
    pools: list[PoolServed] = field(default_factory=list)
    transfers: TransferTally | None = None
    failures: int = 0
    retries: int = 0
    lost_tokens: int = 0


class Fleet:
    """One simulation: pools of replicas, and the way of requests through them."""

    def __init__(self, env: simpy.Environment, cost: Costs, scheduling: Scheduling, plan: FleetPlan, seed: int) -> None:
        self.env, self.plan = env, plan
        self.upcoming_s = math.inf
        self.expected = math.inf
        self.ended: list[Request] = []
        self.refused: list[Request] = []
        self.failures = self.retries = self.lost_tokens = 0
        self.done = env.event()
        self.transfers = None if plan.decode is None else Transfers(env, plan.decode, self._freed)
        self.pools: list[ReplicaPool] = []
        self.entry = self._entry_pool(cost, scheduling)
        self.pools.append(self.entry)
        self.decode = None if plan.decode is None else self._decode_pool(plan.decode)
        if self.decode is not None:
            self.pools.append(self.decode)
        self._failures = None if plan.failures is None else Failures(plan.failures, self, seed)
        counts = [plan.replicas] + ([plan.decode.replicas] if plan.decode is not None else [])
        for pool, count in zip(self.pools, counts, strict=True):
            for _ in range(count):
                pool.start(0.0)
        self.scalers = [] if plan.scaling is None else [Scaler(env, plan.scaling, pool) for pool in self.pools]

    # --- building

    def _places(self, replicas: int) -> int:
        return replicas if self.plan.scaling is None else max(replicas, self.plan.scaling.most)

    def _entry_pool(self, cost: Costs, scheduling: Scheduling) -> ReplicaPool:
        plan = self.plan

        def make(index: int, tally: Tally) -> Replica:
            pool = KvPool(plan.pages, plan.page, plan.block)
            replica = Replica(
                self.env,
                index,
                cost,
                pool,
                scheduling,
                lambda: self.upcoming_s,
                self._ended,
                plan.swap_page_s,
                plan.note_every_s,
                tally,
            )
            if plan.decode is not None:
                replica.moves.handoff = self._handoff
                replica.moves.stateful = plan.decode.stateful
            return replica

        return ReplicaPool(
            self.env,
            self._places(plan.replicas),
            0,
            make,
            Replica.submit,
            Router(plan.routing),
            self._started,
            plan.record,
        )

    def _decode_pool(self, decode: DecodePool) -> ReplicaPool:
        plan, transfers = self.plan, self.transfers
        assert transfers is not None

        def make(index: int, tally: Tally) -> Replica:
            pool = KvPool(decode.pages, plan.page)
            replica = Replica(
                self.env,
                index,
                decode.cost,
                pool,
                decode.scheduling,
                lambda: math.inf,  # what comes from elsewhere ends steps that are taken together
                self._ended,
                decode.swap_page_s,
                plan.note_every_s,
                tally,
            )
            replica.moves.fetch = transfers.fetch
            return replica

        first = len(self.entry.members)
        router = Router("least_loaded" if plan.routing == "prefix_affinity" else plan.routing)
        return ReplicaPool(
            self.env,
            self._places(decode.replicas),
            first,
            make,
            Replica.receive,
            router,
            self._started,
            plan.record,
        )

    def pool_of(self, member: Member) -> ReplicaPool:
        """The pool that a member is in."""
        return self.entry if member.index < len(self.entry.members) else self.pools[1]

    def member(self, index: int) -> Member:
        """A member by its number."""
        first = len(self.entry.members)
        return self.entry.members[index] if index < first else self.pools[1].members[index - first]

    # --- the way of a request

    def drive(self, arrivals: Iterable[Request]) -> Generator[Any, Any, None]:
        """Let requests arrive."""
        source, count = iter(arrivals), 0
        request = next(source, None)
        while request is not None:
            self.upcoming_s = request.arrival_s
            if request.arrival_s > self.env.now:
                yield self.env.timeout(request.arrival_s - self.env.now)
            following = next(source, None)
            self.upcoming_s = math.inf if following is None else following.arrival_s
            count += 1
            if self._fits(request):
                self.entry.route(request)
            else:
                self.refused.append(request)
            request = following
        self.expected = count
        self._check_done()

    def _fits(self, request: Request) -> bool:
        """Whether the caches can hold it at its longest; engines refuse others at their door."""
        plan, page = self.plan, self.plan.page
        whole = -(-(request.prompt + request.output) // page)
        if plan.decode is None:
            return whole <= plan.pages
        resumes = plan.failures is not None and plan.failures.resume
        read = whole if resumes else -(-(request.prompt + 1) // page)
        return read <= plan.pages and whole <= plan.decode.pages

    def _ended(self, request: Request) -> None:
        self.ended.append(request)
        self._drained(request.replica)
        self._check_done()

    def _check_done(self) -> None:
        if len(self.ended) + len(self.refused) == self.expected and not self.done.triggered:
            self.done.succeed()

    def _drained(self, index: int) -> None:
        """A replica lost a request: perhaps its last, while it was draining."""
        member = self.member(index)
        if member.state is State.DRAINING:
            self.pool_of(member).stop_if_drained(member)

    def _freed(self, replica: Replica) -> None:
        self._drained(replica.index)

    def _handoff(self, request: Request, source: Replica) -> None:
        assert self.transfers is not None
        assert self.decode is not None
        self.transfers.offer(request, source)
        self.decode.route(request)

    # --- failures

    def _started(self, member: Member) -> None:
        if self._failures is not None:
            self._failures.started(member)

    def lose(self, member: Member) -> None:
        """A replica fails: what it was doing and its cache are lost."""
        replica = member.replica
        assert replica is not None
        self.failures += 1
        self.pool_of(member).failed(member)
        lost, kept = replica.fail()
        for request in lost:
            if self.transfers is not None and self.transfers.withdraw(request):
                self._recall(request)
            self._give_up(request)
        for request in kept:
            if self.transfers is not None:
                self.transfers.abandon(request)
        member.limbo += lost + kept

    def _recall(self, request: Request) -> None:
        """Its cache, which was on offer, is lost: whoever was to continue it does not wait for it any more."""
        assert self.decode is not None
        if request in self.decode.backlog:
            self.decode.backlog.remove(request)
            return
        for member in self.decode.members:
            if request in member.limbo:
                member.limbo.remove(request)
                if member.replica is not None:
                    member.replica.stuck -= 1
            elif member.index == request.replica and member.replica is not None:
                member.replica.forget(request)
                self._drained(member.index)

    def _give_up(self, request: Request) -> None:
        """Begin a request anew, or keep the tokens that it has made."""
        plan = self.plan.failures
        assert plan is not None
        self.lost_tokens += request.done if request.made == 0 else request.context
        self.retries += 1
        request.retries += 1
        if request.retries > plan.most_retries:
            raise UnsupportedError(
                f"request {request.index} lost its replica {request.retries} times: replicas fail faster than they "
                "serve; use a longer 'mtbf' or 'retry: resume'"
            )
        request.done = 0
        if not plan.resume:
            request.made = request.cached = 0
            request.first_token_s = request.admitted_s = None

    def notice(self, member: Member) -> None:
        """The router notices that a replica has failed: its requests go elsewhere."""
        for request in self.pool_of(member).noticed(member):
            self._reroute(request)

    def _reroute(self, request: Request) -> None:
        """To a replica that generates where its cache still is on offer, else through the entrance."""
        if self.decode is not None and self.transfers is not None and self.transfers.offers(request):
            self.decode.route(request)
        else:
            self.entry.route(request)

    # --- the end

    def served(self) -> Served:
        """What happened."""
        end = max((r.finish_s or 0.0 for r in self.ended), default=0.0)
        names = ["prefill", "decode"] if len(self.pools) > 1 else ["replicas"]
        pools = []
        for number, (name, pool) in enumerate(zip(names, self.pools, strict=True)):
            pool.end()
            scaler = self.scalers[number] if self.scalers else None
            members = pool.members
            pools.append(
                PoolServed(
                    name,
                    range(members[0].index, members[-1].index + 1),
                    [m.tally for m in members],
                    [m.log for m in members],
                    pool.changes,
                    pool.paid_s(end),
                    scaler.outs if scaler else 0,
                    scaler.ins if scaler else 0,
                )
            )
        return Served(
            requests=sorted(self.ended, key=lambda r: r.index),
            refused=self.refused,
            tallies=[tally for pool in pools for tally in pool.tallies],
            end_s=end,
            evicted_blocks=sum(pool.evicted for pool in self.pools),
            pools=pools,
            transfers=None if self.transfers is None else self.transfers.tally,
            failures=self.failures,
            retries=self.retries,
            lost_tokens=self.lost_tokens,
        )


def serve_requests(
    arrivals: Iterable[Request],
    cost: Costs,
    scheduling: Scheduling,
    plan: FleetPlan,
    progress: Callable[[Iterator[Request]], Iterable[Request]] = iter,
    seed: int = 0,
) -> Served:
    """Simulate a fleet until every request has ended.

    Requests that no cache could hold (prompt and output together) are refused, as engines do at their door.

    Raises:
        UnsupportedError: replicas fail so often that a request never ends.
    """
    import simpy

    env = simpy.Environment()
    fleet = Fleet(env, cost, scheduling, plan, seed)
    env.process(fleet.drive(progress(iter(arrivals))))
    env.run(until=fleet.done)
    return fleet.served()

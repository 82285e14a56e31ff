"""Several replicas behind a router, from the first arrival to the last token."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import SpecError
from .kv_pool import KvPool
from .replica import Replica, Scheduling, Tally
from .request import Request
from .step_cost import Costs

ROUTES = ("round_robin", "least_loaded", "prefix_affinity")
AFFINITY_SLACK = 4
"""Requests more than on the least loaded replica that prefix-affine routing accepts."""


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """Replicas and their caches."""

    replicas: int
    pages: int
    page: int
    block: int
    routing: str
    swap_page_s: float
    note_every_s: float


@dataclass(frozen=True, slots=True)
class Served:
    """What happened: every request with its times, those refused, and what each replica did."""

    requests: list[Request]
    refused: list[Request]
    tallies: list[Tally]
    end_s: float
    evicted_blocks: int


class Router:
    """Chooses a replica for a request."""

    def __init__(self, routing: str) -> None:
        if routing not in ROUTES:
            raise SpecError(f"unknown routing {routing!r}; expected one of {', '.join(ROUTES)}")
        self._routing, self._turn, self._homes = routing, -1, dict[int, int]()

    def choose(self, request: Request, replicas: list[Replica]) -> Replica:
        """The replica for *request*; ties go to the smallest number."""
        if self._routing == "round_robin":
            self._turn = (self._turn + 1) % len(replicas)
            return replicas[self._turn]
        least = min(replicas, key=lambda r: (r.load, r.index))
        if self._routing == "least_loaded" or not request.blocks:
            return least
        # The home of a prefix is where its first block was last computed, as long as that replica is not overloaded.
        home = replicas[self._homes.get(request.blocks[0], least.index)]
        chosen = home if home.load <= least.load + AFFINITY_SLACK else least
        self._homes[request.blocks[0]] = chosen.index
        return chosen


def serve_requests(
    arrivals: Iterable[Request],
    cost: Costs,
    scheduling: Scheduling,
    plan: FleetPlan,
    progress: Callable[[Iterator[Request]], Iterable[Request]] = iter,
) -> Served:
    """Simulate a fleet until every request has ended.

    Requests that no cache could hold (prompt and output together) are refused, as engines do at their door.
    """
    import simpy

    env = simpy.Environment()
    ended: list[Request] = []
    refused: list[Request] = []
    upcoming = [math.inf]
    replicas = [
        Replica(
            env,
            index,
            cost,
            KvPool(plan.pages, plan.page, plan.block),
            scheduling,
            lambda: upcoming[0],
            ended.append,
            plan.swap_page_s,
            plan.note_every_s,
        )
        for index in range(plan.replicas)
    ]
    router = Router(plan.routing)

    def drive() -> Generator[Any, Any, None]:
        source = iter(progress(iter(arrivals)))
        request = next(source, None)
        while request is not None:
            upcoming[0] = request.arrival_s
            if request.arrival_s > env.now:
                yield env.timeout(request.arrival_s - env.now)
            following = next(source, None)
            upcoming[0] = math.inf if following is None else following.arrival_s
            if -(-(request.prompt + request.output) // plan.page) > plan.pages:
                refused.append(request)
            else:
                router.choose(request, replicas).submit(request)
            request = following

    env.process(drive())
    env.run()
    end = max((r.finish_s or 0.0 for r in ended), default=0.0)
    evicted = sum(replica.pool.evicted for replica in replicas)
    return Served(sorted(ended, key=lambda r: r.index), refused, [r.tally for r in replicas], end, evicted)

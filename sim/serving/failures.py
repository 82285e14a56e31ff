"""Replicas that fail and come back: at random from the seed, or at stated times."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .replica_pool import Member, State

if TYPE_CHECKING:
    from .fleet import Fleet

STREAM = 101
"""Number of the random generators of failures, apart from those of the load."""


@dataclass(frozen=True, slots=True)
class Outage:
    """Replica *replica* fails at *at_s* and is back *lasts_s* later."""

    replica: int
    at_s: float
    lasts_s: float


@dataclass(frozen=True, slots=True)
class FailurePlan:
    """When replicas fail, and what becomes of their requests.

    Attributes:
        mtbf_s: mean time that a replica serves before it fails (exponential); None: only the stated outages.
        mttr_s: mean time until it serves again, its start included (exponential).
        outages: stated ones.
        detection_s: time until the router notices; until then it sends requests there.
        resume: requests keep the tokens they have made, and only their cache is computed again; else they begin anew.
        most_retries: a request that loses more replicas than this shows that nothing can be served.
    """

    mtbf_s: float | None = None
    mttr_s: float = 60.0
    outages: tuple[Outage, ...] = ()
    detection_s: float = 5.0
    resume: bool = False
    most_retries: int = 1000


class Failures:
    """Lets the replicas of a fleet fail."""

    def __init__(self, plan: FailurePlan, fleet: Fleet, seed: int) -> None:
        import numpy as np

        self.plan, self._fleet = plan, fleet
        self._random = {
            member.index: np.random.default_rng([seed, STREAM, member.index])
            for pool in fleet.pools
            for member in pool.members
        }
        for outage in plan.outages:
            fleet.env.process(self._stated(outage))

    def started(self, member: Member) -> None:
        """A replica serves: it will fail some time."""
        if self.plan.mtbf_s is not None:
            after = float(self._random[member.index].exponential(self.plan.mtbf_s))
            self._fleet.env.process(self._random_life(member, member.lives, after))

    def _random_life(self, member: Member, life: int, after: float) -> Generator[Any, Any, None]:
        yield self._fleet.env.timeout(after)
        if member.lives == life and member.state in (State.SERVING, State.DRAINING):
            lasts = float(self._random[member.index].exponential(self.plan.mttr_s))
            yield from self._fail(member, lasts)

    def _stated(self, outage: Outage) -> Generator[Any, Any, None]:
        yield self._fleet.env.timeout(outage.at_s)
        member = self._fleet.member(outage.replica)
        if member.state in (State.SERVING, State.DRAINING):
            yield from self._fail(member, outage.lasts_s)

    def _fail(self, member: Member, lasts_s: float) -> Generator[Any, Any, None]:
        """Fail, be noticed, come back (one that was draining does not)."""
        fleet = self._fleet
        fleet.lose(member)
        unnoticed = min(self.plan.detection_s, lasts_s)
        yield fleet.env.timeout(unnoticed)
        fleet.notice(member)
        yield fleet.env.timeout(lasts_s - unnoticed)
        fleet.pool_of(member).recovered(member)

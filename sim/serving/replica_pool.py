"""Replicas of one kind: those that start, serve, drain or have failed, and the requests that wait for any of them."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from .replica import Replica
from .request import Request
from .routing import Router
from .scheduling import Tally
from .step_log import StepLog, spans_each

if TYPE_CHECKING:
    import simpy


class State(StrEnum):
    """What a place for a replica is doing."""

    STOPPED = "stopped"
    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    FAILED = "failed"


PAID = (State.STARTING, State.SERVING, State.DRAINING, State.FAILED)
"""States in which its devices are held, and paid for."""


@dataclass(slots=True, eq=False)
class Member:
    """A place for a replica.

    Attributes:
        index: its number in the fleet.
        listed: the router sends requests here (also to one that has failed, until that is noticed).
        limbo: requests that were sent here, or were here, and are tried elsewhere when the failure is noticed.
        lives: replicas that it has had.
        returns: where it has failed, whether another replica follows; none does behind one that was draining.
        since_s: when its devices were taken; ``paid_s``: how long they were held before.
    """

    index: int
    tally: Tally
    replica: Replica | None = None
    state: State = State.STOPPED
    listed: bool = False
    limbo: list[Request] = field(default_factory=list)
    lives: int = 0
    returns: bool = True
    since_s: float = 0.0
    paid_s: float = 0.0
    log: StepLog | None = None


Change = tuple[float, int, int, int, int]
"""(time, serving, starting, draining, failed): replicas of a pool from then on."""


class ReplicaPool:
    """Replicas of one kind behind one router.

    Args:
        env: simulated time.
        places: how many there can be at most; ``first`` is the number of the first of them.
        make: a replica in a place, empty and cold.
        submit: hands a request to a replica.
        router: chooses among those that serve.
        started: called with every member that begins to serve.
        record: keep a log of steps.
    """

    def __init__(
        self,
        env: simpy.Environment,
        places: int,
        first: int,
        make: Callable[[int, Tally], Replica],
        submit: Callable[[Replica, Request], None],
        router: Router,
        started: Callable[[Member], None],
        record: bool = False,
    ) -> None:
        self.env, self.router = env, router
        self._make, self._submit, self._started = make, submit, started
        most = spans_each(places)
        self.members = [Member(first + i, Tally(), log=StepLog(most) if record else None) for i in range(places)]
        self.backlog: list[Request] = []
        self.changes: list[Change] = []
        self.evicted = 0

    def count(self, *states: State) -> int:
        """Members in these states."""
        return sum(m.state in states for m in self.members)

    def serving(self) -> list[Member]:
        """Members that serve and take requests."""
        return [m for m in self.members if m.state is State.SERVING]

    @property
    def lasting(self) -> int:
        """Members that serve, or will without being asked: those that start, or have failed and come back."""
        failed = sum(m.state is State.FAILED and m.returns for m in self.members)
        return self.count(State.SERVING, State.STARTING) + failed

    def member_of(self, replica: Replica) -> Member:
        """Where a replica is."""
        return self.members[replica.index - self.members[0].index]

    # --- requests

    def route(self, request: Request) -> None:
        """Send a request to a replica; without any it waits."""
        open_ = [m.replica for m in self.members if m.listed and m.replica is not None]
        if not open_:
            self.backlog.append(request)
            return
        replica = self.router.choose(request, open_)
        member = self.member_of(replica)
        if member.state is State.FAILED:
            member.limbo.append(request)  # nobody has noticed yet
            replica.stuck += 1
        else:
            self._submit(replica, request)

    def _route_backlog(self) -> None:
        waiting, self.backlog = self.backlog, []
        for request in waiting:
            self.route(request)

    # --- states

    def start(self, seconds: float) -> None:
        """Take devices for one more replica, which serves after *seconds*; one that drains comes back at once."""
        draining = [m for m in self.members if m.state is State.DRAINING]
        if draining:
            member = max(draining, key=lambda m: (m.replica.load if m.replica else 0, -m.index))
            member.listed = True
            self._set(member, State.SERVING)
            self._route_backlog()
            return
        member = next(m for m in self.members if m.state is State.STOPPED)
        self._set(member, State.STARTING)
        if seconds > 0.0:
            self.env.process(self._starting(member, seconds))
        else:
            self.serve(member)

    def _starting(self, member: Member, seconds: float) -> Generator[Any, Any, None]:
        life = member.lives
        yield self.env.timeout(seconds)
        if member.state is State.STARTING and member.lives == life:
            self.serve(member)

    def serve(self, member: Member) -> None:
        """A place gets a new replica, with an empty cache, that serves from now on."""
        self._discard(member)
        member.replica = self._make(member.index, member.tally)
        member.replica.recorder.log = member.log
        member.lives += 1
        member.listed = True
        self._set(member, State.SERVING)
        self._started(member)
        self._route_backlog()

    def drain(self) -> None:
        """Give up one replica: one that still starts, or the least loaded, when its requests have ended."""
        starting = [m for m in self.members if m.state is State.STARTING]
        if starting:
            starting[-1].lives += 1
            self._set(starting[-1], State.STOPPED)
            return
        member = min(self.serving(), key=lambda m: (m.replica.load if m.replica else 0, -m.index))
        member.listed = False
        self._set(member, State.DRAINING)
        self.stop_if_drained(member)

    def stop_if_drained(self, member: Member) -> None:
        """Give the devices of a draining replica back once it holds nothing."""
        if member.state is State.DRAINING and (member.replica is None or member.replica.empty):
            self._set(member, State.STOPPED)

    def failed(self, member: Member) -> None:
        """It works no more; the router does not know yet. One that was draining does not come back."""
        member.returns = member.state is not State.DRAINING
        self._set(member, State.FAILED)

    def noticed(self, member: Member) -> list[Request]:
        """The router knows: requests that have to be tried elsewhere."""
        member.listed = False
        lost, member.limbo = member.limbo, []
        return lost

    def recovered(self, member: Member) -> None:
        """The devices of one that failed work again: a new replica serves there, or they are given back."""
        if member.returns:
            self.serve(member)
            return
        self._discard(member)  # it held what was lost with it, and would seem to hold it still
        self._set(member, State.STOPPED)

    def _discard(self, member: Member) -> None:
        """Nothing is left of the replica in a place but what it counted."""
        if member.replica is not None:
            self.evicted += member.replica.pool.evicted
            member.replica = None

    def _set(self, member: Member, state: State) -> None:
        now = float(self.env.now)
        if member.state not in PAID and state in PAID:
            member.since_s = now
        if member.state in PAID and state not in PAID:
            member.paid_s += now - member.since_s
        member.state = state
        if self.changes and self.changes[-1][0] == now:
            self.changes.pop()
        serving, starting = self.count(State.SERVING), self.count(State.STARTING)
        self.changes.append((now, serving, starting, self.count(State.DRAINING), self.count(State.FAILED)))

    def paid_s(self, end_s: float) -> float:
        """Replica-seconds for which devices were held, up to *end_s*."""
        held = sum(max(0.0, end_s - m.since_s) for m in self.members if m.state in PAID)
        return held + sum(m.paid_s for m in self.members)

    def end(self) -> None:
        """Count what the last replicas evicted."""
        self.evicted += sum(m.replica.pool.evicted for m in self.members if m.replica is not None)

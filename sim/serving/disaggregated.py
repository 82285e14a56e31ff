"""Prompts are read on some replicas and continued on others: caches travel over links with queues."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .replica import Replica
from .request import Request
from .scheduling import Scheduling
from .step_cost import Costs

if TYPE_CHECKING:
    import simpy


@dataclass(frozen=True, slots=True)
class DecodePool:
    """Replicas that only continue what others have read, and the links on which caches come.

    Attributes:
        replicas, pages, swap_page_s, cost, scheduling: as for the replicas that read prompts.
        token_bytes, sequence_bytes: of a cache, over all devices of a replica.
        out_bytes_per_s, in_bytes_per_s: of the links of a replica that reads, and of one that generates.
        latency_s: of one transfer.
        layers: parts of a cache that can travel on their own; 0: it travels when the whole prompt has been read.
    """

    replicas: int
    pages: int
    swap_page_s: float
    cost: Costs
    scheduling: Scheduling
    token_bytes: float
    sequence_bytes: float
    out_bytes_per_s: float
    in_bytes_per_s: float
    latency_s: float
    layers: int = 0
    stateful: bool = False

    @property
    def bytes_per_s(self) -> float:
        """Rate of one transfer: the slower end's."""
        return min(self.out_bytes_per_s, self.in_bytes_per_s)


@dataclass(slots=True)
class TransferTally:
    """What the links did. ``waits``: seconds from the end of a prompt to its cache's arrival, one a transfer."""

    transfers: int = 0
    bytes_moved: float = 0.0
    used_s: float = 0.0
    waits: list[float] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Move:
    """A cache on offer at *source*; ``left``: bytes that have not travelled yet; ``began_s``: while they travel.

    ``turn`` counts the destinations that were lost, so that what was planned for one of them is forgotten.
    """

    request: Request
    source: Replica
    left: float
    destination: Replica | None = None
    began_s: float | None = None
    turn: int = 0


class Transfers:
    """Moves caches from the replicas that read to those that generate; *freed* is told who gave one away.

    A transfer begins when its destination has memory for all of it and both ends of the link are free; among those that
    could begin, the one asked for first does. The pages at the source are free when it has ended.

    With ``layers`` parts of a cache travel while the prompt is still being read, as far as the source's link has time
    between the prompt's admission and its end; the last layer's part always remains. That the destination has room is
    only checked at the end.
    """

    def __init__(self, env: simpy.Environment, plan: DecodePool, freed: Callable[[Replica], None]) -> None:
        self.env, self.plan, self._freed = env, plan, freed
        self.tally = TransferTally()
        self._moves: dict[int, _Move] = {}
        self._queue: list[_Move] = []
        self._busy: set[Replica] = set()
        self._last_end_s: dict[Replica, float] = {}

    def offer(self, request: Request, source: Replica) -> None:
        """A prompt has been read by *source*: its cache can be fetched from now on."""
        size = (request.context - 1) * self.plan.token_bytes + self.plan.sequence_bytes
        self._moves[request.index] = _Move(request, source, size - self._sent_early(request, source, size))
        self.tally.bytes_moved += size
        self.tally.transfers += 1

    def _sent_early(self, request: Request, source: Replica, size: float) -> float:
        """Bytes that travelled while the prompt was read."""
        if not self.plan.layers or source in self._busy:
            return 0.0
        begin = max(request.placed_s, self._last_end_s.get(source, 0.0))
        idle = max(0.0, self.env.now - begin)
        early = min(size * (1.0 - 1.0 / self.plan.layers), idle * self.plan.bytes_per_s)
        self._last_end_s[source] = begin + early / self.plan.bytes_per_s
        self.tally.used_s += early / self.plan.bytes_per_s
        return early

    def offers(self, request: Request) -> bool:
        """Whether its cache waits somewhere to be fetched."""
        return request.index in self._moves

    def fetch(self, request: Request, destination: Replica) -> None:
        """*destination* has room: the transfer joins the queue."""
        move = self._moves[request.index]
        move.destination = destination
        self._queue.append(move)
        self._begin_next()

    def _begin_next(self) -> None:
        """Begin every transfer whose ends are free, in the order in which they were asked for."""
        still = []
        for move in self._queue:
            assert move.destination is not None
            if move.source in self._busy or move.destination in self._busy:
                still.append(move)
            else:
                self._busy |= {move.source, move.destination}
                move.began_s = self.env.now
                self._after(move.left / self.plan.bytes_per_s, move, self._sent)
        self._queue = still

    def _after(self, seconds: float, move: _Move, then: Callable[[_Move], None]) -> None:
        """Call *then* after a time, if the transfer has not been given up by then."""
        turn = move.turn

        def callback(_: object) -> None:
            if self._moves.get(move.request.index) is move and move.turn == turn:
                then(move)

        event = self.env.timeout(seconds)
        assert event.callbacks is not None
        event.callbacks.append(callback)

    def _sent(self, move: _Move) -> None:
        """The last byte is on its way: the link is free for others."""
        self._release_ends(move)
        self._after(self.plan.latency_s, move, self._arrived)
        self._begin_next()

    def _release_ends(self, move: _Move) -> None:
        assert move.destination is not None
        assert move.began_s is not None
        self._busy -= {move.source, move.destination}
        self._last_end_s[move.source] = self.env.now
        self.tally.used_s += self.env.now - move.began_s
        move.began_s = None

    def _arrived(self, move: _Move) -> None:
        request, destination = move.request, move.destination
        assert destination is not None
        del self._moves[request.index]
        request.moved_s = self.env.now
        self.tally.waits.append(self.env.now - request.token_s)
        move.source.free(request)
        self._freed(move.source)
        destination.arrived(request)

    def abandon(self, request: Request) -> None:
        """Its destination is lost: the cache stays on offer."""
        move = self._moves[request.index]
        if move in self._queue:
            self._queue.remove(move)
        elif move.began_s is not None:
            self._release_ends(move)
        move.destination = None
        move.turn += 1
        self._begin_next()

    def withdraw(self, request: Request) -> bool:
        """Its cache is lost: nothing is fetched any more. Whether it was on offer."""
        if request.index not in self._moves:
            return False
        self.abandon(request)
        del self._moves[request.index]
        return True

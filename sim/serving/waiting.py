"""The queue of one replica: what has just come, and what its scheduler sees."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterator

from .request import Request


class Waiting:
    """Requests that wait, by priority where *by_priority*, then by arrival.

    An asynchronous scheduler plans a step when the one before starts: what comes later waits for the next plan, as a
    newcomer that the scheduler does not see yet.

    Attributes:
        newcomers: whom the scheduler does not see yet, with the time they came; ``seen``: a heap of the others.
    """

    __slots__ = ("_by_priority", "newcomers", "seen")

    def __init__(self, by_priority: bool) -> None:
        self._by_priority = by_priority
        self.newcomers: deque[tuple[float, Request]] = deque()
        self.seen: list[tuple[int, int, Request]] = []

    def __len__(self) -> int:
        return len(self.newcomers) + len(self.seen)

    def __iter__(self) -> Iterator[Request]:
        """All of them, in no order."""
        yield from (entry[2] for entry in self.seen)
        yield from (entry[1] for entry in self.newcomers)

    def come(self, request: Request, now: float) -> None:
        """A newcomer."""
        self.newcomers.append((now, request))

    def see(self, until: float = math.inf) -> None:
        """The scheduler sees those that came by *until*."""
        while self.newcomers and self.newcomers[0][0] <= until:
            self.push(self.newcomers.popleft()[1])

    def push(self, request: Request) -> None:
        """One that the scheduler sees at once."""
        heapq.heappush(self.seen, (request.priority if self._by_priority else 0, request.index, request))

    def pop(self) -> Request:
        """The first of those that the scheduler sees goes."""
        return heapq.heappop(self.seen)[2]

    def discard(self, request: Request) -> None:
        """It does not wait any more."""
        kept = [entry for entry in self.newcomers if entry[1] is not request]
        self.newcomers.clear()
        self.newcomers.extend(kept)
        self.seen[:] = [entry for entry in self.seen if entry[2] is not request]
        heapq.heapify(self.seen)

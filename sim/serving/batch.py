"""The sequences of a replica that generate together, and the pages that their steps open.

They advance together, so steps are counted instead of tokens: a request that joined at step ``j`` has made ``s − j``
tokens at step ``s``, and the one that ends first is on top of a heap.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from .kv_pool import KvPool
from .request import Request
from .speculation import Acceptance


class Batch:
    """Requests that generate.

    Args:
        pool: where their pages come from.
        acceptance: of drafted tokens, where decoding is speculative.

    Attributes:
        running: the requests, by number.
    """

    __slots__ = ("_acceptance", "_context", "_ends", "_joined", "_phases", "_pool", "_step", "running")

    def __init__(self, pool: KvPool, acceptance: Acceptance | None = None) -> None:
        self._pool, self._acceptance = pool, acceptance
        self.running: dict[int, Request] = {}
        self._ends: list[tuple[int, int]] = []
        self._joined: dict[int, int] = {}
        self._step = 0
        self._context = 0
        self._phases = [0] * pool.page

    def __len__(self) -> int:
        return len(self.running)

    @property
    def mean_context(self) -> float:
        """Mean tokens of a sequence before its next."""
        return self._context / len(self.running) if self.running else 0.0

    def join(self, request: Request) -> None:
        """Begin to generate: the newest token is not in the cache yet."""
        index = request.index
        self.running[index] = request
        self._joined[index] = self._step
        heapq.heappush(self._ends, (self._step + request.output - request.made, index))
        self._context += request.context
        # The cache holds context − 1 tokens; a page is needed by the step that finds it full.
        self._phases[(request.context - 1 - self._step) % self._pool.page] += 1

    def leave(self, request: Request) -> None:
        """Stop generating, with the tokens made so far."""
        index = request.index
        del self.running[index]
        self._context -= request.context + self._step - self._joined[index]
        self._phases[(request.context - 1 - self._joined[index]) % self._pool.page] -= 1
        request.made += self._step - self._joined.pop(index)

    # --- pages

    def pages_needed(self, steps: int) -> int:
        """Pages that the next *steps* steps open."""
        page = self._pool.page
        if steps == 1 < page:
            return self._phases[-self._step % page]
        whole, rest = divmod(steps, page)
        return whole * len(self.running) + sum(self._phases[-(self._step + j) % page] for j in range(rest))

    def take_step(self) -> bool:
        """Take the pages of the next step; False, and nothing changed, if there are too few."""
        return self._pool.take(self.pages_needed(1) if self._acceptance is None else self._pages_drafted())

    def take_further(self, steps: int) -> int:
        """Take the pages of steps behind the next one: of *steps*, or of as many halves less as there are pages for."""
        self._step += 1  # the pages of the first step are taken
        while steps and not self._pool.take(self.pages_needed(steps)):
            steps //= 2
        self._step -= 1
        return steps

    def _pages_drafted(self) -> int:
        """Pages that the next step may open: every draft of every sequence has a place in the cache."""
        return sum(high - low for _, low, high in self._drafted())

    def _drafted(self) -> Iterator[tuple[Request, int, int]]:
        """Sequences of the batch, the pages they hold, and those they need if every draft of a step is accepted."""
        assert self._acceptance is not None
        most, pages_of = 1 + self._acceptance.drafted, self._pool.pages_of
        for index, request in self.running.items():
            cached = request.context + self._step - self._joined[index] - 1
            left = request.prompt + request.output - 1 - cached
            yield request, pages_of(cached), pages_of(cached + min(most, left))

    # --- steps

    def steps_left(self) -> int:
        """Steps until the first sequence ends."""
        while self._ends[0][1] not in self.running or self._stale(self._ends[0]):
            heapq.heappop(self._ends)
        return self._ends[0][0] - self._step

    def _stale(self, entry: tuple[int, int]) -> bool:
        """Whether an end was pushed before its sequence was sent away and came back, or made several tokens at once."""
        end, index = entry
        request = self.running[index]
        return end != self._joined[index] + request.output - request.made

    def advance(self, steps: int) -> None:
        """Every sequence has made *steps* tokens."""
        self._step += steps
        self._context += steps * len(self.running)

    def accept(self) -> int:
        """Behind a step: accepted drafts are tokens as the step's own, and places of the others are given back."""
        acceptance, pool = self._acceptance, self._pool
        assert acceptance is not None
        total = 0
        self._step -= 1  # what was taken before the step
        reserved = [(request, high) for request, _, high in self._drafted()]
        self._step += 1
        for request, high in reserved:
            joined = self._joined[request.index]
            made = request.made + self._step - joined
            extra = min(acceptance.accepted(request.index, made), request.output - made)
            pool.give(high - pool.pages_of(request.prompt + made - 1 + extra))
            if extra:
                phase = request.context - 1 - joined
                self._phases[phase % pool.page] -= 1
                self._phases[(phase + extra) % pool.page] += 1
                request.made += extra
                total += extra
                heapq.heappush(self._ends, (joined + request.output - request.made, request.index))
        self._context += total
        return total

    def pop_ended(self) -> Request | None:
        """A sequence that has made its last token leaves; None if there is none."""
        while self._ends and self._ends[0][0] <= self._step:
            entry = heapq.heappop(self._ends)
            request = self.running.get(entry[1])
            if request is not None and not self._stale(entry):
                self.leave(request)
                return request
        return None

"""What the requests of one replica hold of its cache: pages of their own, named blocks, room in the host's memory."""

from __future__ import annotations

import heapq

from .kv_pool import KvPool
from .request import Request
from .scheduling import Scheduling, Tally
from .tiers import Tiers


class Holdings:
    """Pages of requests.

    Args:
        pool: the cache.
        how: whether there are tiers, and what moving states to them takes.
        tally: what is counted.
        swap_s: seconds to move one page to the host's memory or back.
    """

    def __init__(self, pool: KvPool, how: Scheduling, tally: Tally, swap_s: float) -> None:
        self.pool, self._how, self._tally, self._swap_s = pool, how, tally, swap_s
        if how.tiers and pool.block:
            pool.tiers = Tiers(how.tiers)
        self.fetching: list[tuple[float, int, int, Request]] = []
        """Requests whose blocks are on their way from a tier: (arrival, number, blocks, request), first on top."""
        self._link_free_s = 0.0
        self._held: dict[int, int] = {}
        self._swapped: dict[int, int] = {}

    def take(self, request: Request, elsewhere: bool) -> bool:
        """Pages for all of a request's context, of which cached blocks are shared; False if there are too few.

        *elsewhere*: its cache comes whole from another replica.
        """
        pool, swapped = self.pool, request.index in self._swapped
        if swapped and pool.available < self._pages_after_a_step(request):
            return False  # it would be sent away again before it made a token
        whole = elsewhere or swapped
        found = 0 if whole else pool.match(request.blocks)
        if found and found * pool.block >= request.context:
            found -= 1  # at least one token has to be computed to know the next
        names = request.blocks[:found]
        pool.hold(names)
        held = request.context - 1 if whole else request.context  # the newest token is not in the cache yet
        if not pool.take(pool.pages_of(held) - pool.pages_of_blocks(found)):
            pool.drop(names)
            return False
        self._held[request.index] = found
        if not whole:
            request.done = found * pool.block
            if request.first_token_s is None:
                request.cached = request.done
            self._tally.cached_tokens += request.done
        return True

    def _pages_after_a_step(self, request: Request) -> int:
        """Pages that a sequence may hold when it has made its next tokens."""
        drafted = self._how.acceptance.drafted if self._how.acceptance is not None else 0
        return self.pool.pages_of(min(request.context + drafted, request.prompt + request.output - 1))

    def publish(self, request: Request) -> None:
        """A prompt has been computed: others that begin like it can share its blocks."""
        pool = self.pool
        if request.blocks and pool.block:
            held = self._held[request.index]
            names = request.blocks[: request.prompt // pool.block]
            self._held[request.index] = held + pool.publish(names, held)

    def release(self, request: Request) -> int:
        """Give back what a request holds: the pages of its context, of which some belong to named blocks."""
        pages = self.pool.pages_of(request.context - 1)
        held = self._held.pop(request.index, 0)
        self.pool.give(pages - self.pool.pages_of_blocks(held))
        self.pool.drop(request.blocks[:held])
        return pages

    # --- swapping

    def swap_out(self, request: Request, pages: int) -> float:
        """Seconds to keep *pages* in the host's memory; 0 and nothing kept where it has no room for them."""
        tiers = self.pool.tiers
        if tiers is not None and not tiers.pin(self._blocks_of(pages)):
            return 0.0
        self._swapped[request.index] = pages
        return pages * self._swap_s + self._how.state_swap_s

    def is_swapped(self, request: Request) -> bool:
        """Whether its cache is in the host's memory."""
        return request.index in self._swapped

    def swap_in(self, request: Request) -> float:
        """Seconds to bring its cache back."""
        pages = self._swapped.pop(request.index)
        if self.pool.tiers is not None:
            self.pool.tiers.unpin(self._blocks_of(pages))
        return pages * self._swap_s + self._how.state_swap_s

    def _blocks_of(self, pages: int) -> int:
        return -(-pages * self.pool.page // self.pool.block)

    # --- fetching from tiers

    def fetch(self, request: Request, now: float) -> tuple[bool, float]:
        """Begin to bring blocks of a prompt from the tiers: whether it waits for them, and seconds that steps do."""
        tiers, block, held = self.pool.tiers, self.pool.block, self._held[request.index]
        if tiers is None:
            return False, 0.0
        most = (request.context - 1) // block  # at least one token has to be computed to know the next
        more = tiers.match(request.blocks[held:most])
        if not more:
            return False, 0.0
        seconds = tiers.fetch(request.blocks[held : held + more])
        if self._how.blocking_fetch:
            self._have(request, more)
            return False, seconds
        self._link_free_s = max(self._link_free_s, now) + seconds
        heapq.heappush(self.fetching, (self._link_free_s, request.index, more, request))
        return True, 0.0

    def fetched(self, now: float) -> list[Request]:
        """Requests whose blocks have come by *now*."""
        out = []
        while self.fetching and self.fetching[0][0] <= now:
            _, _, more, request = heapq.heappop(self.fetching)
            self._have(request, more)
            out.append(request)
        return out

    def _have(self, request: Request, more: int) -> None:
        """*more* blocks of a prompt have come: they are in the cache as if computed here."""
        held, block = self._held[request.index], self.pool.block
        self._held[request.index] = held + self.pool.publish(request.blocks[: held + more], held)
        request.done += more * block
        self._tally.fetched_tokens += more * block
        self._tally.cached_tokens += more * block
        if request.first_token_s is None:
            request.cached = request.done

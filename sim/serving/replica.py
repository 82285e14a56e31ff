"""One replica: a scheduler that turns waiting requests into steps, as a process in simulated time.

Sequences that generate advance together, so the replica counts steps instead of tokens: a request that joined at step
``j`` has made ``s − j`` tokens at step ``s``, and the one that ends first is on top of a heap. Between two events (an
arrival, an end, a page that runs out) the batch does not change, and all steps up to there are one event.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .kv_pool import KvPool
from .moves import Block, Moves
from .request import Request
from .speculation import Acceptance
from .step_cost import Costs
from .step_log import StepLog
from .tiers import TierPlan, Tiers

if TYPE_CHECKING:
    import simpy

POLICIES = ("static", "continuous", "chunked", "prefill_first", "decode_first")


@dataclass(frozen=True, slots=True)
class Scheduling:
    """How requests become steps.

    Attributes:
        policy: ``static`` runs a batch to its end before the next; ``continuous`` adds whole prompts to the steps of
            those that generate; ``chunked`` does so in pieces; ``prefill_first`` runs whole prompts in steps of their
            own before anything generates on; ``decode_first`` adds pieces only as large as keep a step within
            ``step_target_s``.
        order: ``fcfs`` or ``priority`` (then by arrival).
        most_sequences, most_tokens: limits of a step.
        preemption: what happens to the youngest sequence when pages run out: ``recompute`` or ``swap``.
        acceptance: of drafted tokens, where decoding is speculative.
        tiers: where blocks go that the device has no room for. A sequence is swapped to the first of them while there
            is room, else computed again.
        state_swap_s: seconds to move the states of a sequence's recurrent layers to the host's memory or back.
        blocking_fetch: steps wait for blocks that are fetched from a tier; else only the request does.
        plans_ahead: the scheduler plans a step when the one before it starts, beside the device: a request that
            arrives meanwhile joins the step after.
        on_the_way_s: what a request spends outside the engine, before it gets there and after its first token.
    """

    policy: str = "chunked"
    order: str = "fcfs"
    most_sequences: int = 256
    most_tokens: int = 2048
    preemption: str = "recompute"
    step_target_s: float = 0.05
    acceptance: Acceptance | None = None
    tiers: tuple[TierPlan, ...] = ()
    blocking_fetch: bool = False
    state_swap_s: float = 0.0
    plans_ahead: bool = False
    on_the_way_s: float = 0.0


@dataclass(slots=True)
class Tally:
    """What one replica did."""

    busy_s: float = 0.0
    steps: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    recomputed_tokens: int = 0
    preemptions: int = 0
    drafted: int = 0
    accepted: int = 0
    fetched_tokens: int = 0
    tokens: int = 0
    """Generated."""
    gaps: dict[int, int] = field(default_factory=dict)
    """Tokens by the time since the one before, in whole microseconds."""
    history: list[tuple[float, int, int, int]] = field(default_factory=list)
    """(time, waiting, running, pages in use) after each event."""


class Replica:
    """A model on its devices, working through a queue.

    Args:
        env: simulated time.
        index: its number in the fleet.
        cost: time of its steps.
        pool: its cache.
        scheduling: how it forms steps.
        horizon: time of the next arrival in the fleet; steps are not taken together beyond it.
        finished: called with every request that ended.
        swap_s: seconds to move one page to the host's memory or back (``preemption: swap``).
        note_every_s: least time between two entries of the history.
        tally: what its predecessor in the same place did.
    """

    def __init__(
        self,
        env: simpy.Environment,
        index: int,
        cost: Costs,
        pool: KvPool,
        scheduling: Scheduling,
        horizon: Callable[[], float],
        finished: Callable[[Request], None],
        swap_s: float = 0.0,
        note_every_s: float = 0.0,
        tally: Tally | None = None,
    ) -> None:
        self.env, self.index, self.cost, self.pool, self.how = env, index, cost, pool, scheduling
        self._horizon, self._finished, self._swap_s = horizon, finished, swap_s
        self.tally = Tally() if tally is None else tally
        if scheduling.tiers and pool.block:
            pool.tiers = Tiers(scheduling.tiers)
        self._fetching: list[tuple[float, int, int, Request]] = []
        self._link_free_s = 0.0
        self._note_every_s, self._next_note = note_every_s, 0.0
        self._newcomers: deque[tuple[float, Request]] = deque()
        self._step_began_s = -math.inf
        self._waiting: list[tuple[int, int, Request]] = []
        self._prefilling: list[Request] = []
        self._running: dict[int, Request] = {}
        self._ends: list[tuple[int, int]] = []
        self._joined: dict[int, int] = {}
        self._held: dict[int, int] = {}
        self._swapped: dict[int, int] = {}
        self._step = 0
        self._context = 0
        self._phases = [0] * pool.page
        self._debt_s = 0.0
        self._sealed = False
        self.moves, self.stuck = Moves(), 0
        self.log: StepLog | None = None
        self._logged = (self.tally.steps, self.tally.prompt_tokens, self.tally.tokens)
        self._stalls: list[float] = []
        self._since = math.inf
        self._block: Block | None = None
        self._wake: simpy.Event | None = None
        self.process = env.process(self._work())

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._newcomers) + len(self._waiting)

    @property
    def load(self) -> int:
        """Requests that wait, run or have their cache on the way here, or are stuck because it failed."""
        moving = len(self.moves.arriving) + len(self.moves.ready) + len(self._fetching)
        queued = len(self._newcomers) + len(self._waiting)
        return queued + len(self._prefilling) + len(self._running) + moving + self.stuck

    @property
    def empty(self) -> bool:
        """Whether nothing waits, runs or lies here."""
        return not (self.load or self.moves.leaving)

    @property
    def busy_s(self) -> float:
        """Time in steps, with the part of the step under way."""
        return self.tally.busy_s + max(0.0, self.env.now - self._since)

    def submit(self, request: Request) -> None:
        """Put a request into the queue."""
        request.replica = self.index
        self._newcomers.append((self.env.now, request))
        self._rouse()

    # --- requests that come with a cache, leave with one, or are given up

    def receive(self, request: Request) -> None:
        """Put a request whose cache is elsewhere into the queue; it is fetched when there is room."""
        self.moves.remote.add(request.index)
        self.submit(request)

    def arrived(self, request: Request) -> None:
        """Its cache is here: it generates from the next step on."""
        del self.moves.arriving[request.index]
        self.moves.ready.append(request)
        self._rouse()

    def free(self, request: Request) -> None:
        """The cache of a request that left has been fetched: its pages are free."""
        del self.moves.leaving[request.index]
        self._release(request, self.pool.pages_of(request.context - 1))
        self._rouse()

    def forget(self, request: Request) -> None:
        """A request that waits for its cache will not come."""
        if self.moves.arriving.pop(request.index, None) is not None:
            self._release(request, self.pool.pages_of(request.context - 1))
        else:
            self.moves.remote.discard(request.index)
            self._newcomers = deque(entry for entry in self._newcomers if entry[1] is not request)
            self._waiting = [entry for entry in self._waiting if entry[2] is not request]
            heapq.heapify(self._waiting)
        self._rouse()

    def fail(self) -> tuple[list[Request], list[Request]]:
        """Stop at once: requests whose work here is lost, and those whose cache is still elsewhere, by number.

        Tokens of whole steps before now count as made.
        """
        if self._block is not None:
            done = self._block.steps_by(self.env.now, whole=True)
            if done:
                self._advance(done, self._block.seconds(done))
        self.tally.busy_s += max(0.0, self.env.now - self._since)
        if self.log is not None:
            self._write_log(self.log, self._since)
        self._since, self._block = math.inf, None
        self.process.interrupt()
        while self._newcomers:
            self._wait(self._newcomers.popleft()[1])
        kept = [*self.moves.arriving.values(), *(r for *_, r in self._waiting if r.index in self.moves.remote)]
        lost = [r for *_, r in self._waiting if r.index not in self.moves.remote]
        for request in list(self._running.values()):
            self._leave(request)
            lost.append(request)
        lost += [*self._prefilling, *self.moves.ready, *self.moves.leaving.values(), *(r for *_, r in self._fetching)]
        self._waiting, self._prefilling, self._fetching, self.moves = [], [], [], Moves()
        self.stuck = len(lost) + len(kept)
        self.tally.history.append((self.env.now, 0, 0, 0))
        return sorted(lost, key=lambda r: r.index), sorted(kept, key=lambda r: r.index)

    def _rouse(self) -> None:
        """Somebody came: a sleeping replica wakes, one that took many steps together ends after the one under way."""
        if self._wake is not None:
            if not self._wake.triggered:
                self._wake.succeed()
            return
        block = self._block
        if block is not None and not block.cut and block.steps_by(self.env.now) < block.steps:
            block.cut = True
            self.process.interrupt()

    def _sleep(self) -> Generator[Any, Any, None]:
        """Until somebody comes, or blocks that are fetched have. A history that ends here says that nothing runs."""
        now = (self.env.now, self.waiting, len(self._running), self.pool.used)
        if self.tally.history and self.tally.history[-1][1:] != now[1:]:
            self.tally.history.append(now)
        self._wake = self.env.event()
        if self._fetching:
            yield self._wake | self.env.timeout(max(0.0, self._fetching[0][0] - self.env.now))
        else:
            yield self._wake
        self._wake = None

    def _queue(self) -> None:
        """Let newcomers into the queue that the scheduler sees.

        An asynchronous scheduler plans a step when the one before starts: what comes later waits for the next plan.
        """
        seen = self._step_began_s if self.how.plans_ahead else math.inf
        while self._newcomers and self._newcomers[0][0] <= seen:
            self._wait(self._newcomers.popleft()[1])

    def _wait(self, request: Request) -> None:
        rank = request.priority if self.how.order == "priority" else 0
        heapq.heappush(self._waiting, (rank, request.index, request))

    # --- the process

    def _work(self) -> Generator[Any, Any, None]:
        import simpy

        try:
            yield from self._serve()
        except simpy.Interrupt:
            return  # it failed

    def _serve(self) -> Generator[Any, Any, None]:
        while True:
            if not (self._waiting or self._prefilling or self._running or self._newcomers or self.moves.ready):
                self._sealed = self._sealed and bool(self._fetching)
                yield from self._sleep()
            if not (self._prefilling or self._running):
                self._step_began_s = self.env.now  # nothing runs that a plan could be made beside
            if self._newcomers:
                self._queue()
            if self._fetching:
                self._fetched()
            if self._waiting or self.moves.ready:
                self._admit()
            chunks = self._chunks() if self._prefilling else []
            started = self._since = self.env.now
            if chunks:
                seconds = self._start_mixed(chunks)
                self._step_began_s = started
                yield self.env.timeout(seconds)
                self._end_mixed(chunks, seconds)
            elif self._running:
                steps, seconds = self._start_generating()
                if steps:
                    yield from self._generate(steps, seconds)
            else:  # caches that come or go hold the memory that all others need
                self._since = math.inf
                yield from self._sleep()
                started = self.env.now
            self._note(started)

    def _generate(self, steps: int, seconds: float) -> Generator[Any, Any, None]:
        """Run steps together; where somebody comes meanwhile, those up to the end of the step under way."""
        import simpy

        block = self._block = self._block_of(steps, seconds)
        try:
            yield self.env.timeout(seconds)
        except simpy.Interrupt:
            if not block.cut:
                raise
            steps = block.steps_by(self.env.now)
            seconds = block.seconds(steps)
            self.pool.give(self._pages_needed(block.steps) - self._pages_needed(steps))
            block.steps = steps
            yield self.env.timeout(max(0.0, block.started_s + seconds - self.env.now))
        self._block = None
        self._step_began_s = block.started_s + seconds * (1 - 1 / steps)
        self._advance(steps, seconds)

    def _block_of(self, steps: int, seconds: float) -> Block:
        """Steps that are taken together, and the time that any number of them takes."""
        sequences, mean, cost = len(self._running), self._mean_context(), self.cost
        debt = seconds - steps * cost.generate_s(sequences, mean + (steps - 1) / 2)
        return Block(
            self.env.now, steps, lambda n: n * cost.generate_s(sequences, mean + (n - 1) / 2) + debt if n else 0.0
        )

    def _note(self, started: float) -> None:
        now = self.env.now
        self.tally.busy_s += now - started
        self._since = math.inf
        if self.log is not None:
            self._write_log(self.log, started)
        if now >= self._next_note:
            self._next_note = now + self._note_every_s
            self.tally.history.append((now, self.waiting, len(self._running), self.pool.used))

    def _write_log(self, log: StepLog, started: float) -> None:
        tally, (steps, prompts, tokens) = self.tally, self._logged
        self._logged = (tally.steps, tally.prompt_tokens, tally.tokens)
        if tally.steps > steps:
            log.add(started, self.env.now, tally.steps - steps, tally.prompt_tokens - prompts, tally.tokens - tokens)

    # --- admission

    def _admit(self) -> None:
        """Move requests from the queue into the batch while their prompts fit."""
        if self.how.policy == "static" and self._sealed:
            if self._prefilling or self._running or self._fetching:
                return
            self._sealed = False
        for request in self.moves.ready:
            self._stalls.append(self.env.now - request.token_s)
            self._join(request)
        self.moves.ready = []
        while self._waiting and self._held_sequences < self.how.most_sequences:
            request = self._waiting[0][2]
            if not self._take_pages(request):
                break
            heapq.heappop(self._waiting)
            request.admitted_s = self.env.now if request.admitted_s is None else request.admitted_s
            if request.index in self.moves.remote:
                self.moves.remote.remove(request.index)
                self.moves.arriving[request.index] = request
                assert self.moves.fetch is not None
                self.moves.fetch(request, self)
            elif request.index in self._swapped:
                pages = self._swapped.pop(request.index)
                self._debt_s += pages * self._swap_s + self.how.state_swap_s
                if self.pool.tiers is not None:
                    self.pool.tiers.unpin(self._blocks_of(pages))
                self._join(request)
            elif self.pool.tiers is None or not self._fetch(request):
                self._prefilling.append(request)
        self._sealed = True

    @property
    def _held_sequences(self) -> int:
        """Sequences that take a place of the batch; those that leave do so where each has a state of its own."""
        leaving = len(self.moves.leaving) if self.moves.stateful else 0
        coming = len(self.moves.arriving) + len(self._fetching)
        return len(self._prefilling) + len(self._running) + coming + leaving

    def _blocks_of(self, pages: int) -> int:
        return -(-pages * self.pool.page // self.pool.block)

    def _fetch(self, request: Request) -> bool:
        """Begin to bring blocks of a prompt from the tiers; False where there are none, or steps wait for them."""
        tiers, block, held = self.pool.tiers, self.pool.block, self._held[request.index]
        assert tiers is not None
        most = (request.context - 1) // block  # at least one token has to be computed to know the next
        more = tiers.match(request.blocks[held:most])
        if not more:
            return False
        seconds = tiers.fetch(request.blocks[held : held + more])
        if self.how.blocking_fetch:
            self._debt_s += seconds
            self._have(request, more)
            return False
        self._link_free_s = max(self._link_free_s, self.env.now) + seconds
        heapq.heappush(self._fetching, (self._link_free_s, request.index, more, request))
        return True

    def _fetched(self) -> None:
        """Let requests whose blocks have come go on."""
        while self._fetching and self._fetching[0][0] <= self.env.now:
            _, _, more, request = heapq.heappop(self._fetching)
            self._have(request, more)
            self._prefilling.append(request)

    def _have(self, request: Request, more: int) -> None:
        """*more* blocks of a prompt have come: they are in the cache as if computed here."""
        held, block = self._held[request.index], self.pool.block
        self._held[request.index] = held + self.pool.publish(request.blocks[: held + more], held)
        request.done += more * block
        self.tally.fetched_tokens += more * block
        self.tally.cached_tokens += more * block
        if request.first_token_s is None:
            request.cached = request.done

    def _take_pages(self, request: Request) -> bool:
        """Pages for all of a request's context, of which cached blocks are shared."""
        pool = self.pool
        swapped = request.index in self._swapped or request.index in self.moves.remote
        found = 0 if swapped else pool.match(request.blocks)
        if found and found * pool.block >= request.context:
            found -= 1  # at least one token has to be computed to know the next
        names = request.blocks[:found]
        pool.hold(names)
        held = request.context - 1 if swapped else request.context  # the newest token is not in the cache yet
        if not pool.take(pool.pages_of(held) - pool.pages_of_blocks(found)):
            pool.drop(names)
            return False
        self._held[request.index] = found
        if not swapped:
            request.done = found * pool.block
            if request.first_token_s is None:
                request.cached = request.done
            self.tally.cached_tokens += request.done
        return True

    # --- prompts

    def _chunks(self) -> list[tuple[Request, int]]:
        """Prompt pieces of the next step."""
        policy, running = self.how.policy, len(self._running)
        if policy in ("continuous", "prefill_first", "static"):
            beside = running if policy == "continuous" else 0
            room, out = self.how.most_tokens - beside, list[tuple[Request, int]]()
            for request in self._prefilling:
                left = request.context - request.done
                if out and left > room:
                    break
                out.append((request, left))
                room -= left
            return out
        room = self.how.most_tokens - running
        if policy == "decode_first" and running:
            room = min(room, self._within_target())
        out = []
        for request in self._prefilling:
            if room <= 0:
                break
            size = min(room, request.context - request.done)
            out.append((request, size))
            room -= size
        return out

    def _within_target(self) -> int:
        """Prompt tokens that keep a step within the target; at least a page, so that prompts end."""
        first = self._prefilling[0]
        running, mean = len(self._running), self._mean_context()
        low, high = self.pool.page, self.how.most_tokens
        while high - low > self.pool.page:
            middle = (low + high) // 2
            if self.cost.mixed_s(running, mean, [(middle, first.done)], 1) <= self.how.step_target_s:
                low = middle
            else:
                high = middle
        return low

    @property
    def _beside(self) -> bool:
        """Whether sequences generate on in a step that has prompts."""
        return self.how.policy not in ("prefill_first", "static")

    def _start_mixed(self, chunks: list[tuple[Request, int]]) -> float:
        """Seconds of a step with prompt pieces."""
        if self._beside:
            self._make_room()
        running = len(self._running) if self._beside else 0
        ending, sizes = 0, list[tuple[int, int]]()
        for r, q in chunks:
            sizes.append((q, r.done))
            ending += r.done + q >= r.prompt + r.made
        return self.cost.mixed_s(running, self._mean_context(), sizes, ending) + self._paid_debt()

    def _end_mixed(self, chunks: list[tuple[Request, int]], seconds: float) -> None:
        """What such a step leaves behind."""
        self.tally.steps += 1
        if self._running and self._beside:
            self._advance(1, seconds)
            self.tally.steps -= 1
        ended, still = list[Request](), list[Request]()
        for request, size in chunks:
            request.done += size
            self.tally.prompt_tokens += size
            if request.first_token_s is not None:
                self.tally.recomputed_tokens += size
            (ended if request.done >= request.prompt + request.made else still).append(request)
        # Chunks are pieces of the first prompts, in their order.
        self._prefilling = still + self._prefilling[len(chunks) :]
        now = self.env.now
        for request in ended:
            self._prompt_ended(request, now)

    def _prompt_ended(self, request: Request, end: float) -> None:
        """The step that ends a prompt also makes a token."""
        pool = self.pool
        if request.blocks and pool.block:
            held = self._held[request.index]
            names = request.blocks[: request.prompt // pool.block]
            self._held[request.index] = held + pool.publish(names, held)
        request.made += 1
        self.tally.tokens += 1
        if request.first_token_s is None:
            request.first_token_s = end + self.how.on_the_way_s
        if request.made >= request.output:
            self._end(request, end)
        elif self.moves.handoff is not None:
            request.token_s = end
            self.moves.leaving[request.index] = request
            self.moves.handoff(request, self)
        else:
            self._join(request)

    # --- generation

    def _mean_context(self) -> float:
        return self._context / len(self._running) if self._running else 0.0

    def _join(self, request: Request) -> None:
        """Begin to generate: the newest token is not in the cache yet."""
        index = request.index
        self._running[index] = request
        self._joined[index] = self._step
        heapq.heappush(self._ends, (self._step + request.output - request.made, index))
        self._context += request.context
        # The cache holds context − 1 tokens; a page is needed by the step that finds it full.
        self._phases[(request.context - 1 - self._step) % self.pool.page] += 1

    def _leave(self, request: Request) -> None:
        """Stop generating, with the tokens made so far."""
        index = request.index
        del self._running[index]
        self._context -= request.context + self._step - self._joined[index]
        self._phases[(request.context - 1 - self._joined[index]) % self.pool.page] -= 1
        request.made += self._step - self._joined.pop(index)

    def _pages_needed(self, steps: int) -> int:
        """Pages that the next *steps* steps of the batch open."""
        page = self.pool.page
        if steps == 1 < page:
            return self._phases[-self._step % page]
        whole, rest = divmod(steps, page)
        return whole * len(self._running) + sum(self._phases[-(self._step + j) % page] for j in range(rest))

    def _make_room(self) -> None:
        """Take the pages of the next step, sending the youngest sequence away while there are too few."""
        drafts = self.how.acceptance is not None
        while self._running and not self.pool.take(self._pages_drafted() if drafts else self._pages_needed(1)):
            self._preempt()

    def _pages_drafted(self) -> int:
        """Pages that the next step may open: every draft of every sequence has a place in the cache."""
        return sum(high - low for _, low, high in self._drafted())

    def _drafted(self) -> Iterator[tuple[Request, int, int]]:
        """Sequences of the batch, the pages they hold, and those they need if every draft of a step is accepted."""
        assert self.how.acceptance is not None
        most, pages_of = 1 + self.how.acceptance.drafted, self.pool.pages_of
        for index, request in self._running.items():
            cached = request.context + self._step - self._joined[index] - 1
            left = request.prompt + request.output - 1 - cached
            yield request, pages_of(cached), pages_of(cached + min(most, left))

    def _accept(self) -> None:
        """Behind a step: accepted drafts are tokens as the step's own, and places of the others are given back."""
        acceptance, pool = self.how.acceptance, self.pool
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
        self.tally.tokens += total
        self.tally.drafted += acceptance.drafted * len(reserved)
        self.tally.accepted += total
        self.tally.gaps[0] = self.tally.gaps.get(0, 0) + total  # they come together with the step's own

    def _preempt(self) -> None:
        youngest = max(self._running)
        request = self._running[youngest]
        self._leave(request)
        pages = self.pool.pages_of(request.context - 1)
        self._release(request, pages)
        request.preemptions += 1
        self.tally.preemptions += 1
        request.done = 0
        tiers = self.pool.tiers
        if self.how.preemption == "swap" and (tiers is None or tiers.pin(self._blocks_of(pages))):
            self._swapped[youngest] = pages
            self._debt_s += pages * self._swap_s + self.how.state_swap_s
        self._wait(request)

    def _release(self, request: Request, pages: int) -> None:
        """Give back what a request holds: *pages* of context, of which some belong to named blocks."""
        held = self._held.pop(request.index, 0)
        self.pool.give(pages - self.pool.pages_of_blocks(held))
        self.pool.drop(request.blocks[:held])

    def _paid_debt(self) -> float:
        """Transfers of swapped pages, which the next step waits for."""
        debt, self._debt_s = self._debt_s, 0.0
        return debt

    def _start_generating(self) -> tuple[int, float]:
        """How many steps nothing interrupts, and their seconds; 0 where the last sequence had to leave."""
        self._make_room()
        if not self._running:
            return 0, 0.0
        sequences, mean = len(self._running), self._mean_context()
        while self._ends[0][1] not in self._running or self._stale(self._ends[0]):
            heapq.heappop(self._ends)
        steps = self._ends[0][0] - self._step
        until = self._horizon() - self.env.now
        if self._fetching:
            until = max(0.0, min(until, self._fetching[0][0] - self.env.now))
        one = self.cost.generate_s(sequences, mean)
        if self._newcomers or self.how.acceptance is not None:
            steps = 1  # the next plan takes newcomers in; drafts are drawn step by step
        elif until < steps * one:
            steps = max(1, math.ceil(until / one))
        if steps == 1:
            return 1, one + self._paid_debt()
        more = steps - 1
        self._step += 1  # the pages of the first step are taken
        while more and not self.pool.take(self._pages_needed(more)):
            more //= 2
        self._step -= 1
        steps = 1 + more
        return steps, steps * self.cost.generate_s(sequences, mean + (steps - 1) / 2) + self._paid_debt()

    def _stale(self, entry: tuple[int, int]) -> bool:
        """Whether an end was pushed before its sequence was sent away and came back."""
        end, index = entry
        request = self._running[index]
        return end != self._joined[index] + request.output - request.made

    def _advance(self, steps: int, seconds: float) -> None:
        """Every sequence of the batch has made *steps* tokens."""
        sequences = len(self._running)
        self.tally.steps += steps
        gap = round(1e6 * seconds / steps)
        gaps = self.tally.gaps
        gaps[gap] = gaps.get(gap, 0) + steps * sequences
        self.tally.tokens += steps * sequences
        if self._stalls:  # the first of these tokens waited for a cache, too
            for stall in self._stalls[:sequences]:
                late = gap + round(1e6 * stall)
                gaps[gap] -= 1
                gaps[late] = gaps.get(late, 0) + 1
            self._stalls = []
            if not gaps[gap]:
                del gaps[gap]
        self._step += steps
        self._context += steps * sequences
        if self.how.acceptance is not None:
            self._accept()
        while self._ends and self._ends[0][0] <= self._step:
            entry = heapq.heappop(self._ends)
            if entry[1] not in self._running or self._stale(entry):
                continue
            request = self._running[entry[1]]
            self._leave(request)
            self._end(request, self.env.now)

    def _end(self, request: Request, end: float) -> None:
        request.finish_s = end + self.how.on_the_way_s
        self._release(request, self.pool.pages_of(request.context - 1))
        self._finished(request)

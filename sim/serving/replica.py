"""One replica: a scheduler that turns waiting requests into steps, as a process in simulated time.

Between two events (an arrival, an end, a page that runs out) the batch does not change, and all steps up to there are
one event.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from .batch import Batch
from .holdings import Holdings
from .kv_pool import KvPool
from .moves import Block, Moves
from .prompts import Chunk, pieces, whole_prompts, within_target
from .recorder import Recorder
from .request import Request
from .scheduling import Scheduling, Tally
from .step_cost import Costs
from .waiting import Waiting

if TYPE_CHECKING:
    import simpy


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
        self._horizon, self._finished = horizon, finished
        self.tally = Tally() if tally is None else tally
        self._holdings = Holdings(pool, scheduling, self.tally, swap_s)
        self._batch = Batch(pool, scheduling.acceptance)
        self._fetching, self._running = self._holdings.fetching, self._batch.running
        self.recorder = Recorder(self.tally, note_every_s)
        self._waiting = Waiting(scheduling.order == "priority")
        self._newcomers, self._seen = self._waiting.newcomers, self._waiting.seen
        self._step_began_s = -math.inf
        self._prefilling: list[Request] = []
        self._debt_s = 0.0
        self._sealed = False
        self.moves, self.stuck = Moves(), 0
        self._block: Block | None = None
        self._wake: simpy.Event | None = None
        self.process = env.process(self._work())

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    @property
    def load(self) -> int:
        """Requests that wait, run or have their cache on the way here, or are stuck because it failed."""
        moving = len(self.moves.arriving) + len(self.moves.ready) + len(self._fetching)
        return len(self._waiting) + len(self._prefilling) + len(self._running) + moving + self.stuck

    @property
    def empty(self) -> bool:
        """Whether nothing waits, runs or lies here."""
        return not (self.load or self.moves.leaving)

    @property
    def busy_s(self) -> float:
        """Time in steps, with the part of the step under way."""
        return self.recorder.busy_s(self.env.now)

    def submit(self, request: Request) -> None:
        """Put a request into the queue."""
        request.replica = self.index
        self._waiting.come(request, self.env.now)
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
        self._holdings.release(request)
        self._rouse()

    def forget(self, request: Request) -> None:
        """A request that waits for its cache will not come."""
        if self.moves.arriving.pop(request.index, None) is not None:
            self._holdings.release(request)
        else:
            self.moves.remote.discard(request.index)
            self._waiting.discard(request)
        self._rouse()

    def fail(self) -> tuple[list[Request], list[Request]]:
        """Stop at once: requests whose work here is lost, and those whose cache is still elsewhere, by number.

        Tokens of whole steps before now count as made.
        """
        if self._block is not None:
            done = self._block.steps_by(self.env.now, whole=True)
            if done:
                self._advance(done, self._block.seconds(done), self._block.started_s)
        self.recorder.failed(self.env.now)
        self._block = None
        self.process.interrupt()
        remote = self.moves.remote
        kept = [*self.moves.arriving.values(), *(r for r in self._waiting if r.index in remote)]
        lost = [r for r in self._waiting if r.index not in remote]
        for request in list(self._running.values()):
            self._leave(request)
            lost.append(request)
        lost += [*self._prefilling, *self.moves.ready, *self.moves.leaving.values(), *(r for *_, r in self._fetching)]
        self._prefilling, self.moves = [], Moves()
        self._newcomers.clear()
        self._seen.clear()
        self._fetching.clear()
        self.stuck = len(lost) + len(kept)
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
        self.recorder.idle(self.env.now, self._state)
        self._wake = self.env.event()
        if self._fetching:
            yield self._wake | self.env.timeout(max(0.0, self._fetching[0][0] - self.env.now))
        else:
            yield self._wake
        self._wake = None

    @property
    def _state(self) -> tuple[int, int, int]:
        """Requests that wait and run, pages in use."""
        return self.waiting, len(self._running), self.pool.used

    # --- the process

    def _work(self) -> Generator[Any, Any, None]:
        import simpy

        try:
            yield from self._serve()
        except simpy.Interrupt:
            return  # it failed

    def _serve(self) -> Generator[Any, Any, None]:
        while True:
            if not (self._seen or self._newcomers or self._prefilling or self._running or self.moves.ready):
                self._sealed = self._sealed and bool(self._fetching)
                yield from self._sleep()
            if not (self._prefilling or self._running):
                self._step_began_s = self.env.now  # nothing runs that a plan could be made beside
            if self._newcomers:
                self._waiting.see(self._step_began_s if self.how.plans_ahead else math.inf)
            if self._fetching:
                self._prefilling += self._holdings.fetched(self.env.now)
            if self._seen or self.moves.ready:
                self._admit()
            chunks = self._chunks() if self._prefilling else []
            started = self.recorder.since_s = self.env.now
            if chunks:
                seconds = self._start_mixed(chunks)
                self._step_began_s = started
                yield self.env.timeout(seconds)
                self._end_mixed(chunks, seconds)
            elif self._running:
                steps, seconds, debt = self._start_generating()
                if steps:
                    yield from self._generate(steps, seconds, debt)
            else:  # caches that come or go hold the memory that all others need
                self.recorder.since_s = math.inf
                yield from self._sleep()
                started = self.env.now
            self.recorder.ended(started, self.env.now, self._state)

    def _generate(self, steps: int, seconds: float, debt: float) -> Generator[Any, Any, None]:
        """Run steps together; where somebody comes meanwhile, those up to the end of the step under way."""
        import simpy

        batch = self._batch
        block = self._block = Block.of(self.cost, len(batch), batch.mean_context, self.env.now, steps, seconds, debt)
        try:
            yield self.env.timeout(seconds)
        except simpy.Interrupt:
            if not block.cut:
                raise
            steps = block.steps_by(self.env.now)
            seconds = block.seconds(steps)
            self.pool.give(batch.pages_needed(block.steps) - batch.pages_needed(steps))
            block.steps = steps
            yield self.env.timeout(max(0.0, block.started_s + seconds - self.env.now))
        self._block = None
        self._step_began_s = block.started_s + seconds * (1 - 1 / steps)
        self._advance(steps, seconds, block.started_s)

    # --- admission

    def _admit(self) -> None:
        """Move requests from the queue into the batch while their prompts fit."""
        if self.how.policy == "static" and self._sealed:
            if self._prefilling or self._running or self._fetching:
                return
            self._sealed = False
        for request in self.moves.ready:
            self._join(request)
        self.moves.ready = []
        while self._seen and self._held_sequences < self.how.most_sequences:
            request = self._seen[0][2]
            if not self._holdings.take(request, request.index in self.moves.remote):
                break
            self._waiting.pop()
            request.placed_s = self.env.now
            if request.admitted_s is None:
                request.admitted_s = self.env.now
            if request.index in self.moves.remote:
                self.moves.remote.remove(request.index)
                self.moves.arriving[request.index] = request
                assert self.moves.fetch is not None
                self.moves.fetch(request, self)
            elif self._holdings.is_swapped(request):
                self._debt_s += self._holdings.swap_in(request)
                self._join(request)
            elif not self._fetch(request):
                self._prefilling.append(request)
        self._sealed = True

    @property
    def _held_sequences(self) -> int:
        """Sequences that take a place of the batch; those that leave do so where each has a state of its own."""
        leaving = len(self.moves.leaving) if self.moves.stateful else 0
        coming = len(self.moves.arriving) + len(self._fetching)
        return len(self._prefilling) + len(self._running) + coming + leaving

    def _fetch(self, request: Request) -> bool:
        """Begin to bring blocks of its prompt from the tiers; False where it need not wait for any."""
        waits, seconds = self._holdings.fetch(request, self.env.now)
        self._debt_s += seconds
        return waits

    # --- prompts

    def _chunks(self) -> list[Chunk]:
        """Prompt pieces of the next step."""
        how, running = self.how, len(self._running)
        if how.policy in ("continuous", "prefill_first", "static"):
            return whole_prompts(how, self._prefilling, running)
        room = how.most_tokens - running
        if how.policy == "decode_first" and running:
            past, mean = self._prefilling[0].done, self._batch.mean_context
            room = min(room, within_target(how, self.cost, running, mean, past, self.pool.page))
        return pieces(room, self._prefilling)

    @property
    def _beside(self) -> bool:
        """Whether sequences generate on in a step that has prompts."""
        return self.how.policy not in ("prefill_first", "static")

    def _start_mixed(self, chunks: list[Chunk]) -> float:
        """Seconds of a step with prompt pieces."""
        if self._beside:
            self._make_room()
        running = len(self._running) if self._beside else 0
        ending, sizes = 0, list[tuple[int, int]]()
        for r, q in chunks:
            sizes.append((q, r.done))
            ending += r.done + q >= r.prompt + r.made
        return self.cost.mixed_s(running, self._batch.mean_context, sizes, ending) + self._paid_debt()

    def _end_mixed(self, chunks: list[Chunk], seconds: float) -> None:
        """What such a step leaves behind."""
        self.recorder.pages(self.pool.used)
        self.tally.steps += 1
        self.tally.prompt_steps += 1
        if self._running and self._beside:
            self._advance(1, seconds, self.env.now - seconds)
            self.tally.steps -= 1
        ended, still = list[Request](), list[Request]()
        for request, size in chunks:
            request.done += size
            self.tally.prompt_tokens += size
            if request.first_token_s is not None:
                self.tally.recomputed_tokens += size
            (ended if request.done >= request.prompt + request.made else still).append(request)
        # Chunks are pieces of the first prompts, in their order.
        self._prefilling = ended + still + self._prefilling[len(chunks) :]
        now = self.env.now
        for request in ended:  # the others are still here meanwhile, so that nobody takes the replica for empty
            del self._prefilling[0]
            self._prompt_ended(request, now)

    def _prompt_ended(self, request: Request, end: float) -> None:
        """The step that ends a prompt also makes a token."""
        self._holdings.publish(request)
        request.made += 1
        self.recorder.token(request, end)
        if request.first_token_s is None:
            request.first_token_s = end + self.how.on_the_way_s
        if request.made >= request.output:
            self._end(request, end)
        elif self.moves.handoff is not None:
            self.moves.leaving[request.index] = request
            self.moves.handoff(request, self)
        else:
            self._join(request)

    # --- generation

    def _join(self, request: Request) -> None:
        self._batch.join(request)
        self.recorder.joined(request)

    def _leave(self, request: Request) -> None:
        self._batch.leave(request)
        self.recorder.left(request)

    def _make_room(self) -> None:
        """Take the pages of the next step, sending the youngest sequence away while there are too few."""
        while self._running and not self._batch.take_step():
            self._preempt()

    def _preempt(self) -> None:
        request = self._running[max(self._running)]
        self._leave(request)
        pages = self._holdings.release(request)
        request.preemptions += 1
        self.tally.preemptions += 1
        request.done = 0
        if self.how.preemption == "swap":
            self._debt_s += self._holdings.swap_out(request, pages)
        self._waiting.push(request)

    def _paid_debt(self) -> float:
        """Transfers of swapped pages, which the next step waits for."""
        debt, self._debt_s = self._debt_s, 0.0
        return debt

    def _start_generating(self) -> tuple[int, float, float]:
        """Steps that nothing interrupts (0: the last sequence had to leave), their seconds, and what comes first."""
        self._make_room()
        if not self._running:
            return 0, 0.0, 0.0
        batch = self._batch
        sequences, mean = len(batch), batch.mean_context
        steps = batch.steps_left()
        until = self._horizon() - self.env.now
        if self._fetching:
            until = max(0.0, min(until, self._fetching[0][0] - self.env.now))
        one = self.cost.generate_s(sequences, mean)
        if self._newcomers or self.how.acceptance is not None:
            steps = 1  # the next plan takes newcomers in; drafts are drawn step by step
        elif until < steps * one:
            steps = max(1, math.ceil(until / one))
        debt = self._paid_debt()
        if steps == 1:
            return 1, one + debt, debt
        steps = 1 + batch.take_further(steps - 1)
        return steps, steps * self.cost.generate_s(sequences, mean + (steps - 1) / 2) + debt, debt

    def _advance(self, steps: int, seconds: float, started: float) -> None:
        """Every sequence of the batch has made *steps* tokens."""
        self.recorder.pages(self.pool.used)
        sequences = len(self._running)
        self.recorder.tokens(sequences, steps, seconds, started)
        self._batch.advance(steps)
        if self.how.acceptance is not None:
            self.recorder.accepted(self.how.acceptance.drafted * sequences, self._batch.accept())
        while (request := self._batch.pop_ended()) is not None:
            self._end(request, self.env.now)

    def _end(self, request: Request, end: float) -> None:
        request.finish_s = end + self.how.on_the_way_s
        self._holdings.release(request)
        self._finished(request)

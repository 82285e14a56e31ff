"""What a replica tells about itself: time in steps, times between tokens, its history, its log of steps."""

from __future__ import annotations

import math

from .request import Request
from .scheduling import Tally
from .step_log import StepLog


class Recorder:
    """Keeps the tally of one replica.

    Args:
        tally: where it counts.
        note_every_s: least time between two entries of the history.

    Attributes:
        log: of steps, if one is kept.
        since_s: when the step under way began; infinite where there is none.
    """

    def __init__(self, tally: Tally, note_every_s: float) -> None:
        self.tally, self._note_every_s, self._next_note_s = tally, note_every_s, 0.0
        self.log: StepLog | None = None
        self._logged = (tally.steps, tally.prompt_tokens, tally.tokens)
        self._last_s = 0.0  # when the batch made its newest tokens
        self._fresh: dict[int, float] = {}  # those who joined since, and when theirs was made
        self.since_s = math.inf

    def busy_s(self, now: float) -> float:
        """Time in steps, with the part of the step under way."""
        return self.tally.busy_s + max(0.0, now - self.since_s)

    # --- times between tokens

    def joined(self, request: Request) -> None:
        """A sequence generates from now on; its newest token is as old as it says."""
        self._fresh[request.index] = request.token_s

    def left(self, request: Request) -> None:
        """It generates no more: it knows when its newest token was made."""
        request.token_s = self._fresh.pop(request.index, self._last_s)

    def token(self, request: Request, now: float) -> None:
        """The step that read its context has made a token, which may not be its first."""
        self.tally.tokens += 1
        if request.first_token_s is not None:
            gap = round(1e6 * (now - request.token_s))
            self.tally.gaps[gap] = self.tally.gaps.get(gap, 0) + 1
        request.token_s = now

    def tokens(self, sequences: int, steps: int, seconds: float, started: float) -> None:
        """*sequences* have made a token in each of *steps*, which took *seconds*."""
        tally = self.tally
        tally.steps += steps
        tally.tokens += steps * sequences
        tally.sequence_steps += steps * sequences
        gap, gaps = round(1e6 * seconds / steps), tally.gaps
        gaps[gap] = gaps.get(gap, 0) + steps * sequences
        if self._fresh or started > self._last_s:
            self._add_waits(gap, sequences, started)
        self._last_s = started + seconds

    def _add_waits(self, gap: int, sequences: int, started: float) -> None:
        """The first of these tokens waited besides: for prompts that were read alone, for a cache that was moved."""
        gaps, fresh = self.tally.gaps, self._fresh
        waits = [(started - newest, 1) for newest in fresh.values()]
        waits.append((started - self._last_s, sequences - len(fresh)))
        fresh.clear()
        for wait, count in waits:
            late = round(1e6 * wait) if count else 0
            if late:
                gaps[gap] -= count
                gaps[gap + late] = gaps.get(gap + late, 0) + count
        if not gaps[gap]:
            del gaps[gap]

    def accepted(self, drafted: int, accepted: int) -> None:
        """Drafts of a step, and how many of them are tokens: these come together with the step's own."""
        tally = self.tally
        tally.tokens += accepted
        tally.drafted += drafted
        tally.accepted += accepted
        tally.gaps[0] = tally.gaps.get(0, 0) + accepted

    # --- history

    def pages(self, used: int) -> None:
        """So many pages are in use."""
        self.tally.most_pages = max(self.tally.most_pages, used)

    def ended(self, started: float, now: float, state: tuple[int, int, int]) -> None:
        """Steps since *started* have ended; *state*: waiting, running, pages in use."""
        self.tally.busy_s += now - started
        self.since_s = math.inf
        if self.log is not None:
            self._write(self.log, started, now)
        if now >= self._next_note_s:
            self._next_note_s = now + self._note_every_s
            self.tally.history.append((now, *state))

    def idle(self, now: float, state: tuple[int, int, int]) -> None:
        """Nothing happens from now on."""
        self.pages(state[2])
        history = self.tally.history
        if history and history[-1][1:] != state:
            history.append((now, *state))

    def failed(self, now: float) -> None:
        """It stops in the middle of a step."""
        self.tally.busy_s += max(0.0, now - self.since_s)
        if self.log is not None:
            self._write(self.log, self.since_s, now)
        self.since_s = math.inf
        self.tally.history.append((now, 0, 0, 0))

    def _write(self, log: StepLog, started: float, now: float) -> None:
        tally, (steps, prompts, tokens) = self.tally, self._logged
        self._logged = (tally.steps, tally.prompt_tokens, tally.tokens)
        if tally.steps > steps:
            log.add(started, now, tally.steps - steps, tally.prompt_tokens - prompts, tally.tokens - tokens)

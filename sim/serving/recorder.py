"""What a replica tells about itself: time in steps, times between tokens, its history, its log of steps."""

from __future__ import annotations

import math

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
        self._stalls: list[float] = []
        self.since_s = math.inf

    def busy_s(self, now: float) -> float:
        """Time in steps, with the part of the step under way."""
        return self.tally.busy_s + max(0.0, now - self.since_s)

    # --- times between tokens

    def stalled(self, seconds: float) -> None:
        """The next token of a sequence comes so much later."""
        self._stalls.append(seconds)

    def tokens(self, sequences: int, steps: int, seconds: float) -> None:
        """*sequences* have made a token in each of *steps*, which took *seconds*."""
        tally = self.tally
        tally.steps += steps
        tally.tokens += steps * sequences
        gap, gaps = round(1e6 * seconds / steps), tally.gaps
        gaps[gap] = gaps.get(gap, 0) + steps * sequences
        if self._stalls:  # the first of these tokens waited for a cache, too
            for stall in self._stalls[:sequences]:
                late = gap + round(1e6 * stall)
                gaps[gap] -= 1
                gaps[late] = gaps.get(late, 0) + 1
            self._stalls = []
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

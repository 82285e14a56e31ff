"""What a replica did over time, in a bounded number of spans: the longer the run, the coarser they are."""

from __future__ import annotations

from dataclasses import dataclass

MOST_SPANS = 8000
"""Spans of one replica; when there are more, neighbours are put together."""
MOST_IN_ALL = 64_000
"""Spans of all replicas of a pool together, beside the few that each has at least."""
FEWEST_SPANS = 200


def spans_each(replicas: int) -> int:
    """Spans that each of so many replicas may have.

    >>> spans_each(2), spans_each(64), spans_each(10_000)
    (8000, 1000, 200)
    """
    return max(FEWEST_SPANS, min(MOST_SPANS, MOST_IN_ALL // replicas))


@dataclass(slots=True)
class Span:
    """Steps of one kind from *start_s* to *end_s*, of which *busy_s* were steps.

    Attributes:
        prompts: they read prompts (beside what generates); else they only generate.
        steps: how many.
        prompt_tokens, tokens: read, generated.
    """

    start_s: float
    end_s: float
    busy_s: float
    prompts: bool
    steps: int
    prompt_tokens: int
    tokens: int


class StepLog:
    """Spans of one replica, in order of time.

    Steps of one kind that follow each other are one span while it is shorter than ``window_s``, which begins at 0 and
    is widened whenever there are too many spans; spans that are put together then may be of both kinds.
    """

    def __init__(self, most: int = MOST_SPANS) -> None:
        self._most = most
        self.spans: list[Span] = []
        self.window_s = 0.0

    def add(self, start_s: float, end_s: float, steps: int, prompt_tokens: int, tokens: int) -> None:
        """Steps that ended."""
        new = Span(start_s, end_s, end_s - start_s, prompt_tokens > 0, steps, prompt_tokens, tokens)
        if self.spans and self._together(self.spans[-1], new):
            _extend(self.spans[-1], new)
            return
        self.spans.append(new)
        if len(self.spans) > self._most:
            self._coarsen()

    def _together(self, last: Span, new: Span) -> bool:
        return new.end_s - last.start_s <= self.window_s and last.prompts == new.prompts

    def _coarsen(self) -> None:
        """Put neighbours together until half of the spans are left."""
        span = self.spans[-1].end_s - self.spans[0].start_s
        self.window_s = max(2.0 * self.window_s, 2.0 * span / self._most)
        while len(self.spans) > self._most // 2:
            merged: list[Span] = []
            for one in self.spans:
                if merged and one.end_s - merged[-1].start_s <= self.window_s:
                    _extend(merged[-1], one)
                else:
                    merged.append(one)
            self.spans = merged
            self.window_s *= 2.0


def _extend(into: Span, more: Span) -> None:
    into.end_s = more.end_s
    into.busy_s += more.busy_s
    into.steps += more.steps
    into.prompts = into.prompts or more.prompts
    into.prompt_tokens += more.prompt_tokens
    into.tokens += more.tokens

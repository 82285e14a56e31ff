"""A request, and what happened to it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Request:
    """One request on its way through a fleet. Times are seconds of simulated time, None where not reached.

    Attributes:
        index: order of arrival.
        arrival_s: when it arrives.
        prompt, output: tokens of its prompt, tokens it will generate (at least 1).
        priority: smaller is served first under the ``priority`` order.
        blocks: names of the prompt's full blocks (``block`` tokens each), shared prefixes having equal names.
        done: prompt tokens (and, after a preemption, generated ones) that are in the cache.
        made: tokens generated.
        cached: prompt tokens that a prefix cache spared.
        token_s: when it made its newest token, where it does not generate.
        admitted_s: when it first got pages; ``placed_s``: when it last did.
        moved_s: when its cache arrived elsewhere.
        retries: replicas that failed under it.
    """

    index: int
    arrival_s: float
    prompt: int
    output: int
    priority: int = 0
    blocks: tuple[int, ...] = ()
    done: int = 0
    made: int = 0
    cached: int = 0
    first_token_s: float | None = None
    finish_s: float | None = None
    admitted_s: float | None = None
    preemptions: int = 0
    replica: int = -1
    placed_s: float = 0.0
    token_s: float = 0.0
    moved_s: float | None = None
    retries: int = 0

    @property
    def context(self) -> int:
        """Tokens that must be in the cache before the next one is generated."""
        return self.prompt + self.made

    @property
    def ttft_s(self) -> float:
        """Arrival to first token."""
        assert self.first_token_s is not None
        return self.first_token_s - self.arrival_s

    @property
    def e2e_s(self) -> float:
        """Arrival to last token."""
        assert self.finish_s is not None
        return self.finish_s - self.arrival_s

    @property
    def tpot_s(self) -> float | None:
        """Mean time between its tokens; None for a single token."""
        assert self.finish_s is not None
        assert self.first_token_s is not None
        return (self.finish_s - self.first_token_s) / (self.output - 1) if self.output > 1 else None

    def within(self, ttft_s: float, tpot_s: float) -> bool:
        """Whether it kept both promises; a single token keeps the second."""
        tpot = self.tpot_s
        return self.ttft_s <= ttft_s and (tpot is None or tpot <= tpot_s)

"""What a replica knows of caches that move between replicas, and of steps that it takes together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .request import Request
from .step_cost import Costs

if TYPE_CHECKING:
    from .replica import Replica

ROUNDING = 1e-9
"""Part of a step that counts as its end: sums of times are not exact."""


@dataclass(slots=True)
class Moves:
    """Requests of a replica whose cache comes from another one or goes to one, by number.

    Attributes:
        remote: of those in the queue, the ones whose cache is elsewhere.
        arriving: admitted, their cache on the way. ``ready``: it is here.
        leaving: read here, to be generated elsewhere; their pages are held until they are fetched.
        handoff: called when a prompt has been read here, where another replica generates.
        fetch: called when there is room for a cache that is elsewhere.
        stateful: requests that leave still take a place of the batch, because each holds a state of its own.
    """

    remote: set[int] = field(default_factory=set)
    arriving: dict[int, Request] = field(default_factory=dict)
    ready: list[Request] = field(default_factory=list)
    leaving: dict[int, Request] = field(default_factory=dict)
    handoff: Callable[[Request, Replica], None] | None = None
    fetch: Callable[[Request, Replica], None] | None = None
    stateful: bool = False


@dataclass(slots=True)
class Block:
    """Steps that a replica takes as one event.

    Attributes:
        started_s: when the first begins.
        steps: how many.
        seconds: what so many of them take.
        cut: somebody came and they end earlier.
        total_s: what all of them take, where that is known.
        growing: no step takes less time than the one before.
    """

    started_s: float
    steps: int
    seconds: Callable[[int], float]
    cut: bool = False
    total_s: float | None = None
    growing: bool = False

    @classmethod
    def of(
        cls, cost: Costs, sequences: int, context: float, now: float, steps: int, seconds: float, debt: float
    ) -> Block:
        """Steps of *sequences* that take *seconds* in all, of which *debt* comes first."""

        def taken(n: int) -> float:
            return n * cost.generate_s(sequences, context + (n - 1) / 2) + debt if n else 0.0

        return cls(now, steps, taken, total_s=seconds, growing=not debt)

    def steps_by(self, now: float, whole: bool = False) -> int:
        """Steps that have begun by *now* (``whole``: that have ended), at most all of them.

        >>> Block(10.0, 8, lambda n: 0.5 * n).steps_by(11.2), Block(10.0, 8, lambda n: 0.5 * n).steps_by(11.2, True)
        (3, 2)
        """
        passed = now - self.started_s
        total = self.seconds(self.steps) if self.total_s is None else self.total_s
        least = 0 if whole else 1
        if passed >= total or total <= 0.0:
            return self.steps
        if not whole and self.growing and passed * self.steps >= total * (self.steps - 1):
            return self.steps  # the last one is the longest
        limit = passed + ROUNDING * total / self.steps
        done = min(self.steps, int(passed / total * self.steps))
        while done < self.steps and self.seconds(done + 1) <= limit:
            done += 1
        while done > 0 and self.seconds(done) > limit:
            done -= 1
        under_way = done if whole or self.seconds(done) >= passed else done + 1
        return min(self.steps, max(least, under_way))

"""Which prompts, and how much of each, the next step reads."""

from __future__ import annotations

from collections.abc import Sequence

from .request import Request
from .scheduling import Scheduling
from .step_cost import Costs

Chunk = tuple[Request, int]
"""A request and the tokens of its prompt that a step reads."""


def whole_prompts(how: Scheduling, prefilling: Sequence[Request], running: int) -> list[Chunk]:
    """Whole prompts, the first of them however long it is."""
    beside = running if how.policy == "continuous" else 0
    room, out = how.most_tokens - beside, list[Chunk]()
    for request in prefilling:
        left = request.context - request.done
        if out and left > room:
            break
        out.append((request, left))
        room -= left
    return out


def pieces(room: int, prefilling: Sequence[Request]) -> list[Chunk]:
    """Pieces of *room* tokens together; none where there is no room."""
    out = []
    for request in prefilling:
        if room <= 0:
            break
        size = min(room, request.context - request.done)
        out.append((request, size))
        room -= size
    return out


def within_target(how: Scheduling, cost: Costs, running: int, context: float, past: int, page: int) -> int:
    """Prompt tokens that keep a step within the target; at least a *page*, so that prompts end.

    *past*: tokens of the first prompt that have been read.
    """
    low, high = page, how.most_tokens
    while high - low > page:
        middle = (low + high) // 2
        if cost.mixed_s(running, context, [(middle, past)], 1) <= how.step_target_s:
            low = middle
        else:
            high = middle
    return low

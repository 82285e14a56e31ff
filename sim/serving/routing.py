"""Which replica a request goes to."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import SpecError
from .replica import Replica
from .request import Request

ROUTES = ("round_robin", "least_loaded", "prefix_affinity")
AFFINITY_SLACK = 4
"""Requests more than on the least loaded replica that prefix-affine routing accepts."""


class Router:
    """Chooses a replica for a request."""

    def __init__(self, routing: str) -> None:
        if routing not in ROUTES:
            raise SpecError(f"unknown routing {routing!r}; expected one of {', '.join(ROUTES)}")
        self._routing, self._turn, self._homes = routing, -1, dict[int, int]()

    def choose(self, request: Request, replicas: Sequence[Replica]) -> Replica:
        """The one of *replicas* (those that serve now) for *request*; ties go to the smallest number."""
        if self._routing == "round_robin":
            self._turn = (self._turn + 1) % len(replicas)
            return replicas[self._turn]
        least = min(replicas, key=lambda r: (r.load, r.index))
        if self._routing == "least_loaded" or not request.blocks:
            return least
        # The home of a prefix is where its first block was last computed, as long as that replica is not overloaded.
        wanted = self._homes.get(request.blocks[0], least.index)
        home = next((r for r in replicas if r.index == wanted), least)
        chosen = home if home.load <= least.load + AFFINITY_SLACK else least
        self._homes[request.blocks[0]] = chosen.index
        return chosen

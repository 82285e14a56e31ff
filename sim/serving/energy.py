"""Energy of a served load: idle power of the devices for as long as they are held, and what their work adds.

Work is taken apart as :mod:`.step_cost` takes time apart. What all tokens of a step share (weights are read once,
however many tokens there are) is priced for the mean step of either kind, with prompts and without; attention for every
request at its own lengths (an even sample of them where there are many), scaled to the tokens that were made and read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Set

from ..graph.graph import Graph
from .fleet import PoolServed, Served
from .replica_kind import ReplicaKind
from .request import Request
from .speculation import SpeculativeCost
from .step_cost import FINE, Line, Plane, StepCost, grid

SAMPLES = 512
"""Requests whose lengths are looked at."""
LONGEST = 2**20
"""Tokens up to which attention is priced on a grid."""


class _UnknownError(Exception):
    """The device's file does not say what an operator takes."""


class _Model:
    """Joules of one model on all devices of a replica."""

    def __init__(self, kind: ReplicaKind, cost: StepCost) -> None:
        self._cost, self._devices = cost, kind.degrees.devices
        graphs, width, parts = cost.graphs, cost.width, kind.degrees.data * kind.degrees.pipeline
        shared = cost.by_token | cost.by_logit
        lengths = tuple(n for n in grid(LONGEST, 2) if n >= FINE or n == 1)
        # Ranks divide sequences: one for each, so that none is counted twice.
        self._reading = Line(
            lengths, lambda kv: self._joules(graphs("generation", parts, width, max(kv, width), 1), cost.by_sequence)
        )
        self._prompt = Plane(
            lengths, (0, *lengths), lambda q, past: self._joules(graphs("context", 1, q, q + past, 1), cost.by_sequence)
        )
        self._generating = Line(grid(LONGEST), lambda n: self._joules(graphs("generation", n, 1, 1, 1), shared))
        self._prompts = Line(grid(LONGEST), lambda n: self._joules(graphs("context", 1, n, n, 1), shared))
        self._parts = parts

    def _joules(self, graph: Graph, wanted: Set[str]) -> float:
        total, device = 0.0, self._cost.device
        for name, node, count in graph.walk():
            if name in wanted:
                one = device.energy_j(node.op, self._cost.lowered(node))
                if one is None:
                    raise _UnknownError
                total += one * count
        return total * self._devices

    def steps_j(self, steps: float, prompt_steps: float, prompt_tokens: float, sequence_steps: float) -> float:
        """What the tokens of steps share: a sequence takes part in *sequence_steps*, spread evenly."""
        if not steps:
            return 0.0
        beside = sequence_steps * self._cost.width / max(1.0, steps)
        alone = steps - prompt_steps
        joules = alone * self._generating(beside) if alone and beside else 0.0
        if prompt_steps:
            joules += prompt_steps * self._prompts(beside + prompt_tokens / prompt_steps)
        return joules

    def attention_j(self, requests: Sequence[Request], prompt_tokens: float, sequence_steps: float) -> float:
        """Attention (or scans) of so many tokens and steps, at the lengths of *requests*."""
        sample = requests[:: max(1, -(-len(requests) // SAMPLES))]
        new = sum(r.prompt - r.cached for r in sample)
        made = sum(r.output - 1 for r in sample)
        joules = 0.0
        if prompt_tokens and new:
            joules += prompt_tokens / new * math.fsum(self._prompt(r.prompt - r.cached, r.cached) for r in sample)
        if sequence_steps and made:
            reads = math.fsum((r.output - 1) * self._reading(r.prompt + r.output / 2.0) for r in sample)
            joules += sequence_steps / made * reads / self._parts
        return joules


def _pool_j(kind: ReplicaKind, pool: PoolServed, requests: Sequence[Request]) -> float:
    """Joules that the work of one pool adds to idle power."""
    tallies = pool.tallies
    steps, prompt_steps = sum(t.steps for t in tallies), sum(t.prompt_steps for t in tallies)
    prompts, takes = sum(t.prompt_tokens for t in tallies), sum(t.sequence_steps for t in tallies)
    cost = kind.cost
    if not isinstance(cost, SpeculativeCost):
        model = _Model(kind, kind.plain_cost)
        return model.steps_j(steps, prompt_steps, prompts, takes) + model.attention_j(requests, prompts, takes)
    model = _Model(kind, cost.target)
    joules = model.steps_j(steps, prompt_steps, prompts, takes) + model.attention_j(requests, prompts, takes)
    if cost.draft is not None:
        draft, times = _Model(kind, cost.draft), cost.drafted
        joules += times * draft.steps_j(steps, 0, 0, takes) + draft.steps_j(prompt_steps, prompt_steps, prompts, 0)
        joules += draft.attention_j(requests, prompts, times * takes)
    elif cost.draft_s:
        raise _UnknownError  # of drafts only their time is stated
    return joules


def energy_j(kinds: Sequence[ReplicaKind], served: Served) -> float | None:
    """Joules of a served load; None where a device's file does not say what it draws."""
    total = 0.0
    try:
        for kind, pool in zip(kinds, served.pools, strict=True):
            idle = kind.machine.device.idle_power_w
            if idle is None:
                return None
            total += idle * pool.paid_s * kind.devices + _pool_j(kind, pool, served.requests)
    except _UnknownError:
        return None
    return total

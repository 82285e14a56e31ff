"""Speculative decoding: tokens drafted cheaply, checked together by the model that is served.

A step drafts ``k`` tokens a sequence and runs ``k + 1`` tokens of each through the target. Of the drafts those before
the first that is refused are kept, and one token of the target's own follows them, so a step yields 1 to ``k + 1``
tokens. With a chance ``a_j`` that draft ``j`` is accepted where all before it were, their mean is

    1 + a_1 + a_1·a_2 + … + a_1·…·a_k,   for a constant a:   (1 − a^(k+1)) / (1 − a)

(Leviathan et al., arXiv:2211.17192, eq. 1, where chances of different positions are independent).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from operator import mul
from pathlib import Path

from ..devices.device import Device
from ..program.engine import host_work
from ..program.memory import Capacity
from ..program.place import StepGraph, step_graphs
from ..program.program import Degrees, HostWork
from ..program.source import load_model
from ..spec.engine import EngineSpec
from ..spec.serving import SpeculativeSpec
from ..spec.workload import WorkloadSpec
from .step_cost import StepCost

_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Acceptance:
    """How many drafts are accepted: ``reached[j]`` is the chance that at least ``j + 1`` are.

    >>> Acceptance.of([0.5, 0.5]).mean_tokens
    1.75
    """

    reached: tuple[float, ...]
    seed: int = 0

    @classmethod
    def of(cls, chances: Sequence[float], seed: int = 0) -> Acceptance:
        """From the chance of each position, given that all before it were accepted."""
        return cls(tuple(accumulate(chances, mul)), seed)

    @property
    def drafted(self) -> int:
        """Tokens drafted a step."""
        return len(self.reached)

    @property
    def mean_tokens(self) -> float:
        """Mean tokens of a step and sequence."""
        return 1.0 + math.fsum(self.reached)

    def accepted(self, request: int, token: int) -> int:
        """Drafts accepted behind *token* of *request*: the same whatever happened to others meanwhile."""
        # One uniform number decides: it lies under the first n of the falling chances.
        drawn = _uniform(self.seed, request, token)
        return len(self.reached) - bisect_left(self.reached[::-1], drawn)


def _uniform(seed: int, request: int, token: int) -> float:
    """A number in (0, 1) that three whole numbers give (SplitMix64's finaliser over their combination)."""
    x = (seed * 0xD1342543DE82EF95 + request * 0x9E3779B97F4A7C15 + token * 0xBF58476D1CE4E5B9 + 1) & _MASK
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = ((x ^ (x >> shift)) * factor) & _MASK
    return ((x ^ (x >> 31)) + 0.5) / 2.0**64


class SpeculativeCost:
    """Seconds of steps that draft and verify; in place of :class:`~.step_cost.StepCost`.

    Args:
        target: the served model, whose generating steps run ``k + 1`` tokens a sequence.
        drafted: ``k``.
        draft: the draft model, run ``k`` times a step with no host work of its own, and once over every prompt; None
            where drafts come from heads or from the text.
        draft_s: seconds of one drafted token of the whole batch besides.
    """

    def __init__(self, target: StepCost, drafted: int, draft: StepCost | None = None, draft_s: float = 0.0) -> None:
        self.target, self.drafted, self.draft, self.draft_s = target, drafted, draft, draft_s

    def drafting_s(self, sequences: int, context: float) -> float:
        """Drafts of one step, one token after another."""
        if not sequences:
            return 0.0
        one = self.draft.generate_s(sequences, context) if self.draft is not None else 0.0
        return self.drafted * (one + self.draft_s)

    def generate_s(self, sequences: int, context: float) -> float:
        """A step that drafts and verifies for *sequences* with *context* tokens each on average."""
        return self.drafting_s(sequences, context) + self.target.generate_s(sequences, context)

    def mixed_s(self, sequences: int, context: float, chunks: Sequence[tuple[int, int]], finished: int) -> float:
        """Such a step with prompt *chunks* beside, which the draft model takes in, too."""
        prompts = self.draft.mixed_s(0, 0.0, chunks, 0) if self.draft is not None and chunks else 0.0
        return prompts + self.drafting_s(sequences, context) + self.target.mixed_s(sequences, context, chunks, finished)


def draft_graphs(
    spec: SpeculativeSpec,
    workload: WorkloadSpec,
    engine: EngineSpec,
    capacity: Capacity,
    degrees: Degrees,
    base: Path | None,
) -> StepGraph | None:
    """Steps of the draft model, divided as the target is; None where there is no such model.

    Raises:
        SpecError, DataError: no such model.
        UnsupportedError: it cannot be divided so.
    """
    if spec.model is None:
        return None
    return step_graphs(workload.model_copy(update={"model": spec.model}), engine, capacity, degrees, base)


def speculative_cost(
    spec: SpeculativeSpec,
    target: StepGraph,
    draft: StepGraph | None,
    device: Device,
    engine: EngineSpec,
    host: HostWork,
    ends: Mapping[str, int],
    base: Path | None = None,
) -> SpeculativeCost:
    """Step costs of *target* with its drafts; *ends* are those of the grids of :class:`~.step_cost.StepCost`."""
    verifying = StepCost(target, device, engine, host, width=1 + spec.tokens, **ends)
    drafting = None
    if draft is not None:
        # Drafts are part of the step: the scheduler's work and that of its sequences is done once, for the target.
        own = replace(
            host,
            layers=host_work(engine, load_model(spec.model or "", base)).layers,
            per_step_s=0.0,
            per_sequence_s=0.0,
            per_request_s=0.0,
            per_prompt_pass_s=0.0,
        )
        drafting = StepCost(draft, device, engine, own, **ends)
    return SpeculativeCost(verifying, spec.tokens, drafting, float(spec.draft_time or 0.0))

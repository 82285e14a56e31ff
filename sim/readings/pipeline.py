"""Inference over pipeline stages: how long a step of microbatches takes, and how often each stage's time shows in it.

With ``P`` stages of ``t_s`` seconds a microbatch, ``M`` microbatches and ``N`` steps in a row,

* filled and drained once (``N`` = 1): ``Σ t_s + (M − 1)·max t_s``; with equal stages ``(M + P − 1)·t``, of which every
  stage is idle for a share ``(P − 1)/(M + P − 1)`` (Huang et al., arXiv:1811.06965);
* in a row, a microbatch's next step following its own last one (decoding):
  ``N·max(Σ t_s, M·max t_s) + min(Σ t_s − max t_s, (M − 1)·max t_s)``: either the way of one microbatch through all
  stages is the longer, or the slowest stage never waits.

The event reading lets microbatches queue for the stages (first come, first served) and measures.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import Any

import simpy

from ..graph.graph import Graph
from ..program.program import Execution, Phase

SIMULATED_ROUNDS = 6
"""Steps in a row that are simulated; further ones repeat the last."""

Makespan = Callable[[Sequence[float], int, float], float]
"""(seconds of each stage, microbatches, rounds) → seconds a step."""


def closed_form(seconds: Sequence[float], microbatches: int, rounds: float) -> float:
    """Seconds a step, on average of *rounds* in a row.

    >>> closed_form([1.0, 1.0], 4, 1.0)
    5.0
    >>> closed_form([1.0, 1.0], 1, 100.0), closed_form([1.0, 1.0], 2, 100.0)
    (2.0, 2.01)
    """
    whole, slowest = sum(seconds), max(seconds)
    once = min(whole - slowest, (microbatches - 1) * slowest)
    return max(whole, microbatches * slowest) + once / rounds


def simulate_pipeline(seconds: Sequence[float], microbatches: int, rounds: float) -> float:
    """Seconds a step as :func:`closed_form`, from microbatches that queue for the stages.

    >>> simulate_pipeline([1.0, 2.0], 3, 1.0)
    7.0
    """
    simulated = max(1, min(SIMULATED_ROUNDS, round(rounds)))
    return per_step(_makespans(seconds, microbatches, simulated), rounds)


def per_step(ends: Sequence[float], rounds: float) -> float:
    """Seconds a step of *rounds* in a row, of which the first few ended at *ends*."""
    simulated = len(ends)
    if rounds <= simulated:
        return ends[-1] / simulated
    # The last rounds repeat once the pipeline is full; waves of as many rounds as the pipeline is deep differ less.
    each = (ends[-1] - ends[0]) / (simulated - 1)
    return (ends[-1] + (rounds - simulated) * each) / rounds


def _makespans(seconds: Sequence[float], microbatches: int, rounds: int) -> list[float]:
    """When each of *rounds* steps has left the last stage with all its microbatches."""
    env = simpy.Environment()
    stages = [simpy.Resource(env) for _ in seconds]
    ends = [0.0] * rounds

    def microbatch() -> Generator[simpy.Event, Any, None]:
        for step in range(rounds):
            for stage, length in zip(stages, seconds, strict=True):
                with stage.request() as turn:
                    yield turn
                    yield env.timeout(length)
            ends[step] = max(ends[step], float(env.now))

    for _ in range(microbatches):
        env.process(microbatch())
    env.run()
    return ends


def weights(seconds: Sequence[float], microbatches: int, rounds: float, makespan: float) -> list[float]:
    """How often each stage's time shows in a step of *makespan* seconds; the sum over stages is *makespan*.

    Where one microbatch's way binds, every stage shows once and the slowest a little more; where the slowest stage
    binds, it shows once a microbatch and the others only while the pipeline fills.
    """
    whole, slowest = sum(seconds), max(seconds)
    if whole <= 0.0:
        return [1.0] * len(seconds)
    at = max(range(len(seconds)), key=lambda i: seconds[i])
    others = 1.0 if whole >= microbatches * slowest else 1.0 / rounds
    out = [others] * len(seconds)
    out[at] = max(0.0, makespan - others * (whole - slowest)) / slowest
    return out


def staged(phase: Phase, stage_s: Callable[[Graph], float], makespan: Makespan = closed_form) -> Phase:
    """The phase with an execution a stage instead of one over stages, each as often as its time shows."""
    if not any(run.stages for run in phase.executions):
        return phase
    runs: list[Execution] = []
    for run in phase.executions:
        if not run.stages:
            runs.append(run)
            continue
        seconds = [stage_s(graph) for graph in run.stages]
        step = makespan(seconds, run.microbatches, run.rounds)
        shown = weights(seconds, run.microbatches, run.rounds, step)
        for graph, weight in zip(run.stages, shown, strict=True):
            runs.append(replace(run, graph=graph, times=run.times * weight, stages=()))
    return replace(phase, executions=tuple(runs))


def stage_counts(phase: Phase) -> dict[str, int]:
    """How often an operator runs in one step, over all stages, by name; empty without stages."""
    counts: dict[str, int] = {}
    for run in phase.executions:
        if run.stages:
            counts |= {name: count for name, _, count in run.graph.walk()}
    return counts

"""Folding: how parallel each stage is made so that none is slower than a target, at the least cost."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass

from .resources import Resources
from .stages import LUTRAM_WORDS, Section, Stage, StageOptions, divisors

MAX_LANES = 4096
"""Most lanes of an element-wise stage."""


@dataclass(frozen=True, slots=True)
class Folded:
    """A stage with its folding, its weight memory and what both cost."""

    stage: Stage
    pe: int
    simd: int
    memory_style: str
    cycles: int
    fill_cycles: int
    streamed_bytes: float
    resources: Resources


@dataclass(frozen=True, slots=True)
class FoldedSection:
    """A section whose stages are folded."""

    section: Section
    stages: tuple[Folded, ...]

    @property
    def resources(self) -> Resources:
        """All copies of the hardware."""
        total = Resources()
        for folded in self.stages:
            total = total + folded.resources
        return total.times(self.section.copies)

    @property
    def streamed_bytes(self) -> float:
        """Bytes from memory of all passes of all copies in one execution."""
        return sum(f.streamed_bytes for f in self.stages) * self.section.passes * self.section.copies

    @property
    def resident_bytes(self) -> float:
        """Streamed weights that must lie in memory (keys and values are counted with the workload's caches)."""
        own = sum(f.stage.weight_bytes for f in self.stages if f.streamed_bytes and not f.stage.dynamic)
        return own * self.section.passes * self.section.copies

    @property
    def slowest(self) -> Folded:
        """The stage that governs the interval."""
        return max(self.stages, key=lambda f: f.cycles)


def smallest_folding(stage: Stage, target_cycles: float) -> tuple[int, int]:
    """(pe, simd) with the least ``pe·simd`` that meets the target; the fastest where none does.

    ``pe`` divides mh and ``simd`` divides mw, as FINN demands. Of equal products the widest ``simd`` is taken: fewer
    accumulators.

    >>> smallest_folding(Stage("s", "n", 64, 64, 10, 4096.0, 4, 4, False, True), 160)
    (4, 64)
    """
    if not stage.matrix:
        return min(max(1, math.ceil(stage.mh / max(target_cycles, 1.0))), min(stage.mh, MAX_LANES)), 1
    heights, widths = divisors(stage.mh), divisors(stage.mw)
    best: tuple[int, int] | None = None
    for simd in reversed(widths):
        folds = math.ceil(stage.mw / simd) * stage.vectors
        allowed = math.floor(target_cycles / folds)  # turns over the outputs
        if allowed < 1:
            continue
        index = bisect.bisect_left(heights, math.ceil(stage.mh / allowed))
        if index < len(heights) and (best is None or heights[index] * simd < best[0] * best[1]):
            best = heights[index], simd
    return best or (stage.mh, stage.mw)


def fold(stage: Stage, target_cycles: float, style: str, options: StageOptions, sets: int = 1) -> Folded:
    """Fold one stage and cost it, with the weights of ``sets`` passes."""
    pe, simd = smallest_folding(stage, target_cycles)
    memory = stage.memory(pe, simd, style, options, sets)
    streamed = stage.streamed_bytes(options) if style == "stream" and stage.matrix else 0.0
    return Folded(
        stage=stage,
        pe=pe,
        simd=simd,
        memory_style=style if stage.matrix and stage.weight_elements else "none",
        cycles=stage.cycles(pe, simd),
        fill_cycles=stage.fill_cycles(pe, simd, options.depth),
        streamed_bytes=streamed,
        resources=stage.logic(pe, simd, options) + memory,
    )


def fold_all(
    sections: tuple[Section, ...], target_cycles: float, budget: Resources, options: StageOptions, can_stream: bool
) -> tuple[FoldedSection, ...]:
    """Fold every stage for ``target_cycles`` an execution and find places for the weights.

    A section with n passes gets a target of 1/n and holds n sets of weights. On chip the smaller share of block RAM or
    UltraRAM decides; where they run out, the largest weights move to memory until the rest fits.
    """
    chosen: list[list[Folded]] = []
    for section in sections:
        own = target_cycles / section.passes
        sets = section.passes
        row = [fold(s, own, _style(s, sets, own, budget, options), options, sets) for s in section.stages]
        chosen.append(row)
    if can_stream:
        _spill(sections, chosen, target_cycles, budget, options)
    return tuple(FoldedSection(s, tuple(row)) for s, row in zip(sections, chosen, strict=True))


def _style(stage: Stage, sets: int, target: float, budget: Resources, options: StageOptions) -> str:
    if stage.dynamic:
        return "stream"
    pe, simd = smallest_folding(stage, target)
    if stage.matrix and stage.weight_elements * sets / (pe * simd) <= LUTRAM_WORDS:
        return "lutram"
    in_bram, in_uram = (stage.memory(pe, simd, style, options, sets) for style in ("bram", "uram"))
    if budget.uram <= 0.0:
        return "bram"
    share_bram = in_bram.bram18 / max(budget.bram18, 1.0)
    return "uram" if in_uram.uram / budget.uram < share_bram else "bram"


def _spill(
    sections: tuple[Section, ...],
    chosen: list[list[Folded]],
    target_cycles: float,
    budget: Resources,
    options: StageOptions,
) -> None:
    """Move the largest weights to memory while block RAM or UltraRAM is overdrawn."""
    order = sorted(
        ((s, i) for s in range(len(chosen)) for i in range(len(chosen[s]))),
        key=lambda at: -chosen[at[0]][at[1]].stage.weight_bytes,
    )
    used = _totals(sections, chosen)
    for s, i in order:
        if used.bram18 <= budget.bram18 and used.uram <= budget.uram and used.lut <= budget.lut:
            return
        old = chosen[s][i]
        if old.memory_style not in ("bram", "uram", "lutram"):
            continue
        new = fold(old.stage, target_cycles / sections[s].passes, "stream", options)
        chosen[s][i] = new
        used = _totals(sections, chosen)


def _totals(sections: tuple[Section, ...], chosen: list[list[Folded]]) -> Resources:
    total = Resources()
    for section, row in zip(sections, chosen, strict=True):
        for folded in row:
            total = total + folded.resources.times(section.copies)
    return total

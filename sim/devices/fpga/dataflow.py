"""Spatial dataflow: a graph as streaming stages, folded for a target rate or for the budget of a board.

The slowest stage sets the interval between executions. The latency of one execution is the fill of the chain (every
stage's first output) plus the interval: not the sum of the stages' times, which counts overlapping work twice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ...errors import DoesNotFitError
from ...graph.graph import Graph
from ...spec.fpga import FpgaSpec
from .folding import Folded, FoldedSection, fold_all
from .parameters import budget_of
from .resources import Resources
from .stages import Section, StageOptions, sections_of

SEARCH_STEPS = 48
"""Halvings of the target interval when the budget decides: enough to tell folds apart over all magnitudes."""

GIB = float(2**30)

RESOURCE_NAMES = {"lut": "LUTs", "dsp": "DSPs", "bram18": "BRAM18s", "uram": "URAMs"}


@dataclass(frozen=True, slots=True)
class Mapping:
    """A graph on a board: folded stages, what they take, how fast they are.

    ``interval_s``: between executions of independent inputs. ``latency_s``: of one execution alone.
    """

    graph: str
    device: str
    clock_hz: float
    sections: tuple[FoldedSection, ...]
    used: Resources
    budget: Resources
    interval_s: float
    fill_s: float
    latency_s: float
    bound: str
    slowest: str
    lut_range: tuple[float, float]
    memory_bytes: float
    memory_capacity_bytes: float

    @property
    def over(self) -> dict[str, float]:
        """Resources that the design overdraws, and by how much; ``memory`` in bytes of streamed weights."""
        have = dict(self.budget.items())
        out = {name: amount - have[name] for name, amount in self.used.items() if amount > have[name]}
        if self.memory_bytes > self.memory_capacity_bytes:
            out["memory"] = self.memory_bytes - self.memory_capacity_bytes
        return out

    @property
    def folded(self) -> tuple[Folded, ...]:
        """All stages."""
        return tuple(stage for section in self.sections for stage in section.stages)

    def node_seconds(self) -> dict[str, float]:
        """Share of the latency of each node (all its passes), by its stages' cycles; they sum to the latency."""
        cycles: dict[str, float] = {}
        for section in self.sections:
            for folded in section.stages:
                own = (folded.cycles + folded.fill_cycles) * section.section.passes * section.section.copies
                cycles[folded.stage.node] = cycles.get(folded.stage.node, 0.0) + own
        whole = sum(cycles.values())
        return {node: self.latency_s * own / whole for node, own in cycles.items()}

    @property
    def ideal_s(self) -> float:
        """No schedule on these stages is faster: all multiply-adds on all multipliers, all streamed bytes at peak."""
        macs = sum(f.stage.macs * s.section.passes * s.section.copies for s in self.sections for f in s.stages)
        lanes = sum(f.pe * f.simd * s.section.copies for s in self.sections for f in s.stages if f.stage.matrix)
        return macs / lanes / self.clock_hz if lanes else 0.0

    def report(self) -> dict[str, Any]:
        """Plain data: totals, budget, and a row a stage."""
        return {
            "schema": "effsim/fpga_fit@1",
            "graph": self.graph,
            "hardware": self.device,
            "fits": not self.over,
            "over": self.over,
            "used": dict(self.used.items()),
            "lut_range": list(self.lut_range),
            "budget": dict(self.budget.items()),
            "memory_bytes": self.memory_bytes,
            "memory_capacity_bytes": self.memory_capacity_bytes,
            "interval_s": self.interval_s,
            "executions_per_s": 1.0 / self.interval_s if self.interval_s else None,
            "fill_s": self.fill_s,
            "latency_s": self.latency_s,
            "bound": self.bound,
            "slowest": self.slowest,
            "stages": [row for section in self.sections for row in _rows(section)],
        }


def _rows(section: FoldedSection) -> list[dict[str, Any]]:
    return [
        {
            "section": section.section.name,
            "passes": section.section.passes,
            "copies": section.section.copies,
            "stage": f.stage.name,
            "mh": f.stage.mh,
            "mw": f.stage.mw,
            "vectors": f.stage.vectors,
            "pe": f.pe,
            "simd": f.simd,
            "cycles": f.cycles,
            "fill_cycles": f.fill_cycles,
            "weights": f.memory_style,
            "streamed_bytes": f.streamed_bytes,
            **dict(f.resources.items()),
        }
        for f in section.stages
    ]


def options_of(spec: FpgaSpec) -> StageOptions:
    """Options of the stages from a hardware file."""
    d, f = spec.dataflow, spec.fabric
    return StageOptions(
        dsp_kind=f.dsp_kind,
        multipliers=d.multipliers,
        fp16_dsps=int(f.fp16_dsps),
        fp32_dsps=int(f.fp32_dsps),
        vector_block=int(d.vector_block),
        depth=int(d.depth),
        fifo=int(d.fifo),
        lane_lut=int(d.lane_lut),
        special_lane_lut=int(d.special_lane_lut),
    )


def map_graph(graph: Graph, spec: FpgaSpec, target_per_s: float | None = None) -> Mapping:
    """Fold *graph* onto a board.

    Args:
        graph: what to run; repeated blocks share hardware or not by ``dataflow.blocks``.
        spec: the board.
        target_per_s: executions a second to reach; without it, as many as the budget allows.

    Raises:
        DoesNotFitError: by how much, and which resource (or that memory is too slow for the target).
        UnsupportedError: an operator without a streaming stage.
    """
    mapping = _fastest(graph, spec) if target_per_s is None else _for_rate(graph, spec, target_per_s)
    if mapping.over:
        raise DoesNotFitError(_why_not(mapping, target_per_s))
    if target_per_s is not None and mapping.interval_s * target_per_s > 1.0 + 1e-9:
        rate = 1.0 / mapping.interval_s
        raise DoesNotFitError(
            f"{graph.name} reaches {rate:.4g} executions/s of {target_per_s:.4g} on {spec.name}: "
            f"{mapping.slowest} binds ({mapping.bound})"
        )
    return mapping


def fpga_fit(graph: Graph, spec: FpgaSpec, target_per_s: float | None = None) -> dict[str, Any]:
    """The report of :func:`map_graph` whether it fits or not: ``fits``, ``over``, totals, a row a stage.

    Raises:
        UnsupportedError: an operator without a streaming stage.
    """
    if target_per_s is None:
        return _fastest(graph, spec).report()
    report = _for_rate(graph, spec, target_per_s).report()
    report["fits"] = report["fits"] and report["interval_s"] * target_per_s <= 1.0 + 1e-9
    return report


def _sections(graph: Graph, spec: FpgaSpec) -> tuple[Section, ...]:
    d = spec.dataflow
    weight = None if d.weight_bits is None else int(d.weight_bits)
    activation = None if d.activation_bits is None else int(d.activation_bits)
    return sections_of(graph, d.blocks == "looped", weight, activation)


def _for_rate(graph: Graph, spec: FpgaSpec, target_per_s: float) -> Mapping:
    """Fold *graph* for a rate, whether it fits or not."""
    return _mapping(graph, spec, _sections(graph, spec), float(spec.clock) / target_per_s)


def _mapping(graph: Graph, spec: FpgaSpec, sections: tuple[Section, ...], target_cycles: float) -> Mapping:
    clock, budget, options = float(spec.clock), budget_of(spec), options_of(spec)
    folded = fold_all(sections, target_cycles, budget, options, can_stream=True)
    used = Resources()
    for section in folded:
        used = used + section.resources
    memory = float(spec.memory.bandwidth) * float(spec.memory.stream_fraction)
    streamed_s = sum(s.streamed_bytes for s in folded) / memory
    slowest = max(folded, key=lambda s: s.slowest.cycles * s.section.passes)
    compute_s = slowest.slowest.cycles * slowest.section.passes / clock
    fills = [_fill_s(s, clock, memory) for s in folded]
    fill = sum(
        (s.section.passes - 1) * max(own, s.slowest.cycles / clock) + own * s.section.copies
        for s, own in zip(folded, fills, strict=True)
    )
    ends = max(s.slowest.cycles for s in folded) / clock
    interval = max(compute_s, streamed_s)
    d = spec.dataflow
    return Mapping(
        graph=graph.name,
        device=spec.name,
        clock_hz=clock,
        sections=folded,
        used=used,
        budget=budget,
        interval_s=interval,
        fill_s=fill,
        latency_s=max(fill + ends, interval),
        bound="memory" if streamed_s > compute_s else "compute",
        slowest="memory bandwidth" if streamed_s > compute_s else slowest.slowest.stage.name,
        lut_range=(used.lut * float(d.lut_low), used.lut * float(d.lut_high)),
        memory_bytes=sum(s.resident_bytes for s in folded),
        memory_capacity_bytes=float(spec.memory.capacity) - float(spec.memory.reserved),
    )


def _fill_s(section: FoldedSection, clock_hz: float, memory_bytes_per_s: float) -> float:
    """Seconds until the first output of one pass: each stage's first vector, and not before its weights arrived."""
    total = 0.0
    for f in section.stages:
        first = f.fill_cycles / clock_hz
        if f.streamed_bytes:
            first = max(first, f.stage.weight_bytes / memory_bytes_per_s)
        total += first
    return total


def _fastest(graph: Graph, spec: FpgaSpec) -> Mapping:
    """The shortest interval whose folding fits, by bisection over its logarithm; the most folded one if none does."""
    sections = _sections(graph, spec)
    slow = max(stage.cycles(1, 1) * section.passes for section in sections for stage in section.stages)
    best = _mapping(graph, spec, sections, float(slow))
    if best.over:
        return best
    low, high = 0.0, math.log(float(slow))
    for _ in range(SEARCH_STEPS):
        middle = (low + high) / 2.0
        tried = _mapping(graph, spec, sections, math.exp(middle))
        if tried.over:
            low = middle
        else:
            high = middle
            if tried.latency_s <= best.latency_s or tried.interval_s < best.interval_s:
                best = tried
        if high - low < 1e-3:
            break
    return best


def _why_not(mapping: Mapping, target_per_s: float | None) -> str:
    have = dict(mapping.budget.items())
    used = dict(mapping.used.items())
    over = mapping.over
    parts = [
        f"{used[name]:.0f} {RESOURCE_NAMES[name]} of {have[name]:.0f}, {extra:.0f} too many"
        for name, extra in over.items()
        if name != "memory"
    ]
    if "memory" in over:
        need, room = mapping.memory_bytes / GIB, mapping.memory_capacity_bytes / GIB
        parts.append(
            f"{need:.3g} GiB of streamed weights in {room:.3g} GiB of memory, {over['memory'] / GIB:.3g} GiB too much"
        )
    aim = "even fully folded" if target_per_s is None else f"for {target_per_s:.4g} executions/s"
    low, high = mapping.lut_range
    lut = f" (LUTs are known within {low:.0f} to {high:.0f})" if "lut" in over else ""
    return (
        f"{mapping.graph} does not fit {mapping.device} {aim}: {'; '.join(parts)}{lut}; would fit with fewer bits "
        "(dataflow.weight_bits), a lower target, a larger board, or mode: overlay"
    )

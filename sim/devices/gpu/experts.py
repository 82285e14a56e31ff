"""Routed experts on a GPU: two grouped GEMMs over the experts that have tokens, with their skewed loads."""

from __future__ import annotations

import math
from dataclasses import replace

from ...graph.dtypes import size_of
from ...graph.operators.moe import Experts
from ..kernel import Kernel
from .gemm import GemmModel, Product
from .parameters import GpuParameters
from .pointwise import PointwiseModel, Sweep

LOAD_CLASSES = 4
"""Into how many loads the experts are sorted when routing is skewed."""


class ExpertsModel:
    """Lowers routed experts for one GPU."""

    def __init__(self, parameters: GpuParameters, gemm: GemmModel, pointwise: PointwiseModel) -> None:
        self._p, self._gemm, self._pointwise = parameters, gemm, pointwise

    def kernels(self, op: Experts) -> tuple[Kernel, ...]:
        """Sort of the tokens, gate/up product, activation, down product, weighted sum."""
        word = size_of(op.dtype)
        rows = op.assignments
        width = op.intermediate * (2 if op.gated else 1)
        groups = _load_groups(op)
        wide, narrow = rows * width * word, rows * op.intermediate * word
        tokens = min(rows, float(op.tokens)) * op.hidden * word
        routing = 4.0 * op.tokens * op.top_k
        return (
            self._pass("expert sort", routing, 2 * routing),
            self._grouped("experts gate, up" if op.gated else "experts up", op, groups, width, op.hidden, tokens, wide),
            self._pass("experts activation", wide, narrow, rows * 4.0 * op.intermediate, 2.0 * rows * op.intermediate),
            self._grouped("experts down", op, groups, op.hidden, op.intermediate, narrow, rows * op.hidden * word),
            self._pass("experts weighted sum", rows * op.hidden * word, tokens, 2.0 * rows * op.hidden),
        )

    def _pass(self, name: str, read: float, write: float, vector: float = 0.0, special: float = 0.0) -> Kernel:
        memory = (read + write) * (1.0 - self._p.kept(read + write))
        return self._pointwise.kernel(Sweep(read, write, memory, vector_ops=vector, special_ops=special), name)

    def _grouped(
        self,
        name: str,
        op: Experts,
        groups: list[tuple[int, float]],
        n: int,
        k: int,
        in_bytes: float,
        out_bytes: float,
    ) -> Kernel:
        """One launch over all experts with tokens; each load class brings its own number of row tiles."""
        p, traffic = self._p, in_bytes + out_bytes
        kept, best = p.kept(traffic), p.kept_at_best(traffic)
        total_rows = sum(count * rows for count, rows in groups)
        merged: Kernel | None = None
        for count, rows in groups:
            m = max(1, math.ceil(rows))
            product = Product(
                m=m,
                n=n,
                k=k,
                batch=count,
                dtype=op.dtype,
                b_dtype=op.weight_dtype,
                a_resident=kept,
                c_resident=kept,
                best_resident=best,
                b_extra_bytes=_scale_bytes(op, n, k, count),
                a_compulsory_bytes=in_bytes * count * rows / total_rows,
            )
            part = self._gemm.kernel(product, name)
            merged = part if merged is None else _merge(merged, part)
        assert merged is not None
        return _exact_terms(merged, op, n, k, p, in_bytes + out_bytes, best)


def _scale_bytes(op: Experts, n: int, k: int, count: int) -> float:
    return 2.0 * n * k * count / op.group_size if op.group_size else 0.0


def _exact_terms(
    kernel: Kernel, op: Experts, n: int, k: int, p: GpuParameters, activation_bytes: float, best: float
) -> Kernel:
    """Lower bounds from the expected, unrounded loads: rounding experts and rows up to integers is tile waste."""
    named = dict(kernel.terms)
    expert = float(n) * k * size_of(op.stored_dtype) + _scale_bytes(op, n, k, 1)
    # Experts are rounded to whole ones for the tiles; the smaller of both traffics bounds every schedule.
    weights = expert * min(op.active_experts, sum(count for count, _ in _load_groups(op)))
    peak = p.matrix_rate(op.dtype, kernel.name) * p.units * p.boost_ratio
    named["matrix"] = min(named["matrix"], 2.0 * n * k * op.assignments / peak)
    named["memory"] = (weights + activation_bytes * (1.0 - best)) / p.memory_peak_bytes_per_s
    named["l2"] = (weights + activation_bytes) / p.l2_bytes_per_s
    return replace(kernel, terms=tuple(named.items()))


def _merge(a: Kernel, b: Kernel) -> Kernel:
    """Two products of one launch: tiles side by side, bounds added."""
    terms = tuple((label, x + y) for (label, x), (_, y) in zip(a.terms, b.terms, strict=True))
    setup_s = max(a.setup_s, b.setup_s)
    return replace(a, classes=a.classes + b.classes, slots=min(a.slots, b.slots), terms=terms, setup_s=setup_s)


def _load_groups(op: Experts) -> list[tuple[int, float]]:
    """(experts, rows of each) for experts that have tokens, heaviest first; expected values, experts at least 1.

    Uniform routing is one group: the expected number of distinct experts with the mean load each.
    """
    probabilities = sorted(op.pick_probabilities(), reverse=True)
    classes = 1 if probabilities[0] == probabilities[-1] else min(LOAD_CLASSES, len(probabilities))
    out, start = [], 0
    for i in range(classes):
        stop = len(probabilities) * (i + 1) // classes
        part = probabilities[start:stop]
        active = sum(1.0 - (1.0 - p) ** op.tokens for p in part)
        rows = sum(part) * op.tokens
        count = max(1, round(active))
        if rows > 0:
            out.append((count, rows / count))
        start = stop
    return out

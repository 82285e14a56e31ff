"""Fused attention on a GPU: context tiles (FlashAttention) and split-KV generation (flash decoding)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from ...graph.dtypes import size_of
from ...graph.operators.attention import Attention
from ...spec.hardware import AttentionKernels
from ..kernel import Kernel, TileClass, kernel_time
from .parameters import ACCUMULATOR_BYTES, GpuParameters
from .pointwise import PointwiseModel, Sweep

SOFTMAX_OPS = 4.0
"""Scale, maximum, subtract, add: vector operations a score inside the tile loop."""

MATRIX_ROWS = 16
"""Rows of the smallest matrix instruction: fewer query rows than that still cost a full one."""

CAUSAL_CLASSES = 4
"""Into how many lengths the rows of tiles under a causal mask are sorted (longest first, as the kernels do)."""

MAX_SAMPLED_TILES = 64
"""Tiles looked at to average the keys a group of them walks."""


class AttentionModel:
    """Lowers fused attention for one GPU."""

    def __init__(
        self,
        parameters: GpuParameters,
        habits: AttentionKernels,
        pointwise: PointwiseModel,
        setup_s: float,
        launch_gap_s: float,
        name: str,
    ) -> None:
        # A second, small kernel: its launch and one trip to memory and back.
        self._combine_start_s = launch_gap_s + parameters.memory_latency_s + 2.0 * parameters.l2_latency_s
        self._setup_s = setup_s
        self._p, self._habits, self._pointwise, self._name = parameters, habits, pointwise, name

    def kernels(self, op: Attention) -> tuple[Kernel, ...]:
        """Context or generation kernels of *op*, whichever its shape calls for."""
        if op.phase == "generation" and op.q_len * (op.heads // op.kv_heads) <= int(self._habits.context_m):
            return self._generation(op)
        return (self._context(op),)

    def _terms(self, op: Attention) -> tuple[tuple[str, float], ...]:
        p, work = self._p, op.arithmetic()
        scale = p.units * p.boost_ratio
        return (
            ("matrix", work.matrix / (p.matrix_rate(op.dtype, self._name) * scale)),
            ("special", work.special / (p.special_ops * scale)),
            ("memory", self._memory_bytes(op, p.kept_at_best) / p.memory_peak_bytes_per_s),
        )

    def _memory_bytes(self, op: Attention, kept: Callable[[float], float]) -> float:
        """Traffic behind L2. What this step produced may still be there; a cache from earlier steps may not."""
        if op.phase == "generation":
            activations = op.bytes_moved - op.kv_bytes
            return op.kv_bytes + activations * (1.0 - kept(activations))
        return op.bytes_moved * (1.0 - kept(op.bytes_moved))

    def _tile(self, op: Attention, rows: int, keys: float, count: int, l2: float, memory: float) -> TileClass:
        """A tile of *rows* query rows over *keys* keys."""
        p = self._p
        width = op.head_dim + op.v_dim
        scores = float(rows) * keys
        steps = max(1.0, keys / int(self._habits.context_n))
        matrix_s = 2.0 * max(rows, MATRIX_ROWS) * keys * width / p.matrix_rate(op.dtype, self._name)
        rescale = rows * op.v_dim * steps
        vector_s = (SOFTMAX_OPS * scores + rescale) / p.vector_op_rate()
        special_s = scores / p.special_ops
        softmax_s = vector_s + special_s
        busy = max(matrix_s, softmax_s) if self._habits.overlap_softmax else matrix_s + softmax_s
        staged = int(self._habits.context_n) * op.kv_width * size_of(op.stored_dtype)
        return TileClass(
            count=count,
            busy_s=busy,
            serial_s=2.0 * p.memory_latency_s + p.l2_latency_s,
            l2_bytes=l2,
            memory_bytes=memory,
            flow_bytes_per_s=p.flow(staged),
        )

    def _context(self, op: Attention) -> Kernel:
        p, bm, bn = self._p, int(self._habits.context_m), int(self._habits.context_n)
        tiles_q = math.ceil(op.q_len / bm)
        memory_total = self._memory_bytes(op, p.kept)
        groups = min(CAUSAL_CLASSES, tiles_q) if op.causal and tiles_q > 1 else 1
        heads = op.batch * op.heads
        total_tiles = tiles_q * heads
        walked = _mean_keys(op, 0, tiles_q, bm, bn) * tiles_q * min(bm, op.q_len)
        padding = max(1.0, op.pairs / walked)  # sampled means may fall short of the exact count of pairs
        classes, start = [], 0
        for g in range(groups):
            stop = tiles_q * (g + 1) // groups
            keys = padding * _mean_keys(op, start, stop, bm, bn)
            count = (stop - start) * heads
            rows = min(bm, op.q_len)
            word = size_of(op.dtype)
            l2 = keys * op.kv_width * size_of(op.stored_dtype) + rows * (op.head_dim + op.v_dim) * word
            classes.append(self._tile(op, rows, keys, count, l2, memory_total / total_tiles))
            start = stop
        return Kernel(
            name=f"attention context {bm}x{bn}",
            classes=tuple(reversed(classes)),
            units=p.units,
            slots=int(self._habits.blocks_per_sm),
            l2_bytes_per_s=p.l2_bytes_per_s,
            memory_bytes_per_s=p.memory_bytes_per_s,
            terms=self._terms(op),
            binding="matrix",
            setup_s=self._setup_s,
            detail=(("tile", f"{bm}x{bn}"), ("query_tiles", tiles_q), ("heads", heads)),
        )

    def _generation(self, op: Attention) -> tuple[Kernel, ...]:
        bn = int(self._habits.generation_n)
        most = max(1, math.ceil(op.keys_read / bn))
        best: tuple[float, Kernel, int] | None = None
        terms, memory = self._terms(op), self._memory_bytes(op, self._p.kept)
        for split in _splits(most, self._p.units * int(self._habits.blocks_per_sm), op.batch * op.kv_heads):
            kernel = self._generation_kernel(op, split, terms, memory)
            cost = kernel_time(kernel).total_s
            if split > 1:
                cost += self._combine_start_s + self._combine_bytes(op, split) / self._p.l2_bytes_per_s
            if best is None or cost < best[0] * (1 - 1e-9):
                best = (cost, kernel, split)
        assert best is not None
        _, kernel, split = best
        if split == 1:
            return (kernel,)
        partial = self._combine_bytes(op, split)
        out = float(op.batch) * op.q_len * op.heads * op.v_dim * size_of(op.dtype)
        merge = Sweep(
            read_bytes=partial, write_bytes=out, memory_bytes=0.0, vector_ops=2.0 * partial / ACCUMULATOR_BYTES
        )
        combine = self._pointwise.kernel(merge, "attention combine")
        # Splitting is a choice of this schedule: the bound of the whole operator stands on the first kernel.
        return (kernel, replace(combine, terms=tuple((label, 0.0) for label, _ in combine.terms)))

    def _combine_bytes(self, op: Attention, split: int) -> float:
        """fp32 partial outputs with their log-sum-exp, one a split."""
        if split == 1:
            return 0.0
        return float(op.batch) * op.q_len * op.heads * split * (op.v_dim + 1) * ACCUMULATOR_BYTES

    def _generation_kernel(
        self, op: Attention, split: int, terms: tuple[tuple[str, float], ...], memory_bytes: float
    ) -> Kernel:
        p = self._p
        count = op.batch * op.kv_heads * split
        keys = math.ceil(op.keys_read / split)
        rows = op.q_len * (op.heads // op.kv_heads)
        kv = float(keys) * op.kv_width * size_of(op.stored_dtype)
        q = rows * (op.head_dim + op.v_dim) * size_of(op.dtype)
        memory = max(kv, memory_bytes / count)
        tile = self._tile(op, rows, keys, count, kv + q, memory)
        return Kernel(
            name=f"attention generation split {split}",
            classes=(tile,),
            units=p.units,
            slots=int(self._habits.blocks_per_sm),
            l2_bytes_per_s=p.l2_bytes_per_s,
            memory_bytes_per_s=p.memory_bytes_per_s,
            terms=terms,
            binding="matrix",
            setup_s=self._setup_s,
            detail=(("splits", split), ("query_rows", rows), ("keys_per_tile", keys)),
        )


def _splits(most: int, places: int, heads: int) -> list[int]:
    """Candidate numbers of key splits: those that fill a whole number of waves, and powers of two."""
    wanted = {1, most}
    wanted |= {max(1, (places * wave) // heads) for wave in (1, 2, 3, 4)}
    wanted |= {1 << i for i in range(most.bit_length())}
    return sorted(s for s in wanted if s <= most)


def _mean_keys(op: Attention, first: int, last: int, bm: int, bn: int) -> float:
    """Keys that a tile of query rows walks, rounded up to whole steps, averaged over tiles [first, last)."""
    if not op.causal:
        keys = min(op.window, op.kv_len) if op.window else op.kv_len
        return float(math.ceil(keys / bn) * bn)
    step = max(1, (last - first) // MAX_SAMPLED_TILES)
    sampled = range(first, last, step)
    total = 0.0
    for tile in sampled:
        end = min((tile + 1) * bm, op.q_len)  # queries up to here
        seen = op.kv_len - op.q_len + end
        if op.window:
            seen = min(seen, op.window + bm)
        total += math.ceil(seen / bn) * bn
    return total / len(sampled)

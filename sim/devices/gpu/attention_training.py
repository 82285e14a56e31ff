"""Fused attention of a training framework on a GPU: the forward kernel it uses, and the backward kernel.

The backward kernel follows FlashAttention-2 (Dao, arXiv:2307.08691, and csrc/flash_attn/src/flash_bwd_kernel.h): a
block keeps ``n`` keys and values with their gradients and walks over the queries, ``m`` a step: five products of
``2·m·n·d`` FLOP with warp-level matrix instructions, whose operands every warp reads from shared memory:

    S = Q·Kᵀ, dP = dO·Vᵀ, dV += Pᵀ·dO, dK += dSᵀ·Q, dQ += dS·K.

Other fused kernels have the same products in tiles of their own and may load without a pipeline (``others``).

The query gradient is added into an fp32 buffer by atomics, so one kernel clears it (and takes the row sums of dO ∘ O)
before, and one narrows it after.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from ...errors import UnsupportedError, nearest
from ...graph.dtypes import size_of
from ...graph.operators.attention import Attention, AttentionBackward, attended_pairs
from ...spec.gpu_kernels import AttentionKernels
from ...spec.training_kernels import BackwardTile, ForwardTile, OtherTrainingKernels, TrainingKernels
from ..kernel import Kernel, TileClass
from .attention import AttentionModel
from .parameters import ACCUMULATOR_BYTES, GpuParameters
from .pointwise import PointwiseModel, Sweep

REFERENCE_ROWS = 64
"""Query rows for which the hardware files give what a tile adds."""

PRODUCTS = 5.0
"""Products of a backward step."""

SCORE_OPS = 5.0
"""Vector operations a score: scaled difference to the row sum, difference of dP, product with P, two conversions."""

CLASSES = 4
"""Into how many lengths the tiles under a causal mask are sorted."""

_Tile = TypeVar("_Tile", ForwardTile, BackwardTile)


def tile_for(tiles: Sequence[_Tile], head_dim: int) -> _Tile:
    """The tile of the smallest head size that holds *head_dim*; the last one beyond all of them."""
    fitting = [tile for tile in tiles if int(tile.head_dim) >= head_dim]
    return min(fitting or tiles[-1:], key=lambda tile: int(tile.head_dim))


@dataclass(frozen=True, slots=True)
class BackwardStep:
    """Seconds of one inner step of a block that has its SM to itself, and the bytes it moves through shared memory."""

    matrix_s: float
    shared_s: float
    vector_s: float
    latency_s: float

    @property
    def total_s(self) -> float:
        """Products beside the reads that feed them; the vector work stands between products that depend on it."""
        return max(self.matrix_s, self.shared_s) + self.vector_s + self.latency_s


class TrainingAttentionModel:
    """Lowers a training framework's attention for one GPU."""

    def __init__(
        self,
        parameters: GpuParameters,
        habits: AttentionKernels,
        kernels: TrainingKernels,
        pointwise: PointwiseModel,
        setup_s: float,
        name: str,
    ) -> None:
        rates = {t: rate * float(kernels.warp_matrix) for t, rate in parameters.matrix_flops.items()}
        self._p, self._kernels, self._pointwise = parameters, kernels, pointwise
        self._warp = replace(parameters, matrix_flops=rates)
        self._habits, self._setup_s, self._name = habits, setup_s, name
        self._forward: dict[tuple[int, str], AttentionModel] = {}

    def _other(self, op: Attention) -> OtherTrainingKernels | None:
        """The kernels that the operator asks for by name; None: the usual ones."""
        if not op.kernel:
            return None
        others = self._kernels.others
        if op.kernel not in others:
            close = nearest(op.kernel, others)
            raise UnsupportedError(
                f"{self._name} describes no training attention {op.kernel!r}; it has {', '.join(others) or 'none'}"
                + (f"; did you mean {close!r}?" if close else "")
            )
        return others[op.kernel]

    def _exposed_s(self, trips: float, moved: float) -> float:
        """Loads of a step without a pipeline: trips to L2 one after another, and its share of the L2 bandwidth."""
        p = self._p
        return trips * p.l2_latency_s + moved * p.units / p.l2_bytes_per_s

    def forward(self, op: Attention) -> tuple[Kernel, ...]:
        """The framework's forward kernel; its bounds stay those of the whole matrix unit."""
        other = self._other(op)
        tile = tile_for(other.forward if other else self._kernels.forward, op.head_dim)
        exposed_s = 0.0
        if other:
            staged = int(tile.n) * (op.head_dim + op.v_dim) * size_of(op.dtype)
            exposed_s = self._exposed_s(float(other.forward_trips), staged)
        model = self._forward.get((op.head_dim, op.kernel))
        if model is None:
            # Tiles of a hardware file belong to head size 128 and are scaled; these are given for the head size itself.
            scale = (op.head_dim + op.v_dim) / 256.0
            changes = {
                "context_m": int(tile.m),
                "context_n": max(1, round(int(tile.n) * scale)),
                "warps": int(tile.warps),
                "blocks_per_sm": int(tile.blocks),
                "overlap_softmax": False,
                "pack_groups": False,
                "tiles": [],
                "prefetch": False,
                "walk": None,
                "step_latency": float(self._kernels.step_latency) + exposed_s,
                "tile_latency": float(self._kernels.tile_latency),
            }
            habits = self._habits.model_copy(update=changes)
            model = AttentionModel(self._warp, habits, self._pointwise, self._setup_s, False, self._name)
            self._forward[op.head_dim, op.kernel] = model
        ratio = float(self._kernels.warp_matrix)
        return tuple(
            replace(k, terms=tuple((label, s * ratio if label == "matrix" else s) for label, s in k.terms))
            for k in model.kernels(op)
        )

    def step(self, op: Attention) -> BackwardStep:
        """One inner step of the backward kernel (see the module)."""
        p, other = self._p, self._other(op)
        t = tile_for(other.backward if other else self._kernels.backward, op.head_dim)
        m, n, d, word = int(t.m), int(t.n), op.head_dim, size_of(op.dtype)
        warps = int(t.warps)
        scores = 2.0 * warps * (m / t.scores_m + n * t.scores_m / warps) * d
        gradients = 2.0 * warps * (n / t.keys_n + d * t.keys_n / warps) * m
        queries = warps * (m / t.queries_m + d * t.queries_m / warps) * n
        stored = 2.0 * m * n + 2.0 * m * d  # P and dS for the next products, Q and dO as they arrive
        shared = (scores + gradients + queries + stored) * word + m * d * ACCUMULATOR_BYTES
        pairs = float(m) * n
        # Queries and gradients of the output come, the query gradient is added to.
        moved = m * ((d + op.v_dim) * word + d * ACCUMULATOR_BYTES)
        exposed_s = self._exposed_s(float(other.backward_trips), moved) if other else 0.0
        return BackwardStep(
            matrix_s=2.0 * PRODUCTS * pairs * d / self._warp.matrix_rate(op.dtype, self._name),
            shared_s=shared / p.l1_bytes_per_s,
            vector_s=SCORE_OPS * pairs / p.vector_op_rate() + pairs / p.special_ops,
            latency_s=PRODUCTS * float(self._kernels.phase_latency) + exposed_s,
        )

    def backward(self, op: AttentionBackward) -> tuple[Kernel, ...]:
        """Row sums and a cleared buffer, the five products, the narrowing of the query gradient."""
        f, word = op.forward, size_of(op.forward.dtype)
        rows = float(f.batch) * f.q_len * f.heads
        buffer = rows * f.head_dim * ACCUMULATOR_BYTES
        before = self._sweep(2.0 * rows * f.v_dim * word, buffer + 4.0 * rows, 2.0 * rows * f.v_dim, "row sums")
        after = self._sweep(buffer, rows * f.head_dim * word, rows * f.head_dim, "narrow query gradient")
        kernels: tuple[Kernel, ...] = (before, self._main(op), after)
        if f.heads > f.kv_heads:  # a gradient of keys and values for each query head, added up behind
            pairs = float(f.batch) * f.keys_read * (f.head_dim + f.v_dim) * word
            added = self._sweep(pairs * f.heads, pairs * f.kv_heads, pairs * f.heads / word, "add grouped gradients")
            kernels = (*kernels, added)
        return kernels

    def _sweep(self, read: float, write: float, operations: float, name: str) -> Kernel:
        sweep = Sweep(read, write, (read + write) * (1.0 - self._p.kept(read + write)), vector_ops=operations)
        kernel = self._pointwise.kernel(sweep, f"attention backward: {name}")
        return replace(
            kernel, terms=tuple((label, 0.0) for label, _ in kernel.terms)
        )  # bounds stand on the main kernel

    def _main(self, op: AttentionBackward) -> Kernel:
        p, f = self._p, op.forward
        other = self._other(f)
        t = tile_for(other.backward if other else self._kernels.backward, f.head_dim)
        step, word = self.step(f), size_of(f.dtype)
        keys = math.ceil(f.kv_len / int(t.n))
        heads = f.batch * f.heads
        groups = min(CLASSES, keys) if f.causal and keys > 1 else 1
        traffic = op.bytes_moved
        memory = traffic * (1.0 - p.kept(traffic)) / (keys * heads)
        own = 2.0 * int(t.n) * (f.head_dim + f.v_dim) * word
        moved = int(t.m) * ((f.head_dim + f.v_dim) * word + f.head_dim * ACCUMULATOR_BYTES)
        start = 3.0 * p.memory_latency_s + p.l2_latency_s
        tail_s = float(self._kernels.tile_latency) * int(t.n) / REFERENCE_ROWS
        classes = []
        for g in range(groups):
            first, last = keys * g // groups, keys * (g + 1) // groups
            steps = _steps(f, first, last, int(t.m), int(t.n))
            classes.append(
                TileClass(
                    count=(last - first) * heads,
                    busy_s=steps * step.total_s + tail_s,
                    serial_s=start,
                    l2_bytes=steps * moved + own,
                    memory_bytes=memory,
                    flow_bytes_per_s=p.flow(moved),
                )
            )
        work, scale = op.arithmetic(), p.units * p.boost_ratio
        terms = (
            ("matrix", work.matrix / (p.matrix_rate(f.dtype, self._name) * scale)),
            ("special", work.special / (p.special_ops * scale)),
            ("memory", traffic * (1.0 - p.kept_at_best(traffic)) / p.memory_peak_bytes_per_s),
        )
        return Kernel(
            name=f"attention backward {int(t.m)}x{int(t.n)}",
            classes=tuple(sorted(classes, key=lambda c: -c.busy_s)),
            units=p.units,
            slots=1,
            l2_bytes_per_s=p.l2_bytes_per_s,
            memory_bytes_per_s=p.memory_bytes_per_s,
            terms=terms,
            binding="matrix" if step.matrix_s >= step.shared_s else "l1",
            setup_s=self._setup_s,
            detail=(
                ("tile", f"{int(t.m)}x{int(t.n)}"),
                ("step_matrix_s", step.matrix_s),
                ("step_shared_memory_s", step.shared_s),
                ("step_vector_s", step.vector_s),
                ("step_latency_s", step.latency_s),
            ),
        )


def _steps(op: Attention, first: int, last: int, m: int, n: int) -> float:
    """Query steps of a block of keys, averaged over blocks [first, last); masked queries are left out by steps."""
    whole = math.ceil(op.q_len / m)
    if not op.causal:
        seen = attended_pairs(op.q_len, op.kv_len, False, op.window) / op.kv_len
        return max(1.0, math.ceil(seen / m))
    total = 0
    for block in range(first, last):
        start = max(0, block * n - (op.kv_len - op.q_len)) // m  # the first query that sees the block's first key
        stop = whole
        if op.window:
            stop = min(whole, math.ceil(max(1, (block + 1) * n - (op.kv_len - op.q_len) + op.window) / m))
        total += max(1, stop - start)
    return total / (last - first)

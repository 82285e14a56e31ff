"""One inner step of fused attention on an SM: a tile of queries against a few keys, and which tile a shape gets."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...graph.dtypes import size_of
from ...graph.operators.attention import Attention
from ...spec.hardware import AttentionKernels
from .parameters import GpuParameters

SOFTMAX_OPS = 4.0
"""Scale, maximum, subtract, add: vector operations a score inside the tile loop."""

REFERENCE_WIDTH = 256
"""Elements of a key with its value at head size 128, for which the hardware files give tiles."""

MATRIX_ROWS = 16
"""Rows of a warp's smallest matrix instruction."""

REFERENCE_ROWS = 64
"""Query rows for which the hardware files give what a tile adds."""

KEY_GRANULE, MOST_KEYS = 32, 192
"""Keys of a step come in these multiples, and few kernels go beyond 192."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """Query rows of a tile (padded), keys of an inner step, tiles on an SM, and what a step and a tile add."""

    rows: int
    keys: int
    slots: int
    grouped: bool
    step_latency_s: float
    tile_s: float


class StepModel:
    """Chooses tiles and prices their steps for one GPU."""

    def __init__(self, parameters: GpuParameters, habits: AttentionKernels, from_shared: bool, name: str) -> None:
        self._p, self._habits, self._from_shared, self._name = parameters, habits, from_shared, name

    def context(self, op: Attention) -> Tiling:
        """Tile of a prompt: over contiguous keys, or over the pages of a cache."""
        h = self._habits
        rows, keys = int(h.context_m), int(h.context_n)
        if op.cached:
            rows, keys = int(h.paged_m or rows), int(h.paged_n or keys)
        return self._tiling(op, rows, keys, h.overlap_softmax)

    def generation(self, op: Attention) -> Tiling:
        """Tile of split keys: the query heads of a group share it, padded to its rows."""
        h = self._habits
        if op.shared_value and h.latent is not None:
            latent = h.latent
            step = float(latent.step_latency)
            return Tiling(int(latent.rows), int(latent.keys), 1, False, step, self._tile_s(op, int(latent.rows)))
        most, least = int(h.paged_m or h.context_m), int(h.generation_m)
        wanted = op.q_len * (op.heads // op.kv_heads)
        rows = least if wanted <= least else min(most, math.ceil(wanted / least) * least)
        # A tile of the smallest height belongs to one group of warps, which has no other to take turns with.
        return self._tiling(op, rows, int(h.generation_n), h.overlap_softmax and rows > least)

    def _tiling(self, op: Attention, rows: int, keys: int, grouped: bool) -> Tiling:
        h = self._habits
        scaled = keys * REFERENCE_WIDTH / (op.head_dim + (0 if op.shared_value else op.v_dim))
        if keys >= KEY_GRANULE:
            keys = min(MOST_KEYS, math.ceil(scaled / KEY_GRANULE) * KEY_GRANULE)
        return Tiling(rows, keys, int(h.blocks_per_sm), grouped, float(h.step_latency), self._tile_s(op, rows))

    def _tile_s(self, op: Attention, rows: int) -> float:
        """Start and end of a tile; narrow values are transposed on chip first, which is one stage more to fill."""
        stage = float(self._habits.step_latency) if self.product_type(op) != op.dtype else 0.0
        return float(self._habits.tile_latency) * rows / REFERENCE_ROWS + stage

    def product_type(self, op: Attention) -> str:
        """Element type the products run in."""
        stored = op.stored_dtype
        if self._habits.stored_type_products and size_of(stored) < size_of(op.dtype):
            return stored if stored in self._p.matrix_flops else op.dtype
        return op.dtype

    def step_s(self, op: Attention, tiling: Tiling) -> float:
        """Time of one inner step of a tile that has its SM to itself.

        Products take ``2·rows·keys·(d_qk + d_v)`` FLOP at the SM's rate. Where operands come from registers, every warp
        reads all keys and values of the step from shared memory, which may take longer. The softmax is
        :data:`SOFTMAX_OPS` vector operations and one exponential a score, and a rescale of the output a step. Two
        groups of warps that take turns hide the softmax behind the products; otherwise they follow each other.
        """
        p = self._p
        rows, keys = tiling.rows, tiling.keys
        width = op.head_dim + op.v_dim
        matrix_s = 2.0 * rows * keys * width / p.matrix_rate(self.product_type(op), self._name)
        if not self._from_shared:
            warps = min(int(self._habits.warps), max(1, rows // MATRIX_ROWS))
            read = (warps * keys * width + rows * op.head_dim) * size_of(op.dtype)
            matrix_s = max(matrix_s, read / p.l1_bytes_per_s)
        scores = float(rows) * keys
        narrow = float(self._habits.narrow_operations) if self.product_type(op) != op.dtype else 0.0
        softmax_s = ((SOFTMAX_OPS + narrow) * scores + rows * op.v_dim) / p.vector_op_rate() + scores / p.special_ops
        work = max(matrix_s, softmax_s) if tiling.grouped else matrix_s + softmax_s
        return work + tiling.step_latency_s

"""One inner step of fused attention on an SM: a tile of queries against a few keys, and which tile a shape gets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

from ...graph.dtypes import size_of
from ...graph.operators.attention import Attention
from ...spec.gpu_kernels import AttentionKernels
from .parameters import GpuParameters

SOFTMAX_OPS = 4.0
"""Scale, maximum, subtract, add: vector operations a score inside the tile loop."""

MASK_OPS = 4.0
"""A compare and a select a score for each end of a window."""

REFERENCE_WIDTH = 256
"""Elements of a key with its value at head size 128, for which the hardware files give tiles."""

MATRIX_ROWS = 16
"""Rows of a warp's smallest matrix instruction."""

GROUP_ROWS = 64
"""Query rows of one group of warps, which has no other to take turns with."""

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
        self._step_latency_s, self._tile_latency_s = float(habits.step_latency), float(habits.tile_latency)
        self._narrow_operations = float(habits.narrow_operations)
        # A generation has few head sizes: its tiles are looked up once.
        self._shape = cache(self._shape_of)

    def context(self, op: Attention) -> Tiling:
        """Tile of a prompt: over contiguous keys, or over the pages of a cache."""
        rows, keys = self._shape(op.head_dim, op.v_dim, self._is_narrow(op), "paged" if op.cached else "context")
        return self._tiling(op, rows, keys, self._habits.overlap_softmax)

    def generation(self, op: Attention) -> Tiling:
        """Tile of split keys: the query heads of a group share it, padded to its rows."""
        h = self._habits
        if op.shared_value and h.latent is not None:
            rows = int(h.latent.rows)
            return Tiling(rows, int(h.latent.keys), 1, False, self._trips_s(op), self._tile_s(op))
        narrow = self._is_narrow(op)
        value = 0 if op.shared_value else op.v_dim
        most = self._shape(op.head_dim, value, narrow, "paged")[0]
        least, keys = self._shape(op.head_dim, value, narrow, "generation")
        wanted = op.q_len * (op.heads // op.kv_heads)
        rows = least if wanted <= least else min(max(most, least), math.ceil(wanted / least) * least)
        return self._tiling(op, rows, keys, h.overlap_softmax and rows > GROUP_ROWS)

    def _shape_of(self, width: int, value: int, narrow: bool, use: str) -> tuple[int, int]:
        """Rows and keys of a tile by head size: as listed, else with the bytes of a step at head size 128."""
        h = self._habits
        own = next(
            (
                t
                for t in h.tiles
                if t.narrow == narrow and width <= int(t.head_dim) and value <= int(t.value_dim or t.head_dim)
            ),
            None,
        )
        rows, keys = (None, None) if own is None else (getattr(own, f"{use}_m"), getattr(own, f"{use}_n"))
        if rows is None:
            rows = getattr(h, f"{use}_m") or h.context_m
        if keys is None:
            keys = getattr(h, f"{use}_n") or h.context_n
            if int(keys) >= KEY_GRANULE:
                scaled = int(keys) * REFERENCE_WIDTH / (width + value)
                keys = min(MOST_KEYS, math.ceil(scaled / KEY_GRANULE) * KEY_GRANULE)
        return int(rows), int(keys)

    def _tiling(self, op: Attention, rows: int, keys: int, grouped: bool) -> Tiling:
        slots = int(self._habits.blocks_per_sm)
        if slots > 1:  # queries, keys and values of a step lie in shared memory
            staged = (rows * op.head_dim + keys * op.kv_width) * size_of(op.dtype)
            slots = max(1, min(slots, int(self._p.shared_bytes // staged)))
        return Tiling(rows, keys, slots, grouped, self._step_latency_s, self._tile_s(op))

    def _trips_s(self, op: Attention) -> float:
        """Loads of a step that is not pipelined: each waits for the last, at the SM's share of the L2 bandwidth."""
        p, latent = self._p, self._habits.latent
        assert latent is not None
        moved = int(latent.keys) * (op.head_dim + op.v_dim) * size_of(op.stored_dtype)
        trips_s = int(latent.trips) * p.memory_latency_s
        return trips_s + moved * p.units / p.l2_bytes_per_s + self._step_latency_s

    def _tile_s(self, op: Attention) -> float:
        """Start and end of a tile; narrow values are transposed on chip first, which is one stage more to fill."""
        return self._tile_latency_s + (self._step_latency_s if self._is_narrow(op) else 0.0)

    def _is_narrow(self, op: Attention) -> bool:
        return self.product_type(op) != op.dtype

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
        :data:`SOFTMAX_OPS` vector operations and one exponential a score, and a rescale of the output a step; a window
        adds its mask. Two groups of warps that take turns hide the softmax behind the products, and of three or more
        one does vector operations while another does exponentials; otherwise all follow each other.
        """
        p = self._p
        rows, keys = tiling.rows, tiling.keys
        width = op.head_dim + op.v_dim
        product = self.product_type(op)
        matrix_s = 2.0 * rows * keys * width / p.matrix_rate(product, self._name)
        if not self._from_shared:
            warps = min(int(self._habits.warps), max(1, rows // MATRIX_ROWS))
            read = (warps * keys * width + rows * op.head_dim) * size_of(op.dtype)
            matrix_s = max(matrix_s, read / p.l1_bytes_per_s)
        scores = float(rows) * keys
        operations = SOFTMAX_OPS
        if product != op.dtype:
            operations += self._narrow_operations
        if op.window and op.window < op.kv_len:
            operations += MASK_OPS
        vector_s = (operations * scores + rows * op.v_dim) / p.vector_op_rate()
        special_s = scores / p.special_ops
        if not tiling.grouped:
            return matrix_s + vector_s + special_s + tiling.step_latency_s
        many = rows > 2 * GROUP_ROWS
        softmax_s = max(vector_s, special_s) if many else vector_s + special_s
        return max(matrix_s, softmax_s) + tiling.step_latency_s

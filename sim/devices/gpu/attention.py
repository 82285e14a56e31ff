"""Fused attention on a GPU: context tiles (FlashAttention) and split-KV generation (flash decoding)."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

from ...elementwise import elementwise
from ...graph.dtypes import size_of
from ...graph.operators.attention import Attention
from ...spec.gpu_kernels import AttentionKernels
from ..kernel import Kernel, TileClass
from .attention_steps import StepModel, Tiling
from .parameters import ACCUMULATOR_BYTES, GpuParameters
from .pointwise import PointwiseModel, Sweep

CAUSAL_CLASSES = 4
"""Into how many lengths the rows of tiles under a causal mask are sorted."""

MAX_SAMPLED_TILES = 16
"""Tiles looked at to average the keys a group of them walks."""

GOOD_ENOUGH = 0.85
"""Libraries take the fewest splits that fill the last wave this well, as a share of the best (FlashAttention)."""

EVEN_SLACK = 1.1
"""Where keys are dealt evenly, a place gets this many times its exact share (FlashAttention-3)."""


class AttentionModel:
    """Lowers fused attention for one GPU."""

    def __init__(
        self,
        parameters: GpuParameters,
        habits: AttentionKernels,
        pointwise: PointwiseModel,
        setup_s: float,
        from_shared: bool,
        name: str,
    ) -> None:
        self._setup_s = setup_s
        self._p, self._habits, self._pointwise, self._name = parameters, habits, pointwise, name
        self._steps = StepModel(parameters, habits, from_shared, name)

    def kernels(self, op: Attention) -> tuple[Kernel, ...]:
        """Context or generation kernels of *op*, whichever its shape calls for."""
        rows = op.q_len * (op.heads // op.kv_heads)
        if (op.phase == "generation" and (op.shared_value or rows <= int(self._habits.context_m))) or (
            op.call and op.q_len == 1
        ):
            return self._generation(op)
        return (self._context(op),)

    def _terms(self, op: Attention) -> tuple[tuple[tuple[str, float], ...], float]:
        """Lower bounds, and the traffic behind L2.

        What this step produced may still be in L2; a cache from earlier steps may not. An operator that is replayed by
        itself finds its whole cache where the replay before left it.
        """
        p, work = self._p, op.arithmetic()
        scale = p.units * p.boost_ratio
        moved, fresh = op.bytes_moved, 0.0
        if op.phase == "generation" and not op.call:
            fresh = op.kv_bytes
            moved -= fresh
        best = fresh + moved * (1.0 - p.kept_at_best(moved))
        terms = (
            ("matrix", work.matrix / (p.matrix_rate(self._steps.product_type(op), self._name) * scale)),
            ("special", work.special / (p.special_ops * scale)),
            ("memory", best / p.memory_peak_bytes_per_s),
        )
        return terms, fresh + moved * (1.0 - p.kept(moved))

    def _resident(self, tiling: Tiling) -> int:
        """Tiles that an SM has under way: a block that prefetches has its next one beside the one it works on."""
        return max(2, tiling.slots) if self._habits.prefetch else tiling.slots

    def _tile(
        self,
        op: Attention,
        tiling: Tiling,
        step_s: float,
        steps: float,
        count: int,
        keys_bytes: float,
        own: float,
        memory: float,
        own_bytes_per_s: float,
    ) -> TileClass:
        """A tile of *steps* inner steps; its own queries and outputs are *own* bytes.

        A block alone on its SM does nothing else while they pass, at its share of the bandwidth.
        """
        p = self._p
        own_s = 0.0 if tiling.slots > 1 else own * min(count, p.units) / own_bytes_per_s
        staged = tiling.keys * op.kv_width * size_of(op.stored_dtype)
        return TileClass(
            count=count,
            busy_s=steps * step_s + tiling.tile_s + own_s,
            serial_s=2.0 * p.memory_latency_s + p.l2_latency_s,
            l2_bytes=keys_bytes + own,
            memory_bytes=memory,
            flow_bytes_per_s=p.flow(staged),
        )

    def _own_bytes_per_s(self, size_bytes: float) -> float:
        """Rate at which queries come and outputs leave: that of memory, of L2 as far as they stay there."""
        p = self._p
        kept = p.kept(size_bytes)
        return 1.0 / (kept / p.l2_bytes_per_s + (1.0 - kept) / p.memory_bytes_per_s)

    def _context(self, op: Attention) -> Kernel:
        p, tiling = self._p, self._steps.context(op)
        bm, bn = tiling.rows, tiling.keys
        group = op.heads // op.kv_heads
        packed = group if self._habits.pack_groups and op.q_len < bm else 1
        heads = op.batch * op.heads // packed
        tiles_q = math.ceil(op.q_len * packed / bm)
        step_s = self._steps.step_s(op, tiling)
        groups = min(CAUSAL_CLASSES, tiles_q) if op.causal and tiles_q > 1 else 1
        total_tiles = tiles_q * heads
        terms, traffic = self._terms(op)
        memory = traffic / total_tiles
        word, stored = size_of(op.dtype), op.kv_width * size_of(op.stored_dtype)
        own = min(bm, op.q_len * packed) * (op.head_dim + op.v_dim) * word
        own_rate = self._own_bytes_per_s(own * total_tiles)
        classes, start = [], 0
        for g in range(groups):
            stop = tiles_q * (g + 1) // groups
            steps = _mean_steps(op, start, stop, bm, bn, packed)
            count = (stop - start) * heads
            tile = self._tile(op, tiling, step_s, steps, count, steps * bn * stored, own, memory, own_rate)
            classes.append(tile)
            start = stop
        return Kernel(
            name=f"attention context {bm}x{bn}",
            classes=tuple(reversed(classes)),
            units=p.units,
            slots=self._resident(tiling),
            l2_bytes_per_s=p.l2_bytes_per_s,
            memory_bytes_per_s=p.memory_bytes_per_s,
            terms=terms,
            binding="matrix",
            setup_s=self._setup_s + self._walk_s(op.batch) + self._tail_s(classes, total_tiles),
            detail=(("tile", f"{bm}x{bn}"), ("query_tiles", tiles_q), ("heads", heads), ("step_s", step_s)),
        )

    def _walk_s(self, batch: int) -> float:
        """Every SM's scheduler walks through the whole batch once, and waits for each look."""
        walk = self._habits.walk
        if walk is None or batch > int(walk.most):
            return 0.0
        return batch / int(walk.sequences) * float(walk.look)

    def _tail_s(self, classes: list[TileClass], tiles: int) -> float:
        """Idle time at the end: heads follow each other, so a long tile may be among the last to start.

        On average half the longest tile, of which the closed form of a kernel has half the shortest already; it fades
        in as a second round of tiles fills up.
        """
        if len(classes) == 1:
            return 0.0
        share = min(1.0, max(0.0, tiles / self._p.units - 1.0))
        return 0.5 * share * (classes[-1].busy_s - classes[0].busy_s)

    def _generation(self, op: Attention) -> tuple[Kernel, ...]:
        tiling = self._steps.generation(op)
        rows = op.q_len * (op.heads // op.kv_heads)
        pieces = math.ceil(rows / tiling.rows)
        split = self._split(op, tiling, op.batch * op.kv_heads * pieces)
        kernel = self._generation_kernel(op, tiling, pieces, split)
        return (kernel,) if split == 1 else (kernel, self._merge(op, split))

    def _split(self, op: Attention, tiling: Tiling, tiles: int) -> int:
        """Pieces of every sequence's keys."""
        h, steps = self._habits, _blocks(op, tiling.keys)
        if op.shared_value and h.latent is not None:
            return min(op.keys_read, int(h.latent.splits))
        most = min(int(h.max_splits), steps)
        if most <= 1 or (op.heads == op.kv_heads and not h.split_ungrouped):
            return 1
        if h.split == "even":
            share = math.ceil(EVEN_SLACK * tiles * steps / self._p.units)
            return min(most, math.ceil(steps / share))
        return occupancy_split(tiles, steps, self._p.units * tiling.slots, most)

    def _merge(self, op: Attention, split: int) -> Kernel:
        """A second kernel that scales and adds the pieces; each thread walks its pieces one after another."""
        p = self._p
        partial = 1.0 * op.batch * op.q_len * op.heads * split * _piece_bytes(op)
        out = 1.0 * op.batch * op.q_len * op.heads * op.v_dim * size_of(op.dtype)
        # The weights of the pieces come first, then the pieces one by one.
        chain = (split + 1) * p.l2_latency_s
        operations = 2.0 * partial / ACCUMULATOR_BYTES
        spilled = partial * (1.0 - p.kept(partial))
        sweep = Sweep(partial, out, memory_bytes=spilled, vector_ops=operations, chain_s=chain)
        merge = self._pointwise.kernel(sweep, "attention merge")
        setup_s = merge.setup_s if self._habits.merge_waits else self._setup_s
        # Splitting is a choice of this schedule: the bound of the whole operator stands on the first kernel.
        return replace(merge, setup_s=setup_s, terms=tuple([(label, 0.0) for label, _ in merge.terms]))

    def _generation_kernel(self, op: Attention, tiling: Tiling, pieces: int, split: int) -> Kernel:
        p = self._p
        count = op.batch * op.kv_heads * pieces * split
        if op.shared_value and self._habits.latent is not None:  # every sequence is cut by its keys, not by blocks
            steps = 1.0 * math.ceil(math.ceil(op.keys_read / split) / tiling.keys)
        elif op.q_len > 1 and op.causal and split == 1:  # earlier queries see fewer keys
            steps = _mean_steps(op, 0, pieces, tiling.rows, tiling.keys, op.heads // op.kv_heads)
        else:
            steps = 1.0 * math.ceil(_blocks(op, tiling.keys) / split)
        rows = op.q_len * (op.heads // op.kv_heads)
        kv = 1.0 * op.keys_read / split * op.kv_width * size_of(op.stored_dtype)
        word = size_of(op.dtype)
        own = rows / pieces * (op.head_dim * word + (op.v_dim * word if split == 1 else _piece_bytes(op)))
        terms, traffic = self._terms(op)
        if split > 1:
            partial = 1.0 * count * rows / pieces * _piece_bytes(op)
            traffic += partial * (1.0 - p.kept(partial))
        memory = traffic / count
        rate = self._own_bytes_per_s(own * count)
        step_s = self._steps.step_s(op, tiling)
        return Kernel(
            name=f"attention generation split {split}",
            classes=(self._tile(op, tiling, step_s, steps, count, kv, own, memory, rate),),
            units=p.units,
            slots=self._resident(tiling),
            l2_bytes_per_s=p.l2_bytes_per_s,
            memory_bytes_per_s=p.memory_bytes_per_s,
            terms=terms,
            binding="matrix",
            setup_s=self._setup_s + self._walk_s(op.batch),
            detail=(("splits", split), ("query_rows", rows), ("steps", steps), ("step_s", step_s)),
        )


@elementwise
@lru_cache(maxsize=1 << 14)
def occupancy_split(tiles: int, steps: int, places: int, most: int) -> int:
    """Fewest pieces whose last wave is nearly as full as the best (the rule of flash decoding).

    >>> occupancy_split(8, 32, 216, 128)
    16
    >>> occupancy_split(200, 32, 216, 128)
    1
    """
    if tiles >= 0.8 * places:
        return 1
    best, fills = 0.0, list[tuple[int, float]]()
    for split in range(1, min(most, places, steps) + 1):
        if split > 1 and math.ceil(steps / split) == math.ceil(steps / (split - 1)):
            continue  # one piece more that leaves the longest piece as long
        waves = tiles * split / places
        fill = waves / math.ceil(waves)
        best = max(best, fill)
        fills.append((split, fill))
    return next(split for split, fill in fills if fill >= GOOD_ENOUGH * best)


def _piece_bytes(op: Attention) -> float:
    """What a piece of one query leaves: its output and its sum, in fp32."""
    return (op.v_dim + 1) * ACCUMULATOR_BYTES


def _blocks(op: Attention, keys: int) -> int:
    """Blocks of *keys* that the keys of a sequence touch; a window rarely starts where a block does."""
    first = max(0, op.kv_len - op.q_len - op.window) if op.window else 0
    return (op.kv_len - 1) // keys - first // keys + 1


def _mean_steps(op: Attention, first: int, last: int, bm: int, bn: int, packed: int) -> float:
    """Inner steps of a tile of query rows, averaged over tiles [first, last); *packed* heads share a tile's rows."""
    if not op.causal:
        keys = min(op.window, op.kv_len) if op.window else op.kv_len
        return float(math.ceil(keys / bn))
    count = min(last - first, MAX_SAMPLED_TILES)
    total = 0
    for i in range(count):
        tile = first + (2 * i + 1) * (last - first) // (2 * count)
        seen = op.kv_len - op.q_len + min(-(-(tile + 1) * bm // packed), op.q_len)
        unseen = max(0, seen - -(-bm // packed) - op.window) if op.window else 0
        total += (seen - 1) // bn - unseen // bn + 1
    return total / count

"""Routed experts on a GPU: the kernels of an engine's fused operator, with expert blocks padded to whole tiles.

An engine sorts the picks by expert, pads every expert's rows to whole blocks, multiplies all blocks in one launch,
applies the activation, multiplies again and adds the ``top_k`` results of each token (vllm-project/vllm
vllm/model_executor/layers/fused_moe/fused_moe.py). Picks come in with their weights: routing is an operator of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

from ...errors import UnsupportedError
from ...graph.dtypes import size_of
from ...graph.operators.moe import Experts
from ...spec.gpu_kernels import ExpertKernels, GemmTile
from ..kernel import Kernel, TileClass, kernel_time
from .parameters import ACCUMULATOR_BYTES, DEQUANT_OPS, WARP_THREADS, WORKING_REGISTERS, GpuParameters
from .pointwise import PointwiseModel, Sweep

ALIGN_THREADS = 1024
"""Threads of the one block that counts the picks of every expert."""

PICK_BYTES = 4.0
"""Bytes of an expert's number."""

GROUPED_BLOCKS = 8
"""Row blocks that walk over the same weights before the next columns (GROUP_SIZE_M)."""

RESCALE_OPS = 2.0
"""Vector operations of one accumulator in a step where every block of weights has a scale: product of scales, add."""

DIVISION_INSTRUCTIONS = 30.0
"""A 64-bit division or remainder whose operands fit in 32 bits: the check, then the short form. Assumed."""

INDEX_DIVISIONS = 2.0
"""Of a column whose scale is looked up: its remainder by the width, and its division by the block's."""

COLUMN_LANES = 4.0
"""Threads that share the columns of a warp's sums: each holds a quarter of them (PTX ISA, fragments of wgmma, mma)."""

LOOKUP_INSTRUCTIONS = 4.0
"""Instructions to look a scale up in a step: 64-bit address, load, mask."""

COMPACT_ROWS = (8, 16, 32, 48, 64)
"""Row blocks of the kernel for compact weights (vllm-project/vllm fused_marlin_moe.py)."""

COMPACT_FILL = 0.9
"""It takes the first that an expert's mean rows fill to less than this."""

COMPACT_SLOTS = (4, 2)
"""Most blocks that it starts on a processor: with 16 rows and less, with more (csrc/moe/marlin_moe_wna16/ops.cu)."""

MERGE_TRIPS = 4.0
"""Trips to L2 of a block that adds its sums to those of the block before: lock, sums, their way back, release."""

COMPACT_SPLITS = 4.0
"""Blocks that share the tile of one pick at most, as it counts them (the same file)."""

COMPACT_COLUMNS, COMPACT_DEPTH, COMPACT_STAGES, COMPACT_THREADS = 128.0, 64.0, 4.0, 128.0
"""Its tile of weights, stages and threads, the shape of which most blocks fit (the same file)."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile of the grouped kernel, as floats."""

    m: float
    n: float
    k: float
    stages: float
    threads: float

    @classmethod
    def of(cls, tile: GemmTile) -> Tile:
        """From the hardware file."""
        threads = int(tile.warps_m) * int(tile.warps_n) * WARP_THREADS
        return cls(float(tile.m), float(tile.n), float(tile.k), float(tile.stages), float(threads))


@dataclass(frozen=True, slots=True)
class Grouped:
    """One grouped product: *rows* of width *k*, sorted by expert, with ``[k, n]`` weights each."""

    name: str
    n: int
    k: int
    in_bytes: float
    out_bytes: float
    weights_bytes: float


class ExpertsModel:
    """Lowers routed experts for one GPU."""

    def __init__(
        self,
        parameters: GpuParameters,
        pointwise: PointwiseModel,
        habits: ExpertKernels,
        from_shared: bool,
        setup_s: float,
    ):
        self._p, self._pointwise, self._setup_s = parameters, pointwise, setup_s
        self._from_shared = from_shared
        self._few, self._many, self._scaled = Tile.of(habits.few), Tile.of(habits.many), Tile.of(habits.scaled)
        self._step_s = float(habits.step_wait) / parameters.clock_hz

    def kernels(self, op: Experts) -> tuple[Kernel, ...]:
        """Align, sort, gate/up product, activation, down product, weighted sum; 8-bit rows are narrowed before each.

        What a product leaves is read again from L2 only if its weights did not push it out on their way through.
        """
        wide_word = max(2.0, size_of(op.dtype))  # products of 8-bit rows leave in 16 bits
        word = size_of(op.dtype)
        rows = op.assignments
        width = op.intermediate * (2 if op.gated else 1)
        tokens = min(rows, float(op.tokens))
        wide, narrow = rows * width * wide_word, rows * op.intermediate * wide_word
        taken, given = tokens * op.hidden * word, tokens * op.hidden * wide_word
        down_bytes = rows * op.hidden * wide_word
        up = Grouped(
            "experts gate, up" if op.gated else "experts up",
            width,
            op.hidden,
            taken,
            wide,
            self._weights(op, width, op.hidden),
        )
        down = Grouped(
            "experts down",
            op.hidden,
            op.intermediate,
            narrow * word / wide_word,
            down_bytes,
            self._weights(op, op.hidden, op.intermediate),
        )
        active = op.active_experts
        out = list(self._align(op))
        if word < wide_word:
            out.append(self._pass("experts narrow input", given, taken, tokens * op.hidden))
        out.append(self._grouped(op, up))
        # Two vector operations a multiply-add, sigmoid and product; exponential and division on the special unit.
        out.append(
            self._pass(
                "experts activation",
                wide,
                narrow,
                rows * 4.0 * op.intermediate,
                2.0 * rows * op.intermediate,
                beside=up.weights_bytes * active,
            )
        )
        if word < wide_word:
            out.append(self._pass("experts narrow rows", narrow, narrow * word / wide_word, rows * op.intermediate))
        out.append(self._grouped(op, down))
        out.append(
            self._pass(
                "experts weighted sum",
                down_bytes,
                given,
                2.0 * rows * op.hidden,
                beside=down.weights_bytes * active,
            )
        )
        return tuple(out)

    def _weights(self, op: Experts, n: int, k: int) -> float:
        """Stored bytes of one expert's matrix, with its group scales."""
        scales = 2.0 * n * k / op.group_size if op.group_size else 0.0
        return float(n) * k * size_of(op.stored_dtype) + scales

    def _align(self, op: Experts) -> tuple[Kernel, Kernel]:
        """One block counts the picks and places the blocks of every expert; many then write the sorted picks."""
        p = self._p
        picks = float(op.tokens) * op.top_k
        turns = (
            math.ceil(picks / ALIGN_THREADS) + 2.0 * math.log2(ALIGN_THREADS) * p.l1_latency_s / p.l2_latency_s
            if p.l2_latency_s
            else 0.0
        )
        count = Sweep(picks * PICK_BYTES, op.held * PICK_BYTES, 0.0, parallel=1, chain_s=turns * p.l2_latency_s)
        sort = Sweep(picks * PICK_BYTES, picks * PICK_BYTES, 0.0)
        return self._pointwise.kernel(count, "experts align"), self._pointwise.kernel(sort, "experts sort")

    def _pass(
        self, name: str, read: float, write: float, vector: float = 0.0, special: float = 0.0, beside: float = 0.0
    ) -> Kernel:
        """One pass; *beside* passed through L2 together with what is read."""
        p = self._p
        memory = read * (1.0 - p.kept(read + write + beside)) + write * (1.0 - p.kept(read + write))
        kernel = self._pointwise.kernel(Sweep(read, write, memory, vector_ops=vector, special_ops=special), name)
        best = (read + write) * (1.0 - p.kept_at_best(read + write)) / p.memory_peak_bytes_per_s
        return replace(kernel, terms=tuple((k, best if k == "memory" else v) for k, v in kernel.terms))

    def _grouped(self, op: Experts, x: Grouped) -> Kernel:
        """One launch over all experts with tokens. Engines take the small tile for no more tokens than experts."""
        if size_of(op.stored_dtype) < size_of(op.dtype):
            return self._compact(op, x)
        if _scaled(op):  # a step is a block of weights long
            return self._with_tile(op, x, self._scaled)
        many = self._with_tile(op, x, self._many)
        if op.tokens > op.experts:
            return many
        few = self._with_tile(op, x, self._few)
        return min((few, many), key=lambda kernel: kernel_time(kernel).total_s)

    def _with_tile(self, op: Experts, x: Grouped, tile: Tile) -> Kernel:
        """A block for every row block of an expert and every *tile* of columns, and some that find nothing to do."""
        p, scaled = self._p, _scaled(op)
        blocks, active = _blocks(op, tile.m)
        word = size_of(op.dtype)
        columns, steps = math.ceil(x.n / tile.n), math.ceil(x.k / tile.k)
        count = max(1, round(blocks * columns))
        sums = 2.0 if scaled else 1.0  # those of a block of weights beside the total
        slots = min(
            p.shared_bytes // (tile.stages * tile.k * (tile.m + tile.n) * word),
            p.register_bytes // (sums * tile.m * tile.n * ACCUMULATOR_BYTES + tile.threads * WORKING_REGISTERS * 4.0),
            p.max_threads // tile.threads,
            p.max_blocks,
        )
        if slots < 1 and p.shared_bytes < tile.stages * tile.k * (tile.m + tile.n) * word:
            raise UnsupportedError(f"no expert tile fits {op.dtype} in {p.shared_bytes:.0f} B of shared memory")
        slots = max(1.0, slots)
        # A step's products wait for its rows and the next step for them.
        matrix_s = 2.0 * tile.m * tile.n * steps * tile.k / p.matrix_rate(op.dtype, x.name)
        shared_s = steps * tile.k * (tile.m + tile.n) * word * 2.0 / p.l1_bytes_per_s
        step_s = steps * self._step_s
        start_s, rescale_s = self._rescale(tile, steps, slots) if scaled else (0.0, 0.0)
        busy = max(matrix_s + rescale_s, shared_s) + step_s + start_s
        idle = max(0.0, _launched(op, tile.m) - blocks) * columns / (p.units * slots)
        # A block that finds nothing to do reads how many rows there are and ends.
        empty_s = idle * (p.l2_latency_s + p.l1_latency_s)
        # A row of weights is read to its end; rows lie one after another, so short ones are read together.
        run = x.k * word * (tile.n if steps < tile.stages else 1.0)
        shape = _Shape(tile, steps, min(steps * tile.k, float(x.k)), run, blocks, active, count, int(slots))
        return self._build(op, x, shape, busy, self._setup_s + empty_s, "l1" if shared_s > matrix_s else "matrix")

    def _rescale(self, tile: Tile, steps: int, slots: float) -> tuple[float, float]:
        """(start, all steps) of a tile whose operands have a scale for every block.

        Every thread looks the scale of each of its columns up again in every step, and applies two to each of its sums.
        Another block works while the first of these loads is on its way.
        """
        p = self._p
        held = tile.n / COLUMN_LANES * tile.threads  # columns that the threads hold, together
        start = held * INDEX_DIVISIONS * DIVISION_INSTRUCTIONS / p.vector_op_rate()
        step = (tile.m * tile.n * RESCALE_OPS + held * LOOKUP_INSTRUCTIONS) / p.vector_op_rate()
        return start, steps * (step + p.l2_latency_s / slots)

    def _compact(self, op: Experts, x: Grouped) -> Kernel:
        """Compact weights: as many blocks as fit walk over equal shares of all steps of all tiles."""
        p = self._p
        mean = op.tokens * op.top_k / op.experts
        m = next((float(m) for m in COMPACT_ROWS if mean / m < COMPACT_FILL), float(COMPACT_ROWS[-1]))
        tile = Tile(m, COMPACT_COLUMNS, COMPACT_DEPTH, COMPACT_STAGES, COMPACT_THREADS)
        ea, eb = size_of(op.dtype), size_of(op.stored_dtype)
        blocks, active = _blocks(op, m)
        columns, steps = math.ceil(x.n / tile.n), math.ceil(x.k / tile.k)
        slots = max(
            1.0,
            min(
                p.shared_bytes // (tile.stages * tile.k * (tile.m * ea + tile.n * eb)),
                p.register_bytes // (tile.m * tile.n * ACCUMULATOR_BYTES + tile.threads * WORKING_REGISTERS * 4.0),
                COMPACT_SLOTS[m > COMPACT_ROWS[1]],
            ),
        )
        # Few picks start fewer blocks: as many as would leave each a quarter of a pick's tile.
        slots = min(slots, max(1.0, op.tokens * op.top_k * columns * COMPACT_SPLITS // p.units))
        tiles = max(1.0, blocks * columns)
        count = max(1, min(int(p.units * slots), round(tiles * steps)))
        share = tiles * steps / count
        # Weights are widened in registers, which a matrix unit that reads shared memory serves at half its rate.
        rate = p.matrix_rate(op.dtype, x.name) / (2.0 if self._from_shared else 1.0)
        matrix_s = 2.0 * tile.m * tile.n * tile.k / rate
        widen_s = tile.k * tile.n * DEQUANT_OPS / p.vector_op_rate()
        shared_s = tile.k * (tile.m * ea + tile.n * eb) * 2.0 / p.l1_bytes_per_s
        # Every tile fills the stages anew: other blocks work meanwhile.
        fill_s = max(1.0, share / steps) * (p.memory_latency_s + 2.0 * p.l2_latency_s) / slots
        busy = share * (max(matrix_s + widen_s, shared_s) + self._step_s) + fill_s
        # The blocks that share a tile add their sums one after another: wait for the lock, read, write, release. Shares
        # longer than a tile meet in it two at a time.
        sharers = math.ceil(count / tiles) if count > tiles else 2.0
        turn_s = MERGE_TRIPS * p.l2_latency_s + 2.0 * tile.m * tile.n * ACCUMULATOR_BYTES / p.l1_bytes_per_s
        run = (tile.stages - 1.0) * tile.k * tile.n * eb  # stored in the order of the tiles
        shape = _Shape(tile, share, share * tile.k, run, blocks, active, count, int(slots))
        setup_s = self._setup_s + sharers * turn_s
        return self._build(op, x, shape, busy, setup_s, "l1" if shared_s > matrix_s + widen_s else "matrix")

    def _build(self, op: Experts, x: Grouped, shape: _Shape, busy: float, setup_s: float, binding: str) -> Kernel:
        p, tile, active = self._p, shape.tile, shape.active
        rows = op.assignments
        ea, eb = size_of(op.dtype), size_of(op.stored_dtype)
        used_m, used_n = min(tile.m, rows / max(shape.blocks, 1.0)), min(tile.n, x.n)
        out_tile = used_m * used_n * max(2.0, ea)
        # Weights stream through once for every group of row blocks, unless L2 holds one expert's matrix.
        passes = 1.0 if x.weights_bytes <= p.l2_capacity_bytes else max(1.0, shape.blocks / (active * GROUPED_BLOCKS))
        moved = x.in_bytes + x.out_bytes
        weights = x.weights_bytes * active
        memory = weights * passes + moved * (1.0 - p.kept(moved + weights))
        flight = max(tile.stages - 1.0, 1.0) * tile.k * (used_m * ea + used_n * eb)
        l2 = shape.depth * (used_m * ea + used_n * eb) + out_tile
        cls = TileClass(
            count=shape.count,
            busy_s=busy,
            serial_s=p.memory_latency_s + 2.0 * p.l2_latency_s + out_tile / p.l1_bytes_per_s,
            l2_bytes=l2,
            memory_bytes=memory / shape.count,
            flow_bytes_per_s=p.flow(flight),
        )
        peak = p.matrix_rate(op.dtype, x.name) * p.units * p.boost_ratio
        terms = (
            ("matrix", 2.0 * x.n * x.k * rows / peak),
            ("memory", (weights + moved * (1.0 - p.kept_at_best(moved))) / p.memory_peak_bytes_per_s),
            ("l2", min(weights + moved, l2 * shape.count) / p.l2_bytes_per_s),
        )
        size = f"{tile.m:.0f}x{tile.n:.0f}x{tile.k:.0f}"
        return Kernel(
            name=f"{x.name} {size}",
            classes=(cls,),
            units=p.units,
            slots=shape.slots,
            l2_bytes_per_s=p.l2_bytes_per_s,
            memory_bytes_per_s=p.gather_bytes_per_s(shape.run_bytes),
            terms=terms,
            binding=binding,
            setup_s=setup_s,
            detail=(
                ("tile", size),
                ("row_blocks", shape.blocks),
                ("active_experts", active),
                ("k_steps", shape.steps),
            ),
        )


@dataclass(frozen=True, slots=True)
class _Shape:
    """How a product is cut: *count* blocks of *steps* (*depth* elements) each, for row *blocks* of *active* experts.

    Weights are read in pieces of *run_bytes*.
    """

    tile: Tile
    steps: float
    depth: float
    run_bytes: float
    blocks: float
    active: float
    count: int
    slots: int


def _launched(op: Experts, m: float) -> float:
    """Row blocks that are launched: as if every expert, held or not, had a last one of a single row."""
    picks = float(op.tokens) * op.top_k
    most = picks + op.experts * (m - 1.0)
    return math.ceil((min(most, picks * m) if op.tokens < m else most) / m)


def _scaled(op: Experts) -> bool:
    """Every block of the weights has a scale, and so has every such stretch of a row."""
    return op.group_size > 0 and size_of(op.stored_dtype) == size_of(op.dtype)


def _blocks(op: Experts, m: float) -> tuple[float, float]:
    """Expected row blocks of *m* over all experts, and experts with tokens."""
    return _blocks_of(op.distribution, op.tokens, op.experts, op.held, op.top_k, m)


@lru_cache(maxsize=8192)
def _blocks_of(distribution: str, tokens: int, experts: int, held: int, top_k: int, m: float) -> tuple[float, float]:
    op = Experts(tokens, 1, 1, experts, top_k, distribution=distribution, local=held)
    blocks = active = 0.0
    for probability in op.pick_probabilities():
        used = op.used_share(probability)
        # Rows of an expert that has any, padded to whole blocks.
        blocks += used * math.ceil(tokens * probability / used / m - 1e-9) if used > 0.0 else 0.0
        active += used
    return blocks, active

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
from .parameters import ACCUMULATOR_BYTES, WARP_THREADS, WORKING_REGISTERS, GpuParameters
from .pointwise import PointwiseModel, Sweep

ALIGN_THREADS = 1024
"""Threads of the one block that counts the picks of every expert."""

PICK_BYTES = 4.0
"""Bytes of an expert's number."""

GROUPED_BLOCKS = 8
"""Row blocks that walk over the same weights before the next columns (GROUP_SIZE_M)."""

RESCALE_OPS = 2.0
"""Vector operations of one accumulator in a step where every block of weights has a scale: product of scales, add."""

DEQUANT_OPS = 3.0
"""Vector operations to widen one weight: extract, convert, scale, one at a time (a Triton kernel packs none)."""


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
        """Align, sort, gate/up product, activation, down product, weighted sum; 8-bit rows are narrowed before each."""
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
        out = list(self._align(op))
        if word < wide_word:
            out.append(self._pass("experts narrow input", given, taken, tokens * op.hidden))
        out.append(self._grouped(op, up))
        # Two vector operations a multiply-add, sigmoid and product; exponential and division on the special unit.
        out.append(
            self._pass("experts activation", wide, narrow, rows * 4.0 * op.intermediate, 2.0 * rows * op.intermediate)
        )
        if word < wide_word:
            out.append(self._pass("experts narrow rows", narrow, narrow * word / wide_word, rows * op.intermediate))
        out.append(self._grouped(op, down))
        out.append(self._pass("experts weighted sum", down_bytes, given, 2.0 * rows * op.hidden))
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

    def _pass(self, name: str, read: float, write: float, vector: float = 0.0, special: float = 0.0) -> Kernel:
        memory = (read + write) * (1.0 - self._p.kept(read + write))
        kernel = self._pointwise.kernel(Sweep(read, write, memory, vector_ops=vector, special_ops=special), name)
        best = (read + write) * (1.0 - self._p.kept_at_best(read + write)) / self._p.memory_peak_bytes_per_s
        return replace(kernel, terms=tuple((k, best if k == "memory" else v) for k, v in kernel.terms))

    def _grouped(self, op: Experts, x: Grouped) -> Kernel:
        """One launch over all experts with tokens. Engines take the small tile for no more tokens than experts."""
        if _scaled(op):  # a step is a block of weights long
            return self._with_tile(op, x, self._scaled)
        many = self._with_tile(op, x, self._many)
        if op.tokens > op.experts:
            return many
        few = self._with_tile(op, x, self._few)
        return min((few, many), key=lambda kernel: kernel_time(kernel).total_s)

    def _with_tile(self, op: Experts, x: Grouped, tile: Tile) -> Kernel:
        p = self._p
        blocks, active = _blocks(op, tile.m)
        rows = op.assignments
        ea, eb = size_of(op.dtype), size_of(op.stored_dtype)
        columns, steps = math.ceil(x.n / tile.n), math.ceil(x.k / tile.k)
        count = max(1, round(blocks * columns))
        widened = eb < ea
        # A step's products wait for its rows and the next step for them. Compact weights have a kernel that overlaps
        # both; they are widened in registers, where a matrix unit that reads shared memory works at half its rate.
        matrix_s = 2.0 * tile.m * tile.n * steps * tile.k / p.matrix_rate(op.dtype, x.name)
        if widened and self._from_shared:
            matrix_s *= 2.0
        shared_s = steps * tile.k * (tile.m * ea + tile.n * eb) * 2.0 / p.l1_bytes_per_s
        widen_s = steps * tile.k * tile.n * DEQUANT_OPS / p.vector_op_rate() if widened else 0.0
        # Scales of blocks are loaded in the step that needs them, and applied to all sums.
        rescale_s = (
            steps * (tile.m * tile.n * RESCALE_OPS / p.vector_op_rate() + p.l2_latency_s) if _scaled(op) else 0.0
        )
        step_s = steps * self._step_s
        alone_s = step_s * tile.m / (tile.m + tile.n)  # only rows of activations are gathered, weights stream
        busy = max(matrix_s + widen_s, shared_s, alone_s) if widened else max(matrix_s + rescale_s, shared_s) + step_s
        used_m, used_n = min(tile.m, rows / max(blocks, 1.0)), min(tile.n, x.n)
        out_tile = used_m * used_n * max(2.0, ea)
        slots = min(
            p.shared_bytes // (tile.stages * tile.k * (tile.m * ea + tile.n * eb)),
            p.register_bytes // (tile.m * tile.n * ACCUMULATOR_BYTES + tile.threads * WORKING_REGISTERS * 4.0),
            p.max_threads // tile.threads,
            p.max_blocks,
        )
        if slots < 1 and p.shared_bytes < tile.stages * tile.k * (tile.m * ea + tile.n * eb):
            raise UnsupportedError(f"no expert tile fits {op.dtype} in {p.shared_bytes:.0f} B of shared memory")
        # Weights stream through once for every group of row blocks, unless L2 holds one expert's matrix.
        passes = 1.0 if x.weights_bytes <= p.l2_capacity_bytes else max(1.0, blocks / (active * GROUPED_BLOCKS))
        moved = x.in_bytes + x.out_bytes
        weights = x.weights_bytes * active
        memory = weights * passes + moved * (1.0 - p.kept(moved))
        flight = max(tile.stages - 1.0, 1.0) * tile.k * (used_m * ea + used_n * eb)
        l2 = min(steps * tile.k, float(x.k)) * (used_m * ea + used_n * eb) + out_tile
        cls = TileClass(
            count=count,
            busy_s=busy,
            serial_s=p.memory_latency_s + 2.0 * p.l2_latency_s + out_tile / p.l1_bytes_per_s,
            l2_bytes=l2,
            memory_bytes=memory / count,
            flow_bytes_per_s=p.flow(flight),
        )
        peak = p.matrix_rate(op.dtype, x.name) * p.units * p.boost_ratio
        terms = (
            ("matrix", 2.0 * x.n * x.k * rows / peak),
            ("memory", (weights + moved * (1.0 - p.kept_at_best(moved))) / p.memory_peak_bytes_per_s),
            ("l2", min(weights + moved, l2 * count) / p.l2_bytes_per_s),
        )
        shape = f"{tile.m:.0f}x{tile.n:.0f}x{tile.k:.0f}"
        return Kernel(
            name=f"{x.name} {shape}",
            classes=(cls,),
            units=p.units,
            slots=max(1, int(slots)),
            l2_bytes_per_s=p.l2_bytes_per_s,
            memory_bytes_per_s=p.memory_bytes_per_s,
            terms=terms,
            binding="l1" if shared_s > matrix_s + widen_s else "matrix",
            setup_s=self._setup_s,
            detail=(("tile", shape), ("row_blocks", blocks), ("active_experts", active), ("k_steps", steps)),
        )


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

"""Element-wise, row-wise and copy kernels on a GPU: bytes, occupancy, special functions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ...graph.operators.pointwise import Recipe
from ...spec.gpu_kernels import PointwiseKernels
from ..kernel import Kernel, TileClass
from .parameters import GpuParameters

ROW_THREADS = 1024
"""Most threads of a row kernel's block."""

PAIR_THREADS = 512
"""The same of one that works on pairs of elements (rotary embedding)."""

WARP_SOFTMAX_COLS = 1024
"""Longest row that a framework's softmax holds in the registers of one warp; it sweeps longer ones three times."""

WARP_SOFTMAX_INSTRUCTIONS, SWEPT_SOFTMAX_INSTRUCTIONS = 27.5, 32.5
"""Instructions an element for the arithmetic pipes: the same algorithms in CUDA C++ compiled for compute capability
8.0, counted on the path taken without memory accesses, branches and special functions. Full-precision exponentials (7
each, two where a row is swept) and a division (7); the rest converts, compares and adds."""

WARP_SOFTMAX_ACCESSES, SWEPT_SOFTMAX_ACCESSES = 2.0, 0.5
"""Loads and stores an element: single elements, or eight at a time in each of three sweeps and the store."""

SWEPT_SOFTMAX_PASSES = 3
"""Maximum, sum, result: each reads the row."""


@dataclass(frozen=True, slots=True)
class RowLoop:
    """What a row kernel of an engine does for one element: every thread loops over single elements, nothing unrolled.

    ``multiplies`` go to the pipe that multiplies and adds (integer multiplies and moves as well), ``others`` to that of
    integer additions, shifts, comparisons and conversions; ``accesses`` are loads and stores of all loops over the row,
    ``trips`` loads that wait for one another. ``pair``: the loop takes two elements a turn. ``in_place``: it writes
    what it has read. ``halves``: it reads the two halves of what a matrix product has just written.
    """

    multiplies: float
    others: float
    accesses: float
    trips: int
    pair: bool = False
    in_place: bool = False
    halves: bool = False


ROW_LOOPS = {
    "rmsnorm": RowLoop(13.0, 6.0, 4.0, 2),
    "silu_mul": RowLoop(21.0, 14.0, 3.0, 1, halves=True),
    "rope": RowLoop(7.5, 12.5, 3.0, 1, pair=True, in_place=True),
}
"""vllm-project/vllm 0.2 csrc (layernorm, activation, pos_encoding kernels): loops of that form compiled for compute
capability 8.0 (nvcc 13), machine instructions of the path taken counted by the pipe that runs them: nothing is
unrolled. Rotary embedding divides integers for each pair."""

LOOP_INSTRUCTIONS, ACCESS_INSTRUCTIONS, SPECIAL_INSTRUCTIONS = 2.0, 4.0, 7.0
"""Of other such loops, after those above: loop count, 64-bit address, exponential or division."""

ACCESS_LANES = 32.0
"""Load/store units of a processor: elements that they take in a clock (NVIDIA A100 and H100 whitepapers)."""

PRODUCT_ROWS, PRODUCT_COLS = 128, 256
"""Largest tile of a product: its sums of 4 bytes take half of a processor's 256 KiB of registers."""


def swept_softmax_threads(cols: int) -> int:
    """Threads of the block that sweeps a row of *cols* 16-bit numbers: two loads of 16 bytes each, where they suffice.

    pytorch/pytorch aten/src/ATen/native/cuda/PersistentSoftmax.cuh and SoftMax.cu (SoftMax_getBlockSize).
    """
    return max(32, min(ROW_THREADS, cols // 8) // 2)


def row_loop(kind: str, r: Recipe) -> RowLoop:
    """The loop of a row kernel, counted or estimated from the operator's recipe.

    >>> row_loop("silu_mul", Recipe(2, 1, 3, 2)).accesses
    3.0
    """
    if kind in ROW_LOOPS:
        return ROW_LOOPS[kind]
    passes = 2 if r.reduces else 1
    accesses = r.reads * passes + r.writes + r.parameters
    work = r.vector + SPECIAL_INSTRUCTIONS * r.special
    half = (LOOP_INSTRUCTIONS * passes + ACCESS_INSTRUCTIONS * accesses + work) / 2.0
    return RowLoop(half, half, accesses, passes)


@dataclass(frozen=True, slots=True)
class Sweep:
    """One pass over data.

    ``read_bytes`` and ``write_bytes`` are what the kernel touches, ``memory_bytes`` the part that L2 does not hold.
    ``again_bytes`` are read from L2 beyond that, where several blocks need the same data. ``rows`` > 0 makes rows the
    unit of scheduling where a row must be reduced before it is written; ``parallel`` limits the number of blocks.
    ``run_bytes``: what is read lies in pieces of that size at unrelated places. ``shared_bytes`` of what is read serve
    every row (learned numbers).
    ``loop`` makes it a row kernel of an engine: a block for each of ``rows`` rows of ``cols`` elements, a thread for
    each element, up to ROW_THREADS. ``instructions`` are issued and ``accesses`` made in all, where that was counted.
    """

    read_bytes: float
    write_bytes: float
    memory_bytes: float
    vector_ops: float = 0.0
    special_ops: float = 0.0
    rows: int = 0
    parallel: int = 0
    chain_s: float = 0.0
    again_bytes: float = 0.0
    run_bytes: float = math.inf
    shared_bytes: float = 0.0
    cols: int = 0
    loop: RowLoop | None = None
    instructions: float = 0.0
    accesses: float = 0.0


class PointwiseModel:
    """Lowers sweeps for one GPU."""

    def __init__(self, parameters: GpuParameters, habits: PointwiseKernels) -> None:
        self._p = parameters
        self._threads = int(habits.threads)
        self._vector_bytes = float(habits.bytes_per_thread)
        self._in_flight = int(habits.loads_in_flight)
        self._accesses = math.inf if habits.accesses is None else float(habits.accesses) * parameters.clock_hz
        self._instructions = parameters.instruction_rate()
        lanes = parameters.vector_flops
        self._multiply_rate, self._other_rate = lanes["fp32"] / 2.0, lanes.get("int32", lanes["fp32"]) / 2.0
        self._access_rate = ACCESS_LANES * parameters.clock_hz

    def kernel(self, sweep: Sweep, name: str) -> Kernel:
        """One kernel for one pass.

        A block of ``threads`` moves ``threads × bytes_per_thread × loads_in_flight`` at a time; a reducing kernel gives
        each row to one block, which sweeps the row in as many turns as it needs and then exchanges partial results
        through shared memory in log2(threads) steps. ``parallel`` limits the number of independent blocks.
        """
        p = self._p
        if sweep.loop:
            return self._row_kernel(sweep, name, sweep.loop)
        largest = max(sweep.read_bytes, sweep.write_bytes)
        one_load = self._threads * self._vector_bytes
        # Small tensors give each thread fewer loads, so that every processor gets a block; a row stays with one block.
        places = min(p.units, sweep.parallel or p.units)
        spread = self._in_flight if sweep.rows else max(1, math.ceil(largest / (one_load * places)))
        loads = min(self._in_flight, spread)
        chunk = one_load * loads
        slots = max(1, min(p.max_threads // self._threads, p.max_blocks))
        blocks = max(1, math.ceil(largest / chunk))
        reduce_s = 0.0
        if sweep.rows:
            blocks = min(max(blocks, 1), sweep.rows)
            reduce_s = 2.0 * math.log2(self._threads) * p.l1_latency_s
        if sweep.parallel:
            blocks = min(blocks, sweep.parallel)
        # Every processor reads what all rows share; its first-level cache keeps that for its other rows.
        if sweep.shared_bytes:
            again = sweep.again_bytes + sweep.shared_bytes * (min(blocks, p.units) - 1)
            sweep = replace(sweep, again_bytes=again)
        flight = min(chunk, (largest + sweep.again_bytes) / blocks)
        serial_s = p.memory_latency_s + p.l2_latency_s + reduce_s + sweep.chain_s
        return self._build(sweep, name, blocks, slots, serial_s, max(flight, 1.0))

    def _row_kernel(self, sweep: Sweep, name: str, loop: RowLoop) -> Kernel:
        """A block a row; each thread takes every ROW_THREADS-th element (or pair), one after the other.

        The blocks that a processor holds start together and stay in step: all wait for their loads, then issue their
        instructions and pass their accesses through the load/store units and their bytes from and to L2, whichever
        takes longer, in that order for every warp. One tile here is all the blocks that a processor holds at a time,
        the last and shorter round shared out among all. The kernel's own instructions come from memory, as the one
        before, with its weights, has passed through L2.
        """
        p = self._p
        items, most = (math.ceil(sweep.cols / 2), PAIR_THREADS) if loop.pair else (sweep.cols, ROW_THREADS)
        threads = min(most, items, p.max_threads)
        turns = math.ceil(items / threads)
        slots = max(1, min(p.max_threads // threads, p.max_blocks))
        rounds = math.ceil(sweep.rows / (p.units * slots))
        away = min(1.0, sweep.memory_bytes / ((sweep.read_bytes + sweep.write_bytes) or 1.0))
        if loop.halves and self._product_waves(sweep) > 1:
            away, sweep = 1.0, replace(sweep, memory_bytes=max(sweep.memory_bytes, sweep.read_bytes))
        # A second load of the row finds it in L2; the latency of memory is that of a whole trip, L2 included.
        trip_s = loop.trips * p.l2_latency_s + away * max(0.0, p.memory_latency_s - p.l2_latency_s)
        elements = turns * threads * (2.0 if loop.pair else 1.0)  # lanes without an element wait for the others
        work_s = max(loop.multiplies / self._multiply_rate, loop.others / self._other_rate)
        rate = min(self._access_rate, self._accesses) if loop.in_place else self._access_rate
        l2_rate = p.l2_bytes_per_s / min(sweep.rows, p.units)
        through_s = (sweep.read_bytes + sweep.write_bytes) / sweep.rows / l2_rate
        row_s = elements * work_s + max(elements * loop.accesses / rate, through_s)
        kernel = self._build(
            sweep, name, rounds * min(sweep.rows, p.units), 1, turns * trip_s + sweep.chain_s, math.inf
        )
        (tile,) = kernel.classes
        busy = max(tile.busy_s, row_s * math.ceil(sweep.rows / p.units) / rounds)
        binding = "vector" if busy > tile.busy_s else kernel.binding
        return replace(kernel, classes=(replace(tile, busy_s=busy),), binding=binding, setup_s=p.memory_latency_s)

    def _product_waves(self, sweep: Sweep) -> int:
        """Waves of tiles of the product that wrote the gates and values of a sweep.

        The weights of each later wave pass through L2 after the results of those before, which therefore are read from
        memory; every row crosses tiles of several waves, and blocks in step wait for the farthest of their loads.
        """
        tiles = math.ceil(sweep.rows / PRODUCT_ROWS) * math.ceil(2 * sweep.cols / PRODUCT_COLS)
        return math.ceil(tiles / self._p.units)

    def _build(self, sweep: Sweep, name: str, blocks: int, slots: int, serial_s: float, flight: float) -> Kernel:
        p = self._p
        total = sweep.read_bytes + sweep.write_bytes
        issue_s = sweep.instructions / self._instructions + sweep.accesses / self._accesses
        vector_s = max(sweep.vector_ops / p.vector_op_rate(), issue_s)
        special_s = sweep.special_ops / p.special_ops
        l1_s = (total + sweep.again_bytes) / p.l1_bytes_per_s
        tile = TileClass(
            count=blocks,
            busy_s=max(vector_s, special_s, l1_s) / blocks,
            serial_s=serial_s,
            l2_bytes=(total + sweep.again_bytes) / blocks,
            memory_bytes=sweep.memory_bytes / blocks,
            flow_bytes_per_s=p.flow(flight),
        )
        scale = p.units * p.boost_ratio
        terms = (
            ("vector", sweep.vector_ops / (2.0 * p.vector_op_rate() * scale)),
            ("special", special_s / scale),
            ("memory", sweep.memory_bytes / p.memory_peak_bytes_per_s),
            ("l2", total / p.l2_bytes_per_s),
        )
        parts = ((vector_s, "vector"), (special_s, "special"), (l1_s, "l1"))
        return Kernel(
            name=name,
            classes=(tile,),
            units=p.units,
            slots=slots,
            l2_bytes_per_s=p.l2_bytes_per_s,
            memory_bytes_per_s=p.memory_peak_bytes_per_s
            * p.shares.sweep(sweep.write_bytes / (total or 1.0), sweep.run_bytes),
            terms=terms,
            binding=max(parts)[1],
            detail=(("blocks", blocks), ("block_bytes", total / blocks)),
        )

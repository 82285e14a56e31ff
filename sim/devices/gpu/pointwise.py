"""Element-wise, row-wise and copy kernels on a GPU: bytes, occupancy, special functions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ...spec.hardware import PointwiseKernels
from ..kernel import Kernel, TileClass
from .parameters import GpuParameters

ROW_THREADS = 1024
"""Most threads of a row kernel's block."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """One pass over data.

    ``read_bytes`` and ``write_bytes`` are what the kernel touches, ``memory_bytes`` the part that L2 does not hold.
    ``again_bytes`` are read from L2 beyond that, where several blocks need the same data. ``rows`` > 0 makes rows the
    unit of scheduling where a row must be reduced before it is written; ``parallel`` limits the number of blocks.
    ``run_bytes``: what is read lies in pieces of that size at unrelated places. ``shared_bytes`` of what is read serve
    every row (learned numbers).
    ``cols`` > 0 makes it a row kernel of an engine: a block for each of ``rows`` rows, a thread for each element, up to
    ROW_THREADS; it makes ``accesses`` loads and stores of single elements in all.
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
    accesses: float = 0.0


class PointwiseModel:
    """Lowers sweeps for one GPU."""

    def __init__(self, parameters: GpuParameters, habits: PointwiseKernels) -> None:
        self._p = parameters
        self._threads = int(habits.threads)
        self._vector_bytes = float(habits.bytes_per_thread)
        self._in_flight = int(habits.loads_in_flight)
        self._accesses = math.inf if habits.accesses is None else float(habits.accesses) * parameters.clock_hz

    def kernel(self, sweep: Sweep, name: str) -> Kernel:
        """One kernel for one pass.

        A block of ``threads`` moves ``threads × bytes_per_thread × loads_in_flight`` at a time; a reducing kernel gives
        each row to one block, which sweeps the row in as many turns as it needs and then exchanges partial results
        through shared memory in log2(threads) steps. ``parallel`` limits the number of independent blocks.
        """
        p = self._p
        if sweep.cols:
            return self._row_kernel(sweep, name)
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
        again = sweep.again_bytes + sweep.shared_bytes * (min(blocks, p.units) - 1)
        sweep = replace(sweep, again_bytes=again)
        flight = min(chunk, (largest + again) / blocks)
        serial_s = p.memory_latency_s + p.l2_latency_s + reduce_s + sweep.chain_s
        return self._build(sweep, name, blocks, slots, serial_s, max(flight, 1.0))

    def _row_kernel(self, sweep: Sweep, name: str) -> Kernel:
        """A block a row; each thread takes every ROW_THREADS-th element, one after the other."""
        p = self._p
        threads = min(ROW_THREADS, sweep.cols, p.max_threads)
        turns = math.ceil(sweep.cols / threads)
        slots = max(1, min(p.max_threads // threads, p.max_blocks))
        # Every turn waits for its own loads; only the other rows of the processor cover that.
        serial_s = turns * (p.memory_latency_s + p.l2_latency_s) + sweep.chain_s
        return self._build(sweep, name, sweep.rows, slots, serial_s, math.inf)

    def _build(self, sweep: Sweep, name: str, blocks: int, slots: int, serial_s: float, flight: float) -> Kernel:
        p = self._p
        total = sweep.read_bytes + sweep.write_bytes
        vector_s = sweep.vector_ops / p.vector_op_rate()
        special_s = sweep.special_ops / p.special_ops
        l1_s = max((total + sweep.again_bytes) / p.l1_bytes_per_s, sweep.accesses / self._accesses)
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

"""Products of a few rows as dot products on the vector units: every block has its columns, its threads share k."""

from __future__ import annotations

import math
from typing import Final

from ..kernel import TileClass
from .parameters import WARP_THREADS, GpuParameters

COLUMNS: Final = 4
"""Columns of a block. Assumed: the file below has 2."""
THREADS: Final = 128
"""Threads of a block (NVIDIA/TensorRT-LLM cpp/tensorrt_llm/kernels/weightOnlyBatchedGemv/int8SQ.cu)."""
LOAD_BYTES: Final = 16.0
"""Bytes of one load of a thread, the widest there is."""
MODULE_ROWS: Final = 4
"""Most rows for which a library's module with integer activations takes this kernel (TensorRT-LLM, SmoothQuant)."""
WORD_BYTES: Final = 4.0
"""Bytes of either operand that one instruction takes: two 16-bit numbers, or four of 8 bits (dp4a)."""


def vector_tiles(
    p: GpuParameters, rows: int, columns: int, inner: int, a_bytes: float, b_bytes: float, memory_bytes: float
) -> tuple[TileClass, int, float]:
    """Blocks of ``[rows, inner] · [columns, inner]ᵀ``, how many an SM holds, and the bandwidth their loads reach.

    *a_bytes* and *b_bytes*: of one element; *memory_bytes*: what L2 does not hold of both operands and the result.
    The threads of a block load a piece of each of its rows of the second operand at a time, from all over the matrix.
    """
    count = math.ceil(columns / COLUMNS)
    own = min(COLUMNS, columns)
    weights, activations = own * inner * b_bytes, rows * inner * a_bytes
    instructions = rows * weights / WORD_BYTES
    busy_s = max(instructions / p.vector_op_rate(), (weights + activations) / p.l1_bytes_per_s)
    flight = min(THREADS * LOAD_BYTES * own, weights)
    reduce_s = math.log2(WARP_THREADS) * p.l1_latency_s
    tile = TileClass(
        count=count,
        busy_s=busy_s,
        serial_s=p.memory_latency_s + p.l2_latency_s + reduce_s,
        l2_bytes=weights + activations,
        memory_bytes=memory_bytes / count,
        flow_bytes_per_s=p.flow(flight),
    )
    slots = max(1, min(p.max_threads // THREADS, p.max_blocks))
    return tile, slots, p.gather_bytes_per_s(min(inner * b_bytes, THREADS * LOAD_BYTES))

"""Generation attention of the first engines: a block a query head of a sequence, on the vector units.

FasterTransformer's masked multi-head attention (NVIDIA/FasterTransformer
src/fastertransformer/kernels/decoder_masked_multihead_attention), which TensorRT-LLM took over and ran until 0.6:
one block walks all keys of its head, then all values. Heads of a group do not share what they load, so that grouped
keys cross L2 once a query head; nothing is split, so that few sequences leave most processors idle.
"""

from __future__ import annotations

from ...graph.dtypes import size_of
from ...graph.operators.attention import Attention
from ..kernel import Kernel, TileClass
from .parameters import GpuParameters

SHORT_KEYS, LONG_KEYS = 32, 2048
"""Cache lengths from which a block has 128 and 256 threads instead of 64 (the launcher of that kernel)."""

LOADED_BYTES = 128.0
"""Bytes that a thread asks for at a time: its share of a key of 128 elements, in loads of 16 bytes."""

INSTRUCTIONS, NARROW_INSTRUCTIONS = 2.0, 3.0
"""Instructions an element of keys and values: its conversion and its multiply-add; narrow types convert twice."""


class PerHeadModel:
    """Lowers it for one GPU."""

    def __init__(self, parameters: GpuParameters, setup_s: float) -> None:
        self._p, self._setup_s = parameters, setup_s

    def kernel(self, op: Attention) -> Kernel:
        """``batch·heads`` tiles, each with all keys and values of its head.

        Bytes in flight of a block are ``threads · LOADED_BYTES``, which bounds its stream as ``bytes / latency``. The
        cache comes from memory once: blocks of a group that run together meet in L2.
        """
        p, stored = self._p, size_of(op.stored_dtype)
        count = op.batch * op.heads
        elements = float(op.keys_read) * op.kv_width * op.q_len
        threads = 64 if op.keys_read < SHORT_KEYS else 128 if op.keys_read < LONG_KEYS else 256
        instructions = elements * (INSTRUCTIONS if stored >= 2.0 else NARROW_INSTRUCTIONS)
        own = op.q_len * (op.head_dim + op.v_dim) * size_of(op.dtype)
        tile = TileClass(
            count=count,
            busy_s=instructions / p.vector_op_rate(),
            serial_s=2.0 * (p.memory_latency_s + p.l2_latency_s),  # first keys, then first values
            l2_bytes=elements * stored + own,
            memory_bytes=op.kv_bytes / count,
            flow_bytes_per_s=p.flow(threads * LOADED_BYTES),
        )
        work = op.arithmetic()
        scale = p.units * p.boost_ratio
        matrix = work.matrix / (p.vector_rate("fp32") * scale)
        return Kernel(
            name="attention generation per head",
            classes=(tile,),
            units=p.units,
            slots=max(1, min(p.max_threads // threads, p.max_blocks)),
            l2_bytes_per_s=p.l2_bytes_per_s,
            memory_bytes_per_s=p.memory_bytes_per_s,
            terms=(("vector", matrix), ("memory", op.kv_bytes / p.memory_peak_bytes_per_s)),
            binding="vector",
            setup_s=self._setup_s,
            detail=(("threads", threads), ("blocks", count)),
        )

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

LAUNCHES = ((32, 64, 4), (2048, 128, 2), (None, 256, 1))
"""Cache length up to which a block has so many threads, of which so many share a key (the launcher of that kernel)."""

NARROW_INSTRUCTIONS = 2.0
"""Further instructions an element of a one-byte type: it is widened to 16 bits first."""


class PerHeadModel:
    """Lowers it for one GPU."""

    def __init__(self, parameters: GpuParameters, setup_s: float) -> None:
        self._p, self._setup_s = parameters, setup_s

    def kernel(self, op: Attention) -> Kernel:
        """``batch·heads`` tiles, each with all keys and values of its head.

        A thread asks for its whole share of a key at a time, which bounds a block's stream as ``bytes / latency``. The
        cache comes from memory once as far as L2 holds what the running blocks read: those of a group meet there.
        """
        p, stored = self._p, size_of(op.stored_dtype)
        count = op.batch * op.heads
        elements = float(op.keys_read) * op.kv_width * op.q_len
        threads, sharing = next((t, s) for keys, t, s in LAUNCHES if keys is None or op.keys_read < keys)
        slots = max(1, min(p.max_threads // threads, p.max_blocks))
        instructions = elements * (op.per_head + (0.0 if stored >= 2.0 else NARROW_INSTRUCTIONS))
        group = op.heads // op.kv_heads
        running = min(count, p.units * slots) / group * elements * stored
        again = (group - 1.0) * (1.0 - p.kept(running))
        own = op.q_len * (op.head_dim + op.v_dim) * size_of(op.dtype)
        tile = TileClass(
            count=count,
            busy_s=instructions / p.vector_op_rate(),
            serial_s=2.0 * (p.memory_latency_s + p.l2_latency_s),  # first keys, then first values
            l2_bytes=elements * stored + own,
            memory_bytes=op.kv_bytes * (1.0 + again) / count,
            flow_bytes_per_s=p.flow(threads / sharing * op.head_dim * stored),
        )
        work = op.arithmetic()
        scale = p.units * p.boost_ratio
        matrix = work.matrix / (p.vector_rate("fp32") * scale)
        return Kernel(
            name="attention generation per head",
            classes=(tile,),
            units=p.units,
            slots=slots,
            l2_bytes_per_s=p.l2_bytes_per_s,
            memory_bytes_per_s=p.memory_bytes_per_s,
            terms=(("vector", matrix), ("memory", op.kv_bytes / p.memory_peak_bytes_per_s)),
            binding="vector",
            setup_s=self._setup_s,
            detail=(("threads", threads), ("blocks", count)),
        )

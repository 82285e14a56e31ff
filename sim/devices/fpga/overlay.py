"""The temporal design: operators one after another on matrix arrays with double-buffered operands."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ...graph.dtypes import size_of
from ...graph.operators.attention import Attention
from ..kernel import Kernel, TileClass
from ..steps import AttentionStep, ProductStep, SweepStep
from .parameters import Engine, FpgaParameters
from .resources import mvau_cycles

QUERY_ROWS = 64
"""Query rows that share one reading of a head's keys in context attention."""


@dataclass(frozen=True, slots=True)
class Blocking:
    """How a product is cut: rows that stay on chip, outputs and depth of one tile, bytes from memory in all."""

    rows: int
    outputs: int
    depth: int
    memory_bytes: float


class OverlayModel:
    """Lowers steps for one board's overlay."""

    def __init__(self, parameters: FpgaParameters) -> None:
        self._p = parameters
        self._engines: dict[str, Engine] = {}

    def engine(self, dtype: str) -> Engine:
        """The overlay built for *dtype*."""
        if dtype not in self._engines:
            self._engines[dtype] = self._p.engine(dtype)
        return self._engines[dtype]

    def product(self, step: ProductStep) -> Kernel:
        """Tiles of outputs × depth for blocks of rows, each FINN's ``rows·⌈outputs/PE⌉·⌈depth/SIMD⌉`` cycles."""
        p, engine = self._p, self.engine(step.dtype)
        cold = 1.0 - p.kept(step.live_bytes)
        a, c = step.a_bytes * cold, step.c_bytes * (1.0 if step.c_persistent else cold)
        b = step.b_bytes * (1.0 if step.b_persistent else cold)
        cut = self._blocking(step, engine, a, b, c)
        parts = (
            math.ceil(step.m / cut.rows),
            math.ceil(step.n / cut.outputs),
            math.ceil(step.k / cut.depth),
        )
        count = step.batch * parts[0] * parts[1] * parts[2]
        rows, outputs, depth = (math.ceil(x / n) for x, n in zip((step.m, step.n, step.k), parts, strict=True))
        # Tiles are whole columns of the array; their mean keeps the total exact where the last one is smaller.
        cycles = mvau_cycles(step.n, step.k, engine.pe, engine.simd, step.m) * step.batch / count
        busy = cycles / p.clock_hz
        memory = cut.memory_bytes / count
        on_chip = memory + rows * depth * size_of(step.dtype)
        passing = step.a_bytes + (0.0 if step.b_persistent else step.b_bytes)
        passing += 0.0 if step.c_persistent else step.c_bytes
        lasting = step.a_bytes + step.b_bytes + step.c_bytes - passing
        least = min(lasting + passing * (1.0 - p.kept_at_best(passing)), cut.memory_bytes)
        terms = (
            ("matrix", step.bound_flops / (2.0 * engine.macs * p.clock_hz)),
            ("memory", least / p.memory_peak),
        )
        tile = TileClass(count, busy, self._first(), on_chip, memory)
        detail: tuple[tuple[str, float | str], ...] = (
            ("array", f"{engine.cores} x {engine.pe} PE x {engine.simd} SIMD"),
            ("tile", f"{rows}x{outputs}x{depth}"),
            ("utilisation", step.flops / (2.0 * engine.pe * engine.simd * cycles * count)),
        )
        kernel = self._kernel(f"{step.name} {rows}x{outputs}x{depth}", tile, terms, "matrix", detail)
        return _repeated(kernel, step.repeat)

    def _blocking(self, step: ProductStep, engine: Engine, a: float, b: float, c: float) -> Blocking:
        """The cut with the least traffic: rows stay while weights pass, or weights stay while rows pass.

        Half of a core's buffer holds what stays, a quarter each half of the double-buffered stream. Where the weights
        stay they are read once and the rows once for every group of outputs; otherwise the reverse.
        """
        p = self._p
        word, stored = size_of(step.dtype), size_of(step.b_dtype or step.dtype)
        half = p.buffer_bytes / 2.0
        share = half / engine.cores / 2.0
        rows = max(1, min(step.m, math.floor(half / (step.k * word))))
        held = max(1, min(step.n, math.floor(half / (step.k * stored))))
        rows_stay = a + b * math.ceil(step.m / rows) + c
        weights_stay = a * math.ceil(step.n / held) + b + c
        rows_per_tile = rows if rows_stay <= weights_stay else step.m
        depth = step.k
        if engine.pe * depth * stored > share:
            depth = max(engine.simd, math.floor(share / (engine.pe * stored) / engine.simd) * engine.simd)
        most = max(1, math.floor(share / (engine.pe * depth * stored))) * engine.pe
        even = math.ceil(step.n / (engine.pe * engine.cores)) * engine.pe  # no core should stand idle
        return Blocking(rows_per_tile, min(most, even, step.n), min(depth, step.k), min(rows_stay, weights_stay))

    def sweep(self, step: SweepStep) -> Kernel:
        """One piece a core on the vector lanes; rows and independent pieces limit the cores that work."""
        p = self._p
        count = p.cores
        for limit in (step.rows, step.parallel):
            count = min(count, limit) if limit else count
        passing = step.total_bytes - step.persistent_bytes
        memory = step.persistent_bytes + passing * (1.0 - p.kept(passing))
        least = step.persistent_bytes + passing * (1.0 - p.kept_at_best(passing))
        vector_s = step.vector_ops / p.vector_ops_per_s
        special_s = step.special_ops / p.special_ops_per_s
        busy = max(vector_s, special_s) * p.cores / count
        chain = step.chain * p.depth_s
        tile = TileClass(count, busy, self._first() + chain, step.total_bytes / count, memory / count)
        terms = (("vector", vector_s), ("special", special_s), ("memory", least / p.memory_peak))
        binding = "vector" if vector_s >= special_s else "special"
        return self._kernel(step.name, tile, terms, binding, (("pieces", count),))

    def attention(self, step: AttentionStep) -> Kernel:
        """A head's keys against its query rows; softmax lanes work on one tile while the arrays work on another."""
        op = step.op
        group = op.heads // op.kv_heads
        if op.phase == "generation":
            return self._attend(op, op.batch * op.kv_heads, op.q_len * group, float(op.keys_read))
        rows = min(QUERY_ROWS, op.q_len)
        keys = op.pairs / op.q_len
        if op.causal:  # the block on the diagonal is computed whole
            keys = min(float(op.kv_len), keys + rows / 2.0)
        return self._attend(op, op.batch * op.heads * math.ceil(op.q_len / rows), rows, keys)

    def _attend(self, op: Attention, count: int, rows: int, keys: float) -> Kernel:
        p, engine = self._p, self.engine(op.dtype)
        whole = math.ceil(keys)
        cycles = mvau_cycles(whole, op.head_dim, engine.pe, engine.simd, rows)
        cycles += mvau_cycles(op.v_dim, whole, engine.pe, engine.simd, rows)
        matrix_s = cycles / p.clock_hz
        work = op.arithmetic()
        # The vector lanes are counted over all cores; a tile runs on those of its own.
        vector_s = work.vector / p.vector_ops_per_s * p.cores / count
        special_s = work.special / p.special_ops_per_s * p.cores / count
        if op.phase == "generation":
            passing = op.bytes_moved - op.kv_bytes
            memory = op.kv_bytes + passing * (1.0 - p.kept(passing))
            least = op.kv_bytes + passing * (1.0 - p.kept_at_best(passing))
        else:
            memory = op.bytes_moved * (1.0 - p.kept(op.bytes_moved))
            least = op.bytes_moved * (1.0 - p.kept_at_best(op.bytes_moved))
        keys_bytes = keys * op.kv_width * size_of(op.stored_dtype)
        queries = rows * (op.head_dim + op.v_dim) * size_of(op.dtype)
        tile = TileClass(count, max(matrix_s, vector_s, special_s), self._first(), keys_bytes + queries, memory / count)
        terms = (
            ("matrix", work.matrix / (2.0 * engine.macs * p.clock_hz)),
            ("vector", work.vector / p.vector_ops_per_s),
            ("special", work.special / p.special_ops_per_s),
            ("memory", least / p.memory_peak),
        )
        binding = max((matrix_s, "matrix"), (vector_s, "vector"), (special_s, "special"))[1]
        return self._kernel(f"attention {op.phase} {rows} rows", tile, terms, binding, (("query_rows", rows),))

    def _first(self) -> float:
        """From the first address to the first result."""
        return self._p.memory_latency_s + self._p.depth_s

    def _kernel(
        self,
        name: str,
        tile: TileClass,
        terms: tuple[tuple[str, float], ...],
        binding: str,
        detail: tuple[tuple[str, float | str], ...],
    ) -> Kernel:
        p = self._p
        return Kernel(
            name=name,
            classes=(tile,),
            units=p.cores,
            slots=2,
            l2_bytes_per_s=p.buffer_bytes_per_s,
            memory_bytes_per_s=p.memory_bytes_per_s,
            terms=terms,
            binding=binding,
            detail=detail,
        )


def _repeated(kernel: Kernel, times: int) -> Kernel:
    """The same tiles *times* over, each round waiting for the one before."""
    if times == 1:
        return kernel
    tile = kernel.classes[0]
    longer = replace(
        tile,
        busy_s=tile.busy_s * times,
        serial_s=tile.serial_s * times,
        l2_bytes=tile.l2_bytes * times,
        memory_bytes=tile.memory_bytes * times,
    )
    return replace(kernel, classes=(longer,), terms=tuple((label, value * times) for label, value in kernel.terms))

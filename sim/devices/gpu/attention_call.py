"""What an inference engine runs for one attention operator: the cache write, copies, the kernels, the host."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

from ...graph.dtypes import size_of
from ...graph.operators.attention import Attention, KVAppend, LatentAttention
from ...spec.gpu_kernels import AttentionCall
from ..kernel import Kernel, TileClass, kernel_time
from .attention import AttentionModel
from .gemm import GemmModel, Product
from .parameters import WARP_THREADS, GpuParameters
from .pointwise import PointwiseModel, Sweep

NARROW_STORE_OPS = 5.0
"""Operations on an element that is stored narrower: unpack, divide by the scale, clamp, convert, pack."""


class AttentionCallModel:
    """Lowers attention as an engine calls it, for one GPU."""

    def __init__(
        self,
        parameters: GpuParameters,
        habits: AttentionCall,
        attention: AttentionModel,
        gemm: GemmModel,
        pointwise: PointwiseModel,
        launch_gap_s: float,
    ) -> None:
        self._p, self._habits, self._gap_s = parameters, habits, launch_gap_s
        self._attention, self._gemm, self._pointwise = attention, gemm, pointwise
        self._replay = float(habits.replay)
        # Copies and cache writes recur from row to row of a table: kept by what they depend on.
        self._sweep = cache(self._new_sweep)
        self._append = cache(self._new_append)

    def dense(self, op: Attention) -> tuple[Kernel, ...]:
        """Cache write if the call contains it, copies of grouped queries where the library needs them, attention."""
        group = op.heads // op.kv_heads
        copies = 0
        if group > 1 and op.q_len == 1 and self._habits.regroup_copies is not None:
            # Heads of one sequence, or of one key head, are already in order: only the output is copied.
            copies = int(self._habits.regroup_copies) if op.batch > 1 and op.kv_heads > 1 else 1
        copied: list[Kernel] = []
        if copies:
            size = float(op.batch) * op.heads * op.v_dim * size_of(op.dtype)
            copied = [self._sweep("regroup", size, size)] * copies
        key, width = op.kv_heads * op.head_dim, op.kv_heads * op.kv_width
        kernels = [*copied, *self._attention.kernels(op)]
        if self._habits.appends if op.appends is None else op.appends:
            kernels.insert(0, self._append(op.batch * op.q_len, key, width, op.dtype, op.stored_dtype))
        return self._replayed(kernels)

    def _replayed(self, kernels: list[Kernel]) -> tuple[Kernel, ...]:
        """The first kernel carries the start of the graph."""
        first = kernels[0]
        return (replace(first, setup_s=first.setup_s + self._replay), *kernels[1:])

    def append(self, op: KVAppend) -> tuple[Kernel, ...]:
        """The cache write alone, as a kernel of its own in a step; half of a token's elements are keys.

        A block copies once, and waits for that in the latency it starts with: no rate of requests bounds it beside.
        """
        key, stored = max(1, op.width // 2), op.kv_dtype or op.dtype
        kernel = self._append(op.tokens, key, op.width, op.dtype, stored)
        return (replace(kernel, classes=tuple(replace(c, flow_bytes_per_s=math.inf) for c in kernel.classes)),)

    def latent(self, op: LatentAttention) -> tuple[Kernel, ...]:
        """Cache write and attention; the whole module of an engine projects between latent and heads, too.

        Absorbed (generation, and a module's prompts up to ``latent_absorbed`` tokens): queries are taken to the latent
        space, the result back. Expanded: keys and values are projected, and the shared rotary key is copied to every
        head. The host launches a module's kernels one by one; where it takes longer than they do, its time shows behind
        the last.
        """
        h = self._habits
        width = op.kv_lora_rank + op.rope_dim
        append = self._append(op.batch * op.q_len, width, width, op.dtype, op.kv_dtype or op.dtype)
        if not (h.latent_module if op.module is None else op.module):
            core = op.equivalent if op.phase == "generation" else self._expanded_core(op)
            return self._replayed([append, *self._attention.kernels(replace(core, call=True))])
        narrow = bool(op.kv_dtype) and size_of(op.kv_dtype) < size_of(op.dtype)
        longest = h.latent_absorbed_narrow if narrow and h.latent_absorbed_narrow else h.latent_absorbed
        absorbed = op.phase == "generation" or op.q_len <= int(longest)
        work = self._absorbed(op, narrow) if absorbed else self._expanded(op)
        device_s = sum(kernel_time(k).total_s + self._gap_s for k in (append, *work))
        host_s = float(h.latent_host) + narrow * float(h.latent_host_narrow)
        waiting = host_s - device_s - self._gap_s
        return (append, *work, *([self._host(waiting)] if waiting > 0.0 else []))

    @staticmethod
    def _expanded_core(op: LatentAttention) -> Attention:
        """Attention over keys and values that were just computed: as wide as the queries, in no cache."""
        return replace(op.equivalent, cached=False, kv_dtype="")

    def _host(self, waiting_s: float) -> Kernel:
        """The device waits for the host: nothing runs."""
        p = self._p
        return Kernel(
            name="host",
            classes=(),
            units=1,
            slots=1,
            l2_bytes_per_s=p.l2_bytes_per_s,
            memory_bytes_per_s=p.memory_bytes_per_s,
            terms=(("host", 0.0),),
            fixed_s=waiting_s,
            fixed_label="host",
        )

    def _absorbed(self, op: LatentAttention, narrow: bool) -> tuple[Kernel, ...]:
        tokens, rank = op.batch * op.q_len, op.kv_lora_rank
        core = replace(op, phase="generation", call=False).equivalent
        queries = float(tokens) * op.heads * (rank + op.rope_dim) * size_of(op.dtype)
        joined = [self._sweep("join queries", queries, queries)] if narrow or self._habits.latent_joined else []
        return (
            self._product(tokens, rank, op.nope_dim, op.heads, op.dtype, "absorb queries"),
            *joined,
            *self._attention.kernels(replace(core, call=True)),
            self._product(tokens, op.v_dim, rank, op.heads, op.dtype, "project values"),
        )

    def _expanded(self, op: LatentAttention) -> tuple[Kernel, ...]:
        tokens, word = op.batch * op.kv_len, size_of(op.dtype)
        core = self._expanded_core(op)
        keys = float(tokens) * op.heads * core.head_dim * word
        values = float(tokens) * op.heads * op.v_dim * word
        wide = op.heads * (op.nope_dim + op.v_dim)
        kernels = [
            self._product(tokens, wide, op.kv_lora_rank, 1, op.dtype, "expand keys and values"),
            self._sweep("join keys", keys, keys),
        ]
        attend = self._attention.kernels(core)
        if not self._habits.latent_padded:
            return (*kernels, *attend)
        # Padding is no work of the operator: its bound stays that of the narrow values.
        padded = self._attention.kernels(replace(core, value_dim=core.head_dim))
        bound = [replace(wide, terms=narrow.terms) for wide, narrow in zip(padded, attend, strict=True)]
        return (
            *kernels,
            self._sweep("pad values", values, keys),
            *bound,
            self._sweep("cut values", values, values),
        )

    def _product(self, m: int, n: int, k: int, batch: int, dtype: str, name: str) -> Kernel:
        product = Product(m=m, n=n, k=k, batch=batch, dtype=dtype)
        return self._gemm.kernel(product, name)

    def _new_sweep(self, name: str, read: float, write: float) -> Kernel:
        memory = (read + write) * (1.0 - self._p.kept(read + write))
        return _unbound(self._pointwise.kernel(Sweep(read, write, memory), name))

    def _new_append(self, tokens: int, key: int, width: int, dtype: str, stored: str) -> Kernel:
        """Cache write, a block a token: address arithmetic of all its threads, then a dependent read and the copy.

        *key* elements are keys, *width* keys and values. Short blocks with much integer work: ``append_threads``
        threads, fewer where the key is narrower, execute ``append_operations`` integer operations each, whatever there
        is to copy; elements stored narrower are converted one by one.
        """
        p, h = self._p, self._habits
        threads = max(WARP_THREADS, min(int(h.append_threads), key))
        read, write = float(width) * size_of(dtype), float(width) * size_of(stored)
        operations = int(h.append_operations) * threads + (NARROW_STORE_OPS * width if write < read else 0.0)
        traffic = tokens * (read + write)
        tile = TileClass(
            count=tokens,
            busy_s=operations / (p.vector_rate("int32") / 2.0),
            serial_s=2.0 * p.memory_latency_s + p.l2_latency_s,
            l2_bytes=read + write,
            memory_bytes=(read + write) * (1.0 - p.kept(traffic)),
            flow_bytes_per_s=p.flow(read),
        )
        best = 1.0 - p.kept_at_best(traffic)
        return Kernel(
            name="cache write",
            classes=(tile,),
            units=p.units,
            slots=max(1, min(p.max_threads // threads, p.max_blocks)),
            l2_bytes_per_s=p.l2_bytes_per_s,
            memory_bytes_per_s=p.memory_bytes_per_s,
            terms=(("memory", traffic * best / p.memory_peak_bytes_per_s),),
            binding="vector",
            detail=(("threads", threads), ("tokens", tokens)),
        )


def _unbound(kernel: Kernel) -> Kernel:
    """Copies are a choice of the engine: no lower bound of the operator stands on them."""
    return replace(kernel, terms=tuple((label, 0.0) for label, _ in kernel.terms))

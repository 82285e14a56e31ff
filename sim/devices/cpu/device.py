"""A CPU behind the device seam: cores are processors, panels and row blocks are tiles, one tile of a core at a time."""

from __future__ import annotations

import math
from dataclasses import replace

from ...graph.dtypes import size_of
from ...graph.operators.attention import SOFTMAX_VECTOR_PER_SCORE, Attention
from ...network.collectives import CollectiveCosts
from ...network.topology import Network
from ...spec.cpu import CpuSpec
from ..device import LaunchCosts, Lowered
from ..kernel import Kernel, TileClass, kernel_time
from ..stepped import SteppedDevice, bare_network
from ..steps import AttentionStep, ProductStep, SweepStep
from . import panel_search as ps
from .parameters import Arithmetic, CpuParameters

KEY_BLOCK = 512
"""Keys between two rescalings of the running output in fused attention."""

PARTIAL_BYTES = 4.0
"""Bytes of a partial attention output (fp32)."""


class CpuDevice(SteppedDevice):
    """A CPU server built from its file; *network* joins it to its peers."""

    def __init__(self, spec: CpuSpec, network: Network | None = None) -> None:
        super().__init__()
        p = CpuParameters.from_spec(spec)
        self.name, self.spec, self.parameters = spec.name, spec, p
        self.network = network or bare_network({str(k): v for k, v in spec.links.items()})
        call, dispatch = float(spec.launch.graph), float(spec.launch.dispatch)
        # The dispatching thread also computes: its time never runs beside the kernels, so it is part of every gap.
        self.launch = LaunchCosts(gap_s=call, stream_gap_s=call + dispatch, dispatch_s=0.0, isolated_s=call + dispatch)
        sockets = int(spec.sockets)
        self.memory_capacity_bytes = sockets * float(spec.memory.capacity)
        self.memory_reserved_bytes = sockets * float(spec.memory.reserved)
        self.memory_peak_bytes_per_s = p.shared_memory_peak
        self.power_limit_w = sockets * float(spec.power.limit)
        self.price_usd_per_hour = None if spec.price.hourly is None else float(spec.price.hourly)
        c = spec.kernels.collective
        self.collective_costs = CollectiveCosts(
            float(c.setup), float(c.step), float(c.efficiency), float(c.one_shot_limit)
        )
        # The device is the host: such a copy stays within its memory, which it reads and writes.
        self.host_bytes_per_s, self.host_latency_s = p.shared_memory_bytes_per_s / 2.0, 0.0
        self._gemm_efficiency = float(spec.kernels.gemm.efficiency)
        self._attention_rows = int(spec.kernels.attention.rows)
        self._split_keys = spec.kernels.attention.split_keys
        self._rows = ps.row_panels(p.units)
        self._splits = [float(1 << i) for i in range(p.units.bit_length())]
        self._pairs = ps.cache_pairs(p.domains)
        self._core = [
            float(p.units),
            p.l1_bytes,
            p.l1_bytes_per_s,
            p.l2_bytes,
            p.l2_bytes_per_s,
            p.shared_l3_bytes_per_s,
            p.shared_memory_bytes_per_s,
            p.stream_bytes_per_s,
            p.l3_stream_bytes_per_s,
            p.first_load_s,
            p.fork_join_s,
            float(spec.kernels.gemm.rows),
            float(spec.kernels.gemm.columns),
        ]
        self._out = [0.0] * ps.RESULT_SIZE

    def peak_matrix_flops(self, dtype: str) -> float:
        """All working cores at the highest clock."""
        return self.parameters.arithmetic(dtype).peak * self.parameters.units

    def more_roofs(self) -> tuple[tuple[str, str, float], ...]:
        """Vector and last-level cache roofs."""
        p = self.parameters
        vector = 2.0 * p.vector_ops_peak * p.units
        return (("fp32 vector", "compute", vector), ("L3", "bandwidth", p.shared_l3_bytes_per_s))

    def cycles(self, lowered: Lowered) -> float:
        """Core cycles at the clock held under vector work."""
        return lowered.analytic_s * self.parameters.clock_hz

    def _convert(self, step_dtype: str, stored: str, how: Arithmetic) -> float:
        """Seconds to widen one element on one core; 0 where the unit reads it as it is."""
        narrower = bool(stored) and size_of(stored) < size_of(step_dtype)
        p = self.parameters
        return p.dequantise / p.vector_ops_per_s if narrower or how.converts else 0.0

    def product_kernel(self, step: ProductStep) -> Kernel:
        """Panels over the cores, priced by :mod:`effsim.devices.cpu.panel_search`."""
        p, out = self.parameters, self._out
        how = p.arithmetic(step.dtype)
        word = size_of(step.dtype)
        passing = step.a_bytes + (0.0 if step.b_persistent else step.b_bytes)
        passing += 0.0 if step.c_persistent else step.c_bytes
        lasting = (step.b_bytes if step.b_persistent else 0.0) + (step.c_bytes if step.c_persistent else 0.0)
        cold = 1.0 - p.kept(step.live_bytes)
        stays = p.weights_cached
        lasting_cold = 1.0 - p.kept(lasting + passing) if stays else 1.0
        problem: list[float] = [
            step.m,
            step.n,
            step.k,
            step.batch,
            word,
            size_of(step.b_dtype or step.dtype),
            word,
            how.rate * self._gemm_efficiency,
            self._convert(step.dtype, "", how),
            self._convert(step.dtype, step.b_dtype, how),
            1.0 if how.on_matrix else 0.0,
            step.a_bytes * cold,
            step.b_bytes * (lasting_cold if step.b_persistent else cold),
            step.c_bytes * (lasting_cold if step.c_persistent else cold),
        ]
        ps.search(problem, self._core, self._rows, self._splits, self._pairs, out)
        best = 1.0 - p.kept_at_best(passing)
        least = passing * best + lasting * (1.0 - p.kept_at_best(lasting) if stays else 1.0)
        moved = problem[ps.P_A_MEM] + problem[ps.P_B_MEM] + problem[ps.P_C_MEM]
        terms = (
            ("matrix", step.bound_flops / (how.peak * p.units)),
            ("memory", min(least, moved) / p.shared_memory_peak),
        )
        return _repeated(self._panels(step.name, terms, how), step.repeat)

    def _panels(self, name: str, terms: tuple[tuple[str, float], ...], how: Arithmetic) -> Kernel:
        p, out = self.parameters, self._out
        tile = TileClass(
            count=int(out[ps.COUNT]),
            busy_s=out[ps.BUSY],
            serial_s=p.first_load_s,
            l2_bytes=out[ps.L3],
            memory_bytes=out[ps.MEMORY],
            flow_bytes_per_s=out[ps.FLOW],
        )
        cut = f"{int(out[ps.ROWS])}x{int(out[ps.COLUMNS])}x{int(out[ps.SPLIT])}"
        arithmetic = "matrix" if how.on_matrix else "vector"
        detail: tuple[tuple[str, float | str], ...] = (
            ("panels", cut),
            ("unit", arithmetic),
            ("panel_compute_s", out[ps.COMPUTE]),
            ("panel_loads_s", out[ps.LOADS]),
            ("fork_join_s", out[ps.EXTRA]),
        )
        binding = "matrix" if out[ps.COMPUTE] >= out[ps.LOADS] else "l1"
        return self._kernel(f"{name} panels {cut}", tile, terms, binding, out[ps.EXTRA], detail)

    def _kernel(
        self,
        name: str,
        tile: TileClass,
        terms: tuple[tuple[str, float], ...],
        binding: str,
        setup_s: float,
        detail: tuple[tuple[str, float | str], ...],
    ) -> Kernel:
        p = self.parameters
        return Kernel(
            name=name,
            classes=(tile,),
            units=p.units,
            slots=1,
            l2_bytes_per_s=p.shared_l3_bytes_per_s,
            memory_bytes_per_s=p.shared_memory_bytes_per_s,
            terms=terms,
            binding=binding,
            setup_s=setup_s,
            detail=detail,
        )

    def sweep_kernel(self, step: SweepStep) -> Kernel:
        """One piece a thread, on one core or on all, whichever is sooner done (a parallel region has its price)."""
        most = self.parameters.units
        for limit in (step.rows, step.parallel):
            most = min(most, limit) if limit else most
        counts = sorted({1, most})
        return min((self._sweep(step, count) for count in counts), key=lambda kernel: kernel_time(kernel).total_s)

    def _sweep(self, step: SweepStep, count: int) -> Kernel:
        p = self.parameters
        passing = step.total_bytes - step.persistent_bytes
        memory, least = p.from_memory(step.persistent_bytes, passing)
        vector_s = (step.vector_ops + step.special_ops * p.special) / p.vector_ops_per_s
        loads_s = step.total_bytes / p.l2_bytes_per_s
        l3, own = step.total_bytes / count, memory / count
        tile = TileClass(
            count=count,
            busy_s=max(vector_s, loads_s) / count,
            serial_s=p.first_load_s,
            l2_bytes=l3,
            memory_bytes=own,
            flow_bytes_per_s=p.flow(l3, own),
        )
        vector = step.vector_ops / 2.0 + step.special_ops * p.special
        terms = (
            ("vector", vector / (p.vector_ops_peak * p.units)),
            ("memory", least / p.shared_memory_peak),
        )
        binding = "vector" if vector_s >= loads_s else "l1"
        fork = p.fork_join_s if count > 1 else 0.0
        return self._kernel(step.name, tile, terms, binding, fork, (("threads", count), ("fork_join_s", fork)))

    def attention_kernel(self, step: AttentionStep) -> Kernel:
        """A piece of query rows of one head (context) or all rows of one kv head with a share of its keys."""
        op = step.op
        group = op.heads // op.kv_heads
        if op.phase == "generation" and op.q_len * group <= self._attention_rows:
            heads, rows = op.batch * op.kv_heads, op.q_len * group
            splits = {1}
            if self._split_keys:
                most = max(1, op.keys_read // KEY_BLOCK)
                wanted = {-(-self.parameters.units * turns // heads) for turns in (1, 2, 4)}
                splits |= {min(most, s) for s in wanted}
            kernels = [self._attend(op, heads, rows, float(op.keys_read), s) for s in sorted(splits)]
            return min(kernels, key=lambda kernel: kernel_time(kernel).total_s)
        blocks = [b for b in (self._attention_rows, self._attention_rows // 2, self._attention_rows // 4) if b > 0]
        kernels = [self._context(op, min(b, op.q_len)) for b in blocks]
        return min(kernels, key=lambda kernel: kernel_time(kernel).total_s)

    def _context(self, op: Attention, rows: int) -> Kernel:
        keys = op.pairs / op.q_len
        if op.causal:  # the block on the diagonal is computed whole
            keys = min(float(op.kv_len), keys + rows / 2.0)
        return self._attend(op, op.batch * op.heads * math.ceil(op.q_len / rows), rows, keys, 1)

    def _attend(self, op: Attention, pieces: int, rows: int, keys: float, split: int) -> Kernel:
        """*pieces* × *split* tiles of *rows* query rows against *keys* / *split* keys."""
        p = self.parameters
        how = p.arithmetic(op.dtype)
        own = keys / split
        scores = rows * own
        stored = own * op.kv_width
        convert = self._convert(op.dtype, op.stored_dtype, how) * stored
        product = 2.0 * scores * (op.head_dim + op.v_dim) / (how.rate * self._gemm_efficiency)
        rescale = rows * op.v_dim * max(1.0, own / KEY_BLOCK)
        softmax = (SOFTMAX_VECTOR_PER_SCORE * scores + rescale + scores * p.special) / p.vector_ops_per_s
        kv = stored * size_of(op.stored_dtype)
        loads = kv / p.l2_bytes_per_s
        count = pieces * split
        expected, least = self._attention_memory(op)
        l3 = kv + rows * (op.head_dim + op.v_dim) * size_of(op.dtype)
        memory = expected / count
        partial = 0.0 if split == 1 else pieces * rows * split * (op.v_dim + 1) * PARTIAL_BYTES
        extra = p.fork_join_s if count > 1 else 0.0
        if split > 1:
            extra += p.fork_join_s + 2.0 * partial / p.shared_l3_bytes_per_s
        tile = TileClass(count, max(product + softmax + convert, loads), p.first_load_s, l3, memory, p.flow(l3, memory))
        work = op.arithmetic()
        vector = work.vector / 2.0 + work.special * p.special
        terms = (
            ("matrix", work.matrix / (how.peak * p.units)),
            ("vector", vector / (p.vector_ops_peak * p.units)),
            ("memory", least / p.shared_memory_peak),
        )
        binding = max((product, "matrix"), (softmax + convert, "vector"), (loads, "l1"))[1]
        detail: tuple[tuple[str, float | str], ...] = (("query_rows", rows), ("keys", own), ("key_splits", split))
        return self._kernel(f"attention {op.phase} {rows} rows split {split}", tile, terms, binding, extra, detail)

    def _attention_memory(self, op: Attention) -> tuple[float, float]:
        """(expected, least) bytes from memory: a cache from earlier steps always, this step's tensors if too large."""
        p = self.parameters
        if op.phase != "generation":
            size = op.bytes_moved
            return size * (1.0 - p.kept(size)), size * (1.0 - p.kept_at_best(size))
        passing = op.bytes_moved - op.kv_bytes
        return op.kv_bytes + passing * (1.0 - p.kept(passing)), op.kv_bytes + passing * (1.0 - p.kept_at_best(passing))


def _repeated(kernel: Kernel, times: int) -> Kernel:
    """The same panels *times* over, each waiting for the one before."""
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
    terms = tuple((label, value * times) for label, value in kernel.terms)
    return replace(kernel, classes=(longer,), terms=terms, setup_s=kernel.setup_s * times)

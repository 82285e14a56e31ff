"""A CPU behind the device seam: cores are processors, panels and row blocks are tiles, one tile of a core at a time."""

from __future__ import annotations

import math
from dataclasses import replace

from ...graph.dtypes import size_of
from ...graph.operator import Operator
from ...graph.operators.attention import SOFTMAX_VECTOR_PER_SCORE, Attention
from ...graph.operators.scan import SelectiveScan
from ...network.collectives import CollectiveCosts
from ...network.topology import Network
from ...spec.cpu import CpuSpec
from ..device import LaunchCosts, Lowered
from ..kernel import Kernel, TileClass, kernel_time
from ..stepped import SteppedDevice, bare_network
from ..steps import AttentionStep, ProductStep, SweepStep, steps_of
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
        gemm, clock = spec.kernels.gemm, p.vector_hz
        self._pack = {str(name): float(cycles) / clock for name, cycles in gemm.pack.items()}
        self._pack_far = {str(name): float(cycles) / clock for name, cycles in gemm.pack_far.items()}
        self._direct = {str(name): float(cycles) / clock for name, cycles in gemm.direct.items()}
        self._direct_rows = float(gemm.direct_rows)
        convolution = spec.kernels.convolution
        self._reorder = float(convolution.reorder) / clock if convolution is not None else 0.0
        self._setup = {kind: float(seconds) for kind, seconds in spec.kernels.setup.items()}
        self._passes = {kind: int(count) for kind, count in spec.kernels.passes.items()}
        self.view_s = float(spec.launch.view) if spec.launch.view is not None else dispatch
        self._attention_rows = int(spec.kernels.attention.rows)
        blocks = [(int(b.length), int(b.rows)) for b in spec.kernels.attention.blocks]
        self._attention_blocks = sorted(blocks, reverse=True)
        self._key_step = int(spec.kernels.attention.keys or 0)
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
            min(p.stream_bytes_per_s, float(gemm.direct_stream or p.stream_bytes_per_s)),
            min(p.l3_stream_bytes_per_s, float(gemm.direct_l3_stream or p.l3_stream_bytes_per_s)),
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

    def kernels_of(self, op: Operator, fused: bool) -> tuple[Kernel, ...]:
        """See :meth:`Device.kernels_of`; a scan that is not fused runs as the framework's operators, token by token."""
        if isinstance(op, SelectiveScan) and not fused and op.length > 1:
            return self._eager_scan(op)
        passes = self._passes.get(op.kind, 1)
        kernels = super().kernels_of(op, fused)
        step = steps_of(op, True, self.name)[0] if passes > 1 else None
        if isinstance(step, SweepStep):
            one = replace(
                step,
                vector_ops=step.vector_ops / passes,
                special_ops=step.special_ops / passes,
                elements=step.elements / passes,
            )
            kernels = (self.sweep_kernel(one),) * passes
        setup = self._setup.get(op.kind, 0.0)
        if setup and kernels and kernels[0].classes:
            kernels = (replace(kernels[0], setup_s=kernels[0].setup_s + setup), *kernels[1:])
        return kernels

    def _eager_scan(self, op: SelectiveScan) -> tuple[Kernel, ...]:
        """Δ·A and its exponential, Δ·x and its product with B, then four operators and four views a token."""
        state = float(op.batch) * op.channels * op.state
        tokens, word = float(op.batch) * op.length * op.channels, size_of(op.state_dtype)
        expanded, wide = tokens * op.state, tokens * size_of(op.dtype)

        def sweep(name: str, read: float, write: float, elements: float, special: float = 0.0) -> SweepStep:
            kind = {"scan exponential": "exp", "scan gate": "silu", "scan sum": "short_sum"}.get(name, "mul")
            return SweepStep(
                name, read, write, 0.0, elements, special, elements=elements, dtype=op.state_dtype, kind=kind
            )

        before = (
            sweep("scan delta·A", wide, expanded * word, expanded),
            sweep("scan exponential", expanded * word, expanded * word, expanded, expanded),
            sweep("scan delta·x", 2.0 * wide, wide, tokens),
            sweep("scan delta·x·B", wide, expanded * word, expanded),
        )
        small = state * word
        # Each token's share of the two expanded tensors comes from where they lie whole; the state stays near.
        lies = small * (1.0 - self.parameters.kept(2.0 * expanded * word))
        turn = (
            replace(sweep("scan decay", 2.0 * small, small, state), persistent_bytes=lies),
            replace(sweep("scan input", 2.0 * small, small, state), persistent_bytes=lies),
            sweep("scan h·C", small, small, state),
            sweep("scan sum", small, small / op.state, state),
        )
        after = (
            sweep("scan stack", wide, wide, tokens),
            sweep("scan skip", wide, wide, tokens),
            sweep("scan skip add", 2.0 * wide, wide, tokens),
            sweep("scan gate", wide, wide, tokens, tokens),
            sweep("scan gated", 2.0 * wide, wide, tokens),
        )
        views = len(turn) * self.view_s
        gap = self.launch.stream_gap_s
        steps = []
        for index, step in enumerate(turn):
            kernel = _repeated(self.sweep_kernel(step), op.length)
            # All but one start are inside the repeated kernel; the views of a token come with its first operator.
            starts = (op.length - 1) * gap + (op.length * views if index == 0 else 0.0)
            steps.append(replace(kernel, setup_s=kernel.setup_s + starts))
        return (*map(self.sweep_kernel, before), *steps, *map(self.sweep_kernel, after))

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
            0.0 if step.taps else self._pack.get(step.dtype, 0.0),
            0.0 if step.taps else self._direct.get(step.dtype, 0.0),
            self._direct_rows,
            p.beyond_l2(step.live_bytes, p.units),
            p.beyond_l2(lasting + passing, p.units) if stays or not step.b_persistent else 1.0,
        ]
        # Strides hurt where one matrix does not fit; many small ones lie one behind the other.
        item = p.beyond_l2(max(step.a_bytes, step.b_bytes) / step.batch, 1)
        problem.append(self._pack_far.get(step.dtype, 0.0) * item)
        problem[ps.P_B_FAR] = max(problem[ps.P_B_FAR], problem[ps.P_B_MEM] / step.b_bytes if step.b_bytes else 0.0)
        ps.search(problem, self._core, self._rows, self._splits, self._pairs, out)
        best = 1.0 - p.kept_at_best(passing)
        least = passing * best + lasting * (1.0 - p.kept_at_best(lasting) if stays else 1.0)
        moved = problem[ps.P_A_MEM] + problem[ps.P_B_MEM] + problem[ps.P_C_MEM]
        terms = (
            ("matrix", step.bound_flops / (how.peak * p.units)),
            ("memory", min(least, moved) / p.shared_memory_peak),
        )
        more_s = self._fresh_s(step.c_bytes, int(out[ps.COUNT])) + self._reorder_s(step) / out[ps.COUNT]
        return _repeated(self._panels(step.name, terms, how, more_s), step.repeat)

    def _fresh_s(self, result_bytes: float, count: int) -> float:
        """Seconds a round of tiles spends on the new pages of a result that *count* tiles write."""
        units = self.parameters.units
        return self.parameters.fresh_s(result_bytes, min(units, count)) / -(-count // units)

    def _reorder_s(self, step: ProductStep) -> float:
        """Seconds of one core to bring a convolution's tensors into the blocked layout and its result out of it."""
        if step.taps <= 1:
            return 0.0
        elements = (step.a_bytes + step.b_bytes + step.c_bytes) / size_of(step.dtype)
        return elements * self._reorder

    def _panels(self, name: str, terms: tuple[tuple[str, float], ...], how: Arithmetic, more_s: float) -> Kernel:
        p, out = self.parameters, self._out
        tile = TileClass(
            count=int(out[ps.COUNT]),
            busy_s=out[ps.BUSY],
            serial_s=p.first_load_s + more_s,
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
        cycles = p.cycles_per_element(step.dtype, step.kind)
        vector_s = (step.vector_ops + step.special_ops * p.special) / p.vector_ops_per_s
        if cycles is not None:
            vector_s = step.elements * cycles / p.vector_hz
        loads_s = step.total_bytes / p.l2_bytes_per_s
        own = memory / count
        far = p.beyond_l2(passing, count)
        lasting = p.beyond_l2(step.total_bytes, count) if p.weights_cached else 1.0
        l3 = max(own, (step.persistent_bytes * lasting + passing * far) / count)
        if cycles is not None and step.rows:  # the first pass over a row only waits for it
            vector_s += p.wait_s(step.read_bytes, memory, step.persistent_bytes, count) * count
        if step.gathers:  # no prefetch across scattered rows
            vector_s += step.gathers * p.first_load_s * min(1.0, l3 * count / step.total_bytes)
        tile = TileClass(
            count=count,
            busy_s=max(vector_s, loads_s) / count,
            serial_s=p.first_load_s + p.fresh_s(step.write_bytes, count),
            l2_bytes=l3,
            memory_bytes=own,
            flow_bytes_per_s=p.flow(l3, own),
        )
        counted = (step.vector_ops / 2.0 + step.special_ops * p.special) / p.vector_ops_peak
        if cycles is not None:
            counted = min(counted, step.elements * cycles / p.peak_hz)
        terms = (
            ("vector", counted / p.units),
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
        fixed = [rows for length, rows in self._attention_blocks if op.q_len >= length][:1]
        blocks = fixed or [b for b in (self._attention_rows, self._attention_rows // 2, self._attention_rows // 4) if b]
        kernels = [self._context(op, min(b, op.q_len)) for b in blocks]
        return min(kernels, key=lambda kernel: kernel_time(kernel).total_s)

    def _context(self, op: Attention, rows: int) -> Kernel:
        keys = op.pairs / op.q_len
        if op.causal:  # the block on the diagonal is computed whole
            keys = min(float(op.kv_len), keys + rows / 2.0)
            if self._key_step:  # whole steps of keys, masked afterwards
                ends = range(op.kv_len - op.q_len + rows, op.kv_len + rows, rows)
                steps = [min(op.kv_len, -(-end // self._key_step) * self._key_step) for end in ends]
                keys = max(keys, sum(steps) / len(steps))
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
        packed = self._pack.get(op.dtype, 0.0) * (stored + rows * (op.head_dim + own))
        if self._direct.get(op.dtype):  # few rows: keys and values are read as they lie
            # Every head is a call of its own that starts cold: loads do not run beside the arithmetic of another.
            direct = self._direct[op.dtype] * math.ceil(rows / self._direct_rows) * stored
            waits = (
                stored * size_of(op.stored_dtype) * p.beyond_l2(op.bytes_moved, p.units) / self._core[ps.D_DIRECT_L3]
            )
            product = min(product + packed, max(product, direct) + waits)
        else:
            product += packed
        rescale = rows * op.v_dim * max(1.0, own / KEY_BLOCK)
        softmax = (SOFTMAX_VECTOR_PER_SCORE * scores + rescale + scores * p.special) / p.vector_ops_per_s
        cycles = p.cycles_per_element(op.dtype, "softmax")
        if cycles is not None:
            softmax = scores * cycles / p.vector_hz + rescale / p.vector_ops_per_s
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
        busy, first = max(product + softmax + convert, loads), p.first_load_s + self._fresh_s(op.output_bytes, count)
        tile = TileClass(count, busy, first, l3, memory, p.flow(l3, memory))
        work = op.arithmetic()
        vector = (work.vector / 2.0 + work.special * p.special) / p.vector_ops_peak
        if cycles is not None:
            vector = min(vector, work.special * cycles / p.peak_hz)
        terms = (
            ("matrix", work.matrix / (how.peak * p.units)),
            ("vector", vector / p.units),
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
        if p.weights_cached:  # timed in a loop: the cache of keys and values is as warm as everything else
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

"""A systolic accelerator behind the device seam: folds are tiles on grids, the vector unit does the rest."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

from ...graph.dtypes import size_of
from ...graph.operator import Operator
from ...graph.operators.attention import SOFTMAX_VECTOR_PER_SCORE, Attention
from ...graph.operators.convolution import Conv2d
from ...network.collectives import CollectiveCosts
from ...network.topology import Network, NetworkLevel
from ...spec.systolic import SystolicSpec
from ..device import LaunchCosts, Lowered
from ..kernel import Kernel, TileClass
from ..stepped import SteppedDevice
from ..steps import AttentionStep, ProductStep, SweepStep, steps_of
from .folds import Cut, Mapping, Work, cuts
from .parameters import MULTIPLY_ADD, SystolicParameters
from .scalesim import Layer, Patches, sparse_depth, total_cycles

DEQUANTISE_OPS = 3.0
"""Vector operations to widen one stored weight: extract, convert, scale."""

ROUNDING = 1e-9
"""Relative difference below which two times are the same."""

CAUSES = ("ideal", "mapping", "fill", "drain", "stall")
"""What the cycles of a product are split into."""

Detail = tuple[tuple[str, float | str], ...]


class Price(NamedTuple):
    """Closed form of one cut: its time and what the kernel is built from."""

    total_s: float
    busy_s: float
    tile_bytes: float
    bytes_per_s: float
    setup_s: float
    end_cycles: float


class SystolicDevice(SteppedDevice):
    """A systolic accelerator built from its file; *network* joins it to its peers."""

    def __init__(self, spec: SystolicSpec, network: Network | None = None) -> None:
        super().__init__()
        p = SystolicParameters.from_spec(spec)
        self.name, self.spec, self.parameters = spec.name, spec, p
        self.network = network or torus(spec)
        launch = spec.launch
        self.launch = LaunchCosts(
            gap_s=float(launch.graph),
            stream_gap_s=float(launch.stream),
            dispatch_s=float(launch.dispatch),
            isolated_s=float(launch.eager),
            native_s=-1.0 if launch.eager_native is None else float(launch.eager_native),
            compiled_s=-1.0 if launch.eager_compiled is None else float(launch.eager_compiled),
        )
        self.memory_capacity_bytes = float(spec.memory.capacity)
        self.memory_reserved_bytes = float(spec.memory.reserved)
        self.memory_peak_bytes_per_s = p.memory_peak_bytes_per_s
        self._ends = float(p.grid.fill + p.grid.tail)
        self._latency_s = 0.0 if p.unlimited else p.memory_latency_s
        self.power_limit_w = None if spec.power.limit is None else float(spec.power.limit)
        self.price_usd_per_hour = None if spec.price.hourly is None else float(spec.price.hourly)
        c = spec.collective
        self.collective_costs = CollectiveCosts(
            float(c.setup), float(c.step), float(c.efficiency), float(c.one_shot_limit)
        )
        pcie = spec.links.get("pcie")
        self.host_bytes_per_s = 0.0 if pcie is None else float(pcie.bandwidth)
        self.host_latency_s = 0.0 if pcie is None else float(pcie.latency)

    def kernels_of(self, op: Operator, fused: bool) -> tuple[Kernel, ...]:
        """See :meth:`Device.kernels_of`; the other tool sees that patches of a convolution overlap."""
        p = self.parameters
        if p.ports is None or not isinstance(op, Conv2d) or op.depthwise or op.groups * op.batch * p.block > 1:
            return super().kernels_of(op, fused)
        patches = Patches(op.kernel, op.stride, op.out_height, op.out_width, op.in_channels)
        steps = steps_of(op, fused, self.name)
        return tuple(self._compatible(step, patches) for step in steps if isinstance(step, ProductStep))

    def peak_matrix_flops(self, dtype: str) -> float:
        """All cells of all grids at the highest clock."""
        p = self.parameters
        return p.cell_rate(dtype, self.name) * p.cells * p.units * p.peak_clock_hz

    @property
    def idle_power_w(self) -> float | None:
        """From the hardware file."""
        return None if self.spec.power.idle is None else float(self.spec.power.idle)

    def energy_j(self, op: Operator, lowered: Lowered) -> float | None:
        """Operations and bytes at the memory port times their energies; None where one that is needed is unknown."""
        work, e = op.arithmetic(), self.spec.energy
        dtype = str(getattr(op, "dtype", "fp32"))
        moved = sum(kernel.memory_bytes for kernel in lowered.kernels)
        terms = (
            (work.matrix, (e.matrix or {}).get(dtype)),  # type: ignore[call-overload]
            (work.vector + work.special, e.vector),
            (moved, e.memory),
        )
        if any(amount and energy is None for amount, energy in terms):
            return None
        return sum(amount * float(energy) for amount, energy in terms if energy is not None)

    def more_roofs(self) -> tuple[tuple[str, str, float], ...]:
        """The vector roof."""
        p = self.parameters
        return (("fp32 vector", "compute", p.vector_flops * p.cores * p.boost_ratio),)

    def cycles(self, lowered: Lowered) -> float:
        """Cycles of the grid's clock; with ``compat`` the other tool's count of a product, exactly."""
        counted = [dict(kernel.detail).get("total_cycles") for kernel in lowered.kernels]
        whole = [count for count in counted if isinstance(count, float)]
        if whole and len(whole) == len(counted):
            return sum(whole)
        return lowered.analytic_s * self.parameters.clock_hz

    def cycle_parts(self, op: Operator, fused: bool) -> dict[str, float]:
        """Cycles of one run by cause: ideal, mapping (idle cells), fill, drain, stall, others; and their total."""
        lowered = self.lower(op, fused)
        parts: dict[str, float] = {}
        for kernel, time in zip(lowered.kernels, lowered.times, strict=True):
            detail = dict(kernel.detail)
            if "ideal_cycles" not in detail:
                parts["other"] = parts.get("other", 0.0) + time.total_s * self.parameters.clock_hz
                continue
            for cause in CAUSES:
                parts[cause] = parts.get(cause, 0.0) + float(detail[f"{cause}_cycles"])
        return {**parts, "total": self.cycles(lowered)} if parts else {}

    # ---- products

    def product_kernel(self, step: ProductStep) -> Kernel:
        """The fastest cut of a product into folds; with ``compat``, the other tool's only one."""
        if self.spec.compat is not None:
            return self._compatible(step)
        p = self.parameters
        rate = p.cell_rate(step.dtype, self.name)
        k, share = self._depth(step)
        passing = step.a_bytes + (0.0 if step.b_persistent else step.b_bytes)
        passing += 0.0 if step.c_persistent else step.c_bytes
        cold, best = 1.0 - p.resident(step.live_bytes), 1.0 - p.resident_at_best(passing)
        work = Work(
            m=step.m,
            n=step.n,
            k=k,
            batch=step.batch,
            a_bytes=step.a_bytes,
            b_bytes=step.b_bytes * share,
            c_bytes=step.c_bytes,
            a_cold=cold,
            b_cold=1.0 if step.b_persistent else cold,
            c_cold=1.0 if step.c_persistent else cold,
        )
        least = passing * min(best, cold)
        least += work.b_bytes if step.b_persistent else 0.0
        least += step.c_bytes if step.c_persistent else 0.0
        widen = DEQUANTISE_OPS * step.n * k * step.batch / (p.vector_ops_per_s * p.cores) if step.widens else 0.0
        flops = step.bound_flops * (k / step.k)
        options = cuts(work, p.grid, p.buffers, p.units, self.spec.psum_home == "dram")
        prices = [self._price_of(cut, work, rate, widen) for cut in options]
        best_cut, price = min(zip(options, prices, strict=True), key=lambda pair: pair[1].total_s)
        kernel = self._folded(step.name, work, best_cut, rate, (flops, least), price)
        return _repeated(kernel, step.repeat)

    def _price_of(self, cut: Cut, work: Work, rate: float, widen_s: float) -> Price:
        """Closed form of a cut, as :func:`effsim.devices.kernel.kernel_time` gives it for its equal tiles.

        A round of ``a`` grids takes ``max(busy, a·bytes/BW)``; in front of the first lie the fill of the grid, the
        memory's latency and the shorter of one tile's stream and one round's operands (whichever is not overlapped).
        """
        p, units = self.parameters, self.parameters.units
        tiles, steps = cut.folds * work.batch, cut.steps * MULTIPLY_ADD / rate
        interval = p.grid.interval(steps)
        active = tiles if tiles < units else units
        busy = max(interval / p.clock_hz, widen_s * active / tiles)
        traffic = (cut.a_traffic, cut.b_traffic, cut.c_traffic)
        bandwidth = self._bandwidth(traffic)
        own_s = sum(traffic) / tiles / bandwidth
        # Folds in sequence hold their own fill; the last stream of a pipeline ends before its interval does.
        ends = max(0.0, self._ends - (interval - steps)) if p.grid.double_buffer else 0.0
        setup = ends / p.clock_hz + self._latency_s + min(busy, own_s * active)
        full, rest = divmod(tiles, units)
        total = setup + full * max(busy, own_s * units) + (max(busy, own_s * rest) if rest else 0.0)
        return Price(total, busy, sum(traffic) / tiles, bandwidth, setup, ends)

    def _depth(self, step: ProductStep) -> tuple[int, float]:
        """(k that is computed, stored share of the second operand) under structured sparsity of weights."""
        p = self.parameters
        if p.block == 1 or not step.b_persistent or step.name == "batched gemm":
            return step.k, 1.0
        k = sparse_depth(step.k, p.kept, p.block)
        indices = k * math.ceil(math.log2(p.block)) / 8.0 / size_of(step.b_dtype or step.dtype)
        return k, min(1.0, (k + indices) / step.k)

    def _folded(
        self, name: str, work: Work, cut: Cut, rate: float, bounds: tuple[float, float], price: Price
    ) -> Kernel:
        """The kernel of a cut: ``folds · batch`` equal tiles; *bounds* are FLOPs and bytes at least."""
        p, (flops, least) = self.parameters, bounds
        grid, passes = p.grid, MULTIPLY_ADD / rate
        interval = grid.interval(cut.steps * passes)
        peak = rate * p.cells * p.units * p.peak_clock_hz
        traffic = (cut.a_traffic, cut.b_traffic, cut.c_traffic)
        macs = float(work.m) * work.n * work.k * work.batch
        tiles = cut.folds * work.batch
        return Kernel(
            name=f"{name} {grid.dataflow} {cut.down}x{cut.across}x{cut.blocks} folds",
            classes=(TileClass(tiles, price.busy_s, 0.0, 0.0, price.tile_bytes),),
            units=p.units,
            slots=1,
            l2_bytes_per_s=p.memory_bytes_per_s,
            memory_bytes_per_s=price.bytes_per_s,
            terms=(("matrix", flops / peak), ("memory", self._memory_bound(least, traffic))),
            binding="matrix" if price.busy_s * p.clock_hz <= interval * (1.0 + ROUNDING) else "vector",
            setup_s=price.setup_s,
            detail=self._split(price, macs * passes, tiles, traffic),
        )

    def _bandwidth(self, traffic: tuple[float, float, float]) -> float:
        """Bytes a second at which operands of these sizes cross: the bus, or what the slowest of three ports allows."""
        p, total = self.parameters, sum(traffic)
        if p.unlimited or total == 0.0:
            return math.inf if p.unlimited else p.memory_bytes_per_s
        if p.widths is None:
            return p.memory_bytes_per_s
        return total / max(size / width for size, width in zip(traffic, p.widths, strict=True))

    def _memory_bound(self, least: float, traffic: tuple[float, float, float]) -> float:
        p = self.parameters
        if p.unlimited:
            return 0.0
        if p.widths is None:
            return min(least, sum(traffic)) / p.memory_peak_bytes_per_s
        return min(least, sum(traffic)) / (sum(p.widths) * p.boost_ratio)

    def _split(self, price: Price, ideal_macs: float, tiles: int, traffic: tuple[float, float, float]) -> Detail:
        """Cycles of a kernel by cause; they add up to its time."""
        p, grid = self.parameters, self.parameters.grid
        total = price.total_s * p.clock_hz
        ideal = ideal_macs / (p.cells * p.units)
        rounds = -(-tiles // p.units)
        streaming = rounds * price.busy_s * p.clock_hz
        drain = min(price.end_cycles, float(grid.tail))
        fill = price.end_cycles - drain
        if not grid.double_buffer:
            fill, drain = float(rounds * (grid.load + grid.skew)), float(rounds * grid.drain)
            streaming = max(ideal, streaming - fill - drain)
        stall = max(0.0, total - streaming - fill - drain)
        parts = (("ideal_cycles", ideal), ("mapping_cycles", streaming - ideal), ("fill_cycles", fill))
        rest = (("drain_cycles", drain), ("stall_cycles", stall), ("folds", float(tiles)))
        moved = (("input_bytes", traffic[0]), ("weight_bytes", traffic[1]), ("output_bytes", traffic[2]))
        return (*parts, *rest, *moved)

    def _compatible(self, step: ProductStep, patches: Patches | None = None) -> Kernel:
        """SCALE-Sim's count of one layer a batch; its last cycle counts from 0."""
        p, count = self.parameters, step.batch * step.repeat
        p.cell_rate(step.dtype, self.name)
        k = sparse_depth(step.k, p.kept, p.block) if p.block > 1 else step.k
        layer = Layer(step.m, step.n, k, p.grid.rows, p.grid.columns, p.grid.dataflow, patches)
        one, stall = total_cycles(layer, p.ports)
        down, across = layer.folds
        folds, total = down * across * count, one * count
        seconds = total / p.clock_hz
        ideal = float(step.m) * step.n * k * count / p.cells
        fill = folds * ((0 if p.grid.dataflow == "os" else p.grid.rows) + p.grid.rows + p.grid.columns - 2)
        bound = min(ideal * min(1.0, step.bound_flops / step.flops) / p.peak_clock_hz, seconds)
        words = layer.memory_words
        moved = float(sum(words) * count)
        return Kernel(
            name=f"{step.name} {p.grid.dataflow} {down}x{across} folds",
            classes=(TileClass(folds, seconds / folds, 0.0, 0.0, moved / folds),),
            units=1,
            slots=1,
            l2_bytes_per_s=p.memory_bytes_per_s,
            memory_bytes_per_s=math.inf,  # the ports' stalls are in the count already
            terms=(("matrix", bound),),
            binding="memory" if stall * 2 > one else "matrix",
            detail=(
                ("total_cycles", float(total)),
                ("ideal_cycles", ideal),
                ("mapping_cycles", total - stall * count - fill - ideal),
                ("fill_cycles", float(fill)),
                ("drain_cycles", 0.0),
                ("stall_cycles", float(stall * count)),
                ("folds", float(folds)),
                ("input_words", float(words[0] * count)),
                ("weight_words", float(words[1] * count)),
                ("output_words", float(words[2] * count)),
            ),
        )

    # ---- everything else

    def sweep_kernel(self, step: SweepStep) -> Kernel:
        """One pass of the vector units: data in, arithmetic, data out, overlapped."""
        p = self.parameters
        pieces = p.cores
        for limit in (step.rows, step.parallel):
            pieces = min(pieces, limit) if limit else pieces
        passing = max(0.0, step.total_bytes - step.persistent_bytes)
        moved = step.persistent_bytes + passing * (1.0 - p.resident(passing))
        least = step.persistent_bytes + passing * (1.0 - p.resident_at_best(passing))
        busy = step.vector_ops / p.vector_ops_per_s + step.special_ops / p.special_ops
        at_best = max(step.vector_ops / p.vector_flops, step.special_ops / p.special_ops)
        terms = (
            ("vector", at_best / (p.cores * p.boost_ratio)),
            ("memory", min(least, moved) / p.memory_peak_bytes_per_s),
        )
        latency = p.memory_latency_s if moved > 0.0 else 0.0
        tile = TileClass(pieces, busy / pieces, 0.0, 0.0, moved / pieces)
        setup = latency + max(1, step.chain) * p.vector_step_s
        return self._kernel(step.name, tile, terms, "vector", setup, p.cores, p.sweep_bytes_per_s(step))

    def _kernel(
        self,
        name: str,
        tile: TileClass,
        terms: tuple[tuple[str, float], ...],
        binding: str,
        setup_s: float,
        units: int,
        memory_bytes_per_s: float | None = None,
    ) -> Kernel:
        p = self.parameters
        return Kernel(
            name=name,
            classes=(tile,),
            units=units,
            slots=1,
            l2_bytes_per_s=p.memory_bytes_per_s,
            memory_bytes_per_s=memory_bytes_per_s or p.memory_bytes_per_s,
            terms=terms,
            binding=binding,
            setup_s=setup_s,
            detail=(("bytes", tile.count * tile.memory_bytes), ("vector_s", tile.busy_s)),
        )

    def attention_kernel(self, step: AttentionStep) -> Kernel:
        """Scores and weighted values on the grids, softmax on the vector units, keys and values past them once.

        A head group's query rows meet their keys as ``[rows, d] · [d, keys]`` and ``[rows, keys] · [keys, d_v]``.
        Under a causal mask only the blocks of keys up to the diagonal are visited: on average the share of pairs that
        the mask lets through, plus half a block of columns.
        """
        op, p = step.op, self.parameters
        heads, rows = op.batch * op.kv_heads, op.q_len * (op.heads // op.kv_heads)
        keys = op.pairs / op.q_len
        if op.causal and op.q_len > 1:
            keys = min(float(op.keys_read), keys + p.grid.columns / 2.0)
        seen = max(1, math.ceil(keys))
        grid_s, folds, fill = self._attention_grid(op, rows, seen, heads)
        scores = float(rows) * seen * heads
        soft = SOFTMAX_VECTOR_PER_SCORE * scores / p.vector_ops_per_s + scores / p.special_ops
        soft += DEQUANTISE_OPS * self._widened(op) / p.vector_ops_per_s
        soft /= min(p.cores, heads)
        moved, least = self._attention_bytes(op)
        units = min(p.units, folds)
        work_s = max(grid_s, soft) if self.spec.overlap_softmax else grid_s + soft
        label = "matrix" if grid_s >= soft else "vector"
        tile = TileClass(units, work_s, 0.0, 0.0, moved / units)
        work = op.arithmetic()
        at_best = max(work.vector / p.vector_flops, work.special / p.special_ops)
        terms = (
            ("matrix", work.matrix / self.peak_matrix_flops(op.dtype)),
            ("vector", at_best / (p.cores * p.boost_ratio)),
            ("memory", least / p.memory_peak_bytes_per_s),
        )
        setup = fill / p.clock_hz + p.memory_latency_s + p.vector_step_s
        kernel = self._kernel(f"attention {op.phase}", tile, terms, label, setup, p.units)
        seconds = (("grid_s", grid_s), ("softmax_s", soft))
        return replace(kernel, detail=(*seconds, ("fill_cycles", fill), ("folds", float(folds)), ("bytes", moved)))

    def _attention_grid(self, op: Attention, rows: int, keys: int, heads: int) -> tuple[float, int, float]:
        """(seconds of the busiest grid, folds in all, cycles of filling) of the two products."""
        p = self.parameters
        passes = MULTIPLY_ADD / p.cell_rate(op.dtype, self.name)
        folds, cycles = 0, 0.0
        for n, k in ((keys, op.head_dim), (op.v_dim, keys)):
            mapping = Mapping.of(p.grid.dataflow, rows, n, k)
            down, across = mapping.folds(p.grid.rows, p.grid.columns)
            count = down * across * heads
            folds += count
            cycles += math.ceil(count / p.units) * p.grid.interval(mapping.steps * passes)
        return cycles / p.clock_hz, folds, float(2 * (p.grid.fill + p.grid.tail))

    def _widened(self, op: Attention) -> float:
        """Stored cache elements that must be widened."""
        narrow = size_of(op.stored_dtype) < size_of(op.dtype)
        return op.kv_bytes / size_of(op.stored_dtype) if narrow else 0.0

    def _attention_bytes(self, op: Attention) -> tuple[float, float]:
        """(expected, least) bytes: a cache from earlier steps always, this step's tensors as far as they do not fit."""
        p = self.parameters
        lasting = op.kv_bytes if op.phase == "generation" else 0.0
        passing = op.bytes_moved - lasting
        best = lasting + passing * (1.0 - p.resident_at_best(passing))
        moved = lasting + passing * (1.0 - p.resident(passing))
        return moved, min(moved, best)


def torus(spec: SystolicSpec) -> Network:
    """Devices on the fastest link of a bare file; inter-chip links form rings (a torus), others a switch."""
    if not spec.links:
        return Network(())
    name, link = max(spec.links.items(), key=lambda item: float(item[1].bandwidth))
    kind = "ring" if link.kind == "ici" else "switch"
    rate, hop = float(link.bandwidth), float(link.latency)
    return Network((NetworkLevel(str(name), kind, int(link.max_devices), rate, hop, link.in_network_reduction),))


def _repeated(kernel: Kernel, times: int) -> Kernel:
    """The same folds *times* over, each waiting for the time before."""
    if times == 1:
        return kernel
    tile = kernel.classes[0]
    longer = replace(tile, busy_s=tile.busy_s * times, memory_bytes=tile.memory_bytes * times)
    terms = tuple((label, value * times) for label, value in kernel.terms)
    detail = tuple((name, value * times if isinstance(value, float) else value) for name, value in kernel.detail)
    return replace(kernel, classes=(longer,), terms=terms, setup_s=kernel.setup_s * times, detail=detail)

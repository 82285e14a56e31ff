"""A memory that computes, behind the device seam: what its units multiply, what the host does, which is sooner done."""

from __future__ import annotations

from dataclasses import replace

from ...graph.dtypes import size_of
from ...graph.operator import Operator
from ...graph.operators.attention import Attention, KVAppend, LatentAttention
from ...graph.operators.linear import BatchedMatmul
from ...network.collectives import CollectiveCosts
from ...network.topology import Network
from ...spec.pim import MacUnit, PimSpec
from ..device import LaunchCosts, Lowered
from ..kernel import Kernel, TileClass, kernel_time
from ..stepped import SteppedDevice, bare_network
from ..steps import AttentionStep, ProductStep, SweepStep, steps_of
from .host import HostModel, HostParameters, softmax_seconds
from .mapping import Engine, MacEngine, Placed
from .pipeline import PipelineEngine

CLOCKS = "program_clocks"
"""Name of the detail that holds a program's clocks."""


class PimDevice(SteppedDevice):
    """A device file's memory with its host; *network* joins it to its peers.

    A product runs where it is sooner done: in the memory, vector by vector without reuse of the weights, or on the
    host, which reads the weights once through the interface.
    """

    def __init__(self, spec: PimSpec, network: Network | None = None) -> None:
        super().__init__()
        self.name, self.spec = spec.name, spec
        self.network = network or bare_network({str(k): v for k, v in spec.links.items()})
        launch, own = spec.launch, spec.host.memory
        self.launch = LaunchCosts(
            gap_s=float(launch.graph),
            stream_gap_s=float(launch.stream),
            dispatch_s=float(launch.dispatch),
            isolated_s=float(launch.eager),
            native_s=-1.0 if launch.eager_native is None else float(launch.eager_native),
            compiled_s=-1.0 if launch.eager_compiled is None else float(launch.eager_compiled),
        )
        # One number has to do for two memories: that of the weights, so that nothing is said to fit that does not.
        pool = spec.memory if own is None or "weight" in spec.computes else own
        self.memory_capacity_bytes, self.memory_reserved_bytes = float(pool.capacity), float(pool.reserved)
        self.power_limit_w = float(spec.power.limit)
        self.price_usd_per_hour = None if spec.price.hourly is None else float(spec.price.hourly)
        c = spec.kernels.collective
        self.collective_costs = CollectiveCosts(
            float(c.setup), float(c.step), float(c.efficiency), float(c.one_shot_limit)
        )
        # Without a link to another host, the host of this device is the one that tensors are kept at.
        link = spec.links.get("pcie") or spec.links.get("cxl")
        self.host_bytes_per_s = float(link.bandwidth if link else spec.memory.bandwidth)
        self.host_latency_s = float(link.latency if link else spec.host.latency)
        self.engine: Engine = MacEngine(spec) if isinstance(spec.unit, MacUnit) else PipelineEngine(spec)
        self.clock_s = self.engine.clock_s
        self._host = HostModel(HostParameters.from_spec(spec))
        self._computes = {str(role) for role in spec.computes}
        self.memory_peak_bytes_per_s = max(self.engine.peak_bytes_per_s, self._host.p.own_peak)

    def kernels_of(self, op: Operator, fused: bool) -> tuple[Kernel, ...]:
        """See :meth:`Device.kernels_of`."""
        if isinstance(op, KVAppend):
            return tuple(self._append(op, step) for step in steps_of(op, fused, self.name))
        if isinstance(op, Attention | LatentAttention) or getattr(op, "second_role", "") == "kv_cache":
            dense = op.equivalent if isinstance(op, LatentAttention) else op
            return tuple(k for step in steps_of(dense, fused, self.name) for k in self._cached(dense, step))
        return super().kernels_of(op, fused)

    def peak_matrix_flops(self, dtype: str) -> float:
        """Units in the memory and matrix unit of the host together."""
        rate = self.engine.peak_flops(dtype) + self._host.p.matrix_flops(dtype)
        if not rate:
            self._host.require(dtype, self._types())
        return rate

    def more_roofs(self) -> tuple[tuple[str, str, float], ...]:
        """The interface that the host sees, and its vector unit."""
        p = self._host.p
        return (("fp32 vector (host)", "compute", p.vector_flops), ("host memory", "bandwidth", p.own_peak))

    def cycles(self, lowered: Lowered) -> float:
        """Clocks of the memory for an operator.

        A product of the memory counts its program alone (refresh timer half way at its start), also where the host is
        sooner done with it; other kernels count their time.
        """
        total = 0.0
        for kernel, time in zip(lowered.kernels, lowered.times, strict=True):
            found = dict(kernel.detail).get(CLOCKS)
            total += time.total_s / self.clock_s if found is None else float(found)
        return total

    def _types(self) -> list[str]:
        unit = self.spec.unit
        return [*unit.lanes, *unit.substitutes] if isinstance(unit, MacUnit) else list(unit.instructions)

    def product_kernel(self, step: ProductStep) -> Kernel:
        """A product whose second operand, if it lasts, is a weight."""
        return self._product(step, "weight")

    def _cached(self, op: Operator, step: object) -> tuple[Kernel, ...]:
        if isinstance(step, ProductStep):
            role = "kv_cache" if isinstance(op, Attention | BatchedMatmul) and step.b_persistent else "weight"
            return (self._product(step, role),)
        if isinstance(step, AttentionStep):
            return (self.attention_kernel(step),)
        assert isinstance(step, SweepStep)
        return (self.sweep_kernel(step),)

    def _product(self, step: ProductStep, role: str) -> Kernel:
        shared = step.b_persistent and role in self._computes
        inside = shared and not step.c_persistent and self.engine.takes(step.dtype, step.b_dtype)
        terms = self._product_terms(step, shared, inside)
        through = shared or self.spec.host.memory is None
        if not inside:
            return self._sooner([self._host.product(step, through, terms)], step.dtype)
        placed = self.engine.place(step.m, step.n, step.k, step.batch, step.dtype)
        within = self._in_memory(f"{step.name} in memory {placed.name}", (placed,), terms, step.repeat)
        on_host = self._host.product(step, through, terms, ((CLOCKS, step.repeat * placed.alone_clocks),))
        return self._sooner([on_host, within], step.dtype)

    def _sooner(self, candidates: list[Kernel | None], dtype: str) -> Kernel:
        """The candidate that is sooner done."""
        able = [kernel for kernel in candidates if kernel is not None]
        if not able:
            self._host.require(dtype, self._types())
        return able[0] if len(able) == 1 else min(able, key=lambda kernel: kernel_time(kernel).total_s)

    def _product_terms(self, step: ProductStep, shared: bool, inside: bool) -> tuple[tuple[str, float], ...]:
        p = self._host.p
        rate = p.matrix_flops(step.dtype) + (self.engine.peak_flops(step.dtype) if inside else 0.0)
        if not rate:
            self._host.require(step.dtype, self._types())
        passing = step.a_bytes + (0.0 if step.b_persistent else step.b_bytes)
        passing += 0.0 if step.c_persistent else step.c_bytes
        moved = 0.0 if inside else passing * (1.0 - p.kept_at_best(passing)) / p.own_peak
        lasting = (step.b_bytes if step.b_persistent else 0.0) + (step.c_bytes if step.c_persistent else 0.0)
        read = p.shared_peak if shared else p.own_peak
        if inside:
            read = max(read, self.engine.peak_bytes_per_s)
        times = step.repeat
        return (("matrix", times * step.bound_flops / rate), ("memory", times * (moved + lasting / read)))

    def _readout_s(self, placed: Placed) -> float:
        """Sums that the host still reads through the interface and adds up."""
        p = self._host.p
        return placed.readout_bytes / p.shared_bytes_per_s + 2.0 * placed.readout_adds / p.vector_flops

    def _in_memory(
        self,
        name: str,
        placed: tuple[Placed, ...],
        terms: tuple[tuple[str, float], ...],
        repeat: int = 1,
        host_s: float = 0.0,
        pieces: int = 1,
    ) -> Kernel:
        """Programs one after another, with what the host does between or under them.

        Overlapped, the longer of both shows and of the shorter a piece (a head) at the start; exclusive, their sum.
        """
        program = sum(p.seconds for p in placed)
        host_s += sum(self._readout_s(p) for p in placed)
        shown = program + host_s
        if self.spec.overlap:
            shown = max(program, host_s) + min(program, host_s) / pieces
        several = len(placed) > 1
        detail = tuple(
            (f"{('scores', 'values')[i]}_{key}" if several else key, value)
            for i, p in enumerate(placed)
            for key, value in p.detail
        )
        clocks: tuple[tuple[str, float | str], ...] = (
            ("where", "memory"),
            ("program_s", program),
            ("host_s", host_s),
            (CLOCKS, repeat * sum(p.alone_clocks for p in placed)),
        )
        units = max(p.units for p in placed)
        return Kernel(
            name=name,
            classes=(TileClass(count=units, busy_s=shown * repeat, serial_s=0.0, l2_bytes=0.0, memory_bytes=0.0),),
            units=units,
            slots=1,
            l2_bytes_per_s=self.memory_peak_bytes_per_s,
            memory_bytes_per_s=self.memory_peak_bytes_per_s,
            terms=terms,
            binding="memory" if program >= host_s else "vector",
            detail=clocks + detail,
        )

    def sweep_kernel(self, step: SweepStep) -> Kernel:
        """A pass on the host; lasting data lie in the memory where the host has none of its own."""
        return self._swept(step, step.persistent_bytes if self.spec.host.memory is None else 0.0)

    def _swept(self, step: SweepStep, shared: float) -> Kernel:
        p = self._host.p
        passing = max(0.0, step.total_bytes - step.persistent_bytes)
        memory = passing * (1.0 - p.kept_at_best(passing)) / p.own_peak
        memory += step.persistent_bytes / max(p.own_peak, p.shared_peak if shared else 0.0)
        vector = step.vector_ops / p.vector_flops
        terms = (("vector", max(vector, step.special_ops / p.special_ops)), ("memory", memory))
        return self._host.sweep(step, shared, terms)

    def _append(self, op: KVAppend, step: object) -> Kernel:
        """New keys lie along a row; transposed values touch one access of a row each, element by element."""
        assert isinstance(step, SweepStep)
        unit, dram = self.spec.unit, self.spec.dram
        if "kv_cache" not in self._computes:
            return self.sweep_kernel(step)
        written = step.write_bytes
        if isinstance(unit, MacUnit) and unit.value_layout == "transposed" and dram is not None:
            word = size_of(op.kv_dtype or op.dtype)
            written *= 0.5 * (1.0 + float(dram.organization.access) / word)
        return self._swept(replace(step, persistent_bytes=step.write_bytes), written)

    def attention_kernel(self, step: AttentionStep) -> Kernel:
        """Keys and values where they lie: query by query in the memory, softmax on the host or near it; or all on the
        host."""
        op = step.op
        # A context's keys and values were just written to the cache, so that they lie in the memory as well.
        shared = "kv_cache" in self._computes and op.cached
        inside = shared and self.engine.takes(op.dtype, op.kv_dtype)
        terms = self._attention_terms(op, shared, inside)
        through = shared or self.spec.host.memory is None
        if not inside:
            return self._sooner([self._host.attention(op, through, terms)], op.dtype)
        within = self._attend_inside(op, terms)
        clocks = tuple(pair for pair in within.detail if pair[0] == CLOCKS)
        return self._sooner([self._host.attention(op, through, terms, clocks), within], op.dtype)

    def _attend_inside(self, op: Attention, terms: tuple[tuple[str, float], ...]) -> Kernel:
        group, p = op.heads // op.kv_heads, self._host.p
        heads, rows = op.batch * op.kv_heads, op.q_len * group
        keys = max(1, -(-op.pairs // op.q_len))
        products = (
            self.engine.place(rows, keys, op.head_dim, heads, op.dtype),
            self.engine.place(rows, op.v_dim, keys, heads, op.dtype),
        )
        scores = op.arithmetic().special
        near = self.spec.near
        host_s = softmax_seconds(scores, p.vector_flops, p.special_ops) + 2.0 * p.latency_s
        if near is not None:
            host_s = softmax_seconds(scores, float(near.vector), float(near.special))
        return self._in_memory(f"attention {op.phase} in memory", products, terms, 1, host_s, heads)

    def _attention_terms(self, op: Attention, shared: bool, inside: bool) -> tuple[tuple[str, float], ...]:
        p, near = self._host.p, self.spec.near
        work = op.arithmetic()
        rate = p.matrix_flops(op.dtype) + (self.engine.peak_flops(op.dtype) if inside else 0.0)
        if not rate:
            self._host.require(op.dtype, self._types())
        vector = p.vector_flops + (float(near.vector) if near else 0.0)
        special = p.special_ops + (float(near.special) if near else 0.0)
        read = p.shared_peak if shared else p.own_peak
        if inside:
            read = max(read, self.engine.peak_bytes_per_s)
        kept = 0.0 if op.phase == "generation" else p.kept_at_best(op.bytes_moved)
        return (
            ("matrix", work.matrix / rate),
            ("vector", max(work.vector / vector, work.special / special)),
            ("memory", op.kv_bytes * (1.0 - kept) / read),
        )

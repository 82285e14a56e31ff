"""The GPU behind the device seam: which model lowers which operator."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ...errors import UnsupportedError
from ...graph.dtypes import size_of
from ...graph.operator import Operator, Role
from ...graph.operators.attention import Attention, AttentionBackward, KVAppend, LatentAttention
from ...graph.operators.communication import Collective, HostTransfer, OptimizerStep
from ...graph.operators.convolution import CausalConv1d, Conv2d, Convolution2dBackward, FFTConv
from ...graph.operators.embedding import CrossEntropy, Embedding, EmbeddingBackward, Sampling
from ...graph.operators.linear import BatchedMatmul, Linear, MatmulGradient
from ...graph.operators.moe import Experts, ExpertsBackward, TopK
from ...graph.operators.pointwise import Pointwise, PointwiseBackward, Recipe, recipe
from ...graph.operators.scan import GatedDelta, ScanBackward, SelectiveScan, SSDScan
from ...network.collectives import ENGINE, CollectiveCosts, bound_s, plan
from ...network.protocols import ProtocolCosts
from ...network.topology import Network
from ...spec.hardware import CollectiveProtocols, GpuSpec
from ..device import Device, LaunchCosts, Lowered
from ..kernel import Kernel
from .attention import AttentionModel
from .attention_call import AttentionCallModel
from .experts import ExpertsModel
from .gemm import GemmModel, Product
from .parameters import GpuParameters
from .pointwise import ROW_THREADS, PointwiseModel, Sweep
from .power import PowerBudget
from .quantise import quantise_kernels
from .sequence import SequenceModel

SAMPLING_PASSES = 3
"""Passes over the logits when sampling: softmax, selection (sort or threshold), draw."""


class GpuDevice(Device):
    """A GPU built from its file; *network* joins it to its peers, *parameters* replace those of the file."""

    def __init__(self, spec: GpuSpec, network: Network | None = None, parameters: GpuParameters | None = None) -> None:
        super().__init__()
        p = parameters or GpuParameters.from_spec(spec)
        self.name = spec.name
        self.spec, self.parameters = spec, p
        self.network = network or Network.from_links({str(k): v for k, v in spec.links.items()})
        launch = spec.launch
        # The cadence of an empty kernel contains one trip to memory, which every kernel's own time contains too.
        self.launch = LaunchCosts(
            gap_s=max(0.0, float(launch.graph) - p.memory_latency_s),
            stream_gap_s=max(0.0, float(launch.stream) - p.memory_latency_s),
            dispatch_s=float(launch.dispatch),
            isolated_s=float(launch.eager),
        )
        self.memory_capacity_bytes = float(spec.memory.capacity)
        self.memory_reserved_bytes = float(spec.memory.reserved)
        self.memory_peak_bytes_per_s = p.memory_peak_bytes_per_s
        self.power_limit_w = float(spec.power.limit)
        self.price_usd_per_hour = None if spec.price.hourly is None else float(spec.price.hourly)
        habits = spec.kernels
        self._gemm = GemmModel(
            p,
            habits.gemm,
            float(habits.setup),
            self.launch.gap_s,
            spec.name,
            PowerBudget.of(spec),
        )
        self._pointwise = PointwiseModel(p, habits.pointwise)
        from_shared = habits.gemm.operands_from_shared_memory
        self._attention = AttentionModel(
            p, habits.attention, self._pointwise, float(habits.setup), from_shared, spec.name
        )
        self._attention_call = AttentionCallModel(
            p, habits.attention.call, self._attention, self._gemm, self._pointwise, self.launch.gap_s
        )
        self._experts = ExpertsModel(
            p, self._pointwise, habits.experts, habits.gemm.operands_from_shared_memory, float(habits.setup)
        )
        self._sequence = SequenceModel(p, self._gemm, self._pointwise, habits.sequence, float(habits.setup))
        c = habits.collective
        self._collective = CollectiveCosts(
            float(c.setup), float(c.step), float(c.efficiency), float(c.one_shot_limit), _protocol_costs(c.protocols)
        )
        self._rules: dict[type, Callable[[Any, bool], tuple[Kernel, ...]]] = {
            Linear: self._linear,
            MatmulGradient: self._gradient,
            BatchedMatmul: self._batched,
            Attention: self._attend,
            LatentAttention: lambda op, fused: self._attend_latent(op),
            AttentionBackward: self._attend_backward,
            KVAppend: lambda op, fused: self._sweep(op, "kv append", persistent=True),
            Pointwise: self._pointwise_op,
            PointwiseBackward: lambda op, fused: self._sweep(op, f"{op.forward.kind} backward"),
            Embedding: lambda op, fused: self._sweep(op, "embedding gather", persistent=True, run_bytes=op.row_bytes),
            EmbeddingBackward: lambda op, fused: self._sweep(op, "embedding scatter", persistent=True),
            Sampling: lambda op, fused: self._sweep(op, "sampling", rows=op.rows, passes=SAMPLING_PASSES),
            CrossEntropy: lambda op, fused: self._sweep(op, "cross entropy", rows=op.rows),
            TopK: lambda op, fused: self._sweep(op, "router top-k", rows=op.tokens),
            Experts: lambda op, fused: self._experts.kernels(op),
            ExpertsBackward: self._experts_backward,
            SelectiveScan: lambda op, fused: self._sequence.selective_scan(op),
            SSDScan: lambda op, fused: self._sequence.ssd_scan(op),
            GatedDelta: lambda op, fused: self._sequence.gated_delta(op),
            CausalConv1d: lambda op, fused: self._sequence.conv1d(op),
            Conv2d: lambda op, fused: self._sequence.conv2d(op),
            Convolution2dBackward: lambda op, fused: self._sequence.conv2d(op.forward) * 2,
            FFTConv: lambda op, fused: self._sequence.fft_conv(op),
            ScanBackward: self._scan_backward,
            Collective: self._communicate,
            HostTransfer: self._host,
            OptimizerStep: lambda op, fused: self._sweep(op, "optimizer step", persistent=True),
        }

    def kernels_of(self, op: Operator, fused: bool) -> tuple[Kernel, ...]:
        """See :meth:`Device.kernels_of`."""
        rule = self._rules.get(type(op))
        if rule is None:  # a subclass lowers like the operator it specialises
            rule = next((self._rules[cls] for cls in type(op).__mro__ if cls in self._rules), None)
        if rule is None:
            raise UnsupportedError(f"{self.name}: no kernels for operator {op.kind!r}")
        return rule(op, fused)

    def peak_matrix_flops(self, dtype: str) -> float:
        """Dense peak of all SMs at the highest clock."""
        p = self.parameters
        return p.matrix_rate(dtype, self.name) * p.units * p.boost_ratio

    @property
    def idle_power_w(self) -> float | None:
        """From the hardware file."""
        return None if self.spec.power.idle is None else float(self.spec.power.idle)

    def energy_j(self, op: Operator, lowered: Lowered) -> float | None:
        """Operations and moved bytes times their energies; None where an energy that is needed is unknown."""
        work, e = op.arithmetic(), self.spec.energy
        dtype = str(getattr(op, "dtype", "fp32"))
        matrix = (e.matrix or {}).get(dtype)  # type: ignore[call-overload]
        terms = (
            (work.matrix, matrix),
            (work.vector + work.special, e.vector),
            (sum(k.memory_bytes for k in lowered.kernels), e.memory),
            (sum(k.l2_bytes for k in lowered.kernels), e.l2),
        )
        if any(amount and energy is None for amount, energy in terms):
            return None
        return sum(amount * float(energy) for amount, energy in terms if energy is not None)

    def more_roofs(self) -> tuple[tuple[str, str, float], ...]:
        """Vector and L2 roofs."""
        p = self.parameters
        vector = p.vector_flops["fp32"] * p.units * p.boost_ratio
        return (("fp32 vector", "compute", vector), ("L2", "bandwidth", p.l2_bytes_per_s))

    def _linear(self, op: Linear, fused: bool) -> tuple[Kernel, ...]:
        word = size_of(op.dtype)
        a = float(op.m) * op.k * word
        c = float(op.m) * op.n * size_of(op.output_dtype or op.dtype)
        kept = self.parameters.kept(a + c)
        # Called over and over, a product finds its operands where it left them; two partitions each lose the other's.
        replayed = self.parameters.kept(op.bytes_moved) if op.alone and self.spec.l2.unified else 0.0
        extra = op.weight_storage_bytes - float(op.n) * op.k * size_of(op.stored_dtype)
        product = Product(
            m=op.m,
            n=op.n,
            k=op.k,
            dtype=op.dtype,
            b_dtype=op.weight_dtype,
            output_dtype=op.output_dtype,
            a_resident=kept,
            b_resident=replayed,
            c_resident=replayed,
            best_resident=self.parameters.kept_at_best(a + c),
            b_extra_bytes=extra,
            module=op.alone and (op.weight_only or op.dtype == "int8"),
        )
        kernel = self._gemm.kernel(product)
        if not op.quantises:
            return (kernel,)
        before = quantise_kernels(self.parameters, self._pointwise, op.m, op.k, op.activation_dtype, op.dtype)
        return (*before, kernel)

    def _gradient(self, op: MatmulGradient, fused: bool) -> tuple[Kernel, ...]:
        return (self._gemm.kernel(Product(m=op.m, n=op.n, k=op.k, dtype=op.dtype), "gradient gemm"),)

    def _batched(self, op: BatchedMatmul, fused: bool) -> tuple[Kernel, ...]:
        kept = self.parameters.kept(op.bytes_moved)
        from_memory = op.second_role in ("weight", "kv_cache") or op.weight_bytes > 0.0
        b_dtype = str(getattr(op, "weight_dtype", ""))
        plain = float(op.batch) * op.n * op.k * size_of(b_dtype or op.dtype)
        product = Product(
            m=op.m,
            n=op.n,
            k=op.k,
            batch=op.batch,
            dtype=op.dtype,
            b_dtype=b_dtype,
            b_extra_bytes=max(0.0, op.weight_bytes - plain),
            a_resident=kept,
            b_resident=0.0 if from_memory else kept,
            best_resident=self.parameters.kept_at_best(op.bytes_moved),
        )
        return (self._gemm.kernel(product, "batched gemm"),)

    def _attend(self, op: Attention, fused: bool) -> tuple[Kernel, ...]:
        if op.fused:
            return self._attention_call.dense(op) if op.call else self._attention.kernels(op)
        group = op.heads // op.kv_heads
        heads, rows = op.batch * op.kv_heads, op.q_len * group
        role = "kv_cache" if op.phase == "generation" else "activation"
        scores = Pointwise("softmax", op.batch * op.heads * op.q_len, op.kv_len, op.dtype)
        return (
            *self._batched(BatchedMatmul(heads, rows, op.kv_len, op.head_dim, op.dtype, role), fused),
            *self._pointwise_op(scores, fused),
            *self._batched(BatchedMatmul(heads, rows, op.v_dim, op.kv_len, op.dtype, role), fused),
        )

    def _attend_latent(self, op: LatentAttention) -> tuple[Kernel, ...]:
        return self._attention_call.latent(op) if op.call else self._attention.kernels(op.equivalent)

    def _attend_backward(self, op: AttentionBackward, fused: bool) -> tuple[Kernel, ...]:
        """The forward's tiles with 2.5 × its products, in both tile orders at once."""
        forward = self._attend(op.forward, fused)
        return tuple(_scaled(kernel, 2.5, f"{kernel.name} backward", op, op.forward) for kernel in forward)

    def _experts_backward(self, op: ExpertsBackward, fused: bool) -> tuple[Kernel, ...]:
        forward = self._experts.kernels(op.forward)
        return tuple(_scaled(k, 2.0, f"{k.name} backward", op, op.forward) for k in forward)

    def _scan_backward(self, op: ScanBackward, fused: bool) -> tuple[Kernel, ...]:
        forward = self.lower(op.forward, fused).kernels
        return tuple(_scaled(k, 3.0, f"{k.name} backward", op, op.forward) for k in forward)

    def _pointwise_op(self, op: Pointwise, fused: bool) -> tuple[Kernel, ...]:
        r = recipe(op.op)
        if fused and r.passes_eager > 1:  # no framework kernel does it at once: an engine's own
            return self._row_kernel(op, r)
        passes = 1 if fused else r.passes_eager
        return self._sweep(op, op.kind, rows=op.rows if r.reduces else 0, passes=passes)

    def _row_kernel(self, op: Pointwise, r: Recipe) -> tuple[Kernel, ...]:
        """An engine's row kernel. One that reduces reads its row again, but from L1: little beside the first time."""
        p, work = self.parameters, op.arithmetic()
        read = sum(a.bytes_moved for a in op.accesses() if not a.write)
        moved = op.bytes_moved
        sweep = Sweep(
            read_bytes=read,
            write_bytes=moved - read,
            memory_bytes=moved * (1.0 - p.kept(moved)),
            vector_ops=work.vector,
            special_ops=work.special,
            rows=op.rows,
            cols=op.cols,
            accesses=float(op.rows) * op.cols * (r.reads + r.writes),
            chain_s=2.0 * math.log2(ROW_THREADS) * p.l1_latency_s if r.reduces else 0.0,
        )
        bound = ("memory", moved * (1.0 - p.kept_at_best(moved)) / p.memory_peak_bytes_per_s)
        return (_with_term(self._pointwise.kernel(sweep, op.kind), bound),)

    def _sweep(
        self,
        op: Operator,
        name: str,
        *,
        rows: int = 0,
        passes: int = 1,
        persistent: bool = False,
        run_bytes: float = math.inf,
    ) -> tuple[Kernel, ...]:
        """One pass over the operator's tensors, or *passes* of them that each read and write the rows again.

        ``persistent``: its tensors live in memory between steps (weights, caches), so L2 does not help.
        ``run_bytes``: they are read in pieces of that size.
        """
        p, work = self.parameters, op.arithmetic()
        read = sum(a.bytes_moved for a in op.accesses() if not a.write)
        write = op.bytes_moved - read
        share = 1.0 if persistent else 1.0 - p.kept(op.bytes_moved)
        learned = sum(a.bytes_moved for a in op.accesses() if a.role is Role.WEIGHT and not a.write)
        sweep = Sweep(
            read_bytes=read,
            write_bytes=write,
            memory_bytes=(read + write) * share,
            vector_ops=work.vector / passes,
            special_ops=work.special / passes,
            rows=rows,
            run_bytes=run_bytes,
            shared_bytes=learned if rows else 0.0,
        )
        kernel = self._pointwise.kernel(sweep, name)
        best = 0.0 if persistent else p.kept_at_best(op.bytes_moved)
        bound = ("memory", (read + write) * (1.0 - best) / p.memory_peak_bytes_per_s)
        kernel = _with_term(kernel, bound)
        return (kernel,) * passes

    def _communicate(self, op: Collective, fused: bool) -> tuple[Kernel, ...]:
        if op.devices == 1:
            return ()
        by = op.runtime or ENGINE
        adds = not op.dtype.startswith("int")  # adding switches know floating point only
        priced = plan(self.network, self._collective, op.op, op.payload_bytes, op.devices, op.stride, by, adds)
        bound = bound_s(self.network, op.op, op.payload_bytes, op.devices, op.stride)
        return (
            Kernel(
                name=f"{op.op} {priced.algorithm}",
                classes=(),
                units=1,
                slots=1,
                l2_bytes_per_s=self.parameters.l2_bytes_per_s,
                memory_bytes_per_s=self.parameters.memory_bytes_per_s,
                terms=(("network", bound),),
                fixed_s=priced.total_s,
                detail=(
                    ("algorithm", priced.algorithm),
                    ("steps", priced.steps),
                    ("latency_s", priced.latency_s),
                    ("transfer_s", priced.transfer_s),
                ),
            ),
        )

    def _host(self, op: HostTransfer, fused: bool) -> tuple[Kernel, ...]:
        link = self.spec.links.get("pcie") or self.spec.links.get("c2c")
        if link is None:
            raise UnsupportedError(f"{self.name}: a host transfer needs a pcie or c2c link in its file")
        seconds = op.payload_bytes / float(link.bandwidth)
        return (
            Kernel(
                name="host copy",
                classes=(),
                units=1,
                slots=1,
                l2_bytes_per_s=self.parameters.l2_bytes_per_s,
                memory_bytes_per_s=self.parameters.memory_bytes_per_s,
                terms=(("host", seconds),),
                fixed_s=seconds + float(link.latency),
                fixed_label="host",
                detail=(("transfer_s", seconds), ("latency_s", float(link.latency))),
            ),
        )


def _protocol_costs(protocols: CollectiveProtocols | None) -> ProtocolCosts | None:
    """Plain floats of the communication library's section."""
    if protocols is None:
        return None
    return ProtocolCosts(
        channels=int(protocols.channels),
        simple_setup_s=float(protocols.simple_setup),
        simple_step_s=float(protocols.simple_step),
        drain_bytes_per_s=float(protocols.drain),
        ll_assumed_bytes_per_s=float(protocols.ll_assumed),
        in_network_efficiency=float(protocols.in_network_efficiency),
        direct_setup_s=float(protocols.direct_setup),
        direct_efficiency=float(protocols.direct_efficiency),
        direct_limit_bytes=float(protocols.direct_limit),
        direct_devices=int(protocols.direct_devices),
        ll128=protocols.ll128,
    )


def _with_term(kernel: Kernel, term: tuple[str, float]) -> Kernel:
    return replace(kernel, terms=tuple(term if label == term[0] else (label, value) for label, value in kernel.terms))


def _scaled(kernel: Kernel, factor: float, name: str, op: Operator, forward: Operator) -> Kernel:
    """The same tiles with *factor* times the work and traffic each.

    The lower bounds grow only as much as the operators' own numbers: a backward pass need not move *factor* times the
    bytes nor take *factor* times the exponentials.
    """
    work, base = op.arithmetic(), forward.arithmetic()
    pairs = {
        "matrix": (work.matrix, base.matrix),
        "vector": (work.vector, base.vector),
        "special": (work.special, base.special),
        "memory": (op.bytes_moved, forward.bytes_moved),
        "l2": (op.bytes_moved, forward.bytes_moved),
    }
    grown = {label: min(factor, new / old) for label, (new, old) in pairs.items() if old > 0.0}
    classes = tuple(
        replace(c, busy_s=c.busy_s * factor, l2_bytes=c.l2_bytes * factor, memory_bytes=c.memory_bytes * factor)
        for c in kernel.classes
    )
    terms = tuple((label, value * grown.get(label, factor)) for label, value in kernel.terms)
    return replace(kernel, name=name, classes=classes, terms=terms)

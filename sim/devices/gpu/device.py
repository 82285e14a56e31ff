"""The GPU behind the device seam: which model lowers which operator."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from ...errors import UnsupportedError
from ...graph.dtypes import size_of
from ...graph.operator import Operator, Role
from ...graph.operators.attention import Attention, AttentionBackward, KVAppend, LatentAttention
from ...graph.operators.communication import Collective, GradientClip, GradientSum, HostTransfer, OptimizerStep
from ...graph.operators.convolution import CausalConv1d, Conv2d, Convolution2dBackward, FFTConv
from ...graph.operators.embedding import CrossEntropy, CrossEntropyBackward, Embedding, EmbeddingBackward, Sampling
from ...graph.operators.linear import BatchedMatmul, BiasGradient, Linear, MatmulGradient
from ...graph.operators.moe import Experts, ExpertsBackward, TopK
from ...graph.operators.pointwise import Pointwise, PointwiseBackward, Recipe, recipe
from ...graph.operators.scan import GatedDelta, ScanBackward, SelectiveScan, SSDScan
from ...network.collectives import ENGINE, CollectiveCosts
from ...network.protocols import ProtocolCosts
from ...network.topology import Network
from ...spec.hardware import CollectiveProtocols, GpuSpec
from ..communication import Communication
from ..device import Device, LaunchCosts, Lowered
from ..kernel import Kernel
from .attention import AttentionModel
from .attention_call import AttentionCallModel
from .attention_training import TrainingAttentionModel
from .backward import FP8, BackwardModel
from .experts import ExpertsModel
from .gemm import GemmModel, Product
from .parameters import GpuParameters
from .per_head import PerHeadModel
from .pointwise import (
    ROW_THREADS,
    SWEPT_SOFTMAX_ACCESSES,
    SWEPT_SOFTMAX_INSTRUCTIONS,
    SWEPT_SOFTMAX_PASSES,
    WARP_SOFTMAX_ACCESSES,
    WARP_SOFTMAX_COLS,
    WARP_SOFTMAX_INSTRUCTIONS,
    PointwiseModel,
    Sweep,
    row_loop,
    swept_softmax_threads,
)
from .power import PowerModel
from .quantise import quantise_kernel, quantise_kernels
from .reads import anybody_reads, reads
from .sequence import SequenceModel

SOFTMAX = ("softmax", "log_softmax")

RESIDUAL_ACCESSES = {"add": 2.0, "add_rmsnorm": 1.0, "add_layernorm": 1.0}
"""How often what an operator writes is the size of its traffic in the residual stream: once in, once out."""

SAMPLING_PASSES = 3
"""Passes over the logits when sampling: softmax, selection (sort or threshold), draw."""

QUANTISED_GROUP = 128
"""Elements of a row that share a scale where blocks of the weights have their own."""


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
            native_s=-1.0 if launch.eager_native is None else float(launch.eager_native),
            compiled_s=-1.0 if launch.eager_compiled is None else float(launch.eager_compiled),
            host_speed=float(launch.host_speed),
        )
        self.memory_capacity_bytes = float(spec.memory.capacity)
        self.memory_reserved_bytes = float(spec.memory.reserved)
        self.memory_peak_bytes_per_s = p.memory_peak_bytes_per_s
        self.power_limit_w = float(spec.power.limit)
        self.price_usd_per_hour = None if spec.price.hourly is None else float(spec.price.hourly)
        habits = spec.kernels
        self._power = PowerModel.of(spec)
        self._gemm = GemmModel(
            p,
            habits.gemm,
            float(habits.setup),
            self.launch.gap_s,
            spec.name,
            self._power,
        )
        self._pointwise = PointwiseModel(p, habits.pointwise)
        from_shared = habits.gemm.operands_from_shared_memory
        self._attention = AttentionModel(
            p, habits.attention, self._pointwise, float(habits.setup), from_shared, spec.name
        )
        self._attention_call = AttentionCallModel(
            p, habits.attention.call, self._attention, self._gemm, self._pointwise, self.launch.gap_s
        )
        self._per_head = PerHeadModel(p, float(habits.setup))
        self._experts = ExpertsModel(
            p, self._pointwise, habits.experts, habits.gemm.operands_from_shared_memory, float(habits.setup)
        )
        self._backward = BackwardModel(p, self._pointwise)
        self._training_attention = (
            TrainingAttentionModel(
                p, habits.attention, habits.training, self._pointwise, float(habits.setup), spec.name
            )
            if habits.training is not None
            else None
        )
        self._sequence = SequenceModel(p, self._gemm, self._pointwise, habits.sequence, float(habits.setup))
        c = habits.collective
        self._collective = CollectiveCosts(
            float(c.setup), float(c.step), float(c.efficiency), float(c.one_shot_limit), _protocol_costs(c.protocols)
        )
        if c.protocols is not None:  # a channel is a block of threads that fills a processor
            self.collective_share = min(0.5, int(c.protocols.channels) / p.units)
        self._rules: dict[type, Callable[[Any, bool], tuple[Kernel, ...]]] = {
            Linear: self._linear,
            MatmulGradient: self._gradient,
            BiasGradient: lambda op, fused: self._backward.bias(op),
            BatchedMatmul: self._batched,
            Attention: self._attend,
            LatentAttention: lambda op, fused: self._attend_latent(op),
            AttentionBackward: self._attend_backward,
            KVAppend: lambda op, fused: self._attention_call.append(op),
            Pointwise: self._pointwise_op,
            PointwiseBackward: self._backward.pointwise,
            Embedding: lambda op, fused: self._sweep(op, "embedding gather", persistent=True, run_bytes=op.row_bytes),
            EmbeddingBackward: lambda op, fused: self._sweep(op, "embedding scatter", persistent=True),
            Sampling: lambda op, fused: self._sweep(op, "sampling", rows=op.rows, passes=op.passes),
            CrossEntropy: lambda op, fused: self._backward.loss(op),
            CrossEntropyBackward: lambda op, fused: self._backward.loss_backward(op),
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
            OptimizerStep: lambda op, fused: self._backward.optimizer(op),
            GradientClip: lambda op, fused: self._sweep(op, "gradient clip", persistent=True),
            GradientSum: lambda op, fused: self._sweep(op, "gradient sum", persistent=True),
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
        """Operations, moved bytes and busy processors; None where an energy that is needed is unknown.

        What crosses links and what the host draws is not in it.
        """
        return None if self._power is None else self._power.energy_j(op, lowered.kernels, lowered.times)

    def depends_on(self, path: str, operators: Iterable[Operator]) -> bool:
        """See :mod:`~.reads`."""
        return anybody_reads(path, operators)

    def inherit(self, other: Device, path: str) -> int:
        """See :meth:`Device.inherit`; tiles of products that do not see the number are kept, too."""
        if isinstance(other, GpuDevice):
            self._kept = {key: kept for key, kept in other._kept.items() if not reads(path, key[0])}
            self._gemm.share_searches(other._gemm)
        return len(self._kept)

    def more_roofs(self) -> tuple[tuple[str, str, float], ...]:
        """Vector and L2 roofs."""
        p = self.parameters
        vector = p.vector_flops["fp32"] * p.units * p.boost_ratio
        return (("fp32 vector", "compute", vector), ("L2", "bandwidth", p.l2_bytes_per_s))

    def _linear(self, op: Linear, fused: bool) -> tuple[Kernel, ...]:
        if op.float8:
            return self._narrowed(op.m, op.n, op.k, op.dtype, (False, False))
        word = size_of(op.dtype)
        a = float(op.m) * op.k * word
        c = float(op.m) * op.n * size_of(op.output_dtype or op.dtype)
        kept = self.parameters.kept(a + c)
        # Called over and over, a product finds its operands where it left them, if all copies of its weights fit beside
        # its activations; two partitions each lose the other's.
        turns = a + c + op.copies * op.weight_storage_bytes
        replayed = self.parameters.kept(turns) if op.alone and self.spec.l2.unified else 0.0
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
            block_scaled=op.dtype == "fp8" and op.group_size > 0,
        )
        kernel = self._gemm.kernel(product)
        if not op.quantises:
            return (kernel,)
        what = (self.parameters, self._pointwise, op.m, op.k, op.activation_dtype, op.dtype)
        if op.quantiser in ("kernel", "portable") or (not op.quantiser and self.spec.kernels.gemm.quantise_at_once):
            return (quantise_kernel(*what, portable=op.quantiser == "portable"), kernel)
        return (*quantise_kernels(*what, group=QUANTISED_GROUP if op.group_size else 0), kernel)

    def _narrowed(self, m: int, n: int, k: int, dtype: str, again: tuple[bool, bool]) -> tuple[Kernel, ...]:
        """A product in fp8 of wider operands, with their narrowing (*again*: a transposed copy of a narrowed one)."""
        elements = (float(m) * k, float(n) * k)
        casts = [self._backward.narrow(e, dtype, known) for e, known in zip(elements, again, strict=True)]
        product = self._gemm.kernel(Product(m=m, n=n, k=k, dtype=FP8, output_dtype=dtype), "fp8 gemm")
        return (*casts[0], *casts[1], product)

    def _gradient(self, op: MatmulGradient, fused: bool) -> tuple[Kernel, ...]:
        if op.float8:
            # By tensor, what a product before has narrowed is only transposed; scales of rows belong to one order.
            known = op.float8 == "tensorwise"
            return self._narrowed(op.m, op.n, op.k, op.dtype, (known and not op.reads_weight, known))
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
        if op.per_head and op.phase == "generation":
            return (self._per_head.kernel(op),)
        if op.fused and self._training_attention is not None and not (op.cached or op.call) and op.phase == "context":
            return self._training_attention.forward(op)
        if op.kernel and op.fused:
            raise UnsupportedError(f"{self.name} describes no training attention {op.kernel!r}; it has none by name")
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
        """A kernel of its own where the file knows it; else the forward's tiles with 2.5 × its products.

        Unfused, every product has two of its size in the backward pass, and the softmax one pass.
        """
        f = op.forward
        if f.fused and self._training_attention is not None:
            return self._training_attention.backward(op)
        forward = self._attend(f, fused)
        if f.fused:
            return tuple(_scaled(kernel, 2.5, f"{kernel.name} backward", op, f) for kernel in forward)
        return tuple(_scaled(kernel, 2.0, f"{kernel.name} backward", op, f) for kernel in forward)

    def _experts_backward(self, op: ExpertsBackward, fused: bool) -> tuple[Kernel, ...]:
        forward = self._experts.kernels(op.forward)
        return tuple(_scaled(k, 2.0, f"{k.name} backward", op, op.forward) for k in forward)

    def _scan_backward(self, op: ScanBackward, fused: bool) -> tuple[Kernel, ...]:
        forward = self.lower(op.forward, fused).kernels
        return tuple(_scaled(k, 3.0, f"{k.name} backward", op, op.forward) for k in forward)

    def _pointwise_op(self, op: Pointwise, fused: bool) -> tuple[Kernel, ...]:
        r = recipe(op.op)
        if fused and r.passes_eager > 1 and not op.compiled:  # no framework kernel does it at once: an engine's own
            return self._row_kernel(op, r)
        passes = 1 if fused or op.compiled else r.passes_eager
        swept = self._sweep(op, op.kind, rows=op.rows if r.reduces else 0, passes=passes)
        return swept if op.compiled or op.op not in SOFTMAX else (self._softmax(op, r),)

    def _softmax(self, op: Pointwise, r: Recipe) -> Kernel:
        """A framework's softmax: short rows in the registers of a warp, long ones swept three times by a block.

        The second and third time a row is in L2 as far as the rows in work fit there together.
        """
        p, work, elements = self.parameters, op.arithmetic(), op.elements
        moved, read = op.bytes_moved, op.bytes_moved * r.reads / (r.reads + r.writes)
        memory = moved * (1.0 - p.kept(moved))
        if op.cols <= WARP_SOFTMAX_COLS:
            sweep = Sweep(read, moved - read, memory, work.vector, work.special)
            instructions, accesses = WARP_SOFTMAX_INSTRUCTIONS, WARP_SOFTMAX_ACCESSES
        else:
            blocks = p.units * max(1, p.max_threads // swept_softmax_threads(op.cols))
            in_work = min(op.rows, blocks) * read / op.rows
            again = (SWEPT_SOFTMAX_PASSES - 1.0) * read
            memory += again * (1.0 - p.kept(min(in_work, moved)))
            sweep = Sweep(read, moved - read, memory, work.vector, work.special, rows=op.rows, again_bytes=again)
            instructions, accesses = SWEPT_SOFTMAX_INSTRUCTIONS, SWEPT_SOFTMAX_ACCESSES
        sweep = replace(sweep, instructions=instructions * elements, accesses=accesses * elements)
        kernel = self._pointwise.kernel(sweep, op.kind)
        bound = ("memory", moved * (1.0 - p.kept_at_best(moved)) / p.memory_peak_bytes_per_s)
        return _with_term(kernel, bound)

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
            loop=row_loop(op.kind, r),
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
        # The residual stream was written before the last block's weights passed through L2, and lives on: it is read
        # from memory and its sum written back; only the other operand is fresh.
        stream = RESIDUAL_ACCESSES.get(op.kind, 0.0) * write
        memory = stream + max(0.0, read + write - stream) * share
        learned = sum(a.bytes_moved for a in op.accesses() if a.role is Role.WEIGHT and not a.write)
        sweep = Sweep(
            read_bytes=read,
            write_bytes=write,
            memory_bytes=memory,
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

    def communication(self, op: Collective, fused: bool = True) -> Communication:
        """See :meth:`Device.communication`."""
        adds = not op.dtype.startswith("int")  # adding switches know floating point only
        beside_s = 0.0 if op.beside is None else self.lower(op.beside, fused).analytic_s
        return Communication(self.network, self._collective, op, op.runtime or ENGINE, adds, beside_s)

    def _communicate(self, op: Collective, fused: bool) -> tuple[Kernel, ...]:
        if op.devices == 1:
            return ()
        communication = self.communication(op, fused)
        priced, bound = communication.priced, communication.bound_s
        return (
            Kernel(
                name=f"{op.op} {priced.algorithm}",
                classes=(),
                units=1,
                slots=1,
                l2_bytes_per_s=self.parameters.l2_bytes_per_s,
                memory_bytes_per_s=self.parameters.memory_bytes_per_s,
                terms=(("network", bound),),
                fixed_s=communication.seconds,
                detail=communication.detail,
                queued=communication.queued,
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
        peer_setup_s=None if protocols.peer_setup is None else float(protocols.peer_setup),
        peer_channels=None if protocols.peer_channels is None else int(protocols.peer_channels),
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

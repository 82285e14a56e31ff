"""Operators as a few primitive steps, for devices whose kernels follow the operator's own structure.

A step says what is multiplied, swept or sent; it knows no hardware. A CPU and an FPGA overlay price the same steps with
their own models. Bytes are those of distinct elements; ``persistent`` bytes (weights, caches, states) lie in memory
between model steps, the others may still be on chip when the next kernel reads them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ..errors import UnsupportedError
from ..graph.dtypes import size_of
from ..graph.operator import Operator, Role
from ..graph.operators.attention import Attention, AttentionBackward, KVAppend, LatentAttention
from ..graph.operators.communication import Collective, GradientClip, GradientSum, HostTransfer, OptimizerStep
from ..graph.operators.convolution import CausalConv1d, Conv2d, Convolution2dBackward, FFTConv
from ..graph.operators.embedding import CrossEntropy, CrossEntropyBackward, Embedding, EmbeddingBackward, Sampling
from ..graph.operators.linear import BatchedMatmul, BiasGradient, Linear, MatmulGradient, weight_storage
from ..graph.operators.moe import Experts, ExpertsBackward, TopK
from ..graph.operators.pointwise import Pointwise, PointwiseBackward, recipe
from ..graph.operators.scan import GatedDelta, ScanBackward, SelectiveScan, SSDScan

SAMPLING_PASSES = 3
"""Passes over the logits when sampling: softmax, selection (sort or threshold), draw."""

LOAD_CLASSES = 4
"""Into how many loads the experts are sorted when routing is skewed."""

STATE_BYTES = 4.0
"""Bytes of a number in a recurrent state or an accumulator (fp32)."""


@dataclass(frozen=True, slots=True)
class ProductStep:
    """``batch`` products ``[m, k] · [k, n]``, ``repeat`` times one after another.

    ``a_bytes``, ``b_bytes``, ``c_bytes`` count all batches of one repeat; ``live_bytes`` the activations that must
    share a cache for them to stay in it. ``expected_flops`` ≥ 0 replaces 2·m·n·k·batch in lower bounds (expert loads
    are rounded to whole rows). ``taps`` > 0: a convolution that gathers so many inputs a channel.
    """

    name: str
    m: int
    n: int
    k: int
    batch: int
    dtype: str
    b_dtype: str
    a_bytes: float
    b_bytes: float
    c_bytes: float
    live_bytes: float
    b_persistent: bool = False
    c_persistent: bool = False
    repeat: int = 1
    expected_flops: float = -1.0
    taps: int = 0

    @property
    def flops(self) -> float:
        """FLOPs of one repeat, padding aside."""
        return 2.0 * self.m * self.n * self.k * self.batch

    @property
    def bound_flops(self) -> float:
        """FLOPs of one repeat for a lower bound."""
        return self.flops if self.expected_flops < 0.0 else min(self.flops, self.expected_flops)

    @property
    def widens(self) -> bool:
        """The second operand is stored narrower than the arithmetic."""
        return bool(self.b_dtype) and size_of(self.b_dtype) < size_of(self.dtype)


@dataclass(frozen=True, slots=True)
class SweepStep:
    """One pass over data.

    ``rows`` > 0: a row must be complete before its result leaves. ``parallel`` > 0 limits independent pieces.
    ``chain``: dependent steps in sequence. ``vector_ops`` and ``special_ops`` are single operations, not FLOP pairs.
    ``run_bytes``: what is read lies in pieces of that size at unrelated places.
    ``elements`` of ``dtype`` are results of an operator whose rate a device's file may give by ``kind``; ``gathers``
    counts rows that are read from scattered places.
    """

    name: str
    read_bytes: float
    write_bytes: float
    persistent_bytes: float = 0.0
    vector_ops: float = 0.0
    special_ops: float = 0.0
    rows: int = 0
    parallel: int = 0
    chain: int = 0
    run_bytes: float = math.inf
    elements: float = 0.0
    dtype: str = ""
    kind: str = ""
    gathers: float = 0.0

    @property
    def write_share(self) -> float:
        """Share of the bytes that is written."""
        return self.write_bytes / self.total_bytes if self.total_bytes else 0.0

    @property
    def total_bytes(self) -> float:
        """Bytes read and written."""
        return self.read_bytes + self.write_bytes


@dataclass(frozen=True, slots=True)
class AttentionStep:
    """Fused attention: scores stay on chip."""

    op: Attention


@dataclass(frozen=True, slots=True)
class BackwardStep:
    """The forward's steps with ``factor`` times the work; lower bounds grow as the operators' own numbers do."""

    steps: tuple[Step, ...]
    factor: float
    op: Operator
    forward: Operator


@dataclass(frozen=True, slots=True)
class TransferStep:
    """A collective or a copy to the host."""

    op: Collective | HostTransfer


Step = ProductStep | SweepStep | AttentionStep | BackwardStep | TransferStep


def steps_of(op: Operator, fused: bool, device: str) -> tuple[Step, ...]:
    """Steps that compute *op*; ``fused`` False runs row-wise operators as an eager framework does.

    Raises:
        UnsupportedError: an operator of a kind that is not known here; names *device*.
    """
    rule = next((_RULES[cls] for cls in type(op).__mro__ if cls in _RULES), None)
    if rule is None:
        raise UnsupportedError(f"{device}: no kernels for operator {op.kind!r}")
    steps: tuple[Step, ...] = rule(op, fused)
    return steps


def _sweep(
    op: Operator, name: str, *, rows: int = 0, passes: int = 1, persistent: bool = False, parallel: int = 0
) -> tuple[Step, ...]:
    """One pass over the operator's tensors, or *passes* that each read and write them again."""
    work = op.arithmetic()
    read = sum(a.bytes_moved for a in op.accesses() if not a.write)
    total = op.bytes_moved
    lasting = (Role.WEIGHT, Role.KV_CACHE, Role.STATE, Role.OPTIMIZER, Role.GRADIENT)
    kept = sum(a.bytes_moved for a in op.accesses() if a.role in lasting)
    step = SweepStep(
        name=name,
        read_bytes=read,
        write_bytes=total - read,
        persistent_bytes=total if persistent else kept,
        vector_ops=work.vector / passes,
        special_ops=work.special / passes,
        rows=rows,
        parallel=parallel,
        run_bytes=op.row_bytes if isinstance(op, Embedding) else math.inf,
        elements=float(getattr(op, "elements", 0.0)) / passes,
        dtype=str(getattr(op, "dtype", "")),
        kind=op.kind,
    )
    return (step,) * passes


def _gather(op: Embedding) -> tuple[Step, ...]:
    (step,) = _sweep(op, "embedding gather", persistent=True)
    assert isinstance(step, SweepStep)
    return (replace(step, gathers=float(op.tokens), elements=float(op.tokens) * op.width, dtype=op.dtype),)


def _linear(op: Linear, fused: bool) -> tuple[Step, ...]:
    a = float(op.m) * op.k * size_of(op.dtype)
    c = float(op.m) * op.n * size_of(op.output_dtype or op.dtype)
    step = ProductStep(
        "gemm", op.m, op.n, op.k, 1, op.dtype, op.weight_dtype, a, op.weight_storage_bytes, c, a + c, b_persistent=True
    )
    return (step,)


def _gradient(op: MatmulGradient, fused: bool) -> tuple[Step, ...]:
    word = size_of(op.dtype)
    a, b, c = (float(x) * word for x in (op.m * op.k, op.n * op.k, op.m * op.n))
    weight = op.reads_weight
    live = a + (c if weight else b)
    step = ProductStep(
        "gradient gemm", op.m, op.n, op.k, 1, op.dtype, "", a, b, c, live, b_persistent=weight, c_persistent=not weight
    )
    return (step,)


def _batched(op: BatchedMatmul, fused: bool) -> tuple[Step, ...]:
    word = size_of(op.dtype) * op.batch
    a, c = float(op.m) * op.k * word, float(op.m) * op.n * word
    b_dtype = str(getattr(op, "weight_dtype", ""))
    lasting = op.second_role in ("weight", "kv_cache") or op.weight_bytes > 0.0
    b = op.weight_bytes or float(op.n) * op.k * op.batch * size_of(b_dtype or op.dtype)
    step = ProductStep(
        "batched gemm", op.m, op.n, op.k, op.batch, op.dtype, b_dtype, a, b, c, op.bytes_moved, b_persistent=lasting
    )
    return (step,)


def _attention(op: Attention, fused: bool) -> tuple[Step, ...]:
    if op.fused:
        return (AttentionStep(op),)
    group = op.heads // op.kv_heads
    heads, rows = op.batch * op.kv_heads, op.q_len * group
    role = "kv_cache" if op.phase == "generation" else "activation"
    return (
        *_batched(BatchedMatmul(heads, rows, op.kv_len, op.head_dim, op.dtype, role), fused),
        *_pointwise(Pointwise("softmax", op.batch * op.heads * op.q_len, op.kv_len, op.dtype), fused),
        *_batched(BatchedMatmul(heads, rows, op.v_dim, op.kv_len, op.dtype, role), fused),
    )


def _pointwise(op: Pointwise, fused: bool) -> tuple[Step, ...]:
    r = recipe(op.op)
    return _sweep(op, op.kind, rows=op.rows if r.reduces else 0, passes=1 if fused else r.passes_eager)


def _backward(factor: float) -> Callable[[Any, bool], tuple[Step, ...]]:
    def steps(op: Any, fused: bool) -> tuple[Step, ...]:
        return (BackwardStep(steps_of(op.forward, fused, "backward"), factor, op, op.forward),)

    return steps


def _experts(op: Experts, fused: bool) -> tuple[Step, ...]:
    """Sort of the tokens, gate/up products, activation, down products, weighted sum; a product a load class."""
    word, rows = size_of(op.dtype), op.assignments
    width = op.intermediate * (2 if op.gated else 1)
    tokens = min(rows, float(op.tokens)) * op.hidden * word
    wide, narrow, out = rows * width * word, rows * op.intermediate * word, rows * op.hidden * word
    routing = 4.0 * op.tokens * op.top_k
    up, down = "experts gate, up" if op.gated else "experts up", "experts down"
    return (
        SweepStep("expert sort", routing, 2 * routing),
        *_grouped(op, up, width, op.hidden, tokens, wide),
        SweepStep("experts activation", wide, narrow, 0.0, rows * 4.0 * op.intermediate, 2.0 * rows * op.intermediate),
        *_grouped(op, down, op.hidden, op.intermediate, narrow, out),
        SweepStep("experts weighted sum", out, tokens, 0.0, 2.0 * rows * op.hidden),
    )


def _grouped(op: Experts, name: str, n: int, k: int, in_bytes: float, out_bytes: float) -> tuple[Step, ...]:
    expert = weight_storage(float(n) * k, op.stored_dtype, op.group_size)
    total = sum(expected for _, _, expected in _load_groups(op))
    steps: list[Step] = []
    for count, active, expected in _load_groups(op):
        share = expected / total
        steps.append(
            ProductStep(
                name=name,
                m=max(1, math.ceil(expected / count)),
                n=n,
                k=k,
                batch=count,
                dtype=op.dtype,
                b_dtype=op.weight_dtype,
                a_bytes=in_bytes * share,
                b_bytes=expert * min(active, float(count)),
                c_bytes=out_bytes * share,
                live_bytes=in_bytes + out_bytes,
                b_persistent=True,
                expected_flops=2.0 * n * k * expected,
            )
        )
    return tuple(steps)


def _load_groups(op: Experts) -> list[tuple[int, float, float]]:
    """(experts, expected active experts, rows of them all), heaviest first; uniform routing is one group."""
    probabilities = sorted(op.pick_probabilities(), reverse=True)
    classes = 1 if probabilities[0] == probabilities[-1] else min(LOAD_CLASSES, len(probabilities))
    out, start = [], 0
    for i in range(classes):
        stop = len(probabilities) * (i + 1) // classes
        part = probabilities[start:stop]
        active = sum(op.used_share(p) for p in part)
        rows = sum(part) * op.tokens
        if rows > 0:
            out.append((max(1, round(active)), active, rows))
        start = stop
    return out


def _scan(op: SelectiveScan | SSDScan | GatedDelta | CausalConv1d, name: str, parallel: int) -> tuple[Step, ...]:
    return _sweep(op, name, parallel=0 if op.length == 1 else parallel)


def _ssd(op: SSDScan, fused: bool) -> tuple[Step, ...]:
    """Chunked form: cumulative decay, chunk states, state passing, C·Bᵀ, chunk output."""
    if op.recurrent:
        return _scan(op, "ssd state update", 0)
    word, blocks, q = size_of(op.dtype), op.batch * op.chunks, op.block
    inner = op.heads * op.head_dim
    states = blocks * inner * op.state * STATE_BYTES
    decay, scores = blocks * op.heads * q * STATE_BYTES, blocks * op.groups * q * q * STATE_BYTES
    tokens = float(op.batch) * op.length * inner * word
    bc = tokens / inner * op.groups * op.state
    chunk = blocks * op.heads

    def product(name: str, m: int, n: int, k: int, batch: int, a: float, b: float, c: float) -> ProductStep:
        return ProductStep(name, m, n, k, batch, op.dtype, "", a, b, c, a + b + c)

    return (
        SweepStep("ssd cumulative decay", decay / 2, decay, 0.0, decay / 2, decay / 4),
        product("ssd chunk state", op.head_dim, op.state, q, chunk, tokens, bc, states),
        SweepStep("ssd state passing", states, states, op.state_bytes, states / 2, parallel=inner, chain=op.chunks),
        product("ssd scores", q, q, op.state, blocks * op.groups, bc, bc, scores),
        product("ssd chunk output", q, op.head_dim, q + op.state, chunk, scores + states, tokens, tokens),
    )


def _delta(op: GatedDelta, fused: bool) -> tuple[Step, ...]:
    """Chunked WY form: scores, triangular inverse, corrected keys and values, states in sequence, outputs."""
    if op.recurrent:
        return _scan(op, "gated delta update", 0)
    word, c, dk, dv = size_of(op.dtype), op.block, op.key_dim, op.value_dim
    heads = op.batch * op.heads
    blocks = heads * op.chunks
    keys, values, square = (float(blocks) * c * x * word for x in (dk, dv, c))
    state, inverse = float(heads) * dk * dv * word, blocks * 2.0 / 3.0 * c**3

    def product(name: str, m: int, n: int, k: int, a: float, b: float, o: float) -> ProductStep:
        return ProductStep(name, m, n, k, blocks, op.dtype, "", a, b, o, a + b + o)

    def link(m: int, n: int, k: int, a: float, b: float, o: float) -> ProductStep:
        # One chunk after another: only sequences and heads are parallel, and the state stays on chip.
        live = a + b + o
        return ProductStep("delta states", m, n, k, heads, op.dtype, "", a, b, o, live, repeat=op.chunks)

    one_k, one_v = keys / op.chunks, values / op.chunks
    return (
        product("delta scores", 2 * c, c, dk, 2 * keys, keys, 2 * square),  # K·Kᵀ and Q·Kᵀ
        SweepStep(
            "delta triangular inverse",
            square,
            square,
            0.0,
            inverse,
            blocks * c * 2.0,
            parallel=blocks,
        ),
        product("delta corrected keys, values", c, dk + dv, c, square, keys + values, keys + values),
        link(dk, dv, c, one_k, one_v, state),
        link(c, dv, dk, one_k, state, one_v),
        product("delta output", c, dv, dk + c, keys + square, values, values),
    )


def _conv2d(op: Conv2d, fused: bool) -> tuple[Step, ...]:
    """Implicit GEMM a group; depthwise as one vector pass of fused multiply-adds."""
    live = op.input_bytes + op.output_bytes
    if op.depthwise:
        sweep = SweepStep(
            "depthwise conv2d",
            op.input_bytes + op.weight_bytes,
            op.output_bytes,
            op.weight_bytes,
            op.arithmetic().vector / 2.0,
            elements=float(op.rows) * op.out_channels,
            dtype=op.dtype,
            kind="depthwise_conv2d",
        )
        return (sweep,)
    n = op.out_channels // op.groups
    step = ProductStep(
        name="conv2d implicit gemm",
        m=op.rows,
        n=n,
        k=op.depth,
        batch=op.groups,
        dtype=op.dtype,
        b_dtype="",
        a_bytes=op.input_bytes,
        b_bytes=op.weight_bytes,
        c_bytes=op.output_bytes,
        live_bytes=live,
        b_persistent=True,
        taps=op.kernel * op.kernel,
    )
    return (step,)


def _fft(op: FFTConv, fused: bool) -> tuple[Step, ...]:
    """Transforms of filter and signal, product of spectra, inverse transform; two FLOP an operation."""
    rows = float(op.batch) * op.channels
    spectrum, filters = rows * op.points * STATE_BYTES, float(op.channels) * op.points * STATE_BYTES
    signal = rows * op.length * size_of(op.dtype)
    taps = float(op.channels) * op.length * size_of(op.dtype)
    flops = op.transform_flops / 2.0
    whole = int(rows)
    return (
        SweepStep("fft filter", taps, filters, taps, op.channels * flops, parallel=op.channels),
        SweepStep("fft forward", signal, spectrum, 0.0, rows * flops, parallel=whole),
        SweepStep("spectrum product", spectrum + filters, spectrum, 0.0, rows * 1.5 * op.points),
        SweepStep("fft inverse", spectrum, signal, 0.0, rows * flops, parallel=whole),
    )


_RULES: dict[type, Callable[[Any, bool], tuple[Step, ...]]] = {
    Linear: _linear,
    MatmulGradient: _gradient,
    BiasGradient: lambda op, fused: _sweep(op, "bias backward"),
    BatchedMatmul: _batched,
    Attention: _attention,
    LatentAttention: lambda op, fused: _attention(op.equivalent, True),
    AttentionBackward: _backward(2.5),
    KVAppend: lambda op, fused: _sweep(op, "kv append", persistent=True),
    Pointwise: _pointwise,
    PointwiseBackward: lambda op, fused: _sweep(op, f"{op.forward.kind} backward"),
    Embedding: lambda op, fused: _gather(op),
    EmbeddingBackward: lambda op, fused: _sweep(op, "embedding scatter", persistent=True),
    Sampling: lambda op, fused: _sweep(op, "sampling", rows=op.rows, passes=SAMPLING_PASSES),
    CrossEntropy: lambda op, fused: _sweep(op, "cross entropy", rows=op.rows),
    CrossEntropyBackward: lambda op, fused: _sweep(op, "cross entropy backward", rows=op.forward.rows),
    TopK: lambda op, fused: _sweep(op, "router top-k", rows=op.tokens),
    Experts: _experts,
    ExpertsBackward: _backward(2.0),
    SelectiveScan: lambda op, fused: _scan(op, "selective scan", op.batch * op.channels),
    SSDScan: _ssd,
    GatedDelta: _delta,
    CausalConv1d: lambda op, fused: _scan(op, "causal conv1d", op.batch * op.channels),
    Conv2d: _conv2d,
    Convolution2dBackward: _backward(2.0),
    FFTConv: _fft,
    ScanBackward: _backward(3.0),
    Collective: lambda op, fused: (TransferStep(op),) if op.devices > 1 else (),
    HostTransfer: lambda op, fused: (TransferStep(op),),
    OptimizerStep: lambda op, fused: _sweep(op, "optimizer step", persistent=True),
    GradientClip: lambda op, fused: _sweep(op, "gradient clip", persistent=True),
    GradientSum: lambda op, fused: _sweep(op, "gradient sum", persistent=True),
}

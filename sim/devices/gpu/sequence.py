"""Scans and convolutions on a GPU: selective scan, SSD, gated delta rule, conv1d, conv2d, FFT convolution."""

from __future__ import annotations

import math
from dataclasses import replace

from ...graph.dtypes import size_of
from ...graph.operators.convolution import CausalConv1d, Conv2d, FFTConv
from ...graph.operators.scan import GatedDelta, SelectiveScan, SSDScan
from ...spec.hardware import SequenceKernels
from ..kernel import Kernel, TileClass
from .gemm import GemmModel, Product
from .parameters import GpuParameters
from .pointwise import PointwiseModel, Sweep

SCAN_CHUNK = 2048
"""Tokens a block of the selective-scan kernel holds in registers before it carries its state on (mamba_ssm)."""

CONVOLUTION_THREADS, CONVOLUTION_ELEMENTS = 128, 8
"""Threads of a causal convolution's block and elements each takes at once; a block walks a channel (causal-conv1d)."""

UPDATE_THREADS = 64
"""Threads of the block that moves the convolution windows of as many channels by one token (causal-conv1d)."""

FIRST_TRIPS, UPDATE_TRIPS, WINDOW_TRIPS, CHANNEL_TRIPS, SCAN_TRIPS = 1, 1, 2, 3, 5
"""Dependent rounds through memory: of a cold kernel; of a block that updates a state; of one that moves windows
(index, window); of a channel's block in every turn (data, exchange, store); of a fused scan's block (state in,
operands, decays, outputs, state out)."""

FFT_SHARED_POINTS = 4096
"""Complex fp32 points that one block transforms inside shared memory; longer transforms pass through memory again."""


class SequenceModel:
    """Lowers scans and convolutions for one GPU."""

    def __init__(
        self,
        parameters: GpuParameters,
        gemm: GemmModel,
        pointwise: PointwiseModel,
        habits: SequenceKernels,
        setup_s: float,
    ) -> None:
        self._p, self._gemm, self._pointwise = parameters, gemm, pointwise
        idle_s = parameters.memory_latency_s + parameters.l2_latency_s
        self._trip_s = idle_s if habits.trip is None else float(habits.trip)
        self._fused_flops = 0.0 if habits.fused_scan is None else float(habits.fused_scan) * parameters.clock_hz
        self._start_s = setup_s + FIRST_TRIPS * self._trip_s

    def _started(self, kernel: Kernel, trips: int = UPDATE_TRIPS) -> Kernel:
        """A kernel of this family: its start, and *trips* dependent rounds of each block."""
        (tile,) = kernel.classes
        held = replace(tile, serial_s=max(tile.serial_s, trips * self._trip_s))
        return replace(kernel, classes=(held,), setup_s=kernel.setup_s + self._start_s)

    def _sweep(self, op: SelectiveScan | SSDScan | GatedDelta | CausalConv1d, blocks: int, chain_s: float) -> Sweep:
        """One pass over the operator's tensors; the state and the weights always come from memory."""
        work = op.arithmetic()
        activations = op.input_bytes + op.output_bytes
        fixed = op.bytes_moved - activations
        return Sweep(
            read_bytes=op.bytes_moved - op.output_bytes,
            write_bytes=op.output_bytes,
            memory_bytes=fixed + activations * (1.0 - self._p.kept(activations)),
            vector_ops=work.vector,
            special_ops=work.special,
            parallel=blocks,
            chain_s=chain_s,
        )

    def selective_scan(self, op: SelectiveScan) -> tuple[Kernel, ...]:
        """One block a sequence and channel walks the length in chunks; a single token is an element-wise update."""
        if op.length == 1:
            return (self._started(self._pointwise.kernel(self._sweep(op, 0, 0.0), "selective state update")),)
        chunks = math.ceil(op.length / SCAN_CHUNK)
        chain = (chunks - 1) * self._p.memory_latency_s + 2 * math.log2(SCAN_CHUNK) * self._p.l1_latency_s
        sweep = self._sweep(op, op.batch * op.channels, chain)
        # Every channel's block reads the B and C of its sequence, which are counted once in the sweep.
        again = 2.0 * op.batch * (op.channels - 1) * op.length * op.state * size_of(op.dtype)
        return (self._started(self._pointwise.kernel(replace(sweep, again_bytes=again), "selective scan")),)

    def ssd_scan(self, op: SSDScan) -> tuple[Kernel, ...]:
        """The five kernels of the chunked form: cumulative decay, chunk states, state passing, C·Bᵀ, chunk output."""
        if op.recurrent:
            return (self._started(self._pointwise.kernel(self._sweep(op, 0, 0.0), "ssd state update")),)
        if self._fused_flops:
            return self._fused_scan(op)
        word, blocks, q = size_of(op.dtype), op.batch * op.chunks, op.block
        inner, states = op.heads * op.head_dim, blocks * op.heads * op.head_dim * op.state * 4.0
        decay = float(blocks) * op.heads * q * 4.0
        scores = float(blocks) * op.groups * q * q * 4.0
        tokens_bytes = float(op.batch) * op.length * inner * word
        pass_ops = states / 2.0
        return (
            self._between("ssd cumulative decay", decay / 2, decay, vector=decay / 2, special=decay / 4),
            self._product(
                "ssd chunk state",
                Product(op.head_dim, op.state, q, blocks * op.heads, op.dtype, output_dtype="fp32"),
                tokens_bytes + states,
            ),
            self._between(
                "ssd state passing", states, states, vector=pass_ops, chain=op.chunks, kept=2 * op.state_bytes
            ),
            self._product(
                "ssd scores",
                Product(q, q, op.state, blocks * op.groups, op.dtype, output_dtype="fp32"),
                tokens_bytes / inner * 2 * op.groups * op.state + scores,
            ),
            self._product(
                "ssd chunk output",
                Product(q, op.head_dim, q + op.state, blocks * op.heads, op.dtype),
                2 * tokens_bytes + states + scores,
                a_bytes=scores + states,
            ),
        )

    def _fused_scan(self, op: SSDScan) -> tuple[Kernel, Kernel]:
        """Decays first, then one block a sequence and head that walks its chunks with the state on chip.

        A chunk of q tokens is four dependent products, 2·q²·(state + head_dim) + 4·q·state·head_dim FLOP; the last one
        is padded. The block fills its SM.
        """
        p = self._p
        decay = float(op.batch) * op.length * op.heads * 4.0
        heads = op.batch * op.heads
        q, n, d = op.chunk, op.state, op.head_dim
        flops = op.chunks * (2.0 * q * q * (n + d) + 4.0 * q * n * d)
        sweep = self._sweep(op, 0, 0.0)
        total = sweep.read_bytes + sweep.write_bytes
        terms = (
            ("matrix", op.arithmetic().matrix / (p.matrix_rate(op.dtype, "ssd scan") * p.units * p.boost_ratio)),
            ("memory", self._best_bytes(op) / p.memory_peak_bytes_per_s),
            ("l2", total / p.l2_bytes_per_s),
        )
        tile = TileClass(
            count=heads,
            busy_s=max(flops / self._fused_flops, flops / p.matrix_rate(op.dtype, "ssd scan")),
            serial_s=SCAN_TRIPS * self._trip_s,
            l2_bytes=total / heads,
            memory_bytes=sweep.memory_bytes / heads,
        )
        scan = Kernel(
            name="ssd fused scan",
            classes=(tile,),
            units=p.units,
            slots=1,
            l2_bytes_per_s=p.l2_bytes_per_s,
            memory_bytes_per_s=p.memory_bytes_per_s,
            terms=terms,
            binding="latency",
            setup_s=self._start_s,
            detail=(("blocks", heads), ("chunks", op.chunks)),
        )
        return self._between("ssd cumulative decay", decay / 2, decay, vector=decay / 2, special=decay / 4), scan

    def _best_bytes(self, op: SSDScan | CausalConv1d) -> float:
        """Least traffic behind L2: what this step produces may stay, state and weights may not."""
        activations = op.input_bytes + op.output_bytes
        return op.bytes_moved - activations + activations * (1.0 - self._p.kept_at_best(activations))

    def gated_delta(self, op: GatedDelta) -> tuple[Kernel, ...]:
        """Chunked WY form: scores and triangular inverse, corrected keys and values, states in sequence, outputs."""
        if op.recurrent:
            return (self._started(self._pointwise.kernel(self._sweep(op, 0, 0.0), "gated delta update")),)
        word, c, dk, dv = size_of(op.dtype), op.block, op.key_dim, op.value_dim
        blocks = op.batch * op.heads * op.chunks
        keys, values = float(blocks) * c * dk * word, float(blocks) * c * dv * word
        square = float(blocks) * c * c * word
        states = float(blocks) * dk * dv * word
        inverse = blocks * 2.0 / 3.0 * c**3
        return (
            self._product("delta scores", Product(c, c, dk, blocks, op.dtype), keys + square),
            self._between("delta triangular inverse", square, square, vector=inverse, blocks=blocks),
            self._product(
                "delta corrected keys, values", Product(c, dk + dv, c, blocks, op.dtype), keys + 2 * values + square
            ),
            self._chained_states(op, keys + values + states),
            self._product("delta output", Product(c, dv, dk + c, blocks, op.dtype), keys + 2 * values + states),
        )

    def _chained_states(self, op: GatedDelta, traffic: float) -> Kernel:
        """Two products a chunk, one chunk after another: only sequences, heads and value columns are parallel."""
        one = Product(op.key_dim, op.value_dim, op.block, op.batch * op.heads, op.dtype)
        kernel = self._product("delta states", one, traffic / op.chunks)
        link = Product(op.block, op.value_dim, op.key_dim, op.batch * op.heads, op.dtype)
        second = self._product("delta states", link, traffic / op.chunks)
        return self._with_state(_repeat(kernel, second, op.chunks), 2.0 * op.state_bytes)

    def _with_state(self, kernel: Kernel, size: float) -> Kernel:
        """The state that lives in memory between steps, read and written by this kernel."""
        tile = kernel.classes[0]
        held = replace(tile, memory_bytes=tile.memory_bytes + size / tile.count)
        more = size / self._p.memory_peak_bytes_per_s
        terms = tuple((label, s + more if label == "memory" else s) for label, s in kernel.terms)
        return replace(kernel, classes=(held,), terms=terms)

    def conv1d(self, op: CausalConv1d) -> tuple[Kernel, ...]:
        """A block a sequence and channel that walks the tokens; a single token moves the windows of many channels."""
        p, sweep = self._p, self._sweep(op, 0, 0.0)
        if op.length == 1:
            threads, trips = UPDATE_THREADS, WINDOW_TRIPS
            blocks = op.batch * math.ceil(op.channels / threads)
        else:
            threads, trips = CONVOLUTION_THREADS, CHANNEL_TRIPS
            blocks = op.batch * op.channels
        turns = math.ceil(op.length / (CONVOLUTION_THREADS * CONVOLUTION_ELEMENTS))
        total = sweep.read_bytes + sweep.write_bytes
        vector_s = sweep.vector_ops / 2.0 / p.vector_op_rate()  # fused multiply-adds: two FLOP an operation
        tile = TileClass(
            count=blocks,
            busy_s=max(vector_s, total / p.l1_bytes_per_s) / blocks,
            serial_s=turns * trips * self._trip_s,  # a block waits in every turn
            l2_bytes=total / blocks,
            memory_bytes=sweep.memory_bytes / blocks,
        )
        scale = p.units * p.boost_ratio
        terms = (
            ("vector", vector_s / 2.0 / scale),
            ("memory", self._best_bytes(op) / p.memory_peak_bytes_per_s),
            ("l2", total / p.l2_bytes_per_s),
        )
        kernel = Kernel(
            name="causal conv1d" if op.length > 1 else "causal conv1d update",
            classes=(tile,),
            units=p.units,
            slots=max(1, min(p.max_threads // threads, p.max_blocks)),
            l2_bytes_per_s=p.l2_bytes_per_s,
            memory_bytes_per_s=p.memory_bytes_per_s,
            terms=terms,
            binding="vector" if vector_s > total / p.l1_bytes_per_s else "l1",
            setup_s=self._start_s,
            detail=(("blocks", blocks), ("turns", turns)),
        )
        return (kernel,)

    def conv2d(self, op: Conv2d) -> tuple[Kernel, ...]:
        """Implicit GEMM a group; depthwise as one vector pass."""
        p = self._p
        activations = op.input_bytes + op.output_bytes
        if op.depthwise:
            sweep = Sweep(
                op.input_bytes + op.weight_bytes,
                op.output_bytes,
                op.weight_bytes + activations * (1.0 - p.kept(activations)),
                vector_ops=op.arithmetic().vector / 2.0,  # fused multiply-adds: two FLOP an operation
            )
            return (self._pointwise.kernel(sweep, "depthwise conv2d"),)
        kept = p.kept(activations)
        product = Product(
            m=op.rows,
            n=op.out_channels // op.groups,
            k=op.depth,
            batch=op.groups,
            dtype=op.dtype,
            a_resident=kept,
            c_resident=kept,
            best_resident=p.kept_at_best(activations),
            a_compulsory_bytes=op.input_bytes,
        )
        return (self._gemm.kernel(product, "conv2d implicit gemm"),)

    def fft_conv(self, op: FFTConv) -> tuple[Kernel, ...]:
        """Transforms of filter and signal, product of spectra, inverse transform; long ones pass memory repeatedly."""
        rows = float(op.batch) * op.channels
        spectrum = rows * op.points * 4.0  # points/2 complex fp32 numbers
        filters = float(op.channels) * op.points * 4.0
        signal = rows * op.length * size_of(op.dtype)
        passes = max(1, math.ceil(math.log(op.points) / math.log(FFT_SHARED_POINTS)))
        flops = op.transform_flops / passes
        out = []
        for i in range(passes):
            read = float(op.channels) * op.length * size_of(op.dtype) if i == 0 else filters
            out.append(self._between("fft filter", read, filters, vector=op.channels * flops / 2))
        forward = [signal, *[spectrum] * (passes - 1)]
        out += [self._between("fft forward", read, spectrum, vector=rows * flops / 2) for read in forward]
        out.append(self._between("spectrum product", spectrum + filters, spectrum, vector=rows * 3.0 * op.points / 2))
        for i in range(passes):
            write = signal if i == passes - 1 else spectrum
            out.append(self._between("fft inverse", spectrum, write, vector=rows * flops / 2))
        return tuple(out)

    def _between(
        self,
        name: str,
        read: float,
        write: float,
        *,
        vector: float = 0.0,
        special: float = 0.0,
        chain: int = 0,
        blocks: int = 0,
        kept: float = 0.0,
    ) -> Kernel:
        """A pass between two kernels of the same operator; *kept* bytes live in memory between steps."""
        memory = (read + write) * (1.0 - self._p.kept(read + write)) + kept
        latency = chain * self._p.l2_latency_s
        sweep = Sweep(read, write, memory, vector_ops=vector, special_ops=special, parallel=blocks, chain_s=latency)
        return self._started(self._pointwise.kernel(sweep, name))

    def _product(self, name: str, x: Product, traffic: float, a_bytes: float = -1.0) -> Kernel:
        """A product between kernels of the same operator, its operands in L2 as far as they fit."""
        kept = self._p.kept(traffic)
        return self._gemm.kernel(
            Product(
                x.m,
                x.n,
                x.k,
                x.batch,
                x.dtype,
                output_dtype=x.output_dtype,
                a_resident=kept,
                b_resident=kept,
                c_resident=kept,
                best_resident=max(kept, self._p.kept_at_best(traffic)),
                a_compulsory_bytes=a_bytes,
            ),
            name,
        )


def _repeat(first: Kernel, second: Kernel, times: int) -> Kernel:
    """One kernel whose blocks run *first* then *second* ``times`` over, each step waiting for the one before."""
    a, b = first.classes[0], second.classes[0]
    blocks = max(a.count, b.count)
    share_a, share_b = a.count / blocks, b.count / blocks
    tile = type(a)(
        count=blocks,
        busy_s=times * (a.busy_s * share_a + b.busy_s * share_b),
        serial_s=max(a.serial_s, b.serial_s),  # inputs of later chunks are prefetched; only the products are a chain
        l2_bytes=times * (a.l2_bytes * share_a + b.l2_bytes * share_b),
        memory_bytes=times * (a.memory_bytes * share_a + b.memory_bytes * share_b),
        flow_bytes_per_s=min(a.flow_bytes_per_s, b.flow_bytes_per_s),
    )
    terms = tuple((label, times * (x + y)) for (label, x), (_, y) in zip(first.terms, second.terms, strict=True))
    return Kernel(
        name=first.name,
        classes=(tile,),
        units=first.units,
        slots=min(first.slots, second.slots),
        l2_bytes_per_s=first.l2_bytes_per_s,
        memory_bytes_per_s=first.memory_bytes_per_s,
        terms=terms,
        binding=first.binding,
        setup_s=max(first.setup_s, second.setup_s),
        detail=first.detail,
    )

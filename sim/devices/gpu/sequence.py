"""Scans and convolutions on a GPU: selective scan, SSD, gated delta rule, conv1d, conv2d, FFT convolution."""

from __future__ import annotations

import math
from dataclasses import replace

from ...graph.dtypes import size_of
from ...graph.operators.convolution import CausalConv1d, Conv2d, FFTConv
from ...graph.operators.scan import GatedDelta, SelectiveScan, SSDScan
from ...spec.gpu_kernels import SequenceKernels
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

FIRST_TRIPS, UPDATE_TRIPS, WINDOW_TRIPS, CHANNEL_TRIPS, SCAN_TRIPS, DELTA_TRIPS = 1, 1, 2, 3, 5, 2
"""Dependent rounds through memory: of a cold kernel; of a block that updates a state; of one that moves windows
(index, window); of a channel's block in every turn (data, exchange, store); of a fused scan's block (state in,
operands, decays, outputs, state out); of a block that carries a delta-rule state, in every chunk (what the state
predicts is taken from the values, which then go into it)."""

DELTA_COLUMNS, DELTA_STAGES = 32, 2
"""Value columns that one block of the delta rule's state kernel carries, and the chunks whose operands it holds
(chunk_delta_h.py of flash-linear-attention as the engines ship it)."""

DELTA_UPDATE_COLUMNS = 8
"""Value columns that one block of the delta rule's update takes (fused_recurrent.py of flash-linear-attention)."""

SECTOR_BYTES = 32
"""Least that L2 gives a processor."""

PADDED_TENSORS = 4
"""x, B, C and the steps: copied to whole chunks in front of a fused scan."""

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
        written = sum(a.bytes_moved for a in op.accesses() if a.write)
        if isinstance(op, GatedDelta) and op.alone:  # the state of one call after the other is the same
            activations, fixed = op.bytes_moved, 0.0
        return Sweep(
            read_bytes=op.bytes_moved - written,
            write_bytes=written,
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

    def _fused_scan(self, op: SSDScan) -> tuple[Kernel, ...]:
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
        cumulative = self._between("ssd cumulative decay", decay / 2, decay, vector=decay / 2, special=decay / 4)
        return (*self._padding(op), cumulative, scan)

    def _padding(self, op: SSDScan) -> tuple[Kernel, ...]:
        """Copies to whole chunks, which is all that a fused scan takes."""
        if op.length % op.chunk == 0:
            return ()
        share = op.input_bytes / op.length / PADDED_TENSORS
        one = self._between("ssd padding", share * op.length, share * op.chunk * math.ceil(op.length / op.chunk))
        return (one,) * PADDED_TENSORS

    def _best_bytes(self, op: SSDScan | CausalConv1d) -> float:
        """Least traffic behind L2: what this step produces may stay, state and weights may not."""
        activations = op.input_bytes + op.output_bytes
        return op.bytes_moved - activations + activations * (1.0 - self._p.kept_at_best(activations))

    def gated_delta(self, op: GatedDelta) -> tuple[Kernel, ...]:
        """Chunked WY form, a kernel for each step as in flash-linear-attention.

        Queries and keys to unit length; cumulative gates; K·Kᵀ in fp32 and its triangular inverse; corrected keys and
        values; states from chunk to chunk; outputs, which form Q·Kᵀ themselves.
        """
        if op.recurrent:
            return (self._delta_update(op),)
        word, c, dk, dv = size_of(op.dtype), op.block, op.key_dim, op.value_dim
        blocks = op.batch * op.heads * op.chunks
        keys, values = float(blocks) * c * dk * word, float(blocks) * c * dv * word
        square, gates = float(blocks) * c * c, float(blocks) * c * 4.0
        states = float(blocks) * dk * dv * word
        inverse = blocks * 2.0 / 3.0 * c**3
        norm = self._between("delta unit length", keys, keys, vector=2.0 * keys / word)
        return (
            norm,
            norm,
            self._between("delta cumulative gates", gates, gates, vector=gates / 4.0),
            self._product("delta scores", Product(c, c, dk, blocks, op.dtype, output_dtype="fp32"), keys + 4 * square),
            self._between("delta triangular inverse", 4 * square, square * word, vector=inverse, blocks=blocks),
            self._product(
                "delta corrected keys, values",
                Product(c, dk + dv, c, blocks, op.dtype),
                2 * (keys + values) + square * word,
                a_bytes=square * word,
            ),
            self._carried_states(op, 2 * (keys + values) + states),
            self._product(
                "delta output",
                Product(c, dv, dk + c + math.ceil(c * dk / dv), blocks, op.dtype),
                2 * (keys + values) + states,
                a_bytes=2 * keys,
            ),
        )

    def _delta_update(self, op: GatedDelta) -> Kernel:
        """A block holds DELTA_UPDATE_COLUMNS columns of a state; of such short rows L2 gives more than is asked for."""
        row = min(DELTA_UPDATE_COLUMNS, op.value_dim) * size_of(op.initial_state_dtype or op.state_dtype)
        again = op.initial_state_bytes * max(0.0, SECTOR_BYTES / row - 1.0)
        sweep = replace(self._sweep(op, 0, 0.0), again_bytes=again)
        return self._started(self._pointwise.kernel(sweep, "gated delta update"))

    def _carried_states(self, op: GatedDelta, traffic: float) -> Kernel:
        """A block a sequence, head and DELTA_COLUMNS value columns walks the chunks with its state on chip.

        In every chunk two products of 2·c·dk·columns FLOP, one after the other; each block reads corrected keys, keys
        and its values and writes what it made of them and the state of every chunk.
        """
        p, word, c, dk = self._p, size_of(op.dtype), op.block, op.key_dim
        columns = min(DELTA_COLUMNS, op.value_dim)
        count = op.batch * op.heads * math.ceil(op.value_dim / columns)
        operands = (2.0 * c * dk + c * columns) * word
        l2_bytes = op.chunks * (operands + (c + dk) * columns * word)
        state = op.initial_state_bytes + op.state_bytes
        rate = p.matrix_rate(op.dtype, "gated delta")
        flops = op.chunks * 4.0 * c * dk * columns
        work = flops * op.batch * op.heads * op.value_dim / columns
        best = state + traffic * (1.0 - p.kept_at_best(traffic))
        tile = TileClass(
            count=count,
            busy_s=flops / rate,
            serial_s=op.chunks * DELTA_TRIPS * self._trip_s,
            l2_bytes=l2_bytes,
            memory_bytes=(state + traffic * (1.0 - p.kept(traffic))) / count,
        )
        return Kernel(
            name="delta states",
            classes=(tile,),
            units=p.units,
            slots=max(1, min(int(p.shared_bytes // (DELTA_STAGES * operands)), p.max_blocks)),
            l2_bytes_per_s=p.l2_bytes_per_s,
            memory_bytes_per_s=p.memory_bytes_per_s,
            terms=(
                ("matrix", work / (rate * p.units * p.boost_ratio)),
                ("memory", best / p.memory_peak_bytes_per_s),
                ("l2", l2_bytes * count / p.l2_bytes_per_s),
            ),
            setup_s=self._start_s,
            detail=(("blocks", count), ("chunks", op.chunks)),
        )

    def conv1d(self, op: CausalConv1d) -> tuple[Kernel, ...]:
        """A block a sequence and channel that walks the tokens; a single token moves the windows of many channels."""
        p, sweep = self._p, self._sweep(op, 0, 0.0)
        if op.updates:
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
            name="causal conv1d update" if op.updates else "causal conv1d",
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

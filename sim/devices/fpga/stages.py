"""Streaming stages of a graph: what each operator becomes when it gets hardware of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from ...errors import UnsupportedError
from ...graph.dtypes import dtype, size_of
from ...graph.graph import Graph, Item, Node
from ..steps import AttentionStep, BackwardStep, ProductStep, Step, SweepStep, steps_of
from .resources import (
    DspKind,
    Resources,
    bram18,
    dsp_rtl,
    mvau_cycles,
    mvau_lut,
    uram,
    weight_shape,
)

LUTRAM_WORDS = 128
"""Weight memories this shallow go into look-up tables, as FINN's embedded mode puts them."""


@dataclass(frozen=True, slots=True)
class StageOptions:
    """Choices of the spatial design that every stage shares; see ``dataflow`` of a hardware file."""

    dsp_kind: DspKind
    multipliers: str
    fp16_dsps: int
    fp32_dsps: int
    vector_block: int
    depth: int
    fifo: int
    lane_lut: int
    special_lane_lut: int


@dataclass(frozen=True, slots=True)
class Stage:
    """A matrix-vector stage (``mh`` outputs × ``mw`` inputs) or an element-wise one (``mh`` elements, ``mw`` 1).

    ``vectors`` inputs pass in one execution. ``weight_elements`` live on chip or stream from memory; ``dynamic`` ones
    (keys, values, gathered rows) always stream. ``group`` counts inputs that share a weight set; ``first`` how many
    must pass before the next stage has a whole row (heads of a token).
    """

    name: str
    node: str
    mh: int
    mw: int
    vectors: int
    weight_elements: float
    weight_bits: int
    activation_bits: int
    is_float: bool
    matrix: bool
    dynamic: bool = False
    special: bool = False
    row: int = 1
    group: int = 1
    first: int = 1

    def cycles(self, pe: int, simd: int) -> int:
        """Cycles of one execution: FINN's folds for a matrix, elements over lanes otherwise."""
        if self.matrix:
            return mvau_cycles(self.mh, self.mw, pe, simd, self.vectors)
        return math.ceil(self.mh / pe)

    @property
    def macs(self) -> float:
        """Multiply-adds of one execution."""
        return float(self.mh) * self.mw * self.vectors if self.matrix else 0.0

    @property
    def weight_bytes(self) -> float:
        """Bytes of the weights or of the streamed operand."""
        return self.weight_elements * self.weight_bits / 8.0

    def streamed_bytes(self, options: StageOptions) -> float:
        """Bytes read from memory in one execution when the weights do not stay on chip."""
        if self.dynamic:
            return self.weight_bytes
        return self.weight_bytes * math.ceil(self.group / options.vector_block)

    def fill_cycles(self, pe: int, simd: int, depth: int) -> int:
        """Cycles until the first complete output vector (or row) leaves."""
        if self.matrix:
            return mvau_cycles(self.mh, self.mw, pe, simd, self.first) + depth
        return math.ceil(self.row / pe) + depth

    def logic(self, pe: int, simd: int, options: StageOptions) -> Resources:
        """Arithmetic, accumulators and the FIFO behind the stage; no weight memory."""
        if not self.matrix:
            lane = options.special_lane_lut if self.special else options.lane_lut
            return Resources(lut=lane * pe) + self._fifo(pe, options)
        w, a = self.weight_bits, self.activation_bits
        if self.is_float:
            each = options.fp16_dsps if max(w, a) <= 16 else options.fp32_dsps
            own = Resources(lut=mvau_lut(self.mw, pe, simd, w, a, multipliers="dsp"), dsp=pe * simd * each)
        else:
            lut = mvau_lut(self.mw, pe, simd, w, a, multipliers=options.multipliers)
            dsp = dsp_rtl(pe, simd, w, a, options.dsp_kind) if options.multipliers == "dsp" else 0
            own = Resources(lut=lut, dsp=dsp)
        return own + self._fifo(pe, options)

    def _fifo(self, pe: int, options: StageOptions) -> Resources:
        width = pe * self.activation_bits
        if options.fifo <= LUTRAM_WORDS:  # shift registers: 32 bits a look-up table
            return Resources(lut=width * math.ceil(options.fifo / 32))
        return Resources(bram18=bram18(width, options.fifo))

    def memory(self, pe: int, simd: int, style: str, options: StageOptions, sets: int = 1) -> Resources:
        """Where ``sets`` weight sets lie: ``lutram``, ``bram``, ``uram``, or ``stream`` with a buffer for inputs."""
        if not self.matrix or self.weight_elements <= 0.0:
            return Resources()
        if style == "stream":
            if self.dynamic or options.vector_block == 1:
                return Resources()
            depth = math.ceil(self.mw / simd) * min(options.vector_block, self.group)
            return Resources(bram18=bram18(simd * self.activation_bits, depth))
        width, depth = weight_shape(self.mh, self.mw, pe, simd, self.weight_bits)
        depth *= sets * max(1, round(self.weight_elements / (float(self.mh) * self.mw)))
        if style == "lutram":
            return Resources(lut=pe * simd * self.weight_bits * math.ceil(depth / 64))
        return Resources(bram18=bram18(width, depth)) if style == "bram" else Resources(uram=uram(width, depth))


@dataclass(frozen=True, slots=True)
class Section:
    """Stages in a row that run ``passes`` times on the same hardware; ``copies`` of that hardware are built."""

    name: str
    stages: tuple[Stage, ...]
    passes: int = 1
    copies: int = 1


def sections_of(
    graph: Graph, looped: bool, weight_bits: int | None = None, activation_bits: int | None = None
) -> tuple[Section, ...]:
    """Sections of a graph: plain nodes in a row, and every repeated block.

    ``looped``: a block's hardware is built once and its weights change from pass to pass; else it is built as often as
    it repeats.

    Raises:
        UnsupportedError: an operator that no streaming stage computes (training, transfers).
    """
    return tuple(_sections(graph.items, graph.name, looped, weight_bits, activation_bits, 1))


def _sections(
    items: tuple[Item, ...], name: str, looped: bool, w: int | None, a: int | None, times: int
) -> Iterator[Section]:
    row: list[Stage] = []
    for item in items:
        if isinstance(item, Node):
            row += _stages(item, w, a)
            continue
        if row:
            yield _section(name, row, times, looped)
            row = []
        yield from _sections(item.body, item.name, looped, w, a, times * item.count)
    if row:
        yield _section(name, row, times, looped)


def _section(name: str, stages: list[Stage], times: int, looped: bool) -> Section:
    return Section(name, tuple(stages), passes=times if looped else 1, copies=1 if looped else times)


def _stages(node: Node, w: int | None, a: int | None) -> list[Stage]:
    out: list[Stage] = []
    for step in steps_of(node.op, True, "dataflow"):
        out += _of_step(step, node, w, a)
    return out


def _of_step(step: Step, owner: Node, w: int | None, a: int | None) -> list[Stage]:
    node = owner.name
    if isinstance(step, ProductStep):
        return [_product(step, node, w, a)]
    if isinstance(step, AttentionStep):
        return _attention(step, node, w, a)
    if isinstance(step, SweepStep):
        bits = dtype(str(getattr(owner.op, "dtype", "fp16"))).bits
        return [_sweep(step, node, bits, a or bits)]
    what = "the backward pass" if isinstance(step, BackwardStep) else "a transfer between boards"
    raise UnsupportedError(f"dataflow: {node} is {what}, which has no streaming stage; use mode: overlay")


def _product(step: ProductStep, node: str, w: int | None, a: int | None) -> Stage:
    compute = dtype(step.dtype)
    stored = step.b_dtype or step.dtype
    sets = step.batch * step.repeat
    return Stage(
        name=f"{node}: {step.name}",
        node=node,
        mh=step.n,
        mw=step.k,
        vectors=step.m * sets,
        weight_elements=float(step.n) * step.k * (step.batch if step.b_persistent else sets),
        weight_bits=w or dtype(stored).bits,
        activation_bits=a or compute.bits,
        is_float=compute.is_float and w is None and a is None,
        matrix=True,
        dynamic=not step.b_persistent,
        group=step.m,
    )


def _attention(step: AttentionStep, node: str, w: int | None, a: int | None) -> list[Stage]:
    """Scores, softmax, weighted values; keys and values stream past the queries of their heads."""
    op = step.op
    compute = dtype(op.dtype)
    bits = a or compute.bits
    is_float = compute.is_float and w is None and a is None
    queries = op.batch * op.heads * op.q_len
    keys = max(1, math.ceil(op.pairs / op.q_len))
    held = op.kv_bytes / size_of(op.stored_dtype)
    key_share = op.head_dim / op.kv_width

    def product(name: str, mh: int, mw: int, elements: float) -> Stage:
        return Stage(
            name=f"{node}: {name}",
            node=node,
            mh=mh,
            mw=mw,
            vectors=queries,
            weight_elements=elements,
            weight_bits=a or dtype(op.stored_dtype).bits,
            activation_bits=bits,
            is_float=is_float,
            matrix=True,
            dynamic=True,
            first=op.heads,
        )

    row = keys * op.heads
    softmax = Stage(f"{node}: softmax", node, queries * keys, 1, 1, 0.0, bits, bits, is_float, False, False, True, row)
    return [
        product("scores", keys, op.head_dim, held * key_share),
        softmax,
        product("weighted values", op.v_dim, keys, held * (1.0 - key_share)),
    ]


def _sweep(step: SweepStep, node: str, stored_bits: int, bits: int) -> Stage:
    """Turns of one lane: elements that pass, or more where an element needs several turns."""
    passing = max(step.read_bytes, step.write_bytes) * 8.0 / stored_bits
    elements = max(1, math.ceil(max(passing, step.vector_ops / OPS_PER_LANE, step.special_ops)))
    rows = step.rows or elements
    return Stage(
        name=f"{node}: {step.name}",
        node=node,
        mh=elements,
        mw=1,
        vectors=1,
        weight_elements=0.0,
        weight_bits=bits,
        activation_bits=bits,
        is_float=False,
        matrix=False,
        special=step.special_ops > 0.0,
        row=max(1, elements // rows),
    )


OPS_PER_LANE = 4.0
"""Vector operations that one lane of an element-wise stage chains in a clock (scale, add, compare, select)."""


@cache
def divisors(value: int) -> tuple[int, ...]:
    """All divisors, smallest first: the folds that FINN allows.

    >>> divisors(12)
    (1, 2, 3, 4, 6, 12)
    """
    small = [d for d in range(1, math.isqrt(value) + 1) if value % d == 0]
    return tuple(sorted({*small, *(value // d for d in small)}))

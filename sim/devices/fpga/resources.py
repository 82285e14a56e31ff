"""Resources of a matrix-vector stage: the closed forms that FINN estimates with.

Symbols: ``pe`` outputs and ``simd`` inputs in parallel (P, Q), ``mh`` × ``mw`` the matrix, W and A the bits of a weight
and of an activation. Sources: Blott et al., FINN-R, ACM TRETS 11(3), 2018, and Xilinx/finn,
``custom_op/fpgadataflow/matrixvectoractivation.py`` with its HLS and RTL back ends. FINN calls the LUT form a fit; real
designs lie within a factor of two of it, so callers report a range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

DspKind = Literal["dsp48", "dsp58"]

LUT_BASE = 300.0
LUT_FACTOR = 1.1
"""FINN-R's fitted constants c0 and c1."""

LUTRAM_DEPTH = 64
"""Words of one look-up table used as memory."""

URAM_WIDTH, URAM_DEPTH = 72, 4096

BRAM18_BYTES = 2304
URAM_BYTES = 36864

WIDE_MULTIPLIER_BITS = 48
"""FINN's HLS form: a DSP for every 48 bits of W + A."""

DSP48_PACKING = ((4, 4), (8, 2), (27, 1))
"""(bits up to, multiply-adds a DSP48E2): mvu_4sx4u and mvu_8sx8u of FINN; one 27 × 18 product beyond."""

DSP58_PACKING = ((4, 4), (8, 3), (27, 1))
"""(bits up to, multiply-adds a DSP58): mvu_4sx4u; mvu_8sx9, the three-element dot product; one 27 × 24 product."""


@dataclass(frozen=True, slots=True)
class Resources:
    """Amounts of each resource; ``lut`` is the closed form, uncertain by a factor of two."""

    lut: float = 0.0
    dsp: float = 0.0
    bram18: float = 0.0
    uram: float = 0.0

    def __add__(self, other: Resources) -> Resources:
        """Add resource by resource."""
        return Resources(self.lut + other.lut, self.dsp + other.dsp, self.bram18 + other.bram18, self.uram + other.uram)

    def times(self, count: int) -> Resources:
        """*count* copies."""
        return Resources(self.lut * count, self.dsp * count, self.bram18 * count, self.uram * count)

    def items(self) -> tuple[tuple[str, float], ...]:
        """(name, amount) pairs."""
        return (("lut", self.lut), ("dsp", self.dsp), ("bram18", self.bram18), ("uram", self.uram))


def mvau_cycles(mh: int, mw: int, pe: int, simd: int, vectors: int) -> int:
    """Cycles for *vectors* inputs: ``(mh/pe)·(mw/simd)·vectors``; folds are whole.

    >>> mvau_cycles(64, 64, 16, 16, 10)
    160
    """
    return math.ceil(mh / pe) * math.ceil(mw / simd) * vectors


def accumulator_bits(mw: int, weight_bits: int, activation_bits: int, signed_input: bool = True) -> int:
    """Smallest accumulator that cannot overflow (arXiv 2301.13376): ``⌈a + log2(1 + 2^−a) + 1⌉``.

    ``a = log2(mw) + W + A − 1 − signed``.

    >>> accumulator_bits(64, 4, 4)
    14
    """
    alpha = math.log2(mw) + weight_bits + activation_bits - 1 - int(signed_input)
    return math.ceil(alpha + math.log2(1.0 + 2.0**-alpha) + 1.0)


def mvau_lut(
    mw: int,
    pe: int,
    simd: int,
    weight_bits: int,
    activation_bits: int,
    *,
    multipliers: str = "lut",
    accumulator: int = 32,
    threshold_bits: int = 0,
    threshold_depth: int = 0,
    lutram_depth: int = 0,
) -> float:
    """LUTs of a matrix-vector stage.

    ``300 + 1.1·P·(Q·(2⌈(W+A)/6⌉ − 1)·(W+A) + (W+A)(2Q − 1) + acc + (2^B − 1)·acc·(⌈tmem/64⌉ + 1)) + P·Q·W·⌈wmem/64⌉``:
    products (none where DSPs multiply), adder tree, accumulator, thresholds (B = ``threshold_bits``, 0: none), and the
    weights where they lie in LUTs (wmem = ``lutram_depth`` words, 0: elsewhere).

    >>> round(mvau_lut(64, 1, 1, 4, 4), 1)  # 300 + 1.1·(1·3·8 + 8·1 + 14)
    350.6
    """
    both = weight_bits + activation_bits
    products = 0 if multipliers == "dsp" else simd * (2 * math.ceil(both / 6) - 1) * both
    tree = both * (2 * simd - 1)
    acc = min(accumulator, accumulator_bits(mw, weight_bits, activation_bits))
    steps = 2**threshold_bits - 1 if threshold_bits else 0
    thresholds = steps * acc * (math.ceil(threshold_depth / LUTRAM_DEPTH) + 1)
    memory = pe * simd * weight_bits * math.ceil(lutram_depth / LUTRAM_DEPTH)
    return LUT_BASE + LUT_FACTOR * pe * (products + tree + acc + thresholds) + memory


def weight_shape(mh: int, mw: int, pe: int, simd: int, weight_bits: int) -> tuple[int, int]:
    """(bits, words) of the weight memory: ``Q·W·P`` wide, ``mh·mw/(Q·P)`` deep."""
    return simd * weight_bits * pe, math.ceil(mh / pe) * math.ceil(mw / simd)


def bram18(width: int, depth: int) -> int:
    """18 Kbit block RAMs of a memory *width* bits wide and *depth* words deep (simple dual port).

    >>> bram18(1, 16384), bram18(36, 512), bram18(36, 513)
    (1, 1, 2)
    """
    if width == 1:
        return math.ceil(depth / 16384)
    if width == 2:
        return math.ceil(depth / 8192)
    if width <= 4:
        return math.ceil(depth / 4096) * math.ceil(width / 4)
    if width <= 9:
        return math.ceil(depth / 2048) * math.ceil(width / 9)
    if width <= 18 or depth > 512:
        return math.ceil(depth / 1024) * math.ceil(width / 18)
    return math.ceil(depth / 512) * math.ceil(width / 36)


def uram(width: int, depth: int) -> int:
    """UltraRAMs of a memory: ``⌈width/72⌉·⌈depth/4096⌉``.

    >>> uram(144, 4097)
    4
    """
    return math.ceil(width / URAM_WIDTH) * math.ceil(depth / URAM_DEPTH)


def dsp_hls(pe: int, simd: int, weight_bits: int, activation_bits: int) -> int:
    """FINN's HLS back end: ``P·Q·⌈(W + A)/48⌉``, no packing.

    >>> dsp_hls(4, 8, 8, 8)
    32
    """
    return pe * simd * math.ceil((weight_bits + activation_bits) / WIDE_MULTIPLIER_BITS)


def dsp_rtl(pe: int, simd: int, weight_bits: int, activation_bits: int, kind: DspKind) -> int:
    """FINN's RTL back end, which packs products.

    DSP48: four 4-bit products (``⌈P/4⌉·Q``) or two 8-bit ones (``⌈P/2⌉·Q``) that share an input. DSP58: the
    three-element dot product (``P·⌈Q/3⌉``) up to 8 bits, which FINN also takes below 4 bits. Wider: as HLS.

    >>> dsp_rtl(8, 6, 4, 4, "dsp48"), dsp_rtl(8, 6, 8, 8, "dsp48"), dsp_rtl(8, 6, 8, 8, "dsp58")
    (12, 24, 16)
    """
    widest = max(weight_bits, activation_bits)
    if widest > 8:
        return dsp_hls(pe, simd, weight_bits, activation_bits)
    if kind == "dsp58":
        return pe * math.ceil(simd / 3)
    return math.ceil(pe / (4 if widest <= 4 else 2)) * simd


def macs_per_dsp(bits: int, kind: DspKind) -> float:
    """Most integer multiply-adds of one DSP and clock at that width.

    >>> macs_per_dsp(8, "dsp48"), macs_per_dsp(8, "dsp58"), macs_per_dsp(16, "dsp48")
    (2.0, 3.0, 1.0)
    """
    table = DSP48_PACKING if kind == "dsp48" else DSP58_PACKING
    return next((float(macs) for limit, macs in table if bits <= limit), 0.25)

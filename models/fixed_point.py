"""Fixed point as on FPGAs: formats with quantisation and overflow modes, and a folded matrix-vector unit.

A number of ``width`` bits with ``integer`` bits before the point stands for ``raw * 2**(integer - width)``. Narrowing
drops low bits (``trn``: towards minus infinity; ``rnd``: to nearest, ties up; ``rnd_conv``: to nearest, ties to even)
and then high bits (``wrap``: modulo; ``sat``: to the nearest end of the range), as the usual HLS types do.

The matrix-vector unit has ``pe`` rows of ``simd`` multipliers (Umuroglu et al., *FINN*, 2017): every clock each row
adds ``simd`` exact products in full width and adds their sum to its accumulator, which is narrowed to its own format.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from effsim.models._arrays import expect_positive

Raw: TypeAlias = npt.NDArray[np.int64]
Rounding: TypeAlias = Literal["trn", "rnd", "rnd_conv"]
Overflow: TypeAlias = Literal["wrap", "sat"]

WIDEST = 48
"""Bits of the widest format; products and sums of such numbers must fit int64."""


@dataclass(frozen=True, slots=True)
class FixedFormat:
    """A fixed-point type.

    >>> FixedFormat(8, 4).step, FixedFormat(8, 4).limits
    (0.0625, (-128, 127))
    """

    width: int
    integer: int
    signed: bool = True
    rounding: Rounding = "trn"
    overflow: Overflow = "wrap"

    def __post_init__(self) -> None:
        if not 1 <= self.width <= WIDEST:
            raise ValueError(f"width: expected 1…{WIDEST} bits, got {self.width}")
        if self.rounding not in ("trn", "rnd", "rnd_conv"):
            raise ValueError(f"rounding: expected trn, rnd or rnd_conv, got {self.rounding!r}")
        if self.overflow not in ("wrap", "sat"):
            raise ValueError(f"overflow: expected wrap or sat, got {self.overflow!r}")

    @property
    def fraction(self) -> int:
        """Bits behind the point."""
        return self.width - self.integer

    @property
    def step(self) -> float:
        """Distance of neighbouring numbers."""
        return float(2.0**-self.fraction)

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest raw value."""
        if self.signed:
            return -(1 << (self.width - 1)), (1 << (self.width - 1)) - 1
        return 0, (1 << self.width) - 1


def _overflow(raw: Raw, target: FixedFormat) -> Raw:
    low, high = target.limits
    if target.overflow == "sat":
        return np.clip(raw, low, high)
    return (raw - low) % (1 << target.width) + low


def narrow(raw: Raw, fraction: int, target: FixedFormat) -> Raw:
    """Raw numbers with *fraction* bits behind the point as raw numbers of *target*.

    >>> narrow(np.array([5, -5]), 2, FixedFormat(4, 4)).tolist()  # 1.25 and -1.25, towards minus infinity
    [1, -2]
    """
    drop = fraction - target.fraction
    if drop <= 0:
        return _overflow(raw << -drop, target)
    if target.rounding == "rnd":
        raw = raw + (1 << (drop - 1))
    elif target.rounding == "rnd_conv":
        raw = raw + ((1 << (drop - 1)) - 1) + ((raw >> drop) & 1)
    return _overflow(raw >> drop, target)


def to_fixed(x: npt.ArrayLike, target: FixedFormat) -> Raw:
    """Finite real numbers (any shape) as raw numbers of *target*.

    Raises:
        ValueError: for values that are not finite, or beyond what ``wrap`` can represent exactly on the way (2**62).

    >>> to_fixed([0.3, -0.3, 9.0], FixedFormat(8, 4, overflow="sat")).tolist()
    [4, -5, 127]
    """
    wide = np.asarray(x, np.float64)
    if not np.isfinite(wide).all():
        raise ValueError("x: expected finite values")
    scaled = np.ldexp(wide, target.fraction)
    if target.overflow == "sat":
        scaled = np.clip(scaled, float(target.limits[0]) - 1, float(target.limits[1]) + 1)
    elif scaled.size and np.abs(scaled).max() >= 2.0**62:
        raise ValueError("x: expected values below 2**62 steps")
    if target.rounding == "rnd":
        # Comparing the fraction is exact where adding one half might round.
        whole = np.floor(scaled)
        rounded = whole + (scaled - whole >= 0.5)
    else:
        rounded = np.floor(scaled) if target.rounding == "trn" else np.rint(scaled)
    return _overflow(rounded.astype(np.int64), target)


def from_fixed(raw: Raw, source: FixedFormat) -> npt.NDArray[np.float64]:
    """Raw numbers as float64, exactly.

    >>> from_fixed(np.array([4]), FixedFormat(8, 4)).tolist()
    [0.25]
    """
    return np.asarray(np.ldexp(raw.astype(np.float64), -source.fraction))


@dataclass(frozen=True, slots=True)
class MatrixUnit:
    """A folded matrix-vector unit: formats of its operands, its accumulators and its results."""

    weights: FixedFormat
    inputs: FixedFormat
    accumulator: FixedFormat
    outputs: FixedFormat
    pe: int = 1
    simd: int = 1

    def __post_init__(self) -> None:
        expect_positive(pe=self.pe, simd=self.simd)
        needed = self.weights.width + self.inputs.width + self.simd.bit_length()
        if max(needed, self.accumulator.width) + 1 > 62:
            raise ValueError(f"simd: products of {needed} bits do not fit the simulation's 64-bit integers")


def fixed_gemm(a: Raw, weights: Raw, unit: MatrixUnit) -> tuple[Raw, int]:
    """Raw ``a @ weights.T`` in the unit's output format, and the clocks it takes.

    Args:
        a: raw inputs (m, k).
        weights: raw weights (n, k).
        unit: formats and folding.

    Returns:
        raw (m, n), and ``m * ceil(n / pe) * ceil(k / simd)`` clocks.

    Raises:
        ValueError: for shapes that do not match or raw values outside their formats.

    >>> byte, wide = FixedFormat(8, 4), FixedFormat(24, 16)
    >>> unit = MatrixUnit(byte, byte, wide, wide, pe=2, simd=2)
    >>> raw, clocks = fixed_gemm(to_fixed([[1.5, 2.0, 0.5]], byte), to_fixed([[2.0, 1.0, 4.0]], byte), unit)
    >>> from_fixed(raw, wide).tolist(), clocks
    ([[7.0]], 2)
    """
    if a.ndim != 2 or weights.ndim != 2 or a.shape[1] != weights.shape[1]:
        raise ValueError(f"weights: expected (n, k) to match a of shape {a.shape}, got shape {weights.shape}")
    for name, raw, own in (("a", a, unit.inputs), ("weights", weights, unit.weights)):
        if raw.size and (raw.min() < own.limits[0] or raw.max() > own.limits[1]):
            raise ValueError(f"{name}: raw values outside {own.limits[0]}…{own.limits[1]}")
    (m, k), n = a.shape, weights.shape[0]
    fraction = unit.weights.fraction + unit.inputs.fraction
    sums = np.zeros((m, n), np.int64)
    clocks = 0
    for first_row in range(0, n, unit.pe):
        rows = slice(first_row, first_row + unit.pe)
        for first in range(0, k, unit.simd):
            ks = slice(first, first + unit.simd)
            products = a[:, None, ks].astype(np.int64) * weights[None, rows, ks]
            added = _aligned(np.sum(products, axis=2), fraction, unit.accumulator)
            sums[:, rows] = _overflow(sums[:, rows] + added, unit.accumulator)
            clocks += m
    return narrow(sums, unit.accumulator.fraction, unit.outputs), clocks


def _aligned(sums: Raw, fraction: int, accumulator: FixedFormat) -> Raw:
    """A clock's sum on the accumulator's grid, not yet within its range."""
    unlimited = FixedFormat(WIDEST, WIDEST - accumulator.fraction, rounding=accumulator.rounding)
    return narrow(sums, fraction, unlimited)

"""Number formats: what a value becomes when it is stored in fewer bits.

Floating formats round to nearest, ties to even, with gradual underflow. Rounding returns float32 arrays whose values
lie on the narrow format's grid, since every format here is a subset of float32.

Sources: IEEE 754-2019 (fp16); the OCP 8-bit floating point specification 1.0 (e4m3, e5m2); the OCP microscaling
specification 1.0 (e2m1); bf16 and tf32 keep float32's exponent with 7 and 10 mantissa bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from effsim.models._arrays import Float32Array, expect_positive, float32, float32_any


@dataclass(frozen=True, slots=True)
class FloatFormat:
    """A binary floating format.

    Attributes:
        exponent_bits: width of the exponent field; the bias is ``2**(exponent_bits - 1) - 1``.
        mantissa_bits: width of the stored fraction.
        maximum: largest finite value.
        overflow: what a finite value beyond ``maximum`` becomes (``inf``, ``nan``, or ``maximum`` when the format has
            neither).
    """

    exponent_bits: int
    mantissa_bits: int
    maximum: float
    overflow: float

    @property
    def smallest_exponent(self) -> int:
        """Exponent of the smallest normal number; subnormals share its spacing."""
        return 2 - int(2 ** (self.exponent_bits - 1))


def _ieee(exponent_bits: int, mantissa_bits: int) -> FloatFormat:
    bias = 2 ** (exponent_bits - 1) - 1
    return FloatFormat(exponent_bits, mantissa_bits, (2 - 2.0**-mantissa_bits) * 2.0**bias, np.inf)


_E4M3 = FloatFormat(4, 3, 448.0, np.nan)
_E2M1 = FloatFormat(2, 1, 6.0, 6.0)

FORMATS: Final = MappingProxyType(
    {
        "tf32": _ieee(8, 10),
        "bf16": _ieee(8, 7),
        "fp16": _ieee(5, 10),
        "fp8": _E4M3,
        "fp8_e4m3": _E4M3,
        "fp8_e5m2": _ieee(5, 2),
        "fp4": _E2M1,
        "fp4_e2m1": _E2M1,
    }
)

_BF16_DROPPED_BITS = 16
_QUIET_NAN_BIT = np.uint32(0x00400000)
_NIBBLE_BITS = 4
_NIBBLE_MASK = 0x0F
_NIBBLE_SIGN = 8
_SMALLEST_NORMAL = np.finfo(np.float32).tiny
_LARGEST_QUANTUM = MappingProxyType({8: 127, 4: 7})


def bf16_bits(x: npt.ArrayLike) -> npt.NDArray[np.uint16]:
    """Return the 16-bit patterns of ``x`` rounded to bf16 (nearest, ties to even), any shape.

    Adding half of the dropped field, plus the kept field's last bit, carries exactly when nearest-even rounds up;
    the carry runs into the exponent and, past the largest finite value, into infinity. NaNs stay NaN and become quiet.

    >>> [hex(v) for v in bf16_bits([1.0, 1.00390625, 1.01171875]).tolist()]
    ['0x3f80', '0x3f80', '0x3f82']
    """
    values = float32_any("x", x)
    bits = values.view(np.uint32)
    last_kept = (bits >> _BF16_DROPPED_BITS) & np.uint32(1)
    half = np.uint32((1 << (_BF16_DROPPED_BITS - 1)) - 1)
    rounded = np.where(np.isnan(values), bits | _QUIET_NAN_BIT, bits + half + last_kept)
    return (rounded >> _BF16_DROPPED_BITS).astype(np.uint16)


def bf16_from_bits(bits: npt.ArrayLike) -> Float32Array:
    """Return the float32 values of 16-bit bf16 patterns, any shape.

    >>> bf16_from_bits([0x3F80, 0xC000]).tolist()
    [1.0, -2.0]
    """
    widened = np.asarray(bits, np.uint16).astype(np.uint32) << np.uint32(_BF16_DROPPED_BITS)
    return np.asarray(widened.view(np.float32))


def _round_minifloat(values: Float32Array, target: FloatFormat) -> Float32Array:
    """Round to any format: scale so that its grid becomes the integers, round, scale back (all exact in double)."""
    wide = values.astype(np.float64)
    finite = np.isfinite(wide)
    _, exponent = np.frexp(np.where(finite, wide, 1.0))
    quantum = np.maximum(exponent - 1, target.smallest_exponent) - target.mantissa_bits
    rounded = np.where(finite, np.ldexp(np.rint(np.ldexp(np.where(finite, wide, 0.0), -quantum)), quantum), wide)
    too_big = np.abs(rounded) > target.maximum
    return np.where(too_big, np.copysign(target.overflow, rounded), rounded).astype(np.float32)


def round_to(x: npt.ArrayLike, dtype: str, *, saturate: bool = False) -> Float32Array:
    """Round ``x`` (any shape) to the values of ``dtype``; the result is float32.

    Args:
        x: real numbers, taken as float32.
        dtype: ``fp32`` (unchanged) or a key of :data:`FORMATS`.
        saturate: clamp overflow and infinities to the largest finite value, as conversion instructions offer. Without
            it overflow gives infinity (fp16, bf16, e5m2) or NaN (e4m3, which has no infinity); fp4 always clamps.

    Raises:
        ValueError: for an unknown dtype, or NaN for a format that has none (fp4).

    >>> round_to([1.0625, 449.0, 470.0], "fp8_e4m3", saturate=True).tolist()
    [1.0, 448.0, 448.0]
    >>> round_to([0.3, 100.0], "fp4").tolist()
    [0.5, 6.0]
    """
    values = float32_any("x", x)
    if dtype == "fp32":
        return values
    if dtype not in FORMATS:
        raise ValueError(f"dtype: unknown {dtype!r}, expected fp32 or one of {', '.join(FORMATS)}")
    target = FORMATS[dtype]
    if np.isfinite(target.overflow) and np.isnan(values).any():
        raise ValueError(f"x: {dtype} cannot hold NaN")
    if saturate:
        values = np.clip(values, -np.float32(target.maximum), np.float32(target.maximum))
    if dtype == "bf16":
        return bf16_from_bits(bf16_bits(values))
    if dtype == "fp16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16).astype(np.float32)
    return _round_minifloat(values, target)


@dataclass(frozen=True, slots=True)
class QuantizedGroups:
    """Symmetric group-quantised matrix.

    Attributes:
        values: int8 array (rows, columns); int4 values also stand one to an int8 here (see :func:`pack_int4`).
        scales: float32 array (rows, columns / group_size).
        bits: 8 or 4.
    """

    values: npt.NDArray[np.int8]
    scales: Float32Array
    bits: int

    @property
    def group_size(self) -> int:
        """Number of consecutive columns that share a scale (0 for a matrix without columns)."""
        groups = self.scales.shape[1]
        return self.values.shape[1] // groups if groups else 0


def quantize_groups(x: npt.ArrayLike, *, bits: int, group_size: int | None = None) -> QuantizedGroups:
    """Quantise a matrix (rows, columns) symmetrically with one float32 scale per group of consecutive columns.

    ``scale = max|x| / q_max`` with q_max = 127 (int8) or 7 (int4); ``q = clip(round_half_even(x / scale))``. The code
    -2**(bits-1) is never used, so that the grid is symmetric. Scales are floored at float32's smallest normal number:
    groups of zeros and of subnormals become zeros, and ``|x - q*scale| <= scale/2`` (plus one rounding) always holds.

    Args:
        x: finite matrix (rows, columns).
        bits: 8 or 4.
        group_size: columns per scale; None is one scale a row.

    Raises:
        ValueError: for other bits, a group size that does not divide the columns, or values that are not finite.

    >>> q = quantize_groups([[127.0, -64.0, 7.0, 3.5]], bits=8, group_size=2)
    >>> q.values.tolist(), q.scales.shape
    ([[127, -64, 127, 64]], (1, 2))
    """
    values = float32("x", x, 2)
    if bits not in _LARGEST_QUANTUM:
        raise ValueError(f"bits: expected 8 or 4, got {bits}")
    if not np.isfinite(values).all():
        raise ValueError("x: expected finite values")
    rows, columns = values.shape
    width = max(columns, 1) if group_size is None else group_size
    expect_positive(group_size=width)
    if columns % width:
        raise ValueError(f"group_size: {width} does not divide {columns} columns")
    largest = np.float32(_LARGEST_QUANTUM[bits])
    groups = values.reshape(rows, columns // width, width)
    peak = np.max(np.abs(groups), axis=2, initial=np.float32(0))
    scales = np.maximum(peak / largest, _SMALLEST_NORMAL)
    codes = np.clip(np.rint(groups / scales[:, :, None]), -largest, largest)
    return QuantizedGroups(codes.reshape(rows, columns).astype(np.int8), scales, bits)


def dequantize_groups(quantized: QuantizedGroups) -> Float32Array:
    """Return ``q * scale`` as a float32 matrix (rows, columns).

    >>> dequantize_groups(quantize_groups([[14.0, -2.0]], bits=4)).tolist()
    [[14.0, -2.0]]
    """
    scales = np.repeat(quantized.scales, quantized.group_size, axis=1)
    return quantized.values.astype(np.float32) * scales


def pack_int4(values: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """Pack int4 codes (..., n) two to a byte, the even column in the low nibble; the result is (..., n / 2).

    Raises:
        ValueError: if the last axis is odd or a code lies outside -8…7.

    >>> pack_int4(np.array([1, -1], np.int8)).tolist()
    [241]
    """
    if values.ndim < 1 or values.shape[-1] % 2:
        raise ValueError(f"values: expected an even last axis, got shape {values.shape}")
    if values.size and (values.min() < -_NIBBLE_SIGN or values.max() >= _NIBBLE_SIGN):
        raise ValueError("values: int4 codes lie in -8…7")
    nibbles = (values.astype(np.int16) & _NIBBLE_MASK).astype(np.uint8)
    return (nibbles[..., 0::2] | (nibbles[..., 1::2] << _NIBBLE_BITS)).astype(np.uint8)


def unpack_int4(packed: npt.NDArray[np.uint8]) -> npt.NDArray[np.int8]:
    """Undo :func:`pack_int4`: bytes (..., n / 2) to int8 codes (..., n).

    >>> unpack_int4(np.array([241], np.uint8)).tolist()
    [1, -1]
    """
    nibbles = np.stack([packed & _NIBBLE_MASK, packed >> _NIBBLE_BITS], axis=-1)
    # Flipping the sign bit and subtracting it extends the sign without a branch.
    signed = (nibbles.astype(np.int8) ^ _NIBBLE_SIGN) - _NIBBLE_SIGN
    return signed.astype(np.int8).reshape(*packed.shape[:-1], packed.shape[-1] * 2)

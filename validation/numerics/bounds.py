"""Running error analysis: float64 values that carry a bound on the error of their float32 computation.

Every operation adds what its own rounding can contribute, ``u (|value| + error)`` with u = 2**-24, and what gradual
underflow can (half the smallest subnormal a product or quotient), to what it inherits from its operands (Higham,
*Accuracy and Stability of Numerical Algorithms*, 2nd ed., §3.3). Sums of n terms use ``gamma(n - 1)``, which holds for
every order of the additions; so do products of matrices. Nothing is fitted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Float64Array: TypeAlias = npt.NDArray[np.float64]

UNIT = 2.0**-24
"""Unit roundoff of float32."""

TINY = 2.0**-150
"""Half the smallest float32 subnormal."""

UNITS = {
    "fp32": 2.0**-24,
    "tf32": 2.0**-11,
    "bf16": 2.0**-8,
    "fp16": 2.0**-11,
    "fp8_e4m3": 2.0**-4,
    "fp8_e5m2": 2.0**-3,
}
"""Unit roundoff by format."""

TINIES = {
    "fp32": TINY,
    "tf32": 2.0**-137,
    "bf16": 2.0**-134,
    "fp16": 2.0**-25,
    "fp8_e4m3": 2.0**-10,
    "fp8_e5m2": 2.0**-17,
}
"""Half the smallest subnormal by format."""


def gamma(n: float, unit: float = UNIT) -> float:
    """Bound on the relative error of n accumulated roundings, ``n u / (1 - n u)``.

    >>> gamma(1, 0.25)
    0.3333333333333333
    """
    product = max(n, 0) * unit
    if product >= 1.0:
        raise ValueError(f"no bound on {n} roundings of {unit}")
    return product / (1.0 - product)


@dataclass(frozen=True, slots=True, eq=False)
class Bounded:
    """Float64 values and, element by element, how far a float32 computation may be from them."""

    value: Float64Array
    error: Float64Array

    @classmethod
    def exact(cls, x: npt.ArrayLike) -> Bounded:
        """Inputs, which have no error of their own."""
        value = np.asarray(x, np.float64)
        return cls(value, np.zeros_like(value))

    @property
    def high(self) -> Float64Array:
        """Largest magnitude that the computed number can have."""
        return np.abs(self.value) + self.error

    def rounded(self, unit: float = UNIT, tiny: float = 0.0) -> Bounded:
        """After one more rounding."""
        return Bounded(self.value, self.error + unit * self.high + tiny)

    def __add__(self, other: Any) -> Bounded:
        x = _bounded(other)
        return Bounded(self.value + x.value, self.error + x.error).rounded()

    def __sub__(self, other: Any) -> Bounded:
        return self + -_bounded(other)

    def __neg__(self) -> Bounded:
        return Bounded(-self.value, self.error)

    def __mul__(self, other: Any) -> Bounded:
        return self.times(other).rounded(tiny=TINY)

    def times(self, other: Any) -> Bounded:
        """The product before it is rounded."""
        x = _bounded(other)
        error = np.abs(self.value) * x.error + self.error * x.high
        return Bounded(self.value * x.value, error)

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other: Any) -> Bounded:
        return _bounded(other) - self

    def __truediv__(self, other: Any) -> Bounded:
        x = _bounded(other)
        value = self.value / x.value
        error = (self.error + np.abs(value) * x.error) / (np.abs(x.value) - x.error)
        return Bounded(value, np.where(np.abs(x.value) > x.error, error, np.inf)).rounded(tiny=TINY)

    def __matmul__(self, other: Any) -> Bounded:
        return self.product(_bounded(other))

    def product(self, other: Bounded, roundings: int | None = None) -> Bounded:
        """Matrix product with ``roundings`` on the way of every term; None is any order of the k additions."""
        k = self.value.shape[-1]
        inherited = np.abs(self.value) @ other.error + self.error @ other.high
        own = gamma(k if roundings is None else roundings) * (self.high @ other.high) + k * TINY
        return Bounded(self.value @ other.value, inherited + own)

    def sum(self, axis: int | tuple[int, ...], *, keepdims: bool = False) -> Bounded:
        """Sum over axes in any order."""
        n = int(np.prod([self.value.shape[a] for a in np.atleast_1d(axis)]))
        error = np.sum(self.error, axis=axis, keepdims=keepdims)
        error = error + gamma(n - 1) * np.sum(self.high, axis=axis, keepdims=keepdims)
        return Bounded(np.sum(self.value, axis=axis, keepdims=keepdims), np.asarray(error))

    def exp(self) -> Bounded:
        """Exponential in double, rounded once."""
        value = np.exp(self.value)
        return Bounded(value, value * np.expm1(self.error)).rounded(tiny=TINY)

    def log(self) -> Bounded:
        """Logarithm in double, rounded once."""
        low = self.value - self.error
        error = np.where(low > 0, self.error / np.where(low > 0, low, 1.0), np.inf)
        return Bounded(np.log(self.value), error).rounded(tiny=TINY)

    def inverse_root(self, floor: float) -> Bounded:
        """``1 / sqrt`` in double, rounded once; the computed argument is never below *floor*.

        The slope is steepest at the low end of the argument, and no result exceeds ``floor ** -0.5``.
        """
        low = np.maximum(self.value - self.error, floor)
        error = np.minimum(0.5 * self.error * low**-1.5, floor**-0.5)
        return Bounded(self.value**-0.5, error).rounded(tiny=TINY)

    def root(self) -> Bounded:
        """Square root: ``|sqrt(a) - sqrt(b)| <= |a - b| / sqrt(b)``, and never more than ``sqrt |a - b|``."""
        value = np.sqrt(self.value)
        error = np.minimum(np.sqrt(self.error), self.error / np.where(value > 0, value, np.inf))
        error = np.where(value > 0, error, np.sqrt(self.error))
        return Bounded(value, error).rounded()

    def through(self, function: Callable[[Float64Array], Float64Array], slope: float) -> Bounded:
        """A function whose derivative never exceeds ``slope``, evaluated in double and rounded once."""
        return Bounded(function(self.value), slope * self.error).rounded(tiny=TINY)

    def apply(self, function: Callable[[Any], Any]) -> Bounded:
        """Move elements (index, reshape, transpose, repeat) without arithmetic.

        >>> Bounded.exact([[1.0, 2.0]]).apply(np.transpose).value.shape
        (2, 1)
        """
        return Bounded(function(self.value), function(self.error))

    def __getitem__(self, index: Any) -> Bounded:
        return Bounded(self.value[index], self.error[index])

    @property
    def mT(self) -> Bounded:  # noqa: N802 - the array API's name
        """Last two axes exchanged."""
        return self.apply(lambda x: np.swapaxes(x, -1, -2))


def _bounded(x: Any) -> Bounded:
    return x if isinstance(x, Bounded) else Bounded.exact(x)


def stack(parts: list[Bounded], axis: int = 0) -> Bounded:
    """Join along a new axis."""
    return Bounded(np.stack([p.value for p in parts], axis), np.stack([p.error for p in parts], axis))


def join(parts: list[Bounded], axis: int) -> Bounded:
    """Join along an axis."""
    return Bounded(np.concatenate([p.value for p in parts], axis), np.concatenate([p.error for p in parts], axis))


def sigmoid(x: Float64Array) -> Float64Array:
    """Logistic function without overflow."""
    tail = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1.0, tail) / (1.0 + tail))


def silu(x: Float64Array) -> Float64Array:
    """``x sigmoid(x)``; its derivative stays within -0.1 and 1.1."""
    return x * sigmoid(x)


SILU_SLOPE = 1.1


def softmax_average(scores: Bounded, seen: npt.NDArray[np.bool_], values: Bounded) -> Bounded:
    """Softmax-weighted mean of values (keys, d) for scores (rows, keys), as an online softmax in float32 computes it.

    A weight is ``e^{s - m}`` up to the error of s, the rounding of the difference (at most u times twice the largest
    score), and factors ``e^{m - m'}`` whose exponents telescope; numerator and denominator see the same weights, so
    the ratio is off by a factor within ``e^{±2 off}``. A term passes at most 5 n + 16 other roundings (exponential,
    rescaling, addition, merge of partial results, quotient). Rows that see nothing are zeros.
    """
    n = scores.value.shape[-1]
    masked = np.where(seen, scores.value, -np.inf)
    any_seen = seen.any(axis=-1, keepdims=True)
    peak = np.where(any_seen, masked.max(axis=-1, keepdims=True, initial=-np.inf), 0.0)
    weights = np.exp(masked - peak)
    weights = weights / np.where(any_seen, weights.sum(axis=-1, keepdims=True), 1.0)
    largest = np.where(seen, scores.high, 0.0).max(axis=-1, keepdims=True, initial=0.0)
    off = np.where(seen, scores.error, 0.0).max(axis=-1, keepdims=True, initial=0.0)
    off = off + UNIT * (6.0 * largest + 4.0 * np.log(max(n, 2)))
    relative = np.expm1(2.0 * off) + gamma(5 * n + 16)
    magnitude = weights @ values.high + n * TINY * (1.0 + values.high.max(initial=0.0))
    return Bounded(weights @ values.value, relative * magnitude + weights @ values.error + (n + 1) * 2 * TINY)

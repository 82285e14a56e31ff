"""Element-wise activations: float32 in, evaluated in double, rounded once to float32.

Sources: Elfwing et al. (SiLU, 2017); Hendrycks & Gimpel (GELU, 2016); So et al., *Primer* (squared ReLU, 2021);
Shazeer, *GLU Variants Improve Transformer* (2020).
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from effsim.models._arrays import Float32Array, expect_shape, float32_any

_GELU_TANH_CUBIC = 0.044715


def _round(x: npt.NDArray[np.float64]) -> Float32Array:
    """Round to float32; results beyond its range become infinity, as hardware gives them."""
    with np.errstate(over="ignore"):
        return x.astype(np.float32)


def sigmoid(x: npt.ArrayLike) -> Float32Array:
    """Return ``1 / (1 + e^-x)`` for any shape; neither tail overflows.

    >>> sigmoid([0.0, -1000.0]).tolist()
    [0.5, 0.0]
    """
    return _round(_sigmoid64(float32_any("x", x).astype(np.float64)))


def _sigmoid64(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    tail = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1.0, tail) / (1.0 + tail))


def silu(x: npt.ArrayLike) -> Float32Array:
    """Return ``x * sigmoid(x)`` for any shape (finite values).

    >>> silu([0.0, 100.0]).tolist()
    [0.0, 100.0]
    """
    wide = float32_any("x", x).astype(np.float64)
    return _round(wide * _sigmoid64(wide))


def gelu(x: npt.ArrayLike, *, approximate: Literal["none", "tanh"] = "none") -> Float32Array:
    """Return GELU for any shape (finite values).

    ``none``: ``x Phi(x) = x/2 erfc(-x/sqrt(2))``; the complement keeps the left tail's digits.
    ``tanh``: ``x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))``.

    Raises:
        ValueError: for another ``approximate``.

    >>> gelu([0.0, 20.0]).tolist(), gelu([20.0], approximate="tanh").tolist()
    ([0.0, 20.0], [20.0])
    """
    wide = float32_any("x", x).astype(np.float64)
    if approximate == "none":
        from scipy.special import erfc  # scipy is slow to import and only this function needs it

        return _round(np.asarray(0.5 * wide * erfc(-wide / math.sqrt(2.0))))
    if approximate == "tanh":
        inner = math.sqrt(2.0 / math.pi) * (wide + _GELU_TANH_CUBIC * wide**3)
        return _round(0.5 * wide * (1.0 + np.tanh(inner)))
    raise ValueError(f"approximate: expected none or tanh, got {approximate!r}")


def relu2(x: npt.ArrayLike) -> Float32Array:
    """Return ``max(x, 0)**2`` for any shape.

    >>> relu2([-2.0, 3.0]).tolist()
    [0.0, 9.0]
    """
    return _round(np.maximum(float32_any("x", x).astype(np.float64), 0.0) ** 2)


def _gated(activated: Float32Array, up: npt.ArrayLike) -> Float32Array:
    other = float32_any("up", up)
    expect_shape("up", other, activated.shape)
    return activated * other


def swiglu(gate: npt.ArrayLike, up: npt.ArrayLike) -> Float32Array:
    """Return ``silu(gate) * up`` for two arrays of one shape; the product is rounded in float32.

    Raises:
        ValueError: if the shapes differ.

    >>> swiglu([100.0], [2.0]).tolist()
    [200.0]
    """
    return _gated(silu(gate), up)


def geglu(gate: npt.ArrayLike, up: npt.ArrayLike, *, approximate: Literal["none", "tanh"] = "none") -> Float32Array:
    """Return ``gelu(gate) * up`` for two arrays of one shape; the product is rounded in float32.

    Raises:
        ValueError: if the shapes differ or ``approximate`` is unknown.

    >>> geglu([20.0], [2.0]).tolist()
    [40.0]
    """
    return _gated(gelu(gate, approximate=approximate), up)

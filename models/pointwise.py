"""Row-wise operators by name, and the few that no other module holds.

Inputs are float32 matrices (rows, cols); transcendental functions are evaluated in double and rounded once; products
and sums are rounded in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from effsim.models._arrays import Float32Array, expect_shape, float32, float32_any
from effsim.models.activation import geglu, gelu, relu2, sigmoid, silu, swiglu
from effsim.models.norm import layernorm, rmsnorm
from effsim.models.rope import rope
from effsim.models.sampling import softmax


def _pair(x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Float32Array, Float32Array]:
    first, second = float32_any("x", x), float32_any("y", y)
    expect_shape("y", second, first.shape)
    return first, second


def relu(x: npt.ArrayLike) -> Float32Array:
    """``max(x, 0)``; NaN stays NaN.

    >>> relu([-1.0, 2.0]).tolist()
    [0.0, 2.0]
    """
    return np.maximum(float32_any("x", x), np.float32(0))


def softplus(x: npt.ArrayLike) -> Float32Array:
    """``log(1 + e^x)``; neither tail overflows.

    >>> softplus([1000.0, -1000.0]).tolist()
    [1000.0, 0.0]
    """
    wide = float32_any("x", x).astype(np.float64)
    return (np.maximum(wide, 0.0) + np.log1p(np.exp(-np.abs(wide)))).astype(np.float32)


def add(x: npt.ArrayLike, y: npt.ArrayLike) -> Float32Array:
    """``x + y``.

    >>> add([1.0], [2.0]).tolist()
    [3.0]
    """
    first, second = _pair(x, y)
    return first + second


def mul(x: npt.ArrayLike, y: npt.ArrayLike) -> Float32Array:
    """``x * y``.

    >>> mul([3.0], [2.0]).tolist()
    [6.0]
    """
    first, second = _pair(x, y)
    return first * second


def div(x: npt.ArrayLike, y: npt.ArrayLike) -> Float32Array:
    """``x / y``; division by zero gives infinity, or NaN for 0 / 0.

    >>> div([3.0], [2.0]).tolist()
    [1.5]
    """
    first, second = _pair(x, y)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
        return first / second


def exp(x: npt.ArrayLike) -> Float32Array:
    """``e^x``, in double and rounded once.

    >>> exp([0.0]).tolist()
    [1.0]
    """
    with np.errstate(over="ignore", under="ignore"):
        return np.exp(float32_any("x", x).astype(np.float64)).astype(np.float32)


def bias(x: npt.ArrayLike, offset: npt.ArrayLike) -> Float32Array:
    """Rows ``[rows, cols]`` plus learned numbers ``[cols]``.

    >>> bias([[1.0, 2.0]], [10.0, 20.0]).tolist()
    [[11.0, 22.0]]
    """
    rows, learned = float32("x", x, 2), float32("offset", offset, 1)
    expect_shape("offset", learned, (rows.shape[1],))
    return rows + learned


def row_sum(x: npt.ArrayLike) -> Float32Array:
    """Sum of each row of ``[rows, cols]``, pair by pair, so that the error grows with log(cols).

    >>> row_sum([[1.0, 2.0, 3.0]]).tolist()
    [6.0]
    """
    values = float32("x", x, 2)
    while values.shape[1] > 1:
        half = values.shape[1] // 2
        rest = values[:, 2 * half :]
        values = np.concatenate([values[:, : 2 * half : 2] + values[:, 1 : 2 * half : 2], rest], axis=1)
    return values[:, 0].copy() if values.shape[1] else np.zeros(values.shape[0], np.float32)


def copy(x: npt.ArrayLike) -> Float32Array:
    """A copy.

    >>> copy([1.0]).tolist()
    [1.0]
    """
    return float32_any("x", x).copy()


def scale(x: npt.ArrayLike, factor: float) -> Float32Array:
    """``x * factor``, the factor rounded to float32 first.

    >>> scale([3.0], 0.5).tolist()
    [1.5]
    """
    return float32_any("x", x) * np.float32(factor)


def relu_mul(gate: npt.ArrayLike, up: npt.ArrayLike) -> Float32Array:
    """``relu(gate) * up`` (ReGLU).

    >>> relu_mul([-1.0, 2.0], [5.0, 5.0]).tolist()
    [0.0, 10.0]
    """
    first, second = _pair(gate, up)
    return relu(first) * second


def log_softmax(x: npt.ArrayLike) -> Float32Array:
    """``x - max - log(sum e^(x - max))`` along the last axis; a row of nothing but ``-inf`` stays so.

    >>> log_softmax([[5.0]]).tolist()
    [[0.0]]
    """
    values = float32_any("x", x)
    if np.isnan(values).any() or np.isposinf(values).any():
        raise ValueError("x: expected no NaN and no +inf")
    peak = np.max(values, axis=-1, keepdims=True, initial=-np.inf)
    shifted = values - np.where(np.isneginf(peak), np.float32(0), peak)
    total = np.sum(np.exp(shifted.astype(np.float64)).astype(np.float32), axis=-1, keepdims=True)
    return shifted - np.log(np.where(total > 0, total, 1).astype(np.float64)).astype(np.float32)


def dropout(x: npt.ArrayLike, mask: npt.ArrayLike, probability: float) -> Float32Array:
    """``mask * x / (1 - probability)``; the mask (zeros and ones) is an input, so that a backward can use it again.

    >>> dropout([1.0, 2.0], [1, 0], 0.5).tolist()
    [2.0, 0.0]
    """
    if not 0.0 <= probability < 1.0:
        raise ValueError(f"probability: expected 0 <= p < 1, got {probability}")
    first, second = _pair(x, mask)
    return np.where(second != 0, first * np.float32(1.0 / (1.0 - probability)), np.float32(0))


def add_rmsnorm(
    x: npt.ArrayLike, residual: npt.ArrayLike, weight: npt.ArrayLike, *, eps: float = 1e-6
) -> tuple[Float32Array, Float32Array]:
    """RMSNorm of ``x + residual``, and that sum.

    >>> [y.tolist() for y in add_rmsnorm([[1.0]], [[2.0]], [1.0], eps=1e-12)]
    [[[1.0]], [[3.0]]]
    """
    total = add(x, residual)
    return rmsnorm(total, weight, eps=eps), total


def add_layernorm(
    x: npt.ArrayLike,
    residual: npt.ArrayLike,
    weight: npt.ArrayLike,
    bias: npt.ArrayLike | None = None,
    *,
    eps: float = 1e-5,
) -> tuple[Float32Array, Float32Array]:
    """LayerNorm of ``x + residual``, and that sum.

    >>> [y.tolist() for y in add_layernorm([[1.0, 2.0]], [[0.0, 1.0]], [1.0, 1.0], eps=1e-12)]
    [[[-1.0, 1.0]], [[1.0, 3.0]]]
    """
    total = add(x, residual)
    return layernorm(total, weight, bias, eps=eps), total


def gated_rmsnorm(
    x: npt.ArrayLike, gate: npt.ArrayLike, weight: npt.ArrayLike, *, eps: float = 1e-6, gate_first: bool = True
) -> Float32Array:
    """``rmsnorm(x silu(gate))`` (Mamba-2), or ``rmsnorm(x) silu(gate)`` unless ``gate_first``.

    >>> gated_rmsnorm([[2.0]], [[100.0]], [1.0], eps=1e-12).tolist()
    [[1.0]]
    """
    rows, opening = float32("x", x, 2), silu(float32("gate", gate, 2))
    expect_shape("gate", opening, rows.shape)
    return rmsnorm(rows * opening, weight, eps=eps) if gate_first else rmsnorm(rows, weight, eps=eps) * opening


def gelu_tanh(x: npt.ArrayLike) -> Float32Array:
    """GELU by the tanh formula.

    >>> gelu_tanh([0.0]).tolist()
    [0.0]
    """
    return gelu(x, approximate="tanh")


FORWARD: Final[MappingProxyType[str, Callable[..., Any]]] = MappingProxyType(
    {
        "layernorm": layernorm,
        "rmsnorm": rmsnorm,
        "add_layernorm": add_layernorm,
        "add_rmsnorm": add_rmsnorm,
        "gated_rmsnorm": gated_rmsnorm,
        "softmax": softmax,
        "log_softmax": log_softmax,
        "gelu_tanh": gelu_tanh,
        "gelu": gelu,
        "silu": silu,
        "relu": relu,
        "relu2": relu2,
        "sigmoid": sigmoid,
        "softplus": softplus,
        "silu_mul": swiglu,
        "gelu_mul": geglu,
        "relu_mul": relu_mul,
        "add": add,
        "mul": mul,
        "div": div,
        "exp": exp,
        "bias": bias,
        "sum": row_sum,
        "copy": copy,
        "scale": scale,
        "rope": rope,
        "dropout": dropout,
    }
)
"""Function of every element-wise kind of the graph."""

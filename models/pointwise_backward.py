"""Gradients of the row-wise operators: derivatives evaluated in double and rounded once, then products in float32."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from effsim.models._arrays import Float32Array, expect_shape, float32, float32_any
from effsim.models.activation import gelu, silu
from effsim.models.pointwise import dropout, relu, row_sum, scale
from effsim.models.rope import Style, rope

Float64Array = npt.NDArray[np.float64]


def _sigmoid64(x: Float64Array) -> Float64Array:
    tail = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1.0, tail) / (1.0 + tail))


def _silu_slope(x: Float64Array) -> Float64Array:
    s = _sigmoid64(x)
    return s * (1.0 + x * (1.0 - s))


def _gelu_slope(x: Float64Array) -> Float64Array:
    from scipy.special import erfc  # scipy is slow to import and only this function needs it

    phi = np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)
    return np.asarray(0.5 * erfc(-x / math.sqrt(2.0)) + x * phi)


def _gelu_tanh_slope(x: Float64Array) -> Float64Array:
    rate = math.sqrt(2.0 / math.pi)
    t = np.tanh(rate * (x + 0.044715 * x**3))
    return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * rate * (1.0 + 3.0 * 0.044715 * x * x)


SLOPES: Final[MappingProxyType[str, Callable[[Float64Array], Float64Array]]] = MappingProxyType(
    {
        "relu": lambda x: (x > 0).astype(np.float64),
        "relu2": lambda x: 2.0 * np.maximum(x, 0.0),
        "sigmoid": lambda x: _sigmoid64(x) * _sigmoid64(-x),
        "softplus": _sigmoid64,
        "silu": _silu_slope,
        "gelu": _gelu_slope,
        "gelu_tanh": _gelu_tanh_slope,
    }
)
"""Derivatives of the activations."""


def slope(kind: str, x: npt.ArrayLike) -> Float32Array:
    """Derivative of an activation, in double, rounded once.

    >>> slope("silu", [0.0]).tolist(), slope("relu", [0.0, 2.0]).tolist()
    ([0.5], [0.0, 1.0])
    """
    if kind not in SLOPES:
        raise ValueError(f"kind: unknown {kind!r}, expected one of {', '.join(SLOPES)}")
    return SLOPES[kind](float32_any("x", x).astype(np.float64)).astype(np.float32)


def activation_backward(kind: str, x: npt.ArrayLike, grad: npt.ArrayLike) -> Float32Array:
    """``grad * slope(x)``.

    >>> activation_backward("relu2", [3.0], [2.0]).tolist()
    [12.0]
    """
    upstream = float32_any("grad", grad)
    own = slope(kind, x)
    expect_shape("grad", upstream, own.shape)
    return upstream * own


def _gated(
    value: Float32Array, own: Float32Array, up: npt.ArrayLike, grad: npt.ArrayLike
) -> tuple[Float32Array, Float32Array]:
    other, upstream = float32_any("up", up), float32_any("grad", grad)
    expect_shape("up", other, value.shape)
    expect_shape("grad", upstream, value.shape)
    return upstream * other * own, upstream * value


def swiglu_backward(gate: npt.ArrayLike, up: npt.ArrayLike, grad: npt.ArrayLike) -> tuple[Float32Array, Float32Array]:
    """Gradients of ``silu(gate) * up``.

    >>> [x.tolist() for x in swiglu_backward([0.0], [2.0], [3.0])]
    [[3.0], [0.0]]
    """
    return _gated(silu(gate), slope("silu", gate), up, grad)


def geglu_backward(gate: npt.ArrayLike, up: npt.ArrayLike, grad: npt.ArrayLike) -> tuple[Float32Array, Float32Array]:
    """Gradients of ``gelu(gate) * up``.

    >>> [x.tolist() for x in geglu_backward([0.0], [2.0], [3.0])]
    [[3.0], [0.0]]
    """
    return _gated(gelu(gate), slope("gelu", gate), up, grad)


def reglu_backward(gate: npt.ArrayLike, up: npt.ArrayLike, grad: npt.ArrayLike) -> tuple[Float32Array, Float32Array]:
    """Gradients of ``relu(gate) * up``.

    >>> [x.tolist() for x in reglu_backward([4.0], [2.0], [3.0])]
    [[6.0], [12.0]]
    """
    return _gated(relu(gate), slope("relu", gate), up, grad)


def softmax_backward(y: npt.ArrayLike, grad: npt.ArrayLike) -> Float32Array:
    """``y (grad - sum y grad)`` along the last axis, y being the softmax.

    >>> softmax_backward([0.5, 0.5], [1.0, 0.0]).tolist()
    [0.25, -0.25]
    """
    out, upstream = float32_any("y", y), float32_any("grad", grad)
    expect_shape("grad", upstream, out.shape)
    inner: Float32Array = np.sum(out * upstream, axis=-1, keepdims=True)
    return out * (upstream - inner)


def log_softmax_backward(y: npt.ArrayLike, grad: npt.ArrayLike) -> Float32Array:
    """``grad - e^y sum grad`` along the last axis, y being the log-softmax.

    >>> log_softmax_backward([0.0], [3.0]).tolist()
    [0.0]
    """
    out, upstream = float32_any("y", y), float32_any("grad", grad)
    expect_shape("grad", upstream, out.shape)
    total: Float32Array = np.sum(upstream, axis=-1, keepdims=True)
    return upstream - np.exp(out.astype(np.float64)).astype(np.float32) * total


def _inverse_root(mean: Float32Array, eps: float) -> Float32Array:
    return (1.0 / np.sqrt((mean + np.float32(eps)).astype(np.float64))).astype(np.float32)


def rmsnorm_backward(
    x: npt.ArrayLike, weight: npt.ArrayLike, grad: npt.ArrayLike, *, eps: float = 1e-6
) -> tuple[Float32Array, Float32Array]:
    """Gradients of x (rows, cols) and weight (cols,): ``r (w g - n mean(w g n))`` and ``sum g n`` with ``n = x r``.

    >>> dx, dw = rmsnorm_backward([[2.0, 2.0]], [1.0, 1.0], [[1.0, 1.0]], eps=1e-12)
    >>> dx.tolist(), dw.tolist()
    ([[0.0, 0.0]], [1.0, 1.0])
    """
    rows, gain, upstream = float32("x", x, 2), float32("weight", weight, 1), float32("grad", grad, 2)
    expect_shape("weight", gain, (rows.shape[1],))
    expect_shape("grad", upstream, rows.shape)
    columns = np.float32(rows.shape[1])
    root = _inverse_root(np.sum(rows * rows, axis=1) / columns, eps)[:, None]
    normal, weighted = rows * root, upstream * gain
    inner = np.sum(weighted * normal, axis=1, keepdims=True) / columns
    return root * (weighted - normal * inner), np.sum(upstream * normal, axis=0)


def layernorm_backward(
    x: npt.ArrayLike, weight: npt.ArrayLike, grad: npt.ArrayLike, *, eps: float = 1e-5
) -> tuple[Float32Array, Float32Array, Float32Array]:
    """Gradients of x (rows, cols), weight and bias (cols,).

    ``r (w g - mean(w g) - n mean(w g n))``, ``sum g n`` and ``sum g`` with ``n = (x - mean) r``.

    >>> dx, dw, db = layernorm_backward([[1.0, 3.0]], [1.0, 1.0], [[1.0, 1.0]], eps=1e-12)
    >>> dx.tolist(), dw.tolist(), db.tolist()
    ([[0.0, 0.0]], [-1.0, 1.0], [1.0, 1.0])
    """
    rows, gain, upstream = float32("x", x, 2), float32("weight", weight, 1), float32("grad", grad, 2)
    expect_shape("weight", gain, (rows.shape[1],))
    expect_shape("grad", upstream, rows.shape)
    columns = np.float32(rows.shape[1])
    centred = rows - np.sum(rows, axis=1, keepdims=True) / columns
    root = _inverse_root(np.sum(centred * centred, axis=1) / columns, eps)[:, None]
    normal, weighted = centred * root, upstream * gain
    mean = np.sum(weighted, axis=1, keepdims=True) / columns
    inner = np.sum(weighted * normal, axis=1, keepdims=True) / columns
    return root * (weighted - mean - normal * inner), np.sum(upstream * normal, axis=0), np.sum(upstream, axis=0)


def gated_rmsnorm_backward(
    x: npt.ArrayLike, gate: npt.ArrayLike, weight: npt.ArrayLike, grad: npt.ArrayLike, *, eps: float = 1e-6
) -> tuple[Float32Array, Float32Array, Float32Array]:
    """Gradients of x, gate and weight of ``rmsnorm(x silu(gate))``.

    >>> dx, dg, dw = gated_rmsnorm_backward([[2.0]], [[0.0]], [1.0], [[1.0]], eps=1.0)
    >>> dx.tolist(), dg.tolist(), dw.tolist()
    ([[0.0]], [[1.0]], [0.0])
    """
    rows, opening = float32("x", x, 2), float32("gate", gate, 2)
    to_product, to_weight = rmsnorm_backward(rows * silu(opening), weight, grad, eps=eps)
    to_gate, to_x = swiglu_backward(opening, rows, to_product)
    return to_x, to_gate, to_weight


def rope_backward(
    grad: npt.ArrayLike,
    positions: npt.ArrayLike,
    *,
    base: float = 10000.0,
    fraction: float = 1.0,
    style: Style = "half",
) -> Float32Array:
    """Turn the gradient (batch, length, heads, head_dim) back: a rotation's inverse is that by the negative angle.

    >>> rope_backward(np.ones((1, 1, 1, 2)), [0]).ravel().tolist()
    [1.0, 1.0]
    """
    return rope(grad, -np.asarray(positions), base=base, fraction=fraction, style=style)


def mul_backward(x: npt.ArrayLike, y: npt.ArrayLike, grad: npt.ArrayLike) -> tuple[Float32Array, Float32Array]:
    """``grad * y`` and ``grad * x``.

    >>> [d.tolist() for d in mul_backward([2.0], [3.0], [10.0])]
    [[30.0], [20.0]]
    """
    upstream = float32_any("grad", grad)
    return upstream * float32_any("y", y), upstream * float32_any("x", x)


def div_backward(x: npt.ArrayLike, y: npt.ArrayLike, grad: npt.ArrayLike) -> tuple[Float32Array, Float32Array]:
    """Gradients of both factors of ``x / y``: ``grad / y`` and ``-grad x / y²``, in double, rounded once.

    >>> [g.tolist() for g in div_backward([3.0], [2.0], [4.0])]
    [[2.0], [-3.0]]
    """
    top, bottom, seed = (float32_any(n, v).astype(np.float64) for n, v in (("x", x), ("y", y), ("grad", grad)))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
        return (seed / bottom).astype(np.float32), (-seed * top / (bottom * bottom)).astype(np.float32)


def exp_backward(y: npt.ArrayLike, grad: npt.ArrayLike) -> Float32Array:
    """Gradient of ``e^x`` from its *result* y: ``grad y``.

    >>> exp_backward([2.0], [3.0]).tolist()
    [6.0]
    """
    return float32_any("y", y) * float32_any("grad", grad)


def bias_backward(grad: npt.ArrayLike) -> tuple[Float32Array, Float32Array]:
    """Gradients of the rows and of the learned numbers: *grad* ``[rows, cols]`` itself and its sum over rows.

    >>> [g.tolist() for g in bias_backward([[1.0], [2.0]])]
    [[[1.0], [2.0]], [3.0]]
    """
    rows = float32("grad", grad, 2)
    return rows.copy(), row_sum(rows.T)


def sum_backward(grad: npt.ArrayLike, cols: int) -> Float32Array:
    """Gradient of a row sum: *grad* ``[rows]`` in every one of *cols* columns.

    >>> sum_backward([3.0], 2).tolist()
    [[3.0, 3.0]]
    """
    return np.repeat(float32("grad", grad, 1)[:, None], cols, axis=1)


def add_backward(grad: npt.ArrayLike) -> tuple[Float32Array, Float32Array]:
    """The gradient, twice.

    >>> [d.tolist() for d in add_backward([1.0])]
    [[1.0], [1.0]]
    """
    upstream = float32_any("grad", grad)
    return upstream, upstream.copy()


def copy_backward(grad: npt.ArrayLike) -> Float32Array:
    """The gradient.

    >>> copy_backward([1.0]).tolist()
    [1.0]
    """
    return float32_any("grad", grad).copy()


def add_rmsnorm_backward(
    total: npt.ArrayLike, weight: npt.ArrayLike, grad: npt.ArrayLike, grad_total: npt.ArrayLike, *, eps: float = 1e-6
) -> tuple[Float32Array, Float32Array]:
    """Gradients of either addend and of the weight; ``grad_total`` arrives at the sum beside the norm.

    >>> add_rmsnorm_backward([[2.0, 2.0]], [1.0, 1.0], [[1.0, 1.0]], [[5.0, 6.0]], eps=1e-12)[0].tolist()
    [[5.0, 6.0]]
    """
    to_sum, to_weight = rmsnorm_backward(total, weight, grad, eps=eps)
    return to_sum + float32("grad_total", grad_total, 2), to_weight


def add_layernorm_backward(
    total: npt.ArrayLike, weight: npt.ArrayLike, grad: npt.ArrayLike, grad_total: npt.ArrayLike, *, eps: float = 1e-5
) -> tuple[Float32Array, Float32Array, Float32Array]:
    """Gradients of either addend, of the weight and of the bias.

    >>> add_layernorm_backward([[1.0, 3.0]], [1.0, 1.0], [[1.0, 1.0]], [[5.0, 6.0]], eps=1e-12)[0].tolist()
    [[5.0, 6.0]]
    """
    to_sum, to_weight, to_bias = layernorm_backward(total, weight, grad, eps=eps)
    return to_sum + float32("grad_total", grad_total, 2), to_weight, to_bias


def dropout_backward(grad: npt.ArrayLike, mask: npt.ArrayLike, probability: float) -> Float32Array:
    """The gradient through the same mask.

    >>> dropout_backward([1.0, 2.0], [1, 0], 0.5).tolist()
    [2.0, 0.0]
    """
    return dropout(grad, mask, probability)


BACKWARD: Final[MappingProxyType[str, Callable[..., Any]]] = MappingProxyType(
    {
        "layernorm": layernorm_backward,
        "rmsnorm": rmsnorm_backward,
        "add_layernorm": add_layernorm_backward,
        "add_rmsnorm": add_rmsnorm_backward,
        "gated_rmsnorm": gated_rmsnorm_backward,
        "softmax": softmax_backward,
        "log_softmax": log_softmax_backward,
        **dict.fromkeys(SLOPES, activation_backward),
        "silu_mul": swiglu_backward,
        "gelu_mul": geglu_backward,
        "relu_mul": reglu_backward,
        "add": add_backward,
        "div": div_backward,
        "exp": exp_backward,
        "bias": bias_backward,
        "sum": sum_backward,
        "mul": mul_backward,
        "copy": copy_backward,
        "scale": scale,
        "rope": rope_backward,
        "dropout": dropout_backward,
    }
)
"""Function of every element-wise kind's backward."""

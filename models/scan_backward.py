"""Gradients of the scans: states are made again from the inputs, then swept in reverse, as fused kernels do.

Selective scan: Gu & Dao (2023), §3.3 (recomputation); SSD: Dao & Gu (2024); gated delta rule: Yang et al. (2024). Each
reverse step applies the transpose of one forward step; sums over channels, heads or state are numpy's pairwise sums.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from effsim.models._arrays import Float32Array, expect_shape, float32, group_size
from effsim.models.fftconv import long_conv


def _exp(x: npt.NDArray[np.float64]) -> Float32Array:
    return np.exp(x).astype(np.float32)


@dataclass(frozen=True, slots=True)
class ScanGradients:
    """Gradients of a selective scan, shaped as its inputs."""

    u: Float32Array
    delta: Float32Array
    a: Float32Array
    b: Float32Array
    c: Float32Array


def selective_scan_backward(
    u: npt.ArrayLike, delta: npt.ArrayLike, a: npt.ArrayLike, b: npt.ArrayLike, c: npt.ArrayLike, grad: npt.ArrayLike
) -> ScanGradients:
    """Gradients of :func:`effsim.models.scan.selective_scan` without skip, gate and softplus, from a state of zeros.

    Args:
        u: (batch, length, channels).
        delta: (batch, length, channels).
        a: (channels, state).
        b: (batch, length, state).
        c: (batch, length, state).
        grad: (batch, length, channels).

    Raises:
        ValueError: for shapes that do not fit together.

    >>> one = np.ones((1, 1, 1))
    >>> selective_scan_backward(2 * one, one, [[0.0]], one, one, one).delta.item()
    2.0
    """
    inputs, steps, rates = float32("u", u, 3), float32("delta", delta, 3), float32("a", a, 2)
    to_state, to_output, upstream = float32("b", b, 3), float32("c", c, 3), float32("grad", grad, 3)
    batch, length, channels = inputs.shape
    expect_shape("delta", steps, inputs.shape)
    expect_shape("grad", upstream, inputs.shape)
    expect_shape("b", to_state, (batch, length, rates.shape[1]))
    expect_shape("c", to_output, to_state.shape)
    expect_shape("a", rates, (channels, rates.shape[1]))
    states = np.zeros((length + 1, batch, channels, rates.shape[1]), np.float32)
    decays = np.empty(states[1:].shape, np.float32)
    for t in range(length):
        decays[t] = _exp(steps[:, t, :, None].astype(np.float64) * rates)
        inflow = (steps[:, t] * inputs[:, t])[..., None] * to_state[:, t, None]
        states[t + 1] = decays[t] * states[t] + inflow
    out = ScanGradients(*(np.zeros_like(x) for x in (inputs, steps, rates, to_state, to_output)))
    carried = np.zeros(states.shape[1:], np.float32)
    for t in range(length - 1, -1, -1):
        out.c[:, t] = np.sum(upstream[:, t, :, None] * states[t + 1], axis=1)
        carried = carried + upstream[:, t, :, None] * to_output[:, t, None]
        faded = carried * states[t] * decays[t]
        through = np.sum(carried * to_state[:, t, None], axis=2)
        out.u[:, t] = through * steps[:, t]
        out.delta[:, t] = np.sum(faded * rates, axis=2) + through * inputs[:, t]
        out.a[:] += np.sum(faded * steps[:, t, :, None], axis=0)
        out.b[:, t] = np.sum(carried * (steps[:, t] * inputs[:, t])[..., None], axis=1)
        carried = carried * decays[t]
    return out


@dataclass(frozen=True, slots=True)
class SsdGradients:
    """Gradients of an SSD scan, shaped as its inputs."""

    x: Float32Array
    dt: Float32Array
    a: Float32Array
    b: Float32Array
    c: Float32Array


def ssd_backward(
    x: npt.ArrayLike, dt: npt.ArrayLike, a: npt.ArrayLike, b: npt.ArrayLike, c: npt.ArrayLike, grad: npt.ArrayLike
) -> SsdGradients:
    """Gradients of :func:`effsim.models.ssd.ssd_scan` without skip, from a state of zeros.

    Args:
        x: (batch, length, heads, head_dim).
        dt: (batch, length, heads).
        a: (heads,).
        b: (batch, length, groups, state).
        c: (batch, length, groups, state).
        grad: (batch, length, heads, head_dim).

    Raises:
        ValueError: for shapes that do not fit together.

    >>> one = np.ones((1, 1, 1, 1))
    >>> ssd_backward(2 * one, one[..., 0], [0.0], one, one, one).dt.item()
    2.0
    """
    inputs, steps, rates = float32("x", x, 4), float32("dt", dt, 3), float32("a", a, 1)
    to_state, to_output, upstream = float32("b", b, 4), float32("c", c, 4), float32("grad", grad, 4)
    batch, length, heads, dim = inputs.shape
    expect_shape("dt", steps, (batch, length, heads))
    expect_shape("a", rates, (heads,))
    expect_shape("grad", upstream, inputs.shape)
    expect_shape("c", to_output, to_state.shape)
    share = group_size("b", heads, to_state.shape[2])
    wide_b, wide_c = np.repeat(to_state, share, axis=2), np.repeat(to_output, share, axis=2)
    states = np.zeros((length + 1, batch, heads, dim, to_state.shape[3]), np.float32)
    decays = _exp(steps.astype(np.float64) * rates)
    for t in range(length):
        inflow = (steps[:, t, :, None] * inputs[:, t])[..., None] * wide_b[:, t, :, None]
        states[t + 1] = decays[:, t, :, None, None] * states[t] + inflow
    to_x, to_dt, to_a = np.zeros_like(inputs), np.zeros_like(steps), np.zeros_like(rates)
    to_b, to_c = np.zeros_like(wide_b), np.zeros_like(wide_b)
    carried = np.zeros(states.shape[1:], np.float32)
    for t in range(length - 1, -1, -1):
        to_c[:, t] = np.sum(upstream[:, t, :, :, None] * states[t + 1], axis=2)
        carried = carried + upstream[:, t, :, :, None] * wide_c[:, t, :, None]
        faded = np.sum(carried * states[t], axis=(2, 3)) * decays[:, t]
        through = np.sum(carried * wide_b[:, t, :, None], axis=3)
        to_x[:, t] = through * steps[:, t, :, None]
        to_dt[:, t] = faded * rates + np.sum(through * inputs[:, t], axis=2)
        to_a += np.sum(faded * steps[:, t], axis=0)
        to_b[:, t] = np.sum(carried * (steps[:, t, :, None] * inputs[:, t])[..., None], axis=2)
        carried = carried * decays[:, t, :, None, None]
    folded = (batch, length, to_state.shape[2], share, to_state.shape[3])
    return SsdGradients(to_x, to_dt, to_a, np.sum(to_b.reshape(folded), 3), np.sum(to_c.reshape(folded), 3))


@dataclass(frozen=True, slots=True)
class DeltaGradients:
    """Gradients of the gated delta rule, shaped as its inputs."""

    q: Float32Array
    k: Float32Array
    v: Float32Array
    g: Float32Array
    beta: Float32Array


def gated_delta_backward(
    q: npt.ArrayLike,
    k: npt.ArrayLike,
    v: npt.ArrayLike,
    g: npt.ArrayLike,
    beta: npt.ArrayLike,
    grad: npt.ArrayLike,
    *,
    scale: float | None = None,
) -> DeltaGradients:
    """Gradients of :func:`effsim.models.delta.gated_delta` with as many key heads as value heads, from zeros.

    Args:
        q: (batch, length, heads, key_dim).
        k: (batch, length, heads, key_dim).
        v: (batch, length, heads, value_dim).
        g: (batch, length, heads).
        beta: (batch, length, heads).
        grad: (batch, length, heads, value_dim).
        scale: factor on the outputs; None is ``1/sqrt(key_dim)``.

    Raises:
        ValueError: for shapes that do not fit together.

    >>> one = np.ones((1, 1, 1, 1))
    >>> gated_delta_backward(one, one, 3 * one, 0 * one[..., 0], one[..., 0], one).beta.item()
    3.0
    """
    queries, keys, values = float32("q", q, 4), float32("k", k, 4), float32("v", v, 4)
    gates, strengths, upstream = float32("g", g, 3), float32("beta", beta, 3), float32("grad", grad, 4)
    batch, length, heads, dim = keys.shape
    expect_shape("q", queries, keys.shape)
    expect_shape("v", values, (batch, length, heads, values.shape[3]))
    expect_shape("g", gates, (batch, length, heads))
    expect_shape("beta", strengths, gates.shape)
    expect_shape("grad", upstream, values.shape)
    factor = np.float32(1.0 / math.sqrt(max(dim, 1)) if scale is None else scale)
    decays = _exp(gates.astype(np.float64))
    faded = np.zeros((length, batch, heads, dim, values.shape[3]), np.float32)
    states, errors = np.zeros((length + 1, *faded.shape[1:]), np.float32), np.zeros_like(values)
    for t in range(length):
        faded[t] = decays[:, t, :, None, None] * states[t]
        errors[:, t] = values[:, t] - np.sum(faded[t] * keys[:, t, :, :, None], axis=2)
        write = strengths[:, t, :, None] * errors[:, t]
        states[t + 1] = faded[t] + keys[:, t, :, :, None] * write[:, :, None]
    out = DeltaGradients(*(np.zeros_like(x) for x in (queries, keys, values, gates, strengths)))
    carried = np.zeros(states.shape[1:], np.float32)
    for t in range(length - 1, -1, -1):
        scaled = factor * upstream[:, t]
        out.q[:, t] = np.sum(states[t + 1] * scaled[:, :, None], axis=3)
        carried = carried + queries[:, t, :, :, None] * scaled[:, :, None]
        to_write = np.sum(carried * keys[:, t, :, :, None], axis=2)
        out.beta[:, t] = np.sum(to_write * errors[:, t], axis=2)
        out.v[:, t] = strengths[:, t, :, None] * to_write
        write = strengths[:, t, :, None] * errors[:, t]
        out.k[:, t] = np.sum(carried * write[:, :, None], axis=3) - np.sum(faded[t] * out.v[:, t, :, None], axis=3)
        carried = carried - keys[:, t, :, :, None] * out.v[:, t, :, None]
        out.g[:, t] = np.sum(carried * faded[t], axis=(2, 3))
        carried = decays[:, t, :, None, None] * carried
    return out


def causal_conv1d_backward(
    x: npt.ArrayLike, weight: npt.ArrayLike, grad: npt.ArrayLike
) -> tuple[Float32Array, Float32Array, Float32Array]:
    """Gradients of x, weight and bias of :func:`effsim.models.conv.causal_conv1d` without state and activation.

    Args:
        x: (batch, length, channels).
        weight: (channels, kernel), the newest token's tap last.
        grad: (batch, length, channels).

    Raises:
        ValueError: for shapes that do not fit together.

    >>> dx, dw, db = causal_conv1d_backward([[[1.0], [2.0]]], [[10.0, 1.0]], [[[1.0], [1.0]]])
    >>> dx.ravel().tolist(), dw.tolist(), db.tolist()
    ([11.0, 1.0], [[1.0, 3.0]], [2.0])
    """
    inputs, taps, upstream = float32("x", x, 3), float32("weight", weight, 2), float32("grad", grad, 3)
    expect_shape("grad", upstream, inputs.shape)
    expect_shape("weight", taps, (inputs.shape[2], taps.shape[1]))
    length, width = inputs.shape[1], taps.shape[1]
    to_x, to_weight = np.zeros_like(inputs), np.zeros_like(taps)
    for j in range(width):
        back = width - 1 - j  # tap j meets the input so many tokens ago
        if back < length:
            to_x[:, : length - back] += taps[:, j] * upstream[:, back:]
            to_weight[:, j] = np.sum(upstream[:, back:] * inputs[:, : length - back], axis=(0, 1))
    return to_x, to_weight, np.sum(upstream, axis=(0, 1))


def long_conv_backward(x: npt.ArrayLike, taps: npt.ArrayLike, grad: npt.ArrayLike) -> tuple[Float32Array, Float32Array]:
    """Gradients of x and taps of :func:`effsim.models.fftconv.long_conv`: two more convolutions, in reversed time.

    Args:
        x: (batch, length, channels).
        taps: (channels, k) with k at most length.
        grad: (batch, length, channels).

    Raises:
        ValueError: for shapes that do not fit together.

    >>> dx, dh = long_conv_backward([[[1.0], [2.0]]], [[1.0, 10.0]], [[[1.0], [1.0]]])
    >>> dx.ravel().round(3).tolist(), dh.round(3).tolist()
    ([11.0, 1.0], [[3.0, 1.0]])
    """
    signal, filters, upstream = float32("x", x, 3), float32("taps", taps, 2), float32("grad", grad, 3)
    expect_shape("grad", upstream, signal.shape)
    batch, length, channels = signal.shape
    if filters.shape[1] > length:
        raise ValueError(f"taps: expected at most {length}, as many as tokens, got {filters.shape[1]}")
    to_x = long_conv(upstream[:, ::-1], filters)[:, ::-1]
    to_taps = np.zeros((channels, length), np.float32)
    for i in range(batch):
        # sum_t grad_t x_{t-j} is a causal convolution of the reversed gradient with the input, read from its end
        to_taps += long_conv(upstream[None, i, ::-1], signal[i].T)[0, ::-1].T
    return np.ascontiguousarray(to_x), to_taps[:, : filters.shape[1]].copy()

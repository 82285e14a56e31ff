"""Selective scan (Mamba-1), recurrent and chunked.

Source: Gu & Dao, *Mamba: Linear-Time Sequence Modeling with Selective State Spaces* (2023), §3. Per channel d and state
n, with zero-order hold on A and Euler's rule on B:

    h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t;   y_t = sum_n C_t h_t + D u_t

The recurrent form steps through time. The chunked form scans the pairs ``(a, b)``: h -> a h + b of one chunk with the
associative rule ``(a2, b2) after (a1, b1) = (a1 a2, a2 b1 + b2)`` in log2(chunk) doubling steps, as the CUDA kernel's
block scan does, and carries the chunk's last state to the next one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from effsim.models._arrays import Float32Array, expect_positive, expect_shape, float32
from effsim.models._kernel import exp32, kernel
from effsim.models.activation import silu


@dataclass(frozen=True, slots=True)
class ScanResult:
    """Outputs of a scan.

    Attributes:
        y: (batch, length, channels).
        state: (batch, channels, state), after the last token.
    """

    y: Float32Array
    state: Float32Array


@kernel
def _recurrent(
    u: Float32Array, delta: Float32Array, a: Float32Array, b: Float32Array, c: Float32Array,
    state: Float32Array, y: Float32Array,
) -> None:  # fmt: skip
    """Step through time; ``state`` is updated in place."""
    batch, length, channels = u.shape
    for i in range(batch):
        for t in range(length):
            for d in range(channels):
                step = delta[i, t, d]
                total = np.float32(0)
                for n in range(a.shape[1]):
                    decay = exp32(np.float64(step) * np.float64(a[d, n]))
                    state[i, d, n] = decay * state[i, d, n] + step * u[i, t, d] * b[i, t, n]
                    total += c[i, t, n] * state[i, d, n]
                y[i, t, d] = total


@kernel
def _double(decay: Float32Array, value: Float32Array, size: int) -> None:
    """Turn per-step pairs into inclusive prefixes, doubling the reach of each in every pass."""
    reach = 1
    while reach < size:
        # From the end backwards, a pass reads only pairs that it has not yet rewritten.
        for t in range(size - 1, reach - 1, -1):
            value[t] = decay[t] * value[t - reach] + value[t]
            decay[t] = decay[t] * decay[t - reach]
        reach *= 2


@kernel
def _chunked(
    u: Float32Array, delta: Float32Array, a: Float32Array, b: Float32Array, c: Float32Array,
    chunk: int, state: Float32Array, y: Float32Array,
) -> None:  # fmt: skip
    """Scan chunk by chunk; ``state`` is updated in place and ``y`` comes in as zeros."""
    batch, length, channels = u.shape
    decay = np.empty(chunk, np.float32)
    value = np.empty(chunk, np.float32)
    for i in range(batch):
        for d in range(channels):
            for first in range(0, length, chunk):
                size = min(chunk, length - first)
                for n in range(a.shape[1]):
                    for t in range(size):
                        step = delta[i, first + t, d]
                        decay[t] = exp32(np.float64(step) * np.float64(a[d, n]))
                        value[t] = step * u[i, first + t, d] * b[i, first + t, n]
                    _double(decay, value, size)
                    carry = state[i, d, n]
                    for t in range(size):
                        h = decay[t] * carry + value[t]
                        y[i, first + t, d] += c[i, first + t, n] * h
                        state[i, d, n] = h


def _softplus(x: Float32Array) -> Float32Array:
    wide = x.astype(np.float64)
    return (np.maximum(wide, 0.0) + np.log1p(np.exp(-np.abs(wide)))).astype(np.float32)


def selective_scan(
    u: npt.ArrayLike,
    delta: npt.ArrayLike,
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    c: npt.ArrayLike,
    *,
    skip: npt.ArrayLike | None = None,
    gate: npt.ArrayLike | None = None,
    delta_bias: npt.ArrayLike | None = None,
    delta_softplus: bool = False,
    state: npt.ArrayLike | None = None,
    chunk: int | None = None,
) -> ScanResult:
    """Run the selective scan over a sequence; a sequence of one token with a ``state`` is a generation step.

    Args:
        u: (batch, length, channels) inputs.
        delta: (batch, length, channels) step sizes.
        a: (channels, state), normally negative; ``delta * a`` must stay below 88 (float32's range of exp).
        b: (batch, length, state).
        c: (batch, length, state).
        skip: (channels,) the D of the formula, or None.
        gate: (batch, length, channels); the output is multiplied by ``silu(gate)``, or None.
        delta_bias: (channels,) added to delta first, or None.
        delta_softplus: replace delta by ``log(1 + e^delta)``.
        state: (batch, channels, state) before the first token; None is zeros.
        chunk: tokens of a chunk; None steps token by token (recurrent form).

    Raises:
        ValueError: for shapes that do not fit together.

    >>> r = selective_scan([[[1.0], [2.0]]], [[[1.0], [1.0]]], [[0.0]], [[[1.0], [1.0]]], [[[1.0], [1.0]]])
    >>> r.y.ravel().tolist(), r.state.ravel().tolist()
    ([1.0, 3.0], [3.0])
    """
    inputs, steps, rates = float32("u", u, 3), float32("delta", delta, 3), float32("a", a, 2)
    batch, length, channels = inputs.shape
    width = rates.shape[1]
    expect_shape("delta", steps, inputs.shape)
    expect_shape("a", rates, (channels, width))
    to_state, to_output = float32("b", b, 3), float32("c", c, 3)
    expect_shape("b", to_state, (batch, length, width))
    expect_shape("c", to_output, (batch, length, width))
    if delta_bias is not None:
        steps = steps + _channel_vector("delta_bias", delta_bias, channels)
    if delta_softplus:
        steps = _softplus(steps)
    shape = (batch, channels, width)
    carried = np.zeros(shape, np.float32) if state is None else float32("state", state, 3).copy()
    expect_shape("state", carried, shape)
    y = np.zeros(inputs.shape, np.float32)
    if chunk is None:
        _recurrent(inputs, steps, rates, to_state, to_output, carried, y)
    else:
        expect_positive(chunk=chunk)
        _chunked(inputs, steps, rates, to_state, to_output, min(chunk, max(length, 1)), carried, y)
    if skip is not None:
        y = y + _channel_vector("skip", skip, channels) * inputs
    if gate is not None:
        opening = float32("gate", gate, 3)
        expect_shape("gate", opening, inputs.shape)
        y = y * silu(opening)
    return ScanResult(y, carried)


def _channel_vector(name: str, value: npt.ArrayLike, channels: int) -> Float32Array:
    vector = float32(name, value, 1)
    expect_shape(name, vector, (channels,))
    return vector

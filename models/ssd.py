"""State-space duality (Mamba-2), recurrent and chunked.

Source: Dao & Gu, *Transformers are SSMs* (2024), §6. Per head, with a scalar decay rate A and a state h (p x n):

    h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t^T;   y_t = h_t C_t + D x_t

The chunked form sums the log decays ``s_t = sum dt A`` within a chunk of Q tokens and computes, as matrix products,

* inside the chunk: ``y_i += sum_{j<=i} (C_i·B_j) exp(s_i - s_j) dt_j x_j`` (scores Q x Q, then Q x Q by Q x p);
* from before it: ``y_i += exp(s_i) h C_i``;
* the state it passes on: ``h <- exp(s_Q) h + sum_j exp(s_Q - s_j) dt_j x_j B_j^T``.

Log decays are summed in float32, as kernels do, so a chunk's decays carry a relative error of about ``Q u |s_Q|``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from effsim.models._arrays import Float32Array, expect_positive, expect_shape, float32, group_size
from effsim.models._kernel import exp32, kernel


@dataclass(frozen=True, slots=True)
class SsdResult:
    """Outputs of a scan.

    Attributes:
        y: (batch, length, heads, head_dim).
        state: (batch, heads, head_dim, state), after the last token.
    """

    y: Float32Array
    state: Float32Array


@kernel
def _recurrent(
    x: Float32Array, dt: Float32Array, a: Float32Array, b: Float32Array, c: Float32Array,
    state: Float32Array, y: Float32Array,
) -> None:  # fmt: skip
    """Step through time; ``state`` is updated in place."""
    batch, length, heads, dim = x.shape
    group = heads // b.shape[2]
    for i in range(batch):
        for t in range(length):
            for h in range(heads):
                decay = exp32(np.float64(dt[i, t, h]) * np.float64(a[h]))
                for p in range(dim):
                    inflow = dt[i, t, h] * x[i, t, h, p]
                    total = np.float32(0)
                    for n in range(b.shape[3]):
                        state[i, h, p, n] = decay * state[i, h, p, n] + inflow * b[i, t, h // group, n]
                        total += state[i, h, p, n] * c[i, t, h // group, n]
                    y[i, t, h, p] = total


@kernel
def _scores(
    dt: Float32Array, b: Float32Array, c: Float32Array, where: tuple[int, int, int, int], size: int,
    log_decay: Float32Array, scores: Float32Array,
) -> None:  # fmt: skip
    """Lower triangle of ``(C_i·B_j) exp(s_i - s_j) dt_j`` for the chunk at (batch, head, group, first token)."""
    i, h, g, first = where
    for row in range(size):
        for column in range(row + 1):
            dot = np.float32(0)
            for n in range(b.shape[3]):
                dot += c[i, first + row, g, n] * b[i, first + column, g, n]
            decay = exp32(log_decay[row] - log_decay[column])
            scores[row, column] = dot * decay * dt[i, first + column, h]


@kernel
def _outputs(
    x: Float32Array, c: Float32Array, where: tuple[int, int, int, int], size: int, log_decay: Float32Array,
    scores: Float32Array, state: Float32Array, y: Float32Array,
) -> None:  # fmt: skip
    """Add what comes from before the chunk and what comes from inside it."""
    i, h, g, first = where
    for row in range(size):
        decay = exp32(log_decay[row])
        for p in range(x.shape[3]):
            before = np.float32(0)
            for n in range(c.shape[3]):
                before += state[p, n] * c[i, first + row, g, n]
            inside = np.float32(0)
            for column in range(row + 1):
                inside += scores[row, column] * x[i, first + column, h, p]
            y[i, first + row, h, p] = decay * before + inside


@kernel
def _pass_state(
    x: Float32Array, dt: Float32Array, b: Float32Array, where: tuple[int, int, int, int], size: int,
    log_decay: Float32Array, state: Float32Array,
) -> None:  # fmt: skip
    """Replace the state before the chunk by the one after it."""
    i, h, g, first = where
    last = log_decay[size - 1]
    weights = np.empty(size, np.float32)
    for t in range(size):
        weights[t] = exp32(last - log_decay[t]) * dt[i, first + t, h]
    decay = exp32(last)
    for p in range(x.shape[3]):
        for n in range(b.shape[3]):
            inflow = np.float32(0)
            for t in range(size):
                inflow += weights[t] * x[i, first + t, h, p] * b[i, first + t, g, n]
            state[p, n] = decay * state[p, n] + inflow


@kernel
def _chunked(
    x: Float32Array, dt: Float32Array, a: Float32Array, b: Float32Array, c: Float32Array,
    chunk: int, state: Float32Array, y: Float32Array,
) -> None:  # fmt: skip
    """Scan chunk by chunk; ``state`` is updated in place."""
    batch, length, heads, _ = x.shape
    group = heads // b.shape[2]
    log_decay = np.empty(chunk, np.float32)
    scores = np.empty((chunk, chunk), np.float32)
    for i in range(batch):
        for h in range(heads):
            for first in range(0, length, chunk):
                size = min(chunk, length - first)
                total = np.float32(0)
                for t in range(size):
                    total += dt[i, first + t, h] * a[h]
                    log_decay[t] = total
                where = (i, h, h // group, first)
                _scores(dt, b, c, where, size, log_decay, scores)
                _outputs(x, c, where, size, log_decay, scores, state[i, h], y)
                _pass_state(x, dt, b, where, size, log_decay, state[i, h])


def ssd_scan(
    x: npt.ArrayLike,
    dt: npt.ArrayLike,
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    c: npt.ArrayLike,
    *,
    skip: npt.ArrayLike | None = None,
    state: npt.ArrayLike | None = None,
    chunk: int | None = None,
) -> SsdResult:
    """Run the scan over a sequence; a sequence of one token with a ``state`` is a generation step.

    Args:
        x: (batch, length, heads, head_dim).
        dt: (batch, length, heads) step sizes, after bias and softplus, not negative.
        a: (heads,) decay rates, not positive.
        b: (batch, length, groups, state); head h reads group ``h // (heads / groups)``.
        c: (batch, length, groups, state).
        skip: (heads,) the D of the formula, or None.
        state: (batch, heads, head_dim, state) before the first token; None is zeros.
        chunk: tokens of a chunk; None steps token by token (recurrent form).

    Raises:
        ValueError: for shapes that do not fit together, a positive ``a`` or a negative ``dt``.

    >>> one = np.ones((1, 2, 1, 1))
    >>> r = ssd_scan(one, one[..., 0], [0.0], one, one, chunk=2)
    >>> r.y.ravel().tolist(), r.state.ravel().tolist()
    ([1.0, 2.0], [2.0])
    """
    inputs, steps, rates = float32("x", x, 4), float32("dt", dt, 3), float32("a", a, 1)
    batch, length, heads, dim = inputs.shape
    to_state, to_output = float32("b", b, 4), float32("c", c, 4)
    groups, width = to_state.shape[2:]
    expect_shape("dt", steps, (batch, length, heads))
    expect_shape("a", rates, (heads,))
    expect_shape("b", to_state, (batch, length, groups, width))
    expect_shape("c", to_output, to_state.shape)
    group_size("b", heads, groups)
    if (rates > 0).any() or (steps < 0).any():
        raise ValueError("a, dt: expected a <= 0 and dt >= 0, so that states decay")
    shape = (batch, heads, dim, width)
    carried = np.zeros(shape, np.float32) if state is None else float32("state", state, 4).copy()
    expect_shape("state", carried, shape)
    y = np.zeros(inputs.shape, np.float32)
    if chunk is None:
        _recurrent(inputs, steps, rates, to_state, to_output, carried, y)
    else:
        expect_positive(chunk=chunk)
        _chunked(inputs, steps, rates, to_state, to_output, min(chunk, max(length, 1)), carried, y)
    if skip is not None:
        direct = float32("skip", skip, 1)
        expect_shape("skip", direct, (heads,))
        y = y + direct[:, None] * inputs
    return SsdResult(y, carried)

"""Gated delta rule, recurrent and chunked.

Sources: Yang et al., *Parallelizing Linear Transformers with the Delta Rule over Sequence Length* (2024) for the
chunked (WY) form; Yang, Kautz & Hatamizadeh, *Gated Delta Networks* (2024) for the gate. Per head, with a state
S (key_dim x value_dim), a log decay g <= 0 and a writing strength beta:

    S_t = e^{g_t} S_{t-1};  u_t = beta_t (v_t - S_t^T k_t);  S_t += k_t u_t^T;  o_t = scale S_t^T q_t

In a chunk of C tokens with ``G_i = g_1 + … + g_i`` and the state S before it, all u solve one unit lower triangular
system, whose matrix ``A_ij = beta_i e^{G_i - G_j} (k_i·k_j)`` for j < i does not depend on S:

    T = (I + A)^-1;  U = T diag(beta) V - (T diag(beta e^G) K) S
    o_i = scale (e^{G_i} S^T q_i + sum_{j<=i} e^{G_i - G_j} (q_i·k_j) u_j)
    S <- e^{G_C} S + sum_j e^{G_C - G_j} k_j u_j^T

Both forms stay bounded when ``beta |k|^2 <= 2``; networks normalise k and keep beta in (0, 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from effsim.models._arrays import Float32Array, expect_positive, expect_shape, float32, group_size
from effsim.models._kernel import exp32, kernel


@dataclass(frozen=True, slots=True)
class DeltaResult:
    """Outputs of the rule.

    Attributes:
        y: (batch, length, value_heads, value_dim).
        state: (batch, value_heads, key_dim, value_dim), after the last token.
    """

    y: Float32Array
    state: Float32Array


@kernel
def _recurrent(
    q: Float32Array, k: Float32Array, v: Float32Array, g: Float32Array, beta: Float32Array, scale: np.float32,
    state: Float32Array, y: Float32Array,
) -> None:  # fmt: skip
    """Step through time; ``state`` is updated in place."""
    batch, length, heads, value_dim = v.shape
    group = heads // k.shape[2]
    for i in range(batch):
        for h in range(heads):
            s = state[i, h]
            for t in range(length):
                decay = exp32(g[i, t, h])
                for e in range(value_dim):
                    seen = np.float32(0)
                    for d in range(k.shape[3]):
                        s[d, e] = decay * s[d, e]
                        seen += s[d, e] * k[i, t, h // group, d]
                    write = beta[i, t, h] * (v[i, t, h, e] - seen)
                    total = np.float32(0)
                    for d in range(k.shape[3]):
                        s[d, e] += k[i, t, h // group, d] * write
                        total += s[d, e] * q[i, t, h // group, d]
                    y[i, t, h, e] = scale * total


@kernel
def _dots(left: Float32Array, right: Float32Array, log_decay: Float32Array, out: Float32Array) -> None:
    """Lower triangle, diagonal included, of ``e^{G_i - G_j} left_i·right_j``."""
    for i in range(left.shape[0]):
        for j in range(i + 1):
            dot = np.float32(0)
            for d in range(left.shape[1]):
                dot += left[i, d] * right[j, d]
            out[i, j] = exp32(log_decay[i] - log_decay[j]) * dot


@kernel
def _invert(kk: Float32Array, beta: Float32Array, size: int, inverse: Float32Array) -> None:
    """``(I + A)^-1`` by forward substitution, A being the strict lower triangle of ``diag(beta) kk``."""
    for i in range(size):
        for j in range(i):
            total = np.float32(0)
            for m in range(j, i):
                total += kk[i, m] * inverse[m, j]
            inverse[i, j] = -(beta[i] * total)
        inverse[i, i] = np.float32(1)


@kernel
def _writes(
    k: Float32Array, v: Float32Array, beta: Float32Array, log_decay: Float32Array, inverse: Float32Array,
    state: Float32Array, writes: Float32Array,
) -> None:  # fmt: skip
    """``U = T diag(beta) V - (T diag(beta e^G) K) S``, one row of the two products at a time."""
    row = np.empty(k.shape[1], np.float32)
    for i in range(k.shape[0]):
        for d in range(k.shape[1]):
            row[d] = np.float32(0)
        for j in range(i + 1):
            weight = inverse[i, j] * beta[j] * exp32(log_decay[j])
            for d in range(k.shape[1]):
                row[d] += weight * k[j, d]
        for e in range(v.shape[1]):
            fresh = np.float32(0)
            for j in range(i + 1):
                fresh += inverse[i, j] * beta[j] * v[j, e]
            old = np.float32(0)
            for d in range(k.shape[1]):
                old += row[d] * state[d, e]
            writes[i, e] = fresh - old


@kernel
def _read(
    q: Float32Array, qk: Float32Array, log_decay: Float32Array, writes: Float32Array, scale: np.float32,
    state: Float32Array, y: Float32Array,
) -> None:  # fmt: skip
    """Outputs of a chunk: what the state before it holds, plus what the chunk itself has written so far."""
    for i in range(q.shape[0]):
        decay = exp32(log_decay[i])
        for e in range(y.shape[1]):
            before = np.float32(0)
            for d in range(q.shape[1]):
                before += state[d, e] * q[i, d]
            inside = np.float32(0)
            for j in range(i + 1):
                inside += qk[i, j] * writes[j, e]
            y[i, e] = scale * (decay * before + inside)


@kernel
def _pass_state(k: Float32Array, log_decay: Float32Array, writes: Float32Array, state: Float32Array) -> None:
    """Replace the state before a chunk by the one after it."""
    size = k.shape[0]
    decay = exp32(log_decay[size - 1])
    for d in range(k.shape[1]):
        for e in range(state.shape[1]):
            state[d, e] = decay * state[d, e]
        for j in range(size):
            weight = exp32(log_decay[size - 1] - log_decay[j]) * k[j, d]
            for e in range(state.shape[1]):
                state[d, e] += weight * writes[j, e]


@kernel
def _chunk(
    q: Float32Array, k: Float32Array, v: Float32Array, g: Float32Array, beta: Float32Array, scale: np.float32,
    state: Float32Array, y: Float32Array,
) -> None:  # fmt: skip
    """One chunk of one head; ``state`` (key_dim, value_dim) is updated in place."""
    size = k.shape[0]
    log_decay = np.empty(size, np.float32)
    total = np.float32(0)
    for t in range(size):
        total += g[t]
        log_decay[t] = total
    products, inverse = np.empty((size, size), np.float32), np.empty((size, size), np.float32)
    writes = np.empty((size, v.shape[1]), np.float32)
    _dots(k, k, log_decay, products)
    _invert(products, beta, size, inverse)
    _writes(k, v, beta, log_decay, inverse, state, writes)
    _dots(q, k, log_decay, products)
    _read(q, products, log_decay, writes, scale, state, y)
    _pass_state(k, log_decay, writes, state)


def _chunked(
    q: Float32Array, k: Float32Array, v: Float32Array, g: Float32Array, beta: Float32Array, scale: np.float32,
    chunk: int, state: Float32Array, y: Float32Array,
) -> None:  # fmt: skip
    """Every chunk of every head, each cut out into contiguous arrays."""
    batch, length, heads, _ = v.shape
    group = heads // k.shape[2]
    for i in range(batch):
        for h in range(heads):
            for first in range(0, length, chunk):
                cut = slice(first, min(length, first + chunk))
                own_q, own_k = (np.ascontiguousarray(x[i, cut, h // group]) for x in (q, k))
                own_v, own_g, own_beta = (np.ascontiguousarray(x[i, cut, h]) for x in (v, g, beta))
                out = np.empty(own_v.shape, np.float32)
                _chunk(own_q, own_k, own_v, own_g, own_beta, scale, state[i, h], out)
                y[i, cut, h] = out


def gated_delta(
    q: npt.ArrayLike,
    k: npt.ArrayLike,
    v: npt.ArrayLike,
    g: npt.ArrayLike,
    beta: npt.ArrayLike,
    *,
    scale: float | None = None,
    state: npt.ArrayLike | None = None,
    chunk: int | None = None,
) -> DeltaResult:
    """Run the gated delta rule over a sequence; one token with a ``state`` is a generation step.

    Args:
        q: (batch, length, key_heads, key_dim).
        k: (batch, length, key_heads, key_dim); value head h reads key head ``h // (value_heads / key_heads)``.
        v: (batch, length, value_heads, value_dim).
        g: (batch, length, value_heads) log decays, finite and not positive; zeros give the plain delta rule.
        beta: (batch, length, value_heads).
        scale: factor on the outputs; None is ``1/sqrt(key_dim)``.
        state: (batch, value_heads, key_dim, value_dim) before the first token; None is zeros.
        chunk: tokens of a chunk; None steps token by token (recurrent form).

    Raises:
        ValueError: for shapes that do not fit together, or g that is positive or not finite.

    >>> one = np.ones((1, 2, 1, 1))
    >>> r = gated_delta(one, one, one * 3, one[..., 0] * 0, one[..., 0], chunk=2)
    >>> r.y.ravel().tolist(), r.state.ravel().tolist()
    ([3.0, 3.0], [3.0])
    """
    queries, keys, values = float32("q", q, 4), float32("k", k, 4), float32("v", v, 4)
    batch, length, heads, value_dim = values.shape
    key_heads, key_dim = keys.shape[2:]
    expect_shape("k", keys, (batch, length, key_heads, key_dim))
    expect_shape("q", queries, keys.shape)
    group_size("k", heads, key_heads)
    gates, strengths = float32("g", g, 3), float32("beta", beta, 3)
    expect_shape("g", gates, (batch, length, heads))
    expect_shape("beta", strengths, (batch, length, heads))
    if not np.isfinite(gates).all() or (gates > 0).any():
        raise ValueError("g: expected finite log decays, not positive")
    shape = (batch, heads, key_dim, value_dim)
    carried = np.zeros(shape, np.float32) if state is None else float32("state", state, 4).copy()
    expect_shape("state", carried, shape)
    y = np.zeros(values.shape, np.float32)
    factor = np.float32(1.0 / math.sqrt(max(key_dim, 1)) if scale is None else scale)
    if chunk is None:
        _recurrent(queries, keys, values, gates, strengths, factor, carried, y)
    else:
        expect_positive(chunk=chunk)
        _chunked(queries, keys, values, gates, strengths, factor, chunk, carried, y)
    return DeltaResult(y, carried)

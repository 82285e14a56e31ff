"""Attention without softmax: linear attention, retention, RWKV, recurrent and chunked.

All keep a state S (key_dim x value_dim) a head and differ in how it fades:

    S_t = diag(e^{g_t}) S_{t-1} + k_t v_t^T;   o_t = S_t^T q_t

* linear attention: g = 0, q and k through a positive feature map, the result divided by ``phi(q)·sum phi(k)``
  (Katharopoulos et al., *Transformers are RNNs*, 2020);
* retention: one g a head, constant in time (Sun et al., *Retentive Network*, 2023);
* RWKV-6: g a channel and token; the newest token is read with a bonus u instead of through the state,
  ``o_t = (S_{t-1} + diag(u) k_t v_t^T)^T r_t`` (Peng et al., *Eagle and Finch*, 2024);
* RWKV-4: a weighted mean a channel, kept with a running maximum (Peng et al., *RWKV*, 2023).

The chunked form sums the log decays ``G_i = g_1 + … + g_i`` within a chunk; only differences ``G_i - G_j`` with
j <= i, which are not positive, are exponentiated, so nothing overflows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from effsim.models._arrays import Float32Array, expect_positive, expect_shape, float32
from effsim.models._kernel import exp32, kernel


@dataclass(frozen=True, slots=True)
class LinearAttentionResult:
    """Outputs of a recurrence.

    Attributes:
        y: (batch, length, heads, value_dim).
        state: (batch, heads, key_dim, value_dim), after the last token.
    """

    y: Float32Array
    state: Float32Array


@kernel
def _recurrent(
    q: Float32Array, k: Float32Array, v: Float32Array, g: Float32Array, bonus: Float32Array, with_bonus: bool,
    state: Float32Array, y: Float32Array,
) -> None:  # fmt: skip
    """Step through time; ``state`` is updated in place and ``y`` comes in as zeros."""
    batch, length, heads, dim = q.shape
    for b in range(batch):
        for t in range(length):
            for h in range(heads):
                for d in range(dim):
                    decay, key, query = exp32(g[b, t, h, d]), k[b, t, h, d], q[b, t, h, d]
                    for e in range(v.shape[3]):
                        old = state[b, h, d, e]
                        write = key * v[b, t, h, e]
                        new = decay * old + write
                        state[b, h, d, e] = new
                        if with_bonus:
                            y[b, t, h, e] += query * (old + bonus[h, d] * write)
                        else:
                            y[b, t, h, e] += query * new


@kernel
def _sum_decays(g: Float32Array, where: tuple[int, int, int], size: int, total: Float32Array) -> None:
    """Running sums of the chunk's log decays: ``total[i]`` is that before token i, ``total[size]`` that of all."""
    b, h, first = where
    for d in range(total.shape[1]):
        total[0, d] = np.float32(0)
        for t in range(size):
            total[t + 1, d] = total[t, d] + g[b, first + t, h, d]


@kernel
def _read_chunk(
    q: Float32Array, k: Float32Array, v: Float32Array, where: tuple[int, int, int], size: int, total: Float32Array,
    bonus: Float32Array, with_bonus: bool, state: Float32Array, y: Float32Array,
) -> None:  # fmt: skip
    """Outputs of a chunk: from the state before it, then from its own tokens in order."""
    b, h, first = where
    for i in range(size):
        t = first + i
        seen = i if with_bonus else i + 1
        for d in range(total.shape[1]):
            query = q[b, t, h, d] * exp32(total[seen, d])
            for e in range(v.shape[3]):
                y[b, t, h, e] += query * state[d, e]
        for j in range(i + 1):
            score = np.float32(0)
            for d in range(total.shape[1]):
                weight = bonus[h, d] if with_bonus and j == i else exp32(total[seen, d] - total[j + 1, d])
                score += q[b, t, h, d] * k[b, first + j, h, d] * weight
            for e in range(v.shape[3]):
                y[b, t, h, e] += score * v[b, first + j, h, e]


@kernel
def _chunked(
    q: Float32Array, k: Float32Array, v: Float32Array, g: Float32Array, bonus: Float32Array, with_bonus: bool,
    chunk: int, state: Float32Array, y: Float32Array,
) -> None:  # fmt: skip
    """Chunk by chunk; ``state`` is updated in place and ``y`` comes in as zeros."""
    batch, length, heads, dim = q.shape
    total = np.empty((chunk + 1, dim), np.float32)
    for b in range(batch):
        for h in range(heads):
            for first in range(0, length, chunk):
                size = min(chunk, length - first)
                where = (b, h, first)
                _sum_decays(g, where, size, total)
                _read_chunk(q, k, v, where, size, total, bonus, with_bonus, state[b, h], y)
                for d in range(dim):
                    decay = exp32(total[size, d])
                    for e in range(v.shape[3]):
                        state[b, h, d, e] = decay * state[b, h, d, e]
                    for j in range(size):
                        weight = exp32(total[size, d] - total[j + 1, d]) * k[b, first + j, h, d]
                        for e in range(v.shape[3]):
                            state[b, h, d, e] += weight * v[b, first + j, h, e]


def _run(
    q: npt.ArrayLike, k: npt.ArrayLike, v: npt.ArrayLike, g: npt.ArrayLike, bonus: npt.ArrayLike | None,
    state: npt.ArrayLike | None, chunk: int | None,
) -> LinearAttentionResult:  # fmt: skip
    queries, keys, values, decays = float32("q", q, 4), float32("k", k, 4), float32("v", v, 4), float32("g", g, 4)
    batch, length, heads, dim = queries.shape
    expect_shape("k", keys, queries.shape)
    expect_shape("v", values, (batch, length, heads, values.shape[3]))
    expect_shape("g", decays, queries.shape)
    if (decays > 0).any() or not np.isfinite(decays).all():
        raise ValueError("g: expected finite log decays, not positive")
    extra = np.zeros((heads, dim), np.float32) if bonus is None else float32("bonus", bonus, 2)
    expect_shape("bonus", extra, (heads, dim))
    shape = (batch, heads, dim, values.shape[3])
    carried = np.zeros(shape, np.float32) if state is None else float32("state", state, 4).copy()
    expect_shape("state", carried, shape)
    y = np.zeros(values.shape, np.float32)
    if chunk is None:
        _recurrent(queries, keys, values, decays, extra, bonus is not None, carried, y)
    else:
        expect_positive(chunk=chunk)
        size = min(chunk, max(length, 1))
        _chunked(queries, keys, values, decays, extra, bonus is not None, size, carried, y)
    return LinearAttentionResult(y, carried)


def linear_attention(
    q: npt.ArrayLike,
    k: npt.ArrayLike,
    v: npt.ArrayLike,
    *,
    feature: Literal["elu1", "none"] = "elu1",
    normalize: bool = True,
    state: npt.ArrayLike | None = None,
    chunk: int | None = None,
) -> LinearAttentionResult:
    """Causal linear attention; one token with a ``state`` is a generation step.

    Args:
        q: (batch, length, heads, key_dim).
        k: (batch, length, heads, key_dim).
        v: (batch, length, heads, value_dim).
        feature: ``elu1`` is ``elu(x) + 1``, evaluated in double and rounded once; ``none`` takes q and k as they are.
        normalize: divide by ``phi(q)·sum phi(k)``; the state then has one more column, which holds that sum of keys.
        state: (batch, heads, key_dim, value_dim (+ 1 if normalised)) before the first token; None is zeros.
        chunk: tokens of a chunk; None steps token by token.

    Raises:
        ValueError: for shapes that do not fit together or an unknown feature map.

    >>> one = np.ones((1, 2, 1, 1))
    >>> linear_attention(one, one, [[[[2.0]], [[4.0]]]], chunk=2).y.ravel().tolist()
    [2.0, 3.0]
    """
    if feature not in ("elu1", "none"):
        raise ValueError(f"feature: expected elu1 or none, got {feature!r}")
    queries, keys, values = float32("q", q, 4), float32("k", k, 4), float32("v", v, 4)
    if feature == "elu1":
        queries, keys = _elu1(queries), _elu1(keys)
    if normalize:
        values = np.concatenate([values, np.ones((*values.shape[:3], 1), np.float32)], axis=3)
    result = _run(queries, keys, values, np.zeros(queries.shape, np.float32), None, state, chunk)
    if not normalize:
        return result
    return LinearAttentionResult(result.y[..., :-1] / result.y[..., -1:], result.state)


def _elu1(x: Float32Array) -> Float32Array:
    wide = x.astype(np.float64)
    return np.where(wide > 0, wide + 1.0, np.exp(np.minimum(wide, 0.0))).astype(np.float32)


def retention(
    q: npt.ArrayLike,
    k: npt.ArrayLike,
    v: npt.ArrayLike,
    log_decay: npt.ArrayLike,
    *,
    state: npt.ArrayLike | None = None,
    chunk: int | None = None,
) -> LinearAttentionResult:
    """Retention: ``o_t = sum_{s<=t} e^{(t-s) log_decay} (q_t·k_s) v_s``, scales and rotations applied before.

    A chunk as long as the sequence is the parallel form of the paper.

    Args:
        q: (batch, length, heads, key_dim).
        k: (batch, length, heads, key_dim).
        v: (batch, length, heads, value_dim).
        log_decay: (heads,), not positive.
        state: (batch, heads, key_dim, value_dim) before the first token; None is zeros.
        chunk: tokens of a chunk; None steps token by token.

    Raises:
        ValueError: for shapes that do not fit together or a positive log decay.

    >>> one = np.ones((1, 2, 1, 1))
    >>> retention(one, one, one, [0.0]).y.ravel().tolist()
    [1.0, 2.0]
    """
    queries, rates = float32("q", q, 4), float32("log_decay", log_decay, 1)
    expect_shape("log_decay", rates, (queries.shape[2],))
    g = np.broadcast_to(rates[:, None], queries.shape)
    return _run(queries, k, v, g, None, state, chunk)


def rwkv6(
    r: npt.ArrayLike,
    k: npt.ArrayLike,
    v: npt.ArrayLike,
    log_decay: npt.ArrayLike,
    bonus: npt.ArrayLike,
    *,
    state: npt.ArrayLike | None = None,
    chunk: int | None = None,
) -> LinearAttentionResult:
    """RWKV-6's time mixing: per-channel decays that depend on the token, and a bonus on the newest one.

    Args:
        r: (batch, length, heads, key_dim), the receptance.
        k: (batch, length, heads, key_dim).
        v: (batch, length, heads, value_dim).
        log_decay: (batch, length, heads, key_dim), not positive.
        bonus: (heads, key_dim).
        state: (batch, heads, key_dim, value_dim) before the first token; None is zeros.
        chunk: tokens of a chunk; None steps token by token.

    Raises:
        ValueError: for shapes that do not fit together or a positive log decay.

    >>> one = np.ones((1, 2, 1, 1))
    >>> rwkv6(one, one, one, 0 * one, [[5.0]], chunk=2).y.ravel().tolist()
    [5.0, 6.0]
    """
    return _run(r, k, v, log_decay, bonus, state, chunk)


@kernel
def _wkv(
    k: Float32Array, v: Float32Array, rate: Float32Array, bonus: Float32Array, state: Float32Array, y: Float32Array
) -> None:
    """``state`` (batch, 3, channels): weighted values, weights and the exponent both are scaled by."""
    batch, length, channels = k.shape
    for b in range(batch):
        for t in range(length):
            for c in range(channels):
                top, bottom, peak = state[b, 0, c], state[b, 1, c], state[b, 2, c]
                own = bonus[c] + k[b, t, c]
                highest = max(peak, own)
                old, new = exp32(peak - highest), exp32(own - highest)
                y[b, t, c] = (old * top + new * v[b, t, c]) / (old * bottom + new)
                faded = peak - rate[c]
                highest = max(faded, k[b, t, c])
                old, new = exp32(faded - highest), exp32(k[b, t, c] - highest)
                state[b, 0, c] = old * top + new * v[b, t, c]
                state[b, 1, c] = old * bottom + new
                state[b, 2, c] = highest


def wkv4(
    k: npt.ArrayLike, v: npt.ArrayLike, rate: npt.ArrayLike, bonus: npt.ArrayLike, *, state: npt.ArrayLike | None = None
) -> tuple[Float32Array, Float32Array]:
    """RWKV-4's weighted mean: weights ``e^{k_s - (t-1-s) rate}`` for s < t and ``e^{bonus + k_t}``.

    Args:
        k: (batch, length, channels).
        v: (batch, length, channels).
        rate: (channels,), not negative.
        bonus: (channels,).
        state: (batch, 3, channels) as returned, None before the first token.

    Returns:
        outputs (batch, length, channels) and the state.

    Raises:
        ValueError: for shapes that do not fit together or a negative rate.

    >>> wkv4([[[0.0], [0.0]]], [[[2.0], [4.0]]], [0.0], [0.0])[0].ravel().tolist()
    [2.0, 3.0]
    """
    keys, values = float32("k", k, 3), float32("v", v, 3)
    batch, _, channels = keys.shape
    expect_shape("v", values, keys.shape)
    fading, extra = float32("rate", rate, 1), float32("bonus", bonus, 1)
    expect_shape("rate", fading, (channels,))
    expect_shape("bonus", extra, (channels,))
    if (fading < 0).any():
        raise ValueError("rate: expected 0 or above")
    if state is None:
        carried = np.zeros((batch, 3, channels), np.float32)
        carried[:, 2] = -np.inf
    else:
        carried = float32("state", state, 3).copy()
    expect_shape("state", carried, (batch, 3, channels))
    y = np.empty(keys.shape, np.float32)
    _wkv(keys, values, fading, extra, carried, y)
    return y, carried

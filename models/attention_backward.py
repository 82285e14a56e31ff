"""Gradients of fused attention: probabilities are made again from the log-sum-exp, tile by tile.

Source: Dao, *FlashAttention-2* (2023), algorithm 2. With ``D_i = sum_d dO_id O_id`` and ``P = e^{S - lse}``:

    dV += P^T dO;   dP = dO V^T;   dS = P (dP - D);   dK += scale dS^T Q;   dQ += scale dS K

Key tiles are outside, query tiles inside, so dK and dV stay on chip and dQ is added to in key order. Every product is
a GEMM of one tile; query heads that share a kv head add to its gradients in head order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from effsim.models._arrays import Float32Array, expect_positive, expect_shape, float32, group_size
from effsim.models.gemm import gemm


@dataclass(frozen=True, slots=True)
class AttentionGradients:
    """Gradients shaped as the inputs: q (batch, q_len, heads, d), k and v (batch, kv_len, kv_heads, …)."""

    q: Float32Array
    k: Float32Array
    v: Float32Array


def attention_backward(
    q: npt.ArrayLike,
    k: npt.ArrayLike,
    v: npt.ArrayLike,
    output: npt.ArrayLike,
    lse: npt.ArrayLike,
    grad: npt.ArrayLike,
    *,
    causal: bool = True,
    window: int | None = None,
    scale: float | None = None,
    tile_q: int = 128,
    tile_kv: int = 128,
) -> AttentionGradients:
    """Gradients of :func:`effsim.models.attention.context_attention` (the last query stands at the last key).

    Args:
        q: (batch, q_len, heads, head_dim).
        k: (batch, kv_len, kv_heads, head_dim).
        v: (batch, kv_len, kv_heads, value_dim).
        output: (batch, q_len, heads, value_dim) of the forward.
        lse: (batch, q_len, heads) of the forward.
        grad: (batch, q_len, heads, value_dim).
        causal: hide keys after the query.
        window: sliding window length; None is unlimited.
        scale: factor on the scores; None is ``1/sqrt(head_dim)``.
        tile_q: query rows of a tile.
        tile_kv: keys of a tile.

    Raises:
        ValueError: for shapes or options that do not fit together.

    >>> x = np.zeros((1, 1, 1, 1))
    >>> attention_backward(x, x, x + 2, x + 2, x[..., 0], x + 3).v.item()
    3.0
    """
    expect_positive(tile_q=tile_q, tile_kv=tile_kv)
    queries, keys, values = float32("q", q, 4), float32("k", k, 4), float32("v", v, 4)
    out, sums, upstream = float32("output", output, 4), float32("lse", lse, 3), float32("grad", grad, 4)
    batch, q_len, heads, dim = queries.shape
    expect_shape("output", out, (batch, q_len, heads, values.shape[3]))
    expect_shape("grad", upstream, out.shape)
    expect_shape("lse", sums, (batch, q_len, heads))
    group = group_size("k", heads, keys.shape[2])
    factor = np.float32(1.0 / math.sqrt(max(dim, 1)) if scale is None else scale)
    dots = np.sum(upstream * out, axis=3)
    to_q, to_k, to_v = np.zeros_like(queries), np.zeros_like(keys), np.zeros_like(values)
    places = np.arange(q_len) + keys.shape[1] - q_len
    for b in range(batch):
        for h in range(heads):
            for j in range(0, keys.shape[1], tile_kv):
                ks = slice(j, min(keys.shape[1], j + tile_kv))
                own_k, own_v = keys[b, ks, h // group], values[b, ks, h // group]
                for i in range(0, q_len, tile_q):
                    rows = slice(i, min(q_len, i + tile_q))
                    seen = _seen(places[rows], np.arange(ks.start, ks.stop), causal, window)
                    if not seen.any():
                        continue
                    own_q, own_grad = queries[b, rows, h], upstream[b, rows, h]
                    weights = _weights(gemm(own_q, own_k.T) * factor, sums[b, rows, h], seen)
                    slopes = weights * (gemm(own_grad, own_v.T) - dots[b, rows, h][:, None])
                    slopes = slopes * factor
                    to_v[b, ks, h // group] += gemm(weights.T, own_grad)
                    to_k[b, ks, h // group] += gemm(slopes.T, own_q)
                    to_q[b, rows, h] += gemm(slopes, own_k)
    return AttentionGradients(to_q, to_k, to_v)


def _seen(
    rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], causal: bool, window: int | None
) -> npt.NDArray[np.bool_]:
    mask = np.ones((rows.size, columns.size), bool)
    if causal:
        mask &= columns <= rows[:, None]
    if window is not None:
        mask &= columns > rows[:, None] - window
    return mask


def _weights(scores: Float32Array, lse: Float32Array, seen: npt.NDArray[np.bool_]) -> Float32Array:
    # Hidden scores become -inf before the exponential; rows that see nothing have an lse of -inf and no weight.
    anchor = np.where(np.isneginf(lse), np.float32(0), lse)[:, None]
    shifted = np.where(seen & ~np.isneginf(lse)[:, None], scores - anchor, np.float32(-np.inf))
    return np.exp(shifted.astype(np.float64)).astype(np.float32)

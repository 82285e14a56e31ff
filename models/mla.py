"""Multi-head latent attention in its two equal forms.

Source: *DeepSeek-V2* technical report (2024), §2.1. The cache holds one latent vector c (rank r) and one rotary key a
token, shared by all heads. Head h has up-projections W_uk[h] (r x d) and W_uv[h] (r x dv):

* expanded: ``k_h = [c W_uk[h], k_rope]``, ``v_h = c W_uv[h]``, then ordinary attention (prompts do this);
* absorbed: ``q_h' = [q_h W_uk[h]^T, q_rope]`` attends to ``[c, k_rope]`` as one shared head with values c, and the
  result is multiplied by ``W_uv[h]`` (generation does this, since it reads only the cache).

Both give ``softmax(scale (q_h·c W_uk[h] + q_rope·k_rope)) c W_uv[h]`` with ``scale = 1/sqrt(d + rope_dim)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from effsim.models._arrays import Float32Array, expect_shape, float32
from effsim.models.attention import context_attention
from effsim.models.gemm import gemm


@dataclass(frozen=True, slots=True)
class _Inputs:
    q_nope: Float32Array
    q_rope: Float32Array
    latent: Float32Array
    k_rope: Float32Array
    w_uk: Float32Array
    w_uv: Float32Array
    scale: float


def _checked(
    q_nope: npt.ArrayLike,
    q_rope: npt.ArrayLike,
    latent: npt.ArrayLike,
    k_rope: npt.ArrayLike,
    w_uk: npt.ArrayLike,
    w_uv: npt.ArrayLike,
    scale: float | None,
) -> _Inputs:
    nope, rope = float32("q_nope", q_nope, 4), float32("q_rope", q_rope, 4)
    cache, rope_keys = float32("latent", latent, 3), float32("k_rope", k_rope, 3)
    up_k, up_v = float32("w_uk", w_uk, 3), float32("w_uv", w_uv, 3)
    batch, q_len, heads, dim = nope.shape
    rope_dim = rope.shape[3]
    expect_shape("q_rope", rope, (batch, q_len, heads, rope_dim))
    if cache.shape[0] != batch:
        raise ValueError(f"latent: expected batch {batch} as in q_nope, got {cache.shape[0]}")
    expect_shape("k_rope", rope_keys, (batch, cache.shape[1], rope_dim))
    expect_shape("w_uk", up_k, (heads, cache.shape[2], dim))
    expect_shape("w_uv", up_v, (heads, cache.shape[2], up_v.shape[2]))
    factor = 1.0 / math.sqrt(max(dim + rope_dim, 1)) if scale is None else scale
    return _Inputs(nope, rope, cache, rope_keys, up_k, up_v, factor)


def _per_head(x: Float32Array, weights: Float32Array) -> Float32Array:
    """Multiply (batch, length, heads, i) by (heads, i, o), head by head, giving (batch, length, heads, o)."""
    batch, length, heads, _ = x.shape
    out = np.empty((batch, length, heads, weights.shape[2]), np.float32)
    for h in range(heads):
        rows = x[:, :, h].reshape(batch * length, x.shape[3])
        out[:, :, h] = gemm(rows, weights[h]).reshape(batch, length, weights.shape[2])
    return out


def latent_attention_expanded(
    q_nope: npt.ArrayLike,
    q_rope: npt.ArrayLike,
    latent: npt.ArrayLike,
    k_rope: npt.ArrayLike,
    w_uk: npt.ArrayLike,
    w_uv: npt.ArrayLike,
    *,
    causal: bool = True,
    scale: float | None = None,
    tile_q: int = 128,
    tile_kv: int = 128,
) -> Float32Array:
    """Expand the latent cache to keys and values of every head, then attend.

    Args:
        q_nope: (batch, q_len, heads, d), the part of the query without rotation.
        q_rope: (batch, q_len, heads, rope_dim), already rotated.
        latent: (batch, kv_len, r).
        k_rope: (batch, kv_len, rope_dim), already rotated.
        w_uk: (heads, r, d).
        w_uv: (heads, r, value_dim).
        causal: hide keys after the query (the last query stands at the last key).
        scale: factor on the scores; None is ``1/sqrt(d + rope_dim)``.
        tile_q: query rows of a tile.
        tile_kv: keys of a tile.

    Returns:
        float32 array (batch, q_len, heads, value_dim).

    Raises:
        ValueError: for shapes that do not fit together.

    >>> one = np.ones((1, 1, 1, 1))
    >>> latent_attention_expanded(one, one, [[[3.0]]], [[[1.0]]], [[[1.0]]], [[[2.0]]]).ravel().tolist()
    [6.0]
    """
    x = _checked(q_nope, q_rope, latent, k_rope, w_uk, w_uv, scale)
    heads = x.q_nope.shape[2]
    shared = np.repeat(x.latent[:, :, None], heads, axis=2)
    rope_keys = np.repeat(x.k_rope[:, :, None], heads, axis=2)
    keys = np.concatenate([_per_head(shared, x.w_uk), rope_keys], axis=3)
    queries = np.concatenate([x.q_nope, x.q_rope], axis=3)
    values = _per_head(shared, x.w_uv)
    return context_attention(queries, keys, values, causal=causal, scale=x.scale, tile_q=tile_q, tile_kv=tile_kv)


def latent_attention_absorbed(
    q_nope: npt.ArrayLike,
    q_rope: npt.ArrayLike,
    latent: npt.ArrayLike,
    k_rope: npt.ArrayLike,
    w_uk: npt.ArrayLike,
    w_uv: npt.ArrayLike,
    *,
    causal: bool = True,
    scale: float | None = None,
    tile_q: int = 128,
    tile_kv: int = 128,
) -> Float32Array:
    """Attend in latent space, one key-value head for all; arguments and result as the expanded form.

    >>> one = np.ones((1, 1, 1, 1))
    >>> latent_attention_absorbed(one, one, [[[3.0]]], [[[1.0]]], [[[1.0]]], [[[2.0]]]).ravel().tolist()
    [6.0]
    """
    x = _checked(q_nope, q_rope, latent, k_rope, w_uk, w_uv, scale)
    absorbed = _per_head(x.q_nope, np.swapaxes(x.w_uk, 1, 2))
    queries = np.concatenate([absorbed, x.q_rope], axis=3)
    keys = np.concatenate([x.latent, x.k_rope], axis=2)[:, :, None]
    in_latent = context_attention(
        queries, keys, x.latent[:, :, None], causal=causal, scale=x.scale, tile_q=tile_q, tile_kv=tile_kv
    )
    return _per_head(in_latent, x.w_uv)

"""Attention tile by tile with an online softmax, as fused kernels compute it.

Sources: Milakov & Gimelshein, *Online normalizer calculation for softmax* (2018); Dao et al., *FlashAttention*
(2022) and *FlashAttention-2* (2023); Dao et al., *Flash-Decoding* (2023) for split-KV; Kwon et al., *PagedAttention*
(2023) for the paged cache; Ainslie et al., *GQA* (2023).

For one query row with scores ``s_j = scale * q·k_j``, tiles of keys are visited in order and keep a running maximum m,
a running sum l and an accumulator o:

    m' = max(m, max_j s_j);  l = l e^(m-m') + sum_j e^(s_j-m');  o = o e^(m-m') + sum_j e^(s_j-m') v_j

and the result is ``o / l``, with log-sum-exp ``m + log l``. A row that sees no key gives zeros and ``-inf``.
Tiles that the mask hides altogether are never visited.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from effsim.models._arrays import Float32Array, expect_positive, expect_shape, float32, group_size, int64
from effsim.models._flash import attend, visible

_NO_WINDOW = 0


@dataclass(frozen=True, slots=True)
class AttentionPartial:
    """Attention over part of the keys, with what is needed to merge it with other parts.

    Attributes:
        output: (batch, q_len, heads, value_dim), normalised over the keys seen.
        lse: (batch, q_len, heads), natural logarithm of the sum of exponentials; ``-inf`` where no key was seen.
    """

    output: Float32Array
    lse: Float32Array


def _fold(group: int, rows: int, tile_q: int) -> int:
    """Query heads of one kv head that share a tile of ``rows`` queries: as many as fit, and divide the group."""
    folded = max(1, min(group, tile_q // max(rows, 1)))
    while group % folded:
        folded -= 1
    return folded


def _checked(q: npt.ArrayLike, k: npt.ArrayLike, v: npt.ArrayLike) -> tuple[Float32Array, Float32Array, Float32Array]:
    """Convert and check q (batch, q_len, heads, d), k (batch, kv_len, kv_heads, d), v (batch, kv_len, kv_heads, dv)."""
    queries, keys, values = float32("q", q, 4), float32("k", k, 4), float32("v", v, 4)
    batch, _, heads, dim = queries.shape
    if keys.shape[0] != batch or keys.shape[3] != dim:
        raise ValueError(f"k: expected batch {batch} and head_dim {dim} as in q, got shape {keys.shape}")
    if values.shape[:3] != keys.shape[:3]:
        raise ValueError(f"v: expected leading shape {keys.shape[:3]} as in k, got shape {values.shape}")
    group_size("k", heads, keys.shape[2])
    return queries, keys, values


def _scale_of(scale: float | None, dim: int) -> np.float32:
    return np.float32(1.0 / math.sqrt(max(dim, 1)) if scale is None else scale)


def _window_of(window: int | None, causal: bool) -> int:
    if window is None:
        return _NO_WINDOW
    if not causal:
        raise ValueError("window: a sliding window looks back, so it needs causal=True")
    expect_positive(window=window)
    return window


def attention_partial(
    q: npt.ArrayLike,
    k: npt.ArrayLike,
    v: npt.ArrayLike,
    *,
    q_start: npt.ArrayLike,
    kv_begin: npt.ArrayLike,
    kv_end: npt.ArrayLike,
    causal: bool = True,
    window: int | None = None,
    scale: float | None = None,
    tile_q: int = 128,
    tile_kv: int = 128,
) -> AttentionPartial:
    """Attend to the keys ``kv_begin[b] <= j < kv_end[b]`` only.

    Query row i of sequence b stands at position ``p = q_start[b] + i`` on the axis of the keys. It sees key j when
    ``j <= p`` (causal) and ``j > p - window`` (window: that many keys, its own included).

    Args:
        q: (batch, q_len, heads, head_dim).
        k: (batch, kv_len, kv_heads, head_dim); query head h reads kv head ``h // (heads / kv_heads)``.
        v: (batch, kv_len, kv_heads, value_dim).
        q_start: (batch,) integers, may be negative.
        kv_begin: (batch,) integers.
        kv_end: (batch,) integers, at most kv_len.
        causal: hide keys after the query.
        window: sliding window length, causal only; None is unlimited.
        scale: factor on the scores; None is ``1/sqrt(head_dim)``.
        tile_q: query rows of a tile.
        tile_kv: keys of a tile.

    Raises:
        ValueError: for shapes, ranges or options that do not fit together.
    """
    expect_positive(tile_q=tile_q, tile_kv=tile_kv)
    queries, keys, values = _checked(q, k, v)
    batch, q_len, heads, dim = queries.shape
    start, begin, end = int64("q_start", q_start, 1), int64("kv_begin", kv_begin, 1), int64("kv_end", kv_end, 1)
    for name, span in (("q_start", start), ("kv_begin", begin), ("kv_end", end)):
        expect_shape(name, span, (batch,))
    if ((begin < 0) | (end > keys.shape[1])).any():
        raise ValueError(f"kv_begin, kv_end: expected ranges inside 0…{keys.shape[1]}")
    out = np.zeros((batch, q_len, heads, values.shape[3]), np.float32)
    lse = np.full((batch, q_len, heads), -np.inf, np.float32)
    # Tiles larger than the sequence would only make the scratch arrays larger.
    rows, columns = min(tile_q, max(q_len, 1)), min(tile_kv, max(keys.shape[1], 1))
    factor, width = _scale_of(scale, dim), _window_of(window, causal)
    folded = _fold(group_size("k", heads, keys.shape[2]), rows, tile_q)
    attend(
        queries, keys, values, start, begin, end, factor, causal, width, (rows, columns), folded, out, lse
    )  # fmt: skip
    return AttentionPartial(out, lse)


def context_attention(
    q: npt.ArrayLike,
    k: npt.ArrayLike,
    v: npt.ArrayLike,
    *,
    causal: bool = True,
    window: int | None = None,
    scale: float | None = None,
    tile_q: int = 128,
    tile_kv: int = 128,
) -> Float32Array:
    """Return ``softmax(scale q k^T + mask) v`` for a prompt, or for a chunk of it that follows cached keys.

    The last query stands at the last key (query i at ``kv_len - q_len + i``). With ``q_len > kv_len`` and a causal
    mask the first rows see nothing and are zeros. Arguments are those of :func:`attention_partial`.

    Returns:
        float32 array (batch, q_len, heads, value_dim).

    Raises:
        ValueError: for shapes or options that do not fit together.

    >>> q = np.zeros((1, 2, 1, 4)); v = np.array([2.0, 4.0]).reshape(1, 2, 1, 1)
    >>> context_attention(q, q, v).ravel().tolist()
    [2.0, 3.0]
    """
    queries, keys, values = _checked(q, k, v)
    batch, q_len, kv_len = queries.shape[0], queries.shape[1], keys.shape[1]
    return attention_partial(
        queries,
        keys,
        values,
        q_start=np.full(batch, kv_len - q_len, np.int64),
        kv_begin=np.zeros(batch, np.int64),
        kv_end=np.full(batch, kv_len, np.int64),
        causal=causal,
        window=window,
        scale=scale,
        tile_q=tile_q,
        tile_kv=tile_kv,
    ).output


def merge_partials(partials: Sequence[AttentionPartial]) -> AttentionPartial:
    """Merge attention over disjoint sets of keys, in the order given.

    ``L = max lse_i``, ``w_i = e^(lse_i - L)``, ``output = sum w_i o_i / sum w_i``, ``lse = L + log sum w_i``.
    Used by split-KV generation, shared prefixes and context parallelism alike.

    Raises:
        ValueError: if there is nothing to merge or shapes differ.
    """
    if not partials:
        raise ValueError("partials: expected at least one")
    for i, part in enumerate(partials):
        expect_shape(f"partials[{i}].output", part.output, partials[0].output.shape)
        expect_shape(f"partials[{i}].lse", part.lse, part.output.shape[:-1])
    peak = np.maximum.reduce([part.lse for part in partials])
    # Where no part saw a key the peak is -inf, and -inf - -inf would be NaN.
    anchor = np.where(np.isneginf(peak), np.float32(0), peak)
    total = np.zeros_like(peak)
    output = np.zeros_like(partials[0].output)
    for part in partials:
        weight = np.exp((part.lse - anchor).astype(np.float64)).astype(np.float32)
        total += weight
        output += weight[..., None] * part.output
    seen = total > 0
    safe = np.where(seen, total, np.float32(1)).astype(np.float32)
    lse = np.full_like(peak, -np.inf)
    lse[seen] = (anchor + np.log(safe.astype(np.float64)).astype(np.float32))[seen]
    return AttentionPartial(output / safe[..., None], lse)


def generation_attention(
    q: npt.ArrayLike,
    k: npt.ArrayLike,
    v: npt.ArrayLike,
    *,
    kv_lens: npt.ArrayLike | None = None,
    splits: int = 1,
    window: int | None = None,
    scale: float | None = None,
    tile_kv: int = 128,
) -> Float32Array:
    """Attend with one new token a sequence to its cached keys, splitting the keys over ``splits`` walkers.

    Each walker takes a contiguous run of whole tiles of the keys that the token sees; :func:`merge_partials` joins
    them. Cache entries at or past ``kv_lens`` are never read.

    Args:
        q: (batch, heads, head_dim).
        k: (batch, capacity, kv_heads, head_dim).
        v: (batch, capacity, kv_heads, value_dim).
        kv_lens: (batch,) keys in use, the new token's included; None is the whole capacity.
        splits: walkers a sequence.
        window: keys seen, counted back from the newest; None is all.
        scale: factor on the scores; None is ``1/sqrt(head_dim)``.
        tile_kv: keys of a tile.

    Returns:
        float32 array (batch, heads, value_dim).

    Raises:
        ValueError: for shapes, lengths or options that do not fit together.

    >>> v = np.array([2.0, 4.0, 99.0]).reshape(1, 3, 1, 1)
    >>> generation_attention(np.zeros((1, 1, 4)), np.zeros((1, 3, 1, 4)), v, kv_lens=[2], splits=2).ravel().tolist()
    [3.0]
    """
    expect_positive(splits=splits, tile_kv=tile_kv)
    queries, keys, values = _checked(float32("q", q, 3)[:, None], k, v)
    batch, capacity = keys.shape[:2]
    lens = np.full(batch, capacity) if kv_lens is None else int64("kv_lens", kv_lens, 1)
    expect_shape("kv_lens", lens, (batch,))
    if ((lens < 0) | (lens > capacity)).any():
        raise ValueError(f"kv_lens: expected 0…{capacity}, got {lens.tolist()}")
    first = np.maximum(lens - _window_of(window, True), 0) if window is not None else np.zeros_like(lens)
    tiles = (lens - first + tile_kv - 1) // tile_kv
    run = (tiles + splits - 1) // splits * tile_kv
    partials = [
        attention_partial(
            queries, keys, values, q_start=lens - 1, kv_begin=np.minimum(first + s * run, lens),
            kv_end=np.minimum(first + (s + 1) * run, lens), scale=scale, tile_kv=tile_kv,
        )
        for s in range(splits)
    ]  # fmt: skip
    return merge_partials(partials).output[:, 0]


def gather_pages(pages: npt.ArrayLike, block_table: npt.ArrayLike, kv_lens: npt.ArrayLike) -> Float32Array:
    """Collect a paged cache into contiguous sequences, zeros past each length.

    Token t of sequence b lies in page ``block_table[b, t // page_size]``, slot ``t % page_size``. Table entries that
    no token needs may hold anything.

    Args:
        pages: (pages, page_size, kv_heads, dim).
        block_table: (batch, max_pages) page numbers.
        kv_lens: (batch,) tokens in use.

    Returns:
        float32 array (batch, max_pages * page_size, kv_heads, dim).

    Raises:
        ValueError: if a needed page number is out of range or a length exceeds the table.

    >>> pool = np.arange(6.0).reshape(3, 2, 1, 1)
    >>> gather_pages(pool, [[2, 0]], [3]).ravel().tolist()
    [4.0, 5.0, 0.0, 0.0]
    """
    pool, table, lens = float32("pages", pages, 4), int64("block_table", block_table, 2), int64("kv_lens", kv_lens, 1)
    batch, columns = table.shape
    expect_shape("kv_lens", lens, (batch,))
    page = pool.shape[1]
    if ((lens < 0) | (lens > columns * page)).any():
        raise ValueError(f"kv_lens: expected 0…{columns * page}, got {lens.tolist()}")
    needed = np.arange(columns)[None] * page < lens[:, None]
    if (needed & ((table < 0) | (table >= pool.shape[0]))).any():
        raise ValueError(f"block_table: a page in use lies outside 0…{pool.shape[0] - 1}")
    out = np.zeros((batch, columns * page, *pool.shape[2:]), np.float32)
    for b in range(batch):
        used = table[b, needed[b]]
        out[b, : lens[b]] = pool[used].reshape(used.size * page, *pool.shape[2:])[: lens[b]]
    return out


def count_kv_tiles(
    q_len: int, kv_len: int, *, causal: bool = True, window: int | None = None, tile_q: int = 128, tile_kv: int = 128
) -> int:
    """Return how many (query tile, key tile) pairs :func:`context_attention` visits for one head of one sequence.

    >>> count_kv_tiles(256, 256), count_kv_tiles(256, 256, causal=False)
    (3, 4)
    """
    expect_positive(tile_q=tile_q, tile_kv=tile_kv)
    width, visited = _window_of(window, causal), 0
    for row in range(0, q_len, tile_q):
        position = kv_len - q_len + row
        first, last = visible(position, position + min(tile_q, q_len - row) - 1, 0, kv_len, causal, width)
        visited += max(0, -(-(last - first // tile_kv * tile_kv) // tile_kv)) if last > first else 0
    return visited

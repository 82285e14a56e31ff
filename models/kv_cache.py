"""Upkeep of a key/value cache: new tokens appended, in the cache's own type, whole or in pages."""

from __future__ import annotations

import numpy.typing as npt

from effsim.models._arrays import Float32Array, expect_shape, float32, int64
from effsim.models.rounding import round_to


def append(cache: npt.ArrayLike, new: npt.ArrayLike, kv_lens: npt.ArrayLike, *, kv_dtype: str = "fp32") -> Float32Array:
    """Return the cache with ``new[b]`` written behind the first ``kv_lens[b]`` tokens of every sequence.

    Args:
        cache: (batch, capacity, kv_heads, dim).
        new: (batch, tokens, kv_heads, dim), rounded to ``kv_dtype`` on the way.
        kv_lens: (batch,) tokens in use before.
        kv_dtype: format of the cache.

    Raises:
        ValueError: for shapes that do not match or a sequence that outgrows the capacity.

    >>> append([[[[0.0]], [[0.0]]]], [[[[1.0625]]]], [1], kv_dtype="fp8_e4m3").ravel().tolist()
    [0.0, 1.0]
    """
    held, fresh, lens = float32("cache", cache, 4).copy(), float32("new", new, 4), int64("kv_lens", kv_lens, 1)
    batch, capacity = held.shape[:2]
    expect_shape("new", fresh, (batch, fresh.shape[1], *held.shape[2:]))
    expect_shape("kv_lens", lens, (batch,))
    if ((lens < 0) | (lens + fresh.shape[1] > capacity)).any():
        raise ValueError(f"kv_lens: {fresh.shape[1]} more tokens do not fit a capacity of {capacity}")
    stored = round_to(fresh, kv_dtype)
    for b in range(batch):
        held[b, lens[b] : lens[b] + fresh.shape[1]] = stored[b]
    return held


def append_paged(
    pages: npt.ArrayLike,
    block_table: npt.ArrayLike,
    new: npt.ArrayLike,
    kv_lens: npt.ArrayLike,
    *,
    kv_dtype: str = "fp32",
) -> Float32Array:
    """As :func:`append` for a pool of pages (pages, page_size, kv_heads, dim).

    Token t of sequence b goes to page ``block_table[b, t // page_size]``, slot ``t % page_size``.

    Raises:
        ValueError: for shapes that do not match or a page that does not exist.

    >>> append_paged([[[[0.0]]], [[[0.0]]]], [[1, 0]], [[[[3.0]], [[4.0]]]], [0]).ravel().tolist()
    [4.0, 3.0]
    """
    pool, table = float32("pages", pages, 4).copy(), int64("block_table", block_table, 2)
    fresh, lens = float32("new", new, 4), int64("kv_lens", kv_lens, 1)
    expect_shape("new", fresh, (table.shape[0], fresh.shape[1], *pool.shape[2:]))
    expect_shape("kv_lens", lens, (table.shape[0],))
    page = pool.shape[1]
    stored = round_to(fresh, kv_dtype)
    for b in range(table.shape[0]):
        for i in range(fresh.shape[1]):
            column, slot = divmod(int(lens[b]) + i, page)
            if lens[b] < 0 or column >= table.shape[1] or not 0 <= table[b, column] < pool.shape[0]:
                raise ValueError(f"block_table: no page for token {int(lens[b]) + i} of sequence {b}")
            pool[table[b, column], slot] = stored[b, i]
    return pool

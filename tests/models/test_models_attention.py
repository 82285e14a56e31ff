"""Tiled attention, split-KV, paging and latent attention against naive float64."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_oracles import assert_within, few, gamma, naive_attention, normal, visible

from effsim.models import attention, mla


@given(
    q_len=st.integers(0, 9), kv_len=st.integers(0, 14), kv_heads=st.integers(1, 2), group=st.integers(1, 3),
    dim=st.integers(1, 6), value_dim=st.integers(1, 4), mask=st.sampled_from(["full", "causal", 1, 3, 20]),
    tile_q=st.integers(1, 4), tile_kv=st.integers(1, 5), seed=st.integers(0, 99),
)  # fmt: skip
@few
def test_context_matches_naive(
    q_len: int, kv_len: int, kv_heads: int, group: int, dim: int, value_dim: int, mask: str | int,
    tile_q: int, tile_kv: int, seed: int,
) -> None:  # fmt: skip
    q = normal(seed, 2, q_len, kv_heads * group, dim)
    k, v = normal(seed + 1, 2, kv_len, kv_heads, dim), normal(seed + 2, 2, kv_len, kv_heads, value_dim)
    causal, window = mask != "full", mask if isinstance(mask, int) else None
    got = attention.context_attention(q, k, v, causal=causal, window=window, tile_q=tile_q, tile_kv=tile_kv)
    seen = visible(kv_len - q_len, q_len, kv_len, causal, window)
    for b in range(2):
        assert_within(got[b], *naive_attention(q[b], k[b], v[b], seen))
    assert (got[:, ~seen.any(axis=1)] == 0).all()


def test_grouped_heads_read_their_own_kv_head() -> None:
    """Kv head g holds the value g, so query head h must return h // group."""
    q, k = np.zeros((1, 3, 6, 2)), np.zeros((1, 3, 3, 2))
    v = np.broadcast_to(np.arange(3.0)[:, None], (1, 3, 3, 1))
    got = attention.context_attention(q, k, v)
    assert got[0, 0, :, 0].tolist() == [0, 0, 1, 1, 2, 2]


def test_rows_that_see_nothing_are_zeros_even_beside_rows_that_do() -> None:
    q, k, v = normal(1, 1, 6, 2, 4), normal(2, 1, 2, 1, 4), normal(3, 1, 2, 1, 3)
    got = attention.context_attention(q, k, v, tile_q=3, tile_kv=2)
    assert (got[0, :4] == 0).all()
    assert (got[0, 4:] != 0).all()
    part = attention.attention_partial(q, k, v, q_start=[-4], kv_begin=[0], kv_end=[2])
    assert np.isneginf(part.lse[0, :4]).all()
    np.testing.assert_array_equal(part.output, got)


@pytest.mark.parametrize("scale", [1e-30, 40.0, 300.0])
def test_large_and_tiny_logits(scale: float) -> None:
    q, k, v = normal(4, 1, 5, 2, 8, scale=scale), normal(5, 1, 11, 1, 8), normal(6, 1, 11, 1, 3)
    got = attention.context_attention(q, k, v, tile_q=2, tile_kv=3)
    assert_within(got[0], *naive_attention(q[0], k[0], v[0], visible(6, 5, 11, True, None)))


def test_equal_scores_average_exactly() -> None:
    v = np.arange(8.0).reshape(1, 8, 1, 1)
    got = attention.context_attention(np.zeros((1, 8, 1, 2)), np.zeros((1, 8, 1, 2)), v, tile_kv=3)
    expected = np.array([i / 2 for i in range(8)])
    assert_within(got.ravel(), expected, gamma(16) * expected)


@given(
    lens=st.lists(st.integers(0, 13), min_size=1, max_size=3), splits=st.integers(1, 5), tile=st.integers(1, 4),
    window=st.sampled_from([None, 1, 4]), kv_heads=st.integers(1, 2), group=st.integers(1, 3), seed=st.integers(0, 99),
)  # fmt: skip
@few
def test_generation_matches_naive_and_never_reads_past_the_length(
    lens: list[int], splits: int, tile: int, window: int | None, kv_heads: int, group: int, seed: int
) -> None:
    q = normal(seed, len(lens), kv_heads * group, 5)
    k, v = normal(seed + 1, len(lens), 13, kv_heads, 5), normal(seed + 2, len(lens), 13, kv_heads, 3)
    for b, used in enumerate(lens):
        k[b, used:], v[b, used:] = np.nan, np.nan
    got = attention.generation_attention(q, k, v, kv_lens=lens, splits=splits, window=window, tile_kv=tile)
    for b, used in enumerate(lens):
        seen = visible(used - 1, 1, used, True, window)
        out, bound = naive_attention(q[b : b + 1], k[b, :used], v[b, :used], seen)
        assert_within(got[b : b + 1], out, bound)


def test_merge_weighs_by_log_sum_exp() -> None:
    """Keys of weight 1 and 3 in different parts: (1*10 + 3*20) / 4."""
    first = attention.AttentionPartial(np.full((1, 1, 1, 1), 10, np.float32), np.full((1, 1, 1), 500, np.float32))
    lse = np.full((1, 1, 1), 500 + np.log(3.0), np.float32)
    second = attention.AttentionPartial(np.full((1, 1, 1, 1), 20, np.float32), lse)
    nothing = attention.AttentionPartial(np.zeros((1, 1, 1, 1), np.float32), np.full((1, 1, 1), -np.inf, np.float32))
    merged = attention.merge_partials([nothing, first, second])
    # The stored lse near 500 is itself rounded, by up to 500 u, and that is relative in the weight.
    assert_within(merged.output, np.full((1, 1, 1, 1), 17.5), 17.5 * gamma(8 + 501))
    assert_within(merged.lse, np.full((1, 1, 1), 500 + np.log(4.0)), gamma(4) * 510)
    empty = attention.merge_partials([nothing, nothing])
    assert empty.output.item() == 0
    assert np.isneginf(empty.lse).all()


def test_log_sum_exp_of_a_partial() -> None:
    q, k, v = normal(7, 1, 3, 1, 4), normal(8, 1, 9, 1, 4), normal(9, 1, 9, 1, 2)
    part = attention.attention_partial(
        q, k, v, q_start=[0], kv_begin=[2], kv_end=[8], causal=False, scale=0.7, tile_kv=4
    )
    scores = 0.7 * q[0, :, 0].astype(np.float64) @ k[0, 2:8, 0].astype(np.float64).T
    assert_within(part.lse[0, :, 0], np.log(np.exp(scores).sum(axis=1)), gamma(40) * (1 + np.abs(scores).max() * 4))


def test_paged_cache_equals_the_contiguous_one() -> None:
    rng = np.random.default_rng(10)
    k = normal(11, 2, 8, 2, 4)
    lens, page = [7, 3], 2
    order = rng.permutation(8)
    pool = np.full((9, page, 2, 4), np.nan, np.float32)
    table = order.reshape(2, 4)
    for b in range(2):
        for p in range(4):
            if p * page < lens[b]:
                pool[table[b, p]] = k[b, p * page : (p + 1) * page]
    table[1, 2:] = -1
    gathered = attention.gather_pages(pool, table, lens)
    for b in range(2):
        np.testing.assert_array_equal(gathered[b, : lens[b]], k[b, : lens[b]])
        assert (gathered[b, lens[b] :] == 0).all()
    with pytest.raises(ValueError, match="page in use"):
        attention.gather_pages(pool, table, [7, 5])
    with pytest.raises(ValueError, match="0…8"):
        attention.gather_pages(pool, table, [9, 1])


def test_tiles_visited() -> None:
    """A causal square of n tiles a side has n (n + 1) / 2; a window of one tile touches two a row, the first one."""
    assert attention.count_kv_tiles(512, 512, tile_q=128, tile_kv=128) == 4 * 5 // 2
    assert attention.count_kv_tiles(512, 512, causal=False, tile_q=128, tile_kv=128) == 16
    assert attention.count_kv_tiles(512, 512, window=128, tile_q=128, tile_kv=128) == 1 + 2 * 3
    assert attention.count_kv_tiles(4, 2, tile_q=1, tile_kv=1) == 0 + 0 + 1 + 2
    for q_len, kv_len, window, tq, tkv in [(7, 11, None, 2, 3), (9, 4, 3, 4, 2), (5, 13, 2, 1, 4), (0, 3, None, 2, 2)]:
        seen = visible(kv_len - q_len, q_len, kv_len, True, window)
        tiles = sum(
            seen[i : i + tq, j : j + tkv].any() for i in range(0, q_len, tq) for j in range(0, kv_len, tkv)
        )  # fmt: skip
        assert attention.count_kv_tiles(q_len, kv_len, window=window, tile_q=tq, tile_kv=tkv) == tiles


def latent_inputs(
    batch: int, q_len: int, kv_len: int, heads: int, rank: int, dims: tuple[int, int, int]
) -> list[object]:
    nope, rope, value = dims
    shapes = [(batch, q_len, heads, nope), (batch, q_len, heads, rope), (batch, kv_len, rank), (batch, kv_len, rope)]
    shapes += [(heads, rank, nope), (heads, rank, value)]
    return [normal(20 + i, *shape) for i, shape in enumerate(shapes)]


@given(
    q_len=st.integers(1, 4), kv_len=st.integers(1, 7), heads=st.integers(1, 3), rank=st.integers(1, 6),
    dims=st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4)), causal=st.booleans(),
)  # fmt: skip
@few
def test_latent_attention_forms_match_naive(
    q_len: int, kv_len: int, heads: int, rank: int, dims: tuple[int, int, int], causal: bool
) -> None:
    inputs = latent_inputs(2, q_len, kv_len, heads, rank, dims)
    q_nope, q_rope, latent, k_rope, w_uk, w_uv = (np.asarray(x, np.float64) for x in inputs)
    seen = visible(kv_len - q_len, q_len, kv_len, causal, None)
    scale = 1 / np.sqrt(dims[0] + dims[1])
    for form in (mla.latent_attention_expanded, mla.latent_attention_absorbed):
        got = form(*inputs, causal=causal, tile_q=2, tile_kv=3)
        for b in range(2):
            for h in range(heads):
                scores = q_nope[b, :, h] @ (latent[b] @ w_uk[h]).T + q_rope[b, :, h] @ k_rope[b].T
                loose = np.abs(q_nope[b, :, h]) @ (np.abs(latent[b]) @ np.abs(w_uk[h])).T
                loose = loose + np.abs(q_rope[b, :, h]) @ np.abs(k_rope[b]).T
                scores = np.where(seen, scores * scale, -np.inf)
                peak = np.where(seen.any(axis=1), scores.max(axis=1), 0.0)
                weights = np.exp(scores - peak[:, None])
                weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-300)
                # Two chained products (through rank and head_dim) instead of one, whichever is taken first.
                off = gamma(rank + sum(dims) + 8) * loose.max() * scale
                relative = np.expm1(2 * off) + gamma(5 * kv_len + rank + 32)
                size = weights @ np.abs(latent[b]) @ np.abs(w_uv[h])
                assert_within(got[b, :, h], weights @ latent[b] @ w_uv[h], relative * size)


def test_bad_input_is_refused() -> None:
    q, k = np.ones((1, 2, 3, 4)), np.ones((1, 2, 2, 4))
    with pytest.raises(ValueError, match="3 heads cannot share 2 groups"):
        attention.context_attention(q, k, k)
    with pytest.raises(ValueError, match="v: expected leading shape"):
        attention.context_attention(q, k[:, :, :1], k)
    with pytest.raises(ValueError, match="head_dim 4"):
        attention.context_attention(q, np.ones((1, 2, 1, 5)), k)
    with pytest.raises(ValueError, match="needs causal"):
        attention.context_attention(k, k, k, causal=False, window=3)
    with pytest.raises(ValueError, match="kv_lens: expected 0…2"):
        attention.generation_attention(k[:, 0], k, k, kv_lens=[3])
    with pytest.raises(ValueError, match="ranges inside 0…2"):
        attention.attention_partial(k, k, k, q_start=[0], kv_begin=[0], kv_end=[3])
    with pytest.raises(ValueError, match="at least one"):
        attention.merge_partials([])
    inputs = latent_inputs(1, 2, 2, 2, 3, (2, 2, 2))
    with pytest.raises(ValueError, match="k_rope: expected shape"):
        mla.latent_attention_absorbed(*inputs[:3], np.ones((1, 2, 5)), *inputs[4:])

"""Embedding and sampling."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_oracles import assert_within, few, gamma, normal

from effsim.models import embedding, sampling
from effsim.models.collectives import ring_all_reduce


def test_lookup_whole_and_sharded() -> None:
    table, ids = normal(1, 11, 3), np.array([[0, 10, 4], [3, 3, 7]])
    whole = embedding.lookup(table, ids)
    for place, row in np.ndenumerate(ids):
        np.testing.assert_array_equal(whole[place], table[row])
    parts = embedding.sharded_lookup([table[:4], table[4:5], table[5:]], ids)
    for summed in ring_all_reduce(parts):
        np.testing.assert_array_equal(summed, whole)
    assert embedding.lookup(table, np.zeros((0,), int)).shape == (0, 3)


def test_embedding_bag() -> None:
    table, ids, offsets = normal(2, 6, 2), [5, 0, 0, 2, 1], [0, 3, 3]
    got = embedding.embedding_bag(table, ids, offsets)
    wide = table.astype(np.float64)
    expected = np.array([wide[5] + 2 * wide[0], [0, 0], wide[2] + wide[1]])
    size = np.abs(wide[[5, 0, 0]]).sum(axis=0)
    assert_within(got, expected, gamma(3) * np.array([size, size * 0, np.abs(wide[[2, 1]]).sum(axis=0)]))


def test_embedding_refuses() -> None:
    table = np.ones((3, 2))
    for ids in ([3], [-1]):
        with pytest.raises(ValueError, match="ids: expected 0…2"):
            embedding.lookup(table, ids)
    with pytest.raises(ValueError, match="integers"):
        embedding.lookup(table, [0.0])
    with pytest.raises(ValueError, match="one width"):
        embedding.sharded_lookup([table, np.ones((1, 3))], [0])
    for offsets in ([1], [0, 3], [0, 1, 0], []):
        with pytest.raises(ValueError, match="offsets"):
            embedding.embedding_bag(table, [0, 1], offsets or np.zeros(0, int))


@given(rows=st.integers(0, 3), cols=st.integers(1, 40), scale=st.sampled_from([0.0, 1.0, 300.0, 1e30]))
@few
def test_softmax(rows: int, cols: int, scale: float) -> None:
    x = normal(3, rows, cols, scale=scale)
    wide = x.astype(np.float64)
    weights = np.exp(wide - wide.max(axis=1, keepdims=True))
    expected = weights / weights.sum(axis=1, keepdims=True)
    assert_within(sampling.softmax(x), expected, gamma(cols + 3) * expected, roundings=2 * cols)


def test_softmax_of_masked_rows() -> None:
    got = sampling.softmax([[-np.inf, -np.inf], [-np.inf, 3.0]])
    assert got.tolist() == [[0, 0], [0, 1]]
    for bad in ([np.nan, 1.0], [np.inf, 1.0], 1.0):
        with pytest.raises(ValueError, match="logits"):
            sampling.softmax(bad)


def test_top_k_keeps_the_largest_and_the_lower_of_equals() -> None:
    x = np.array([[1.0, 4.0, 4.0, 2.0, 4.0]])
    assert np.flatnonzero(np.isfinite(sampling.top_k_filter(x, 2)[0])).tolist() == [1, 2]
    np.testing.assert_array_equal(sampling.top_k_filter(x, 9), x)


@given(cols=st.integers(1, 12), top_p=st.floats(1e-3, 1.0), scale=st.sampled_from([0.0, 1.0, 5.0]))
@few
def test_top_p_keeps_the_smallest_sufficient_set(cols: int, top_p: float, scale: float) -> None:
    x = normal(4, 2, cols, scale=scale)
    kept = np.isfinite(sampling.top_p_filter(x, top_p))
    for row in range(2):
        p = sampling.softmax(x)[row].astype(np.float64)
        inside, outside = p[kept[row]], p[~kept[row]]
        rest = gamma(2 * cols + 8)  # float32 probabilities need not sum to 1 exactly
        assert inside.sum() >= min(top_p, 1.0) - rest
        assert inside.sum() - inside.min() < top_p + rest
        assert outside.size == 0 or outside.max() <= inside.min()


def test_greedy_and_filters_leave_one_choice() -> None:
    x = normal(5, 6, 9)
    best = x.argmax(axis=1)
    for options in ({"temperature": 0.0}, {"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-38}):
        np.testing.assert_array_equal(sampling.sample(x, seed=3, **options), best)
    assert sampling.sample([[5.0, 5.0]], seed=0, temperature=0).tolist() == [0]


def test_draws_follow_the_probabilities_and_the_seed() -> None:
    """Frequencies over 20,000 rows stay within five standard deviations of the probabilities."""
    rows, temperature = 20_000, 2.0
    logits = np.tile([[0.0, 1.0, 2.0, -np.inf, 3.0]], (rows, 1))
    drawn = sampling.sample(logits, seed=11, temperature=temperature, top_k=3)
    weights = np.exp(np.array([1.0, 2.0, 3.0]) / temperature)
    p = dict(zip([1, 2, 4], weights / weights.sum(), strict=True))
    counts = np.bincount(drawn, minlength=5)
    assert counts[0] == counts[3] == 0
    for token, probability in p.items():
        deviation = math.sqrt(rows * probability * (1 - probability))
        assert abs(counts[token] - rows * probability) <= 5 * deviation
    np.testing.assert_array_equal(drawn, sampling.sample(logits, seed=11, temperature=temperature, top_k=3))
    assert (drawn != sampling.sample(logits, seed=12, temperature=temperature, top_k=3)).any()


@pytest.mark.parametrize(
    ("logits", "options", "message"),
    [
        ([[1.0]], {"temperature": -1.0}, "temperature"),
        ([[1.0]], {"top_k": 0}, "top_k"),
        ([[1.0]], {"top_p": 0.0}, "top_p"),
        ([[-np.inf]], {}, "above -inf"),
        (np.zeros((1, 0)), {}, "above -inf"),
    ],
)
def test_sampling_refuses(logits: object, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sampling.sample(logits, seed=0, **options)  # type: ignore[arg-type]

"""Router and grouped experts against a dense, masked float64 mixture."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_oracles import UNIT_ROUNDOFF, assert_within, few, gamma, normal

from effsim.models import moe


@given(
    tokens=st.integers(0, 5), experts=st.integers(1, 7), data=st.data(), scale=st.sampled_from([0.0, 1.0, 100.0]),
    order=st.sampled_from(["softmax_topk", "topk_softmax"]), renormalize=st.booleans(),
)  # fmt: skip
@few
def test_route(tokens: int, experts: int, data: st.DataObject, scale: float, order: str, renormalize: bool) -> None:
    top_k = data.draw(st.integers(1, experts))
    logits = normal(1, tokens, experts, scale=scale)
    routing = moe.route(logits, top_k, order=order, renormalize=renormalize)
    for t in range(tokens):
        row = logits[t].astype(np.float64)
        chosen = sorted(range(experts), key=lambda e: (-row[e], e))[:top_k]
        assert routing.experts[t].tolist() == chosen
        weights = np.exp(row - row.max())
        over = weights[chosen].sum() if renormalize or order == "topk_softmax" else weights.sum()
        expected = weights[chosen] / over
        assert_within(routing.weights[t], expected, gamma(experts + top_k + 8) * expected)


def test_equal_logits_go_to_lower_numbers_and_underflow_keeps_the_order() -> None:
    assert moe.route([[2.0, 5.0, 5.0, 5.0]], 2).experts.tolist() == [[1, 2]]
    far = moe.route([[0.0, -800.0, -700.0, -900.0]], 3)
    assert far.experts.tolist() == [[0, 2, 1]]
    assert far.weights.tolist() == [[1, 0, 0]]


def test_groups_cover_every_copy_once() -> None:
    routing = moe.route(normal(2, 9, 5), 2)
    groups = moe.group_by_expert(routing, 5)
    assert sorted(groups.slots.tolist()) == list(range(18))
    for e in range(5):
        slots = groups.slots[groups.offsets[e] : groups.offsets[e + 1]]
        assert (routing.experts.ravel()[slots] == e).all()
        assert (np.diff(slots) > 0).all()
    counts = np.bincount(routing.experts.ravel(), minlength=5)
    assert moe.padded_tiles(groups, 4) == sum(-(-int(n) // 4) for n in counts)


@given(
    tokens=st.integers(0, 6), experts=st.integers(1, 4), hidden=st.integers(1, 6), inner=st.integers(1, 9),
    data=st.data(),
)  # fmt: skip
@few
def test_grouped_equals_dense_masked(tokens: int, experts: int, hidden: int, inner: int, data: st.DataObject) -> None:
    top_k = data.draw(st.integers(1, experts))
    x, gate, up = normal(3, tokens, hidden), normal(4, experts, hidden, inner), normal(5, experts, hidden, inner)
    down = normal(6, experts, inner, hidden)
    routing = moe.route(normal(7, tokens, experts), top_k)
    got = moe.grouped_experts(x, routing, gate, up, down, tile_m=2, tile_n=3, tile_k=2)
    mask = np.zeros((tokens, experts))
    np.put_along_axis(mask, routing.experts, routing.weights.astype(np.float64), axis=1)
    wide, expected, bound = x.astype(np.float64), np.zeros((tokens, hidden)), np.zeros((tokens, hidden))
    for e in range(experts):
        a, b = wide @ gate[e], wide @ up[e]
        off_a, off_b = (gamma(hidden + 4) * (np.abs(wide) @ np.abs(w[e])) for w in (gate, up))
        act = a / (1 + np.exp(-a))
        off_act = 1.1 * off_a + UNIT_ROUNDOFF * np.abs(act)  # silu's slope stays below 1.1
        off = (np.abs(act) + off_act) * (np.abs(b) + off_b) * (1 + UNIT_ROUNDOFF) - np.abs(act * b)
        size = np.abs(act * b) @ np.abs(down[e])
        off_out = gamma(inner + 4) * (size + off @ np.abs(down[e])) + off @ np.abs(down[e])
        expected += mask[:, e : e + 1] * ((act * b) @ down[e])
        bound += mask[:, e : e + 1] * (off_out + gamma(top_k + 2) * (size + off_out))
    assert_within(got, expected, bound)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="top_k: expected 1…2"):
        moe.route(np.ones((1, 2)), 3)
    with pytest.raises(ValueError, match="order"):
        moe.route(np.ones((1, 2)), 1, order="argmax")  # type: ignore[arg-type]
    routing = moe.route(np.ones((2, 3)), 1)
    w = np.ones((3, 4, 5))
    with pytest.raises(ValueError, match="x: expected 4 columns"):
        moe.grouped_experts(np.ones((2, 5)), routing, w, w, np.ones((3, 5, 4)))
    with pytest.raises(ValueError, match="w_down: expected shape"):
        moe.grouped_experts(np.ones((2, 4)), routing, w, w, w)
    with pytest.raises(ValueError, match="0…1"):
        moe.group_by_expert(moe.Routing(np.array([[2]]), np.ones((1, 1), np.float32)), 2)

"""Losses, gradients, the optimizer, Winograd, cache upkeep: properties beside the comparisons with PyTorch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_oracles import few, normal

from effsim.models import (
    attention,
    attention_backward,
    backward,
    conv,
    cross_entropy,
    kv_cache,
    optimizer,
    pointwise,
    pointwise_backward,
    scan_backward,
    winograd,
)


@given(rows=st.integers(1, 5), vocabulary=st.integers(1, 40), chunk=st.integers(1, 50), seed=st.integers(0, 99))
@few
def test_chunks_of_the_vocabulary_change_nothing_but_rounding(
    rows: int, vocabulary: int, chunk: int, seed: int
) -> None:
    hidden, weight = normal(seed, rows, 6), normal(seed + 1, vocabulary, 6)
    targets = np.random.default_rng(seed).integers(0, vocabulary, rows)
    logits = (hidden.astype(np.float64) @ weight.T.astype(np.float64)).astype(np.float32)
    plain = cross_entropy.cross_entropy(logits, targets)
    np.testing.assert_allclose(cross_entropy.cross_entropy(logits, targets, chunk=chunk).loss, plain.loss, atol=1e-5)
    np.testing.assert_allclose(
        cross_entropy.cut_cross_entropy(hidden, weight, targets, chunk=chunk).loss, plain.loss, atol=1e-4
    )
    grad = np.ones(rows, np.float32)
    slope = cross_entropy.cross_entropy_backward(logits, targets, plain.lse, grad)
    np.testing.assert_allclose(slope.sum(axis=1), 0, atol=1e-5)  # probabilities sum to one, and so does the target


def test_ignored_targets_cost_nothing() -> None:
    logits, targets = normal(1, 3, 5), np.array([1, cross_entropy.IGNORE, 4])
    loss = cross_entropy.cross_entropy(logits, targets)
    assert loss.loss[1] == 0
    slope = cross_entropy.cross_entropy_backward(logits, targets, loss.lse, [1.0, 1.0, 1.0])
    assert (slope[1] == 0).all()
    assert (slope[[0, 2]] != 0).all()
    with pytest.raises(ValueError, match="targets"):
        cross_entropy.cross_entropy(logits, [0, 1, 5])
    with pytest.raises(ValueError, match="NaN"):
        cross_entropy.cross_entropy([[np.nan]], [0])


@pytest.mark.parametrize("tile", [2, 4])
def test_winograd_equals_the_direct_sum_on_small_integers(tile: int) -> None:
    rng = np.random.default_rng(tile)
    x, w = rng.integers(-3, 4, (1, 9, 7, 3)), 24 * rng.integers(-1, 2, (2, 3, 3, 3))
    got = winograd.winograd_conv2d(x, w, padding=1, tile=tile)
    want = conv.conv2d(x, w, padding=1, method="direct")
    # F(2) is exact on these numbers; F(4) divides by 24 in float32, which is not.
    np.testing.assert_allclose(got, want, rtol=0, atol=0 if tile == 2 else 1e-2)


def test_winograd_transforms_are_a_minimal_filter() -> None:
    """``A^T [(G g) * (B^T d)]`` is the correlation for every unit filter and unit signal, exactly in double."""
    for tile, (to_data, to_filter, to_output) in winograd.TRANSFORMS.items():
        for i in range(3):
            for j in range(tile + 2):
                g, d = np.eye(3)[i], np.eye(tile + 2)[j]
                got = to_output.astype(np.float64) @ ((to_filter @ g) * (to_data @ d))
                want = [1.0 if j - t == i else 0.0 for t in range(tile)]
                np.testing.assert_allclose(got, want, atol=1e-6)


def test_bad_winograd_is_refused() -> None:
    x = np.ones((1, 4, 4, 1))
    with pytest.raises(ValueError, match="tile"):
        winograd.winograd_conv2d(x, np.ones((1, 3, 3, 1)), tile=3)
    with pytest.raises(ValueError, match="weight"):
        winograd.winograd_conv2d(x, np.ones((1, 5, 5, 1)))
    with pytest.raises(ValueError, match="exceeds"):
        winograd.winograd_conv2d(np.ones((1, 2, 2, 1)), np.ones((1, 3, 3, 1)))


@pytest.mark.parametrize("kind", sorted(pointwise_backward.SLOPES))
def test_slopes_are_the_differences_of_the_activations(kind: str) -> None:
    x = np.linspace(-4.1, 4.0, 50)
    step = 2.0**-10
    high, low = (pointwise.FORWARD[kind](x + s).astype(np.float64) for s in (step, -step))
    run = (x + step).astype(np.float32).astype(np.float64) - (x - step).astype(np.float32)
    np.testing.assert_allclose(pointwise_backward.slope(kind, x), (high - low) / run, atol=2e-3)


def test_gradients_of_attention_do_not_depend_on_the_tiles() -> None:
    q, k, v, grad = normal(1, 1, 7, 4, 5), normal(2, 1, 9, 2, 5), normal(3, 1, 9, 2, 3), normal(4, 1, 7, 4, 3)
    part = attention.attention_partial(q, k, v, q_start=[2], kv_begin=[0], kv_end=[9])
    small, large = (
        attention_backward.attention_backward(q, k, v, part.output, part.lse, grad, tile_q=t, tile_kv=t)
        for t in (2, 64)
    )
    for name in ("q", "k", "v"):
        np.testing.assert_allclose(getattr(small, name), getattr(large, name), atol=1e-5)


def test_rows_that_see_nothing_have_no_gradient() -> None:
    q, k, v, grad = normal(1, 1, 5, 1, 3), normal(2, 1, 2, 1, 3), normal(3, 1, 2, 1, 3), normal(4, 1, 5, 1, 3)
    part = attention.attention_partial(q, k, v, q_start=[-3], kv_begin=[0], kv_end=[2])
    got = attention_backward.attention_backward(q, k, v, part.output, part.lse, grad)
    assert (got.q[0, :3] == 0).all()
    assert np.isfinite(got.k).all()


def test_gradients_refuse_shapes_that_do_not_match() -> None:
    with pytest.raises(ValueError, match="grad"):
        backward.linear_backward(np.ones((2, 3)), np.ones((4, 3)), np.ones((2, 3)))
    with pytest.raises(ValueError, match="ids"):
        backward.embedding_backward([3], np.ones((1, 2)), 3)
    with pytest.raises(ValueError, match="grad"):
        backward.conv2d_backward(np.ones((1, 4, 4, 1)), np.ones((1, 3, 3, 1)), np.ones((1, 4, 4, 1)))
    with pytest.raises(ValueError, match="grad"):
        scan_backward.causal_conv1d_backward(np.ones((1, 4, 1)), np.ones((1, 2)), np.ones((1, 3, 1)))
    with pytest.raises(ValueError, match="unknown"):
        pointwise_backward.slope("cube", [1.0])


def test_adam_without_gradient_only_decays() -> None:
    zeros = np.zeros(3, np.float32)
    new = optimizer.adamw([1.0, -2.0, 0.0], zeros, zeros, zeros, step=1, lr=0.5, weight_decay=0.5, eps=0.0)
    assert new.master.tolist() == [0.75, -1.5, 0.0]
    with pytest.raises(ValueError, match="step"):
        optimizer.adamw(zeros, zeros, zeros, zeros, step=0)
    with pytest.raises(ValueError, match="betas"):
        optimizer.adamw(zeros, zeros, zeros, zeros, step=1, betas=(1.0, 0.9))


def test_small_updates_reach_the_master_but_not_the_working_copy() -> None:
    """Why a master copy is kept: bf16 absorbs a step of 1e-3 beside 1."""
    zero = np.zeros(1, np.float32)
    state = optimizer.adamw([1.0], [1.0], zero, zero, step=1, lr=1e-3, weight_decay=0.0)
    assert state.master.item() < 1.0
    assert state.working.item() == 1.0


def test_cache_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="capacity"):
        kv_cache.append(np.zeros((1, 2, 1, 1)), np.ones((1, 1, 1, 1)), [2])
    with pytest.raises(ValueError, match="no page"):
        kv_cache.append_paged(np.zeros((1, 2, 1, 1)), [[0]], np.ones((1, 1, 1, 1)), [2])
    with pytest.raises(ValueError, match="no page"):
        kv_cache.append_paged(np.zeros((1, 2, 1, 1)), [[7]], np.ones((1, 1, 1, 1)), [0])

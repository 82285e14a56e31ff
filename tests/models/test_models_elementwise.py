"""Norms, rotary embedding and activations against float64."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_oracles import UNIT_ROUNDOFF, assert_within, few, gamma, normal

from effsim.models import activation, norm
from effsim.models.rope import rope, rotary_frequencies


def lane_sum_roundings(n: int) -> int:
    """One addition a lane element, five foldings of 32 lanes, and the square."""
    return math.ceil(n / 32) + 5 + 1


@given(
    rows=st.integers(0, 3), cols=st.integers(1, 80), exponent=st.integers(-40, 15), eps=st.sampled_from([1e-12, 1e-5])
)
@few
def test_rmsnorm(rows: int, cols: int, exponent: int, eps: float) -> None:
    x, w = normal(1, rows, cols, scale=10.0**exponent), normal(2, cols)
    wide = x.astype(np.float64)
    expected = wide / np.sqrt((wide**2).mean(axis=1, keepdims=True) + np.float32(eps)) * w
    assert_within(norm.rmsnorm(x, w, eps=eps), expected, gamma(lane_sum_roundings(cols) + 8) * np.abs(expected))


@given(rows=st.integers(0, 3), cols=st.integers(1, 80), offset=st.sampled_from([0.0, 3.0, -1e4]), bias=st.booleans())
@few
def test_layernorm(rows: int, cols: int, offset: float, bias: bool) -> None:
    eps = 1e-5
    x, w, b = normal(3, rows, cols) + np.float32(offset), normal(4, cols), normal(5, cols)
    got = norm.layernorm(x, w, b if bias else None, eps=eps)
    wide, shift = x.astype(np.float64), b.astype(np.float64) * bias
    mean = wide.mean(axis=1, keepdims=True)
    deviation = wide - mean
    variance = (deviation**2).mean(axis=1, keepdims=True)
    root = 1 / np.sqrt(variance + eps)
    g = gamma(lane_sum_roundings(cols) + 1)
    off = g * np.abs(wide).mean(axis=1, keepdims=True) + UNIT_ROUNDOFF * np.abs(deviation).max(axis=1, keepdims=True)
    off_variance = 2 * np.sqrt(variance) * off + off**2 + g * (np.sqrt(variance) + off) ** 2
    # A computed variance is never negative, which caps the root where rounding could eat the whole variance.
    least = np.maximum(variance + eps - off_variance, eps * (1 - gamma(4)))
    off_root = np.sqrt((variance + eps) / least) - 1 + gamma(4)
    plain = np.abs(deviation) * root
    bound = np.abs(w) * ((np.abs(deviation) + off) * root * (1 + off_root) * (1 + gamma(4)) - plain)
    bound = bound + gamma(2) * (plain * np.abs(w) + np.abs(shift))
    assert_within(got, deviation * root * w + shift, bound)


def test_sums_are_folded_by_lanes() -> None:
    """Lane 0 holds 2**24 and a 1 it absorbs; each other lane's 1 is folded together with others before it meets it."""
    row = np.zeros((1, 64), np.float32)
    row[0, 0], row[0, 32], row[0, 1:5] = 2.0**24, 1, 1
    out = np.empty(1, np.float32)
    norm._sums(row, np.zeros(1, np.float32), False, 32, out)
    # Fold by 16, 8: nothing meets; by 4: lane 4's 1 meets lane 0 and is absorbed; by 2: lanes 1, 3 give 2, lane 2's 1
    # is absorbed; by 1: 2**24 + 2.
    assert out.item() == 2.0**24 + 2


def test_rows_of_zeros_and_overflowing_squares() -> None:
    assert norm.rmsnorm(np.zeros((1, 4)), np.ones(4)).tolist() == [[0, 0, 0, 0]]
    assert norm.layernorm(np.full((1, 4), 7.0), np.ones(4), np.full(4, 2.0)).tolist() == [[2, 2, 2, 2]]
    assert norm.rmsnorm(np.full((1, 4), 1e30), np.ones(4)).tolist() == [[0, 0, 0, 0]]


def test_norm_refuses() -> None:
    with pytest.raises(ValueError, match="eps"):
        norm.rmsnorm(np.ones((1, 2)), np.ones(2), eps=0.0)
    with pytest.raises(ValueError, match="weight: expected shape"):
        norm.layernorm(np.ones((1, 2)), np.ones(3))
    with pytest.raises(ValueError, match="at least one column"):
        norm.rmsnorm(np.ones((1, 0)), np.ones(0))


@given(
    length=st.integers(0, 4), half=st.integers(1, 4), rest=st.sampled_from([0, 3]),
    style=st.sampled_from(["half", "interleaved"]), start=st.sampled_from([0, 5, 100_000]),
)  # fmt: skip
@few
def test_rope_is_a_complex_rotation(length: int, half: int, rest: int, style: str, start: int) -> None:
    rotary = 2 * half
    x = normal(6, 2, length, 3, rotary + rest)
    positions = np.arange(start, start + length)
    got = rope(x, positions, fraction=(rotary + 0.01) / (rotary + rest + 0.01), base=500.0, style=style)
    first = list(range(half)) if style == "half" else list(range(0, rotary, 2))
    second = list(range(half, rotary)) if style == "half" else list(range(1, rotary, 2))
    for i in range(half):
        turn = np.exp(1j * positions * 500.0 ** (-2.0 * i / rotary))[None, :, None]
        wide = x[..., first[i]].astype(np.float64) + 1j * x[..., second[i]].astype(np.float64)
        bound = gamma(4) * (np.abs(wide.real) + np.abs(wide.imag))
        assert_within(got[..., first[i]], (wide * turn).real, bound)
        assert_within(got[..., second[i]], (wide * turn).imag, bound)
    np.testing.assert_array_equal(got[..., rotary:], x[..., rotary:])


def test_rope_scores_depend_on_distance_only() -> None:
    q, k = normal(7, 1, 1, 1, 8), normal(8, 1, 1, 1, 8)
    for style in ("half", "interleaved"):
        near = (rope(q, [7], style=style).astype(np.float64) * rope(k, [4], style=style)).sum()
        far = (rope(q, [[1007]], style=style).astype(np.float64) * rope(k, [[1004]], style=style)).sum()
        size = np.linalg.norm(q.astype(np.float64)) * np.linalg.norm(k.astype(np.float64))
        assert abs(near - far) <= 2 * gamma(8) * 2 * size


def test_rope_refuses() -> None:
    x = np.ones((1, 2, 1, 6))
    with pytest.raises(ValueError, match="even number, got 3"):
        rope(x, [0, 1], fraction=0.5)
    with pytest.raises(ValueError, match="positions"):
        rope(x, [0, 1, 2])
    with pytest.raises(ValueError, match="style"):
        rope(x, [0, 1], style="spiral")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fraction"):
        rope(x, [0, 1], fraction=1.5)
    with pytest.raises(ValueError, match="frequencies"):
        rope(x, [0, 1], frequencies=[1.0])
    with pytest.raises(ValueError, match="base"):
        rotary_frequencies(4, base=0.0)


MAGNITUDES = np.array([0, 1e-45, 1e-40, 1e-8, 1e-3, 0.5, 1, 3, 5.5, 9, 13, 60, 88, 1e4])
POINTS = np.concatenate([MAGNITUDES, -MAGNITUDES])


def gelu_tanh(x: float) -> float:
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


@pytest.mark.parametrize(
    ("function", "oracle", "cancellation"),
    [
        (activation.sigmoid, lambda x: 1 / (1 + math.exp(min(-x, 700.0))), 0.0),
        (activation.silu, lambda x: x / (1 + math.exp(min(-x, 700.0))), 0.0),
        (activation.gelu, lambda x: 0.5 * x * math.erfc(-x / math.sqrt(2)), 0.0),
        # 1 + tanh cancels in double too, which leaves an absolute error of a few 2**-53 there.
        (lambda x: activation.gelu(x, approximate="tanh"), gelu_tanh, 2.0**-51),
        (activation.relu2, lambda x: max(x, 0.0) ** 2, 0.0),
    ],
)
def test_activations_are_rounded_once(function, oracle, cancellation: float) -> None:
    x = POINTS.astype(np.float32)
    expected = np.array([oracle(float(v)) for v in x])
    bound = UNIT_ROUNDOFF * (1 + 1e-6) * np.abs(expected) + cancellation * np.abs(x)
    assert_within(function(x), expected, bound, roundings=1)


def test_gated_activations() -> None:
    gate, up = normal(9, 3, 4), normal(10, 3, 4)
    np.testing.assert_array_equal(activation.swiglu(gate, up), activation.silu(gate) * up)
    for kind in ("none", "tanh"):
        expected = activation.gelu(gate, approximate=kind) * up
        np.testing.assert_array_equal(activation.geglu(gate, up, approximate=kind), expected)
    assert activation.relu2([1e30]).tolist() == [np.inf]
    with pytest.raises(ValueError, match="up: expected shape"):
        activation.swiglu(gate, up[:1])
    with pytest.raises(ValueError, match="approximate"):
        activation.gelu(gate, approximate="sigmoid")  # type: ignore[arg-type]

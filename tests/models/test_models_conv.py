"""Convolutions against float64 written from the definition."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_oracles import UNIT_ROUNDOFF, assert_within, few, gamma, normal

from effsim.models.activation import silu
from effsim.models.conv import causal_conv1d, conv2d
from effsim.models.fftconv import fft_size, long_conv


@given(length=st.integers(0, 7), channels=st.integers(1, 3), kernel=st.integers(1, 5), started=st.booleans())
@few
def test_causal_conv1d(length: int, channels: int, kernel: int, started: bool) -> None:
    x, w, b = normal(1, 2, length, channels), normal(2, channels, kernel), normal(3, channels)
    state = normal(4, 2, kernel - 1, channels) if started else np.zeros((2, kernel - 1, channels), np.float32)
    got = causal_conv1d(x, w, b, state=state if started else None)
    past = np.concatenate([state, x], axis=1).astype(np.float64)
    expected = np.zeros(x.shape) + b
    size = np.abs(expected)
    for t in range(length):
        for back in range(kernel):
            tap = w[:, kernel - 1 - back].astype(np.float64)
            expected[:, t] += tap * past[:, kernel - 1 + t - back]
            size[:, t] += np.abs(tap * past[:, kernel - 1 + t - back])
    assert_within(got.y, expected, gamma(kernel + 2) * size)
    np.testing.assert_array_equal(got.state, past[:, length:])


def test_causal_conv1d_token_by_token_gives_the_same_bits() -> None:
    x, w = normal(5, 2, 6, 3), normal(6, 3, 4)
    whole = causal_conv1d(x, w, activation="silu")
    state, parts = None, []
    for t in range(6):
        part = causal_conv1d(x[:, t : t + 1], w, state=state, activation="silu")
        state = part.state
        parts.append(part.y)
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole.y)
    np.testing.assert_array_equal(state, whole.state)
    np.testing.assert_array_equal(whole.y, silu(causal_conv1d(x, w).y))


@given(
    size=st.tuples(st.integers(3, 6), st.integers(3, 6)), kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    groups=st.integers(1, 2), per_group=st.tuples(st.integers(1, 3), st.integers(1, 2)), stride=st.integers(1, 3),
    padding=st.integers(0, 2), method=st.sampled_from(["direct", "im2col"]), batch=st.integers(0, 2),
)  # fmt: skip
@few
def test_conv2d(
    size: tuple[int, int], kernel: tuple[int, int], groups: int, per_group: tuple[int, int], stride: int,
    padding: int, method: str, batch: int,
) -> None:  # fmt: skip
    inside, outside = per_group
    x, w = normal(7, batch, *size, groups * inside), normal(8, groups * outside, *kernel, inside)
    b = normal(9, groups * outside)
    got = conv2d(x, w, b, stride=stride, padding=padding, groups=groups, method=method, tile_m=4, tile_k=3)
    expected, magnitude = np.zeros(got.shape), np.zeros(got.shape)
    for (i, row, column, o), _ in np.ndenumerate(got):
        terms = [float(b[o])]
        for r in range(kernel[0]):
            for s in range(kernel[1]):
                y, z = row * stride + r - padding, column * stride + s - padding
                if 0 <= y < size[0] and 0 <= z < size[1]:
                    group = slice(o // outside * inside, (o // outside + 1) * inside)
                    terms += (w[o, r, s].astype(np.float64) * x[i, y, z, group]).tolist()
        expected[i, row, column, o], magnitude[i, row, column, o] = sum(terms), sum(map(abs, terms))
    assert_within(got, expected, gamma(kernel[0] * kernel[1] * inside + 3) * magnitude)
    assert got.shape[1:3] == tuple((n + 2 * padding - k) // stride + 1 for n, k in zip(size, kernel, strict=True))


def transform_error(size: int) -> float:
    """Relative error in norm of a float32 radix-2 transform (Higham 2002, theorem 24.2), twiddles off by u."""
    eta = UNIT_ROUNDOFF + gamma(4) * (math.sqrt(2) + UNIT_ROUNDOFF)
    passes = math.log2(size) * eta
    return passes / (1 - passes)


@given(length=st.integers(0, 33), taps=st.integers(1, 40), channels=st.integers(1, 2))
@few
def test_long_conv(length: int, taps: int, channels: int) -> None:
    x, h = normal(10, 2, length, channels), normal(11, channels, taps)
    fft, direct = long_conv(x, h), long_conv(x, h, method="direct")
    used = min(taps, length)
    for i in range(2):
        for c in range(channels):
            signal, filters = x[i, :, c].astype(np.float64), h[c, :used].astype(np.float64)
            expected = np.convolve(signal, filters)[:length] if length else np.zeros(0)
            magnitude = np.convolve(np.abs(signal), np.abs(filters))[:length] if length else np.zeros(0)
            assert_within(direct[i, :, c], expected, gamma(used + 1) * magnitude)
            one, two = np.abs(signal).sum(), np.linalg.norm(signal)
            spread = one * np.linalg.norm(filters) + two * np.abs(filters).sum()
            relative = 2 * transform_error(fft_size(max(length, 1), max(used, 1))) + 2 * gamma(6)
            assert np.linalg.norm(fft[i, :, c] - expected) <= 1.01 * relative * spread


def test_fft_does_not_wrap_round() -> None:
    """An impulse at the last token through a long filter must not reach the first tokens."""
    x = np.zeros((1, 8, 1))
    x[0, 7] = 1
    got = long_conv(x, np.full((1, 8), 5.0))
    assert np.abs(got[0, :7]).max() <= 8 * transform_error(16) * 5 * math.sqrt(8)
    assert abs(got[0, 7, 0] - 5) <= 8 * transform_error(16) * 5 * math.sqrt(8)
    assert fft_size(8, 8) == 16
    assert fft_size(8, 9) == 16
    assert fft_size(9, 9) == 32


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="weight: expected shape"):
        causal_conv1d(np.ones((1, 2, 3)), np.ones((2, 4)))
    with pytest.raises(ValueError, match="state: expected shape"):
        causal_conv1d(np.ones((1, 2, 3)), np.ones((3, 4)), state=np.ones((1, 4, 3)))
    with pytest.raises(ValueError, match="kernel: expected at least 1"):
        causal_conv1d(np.ones((1, 2, 3)), np.ones((3, 0)))
    with pytest.raises(ValueError, match="activation"):
        causal_conv1d(np.ones((1, 2, 3)), np.ones((3, 1)), activation="relu")  # type: ignore[arg-type]
    image = np.ones((1, 3, 3, 4))
    with pytest.raises(ValueError, match="exceeds the padded input"):
        conv2d(image, np.ones((1, 4, 4, 4)))
    with pytest.raises(ValueError, match="input channels a group"):
        conv2d(image, np.ones((2, 1, 1, 4)), groups=2)
    with pytest.raises(ValueError, match="cannot share"):
        conv2d(image, np.ones((3, 1, 1, 2)), groups=2)
    with pytest.raises(ValueError, match="method"):
        conv2d(image, np.ones((1, 1, 1, 4)), method="winograd")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="padding"):
        conv2d(image, np.ones((1, 1, 1, 4)), padding=-1)
    with pytest.raises(ValueError, match="method"):
        long_conv(np.ones((1, 2, 1)), np.ones((1, 2)), method="monarch")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="taps: expected shape"):
        long_conv(np.ones((1, 2, 1)), np.ones((2, 2)))

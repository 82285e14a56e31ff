"""Comparisons of convolutions in all their forms."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch.nn import functional

from effsim.models import conv, fftconv, ssm_conv, winograd

from .bounds import SILU_SLOPE, TINY, UNIT, Bounded, Float64Array, gamma, silu
from .case import Case, Check, Draw, Float32Array, normal, positive, values
from .products import numbers, wide


def compare_conv1d(draw: Draw) -> Iterator[Check]:
    """Against PyTorch's grouped convolution over the state and the tokens; the state is the last inputs, exactly."""
    batch, length, channels, width = 2, draw.integer(1, 20), draw.integer(1, 6), draw.integer(1, 5)
    x, taps, bias = values(draw, batch, length, channels), normal(draw, channels, width), normal(draw, channels)
    state = normal(draw, batch, width - 1, channels)
    whole = torch.cat([wide(state), wide(x)], 1)
    moved = whole.transpose(1, 2)
    want = functional.conv1d(moved, wide(taps)[:, None], wide(bias), groups=channels).transpose(1, 2)
    large = functional.conv1d(moved.abs(), wide(taps).abs()[:, None], wide(bias).abs(), groups=channels).transpose(1, 2)
    bound = gamma(width + 1) * numbers(large) + 2 * width * TINY
    got = conv.causal_conv1d(x, taps, bias, state=state)
    yield Check(got.y, numbers(want), bound, "outputs")
    yield Check(got.state, numbers(whole[:, length:]), 0.0, "state")
    opened = Bounded(numbers(want), bound).through(silu, SILU_SLOPE)
    active = conv.causal_conv1d(x, taps, bias, state=state, activation="silu")
    yield Check(active.y, numbers(functional.silu(want)), opened.error, "with SiLU")


def _image(draw: Draw) -> tuple[Float32Array, int]:
    groups = draw.choice((1, 1, 2, 3))
    return values(draw, draw.integer(1, 2), draw.integer(5, 9), draw.integer(5, 9), groups * draw.integer(1, 4)), groups


def compare_conv2d(draw: Draw) -> Iterator[Check]:
    """Direct and by patches, against PyTorch's own convolution."""
    x, groups = _image(draw)
    rows, columns, stride, padding = draw.integer(1, 4), draw.integer(1, 4), draw.integer(1, 3), draw.integer(0, 2)
    weight = normal(draw, groups * draw.integer(1, 3), rows, columns, x.shape[3] // groups)
    bias = normal(draw, weight.shape[0])
    image, filters = wide(x).permute(0, 3, 1, 2), wide(weight).permute(0, 3, 1, 2)
    shape = {"stride": stride, "padding": padding, "groups": groups}
    want = functional.conv2d(image, filters, wide(bias), **shape).permute(0, 2, 3, 1)
    large = functional.conv2d(image.abs(), filters.abs(), wide(bias).abs(), **shape)
    taps = rows * columns * weight.shape[3]
    bound = gamma(taps + 2 + taps // 32) * numbers(large.permute(0, 2, 3, 1)) + 2 * taps * TINY
    for method in ("direct", "im2col"):
        got = conv.conv2d(x, weight, bias, method=method, **shape)
        yield Check(got, numbers(want), bound, method)


def winograd_bound(x: Float32Array, weight: Float32Array, padding: int, tile: int) -> Float64Array:
    """The same formula with magnitudes: transforms of data and filters, products, transform of the outputs.

    ``A^T [ (|G| |g| |G|^T) (|B|^T |d| |B|) ] A`` for every tile, with the roundings of the longest chain.
    """
    to_data, to_filter, to_output = (np.abs(t).astype(np.float64) for t in winograd.TRANSFORMS[tile])
    height, width = x.shape[1] + 2 * padding - 2, x.shape[2] + 2 * padding - 2
    down, across = -(-height // tile), -(-width // tile)
    padded = np.zeros((x.shape[0], down * tile + 2, across * tile + 2, x.shape[3]))
    padded[:, padding : padding + x.shape[1], padding : padding + x.shape[2]] = np.abs(x)
    taps = np.einsum("ij,ojkc,lk->oilc", to_filter, np.abs(weight).astype(np.float64), to_filter)
    out = np.empty((x.shape[0], down * tile, across * tile, weight.shape[0]))
    for i in range(down):
        for j in range(across):
            d = padded[:, i * tile : (i + 1) * tile + 2, j * tile : (j + 1) * tile + 2]
            data = np.einsum("ij,bjkc,lk->bilc", to_data, d, to_data)
            product = np.einsum("bilc,oilc->bilo", data, taps)
            part = np.einsum("ij,bjko,lk->bilo", to_output, product, to_output)
            out[:, i * tile : (i + 1) * tile, j * tile : (j + 1) * tile] = part
    size, depth = tile + 2, x.shape[3]
    roundings = 2 * (size + 1) + 2 * (3 + 2) + depth + depth // 32 + 2 + 2 * (size + 1)
    return np.asarray((gamma(roundings) * out + 1e4 * depth * TINY)[:, :height, :width])


def compare_winograd(draw: Draw) -> Iterator[Check]:
    """Both tile sizes."""
    x = normal(draw, draw.integer(1, 2), draw.integer(3, 11), draw.integer(3, 11), draw.integer(1, 20))
    weight, padding = normal(draw, draw.integer(1, 5), 3, 3, x.shape[3]), draw.integer(0, 1)
    want = functional.conv2d(wide(x).permute(0, 3, 1, 2), wide(weight).permute(0, 3, 1, 2), padding=padding)
    for tile in (2, 4):
        got = winograd.winograd_conv2d(x, weight, padding=padding, tile=tile)
        bound = winograd_bound(x, weight, padding, tile)
        yield Check(got, numbers(want.permute(0, 2, 3, 1)), bound, f"F({tile})")


def fft_bound(x: torch.Tensor, taps: torch.Tensor) -> Float64Array:
    """Error in the 2-norm of a causal convolution by three transforms, from :mod:`effsim.models.fftconv`."""
    points = fftconv.fft_size(x.shape[1], min(taps.shape[1], x.shape[1]))
    transform = math.log2(points) * (UNIT + gamma(4) * (math.sqrt(2.0) + UNIT))
    signal = x.transpose(1, 2)
    norm = signal.abs().sum(-1) * taps.square().sum(-1).sqrt() + signal.square().sum(-1).sqrt() * taps.abs().sum(-1)
    norm = norm * (2 * transform + 2 * gamma(6)) * 1.01
    return numbers(norm[:, None].expand(x.shape[0], x.shape[1], x.shape[2]))


def causal(x: torch.Tensor, taps: torch.Tensor) -> torch.Tensor:
    """Depthwise causal convolution; tap 0 meets the newest token."""
    moved = functional.pad(x.transpose(1, 2), (taps.shape[1] - 1, 0))
    return functional.conv1d(moved, taps.flip(-1)[:, None], groups=x.shape[2]).transpose(1, 2)


def compare_long(draw: Draw) -> Iterator[Check]:
    """Directly: a bound an element; by FFT: the same bound in norm for every element."""
    length, channels = draw.integer(1, 60), draw.integer(1, 3)
    x, taps = normal(draw, 2, length, channels), normal(draw, channels, draw.integer(1, 70))
    want = numbers(causal(wide(x), wide(taps)))
    large = numbers(causal(wide(x).abs(), wide(taps).abs()))
    bound = gamma(taps.shape[1]) * large + 2 * length * TINY
    yield Check(fftconv.long_conv(x, taps, method="direct"), want, bound, "direct")
    yield Check(fftconv.long_conv(x, taps), want, fft_bound(wide(x), wide(taps)), "fft")


def compare_ssm(draw: Draw) -> Iterator[Check]:
    """The convolutional form of a time-invariant model against its recurrence as powers of a matrix."""
    length, channels, state = draw.integer(1, 30), draw.integer(1, 3), draw.integer(1, 6)
    u, delta, a = normal(draw, 2, length, channels), positive(draw, channels), -positive(draw, channels, state)
    b, c, skip = normal(draw, state), normal(draw, state), normal(draw, channels)
    want, large = np.empty(u.shape), np.empty(u.shape)
    for d in range(channels):
        turn = torch.diag(torch.exp(wide(delta)[d] * wide(a)[d]))
        rows = [wide(c)[None] @ torch.linalg.matrix_power(turn, t) for t in range(length)]
        taps = torch.cat(rows) @ (wide(delta)[d] * wide(b))[:, None]
        rows = [wide(c).abs()[None] @ torch.linalg.matrix_power(turn, t) for t in range(length)]
        over = torch.cat(rows) @ (wide(delta)[d] * wide(b).abs())[:, None]
        own, most = wide(u)[..., d : d + 1], taps.T.contiguous()
        want[..., d : d + 1] = numbers(causal(own, most) + wide(skip)[d] * own)
        convolved = causal(own.abs(), over.T.contiguous()) + wide(skip)[d].abs() * own.abs()
        transform = fft_bound(own, over.T.contiguous())
        large[..., d : d + 1] = gamma(2 * state + 8) * numbers(convolved) * 2 + transform * (1 + gamma(2 * state + 8))
    yield Check(ssm_conv.ssm_convolution(u, delta, a, b, c, skip=skip), want, large + 100 * TINY)


CASES = (
    Case("causal conv1d", ("conv.causal_conv1d",), compare_conv1d),
    Case("conv2d direct, im2col", ("conv.conv2d",), compare_conv2d),
    Case("conv2d Winograd", ("winograd.winograd_conv2d",), compare_winograd),
    Case("long convolution", ("fftconv.long_conv",), compare_long),
    Case("SSM as convolution", ("ssm_conv.ssm_convolution",), compare_ssm),
)

"""Convolutions: causal depthwise in one dimension with carried state; two-dimensional, direct and by im2col.

As everywhere in neural networks these are correlations: the kernel is not flipped.
Sources: Gu & Dao, *Mamba* (2023) for the short causal convolution; Chellapilla et al. (2006) for im2col.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from effsim.models._arrays import Float32Array, expect_positive, expect_shape, float32, group_size
from effsim.models._kernel import kernel
from effsim.models.activation import silu
from effsim.models.gemm import gemm


@dataclass(frozen=True, slots=True)
class Conv1dResult:
    """Outputs of a causal convolution.

    Attributes:
        y: (batch, length, channels).
        state: (batch, kernel - 1, channels), the last inputs, which the next call takes.
    """

    y: Float32Array
    state: Float32Array


@kernel
def _depthwise(padded: Float32Array, weight: Float32Array, out: Float32Array) -> None:
    """``out[t] = sum_j weight[j] padded[t + j]`` per channel, oldest tap first; ``out`` comes in as zeros."""
    batch, length, channels = out.shape
    for i in range(batch):
        for t in range(length):
            for j in range(weight.shape[1]):
                for c in range(channels):
                    out[i, t, c] += weight[c, j] * padded[i, t + j, c]


def causal_conv1d(
    x: npt.ArrayLike,
    weight: npt.ArrayLike,
    bias: npt.ArrayLike | None = None,
    *,
    state: npt.ArrayLike | None = None,
    activation: Literal["silu"] | None = None,
) -> Conv1dResult:
    """Convolve each channel with its own kernel, looking back only; one token with a ``state`` is a generation step.

    ``y_t = bias + sum_j weight[j] x_{t - kernel + 1 + j}``, where x before the first token is ``state`` or zero.

    Args:
        x: (batch, length, channels).
        weight: (channels, kernel), the newest token's tap last.
        bias: (channels,) or None.
        state: (batch, kernel - 1, channels), oldest first; None is zeros.
        activation: ``silu`` or None.

    Raises:
        ValueError: for shapes that do not fit together, an empty kernel or an unknown activation.

    >>> r = causal_conv1d([[[1.0], [2.0]]], [[10.0, 1.0]])
    >>> r.y.ravel().tolist(), r.state.ravel().tolist()
    ([1.0, 12.0], [2.0])
    """
    inputs, taps = float32("x", x, 3), float32("weight", weight, 2)
    batch, length, channels = inputs.shape
    expect_positive(kernel=taps.shape[1])
    expect_shape("weight", taps, (channels, taps.shape[1]))
    if activation not in (None, "silu"):
        raise ValueError(f"activation: expected silu or None, got {activation!r}")
    shape = (batch, taps.shape[1] - 1, channels)
    history = np.zeros(shape, np.float32) if state is None else float32("state", state, 3)
    expect_shape("state", history, shape)
    padded = np.concatenate([history, inputs], axis=1)
    y = np.zeros(inputs.shape, np.float32)
    _depthwise(padded, taps, y)
    if bias is not None:
        offset = float32("bias", bias, 1)
        expect_shape("bias", offset, (channels,))
        y = y + offset
    return Conv1dResult(silu(y) if activation else y, padded[:, length:].copy())


@kernel
def _direct(x: Float32Array, weight: Float32Array, stride: int, out: Float32Array) -> None:
    """Sum over kernel rows, kernel columns, then input channels of the group; x is padded, ``out`` all zeros."""
    batch, height, width, channels = out.shape
    per_group = weight.shape[3]
    outputs_per_group = channels // (x.shape[3] // per_group)
    for i in range(batch):
        for row in range(height):
            for column in range(width):
                for o in range(channels):
                    base = o // outputs_per_group * per_group
                    total = np.float32(0)
                    for r in range(weight.shape[1]):
                        for s in range(weight.shape[2]):
                            for c in range(per_group):
                                value = x[i, row * stride + r, column * stride + s, base + c]
                                total += weight[o, r, s, c] * value
                    out[i, row, column, o] = total


def _im2col(
    x: Float32Array, weight: Float32Array, stride: int, groups: int, out: Float32Array, tiles: tuple[int, int, int]
) -> None:
    """Copy each output pixel's window into a row (kernel row, kernel column, channel) and multiply, per group."""
    batch, height, width, channels = out.shape
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[1:3], axis=(1, 2))
    windows = windows[:, ::stride, ::stride][:, :height, :width]
    for g in range(groups):
        inputs = slice(g * weight.shape[3], (g + 1) * weight.shape[3])
        outputs = slice(g * (channels // groups), (g + 1) * (channels // groups))
        taps = weight.shape[1] * weight.shape[2] * weight.shape[3]
        rows = np.moveaxis(windows[:, :, :, inputs], 3, 5).reshape(batch * height * width, taps)
        columns = weight[outputs].reshape(channels // groups, taps).T
        product = gemm(rows, columns, tile_m=tiles[0], tile_n=tiles[1], tile_k=tiles[2])
        out[..., outputs] = product.reshape(batch, height, width, channels // groups)


def conv2d(
    x: npt.ArrayLike,
    weight: npt.ArrayLike,
    bias: npt.ArrayLike | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
    method: Literal["direct", "im2col"] = "im2col",
    tile_m: int = 128,
    tile_n: int = 128,
    tile_k: int = 32,
) -> Float32Array:
    """Two-dimensional convolution, channels last.

    Output height and width are ``(size + 2 padding - kernel) // stride + 1``.

    Args:
        x: (batch, height, width, in_channels).
        weight: (out_channels, kernel_height, kernel_width, in_channels / groups).
        bias: (out_channels,) or None.
        stride: step in both directions.
        padding: zeros on every side.
        groups: independent groups of channels.
        method: ``direct`` sums in place; ``im2col`` copies windows to rows and runs :func:`effsim.models.gemm.gemm`.
        tile_m: rows of the multiplication's output tile (im2col).
        tile_n: columns of the multiplication's output tile (im2col).
        tile_k: length of the multiplication's k block (im2col).

    Returns:
        float32 array (batch, out_height, out_width, out_channels).

    Raises:
        ValueError: for shapes that do not fit together, a kernel larger than the padded input or unknown options.

    >>> conv2d(np.ones((1, 2, 2, 1)), np.ones((1, 2, 2, 1)), padding=1)[0, :, :, 0].tolist()
    [[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]
    """
    image, filters = float32("x", x, 4), float32("weight", weight, 4)
    channels, rows, columns, per_group = filters.shape
    expect_positive(stride=stride, kernel_height=rows, kernel_width=columns)
    if padding < 0:
        raise ValueError(f"padding: expected 0 or above, got {padding}")
    if per_group != group_size("x", image.shape[3], groups):
        raise ValueError(f"weight: expected {image.shape[3] // groups} input channels a group, got {per_group}")
    group_size("weight", channels, groups)
    padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    height, width = (padded.shape[1] - rows) // stride + 1, (padded.shape[2] - columns) // stride + 1
    if min(height, width) < 1:
        raise ValueError(f"weight: kernel {(rows, columns)} exceeds the padded input {padded.shape[1:3]}")
    out = np.zeros((image.shape[0], height, width, channels), np.float32)
    if method == "direct":
        _direct(padded, filters, stride, out)
    elif method == "im2col":
        _im2col(padded, filters, stride, groups, out, (tile_m, tile_n, tile_k))
    else:
        raise ValueError(f"method: expected direct or im2col, got {method!r}")
    if bias is None:
        return out
    offset = float32("bias", bias, 1)
    expect_shape("bias", offset, (channels,))
    return out + offset

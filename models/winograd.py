"""Two-dimensional 3 x 3 convolution by Winograd's minimal filtering, F(2 x 2, 3 x 3) and F(4 x 4, 3 x 3).

Source: Lavin & Gray, *Fast Algorithms for Convolutional Neural Networks* (2015). For output tiles of m x m from input
tiles d of (m + 2) x (m + 2) that overlap by 2: ``Y = A^T [ (G g G^T) * (B^T d B) ] A``. The products of all tiles and
channels at one of the (m + 2)^2 positions form one GEMM (tiles x in) by (in x out).

The transforms amplify rounding: with ``|A|, |B|, |G|`` in place of the matrices the same formula bounds the magnitudes
that the errors are relative to, about 10 times the direct sum for m = 4.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from effsim.models._arrays import Float32Array, float32
from effsim.models.gemm import gemm

KERNEL: Final = 3

TRANSFORMS: Final = MappingProxyType(
    {
        2: (
            np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], np.float32),
            np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32),
            np.array([[1, 1, 1, 0], [0, 1, -1, -1]], np.float32),
        ),
        4: (
            np.array(
                [
                    [4, 0, -5, 0, 1, 0],
                    [0, -4, -4, 1, 1, 0],
                    [0, 4, -4, -1, 1, 0],
                    [0, -2, -1, 2, 1, 0],
                    [0, 2, -1, -2, 1, 0],
                    [0, 4, 0, -5, 0, 1],
                ],
                np.float32,
            ),
            (
                np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], np.float64) / 24.0
            ).astype(np.float32),
            np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], np.float32),
        ),
    }
)
"""``B^T``, ``G`` and ``A^T`` by output tile. G of the larger one is not exact in float32 (1/6, 1/24, 1/12)."""


def _two_sided(matrix: Float32Array, tiles: Float32Array) -> Float32Array:
    """``matrix @ tile @ matrix^T`` over the last two axes: rows first, then columns, terms in ascending order."""
    size = matrix.shape[1]
    rows = np.zeros((*tiles.shape[:-2], matrix.shape[0], size), np.float32)
    for i in range(size):
        rows += matrix[:, i, None] * tiles[..., i, None, :]
    out = np.zeros((*tiles.shape[:-2], matrix.shape[0], matrix.shape[0]), np.float32)
    for j in range(size):
        out += rows[..., j, None] * matrix[:, j]
    return out


def winograd_conv2d(
    x: npt.ArrayLike,
    weight: npt.ArrayLike,
    *,
    padding: int = 0,
    tile: int = 2,
    tile_m: int = 128,
    tile_n: int = 128,
    tile_k: int = 32,
) -> Float32Array:
    """Convolve with 3 x 3 kernels at stride 1, channels last.

    Args:
        x: (batch, height, width, in_channels).
        weight: (out_channels, 3, 3, in_channels).
        padding: zeros on every side.
        tile: outputs of a tile in each direction, 2 or 4.
        tile_m: rows of the multiplications' output tile.
        tile_n: columns of the multiplications' output tile.
        tile_k: length of the multiplications' k block.

    Returns:
        float32 array (batch, height + 2 padding - 2, width + 2 padding - 2, out_channels).

    Raises:
        ValueError: for shapes that do not fit together or another tile.

    >>> winograd_conv2d(np.ones((1, 4, 4, 1)), np.ones((1, 3, 3, 1)))[0, :, :, 0].tolist()
    [[9.0, 9.0], [9.0, 9.0]]
    """
    image, filters = float32("x", x, 4), float32("weight", weight, 4)
    if tile not in TRANSFORMS:
        raise ValueError(f"tile: expected 2 or 4, got {tile}")
    if padding < 0:
        raise ValueError(f"padding: expected 0 or above, got {padding}")
    if filters.shape[1:] != (KERNEL, KERNEL, image.shape[3]):
        raise ValueError(f"weight: expected (out, 3, 3, {image.shape[3]}), got shape {filters.shape}")
    batch, channels, outputs = image.shape[0], image.shape[3], filters.shape[0]
    height, width = image.shape[1] + 2 * padding - 2, image.shape[2] + 2 * padding - 2
    if min(height, width) < 1:
        raise ValueError(f"weight: kernel (3, 3) exceeds the padded input {(height + 2, width + 2)}")
    down, across, size = -(-height // tile), -(-width // tile), tile + 2
    ends = (
        (padding, down * tile + 2 - image.shape[1] - padding),
        (padding, across * tile + 2 - image.shape[2] - padding),
    )
    padded = np.pad(image, ((0, 0), *ends, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))[:, ::tile, ::tile]
    to_data, to_filter, to_output = TRANSFORMS[tile]
    data = _two_sided(to_data, windows.reshape(batch * down * across, channels, size, size))
    taps = _two_sided(to_filter, np.moveaxis(filters, 3, 1))
    products = np.empty((batch * down * across, outputs, size, size), np.float32)
    for i in range(size):
        for j in range(size):
            products[:, :, i, j] = gemm(data[..., i, j], taps[..., i, j].T, tile_m=tile_m, tile_n=tile_n, tile_k=tile_k)
    out = _two_sided(to_output, products).reshape(batch, down, across, outputs, tile, tile)
    whole = out.transpose(0, 1, 4, 2, 5, 3).reshape(batch, down * tile, across * tile, outputs)
    return np.ascontiguousarray(whole[:, :height, :width])

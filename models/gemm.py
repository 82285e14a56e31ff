"""Matrix multiplication tile by tile, as matrix units work through it.

Each output tile walks along k in blocks. A block's products are summed from zero and the block's sum is then added to
the tile's accumulator, the way a matrix instruction adds an inner product to a register. With split-K, several walkers
share the k axis in contiguous runs of blocks, and their partial tiles are added in split order.

Rounding error of one output (Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., §3.1):
``|error| <= gamma(tile_k + blocks_per_split + split_k) * sum |a||b|`` with ``gamma(n) = n u / (1 - n u)``, u = 2**-24.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from effsim.models._arrays import Float32Array, expect_positive, expect_shape, float32
from effsim.models._kernel import kernel
from effsim.models._panel import ROWS, WIDTH, add_row, quad
from effsim.models.rounding import round_to

_NARROW = 16
"""Tiles narrower than this are not worth packing."""


@kernel
def _pack(b: Float32Array, ks: tuple[int, int], columns: tuple[int, int], panel: Float32Array) -> None:
    """Copy a block of ``b`` to lines of :data:`WIDTH`, zeros behind its last column."""
    width = columns[1] - columns[0]
    for k in range(ks[0], ks[1]):
        line, row = panel[(k - ks[0]) * WIDTH :], b[k][columns[0] :]
        for j in range(width):
            line[j] = row[j]
        for j in range(width, WIDTH):
            line[j] = np.float32(0)


@kernel
def _add_panel(
    a: Float32Array, rows: tuple[int, int], columns: tuple[int, int], ks: tuple[int, int],
    panel: Float32Array, partial: Float32Array, out: Float32Array,
) -> None:  # fmt: skip
    """Add rows, a multiple of four, times one packed panel to ``out``."""
    for i in range(rows[0], rows[1], ROWS):
        for j in range(ROWS * WIDTH):
            partial[j] = np.float32(0)
        quad(a, i, ks[0], ks[1], panel, partial)
        for r in range(ROWS):
            row, sums = out[i + r][columns[0] :], partial[r * WIDTH :]
            for j in range(columns[1] - columns[0]):
                row[j] += sums[j]


@kernel
def _add_block(
    a: Float32Array, b: Float32Array, rows: tuple[int, int], columns: tuple[int, int], ks: tuple[int, int],
    panel: Float32Array, partial: Float32Array, out: Float32Array,
) -> None:  # fmt: skip
    """Add one (rows x k-block) by (k-block x columns) product to ``out``; ``panel`` and ``partial`` are scratch."""
    packed = rows[0]
    if columns[1] - columns[0] >= _NARROW:
        packed += (rows[1] - rows[0]) // ROWS * ROWS
    if packed > rows[0]:
        for first in range(columns[0], columns[1], WIDTH):
            part = (first, min(columns[1], first + WIDTH))
            _pack(b, ks, part, panel)
            _add_panel(a, (rows[0], packed), part, ks, panel, partial, out)
    width = columns[1] - columns[0]
    for i in range(packed, rows[1]):
        for j in range(width):
            partial[j] = np.float32(0)
        add_row(a[i, ks[0] : ks[1]], b[ks[0] : ks[1]], columns[0], partial[:width])
        row = out[i][columns[0] :]
        for j in range(width):
            row[j] += partial[j]


@kernel
def _multiply(
    a: Float32Array, b: Float32Array, tile_m: int, tile_n: int, tile_k: int, blocks_per_split: int, out: Float32Array
) -> None:
    """Fill ``out`` (splits, m, n), which comes in as zeros."""
    m, k = a.shape
    n = b.shape[1]
    panel = np.empty(min(k, tile_k) * WIDTH, np.float32)
    partial = np.empty(max(min(n, tile_n), ROWS * WIDTH), np.float32)
    for split in range(out.shape[0]):
        k_first = split * blocks_per_split * tile_k
        k_last = min(k, k_first + blocks_per_split * tile_k)
        for i in range(0, m, tile_m):
            for j in range(0, n, tile_n):
                for block in range(k_first, k_last, tile_k):
                    rows = (i, min(m, i + tile_m))
                    columns = (j, min(n, j + tile_n))
                    ks = (block, min(k_last, block + tile_k))
                    _add_block(a, b, rows, columns, ks, panel, partial, out[split])


def gemm(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    bias: npt.ArrayLike | None = None,
    tile_m: int = 128,
    tile_n: int = 128,
    tile_k: int = 32,
    split_k: int = 1,
    input_dtype: str = "fp32",
    output_dtype: str = "fp32",
) -> Float32Array:
    """Return ``a @ b + bias`` with float32 accumulation in tile order.

    Args:
        a: (m, k).
        b: (k, n).
        bias: (n,), added in float32 after the splits are merged.
        tile_m: rows of an output tile.
        tile_n: columns of an output tile.
        tile_k: length of a k block.
        split_k: number of walkers along k; those beyond the number of blocks add zeros.
        input_dtype: format that ``a`` and ``b`` are rounded to first (see :func:`effsim.models.rounding.round_to`).
        output_dtype: format that the sum is rounded to last.

    Returns:
        float32 array (m, n).

    Raises:
        ValueError: for shapes that do not match or sizes below 1.

    >>> gemm([[1, 2], [3, 4]], [[1, 0], [0, 2]], bias=[10, 20]).tolist()
    [[11.0, 24.0], [13.0, 28.0]]
    """
    expect_positive(tile_m=tile_m, tile_n=tile_n, tile_k=tile_k, split_k=split_k)
    left = round_to(float32("a", a, 2), input_dtype)
    right = round_to(float32("b", b, 2), input_dtype)
    m, k = left.shape
    if right.shape[0] != k:
        raise ValueError(f"b: expected {k} rows to match a of shape {left.shape}, got shape {right.shape}")
    n = right.shape[1]
    blocks = -(-k // tile_k)
    partials = np.zeros((split_k, m, n), np.float32)
    _multiply(left, right, tile_m, tile_n, tile_k, -(-blocks // split_k), partials)
    total = partials[0]
    for partial in partials[1:]:
        total = total + partial
    if bias is not None:
        offset = float32("bias", bias, 1)
        expect_shape("bias", offset, (n,))
        total = total + offset
    return round_to(total, output_dtype)


def batched_gemm(
    a: npt.ArrayLike, b: npt.ArrayLike, *, tile_m: int = 128, tile_n: int = 128, tile_k: int = 32
) -> Float32Array:
    """Return ``a[i] @ b[i]`` for every i: (batch, m, k) by (batch, k, n) gives float32 (batch, m, n).

    Raises:
        ValueError: for shapes that do not match or sizes below 1.

    >>> batched_gemm([[[2.0]], [[3.0]]], [[[5.0]], [[7.0]]]).ravel().tolist()
    [10.0, 21.0]
    """
    left, right = float32("a", a, 3), float32("b", b, 3)
    if left.shape[0] != right.shape[0]:
        raise ValueError(f"b: expected batch {left.shape[0]} as in a, got {right.shape[0]}")
    out = np.zeros((left.shape[0], left.shape[1], right.shape[2]), np.float32)
    for i in range(left.shape[0]):
        out[i] = gemm(left[i], right[i], tile_m=tile_m, tile_n=tile_n, tile_k=tile_k)
    return out

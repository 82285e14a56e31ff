"""Matrix products of narrow operands with scales, in the k blocks of :mod:`effsim.models.gemm`.

* Weight-only (Lin et al., *AWQ*, 2023; Frantar et al., *GPTQ*, 2022): integer weights, a scale a group of a row.
  Every k block is widened on its way to the matrix unit: ``round(q * scale)`` in the type of the arithmetic.
* int8 by int8 (Xiao et al., *SmoothQuant*, 2022): exact int32 sums, which wrap as hardware's do, then both scales.
* fp8 with block scales (*DeepSeek-V3* technical report, 2024, §3.3): a block's sum is multiplied by the scales of its
  two operands and added to the float32 accumulator; the k block is the block of the scales.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from effsim.models._arrays import Float32Array, expect_positive, expect_shape, float32
from effsim.models.gemm import gemm
from effsim.models.rounding import FORMATS, QuantizedGroups, round_to


def widen(weights: QuantizedGroups, *, compute_dtype: str = "fp16", scale_dtype: str = "fp16") -> Float32Array:
    """Return ``round(q * round(scale))`` as a float32 matrix (n, k) on the grid of ``compute_dtype``.

    >>> widen(QuantizedGroups(np.array([[7, -7]], np.int8), np.array([[0.5]], np.float32), 4)).tolist()
    [[3.5, -3.5]]
    """
    scales = np.repeat(round_to(weights.scales, scale_dtype), weights.group_size, axis=1)
    return round_to(weights.values.astype(np.float32) * scales, compute_dtype)


def weight_only_gemm(
    a: npt.ArrayLike,
    weights: QuantizedGroups,
    *,
    compute_dtype: str = "fp16",
    scale_dtype: str = "fp16",
    output_dtype: str = "fp32",
    tile_m: int = 128,
    tile_n: int = 128,
    tile_k: int = 32,
) -> Float32Array:
    """Return ``a @ widen(weights).T`` with float32 sums, widening one k block of one column tile at a time.

    Args:
        a: (m, k), rounded to ``compute_dtype`` first.
        weights: (n, k) codes with a scale for every group along k.
        compute_dtype: type of the matrix unit's operands.
        scale_dtype: type the scales are stored in.
        output_dtype: format that the sum is rounded to last.
        tile_m: rows of an output tile.
        tile_n: columns of an output tile.
        tile_k: length of a k block.

    Raises:
        ValueError: for shapes that do not match or sizes below 1.

    >>> codes = QuantizedGroups(np.array([[1, 2, 3, 4]], np.int8), np.array([[1.0, 0.5]], np.float32), 4)
    >>> weight_only_gemm([[1.0, 1.0, 1.0, 1.0]], codes).tolist()
    [[6.5]]
    """
    expect_positive(tile_m=tile_m, tile_n=tile_n, tile_k=tile_k)
    left = round_to(float32("a", a, 2), compute_dtype)
    n, k = weights.values.shape
    if left.shape[1] != k:
        raise ValueError(f"a: expected {k} columns as the weights have, got shape {left.shape}")
    group = max(weights.group_size, 1)
    scales = round_to(weights.scales, scale_dtype)
    out = np.zeros((left.shape[0], n), np.float32)
    for j in range(0, n, tile_n):
        rows = slice(j, min(n, j + tile_n))
        for first in range(0, k, tile_k):
            ks = np.arange(first, min(k, first + tile_k))
            block = round_to(weights.values[rows, ks].astype(np.float32) * scales[rows][:, ks // group], compute_dtype)
            out[:, rows] += gemm(left[:, ks], block.T, tile_m=tile_m, tile_n=tile_n, tile_k=tile_k)
    return round_to(out, output_dtype)


def int8_gemm(
    a: npt.NDArray[np.int8], b: npt.NDArray[np.int8], a_scales: npt.ArrayLike, b_scales: npt.ArrayLike
) -> Float32Array:
    """Return ``(a @ b.T) * a_scales[:, None] * b_scales``: int32 sums, converted and multiplied in float32.

    Args:
        a: int8 codes (m, k).
        b: int8 codes (n, k).
        a_scales: (m,), one a row (token).
        b_scales: (n,), one a row (output channel).

    Raises:
        ValueError: for shapes that do not match or codes that are not int8.

    >>> int8_gemm(np.array([[2, 3]], np.int8), np.array([[10, -1]], np.int8), [0.5], [2.0]).tolist()
    [[17.0]]
    """
    if a.dtype != np.int8 or b.dtype != np.int8:
        raise ValueError(f"a, b: expected int8 codes, got {a.dtype} and {b.dtype}")
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"b: expected (n, k) to match a of shape {a.shape}, got shape {b.shape}")
    left, right = float32("a_scales", a_scales, 1), float32("b_scales", b_scales, 1)
    expect_shape("a_scales", left, (a.shape[0],))
    expect_shape("b_scales", right, (b.shape[0],))
    # Integer addition is associative even when it wraps, so no order needs to be kept.
    sums = (a.astype(np.int64) @ b.T.astype(np.int64)).astype(np.int32)
    return sums.astype(np.float32) * left[:, None] * right


@dataclass(frozen=True, slots=True)
class ScaledBlocks:
    """A matrix of narrow floats with one float32 scale a block: ``values * scale`` stands for the original.

    Attributes:
        values: float32 (rows, columns), on the narrow format's grid.
        scales: float32 (ceil(rows / block_rows), ceil(columns / block)).
        block_rows: rows of a block.
        block: columns of a block.
    """

    values: Float32Array
    scales: Float32Array
    block_rows: int
    block: int

    def row_scales(self, column: int) -> Float32Array:
        """The (rows,) scales of the block that holds *column*."""
        return np.repeat(self.scales[:, column // self.block], self.block_rows)[: self.values.shape[0]]

    def widened(self) -> Float32Array:
        """``values * scale`` as float32."""
        columns = np.repeat(self.scales, self.block, axis=1)[:, : self.values.shape[1]]
        return self.values * np.repeat(columns, self.block_rows, axis=0)[: self.values.shape[0]]


def scale_blocks(x: npt.ArrayLike, *, dtype: str = "fp8_e4m3", block_rows: int = 1, block: int = 128) -> ScaledBlocks:
    """Scale every block so that its largest magnitude meets the format's largest value, and round.

    Args:
        x: finite matrix (rows, columns).
        dtype: key of :data:`effsim.models.rounding.FORMATS`.
        block_rows: rows of a block (1 for activations, 128 for weights in DeepSeek-V3).
        block: columns of a block.

    Raises:
        ValueError: for values that are not finite, sizes below 1, or an unknown dtype.

    >>> s = scale_blocks([[896.0, 2.0, 0.0, 1.0]], block=2)
    >>> s.scales.tolist()[0][0], s.widened().tolist()[0][:2]
    (2.0, [896.0, 2.0])
    """
    values = float32("x", x, 2)
    expect_positive(block_rows=block_rows, block=block)
    if dtype not in FORMATS:
        raise ValueError(f"dtype: unknown {dtype!r}, expected one of {', '.join(FORMATS)}")
    if not np.isfinite(values).all():
        raise ValueError("x: expected finite values")
    rows, columns = values.shape
    down, across = -(-rows // block_rows), -(-columns // block)
    padded = np.zeros((down * block_rows, across * block), np.float32)
    padded[:rows, :columns] = values
    tiles = padded.reshape(down, block_rows, across, block)
    peak = np.max(np.abs(tiles), axis=(1, 3), initial=np.float32(0))
    scales = np.maximum(peak / np.float32(FORMATS[dtype].maximum), np.float32(np.finfo(np.float32).tiny))
    codes = round_to(tiles / scales[:, None, :, None], dtype, saturate=True)
    return ScaledBlocks(codes.reshape(padded.shape)[:rows, :columns].copy(), scales, block_rows, block)


def block_scaled_gemm(
    a: ScaledBlocks, b: ScaledBlocks, *, output_dtype: str = "fp32", tile_m: int = 128, tile_n: int = 128
) -> Float32Array:
    """Return ``a.widened() @ b.widened().T``: every k block summed in float32, scaled, then added.

    Args:
        a: (m, k).
        b: (n, k), with blocks of the same length along k.
        output_dtype: format that the sum is rounded to last.
        tile_m: rows of an output tile.
        tile_n: columns of an output tile.

    Raises:
        ValueError: for shapes or blocks that do not match.

    >>> x = scale_blocks([[448.0, 224.0]], block=1)
    >>> block_scaled_gemm(x, x).tolist()
    [[250880.0]]
    """
    if a.values.shape[1] != b.values.shape[1] or a.block != b.block:
        raise ValueError(f"b: expected blocks and columns of a ({a.values.shape[1]} by {a.block})")
    k = a.values.shape[1]
    out = np.zeros((a.values.shape[0], b.values.shape[0]), np.float32)
    for first in range(0, k, a.block):
        ks = slice(first, min(k, first + a.block))
        sums = gemm(a.values[:, ks], b.values[:, ks].T, tile_m=tile_m, tile_n=tile_n, tile_k=a.block)
        out += sums * (a.row_scales(first)[:, None] * b.row_scales(first))
    return round_to(out, output_dtype)

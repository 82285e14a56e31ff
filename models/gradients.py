"""What a training step does to gradients beside making them: sums over rows and microbatches, clipping by norm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ._arrays import Float32Array
from .rounding import round_to

ROWS_A_BLOCK = 128
"""Rows that one block adds up before its partial sum joins the others."""


def bias_gradient(grad: npt.ArrayLike, *, dtype: str = "fp32") -> Float32Array:
    """Gradient of a bias: the sum of the rows of an output gradient, block of rows after block, in float32.

    Args:
        grad: (m, n).
        dtype: format that the gradient is rounded to first.

    Returns:
        (n,).

    Raises:
        ValueError: not a matrix.

    >>> bias_gradient([[1.0, 2.0], [3.0, 4.0]]).tolist()
    [4.0, 6.0]
    """
    rows = round_to(np.asarray(grad, dtype=np.float32), dtype)
    if rows.ndim != 2:
        raise ValueError(f"a matrix was expected, not {rows.ndim} dimensions")
    total = np.zeros(rows.shape[1], dtype=np.float32)
    for first in range(0, rows.shape[0], ROWS_A_BLOCK):
        total += rows[first : first + ROWS_A_BLOCK].sum(axis=0, dtype=np.float32)
    return total


def gradient_sum(sums: npt.ArrayLike, grad: npt.ArrayLike, *, dtype: str = "fp32") -> Float32Array:
    """Sums of the microbatches before, with one more added, kept in *dtype*.

    Raises:
        ValueError: for shapes that differ.

    >>> gradient_sum([1.0, 2.0], [0.5, 0.25]).tolist()
    [1.5, 2.25]
    """
    before, new = np.asarray(sums, dtype=np.float32), np.asarray(grad, dtype=np.float32)
    if before.shape != new.shape:
        raise ValueError(f"shapes {before.shape} and {new.shape} differ")
    return round_to(before + new, dtype)


def gradient_clip(gradients: Sequence[npt.ArrayLike], limit: float) -> tuple[list[Float32Array], float]:
    """Gradients scaled so that their common Euclidean norm is at most *limit*, and the norm before.

    Norms of the tensors first, then the norm of those, as frameworks do it.

    >>> clipped, norm = gradient_clip([[3.0], [4.0]], 1.0)
    >>> norm, [round(float(g[0]), 6) for g in clipped]
    (5.0, [0.6, 0.8])
    """
    held = [np.asarray(g, dtype=np.float32) for g in gradients]
    norms = [float(np.sqrt(np.sum(g.astype(np.float64) ** 2))) for g in held]
    norm = float(np.sqrt(sum(n * n for n in norms)))
    scale = np.float32(min(1.0, limit / (norm + 1e-6)))
    return [g * scale for g in held], norm

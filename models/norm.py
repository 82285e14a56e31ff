"""Row normalisation with the sums in the order of a group of lanes.

Lane l adds elements l, l + lanes, l + 2 lanes, … and the lanes' sums are then folded in halves, as a warp's shuffle
reduction does. A sum of n terms therefore has rounding error at most ``gamma(ceil(n/lanes) + log2(lanes)) sum |x|``.

Sources: Zhang & Sennrich, *Root Mean Square Layer Normalization* (2019); Ba et al., *Layer Normalization* (2016).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from effsim.models._arrays import Float32Array, expect_shape, float32
from effsim.models._kernel import kernel

_LANES = 32


@kernel
def _fold(lanes: Float32Array) -> np.float32:
    """Add the second half of the lanes to the first until one is left."""
    width = lanes.shape[0] // 2
    while width:
        for i in range(width):
            lanes[i] += lanes[i + width]
        width //= 2
    return np.float32(lanes[0])


@kernel
def _sums(x: Float32Array, centre: Float32Array, square: bool, lanes: int, out: Float32Array) -> None:
    """Row sums of ``x - centre`` or of its square."""
    partial = np.empty(lanes, np.float32)
    for row in range(x.shape[0]):
        for lane in range(lanes):
            partial[lane] = np.float32(0)
        for j in range(x.shape[1]):
            value = x[row, j] - centre[row]
            if square:
                partial[j % lanes] += value * value
            else:
                partial[j % lanes] += value
        out[row] = _fold(partial)


def _row_means(x: Float32Array, centre: Float32Array, *, square: bool) -> Float32Array:
    out = np.empty(x.shape[0], np.float32)
    # Squares of values beyond 1.8e19 overflow to infinity here as they do on hardware; that is no programming error.
    with np.errstate(over="ignore"):
        _sums(x, centre, square, _LANES, out)
    return out / np.float32(x.shape[1])


def _inverse_root(mean_square: Float32Array, eps: float) -> Float32Array:
    """``1/sqrt(mean_square + eps)``, taken in double and rounded once."""
    return (1.0 / np.sqrt((mean_square + np.float32(eps)).astype(np.float64))).astype(np.float32)


def _checked(x: npt.ArrayLike, weight: npt.ArrayLike, eps: float) -> tuple[Float32Array, Float32Array]:
    rows, gain = float32("x", x, 2), float32("weight", weight, 1)
    if rows.shape[1] < 1:
        raise ValueError("x: expected at least one column")
    expect_shape("weight", gain, (rows.shape[1],))
    if not np.float32(eps) > 0:
        raise ValueError(f"eps: expected a positive number, got {eps}")
    return rows, gain


def rmsnorm(x: npt.ArrayLike, weight: npt.ArrayLike, *, eps: float = 1e-6) -> Float32Array:
    """Return ``x / sqrt(mean(x**2) + eps) * weight`` along the last axis, in float32.

    Args:
        x: (rows, cols).
        weight: (cols,).
        eps: positive.

    Raises:
        ValueError: for shapes that do not match or an eps that is not positive.

    >>> rmsnorm([[3.0, 3.0, -3.0]], [1.0, 2.0, 1.0], eps=1e-12).tolist()
    [[1.0, 2.0, -1.0]]
    """
    rows, gain = _checked(x, weight, eps)
    mean_square = _row_means(rows, np.zeros(rows.shape[0], np.float32), square=True)
    return rows * _inverse_root(mean_square, eps)[:, None] * gain


def layernorm(
    x: npt.ArrayLike, weight: npt.ArrayLike, bias: npt.ArrayLike | None = None, *, eps: float = 1e-5
) -> Float32Array:
    """Return ``(x - mean) / sqrt(var + eps) * weight + bias`` along the last axis, in float32.

    The variance (divided by cols) is summed from deviations in a second pass, not from a difference of squares.

    Args:
        x: (rows, cols).
        weight: (cols,).
        bias: (cols,) or None.
        eps: positive.

    Raises:
        ValueError: for shapes that do not match or an eps that is not positive.

    >>> layernorm([[1.0, 3.0]], [1.0, 1.0], [0.0, 10.0], eps=1e-12).tolist()
    [[-1.0, 11.0]]
    """
    rows, gain = _checked(x, weight, eps)
    mean = _row_means(rows, np.zeros(rows.shape[0], np.float32), square=False)
    variance = _row_means(rows, mean, square=True)
    out = (rows - mean[:, None]) * _inverse_root(variance, eps)[:, None] * gain
    if bias is None:
        return out
    offset = float32("bias", bias, 1)
    expect_shape("bias", offset, (rows.shape[1],))
    return out + offset

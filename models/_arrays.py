"""Checks and conversions at the border of every model."""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

Float32Array: TypeAlias = npt.NDArray[np.float32]
Int64Array: TypeAlias = npt.NDArray[np.int64]

# Kernels are compiled once per array layout, so every array is made C-contiguous, aligned and writeable first.
_LAYOUT: Final = ("C", "A", "W")


def float32(name: str, value: npt.ArrayLike, ndim: int) -> Float32Array:
    """Return ``value`` as a C-contiguous float32 array of ``ndim`` dimensions.

    Raises:
        ValueError: if the number of dimensions differs or the values are not real numbers.
    """
    array = np.asarray(value)
    if array.ndim != ndim:
        raise ValueError(f"{name}: expected {ndim} dimensions, got shape {array.shape}")
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{name}: expected real numbers, got dtype {array.dtype}")
    return np.require(array, np.float32, _LAYOUT)


def float32_any(name: str, value: npt.ArrayLike) -> Float32Array:
    """Return ``value`` as a C-contiguous float32 array of whatever shape it has."""
    return float32(name, value, np.ndim(value))


def int64(name: str, value: npt.ArrayLike, ndim: int) -> Int64Array:
    """Return ``value`` as a C-contiguous int64 array of ``ndim`` dimensions.

    Raises:
        ValueError: if the number of dimensions differs or a non-empty array does not hold integers.
    """
    array = np.asarray(value)
    if array.ndim != ndim:
        raise ValueError(f"{name}: expected {ndim} dimensions, got shape {array.shape}")
    if array.size and array.dtype.kind not in "iu":
        raise ValueError(f"{name}: expected integers, got dtype {array.dtype}")
    return np.require(array, np.int64, _LAYOUT)


def expect_shape(name: str, array: npt.NDArray[np.generic], shape: tuple[int, ...]) -> None:
    """Raise ValueError unless ``array`` has exactly ``shape``."""
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")


def expect_positive(**values: int) -> None:
    """Raise ValueError naming the first value that is not at least 1."""
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")


def group_size(name: str, heads: int, groups: int) -> int:
    """Return ``heads // groups``, the number of heads that share one group.

    Raises:
        ValueError: if ``groups`` does not divide ``heads`` or is zero.
    """
    if groups < 1 or heads % groups:
        raise ValueError(f"{name}: {heads} heads cannot share {groups} groups evenly")
    return heads // groups

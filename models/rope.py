"""Rotary position embedding.

Source: Su et al., *RoFormer* (2021). Pair i of a head's first ``rotary_dim`` channels turns by the angle
``position * base**(-2 i / rotary_dim)``; channels beyond ``rotary_dim`` pass through. The pairs are channels
(i, i + rotary_dim/2) in the half-split style (GPT-NeoX, Llama in most libraries) and (2i, 2i + 1) in the interleaved
style (GPT-J, the original paper).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from effsim.models._arrays import Float32Array, expect_shape, float32, int64

Style = Literal["half", "interleaved"]


def rotary_frequencies(rotary_dim: int, base: float = 10000.0) -> npt.NDArray[np.float64]:
    """Return the (rotary_dim / 2,) angles per position, in radians: ``base**(-2 i / rotary_dim)``.

    Raises:
        ValueError: if ``rotary_dim`` is odd or negative, or ``base`` is not positive.

    >>> rotary_frequencies(4, base=100.0).tolist()
    [1.0, 0.1]
    """
    if rotary_dim < 0 or rotary_dim % 2:
        raise ValueError(f"rotary_dim: expected an even number, got {rotary_dim}")
    if not base > 0:
        raise ValueError(f"base: expected a positive number, got {base}")
    return np.asarray(base ** (-np.arange(0, rotary_dim, 2, dtype=np.float64) / max(rotary_dim, 1)))


def rope(
    x: npt.ArrayLike,
    positions: npt.ArrayLike,
    *,
    base: float = 10000.0,
    fraction: float = 1.0,
    style: Style = "half",
    frequencies: npt.ArrayLike | None = None,
) -> Float32Array:
    """Rotate queries or keys; angles are computed in double, sines and cosines rounded once to float32.

    Args:
        x: (batch, length, heads, head_dim).
        positions: (length,) or (batch, length) integers.
        base: theta of the geometric series.
        fraction: share of head_dim that rotates; ``rotary_dim = int(head_dim * fraction)`` must be even.
        style: ``half`` or ``interleaved``.
        frequencies: (rotary_dim / 2,) radians per position instead of the series (scaled variants).

    Returns:
        float32 array like x.

    Raises:
        ValueError: for shapes or options that do not fit together.

    >>> rope(np.ones((1, 1, 1, 2)), [0]).ravel().tolist()
    [1.0, 1.0]
    """
    values = float32("x", x, 4)
    batch, length, _, dim = values.shape
    if style not in ("half", "interleaved"):
        raise ValueError(f"style: expected half or interleaved, got {style!r}")
    if not 0.0 <= fraction <= 1.0:
        raise ValueError(f"fraction: expected 0…1, got {fraction}")
    rotary_dim = int(dim * fraction)
    series = rotary_frequencies(rotary_dim, base) if frequencies is None else np.asarray(frequencies, np.float64)
    expect_shape("frequencies", series, (rotary_dim // 2,))
    places = int64("positions", positions, np.ndim(positions))
    if places.shape not in ((length,), (batch, length)):
        raise ValueError(f"positions: expected shape {(length,)} or {(batch, length)}, got {places.shape}")
    angles = np.broadcast_to(places, (batch, length))[:, :, None, None] * series
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    half = rotary_dim // 2
    pairs = (slice(0, half), slice(half, rotary_dim))
    first, second = pairs if style == "half" else (slice(0, rotary_dim, 2), slice(1, rotary_dim, 2))
    out = values.copy()
    out[..., first] = values[..., first] * cos - values[..., second] * sin
    out[..., second] = values[..., second] * cos + values[..., first] * sin
    return out

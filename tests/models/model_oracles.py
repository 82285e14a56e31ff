"""What the tests of the functional models share: unit roundoff, error bounds, and naive float64 attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import settings

Float64Array = npt.NDArray[np.float64]

UNIT_ROUNDOFF = 2.0**-24
SMALLEST_SUBNORMAL = 2.0**-149
# Few examples and a fixed seed: these tests run on every commit, and compiled kernels make deadlines meaningless.
few = settings(max_examples=20, deadline=None, derandomize=True)


def gamma(n: float) -> float:
    """Higham's bound on the relative error of n accumulated float32 roundings."""
    product = n * UNIT_ROUNDOFF
    assert product < 0.5
    return product / (1.0 - product)


def normal(seed: int, *shape: int, scale: float = 1.0) -> npt.NDArray[np.float32]:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def assert_within(actual: npt.ArrayLike, expected: npt.ArrayLike, bound: npt.ArrayLike, roundings: int = 64) -> None:
    """|actual - expected| <= bound, plus what gradual underflow of ``roundings`` operations can add."""
    got, want = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert got.shape == want.shape
    slack = np.abs(got - want) - np.asarray(bound, np.float64) - roundings * SMALLEST_SUBNORMAL
    assert np.isfinite(got).all()
    assert slack.size == 0 or slack.max() <= 0, f"error exceeds its bound by {slack.max():.3g}"


def visible(q_start: int, q_len: int, kv_len: int, causal: bool, window: int | None) -> npt.NDArray[np.bool_]:
    """Mask (q_len, kv_len) written from the definition, pair by pair."""
    mask = np.zeros((q_len, kv_len), bool)
    for i in range(q_len):
        for j in range(kv_len):
            position = q_start + i
            mask[i, j] = (not causal or j <= position) and (window is None or j > position - window)
    return mask


def naive_attention(
    q: Any, k: Any, v: Any, mask: npt.NDArray[np.bool_], scale: float | None = None
) -> tuple[Float64Array, Float64Array]:
    """One sequence, q (q_len, heads, d): float64 output and an error bound for a float32 online softmax.

    With scores off by at most e = gamma(d + 2) * scale * sum |q||k| and shifted by maxima whose steps telescope to
    twice the largest score, each weight is off by a factor within exp(±e'); sums and rescalings add
    gamma(5 keys + 16), the merge of splits included.
    """
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    heads, group = q.shape[1], q.shape[1] // k.shape[1]
    factor = 1.0 / np.sqrt(q.shape[2]) if scale is None else scale
    out = np.zeros((q.shape[0], heads, v.shape[2]))
    bound = np.zeros_like(out)
    for h in range(heads):
        for i in range(q.shape[0]):
            seen = np.flatnonzero(mask[i])
            if not seen.size:
                continue
            keys, values = k[seen, h // group], v[seen, h // group]
            scores = keys @ q[i, h] * factor
            magnitude = (np.abs(keys) @ np.abs(q[i, h])).max() * factor
            weights = np.exp(scores - scores.max())
            weights /= weights.sum()
            off = gamma(q.shape[2] + 2) * magnitude + 4 * UNIT_ROUNDOFF * magnitude
            out[i, h] = weights @ values
            bound[i, h] = (np.expm1(2 * off) + gamma(5 * seen.size + 16)) * (weights @ np.abs(values))
    return out, bound

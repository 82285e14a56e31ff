"""From logits to tokens: softmax, filters and a draw that a seed decides.

Source of top-p: Holtzman et al., *The Curious Case of Neural Text Degeneration* (2019).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from effsim.models._arrays import Float32Array, Int64Array, float32, float32_any


def softmax(logits: npt.ArrayLike) -> Float32Array:
    """Return ``e^(x - max x) / sum e^(x - max x)`` along the last axis, any leading shape.

    ``-inf`` logits get probability 0; a row of nothing but ``-inf`` gives zeros. Exponentials are rounded to float32
    and summed in float32 (numpy's pairwise order).

    Raises:
        ValueError: for a scalar, NaN or ``+inf``.

    >>> softmax([[1000.0, 1000.0], [-np.inf, 5.0]]).tolist()
    [[0.5, 0.5], [0.0, 1.0]]
    """
    x = float32_any("logits", logits)
    if x.ndim < 1:
        raise ValueError("logits: expected at least one dimension")
    if np.isnan(x).any() or np.isposinf(x).any():
        raise ValueError("logits: expected no NaN and no +inf")
    peak = np.max(x, axis=-1, keepdims=True, initial=-np.inf)
    anchor = np.where(np.isneginf(peak), np.float32(0), peak)
    weights = np.exp(x.astype(np.float64) - anchor).astype(np.float32)
    total: Float32Array = np.sum(weights, axis=-1, keepdims=True)
    total[total == 0] = 1
    return weights / total


def _order(x: Float32Array) -> Int64Array:
    """Indices of each row from largest to smallest; ties keep the lower index first."""
    return np.argsort(-x, axis=-1, kind="stable").astype(np.int64)


def top_k_filter(logits: npt.ArrayLike, top_k: int) -> Float32Array:
    """Set all but the ``top_k`` largest logits of each row (rows, vocabulary) to ``-inf``; ties keep lower indices.

    Raises:
        ValueError: if top_k is below 1.

    >>> top_k_filter([[1.0, 3.0, 3.0, 2.0]], 1).tolist()
    [[-inf, 3.0, -inf, -inf]]
    """
    x = float32("logits", logits, 2)
    if top_k < 1:
        raise ValueError(f"top_k: expected at least 1, got {top_k}")
    out = np.full_like(x, -np.inf)
    kept = _order(x)[:, :top_k]
    np.put_along_axis(out, kept, np.take_along_axis(x, kept, axis=1), axis=1)
    return out


def top_p_filter(logits: npt.ArrayLike, top_p: float) -> Float32Array:
    """Keep each row's smallest set of most likely tokens whose probability reaches ``top_p``; others get ``-inf``.

    The most likely token always stays. The running sum is taken in double, so that 1.0 keeps every token with a
    probability that float32 can tell from 0.

    Raises:
        ValueError: unless ``0 < top_p <= 1``.

    >>> import math
    >>> top_p_filter([[0.0, math.log(2.0), -9.0]], 0.5).tolist()[0][::2]
    [-inf, -inf]
    """
    x = float32("logits", logits, 2)
    if not 0.0 < top_p <= 1.0:
        raise ValueError(f"top_p: expected 0 < top_p <= 1, got {top_p}")
    order = _order(x)
    probability = np.take_along_axis(softmax(x), order, axis=1).astype(np.float64)
    before = np.cumsum(probability, axis=1) - probability
    # The sum before a token decides whether it is still needed; the first token has none before it.
    kept = (before < top_p) & (probability > 0)
    kept[:, :1] = True
    out = np.full_like(x, -np.inf)
    np.put_along_axis(out, order, np.where(kept, np.take_along_axis(x, order, axis=1), -np.inf), axis=1)
    return out


def sample(
    logits: npt.ArrayLike, *, seed: int, temperature: float = 1.0, top_k: int | None = None, top_p: float = 1.0
) -> Int64Array:
    """Draw one token a row; the same seed gives the same tokens.

    Temperature divides the logits, then top-k, then top-p; temperature 0 takes the largest logit. A row's token is the
    first whose cumulative probability exceeds a uniform draw from ``numpy.random.PCG64(seed)``, one draw a row.

    Args:
        logits: (rows, vocabulary).
        seed: non-negative integer.
        temperature: 0 or above.
        top_k: None keeps all.
        top_p: 1 keeps all.

    Returns:
        int64 array (rows,).

    Raises:
        ValueError: for options out of range, an empty vocabulary or a row without a possible token.

    >>> sample([[0.0, 50.0], [50.0, 0.0]], seed=1).tolist()
    [1, 0]
    """
    x = float32("logits", logits, 2)
    if not temperature >= 0:
        raise ValueError(f"temperature: expected 0 or above, got {temperature}")
    if not x.shape[1] or np.isneginf(x).all(axis=1).any():
        raise ValueError("logits: every row needs a token with a logit above -inf")
    if temperature == 0:
        return _order(x)[:, 0]
    # Shifting first keeps a small temperature from turning the largest logit into infinity.
    shifted = x.astype(np.float64) - np.max(x, axis=1, keepdims=True)
    with np.errstate(over="ignore"):
        x = (shifted / temperature).astype(np.float32)
    if top_k is not None:
        x = top_k_filter(x, top_k)
    if top_p < 1.0:
        x = top_p_filter(x, top_p)
    cumulative = np.cumsum(softmax(x).astype(np.float64), axis=1)
    draws = np.random.Generator(np.random.PCG64(seed)).random((x.shape[0], 1))
    return np.asarray(np.argmax(cumulative > draws * cumulative[:, -1:], axis=1), np.int64)

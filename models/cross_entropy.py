"""Training loss ``lse(logits) - logits[target]``: plain, chunked over the vocabulary, and without logits in memory.

The chunked forms keep a running maximum and sum over chunks of the vocabulary, as online softmax does. The cut form
(Wijmans et al., *Cut Your Losses in Large-Vocabulary Language Models*, 2024) makes each chunk of logits from hidden
states and classifier weights, uses it and drops it; its backward makes every chunk again. A target of ``ignore`` has
loss and gradient 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from effsim.models._arrays import Float32Array, Int64Array, expect_positive, expect_shape, float32, int64
from effsim.models.gemm import gemm

IGNORE = -100


@dataclass(frozen=True, slots=True)
class Loss:
    """Loss a row.

    Attributes:
        loss: (rows,).
        lse: (rows,) natural logarithm of the sum of exponentials, which the backward needs.
    """

    loss: Float32Array
    lse: Float32Array


def _exp(x: Float32Array) -> Float32Array:
    return np.exp(x.astype(np.float64)).astype(np.float32)


def _targets(targets: npt.ArrayLike, rows: int, vocabulary: int, ignore: int) -> Int64Array:
    wanted = int64("targets", targets, 1)
    expect_shape("targets", wanted, (rows,))
    used = wanted[wanted != ignore]
    if used.size and (used.min() < 0 or used.max() >= vocabulary):
        raise ValueError(f"targets: expected 0…{vocabulary - 1} or {ignore}")
    return wanted


def _online(chunks: Iterator[tuple[int, Float32Array]], targets: Int64Array, ignore: int) -> Loss:
    """Run over (first token, logits (rows, some)) in order."""
    rows = np.arange(targets.size)
    peak, total = np.full(targets.size, -np.inf, np.float32), np.zeros(targets.size, np.float32)
    picked = np.zeros(targets.size, np.float32)
    for first, logits in chunks:
        higher = np.maximum(peak, logits.max(axis=1))
        # Where every logit so far is -inf the maximum is too, and -inf - -inf would be NaN.
        anchor = np.where(np.isneginf(higher), np.float32(0), higher)
        total = total * _exp(peak - anchor) + np.sum(_exp(logits - anchor[:, None]), axis=1)
        peak = higher
        own = (targets >= first) & (targets < first + logits.shape[1])
        picked[own] = logits[rows[own], targets[own] - first]
    with np.errstate(divide="ignore"):  # a row of nothing but -inf has no distribution: lse -inf, loss NaN
        lse = peak + np.log(total.astype(np.float64)).astype(np.float32)
    with np.errstate(invalid="ignore"):
        return Loss(np.where(targets == ignore, np.float32(0), lse - picked), lse)


def cross_entropy(
    logits: npt.ArrayLike, targets: npt.ArrayLike, *, chunk: int | None = None, ignore: int = IGNORE
) -> Loss:
    """Return the loss of every row.

    Args:
        logits: (rows, vocabulary), vocabulary at least 1, no NaN and no ``+inf``.
        targets: (rows,) tokens or ``ignore``.
        chunk: tokens of a chunk of the vocabulary; None takes it whole (plain form).
        ignore: target that costs nothing.

    Raises:
        ValueError: for shapes, targets or logits that do not fit.

    >>> cross_entropy([[0.0, 0.0]], [1]).loss.tolist() == [np.float32(np.log(2))]
    True
    """
    x = float32("logits", logits, 2)
    expect_positive(vocabulary=x.shape[1])
    if np.isnan(x).any() or np.isposinf(x).any():
        raise ValueError("logits: expected no NaN and no +inf")
    size = x.shape[1] if chunk is None else chunk
    expect_positive(chunk=size)
    wanted = _targets(targets, x.shape[0], x.shape[1], ignore)
    return _online(((i, x[:, i : i + size]) for i in range(0, x.shape[1], size)), wanted, ignore)


def cross_entropy_backward(
    logits: npt.ArrayLike, targets: npt.ArrayLike, lse: npt.ArrayLike, grad: npt.ArrayLike, *, ignore: int = IGNORE
) -> Float32Array:
    """Return ``grad (e^{logits - lse} - onehot(target))``, (rows, vocabulary), zeros for ignored rows.

    Args:
        logits: (rows, vocabulary).
        targets: (rows,).
        lse: (rows,) of the forward.
        grad: (rows,) gradient of each row's loss.
        ignore: target that costs nothing.

    Raises:
        ValueError: for shapes or targets that do not fit.

    >>> cross_entropy_backward([[0.0, 0.0]], [1], [np.log(2)], [2.0]).tolist()
    [[1.0, -1.0]]
    """
    x, sums, upstream = float32("logits", logits, 2), float32("lse", lse, 1), float32("grad", grad, 1)
    expect_shape("lse", sums, (x.shape[0],))
    expect_shape("grad", upstream, (x.shape[0],))
    wanted = _targets(targets, x.shape[0], x.shape[1], ignore)
    return _logit_gradient(x, 0, wanted, sums, upstream, ignore)


def _logit_gradient(
    x: Float32Array, first: int, targets: Int64Array, lse: Float32Array, grad: Float32Array, ignore: int
) -> Float32Array:
    out = _exp(x - lse[:, None])
    own = np.flatnonzero((targets >= first) & (targets < first + x.shape[1]))
    out[own, targets[own] - first] -= np.float32(1)
    out[targets == ignore] = 0
    return out * grad[:, None]


def cut_cross_entropy(
    hidden: npt.ArrayLike, weight: npt.ArrayLike, targets: npt.ArrayLike, *, chunk: int = 128, ignore: int = IGNORE
) -> Loss:
    """Loss of ``hidden @ weight.T`` with never more than ``chunk`` columns of logits at a time.

    Args:
        hidden: (rows, width).
        weight: (vocabulary, width).
        targets: (rows,) tokens or ``ignore``.
        chunk: tokens of a chunk of the vocabulary.
        ignore: target that costs nothing.

    Raises:
        ValueError: for shapes or targets that do not fit.

    >>> cut_cross_entropy([[0.0]], [[1.0], [2.0]], [0], chunk=1).loss.tolist() == [np.float32(np.log(2))]
    True
    """
    x, w = float32("hidden", hidden, 2), float32("weight", weight, 2)
    expect_positive(chunk=chunk, vocabulary=w.shape[0])
    wanted = _targets(targets, x.shape[0], w.shape[0], ignore)
    return _online(((i, gemm(x, w[i : i + chunk].T)) for i in range(0, w.shape[0], chunk)), wanted, ignore)


def cut_cross_entropy_backward(
    hidden: npt.ArrayLike,
    weight: npt.ArrayLike,
    targets: npt.ArrayLike,
    lse: npt.ArrayLike,
    grad: npt.ArrayLike,
    *,
    chunk: int = 128,
    ignore: int = IGNORE,
) -> tuple[Float32Array, Float32Array]:
    """Gradients of hidden states and weights; every chunk of logits is made again from ``lse``.

    Args:
        hidden: (rows, width).
        weight: (vocabulary, width).
        targets: (rows,).
        lse: (rows,) of the forward.
        grad: (rows,) gradient of each row's loss.
        chunk: tokens of a chunk of the vocabulary.
        ignore: target that costs nothing.

    Returns:
        (rows, width) and (vocabulary, width).

    Raises:
        ValueError: for shapes or targets that do not fit.

    >>> dx, dw = cut_cross_entropy_backward([[1.0]], [[1.0], [1.0]], [0], [1.0 + np.log(2)], [2.0])
    >>> dx.round(6).tolist(), dw.round(6).tolist()
    ([[0.0]], [[-1.0], [1.0]])
    """
    x, w = float32("hidden", hidden, 2), float32("weight", weight, 2)
    sums, upstream = float32("lse", lse, 1), float32("grad", grad, 1)
    expect_positive(chunk=chunk)
    expect_shape("lse", sums, (x.shape[0],))
    expect_shape("grad", upstream, (x.shape[0],))
    wanted = _targets(targets, x.shape[0], w.shape[0], ignore)
    to_hidden, to_weight = np.zeros_like(x), np.empty_like(w)
    for first in range(0, w.shape[0], chunk):
        part = w[first : first + chunk]
        d = _logit_gradient(gemm(x, part.T), first, wanted, sums, upstream, ignore)
        to_hidden += gemm(d, part)
        to_weight[first : first + chunk] = gemm(d.T, x)
    return to_hidden, to_weight

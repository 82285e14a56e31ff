"""How much of an objective's variation each parameter explains: first-order Sobol indices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

BINS = 64
"""Most classes that the values of a continuous parameter are sorted into."""
A_CLASS = 32
"""Points that a class of a continuous parameter should have."""
MOST_CLASSES = 64
"""Parameters with more distinct values than this count as continuous."""


def first_order(parameter: Sequence[Any], objective: Sequence[float]) -> float | None:
    """``Var(E[Y | X]) / Var(Y)``: 1 if the parameter alone decides, 0 if it decides nothing alone.

    Estimated from any sample: points are put into classes of equal (or, for many different numbers, neighbouring)
    values of the parameter; the share of the variance between classes is corrected for what as many random classes
    would explain, ``1 − (1 − η²)·(n − 1)/(n − k)``, and not below 0. None where it cannot be told: fewer than two
    classes, as many classes as points, or an objective that does not vary.
    """
    y = np.asarray(objective, dtype=np.float64)
    labels = _classes(parameter)
    n, k = len(y), int(labels.max()) + 1 if len(labels) else 0
    if k < 2 or n <= k:
        return None
    whole = float(((y - y.mean()) ** 2).sum())
    if whole <= 1e-24 * float((y**2).sum()):
        return None
    counts = np.bincount(labels, minlength=k)
    means = np.bincount(labels, weights=y, minlength=k) / np.maximum(counts, 1)
    between = float((counts * (means - y.mean()) ** 2).sum())
    if n - k < k:  # a class has hardly more than one point: nothing to correct with
        return min(1.0, between / whole)
    return min(1.0, max(0.0, 1.0 - (1.0 - between / whole) * (n - 1) / (n - k)))


def _classes(values: Sequence[Any]) -> Any:
    """A class number for every point."""
    words = [v if isinstance(v, int | float) and not isinstance(v, bool) else str(v) for v in values]
    if any(isinstance(v, str) for v in words):
        words = [str(v) for v in words]
    distinct, labels = np.unique(np.array(words), return_inverse=True)
    if (len(distinct) <= MOST_CLASSES and len(words) >= 2 * len(distinct)) or isinstance(words[0], str):
        return labels
    ranks = np.argsort(np.argsort(np.array(words, dtype=np.float64), kind="stable"), kind="stable")
    bins = max(min(4, len(words)), min(BINS, len(words) // A_CLASS))
    return ranks * bins // len(words)

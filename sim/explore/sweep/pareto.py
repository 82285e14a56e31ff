"""The Pareto front: points that no other point beats in every objective."""

from __future__ import annotations

from typing import Any

import numpy as np


def pareto(values: Any, maximise: tuple[bool, ...]) -> list[int]:
    """Rows of *values* (points × objectives) that no row dominates, in ascending order.

    A row dominates another if it is nowhere worse and somewhere better; equal rows do not dominate each other. Rows
    with NaN are left out.

    >>> pareto([[1.0, 5.0], [2.0, 4.0], [2.0, 6.0]], (False, False))
    [0, 1]
    """
    costs = np.array(values, dtype=np.float64).reshape(-1, len(maximise))
    costs = costs * np.where(np.array(maximise), -1.0, 1.0)
    left = np.flatnonzero(~np.isnan(costs).any(axis=1))
    # Sorted by the first objective (then the others), a row can only be dominated by one that comes before it.
    order = left[np.lexsort(costs[left].T[::-1])]
    if costs.shape[1] == 1:
        return sorted(int(i) for i in order if costs[i, 0] == costs[order[0], 0])
    front: list[int] = []
    if costs.shape[1] == 2:
        return _two(costs, order)
    kept = np.empty((0, costs.shape[1]))
    for i in order:
        row = costs[i]
        dominated = len(kept) and bool(np.any(np.all(kept <= row, axis=1) & np.any(kept < row, axis=1)))
        if not dominated:
            front.append(int(i))
            kept = np.vstack([kept, row])
    return sorted(front)


def _two(costs: Any, order: Any) -> list[int]:
    """Two objectives: one walk along the first."""
    front, least, first = list[int](), np.inf, np.inf
    for i in order.tolist():
        x, y = costs[i]
        if y < least or (y == least and x == first):
            front.append(i)
            least, first = y, x
    return sorted(front)

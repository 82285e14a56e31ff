"""What an attention mask means: everything, causal, a sliding window, or something else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Mask:
    """``causal`` with ``window`` 0 sees all earlier keys. ``exact`` is false where no form of the operator fits."""

    causal: bool = False
    window: int = 0
    exact: bool = True


def classify(mask: npt.NDArray[Any]) -> Mask:
    """The meaning of a boolean mask [..., queries, keys] (True: seen); the last query stands at the last key.

    >>> classify(np.tril(np.ones((4, 4), dtype=bool)))
    Mask(causal=True, window=0, exact=True)
    >>> classify(np.ones((2, 4, 4), dtype=bool)).causal
    False
    """
    if mask.ndim < 2:
        return Mask(exact=bool(mask.all()))
    queries, keys = mask.shape[-2:]
    planes = mask.reshape(-1, queries, keys)
    plane = planes[0]
    if any(not np.array_equal(plane, other) for other in planes[1:]):
        return Mask(exact=False)
    if plane.all():
        return Mask()
    if queries > keys:
        return Mask(exact=False)
    window = int(plane[-1].sum())
    if np.array_equal(plane, band(queries, keys, 0)):
        return Mask(causal=True)
    if window and np.array_equal(plane, band(queries, keys, window)):
        return Mask(causal=True, window=window)
    return Mask(exact=False)


def band(queries: int, keys: int, window: int) -> npt.NDArray[np.bool_]:
    """The mask that lets each query see itself and earlier keys, *window* of them where that is not 0."""
    position = np.arange(queries)[:, None] + (keys - queries)
    key = np.arange(keys)[None, :]
    seen = key <= position
    return seen & (key > position - window) if window else seen

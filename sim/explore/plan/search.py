"""Bisections over what a simulation says, written for any judge so that they can be tested against brute force."""

from __future__ import annotations

import math
from collections.abc import Callable

FINENESS = 1.05
"""Ratio of two load factors that are told apart."""
MOST_LOAD = 16.0
"""Largest load factor that headroom is looked for."""


def fewest(holds: Callable[[int], bool], start: int, most: int) -> int | None:
    """Smallest whole number from 1 to *most* that *holds*, if what holds for n holds for n + 1; None if none does.

    The search begins at *start* and ends with a number that holds whose predecessor (if any) was asked and does not.

    >>> fewest(lambda n: n >= 11, start=8, most=64), fewest(lambda n: False, start=3, most=10)
    (11, None)
    """
    if most < 1:
        return None
    at = min(max(1, start), most)
    if holds(at):
        high, step = at, 1
        while True:
            if high == 1:
                return 1
            low = max(1, high - step)
            if not holds(low):
                break
            high, step = low, 2 * step
    else:
        low, step = at, 1
        while True:
            if low == most:
                return None
            high = min(most, low + step)
            if holds(high):
                break
            low, step = high, 2 * step
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high


def largest_load(holds: Callable[[float], bool], start: float = 1.0, most: float = MOST_LOAD) -> float:
    """Largest load factor within promises, on a grid of ratios of :data:`FINENESS` from 1/*most* to *most*.

    0 if not even the smallest is. *start* is where the search begins; the answer does not depend on it as long as less
    load is never harder.

    >>> round(largest_load(lambda x: x <= 1.61), 2), round(largest_load(lambda x: x <= 0.5), 2)
    (1.55, 0.48)
    """
    top = math.floor(math.log(most) / math.log(FINENESS))
    shift = top + 1  # the grid's smallest factor is number 1
    begin = round(math.log(start) / math.log(FINENESS)) + shift
    broken = fewest(lambda index: not holds(float(FINENESS ** (index - shift))), begin + 1, 2 * top + 1)
    if broken == 1:
        return 0.0
    return float(FINENESS ** ((2 * top + 1 if broken is None else broken - 1) - shift))

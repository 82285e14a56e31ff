"""Smallest value of a function over a box, by a lattice that is refined: the same steps, and result, every time.

Losses over measured rows have steps (tile and wave counts) and flat bottoms, so nothing here uses a derivative. Points
are logarithms of positive numbers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

LATTICE = {1: 17, 2: 7, 3: 5}
"""Points a side of the first lattice, by the number of dimensions; 4 beyond."""

FINEST = math.log(1.01)
"""Step at which the refinement ends: 1 %."""

FLAT = 1.02
"""A loss within this factor of the smallest is as good."""

BISECTIONS = 6

Point = tuple[float, ...]


@dataclass(slots=True)
class Box:
    """A function over a box, each point evaluated once.

    Attributes:
        loss: of a point's numbers (not their logarithms).
        low, high: bounds, positive numbers.
    """

    loss: Callable[[Point], float]
    low: Point
    high: Point
    _seen: dict[Point, float] = field(default_factory=dict)

    def at(self, point: Point) -> float:
        """Loss at the exponentials of *point*, cut to the bounds."""
        numbers = self.numbers(point)
        if numbers not in self._seen:
            self._seen[numbers] = self.loss(numbers)
        return self._seen[numbers]

    def numbers(self, point: Point) -> Point:
        """The numbers whose logarithms *point* holds, inside the bounds, to nine digits."""
        pairs = zip(point, self.low, self.high, strict=True)
        return tuple(min(max(float(f"{math.exp(x):.9g}"), low), high) for x, low, high in pairs)

    @property
    def evaluations(self) -> int:
        """Points that were evaluated."""
        return len(self._seen)


def smallest(box: Box) -> tuple[Point, float]:
    """(numbers, loss) of the smallest value found: a lattice, then its best point's neighbours at halved steps.

    >>> box = Box(lambda p: abs(math.log(p[0] / 3.0)) + abs(math.log(p[1] / 0.2)), (1.0, 0.01), (100.0, 1.0))
    >>> found, _ = smallest(box)
    >>> [round(number, 1) for number in found]
    [3.0, 0.2]
    """
    sides = [(math.log(low), math.log(high)) for low, high in zip(box.low, box.high, strict=True)]
    points = LATTICE.get(len(sides), 4)
    steps = [(high - low) / (points - 1) for low, high in sides]
    axes = [[low + i * step for i in range(points)] for (low, _), step in zip(sides, steps, strict=True)]
    best = min(itertools.product(*axes), key=lambda point: (box.at(point), point))
    moves = [move for move in itertools.product((-1, 0, 1), repeat=len(sides)) if any(move)]
    while max(steps) > FINEST:
        around = [tuple(x + m * s for x, m, s in zip(best, move, steps, strict=True)) for move in moves]
        around = [tuple(map(_cut, point, sides)) for point in around]
        nearest = min(around, key=lambda point: (box.at(point), point))
        if box.at(nearest) < box.at(best):
            best = nearest
        else:
            steps = [step / 2.0 for step in steps]
    return box.numbers(best), box.at(best)


def _cut(x: float, side: tuple[float, float]) -> float:
    return min(max(x, side[0]), side[1])


def flat(box: Box, best: Point, loss: float, axis: int) -> tuple[float, float]:
    """The span of one number, the others held, over which the loss stays within :data:`FLAT` of *loss*.

    Found by steps that double from 1 % and bisection of the last one; an end at a bound is that bound.
    """
    limit = loss * FLAT
    centre = [math.log(x) for x in best]

    def holds(x: float) -> bool:
        return box.at((*centre[:axis], x, *centre[axis + 1 :])) <= limit

    ends = []
    for sign, bound in ((-1.0, math.log(box.low[axis])), (1.0, math.log(box.high[axis]))):
        inside, step = centre[axis], FINEST
        while True:
            beyond = inside + sign * step
            at_bound = sign * beyond >= sign * bound
            beyond = bound if at_bound else beyond
            if not holds(beyond):
                break
            inside = beyond
            if at_bound:
                break
            step *= 2.0
        if inside != bound:
            for _ in range(BISECTIONS):
                middle = (inside + beyond) / 2.0
                inside, beyond = (middle, beyond) if holds(middle) else (inside, middle)
        ends.append(min(max(math.exp(inside), box.low[axis]), box.high[axis]))
    return ends[0], ends[1]


def rounded(box: Box, best: Point, loss: float, scales: Sequence[float], tolerance: float = 1.002) -> Point:
    """*best* in as few digits (two or more, counted in the unit of *scales*) as cost less than *tolerance*.

    >>> box = Box(lambda p: 1.0 + abs(p[0] - 3.1416), (1.0,), (10.0,))
    >>> rounded(box, (3.1416,), 1.0, (1.0,), tolerance=1.01)
    (3.14,)
    """
    for digits in range(2, 7):
        spelt = tuple(float(f"{x / s:.{digits}g}") * s for x, s in zip(best, scales, strict=True))
        inside = all(low <= x <= high for x, low, high in zip(spelt, box.low, box.high, strict=True))
        if inside and box.loss(spelt) <= loss * tolerance:
            return spelt
    return best

"""Points of a study: combinations of values, drawn or enumerated, each with an index that never changes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ...errors import SpecError, UnitError
from ...spec.study import ParameterSpec, RangeSpec, StudySpec, split_number
from ...units import DIMENSIONS, parse

MOST_POINTS = 100_000_000
"""Points of a grid beyond which a study is refused."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A value of one parameter: ``text`` as ``--set`` takes it, ``value`` as a column holds it (numbers in SI)."""

    text: str
    value: float | int | bool | str


Point = tuple[Choice, ...]
"""One choice a parameter, in the order of the study."""


def quantity(text: str) -> float | None:
    """A quantity with a unit in SI, or None if it is none.

    >>> quantity("3.35 TB/s"), quantity("bf16")
    (3350000000000.0, None)
    """
    if not text[:1].isdigit():
        return None
    try:
        dimension = _dimension(split_number(text)[1])
        return None if dimension is None else parse(text, dimension)
    except (ValueError, UnitError):
        return None


@cache
def _dimension(unit: str) -> str | None:
    """A dimension that is measured in *unit*; those that share one turn it into SI alike."""
    for dimension in DIMENSIONS:
        try:
            parse(f"1 {unit}", dimension)
        except UnitError:
            continue
        return dimension
    return None


def choice(value: Any) -> Choice:
    """What a study's file says, as a choice."""
    if isinstance(value, bool):
        return Choice("true" if value else "false", value)
    if isinstance(value, str):
        number = quantity(value)
        return Choice(value, value if number is None else number)
    return Choice(repr(value), value)


def in_range(given: RangeSpec, share: float) -> Choice:
    """The number at *share* (0 to 1) of the way from low to high, on the range's scale."""
    low, high = split_number(given.low)[0], split_number(given.high)[0]
    if given.scale == "log":
        number = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
    else:
        number = low + share * (high - low)
    number = high if share == 1.0 else min(max(number, low), high) if share else low
    if given.integer:
        number = min(max(round(number), math.ceil(low)), math.floor(high))
    return from_number(given, number)


def from_number(given: RangeSpec, number: float) -> Choice:
    """A number of a range, in the range's unit."""
    unit = split_number(given.low)[1]
    if not unit:
        whole = int(number) if given.integer else number
        return Choice(repr(whole), whole)
    text = f"{int(number) if given.integer else float(number)!r} {unit}"
    found = quantity(text)
    if found is None:
        raise SpecError(f"{text!r} is not a quantity", path="range", expected="a number with a known unit")
    return Choice(text, found)


def choices(parameter: ParameterSpec) -> list[Choice]:
    """Every choice of a parameter on a grid."""
    if parameter.values is not None:
        return [choice(value) for value in parameter.values]
    given = parameter.range
    assert given is not None
    assert given.points is not None
    every = [in_range(given, i / (given.points - 1)) for i in range(given.points)]
    return list({c.text: c for c in every}.values())


def from_share(parameter: ParameterSpec, share: float) -> Choice:
    """The choice at *share* in [0, 1) of a parameter's space."""
    if parameter.range is not None:
        return in_range(parameter.range, share)
    assert parameter.values is not None
    return choice(parameter.values[min(int(share * len(parameter.values)), len(parameter.values) - 1)])


class Points:
    """The points of a study that can be known beforehand, by index."""

    def __init__(self, study: StudySpec, seed: int) -> None:
        self._parameters = study.parameters
        if study.method == "grid":
            self._axes = [choices(p) for p in study.parameters]
            # Points that differ only in the hardware are neighbours: they are read together.
            order = sorted(range(len(self._axes)), key=lambda i: study.parameters[i].path.startswith("hardware."))
            self._order = tuple(order)
            self.count = math.prod(len(axis) for axis in self._axes)
            if self.count > MOST_POINTS:
                raise SpecError(f"the grid has {self.count:,} points", expected=f"at most {MOST_POINTS:,}")
            self._shares = None
        else:
            assert study.samples is not None
            self.count = study.samples
            self._shares = _shares(study.method, study.samples, len(study.parameters), seed)

    @staticmethod
    def first(parameter: ParameterSpec) -> Choice:
        """The first value, or the lower bound."""
        return from_share(parameter, 0.0)

    def take(self, start: int, stop: int) -> list[Point]:
        """Points *start* to *stop*, the latter not included.

        On a grid the last parameter varies fastest; those of the hardware vary faster than all others.
        """
        if self._shares is not None:
            rows = self._shares[start:stop].tolist()
            return [tuple(from_share(p, s) for p, s in zip(self._parameters, row, strict=True)) for row in rows]
        return [self._at(index) for index in range(start, stop)]

    def _at(self, index: int) -> Point:
        out = [axis[0] for axis in self._axes]
        for position in reversed(self._order):
            index, place = divmod(index, len(self._axes[position]))
            out[position] = self._axes[position][place]
        return tuple(out)


def _shares(method: str, samples: int, axes: int, seed: int) -> Any:
    """*samples* × *axes* numbers in [0, 1)."""
    if method == "random":
        return np.random.Generator(np.random.PCG64(seed)).random((samples, axes))
    from scipy.stats import qmc

    # Whole powers of two keep the sequence's balance; what is asked for is its beginning.
    return qmc.Sobol(axes, scramble=True, seed=seed).random_base2(max(0, math.ceil(math.log2(samples))))[:samples]

"""Numbers that stand for many design points at once, and how code written for one number runs on them.

A device model is ordinary code: it adds, compares, takes maxima and branches. Run on :class:`Lanes` it does the same
arithmetic for all points in one numpy operation. Where points would take different branches, or need a plain number
that is not the same for all of them, :class:`Diverged` says which points go together, and :func:`run` does the work
again for each part. So each point sees exactly the operations it would see alone, in the same order and precision: the
results are the same floats, and no model is written twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

UNTRACED = (TypeError, ValueError, AttributeError, ArithmeticError)
"""What a model raises where it does with its numbers what lanes cannot do (powers, arrays of its own)."""


class Diverged(Exception):  # noqa: N818 - a control signal, not an error
    """Points must part: those with equal *keys* go on together."""

    def __init__(self, keys: Any) -> None:
        super().__init__("points part")
        self.keys = keys


def _raw(x: Any) -> Any:
    return x.values if isinstance(x, Lanes) else x


def _decide(values: Any) -> bool:
    """The answer all points give."""
    if values.all():
        return True
    if not values.any():
        return False
    raise Diverged(values)


def _whole(values: Any) -> Any:
    """Whole numbers from floats that are whole; a plain one where all points have the same."""
    if not _decide(np.isfinite(values)):
        raise OverflowError("cannot convert float infinity to integer")
    if (values == values[0]).all():
        return int(values[0])
    return Lanes(values.astype(np.int64))


def _divided(a: Any, b: Any) -> tuple[Lanes, Lanes]:
    if not np.all(b):
        raise ZeroDivisionError("integer division or modulo by zero")
    return Lanes(a // b), Lanes(a % b)


class Lanes:
    """A float (or whole number) of every point; ``values`` is one-dimensional."""

    __slots__ = ("values",)
    __array_ufunc__ = None  # numpy numbers on the left leave the operation to us

    def __init__(self, values: Any) -> None:
        self.values = values

    def _part(self) -> NoReturn:
        raise Diverged(self.values)

    def _same(self) -> Any:
        """The number that all points share; parts them where they do not."""
        first = self.values[0]
        if not (self.values == first).all():
            self._part()
        return first.item()

    def __bool__(self) -> bool:
        return _decide(self.values != 0.0)

    def __float__(self) -> float:
        return float(self._same())

    def __int__(self) -> int:
        return int(self._same())

    def __index__(self) -> int:
        value = self._same()
        if not isinstance(value, int):
            raise TypeError("not a whole number")
        return value

    def __hash__(self) -> int:
        return hash(self._same())

    def __ceil__(self) -> Any:
        return _whole(np.ceil(self.values))

    def __floor__(self) -> Any:
        return _whole(np.floor(self.values))

    def __neg__(self) -> Lanes:
        return Lanes(-self.values)

    def __abs__(self) -> Lanes:
        return Lanes(np.abs(self.values))

    def __add__(self, other: Any) -> Lanes:
        return Lanes(self.values + _raw(other))

    __radd__ = __add__

    def __mul__(self, other: Any) -> Lanes:
        return Lanes(self.values * _raw(other))

    __rmul__ = __mul__

    def __sub__(self, other: Any) -> Lanes:
        return Lanes(self.values - _raw(other))

    def __rsub__(self, other: Any) -> Lanes:
        return Lanes(_raw(other) - self.values)

    def __truediv__(self, other: Any) -> Lanes:
        other = _raw(other)
        if not np.all(other):
            raise ZeroDivisionError("float division by zero")
        return Lanes(self.values / other)

    def __rtruediv__(self, other: Any) -> Lanes:
        if not np.all(self.values):
            raise ZeroDivisionError("float division by zero")
        return Lanes(_raw(other) / self.values)

    def __floordiv__(self, other: Any) -> Lanes:
        return _divided(self.values, _raw(other))[0]

    def __rfloordiv__(self, other: Any) -> Lanes:
        return _divided(_raw(other), self.values)[0]

    def __mod__(self, other: Any) -> Lanes:
        return _divided(self.values, _raw(other))[1]

    def __rmod__(self, other: Any) -> Lanes:
        return _divided(_raw(other), self.values)[1]

    def __divmod__(self, other: Any) -> tuple[Lanes, Lanes]:
        return _divided(self.values, _raw(other))

    def __rdivmod__(self, other: Any) -> tuple[Lanes, Lanes]:
        return _divided(_raw(other), self.values)

    def each(self, function: Callable[..., Any], arguments: Sequence[Any]) -> Lanes:
        """What *function* returns of the *arguments* of each point."""
        size = len(self.values)
        columns = [_raw(x).tolist() if isinstance(x, Lanes) else [x] * size for x in arguments]
        return Lanes(np.array([function(*row) for row in zip(*columns, strict=True)]))

    def __lt__(self, other: Any) -> bool:
        return _decide(self.values < _raw(other))

    def __le__(self, other: Any) -> bool:
        return _decide(self.values <= _raw(other))

    def __gt__(self, other: Any) -> bool:
        return _decide(self.values > _raw(other))

    def __ge__(self, other: Any) -> bool:
        return _decide(self.values >= _raw(other))

    def __eq__(self, other: object) -> bool:
        return _decide(np.asarray(self.values == _raw(other)))

    def __ne__(self, other: object) -> bool:
        return not self == other


def run(count: int, work: Callable[[Any], tuple[Any, ...]], keep: Callable[[Any, tuple[Any, ...]], None]) -> None:
    """Do *work* for *count* points: it gets the indices of some points and returns their results.

    Parts the points as often as *work* diverges; *keep* gets every part's indices and results.
    """
    parts = [np.arange(count)]
    while parts:
        part = parts.pop()
        try:
            found = work(part)
        except Diverged as parting:
            keys = np.asarray(parting.keys)
            parts += [part[keys == key] for key in np.unique(keys)]
            continue
        keep(part, found)

"""Hot functions in two identical forms: plain Python for a few calls, numba for many.

Loading numba costs about a second of CPU. A single run of a model makes a few hundred short calls, which plain Python
finishes sooner; a table of ten thousand kernels or a sweep does not. :class:`Accelerated` starts in Python and moves on
to the compiled twin when the work done so far says that it pays. Both forms are one source, so they give the same
numbers; ``NUMBA_DISABLE_JIT=1`` keeps to Python for good.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import FunctionType
from typing import Any

PATIENCE_S = 1.0
"""Seconds of Python work after which the compiled twin is loaded: about what loading it costs."""

MOST_CONSTANTS = 64
"""Constant tables whose arrays are kept at the same time: those of a few devices."""


class Accelerated:
    """A function of lists that, once it was busy long enough, runs compiled on arrays.

    Args:
        function: plain function of (lists of floats, scalars); it may fill lists that it is given.
        helpers: functions that it calls by global name; they are compiled with it.
        arrays: positions of list arguments, which become float64 (or int64) arrays for the compiled twin.
        fills: positions among ``arrays`` whose contents are copied back into the caller's list.
        whole: positions among ``arrays`` that hold whole numbers.
        constants: positions among ``arrays`` whose lists never change; their arrays are kept.
    """

    patience_s = PATIENCE_S
    """Shared by all; see :func:`expect_many`."""

    def __init__(
        self,
        function: Callable[..., Any],
        helpers: tuple[Callable[..., Any], ...] = (),
        *,
        arrays: tuple[int, ...] = (),
        fills: tuple[int, ...] = (),
        whole: tuple[int, ...] = (),
        constants: tuple[int, ...] = (),
    ) -> None:
        self.python = function
        self._helpers, self._arrays, self._fills, self._whole = helpers, arrays, fills, whole
        self._constants = constants
        self._spent_s = 0.0
        self._compiled: Callable[..., Any] | None = None
        self._kept: dict[int, tuple[list[Any], Any]] = {}

    def __call__(self, *arguments: Any) -> Any:
        """Call whichever form pays."""
        if self._compiled is not None:
            return self.compiled(*arguments)
        from time import perf_counter

        start = perf_counter()
        result = self.python(*arguments)
        self._spent_s += perf_counter() - start
        if self._spent_s > Accelerated.patience_s and not python_only():
            self._compile()
        return result

    def compiled(self, *arguments: Any) -> Any:
        """Call the compiled twin, compiling it first where needed."""
        if self._compiled is None:
            self._compile()
        assert self._compiled is not None
        converted, kept = list(arguments), self._kept
        for position in self._arrays:
            values = arguments[position]
            found = kept.get(id(values)) if position in self._constants else None
            fresh = found is None or found[0] is not values
            converted[position] = self._array(position, values) if fresh or found is None else found[1]
        result = self._compiled(*converted)
        for position in self._fills:
            arguments[position][:] = converted[position].tolist()
        return result

    def twin(self) -> Callable[..., Any]:
        """The compiled function itself, for compiled callers: it takes arrays."""
        if self._compiled is None:
            self._compile()
        assert self._compiled is not None
        return self._compiled

    def _array(self, position: int, values: list[Any]) -> Any:
        import numpy as np

        kind = np.int64 if position in self._whole else np.float64
        if position not in self._constants:
            return np.array(values, dtype=kind)
        found = self._kept.get(id(values))
        if found is None or found[0] is not values:
            if len(self._kept) > MOST_CONSTANTS:
                self._kept.clear()
            found = self._kept[id(values)] = (values, np.array(values, dtype=kind))
        return found[1]

    def _compile(self) -> None:
        import numba

        names: dict[str, Any] = {}
        for helper in self._helpers:
            names[helper.__name__] = numba.njit(cache=True, nogil=True)(_copy(helper, names))
        self._compiled = numba.njit(cache=True, nogil=True)(_copy(self.python, names))


def python_only() -> bool:
    """Whether compiled code is switched off (``NUMBA_DISABLE_JIT=1``)."""
    return os.environ.get("NUMBA_DISABLE_JIT", "0") == "1"


def expect_many() -> None:
    """Announce work of so many calls that compiled code pays from the first: large tables, sweeps."""
    Accelerated.patience_s = 0.0


def _copy(function: Callable[..., Any], names: dict[str, Any]) -> Callable[..., Any]:
    """The same code seeing *names* instead of the plain helpers."""
    assert isinstance(function, FunctionType)
    twin = FunctionType(function.__code__, {**function.__globals__, **names}, function.__name__, function.__defaults__)
    twin.__qualname__, twin.__module__ = function.__qualname__, function.__module__
    return twin

"""One place for the compiler options of every numerical kernel, and the scalar functions that kernels share."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit

_Function = TypeVar("_Function", bound=Callable[..., Any])


def kernel(function: _Function) -> _Function:
    """Compile ``function`` on first call, without fast-math, and cache the machine code on disk.

    Fast-math stays off because the order of float additions is what these models are about: reassociation or fused
    multiply-adds would make compiled and interpreted results differ. Division follows IEEE (``error_model="numpy"``).
    """
    return cast(_Function, njit(cache=True, nogil=True, error_model="numpy")(function))


@kernel
def exp32(x: float) -> np.float32:
    """``exp(x)`` in double, rounded once to float32; ``x`` must not overflow a double (x < 709)."""
    return np.float32(math.exp(np.float64(x)))


@kernel
def log32(x: float) -> np.float32:
    """``log(x)`` in double, rounded once to float32; ``x`` must be positive."""
    return np.float32(math.log(np.float64(x)))

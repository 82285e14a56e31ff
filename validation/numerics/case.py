"""What one comparison is: a model's numbers, PyTorch's, a bound on their difference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from .bounds import Float64Array

_T = TypeVar("_T")
Float32Array = npt.NDArray[np.float32]


class Draw(Protocol):
    """Source of random choices; tests drive it with hypothesis, which shrinks them."""

    def integer(self, low: int, high: int) -> int:
        """One of low … high."""

    def choice(self, options: Sequence[_T]) -> _T:
        """One of the options."""

    def generator(self) -> np.random.Generator:
        """For the elements of arrays."""


class RandomDraw:
    """Choices of a seeded generator."""

    def __init__(self, seed: int | Sequence[int]) -> None:
        self._rng = np.random.default_rng(seed)

    def integer(self, low: int, high: int) -> int:
        """One of low … high."""
        return int(self._rng.integers(low, high + 1))

    def choice(self, options: Sequence[_T]) -> _T:
        """One of the options."""
        return options[int(self._rng.integers(len(options)))]

    def generator(self) -> np.random.Generator:
        """For the elements of arrays."""
        return self._rng


def normal(draw: Draw, *shape: int, scale: float = 1.0) -> Float32Array:
    """Normally distributed float32 numbers."""
    return (draw.generator().standard_normal(shape) * scale).astype(np.float32)


def positive(draw: Draw, *shape: int, low: float = 0.0, high: float = 1.0) -> Float32Array:
    """Uniformly distributed float32 numbers."""
    return draw.generator().uniform(low, high, shape).astype(np.float32)


def tokens(draw: Draw, count: int, below: int) -> npt.NDArray[np.int64]:
    """Integers 0 … below - 1."""
    return draw.generator().integers(0, below, count)


def values(draw: Draw, *shape: int) -> Float32Array:
    """Numbers of one of several kinds: normal, of very different magnitudes, tiny, subnormal, cancelling, sparse."""
    x = draw.generator().standard_normal(shape)
    kind = draw.choice(("normal", "magnitudes", "tiny", "subnormal", "cancelling", "sparse"))
    if kind == "magnitudes":
        x = x * 10.0 ** draw.generator().uniform(-8, 6, shape)
    elif kind == "tiny":
        x = x * 1e-18
    elif kind == "subnormal":
        x = x * 1e-40
    elif kind == "cancelling" and x.size:
        flat = x.reshape(-1) * 1e4
        flat[1::2] = -flat[: flat.size // 2 * 2 : 2] * (1.0 + 1e-6)
        x = flat.reshape(shape)
    elif kind == "sparse":
        x = x * (draw.generator().random(shape) < 0.2)
    return x.astype(np.float32)


@dataclass(frozen=True, slots=True)
class Check:
    """Numbers of a model, of PyTorch in float64, and the largest difference that the arithmetic allows.

    Where PyTorch gives infinity or NaN the model must give the same.
    """

    got: npt.NDArray[Any]
    want: npt.NDArray[Any]
    bound: Float64Array | float = 0.0
    what: str = ""

    def ratio(self) -> float:
        """Largest difference over its bound; above 1 is a failure, ``inf`` where no bound helps."""
        got, want = np.asarray(self.got, np.float64), np.asarray(self.want, np.float64)
        if got.shape != want.shape:
            return float("inf")
        if not got.size:
            return 0.0
        finite = np.isfinite(want)
        same = np.isnan(got) & np.isnan(want) | (got == want)
        if not same[~finite].all() or not np.isfinite(got[finite]).all():
            return float("inf")
        error = np.abs(np.where(finite, got, 0.0) - np.where(finite, want, 0.0))
        bound = np.broadcast_to(np.asarray(self.bound, np.float64), got.shape)
        if not np.isfinite(bound[finite]).all():
            return float("inf")
        ratio = np.where(error > 0, error / np.where(bound > 0, bound, 1.0), 0.0)
        ratio = np.where((error > 0) & (bound <= 0), np.inf, ratio)
        return float(ratio[finite].max(initial=0.0))

    def tightness(self) -> float:
        """Median bound over the largest magnitude: how much the check can see; 0 where results must be exact."""
        want = np.abs(np.asarray(self.want, np.float64))
        finite = want[np.isfinite(want)]
        largest = float(finite.max(initial=0.0))
        if not largest:
            return 0.0
        return float(np.median(np.broadcast_to(np.asarray(self.bound, np.float64), want.shape))) / largest


Compare = Callable[[Draw], Iterator[Check]]


@dataclass(frozen=True, slots=True)
class Case:
    """One model (or form of it) with its random and its adversarial comparisons.

    Attributes:
        name: row of the report.
        models: names in :mod:`effsim.models.registry` that it runs.
        compare: one random comparison.
        adversarial: comparisons of values made to break it.
    """

    name: str
    models: tuple[str, ...]
    compare: Compare
    adversarial: tuple[Compare, ...] = ()

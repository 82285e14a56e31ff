"""Pareto fronts against brute force; importance on functions whose Sobol indices are known."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effsim.explore.sweep.importance import first_order
from effsim.explore.sweep.pareto import pareto

SMALL = st.integers(0, 4).map(float) | st.just(float("nan"))


def brute(rows: list[list[float]], maximise: tuple[bool, ...]) -> list[int]:
    """Every row that no other row dominates, straight from the definition."""
    costs = [[-x if m else x for x, m in zip(row, maximise, strict=True)] for row in rows]
    known = [i for i, row in enumerate(costs) if all(x == x for x in row)]

    def beats(a: list[float], b: list[float]) -> bool:
        return all(x <= y for x, y in zip(a, b, strict=True)) and a != b

    return [i for i in known if not any(beats(costs[j], costs[i]) for j in known)]


@given(st.data(), st.integers(1, 4))
def test_the_front_is_what_nothing_dominates(data: st.DataObject, objectives: int) -> None:
    rows = data.draw(st.lists(st.lists(SMALL, min_size=objectives, max_size=objectives), max_size=30))
    maximise = tuple(data.draw(st.lists(st.booleans(), min_size=objectives, max_size=objectives)))
    assert pareto(rows, maximise) == brute(rows, maximise)


def test_importance_of_a_sum_on_a_grid_is_the_share_of_each_variance() -> None:
    # y = 3 a + b with a and b uniform on the same grid: 9/10 and 1/10 of the variance.
    points = list(product(range(8), repeat=3))
    y = [3.0 * a + b for a, b, _ in points]
    a, b, c = ([p[i] for p in points] for i in range(3))
    assert first_order(a, y) == pytest.approx(0.9, abs=0.01)
    assert first_order(b, y) == pytest.approx(0.1, abs=0.02)
    assert first_order(c, y) == 0.0


def test_importance_of_the_ishigami_function() -> None:
    # First-order indices with a = 7, b = 0.1 in closed form: 0.3139, 0.4424, 0.
    x = np.random.default_rng(1).uniform(-np.pi, np.pi, (20000, 3))
    y = np.sin(x[:, 0]) + 7 * np.sin(x[:, 1]) ** 2 + 0.1 * x[:, 2] ** 4 * np.sin(x[:, 0])
    found = [first_order(x[:, i].tolist(), y.tolist()) or 0.0 for i in range(3)]
    assert found == pytest.approx([0.3139, 0.4424, 0.0], abs=0.03)


def test_importance_of_words_and_of_what_cannot_be_told() -> None:
    assert first_order(["a", "b"] * 10, [1.0, 2.0] * 10) == pytest.approx(1.0)
    assert first_order([True, False] * 10, [1.0, 1.0] * 10) is None
    assert first_order(["a"] * 4, [1.0, 2.0, 3.0, 4.0]) is None
    assert first_order([], []) is None


@given(st.integers(0, 2**31))
def test_noise_explains_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = first_order(rng.uniform(size=400).tolist(), rng.normal(size=400).tolist())
    assert found is not None
    assert found < 0.2

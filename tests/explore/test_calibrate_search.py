"""The search under a recipe: known minima come back, flat spans are true, nothing depends on luck."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effsim.explore.calibrate.search import FLAT, Box, flat, rounded, smallest

LOG = st.floats(min_value=math.log(0.2), max_value=math.log(50.0))


def valley(*centre: float) -> Box:
    """A loss with a kink at *centre*, as a mean of absolute logarithms has."""
    low, high = (0.1,) * len(centre), (100.0,) * len(centre)
    return Box(lambda p: 1.0 + math.fsum(abs(math.log(x / c)) for x, c in zip(p, centre, strict=True)), low, high)


@given(st.lists(LOG, min_size=1, max_size=3))
@settings(max_examples=30, deadline=None)
def test_a_minimum_inside_the_box_is_found(logs: list[float]) -> None:
    centre = [math.exp(x) for x in logs]
    found, loss = smallest(valley(*centre))
    assert found == pytest.approx(centre, rel=0.02)
    assert loss < 1.0 + 0.02 * len(centre)


def test_numbers_that_make_up_for_each_other_are_followed_down_a_slanted_valley() -> None:
    def loss(p: tuple[float, ...]) -> float:
        return 10.0 * abs(math.log(p[0] * p[1] / 4.0)) + abs(math.log(p[0] / 7.0))

    found, _ = smallest(Box(loss, (0.01, 0.01), (100.0, 100.0)))
    assert found[0] * found[1] == pytest.approx(4.0, rel=0.05)
    assert found[0] == pytest.approx(7.0, rel=0.1)


def test_a_minimum_outside_ends_at_the_bound() -> None:
    box = Box(lambda p: 1.0 + abs(math.log(p[0] / 1000.0)), (1.0,), (10.0,))
    found, loss = smallest(box)
    assert found == (10.0,)
    assert flat(box, found, loss, 0)[1] == 10.0


def test_same_steps_every_time() -> None:
    first, second = valley(3.0, 0.7), valley(3.0, 0.7)
    assert smallest(first) == smallest(second)
    assert first._seen == second._seen


@given(LOG, st.floats(min_value=0.05, max_value=3.0))
@settings(max_examples=30, deadline=None)
def test_the_flat_span_is_where_the_loss_is_within_two_percent(log: float, steepness: float) -> None:
    centre = math.exp(log)
    box = Box(lambda p: 1.0 + steepness * abs(math.log(p[0] / centre)), (0.01,), (1000.0,))
    width = math.exp((FLAT - 1.0) / steepness)
    low, high = flat(box, (centre,), 1.0, 0)
    assert low == pytest.approx(centre / width, rel=0.02)
    assert high == pytest.approx(centre * width, rel=0.02)
    assert box.at((math.log(low),)) <= FLAT
    assert box.at((math.log(high),)) <= FLAT


def test_rounding_stops_where_it_would_cost() -> None:
    box = Box(lambda p: 1.0 + 100.0 * abs(math.log(p[0] / 1.2345e-6)), (1e-7,), (1e-5,))
    (spelt,) = rounded(box, (1.2345e-6,), 1.0, (1e-6,))
    assert spelt == pytest.approx(1.2345e-6, rel=2e-5)
    flat_box = Box(lambda p: 1.0, (1e-7,), (1e-5,))
    assert rounded(flat_box, (1.2345e-6,), 1.0, (1e-6,)) == pytest.approx((1.2e-6,))

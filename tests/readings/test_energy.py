"""Energy: a sum a reader can check, and null where anything is unknown."""

from __future__ import annotations

from pathlib import Path

import pytest

import effsim

KNOWN = """
extends: gpu_a100
kind: gpu
name: A100 with energies
provenance: {kind: assumed, source: test}
power: {limit: 400 W, idle: 60 W}
energy: {matrix: {fp16: 1 pJ/FLOP}, vector: 4 pJ/FLOP, memory: 8 pJ/bit, l2: 1 pJ/bit}
"""


def run(hardware: str, tmp_path: Path, dims: str = "m: 4096, n: 4096, k: 4096, dtype: fp16") -> effsim.RunResult:
    workload = tmp_path / "w.yaml"
    entry = "{name: gemm, kind: linear, dimensions: {" + dims + "}}"
    workload.write_text(f"kind: workload\nname: one\ntask: operators\noperators:\n  - {entry}\n")
    return effsim.run(hardware, str(workload), engine="analytic", sensitivity=False)


def test_unknown_stays_null(tmp_path: Path) -> None:
    result = run("gpu_a100", tmp_path)
    assert result.energy_j is None
    assert result.energy_limit_j == pytest.approx(400 * result.time_s)


def test_sum_of_its_parts(tmp_path: Path) -> None:
    file = tmp_path / "a100.yaml"
    file.write_text(KNOWN)
    result = run(str(file), tmp_path)
    product = 2 * 4096**3 * 1e-12
    compulsory = 4096 * 4096 * 2 * 8 * 8e-12  # at least the weights come from memory
    idle = 60 * result.time_s
    assert result.energy_j is not None
    assert product + idle + compulsory < result.energy_j < product + idle + 40 * compulsory


def test_a_missing_energy_makes_the_whole_unknown(tmp_path: Path) -> None:
    file = tmp_path / "a100.yaml"
    file.write_text(KNOWN.replace(", memory: 8 pJ/bit", ""))
    assert run(str(file), tmp_path).energy_j is None
    file.write_text(KNOWN.replace("fp16: 1 pJ", "bf16: 1 pJ"))
    assert run(str(file), tmp_path).energy_j is None

"""Energy: a sum a reader can check, and null where anything is unknown."""

from __future__ import annotations

from pathlib import Path

import pytest

import effsim
from effsim.errors import SpecError

PLAIN = """
extends: gpu_rtx_4090
kind: gpu
name: an RTX with energies
provenance: {kind: assumed, source: test}
power: {limit: 600 W, idle: 60 W}
energy: {matrix: {fp16: 1 pJ/FLOP}, vector: 4 pJ/FLOP, memory: 8 pJ/bit, l2: 1 pJ/bit}
"""


def run(hardware: str, tmp_path: Path, dims: str = "m: 4096, n: 4096, k: 4096, dtype: fp16") -> effsim.RunResult:
    workload = tmp_path / "w.yaml"
    entry = "{name: gemm, kind: linear, dimensions: {" + dims + "}}"
    workload.write_text(f"kind: workload\nname: one\ntask: operators\noperators:\n  - {entry}\n")
    return effsim.run(hardware, str(workload), engine="analytic", sensitivity=False)


def test_unknown_stays_null(tmp_path: Path) -> None:
    result = run("gpu_rtx_4090", tmp_path)
    assert result.energy_j is None
    assert result.energy_limit_j == pytest.approx(450 * result.time_s)


def test_sum_of_its_parts(tmp_path: Path) -> None:
    file = tmp_path / "rtx.yaml"
    file.write_text(PLAIN)
    result = run(str(file), tmp_path)
    product = 2 * 4096**3 * 1e-12
    compulsory = 4096 * 4096 * 2 * 8 * 8e-12  # at least the weights come from memory
    idle = 60 * result.time_s
    assert result.energy_j is not None
    assert product + idle + compulsory < result.energy_j < product + idle + 40 * compulsory


@pytest.mark.parametrize("missing", ["memory: 8 pJ/bit", "fp16: 1 pJ/FLOP", "idle: 60 W"])
def test_a_missing_energy_makes_the_whole_unknown(tmp_path: Path, missing: str) -> None:
    file = tmp_path / "rtx.yaml"
    file.write_text(PLAIN)
    assert run(str(file), tmp_path).energy_j is not None
    file.write_text(PLAIN.replace(missing, f"{missing.partition(':')[0]}: null"))
    assert run(str(file), tmp_path).energy_j is None


def test_idle_power_is_drawn_while_waiting(tmp_path: Path) -> None:
    # The same work with a slower link to the host: only the time grows, and with it idle energy.
    file = tmp_path / "rtx.yaml"
    file.write_text(PLAIN)
    one = run(str(file), tmp_path)
    file.write_text(PLAIN + "launch: {graph: 100 us, stream: 100 us}\n")
    two = run(str(file), tmp_path)
    assert one.energy_j is not None
    assert two.energy_j is not None
    assert two.time_s > one.time_s
    assert two.energy_j - one.energy_j == pytest.approx(60 * (two.time_s - one.time_s), rel=1e-6)


def test_busy_processors_cost_their_share(tmp_path: Path) -> None:
    file = tmp_path / "rtx.yaml"
    file.write_text(PLAIN)
    few = "m: 64, n: 128, k: 8192, dtype: fp16"
    plain = [run(str(file), tmp_path, dims) for dims in (few, "m: 8192, n: 8192, k: 8192, dtype: fp16")]
    file.write_text(PLAIN.replace("idle: 60 W", "idle: 60 W, active: 100 W"))
    busy = [run(str(file), tmp_path, dims) for dims in (few, "m: 8192, n: 8192, k: 8192, dtype: fp16")]
    watts = [((b.energy_j or 0.0) - (p.energy_j or 0.0)) / p.time_s for b, p in zip(busy, plain, strict=True)]
    assert watts[0] < 60.0  # a few tiles, and the launch
    assert 99.0 < watts[1] <= 100.0


def test_standing_power_above_the_limit_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "rtx.yaml"
    file.write_text(PLAIN.replace("idle: 60 W", "idle: 500 W, active: 150 W"))
    with pytest.raises(SpecError, match="leave nothing"):
        run(str(file), tmp_path)

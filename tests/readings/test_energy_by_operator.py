"""Energy by operator: parts that sum to the whole on every machine, and by hand on a machine of round numbers."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

import effsim

HEAD = "kind: workload\nname: w\n"
SMALL = "model: gpt2\nlayers: 4\nbatch: 4\nprompt: 64\n"
WORKLOADS = {
    "training": "task: training_step\nmodel: gpt2\nlayers: 4\nbatch: 8\nprompt: 32\n"
    "parallelism: {tensor: 2, pipeline: 2, data: 2, microbatches: 2}\n",
    "sharded": "task: training_step\nmodel: gpt2\nlayers: 2\nbatch: 8\nprompt: 32\nparallelism: {data: 4}\n",
    "tensor": f"task: generate\n{SMALL}generate: 5\nparallelism: {{tensor: 2}}\n",
    "pipeline": f"task: generate\n{SMALL}generate: 5\nparallelism: {{tensor: 2, pipeline: 4, microbatches: 4}}\n",
    "experts": "task: decode\nmodel: mixtral_8x7b\nlayers: 2\nbatch: 4\nprompt: 64\ngenerate: 3\n"
    "parallelism: {data: 4, expert: 4}\n",
    "eager": f"task: decode\n{SMALL}generate: 2\nengine: eager-pytorch\n",
}
ROUND = """
extends: gpu_rtx_4090
kind: gpu
name: round numbers
provenance: {kind: assumed, source: test}
power: {limit: 600 W, idle: 50 W}
energy: {matrix: {fp16: 1 pJ/FLOP}, vector: 1 pJ/FLOP, memory: 1e-9 pJ/bit, l2: 1e-9 pJ/bit}
"""


def run(tmp_path: Path, hardware: str, text: str, engine: str = "analytic") -> effsim.RunResult:
    workload = tmp_path / "w.yaml"
    workload.write_text(HEAD + text)
    return effsim.run(hardware, str(workload), engine=engine, sensitivity=False)


@pytest.mark.parametrize("engine", ["roofline", "analytic", "events"])
@pytest.mark.parametrize("kind", WORKLOADS)
def test_operators_and_idle_power_sum_to_the_whole(tmp_path: Path, kind: str, engine: str) -> None:
    result = run(tmp_path, "system_dgx_h100", WORKLOADS[kind], engine)
    assert result.energy_j is not None
    assert result.idle_energy_j is not None
    parts = [row.energy_j for row in result.operators]
    assert all(part is not None and part >= 0.0 for part in parts)
    assert sum(part or 0.0 for part in parts) + result.idle_energy_j == pytest.approx(result.energy_j, rel=1e-9)
    assert all(row.energy_j for row in result.operators if row.kind == "linear")


@pytest.mark.parametrize("hardware", ["gpu_v100", "gpu_mi300x", "gpu_a100"])
def test_other_machines_sum_too(tmp_path: Path, hardware: str) -> None:
    result = run(tmp_path, hardware, f"task: generate\n{SMALL}generate: 5\n")
    assert result.energy_j is not None
    whole = sum(row.energy_j or 0.0 for row in result.operators) + (result.idle_energy_j or 0.0)
    assert whole == pytest.approx(result.energy_j, rel=1e-9)


def test_by_hand(tmp_path: Path) -> None:
    """A picojoule a FLOP and next to nothing a byte: joules are FLOPs, each as often as the operator runs."""
    file = tmp_path / "round.yaml"
    file.write_text(ROUND)
    text = (
        "task: operators\noperators:\n"
        "- {name: one, kind: linear, dimensions: {m: 4096, n: 4096, k: 4096, dtype: fp16}}\n"
        "- name: block\n  repeat: 3\n  operators:\n"
        "  - {name: two, kind: linear, dimensions: {m: 8192, n: 4096, k: 4096, dtype: fp16}}\n"
    )
    result = run(tmp_path, str(file), text)
    joules = {row.name: row.energy_j for row in result.operators}
    assert joules["one"] == pytest.approx(2 * 4096**3 * 1e-12, rel=1e-6)
    assert joules["block.two"] == pytest.approx(3 * 2 * 8192 * 4096**2 * 1e-12, rel=1e-6)
    assert result.idle_energy_j == pytest.approx(50.0 * result.time_s, rel=1e-12)


def test_copies_count_each_device(tmp_path: Path) -> None:
    """The same steps on each data rank: twice the ranks and sequences, twice every operator's joules."""
    text = "task: prefill\nmodel: gpt2\nlayers: 2\nbatch: {}\nprompt: 64\nparallelism: {{data: {}}}\n"
    runs = [run(tmp_path, "system_dgx_h100", text.format(2 * ranks, ranks)) for ranks in (1, 2, 4)]
    for few, many in pairwise(runs):
        for before, after in zip(few.operators, many.operators, strict=True):
            assert after.energy_j == pytest.approx(2.0 * (before.energy_j or 0.0), rel=1e-9)


def test_host_time_adds_only_idle_power(tmp_path: Path) -> None:
    result = run(tmp_path, "gpu_a100", WORKLOADS["eager"])
    assert [row.energy_j for row in result.operators if row.kind == "host"] == [0.0]


@pytest.mark.parametrize("hardware", ["cpu_xeon", "gpu_rtx_4090", "fpga_u280"])
def test_unknown_is_none_and_never_zero(tmp_path: Path, hardware: str) -> None:
    result = run(tmp_path, hardware, "task: decode\nmodel: gpt2\nlayers: 2\nbatch: 1\nprompt: 64\ngenerate: 2\n")
    assert result.energy_j is None
    assert {row.energy_j for row in result.operators} == {None}
    assert {row["energy_j"] for row in result.to_dict()["operators"]} == {None}


def test_one_missing_energy_leaves_the_other_operators_known(tmp_path: Path) -> None:
    file = tmp_path / "round.yaml"
    file.write_text(ROUND.replace("vector: 1 pJ/FLOP", "vector: null"))
    entries = (
        "- {name: product, kind: linear, dimensions: {m: 512, n: 512, k: 512, dtype: fp16}}\n"
        "- {name: soft, kind: softmax, dimensions: {rows: 64, cols: 1024, dtype: fp16}}\n"
    )
    result = run(tmp_path, str(file), f"task: operators\noperators:\n{entries}")
    known = {row.name: row.energy_j for row in result.operators}
    assert result.energy_j is None
    assert known["soft"] is None
    assert known["product"]
    assert result.idle_energy_j
    assert result.figure("energy").layout.annotations[0].text.startswith("energy unknown")


def test_mixed_systems_do_not_know_yet(tmp_path: Path) -> None:
    text = "task: decode\nmodel: gpt2\nlayers: 2\nbatch: 4\nprompt: 64\ngenerate: 2\n"
    result = run(tmp_path, "system_h100_attacc", text)
    assert (result.energy_j, result.idle_energy_j) == (None, None)
    assert {row.energy_j for row in result.operators} == {None}

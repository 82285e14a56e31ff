"""Every bundled workload runs on a machine it is meant for, and every architecture can be a workload."""

from __future__ import annotations

from pathlib import Path

import pytest

import effsim
from effsim.errors import DoesNotFitError
from effsim.spec.catalogue import find, names

WORKLOADS = names("workloads")
MACHINES = ("gpu_h200", "system_dgx_h100", "system_h100_64")
"""One GPU with eight peers, a node, eight nodes: the first that joins enough devices is taken."""


def smallest_run(workload: str) -> effsim.RunResult:
    for machine in MACHINES[:-1]:
        try:
            return effsim.run(machine, workload, engine="analytic", sensitivity=False)
        except DoesNotFitError:
            continue
    return effsim.run(MACHINES[-1], workload, engine="analytic", sensitivity=False)


def test_the_catalogue_is_a_spread() -> None:
    assert len(WORKLOADS) >= 55
    texts = {name: find("workloads", name).read_text(encoding="utf-8") for name in WORKLOADS}
    for task in ("prefill", "decode", "generate", "training_step", "operators"):
        assert any(f"task: {task}\n" in text for text in texts.values()), task
    for engine in ("cuda-graph", "vllm-like", "eager-pytorch", "eager-synchronised"):
        assert any(f"engine: {engine}\n" in text for text in texts.values()), engine
    for precision in ("weights: int4, group_size: 128", "weights: fp8", "kv_cache: fp8"):
        assert any(precision in text for text in texts.values()), precision
    assert all(text.startswith("# ") for text in texts.values()), "each file says what it is"


@pytest.mark.parametrize("workload", WORKLOADS)
def test_it_runs_and_no_time_beats_the_roofline(workload: str) -> None:
    result = smallest_run(workload)
    assert 0.0 < result.roofline_s <= result.time_s
    assert result.memory["fits"]
    assert result.memory["used_bytes"] <= result.memory["capacity_bytes"]
    assert sum(phase["time_s"] for phase in result.phases.values()) == pytest.approx(result.time_s)
    expected = {"prefill": {"prefill"}, "decode": {"decode"}, "generate": {"prefill", "decode"}}
    task = next(
        line.split()[1] for line in find("workloads", workload).read_text().splitlines() if line.startswith("task:")
    )
    assert set(result.phases) == expected.get(task, {"step"})


ENCODERS = ("bert_base", "vit_b16")


@pytest.mark.parametrize("architecture", [name for name in names("architectures") if name not in ENCODERS])
def test_every_architecture_can_be_a_workload(architecture: str, tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text(
        f"kind: workload\nname: one token\nmodel: {architecture}\ntask: decode\nprompt: 15\ngenerate: 1\n"
        "precision: {activations: bf16}\n",
        encoding="utf-8",
    )
    result = effsim.run("system_h100_64", str(file), engine="analytic", sensitivity=False)
    assert set(result.phases) == {"decode"}
    # One token at batch 1 reads every dense weight at least once; no model here holds less than 0.1 GB.
    assert result.memory["weights_bytes"] * result.devices > 1e8
    assert result.time_s > 1e-5


def test_training_reads_more_memory_than_inference() -> None:
    training = smallest_run("llama7b_training")
    assert training.memory["optimizer_bytes"] > 0
    assert training.memory["gradient_bytes"] > 0
    assert training.devices == 8


def test_quantised_weights_shrink_to_their_width() -> None:
    whole, quarter = smallest_run("llama70b_decode"), smallest_run("llama70b_int4_decode")
    ratio = (whole.memory["weights_bytes"] * whole.devices) / (quarter.memory["weights_bytes"] * quarter.devices)
    # 16 bits against 4 and a 2-byte scale for 128 weights; the embedding stays in 16 bits.
    assert 3.5 < ratio < 16 / (4 + 16 / 128)
    assert quarter.devices == 1


def test_the_repeat_group_is_folded_and_counts() -> None:
    result = smallest_run("explicit_mlp_block")
    rows = {row.name.rpartition(".")[2]: row for row in result.operators}
    assert rows["gate_up"].count == 4
    assert rows["final_norm"].count == 1
    assert rows["gate_up"].flops == pytest.approx(4 * 2 * 2048 * 22016 * 4096)

"""Energy of a served load against that of the same batch as one run."""

from __future__ import annotations

import pytest

import effsim
from effsim.devices.registry import load_machine

SIZES = ("workload.prompt=512", "workload.generate=128")


def served(hardware: str, workload: str, tensor: int, requests: int, more: str = "") -> effsim.ServeResult:
    load = f"workload.serving={{arrivals: {{process: constant, rate: 100000, requests: {requests}}}, "
    load += f"scheduler: {{policy: prefill_first, max_tokens: 65536}}{more}}}"
    return effsim.serve(hardware, workload, set=[*SIZES, f"workload.parallelism={{tensor: {tensor}}}", load])


@pytest.mark.parametrize("batch", [1, 16, 64])
@pytest.mark.parametrize(
    ("hardware", "workload", "tensor"),
    [("gpu_h100", "llama3_8b_generate", 1), ("system_dgx_h100", "llama3_70b_generate", 8)],
)
def test_a_constant_batch_takes_the_energy_of_a_run(hardware: str, workload: str, tensor: int, batch: int) -> None:
    sets = [*SIZES, f"workload.parallelism={{tensor: {tensor}}}", f"workload.batch={batch}"]
    alone = effsim.run(hardware, workload, set=sets).energy_j
    found = served(hardware, workload, tensor, batch).energy_j
    assert alone is not None
    assert found == pytest.approx(alone, rel=1e-3 if batch == 1 else 0.06)


def test_replicas_that_idle_draw_their_idle_power() -> None:
    one = served("system_dgx_h100", "llama3_8b_generate", 1, 1)
    two = served("system_dgx_h100", "llama3_8b_generate", 1, 1, ", replicas: 2")
    assert one.energy_j is not None
    assert two.energy_j is not None
    idle = load_machine("system_dgx_h100").device.idle_power_w
    assert idle is not None
    assert two.energy_j - one.energy_j == pytest.approx(idle * one.duration_s, rel=1e-6)


def test_drafts_whose_energy_nobody_states_leave_it_unknown() -> None:
    heads = ", speculative: {method: heads, tokens: 2, acceptance: 0.5, draft_time: 1 ms}"
    assert served("gpu_h100", "llama3_8b_generate", 1, 2, heads).energy_j is None
    found = served("gpu_h100", "llama3_8b_generate", 1, 2, ", speculative: {method: ngram, tokens: 2, acceptance: 1.0}")
    plain = served("gpu_h100", "llama3_8b_generate", 1, 2)
    assert found.energy_j is not None
    assert plain.energy_j is not None
    assert found.energy_j < 0.6 * plain.energy_j  # three tokens for weights that are read once

"""Elasticities: known cases on the unit GPU, and what scale invariance asks of their sum."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scaling import RATES, TIMES

from effsim._api import plan_on
from effsim.devices.registry import Machine, load_machine, timed_briefly
from effsim.explore.sensitivity import parameters, sensitivities, shown_path, with_value
from effsim.readings.analytic import analytic
from effsim.spec.workload import WorkloadSpec

UNIT = str(Path(__file__).parent.parent / "hardware" / "unit_gpu.yaml")


def elasticities(machine: Machine, **fields: Any) -> dict[str, float]:
    program = plan_on(machine, WorkloadSpec.model_validate({"kind": "workload", "name": "w", **fields}))
    return {s.path: s.elasticity for s in sensitivities(program, machine)}


def on_unit(kind: str, **dimensions: Any) -> dict[str, float]:
    entry = {"name": "only", "kind": kind, "dimensions": dimensions}
    return elasticities(load_machine(UNIT), task="operators", operators=[entry], parallelism={"tensor": 1})


def test_memory_bound_time_follows_the_bandwidth_alone() -> None:
    found = on_unit("linear", m=1, n=1, k=1000, dtype="fp16")
    # stream_fraction is 1 and cannot grow; the step goes down instead and gives the same elasticity.
    assert found == pytest.approx(
        {"hardware.memory.bandwidth": -1.0, "hardware.memory.stream_fraction": -1.0}, abs=1e-6
    )


def test_compute_bound_time_follows_clock_and_rate() -> None:
    found = on_unit("linear", m=64, n=64, k=16384, dtype="fp16")
    assert found["hardware.clock.boost"] == pytest.approx(-1.0, abs=1e-3)
    assert found["hardware.matrix.fp16"] == pytest.approx(-1.0, abs=1e-3)
    assert "hardware.memory.bandwidth" not in found
    assert "hardware.vector.fp32" not in found


def test_transfers_follow_the_link() -> None:
    # The fastest link joins bare devices: nvlink here; pcie then has no influence.
    found = on_unit("collective", op="all_reduce", bytes=800, devices=8)
    assert found["hardware.links.nvlink.bandwidth"] == pytest.approx(-1.0, abs=1e-6)
    assert found["hardware.kernels.collective.efficiency"] == pytest.approx(-1.0, abs=1e-6)
    assert set(found) == {"hardware.links.nvlink.bandwidth", "hardware.kernels.collective.efficiency"}


DECODE = {"model": "llama2_7b", "task": "decode", "batch": 2, "prompt": 512, "generate": 8, "layers": 4}
RUNS: list[tuple[str, dict[str, Any]]] = [
    # Not on A100, whose L2 is in balance with memory and matrix unit: 10 % more of either alone gains little.
    ("gpu_h200", DECODE),
    ("gpu_h100", DECODE | {"task": "prefill"}),
    ("gpu_h100", DECODE | {"parallelism": {"tensor": 4}}),
    ("gpu_l40s", DECODE | {"model": "mixtral_8x7b", "batch": 8, "parallelism": {"tensor": 1}}),
    ("system_dgx_h100", DECODE | {"task": "training_step", "parallelism": {"tensor": 2, "data": 4}, "batch": 8}),
]


@pytest.mark.parametrize(("hardware", "fields"), RUNS)
def test_rates_and_latencies_sum_to_minus_one(hardware: str, fields: dict[str, Any]) -> None:
    """Euler: time scales as 1/k when every rate grows by k and every latency shrinks by k.

    Hence the elasticities of rates less those of latencies sum to −1; steps of 10 % leave a few per cent. Watts are rates
    of energy, not of work: the board's limit is left out.
    """
    total = 0.0
    for path, elasticity in elasticities(timed_briefly(load_machine(hardware)), **fields).items():
        last = path.rpartition(".")[2]
        if ".clock." in path or (last in RATES and ".sm." not in path):
            total += elasticity
        elif last in TIMES:
            total -= elasticity
    assert total == pytest.approx(-1.0, abs=0.08)


def test_elasticity_predicts_a_step() -> None:
    machine = load_machine("gpu_a100")
    found = elasticities(machine, **DECODE)
    program = plan_on(machine, WorkloadSpec.model_validate({"kind": "workload", "name": "w", **DECODE}))
    before = analytic(program, machine.device).time_s
    bandwidth = float(machine.spec.memory.bandwidth)  # type: ignore[attr-defined]
    faster = load_machine("gpu_a100", [f"hardware.memory.bandwidth={bandwidth * 1.1} B/s"])
    after = analytic(program, faster.device).time_s
    assert after / before == pytest.approx(1.1 ** found["hardware.memory.bandwidth"], rel=1e-3)


def test_only_shown_paths_that_can_be_set() -> None:
    machine = load_machine("system_dgx_h100")
    for owner, path, value in parameters(machine):
        if owner == "system":
            continue
        assert shown_path(machine, owner, path).startswith("hardware.device.")
        changed = {p: float(v) for p, v in with_value(machine.spec, path, value * 2).leaves()}
        assert changed[path] == pytest.approx(value * 2)
        others = {p: float(v) for p, v in machine.spec.leaves() if p != path}
        assert {p: v for p, v in changed.items() if p != path} == others

"""Mixed systems: placement, transfers, memory by group, sub-batches that take turns."""

from __future__ import annotations

from pathlib import Path

import pytest

import effsim
from effsim import _api

MIXED = """
kind: system
name: mixed
provenance: {kind: assumed, source: test}
devices:
  - {hardware: gpu_h100, count: 4, name: front}
  - {hardware: gpu_a100, count: 4, name: back}
bridges: [{between: [front, back], bandwidth: 100 GB/s, latency: 5 us}]
placement:
  - {operators: "*.attention", group: back}
  - {operators: "*.kv_append", group: back}
"""


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    file = tmp_path / "mixed.yaml"
    file.write_text(MIXED)
    return file


def run(file: Path, *changes: str, engine: str = "analytic") -> effsim.RunResult:
    return effsim.run(
        str(file), "llama70b_decode", engine=engine, set=["workload.batch=32", *changes], sensitivity=False
    )


def test_transfers_are_explicit_and_sized_by_what_crosses(mixed: Path) -> None:
    rows = {row.name: row for row in run(mixed).operators}
    # To the pool: q (64 heads), k and v (8 heads each) of 128 fp16 numbers a sequence; back: 64 heads.
    there, back = rows["layers.kv_append_to_back"], rows["layers.attention_from_back"]
    per_step = there.bytes_moved / 2 / 128 / 80 / 2  # read and written; 128 tokens, 80 layers, 2 devices count it
    assert per_step == pytest.approx(32 * (64 + 8 + 8) * 128 * 2)
    seconds = 32 * 64 * 128 * 2 / 100e9 + 5e-6
    assert back.time_s == pytest.approx(128 * 80 * (seconds + 0.0), rel=0.2)  # and a launch gap each


def test_memory_of_each_group(mixed: Path) -> None:
    alone = effsim.run("gpu_h100", "llama70b_decode", set=["workload.batch=32"], engine="roofline", sensitivity=False)
    result = run(mixed, engine="roofline")
    assert result.memory["kv_cache_bytes"] == 0.0
    assert alone.memory["kv_cache_bytes"] > 0.0
    assert any("on each NVIDIA A100" in note for note in result.notes)
    with pytest.raises(effsim.DoesNotFitError, match="'back'"):
        run(mixed, "workload.batch=400")


@pytest.mark.parametrize("pieces", [1, 2, 4])
def test_readings_agree_when_sub_batches_take_turns(mixed: Path, pieces: int) -> None:
    change = f"workload.parallelism={{tensor: 4, microbatches: {pieces}}}"
    roof, closed, simulated = (run(mixed, change, engine=e) for e in ("roofline", "analytic", "events"))
    assert roof.time_s <= closed.time_s
    assert roof.time_s <= simulated.time_s
    assert simulated.time_s == pytest.approx(closed.time_s, rel=0.1)
    assert simulated.flops == pytest.approx(closed.flops)
    assert sum(row.time_s for row in simulated.operators) == pytest.approx(simulated.time_s)
    if pieces > 1:
        assert any("waits" in note for note in simulated.notes)


def test_a_faster_pool_or_bridge_is_never_slower(mixed: Path) -> None:
    base = run(mixed).time_s
    assert run(mixed, "hardware.back.memory.bandwidth=4 TB/s").time_s < base
    assert run(mixed, "hardware.bridges.0.bandwidth=1 TB/s").time_s < base
    assert run(mixed, "hardware.front.memory.bandwidth=6 TB/s").time_s < base


def test_sensitivities_reach_every_group(mixed: Path) -> None:
    result = effsim.run(str(mixed), "llama70b_decode", set=["workload.batch=32"], engine="analytic")
    paths = {str(row["path"]) for row in result.sensitivity}
    assert {"hardware.device.memory.bandwidth", "hardware.back.memory.bandwidth", "hardware.bridges.0.latency"} <= paths


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("group: back}\n  - {op", "group: bakc}\n  - {op", "no device group 'bakc'"),
        ("between: [front, back]", "between: [front, front]", "no bridge between"),
        ("name: back}", "name: front}", "same name"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, old: str, new: str, text: str) -> None:
    file = tmp_path / "mixed.yaml"
    file.write_text(MIXED.replace(old, new))
    with pytest.raises(effsim.EffsimError, match=text):
        run(file)


def test_a_rule_without_effect_is_noted(tmp_path: Path) -> None:
    file = tmp_path / "mixed.yaml"
    file.write_text(MIXED.replace('"*.attention"', '"*.atention"'))
    assert any("'*.atention' matches no operator" in note for note in run(file).notes)


def test_bundled_pool_runs() -> None:
    machine = _api.load_machine("system_attention_pool")
    assert [name for name, _ in machine.others] == ["pool"]
    assert effsim.run("system_attention_pool", "llama70b_decode", engine="analytic", sensitivity=False).time_s > 0

"""Parallel programs in all readings: folded equals unfolded, closed form equals queues, pipelines, shared links."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effsim._api import FullRun, run_full
from effsim.devices.registry import load_machine
from effsim.errors import UnsupportedError
from effsim.readings.analytic import analytic, roofline
from effsim.readings.events import events
from effsim.readings.pipeline import closed_form, simulate_pipeline, weights
from effsim.readings.unfolded import unfolded_seconds
from effsim.spec.workload import WorkloadSpec

WAYS: dict[str, dict[str, Any]] = {
    "TP8": {"tensor": 8},
    "TP8 with sequence parallelism": {"tensor": 8, "sequence": True},
    "TP4 PP2": {"tensor": 4, "pipeline": 2, "microbatches": 2},
    "TP2 PP2 DP2": {"tensor": 2, "pipeline": 2, "data": 2, "microbatches": 2},
    "PP8": {"pipeline": 8, "microbatches": 4},
    "TP2 DP4": {"tensor": 2, "data": 4},
    "CP8": {"context": 8},
    "CP8 in a ring": {"context": 8, "context_exchange": "ring"},
    "TP2 CP2 PP2": {"tensor": 2, "context": 2, "pipeline": 2, "microbatches": 2},
    "EP8": {"data": 8, "expert": 8},
    "TP2 EP8": {"tensor": 2, "data": 4, "expert": 8},
    "EP2 in TP4": {"tensor": 4, "data": 2, "expert": 2},
}

TOPOLOGIES = {
    "one adapter a node": "{name: ib, kind: fat_tree, size: 2, bandwidth: 50 GB/s, latency: 2.7 us, shared_by: 4}",
    "an oversubscribed tree": "{name: ib, kind: fat_tree, size: 8, bandwidth: 50 GB/s, latency: 2.7 us, "
    "oversubscription: 3, leaf: 4}",
    "a ring": "{name: ring, kind: ring, size: 8, bandwidth: 50 GB/s, latency: 1 us}",
}


def run(hardware: str, way: dict[str, Any], task: str = "prefill", engine: str = "events", **fields: Any) -> FullRun:
    model = "mixtral_8x7b" if "expert" in way else "llama3_8b"
    base = {"kind": "workload", "name": "w", "model": model, "task": task, "batch": 8, "prompt": 1024, "generate": 2}
    base |= {"layers": max(4, way.get("pipeline", 1)), "precision": {"activations": "bf16"}, "parallelism": way}
    return run_full(hardware, WorkloadSpec.model_validate(base | fields), engine=engine, sensitivity=False)


@pytest.fixture(scope="module")
def systems(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Eight devices on links that groups share."""
    folder, found = tmp_path_factory.mktemp("systems"), {}
    for name, level in TOPOLOGIES.items():
        near = "  - {name: nvlink, kind: switch, size: 4, bandwidth: 450 GB/s, latency: 0.5 us}\n"
        file: Path = folder / f"{name.replace(' ', '_')}.yaml"
        file.write_text(
            f"kind: system\nname: {name}\nprovenance: {{kind: assumed, source: test}}\n"
            "devices: [{hardware: gpu_h100, count: 8}]\ntopology:\n"
            + (near if "size: 2" in level else "")
            + f"  - {level}\n"
        )
        found[name] = str(file)
    return found


# --- folding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["prefill", "decode"])
@pytest.mark.parametrize("way", WAYS)
def test_a_folded_run_equals_eight_devices(way: str, task: str) -> None:
    """Exactly, where no links are shared: every rank has the same kernels and waits for peers that are as far."""
    done = run("system_dgx_h100", WAYS[way], task)
    assert done.program.devices == 8
    (phase,), (folded,) = done.program.phases, done.reading.phases
    assert unfolded_seconds(done.program, phase, done.machine.device) == pytest.approx(folded.time_s, rel=1e-9)


@pytest.mark.parametrize("way", WAYS)
def test_folded_equals_unfolded_where_links_are_shared(way: str, systems: dict[str, str]) -> None:
    """What is counted as running at once does run at once; queues serve pieces of messages, not a fluid."""
    for name, file in systems.items():
        done, counted = run(file, WAYS[way]), run(file, WAYS[way], engine="analytic")
        (phase,), (folded,) = done.program.phases, done.reading.phases
        each = unfolded_seconds(done.program, phase, done.machine.device)
        assert each == pytest.approx(folded.time_s, rel=0.03), name
        assert each == pytest.approx(counted.reading.time_s, rel=0.02), name


def test_the_workload_can_ask_for_every_rank() -> None:
    folded, each = (run("system_dgx_h100", {"tensor": 2, "data": 4, "folded": f}) for f in (True, False))
    assert each.reading.time_s == pytest.approx(folded.reading.time_s, rel=1e-9)
    assert "8 ranks run one by one" in each.reading.timeline.notes
    assert sum(row.time_s for row in each.reading.phases[0].operators) == pytest.approx(each.reading.time_s)


def test_too_many_ranks_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="128 ranks are too many"):
        run("system_h100_512", {"tensor": 8, "data": 16, "folded": False}, batch=16)


# --- readings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["prefill", "decode"])
@pytest.mark.parametrize("way", WAYS)
def test_readings_agree_where_nothing_contends(way: str, task: str) -> None:
    done = run("system_dgx_h100", WAYS[way], task)
    device = done.machine.device
    bound, closed = roofline(done.program, device), analytic(done.program, device)
    assert bound.time_s <= closed.time_s * (1 + 1e-9)
    assert bound.time_s <= done.reading.time_s * (1 + 1e-9)
    tolerance = 0.03 if "expert" in WAYS[way] else 0.02  # tiles of experts without a token
    assert done.reading.time_s == pytest.approx(closed.time_s, rel=tolerance)
    for reading in (bound, closed, done.reading):
        for phase in reading.phases:
            assert sum(row.time_s for row in phase.operators) == pytest.approx(phase.time_s, rel=1e-9)


def test_layers_are_counted_once_over_the_stages() -> None:
    for engine in ("roofline", "analytic", "events"):
        done = run("system_dgx_h100", WAYS["TP4 PP2"], engine=engine)
        counts = {row.name: row.count for row in done.reading.phases[0].operators}
        assert counts["layers.attention"] == 4
        assert counts["embedding"] == counts["lm_head"] == counts["stage_send_0"] == 1


def test_groups_through_one_adapter_take_longer(systems: dict[str, str]) -> None:
    """Four tensor groups' context exchange leaves the node through one adapter instead of four."""
    name, way = "one adapter a node", {"tensor": 4, "context": 2}
    shares = []
    for assignments in ([], ["hardware.topology.1.shared_by=1"]):
        machine = load_machine(systems[name], assignments)
        program = run(systems[name], way).program
        for read in (analytic, events):
            rows = {row.name: row.time_s for row in read(program, machine.device).phases[0].operators}
            shares.append(rows["layers.attention_keys_all_gather"])
    assert shares[0] / shares[2] == pytest.approx(shares[1] / shares[3], rel=0.05)
    assert 2.0 < shares[0] / shares[2] <= 4.0


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(sorted(WAYS)), st.floats(1.0, 8.0), st.sampled_from([0, 1]))
def test_more_bandwidth_is_never_slower(way: str, more: float, level: int) -> None:
    done = run("system_h100_64", WAYS[way], engine="analytic")
    rate = float(done.machine.network.levels[level].bytes_per_s) * more
    faster = load_machine("system_h100_64", [f"hardware.topology.{level}.bandwidth={rate:.6g} B/s"])
    for read in (roofline, analytic):
        before, after = (read(done.program, machine.device).time_s for machine in (done.machine, faster))
        assert after <= before * (1 + 1e-6)


# --- pipelines --------------------------------------------------------------------------------------------------------

stage_times = st.lists(st.floats(0.1, 10.0), min_size=1, max_size=5)


@given(st.integers(1, 8), st.integers(1, 16))
def test_bubble_of_equal_stages(stages: int, microbatches: int) -> None:
    step = closed_form([1.0] * stages, microbatches, 1.0)
    assert step == stages + microbatches - 1
    assert 1.0 - microbatches / step == pytest.approx((stages - 1) / (microbatches + stages - 1))


@settings(max_examples=60, deadline=None)
@given(stage_times, st.integers(1, 6), st.sampled_from([1.0, 2.0, 5.0, 6.0, 100.0]))
def test_microbatches_that_queue_take_what_the_closed_form_says(
    seconds: list[float], microbatches: int, rounds: float
) -> None:
    expected = closed_form(seconds, microbatches, rounds)
    assert simulate_pipeline(seconds, microbatches, rounds) == pytest.approx(expected, rel=1e-9)
    shown = weights(seconds, microbatches, rounds, expected)
    assert sum(w * s for w, s in zip(shown, seconds, strict=True)) == pytest.approx(expected)
    assert all(w >= 0.0 for w in shown)


def test_decoding_fills_the_pipeline_with_other_microbatches() -> None:
    """One microbatch goes through all stages for every token; two keep two stages busy, but for their smaller batch."""
    alone = run("system_dgx_h100", {"pipeline": 2}, "decode", generate=100, layers=32).reading.time_s
    two = run(
        "system_dgx_h100", {"pipeline": 2, "microbatches": 2}, "decode", generate=100, layers=32, batch=16
    ).reading.time_s
    assert alone < two < 1.25 * alone  # the stage with the output head sets the pace
    one = run("system_dgx_h100", {}, "decode", generate=100, layers=32).reading.time_s
    assert one < alone < 1.1 * one

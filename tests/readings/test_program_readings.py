"""Whole programs: folding, launch modes, rows and timelines, overlap, determinism over processes."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from effsim._api import plan_on, run
from effsim.devices.registry import Machine, load_machine
from effsim.program.program import Phase, Program
from effsim.readings.analytic import analytic, roofline
from effsim.readings.events import events
from effsim.readings.result import Reading
from effsim.spec.workload import WorkloadSpec

TRAINING = {"task": "training_step", "precision": {"activations": "fp16"}, "model": "gpt2", "layers": 6}
CASES: dict[str, dict[str, Any]] = {
    "decode": {},
    "prefill": {"task": "prefill"},
    "generate": {"task": "generate"},
    "tensor": {"parallelism": {"tensor": 4}},
    "experts": {"model": "mixtral_8x7b", "parallelism": {"tensor": 4, "expert": 4}},
    "mamba": {"model": "mamba2_2_7b"},
    "latent": {"model": "deepseek_v2_lite", "layers": None},
    "eager": {"engine": "eager-pytorch"},
    "isolated": {"engine": "eager-synchronised"},
    "hosted": {"engine": "vllm-like"},
    "training": TRAINING,
    "pipeline": TRAINING | {"parallelism": {"pipeline": 2, "microbatches": 2}},
}
DATA_PARALLEL: dict[str, dict[str, Any]] = {
    "data": TRAINING | {"parallelism": {"data": 8}, "batch": 8},
    "data tensor": TRAINING | {"parallelism": {"data": 4, "tensor": 2}, "batch": 8},
    "zero 1": TRAINING | {"parallelism": {"data": 4, "microbatches": 3}, "batch": 12, "training": {"zero": 1}},
    "zero 3": TRAINING | {"parallelism": {"data": 8}, "batch": 8, "training": {"zero": 3, "recompute": "full"}},
}
HARDWARE = ("gpu_a100", "gpu_h100")


@cache
def machine(name: str) -> Machine:
    return load_machine(name)


def program(hardware: str, case: dict[str, Any]) -> Program:
    fields = {"kind": "workload", "name": "w", "model": "llama2_7b", "task": "decode", "batch": 2, "prompt": 512}
    fields |= {"generate": 8, "layers": 4, "parallelism": {"tensor": 1}} | case
    return plan_on(machine(hardware), WorkloadSpec.model_validate(fields))


def unfolded(p: Program) -> Program:
    def flat(phase: Phase) -> Phase:
        return replace(phase, executions=tuple(replace(e, graph=e.graph.unfold()) for e in phase.executions))

    return replace(p, phases=tuple(flat(phase) for phase in p.phases))


def read(p: Program, hardware: str) -> tuple[Reading, Reading, Reading]:
    device = machine(hardware).device
    return roofline(p, device), analytic(p, device), events(p, device)


@pytest.mark.parametrize("hardware", HARDWARE)
@pytest.mark.parametrize("case", [*CASES, *DATA_PARALLEL])
def test_order_rows_and_folding(case: str, hardware: str) -> None:
    p = program(hardware, (CASES | DATA_PARALLEL)[case])
    bound, closed, simulated = read(p, hardware)
    assert 0 < bound.time_s <= closed.time_s * (1 + 1e-9)
    assert bound.time_s <= simulated.time_s * (1 + 1e-9)
    assert closed.roofline_s == pytest.approx(simulated.roofline_s)
    for reading in (bound, closed, simulated):
        for phase in reading.phases:
            # Rows add up to the phase, the terms of a row to the row.
            assert sum(row.time_s for row in phase.operators) == pytest.approx(phase.time_s, rel=1e-9)
            for row in phase.operators:
                assert sum(seconds for _, seconds in row.shares) == pytest.approx(row.time_s, rel=1e-9, abs=1e-18)
                assert row.time_s >= 0
        assert sum(reading.shares().values()) == pytest.approx(1.0)
    _, flat_closed, flat_simulated = read(unfolded(p), hardware)
    assert flat_closed.time_s == pytest.approx(closed.time_s, rel=1e-9)
    assert flat_simulated.time_s == pytest.approx(simulated.time_s, rel=1e-9)


@pytest.mark.parametrize("hardware", HARDWARE)
@pytest.mark.parametrize("case", CASES)
def test_simulation_agrees_with_closed_form_where_nothing_contends(case: str, hardware: str) -> None:
    _, closed, simulated = read(program(hardware, CASES[case]), hardware)
    assert simulated.time_s == pytest.approx(closed.time_s, rel=0.02)


@pytest.mark.parametrize("case", DATA_PARALLEL)
def test_overlapped_exchange_agrees_roughly(case: str) -> None:
    # The closed form spreads exchanges evenly over the backward pass; the simulation sends them when they are ready.
    for hardware in HARDWARE:
        _, closed, simulated = read(program(hardware, DATA_PARALLEL[case]), hardware)
        assert simulated.time_s == pytest.approx(closed.time_s, rel=0.12)


def test_update_waits_for_the_gradients() -> None:
    for case in DATA_PARALLEL.values():
        timeline = read(program("gpu_t4", case), "gpu_t4")[2].timeline
        update = next(s for s in timeline.slices if s.name == "optimizer")
        last = [s for s in timeline.slices if "gradient_" in s.name]
        assert last
        assert max(s.start_ps + s.duration_ps for s in last) <= update.start_ps


def test_exchange_hides_behind_computing() -> None:
    alone = read(program("gpu_a100", TRAINING | {"batch": 1}), "gpu_a100")
    shared = read(program("gpu_a100", TRAINING | {"batch": 8, "parallelism": {"data": 8}}), "gpu_a100")
    whole = sum(
        machine("gpu_a100").device.lower(node.op).analytic_s * count
        for _, _, node, count in program("gpu_a100", DATA_PARALLEL["data"]).phases[0].nodes()
        if node.overlap
    )
    for one, eight in zip(alone[1:], shared[1:], strict=True):
        assert one.time_s < eight.time_s < one.time_s + whole


# --- timeline ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["decode", "generate", "tensor", "training", "eager"])
def test_slices_do_not_overlap_and_add_up(case: str) -> None:
    p = unfolded(program("gpu_a100", CASES[case]))
    first = replace(p, phases=tuple(replace(ph, executions=ph.executions[:1]) for ph in p.phases))
    reading = events(first, machine("gpu_a100").device)
    slices = reading.timeline.slices
    assert slices
    for track in {s.track for s in slices}:
        mine = sorted((s for s in slices if s.track == track), key=lambda s: s.start_ps)
        for before, after in pairwise(mine):
            assert before.start_ps + before.duration_ps <= after.start_ps
    assert all(isinstance(s.start_ps, int) and isinstance(s.duration_ps, int) for s in slices)
    busy, expected = sum(s.duration_ps for s in slices) / 1e12, 0.0
    for phase, timed in zip(first.phases, reading.phases, strict=True):
        times = phase.executions[0].times
        working = (dict(row.shares) for row in timed.operators if row.op is not None)
        expected += sum(sum(v for k, v in shares.items() if k != "launch") for shares in working) / times
    assert busy == pytest.approx(expected, rel=1e-9)


def test_folded_timeline_shows_two_copies_and_says_so() -> None:
    reading = events(program("gpu_a100", CASES["prefill"]), machine("gpu_a100").device)
    assert sum(s.name == "layers.attention" for s in reading.timeline.slices) == 2
    assert any("first two copies" in note for note in reading.timeline.notes)


# --- launches and hosts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hardware", [*HARDWARE, "gpu_t4", "gpu_mi300x"])
@pytest.mark.parametrize("case", ["decode", "prefill"])
def test_launch_modes_are_ordered(case: str, hardware: str) -> None:
    p = program(hardware, CASES[case])
    times: dict[str, tuple[float, float]] = {}
    for mode in ("graph", "stream", "eager", "isolated"):
        _, closed, simulated = read(replace(p, launch=mode), hardware)
        times[mode] = (closed.time_s, simulated.time_s)
    for which in (0, 1):
        graph, stream, eager, isolated = (times[mode][which] for mode in times)
        assert graph <= stream * (1 + 1e-9)
        assert stream <= eager * (1 + 1e-9)
        assert stream <= isolated * (1 + 1e-9)


HEAD_SHARE = 0.5
"""Most of a step of few layers that stands behind its layers."""


def test_eager_time_is_host_or_device_whichever_is_longer() -> None:
    p = replace(program("gpu_a100", {"batch": 1}), launch="eager")
    device = machine("gpu_a100").device
    closed = analytic(p, device)
    kernels = sum(run.times * count * len(device.lower(node.op).kernels) for run, _, node, count in p.phases[0].nodes())
    on_device = analytic(replace(p, launch="stream"), device).time_s
    host = kernels * device.launch.dispatch_s
    # Behind the last dispatch of the layers, the output head still runs.
    assert max(on_device, host) <= closed.time_s <= max(on_device, host) + HEAD_SHARE * on_device


def test_host_time_of_the_engine_adds_up() -> None:
    # vllm-like: 189 us a step and 6.6 us a sequence of a host of speed 1, 8 steps of 2 sequences, beside the replay.
    hosted, bare = (program("gpu_a100", {"engine": e}) for e in ("vllm-like", "cuda-graph"))
    for engine in (analytic, events):
        device = machine("gpu_a100").device
        extra = engine(hosted, device).time_s - engine(bare, device).time_s
        assert extra == pytest.approx(8 * (189e-6 + 2 * 6.6e-6))


def test_one_device_does_not_communicate() -> None:
    for case in ("decode", "prefill", "experts", "training"):
        fields = CASES[case] | {"parallelism": {"tensor": 1}, "layers": 1}
        kinds = {node.op.kind for _, _, node, _ in program("system_dgx_h100", fields).phases[0].nodes()}
        assert "collective" not in kinds
    p = program("gpu_a100", CASES["tensor"])
    reduced = [node.op for _, _, node, _ in p.phases[0].nodes() if node.op.kind == "collective"]
    assert {op.op for op in reduced} == {"all_reduce", "all_gather"}
    assert all(op.devices == 4 for op in reduced)


# --- same bytes everywhere --------------------------------------------------------------------------------------------

SCRIPT = """
import sys
import effsim.accelerate
effsim.accelerate.PATIENCE_S = float(sys.argv[1])
from effsim import run
for workload, extra in [("task=decode", []), ("task=training_step", ["workload.layers=2"])]:
    changes = ["workload.model=gpt2", "workload.generate=4", "workload.prompt=100", "workload." + workload, *extra]
    print(run("gpu_a100", "llama70b_decode", set=changes, sensitivity=True).to_json())
"""


def test_same_bytes_whatever_the_process_and_the_compiler() -> None:
    """Another hash seed; hot functions in Python, compiled at once, and with numba switched off."""
    runs = [("1", "1e9", "0"), ("2", "0", "0"), ("3", "0", "1")]
    outputs = []
    for seed, patience, disabled in runs:
        environment = os.environ | {"PYTHONHASHSEED": seed, "NUMBA_DISABLE_JIT": disabled}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, patience], env=environment, capture_output=True, check=True, timeout=300
        )
        outputs.append(done.stdout)
    assert len(outputs[0]) > 1000
    assert outputs[0] == outputs[1] == outputs[2]


def test_an_operator_may_be_named_as_the_host_is(tmp_path: Path) -> None:
    text = (
        "kind: workload\nname: named\ntask: operators\nengine: eager-pytorch\noperators:\n"
        "  - {name: NAME, kind: linear, dimensions: {m: 64, n: 64, k: 64, dtype: fp16}}\n"
    )
    rows = {}
    for name in ("host", "product"):
        file = tmp_path / f"{name}.yaml"
        file.write_text(text.replace("NAME", name))
        result = run("gpu_a100", str(file), engine="analytic", sensitivity=False)
        rows[name] = [(row.kind, row.time_s, row.flops) for row in result.operators]
        assert len({row.name for row in result.operators}) == len(result.operators)
    assert rows["host"] == rows["product"]
    assert rows["host"][0][2] == 2 * 64**3

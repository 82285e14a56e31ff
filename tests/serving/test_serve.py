"""Serving a real model on a real machine: step costs against whole graphs, the command, memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import effsim
from effsim._api import plan_on
from effsim.cli.app import app
from effsim.devices.capacity import capacity_of
from effsim.devices.registry import load_machine
from effsim.errors import DoesNotFitError, UnsupportedError
from effsim.program.engine import host_work
from effsim.program.place import step_graphs
from effsim.program.program import Degrees
from effsim.program.source import load_model
from effsim.program.workload_file import load_engine, load_workload
from effsim.readings.analytic import analytic
from effsim.serving.step_cost import Line, Plane, StepCost, grid


def cost(hardware: str, workload: str, *changes: str) -> StepCost:
    machine = load_machine(hardware)
    spec, folder = load_workload(workload, changes)
    engine = load_engine(spec.engine, folder)
    graphs = step_graphs(spec, engine, capacity_of(machine), Degrees(), folder)
    return StepCost(
        graphs,
        machine.device,
        engine,
        host_work(engine, load_model(spec.model or "", folder)),
        most_tokens=4096,
        most_sequences=64,
        longest=8192,
    )


def test_interpolation_is_exact_on_planes_and_continues_beyond_its_ends() -> None:
    line = Line((1, 4, 10), lambda x: 3.0 * x + 1.0)
    assert [line(x) for x in (1, 2.5, 4, 10, 20)] == pytest.approx([4.0, 8.5, 13.0, 31.0, 61.0])
    plane = Plane((1, 8), (0, 100), lambda x, y: 2.0 * x + 0.5 * y + 1.0)
    assert plane(3, 40) == pytest.approx(27.0)
    assert plane(16, 200) == pytest.approx(133.0)
    assert grid(5) == (1, 2, 3, 4, 5)


@pytest.mark.parametrize("model", ["llama3_8b", "mamba_2_8b", "mixtral_8x7b"])
def test_terms_add_up_to_whole_steps(model: str) -> None:
    """On points of the grid the sum of the terms is the analytic time of the whole graph."""
    workload = {
        "llama3_8b": "llama3_8b_decode",
        "mamba_2_8b": "mamba_2_8b_decode",
        "mixtral_8x7b": "mixtral_8x7b_decode",
    }
    hardware = "gpu_mi300x"  # holds all three on one device
    machine = load_machine(hardware)
    spec, folder = load_workload(workload[model], ["workload.batch=8", "workload.prompt=1023", "workload.generate=1"])
    spec = spec.model_copy(update={"parallelism": "auto"})
    program = plan_on(machine, spec, folder)
    assert program.devices == 1
    reading = analytic(program, machine.device)
    whole = reading.phases[-1].time_s
    assert cost(hardware, workload[model]).generate_s(8, 1024) == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize("engine", ["trtllm-like", "trtllm-0.14", "vllm-0.15"])
def test_kernels_of_generation_alone_are_told_apart(engine: str) -> None:
    """Where rotary embedding and cache write run inside the attention of a decode step, prompts still have them."""
    sets = ["workload.batch=8", "workload.prompt=1023", "workload.generate=1", f"workload.engine={engine}"]
    machine = load_machine("gpu_h100")
    spec, folder = load_workload("llama3_8b_decode", sets)
    program = plan_on(machine, spec, folder)
    whole = analytic(program, machine.device).phases[-1].time_s
    found = cost("gpu_h100", "llama3_8b_decode", *sets)
    assert found.generate_s(8, 1024) == pytest.approx(whole, rel=1e-9)
    assert found.mixed_s(0, 0.0, [(1024, 0)], 1) > found.mixed_s(0, 0.0, [(512, 0)], 1) > 0.0


def test_a_chunk_beside_generation_costs_less_than_two_steps() -> None:
    found = cost("gpu_h100", "llama3_8b_generate")
    together = found.mixed_s(32, 1000.0, [(512, 0)], 1)
    apart = found.generate_s(32, 1000.0) + found.mixed_s(0, 0.0, [(512, 0)], 1)
    assert max(found.generate_s(32, 1000.0), found.mixed_s(0, 0.0, [(512, 0)], 1)) < together < apart


def test_an_idle_fleet_serves_at_the_speed_of_one_request() -> None:
    small = ["workload.serving.arrivals.rate=0.01", "workload.serving.arrivals.requests=5", "workload.prompt=512"]
    served = effsim.serve("gpu_h100", "llama3_8b_generate", set=[*small, "workload.generate=32"])
    alone = effsim.run(
        "gpu_h100",
        "llama3_8b_generate",
        engine="analytic",
        set=["workload.prompt=512", "workload.generate=32", "workload.batch=1"],
    )
    assert served.e2e_s is not None
    assert served.e2e_s["mean"] == pytest.approx(alone.time_s, rel=0.03)


def test_more_replicas_on_a_node_are_never_worse() -> None:
    def attained(replicas: int) -> float:
        load = "workload.serving={arrivals: {rate: 80, requests: 400}, slo: {ttft: 200 ms, tpot: 15 ms}}"
        sets = [load, f"workload.serving.replicas={replicas}", "workload.parallelism={tensor: 1}"]
        return effsim.serve("system_dgx_h100", "llama3_8b_generate", set=sets).slo_attainment

    found = [attained(n) for n in (1, 2, 4, 8)]
    assert found == sorted(found)
    assert found[-1] > 0.95 > found[0]


def test_what_cannot_be_served_says_why() -> None:
    with pytest.raises(DoesNotFitError, match="need 16"):
        effsim.serve("system_dgx_h100", "llama3_8b_generate", set=["workload.serving.replicas=16"])
    with pytest.raises(UnsupportedError, match="mixed devices"):
        effsim.serve("system_h100_attacc", "llama3_8b_generate")
    with pytest.raises(UnsupportedError, match="training step is not served"):
        effsim.serve("gpu_h100", "llama3_8b_training")
    with pytest.raises(DoesNotFitError, match="no room for a cache"):
        effsim.serve("gpu_h100", "llama3_8b_generate", set=["workload.serving.cache.memory_fraction=0.2"])


def test_the_command(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    rows = "".join(f"2024-01-01 00:00:{i:02d}.5,{100 + i},{5 + i}\n" for i in range(20))
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + rows)
    asked = ["serve", "gpu_h100", "llama3_8b_generate", "--replay", str(trace)]
    done = CliRunner().invoke(app, [*asked, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["schema"], found["completed"], found["refused"]) == ("effsim/serving@1", 20, 0)
    assert found["output_tokens"] == sum(5 + i for i in range(20))
    assert "time to first token" in CliRunner().invoke(app, asked).stdout

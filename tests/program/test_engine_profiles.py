"""Engine profiles: what they change in a graph, what the host costs, padding to captured batches."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effsim._api import plan_on
from effsim.devices.registry import Machine, load_machine
from effsim.graph.operators.attention import Attention, KVAppend
from effsim.graph.operators.communication import Collective
from effsim.graph.operators.linear import Linear
from effsim.program.engine import layers_of
from effsim.program.program import HostWork, Program
from effsim.program.source import load_model
from effsim.program.workload_file import load_engine
from effsim.readings.analytic import analytic, roofline
from effsim.readings.events import events
from effsim.spec.catalogue import names
from effsim.spec.workload import WorkloadSpec

MACHINES: dict[str, Machine] = {}


def machine(name: str) -> Machine:
    return MACHINES.setdefault(name, load_machine(name))


def placed(engine: str, hardware: str = "gpu_a100", **fields: object) -> Program:
    base = {"kind": "workload", "name": "w", "model": "llama3_8b", "task": "decode", "batch": 3, "prompt": 64}
    base |= {"generate": 4, "engine": engine, "layers": 3, "parallelism": {"tensor": 1}}
    return plan_on(machine(hardware), WorkloadSpec.model_validate(base | fields))


def times(program: Program, hardware: str = "gpu_a100") -> tuple[float, float, float]:
    device = machine(hardware).device
    return tuple(reading(program, device).time_s for reading in (roofline, analytic, events))  # type: ignore[return-value]


def ops(program: Program, kind: type, phase: int = 0) -> list[object]:
    return [node.op for _, _, node, _ in program.phases[phase].nodes() if isinstance(node.op, kind)]


@pytest.mark.parametrize("engine", names("engines"))
def test_readings_agree_and_keep_the_bound_under_every_engine(engine: str) -> None:
    for fields in ({}, {"task": "generate", "prompt": 300}):
        low, closed, simulated = times(placed(engine, **fields))
        assert low <= min(closed, simulated) * (1 + 1e-9)
        # Three layers are short: what the host is behind at their ends shows.
        assert simulated == pytest.approx(closed, rel=0.04)


@pytest.mark.parametrize("engine", names("engines"))
def test_every_number_of_a_profile_says_where_it_comes_from(engine: str) -> None:
    for path, leaf in load_engine(engine).leaves():
        if path.startswith("graph_batches") or path == "prompt_tokens":
            continue  # facts of the engine
        assert leaf.kind in ("fitted", "measured", "assumed"), path
        assert leaf.source, path


PARTS = ("collective_start_s", "per_layer_s", "per_step_s", "per_sequence_s", "per_request_s", "per_prompt_pass_s")


@settings(max_examples=25)
@given(
    st.sampled_from(PARTS),
    st.floats(0, 1e-2),
    st.floats(0, 1e-2),
    st.sampled_from(["stream", "eager", "graph"]),
    st.booleans(),
)
def test_more_host_time_is_never_faster(part: str, less: float, more: float, launch: str, hidden: bool) -> None:
    base = BASE.setdefault(launch, replace(placed("cuda-graph", task="generate", layers=1), launch=launch))
    device = machine("gpu_a100").device
    small, large = sorted((less, more))
    work = replace(base.host, asynchronous=hidden)
    found = [analytic(replace(base, host=replace(work, **{part: v})), device).time_s for v in (small, large)]
    assert found[0] <= found[1] * (1 + 1e-12)


BASE: dict[str, Program] = {}


def test_host_work_by_hand() -> None:
    work = HostWork(per_step_s=1.0, per_sequence_s=0.1, per_request_s=0.01, per_prompt_pass_s=5.0)
    assert work.between_steps_s(10.0, 4, prompts=False) == pytest.approx(14.0)
    assert work.between_steps_s(1.0, 4, prompts=True) == pytest.approx(1.4 + 5.04)


def test_an_asynchronous_engine_hides_its_host_behind_the_device() -> None:
    device = machine("gpu_a100").device
    bare = placed("cuda-graph")
    alone = analytic(bare, device).time_s
    steps = bare.phases[0].steps
    for reading in (analytic, events):
        short = replace(bare, host=HostWork(per_step_s=0.5 * alone / steps, asynchronous=True))
        assert reading(short, device).time_s == pytest.approx(alone, rel=1e-3)
        long = replace(bare, host=HostWork(per_step_s=3.0 * alone / steps, asynchronous=True))
        assert reading(long, device).time_s == pytest.approx(3.0 * alone, rel=1e-3)
        serial = replace(bare, host=HostWork(per_step_s=0.5 * alone / steps))
        assert reading(serial, device).time_s == pytest.approx(1.5 * alone, rel=1e-3)


def test_host_time_is_that_of_the_host_not_of_the_gpu() -> None:
    # The layers' host work alone bounds this step: two GPUs differ by the speeds of their hosts.
    work = HostWork(per_layer_s=0.1, layers=3)
    found = {}
    for gpu in ("gpu_a100", "gpu_h100"):
        eager = replace(placed("cuda-graph", gpu, generate=1), launch="eager", host=work)
        found[gpu] = analytic(eager, machine(gpu).device).time_s
    speeds = [machine(gpu).device.launch.host_speed for gpu in found]
    assert found["gpu_a100"] * speeds[0] == pytest.approx(0.3, rel=0.01)
    assert found["gpu_h100"] * speeds[1] == pytest.approx(0.3, rel=0.01)


@pytest.mark.parametrize("engine", ["vllm-2023", "eager-pytorch", "trtllm-0.5"])
def test_folded_and_unfolded_graphs_cost_the_same(engine: str) -> None:
    program = placed(engine)
    unfolded = tuple(
        replace(phase, executions=tuple(replace(run, graph=run.graph.unfold()) for run in phase.executions))
        for phase in program.phases
    )
    device = machine("gpu_a100").device
    folded_s, unfolded_s = (analytic(p, device).time_s for p in (program, replace(program, phases=unfolded)))
    assert folded_s == pytest.approx(unfolded_s)


def test_layers_count_runs_inside_runs() -> None:
    assert layers_of(load_model("llama3_8b").layers) == 32
    assert layers_of(load_model("jamba_v0_1").layers) == 32  # 4 blocks of 8


def test_a_decode_step_is_padded_to_the_captured_batch() -> None:
    device = machine("gpu_a100").device
    padded, exact, full = placed("vllm-like", batch=9), placed("cuda-graph", batch=9), placed("cuda-graph", batch=16)
    assert {op.m for op in ops(padded, Linear)} == {16}  # type: ignore[attr-defined]
    assert {op.batch for op in ops(padded, Attention)} == {9}  # type: ignore[attr-defined]
    assert {op.tokens for op in ops(padded, KVAppend)} == {9}  # type: ignore[attr-defined]
    bare = [analytic(replace(p, host=HostWork()), device).time_s for p in (exact, padded, full)]
    assert bare == sorted(bare)
    assert padded.memory == exact.memory  # padding keeps no cache


def test_batches_beyond_the_captured_ones_run_without_a_graph() -> None:
    engine = load_engine("vllm-like")
    assert engine.captured_batch(3) == 4
    assert engine.captured_batch(512) == 512
    assert engine.captured_batch(513) is None
    big = placed("vllm-like", batch=600)
    assert big.launch_of(big.phases[0]) == "eager"
    assert {op.m for op in ops(big, Linear)} == {600}  # type: ignore[attr-defined]
    both = placed("vllm-like", task="generate")
    assert [both.launch_of(phase) for phase in both.phases] == ["eager", "graph"]


def test_prompts_are_taken_in_by_passes_of_bounded_size() -> None:
    # 2560 tokens a pass: five prompts of 512, then the other two.
    program = placed("vllm-2023", task="prefill", batch=7, prompt=512, generate=1)
    (phase,) = program.phases
    assert phase.steps == 2
    rows = [
        {op.m for _, n, _ in run.graph.walk() if isinstance(op := n.op, Linear) and op.m > 7}
        for run in phase.executions
    ]
    assert rows == [{5 * 512}, {2 * 512}]
    long = placed("vllm-2023", task="prefill", batch=2, prompt=4096, generate=1).phases[0]
    assert [run.times for run in long.executions] == [2.0]  # a longer prompt is not cut
    work = program.host
    pause = 2 * work.per_prompt_pass_s + 7 * work.per_sequence_s
    assert work.between_steps_s(phase.steps, 7, prompts=True) == pytest.approx(pause)


def test_kernels_of_the_first_engines() -> None:
    old = placed("fastertransformer", task="generate", prompt=64)
    assert all(not op.fused for op in ops(old, Attention, 0))  # type: ignore[attr-defined]
    assert all(op.per_head for op in ops(old, Attention, 1))  # type: ignore[attr-defined]
    assert not ops(old, KVAppend, 1)  # written by the attention kernel
    assert ops(old, KVAppend, 0)
    assert old.memory.kv_cache_bytes == placed("cuda-graph", task="generate", prompt=64).memory.kv_cache_bytes


def test_heads_of_a_group_share_nothing_in_the_first_kernels() -> None:
    device = machine("gpu_a100").device
    grouped = Attention("generation", 64, 1, 2048, 32, 4, 128, per_head=6)
    whole = replace(grouped, kv_heads=32)
    kernels = [device.lower(op).kernels[0] for op in (grouped, whole)]
    assert kernels[0].l2_bytes == kernels[1].l2_bytes
    assert kernels[0].tiles == kernels[1].tiles == 64 * 32
    split = device.lower(replace(grouped, per_head=0))
    assert device.lower(grouped).analytic_s > split.analytic_s
    times_by_work = [device.lower(replace(grouped, per_head=n)).analytic_s for n in (2, 6, 20)]
    assert times_by_work == sorted(times_by_work)


def test_narrow_products_keep_everything_else_wide() -> None:
    precision = {"activations": "fp16", "weights": "fp8", "kv_cache": "fp8"}
    old = placed("trtllm-0.5", "system_dgx_h100", precision=precision, parallelism={"tensor": 2})
    inner = [op for op in ops(old, Linear) if op.n < 100000]  # type: ignore[attr-defined]
    narrow = [op for op in inner if op.dtype == "fp8"]  # type: ignore[attr-defined]
    assert narrow
    assert {op.output_dtype for op in narrow} == {"fp16"}  # type: ignore[attr-defined]
    head = max(ops(old, Linear), key=lambda op: op.n)  # type: ignore[attr-defined]
    assert head.dtype == "fp16"  # type: ignore[attr-defined]
    wide = placed("cuda-graph", "system_dgx_h100", precision=precision, parallelism={"tensor": 2})
    sent = [{op.payload_bytes for op in ops(p, Collective)} for p in (old, wide)]
    assert sent[0] == sent[1]
    assert old.memory.weights_bytes == pytest.approx(wide.memory.weights_bytes, rel=1e-3)


def test_collectives_start_late_only_outside_a_graph() -> None:
    device = machine("system_dgx_a100").device
    base = placed("cuda-graph", "system_dgx_a100", parallelism={"tensor": 2}, generate=1)
    late = replace(base, host=HostWork(collective_start_s=1e-3))
    assert analytic(late, device).time_s == analytic(base, device).time_s
    count = sum(n for _, _, node, n in base.phases[0].nodes() if isinstance(node.op, Collective))
    for reading in (analytic, events):
        stream, waiting = (reading(replace(p, launch="stream"), device).time_s for p in (base, late))
        assert waiting - stream == pytest.approx(count * 1e-3)


def test_the_cache_write_of_a_step_is_the_measured_kernel() -> None:
    # As in an attention row of a kernel table, without the start of the graph that holds the row alone.
    device = machine("gpu_a100").device
    alone = device.lower(KVAppend(4096, 2 * 8 * 128, "bf16"))
    row = device.lower(Attention("context", 1, 4096, 4096, 32, 8, 128, "bf16", call=True))
    written = next(k for k in row.kernels if k.name == "cache write")
    assert alone.kernels[0].name == "cache write"
    assert alone.kernels[0].classes[0].busy_s == written.classes[0].busy_s
    step = device.lower(Attention("context", 1, 4096, 4096, 32, 8, 128, "bf16"))
    assert all(k.name != "cache write" for k in step.kernels)  # not counted twice

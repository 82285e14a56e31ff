"""Workloads on devices: memory by closed form, degrees of parallelism, refusals with remedies that work."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effsim.architectures.build import Step, build_graph, parameter_count
from effsim.errors import DataError, DoesNotFitError, EffsimError, UnsupportedError
from effsim.graph.graph import Graph, Repeat
from effsim.graph.operators.attention import Attention
from effsim.graph.operators.linear import Linear
from effsim.graph.operators.moe import Experts
from effsim.program.memory import Capacity, inference_memory, stage, stages_of, working_set
from effsim.program.place import place
from effsim.program.program import Program
from effsim.program.source import load_model
from effsim.program.training_memory import saved_activations, training_memory
from effsim.program.workload_file import load_engine
from effsim.spec.workload import WorkloadSpec
from effsim.transforms.shard import shard
from effsim.transforms.training import TrainingPlan

GIB = 2.0**30
ENGINE = load_engine("cuda-graph")
LLAMA_PARAMETERS = 68_976_648_192
LLAMA_KV_BYTES_A_TOKEN = 2 * 80 * 8 * 128 * 2


def capacity(gib: float = 80.0, devices: int = 8, reserved: float = 0.0) -> Capacity:
    return Capacity("test device", gib * GIB, reserved, devices, min(devices, 8))


def workload(**fields: Any) -> WorkloadSpec:
    plain = {"kind": "workload", "name": "w", "model": "llama2_70b", "task": "decode", "batch": 1, "prompt": 1000}
    return WorkloadSpec.model_validate(plain | {"generate": 24, "precision": {"activations": "fp16"}} | fields)


def placed(gib: float = 1e4, devices: int = 1024, **fields: Any) -> Program:
    room = Capacity("test device", gib * GIB, 0.0, devices, min(devices, 8))
    return place(workload(**fields), ENGINE, room)


# --- memory by hand ---------------------------------------------------------------------------------------------------


@settings(max_examples=8)
@given(st.integers(1, 64), st.integers(1, 4000), st.integers(1, 200))
def test_llama_70b_by_closed_form(batch: int, prompt: int, generate: int) -> None:
    memory = placed(parallelism={"tensor": 1}, batch=batch, prompt=prompt, generate=generate).memory
    assert memory.weights_bytes == 2 * LLAMA_PARAMETERS == pytest.approx(137.95e9, rel=1e-4)
    assert memory.kv_cache_bytes == batch * (prompt + generate) * LLAMA_KV_BYTES_A_TOKEN


@pytest.mark.parametrize("degree", [1, 2, 4, 8])
def test_tensor_parallelism_divides_all_but_the_norms(degree: int) -> None:
    memory = placed(parallelism={"tensor": degree}).memory
    norms = (2 * 80 + 1) * 8192 * 2
    assert memory.weights_bytes == pytest.approx((2 * LLAMA_PARAMETERS - norms) / degree + norms)
    assert memory.kv_cache_bytes == 1024 * LLAMA_KV_BYTES_A_TOKEN / degree


def test_more_devices_than_kv_heads_copy_the_cache() -> None:
    assert placed(parallelism={"tensor": 16}).memory.kv_cache_bytes == 1024 * LLAMA_KV_BYTES_A_TOKEN / 8


def test_narrower_weights_and_caches() -> None:
    full = placed(parallelism={"tensor": 1}).memory
    narrow = placed(
        parallelism={"tensor": 1},
        precision={"activations": "fp16", "weights": "int4", "kv_cache": "fp8", "group_size": 128},
    ).memory
    assert narrow.kv_cache_bytes == full.kv_cache_bytes / 2
    ends = (2 * 32000 * 8192 + 161 * 8192) * 2  # embedding, head and norms keep fp16
    layers = LLAMA_PARAMETERS * 2 - ends
    assert narrow.weights_bytes == pytest.approx(layers / 4 + layers / 2 / 128 * 2 + ends)


def test_pipeline_holds_its_share_of_the_layers() -> None:
    whole, half = (placed(parallelism={"pipeline": p}).memory for p in (1, 2))
    assert half.kv_cache_bytes == whole.kv_cache_bytes / 2
    # The embedding stands on the first stage, the head of the same size on the last.
    assert half.weights_bytes == pytest.approx(whole.weights_bytes / 2, rel=1e-6)


def test_data_parallel_ranks_hold_their_sequences() -> None:
    one, four = (placed(parallelism={"data": d}, batch=8).memory for d in (1, 4))
    assert four.weights_bytes == one.weights_bytes
    assert four.kv_cache_bytes == one.kv_cache_bytes / 4


def test_caches_of_all_microbatches_are_resident() -> None:
    whole, pieces = (placed(parallelism={"pipeline": 2, "microbatches": m}, batch=8).memory for m in (1, 4))
    assert pieces.kv_cache_bytes == whole.kv_cache_bytes
    assert pieces.activation_bytes < whole.activation_bytes


def test_experts_count_all_for_capacity() -> None:
    spec = load_model("mixtral_8x7b")
    memory = placed(model="mixtral_8x7b", parallelism={"tensor": 1}).memory
    assert memory.weights_bytes == 2 * parameter_count(spec) == pytest.approx(2 * 46.7e9, rel=0.01)
    divided = placed(model="mixtral_8x7b", parallelism={"tensor": 8, "expert": 8}).memory
    sliced = placed(model="mixtral_8x7b", parallelism={"tensor": 8}).memory
    assert divided.weights_bytes == sliced.weights_bytes


def test_states_do_not_grow_with_the_context() -> None:
    short, long = (placed(model="mamba2_2_7b", prompt=n).memory for n in (10, 100_000))
    assert short.state_bytes == long.state_bytes > 0
    assert short.kv_cache_bytes == long.kv_cache_bytes == 0


def test_prefill_activations_are_the_widest_moment() -> None:
    # Llama's gated activation: gate and up (2·28672) in, 28672 out, beside the residual; 1000 tokens in fp16.
    graph = build_graph(load_model("llama2_70b"), Step("context", 1, 1000, 1000, "fp16"))
    assert working_set(graph) == 1000 * 2 * (3 * 28672 + 8192)


# --- degrees ----------------------------------------------------------------------------------------------------------


def test_smallest_fit_is_taken_and_said() -> None:
    program = place(workload(parallelism="auto"), ENGINE, capacity(80, 8, 1.3 * GIB))
    assert program.degrees.shown() == {"tensor": 2}
    assert program.memory.fits
    assert "sharded over 2 devices (tensor 2), the smallest that fits" in program.notes[0]
    with pytest.raises(DoesNotFitError):
        place(workload(parallelism={"tensor": 1}), ENGINE, capacity(80, 8, 1.3 * GIB))
    assert placed(parallelism="auto").devices == 1
    assert not placed(parallelism="auto").notes


def test_pipelines_join_groups_that_are_too_small() -> None:
    program = place(workload(parallelism="auto"), ENGINE, capacity(10, 64))
    assert program.degrees.shown() == {"tensor": 8, "pipeline": 2}


@pytest.mark.parametrize(
    ("parallelism", "message"),
    [
        ({"tensor": 3}, "64 heads cannot be divided over 3"),
        ({"tensor": 16}, r"asks for 16 devices; test device joins at most 8"),
    ],
)
def test_impossible_degrees(parallelism: dict[str, int], message: str) -> None:
    with pytest.raises(EffsimError, match=message):
        place(workload(parallelism=parallelism), ENGINE, capacity())


def test_expert_degree_must_match() -> None:
    with pytest.raises(ValueError, match="expected 1, tensor"):
        workload(parallelism={"tensor": 4, "expert": 3})


@pytest.mark.parametrize("case", [{}, {"task": "prefill"}, {"task": "generate"}, {"task": "training_step"}])
@pytest.mark.parametrize("degree", [2, 8])
def test_devices_share_the_work(case: dict[str, Any], degree: int) -> None:
    # Work of all tensor ranks: that of one device, and what every rank repeats (norms, residuals: element-wise).
    def matrix(program: Program) -> float:
        return sum(
            node.op.arithmetic().matrix * count * run.times * run.copies
            for phase in program.phases
            for run, _, node, count in phase.nodes()
        )

    fields = case | {"layers": 4, "batch": 8}
    alone = matrix(placed(parallelism={"tensor": 1}, **fields))
    assert matrix(placed(parallelism={"tensor": degree}, **fields)) == pytest.approx(alone)
    assert matrix(placed(parallelism={"data": degree}, **fields)) == pytest.approx(alone)


def test_decode_samples_stand_for_all_steps() -> None:
    # FLOPs are linear in the cache length: three samples must give the exact sum over 100 steps, up to half a key.
    program = placed(prompt=1000, generate=100, layers=2, parallelism={"tensor": 1})
    sampled = sum(run.graph.flops * run.times for run in program.phases[0].executions)
    spec = load_model("llama2_70b")
    spec = spec.model_copy(update={"layers": [spec.layers[0].model_copy(update={"repeat": 2})]})
    graphs = (build_graph(spec, Step("generation", 1, 1, 1000 + i, "fp16")) for i in range(1, 101))
    exact = sum(graph.map(lambda n: (n,)).flops for graph in graphs)
    assert sampled == pytest.approx(exact, rel=1e-4)
    assert sum(run.times for run in program.phases[0].executions) == pytest.approx(100)


def test_generate_counts_its_first_token_in_prefill() -> None:
    program = placed(task="generate", generate=24)
    assert [(p.name, p.tokens, p.steps) for p in program.phases] == [("prefill", 1000, 1), ("decode", 23, 23)]
    assert [p.name for p in placed(task="generate", generate=1).phases] == ["prefill"]


# --- does not fit -----------------------------------------------------------------------------------------------------

TOO_LARGE: list[tuple[dict[str, Any], float, int]] = [
    ({"parallelism": {"tensor": 1}}, 80, 8),
    ({"parallelism": "auto", "batch": 64, "prompt": 3968}, 15, 8),
    ({"parallelism": "auto", "batch": 1024, "prompt": 3968}, 80, 8),
    ({"parallelism": {"tensor": 2}, "batch": 32, "prompt": 8000, "task": "generate"}, 80, 8),
    ({"model": "mixtral_8x7b", "parallelism": {"tensor": 1}}, 60, 8),
]


@pytest.mark.parametrize(("fields", "gib", "devices"), TOO_LARGE)
def test_every_remedy_works(fields: dict[str, Any], gib: float, devices: int) -> None:
    with pytest.raises(DoesNotFitError) as caught:
        place(workload(**fields), ENGINE, capacity(gib, devices))
    message = str(caught.value)
    assert caught.value.exit_code == 1
    over = re.search(r"([\d.]+) GiB a device of ([\d.]+) GiB, ([\d.]+) GiB too much", message)
    assert over
    used, have, too_much = map(float, over.groups())
    assert used - have == pytest.approx(too_much, abs=0.02 * used)
    remedies = _applied(message, fields)
    assert remedies
    for changed, joined in remedies:
        assert place(workload(**changed), ENGINE, capacity(gib, max(devices, joined))).memory.fits


def test_one_more_than_the_remedy_does_not_fit() -> None:
    with pytest.raises(DoesNotFitError) as caught:
        place(workload(parallelism={"tensor": 4}, batch=400, prompt=4000), ENGINE, capacity(80))
    found = re.search(r"batch of at most (\d+)", str(caught.value))
    assert found
    most = int(found[1])
    place(workload(parallelism={"tensor": 4}, batch=most, prompt=4000), ENGINE, capacity(80))
    with pytest.raises(DoesNotFitError):
        place(workload(parallelism={"tensor": 4}, batch=most + 1, prompt=4000), ENGINE, capacity(80))


def _applied(message: str, fields: dict[str, Any]) -> list[tuple[dict[str, Any], int]]:
    """Workloads with one remedy each, and the devices they need."""
    out: list[tuple[dict[str, Any], int]] = []
    tail = message.partition("would fit with ")[2]
    if found := re.search(r"precision\.weights: (\w+)", tail):
        out.append((fields | {"precision": {"activations": "fp16", "weights": found[1]}}, 1))
    if found := re.search(r"prompt of at most (\d+)", tail):
        out.append((fields | {"prompt": int(found[1])}, 1))
    if found := re.search(r"batch of at most (\d+)", tail):
        out.append((fields | {"batch": int(found[1])}, 1))
    if found := re.search(r"(\d+) devices", tail):
        out.append((fields | {"parallelism": "auto"}, int(found[1])))
    return out


# --- training ---------------------------------------------------------------------------------------------------------


def gpt_graph(batch: int, length: int, *, fused: bool, tensor: int = 1) -> Graph:
    spec = load_model("gpt3_175b")
    step = Step("training", batch, length, length, "fp16", fused_attention=fused)
    return shard(build_graph(spec, step), tensor)


def block_of(graph: Graph) -> Graph:
    block = next(item for item in graph.items if isinstance(item, Repeat))
    return Graph("block", block.body)


def test_activations_of_a_gpt_block_against_the_published_formula() -> None:
    """Korthikanti et al. 2022, table 2: s·b·h·(34 + 5·a·s/h) bytes a layer, without parallelism.

    Without dropout, two masks of 1 byte (2·sbh) of the 34 are not there, and of the 5·a·s²·b neither the mask (1) nor
    the dropped copy (2): 2·a·s²·b of probabilities remain. Fused attention keeps 4 bytes a row instead.
    """
    batch, length, hidden, heads = 2, 1024, 12288, 96
    rows = batch * length
    plan = TrainingPlan()
    masks, square = 2 * rows * hidden, heads * length * rows
    published = rows * hidden * (34 + 5 * heads * length / hidden)
    kept = saved_activations(block_of(gpt_graph(batch, length, fused=False)), plan)
    assert kept == pytest.approx(published - masks - 3 * square, rel=1e-12)
    lse = 4 * rows * heads
    fused = saved_activations(block_of(gpt_graph(batch, length, fused=True)), plan)
    assert fused == pytest.approx(rows * hidden * 34 - masks + lse, rel=1e-12)
    selective = saved_activations(block_of(gpt_graph(batch, length, fused=False)), replace(plan, recompute="selective"))
    assert selective == pytest.approx(fused - lse)


def test_full_recomputation_keeps_one_input_a_block() -> None:
    graph = gpt_graph(1, 2048, fused=True)
    layers = Graph("layers", tuple(i for i in graph.items if isinstance(i, Repeat)))
    kept = saved_activations(layers, TrainingPlan(recompute="full"))
    own = saved_activations(block_of(graph), TrainingPlan())
    assert kept == pytest.approx(96 * 2 * 2048 * 12288)  # 2·sbh a layer (the same paper)
    at_work = training_memory(layers, TrainingPlan(recompute="full"), capacity()).transient_bytes
    assert at_work >= own - 2 * 2048 * 12288  # and one block's own while its backward pass runs


def test_zero_stages_divide_what_they_should() -> None:
    graph = gpt_graph(1, 128, fused=True)
    n = graph.parameters
    memories = [training_memory(graph, TrainingPlan(zero=z, data=8, dtype="fp16"), capacity()) for z in range(4)]
    assert [m.optimizer_bytes for m in memories] == pytest.approx([12 * n, 12 * n / 8, 12 * n / 8, 12 * n / 8])
    assert [m.gradient_bytes for m in memories] == pytest.approx([4 * n, 4 * n, 4 * n / 8, 4 * n / 8])
    assert [m.weights_bytes for m in memories] == pytest.approx([2 * n, 2 * n, 2 * n, 2 * n / 8])
    assert len({m.activation_bytes for m in memories}) == 1
    # 2 + 4 + 12 bytes a parameter; without the fp32 master copy four less; SGD keeps nothing.
    lean = training_memory(graph, TrainingPlan(master_weights=False), capacity())
    assert lean.optimizer_bytes == 8 * n
    assert training_memory(graph, TrainingPlan(optimizer="sgd", master_weights=False), capacity()).optimizer_bytes == 0


def test_gpt3_training_step_takes_six_flops_a_parameter_and_token() -> None:
    batch, length = 2, 2048
    program = placed(model="gpt3_175b", task="training_step", batch=batch, prompt=length, parallelism={"tensor": 1})
    products = sum(node.op.arithmetic().matrix * count * run.times for run, _, node, count in program.phases[0].nodes())
    spec = load_model("gpt3_175b")
    tokens, forward = batch * length, gpt_graph(batch, length, fused=True)
    scores = sum(n.op.flops * c for _, n, c in forward.walk() if isinstance(n.op, Attention))
    linear = sum(n.op.flops * c for _, n, c in forward.walk() if isinstance(n.op, Linear))
    # Every weight of a product multiplies every token; embeddings, norms and biases (0.4 %) multiply none.
    assert linear == pytest.approx(2 * parameter_count(spec) * tokens, rel=0.005)
    # Products come back twice in the backward pass, attention 2.5 times (flash attention computes its scores again).
    assert products == pytest.approx(3 * linear + 3.5 * scores, rel=1e-9)
    # Attention: 4·s·h a token and layer, half of it under the causal mask.
    assert scores == pytest.approx(96 * tokens * 4 * length * 12288 / 2, rel=0.001)


def test_recomputation_adds_a_forward_pass() -> None:
    def products(recompute: str) -> float:
        program = placed(
            model="gpt2", task="training_step", prompt=256, training={"recompute": recompute}, parallelism={"tensor": 1}
        )
        return sum(n.op.arithmetic().matrix * c for _, _, n, c in program.phases[0].nodes())

    none, full = products("none"), products("full")
    spec = load_model("gpt2")
    blocks = block_of(build_graph(spec, Step("training", 1, 256, 256, "fp16")))
    once = 12 * sum(n.op.arithmetic().matrix for _, n, _ in blocks.walk())
    assert full - none == pytest.approx(once)


def test_tensor_ranks_reduce_twice_a_layer_and_pass() -> None:
    program = placed(model="gpt3_175b", task="training_step", layers=4, prompt=512, parallelism={"tensor": 8})
    reductions = [
        (node.op.payload_bytes, count)
        for _, _, node, count in program.phases[0].nodes()
        if node.op.kind == "collective" and "layers" in _
    ]
    assert sum(count for _, count in reductions) == 4 * 2 * 2
    assert {size for size, _ in reductions} == {512 * 12288 * 2.0}


def test_in_flight_microbatches_hold_their_activations() -> None:
    def memory(microbatches: int) -> float:
        program = placed(
            model="gpt2",
            task="training_step",
            batch=8,
            prompt=512,
            parallelism={"pipeline": 4, "microbatches": microbatches},
        )
        return program.memory.activation_bytes

    # 1F1B holds as many microbatches as stages, however many there are.
    assert memory(8) < memory(4) < memory(1)
    # The stage that has most to hold counts: the first keeps four microbatches, the last (with the logits) one.
    parts = stages_of(build_graph(load_model("gpt2"), Step("training", 1, 512, 512, "fp16")), 4)
    held = [(4 - i) * saved_activations(part, TrainingPlan()) for i, part in enumerate(parts)]
    assert memory(8) in [pytest.approx(size) for size in held]


# --- explicit lists ---------------------------------------------------------------------------------------------------


def listed(operators: list[dict[str, Any]]) -> Program:
    spec = WorkloadSpec.model_validate(
        {"kind": "workload", "name": "w", "task": "operators", "operators": operators, "parallelism": {"tensor": 1}}
    )
    return place(spec, ENGINE, capacity())


LINEAR = {"name": "a", "kind": "linear", "dimensions": {"m": 1, "n": 2, "k": 3, "dtype": "fp16"}}


def test_explicit_operators_and_groups() -> None:
    program = listed([LINEAR, {"name": "block", "repeat": 5, "operators": [LINEAR, LINEAR | {"name": "b"}]}])
    found = [(name, count) for _, name, _, count in program.phases[0].nodes()]
    assert found == [("a", 1), ("block.a", 5), ("block.b", 5)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "linaer"}, r"a: .*did you mean 'linear'"),
        ({"dimensions": {"m": 1, "n": 2, "dtype": "fp16"}}, "column 'k' is missing"),
        ({"dimensions": {"m": 1, "n": 2, "k": 3, "dtype": "fp16", "q": 1}}, "unknown dimension 'q'"),
        ({"dimensions": {"m": 1.5, "n": 2, "k": 3, "dtype": "fp16"}}, "m is 1.5; expected a whole number"),
        ({"dimensions": {"m": 1, "n": 2, "k": 3, "dtype": "fp15"}}, "unknown dtype 'fp15'"),
    ],
)
def test_wrong_entries_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises((DataError, UnsupportedError, EffsimError), match=message):
        listed([LINEAR | change])


def test_names_are_distinct_among_neighbours() -> None:
    # Results are kept by operator name: a second "a" of another size would be read as the first.
    with pytest.raises(DataError, match="a: two operators of one list have this name"):
        listed([LINEAR, LINEAR | {"dimensions": {"m": 4096, "n": 2, "k": 3, "dtype": "fp16"}}])
    with pytest.raises(DataError, match="two operators"):
        listed([{"name": "block", "operators": [LINEAR, LINEAR]}])


def test_stage_and_memory_of_plain_graphs() -> None:
    op = Experts(4, 8, 16, 4, 2)
    graph = Graph("g", (Repeat("layers", block_of(gpt_graph(1, 8, fused=True)).items, 7),))
    assert [item.count for item in stage(graph, 2).items if isinstance(item, Repeat)] == [4]
    assert inference_memory(Graph("g", ()), capacity()).used_bytes == 0
    assert op.weight_bytes == 4 * 3 * 8 * 16 * 2

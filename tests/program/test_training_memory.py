"""Memory of training steps: the published activation formulas fall out of what operators keep; moments of a step."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effsim.architectures.build import Step, build_graph
from effsim.graph.graph import Graph, Repeat
from effsim.program.memory import Capacity
from effsim.program.program import Degrees
from effsim.program.source import load_model
from effsim.program.training_memory import TrainingLayout, saved_activations, training_memory
from effsim.transforms.forward import ForwardForm, sequence_parallel, training_forward
from effsim.transforms.shard import shard
from effsim.transforms.training import TrainingPlan

ROOM = Capacity("device", 1e12, 0.0, 8, 8)
S, B = 2048, 4


def block(model: str, tensor: int, *, sequence: bool, dropout: bool = True) -> Graph:
    """One layer of a model on one of *tensor* ranks, with dropout and unfused attention."""
    graph = build_graph(load_model(model), Step("training", B, S, S, "fp16", fused_attention=False))
    graph = training_forward(graph, ForwardForm(dropout=dropout, dtype="fp16"))
    graph = shard(sequence_parallel(graph, tensor) if sequence else graph, tensor)
    layers = next(item for item in graph.items if isinstance(item, Repeat))
    return Graph("block", (Repeat("layers", layers.body, 1),))


@pytest.mark.parametrize("tensor", [1, 2, 8])
def test_table_2_of_the_paper_without_recomputation(tensor: int) -> None:
    """arXiv:2205.05198, table 2: s·b·h·(10 + 24/t + 5·a·s/(h·t)), and all of it divided by t with sequence parallelism."""
    h, a = 6144, 64
    unit = S * B * h
    kept = saved_activations(block("megatron_22b", tensor, sequence=False), TrainingPlan(dtype="fp16"))
    assert kept == pytest.approx(unit * (10 + 24 / tensor + 5 * a * S / (h * tensor)), rel=1e-12)
    kept = saved_activations(block("megatron_22b", tensor, sequence=True), TrainingPlan(dtype="fp16"))
    assert kept == pytest.approx(unit * (34 + 5 * a * S / h) / tensor, rel=1e-12)


@pytest.mark.parametrize("tensor", [1, 8])
def test_table_2_of_the_paper_with_recomputation(tensor: int) -> None:
    """The same table: selective 34·sbh/t with sequence parallelism; full 2·sbh, divided by t where tokens are."""
    unit = S * B * 6144
    layer = block("megatron_22b", tensor, sequence=True)
    selective = saved_activations(layer, TrainingPlan(recompute="selective", dtype="fp16"))
    assert selective == pytest.approx(unit * 34 / tensor, rel=1e-12)
    assert saved_activations(layer, TrainingPlan(recompute="full", dtype="fp16")) == pytest.approx(2 * unit / tensor)


def test_alternate_keeps_between_full_and_none() -> None:
    graph = build_graph(load_model("llama3_8b"), Step("training", 1, 8192, 8192, "bf16"))
    apart = training_forward(graph, ForwardForm(fused_projections=False))
    kept = {r: saved_activations(apart, TrainingPlan(recompute=r)) for r in ("none", "alternate", "full")}
    assert kept["full"] < kept["alternate"] < kept["none"]
    # q, v, gate and down of q, k, v, out, gate, up, down; the attention's result with its row sums; the block's input.
    tokens, words = 8192, 4096 + 4096 + 1024 + 14336 + 4096 + 4096
    layers = 32 * (tokens * words * 2 + tokens * 32 * 4)
    ends = kept["full"] - 32 * tokens * 4096 * 2
    assert kept["alternate"] == pytest.approx(layers + ends, rel=1e-9)


def test_products_apart_keep_their_input_once() -> None:
    graph = build_graph(load_model("llama3_8b"), Step("training", 1, 512, 512, "bf16"))
    apart = training_forward(graph, ForwardForm(fused_projections=False))
    assert saved_activations(apart, TrainingPlan()) == saved_activations(graph, TrainingPlan())
    assert apart.parameters == graph.parameters
    assert apart.flops == graph.flops


@settings(max_examples=50)
@given(st.integers(1, 64), st.integers(1, 256), st.integers(1, 8))
def test_pipelines_hold_no_more_than_there_is(stages: int, microbatches: int, pieces: int) -> None:
    layout = TrainingLayout(Degrees(pipeline=stages, microbatches=microbatches), pieces)
    held = [layout.held(i) for i in range(stages)]
    assert held == sorted(held, reverse=True)
    assert 0 < min(held) <= max(held) <= microbatches
    if microbatches >= 2 * stages:
        assert max(held) == pytest.approx(stages if pieces == 1 else stages + (stages - 1) / pieces)


def test_divided_weights_and_their_gathered_copies() -> None:
    graph = build_graph(load_model("gpt2"), Step("training", 1, 256, 256, "bf16"))
    n, data = graph.parameters, 8
    plan = TrainingPlan(zero=3, data=data, working_copy=False, recompute="full")
    memory = training_memory(graph, plan, ROOM)
    assert memory.weights_bytes == 0.0
    assert memory.optimizer_bytes == pytest.approx(12 * n / data)
    copy = training_memory(graph, TrainingPlan(zero=3, data=data, recompute="full"), ROOM)
    assert copy.used_bytes - memory.used_bytes == pytest.approx(2 * n / data)
    whole = training_memory(graph, TrainingPlan(zero=3, data=data, reshard=False, recompute="full"), ROOM)
    layer = next(Graph("l", item.body).parameters for item in graph.items if isinstance(item, Repeat))
    assert whole.transient_bytes - copy.transient_bytes == pytest.approx(2 * (12 - 2) * layer)


def test_the_loss_counts_its_gradients_unless_in_place() -> None:
    graph = build_graph(load_model("llama3_8b"), Step("training", 1, 2048, 2048, "bf16"))
    apart = training_memory(training_forward(graph, ForwardForm()), TrainingPlan(recompute="full"), ROOM)
    in_place = training_memory(
        training_forward(graph, ForwardForm(fused_loss=True)), TrainingPlan(recompute="full"), ROOM
    )
    logits = 2048 * 128256
    assert apart.activation_bytes - in_place.activation_bytes == pytest.approx(logits * (4 - 2))
    assert apart.transient_bytes == pytest.approx(
        logits * 8
    )  # beside the kept logarithms: their gradient and the logits'

"""Models of transformers, imported, have the FLOPs of our own architectures; torch counts the same products."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import imported_models as models  # noqa: E402

import effsim  # noqa: E402

BATCH, LENGTH = 2, 20
"""Mamba-2 scans chunks of 8: the last one is not full."""


@cache
def tiny(name: str) -> tuple[Any, Any]:
    """A tiny model and its workload, made once a process and only where a test asks for it."""
    model = models.build(name)
    return model, models.imported(model, models.inputs(name, model, BATCH, LENGTH))


@pytest.mark.parametrize("name", models.FAMILIES)
def test_flops_are_those_of_our_own_architecture(name: str) -> None:
    model, found = tiny(name)
    graph, own = models.graph_of(found), models.own_graph(model, BATCH, LENGTH)
    assert graph.flops == own.flops
    assert models.matrix_flops(graph) == models.matrix_flops(own)
    # A copied class token is the only weight that no operator owns.
    missing = 64 if name == "vit" else 0
    assert graph.parameters == sum(p.numel() for p in model.parameters()) - missing
    assert own.parameters == graph.parameters + missing


@pytest.mark.parametrize("name", models.FAMILIES)
def test_layers_are_folded_and_nothing_is_unknown(name: str) -> None:
    found = tiny(name)[1]
    assert not [text for text in found.warnings if "Unknown" in text]
    groups = [entry for entry in found.workload.operators if entry.operators]
    assert [entry.repeat for entry in groups] == [2]
    assert all(entry.after == "" for entry in groups[0].operators)


def test_a_mask_that_hides_nothing_is_assumed_and_told() -> None:
    assert tiny("bert")[1].warnings == (
        "The values of input attention_mask are not known: a mask takes it as showing everything.",
    )
    assert not tiny("llama")[1].warnings


@pytest.mark.parametrize("name", ["llama", "mixtral", "vit", "bert"])
def test_torch_counts_the_same_products(name: str) -> None:
    """torch's counter runs the model: it multiplies full score matrices where half is masked, and that is all."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    model = models.build(name, device="cpu")
    if name == "mixtral":
        model.set_experts_implementation("batched_mm")  # grouped products are one call that the counter does not know
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(**models.inputs(name, model, BATCH, LENGTH, "cpu"))
    graph = models.graph_of(tiny(name)[1])
    heads = [node.op for _, node, _ in graph.walk() if node.op.kind == "attention"]
    masked = 2 * BATCH * sum(op.q_len * op.kv_len - op.pairs for op in heads) * 4 * 4 * 16  # layers·…·2 products
    assert counter.get_total_flops() == models.matrix_flops(graph) + masked
    assert (masked > 0) == (name in ("llama", "mixtral"))


def test_torch_counts_more_in_mamba2_by_what_its_program_repeats() -> None:
    """Padding, C·Bᵀ for every head instead of every group, and a chunk-to-chunk product instead of a running sum."""
    from torch.utils.flop_counter import FlopCounterMode

    model = models.build("mamba2", device="cpu")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(**models.inputs("mamba2", model, BATCH, LENGTH, "cpu"))
    heads, width, state, chunk, chunks, layers = 8, 16, 16, 8, 3, 2
    padded, inner, channels = chunks * chunk, heads * width, 192
    projections = sum(
        node.op.flops * count
        for _, node, count in models.graph_of(tiny("mamba2")[1]).walk()
        if node.op.kind == "linear"
    )
    scan = 2 * BATCH * padded * (chunk * state * heads + chunk * inner + 2 * state * inner)
    carried = 2 * BATCH * (chunks + 1) ** 2 * inner * state
    convolution = 2 * BATCH * (LENGTH + 3) * channels * 4  # three outputs are cut off
    assert counter.get_total_flops() == projections + layers * (scan + carried + convolution)


def test_experts_that_loop_over_values_say_what_to_do() -> None:
    model = models.build("mixtral")
    model.set_experts_implementation("eager")
    with pytest.raises(effsim.UnsupportedError, match="set_experts_implementation"):
        models.imported(model, models.inputs("mixtral", model, 1, 4))


def test_half_precision_keeps_its_types() -> None:
    model = models.build("llama").to(torch.bfloat16)
    found = models.imported(model, models.inputs("llama", model, 1, 8))
    assert found.workload.precision.activations == "bf16"
    graph = models.graph_of(found)
    assert {node.op.dimensions()["dtype"] for _, node, _ in graph.walk()} == {"bf16"}
    assert graph.flops == models.own_graph(model, 1, 8, "bf16").flops
    assert graph.weight_bytes == 2 * sum(p.numel() for p in model.parameters())


def test_all_readings_and_what_if_on_the_object() -> None:
    workload, own = tiny("llama")[1].workload, models.own_graph(tiny("llama")[0], BATCH, LENGTH)
    times = {}
    for engine in ("roofline", "analytic", "events"):
        result = effsim.run("gpu_a100", workload, engine=engine, sensitivity=False)
        times[engine] = result.time_s
        assert result.flops == own.flops
        assert result.workload == "LlamaForCausalLM"
    assert times["roofline"] <= min(times["analytic"], times["events"])
    named = effsim.run("gpu_a100", workload, engine="roofline", set=["workload.name=other"], sensitivity=False)
    assert named.workload == "other"


@pytest.mark.slow
@pytest.mark.parametrize("name", models.FAMILIES)
def test_real_sizes_on_the_meta_device(name: str) -> None:
    model = models.build(name, real=True)
    found = models.imported(model, models.inputs(name, model, 1, 512))
    graph, own = models.graph_of(found), models.own_graph(model, 1, 512)
    assert graph.flops == own.flops
    assert models.matrix_flops(graph) == models.matrix_flops(own)
    missing = model.config.hidden_size if name == "vit" else 0
    assert graph.parameters == sum(p.numel() for p in model.parameters()) - missing


@pytest.mark.slow
def test_both_ways_to_run_experts_are_the_same_workload() -> None:
    model = models.build("mixtral")
    model.set_experts_implementation("batched_mm")
    graph = models.graph_of(models.imported(model, models.inputs("mixtral", model, BATCH, LENGTH)))
    assert graph.flops == models.own_graph(model, BATCH, LENGTH).flops

"""Every bundled architecture: the published parameter count, and a folded graph equal to the unfolded one."""

from __future__ import annotations

import pytest

from effsim.architectures.build import Step, build_graph, layer_parameters, one_step, parameter_count
from effsim.graph.graph import Graph
from effsim.graph.operators import Experts
from effsim.importers.huggingface import load_architecture
from effsim.spec.architecture import ArchitectureSpec
from effsim.spec.catalogue import names

BUNDLED = names("architectures")

EXACT = {
    # Sums of the tensor sizes in the released checkpoints.
    "llama2_7b": 6_738_415_616,
    "llama2_13b": 13_015_864_320,
    "llama2_70b": 68_976_648_192,
    "llama3_8b": 8_030_261_248,
    "llama3_70b": 70_553_706_496,
    "mistral_7b": 7_241_732_096,
    "mixtral_8x7b": 46_702_792_704,
    "qwen2_7b": 7_615_616_512,
    "qwen3_8b": 8_190_735_360,
    "qwen3_30b_a3b": 30_532_122_624,
    "gemma_7b": 8_537_680_896,
    "gemma2_9b": 9_241_705_984,
    "phi_2": 2_779_683_840,
    "gpt2": 124_439_808,
    "gpt2_xl": 1_557_611_200,
    "gpt_j_6b": 6_050_882_784,
    "opt_350m": 331_196_416,
    "opt_30b": 29_974_540_288,
    "bloom_176b": 176_247_271_424,
    "falcon_7b": 6_921_720_704,
    "falcon_40b": 41_303_293_952,
    "deepseek_v2_lite": 15_706_484_224,
    "deepseek_v3": 671_026_419_200,
    "mamba_2_8b": 2_768_345_600,
    "falcon_mamba_7b": 7_272_665_088,
    "jamba_v0_1": 51_570_323_328,
    "nemotron_h_8b": 8_100_852_736,
    "falcon_h1_0_5b": 521_411_104,
    "vit_b16": 86_567_656,
    "bert_base": 109_482_240,
}


@pytest.fixture(params=BUNDLED)
def spec(request: pytest.FixtureRequest) -> ArchitectureSpec:
    return load_architecture(request.param)


def test_the_catalogue_is_there() -> None:
    assert len(BUNDLED) >= 60
    assert set(EXACT) <= set(BUNDLED)


def test_parameter_count_is_the_published_one(spec: ArchitectureSpec) -> None:
    published = spec.published_parameters
    assert published is not None, "every bundled architecture states its parameter count"
    assert parameter_count(spec) == pytest.approx(published, rel=1e-3)


@pytest.mark.parametrize(("name", "count"), EXACT.items())
def test_parameter_count_is_exact(name: str, count: int) -> None:
    spec = load_architecture(name)
    assert parameter_count(spec) == count == spec.published_parameters


def totals(graph: Graph) -> tuple[float, ...]:
    return (graph.flops, graph.bytes_moved, graph.weight_bytes, graph.parameters, graph.cache_bytes, graph.state_bytes)


@pytest.mark.parametrize(
    "step", [Step("context", 2, 96, 128), Step("generation", 3, 1, 700), Step("training", 2, 64, 64)]
)
@pytest.mark.parametrize(
    "name", ["llama2_7b", "gemma3_27b", "deepseek_v2_lite", "jamba_v0_1", "zamba_7b", "nemotron_h_8b"]
)
def test_folded_graph_equals_the_unfolded_one(name: str, step: Step) -> None:
    graph = build_graph(load_architecture(name), step)
    assert totals(graph) == pytest.approx(totals(graph.unfold()), rel=1e-12)


def test_unfolding_gives_every_layer_a_distinct_name(spec: ArchitectureSpec) -> None:
    flat = build_graph(spec, one_step(spec)).unfold()
    names_seen = [name for name, _, _ in flat.walk()]
    assert len(names_seen) == len(set(names_seen))
    assert all(name.isascii() and " " not in name for name in names_seen)


def test_layers_run_as_often_as_the_model_is_deep(spec: ArchitectureSpec) -> None:
    graph = build_graph(spec, one_step(spec))
    residuals = ("attention_residual", "mixer_residual")
    mixers = sum(count for name, _, count in graph.walk() if name.endswith(residuals))
    with_mixer = sum(count for run, count in _leaves(spec) if run.mixer is not None)
    assert mixers == with_mixer


def _leaves(spec: ArchitectureSpec) -> list[tuple]:
    out, todo = [], [(run, 1) for run in spec.layers]
    while todo:
        run, times = todo.pop()
        times *= run.repeat
        if run.layers is None:
            out.append((run, times))
        else:
            todo += [(inner, times) for inner in run.layers]
    return out


# A shared block runs more often than its parameters count, so two FLOP a parameter does not hold for it.
# Encoders decode nothing.
@pytest.mark.parametrize("name", [name for name in BUNDLED if name not in ("zamba_7b", "vit_b16", "bert_base")])
def test_decoding_a_token_costs_two_flop_per_active_parameter(name: str) -> None:
    spec = load_architecture(name)
    graph = build_graph(spec, Step("generation", 1, 1, 1, sampling=False))
    idle = sum(
        count * op.matrices * op.hidden * op.intermediate * (op.experts - op.top_k)
        for op, count in ((node.op, count) for _, node, count in graph.walk())
        if isinstance(op, Experts)
    )
    active = layer_parameters(spec) - idle + spec.vocab * (spec.embedding_width or spec.hidden)
    products = sum(node.op.arithmetic().matrix * count for _, node, count in graph.walk())
    assert products == pytest.approx(2 * active, rel=0.02)

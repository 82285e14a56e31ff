"""The graph of one step: names, tensor-parallel annotations, traffic, caches, word sizes."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effsim.architectures.build import Step, build_graph, parameter_count
from effsim.errors import UnsupportedError
from effsim.graph.graph import Graph, Node, Repeat
from effsim.graph.operator import Role
from effsim.graph.operators import BatchedMatmul, CrossEntropy, Linear
from effsim.graph.operators.linear import WeightMatmul
from effsim.importers.huggingface import load_architecture
from effsim.spec.architecture import ArchitectureSpec

DECODE = Step("generation", 4, 1, 1000)
PREFILL = Step("context", 2, 512, 512)
TRAIN = Step("training", 2, 128, 128)


def nodes(graph: Graph) -> dict[str, Node]:
    return {name: node for name, node, _ in graph.walk()}


def model(**changes: object) -> ArchitectureSpec:
    fields: dict[str, object] = {
        "kind": "architecture",
        "name": "tiny",
        "vocab": 1000,
        "hidden": 64,
        "layers": [
            {
                "repeat": 3,
                "mixer": {"kind": "attention", "heads": 8, "kv_heads": 2},
                "ffn": {"kind": "mlp", "intermediate": 160},
            }
        ],
    }
    return ArchitectureSpec.model_validate(fields | changes)


def layer(mixer: dict[str, object] | None = None, ffn: dict[str, object] | None = None, **more: object) -> dict:
    return {"mixer": mixer, "ffn": ffn, **more}


def test_llama_has_the_promised_operators_in_order() -> None:
    graph = build_graph(load_architecture("llama2_70b"), DECODE)
    assert [(name, count) for name, _, count in graph.walk()] == [
        ("embedding", 1),
        *((f"layers.{name}", 80) for name in LLAMA_LAYER),
        ("final_norm", 1),
        ("lm_head", 1),
        ("sampling", 1),
    ]


LLAMA_LAYER = (
    "input_norm",
    "qkv_proj",
    "rope",
    "kv_append",
    "attention",
    "out_proj",
    "attention_residual",
    "post_norm",
    "gate_up_proj",
    "activation",
    "down_proj",
    "mlp_residual",
)


def test_llama_projections_have_the_dimensions_of_the_checkpoint() -> None:
    found = nodes(build_graph(load_architecture("llama2_70b"), DECODE))
    shapes = {name: (op.n, op.k) for name, op in ((n, node.op) for n, node in found.items()) if isinstance(op, Linear)}
    assert shapes == {
        "layers.qkv_proj": ((64 + 2 * 8) * 128, 8192),
        "layers.out_proj": (8192, 8192),
        "layers.gate_up_proj": (2 * 28672, 8192),
        "layers.down_proj": (8192, 28672),
        "lm_head": (32000, 8192),
    }


def test_tensor_parallel_annotations() -> None:
    marks = {name: (node.split, node.after) for name, node in nodes(build_graph(model(), DECODE)).items()}
    assert marks == {
        "embedding": ("vocab", "all_reduce"),
        "layers.input_norm": ("", ""),
        "layers.qkv_proj": ("column", ""),
        "layers.rope": ("heads", ""),
        "layers.kv_append": ("heads", ""),
        "layers.attention": ("heads", ""),
        "layers.out_proj": ("row", "all_reduce"),
        "layers.attention_residual": ("", ""),
        "layers.post_norm": ("", ""),
        "layers.gate_up_proj": ("column", ""),
        "layers.activation": ("column", ""),
        "layers.down_proj": ("row", "all_reduce"),
        "layers.mlp_residual": ("", ""),
        "final_norm": ("", ""),
        "lm_head": ("vocab", "all_gather"),
        "sampling": ("", ""),
    }


MOE_AXES = {"experts": "column"}
"""What the program makes of the annotation when experts are divided by width."""


@pytest.mark.parametrize(
    "name", ["llama2_70b", "gpt3_175b", "mixtral_8x7b", "deepseek_v3", "jamba_v0_1", "nemotron_h_8b", "falcon_h1_34b"]
)
@pytest.mark.parametrize("step", [DECODE, PREFILL, TRAIN])
def test_every_annotated_operator_divides_by_its_axis(name: str, step: Step) -> None:
    for node_name, node in nodes(build_graph(load_architecture(name), step)).items():
        if node.split:
            half = node.op.split(MOE_AXES.get(node.split, node.split), 2)
            assert half.flops <= node.op.flops, node_name
            assert half.weight_bytes <= node.op.weight_bytes, node_name


@pytest.mark.parametrize("name", ["falcon_40b", "phi_2", "gpt_j_6b", "falcon_h1_7b"])
def test_parallel_parts_share_one_all_reduce(name: str) -> None:
    graph = build_graph(load_architecture(name), DECODE)
    per_layer = [n for n, node in nodes(graph).items() if node.after == "all_reduce" and n.startswith("layers.")]
    assert len(per_layer) == (2 if name == "falcon_h1_7b" else 1)  # Falcon-H1's feed-forward part is sequential


def test_shared_experts_add_to_routed_ones_before_one_all_reduce() -> None:
    found = nodes(build_graph(load_architecture("deepseek_v3"), DECODE))
    reduced = [name for name, node in found.items() if node.after == "all_reduce" and name.startswith("layers_1.")]
    assert reduced == ["layers_1.out_proj", "layers_1.shared_down_proj"]
    plain = nodes(build_graph(load_architecture("mixtral_8x7b"), DECODE))
    assert (plain["layers.experts"].split, plain["layers.experts"].after) == ("experts", "all_reduce")


def test_logits_only_where_they_are_needed() -> None:
    spec = model()
    assert nodes(build_graph(spec, PREFILL))["lm_head"].op.m == 2
    assert nodes(build_graph(spec, DECODE))["lm_head"].op.m == 4
    assert nodes(build_graph(spec, Step("generation", 4, 5, 1000, logit_tokens=5)))["lm_head"].op.m == 20
    trained = nodes(build_graph(spec, TRAIN))
    assert trained["lm_head"].op.m == 256
    assert trained["cross_entropy"].op == CrossEntropy(256, 1000, "fp32")
    assert "sampling" not in trained
    assert "sampling" not in nodes(build_graph(spec, Step("generation", 1, 1, 1, sampling=False)))


def test_training_keeps_no_cache() -> None:
    for name in ("llama2_7b", "deepseek_v2_lite", "falcon_h1_0_5b"):
        graph = build_graph(load_architecture(name), TRAIN)
        assert graph.cache_bytes == 0
        assert not any(name.endswith("kv_append") for name in nodes(graph))
        assert graph.parameters == parameter_count(load_architecture(name))


@pytest.mark.parametrize("kv_heads", [1, 2, 4, 8])
def test_cache_grows_with_kv_heads_not_query_heads(kv_heads: int) -> None:
    mixer = {"kind": "attention", "heads": 8, "kv_heads": kv_heads, "head_dim": 16}
    graph = build_graph(model(layers=[layer(mixer, repeat=3)]), DECODE)
    # layers · sequences · keys · (key and value) · kv heads · width · bytes of bf16
    assert graph.cache_bytes == 3 * 4 * 1000 * 2 * kv_heads * 16 * 2
    read = nodes(graph)["layers.attention"].op.bytes_by_role()[Role.KV_CACHE]
    assert read * 3 == graph.cache_bytes


def test_cache_of_published_models() -> None:
    """Llama-2-70B: 2·80·8·128·2 B = 327,680 B a token. DeepSeek-V3: 61·(512 + 64)·2 B = 70,272 B a token."""
    one = Step("generation", 1, 1, 1)
    assert build_graph(load_architecture("llama2_70b"), one).cache_bytes == 327_680
    assert build_graph(load_architecture("deepseek_v3"), one).cache_bytes == 70_272
    assert build_graph(load_architecture("mamba_2_8b"), one).cache_bytes == 0
    # h: 64 layers · 5120 · 16 states · 4 B; convolution windows: 64 · 5120 · 3 · 2 B
    assert build_graph(load_architecture("mamba_2_8b"), one).state_bytes == 64 * 5120 * (16 * 4 + 3 * 2)


def test_window_bounds_cache_and_append() -> None:
    mixer = {"kind": "attention", "heads": 8, "kv_heads": 2, "window": 100}
    spec = model(layers=[layer(mixer)])
    assert build_graph(spec, Step("generation", 1, 1, 5000)).cache_bytes == 100 * 2 * 2 * 8 * 2
    assert nodes(build_graph(spec, Step("context", 3, 500, 500)))["layers.kv_append"].op.tokens == 300


def test_dense_forward_is_two_flop_per_parameter_and_token_plus_attention() -> None:
    spec = load_architecture("llama2_7b")
    graph = build_graph(spec, Step("training", 1, 2048, 2048))
    weights = parameter_count(spec) - spec.vocab * spec.hidden
    attention = 32 * 4 * (2048 * 2049 / 2) * 4096  # 2 products · 2 FLOP · causal pairs · width, a layer
    assert graph.flops == pytest.approx(2 * weights * 2048 + attention, rel=2e-3)


def test_latent_attention_counts_its_weights_once_in_every_phase() -> None:
    spec = load_architecture("deepseek_v2_lite")
    counts = {build_graph(spec, step).parameters for step in (DECODE, PREFILL, TRAIN)}
    assert counts == {15_706_484_224}
    generation, context = nodes(build_graph(spec, DECODE)), nodes(build_graph(spec, PREFILL))
    assert "layers_0.kv_b_proj" not in generation
    absorbed = [generation[f"layers_0.{name}"].op for name in ("q_absorb", "v_absorb")]
    assert sum(op.parameters for op in absorbed) == context["layers_0.kv_b_proj"].op.parameters
    assert sum(op.weight_bytes for op in absorbed) == context["layers_0.kv_b_proj"].op.weight_bytes


def test_latent_attention_expands_a_cached_prefix_again() -> None:
    spec = load_architecture("deepseek_v2_lite")
    assert nodes(build_graph(spec, Step("context", 2, 10, 500)))["layers_0.kv_b_proj"].op.m == 1000


@pytest.mark.parametrize("name", ["llama2_7b", "mixtral_8x7b", "deepseek_v2_lite", "gpt2"])
@pytest.mark.parametrize("step", [DECODE, PREFILL])
def test_fp8_moves_and_stores_half_the_bytes_of_fp16(name: str, step: Step) -> None:
    def wide(dtype: str) -> Graph:
        again = Step(step.phase, step.batch, step.q_len, step.kv_len, dtype=dtype, sampling=False)
        return build_graph(load_architecture(name), again)

    full, half = wide("fp16"), wide("fp8")
    assert half.weight_bytes == full.weight_bytes / 2
    assert half.cache_bytes == full.cache_bytes / 2
    assert half.flops == full.flops
    router = sum(n.op.bytes_moved * c for name, n, c in full.walk() if name.endswith("top_k"))  # always fp32
    assert half.bytes_moved - router == pytest.approx((full.bytes_moved - router) / 2, rel=1e-12)


def test_weight_only_quantisation_leaves_embeddings_head_and_router() -> None:
    step = Step("generation", 1, 1, 100, dtype="fp16", weight_dtype="int4", group_size=128, kv_dtype="fp8")
    spec = load_architecture("mixtral_8x7b")
    small, full = nodes(build_graph(spec, step)), nodes(build_graph(spec, Step("generation", 1, 1, 100, dtype="fp16")))
    for name in ("embedding", "lm_head", "layers.router"):
        assert small[name].op == full[name].op
    for name in ("layers.qkv_proj", "layers.out_proj", "layers.experts"):
        # half a byte a weight and 2 bytes a group of 128, against 2 bytes a weight
        assert small[name].op.weight_bytes / full[name].op.weight_bytes == pytest.approx((0.5 + 2 / 128) / 2)
    assert build_graph(spec, step).cache_bytes * 2 == build_graph(spec, Step("generation", 1, 1, 100)).cache_bytes


def test_absorbed_projection_is_a_batched_matmul_with_weights() -> None:
    op = WeightMatmul(16, 4, 512, 128, "bf16", "weight", "int4", 128)
    plain = BatchedMatmul(16, 4, 512, 128, "bf16", "weight")
    assert op.flops == plain.flops
    assert op.parameters == 16 * 512 * 128
    assert op.bytes_by_role()[Role.WEIGHT] == op.weight_bytes == 16 * 512 * 128 * (0.5 + 2 / 128)
    assert op.split("heads", 4).parameters == op.parameters / 4
    assert sum(part.flops for part in op.backward()) == 2 * op.flops


def test_tied_embeddings_count_once() -> None:
    tied, loose = model(tied_embeddings=True), model()
    assert parameter_count(loose) - parameter_count(tied) == 1000 * 64
    shares = {node.share for node in nodes(build_graph(tied, DECODE)).values()}
    assert shares == {"", "embedding"}


def test_shared_block_counts_once_but_caches_at_every_depth() -> None:
    mixer = {"kind": "attention", "heads": 4}
    shared = {"name": "block", "concatenate_embedding": True, "projection": True}
    alone = layer({"kind": "mamba", "inner": 128, "dt_rank": 4})
    once = model(layers=[layer(mixer, shared=shared), alone])
    twice = model(layers=[layer(mixer, shared=shared), alone, layer(mixer, shared=shared)])
    projection = 64 * 64
    assert parameter_count(twice) - parameter_count(once) == projection
    assert build_graph(twice, DECODE).cache_bytes == 2 * build_graph(once, DECODE).cache_bytes
    assert nodes(build_graph(once, DECODE))["layers_0.qkv_proj"].op.k == 128


def test_names_of_several_runs() -> None:
    attend, rest = {"kind": "attention", "heads": 4}, {"kind": "mlp", "intermediate": 10}
    inner = [layer(attend, repeat=2), {"name": "feed", "ffn": rest}]
    graph = build_graph(model(layers=[layer(attend), {"repeat": 4, "layers": inner}]), DECODE)
    outer = [item for item in graph.items if isinstance(item, Repeat)]
    assert [(item.name, item.count) for item in outer] == [("layers_0", 1), ("layers_1", 4)]
    assert [(item.name, item.count) for item in outer[1].body] == [("part_0", 2), ("feed", 1)]
    counts = {name: count for name, _, count in graph.walk()}
    assert counts["layers_1.part_0.attention"] == 8
    assert counts["layers_1.feed.gate_up_proj"] == 4


def test_equal_layers_at_several_places_share_their_nodes() -> None:
    graph = build_graph(load_architecture("nemotron_h_8b"), DECODE)
    assert len({id(node) for _, node, _ in graph.walk()}) < len(nodes(graph))


@pytest.mark.parametrize(
    ("residual", "norms"),
    [("pre_norm", 2), ("post_norm", 2), ("sandwich", 4), ("parallel", 1), ("parallel_two_norms", 2)],
)
def test_norms_of_a_layer(residual: str, norms: int) -> None:
    graph = build_graph(model(residual=residual), DECODE)
    found = [name for name in nodes(graph) if name.startswith("layers.") and name.endswith("_norm")]
    assert len(found) == norms
    adds = [name for name in nodes(graph) if name.endswith("_residual")]
    assert len(adds) == 2


def test_post_norm_ends_a_layer_with_a_norm() -> None:
    assert [name for name in nodes(build_graph(model(residual="post_norm"), DECODE)) if "layers" in name][-1].endswith(
        "post_norm"
    )


@pytest.mark.parametrize(
    ("norm", "count"),
    [
        ({"kind": "rmsnorm"}, 64),
        ({"kind": "layernorm"}, 128),
        ({"kind": "layernorm", "bias": False}, 64),
        ({"kind": "layernorm", "parametric": False}, 0),
    ],
)
def test_parameters_of_norms(norm: dict[str, object], count: int) -> None:
    assert nodes(build_graph(model(norm=norm), DECODE))["final_norm"].op.parameters == count


def test_positions() -> None:
    learned = build_graph(model(position="learned", max_positions=50, position_offset=2), DECODE)
    assert nodes(learned)["position_embedding"].op.parameters == 52 * 64
    assert "layers.rope" not in nodes(learned)
    assert "layers.rope" in nodes(build_graph(model(), DECODE))
    for position in ("alibi", "none"):
        assert "layers.rope" not in nodes(build_graph(model(position=position), DECODE))


def test_output_gate_and_value_width_enter_the_projection() -> None:
    mixer = {"kind": "attention", "heads": 4, "kv_heads": 2, "head_dim": 8, "value_dim": 6, "output_gate": True}
    found = nodes(build_graph(model(layers=[layer(mixer)]), DECODE))
    assert found["layers.qkv_proj"].op.n == (4 + 2) * 8 + 2 * 6 + 4 * 6
    assert found["layers.out_proj"].op.k == 4 * 6


@pytest.mark.parametrize(
    "fields",
    [
        {"phase": "prefill"},
        {"batch": 0},
        {"q_len": 0},
        {"q_len": 5, "kv_len": 4},
        {"logit_tokens": 2},
        {"dtype": ""},
        {"dtype": "fp17"},
        {"kv_dtype": "fp17"},
        {"group_size": -1},
    ],
)
def test_impossible_steps_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(UnsupportedError, match=r"step|unknown dtype"):
        Step(**{"phase": "generation", "batch": 1, "q_len": 1, "kv_len": 1, **fields})


SMALL = st.integers(1, 4)


@given(batch=SMALL, q_len=st.integers(1, 64), past=st.integers(0, 64), grow=SMALL)
def test_more_sequences_or_tokens_never_cost_less(batch: int, q_len: int, past: int, grow: int) -> None:
    spec = model()
    base = build_graph(spec, Step("context", batch, q_len, q_len + past))
    for larger in (
        Step("context", batch + grow, q_len, q_len + past),
        Step("context", batch, q_len + grow, q_len + grow + past),
        Step("context", batch, q_len, q_len + past + grow),
    ):
        graph = build_graph(spec, larger)
        assert graph.flops >= base.flops
        assert graph.bytes_moved >= base.bytes_moved
        assert graph.parameters == base.parameters


def test_building_is_fast_enough_for_sweeps() -> None:
    spec = load_architecture("llama2_70b")
    build_graph(spec, DECODE)
    best = float("inf")
    for _ in range(30):
        start = time.perf_counter()
        build_graph(spec, DECODE)
        best = min(best, time.perf_counter() - start)
    assert best < 1e-3  # 0.15 ms on one idle core; the bound leaves room for a busy one

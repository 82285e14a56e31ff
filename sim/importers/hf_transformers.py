"""Hugging Face transformer families → fields of an ``ArchitectureSpec``.

Each function maps the keys of one ``model_type``. Keys that its configuration class in ``transformers`` has a default
for may be absent; sizes that every published configuration states are required.
"""

from __future__ import annotations

from typing import Any

from .config_reader import ConfigReader
from .folding import Layer, fold

Fields = dict[str, Any]


def attention(k: ConfigReader, *, bias: bool, out_bias: bool, **more: Any) -> Fields:
    """Attention from the usual keys; an absent ``num_key_value_heads`` means one per query head."""
    heads = k.integer("num_attention_heads")
    mixer: Fields = {"kind": "attention", "heads": heads}
    kv_heads = more.pop("kv_heads", None) or k.integer("num_key_value_heads", default=heads)
    if kv_heads != heads:
        mixer["kv_heads"] = kv_heads
    default = more.pop("head_dim", None) or k.integer("hidden_size") // heads
    mixer["head_dim"] = k.integer("head_dim", default=default)
    flags = {"qkv_bias": bias, "out_bias": out_bias, **more}
    return mixer | {key: value for key, value in flags.items() if value not in (False, None)}


def gated_mlp(k: ConfigReader, key: str = "hidden_act", default: str = "silu", *, bias: bool = False) -> Fields:
    """A gated feed-forward part of ``intermediate_size``."""
    return mlp(k.integer("intermediate_size"), k.activation(key, default), gated=True, bias=bias)


def mlp(intermediate: int, activation: str, *, gated: bool, bias: bool) -> Fields:
    """A dense feed-forward part."""
    ffn: Fields = {"kind": "mlp", "intermediate": intermediate, "activation": activation, "gated": gated}
    return ffn | ({"bias": True} if bias else {})


def model(k: ConfigReader, layers: list[Layer], *, tied: bool = False, norm: str = "rmsnorm", **more: Any) -> Fields:
    """Fields that all families share."""
    fields: Fields = {
        "vocab": more.pop("vocab", None) or k.integer("vocab_size"),
        "hidden": more.pop("hidden", None) or k.integer("hidden_size"),
        "tied_embeddings": k.boolean("tie_word_embeddings", tied),
        "position": more.pop("position", "rope"),
        "max_positions": more.pop("positions", None) or k.optional_integer("max_position_embeddings"),
        "norm": {"kind": norm},
    }
    return fields | more | {"layers": fold(layers)}


def uniform(k: ConfigReader, mixer: Fields, ffn: Fields) -> list[Layer]:
    """The same layer ``num_hidden_layers`` times."""
    return [{"mixer": mixer, "ffn": ffn}] * k.layers()


def llama(k: ConfigReader) -> Fields:
    """Llama, Granite: attention_bias covers all four projections."""
    bias = k.boolean("attention_bias", False)
    mixer = attention(k, bias=bias, out_bias=bias)
    return model(k, uniform(k, mixer, gated_mlp(k, bias=k.boolean("mlp_bias", False))))


def olmo(k: ConfigReader) -> Fields:
    """OLMo: norms without parameters."""
    return llama(k) | {"norm": {"kind": "layernorm", "bias": False, "parametric": False}}


def cohere(k: ConfigReader) -> Fields:
    """Command-R: both parts on one norm without a shift."""
    if k.boolean("use_qk_norm", False):
        raise k.problem("use_qk_norm: a layer norm with a scale per head is not supported")
    fields = llama(k) | {"residual": "parallel", "norm": {"kind": "layernorm", "bias": False}}
    return fields | {"tied_embeddings": k.boolean("tie_word_embeddings", True)}


def mistral(k: ConfigReader) -> Fields:
    """Mistral: a sliding window of 4096 keys unless the configuration says null."""
    window = k.optional_integer("sliding_window", default=4096)
    kv_heads = k.integer("num_key_value_heads", default=8)
    mixer = attention(k, bias=False, out_bias=False, window=window, kv_heads=kv_heads)
    return model(k, uniform(k, mixer, gated_mlp(k)))


def mixtral(k: ConfigReader) -> Fields:
    """Mixtral: routed experts in every layer."""
    kv_heads = k.integer("num_key_value_heads", default=8)
    mixer = attention(k, bias=False, out_bias=False, window=k.optional_integer("sliding_window"), kv_heads=kv_heads)
    ffn = {
        "kind": "moe",
        "experts": k.integer("num_local_experts", "num_experts", default=8),
        "top_k": k.integer("num_experts_per_tok", default=2),
        "intermediate": k.integer("intermediate_size"),
        "activation": k.activation("hidden_act", "silu"),
    }
    return model(k, uniform(k, mixer, ffn))


def qwen2(k: ConfigReader) -> Fields:
    """Qwen2: query, key and value biases always, an output bias never."""
    return model(k, _windowed(k, attention(k, bias=True, out_bias=False), gated_mlp(k)))


def qwen3(k: ConfigReader) -> Fields:
    """Qwen3: normalised queries and keys."""
    bias = k.boolean("attention_bias", False)
    mixer = attention(k, bias=bias, out_bias=bias, qk_norm=True, head_dim=128)
    return model(k, _windowed(k, mixer, gated_mlp(k)))


def qwen2_moe(k: ConfigReader) -> Fields:
    """Qwen2-MoE: routed experts and one gated shared expert."""
    mixer = attention(k, bias=k.boolean("qkv_bias", True), out_bias=False)
    shared = {
        "shared_experts": 1,
        "shared_intermediate": k.integer("shared_expert_intermediate_size", default=5632),
        "shared_gate": True,
    }
    return model(k, sparse_layers(k, [mixer], qwen_experts(k, experts=60, top_k=4, width=1408) | shared))


def qwen3_moe(k: ConfigReader) -> Fields:
    """Qwen3-MoE: routed experts, none shared."""
    bias = k.boolean("attention_bias", False)
    mixer = attention(k, bias=bias, out_bias=bias, qk_norm=True)
    return model(k, sparse_layers(k, [mixer], qwen_experts(k, experts=128, top_k=8, width=768)))


def qwen_experts(k: ConfigReader, *, experts: int, top_k: int, width: int) -> Fields:
    """Routed experts from the keys of the Qwen families and their defaults."""
    return {
        "kind": "moe",
        "experts": k.integer("num_experts", "num_local_experts", default=experts),
        "top_k": k.integer("num_experts_per_tok", default=top_k),
        "intermediate": k.integer("moe_intermediate_size", default=width),
        "activation": k.activation("hidden_act", "silu"),
    }


def sparse_layers(k: ConfigReader, mixers: list[Fields], experts: Fields) -> list[Layer]:
    """Layers whose mixers cycle; every ``decoder_sparse_step``-th has experts unless ``mlp_only_layers`` lists it."""
    step, dense = k.integer("decoder_sparse_step", default=1), set(k.sequence("mlp_only_layers", int, []))
    return [
        {
            "mixer": mixers[index % len(mixers)],
            "ffn": gated_mlp(k) if index in dense or (index + 1) % step else experts,
        }
        for index in range(k.layers())
    ]


def _windowed(k: ConfigReader, mixer: Fields, ffn: Fields) -> list[Layer]:
    """Qwen's window, which is off unless ``use_sliding_window``, on layers from ``max_window_layers``."""
    count = k.layers()
    if not k.boolean("use_sliding_window", False):
        return uniform(k, mixer, ffn)
    first = k.integer("max_window_layers", default=28, minimum=0)
    sliding = mixer | {"window": k.integer("sliding_window", default=4096)}
    return [{"mixer": sliding if index >= first else mixer, "ffn": ffn} for index in range(count)]


def gemma(k: ConfigReader) -> Fields:
    """Gemma: gated GELU, wide heads, tied embeddings."""
    bias = k.boolean("attention_bias", False)
    key = "hidden_activation" if "hidden_activation" in k else "hidden_act"
    mixer = attention(k, bias=bias, out_bias=bias, head_dim=256)
    return model(k, uniform(k, mixer, gated_mlp(k, key, "gelu_pytorch_tanh")), tied=True)


def gemma2(k: ConfigReader) -> Fields:
    """Gemma-2: sliding and full attention alternate, the sliding layer first."""
    return _gemma_sandwich(k, period=2, heads=k.integer("num_attention_heads"), qk_norm=False)


def gemma3_text(k: ConfigReader) -> Fields:
    """Gemma-3: every sixth layer attends to all keys; queries and keys are normalised."""
    period = k.integer("sliding_window_pattern", "_sliding_window_pattern", default=6)
    return _gemma_sandwich(k, period, k.integer("num_attention_heads", default=8), qk_norm=True)


def _gemma_sandwich(k: ConfigReader, period: int, heads: int, *, qk_norm: bool) -> Fields:
    bias, kv_heads = k.boolean("attention_bias", False), k.integer("num_key_value_heads", default=4)
    full = {"kind": "attention", "heads": heads, "kv_heads": kv_heads, "head_dim": k.integer("head_dim", default=256)}
    full |= {"qkv_bias": True, "out_bias": True} if bias else {}
    full |= {"qk_norm": True} if qk_norm else {}
    sliding = full | {"window": k.integer("sliding_window", default=4096)}
    ffn = gated_mlp(k, "hidden_activation", "gelu_pytorch_tanh")
    count = k.layers()
    rule = ["full_attention" if not (index + 1) % period else "sliding_attention" for index in range(count)]
    types = k.sequence("layer_types", str, rule)
    layers = [{"mixer": sliding if kind == "sliding_attention" else full, "ffn": ffn} for kind in types]
    vocab = k.integer("vocab_size", default=262208 if qk_norm else 256000)
    return model(k, layers, tied=True, vocab=vocab, residual="sandwich")


def phi(k: ConfigReader) -> Fields:
    """Phi-1, Phi-2: both parts on one layer norm, biases everywhere, the head included."""
    fraction = k.rotary_fraction("partial_rotary_factor", 0.5)
    mixer = attention(k, bias=True, out_bias=True, rope_fraction=fraction, qk_norm=k.boolean("qk_layernorm", False))
    ffn = mlp(k.integer("intermediate_size"), k.activation("hidden_act", "gelu_new"), gated=False, bias=True)
    return model(k, uniform(k, mixer, ffn), norm="layernorm", residual="parallel", lm_head_bias=True)


def phi3(k: ConfigReader) -> Fields:
    """Phi-3: as Llama, with an optional window."""
    mixer = attention(k, bias=False, out_bias=False, window=k.optional_integer("sliding_window"))
    fraction = k.rotary_fraction("partial_rotary_factor", 1.0)
    if fraction != 1.0:
        mixer["rope_fraction"] = fraction
    return model(k, uniform(k, mixer, gated_mlp(k)))


def gpt2(k: ConfigReader) -> Fields:
    """GPT-2: learned positions, biases, tied head."""
    hidden, heads = k.integer("n_embd", "hidden_size"), k.integer("n_head", "num_attention_heads")
    mixer = {"kind": "attention", "heads": heads, "qkv_bias": True, "out_bias": True}
    inner = k.optional_integer("n_inner") or 4 * hidden
    ffn = mlp(inner, k.activation("activation_function", "gelu_new"), gated=False, bias=True)
    layers = [{"mixer": mixer, "ffn": ffn}] * k.layers()
    positions = k.integer("n_positions", "max_position_embeddings", default=1024)
    vocab = k.integer("vocab_size", default=50257)
    return model(
        k, layers, tied=True, norm="layernorm", vocab=vocab, hidden=hidden, position="learned", positions=positions
    )


def gptj(k: ConfigReader) -> Fields:
    """GPT-J: both parts on one norm, partly rotary, no attention biases, a bias on the head."""
    hidden, heads = k.integer("n_embd", "hidden_size"), k.integer("n_head", "num_attention_heads")
    fraction = k.integer("rotary_dim", default=64) * heads / hidden
    mixer = {"kind": "attention", "heads": heads, "rope_fraction": fraction}
    inner = k.optional_integer("n_inner") or 4 * hidden
    ffn = mlp(inner, k.activation("activation_function", "gelu_new"), gated=False, bias=True)
    layers = [{"mixer": mixer, "ffn": ffn}] * k.layers()
    more: Fields = {"hidden": hidden, "positions": k.integer("n_positions", default=2048), "residual": "parallel"}
    return model(k, layers, norm="layernorm", lm_head_bias=True, **more)


def gpt_neox(k: ConfigReader) -> Fields:
    """GPT-NeoX, Pythia: both parts parallel with a norm each."""
    bias = k.boolean("attention_bias", True)
    mixer = attention(k, bias=bias, out_bias=bias, rope_fraction=k.rotary_fraction("rotary_pct", 0.25))
    ffn = mlp(k.integer("intermediate_size"), k.activation("hidden_act", "gelu"), gated=False, bias=True)
    residual = "parallel_two_norms" if k.boolean("use_parallel_residual", True) else "pre_norm"
    return model(k, uniform(k, mixer, ffn), norm="layernorm", residual=residual)


def opt(k: ConfigReader) -> Fields:
    """OPT: learned positions with two unused rows; the smallest-but-one model projects narrower embeddings."""
    hidden, bias = k.integer("hidden_size"), k.boolean("enable_bias", True)
    before = k.boolean("do_layer_norm_before", True)
    mixer = attention(k, bias=bias, out_bias=bias)
    ffn = mlp(k.integer("ffn_dim"), k.activation("activation_function", "relu"), gated=False, bias=bias)
    width = k.integer("word_embed_proj_dim", default=hidden)
    more: Fields = {"position": "learned", "position_offset": 2}
    more |= {"embedding_width": width} if width != hidden else {}
    if not before or k.boolean("_remove_final_layer_norm", False):
        more["final_norm"] = False
    fields = model(k, uniform(k, mixer, ffn), tied=True, norm="layernorm", **more)
    if not k.boolean("layer_norm_elementwise_affine", True):
        fields["norm"] = {"kind": "layernorm", "parametric": False}
    return fields if before else fields | {"residual": "post_norm"}


def bloom(k: ConfigReader) -> Fields:
    """BLOOM: ALiBi, a norm on the embeddings, biases everywhere."""
    hidden, heads = k.integer("hidden_size", "n_embed"), k.integer("n_head", "num_attention_heads")
    mixer = {"kind": "attention", "heads": heads, "qkv_bias": True, "out_bias": True}
    ffn = mlp(4 * hidden, "gelu_tanh", gated=False, bias=True)
    layers = [{"mixer": mixer, "ffn": ffn}] * k.layers()
    return model(k, layers, tied=True, norm="layernorm", hidden=hidden, position="alibi", embedding_norm=True)


def falcon(k: ConfigReader) -> Fields:
    """Falcon: the 7B form (one kv head, one norm) and the new decoder of 40B and 180B (kv groups, two norms)."""
    hidden, heads = k.integer("hidden_size", "n_embed"), k.integer("num_attention_heads", "n_head")
    new, bias = k.boolean("new_decoder_architecture", False), k.boolean("bias", False)
    mixer: Fields = {"kind": "attention", "heads": heads}
    if new:
        mixer["kv_heads"] = k.integer("num_kv_heads", "n_head_kv", default=heads)
    elif k.boolean("multi_query", True):
        mixer["kv_heads"] = 1
    mixer |= {"qkv_bias": True, "out_bias": True} if bias else {}
    inner = k.optional_integer("ffn_hidden_size") or 4 * hidden
    ffn = mlp(inner, k.activation("activation", "gelu"), gated=False, bias=bias)
    norms = k.integer("num_ln_in_parallel_attn", default=2 if new else 1)
    parallel = "parallel_two_norms" if norms == 2 else "parallel"
    residual = parallel if new or k.boolean("parallel_attn", True) else "pre_norm"
    layers = [{"mixer": mixer, "ffn": ffn}] * k.layers()
    position = "alibi" if k.boolean("alibi", False) else "rope"
    return model(k, layers, tied=True, norm="layernorm", hidden=hidden, position=position, residual=residual)


def deepseek_v2(k: ConfigReader) -> Fields:
    """DeepSeek-V2: latent attention, first layers dense, then routed and shared experts."""
    return _deepseek(k, top_k=k.integer("num_experts_per_tok"), first=0, shared=2, router_bias=False)


def deepseek_v3(k: ConfigReader) -> Fields:
    """DeepSeek-V3 and R1 without the multi-token-prediction module; the router has a selection bias."""
    return _deepseek(k, top_k=k.integer("num_experts_per_tok", default=8), first=3, shared=1, router_bias=True)


def _deepseek(k: ConfigReader, *, top_k: int, first: int, shared: int, router_bias: bool) -> Fields:
    bias = k.boolean("attention_bias", False)
    mixer: Fields = {
        "kind": "latent_attention",
        "heads": k.integer("num_attention_heads"),
        "q_lora_rank": k.optional_integer("q_lora_rank", default=1536),
        "kv_lora_rank": k.integer("kv_lora_rank", default=512),
        "nope_dim": k.integer("qk_nope_head_dim", default=128),
        "rope_dim": k.integer("qk_rope_head_dim", default=64),
        "v_dim": k.integer("v_head_dim", default=128),
    }
    mixer |= {"bias": True} if bias else {}
    experts: Fields = {
        "kind": "moe",
        "experts": k.integer("n_routed_experts"),
        "top_k": top_k,
        "intermediate": k.integer("moe_intermediate_size"),
        "activation": k.activation("hidden_act", "silu"),
        "shared_experts": k.integer("n_shared_experts", default=shared, minimum=0),
    }
    experts |= {"router_bias": True} if router_bias else {}
    dense, step = k.integer("first_k_dense_replace", default=first, minimum=0), k.integer("moe_layer_freq", default=1)
    layers = [
        {"mixer": mixer, "ffn": gated_mlp(k) if index < dense or index % step else experts}
        for index in range(k.layers())
    ]
    return model(k, layers)

"""Hugging Face state-space and hybrid families → fields of an ``ArchitectureSpec``."""

from __future__ import annotations

from collections.abc import Collection

from .config_reader import ConfigReader
from .folding import Layer
from .hf_transformers import Fields, attention, gated_mlp, mlp, model, qwen_experts, sparse_layers

RANK_DIVISOR = 16
"""``time_step_rank: auto`` is the residual width divided by this, rounded up."""

PARTIAL_ROTARY_BAMBA = 0.5
PARTIAL_ROTARY_QWEN3_NEXT = 0.25
FULL_ATTENTION_INTERVAL = 4
"""Every fourth Qwen3-Next layer has full attention unless the configuration says otherwise."""

NEMOTRON_LAYERS = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}
"""Letters of ``hybrid_override_pattern``."""

_LAYER_NAMES = {"linear_attention": "mamba", "full_attention": "attention"}


def _rank(k: ConfigReader, key: str) -> int:
    automatic = -(-k.integer("hidden_size") // RANK_DIVISOR)
    return automatic if k.is_text(key, "auto") else k.integer(key, default=automatic)


def _mamba(k: ConfigReader, *, norms: str = "none") -> Fields:
    """Mamba from the keys of ``mamba`` and ``falcon_mamba``."""
    hidden = k.integer("hidden_size")
    inner = k.optional_integer("intermediate_size") or k.integer("expand", default=2) * hidden
    mixer: Fields = {
        "kind": "mamba",
        "inner": inner,
        "state": k.integer("state_size", default=16),
        "dt_rank": _rank(k, "time_step_rank"),
        "kernel": k.integer("conv_kernel", default=4),
        "conv_bias": k.boolean("use_conv_bias", True),
        "proj_bias": k.boolean("use_bias", False),
    }
    return mixer | ({"inner_norms": norms} if norms != "none" else {})


def mamba(k: ConfigReader) -> Fields:
    """Mamba: layers of a mixer alone, tied embeddings."""
    layers: list[Layer] = [{"mixer": _mamba(k)}] * k.layers()
    return model(k, layers, tied=True, position="none")


def falcon_mamba(k: ConfigReader) -> Fields:
    """Falcon-Mamba: Mamba with norms on Δ, B and C that have no scales."""
    layers: list[Layer] = [{"mixer": _mamba(k, norms="plain")}] * k.layers()
    return model(k, layers, tied=True, position="none")


def mamba2(k: ConfigReader) -> Fields:
    """Mamba-2."""
    mixer: Fields = {
        "kind": "mamba2",
        "heads": k.integer("num_heads", default=128),
        "head_dim": k.integer("head_dim", default=64),
        "state": k.integer("state_size", default=128),
        "groups": k.integer("n_groups", default=8),
        "kernel": k.integer("conv_kernel", default=4),
        "chunk": k.integer("chunk_size", default=256),
        "conv_bias": k.boolean("use_conv_bias", True),
        "proj_bias": k.boolean("use_bias", False),
    }
    _check_inner(k, mixer, k.integer("expand", default=2) * k.integer("hidden_size"), "expand × hidden_size")
    layers: list[Layer] = [{"mixer": mixer}] * k.layers()
    return model(k, layers, position="none")


def _check_inner(k: ConfigReader, mixer: Fields, inner: int, what: str) -> None:
    heads, head_dim = mixer["heads"], mixer["head_dim"]
    if heads * head_dim != inner:
        raise k.problem(f"{what} is {inner}, but {heads} heads of {head_dim} make {heads * head_dim}")


def jamba(k: ConfigReader) -> Fields:
    """Jamba: attention once in ``attn_layer_period`` layers, experts once in ``expert_layer_period``."""
    hidden = k.integer("hidden_size")
    state: Fields = {
        "kind": "mamba",
        "inner": k.integer("mamba_expand", default=2) * hidden,
        "state": k.integer("mamba_d_state", default=16),
        "dt_rank": _rank(k, "mamba_dt_rank"),
        "kernel": k.integer("mamba_d_conv", default=4),
        "conv_bias": k.boolean("mamba_conv_bias", True),
        "proj_bias": k.boolean("mamba_proj_bias", False),
        "inner_norms": "parametric",
    }
    attend = attention(k, bias=False, out_bias=False, kv_heads=k.integer("num_key_value_heads", default=8))
    dense, count = gated_mlp(k), k.integer("num_experts", default=16)
    experts: Fields = {
        "kind": "moe",
        "experts": count,
        "top_k": k.integer("num_experts_per_tok", default=2),
        "intermediate": k.integer("intermediate_size"),
        "activation": k.activation("hidden_act", "silu"),
    }
    period, offset = k.integer("attn_layer_period", default=8), k.integer("attn_layer_offset", default=4, minimum=0)
    step, first = k.integer("expert_layer_period", default=2), k.integer("expert_layer_offset", default=1, minimum=0)
    layers = [
        {
            "mixer": attend if index % period == offset else state,
            "ffn": experts if index % step == first and count > 1 else dense,
        }
        for index in range(k.layers())
    ]
    return model(k, layers, position="none")


def zamba(k: ConfigReader) -> Fields:
    """Zamba: Mamba layers; at some depths one shared transformer block comes first, on [hidden, embedding]."""
    hidden, heads = k.integer("hidden_size"), k.integer("num_attention_heads")
    wide = k.integer("attention_hidden_size", default=2 * hidden)
    if wide != 2 * hidden:
        raise k.error("attention_hidden_size", wide, f"twice hidden_size, {2 * hidden}")
    state: Fields = {
        "kind": "mamba",
        "inner": k.integer("mamba_expand", default=2) * hidden,
        "state": k.integer("mamba_d_state", default=16),
        "dt_rank": _rank(k, "mamba_dt_rank"),
        "kernel": k.integer("mamba_d_conv", default=4),
        "heads": k.integer("n_mamba_heads", default=2),
        "conv_bias": k.boolean("mamba_conv_bias", True),
        "proj_bias": k.boolean("mamba_proj_bias", False),
    }
    attend: Fields = {"kind": "attention", "heads": heads}
    attend["kv_heads"] = k.integer("num_key_value_heads", default=heads)
    attend["head_dim"] = k.integer("attention_head_dim", default=wide // heads)
    shared: Layer = {
        "mixer": attend,
        "ffn": gated_mlp(k, default="gelu"),
        "shared": {"name": "shared_transformer", "concatenate_embedding": True, "projection": True},
    }
    layers: list[Layer] = []
    for kind in _zamba_types(k):
        layers += [shared, {"mixer": state}] if kind == "hybrid" else [{"mixer": state}]
    return model(k, layers, tied=True, position="none")


def _zamba_types(k: ConfigReader) -> list[str]:
    period, offset = k.integer("attn_layer_period", default=6), k.integer("attn_layer_offset", default=4, minimum=0)
    head = ["mamba", "mamba", "hybrid"]
    rest = range(k.layers() - len(head))
    rule = head + ["hybrid" if index % period == offset else "mamba" for index in rest]
    kinds = [_LAYER_NAMES.get(kind, kind) for kind in k.sequence("layers_block_type", str, rule)]
    _check_kinds(k, kinds, ("mamba", "hybrid"))
    return kinds


def _check_kinds(k: ConfigReader, kinds: list[str], known: Collection[str]) -> None:
    unknown = sorted(set(kinds) - set(known))
    if unknown:
        raise k.problem(f"unknown layer type {unknown[0]!r}; expected one of {', '.join(known)}")


def bamba(k: ConfigReader) -> Fields:
    """Bamba: Mamba-2 with attention at listed depths, a feed-forward part in every layer."""
    state = _mamba2_block(k, k.integer("mamba_expand", default=2) * k.integer("hidden_size"), state=256)
    bias = k.boolean("attention_bias", False)
    attend = attention(
        k,
        bias=bias,
        out_bias=bias,
        kv_heads=k.integer("num_key_value_heads", default=8),
        rope_fraction=PARTIAL_ROTARY_BAMBA,
    )
    ffn, depths = gated_mlp(k, bias=k.boolean("mlp_bias", False)), set(k.sequence("attn_layer_indices", int, []))
    count = k.layers()
    layers: list[Layer] = [{"mixer": attend if index in depths else state, "ffn": ffn} for index in range(count)]
    return model(k, layers)


def falcon_h1(k: ConfigReader) -> Fields:
    """Falcon-H1: attention and Mamba-2 side by side in every layer."""
    inner = k.optional_integer("mamba_d_ssm") or k.integer("mamba_expand", default=2) * k.integer("hidden_size")
    state = _mamba2_block(k, inner, state=256)
    if not k.boolean("mamba_rms_norm", False):
        state["gated_norm"] = False
    if k.boolean("projectors_bias", False):
        state["proj_bias"] = True
    bias = k.boolean("attention_bias", False)
    attend = attention(k, bias=bias, out_bias=bias, kv_heads=k.integer("num_key_value_heads", default=8))
    mixer: Fields = {"kind": "parallel", "mixers": [attend, state]}
    ffn = gated_mlp(k, bias=k.boolean("mlp_bias", False))
    return model(k, [{"mixer": mixer, "ffn": ffn}] * k.layers())


def _mamba2_block(k: ConfigReader, inner: int, *, state: int) -> Fields:
    """Mamba-2 from the ``mamba_*`` keys; ``mamba_d_head: auto`` divides the inner width by the heads."""
    heads = k.integer("mamba_n_heads", default=128)
    automatic = "mamba_d_head" not in k or k.is_text("mamba_d_head", "auto")
    mixer: Fields = {
        "kind": "mamba2",
        "heads": heads,
        "head_dim": inner // heads if automatic else k.integer("mamba_d_head"),
        "state": k.integer("mamba_d_state", default=state),
        "groups": k.integer("mamba_n_groups", default=1),
        "kernel": k.integer("mamba_d_conv", default=4),
        "chunk": k.integer("mamba_chunk_size", default=256),
        "conv_bias": k.boolean("mamba_conv_bias", True),
        "proj_bias": k.boolean("mamba_proj_bias", False),
    }
    _check_inner(k, mixer, inner, "the inner width of the Mamba part")
    return mixer


def nemotron_h(k: ConfigReader) -> Fields:
    """Nemotron-H: layers of one part each (Mamba-2, attention, feed-forward or experts) in a written pattern."""
    if "layers_block_type" in k:
        kinds = k.sequence("layers_block_type", str)
    else:
        kinds = [NEMOTRON_LAYERS.get(letter, letter) for letter in k.text("hybrid_override_pattern")]
    parts: dict[str, Layer] = {
        "mamba": {"mixer": _nemotron_mamba(k)},
        "attention": {"mixer": _nemotron_attention(k)},
        "mlp": {"ffn": _nemotron_mlp(k)},
    }
    if "moe" in kinds or "E" in kinds:
        raise k.problem("Nemotron-H with routed experts is not supported")
    named = [_LAYER_NAMES.get(kind, kind) for kind in kinds]
    _check_kinds(k, named, parts)
    return model(k, [parts[kind] for kind in named], position="none")


def _nemotron_mamba(k: ConfigReader) -> Fields:
    bias = k.boolean("use_bias", False) or k.boolean("mamba_proj_bias", False)
    return {
        "kind": "mamba2",
        "heads": k.integer("mamba_num_heads", default=128),
        "head_dim": k.integer("mamba_head_dim", default=64),
        "state": k.integer("ssm_state_size", default=128),
        "groups": k.integer("n_groups", "mamba_n_groups", default=8),
        "kernel": k.integer("conv_kernel", "mamba_d_conv", default=4),
        "chunk": k.integer("chunk_size", "mamba_chunk_size", default=128),
        "conv_bias": k.boolean("use_conv_bias", True),
        "proj_bias": bias,
    }


def _nemotron_attention(k: ConfigReader) -> Fields:
    bias = k.boolean("attention_bias", False)
    width = k.integer("attention_head_dim", "head_dim", default=128)
    return attention(
        k, bias=bias, out_bias=bias, kv_heads=k.integer("num_key_value_heads", default=8), head_dim=width
    ) | {"head_dim": width}


def _nemotron_mlp(k: ConfigReader) -> Fields:
    activation = k.activation("mlp_hidden_act", "relu2")
    return mlp(k.integer("intermediate_size"), activation, gated=False, bias=k.boolean("mlp_bias", False))


def qwen3_next(k: ConfigReader) -> Fields:
    """Qwen3-Next: three gated-delta layers to one of gated attention; routed experts and a gated shared one."""
    delta: Fields = {
        "kind": "gated_delta",
        "key_heads": k.integer("linear_num_key_heads", default=16),
        "value_heads": k.integer("linear_num_value_heads", default=32),
        "key_dim": k.integer("linear_key_head_dim", default=128),
        "value_dim": k.integer("linear_value_head_dim", default=128),
        "kernel": k.integer("linear_conv_kernel_dim", default=4),
    }
    bias = k.boolean("attention_bias", False)
    attend = attention(
        k,
        bias=bias,
        out_bias=bias,
        kv_heads=k.integer("num_key_value_heads", default=2),
        head_dim=256,
        qk_norm=True,
        output_gate=True,
        rope_fraction=k.rotary_fraction("partial_rotary_factor", PARTIAL_ROTARY_QWEN3_NEXT),
    )
    shared = {
        "shared_experts": 1,
        "shared_intermediate": k.integer("shared_expert_intermediate_size", default=512),
        "shared_gate": True,
    }
    interval, count = k.integer("full_attention_interval", default=FULL_ATTENTION_INTERVAL), k.layers()
    rule = ["full_attention" if not (index + 1) % interval else "linear_attention" for index in range(count)]
    kinds = k.sequence("layer_types", str, rule)
    _check_kinds(k, kinds, ("full_attention", "linear_attention"))
    mixers = [attend if kind == "full_attention" else delta for kind in kinds]
    return model(k, sparse_layers(k, mixers, qwen_experts(k, experts=512, top_k=10, width=512) | shared))

"""Bundled architectures back to ``transformers`` configurations: the inverse of the importer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from effsim.errors import UnsupportedError
from effsim.spec.architecture import (
    ArchitectureSpec,
    Attention,
    GatedDelta,
    LatentAttention,
    LayerRun,
    Mamba,
    Mamba2,
    Mlp,
    Moe,
    ParallelMixers,
)

from ..interpreter.weights import layer_specs

Keys = dict[str, Any]

FAMILIES: dict[str, str] = {
    "bamba": "bamba",
    "bloom": "bloom",
    "deepseek_v2": "deepseek_v2",
    "deepseek_v3": "deepseek_v3",
    "falcon_": "falcon",
    "falcon_h1": "falcon_h1",
    "falcon_mamba": "falcon_mamba",
    "gemma2": "gemma2",
    "gemma3": "gemma3_text",
    "gemma_": "gemma",
    "gpt2": "gpt2",
    "gpt3": "gpt2",
    "gpt_j": "gptj",
    "gpt_neox": "gpt_neox",
    "jamba": "jamba",
    "llama": "llama",
    "mamba2_": "mamba2",
    "mamba_": "mamba",
    "megatron": "gpt2",
    "mistral": "mistral",
    "mixtral": "mixtral",
    "nemotron_h": "nemotron_h",
    "opt": "opt",
    "phi3": "phi3",
    "phi_": "phi",
    "pim_gpt": "gpt2",
    "mpt": "gpt2",
    "turing": "gpt2",
    "qwen1_5_moe": "qwen2_moe",
    "qwen2_5": "qwen2",
    "qwen2_57b_a14b": "qwen2_moe",
    "qwen2_": "qwen2",
    "qwen3_next": "qwen3_next",
    "qwen3_": "qwen3",
    "qwen3_235b_a22b": "qwen3_moe",
    "qwen3_30b_a3b": "qwen3_moe",
    "codellama": "llama",
    "yi_": "llama",
    "zamba": "zamba",
}
"""How the name of a bundled architecture begins → ``model_type``; the longest beginning counts."""


def model_type(name: str) -> str:
    """The ``transformers`` family of a bundled architecture.

    >>> model_type("qwen2_57b_a14b"), model_type("qwen2_7b")
    ('qwen2_moe', 'qwen2')

    Raises:
        UnsupportedError: no family begins so.
    """
    fitting = [start for start in FAMILIES if name.startswith(start)]
    if not fitting:
        raise UnsupportedError(f"no transformers family is known for {name!r}")
    return FAMILIES[max(fitting, key=len)]


def first(layers: list[LayerRun], kind: type, part: str = "mixer") -> Any:
    """The first mixer (or feed-forward part) of a kind, inside parallel mixers too; None if there is none."""
    for run in layers:
        found = getattr(run, part)
        for one in found.mixers if isinstance(found, ParallelMixers) else [found]:
            if isinstance(one, kind):
                return one
    return None


def config_keys(spec: ArchitectureSpec, family: str) -> Keys:
    """Keys of the configuration whose import gives *spec*.

    Raises:
        UnsupportedError: a family that cannot be written.
    """
    if family not in _FAMILY_KEYS:
        raise UnsupportedError(f"no configuration can be written for {family!r}")
    layers = layer_specs(spec)
    common: Keys = {
        "vocab_size": spec.vocab,
        "hidden_size": spec.hidden,
        "num_hidden_layers": len(layers),
        "tie_word_embeddings": spec.tied_embeddings,
    }
    if spec.max_positions:
        common["max_position_embeddings"] = spec.max_positions
    return common | _FAMILY_KEYS[family](spec, layers)


def _activation(name: str) -> str:
    return {"gelu_tanh": "gelu_new"}.get(name, name)


def _heads(spec: ArchitectureSpec, layers: list[LayerRun]) -> Keys:
    a = first(layers, Attention)
    return {
        "num_attention_heads": a.heads,
        "num_key_value_heads": a.groups,
        "head_dim": spec.head_dim(a),
        "attention_bias": a.qkv_bias,
    }


def _dense(layers: list[LayerRun]) -> Keys:
    ffn = first(layers, Mlp, "ffn")
    return {"intermediate_size": ffn.intermediate, "hidden_act": _activation(ffn.activation)} if ffn else {}


def _llama(spec: ArchitectureSpec, layers: list[LayerRun]) -> Keys:
    return _heads(spec, layers) | _dense(layers)


def _mistral(spec: ArchitectureSpec, layers: list[LayerRun]) -> Keys:
    return _llama(spec, layers) | {"sliding_window": first(layers, Attention).window}


def _experts(layers: list[LayerRun]) -> Keys:
    moe = first(layers, Moe, "ffn")
    keys: Keys = {
        "num_experts": moe.experts,
        "num_experts_per_tok": moe.top_k,
        "moe_intermediate_size": moe.intermediate,
        "norm_topk_prob": True,
    }
    if moe.shared_experts:
        keys["shared_expert_intermediate_size"] = moe.shared_width
    return keys


def _mixtral(spec: ArchitectureSpec, layers: list[LayerRun]) -> Keys:
    moe = first(layers, Moe, "ffn")
    keys = {"num_local_experts": moe.experts, "num_experts_per_tok": moe.top_k, "intermediate_size": moe.intermediate}
    return _heads(spec, layers) | keys | {"sliding_window": first(layers, Attention).window}


def _qwen_moe(spec: ArchitectureSpec, layers: list[LayerRun]) -> Keys:
    dense = _dense(layers) or {"intermediate_size": first(layers, Moe, "ffn").intermediate}
    return _heads(spec, layers) | _experts(layers) | dense


def _deepseek(spec: ArchitectureSpec, layers: list[LayerRun]) -> Keys:
    a, moe = first(layers, LatentAttention), first(layers, Moe, "ffn")
    return _dense(layers) | {
        **{"num_attention_heads": a.heads, "num_key_value_heads": a.heads, "q_lora_rank": a.q_lora_rank},
        **{"kv_lora_rank": a.kv_lora_rank, "qk_nope_head_dim": a.nope_dim, "qk_rope_head_dim": a.rope_dim},
        **{"v_head_dim": a.v_dim, "attention_bias": a.bias, "n_routed_experts": moe.experts},
        **{"num_experts_per_tok": moe.top_k, "moe_intermediate_size": moe.intermediate},
        **{"n_shared_experts": moe.shared_experts, "topk_method": "greedy", "n_group": 1, "topk_group": 1},
        "first_k_dense_replace": sum(isinstance(run.ffn, Mlp) for run in layers),
    }


def _gemma(spec: ArchitectureSpec, layers: list[LayerRun]) -> Keys:
    act = {"hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh"}
    keys = _llama(spec, layers) | act
    windows = [run.mixer.window for run in layers if isinstance(run.mixer, Attention)]
    if any(windows):
        keys["sliding_window"] = next(w for w in windows if w)
        keys["layer_types"] = ["sliding_attention" if w else "full_attention" for w in windows]
    return keys


def _gpt2(spec: ArchitectureSpec, layers: list[LayerRun]) -> Keys:
    ffn = first(layers, Mlp, "ffn")
    return {
        **{"n_embd": spec.hidden, "n_head": first(layers, Attention).heads, "n_layer": len(layers)},
        **{"n_positions": spec.max_positions, "n_inner": ffn.intermediate},
        "activation_function": _activation(ffn.activation),
    }


def _gptj(spec: ArchitectureSpec, layers: list[LayerRun]) -> Keys:
    a = first(layers, Attention)
    return _gpt2(spec, layers) | {"rotary_dim": round(spec.head_dim(a) * a.rope_fraction)}


def _gpt_neox(spec: ArchitectureSpec, layers: list[LayerRun]) -> Keys:
    a = first(layers, Attention)
    return _dense(layers) | {
        "num_attention_heads": a.heads,
        "attention_bias": a.qkv_bias,
        "rotary_pct": a.rope_fraction,
        "partial_rotary_factor": a.rope_fraction,
        "use_parallel_residual": spec.residual == "parallel_two_norms",
    }


def _opt(spec: ArchitectureSpec, layers: list[LayerRun]) -> Keys:
    ffn = first(layers, Mlp, "ffn")
    return {
        "num_attention_heads": first(layers, Attention).heads,
        "ffn_dim": ffn.intermediate,
        "word_embed_proj_dim": spec.embedding_width or spec.hidden,
        "do_layer_norm_before": spec.residual != "post_norm",
    }


def _bloom(spec: ArchitectureSpec, layers: list[LayerRun]) -> Keys:
    return {"n_head": first(layers, Attention).heads, "n_layer": len(layers)}


def _falcon(spec: ArchitectureSpec, layers: list[LayerRun]) -> Keys:
    a, ffn = first(layers, Attention), first(layers, Mlp, "ffn")
    new = spec.residual == "parallel_two_norms"
    return {
        **{"num_attention_heads": a.heads, "num_kv_heads": a.groups, "multi_query": a.groups == 1},
        **{"new_decoder_architecture": new, "parallel_attn": True, "ffn_hidden_size": ffn.intermediate},
        **{"bias": a.qkv_bias, "alibi": spec.position == "alibi"},
    }


def _phi(spec: ArchitectureSpec, layers: list[LayerRun]) -> Keys:
    keys = _heads(spec, layers) | _dense(layers)
    return keys | {"partial_rotary_factor": first(layers, Attention).rope_fraction}


def _mamba(spec: ArchitectureSpec, layers: list[LayerRun]) -> Keys:
    m = first(layers, Mamba)
    return {
        **{"state_size": m.state, "expand": m.inner // spec.hidden, "intermediate_size": m.inner},
        **{"time_step_rank": m.dt_rank, "conv_kernel": m.kernel, "use_conv_bias": m.conv_bias},
        "use_bias": m.proj_bias,
    }


def _mamba2(spec: ArchitectureSpec, layers: list[LayerRun]) -> Keys:
    m = first(layers, Mamba2)
    return {
        **{"num_heads": m.heads, "head_dim": m.head_dim, "state_size": m.state, "n_groups": m.groups},
        **{"conv_kernel": m.kernel, "chunk_size": m.chunk, "expand": m.inner // spec.hidden},
        **{"use_conv_bias": m.conv_bias, "use_bias": m.proj_bias},
    }


def _jamba(spec: ArchitectureSpec, layers: list[LayerRun]) -> Keys:
    m, moe = first(layers, Mamba), first(layers, Moe, "ffn")
    attend = [i for i, run in enumerate(layers) if isinstance(run.mixer, Attention)]
    sparse = [i for i, run in enumerate(layers) if isinstance(run.ffn, Moe)]
    return _llama(spec, layers) | {
        **{"mamba_expand": m.inner // spec.hidden, "mamba_d_state": m.state, "mamba_dt_rank": m.dt_rank},
        **{"mamba_d_conv": m.kernel, "mamba_conv_bias": m.conv_bias, "mamba_proj_bias": m.proj_bias},
        **{"num_experts": moe.experts, "num_experts_per_tok": moe.top_k},
        **{"attn_layer_offset": attend[0], "attn_layer_period": _period(attend, len(layers))},
        **{"expert_layer_offset": sparse[0], "expert_layer_period": _period(sparse, len(layers))},
    }


def _period(depths: list[int], count: int) -> int:
    return depths[1] - depths[0] if len(depths) > 1 else count


def _zamba(spec: ArchitectureSpec, layers: list[LayerRun]) -> Keys:
    m, a = first(layers, Mamba), first(layers, Attention)
    kinds = ["shared" if run.shared else "mamba" for run in layers]
    merged = ["hybrid" if i and kinds[i - 1] == "shared" else "mamba" for i, k in enumerate(kinds) if k == "mamba"]
    return _dense(layers) | {
        **{"num_hidden_layers": len(merged), "layers_block_type": merged, "n_mamba_heads": m.heads},
        **{"num_attention_heads": a.heads, "num_key_value_heads": a.groups, "attention_head_dim": a.head_dim},
        **{"attention_hidden_size": 2 * spec.hidden, "mamba_d_state": m.state, "mamba_dt_rank": m.dt_rank},
        **{"mamba_expand": m.inner // spec.hidden, "mamba_d_conv": m.kernel},
    }


def _mamba2_block(layers: list[LayerRun]) -> Keys:
    m = first(layers, Mamba2)
    return {
        **{"mamba_n_heads": m.heads, "mamba_d_head": m.head_dim, "mamba_d_state": m.state},
        **{"mamba_n_groups": m.groups, "mamba_d_conv": m.kernel, "mamba_chunk_size": m.chunk},
        **{"mamba_conv_bias": m.conv_bias, "mamba_proj_bias": m.proj_bias},
    }


def _bamba(spec: ArchitectureSpec, layers: list[LayerRun]) -> Keys:
    depths = [i for i, run in enumerate(layers) if isinstance(run.mixer, Attention)]
    inner = first(layers, Mamba2).inner
    fraction = {"partial_rotary_factor": first(layers, Attention).rope_fraction}
    keys = _llama(spec, layers) | _mamba2_block(layers) | fraction
    return keys | {"attn_layer_indices": depths, "mamba_expand": inner // spec.hidden}


def _falcon_h1(spec: ArchitectureSpec, layers: list[LayerRun]) -> Keys:
    m = first(layers, Mamba2)
    return _llama(spec, layers) | _mamba2_block(layers) | {"mamba_d_ssm": m.inner, "mamba_rms_norm": m.gated_norm}


def _nemotron_h(spec: ArchitectureSpec, layers: list[LayerRun]) -> Keys:
    m, ffn = first(layers, Mamba2), first(layers, Mlp, "ffn")
    kinds = [
        "mlp" if run.mixer is None else "attention" if isinstance(run.mixer, Attention) else "mamba" for run in layers
    ]
    return _heads(spec, layers) | {
        **{"layers_block_type": kinds, "mamba_num_heads": m.heads, "mamba_head_dim": m.head_dim},
        **{"ssm_state_size": m.state, "n_groups": m.groups, "conv_kernel": m.kernel, "chunk_size": m.chunk},
        **{"use_conv_bias": m.conv_bias, "intermediate_size": ffn.intermediate, "mlp_hidden_act": ffn.activation},
        **{"expand": m.inner // spec.hidden, "mamba_proj_bias": m.proj_bias, "use_bias": m.proj_bias},
    }


def _qwen3_next(spec: ArchitectureSpec, layers: list[LayerRun]) -> Keys:
    d, a = first(layers, GatedDelta), first(layers, Attention)
    kinds = ["full_attention" if isinstance(run.mixer, Attention) else "linear_attention" for run in layers]
    return _qwen_moe(spec, layers) | {
        **{"linear_num_key_heads": d.key_heads, "linear_num_value_heads": d.value_heads, "layer_types": kinds},
        **{"linear_key_head_dim": d.key_dim, "linear_value_head_dim": d.value_dim},
        **{"linear_conv_kernel_dim": d.kernel, "partial_rotary_factor": a.rope_fraction},
    }


_FAMILY_KEYS: dict[str, Callable[[ArchitectureSpec, list[LayerRun]], Keys]] = {
    "bamba": _bamba,
    "bloom": _bloom,
    "deepseek_v2": _deepseek,
    "deepseek_v3": _deepseek,
    "falcon": _falcon,
    "falcon_h1": _falcon_h1,
    "falcon_mamba": _mamba,
    "gemma": _gemma,
    "gemma2": _gemma,
    "gemma3_text": _gemma,
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
    "gptj": _gptj,
    "jamba": _jamba,
    "llama": _llama,
    "mamba": _mamba,
    "mamba2": _mamba2,
    "mistral": _mistral,
    "mixtral": _mixtral,
    "nemotron_h": _nemotron_h,
    "opt": _opt,
    "phi": _phi,
    "phi3": _mistral,
    "qwen2": _llama,
    "qwen2_moe": _qwen_moe,
    "qwen3": _llama,
    "qwen3_moe": _qwen_moe,
    "qwen3_next": _qwen3_next,
    "zamba": _zamba,
}

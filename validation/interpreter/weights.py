"""Weights of a ``transformers`` model under the names of our nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from effsim.architectures.build import Step, build_graph
from effsim.errors import UnsupportedError
from effsim.spec.architecture import ArchitectureSpec, LayerRun, Mamba2
from effsim.spec.architecture import LatentAttention as LatentSpec

Array = npt.NDArray[np.float64]
State = Mapping[str, Array]
Layer = dict[str, dict[str, Any]]


def layer_paths(spec: ArchitectureSpec) -> list[str]:
    """Prefixes of the layers' nodes, first to last (``layers.0.``, ``layers_1.3.``…)."""
    flat = build_graph(spec, Step("generation", 1, 1, 1)).unfold()
    found: dict[str, None] = {}
    for name, _, _ in flat.walk():
        if "." in name:
            found.setdefault(name[: name.rindex(".") + 1])
    return list(found)


def layer_specs(spec: ArchitectureSpec) -> list[LayerRun]:
    """The description of every layer, first to last."""
    return [run for top in spec.layers for run in _spread(top)]


def _spread(run: LayerRun) -> list[LayerRun]:
    inner = [run] if run.layers is None else [leaf for part in run.layers for leaf in _spread(part)]
    return inner * run.repeat


def _module(state: State, name: str) -> dict[str, Any]:
    """``weight`` and ``bias`` of a module."""
    return {kind: state[f"{name}.{kind}"] for kind in ("weight", "bias") if f"{name}.{kind}" in state}


def _stacked(state: State, *names: str) -> dict[str, Any]:
    """Projections that one of ours does at once."""
    parts = [_module(state, name) for name in names]
    return {kind: np.concatenate([part[kind] for part in parts]) for kind in parts[0]}


def _attention(state: State, p: str, out: str = "o_proj") -> Layer:
    layer: Layer = {
        "qkv_proj": _stacked(state, *(f"{p}.{x}_proj" for x in "qkv")),
        "out_proj": _module(state, f"{p}.{out}"),
    }
    if f"{p}.q_norm.weight" in state:
        layer["qk_norm"] = {"weight": np.stack([state[f"{p}.{x}_norm.weight"] for x in "qk"])}
    return layer


def _latent(state: State, p: str, mixer: LatentSpec) -> Layer:
    """DeepSeek's projections; ``kv_b_proj`` also as the two products of the absorbed form."""
    layer: Layer = {name: _module(state, f"{p}.{name}") for name in ("kv_a_proj", "kv_b_proj")}
    layer["kv_a_proj"] = _module(state, f"{p}.kv_a_proj_with_mqa")
    layer["kv_a_norm"] = _module(state, f"{p}.kv_a_layernorm")
    layer["out_proj"] = _module(state, f"{p}.o_proj")
    if mixer.q_lora_rank is None:
        layer["q_proj"] = _module(state, f"{p}.q_proj")
    else:
        layer |= {name: _module(state, f"{p}.{name}") for name in ("q_a_proj", "q_b_proj")}
        layer["q_a_norm"] = _module(state, f"{p}.q_a_layernorm")
    both = state[f"{p}.kv_b_proj.weight"].reshape(mixer.heads, mixer.nope_dim + mixer.v_dim, mixer.kv_lora_rank)
    layer["q_absorb"] = {"weight": both[:, : mixer.nope_dim]}
    layer["v_absorb"] = {"weight": both[:, mixer.nope_dim :].swapaxes(1, 2)}
    return layer


def _gated(state: State, p: str, prefix: str = "") -> Layer:
    return {
        f"{prefix}gate_up_proj": _stacked(state, f"{p}.gate_proj", f"{p}.up_proj"),
        f"{prefix}down_proj": _module(state, f"{p}.down_proj"),
    }


def _feed_forward(state: State, p: str) -> Layer:
    """A dense part, or a router with its experts and the shared ones."""
    if f"{p}.experts.gate_up_proj" not in state:
        return _gated(state, p)
    first, down = state[f"{p}.experts.gate_up_proj"], state[f"{p}.experts.down_proj"]
    inner = first.shape[1] // 2
    parts = {"gate": first[:, :inner], "up": first[:, inner:], "down": down}
    experts = {name: array.swapaxes(1, 2) for name, array in parts.items()}
    layer: Layer = {"router": _module(state, f"{p}.gate"), "experts": experts}
    for shared in (f"{p}.shared_expert", f"{p}.shared_experts"):
        if f"{shared}.gate_proj.weight" in state:
            layer |= _gated(state, shared, "shared_")
    if f"{p}.shared_expert_gate.weight" in state:
        layer["shared_gate"] = _module(state, f"{p}.shared_expert_gate")
    return layer


def _llama(state: State, p: str, run: LayerRun) -> Layer:
    """Llama, Mistral, Qwen, Mixtral, DeepSeek."""
    mixer = run.mixer
    attn = f"{p}.self_attn"
    layer = _latent(state, attn, mixer) if isinstance(mixer, LatentSpec) else _attention(state, attn)
    norms = {"input_norm": f"{p}.input_layernorm", "post_norm": f"{p}.post_attention_layernorm"}
    return layer | {name: _module(state, there) for name, there in norms.items()} | _feed_forward(state, f"{p}.mlp")


def _gpt2(state: State, p: str, run: LayerRun) -> Layer:
    """GPT-2 keeps its projections as [inputs, outputs]."""
    names = {"qkv_proj": "attn.c_attn", "out_proj": "attn.c_proj", "up_proj": "mlp.c_fc", "down_proj": "mlp.c_proj"}
    layer = {ours: _module(state, f"{p}.{theirs}") for ours, theirs in names.items()}
    layer = {ours: found | {"weight": found["weight"].T} for ours, found in layer.items()}
    return layer | {"input_norm": _module(state, f"{p}.ln_1"), "post_norm": _module(state, f"{p}.ln_2")}


def _gpt_neox(state: State, p: str, run: LayerRun) -> Layer:
    """GPT-NeoX keeps q, k and v of a head side by side; ours has all queries first."""
    heads = run.mixer.heads  # type: ignore[union-attr]
    whole = _module(state, f"{p}.attention.query_key_value")
    split = {k: a.reshape(heads, 3, -1, *a.shape[1:]).swapaxes(0, 1).reshape(a.shape) for k, a in whole.items()}
    names = {"out_proj": "attention.dense", "up_proj": "mlp.dense_h_to_4h", "down_proj": "mlp.dense_4h_to_h"}
    names |= {"input_norm": "input_layernorm", "post_norm": "post_attention_layernorm"}
    return {"qkv_proj": split} | {ours: _module(state, f"{p}.{theirs}") for ours, theirs in names.items()}


def _opt(state: State, p: str, run: LayerRun) -> Layer:
    names = {
        "up_proj": "fc1",
        "down_proj": "fc2",
        "input_norm": "self_attn_layer_norm",
        "post_norm": "final_layer_norm",
    }
    layer = {ours: _module(state, f"{p}.{theirs}") for ours, theirs in names.items()}
    return layer | _attention(state, f"{p}.self_attn", "out_proj")


def _mamba(state: State, p: str, run: LayerRun) -> Layer:
    """Mamba and Mamba-2."""
    m = f"{p}.mixer"
    conv = _module(state, f"{m}.conv1d")
    conv["weight"] = conv["weight"][:, 0]
    owned = {"a_log": state[f"{m}.A_log"], "d": state[f"{m}.D"]}
    layer = {name: _module(state, f"{m}.{name}") for name in ("in_proj", "out_proj")}
    layer |= {"conv1d": conv, "input_norm": _module(state, f"{p}.norm")}
    if isinstance(run.mixer, Mamba2):
        layer["ssd_scan"] = owned | {"dt_bias": state[f"{m}.dt_bias"]}
        return layer | {"gated_rmsnorm": _module(state, f"{m}.norm")}
    projections = {name: _module(state, f"{m}.{name}") for name in ("x_proj", "dt_proj")}
    return layer | projections | {"selective_scan": owned}


_LAYERS: dict[str, tuple[str, Callable[[State, str, LayerRun], Layer]]] = {
    **dict.fromkeys(
        ("llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "qwen2_moe", "deepseek_v2", "deepseek_v3"),
        ("model.layers", _llama),
    ),
    "gpt2": ("transformer.h", _gpt2),
    "gpt_neox": ("gpt_neox.layers", _gpt_neox),
    "opt": ("model.decoder.layers", _opt),
    "mamba": ("backbone.layers", _mamba),
    "mamba2": ("backbone.layers", _mamba),
}

_ENDS = {
    "embedding": (
        "model.embed_tokens",
        "transformer.wte",
        "gpt_neox.embed_in",
        "model.decoder.embed_tokens",
        "backbone.embeddings",
    ),
    "position_embedding": ("transformer.wpe", "model.decoder.embed_positions"),
    "embedding_proj": ("model.decoder.project_in",),
    "head_proj": ("model.decoder.project_out",),
    "final_norm": (
        "model.norm",
        "transformer.ln_f",
        "gpt_neox.final_layer_norm",
        "model.decoder.final_layer_norm",
        "backbone.norm_f",
    ),
    "lm_head": ("lm_head", "embed_out"),
}
"""Our nodes before and after the layers, and what models call them."""


def named_weights(spec: ArchitectureSpec, model_type: str, state: State) -> dict[str, dict[str, Any]]:
    """The arrays of *state* under the unfolded names of the nodes of *spec*.

    Raises:
        UnsupportedError: a family that is not mapped.
    """
    if model_type not in _LAYERS:
        raise UnsupportedError(f"no map of weights for {model_type!r}; there is one for {', '.join(_LAYERS)}")
    where, make = _LAYERS[model_type]
    out: dict[str, dict[str, Any]] = {}
    for ours, theirs in _ENDS.items():
        for name in theirs:
            found = _module(state, name)
            if found:
                out[ours] = found
    if spec.tied_embeddings:
        out.setdefault("lm_head", {"weight": out["embedding"]["weight"]})
    if spec.position_offset:
        out["position_embedding"]["offset"] = spec.position_offset
    for index, (path, run) in enumerate(zip(layer_paths(spec), layer_specs(spec), strict=True)):
        for node, arrays in make(state, f"{where}.{index}", run).items():
            if arrays:
                out[path + node] = arrays
    return out

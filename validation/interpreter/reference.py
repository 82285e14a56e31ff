"""Small ``transformers`` models with random weights, run in double precision: the judges of the interpreter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from effsim.importers.huggingface import from_config
from effsim.spec.architecture import ArchitectureSpec

from .call import Constants
from .packed import Packed

_BASE = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 3, "max_position_embeddings": 64}
# The tiny number under a norm's root is not tiny here, so that its value and its place show in the results.
_HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}


@dataclass(frozen=True, slots=True)
class Case:
    """A small model: its ``transformers`` type, the keys of its configuration, and our constants for it.

    ``stored``: type and group size in which the projections of its layers are kept.
    """

    name: str
    model_type: str
    config: dict[str, Any]
    constants: Constants = field(default_factory=Constants)
    prompt: int = 11
    generated: int = 5
    stored: tuple[str, int] = ("", 0)


CASES: tuple[Case, ...] = (
    Case(
        "llama",
        "llama",
        {**_BASE, **_HEADS, "intermediate_size": 48, "head_dim": 12, "rms_norm_eps": 0.02, "rope_theta": 500.0},
        Constants(norm_eps=0.02, rope_base=500.0),
    ),
    Case(
        "llama, int4 weights in groups of 8",
        "llama",
        {**_BASE, **_HEADS, "intermediate_size": 48, "head_dim": 12, "rms_norm_eps": 0.02, "rope_theta": 500.0},
        Constants(norm_eps=0.02, rope_base=500.0),
        stored=("int4", 8),
    ),
    Case(
        "mixtral",
        "mixtral",
        {
            **_BASE,
            **_HEADS,
            "intermediate_size": 40,
            "num_local_experts": 5,
            "num_experts_per_tok": 2,
            "rms_norm_eps": 0.02,
        },
        Constants(norm_eps=0.02, rope_base=1e6),
    ),
    Case(
        "mamba",
        "mamba",
        {
            **_BASE,
            "state_size": 6,
            "expand": 2,
            "time_step_rank": 3,
            "conv_kernel": 4,
            "tie_word_embeddings": True,
            "layer_norm_epsilon": 0.02,
        },
        Constants(norm_eps=0.02),
    ),
    Case(
        "mamba2",
        "mamba2",
        {
            **_BASE,
            **{"state_size": 8, "expand": 2, "num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 4},
            **{"tie_word_embeddings": False, "layer_norm_epsilon": 0.02},
        },
        Constants(norm_eps=0.02, gated_norm_parts=2),
    ),
    Case(
        "mistral (window)",
        "mistral",
        {**_BASE, **_HEADS, "intermediate_size": 48, "sliding_window": 6},
        Constants(norm_eps=1e-6),
    ),
    Case(
        "qwen3 (query and key norms)",
        "qwen3",
        {**_BASE, **_HEADS, "intermediate_size": 48, "head_dim": 16, "rms_norm_eps": 1e-6},
        Constants(norm_eps=1e-6),
    ),
    Case(
        "deepseek_v2 (latent attention, shared experts)",
        "deepseek_v2",
        {
            **_BASE,
            **{"num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 48, "q_lora_rank": 20},
            **{"kv_lora_rank": 12, "qk_nope_head_dim": 10, "qk_rope_head_dim": 4, "v_head_dim": 6},
            **{"n_routed_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_shared_experts": 2},
            **{"first_k_dense_replace": 1, "topk_method": "greedy", "norm_topk_prob": False},
            "routed_scaling_factor": 1.5,
        },
        Constants(norm_eps=1e-6, rope_style="interleaved", renormalize=False, routed_scale=1.5),
    ),
    Case(
        "qwen2_moe (gated shared expert)",
        "qwen2_moe",
        {
            **_BASE,
            **_HEADS,
            **{"intermediate_size": 48, "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
            **{"shared_expert_intermediate_size": 24, "norm_topk_prob": False},
        },
        Constants(norm_eps=1e-6, renormalize=False),
    ),
    Case(
        "gpt2 (learned positions)",
        "gpt2",
        {"vocab_size": 61, "n_embd": 32, "n_head": 4, "n_layer": 3, "n_positions": 64},
        Constants(norm_eps=1e-5),
    ),
    Case(
        "gpt_neox (parallel parts)",
        "gpt_neox",
        {**_BASE, "num_attention_heads": 4, "intermediate_size": 64, "rotary_pct": 0.5, "layer_norm_eps": 1e-5},
        Constants(norm_eps=1e-5),
    ),
    Case(
        "opt (norms behind the residuals)",
        "opt",
        {
            **_BASE,
            **{"num_attention_heads": 4, "ffn_dim": 48, "word_embed_proj_dim": 16, "do_layer_norm_before": False},
        },
        Constants(norm_eps=1e-5),
    ),
)
"""The first four are those that must be there; the others reach the remaining layouts and operators."""


def library() -> Any:
    """``transformers``, without its advice on the standard error stream."""
    import transformers

    quiet: Any = transformers.logging
    quiet.set_verbosity_error()
    return transformers


@contextmanager
def double_precision() -> Iterator[None]:
    """Whatever asks for float32 inside gets float64: some modules widen to float32 whatever they are given."""
    import torch
    from torch.overrides import TorchFunctionMode

    class Double(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            wide = {torch.float32: torch.float64}
            named = {key: _swap(value, wide) for key, value in (kwargs or {}).items()}
            if func is torch.Tensor.float:
                return args[0].double()
            return func(*(_swap(arg, wide) for arg in args), **named)

    with Double():
        yield


def _swap(value: Any, wide: dict[Any, Any]) -> Any:
    import torch

    return wide.get(value, value) if isinstance(value, torch.dtype) else value


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread: the small products here cost less than waking others."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(slots=True)
class Reference:
    """A small model with weights: what the interpreter is compared with."""

    case: Case
    model: Any
    spec: ArchitectureSpec
    tokens: npt.NDArray[np.int64]

    @classmethod
    def build(cls, case: Case, seed: int = 0, batch: int = 2) -> Reference:
        """The model with random weights, biases and norm scales, all of the size that keeps activations near 1."""
        import torch

        transformers = library()
        config = transformers.AutoConfig.for_model(case.model_type, **case.config)
        config._attn_implementation = config._experts_implementation = "eager"
        generator = torch.Generator().manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config).double().eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                _fill(name, parameter, generator)
                if case.stored[0] and name.endswith("_proj.weight"):
                    packed = Packed.of(parameter.float().numpy(), *case.stored)
                    parameter.copy_(torch.from_numpy(packed.unpacked()))
        ids = np.random.default_rng(seed).integers(0, 61, (batch, case.prompt + case.generated))
        given = {"model_type": case.model_type, **case.config}
        spec = from_config({**config.to_dict(), **given}, name=case.name)
        return cls(case, model, spec, ids)

    def state(self) -> dict[str, npt.NDArray[np.float64]]:
        """Arrays by the model's names."""
        return {name: tensor.double().numpy() for name, tensor in self.model.state_dict().items()}

    def run(self, perturb: float = 0.0, at: int = -1) -> npt.NDArray[np.float64]:
        """Logits of every token, [batch, length, vocabulary]: the prompt at once, then token by token with a cache.

        With *perturb*, what enters layer *at* is changed by relative noise of that size.
        """
        import torch

        case, hooks = self.case, []
        if perturb:
            hooks.append(self._layers()[at].register_forward_pre_hook(_noise(perturb)))
        ids, out, cache = torch.from_numpy(self.tokens), [], None
        key = "cache_params" if case.model_type in ("mamba", "mamba2") else "past_key_values"
        with torch.no_grad(), double_precision():
            for first, last in cuts(case):
                made = self.model(ids[:, first:last], use_cache=True, **{key: cache})
                cache = made[key]
                out.append(made.logits.numpy())
        for hook in hooks:
            hook.remove()
        return np.concatenate(out, axis=1)

    def _layers(self) -> Any:
        base = self.model.base_model
        base = getattr(base, "decoder", base)
        return base.h if hasattr(base, "h") else base.layers

    def growth(self, size: float = 1e-7) -> float:
        """Largest factor by which relative noise on what enters a layer grows on its way to the logits."""
        clean = self.run()
        worst = max(row_error(self.run(size, at), clean) for at in range(len(self._layers())))
        return max(1.0, worst / size)


def _fill(name: str, parameter: Any, generator: Any) -> None:
    import torch

    noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    if name.endswith("A_log"):
        parameter.copy_(0.5 * noise)
    elif name.endswith(("norm.weight", "layernorm.weight", "ln_1.weight", "ln_2.weight", "norm_f.weight", ".D")):
        parameter.copy_(1.0 + 0.2 * noise)
    elif parameter.ndim == 1:
        parameter.copy_(0.3 * noise)
    else:
        parameter.copy_(noise * parameter.shape[-1] ** -0.5)


def _noise(size: float) -> Any:
    import torch

    def change(module: Any, args: Any) -> Any:
        generator = torch.Generator().manual_seed(1)
        x = args[0]
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        scaled = noise / noise.norm(dim=-1, keepdim=True) * x.norm(dim=-1, keepdim=True)
        return (x + size * scaled, *args[1:])

    return change


def cuts(case: Case) -> list[tuple[int, int]]:
    """The prompt, then one token at a time."""
    return [(0, case.prompt), *((t, t + 1) for t in range(case.prompt, case.prompt + case.generated))]


def row_error(got: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> float:
    """Largest relative error of a row, in the Euclidean norm."""
    difference = np.linalg.norm(got.astype(np.float64) - wanted, axis=-1)
    return float((difference / np.linalg.norm(wanted, axis=-1)).max())

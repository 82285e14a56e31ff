"""Models of transformers, tiny and real, with the inputs and the step of our own that they are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import transformers as hf

from effsim.architectures.build import Step, build_graph
from effsim.graph.graph import Graph
from effsim.importers.huggingface import from_config
from effsim.importers.torch_export import from_module
from effsim.importers.traced_workload import Imported
from effsim.program.source import explicit_graph

TINY = {"num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100, "hidden_size": 64}
DECODER = TINY | {"intermediate_size": 176, "num_key_value_heads": 2}
ENCODER = TINY | {"intermediate_size": 128}


@dataclass(frozen=True)
class Family:
    """How a family is made and called."""

    config: type
    model: type
    tiny: dict[str, Any]
    real: dict[str, Any]


FAMILIES = {
    "llama": Family(hf.LlamaConfig, hf.LlamaForCausalLM, DECODER, {"hidden_size": 4096, "num_hidden_layers": 32}),
    "mixtral": Family(
        hf.MixtralConfig, hf.MixtralForCausalLM, DECODER | {"num_local_experts": 4}, {"num_hidden_layers": 32}
    ),
    "mamba2": Family(
        hf.Mamba2Config,
        hf.Mamba2ForCausalLM,
        {"hidden_size": 64, "num_heads": 8, "head_dim": 16, "state_size": 16, "n_groups": 2, "chunk_size": 8}
        | {"num_hidden_layers": 2, "vocab_size": 100},
        {"hidden_size": 2560, "num_heads": 80, "head_dim": 64, "n_groups": 1, "num_hidden_layers": 64},
    ),
    "vit": Family(
        hf.ViTConfig, hf.ViTForImageClassification, ENCODER | {"image_size": 32, "patch_size": 8}, {"num_labels": 1000}
    ),
    "bert": Family(hf.BertConfig, hf.BertModel, ENCODER, {}),
}


def build(name: str, *, real: bool = False, device: str = "meta", **more: Any) -> Any:
    """A model without weights (or with random ones, on cpu), in inference mode."""
    family = FAMILIES[name]
    config = family.config(**(family.real if real else family.tiny), **more)
    with torch.device(device):
        return family.model(config).eval()


def inputs(name: str, model: Any, batch: int, length: int, device: str = "meta") -> dict[str, Any]:
    """Arguments of one call: ids of ones, of which decoders make the logits of the last token."""
    with torch.device(device):
        if name == "vit":
            side = model.config.image_size
            return {"pixel_values": torch.zeros(batch, 3, side, side)}
        ids = torch.ones(batch, length, dtype=torch.long)
        if name == "bert":
            return {"input_ids": ids, "attention_mask": torch.ones(batch, length, dtype=torch.long)}
        last = {} if name == "mamba2" else {"logits_to_keep": 1}
        return {"input_ids": ids, "use_cache": False, **last}


def imported(model: Any, arguments: dict[str, Any]) -> Imported:
    """The workload of one call."""
    return from_module(model, (), arguments)


def graph_of(found: Imported) -> Graph:
    """The graph that the workload's YAML describes."""
    return explicit_graph(found.workload)


def own_graph(model: Any, batch: int, length: int, dtype: str = "fp32") -> Graph:
    """Our own architecture of the same configuration; no token is drawn."""
    spec = from_config(model.config.to_dict() | {"architectures": [type(model).__name__]})
    tokens = spec.patches.tokens if spec.patches is not None else length
    every = tokens if isinstance(model, hf.Mamba2ForCausalLM) else 1  # that class makes logits of all tokens
    return build_graph(spec, Step("context", batch, tokens, tokens, dtype, sampling=False, logit_tokens=every))


def matrix_flops(graph: Graph) -> float:
    """FLOPs of products."""
    return sum(node.op.arithmetic().matrix * count for _, node, count in graph.walk())

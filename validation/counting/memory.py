"""Activations that a training step keeps: what PyTorch saves for a backward pass against the activation model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from effsim.architectures.build import Step, build_graph
from effsim.graph.graph import Graph
from effsim.graph.operators import Attention, Embedding, Pointwise
from effsim.importers.huggingface import from_config
from effsim.program.training_memory import saved_activations
from effsim.transforms.training import TrainingPlan

from ..interpreter.reference import library

BATCH, LENGTH, WORD = 2, 40, 4.0

INDEX = 8.0
"""Bytes of PyTorch's token numbers; the model keeps 4."""

_LLAMA = {
    **{"vocab_size": 160, "hidden_size": 64, "intermediate_size": 112, "num_hidden_layers": 3},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16},
}
_GPT2 = {
    **{"vocab_size": 160, "n_embd": 64, "n_head": 4, "n_layer": 3, "n_positions": 64},
    **{"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
}


@dataclass(frozen=True, slots=True)
class MemoryCase:
    """A small model, and the form of its attention (``sdpa`` is fused, ``eager`` keeps the probabilities)."""

    name: str
    model_type: str
    attention: str
    config: dict[str, Any] = field(default_factory=dict)


MEMORY_CASES = (
    MemoryCase("Llama, fused attention", "llama", "sdpa", _LLAMA),
    MemoryCase("Llama, unfused attention", "llama", "eager", _LLAMA),
    MemoryCase("GPT-2, fused attention and GELU", "gpt2", "sdpa", _GPT2 | {"activation_function": "gelu_pytorch_tanh"}),
    MemoryCase("GPT-2, fused attention", "gpt2", "sdpa", _GPT2),
    MemoryCase("GPT-2, unfused attention", "gpt2", "eager", _GPT2),
)


@dataclass(frozen=True, slots=True)
class Kept:
    """One model: bytes that PyTorch saves, bytes that the activation model keeps, and what explains the difference."""

    model: str
    torch_bytes: float
    model_bytes: float
    differences: tuple[tuple[str, float], ...]

    @property
    def ratio(self) -> float:
        """Model over PyTorch."""
        return self.model_bytes / self.torch_bytes

    @property
    def unexplained(self) -> float:
        """Bytes that no rule explains."""
        return self.torch_bytes - self.model_bytes - sum(size for _, size in self.differences)


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """All models."""

    rows: tuple[Kept, ...]

    def failures(self) -> list[str]:
        """A line for every model with bytes that nothing explains."""
        return [f"{r.model}: {r.unexplained:+.0f} saved bytes unexplained" for r in self.rows if r.unexplained]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        rows = [asdict(r) | {"ratio": r.ratio, "unexplained": r.unexplained} for r in self.rows]
        return {"rows": rows, "failures": self.failures()}

    def markdown(self) -> str:
        """A table, and what explains each difference."""
        lines = ["| model | PyTorch saves | the model keeps | ratio | explained | unexplained |", "|" + "---|" * 6]
        for r in self.rows:
            sizes = f"{r.torch_bytes:,.0f} | {r.model_bytes:,.0f} | {r.ratio:.3f}"
            explained = "; ".join(f"{rule} {size:+,.0f}" for rule, size in r.differences)
            lines.append(f"| {r.model} | {sizes} | {explained} | {r.unexplained:+,.0f} |")
        return "\n".join(lines)


def saved_by_torch(case: MemoryCase) -> float:
    """Bytes of the distinct storages that a forward pass with a loss saves; parameters and buffers left out."""
    import torch

    transformers = library()
    config = transformers.AutoConfig.for_model(case.model_type, **case.config)
    config._attn_implementation = case.attention
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).train()
    resident = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
    saved: dict[int, Any] = {}

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in resident:
            saved[storage.data_ptr()] = tensor  # held, so that no other tensor can get its address
        return tensor

    ids = torch.randint(0, case.config["vocab_size"], (BATCH, LENGTH))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(ids, labels=ids, use_cache=False)
    return float(sum(tensor.untyped_storage().nbytes() for tensor in saved.values()))


def eager_extras(graph: Graph, case: MemoryCase) -> dict[str, float]:
    """What eager PyTorch keeps beyond one fused kernel an operator, by rule.

    A norm in one kernel keeps its input alone (and recomputes its statistics); PyTorch keeps mean and deviation, and
    the RMS norm written in Python also the normalised rows. Activations written as several kernels keep what is between
    them: SiLU(gate) beside gate and up; 0.5·x, the tanh and 1 + tanh beside x. Unfused attention repeats grouped keys
    and values for every query head. Token numbers take 8 B and not 4, labels are kept too.
    """
    fused_gelu = case.config.get("activation_function") == "gelu_pytorch_tanh"
    out: dict[str, float] = {}

    def add(rule: str, size: float) -> None:
        if size:
            out[rule] = out.get(rule, 0.0) + size

    for _, node, count in graph.walk():
        op = node.op
        if isinstance(op, Pointwise):
            statistics = {"rmsnorm": 1, "layernorm": 2}.get(op.op, 0)
            add("statistics of norms", statistics * op.rows * WORD * count)
            between = {"rmsnorm": ("normalised rows", 1), "silu_mul": ("SiLU of the gate", 1)}
            if not fused_gelu:
                between["gelu_tanh"] = ("inner results of GELU", 3)
            if op.op in between:
                rule, copies = between[op.op]
                add(rule, copies * op.elements * WORD * count)
            if op.op == "rope":
                out["tables of the rotary angles"] = 2.0 * LENGTH * case.config["head_dim"] * WORD
        elif isinstance(op, Attention) and not op.fused:
            width = (op.heads - op.kv_heads) * (op.head_dim + op.v_dim)
            add("repeated keys and values", op.batch * op.kv_len * width * WORD * count)
        elif isinstance(op, Embedding):
            # One row of positions serves all sequences.
            rows = LENGTH if node.name == "position_embedding" else op.tokens
            add("wide token numbers, labels", rows * INDEX - op.saved_bytes)
    add("wide token numbers, labels", BATCH * LENGTH * INDEX + WORD)  # the loss keeps its labels and its weight
    return out


def validate_memory(cases: Sequence[MemoryCase] = MEMORY_CASES) -> MemoryReport:
    """Saved activations of small models against the activation model."""
    rows = []
    for case in cases:
        spec = from_config({**case.config, "model_type": case.model_type}, name=case.name)
        step = Step("training", BATCH, LENGTH, LENGTH, "fp32", fused_attention=case.attention != "eager")
        graph = build_graph(spec, step)
        kept = saved_activations(graph, TrainingPlan())
        rows.append(Kept(case.name, saved_by_torch(case), kept, tuple(eager_extras(graph, case).items())))
    return MemoryReport(tuple(rows))

"""Parameters and FLOPs of the bundled architectures against ``transformers`` on PyTorch's meta device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from effsim.architectures.build import Step, build_graph, parameter_count
from effsim.errors import EffsimError
from effsim.importers.huggingface import from_config, load_architecture
from effsim.spec.architecture import ArchitectureSpec, LayerRun
from effsim.spec.catalogue import names

from ..interpreter.reference import library
from ..interpreter.weights import layer_specs
from .configs import config_keys, model_type
from .rules import Difference, differences, matrix_flops

BATCH, PROMPT = 2, 24
"""Sequences and tokens of the counted forward pass; a decode step follows it."""

FAST = {"llama3_8b": 2, "mixtral_8x7b": 2, "mamba2_130m": 2, "deepseek_v2_lite": 2, "gpt2": 2, "qwen3_next_80b_a3b": 4}
"""A small set with how many layers of each: grouped keys, experts, scans, latent attention, learned positions."""

_RECURRENT = ("mamba", "mamba2", "falcon_mamba")
"""Families whose cache argument has another name."""

BUFFERS = ("e_score_correction_bias",)
"""Learned numbers that ``transformers`` keeps in buffers: it does not count them as parameters, the graph does."""


@dataclass(frozen=True, slots=True)
class Counted:
    """One forward pass (or, with ``phase`` parameters, the parameter count) of one architecture.

    ``unexplained`` = torch − graph − the sum of the differences that rules give.
    """

    architecture: str
    family: str
    phase: str
    torch: float
    graph: float
    differences: tuple[Difference, ...] = ()
    problem: str = ""

    @property
    def unexplained(self) -> float:
        """What no rule explains; sums of routing probabilities in the graph round at 1e-16 of the total."""
        left = self.torch - self.graph - sum(d.flops for d in self.differences)
        return 0.0 if abs(left) <= 1e-14 * self.torch else left

    def complaint(self) -> str:
        """What is wrong, in a line."""
        head = f"{self.architecture}, {self.phase}"
        if self.problem:
            return f"{head}: {self.problem}"
        return f"{head}: torch counts {self.torch:.0f}, the graph {self.graph:.0f}; {self.unexplained:+.0f} unexplained"


@dataclass(frozen=True, slots=True)
class CountingReport:
    """All architectures."""

    rows: tuple[Counted, ...]

    def failures(self) -> list[str]:
        """A line for every count that rules do not explain."""
        return [row.complaint() for row in self.rows if row.problem or row.unexplained]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        rows = [asdict(row) | {"unexplained": row.unexplained} for row in self.rows]
        return {"rows": rows, "failures": self.failures()}

    def markdown(self) -> str:
        """A table a count, and the rules behind the differences."""
        lines = ["| architecture | family | counted | torch | graph | explained | unexplained |", "|" + "---|" * 7]
        rules: dict[str, int] = {}
        for r in self.rows:
            explained = sum(d.flops for d in r.differences)
            for d in r.differences:
                rules[d.rule] = rules.get(d.rule, 0) + 1
            numbers = f"{r.torch:,.0f} | {r.graph:,.0f} | {explained:+,.0f} | {r.unexplained:+,.0f}"
            lines.append(f"| {r.architecture} | {r.family} | {r.phase} | {r.problem or numbers} |")
        return "\n".join([*lines, "", *(f"* {rule}: {count} rows" for rule, count in rules.items())])


def shortened(spec: ArchitectureSpec, layers: int) -> ArchitectureSpec:
    """The first *layers* layers of a model."""
    kept = [run.model_copy(update={"repeat": 1, "name": None}) for run in layer_specs(spec)[:layers]]
    return spec.model_copy(update={"layers": kept})


def count(name: str, layers: int = 0) -> list[Counted]:
    """Parameters, prompt and decode step of a bundled architecture (its first *layers* layers if given)."""
    spec = load_architecture(name)
    family = model_type(name)
    if layers:
        spec = shortened(spec, layers)
    try:
        return against(name, spec, measure(spec, family))
    except (EffsimError, RuntimeError, ValueError, TypeError) as error:
        problem = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        return [Counted(name, family, "forward", 0.0, 0.0, (), problem)]


@dataclass(frozen=True, slots=True)
class Torch:
    """What PyTorch counts of a configuration: parameters, learned buffers, FLOPs of a prompt and of a decode step."""

    config: dict[str, Any]
    parameters: float
    buffers: float
    prompt: float
    decode: float


def measure(spec: ArchitectureSpec, family: str) -> Torch:
    """Instantiate *spec* on the meta device and count."""
    import torch

    transformers = library()
    config = transformers.AutoConfig.for_model(family, **config_keys(spec, family))
    # Gathered experts are one product an assignment; the other forms look at the routing, which a meta tensor has not.
    config._attn_implementation, config._experts_implementation = "eager", "batched_mm"
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
        prompt, decode = _forwards(model, family)
    parameters = float(sum(p.numel() for p in model.parameters()))
    buffers = float(sum(b.numel() for name, b in model.named_buffers() if name.endswith(BUFFERS)))
    return Torch({**config.to_dict(), "model_type": family}, parameters, buffers, prompt, decode)


def against(name: str, spec: ArchitectureSpec, torch: Torch) -> list[Counted]:
    """The graphs of *spec* beside what PyTorch counted."""
    family = model_type(name)
    lost = _lost(spec, from_config(torch.config))
    if lost:
        return [Counted(name, family, "forward", 0.0, 0.0, (), f"the configuration does not give back layer {lost}")]
    rule = "selection biases of the router are buffers, not parameters"
    held = (Difference(rule, -torch.buffers),) if torch.buffers else ()
    rows = [Counted(name, family, "parameters", torch.parameters, float(parameter_count(spec)), held)]
    steps = (
        ("prompt", torch.prompt, Step("context", BATCH, PROMPT, PROMPT, logit_tokens=PROMPT, sampling=False)),
        ("decode", torch.decode, Step("generation", BATCH, 1, PROMPT + 1, sampling=False)),
    )
    for phase, flops, step in steps:
        graph = build_graph(spec, step)
        rows.append(Counted(name, family, phase, flops, matrix_flops(graph), differences(graph)))
    return rows


def _lost(spec: ArchitectureSpec, back: ArchitectureSpec) -> str:
    """Which layer the configuration does not give back as it was; empty if all are."""
    ours, theirs = layer_specs(spec), layer_specs(back)
    same: list[tuple[LayerRun, LayerRun]] = list(zip(ours, theirs, strict=False))
    differing = [i for i, (a, b) in enumerate(same) if (a.mixer, a.ffn, a.shared) != (b.mixer, b.ffn, b.shared)]
    if len(ours) != len(theirs):
        return f"{len(theirs)} of {len(ours)}"
    return str(differing[0]) if differing else ""


def _forwards(model: Any, family: str) -> tuple[float, float]:
    """FLOPs of a prompt, and of the decode step behind it."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    ids = torch.zeros(BATCH, PROMPT, dtype=torch.long)
    key = "cache_params" if family in _RECURRENT else "past_key_values"
    with torch.no_grad():
        with FlopCounterMode(display=False) as prompt:
            cache = model(ids, use_cache=True)[key]
        with FlopCounterMode(display=False) as decode:
            model(ids[:, :1], use_cache=True, **{key: cache})
    return float(prompt.get_total_flops()), float(decode.get_total_flops())


def decoders() -> tuple[str, ...]:
    """Bundled architectures that make tokens."""
    return tuple(name for name in names("architectures") if not load_architecture(name).encoder)


def validate_counting(architectures: Sequence[str] = (), *, fast: bool = False) -> CountingReport:
    """Count every bundled architecture (or those named); ``fast``: :data:`FAST` with few layers of each.

    Encoders are left out: their imported graphs are compared in the importers' tests.

    Takes about 3 s of CPU time an architecture in full.
    """
    chosen = tuple(architectures) or (tuple(FAST) if fast else decoders())
    rows = [row for name in chosen for row in count(name, FAST.get(name, 2) if fast else 0)]
    return CountingReport(tuple(rows))

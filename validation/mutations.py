"""Formulas broken one at a time, to see that a check notices: ``python -m effsim.validation.mutations``.

Each mutation replaces one function, constant or property of the simulator or of its functional models while the checks
run. The judges (what ``transformers`` computes, counts and saves) are taken once, from the unbroken program: they do
not depend on it. A mutation that no check notices means that a check is missing.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import numpy as np

from effsim.architectures import attention as build_attention
from effsim.architectures import build
from effsim.errors import EffsimError
from effsim.graph.graph import Node
from effsim.graph.operator import Arithmetic
from effsim.graph.operators import attention as attention_ops
from effsim.graph.operators import linear as linear_ops
from effsim.graph.operators import moe as moe_ops
from effsim.graph.operators import scan as scan_ops
from effsim.graph.operators.convolution import CausalConv1d
from effsim.importers.huggingface import load_architecture
from effsim.models import activation, attention, conv, moe, norm, rope, rounding, scan, ssd

from .counting import flops, memory
from .counting.configs import model_type
from .interpreter import report
from .interpreter.reference import CASES

Replacement = Callable[[Any], Any]
"""The broken form, made from the sound one."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """One broken formula: what it is called, where it lives, and what takes its place."""

    name: str
    owner: Any
    attribute: str
    broken: Replacement

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The program with this formula broken."""
        sound = (
            self.owner.__dict__[self.attribute] if isinstance(self.owner, type) else getattr(self.owner, self.attribute)
        )
        with patch.object(self.owner, self.attribute, self.broken(sound)):
            yield


def _prop(change: Callable[[Any, Any], Any]) -> Replacement:
    """A property whose value *change* makes of the object and the sound value."""
    return lambda sound: property(lambda self: change(self, sound.fget(self)))


def _after(change: Callable[..., Any]) -> Replacement:
    """A function whose result *change* makes of the sound result and the arguments."""
    return lambda sound: lambda *args, **kwargs: change(sound(*args, **kwargs), *args, **kwargs)


def _without(name: str) -> Replacement:
    """A function that ignores one keyword."""
    return lambda sound: lambda *args, **kwargs: sound(*args, **{k: v for k, v in kwargs.items() if k != name})


def _with(**forced: Any) -> Replacement:
    """A function with keywords forced."""
    return lambda sound: lambda *args, **kwargs: sound(*args, **{**kwargs, **forced})


def _no_carry(sound: Callable[..., Any]) -> Callable[..., Any]:
    """A chunked scan whose chunks all start from the state before the first."""

    def broken(x: Any, dt: Any, a: Any, b: Any, c: Any, *, chunk: int | None = None, **more: Any) -> Any:
        if chunk is None:
            return sound(x, dt, a, b, c, chunk=chunk, **more)
        cuts = range(0, x.shape[1], chunk)
        parts = [
            sound(*(v[:, i : i + chunk] for v in (x, dt)), a, *(v[:, i : i + chunk] for v in (b, c)), **more)
            for i in cuts
        ]
        return ssd.SsdResult(np.concatenate([p.y for p in parts], axis=1), parts[-1].state)

    return broken


def _later_queries(sound: Callable[..., Any]) -> Callable[..., Any]:
    """A mask that is one key too generous."""
    return lambda *args, q_start, **more: sound(*args, q_start=np.asarray(q_start) + 1, **more)


def _fewer_appended(sound: Callable[..., Node]) -> Callable[..., Node]:
    def broken(*args: Any, **kwargs: Any) -> Node:
        node = sound(*args, **kwargs)
        op: Any = node.op
        return dataclasses.replace(node, op=dataclasses.replace(op, tokens=max(1, op.tokens - 1)))

    return broken


def _narrow_latent(sound: property) -> property:
    """Absorbed latent attention that forgets the rotary part of its keys."""

    def broken(self: Any) -> Any:
        found = sound.fget(self)  # type: ignore[misc]
        return dataclasses.replace(found, head_dim=self.kv_lora_rank) if self.phase == "generation" else found

    return property(broken)


def _forgotten_output(sound: Callable[..., list[Node]]) -> Callable[..., list[Node]]:
    def broken(*args: Any, **kwargs: Any) -> list[Node]:
        nodes = sound(*args, **kwargs)
        last = nodes[-1]
        return [*nodes[:-2], dataclasses.replace(nodes[-2], outputs=last.outputs)]

    return broken


def _equal_shares(routing: Any, *args: Any, **kwargs: Any) -> Any:
    return moe.Routing(routing.experts, np.full_like(routing.weights, 1.0 / routing.weights.shape[1]))


def _per_head_scores(result: Arithmetic, op: Any) -> Arithmetic:
    """C·Bᵀ once a head where the heads of a group share it."""
    if op.recurrent:
        return result
    extra = 2.0 * op.batch * op.length * op.block * op.state * (op.heads - op.groups)
    return dataclasses.replace(result, matrix=result.matrix + extra)


def _more_scores(result: Arithmetic, op: Any) -> Arithmetic:
    if op.recurrent:
        return result
    extra = 2.0 * op.batch * op.heads * op.chunks * op.block**2 * op.value_dim
    return dataclasses.replace(result, matrix=result.matrix + extra)


MUTATIONS: tuple[Mutation, ...] = (
    Mutation(
        "GQA traffic: keys and values once a query head",
        attention_ops.Attention,
        "kv_bytes",
        _prop(lambda self, bytes_: bytes_ * self.heads / self.kv_heads),
    ),
    Mutation("KV cache: the window does not bound it", attention_ops.Attention, "cache_bytes",
             _prop(lambda self, bytes_: float(self.batch) * self.kv_len * self.kv_heads * self.kv_width * 4.0)),
    Mutation("int4 weights without their scales", linear_ops, "SCALE_BYTES", lambda sound: 0.0),
    Mutation("int4 codes with the scales of their neighbours", rounding, "dequantize_groups",
             lambda sound: lambda q: sound(dataclasses.replace(q, scales=np.roll(q.scales, 1, axis=1)))),
    Mutation("SSD: no state carried between chunks", ssd, "ssd_scan", _no_carry),
    Mutation("SSD: C·Bᵀ counted once a head", scan_ops.SSDScan, "arithmetic", _after(_per_head_scores)),
    Mutation("gated delta: scores times values counted twice", scan_ops.GatedDelta, "arithmetic",
             _after(_more_scores)),
    Mutation("selective scan: no state kept between steps", scan, "selective_scan", _without("state")),
    Mutation("selective scan: state in 16 bits", scan_ops.SelectiveScan, "state_bytes",
             _prop(lambda self, bytes_: bytes_ / 2)),
    Mutation("RoPE base doubled", rope, "rotary_frequencies",
             lambda sound: lambda dim, base=10_000.0: sound(dim, 2 * base)),
    Mutation("RoPE halves turned the other way", rope, "rope",
             lambda sound: lambda x, positions, **more: sound(x, -np.asarray(positions), **more)),
    Mutation("causal mask off by one key, in the model", attention, "attention_partial", _later_queries),
    Mutation("causal mask off by one key, in the count", attention_ops, "attended_pairs",
             _after(lambda pairs, q_len, kv_len, causal, window: pairs + (q_len - 1 if causal else 0))),
    Mutation("attention scale of the value width", attention, "_scale_of",
             lambda sound: lambda scale, dim: sound(scale, 2 * dim)),
    Mutation("KV append one token short", build_attention, "_append", _fewer_appended),
    Mutation("output projection of attention forgotten", build, "attention", _forgotten_output),
    Mutation("MoE: shares of the chosen experts not normalised", moe, "route", _with(renormalize=False)),
    Mutation("MoE: all chosen experts weigh the same", moe, "route", _after(_equal_shares)),
    Mutation("MoE: one assignment too many", moe_ops.Experts, "assignments",
             _prop(lambda self, rows: rows + self.tokens)),
    Mutation("MoE: two matrices of an expert counted", moe_ops.Experts, "matrices", _prop(lambda self, m: m - 1)),
    Mutation("MLA: rotary part of the absorbed keys forgotten", attention_ops.LatentAttention, "equivalent",
             _narrow_latent),
    Mutation("MLA: cache as wide as the rank alone", attention_ops.LatentAttention, "cache_bytes",
             _prop(lambda self, bytes_: bytes_ * self.kv_lora_rank / (self.kv_lora_rank + self.rope_dim))),
    Mutation("conv1d: no state kept between steps", conv, "causal_conv1d", _without("state")),
    Mutation("conv1d: no bias among the parameters", CausalConv1d, "parameters",
             _prop(lambda self, count: self.channels * self.kernel)),
    Mutation("norm: epsilon outside the root", norm, "_inverse_root",
             lambda sound: lambda mean, eps: (1.0 / (np.sqrt(mean) + eps)).astype(np.float32)),
    Mutation("SwiGLU: the gate cut off below zero", activation, "silu",
             lambda sound: lambda x: np.asarray(x, np.float32) * (sound(x) > 0)),
    Mutation("saved activations: values forgotten", attention_ops.Attention, "saved_bytes",
             _prop(lambda self, size: size - self.kv_bytes / 2)),
)  # fmt: skip
"""Every formula is one line; the checks that must notice are below."""


@dataclass(slots=True)
class Judges:
    """What PyTorch computes, counts and saves: taken once."""

    interpreted: list[report.Judge] = field(default_factory=list)
    counted: dict[str, tuple[Any, flops.Torch]] = field(default_factory=dict)
    saved: dict[str, float] = field(default_factory=dict)

    @classmethod
    def take(cls) -> Judges:
        """Run PyTorch on every small model, and count the fast set of architectures."""
        counted = {}
        for name, layers in flops.FAST.items():
            spec = flops.shortened(load_architecture(name), layers)
            counted[name] = (spec, flops.measure(spec, model_type(name)))
        saved = {case.name: memory.saved_by_torch(case) for case in memory.MEMORY_CASES}
        return cls([report.Judge.of(case) for case in CASES], counted, saved)

    def red(self) -> list[str]:
        """Checks that fail now."""
        out = [f"interpreter: {row.model}" for row in map(report.compare, self.interpreted) if not row.passed]
        for name, (spec, torch) in self.counted.items():
            try:
                rows = flops.against(name, spec, torch)
                out += [f"counting: {name}, {row.phase}" for row in rows if row.problem or row.unexplained]
            except (EffsimError, ValueError) as error:
                out.append(f"counting: {name} ({type(error).__name__})")
        with patch.object(memory, "saved_by_torch", lambda case: self.saved[case.name]):
            out += [f"memory: {line.split(':')[0]}" for line in memory.validate_memory().failures()]
        return out


@dataclass(frozen=True, slots=True)
class Noticed:
    """A mutation and the checks that turned red."""

    mutation: str
    red: tuple[str, ...]


def run_mutations(judges: Judges | None = None) -> list[Noticed]:
    """Apply every mutation and collect the checks that notice.

    Raises:
        AssertionError: a check is red without any mutation.
    """
    judges = judges or Judges.take()
    before = judges.red()
    assert not before, before
    out = []
    for mutation in MUTATIONS:
        with mutation.applied():
            out.append(Noticed(mutation.name, tuple(judges.red())))
    return out


def markdown(noticed: list[Noticed]) -> str:
    """A table: how many checks of each kind notice, and which one first."""
    kinds = ("interpreter", "counting", "memory")
    lines = [f"| broken formula | {' | '.join(kinds)} | the first that notices |", "|" + "---|" * 5]
    for row in noticed:
        counts = " | ".join(str(sum(check.startswith(kind) for check in row.red)) for kind in kinds)
        lines.append(f"| {row.mutation} | {counts} | {row.red[0] if row.red else '**nothing**'} |")
    return "\n".join(lines)


if __name__ == "__main__":
    found = run_mutations()
    print(markdown(found))
    sys.exit(0 if all(row.red for row in found) else 1)

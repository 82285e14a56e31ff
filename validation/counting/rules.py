"""What PyTorch multiplies that a graph does not count, and the other way round: computed rules, no tolerances.

:class:`torch.utils.flop_counter.FlopCounterMode` counts the matrix products and convolutions that PyTorch dispatches;
the graph's counterpart are the contractions on matrix units (``arithmetic().matrix``). They differ where the eager code
of ``transformers`` computes in another form than kernels do. Every rule below states both forms for one operator, from
its dimensions and not from its own count, so that a wrong count stays unexplained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from effsim.graph.graph import Graph
from effsim.graph.operator import ceil_div
from effsim.graph.operators import Attention, CausalConv1d, GatedDelta, LatentAttention, SelectiveScan, SSDScan

EAGER_DELTA_CHUNK = 64
"""Chunk to which the eager gated delta rule pads every prompt."""


@dataclass(frozen=True, slots=True)
class Difference:
    """FLOPs that PyTorch counts beyond the graph (negative: the graph counts them and PyTorch does not)."""

    rule: str
    flops: float


def matrix_flops(graph: Graph) -> float:
    """Contractions of a graph on matrix units."""
    return sum(node.op.arithmetic().matrix * count for _, node, count in graph.walk())


def _full_scores(op: Attention) -> float:
    """Eager attention computes every score and masks afterwards: q·kv pairs instead of those the mask lets through."""
    hidden = op.q_len * op.kv_len - visible_pairs(op.q_len, op.kv_len, op.causal, op.window)
    return 2.0 * op.batch * op.heads * hidden * (op.head_dim + op.v_dim)


def visible_pairs(q_len: int, kv_len: int, causal: bool, window: int) -> int:
    """(query, key) pairs that a mask lets through, query by query; the last query stands at the last key.

    >>> visible_pairs(4, 6, causal=True, window=3)
    12
    """
    seen = (kv_len - q_len + 1 + i if causal else kv_len for i in range(q_len))
    return sum(min(keys, window or keys) for keys in seen)


def _latent(op: LatentAttention) -> float:
    """Eager code never absorbs: a decode step expands all cached latents to keys and values and attends to those."""
    heads = float(op.batch) * op.heads
    if op.phase == "context":
        hidden = op.q_len * op.kv_len - visible_pairs(op.q_len, op.kv_len, op.causal, 0)
        return 2.0 * heads * hidden * (op.nope_dim + op.rope_dim + op.v_dim)
    width = op.kv_lora_rank * op.heads * (op.nope_dim + op.v_dim)
    expansion = 2.0 * op.batch * (op.kv_len - op.q_len) * width  # ours multiplies the new tokens by the same weights
    scores = 2.0 * heads * op.q_len * op.kv_len * (op.nope_dim + op.rope_dim + op.v_dim)
    pairs = visible_pairs(op.q_len, op.kv_len, op.causal, 0)
    return expansion + scores - 2.0 * heads * pairs * (2 * op.kv_lora_rank + op.rope_dim)


def _convolution(op: CausalConv1d) -> float:
    """A depthwise convolution is vector work here and a convolution there, on outputs that are partly thrown away.

    A prompt is padded on both sides (kernel − 1 outputs too many). A step runs over a state of ``kernel`` inputs and
    the new one: two outputs, of which the last is kept.
    """
    outputs = op.length + op.kernel - 1 if op.length > 1 else 2
    return 2.0 * op.batch * outputs * op.channels * op.kernel


def _selective(op: SelectiveScan) -> float:
    """The recurrence is element-wise in both, but PyTorch dispatches C·h as a matrix product."""
    return 2.0 * op.batch * op.length * op.channels * op.state


def _ssd(op: SSDScan) -> float:
    """Eager chunks are whole (prompts are padded), C·Bᵀ is repeated in every head, and chunk states meet in a product.

    With P padded tokens in c chunks of Q, H heads of width D and N states: 2·B·(P·Q·H·(N + D) + 2·P·H·N·D +
    (c + 1)²·H·N·D). A single step is a product of the state with C: 2·B·H·D·N.
    """
    inner = op.heads * op.head_dim * op.state
    if op.recurrent:
        return 2.0 * op.batch * inner
    chunks = ceil_div(op.length, op.chunk)
    padded = chunks * op.chunk
    inside = padded * op.chunk * op.heads * (op.state + op.head_dim)
    eager = inside + 2 * padded * inner + (chunks + 1) ** 2 * inner
    block = min(op.chunk, op.length)
    ours = op.length * (block * op.groups * op.state + block * op.heads * op.head_dim) + 2 * op.length * inner
    return 2.0 * op.batch * (eager - ours)


def _delta(op: GatedDelta) -> float:
    """Eager code pads to whole chunks and solves the triangular systems, which PyTorch does not count.

    Kernels multiply K and V by the inverse instead: 2·C²·(dk + dv) a chunk. A single step is element-wise in both.
    """
    if op.recurrent:
        return 0.0
    dk, dv = op.key_dim, op.value_dim

    def chunked(c: int, inverse: bool) -> float:
        applied = dk + dv if inverse else 0
        return ceil_div(op.length, c) * (2.0 * c * c * (2 * dk + dv + applied) + 6.0 * c * dk * dv)

    eager, ours = chunked(EAGER_DELTA_CHUNK, inverse=False), chunked(min(op.chunk, op.length), inverse=True)
    return op.batch * op.heads * (eager - ours)


_RULES: dict[type, tuple[str, Callable[[Any], float]]] = {
    Attention: ("eager attention computes masked scores too", _full_scores),
    LatentAttention: ("eager latent attention computes masked scores, and expands the cache every step", _latent),
    CausalConv1d: ("depthwise convolutions are dispatched as convolutions, padding included", _convolution),
    SelectiveScan: ("the scan's C·h is dispatched as a matrix product", _selective),
    SSDScan: ("the eager SSD scan pads to whole chunks and repeats C·Bᵀ in every head", _ssd),
    GatedDelta: ("the eager gated delta rule pads to whole chunks and solves triangular systems", _delta),
}


def differences(graph: Graph) -> tuple[Difference, ...]:
    """What PyTorch counts beyond *graph*, added up by rule; rules that give nothing are left out."""
    total: dict[str, float] = {}
    for rule, flops in _each(graph):
        total[rule] = total.get(rule, 0.0) + flops
    return tuple(Difference(rule, flops) for rule, flops in total.items() if flops)


def _each(graph: Graph) -> Iterator[tuple[str, float]]:
    for _, node, count in graph.walk():
        found = _RULES.get(type(node.op))
        if found is not None:
            rule, formula = found
            yield rule, formula(node.op) * count

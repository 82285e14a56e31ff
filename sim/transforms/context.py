"""Context parallelism: devices share the tokens of every sequence; attention fetches keys, or combines partial results.

*Prefill.* A rank works on ``q/c`` of the ``q`` new tokens, two chunks of ``q/2c``, the i-th and the (2c − 1 − i)-th of
the sequence, so that a causal mask leaves every rank the same number of pairs, a c-th of all (Llama 3,
arXiv:2407.21783). Before attention the keys and values are gathered (``all_gather``), or they go around (``ring``,
arXiv:2310.01889): in every step a rank attends to the keys it has while it sends them on; with chunks as above, a step
on the keys of another rank has ``q/c · q/2c`` pairs under a causal mask. The partial results are merged step by step.

*Decoding.* A rank holds a c-th of the cached keys of every sequence and attends to those alone. The logarithms of the
softmax sums are gathered, the partial results rescaled by them and added up over the ranks.

Weights are held whole on every context rank. What is sequential along the tokens (scans, convolutions) is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..errors import UnsupportedError
from ..graph.dtypes import size_of
from ..graph.graph import Graph, Item, Node, Repeat
from ..graph.operator import Operator, ceil_div
from ..graph.operators.attention import Attention, KVAppend, LatentAttention
from ..graph.operators.communication import Collective
from ..graph.operators.convolution import CausalConv1d, Conv2d, FFTConv
from ..graph.operators.linear import Linear
from ..graph.operators.pointwise import Pointwise
from ..graph.operators.scan import GatedDelta, SelectiveScan, SSDScan

SEQUENTIAL = (SelectiveScan, SSDScan, GatedDelta, CausalConv1d, Conv2d, FFTConv)
"""Operators whose result for a token needs the tokens (pixels) around it."""

LSE_BYTES = 4.0
"""Logarithm of a softmax sum, fp32, a query and head."""


@dataclass(frozen=True, slots=True)
class ContextRanks:
    """``ranks`` of them, ``stride`` apart; ``new_tokens`` of a sequence in all; ``ring`` instead of a gather."""

    ranks: int
    stride: int
    new_tokens: int
    ring: bool = False


def local_tokens(new_tokens: int, ranks: int) -> int:
    """New tokens of a sequence that one rank works on.

    >>> local_tokens(4096, 8), local_tokens(1, 8)
    (512, 1)
    """
    return ceil_div(new_tokens, ranks)


def context_parallel(graph: Graph, ranks: ContextRanks) -> Graph:
    """The graph of one context rank, after it was divided over tensor ranks.

    It was built for the rank's own new tokens (see :func:`local_tokens`) and all keys.

    Raises:
        UnsupportedError: the model is sequential along its tokens, or attention that cannot go around in a ring.
    """
    if ranks.ranks == 1:
        return graph
    return replace(graph, items=_items(graph.items, ranks))


def _items(items: tuple[Item, ...], ranks: ContextRanks) -> tuple[Item, ...]:
    out: list[Item] = []
    for item in items:
        if isinstance(item, Repeat):
            out.append(replace(item, body=_items(item.body, ranks)))
        elif isinstance(item.op, SEQUENTIAL):
            raise UnsupportedError(
                f"context parallelism: {item.name} ({item.op.kind}) is sequential along the tokens; use tensor, data "
                f"or pipeline parallelism"
            )
        elif isinstance(item.op, Attention | LatentAttention):
            gather, rest = _attention(item, item.op, ranks)
            # Latents are gathered before they are expanded to the keys of every head.
            expands = bool(out) and isinstance(item.op, LatentAttention) and _expands(out[-1], item.op)
            out[len(out) - expands : len(out) - expands] = gather
            out += rest
        elif isinstance(item.op, KVAppend) and ranks.new_tokens == 1:
            out.append(replace(item, op=replace(item.op, tokens=ceil_div(item.op.tokens, ranks.ranks))))
        else:
            out.append(item)
    return tuple(out)


def _expands(item: Item, op: LatentAttention) -> bool:
    return isinstance(item, Node) and isinstance(item.op, Linear) and item.op.m == op.batch * op.kv_len


def _attention(node: Node, op: Attention | LatentAttention, ranks: ContextRanks) -> tuple[list[Item], list[Item]]:
    """(what stands before keys are used, the rest)."""
    if op.phase == "generation":
        return [], _partial(node, op, ranks)
    if ranks.ring:
        return [], _ring(node, op, ranks)
    gather = Collective("all_gather", _key_bytes(op, ranks.new_tokens), ranks.ranks, ranks.stride, op.dtype)
    first: list[Item] = [Node(f"{node.name}_keys_all_gather", gather, phase=node.phase)]
    return first, _gathered(node, op, ranks)


def _key_bytes(op: Attention | LatentAttention, new_tokens: int) -> float:
    """Bytes of all keys and values of a layer on one tensor rank: new ones as computed, cached ones as stored."""
    stored = size_of(op.kv_dtype or op.dtype)
    width = op.kv_heads * op.kv_width if isinstance(op, Attention) else op.kv_lora_rank + op.rope_dim
    past = op.kv_len - new_tokens
    return float(op.batch) * width * (new_tokens * size_of(op.dtype) + past * stored)


def _gathered(node: Node, op: Attention | LatentAttention, ranks: ContextRanks) -> list[Item]:
    """Own queries against all keys: the first and the last chunk of the sequence, as its first rank has them."""
    share = 1.0 / ranks.ranks
    if not op.causal or op.q_len == 1:
        return [replace(node, op=replace(op, cache_share=share))]
    past, high = op.kv_len - ranks.new_tokens, op.q_len // 2
    low = op.q_len - high
    early = replace(op, q_len=low, kv_len=past + low, cache_share=0.0)
    late = replace(op, q_len=high, cache_share=share)
    return [replace(node, name=f"{node.name}_early", op=early), replace(node, op=late)]


def _ring(node: Node, op: Attention | LatentAttention, ranks: ContextRanks) -> list[Item]:
    if isinstance(op, LatentAttention) or op.window:
        what = "latent attention" if isinstance(op, LatentAttention) else "attention with a window"
        raise UnsupportedError(f"{node.name}: {what} does not go around in a ring; use context_exchange all_gather")
    c, past = ranks.ranks, ceil_div(op.kv_len - ranks.new_tokens, ranks.ranks)
    own = replace(op, kv_len=past + op.q_len) if op.causal else replace(op, kv_len=ceil_div(op.kv_len, c))
    met = past + ceil_div(op.q_len, 2) if op.causal else own.kv_len
    step = replace(op, kv_len=met, causal=False, cache_share=0.0)
    piece = _key_bytes(op, ranks.new_tokens) / c
    send = Collective("send_recv", piece, c, ranks.stride, op.dtype, beside=step)
    merge = Pointwise("mul", op.batch * op.q_len * op.heads, op.v_dim, "fp32")
    body = (
        Node("send", send, phase=node.phase),
        Node("attention", step, phase=node.phase),
        Node("merge", merge, phase=node.phase),
    )
    return [replace(node, op=own), Repeat(f"{node.name}_ring", body, c - 1)]


def _partial(node: Node, op: Attention | LatentAttention, ranks: ContextRanks) -> list[Item]:
    """Own keys only; then sums are gathered, partial results rescaled and added up."""
    own: Operator
    if isinstance(op, LatentAttention):
        width = op.kv_lora_rank
        own = replace(op, kv_len=max(op.q_len, ceil_div(op.kv_len, ranks.ranks)))
    else:
        width, seen = op.v_dim, op.keys_read
        own = replace(op, kv_len=max(op.q_len, ceil_div(seen, ranks.ranks)), window=0)
    rows = op.batch * op.q_len * op.heads
    sums = Collective("all_gather", ranks.ranks * rows * LSE_BYTES, ranks.ranks, ranks.stride, "fp32")
    total = Collective("all_reduce", float(rows) * width * size_of(op.dtype), ranks.ranks, ranks.stride, op.dtype)
    return [
        replace(node, op=own),
        Node(f"{node.name}_sums_all_gather", sums, phase=node.phase),
        Node(f"{node.name}_rescale", Pointwise("scale", rows, width, op.dtype), phase=node.phase),
        Node(f"{node.name}_combine_all_reduce", total, phase=node.phase),
    ]

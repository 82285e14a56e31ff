"""Activation recomputation: which operators run again in the backward pass, and what is then not kept.

``selective`` repeats the core of unfused attention (Korthikanti et al., arXiv:2205.05198). ``full`` repeats every block
from its input. ``alternate`` keeps, of a block, the results of attention, of reduce-scatters and of every other product
with weights (the first, third, …), and repeats the rest (torchtitan's policy by operator).
"""

from __future__ import annotations

from dataclasses import replace

from ..graph.dtypes import size_of
from ..graph.graph import Graph, Item, Node, Repeat
from ..graph.operators.attention import Attention, LatentAttention
from ..graph.operators.communication import Collective
from ..graph.operators.linear import Linear


def again(body: tuple[Item, ...], recompute: str, stops: bool) -> tuple[Item, ...]:
    """What a block runs once more before its backward pass.

    ``stops``: not beyond the last operator whose result the backward pass reads.
    """
    if recompute == "none":
        return ()
    if recompute == "selective":
        return tuple(_repeated(item) for item in _nodes(body) if _unfused(item))
    needed = _until_needed(body) if stops else body
    if recompute == "full":
        return tuple(_repeated(item) for item in needed)
    kept = kept_results(body)
    return tuple(_repeated(item) for item in needed if not (isinstance(item, Node) and id(item) in kept))


def _nodes(items: tuple[Item, ...]) -> list[Node]:
    out: list[Node] = []
    for item in items:
        out += _nodes(item.body) if isinstance(item, Repeat) else [item]
    return out


def _unfused(node: Node) -> bool:
    return isinstance(node.op, Attention) and not node.op.fused


def _repeated(item: Item) -> Item:
    if isinstance(item, Repeat):
        return replace(item, name=f"{item.name}_again", body=tuple(_repeated(i) for i in item.body))
    return replace(item, name=f"{item.name}_again", phase="backward")


def _until_needed(body: tuple[Item, ...]) -> tuple[Item, ...]:
    """The body without its end that makes nothing the backward pass reads.

    The last operator that keeps an input needs that input, not to run itself; results that are kept (probabilities,
    sums of exponentials) are made in the middle of a block, never at its end.
    """
    last = len(body)
    while last > 1 and isinstance(body[last - 1], Node) and not body[last - 1].op.saved_bytes:  # type: ignore[union-attr]
        last -= 1
    return body[: last - 1] if last > 1 and isinstance(body[last - 1], Node) else body[:last]


def kept_results(body: tuple[Item, ...]) -> set[int]:
    """Identities of the nodes of a block whose results ``alternate`` keeps."""
    kept, products = set[int](), 0
    for node in _nodes(body):
        op = node.op
        if isinstance(op, Linear):
            products += 1
            if products % 2:
                kept.add(id(node))
        elif isinstance(op, Attention | LatentAttention) or (isinstance(op, Collective) and op.op == "reduce_scatter"):
            kept.add(id(node))
    return kept


def saved_by_block(body: tuple[Item, ...], recompute: str) -> float:
    """Bytes of one block that stay from its forward pass until its backward pass."""
    nodes = [(node, count) for _, node, count in Graph("block", body).walk()]
    if recompute == "none":
        return sum(node.op.saved_bytes * count for node, count in nodes)
    if recompute == "selective":
        return sum((node.op.saved_bytes - _scores(node)) * count for node, count in nodes)
    total = block_input(body)
    if recompute == "alternate":
        kept = kept_results(body)
        for node, count in nodes:
            if id(node) in kept:
                total += (_result_bytes(node) + _row_sums(node)) * count
    return total


def block_input(body: tuple[Item, ...]) -> float:
    """Bytes of what enters a block: the residual stream, as its first operator reads it."""
    first = next((node for _, node, _ in Graph("block", body).walk() if not isinstance(node.op, Collective)), None)
    return first.op.input_bytes if first else 0.0


def _result_bytes(node: Node) -> float:
    return node.op.result_bytes if isinstance(node.op, Collective) else node.op.output_bytes


def _row_sums(node: Node) -> float:
    """Logarithms of the sums of exponentials that fused attention keeps beside its result, one fp32 a row and head."""
    op = node.op
    return 4.0 * op.batch * op.q_len * op.heads if isinstance(op, Attention) and op.fused else 0.0


def _scores(node: Node) -> float:
    """Bytes that unfused attention keeps of its scores, and that recomputing its core saves."""
    op = node.op
    if not isinstance(op, Attention) or op.fused:
        return 0.0
    return float(op.batch) * op.q_len * op.heads * op.kv_len * (size_of(op.dtype) + op.dropout_bytes)

"""The kernels that an engine has instead of today's: attention of the first engines, collectives, sampling."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..graph.dtypes import dtype
from ..graph.graph import Graph, Item, Node, Repeat
from ..graph.operators.attention import Attention, KVAppend
from ..graph.operators.communication import Collective
from ..graph.operators.embedding import Sampling
from ..graph.operators.linear import Linear
from ..graph.operators.pointwise import Pointwise


@dataclass(frozen=True, slots=True)
class EngineKernels:
    """Choices of an engine profile; ``batch`` > 0 is how many sequences of a padded decode step attend to anything."""

    unfused_context: bool = False
    per_head: int = 0
    writes_cache: bool = False
    nccl: bool = False
    sampling_passes: int = 3
    batch: int = 0


def as_engine(graph: Graph, kernels: EngineKernels) -> Graph:
    """The graph with the engine's kernels; a default profile leaves every node as it is.

    Padding of a decode step has no cache: its rows go through every kernel but attention and the cache write.
    """
    if kernels == EngineKernels():
        return graph
    return replace(graph, items=_items(graph.items, kernels))


def narrow_products(graph: Graph, separate: bool) -> Graph:
    """Products whose weights are 8-bit floating point run in that type; results and all else keep the wide type.

    What they take was narrowed by the kernel before, or is narrowed by kernels of its own (*separate*).
    """

    def change(node: Node) -> tuple[Item, ...]:
        op = node.op
        if not (type(op) is Linear and op.weight_only and dtype(op.weight_dtype).is_float and not op.group_size):
            return (node,)
        narrow = replace(op, dtype=op.weight_dtype, weight_dtype="", output_dtype=op.dtype)
        product = replace(node, op=narrow)
        if not separate:
            return (product,)
        split = "column" if node.split == "row" else ""
        taken = Pointwise("copy", op.m, op.k, op.dtype)
        return (Node(f"{node.name}_narrow", taken, split, inputs=node.inputs, outputs=node.inputs), product)

    return graph.map(change)


def _items(items: tuple[Item, ...], kernels: EngineKernels) -> tuple[Item, ...]:
    out: list[Item] = []
    for item in items:
        if isinstance(item, Repeat):
            out.append(replace(item, body=_items(item.body, kernels)))
            continue
        if _inside(item, items) and kernels.writes_cache:
            continue
        out.append(_node(item, kernels))
    return tuple(out)


def _inside(node: Node, items: tuple[Item, ...]) -> bool:
    """Rotary embedding and cache write in front of generation attention of the same block."""
    op = node.op
    if not (isinstance(op, KVAppend) or (isinstance(op, Pointwise) and op.op == "rope")):
        return False
    ops = [item.op for item in items if isinstance(item, Node)]
    return any(isinstance(other, Attention) and other.phase == "generation" for other in ops)


def _node(node: Node, kernels: EngineKernels) -> Node:
    op = node.op
    if isinstance(op, Attention):
        generation = op.phase == "generation"
        batch = kernels.batch or op.batch
        if generation and (kernels.per_head or batch != op.batch):
            return replace(node, op=replace(op, per_head=kernels.per_head, batch=batch))
        if not generation and kernels.unfused_context:
            return replace(node, op=replace(op, fused=False))
    elif isinstance(op, KVAppend) and kernels.batch:
        return replace(node, op=replace(op, tokens=min(op.tokens, kernels.batch)))
    elif isinstance(op, Collective) and kernels.nccl and not op.runtime:
        return replace(node, op=replace(op, runtime="nccl"))
    elif isinstance(op, Sampling) and op.passes != kernels.sampling_passes:
        return replace(node, op=replace(op, passes=kernels.sampling_passes))
    return node

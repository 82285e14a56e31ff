"""Tensor and expert parallelism: every node becomes the share of one device, with the collectives between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..errors import UnsupportedError
from ..graph.dtypes import size_of
from ..graph.graph import Graph, Item, Node
from ..graph.operator import Operator
from ..graph.operators.communication import Collective
from ..graph.operators.moe import Experts


def shard(graph: Graph, tensor: int, expert: int = 1, data: int = 1, groups: Mapping[str, int] | None = None) -> Graph:
    """The graph that each of *tensor* devices executes; *groups* gives the degree of nodes placed elsewhere.

    A node's ``split`` says how it divides, its ``after`` which collective completes it. ``expert`` equal to ``tensor``
    gives whole experts to devices instead of slices of each; ``expert`` = ``tensor`` × ``data`` spreads them over the
    data ranks too, with an all-to-all before and after.

    >>> shard(Graph("g", ()), 1).items
    ()

    Raises:
        UnsupportedError: a node does not divide that way.
    """
    if tensor == 1 and expert == 1 and not groups:
        return graph

    def change(node: Node) -> tuple[Item, ...]:
        if node.place:
            return _elsewhere(node, (groups or {}).get(node.place, 1))
        return _node(node, tensor, expert, data)

    return graph.map(change)


def _elsewhere(node: Node, degree: int) -> tuple[Item, ...]:
    """A node on another group: divided over its devices; the transfer back collects the parts."""
    if degree == 1 or not node.split:
        return (replace(node, split="", after=""),)
    axis = "expert" if node.split == "experts" else node.split
    try:
        part = node.op.split(axis, degree)
    except UnsupportedError as error:
        raise UnsupportedError(f"{node.name} on group {node.place!r}: {error}") from None
    return (replace(node, op=part, split="", after=""),)


def _node(node: Node, tensor: int, expert: int, data: int) -> tuple[Item, ...]:
    if node.after == "all_gather" and not node.split:  # rows divided by tokens come together: nothing else to do
        return (_collective(node, "all_gather", result_bytes(node.op), tensor),) if tensor > 1 else ()
    if node.after == "reduce_scatter" and not node.split:  # partial sums put in the order of the ranks
        kept = replace(node, after="")
        return (kept, _collective(node, "reduce_scatter", result_bytes(node.op), tensor)) if tensor > 1 else (kept,)
    if isinstance(node.op, Experts) and expert > 1:
        return _experts(node, tensor, expert, data)
    if tensor == 1 or not node.split:
        return (node,)
    axis = "tensor" if node.split == "experts" else node.split
    try:
        part = node.op.split(axis, tensor)
    except UnsupportedError as error:
        raise UnsupportedError(f"{node.name}: {error}") from None
    out: list[Item] = [replace(node, op=part, split="", after="")]
    if node.after:
        out.append(_collective(node, node.after, result_bytes(node.op), tensor))
    return tuple(out)


def result_bytes(op: Operator) -> float:
    """Bytes of the complete result that a collective has to assemble."""
    return op.output_bytes


def _collective(node: Node, op: str, size: float, devices: int, stride: int = 1) -> Node:
    dtype = str(getattr(node.op, "dtype", "fp16"))
    reduce = Collective(op, size, devices, stride, dtype)
    return Node(f"{node.name}_{op}", reduce, phase=node.phase)


def _experts(node: Node, tensor: int, expert: int, data: int) -> tuple[Item, ...]:
    op = node.op
    assert isinstance(op, Experts)
    spread = expert // tensor  # data ranks that share one set of experts
    routed = replace(op, tokens=op.tokens * spread)
    part = routed.split("expert", expert)
    out: list[Item] = []
    exchange = op.tokens * op.top_k * op.hidden * size_of(op.dtype)
    if spread > 1:
        out.append(_collective(replace(node, name=f"{node.name}_dispatch"), "all_to_all", exchange, spread, tensor))
    out.append(replace(node, op=part, split="", after=""))
    if spread > 1:
        out.append(_collective(replace(node, name=f"{node.name}_combine"), "all_to_all", exchange, spread, tensor))
    if tensor > 1:
        out.append(_collective(node, "all_reduce", result_bytes(op), tensor))
    return tuple(out)

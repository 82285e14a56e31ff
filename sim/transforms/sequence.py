"""Sequence parallelism of inference: tensor ranks divide the tokens between products.

Norms and residual additions work on rows alone, so every tensor rank does those of its share of the tokens
(Korthikanti et al., arXiv:2205.05198). A result that tensor ranks added up is then scattered as it is added, and the
rows are gathered in front of the next product: as many bytes as the all-reduce they replace. Follows the recorded data
flow; runs before :func:`effsim.transforms.shard.shard`.
"""

from __future__ import annotations

from dataclasses import replace

from ..errors import UnsupportedError
from ..graph.graph import Graph, Item, Node, Repeat
from ..graph.operators.linear import Linear
from ..graph.operators.moe import Experts
from ..graph.operators.pointwise import Pointwise


def divide_tokens(graph: Graph, tensor: int) -> Graph:
    """The graph with reduce-scatter and all-gather around rows that *tensor* ranks divide.

    Raises:
        UnsupportedError: a node whose data flow is not recorded.
    """
    if tensor == 1:
        return graph
    return replace(graph, items=_items(graph.items, set()))


def _items(items: tuple[Item, ...], divided: set[str]) -> tuple[Item, ...]:
    """*divided*: names of the values of which a rank has its share of the tokens; changes as nodes are passed."""
    out: list[Item] = []
    for item in items:
        if isinstance(item, Repeat):
            out.append(replace(item, body=_items(item.body, divided)))
            continue
        if not item.inputs:
            raise UnsupportedError(f"sequence parallelism: the data flow of {item.name} is not recorded")
        op, outputs = item.op, {value.name for value in item.outputs}
        if isinstance(op, Pointwise) and not item.split:
            by_token = any(value.name in divided for value in item.inputs)
            if by_token:
                item = replace(item, split="tokens")
            divided.difference_update(outputs)
            divided.update(outputs if by_token else ())
            out.append(item)
            continue
        for value in item.inputs:
            if value.name in divided:
                out.append(_gather(item, value.name, value.columns))
                divided.discard(value.name)
        divided.difference_update(outputs)
        if item.after == "all_reduce":
            item = replace(item, after="reduce_scatter")
            divided.update(outputs)
        out.append(item)
    return tuple(out)


def _gather(node: Node, value: str, columns: int) -> Node:
    op = node.op
    if isinstance(op, Linear):
        rows, dtype = op.m, op.activation_dtype or op.dtype
    elif isinstance(op, Experts):
        rows, dtype = op.tokens, op.dtype
    else:
        raise UnsupportedError(f"sequence parallelism: {node.name} ({op.kind}) takes rows that ranks have divided")
    return Node(f"{node.name}_{value}", Pointwise("copy", rows, columns, dtype), after="all_gather")

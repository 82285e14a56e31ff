"""Fusion of the residual addition into the norm that follows it."""

from __future__ import annotations

from dataclasses import replace

from ..graph.graph import Graph, Item, Node, Repeat
from ..graph.operators.pointwise import Pointwise

_FUSED = {"layernorm": "add_layernorm", "rmsnorm": "add_rmsnorm"}


def fuse_residual_norm(graph: Graph) -> Graph:
    """Replace ``add`` directly before ``layernorm``/``rmsnorm`` by the fused kernel that writes both results.

    Only neighbours inside one block are fused: the last addition of a block stays a kernel of its own.
    """
    return replace(graph, items=_fuse(graph.items))


def _fuse(items: tuple[Item, ...]) -> tuple[Item, ...]:
    out: list[Item] = []
    for item in items:
        if isinstance(item, Repeat):
            out.append(replace(item, body=_fuse(item.body)))
            continue
        previous = out[-1] if out else None
        merged = _merge(previous, item) if isinstance(previous, Node) else None
        if merged is not None:
            out[-1] = merged
        else:
            out.append(item)
    return tuple(out)


def _merge(add: Node, norm: Node) -> Node | None:
    a, n = add.op, norm.op
    if not (isinstance(a, Pointwise) and isinstance(n, Pointwise)) or a.op != "add" or n.op not in _FUSED:
        return None
    if (a.rows, a.cols, a.dtype) != (n.rows, n.cols, n.dtype):
        return None
    joined = norm.inputs == add.outputs  # the fused kernel writes the sum, then its norm
    inputs, outputs = (add.inputs, add.outputs + norm.outputs) if joined else ((), ())
    return replace(norm, op=replace(n, op=_FUSED[n.op]), inputs=inputs, outputs=outputs)

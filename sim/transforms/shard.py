"""Tensor and expert parallelism: every node becomes the share of one device, with the collectives between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..errors import UnsupportedError
from ..graph.dtypes import size_of
from ..graph.graph import Graph, Item, Node, Value
from ..graph.operator import Operator, ceil_div
from ..graph.operators.attention import Attention, KVAppend
from ..graph.operators.communication import Collective
from ..graph.operators.linear import Linear
from ..graph.operators.moe import Experts
from ..graph.operators.pointwise import Pointwise


@dataclass(frozen=True, slots=True)
class _Division:
    """Degrees, the distance of neighbouring data ranks, and the values that are keys or values of attention."""

    tensor: int
    expert: int
    data_stride: int
    keys: frozenset[str] = field(default_factory=frozenset)


def shard(
    graph: Graph,
    tensor: int,
    expert: int = 1,
    data: int = 1,
    groups: Mapping[str, int] | None = None,
    data_stride: int = 0,
) -> Graph:
    """The graph that each of *tensor* devices executes; *groups* gives the degree of nodes placed elsewhere.

    A node's ``split`` says how it divides, its ``after`` which collective completes it. ``expert`` > 1 gives whole
    experts to devices instead of slices of each: a divisor of ``tensor`` (experts are sliced over the rest), or
    ``tensor`` times a divisor of ``data``, with an all-to-all over the data ranks before and after. *data_stride* is
    the distance of neighbouring data ranks (0: *tensor*).

    Heads of keys and values are copied where there are fewer of them than devices: a device then projects, turns and
    caches one whole head beside its query heads.

    >>> shard(Graph("g", ()), 1).items
    ()

    Raises:
        UnsupportedError: a node does not divide that way.
    """
    if tensor == 1 and expert == 1 and not groups:
        return graph
    division = _Division(tensor, expert, data_stride or tensor, _key_names(graph))

    def change(node: Node) -> tuple[Item, ...]:
        if node.place:
            return _elsewhere(node, (groups or {}).get(node.place, 1))
        return _node(node, division)

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


def _node(node: Node, division: _Division) -> tuple[Item, ...]:
    tensor = division.tensor
    if node.after == "all_gather" and not node.split:  # rows divided by tokens come together: nothing else to do
        return (_collective(node, "all_gather", result_bytes(node.op), tensor),) if tensor > 1 else ()
    if node.after == "reduce_scatter" and not node.split:  # partial sums put in the order of the ranks
        kept = replace(node, after="")
        return (kept, _collective(node, "reduce_scatter", result_bytes(node.op), tensor)) if tensor > 1 else (kept,)
    if isinstance(node.op, Experts) and division.expert > 1:
        return _experts(node, division)
    if tensor == 1 or not node.split:
        return (node,)
    axis = "tensor" if node.split == "experts" else node.split
    try:
        part = _with_whole_heads(node, division) or node.op.split(axis, tensor)
    except UnsupportedError as error:
        raise UnsupportedError(f"{node.name}: {error}") from None
    out: list[Item] = [replace(node, op=part, split="", after="")]
    if node.after:
        out.append(_collective(node, node.after, result_bytes(node.op), tensor))
    return tuple(out)


def _key_names(graph: Graph) -> frozenset[str]:
    """Names of the values that attention caches or reads as keys and values."""
    found = set[str]()
    for _, node, _ in graph.walk():
        if isinstance(node.op, KVAppend):
            found |= {value.name for value in node.inputs}
        elif isinstance(node.op, Attention):
            found |= {value.name for value in node.inputs[1:]}
    return frozenset(found)


def _with_whole_heads(node: Node, division: _Division) -> Operator | None:
    """The share of a node that makes or works on keys, of which a device has at least one head; None for others."""
    op, tensor = node.op, division.tensor
    values = node.outputs if isinstance(op, Linear) else node.inputs
    if not any(value.name in division.keys for value in values):
        return None
    if isinstance(op, Linear) and node.split == "column" and _columns(values) == op.n:
        return replace(op, n=_local_columns(values, division))
    if isinstance(op, KVAppend) and node.split == "heads" and _columns(values) == op.width:
        return replace(op, width=_local_columns(values, division))
    if isinstance(op, Pointwise):
        written = node.outputs
        if node.split == "heads" and op.parameter_cols < 0 and _columns(written) == op.cols:
            return replace(op, cols=_local_columns(written, division))
        heads = sum(value.parts for value in written)
        if node.split == "tokens" and op.rows % heads == 0:  # a row a head
            return replace(op, rows=op.rows // heads * sum(ceil_div(value.parts, tensor) for value in written))
    return None


def _columns(values: tuple[Value, ...]) -> int:
    return sum(value.columns for value in values)


def _local_columns(values: tuple[Value, ...], division: _Division) -> int:
    """Columns of one device: whole heads, at least one of keys and values; other columns are divided."""
    tensor, total = division.tensor, 0
    for value in values:
        if value.parts > 1 or value.name in division.keys:
            total += ceil_div(value.parts, tensor) * value.width
        else:
            total += ceil_div(value.width, tensor)
    return total


def result_bytes(op: Operator) -> float:
    """Bytes of the complete result that a collective has to assemble."""
    return op.output_bytes


def _collective(node: Node, op: str, size: float, devices: int, stride: int = 1) -> Node:
    dtype = str(getattr(node.op, "dtype", "fp16"))
    reduce = Collective(op, size, devices, stride, dtype)
    return Node(f"{node.name}_{op}", reduce, phase=node.phase)


def _experts(node: Node, division: _Division) -> tuple[Item, ...]:
    """Whole experts on devices.

    Every tensor rank has all tokens of its data rank, so within a tensor group nothing is dispatched and partial sums
    are reduced as ever. Over data ranks, a device sends each of the ``spread`` data ranks the rows that picked experts
    of its counterpart there: ``tokens·top_k / tensor`` rows in all, a row for every pick. Where routing is skewed, the
    device with the most popular experts receives more than it sends, and that counts.
    """
    op, tensor, expert = node.op, division.tensor, division.expert
    assert isinstance(op, Experts)
    spread = max(1, expert // tensor)  # data ranks that share one set of experts
    routed = replace(op, tokens=op.tokens * spread)
    part = routed.split("expert", expert)
    assert isinstance(part, Experts)
    uneven = max(1.0, part.assignments * expert / (routed.tokens * op.top_k))
    if tensor > expert:
        sliced: Operator = part.split("tensor", tensor // expert)
    else:
        sliced = part
    out: list[Item] = []
    exchange = uneven * op.tokens * op.top_k * op.hidden * size_of(op.dtype) / tensor
    stride = division.data_stride
    if spread > 1:
        out.append(_collective(replace(node, name=f"{node.name}_dispatch"), "all_to_all", exchange, spread, stride))
    out.append(replace(node, op=sliced, split="", after=""))
    if spread > 1:
        out.append(_collective(replace(node, name=f"{node.name}_combine"), "all_to_all", exchange, spread, stride))
    if tensor > 1 and node.after:  # elsewhere the partial sums join those of the shared experts first
        out.append(_collective(node, node.after, result_bytes(op), tensor))
    return tuple(out)

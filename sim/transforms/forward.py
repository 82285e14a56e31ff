"""How a training framework writes the forward pass of a model: products apart, dropout, the loss, products in fp8."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..graph.graph import Graph, Item, Node, Repeat, Value
from ..graph.operators.attention import Attention
from ..graph.operators.communication import Collective
from ..graph.operators.embedding import CrossEntropy
from ..graph.operators.linear import Linear
from ..graph.operators.pointwise import Pointwise

HEAD = "lm_head"
"""Name of the output head, which stays in the working type."""


@dataclass(frozen=True, slots=True)
class ForwardForm:
    """See ``training`` of a workload file."""

    fused_projections: bool = True
    fused_loss: bool = False
    dropout: bool = False
    attention_kernel: str = ""
    float8: str = "none"
    dtype: str = "bf16"


def training_forward(graph: Graph, form: ForwardForm) -> Graph:
    """The forward pass as the framework runs it.

    >>> training_forward(Graph("g", ()), ForwardForm()).items
    ()
    """

    def change(node: Node) -> tuple[Item, ...]:
        nodes = (node,) if form.fused_projections else _apart(node)
        nodes = tuple(replace(n, op=_operator(n, form)) for n in nodes)
        if form.dropout and node.name in ("out_proj", "down_proj"):
            assert isinstance(node.op, Linear)
            drop = Pointwise("dropout", node.op.m, node.op.n, node.op.dtype)
            return (*nodes, Node(f"{node.name}_dropout", drop, inputs=node.outputs, outputs=node.outputs))
        return nodes

    return graph.map(change)


def _apart(node: Node) -> tuple[Node, ...]:
    """A product that makes several values as one product a value; they read the same input, which is kept once."""
    op = node.op
    if not isinstance(op, Linear) or len(node.outputs) < 2 or sum(v.columns for v in node.outputs) != op.n:
        return (node,)
    return tuple(
        replace(
            node,
            name=f"{node.name}_{value.name}",
            op=replace(op, n=value.columns, kept_input=op.kept_input if index == 0 else 0.0),
            outputs=(value,),
        )
        for index, value in enumerate(node.outputs)
    )


def _operator(node: Node, form: ForwardForm) -> Linear | CrossEntropy | Attention:
    op = node.op
    if isinstance(op, CrossEntropy):
        if form.fused_loss:
            return replace(op, dtype=form.dtype, in_place=True)
        return replace(op, logits_dtype=form.dtype) if op.dtype != form.dtype else op
    if isinstance(op, Attention) and (form.dropout or form.attention_kernel):
        return replace(op, dropout=form.dropout, kernel=form.attention_kernel)
    if isinstance(op, Linear) and form.float8 != "none" and node.name != HEAD:
        return replace(op, float8=form.float8)
    return op  # type: ignore[return-value]


def sequence_parallel(graph: Graph, degree: int, *, ordered: bool = False) -> Graph:
    """Tensor ranks divide the tokens between products (Korthikanti et al., arXiv:2205.05198); before sharding.

    What works on whole rows of the residual stream (norms, additions, dropout) is divided by tokens; in front of a
    product divided by columns the rows are gathered, behind one divided by inputs the partial sums are added up and
    divided. A rank keeps its own rows of what was gathered. ``ordered``: every sequence is divided, not the batch as a
    whole, so what was gathered is copied into the order of the sequences, and partial sums into that of the ranks.
    """
    if degree == 1:
        return graph
    return replace(graph, items=_sequence(graph.items, degree, ordered))


def _sequence(items: tuple[Item, ...], degree: int, ordered: bool) -> tuple[Item, ...]:
    out: list[Item] = []
    gathered: tuple[Value, ...] = ()
    for item in items:
        if isinstance(item, Repeat):
            out.append(replace(item, body=_sequence(item.body, degree, ordered)))
            gathered = ()
            continue
        op = item.op
        if item.after == "all_reduce":
            item = replace(item, after="reduce_scatter")
        if isinstance(op, Linear) and item.split in ("column", "vocab"):
            if not item.inputs or item.inputs != gathered:
                rows = Pointwise("copy", op.m, op.k, op.dtype)
                out.append(Node(f"{item.name}_gather", rows, after="all_gather"))
                out += [Node(f"{item.name}_order", rows)] if ordered else []
            gathered = item.inputs
            item = replace(item, op=replace(op, kept_input=op.kept_input / degree))
        elif isinstance(op, Pointwise) and not item.split:
            item = replace(item, split="tokens")
        if ordered and item.after == "reduce_scatter" and isinstance(op, Linear):
            sums = Node(f"{item.name}_order", Pointwise("copy", op.m, op.n, op.dtype), after="reduce_scatter")
            out += [replace(item, after=""), sums]
            continue
        out.append(item)
    return tuple(out)


def beside_products(graph: Graph) -> Graph:
    """Gathers and reduce-scatters of tensor ranks run beside the products they feed or follow; after sharding."""
    return replace(graph, items=_beside(graph.items))


def _beside(items: tuple[Item, ...]) -> tuple[Item, ...]:
    out: list[Item] = []
    for index, item in enumerate(items):
        if isinstance(item, Repeat):
            out.append(replace(item, body=_beside(item.body)))
            continue
        op = item.op
        if isinstance(op, Collective) and op.op in ("all_gather", "reduce_scatter"):
            others = items[index + 1 :] if op.op == "all_gather" else items[:index][::-1]
            # A copy that puts rows in order may stand between.
            near = next((n for n in others if not (isinstance(n, Node) and n.op.kind == "copy")), None)
            if isinstance(near, Node) and isinstance(near.op, Linear):
                item = replace(item, op=replace(op, beside=near.op))
        out.append(item)
    return tuple(out)

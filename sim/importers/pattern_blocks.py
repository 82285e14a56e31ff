"""Whole blocks that one operator stands for: routed experts and the chunked state-space scan."""

from __future__ import annotations

from typing import Final

from .op_names import CASTS, VIEWS
from .pattern_parts import operands
from .patterns import activation
from .traced import Call, Trace, Value, frontier, made_by, reader, sole_user, source

BARRIERS: Final = frozenset(
    [
        "linear",
        "addmm",
        "mm",
        "matmul",
        "bmm",
        "embedding",
        "layer_norm",
        "rms_norm",
        "gated_rms_norm",
        "causal_conv1d",
        "conv1d",
        "conv2d",
        "convolution",
        "scaled_dot_product_attention",
        "unfused_attention",
        "rope",
        "expert_mm",
        "moe",
    ]
)
"""Calls at which the way back to the inputs of a block ends."""

_ROWS: Final = VIEWS | CASTS | {"index", "repeat_interleave", "index_select", "gather"}
_SHAPED: Final = (VIEWS | CASTS) - {"slice", "select"}
_ELEMENTWISE: Final = (
    VIEWS | CASTS | {"silu_mul", "gelu_mul", "relu_mul", "silu", "gelu", "relu", "relu2", "add", "mul"}
)
_COLLECT: Final = VIEWS | CASTS | {"index", "index_put", "mul", "masked_fill", "add", "scatter_add", "where"}


def recognise_blocks(trace: Trace) -> None:
    """Apply the rules of this module; those of :mod:`.patterns` come before."""
    trace.rewrite(_gathered_product)
    trace.rewrite(_grouped_product)
    trace.rewrite(_experts)
    trace.rewrite(_chunked_scan)
    trace.rewrite(_cut_scan)


def _new(call: Call, op: str, **arguments: object) -> Call:
    return Call(op, dict(arguments), [call.out], call.scope, call.source)


# --- routed experts ---------------------------------------------------------------------------------------------------


def _gathered_product(call: Call) -> Call | None:
    """bmm of one row each with weights that an index chose: ``weight[expert_of_row]``."""
    if call.op != "bmm":
        return None
    for rows, chosen in (call.inputs, call.inputs[::-1]):
        index = made_by(chosen, "index", "index_select")
        weight = index.inputs[0] if index is not None else None
        if weight is not None and weight.role == "parameter" and len(weight.shape) == 3 and 1 in rows.shape[1:]:
            return _new(call, "expert_mm", input=rows, weight=weight)
    return None


def _grouped_product(call: Call) -> Call | None:
    """Rows sorted by expert, times the weights of their experts."""
    if call.op not in ("grouped_mm", "_grouped_mm", "grouped_mm_fallback"):
        return None
    rows, weight = call.inputs[:2]
    return _new(call, "expert_mm", input=rows, weight=weight) if weight.role == "parameter" else None


def _experts(call: Call) -> Call | None:
    """Two expert products with a nonlinearity between, weighted and summed over the experts of a token.

    *call* makes the sum. Rows of the products are (token, expert) pairs, so top_k is rows / tokens.
    """
    if call.op not in ("sum", "index_add", "scatter_add", "index_put") or not call.out.real:
        return None
    down = _expert_product(call)
    up = _before(down.value("input")) if down is not None else None
    if down is None or up is None:
        return None
    first, second, rows = up.value("weight"), down.value("weight"), up.value("input")
    if first is None or second is None or rows is None:
        return None
    base = source(rows, _ROWS)
    hidden = base.shape[-1]
    pairs, tokens = rows.elements // hidden, base.elements // hidden
    inner = second.elements // second.shape[0] // hidden
    width = first.elements // first.shape[0] // hidden
    if pairs % tokens or width not in (inner, 2 * inner) or call.out.elements != base.elements:
        return None
    x = [base.name]
    logits = [value for value in frontier(call.out, BARRIERS) if value.name not in x and value.producer is not None]
    scores = [v for v in logits if v.real and v.shape[-1] == first.shape[0]]
    return _new(
        call,
        "moe",
        input=base,
        scores=scores or frontier(call.out, BARRIERS),
        weights=[first, second],
        tokens=tokens,
        hidden=hidden,
        intermediate=inner,
        experts=first.shape[0],
        top_k=pairs // tokens,
        gated=width == 2 * inner,
    )


def _expert_product(call: Call) -> Call | None:
    """The expert product whose rows *call* adds up."""
    todo, seen = list(call.inputs), set[int]()
    while todo:
        value = todo.pop()
        producer = value.producer
        if producer is None or id(producer) in seen:
            continue
        seen.add(id(producer))
        if producer.op == "expert_mm":
            return producer
        if producer.op in _COLLECT:
            todo += producer.inputs
    return None


def _before(value: Value | None) -> Call | None:
    """The expert product that feeds *value* through a nonlinearity."""
    todo = [value] if value is not None else []
    while todo:
        producer = todo.pop().producer
        if producer is None:
            continue
        if producer.op == "expert_mm":
            return producer
        if producer.op in _ELEMENTWISE or activation(producer):
            todo += producer.inputs
    return None


# --- chunked scan -----------------------------------------------------------------------------------------------------


def _chunked_scan(call: Call) -> Call | None:
    """Mamba-2's dual form: (C·Bᵀ ∘ decay)·x inside chunks, plus C times the state carried from chunk to chunk.

    *call* adds both parts. C·Bᵀ [batch, chunk, l, s, head] comes from an einsum over the state, its product with x
    from one over s; the other part from an einsum of the same C with the carried states.
    """
    pair = operands(call) if call.op == "add" else None
    if pair is None:
        return None
    for inside, carried in (pair, pair[::-1]):
        diagonal, across = made_by(inside, "einsum"), _state_product(carried)
        if diagonal is None or across is None or len(diagonal.inputs) != 2:
            continue
        scores = diagonal.inputs[0]
        weighted = made_by(scores, "mul")
        product = next((m for v in (weighted.inputs if weighted else []) if (m := made_by(v, "einsum"))), None)
        if product is None or len(inside.shape) != 5 or len(product.inputs) != 2:
            continue
        c, b = product.inputs
        if not any(value is c for value in across.inputs) or len(c.shape) != 5:
            continue
        batch, chunks, chunk, heads, head_dim = inside.shape
        return _new(
            call,
            "ssd_scan",
            inputs=frontier(call.out, BARRIERS),
            batch=batch,
            length=chunks * chunk,
            heads=heads,
            head_dim=head_dim,
            state=c.shape[-1],
            groups=_groups(b, heads),
            chunk=chunk,
        )
    return None


def _state_product(value: Value) -> Call | None:
    """The einsum behind a decay: ``einsum(C, states) · decay``."""
    decayed = made_by(value, "mul")
    return next((m for v in (decayed.inputs if decayed else []) if (m := made_by(v, "einsum"))), None)


def _groups(value: Value, heads: int) -> int:
    """Groups of heads that shared a B before it was repeated for every head."""
    while value.producer is not None and value.producer.op in VIEWS | CASTS | {"pad", "constant_pad_nd", "mul"}:
        value = value.producer.inputs[0]
    call = value.producer
    if call is not None and call.op in ("repeat_interleave", "repeat"):
        return max(1, heads * call.inputs[0].elements // value.elements)
    return heads


def _cut_scan(call: Call) -> Call | None:
    """The skip D·x behind a scan, and the cut of a padded sequence back to its length, belong to the scan."""
    if call.op not in ("add", "slice"):
        return None
    scan = next((m for v in call.inputs if (m := made_by(v, "ssd_scan", over=_SHAPED)) is not None), None)
    if scan is None or reader(scan.out, over=_SHAPED) is not call:
        return None
    if call.op == "slice":
        length = call.out.elements // (scan.get("batch") * scan.get("heads") * scan.get("head_dim"))
        return _new(call, "ssd_scan", **{**scan.arguments, "length": length})
    other = next((v for v in call.inputs if made_by(v, "ssd_scan", over=_SHAPED) is None), None)
    skip = made_by(other, "mul")
    if skip is None or not any(v.role == "parameter" for v in skip.inputs) or sole_user(skip.out) is None:
        return None
    return _new(call, "ssd_scan", **scan.arguments, skip=True)

"""Costs of row-wise and element-wise calls, reductions, copies and tables."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from ..graph.operator import ceil_div
from .ledger import Ledger
from .traced import Call, number, source

Cost = Callable[[Ledger, Call], None]
"""Writes down what one call costs."""


def norm(kind: str, learned: int) -> Cost:
    """A norm over the last axes; *learned* numbers a column where it has them."""

    def cost(ledger: Ledger, call: Call) -> None:
        x = call.inputs[0]
        weights = [call.value(name) for name in ("weight", "bias")]
        sizes = [value.elements for value in weights if value is not None]
        shape = call.get("normalized_shape")
        cols = int(prod(shape)) if shape else int(call.get("cols", 0)) or (sizes[0] if sizes else x.shape[-1])
        if kind == "gated_rmsnorm" and sizes:
            cols = sizes[0]
        ledger.rows(call, kind, x.elements // cols, cols, sum(sizes) // learned, weights[0], dtype=call.out.dtype)

    return cost


def channel_norm(ledger: Ledger, call: Call) -> None:
    """Batch norm (statistics given) and group or instance norm: the arithmetic of a layer norm over the positions."""
    x, sizes = call.inputs[0], [v.elements for v in call.inputs[1:3] if v.role == "parameter"]
    if "batch_norm" in call.op:
        ledger.rows(call, "bias", x.elements // x.shape[1], x.shape[1], sum(sizes), *call.inputs[1:2])
        return
    rows = x.shape[0] * int(call.get("num_groups", x.shape[1]))
    ledger.rows(call, "layernorm", rows, x.elements // rows, sum(sizes) // 2, *call.inputs[1:2])


def along_last(kind: str) -> Cost:
    """A recipe on the rows of the result."""
    return lambda ledger, call: ledger.pointwise(call, kind)


def softmax(ledger: Ledger, call: Call) -> None:
    """Rows along the given axis."""
    x = call.inputs[0]
    cols = x.shape[int(call.get("dim", -1))] if x.shape else 1
    ledger.rows(call, "softmax", x.elements // cols, cols)


def gelu(ledger: Ledger, call: Call) -> None:
    """GELU, exact or by tanh."""
    ledger.pointwise(call, "gelu_tanh" if call.get("approximate") == "tanh" else "gelu")


def elementwise(ledger: Ledger, call: Call) -> None:
    """One operation an element: two tensors of full size, one, or one with learned numbers."""
    binary("add")(ledger, call)


def binary(kind: str) -> Cost:
    """*kind* on two tensors of full size; with learned numbers ``bias``, with small or single ones ``scale``."""

    def cost(ledger: Ledger, call: Call) -> None:
        out = call.out
        tensors = [v for v in call.inputs if v.real or v.elements > 1]
        learned = [v for v in tensors if v.role == "parameter"]
        full = [v for v in tensors if not v.fixed and 2 * v.elements > out.elements]
        if learned and len(full) <= 1:
            cols = out.shape[-1] if out.shape else 1
            size = learned[0].elements
            ledger.rows(call, "bias", max(1, out.elements // cols), cols, size, learned[0])
        elif len(full) <= 1:
            ledger.pointwise(call, "scale")
        else:
            ledger.pointwise(call, kind)

    return cost


def power(ledger: Ledger, call: Call) -> None:
    """Small whole exponents are multiplications, others special functions."""
    exponent = number(call.get("exponent"))
    ledger.pointwise(call, "scale" if exponent in (2.0, 3.0) else "exp")


def reduce(ledger: Ledger, call: Call) -> None:
    """One operation an input, one result a row."""
    x = call.inputs[0]
    rows = min(max(1, call.out.elements), max(1, x.elements))
    ledger.rows(call, "sum", rows, ceil_div(x.elements, rows), dtype=x.dtype if x.real else "")


def pool(ledger: Ledger, call: Call) -> None:
    """Windows that are read once each; the inputs a window shares with others count once."""
    x = call.inputs[0]
    ledger.rows(call, "sum", call.out.elements, ceil_div(x.elements, call.out.elements))


def moved(ledger: Ledger, call: Call) -> None:
    """Bytes in and out, no arithmetic; a gather reads no more than it writes."""
    out = call.out
    read = [v for v in call.inputs if not (v.role == "constant" and v.elements < out.elements)]
    size = min(sum(v.elements * ledger.word(v) for v in read), out.elements * ledger.word(out))
    ledger.moved(call, (size + out.elements * ledger.word(out)) / 2.0)


def cast(ledger: Ledger, call: Call) -> None:
    """Another type: the bytes of both."""
    x, out = call.inputs[0], call.out
    if x.dtype != out.dtype and not source(x).fixed:
        ledger.moved(call, (x.elements * ledger.word(x) + out.elements * ledger.word(out)) / 2.0)


def embedding(ledger: Ledger, call: Call) -> None:
    """Rows of a table."""
    table = call.value("weight") or call.inputs[0]
    if not table.fixed or len(table.shape) != 2:
        moved(ledger, call)
        return
    rows, width = table.shape
    size = {"tokens": max(1, call.out.elements // width), "vocabulary": rows, "width": width, "dtype": table.dtype}
    ledger.add(call, "embedding", size, weights=(table,))


def gather(ledger: Ledger, call: Call) -> None:
    """Rows of a learned table (an embedding), or a copy."""
    x = call.inputs[0]
    if x.role == "parameter" and len(x.shape) == 2 and call.out.shape[-1:] == x.shape[-1:] and call.out.real:
        embedding(ledger, call)
    else:
        moved(ledger, call)

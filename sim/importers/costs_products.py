"""Costs of products: projections, contractions, convolutions, experts and scans."""

from __future__ import annotations

from math import prod
from typing import Any

from ..graph.operator import ceil_div
from .costs_rows import elementwise
from .ledger import Ledger
from .traced import Call, Value


def linear(ledger: Ledger, call: Call) -> None:
    """x·Wᵀ + b."""
    x, weight = call.inputs[:2]
    bias = call.value("bias")
    _product(ledger, call, x, weight, transposed=True, bias=bias is not None)


def addmm(ledger: Ledger, call: Call) -> None:
    """b + x·W."""
    x, weight = call.value("mat1"), call.value("mat2")
    assert x is not None
    assert weight is not None
    _product(ledger, call, x, weight, transposed=False, bias=call.inputs[0].role == "parameter")


def matmul(ledger: Ledger, call: Call) -> None:
    """A product of two tensors; the one that is a weight makes it a projection."""
    x, other = call.inputs[-2:]
    if x.fixed and not other.fixed:
        # W·x is (xᵀ·Wᵀ)ᵀ: the same work with the roles of the operands exchanged.
        _product(ledger, call, flipped(other), flipped(x), transposed=False)
    else:
        _product(ledger, call, x, other, transposed=False)


def flipped(value: Value) -> Value:
    """A tensor with its last two axes exchanged."""
    shape = value.shape if len(value.shape) < 2 else (*value.shape[:-2], value.shape[-1], value.shape[-2])
    return Value(value.name, shape, value.dtype, value.role, value.parameter)


def _product(ledger: Ledger, call: Call, x: Value, other: Value, *, transposed: bool, bias: bool = False) -> None:
    k = x.shape[-1] if x.shape else 1
    if len(other.shape) < 2:
        n, batch = 1, 1
    else:
        n = other.shape[-2] if transposed else other.shape[-1]
        batch = prod(other.shape[:-2])
    rows = call.out.elements // n if batch == 1 else call.out.elements // n // batch
    if not other.fixed and batch == 1 and len(x.shape) > 2:
        batch, rows = prod(x.shape[:-2]), x.shape[-2]
    ledger.product(call, batch, rows, n, k, other, bias=bias)


def einsum(ledger: Ledger, call: Call) -> None:
    """A contraction of two tensors by its letters; of more tensors, one after the other is not known."""
    a, b = call.inputs[0], call.inputs[-1]
    terms, _, result = str(call.get("equation")).replace(" ", "").partition("->")
    letters = terms.split(",")
    if len(call.inputs) != 2 or "." in terms or len(letters) != 2:
        ledger.miss(call)
        elementwise(ledger, call)
        return
    size = {**dict(zip(letters[0], a.shape, strict=True)), **dict(zip(letters[1], b.shape, strict=True))}

    def count(wanted: set[str]) -> int:
        return prod(size[letter] for letter in wanted)

    first, second, kept = (set(word) for word in (*letters, result))
    batch, m, n = count(first & second & kept), count((first & kept) - second), count((second & kept) - first)
    k = count((first & second) - kept)
    if k == 1 and not (first & second) - kept:
        elementwise(ledger, call)  # an outer or element-wise product
    elif a.fixed and not b.fixed:
        ledger.product(call, batch, n, m, k, a)
    else:
        ledger.product(call, batch, m, n, k, b)


def expert_product(ledger: Ledger, call: Call) -> None:
    """Rows sorted by expert times their experts' weights, outside a recognised block: rows evenly over experts."""
    x, weight = call.inputs
    experts, k = weight.shape[0], x.elements // max(1, x.elements // x.shape[-1])
    k = k if k in weight.shape[1:] else weight.shape[1]
    n = weight.elements // experts // k
    ledger.product(call, experts, max(1, ceil_div(call.out.elements // n, experts)), n, k, weight)


def expert_block(ledger: Ledger, call: Call) -> None:
    """The router's choice and the routed experts."""
    first, second = call.arguments["weights"]
    names = ("tokens", "hidden", "intermediate", "experts", "top_k")
    sizes = {name: int(call.arguments[name]) for name in names}
    router = {"tokens": sizes["tokens"], "experts": sizes["experts"], "top_k": sizes["top_k"], "dtype": "fp32"}
    ledger.add(call, "moe_router", router, part="router")
    dimensions = {**sizes, "dtype": call.out.dtype, "weight_dtype": first.dtype, "gated": bool(call.get("gated"))}
    if dimensions["weight_dtype"] == dimensions["dtype"]:
        del dimensions["weight_dtype"]
    ledger.add(call, "moe", dimensions, part="experts", weights=(first, second))


def convolution(ledger: Ledger, call: Call) -> None:
    """A convolution [batch, channels, …]: square ones as they are, others as the matrix product they make."""
    x, weight = call.inputs[:2]
    axes = len(weight.shape) - 2
    groups = int(call.get("groups", 1))
    stride, padding, dilation = (
        _per_axis(call.get(n, d), axes) for n, d in (("stride", 1), ("padding", 0), ("dilation", 1))
    )
    kernel = weight.shape[2:]
    transposed = bool(call.get("transposed")) or call.op.startswith("conv_transpose")
    padding = _padding(call, kernel, padding)
    square = (
        axes == 2
        and min(padding, default=0) >= 0
        and all(len(set(p)) == 1 for p in (kernel, stride, padding))
        and set(dilation) == {1}
    )
    batch = x.shape[0] if len(x.shape) > axes + 1 else 1
    bias = call.value("bias") is not None
    if square and not transposed and weight.dtype == x.dtype:
        height, width = x.shape[-2:]
        dimensions: dict[str, Any] = {"batch": batch, "height": height, "width": width, "in_channels": x.shape[-3]}
        dimensions |= {"out_channels": weight.shape[0], "kernel": kernel[0], "stride": stride[0], "padding": padding[0]}
        dimensions |= {"groups": groups, "dtype": x.dtype, "bias": bias}
        ledger.add(call, "conv2d", dimensions, weights=(weight,))
        return
    if axes == 1 and groups == x.shape[-2] == weight.shape[0] and stride == (1,) and dilation == (1,):
        _depthwise(ledger, call, x, weight, call.out.shape[-1])
        return
    ledger.note(call, f"{call.op} with kernel {list(kernel)}: the matrix product it makes, its input read once a tap")
    if transposed:
        positions, n, k = x.elements // x.shape[-1 - axes], prod(weight.shape[1:]), weight.shape[0] // groups
    else:
        n, k = weight.shape[0] // groups, prod(weight.shape[1:])
        positions = call.out.elements // weight.shape[0]
    ledger.product(call, groups, positions, n, k, weight, bias=bias and not transposed)


def _padding(call: Call, kernel: tuple[int, ...], given: tuple[int, ...]) -> tuple[int, ...]:
    """``same`` pads half a kernel on each side; what pads one side more than the other is -1."""
    word = call.get("padding", 0)
    if word == "valid":
        return (0,) * len(kernel)
    if word == "same":
        return tuple((k - 1) // 2 if k % 2 else -1 for k in kernel)
    return given


def _per_axis(given: Any, axes: int) -> tuple[int, ...]:
    if isinstance(given, str):
        return (-1,) * axes
    values = tuple(int(v) for v in given) if isinstance(given, list | tuple) else (int(given),)
    return values * axes if len(values) == 1 else values


def causal_conv1d(ledger: Ledger, call: Call) -> None:
    """Depthwise along the sequence, x [batch, channels, length]."""
    x, weight = call.inputs[:2]
    _depthwise(ledger, call, x, weight, x.shape[-1])


def _depthwise(ledger: Ledger, call: Call, x: Value, weight: Value, length: int) -> None:
    batch = x.shape[0] if len(x.shape) == 3 else 1
    dimensions = {"batch": batch, "length": length, "channels": weight.shape[0], "kernel": weight.shape[-1]}
    bias = call.value("bias") is not None
    ledger.add(call, "conv1d", {**dimensions, "dtype": x.dtype, "bias": bias}, weights=(weight,))


def scan(ledger: Ledger, call: Call) -> None:
    """The chunked state-space scan."""
    names = ("batch", "length", "heads", "head_dim", "state", "groups", "chunk")
    dtypes = [v.dtype for v in call.arguments["inputs"] if v.real]
    dtype = dtypes[0] if dtypes else call.out.dtype
    ledger.add(call, "ssd_scan", {**{name: int(call.arguments[name]) for name in names}, "dtype": dtype})


def recurrent(ledger: Ledger, call: Call) -> None:
    """LSTM, GRU or plain recurrent layers: the input's projection at once, then one product and gates a step.

    ``params`` are [gates · hidden, input] and [gates · hidden, hidden] for each layer and direction, biases between;
    with a leading axis of directions where a file keeps them together.
    """
    x = call.inputs[0]
    pairs = [v for v in call.inputs if v.role == "parameter" and len(v.shape) > 1]
    steps_axis = 1 if call.get("batch_first") else 0
    steps = x.shape[steps_axis] if len(x.shape) > 1 else 1
    rows = x.elements // x.shape[-1]
    batch = max(1, rows // steps)
    bias = bool(call.get("has_biases", call.get("bias") is not None))
    for into, back in zip(pairs[::2], pairs[1::2], strict=False):
        ways, outputs, width = (1, *into.shape)[-3:]
        ledger.product(call, 1, rows, ways * outputs, width, into, bias=bias)
        ledger.product(call, ways, batch, outputs, back.shape[-1], back, bias=bias and ways == 1, times=steps)
        ledger.rows(call, "sigmoid", ways * batch, outputs, times=steps)

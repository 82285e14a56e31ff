"""Calls of a trace → operators of a workload: one small named function for each family of calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import Any, Final

from ..graph.operator import ceil_div
from .ledger import Ledger
from .masks import Mask, classify
from .traced import CASTS, VIEWS, Call, Value, number, source, unique, visible

Cost = Callable[[Ledger, Call], None]

CREATION: Final = frozenset(
    ["arange", "ones", "zeros", "full", "empty", "rand", "randn", "randint", "new_ones", "new_zeros", "new_full", "new_empty", "ones_like", "zeros_like", "full_like", "empty_like", "rand_like", "randn_like", "eye", "linspace", "scalar_tensor", "tril", "triu", "one_hot"]
)
_ADD: Final = ["add", "sub", "rsub", "maximum", "minimum", "lerp", "fmod", "remainder", "where", "masked_fill", "clamp", "clamp_min", "clamp_max"]
_COPY: Final = (
    ["cat", "stack", "index", "index_select", "gather", "pad", "constant_pad_nd", "repeat", "repeat_interleave", "roll", "flip", "copy_", "copy", "fill_", "fill", "index_put", "scatter", "slice_scatter", "select_scatter", "pixel_shuffle", "pixel_unshuffle", "im2col", "index_copy", "tile", "upsample_nearest2d", "masked_scatter", "unsafe_index", "_unsafe_index", "diag_embed", "meshgrid", "take_along_dim"]
)
_SPECIAL: Final = ["exp", "exp2", "log", "log2", "log1p", "expm1", "sqrt", "rsqrt", "reciprocal", "sin", "cos", "tan", "atan", "atan2", "erf", "tanh", "pow"]
_ONE: Final = ["neg", "abs", "square", "round", "floor", "ceil", "sign", "trunc", "relu6", "hardtanh", "leaky_relu", "threshold", "nan_to_num"]
_REDUCE: Final = (
    ["sum", "mean", "amax", "amin", "max", "min", "prod", "var", "std", "argmax", "argmin", "cumsum", "cumprod", "any", "all", "norm", "linalg_vector_norm", "logsumexp", "count_nonzero", "var_mean"]
)
_POOL: Final = "max_pool2d max_pool2d_with_indices avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d max_pool1d "
_POOLS: Final = (_POOL + "avg_pool1d adaptive_avg_pool1d _adaptive_avg_pool2d max_pool3d avg_pool3d").split()


def emit(ledger: Ledger, call: Call) -> None:
    """Write down what one call costs; a call that is not known costs an element-wise pass and is remembered."""
    if call.op in VIEWS or call.op in CREATION or call.op.startswith(("_assert", "sym_", "_local_scalar")):
        return
    cost = COSTS.get(call.op)
    if cost is None:
        ledger.unknown.setdefault(call.source or call.op, call.scope)
        cost = _elementwise
    if not call.out.real and cost not in (_moved, _expert_block):
        cost = _moved  # positions, masks and indices: bytes, but no FLOPs
    cost(ledger, call)


# --- products ---------------------------------------------------------------------------------------------------------


def _linear(ledger: Ledger, call: Call) -> None:
    """x·Wᵀ + b."""
    x, weight = call.inputs[:2]
    bias = call.value("bias")
    _product(ledger, call, x, weight, transposed=True, bias=bias is not None)


def _addmm(ledger: Ledger, call: Call) -> None:
    """b + x·W."""
    x, weight = call.value("mat1"), call.value("mat2")
    assert x is not None and weight is not None
    _product(ledger, call, x, weight, transposed=False, bias=call.inputs[0].role == "parameter")


def _matmul(ledger: Ledger, call: Call) -> None:
    """A product of two tensors; the one that is a weight makes it a projection."""
    x, other = call.inputs[-2:]
    if x.fixed and not other.fixed:
        # W·x is (xᵀ·Wᵀ)ᵀ: the same work with the roles of the operands exchanged.
        _product(ledger, call, _flipped(other), _flipped(x), transposed=False)
    else:
        _product(ledger, call, x, other, transposed=False)


def _flipped(value: Value) -> Value:
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


def _einsum(ledger: Ledger, call: Call) -> None:
    """A contraction of two tensors by its letters; of more tensors, one after the other is not known."""
    a, b = call.inputs[0], call.inputs[-1]
    terms, _, result = str(call.get("equation")).replace(" ", "").partition("->")
    letters = terms.split(",")
    if len(call.inputs) != 2 or "." in terms or len(letters) != 2:
        ledger.unknown.setdefault(call.source or "einsum", call.scope)
        _elementwise(ledger, call)
        return
    size = {**dict(zip(letters[0], a.shape, strict=True)), **dict(zip(letters[1], b.shape, strict=True))}

    def count(wanted: set[str]) -> int:
        return prod(size[letter] for letter in wanted)

    first, second, kept = (set(word) for word in (*letters, result))
    batch, m, n = count(first & second & kept), count((first & kept) - second), count((second & kept) - first)
    k = count((first & second) - kept)
    if k == 1 and not (first & second) - kept:
        _elementwise(ledger, call)  # an outer or element-wise product
    elif a.fixed and not b.fixed:
        ledger.product(call, batch, n, m, k, a)
    else:
        ledger.product(call, batch, m, n, k, b)


def _expert_product(ledger: Ledger, call: Call) -> None:
    """Rows sorted by expert times their experts' weights, outside a recognised block: rows evenly over experts."""
    x, weight = call.inputs
    experts, k = weight.shape[0], x.elements // max(1, x.elements // x.shape[-1])
    k = k if k in weight.shape[1:] else weight.shape[1]
    n = weight.elements // experts // k
    ledger.product(call, experts, max(1, ceil_div(call.out.elements // n, experts)), n, k, weight)


def _expert_block(ledger: Ledger, call: Call) -> None:
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


# --- attention --------------------------------------------------------------------------------------------------------


def _attention(ledger: Ledger, call: Call) -> None:
    """softmax(q·kᵀ)·v in one kernel, q [batch, heads, queries, width]."""
    query, key, value = call.inputs[:3]
    mask = Mask(causal=True) if call.get("is_causal") else _mask(ledger, call)
    _attend(ledger, call, query, key, value, mask, fused=True)


def _unfused_attention(ledger: Ledger, call: Call) -> None:
    """The same as two products around a softmax."""
    query, key_t, value = call.inputs[:3]
    key = Value(key_t.name, _flipped(key_t).shape, key_t.dtype, producer=key_t.producer)
    _attend(ledger, call, query, key, value, _mask(ledger, call), fused=False)


def _attend(ledger: Ledger, call: Call, query: Value, key: Value, value: Value, mask: Mask, *, fused: bool) -> None:
    queries, width = query.shape[-2:]
    keys, value_dim = value.shape[-2:]
    planes = prod(query.shape[:-2])
    scores = call.get("scores", query.shape)
    heads = int(scores[-3]) if len(scores) > 2 else 1
    if planes % heads:
        heads = planes
    stored = key.shape[-3] if len(key.shape) > 2 else 1
    if not fused or stored == heads:
        stored = max(1, heads * unique(key) // max(1, key.elements))
    kv_heads = stored if heads % stored == 0 else heads
    causal, window = mask.causal, mask.window
    if causal and queries > keys:
        ledger.note(call, "a causal mask with more queries than keys is counted as a full one")
        causal, window = False, 0
    dimensions: dict[str, Any] = {
        "phase": "generation" if queries < keys and (causal or queries == 1) else "context",
        "batch": max(1, planes // heads),
        "q_len": queries,
        "kv_len": keys,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": width,
        "dtype": call.out.dtype,
        "causal": bool(causal),
        "cached": bool(queries < keys and (causal or queries == 1)),
    }
    dimensions |= {"window": window} if window else {}
    dimensions |= {"value_dim": value_dim} if value_dim != width else {}
    dimensions |= {} if fused else {"fused": False}
    ledger.add(call, "attention", dimensions)


def _mask(ledger: Ledger, call: Call) -> Mask:
    given = call.value("attn_mask")
    if given is None:
        return Mask()
    computed = ledger.trace.evaluate(given)
    if computed is None:
        ledger.note(call, "its mask depends on values that are not known here: counted as a full one")
        return Mask()
    found = classify(visible(computed))
    if not found.exact:
        ledger.note(call, "its mask is neither full, causal nor a sliding window: counted as a full one")
        return Mask()
    return found


# --- convolutions, scans ----------------------------------------------------------------------------------------------


def _convolution(ledger: Ledger, call: Call) -> None:
    """A convolution [batch, channels, …]: square ones as they are, others as the matrix product they make."""
    x, weight = call.inputs[:2]
    axes = len(weight.shape) - 2
    groups = int(call.get("groups", 1))
    stride, padding, dilation = (
        _per_axis(call.get(n, d), axes) for n, d in (("stride", 1), ("padding", 0), ("dilation", 1))
    )
    kernel = weight.shape[2:]
    transposed = bool(call.get("transposed")) or call.op.startswith("conv_transpose")
    square = axes == 2 and all(len(set(p)) == 1 for p in (kernel, stride, padding)) and set(dilation) == {1}
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
    ledger.product(call, groups, positions, n, k, weight, bias=bias)


def _per_axis(given: Any, axes: int) -> tuple[int, ...]:
    if isinstance(given, str):
        return (-1,) * axes
    values = tuple(int(v) for v in given) if isinstance(given, list | tuple) else (int(given),)
    return values * axes if len(values) == 1 else values


def _causal_conv1d(ledger: Ledger, call: Call) -> None:
    """Depthwise along the sequence, x [batch, channels, length]."""
    x, weight = call.inputs[:2]
    _depthwise(ledger, call, x, weight, x.shape[-1])


def _depthwise(ledger: Ledger, call: Call, x: Value, weight: Value, length: int) -> None:
    batch = x.shape[0] if len(x.shape) == 3 else 1
    dimensions = {"batch": batch, "length": length, "channels": weight.shape[0], "kernel": weight.shape[-1]}
    bias = call.value("bias") is not None
    ledger.add(call, "conv1d", {**dimensions, "dtype": x.dtype, "bias": bias}, weights=(weight,))


def _scan(ledger: Ledger, call: Call) -> None:
    names = ("batch", "length", "heads", "head_dim", "state", "groups", "chunk")
    dtypes = [v.dtype for v in call.arguments["inputs"] if v.real]
    dtype = dtypes[0] if dtypes else call.out.dtype
    ledger.add(call, "ssd_scan", {**{name: int(call.arguments[name]) for name in names}, "dtype": dtype})


# --- rows and elements ------------------------------------------------------------------------------------------------


def _norm(kind: str, learned: int) -> Cost:
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


def _channel_norm(ledger: Ledger, call: Call) -> None:
    """Batch norm (statistics given) and group or instance norm: the arithmetic of a layer norm over the positions."""
    x, sizes = call.inputs[0], [v.elements for v in call.inputs[1:3] if v.role == "parameter"]
    if "batch_norm" in call.op:
        ledger.rows(call, "bias", x.elements // x.shape[1], x.shape[1], sum(sizes), *call.inputs[1:2])
        return
    rows = x.shape[0] * int(call.get("num_groups", x.shape[1]))
    ledger.rows(call, "layernorm", rows, x.elements // rows, sum(sizes) // 2, *call.inputs[1:2])


def _along_last(kind: str) -> Cost:
    """A recipe on the rows of the result."""
    return lambda ledger, call: ledger.pointwise(call, kind)


def _softmax(ledger: Ledger, call: Call) -> None:
    """Rows along the given axis."""
    x = call.inputs[0]
    cols = x.shape[int(call.get("dim", -1))] if x.shape else 1
    ledger.rows(call, "softmax", x.elements // cols, cols)


def _gelu(ledger: Ledger, call: Call) -> None:
    ledger.pointwise(call, "gelu_tanh" if call.get("approximate") == "tanh" else "gelu")


def _elementwise(ledger: Ledger, call: Call) -> None:
    """One operation an element: two tensors of full size, one, or one with learned numbers."""
    _binary("add")(ledger, call)


def _binary(kind: str) -> Cost:
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


def _power(ledger: Ledger, call: Call) -> None:
    """Small whole exponents are multiplications, others special functions."""
    exponent = number(call.get("exponent"))
    ledger.pointwise(call, "scale" if exponent in (2.0, 3.0) else "exp")


def _reduce(ledger: Ledger, call: Call) -> None:
    """One operation an input, one result a row."""
    x = call.inputs[0]
    rows = min(max(1, call.out.elements), max(1, x.elements))
    ledger.rows(call, "sum", rows, ceil_div(x.elements, rows), dtype=x.dtype if x.real else "")


def _pool(ledger: Ledger, call: Call) -> None:
    """Windows that are read once each; the inputs a window shares with others count once."""
    x = call.inputs[0]
    ledger.rows(call, "sum", call.out.elements, ceil_div(x.elements, call.out.elements))


def _moved(ledger: Ledger, call: Call) -> None:
    """Bytes in and out, no arithmetic; a gather reads no more than it writes."""
    out = call.out
    read = [v for v in call.inputs if not (v.role == "constant" and v.elements < out.elements)]
    size = min(sum(v.elements * ledger.word(v) for v in read), out.elements * ledger.word(out))
    ledger.moved(call, (size + out.elements * ledger.word(out)) / 2.0)


def _cast(ledger: Ledger, call: Call) -> None:
    """Another type: the bytes of both."""
    x, out = call.inputs[0], call.out
    if x.dtype != out.dtype and not source(x).fixed:
        ledger.moved(call, (x.elements * ledger.word(x) + out.elements * ledger.word(out)) / 2.0)


def _embedding(ledger: Ledger, call: Call) -> None:
    """Rows of a table."""
    table = call.value("weight") or call.inputs[0]
    if not table.fixed or len(table.shape) != 2:
        _moved(ledger, call)
        return
    rows, width = table.shape
    size = {"tokens": max(1, call.out.elements // width), "vocabulary": rows, "width": width, "dtype": table.dtype}
    ledger.add(call, "embedding", size, weights=(table,))


def _gather(ledger: Ledger, call: Call) -> None:
    """Rows of a learned table (an embedding), or a copy."""
    x = call.inputs[0]
    if x.role == "parameter" and len(x.shape) == 2 and call.out.shape[-1:] == x.shape[-1:] and call.out.real:
        _embedding(ledger, call)
    else:
        _moved(ledger, call)


def _entries() -> Iterator[tuple[str, Cost]]:
    yield from dict.fromkeys(_ADD, _binary("add")).items()
    yield from dict.fromkeys((*_COPY, *CASTS), _moved).items()
    yield from dict.fromkeys(CASTS, _cast).items()
    yield from dict.fromkeys(_SPECIAL, _along_last("exp")).items()
    yield from dict.fromkeys(_ONE, _along_last("scale")).items()
    yield from dict.fromkeys(_REDUCE, _reduce).items()
    yield from dict.fromkeys(_POOLS, _pool).items()
    for name in ("silu", "relu", "relu2", "sigmoid", "softplus", "silu_mul", "gelu_mul", "relu_mul", "rope"):
        yield name, _along_last(name)
    for name in ("hardswish", "hardsigmoid", "mish", "elu", "selu", "logit"):
        yield name, _along_last("sigmoid")
    for name in ("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose2d", "conv_transpose1d"):
        yield name, _convolution


COSTS: Final[dict[str, Cost]] = dict(_entries()) | {
    "linear": _linear,
    "addmm": _addmm,
    "matmul": _matmul,
    "mm": _matmul,
    "bmm": _matmul,
    "baddbmm": _matmul,
    "mv": _matmul,
    "dot": _matmul,
    "einsum": _einsum,
    "expert_mm": _expert_product,
    "moe": _expert_block,
    "scaled_dot_product_attention": _attention,
    "unfused_attention": _unfused_attention,
    "causal_conv1d": _causal_conv1d,
    "ssd_scan": _scan,
    "layer_norm": _norm("layernorm", 2),
    "rms_norm": _norm("rmsnorm", 1),
    "gated_rms_norm": _norm("gated_rmsnorm", 1),
    "batch_norm": _channel_norm,
    "_native_batch_norm_legit_no_training": _channel_norm,
    "group_norm": _channel_norm,
    "instance_norm": _channel_norm,
    "softmax": _softmax,
    "_softmax": _softmax,
    "log_softmax": _softmax,
    "_log_softmax": _softmax,
    "gelu": _gelu,
    "mul": _binary("mul"),
    "div": _binary("div"),
    "pow": _power,
    "embedding": _embedding,
    "index": _gather,
    "index_select": _gather,
    "glu": _along_last("silu_mul"),
    "cross_entropy_loss": _softmax,
}
"""What each known call costs."""

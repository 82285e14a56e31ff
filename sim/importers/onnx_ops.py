"""ONNX operators by the names and arguments of ATen's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from .traced import Value

Arguments = dict[str, Any]
Attributes = dict[str, Any]
Translation = Callable[[list[Any], Attributes, list[Value]], tuple[str, Arguments]]
"""(inputs, attributes, results) → (name, arguments). A number stands for a constant of one element."""


def named(op: str, *names: str, **from_attributes: str) -> Translation:
    """The same operation under another name: inputs by position, attributes by ``argument=attribute``."""

    def translate(inputs: list[Any], attributes: Attributes, results: list[Value]) -> tuple[str, Arguments]:
        given = {names[i] if i < len(names) else f"argument_{i}": item for i, item in enumerate(inputs)}
        more = {argument: attributes[key] for argument, key in from_attributes.items() if key in attributes}
        return op, {**given, **more}

    return translate


def _gemm(inputs: list[Any], attributes: Attributes, results: list[Value]) -> tuple[str, Arguments]:
    """alpha·A·B + beta·C, either operand transposed."""
    a, b = (_turned(v) if attributes.get(key) else v for v, key in zip(inputs[:2], ("transA", "transB"), strict=True))
    if len(inputs) < 3 or inputs[2] is None:
        return "matmul", {"self": a, "other": b}
    return "addmm", {"self": inputs[2], "mat1": a, "mat2": b}


def _turned(value: Value) -> Value:
    """A view of a matrix with its axes exchanged."""
    return Value(value.name, value.shape[::-1], value.dtype, value.role, value.parameter, value.producer)


def _conv(inputs: list[Any], attributes: Attributes, results: list[Value]) -> tuple[str, Arguments]:
    x, weight = inputs[:2]
    axes = len(weight.shape) - 2
    stride = attributes.get("strides", [1] * axes)
    dilation = attributes.get("dilations", [1] * axes)
    arguments = {"input": x, "weight": weight, "bias": inputs[2] if len(inputs) > 2 else None}
    arguments |= {"stride": stride, "dilation": dilation, "groups": attributes.get("group", 1)}
    if attributes.get("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER"):
        extents = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilation, strict=True)]
        sizes = zip(results[0].shape[2:], stride, extents, x.shape[2:], strict=True)
        whole = [max(0, (out - 1) * s + extent - size) for out, s, extent, size in sizes]
        ends = [(w // 2, w - w // 2) for w in whole]
    else:
        pads = attributes.get("pads", [0] * (2 * axes))
        ends = list(zip(pads[:axes], pads[axes:], strict=True))
    # One side padded more than the other has no single number.
    arguments["padding"] = [a if a == b else -1 for a, b in ends]
    return f"conv{axes}d", arguments


def _conv_transpose(inputs: list[Any], attributes: Attributes, results: list[Value]) -> tuple[str, Arguments]:
    _, arguments = _conv(inputs, {k: v for k, v in attributes.items() if k != "auto_pad"}, results)
    return "convolution", {**arguments, "transposed": True}


def _attention(inputs: list[Any], attributes: Attributes, results: list[Value]) -> tuple[str, Arguments]:
    """The whole operator of opset 23, on [batch, heads, tokens, width] or [batch, tokens, heads · width]."""
    query, key, value = inputs[:3]
    if len(query.shape) == 3:
        heads, groups = attributes["q_num_heads"], attributes["kv_num_heads"]
        query, key, value = _headed(query, heads), _headed(key, groups), _headed(value, groups)
    mask = inputs[3] if len(inputs) > 3 else None
    arguments = {"query": query, "key": key, "value": value, "attn_mask": mask}
    return "scaled_dot_product_attention", {**arguments, "is_causal": bool(attributes.get("is_causal", 0))}


def _headed(value: Value, heads: int) -> Value:
    batch, tokens, width = value.shape
    shape = (batch, heads, tokens, width // heads)
    return Value(value.name, shape, value.dtype, value.role, value.parameter, value.producer)


def _layer_norm(inputs: list[Any], attributes: Attributes, results: list[Value]) -> tuple[str, Arguments]:
    weight = inputs[1]
    names = dict(zip(("input", "weight", "bias"), inputs, strict=False))
    return "layer_norm", {**names, "cols": weight.elements if isinstance(weight, Value) else 1}


def _rms_norm(inputs: list[Any], attributes: Attributes, results: list[Value]) -> tuple[str, Arguments]:
    weight = inputs[1]
    cols = weight.elements if isinstance(weight, Value) else 1
    return "rms_norm", {"input": inputs[0], "weight": weight, "cols": cols}


def _batch_norm(inputs: list[Any], attributes: Attributes, results: list[Value]) -> tuple[str, Arguments]:
    return "batch_norm", dict(zip(("input", "weight", "bias", "running_mean", "running_var"), inputs, strict=False))


def _gather(inputs: list[Any], attributes: Attributes, results: list[Value]) -> tuple[str, Arguments]:
    """Rows of a matrix are an embedding; anything else is a copy."""
    table, rows = inputs[:2]
    if isinstance(table, Value) and table.role == "parameter" and len(table.shape) == 2 and not attributes.get("axis"):
        return "embedding", {"weight": table, "indices": rows}
    if not isinstance(rows, Value):
        return "select", {"self": table}
    return "index_select", {"self": table, "index": rows}


def _gelu(inputs: list[Any], attributes: Attributes, results: list[Value]) -> tuple[str, Arguments]:
    return "gelu", {"self": inputs[0], "approximate": attributes.get("approximate", "none")}


def _view(inputs: list[Any], attributes: Attributes, results: list[Value]) -> tuple[str, Arguments]:
    """The same elements; shapes and indices are no data."""
    return "view", {"self": inputs[0]}


def _slice(inputs: list[Any], attributes: Attributes, results: list[Value]) -> tuple[str, Arguments]:
    return "slice", {"self": inputs[0]}


def _made(inputs: list[Any], attributes: Attributes, results: list[Value]) -> tuple[str, Arguments]:
    """A tensor from nothing but a shape."""
    return "full", {}


def _same(inputs: list[Any], attributes: Attributes, results: list[Value]) -> tuple[str, Arguments]:
    return "dequantize", {"self": inputs[0]}


def _tables() -> dict[str, Translation]:
    binary = {"Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Mod": "remainder", "Min": "minimum"}
    binary |= {"Max": "maximum", "MatMul": "matmul", "And": "logical_and", "Or": "logical_or", "Xor": "logical_xor"}
    binary |= {"Equal": "eq", "Less": "lt", "LessOrEqual": "le", "Greater": "gt", "GreaterOrEqual": "ge"}
    unary = (
        *("Sqrt", "Exp", "Log", "Erf", "Tanh", "Sigmoid", "Relu", "Neg", "Abs"),
        *("Reciprocal", "Sin", "Cos", "Tan", "Floor", "Ceil", "Round", "Sign", "Softplus"),
        *("Elu", "Selu", "HardSwish", "HardSigmoid", "Mish", "Atan"),
    )
    pools = {"MaxPool": "max_pool2d", "AveragePool": "avg_pool2d", "GlobalAveragePool": "adaptive_avg_pool2d"}
    sums = {"ReduceMean": "mean", "ReduceSum": "sum", "ReduceMax": "amax", "ReduceMin": "amin", "ReduceProd": "prod"}
    sums |= {"ReduceL2": "norm", "ReduceLogSumExp": "logsumexp", "CumSum": "cumsum", "ArgMax": "argmax"}
    copies = {"Concat": "cat", "Tile": "repeat", "Pad": "pad", "GatherElements": "gather", "GatherND": "index"}
    copies |= {"ScatterND": "index_put", "ScatterElements": "scatter", "DepthToSpace": "pixel_shuffle"}
    copies |= {"SpaceToDepth": "pixel_unshuffle", "Resize": "upsample_nearest2d", "Trilu": "tril"}
    table = {name: named(op, "self", "other") for name, op in binary.items()}
    table |= {name: named(name.lower(), "self") for name in unary}
    table |= {name: named(op, "self") for name, op in {**pools, **sums, **copies}.items()}
    table |= dict.fromkeys(("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Expand"), _view)
    table |= dict.fromkeys(("Dropout", "Split"), _view) | {"Slice": _slice}
    return table | dict.fromkeys(("Range", "ConstantOfShape", "Shape", "Size", "Constant", "EyeLike"), _made)


TRANSLATIONS: Final[dict[str, Translation]] = _tables() | {
    "Gemm": _gemm,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Attention": _attention,
    "RotaryEmbedding": named("rope", "self"),
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "SimplifiedLayerNormalization": _rms_norm,
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": named("instance_norm", "input", "weight", "bias"),
    "GroupNormalization": named("group_norm", "input", "weight", "bias", num_groups="num_groups"),
    "Softmax": named("softmax", "self", dim="axis"),
    "LogSoftmax": named("log_softmax", "self", dim="axis"),
    "Pow": named("pow", "self", "exponent"),
    "Clip": named("clamp", "self"),
    "LeakyRelu": named("leaky_relu", "self"),
    "PRelu": named("leaky_relu", "self", "weight"),
    "Not": named("logical_not", "self"),
    "IsNaN": named("isnan", "self"),
    "IsInf": named("isinf", "self"),
    "Gelu": _gelu,
    "Swish": named("silu", "self"),
    "Gather": _gather,
    "Where": named("where", "condition", "self", "other"),
    "Cast": named("to", "self"),
    "CastLike": named("to", "self"),
    "LSTM": named("recurrent", "input", "into", "back", "bias"),
    "GRU": named("recurrent", "input", "into", "back", "bias"),
    "RNN": named("recurrent", "input", "into", "back", "bias"),
    "Einsum": named("einsum", equation="equation"),
    "DequantizeLinear": _same,
}
"""Standard operators. The others keep their own names, for which no cost is known."""

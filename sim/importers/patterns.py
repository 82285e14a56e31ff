"""Small graphs that are one operator: norms, rotary positions, activations and gates, attention written out.

Each rule looks at the call that makes the result and returns the call that stands for the whole, or None.
"""

from __future__ import annotations

from math import isclose, prod
from typing import Final

from .op_names import CASTS
from .pattern_attention import unfused_attention
from .pattern_parts import operands, replaced, scalar
from .traced import Call, Trace, Value, made_by, number, reader, sole_user, source

ACTIVATIONS: Final = {"silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_tanh", "relu": "relu"}
_GATED: Final = {"silu": "silu_mul", "gelu": "gelu_mul", "gelu_tanh": "gelu_mul", "relu": "relu_mul"}


def recognise(trace: Trace) -> None:
    """Apply all rules of this module, those that others build on first."""
    for rule in (
        _biased,
        _composed_silu,
        _composed_gelu,
        _composed_gelu_tanh,
        _rms_norm,
        _layer_norm,
        _scaled_norm,
        _gated_norm,
        _norm_gated,
        _rope,
        _causal_conv,
        _conv_silu,
        _relu_squared,
        _gated_activation,
        unfused_attention,
    ):
        trace.rewrite(rule)


def _is_scalar(call: Call | None, op: str, value: float) -> Value | None:
    """The tensor operand where *call* is ``op`` of a tensor and the number *value*."""
    found = scalar(call) if call is not None and call.op == op else None
    return found[0] if found and isclose(found[1], value, rel_tol=1e-3) else None


# --- activations ------------------------------------------------------------------------------------------------------


def _composed_silu(call: Call) -> Call | None:
    """x · sigmoid(x)."""
    pair = operands(call) if call.op == "mul" else None
    if pair is None:
        return None
    for x, gate in (pair, pair[::-1]):
        sigmoid = made_by(gate, "sigmoid")
        if sigmoid is not None and source(sigmoid.inputs[0]) is source(x):
            return replaced(call, "silu", self=x)
    return None


def _half_of(call: Call, inner: str) -> tuple[Value, Call] | None:
    """(x, the *inner* call) of ``0.5 · x · (1 + inner(…))`` in any order of the factors."""
    leaves = _factors(call)
    constants = [leaf for leaf in leaves if isinstance(leaf, float)]
    tensors = [leaf for leaf in leaves if isinstance(leaf, Value)]
    if len(tensors) != 2 or not isclose(prod(constants, start=1.0), 0.5, rel_tol=1e-3):
        return None
    for x, one_plus in (tensors, tensors[::-1]):
        add = made_by(one_plus, "add")
        body = _is_scalar(add, "add", 1.0)
        found = made_by(body, inner)
        if found is not None:
            return x, found
    return None


def _factors(call: Call, depth: int = 3) -> list[Value | float]:
    """Leaves of a product written as nested multiplications."""
    out: list[Value | float] = []
    for name in ("self", "other"):
        item = call.arguments.get(name)
        value = number(item)
        if value is not None:
            out.append(value)
        elif isinstance(item, Value):
            inner = made_by(item, "mul")
            if inner is not None and depth and sole_user(item) is not None:
                out += _factors(inner, depth - 1)
            else:
                out.append(item)
    return out


def _composed_gelu(call: Call) -> Call | None:
    """0.5 · x · (1 + erf(x/√2))."""
    found = _half_of(call, "erf") if call.op == "mul" else None
    return replaced(call, "gelu", self=found[0]) if found else None


def _composed_gelu_tanh(call: Call) -> Call | None:
    """0.5 · x · (1 + tanh(√(2/π)·(x + 0.044715·x³)))."""
    found = _half_of(call, "tanh") if call.op == "mul" else None
    return replaced(call, "gelu", self=found[0], approximate="tanh") if found else None


def _relu_squared(call: Call) -> Call | None:
    """relu(x)²."""
    if call.op not in ("pow", "square") or (call.op == "pow" and number(call.get("exponent")) != 2.0):
        return None
    relu = made_by(call.value("self"), "relu")
    return replaced(call, "relu2", self=relu.inputs[0]) if relu is not None else None


def activation(call: Call | None) -> str:
    """The name of an activation function that has a gated form, or nothing."""
    if call is None or call.op not in ACTIVATIONS:
        return ""
    return "gelu_tanh" if call.op == "gelu" and call.get("approximate") == "tanh" else ACTIVATIONS[call.op]


def _gated_activation(call: Call) -> Call | None:
    """activation(a) · b."""
    pair = operands(call) if call.op == "mul" else None
    if pair is None or pair[0].fixed or pair[1].fixed or pair[0].shape != pair[1].shape:
        return None
    for gate, other in (pair, pair[::-1]):
        made = made_by(gate, *ACTIVATIONS)
        name = activation(made)
        if made is not None and name and reader(made.out) is call:
            return replaced(call, _GATED[name], self=made.inputs[0], other=other)
    return None


def _biased(call: Call) -> Call | None:
    """x·W + b, as ONNX writes a projection."""
    pair = operands(call) if call.op == "add" else None
    if pair is None:
        return None
    for made, bias in (pair, pair[::-1]):
        product = made_by(made, "matmul", over=frozenset())
        if product is None or bias.role != "parameter" or sole_user(product.out) is None:
            continue
        x, weight = product.inputs
        if weight.role == "parameter" and len(weight.shape) == 2 and bias.elements == weight.shape[-1]:
            return replaced(call, "addmm", self=bias, mat1=x, mat2=weight)
    return None


# --- norms ------------------------------------------------------------------------------------------------------------


def _rms_norm(call: Call) -> Call | None:
    """x · rsqrt(mean(x²) + ε), or x / sqrt(mean(x²) + ε)."""
    pair = operands(call) if call.op in ("mul", "div") else None
    if pair is None:
        return None
    for x, factor in (pair, pair[::-1]) if call.op == "mul" else (pair,):
        squares = _mean_square(factor, divided=call.op == "div")
        if squares is not None and source(squares) is source(x):
            return replaced(call, "rms_norm", input=x, cols=x.shape[-1])
    return None


def _mean_square(factor: Value, *, divided: bool) -> Value | None:
    """x, where *factor* is 1/√(mean(x²) + ε), or √(…) if it divides."""
    root = made_by(factor, "sqrt" if divided else "rsqrt")
    if root is None and not divided:
        inverse = made_by(factor, "reciprocal", "div")
        one = inverse is not None and (inverse.op == "reciprocal" or number(inverse.get("self")) == 1.0)
        root = made_by(inverse.inputs[0], "sqrt") if inverse is not None and one else None
    if root is None:
        return None
    eps = made_by(root.inputs[0], "add", "clamp", "clamp_min")
    mean = made_by(eps.inputs[0] if eps is not None else root.inputs[0], "mean")
    if mean is None or mean.out.elements * mean.inputs[0].shape[-1] != mean.inputs[0].elements:
        return None
    square = made_by(mean.inputs[0], "pow", "square", "mul")
    if square is None or (square.op == "pow" and number(square.get("exponent")) != 2.0):
        return None
    inputs = square.inputs
    if square.op == "mul" and (len(inputs) != 2 or inputs[0] is not inputs[1]):
        return None
    return inputs[0]


def _layer_norm(call: Call) -> Call | None:
    """The RMS norm of x − mean(x)."""
    centred = made_by(call.value("input"), "sub") if call.op == "rms_norm" else None
    pair = operands(centred) if centred is not None else None
    mean = made_by(pair[1], "mean") if pair is not None else None
    if pair is None or mean is None or source(mean.inputs[0]) is not source(pair[0]):
        return None
    return replaced(call, "layer_norm", input=pair[0], cols=call.get("cols"))


def _scaled_norm(call: Call) -> Call | None:
    """norm(x) · weight, and norm(x) · weight + bias."""
    pair = operands(call) if call.op in ("mul", "add") else None
    if pair is None:
        return None
    for x, weight in (pair, pair[::-1]):
        made = made_by(x, "rms_norm", "layer_norm")
        if made is None or weight.role != "parameter" or reader(made.out) is not call:
            continue
        key = "weight" if call.op == "mul" else "bias"
        if made.value(key) is not None or (key == "bias" and made.value("weight") is None):
            continue
        return replaced(call, made.op, **{**made.arguments, key: weight})
    return None


def _gated_norm(call: Call) -> Call | None:
    """norm(x · silu(z)) · weight."""
    x = call.value("input") if call.op == "rms_norm" else None
    pair = operands(product) if (product := made_by(x, "mul")) is not None else None
    if product is None or pair is None or call.value("weight") is None:
        return None
    for inner, gate in (pair, pair[::-1]):
        silu = made_by(gate, "silu")
        if silu is not None and inner.shape == gate.shape:
            return replaced(call, "gated_rms_norm", input=inner, gate=silu.inputs[0], weight=call.value("weight"))
    return None


def _norm_gated(call: Call) -> Call | None:
    """norm(x) · weight · silu(z)."""
    pair = operands(call) if call.op == "mul" else None
    if pair is None:
        return None
    for x, gate in (pair, pair[::-1]):
        norm, silu = made_by(x, "rms_norm"), made_by(gate, "silu")
        if norm is not None and silu is not None and norm.value("weight") is not None and reader(norm.out) is call:
            return replaced(
                call, "gated_rms_norm", input=norm.value("input"), gate=silu.inputs[0], weight=norm.value("weight")
            )
    return None


# --- positions, convolutions ------------------------------------------------------------------------------------------


def _rope(call: Call) -> Call | None:
    """x · cos + [−x₂, x₁] · sin."""
    pair = operands(call) if call.op == "add" else None
    if pair is None:
        return None
    for straight, turned in (pair, pair[::-1]):
        first, second = made_by(straight, "mul", over=CASTS), made_by(turned, "mul", over=CASTS)
        if first is None or second is None:
            continue
        rotated = next((m for v in second.inputs if (m := made_by(v, "cat", over=CASTS)) is not None), None)
        if rotated is None or len(rotated.inputs) != 2:
            continue
        negative = made_by(rotated.inputs[0], "neg", over=CASTS)
        if negative is None:
            continue
        x = source(negative.inputs[0])
        if source(rotated.inputs[1]) is not x:
            continue
        kept = next((v for v in first.inputs if source(v) is x), None)
        if kept is not None:
            return replaced(call, "rope", self=kept)
    return None


def _causal_conv(call: Call) -> Call | None:
    """A depthwise 1-D convolution padded by kernel − 1, of which the first outputs are kept."""
    if call.op != "slice":
        return None
    made = made_by(call.value("self"), "conv1d", over=CASTS)
    if made is None or sole_user(made.out) is not call:
        return None
    x, weight = made.value("input"), made.value("weight")
    if x is None or weight is None or x.shape[-1] != call.out.shape[-1]:
        return None
    groups, kernel = made.get("groups", 1), weight.shape[-1]
    padded = list(made.get("padding", [0])) == [kernel - 1]
    if groups != x.shape[1] or weight.shape[0] != groups or not padded or list(made.get("stride", [1])) != [1]:
        return None
    return replaced(call, "causal_conv1d", input=x, weight=weight, bias=made.value("bias"))


def _conv_silu(call: Call) -> Call | None:
    """The nonlinearity behind a causal convolution runs in its kernel."""
    made = made_by(call.value("self"), "causal_conv1d") if call.op == "silu" else None
    if made is None or reader(made.out) is not call:
        return None
    return replaced(call, "causal_conv1d", **made.arguments)

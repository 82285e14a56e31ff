"""Feed-forward blocks: dense and mixture of experts."""

from __future__ import annotations

from ..graph.graph import Node, Value
from ..graph.operators.linear import Linear
from ..graph.operators.moe import Experts, TopK
from ..spec.architecture import Mlp, Moe
from .step import Scope

_GATED = {"silu": "silu_mul", "gelu": "gelu_mul", "gelu_tanh": "gelu_mul", "relu": "relu_mul"}


def mlp(scope: Scope, ffn: Mlp) -> list[Node]:
    """Two projections around a nonlinearity; gate and up are one projection of twice the width when gated."""
    return _dense(scope, "", ffn.intermediate, ffn.activation, gated=ffn.gated, bias=ffn.bias)


def moe(scope: Scope, ffn: Moe) -> list[Node]:
    """Router, routed experts, and the experts that every token uses.

    Where there are shared experts, the routed and the shared partial sums add before one all-reduce, which therefore
    stands behind the shared output projection.
    """
    tokens, hidden, step = scope.tokens, scope.hidden, scope.step
    router = Linear(tokens, ffn.experts, hidden, step.dtype, bias=ffn.router_bias)
    routed = Experts(
        tokens,
        hidden,
        ffn.intermediate,
        ffn.experts,
        ffn.top_k,
        step.dtype,
        step.weight_dtype,
        step.group_size,
        ffn.gated,
        activation=ffn.activation,
    )
    rows, scores = scope.normed(), Value("scores", ffn.experts)
    routes = (Value("chosen", ffn.top_k), Value("shares", ffn.top_k))
    reduce = "" if ffn.shared_width else "all_reduce"
    nodes = [
        scope.node("router", router, flow=((rows,), (scores,))),
        scope.node("top_k", TopK(tokens, ffn.experts, ffn.top_k), flow=((scores,), routes)),
        scope.node("experts", routed, "experts", reduce, ((rows, *routes), (scope.fed,))),
    ]
    return nodes + _shared(scope, ffn) if ffn.shared_width else nodes


def _shared(scope: Scope, ffn: Moe) -> list[Node]:
    nodes = _dense(scope, "shared_", ffn.shared_width, ffn.activation, gated=ffn.gated, bias=False)
    made = Value("shared_fed", scope.hidden)
    if ffn.shared_gate:
        gate, scale = Linear(scope.tokens, 1, scope.hidden, scope.dtype), Value("shared_scale", 1)
        scaled = ((made, scale), (made,))
        nodes.append(scope.node("shared_gate", gate, flow=((scope.normed(),), (scale,))))
        nodes.append(scope.pointwise("shared_gate_sigmoid", "sigmoid", 1, flow=((scale,), (scale,))))
        nodes.append(scope.pointwise("shared_gate_mul", "scale", scope.hidden, flow=scaled))
    added = ((scope.fed, made), (scope.fed,))
    nodes.append(scope.pointwise("shared_add", "add", scope.hidden, flow=added))
    return nodes


def _dense(scope: Scope, prefix: str, width: int, activation: str, *, gated: bool, bias: bool) -> list[Node]:
    hidden = scope.hidden
    first, columns = ("gate_up_proj", 2 * width) if gated else ("up_proj", width)
    op = _GATED[activation] if gated else activation
    up, made = Value(f"{prefix}up", width), Value(f"{prefix}fed", hidden)
    inner = (Value(f"{prefix}gate", width), up) if gated else (up,)
    act = (inner, (up,))
    flow = ((up,), (made,))
    return [
        scope.linear(prefix + first, columns, hidden, "column", bias=bias, flow=((scope.normed(),), inner)),
        scope.pointwise(f"{prefix}activation", op, width, "column", flow=act),
        scope.linear(f"{prefix}down_proj", hidden, width, "row", "all_reduce", bias=bias, flow=flow),
    ]

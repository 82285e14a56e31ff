"""Feed-forward blocks: dense and mixture of experts."""

from __future__ import annotations

from ..graph.graph import Node
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
    nodes = [
        scope.node("router", router),
        scope.node("top_k", TopK(tokens, ffn.experts, ffn.top_k)),
        scope.node("experts", routed, "experts", "" if ffn.shared_width else "all_reduce"),
    ]
    return nodes + _shared(scope, ffn) if ffn.shared_width else nodes


def _shared(scope: Scope, ffn: Moe) -> list[Node]:
    nodes = _dense(scope, "shared_", ffn.shared_width, ffn.activation, gated=ffn.gated, bias=False)
    if ffn.shared_gate:
        gate = Linear(scope.tokens, 1, scope.hidden, scope.dtype)
        nodes.append(scope.node("shared_gate", gate))
        nodes.append(scope.pointwise("shared_gate_sigmoid", "sigmoid", 1))
        nodes.append(scope.pointwise("shared_gate_mul", "scale", scope.hidden))
    nodes.append(scope.pointwise("shared_add", "add", scope.hidden))
    return nodes


def _dense(scope: Scope, prefix: str, width: int, activation: str, *, gated: bool, bias: bool) -> list[Node]:
    hidden = scope.hidden
    first, columns = ("gate_up_proj", 2 * width) if gated else ("up_proj", width)
    op = _GATED[activation] if gated else activation
    return [
        scope.linear(prefix + first, columns, hidden, "column", bias=bias),
        scope.pointwise(f"{prefix}activation", op, width, "column"),
        scope.linear(f"{prefix}down_proj", hidden, width, "row", "all_reduce", bias=bias),
    ]

"""Linear-time blocks: Mamba, Mamba-2 and the gated delta rule, from input to output projection."""

from __future__ import annotations

from ..graph.graph import Node
from ..graph.operators.convolution import CausalConv1d
from ..graph.operators.linear import WeightMatmul
from ..graph.operators.scan import GatedDelta as GatedDeltaOp
from ..graph.operators.scan import SelectiveScan, SSDScan
from ..spec.architecture import GatedDelta, Mamba, Mamba2
from .step import Scope


def mamba(scope: Scope, mixer: Mamba) -> list[Node]:
    """Selective state space. The gate z is applied inside the scan; SiLU follows the convolution in its kernel."""
    inner = mixer.inner
    nodes = [
        scope.linear("in_proj", 2 * inner, scope.hidden, "column", bias=mixer.proj_bias),
        _convolution(scope, inner, mixer.kernel, mixer.conv_bias),
        *_selection(scope, mixer),
    ]
    step = scope.step
    scan = SelectiveScan(step.batch, step.q_len, inner, mixer.state, step.dtype)
    nodes.append(scope.node("selective_scan", scan, "column"))
    nodes.append(scope.linear("out_proj", scope.hidden, inner, "row", "all_reduce", bias=mixer.proj_bias))
    return nodes


def mamba2(scope: Scope, mixer: Mamba2) -> list[Node]:
    """State-space duality: z, x, B, C and Δ from one projection; x, B and C pass the convolution."""
    inner, states = mixer.inner, 2 * mixer.groups * mixer.state
    step = scope.step
    scan = SSDScan(
        step.batch, step.q_len, mixer.heads, mixer.head_dim, mixer.state, mixer.groups, mixer.chunk, step.dtype
    )
    gate = "gated_rmsnorm" if mixer.gated_norm else "silu_mul"
    projected = 2 * inner + states + mixer.heads
    return [
        scope.linear("in_proj", projected, scope.hidden, "column", bias=mixer.proj_bias),
        _convolution(scope, inner + states, mixer.kernel, mixer.conv_bias),
        scope.node("ssd_scan", scan, "heads"),
        scope.pointwise(gate, gate, inner, "column"),
        scope.linear("out_proj", scope.hidden, inner, "row", "all_reduce", bias=mixer.proj_bias),
    ]


def gated_delta(scope: Scope, mixer: GatedDelta) -> list[Node]:
    """Gated delta rule: q, k, v, z and the two gates from one projection; q, k and v pass the convolution."""
    keys, values = mixer.key_heads * mixer.key_dim, mixer.value_heads * mixer.value_dim
    step = scope.step
    rule = GatedDeltaOp(
        step.batch, step.q_len, mixer.value_heads, mixer.key_dim, mixer.value_dim, mixer.chunk, step.dtype
    )
    return [
        scope.linear("in_proj", 2 * keys + 2 * values + 2 * mixer.value_heads, scope.hidden, "column"),
        _convolution(scope, 2 * keys + values, mixer.kernel, bias=False),
        scope.node("gated_delta", rule, "heads"),
        scope.pointwise("gated_rmsnorm", "gated_rmsnorm", values, "column", mixer.value_dim),
        scope.linear("out_proj", scope.hidden, values, "row", "all_reduce"),
    ]


def _convolution(scope: Scope, channels: int, kernel: int, bias: bool) -> Node:
    step = scope.step
    return scope.node("conv1d", CausalConv1d(step.batch, step.q_len, channels, kernel, step.dtype, bias), "column")


def _selection(scope: Scope, mixer: Mamba) -> list[Node]:
    """The input-dependent Δ, B and C: a low-rank projection, optional norms, and Δ's expansion to all channels."""
    rank, outputs = mixer.dt_rank, mixer.dt_rank + 2 * mixer.state
    if mixer.heads > 1:
        return _blocked_selection(scope, mixer, outputs)
    nodes = [scope.linear("x_proj", outputs, mixer.inner, "row", "all_reduce")]
    if mixer.inner_norms != "none":
        learned = -1 if mixer.inner_norms == "parametric" else 0
        nodes.append(scope.pointwise("dt_norm", "rmsnorm", rank, "", learned))
        nodes.append(scope.pointwise("b_norm", "rmsnorm", mixer.state, "", learned))
        nodes.append(scope.pointwise("c_norm", "rmsnorm", mixer.state, "", learned))
    nodes.append(scope.linear("dt_proj", mixer.inner, rank, "column", bias=True))
    return nodes


def _blocked_selection(scope: Scope, mixer: Mamba, outputs: int) -> list[Node]:
    """Every head has its own projections of its own channels."""
    step, width = scope.step, mixer.inner // mixer.heads
    stored = (step.dtype, "weight", step.weight_dtype, step.group_size)
    x_proj = WeightMatmul(mixer.heads, scope.tokens, outputs, width, *stored)
    dt_proj = WeightMatmul(mixer.heads, scope.tokens, width, mixer.dt_rank, *stored, bias=True)
    return [scope.node("x_proj", x_proj, "heads"), scope.node("dt_proj", dt_proj, "heads")]

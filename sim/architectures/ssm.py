"""Linear-time blocks: Mamba, Mamba-2 and the gated delta rule, from input to output projection."""

from __future__ import annotations

from dataclasses import replace

from ..graph.graph import Node, Value
from ..graph.operators.convolution import CausalConv1d
from ..graph.operators.linear import WeightMatmul
from ..graph.operators.scan import GatedDelta as GatedDeltaOp
from ..graph.operators.scan import SelectiveScan, SSDScan
from ..spec.architecture import GatedDelta, Mamba, Mamba2
from .step import Scope, Values


def mamba(scope: Scope, mixer: Mamba) -> list[Node]:
    """Selective state space. The gate z is applied inside the scan; SiLU follows the convolution in its kernel."""
    inner = mixer.inner
    x, gate, scanned = scope.value("x", inner), scope.value("z", inner), scope.value("scanned", inner)
    projected = ((scope.normed(),), (x, gate))
    nodes = [
        scope.linear("in_proj", 2 * inner, scope.hidden, "column", bias=mixer.proj_bias, flow=projected),
        _convolution(scope, (x,), mixer.kernel, mixer.conv_bias),
        *_selection(scope, mixer, x),
    ]
    step = scope.step
    scan = SelectiveScan(step.batch, step.q_len, inner, mixer.state, step.dtype)
    time_step, to_state, to_output = scope.value("dt", inner), *_states(scope, mixer)
    selected = (x, time_step, to_state, to_output, gate)
    nodes.append(scope.node("selective_scan", scan, "column", flow=(selected, (scanned,))))
    nodes.append(_out_proj(scope, scanned, bias=mixer.proj_bias))
    # Blocks of a blocked selection have B and C of their own, which one scan cannot be told: no data flow.
    return nodes if mixer.heads == 1 else [replace(node, inputs=(), outputs=()) for node in nodes]


def mamba2(scope: Scope, mixer: Mamba2) -> list[Node]:
    """State-space duality: z, x, B, C and Δ from one projection; x, B and C pass the convolution."""
    inner, states = mixer.inner, 2 * mixer.groups * mixer.state
    step = scope.step
    scan = SSDScan(
        step.batch, step.q_len, mixer.heads, mixer.head_dim, mixer.state, mixer.groups, mixer.chunk, step.dtype
    )
    gate = "gated_rmsnorm" if mixer.gated_norm else "silu_mul"
    projected = 2 * inner + states + mixer.heads
    z, time_step = scope.value("z", inner), scope.value("dt", mixer.heads)
    x = scope.value("x", mixer.head_dim, mixer.heads)
    taken = (x, scope.value("b", mixer.state, mixer.groups), scope.value("c", mixer.state, mixer.groups))
    scanned = scope.value("scanned", inner)
    made = ((scope.normed(),), (z, *taken, time_step))
    return [
        scope.linear("in_proj", projected, scope.hidden, "column", bias=mixer.proj_bias, flow=made),
        _convolution(scope, taken, mixer.kernel, mixer.conv_bias),
        scope.node("ssd_scan", scan, "heads", flow=((*taken, time_step), (scanned,))),
        scope.pointwise(gate, gate, inner, "column", flow=((z, scanned), (scanned,))),
        _out_proj(scope, scanned, bias=mixer.proj_bias),
    ]


def gated_delta(scope: Scope, mixer: GatedDelta) -> list[Node]:
    """Gated delta rule: q, k, v, z and the two gates from one projection; q, k and v pass the convolution."""
    keys, values = mixer.key_heads * mixer.key_dim, mixer.value_heads * mixer.value_dim
    step = scope.step
    rule = GatedDeltaOp(
        step.batch, step.q_len, mixer.value_heads, mixer.key_dim, mixer.value_dim, mixer.chunk, step.dtype
    )
    projected = 2 * keys + 2 * values + 2 * mixer.value_heads
    q = scope.value("q", mixer.key_dim, mixer.key_heads)
    taken = (q, replace(q, name=f"{scope.prefix}k"), scope.value("v", mixer.value_dim, mixer.value_heads))
    z = scope.value("z", mixer.value_dim, mixer.value_heads)
    ruled = replace(z, name=f"{scope.prefix}ruled")
    gates = (scope.value("b", mixer.value_heads), scope.value("a", mixer.value_heads))
    made = ((scope.normed(),), (*taken, z, *gates))
    gate = scope.pointwise(
        "gated_rmsnorm", "gated_rmsnorm", values, "column", mixer.value_dim, flow=((z, ruled), (ruled,))
    )
    return [
        scope.linear("in_proj", projected, scope.hidden, "column", flow=made),
        _convolution(scope, taken, mixer.kernel, bias=False),
        scope.node("gated_delta", rule, "heads", flow=((*taken, *gates), (ruled,))),
        gate,
        _out_proj(scope, ruled, bias=False),
    ]


def _out_proj(scope: Scope, reads: Value, *, bias: bool) -> Node:
    flow = ((reads,), (scope.mixed,))
    return scope.linear("out_proj", scope.hidden, reads.columns, "row", "all_reduce", bias=bias, flow=flow)


def _convolution(scope: Scope, taken: Values, kernel: int, bias: bool) -> Node:
    """One convolution over the channels of all values *taken*; it writes them back."""
    step, channels = scope.step, sum(value.columns for value in taken)
    op = CausalConv1d(step.batch, step.q_len, channels, kernel, step.dtype, bias)
    return scope.node("conv1d", op, "column", flow=(taken, taken))


def _states(scope: Scope, mixer: Mamba) -> tuple[Value, Value]:
    """What enters the states, and what reads them."""
    return scope.value("b", mixer.state), scope.value("c", mixer.state)


def _selection(scope: Scope, mixer: Mamba, x: Value) -> list[Node]:
    """The input-dependent Δ, B and C: a low-rank projection, optional norms, and Δ's expansion to all channels."""
    rank, outputs = mixer.dt_rank, mixer.dt_rank + 2 * mixer.state
    if mixer.heads > 1:
        return _blocked_selection(scope, mixer, outputs)
    low, (to_state, to_output) = scope.value("dt_low", rank), _states(scope, mixer)
    made = ((x,), (low, to_state, to_output))
    nodes = [scope.linear("x_proj", outputs, mixer.inner, "row", "all_reduce", flow=made)]
    if mixer.inner_norms != "none":
        learned = -1 if mixer.inner_norms == "parametric" else 0
        nodes.append(scope.pointwise("dt_norm", "rmsnorm", rank, "", learned, flow=((low,), (low,))))
        nodes.append(scope.pointwise("b_norm", "rmsnorm", mixer.state, "", learned, flow=((to_state,), (to_state,))))
        nodes.append(scope.pointwise("c_norm", "rmsnorm", mixer.state, "", learned, flow=((to_output,), (to_output,))))
    raised = ((low,), (scope.value("dt", mixer.inner),))
    nodes.append(scope.linear("dt_proj", mixer.inner, rank, "column", bias=True, flow=raised))
    return nodes


def _blocked_selection(scope: Scope, mixer: Mamba, outputs: int) -> list[Node]:
    """Every head has its own projections of its own channels."""
    step, width = scope.step, mixer.inner // mixer.heads
    stored = (step.dtype, "weight", step.weight_dtype, step.group_size)
    x_proj = WeightMatmul(mixer.heads, scope.tokens, outputs, width, *stored)
    dt_proj = WeightMatmul(mixer.heads, scope.tokens, width, mixer.dt_rank, *stored, bias=True)
    return [scope.node("x_proj", x_proj, "heads"), scope.node("dt_proj", dt_proj, "heads")]

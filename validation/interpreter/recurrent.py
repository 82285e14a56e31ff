"""Convolutions and scans on real numbers, with the states that a layer keeps between steps."""

from __future__ import annotations

from typing import cast

import numpy as np

from effsim.graph.operators import CausalConv1d, GatedDelta, SelectiveScan, SSDScan
from effsim.models import conv, delta, gemm, scan, ssd

from .call import Call
from .values import Array


def softplus(x: Array) -> Array:
    """``log(1 + e^x)`` in double, rounded once."""
    wide = x.astype(np.float64)
    return (np.maximum(wide, 0.0) + np.log1p(np.exp(-np.abs(wide)))).astype(np.float32)


def _sequences(call: Call, rows: Array, *shape: int) -> Array:
    """(batch · length, columns) as (batch, length, *shape)."""
    return rows.reshape(call.batch, -1, *shape)


def run_conv1d(call: Call) -> Array:
    """Causal depthwise convolution of all inputs side by side, with SiLU behind it as in its kernel."""
    op = cast(CausalConv1d, call.op)
    x = _sequences(call, np.concatenate(call.inputs, axis=1), op.channels)
    call.expect("shape of the input", x.shape, (op.batch, op.length, op.channels))
    call.only("weight", *(["bias"] if op.bias else []))
    bias = call.weight("bias", op.channels) if op.bias else None
    taps = call.weight("weight", op.channels, op.kernel)
    made = conv.causal_conv1d(x, taps, bias, state=call.states.get("conv"), activation="silu")
    call.states["conv"] = made.state
    call.state_bytes = made.state.size * 4.0
    call.expect("elements of the state", made.state.size, op.batch * op.channels * (op.kernel - 1))
    call.operations += 2.0 * x.size * taps.shape[1]
    return made.y.reshape(-1, op.channels)


SELECTIVE_PER_STATE = 7.0 + 1.0
"""One state element of one token: Δ·A, Δ·u, ·B, decay·h, + (an exponential besides), C·h, +."""

SELECTIVE_PER_CHANNEL = 8.0 + 4.0
"""One channel of one token: Δ bias, softplus (2 + 2), D·x and its sum, SiLU gate (3 + 2)."""


def run_selective(call: Call) -> Array:
    """Mamba's scan; it owns ``a_log`` [channels, state] and ``d`` [channels]."""
    op = cast(SelectiveScan, call.op)
    x, step, z = (_sequences(call, call.inputs[i], op.channels) for i in (0, 1, 4))
    b, c = (_sequences(call, call.inputs[i], op.state) for i in (2, 3))
    call.expect("shape of the input", x.shape, (op.batch, op.length, op.channels))
    a = -np.exp(call.weight("a_log", op.channels, op.state).astype(np.float64)).astype(np.float32)
    made = scan.selective_scan(
        x,
        step,
        a,
        b,
        c,
        skip=call.weight("d", op.channels),
        gate=z,
        delta_softplus=True,
        state=call.states.get("scan"),
        chunk=None if op.length == 1 else 16,
    )
    call.states["scan"] = made.state
    call.state_bytes = made.state.size * 4.0
    call.expect("bytes of the state", made.state.size * 4.0, op.state_bytes)
    call.operations += x.size * (SELECTIVE_PER_STATE * a.shape[1] + SELECTIVE_PER_CHANNEL)
    return made.y.reshape(-1, op.channels)


SSD_PER_STATE = 5.0
"""One state element of one recurrent step: decay·h, Δx·B, +, h·C, +."""

SSD_PER_CHANNEL = 3.0
"""One channel of one recurrent step: Δ·x, D·x, +."""

SSD_PER_HEAD = 2.0
"""One head of one recurrent step: softplus of Δ, its exponential with A."""


def run_ssd(call: Call) -> Array:
    """Mamba-2's scan; it owns ``a_log``, ``d`` and ``dt_bias`` [heads].

    A sequence runs twice: chunk by chunk in the functional model, and as the matrix products that the operator counts;
    both must agree, so that the products counted are those that compute the result.
    """
    op = cast(SSDScan, call.op)
    x = _sequences(call, call.inputs[0], op.heads, op.head_dim)
    b, c = (_sequences(call, call.inputs[i], op.groups, op.state) for i in (1, 2))
    call.expect("shape of the input", x.shape, (op.batch, op.length, op.heads, op.head_dim))
    a_log, skip = call.weight("a_log", op.heads), call.weight("d", op.heads)
    step = softplus(_sequences(call, call.inputs[3], op.heads) + call.weight("dt_bias", op.heads))
    a = -np.exp(a_log.astype(np.float64)).astype(np.float32)
    before = call.states.get("scan")
    made = ssd.ssd_scan(x, step, a, b, c, skip=skip, state=before, chunk=None if op.recurrent else op.block)
    if op.recurrent:
        per_channel = SSD_PER_STATE * b.shape[3] + SSD_PER_CHANNEL
        call.operations += x.size * per_channel + step.size * SSD_PER_HEAD
    else:
        y, state = _as_products(call, op, (x, step, a, b, c), before)
        _agree(call, y + skip[:, None] * x, made.y)
        _agree(call, state, made.state)
    call.states["scan"] = made.state
    call.state_bytes = made.state.size * 4.0
    call.expect("bytes of the state", made.state.size * 4.0, op.state_bytes)
    return made.y.reshape(-1, op.heads * op.head_dim)


def _agree(call: Call, one: Array, other: Array) -> None:
    scale = float(np.abs(other).max()) or 1.0
    worst = float(np.abs(one - other).max()) / scale
    # Both are fp32 sums of one chunk's terms in different orders; log decays may reach tens.
    call.expect("agreement of the chunked scan with its matrix products", worst < 1e-4, True)


def _as_products(call: Call, op: SSDScan, operands: tuple[Array, ...], before: Array | None) -> tuple[Array, Array]:
    """The scan as batched products: C·Bᵀ a group, scores·x, chunk states and carried outputs a head."""
    x = operands[0]
    y = np.zeros_like(x)
    shape = (op.batch, op.heads, op.head_dim, op.state)
    state = np.zeros(shape, np.float32) if before is None else before
    for first in range(0, op.length, op.block):
        cut = slice(first, min(first + op.block, op.length))
        part = tuple(item if item.ndim == 1 else item[:, cut] for item in operands)
        y[:, cut], state = _chunk_products(call, op, part, state)
    return y, state


def _chunk_products(call: Call, op: SSDScan, operands: tuple[Array, ...], state: Array) -> tuple[Array, Array]:
    """One chunk. A last chunk that is short still has keys padded to the chunk's width, as its tiles have."""
    x, step, a, b, c = operands
    size, per = x.shape[1], op.heads // op.groups
    pad = [(0, 0), (0, op.block - size)]
    log_decay = np.cumsum(step * a, axis=1, dtype=np.float32)
    keys = np.pad(b, [*pad, (0, 0), (0, 0)])
    values = np.pad(x * step[..., None], [*pad, (0, 0), (0, 0)])
    ahead = np.pad(log_decay, [*pad, (0, 0)])
    scores = _product(call, _by(c), np.swapaxes(_by(keys), 1, 2)).reshape(op.batch, op.groups, size, op.block)
    seen = np.tril(np.ones((size, op.block), bool))
    gap = np.where(seen, log_decay.transpose(0, 2, 1)[..., None] - ahead.transpose(0, 2, 1)[:, :, None], -np.inf)
    weighted = np.repeat(scores, per, axis=1) * np.exp(gap).astype(np.float32)
    inside = _product(call, weighted.reshape(-1, size, op.block), _by(values))
    wide_c, wide_b = np.repeat(c, per, axis=2), np.repeat(b, per, axis=2)
    carried = _product(call, _by(wide_c), np.swapaxes(state.reshape(-1, op.head_dim, op.state), 1, 2))
    heads = (op.batch, op.heads, size, op.head_dim)
    grown = np.exp(log_decay).transpose(0, 2, 1)[..., None]
    y = inside.reshape(heads) + carried.reshape(heads) * grown
    left = np.exp(log_decay[:, -1:] - log_decay) * step
    inflow = _product(call, np.swapaxes(_by(x * left[..., None]), 1, 2), _by(wide_b))
    decay = np.exp(log_decay[:, -1])[..., None, None]
    return y.transpose(0, 2, 1, 3), decay * state + inflow.reshape(state.shape)


def _by(rows: Array) -> Array:
    """(batch, length, heads, width) as (batch · heads, length, width)."""
    moved = np.ascontiguousarray(rows.transpose(0, 2, 1, 3))
    return moved.reshape(-1, *moved.shape[2:])


def _product(call: Call, a: Array, b: Array) -> Array:
    call.multiply_adds += a.size * b.shape[2]
    return gemm.batched_gemm(np.ascontiguousarray(a), np.ascontiguousarray(b))


def run_delta(call: Call) -> Array:
    """The gated delta rule; it owns ``a_log`` and ``dt_bias`` [heads]. Queries and keys are normalised first."""
    op = cast(GatedDelta, call.op)
    q, k = (_sequences(call, call.inputs[i], call.reads[i].parts, op.key_dim) for i in (0, 1))
    v = _sequences(call, call.inputs[2], op.heads, op.value_dim)
    write, time_step = (_sequences(call, call.inputs[i], op.heads) for i in (3, 4))
    call.expect("shape of the values", v.shape, (op.batch, op.length, op.heads, op.value_dim))
    rate = np.exp(call.weight("a_log", op.heads).astype(np.float64)).astype(np.float32)
    gates = -rate * softplus(time_step + call.weight("dt_bias", op.heads))
    strength = 1.0 / (1.0 + np.exp(-write.astype(np.float64)))
    made = delta.gated_delta(
        _unit(q),
        _unit(k),
        v,
        gates,
        strength,
        state=call.states.get("scan"),
        chunk=None if op.recurrent else op.block,
    )
    call.states["scan"] = made.state
    call.state_bytes = made.state.size * 4.0
    call.expect("bytes of the state", made.state.size * 4.0, op.state_bytes)
    return made.y.reshape(-1, op.heads * op.value_dim)


def _unit(rows: Array, eps: float = 1e-6) -> Array:
    return np.asarray(rows / np.sqrt((rows * rows).sum(axis=-1, keepdims=True) + np.float32(eps)), np.float32)

"""Projections, attention, experts and row-wise operators on real numbers."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np

from effsim.errors import UnsupportedError
from effsim.graph.operators import Attention, Embedding, Experts, KVAppend, LatentAttention, Linear, Pointwise, TopK
from effsim.graph.operators.linear import WeightMatmul
from effsim.graph.operators.pointwise import recipe
from effsim.models import activation, attention, embedding, gemm, moe, norm, rope

from .call import Call
from .packed import Packed
from .values import Array


def run_embedding(call: Call) -> Array:
    """Rows of the table."""
    op = cast(Embedding, call.op)
    ids = call.inputs[0][:, 0].astype(np.int64)
    call.expect("tokens", len(ids), op.tokens)
    if "offset" in call.weights:
        ids = ids + int(call.weights["offset"])
    call.only("weight", "offset")
    found = embedding.lookup(call.weight("weight", op.vocabulary, op.width), ids)
    scale = 1.0 if call.reads[0].name == "positions" else call.constants.embedding_scale
    return found * np.float32(scale)


def run_linear(call: Call) -> Array:
    """``x · Wᵀ + b`` with W of shape [n, k]."""
    op = cast(Linear, call.op)
    x = np.concatenate(call.inputs, axis=1)
    call.expect("shape of the input", x.shape, (op.m, op.k))
    call.only("weight", *(["bias"] if op.bias else []))
    weight = _projection(call, op)
    bias = call.weight("bias", op.n) if op.bias else None
    out = gemm.gemm(x, np.ascontiguousarray(weight.T), bias=bias)
    call.multiply_adds += x.shape[0] * x.shape[1] * out.shape[1]
    return out


def _projection(call: Call, op: Linear) -> Array:
    """The weights [n, k]; those that are stored narrower are packed, and unpacked on the way to the product."""
    weight = call.weight("weight", op.n, op.k)
    if not op.weight_only:
        return weight
    stored = Packed.of(weight, op.stored_dtype, op.group_size)
    call.weight_bytes += stored.size - weight.size * 4.0
    return stored.unpacked()


def run_batched(call: Call) -> Array:
    """A product a head with weights of its own: [m, batch · k] → [m, batch · n]; weights [batch, k, n]."""
    op = cast(WeightMatmul, call.op)
    (x,) = call.inputs
    call.expect("shape of the input", x.shape, (op.m, op.batch * op.k))
    weight = call.weight("weight", op.batch, op.k, op.n)
    heads = np.ascontiguousarray(x.reshape(op.m, op.batch, op.k).swapaxes(0, 1))
    out = gemm.batched_gemm(heads, weight)
    call.multiply_adds += heads.size * out.shape[2]
    return np.ascontiguousarray(out.swapaxes(0, 1)).reshape(op.m, op.batch * op.n)


def run_append(call: Call) -> Array:
    """The cache of this layer with the new tokens behind the old ones, [batch · keys, width]."""
    op = cast(KVAppend, call.op)
    new = np.concatenate(call.inputs, axis=1)
    call.expect("width", new.shape[1], op.width)
    new = new.reshape(call.batch, -1, op.width)
    old = call.states.get("cache")
    whole = new if old is None else np.concatenate([old, new], axis=1)
    call.cache_written = 4.0 * min(op.tokens, new.shape[0] * new.shape[1]) * op.width
    call.states |= {"cache": whole, "appended": new.shape[1], "said": op.tokens}
    return whole.reshape(-1, op.width)


def run_attention(call: Call) -> Array:
    """Softmax attention; keys are ``k``, or an own part a head beside a part that all heads share."""
    op = cast("Attention | LatentAttention", call.op)
    dense = op if isinstance(op, Attention) else op.equivalent
    if isinstance(op, LatentAttention) and op.phase == "generation":
        q, k, v = _latent_operands(call, op)
    else:
        q, k, v = _operands(call, dense)
    if dense.cached:
        _check_cache(call, dense, k.shape[1])
        k, v = k[:, -dense.keys_read :], v[:, -dense.keys_read :]
    else:
        call.expect("keys", k.shape[1], dense.kv_len)
    scale = call.constants.attention_scale
    if scale is None and isinstance(op, LatentAttention):
        scale = 1.0 / math.sqrt(op.nope_dim + op.rope_dim)
    if dense.cached:
        call.queries_read = 4.0 * q.size
        call.cache_read = 4.0 * (k.size + (0 if dense.shared_value else v.size))
    call.multiply_adds += _visible_pairs(q, k, v, dense) * (q.shape[3] + v.shape[3])
    return _attend(q, k, v, dense, scale).reshape(-1, dense.heads * dense.v_dim)


def _attend(q: Array, k: Array, v: Array, op: Attention, scale: float | None) -> Array:
    window = op.window or None
    if op.phase == "generation" and op.q_len == 1:
        return attention.generation_attention(q[:, 0], k, v, window=window, scale=scale, splits=2, tile_kv=16)
    return attention.context_attention(q, k, v, causal=op.causal, window=window, scale=scale, tile_q=16, tile_kv=16)


def _operands(call: Call, op: Attention) -> tuple[Array, Array, Array]:
    """Queries, keys and values as (batch, length, heads, width)."""
    q = _heads(call, call.inputs[0], "queries", op.q_len, op.heads, op.head_dim)
    v = _heads(call, call.inputs[-1], "values", 0, op.kv_heads, op.v_dim)
    if len(call.inputs) == 3:
        return q, _heads(call, call.inputs[1], "keys", 0, op.kv_heads, op.head_dim), v
    shared = call.inputs[2]
    own = _heads(call, call.inputs[1], "keys", 0, op.kv_heads, op.head_dim - shared.shape[1])
    repeated = np.repeat(shared.reshape(call.batch, -1, 1, shared.shape[1]), op.kv_heads, axis=2)
    return q, np.concatenate([own, repeated], axis=3), v


def _latent_operands(call: Call, op: LatentAttention) -> tuple[Array, Array, Array]:
    """Absorbed form: queries in latent space beside their rotary part; the latents are keys and values."""
    rank, turned = op.kv_lora_rank, op.rope_dim
    own = _heads(call, call.inputs[0], "latent queries", op.q_len, op.heads, rank)
    rotary = _heads(call, call.inputs[1], "rotary queries", op.q_len, op.heads, turned)
    latent = _heads(call, call.inputs[2], "latents", 0, 1, rank)
    k_rope = _heads(call, call.inputs[3], "rotary keys", 0, 1, turned)
    return np.concatenate([own, rotary], axis=3), np.concatenate([latent, k_rope], axis=3), latent


def _heads(call: Call, rows: Array, what: str, length: int, heads: int, width: int) -> Array:
    call.expect(f"width of the {what}", rows.shape[1], heads * width)
    out = rows.reshape(call.batch, -1, heads, width)
    if length:
        call.expect(f"length of the {what}", out.shape[1], length)
    return out


def _check_cache(call: Call, op: Attention, keys: int) -> None:
    """The cache holds what the operator says, and what stays of it afterwards is what the append wrote."""
    kept = min(op.kv_len, op.window) if op.window else op.kv_len
    past = keys - call.states["appended"]
    call.expect("keys in the cache", keys, min(op.kv_len - op.q_len, op.window or op.kv_len) + op.q_len)
    call.expect("keys that stay", min(keys, kept), kept)
    stayed = min(keys - past, kept)
    call.expect("tokens that the cache append writes", call.batch * stayed, call.states["said"])
    call.states["cache"] = call.states["cache"][:, -kept:]
    row = call.states["cache"].shape[2]
    size = call.batch * kept * row
    held = cast(Any, call.op).cache_bytes
    call.expect("bytes of the cache", size * 4.0, held)


def _visible_pairs(q: Array, k: Array, v: Array, op: Attention) -> int:
    """(query, key) pairs of all heads that the functional model visits.

    Measured: with queries of zeros every visible key has the score 0, so a row's sum of exponentials is their number.
    """
    batch, length = q.shape[0], k.shape[1]
    partial = attention.attention_partial(
        np.zeros_like(q),
        k,
        v,
        q_start=np.full(batch, length - q.shape[1]),
        kv_begin=np.zeros(batch, np.int64),
        kv_end=np.full(batch, length),
        causal=op.causal,
        window=op.window or None,
    )
    return int(np.rint(np.exp(partial.lse.astype(np.float64))).sum())


def run_top_k(call: Call) -> Array:
    """Chosen experts beside their shares."""
    op, (scores,) = cast(TopK, call.op), call.inputs
    call.expect("shape of the scores", scores.shape, (op.tokens, op.experts))
    c = call.constants
    found = moe.route(scores, op.top_k, order=cast(Any, c.router_order), renormalize=c.renormalize)
    # A softmax (4 + an exponential) and a selection pass an expert chosen.
    call.operations += scores.size * (4.0 + found.experts.shape[1] + 1.0)
    shares = found.weights * np.float32(c.routed_scale)
    return np.concatenate([found.experts.astype(np.float32), shares], axis=1)


def run_experts(call: Call) -> Array:
    """Routed experts, weights [experts, hidden, intermediate] (``gate``, ``up``) and the transpose (``down``)."""
    op = cast(Experts, call.op)
    rows, chosen, shares = call.inputs
    if not op.gated or op.activation != "silu":
        raise UnsupportedError(f"{call.path}: only SwiGLU experts can be executed, not {op.activation}")
    call.expect("shape of the input", rows.shape, (op.tokens, op.hidden))
    call.expect("experts a token", chosen.shape[1], op.top_k)
    inner = (op.experts, op.hidden, op.intermediate)
    gate, up = call.weight("gate", *inner), call.weight("up", *inner)
    down = call.weight("down", op.experts, op.intermediate, op.hidden)
    routing = moe.Routing(chosen.astype(np.int64), shares)
    groups = moe.group_by_expert(routing, op.experts)
    pairs = int(np.diff(groups.offsets).sum())
    call.multiply_adds += pairs * (gate[0].size + up[0].size + down[0].size)
    return moe.grouped_experts(rows, routing, gate, up, down)


def run_pointwise(call: Call) -> Array:
    """Norms, activations, sums and rotary positions."""
    op = cast(Pointwise, call.op)
    out = _POINTWISE[op.kind](call, op)
    sums = op.kind in ("add_rmsnorm", "add_layernorm")  # writes the sum besides
    call.expect("elements of the result", out.size // (2 if sums else 1), op.rows * op.cols)
    cost = recipe(op.op)
    call.operations += out.size // (2 if sums else 1) * (cost.vector + cost.special)
    return out


def _norm(call: Call, op: Pointwise) -> Array:
    return _normed(call, op, call.inputs)


def _normed(call: Call, op: Pointwise, inputs: list[Array]) -> Array:
    """A norm over the columns; inputs with a scale each (query and key heads) are normalised one after another."""
    plain = op.kind.removeprefix("add_")
    scales = max(1, op.parameters // (recipe(op.op).parameters * op.cols)) if op.parameters else 1
    call.expect("inputs with a scale of their own", len(inputs), scales)
    learned = op.parameters > 0
    shifted = learned and plain == "layernorm" and op.parameters == 2 * op.cols
    call.only(*(["weight"] if learned else []), *(["bias"] if shifted else []))
    shape = (scales, op.cols) if scales > 1 else (op.cols,)
    weight = call.weight("weight", *shape) if learned else np.ones(shape, np.float32)
    eps, out, rows_seen = call.constants.norm_eps, [], 0
    for rows, gain in zip(inputs, weight.reshape(scales, op.cols), strict=True):
        flat = np.ascontiguousarray(rows).reshape(-1, op.cols)
        rows_seen += len(flat)
        if plain == "rmsnorm":
            made = norm.rmsnorm(flat, gain, eps=eps)
        else:
            made = norm.layernorm(flat, gain, call.weight("bias", op.cols) if shifted else None, eps=eps)
        out.append(made.reshape(rows.shape))
    call.expect("rows", rows_seen, op.rows)
    return np.concatenate(out, axis=1)


def _add_norm(call: Call, op: Pointwise) -> Array:
    total = _add(call, op)
    return np.concatenate([total, _normed(call, op, [total])], axis=1)


def _gated_norm(call: Call, op: Pointwise) -> Array:
    """A norm of rows that SiLU of the first input gates; ``parameter_cols`` columns share a norm where fewer."""
    z, rows = call.inputs
    call.expect("shape of the input", rows.shape, (op.rows, op.cols))
    width = op.parameters if 0 < op.parameters < op.cols else op.cols // call.constants.gated_norm_parts
    weight = call.weight("weight", op.parameters)
    gate = activation.silu(z)
    first = rows if call.constants.norm_before_gate else rows * gate
    ones = np.ones(width, np.float32)
    made = norm.rmsnorm(first.reshape(-1, width), ones, eps=call.constants.norm_eps).reshape(rows.shape)
    made = made * np.tile(weight, op.cols // len(weight))
    return made * gate if call.constants.norm_before_gate else made


def _rope(call: Call, op: Pointwise) -> Array:
    """Turns all columns of its inputs but the last, which are the positions."""
    *parts, positions = call.inputs
    places = positions.astype(np.int64).reshape(call.batch, -1)
    out = []
    for rows, value in zip(parts, call.reads, strict=False):
        heads = rows.reshape(call.batch, -1, value.parts, value.width)
        c = call.constants
        turned = rope.rope(heads, places, base=c.rope_base, style=cast(Any, c.rope_style))
        out.append(turned.reshape(rows.shape))
    call.expect("rows", len(out[0]), op.rows)
    return np.concatenate(out, axis=1)


def _add(call: Call, op: Pointwise) -> Array:
    a, b = call.inputs
    call.expect("shape of both inputs", (a.shape, b.shape), ((op.rows, op.cols),) * 2)
    return a + b


def _mul(call: Call, op: Pointwise) -> Array:
    a, b = call.inputs
    call.expect("shape of both inputs", (a.shape, b.shape), ((op.rows, op.cols),) * 2)
    return a * b


def _scale(call: Call, op: Pointwise) -> Array:
    a, b = call.inputs
    call.expect("shape of the scale", b.shape, (op.rows, 1))
    return a * b


def _activation(call: Call, op: Pointwise) -> Array:
    """One input, or a gate and what it gates."""
    name = op.kind.removesuffix("_mul")
    exact: Any = "tanh" if name == "gelu_tanh" else call.constants.gelu if op.kind == "gelu_mul" else "none"
    first = call.inputs[0]
    call.expect("shape of the input", first.shape, (op.rows, op.cols))
    if name in ("gelu", "gelu_tanh"):
        made = activation.gelu(first, approximate=exact)
    elif name == "relu":
        made = np.maximum(first, np.float32(0))
    else:
        made = {"silu": activation.silu, "sigmoid": activation.sigmoid, "relu2": activation.relu2}[name](first)
    if op.kind.endswith("_mul"):
        call.expect("shape of the gated input", call.inputs[1].shape, first.shape)
        return made * call.inputs[1]
    return made


_POINTWISE = {
    "rmsnorm": _norm,
    "layernorm": _norm,
    "add_rmsnorm": _add_norm,
    "add_layernorm": _add_norm,
    "gated_rmsnorm": _gated_norm,
    "rope": _rope,
    "add": _add,
    "mul": _mul,
    "scale": _scale,
} | dict.fromkeys(
    ["silu", "gelu", "gelu_tanh", "relu", "relu2", "sigmoid", "silu_mul", "gelu_mul", "relu_mul"], _activation
)

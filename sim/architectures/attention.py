"""Attention blocks: grouped-query and latent (DeepSeek), from projections to the output projection."""

from __future__ import annotations

from dataclasses import replace

from ..graph.graph import Node, Value
from ..graph.operators.attention import Attention as AttentionOp
from ..graph.operators.attention import KVAppend
from ..graph.operators.attention import LatentAttention as LatentOp
from ..graph.operators.linear import Linear, WeightMatmul
from ..graph.operators.pointwise import Pointwise
from ..spec.architecture import Attention, LatentAttention
from .step import POSITIONS, Scope, Step, Values


def attention(scope: Scope, mixer: Attention, *, head_dim: int, rope: bool, width: int) -> list[Node]:
    """Grouped-query attention on rows *width* wide; the result is as wide as the residual stream.

    One fused projection makes queries, keys and values (and the output gate): (heads + kv_heads)·head_dim +
    kv_heads·value_dim (+ heads·value_dim) outputs.
    """
    heads, groups, value_dim = mixer.heads, mixer.groups, mixer.value_dim or head_dim
    qk_width, v_width, out_width = (heads + groups) * head_dim, groups * value_dim, heads * value_dim
    projected = qk_width + v_width + (out_width if mixer.output_gate else 0)
    q, k = scope.value("q", head_dim, heads), scope.value("k", head_dim, groups)
    v, gate = scope.value("v", value_dim, groups), scope.value("output_gate", value_dim, heads)
    attended = scope.value("attended", value_dim, heads)
    made = ((scope.normed(width),), (q, k, v, gate) if mixer.output_gate else (q, k, v))
    nodes = [scope.linear("qkv_proj", projected, width, "column", bias=mixer.qkv_bias, flow=made)]
    if mixer.qk_norm:
        nodes.append(_head_norm(scope, (q, k)))
    turned = round(head_dim * mixer.rope_fraction) if rope else 0
    if turned:
        sliced = tuple(replace(value, width=turned, of=head_dim) for value in (q, k)) if turned < head_dim else (q, k)
        nodes.append(
            scope.pointwise("rope", "rope", (heads + groups) * turned, "heads", flow=((*sliced, POSITIONS), sliced))
        )
    if not scope.step.training and mixer.causal:
        cache = _append(scope, (k, v), mixer.window or 0, "heads")
        nodes.append(cache)
        k, v = cache.outputs
    op = _attention_op(scope.step, mixer, head_dim, value_dim)
    nodes.append(scope.node("attention", op, "heads", flow=((q, k, v), (attended,))))
    if mixer.output_gate:
        nodes.append(scope.pointwise("output_gate", "sigmoid", out_width, "column", flow=((gate,), (gate,))))
        gated = ((attended, gate), (attended,))
        nodes.append(scope.pointwise("output_gate_mul", "mul", out_width, "column", flow=gated))
    nodes.append(_out_proj(scope, attended, bias=mixer.out_bias))
    return nodes


def _out_proj(scope: Scope, attended: Value, *, bias: bool) -> Node:
    flow = ((attended,), (scope.mixed,))
    return scope.linear("out_proj", scope.hidden, attended.columns, "row", "all_reduce", bias=bias, flow=flow)


def latent_attention(scope: Scope, mixer: LatentAttention) -> list[Node]:
    """Multi-head latent attention.

    Context and training expand the latents to keys and values of every head (``kv_b_proj``, over all keys, so that a
    cached prefix is expanded again). Generation is absorbed: ``q_absorb`` takes the queries into the latent space and
    ``v_absorb`` takes the result out of it; both use the weights of ``kv_b_proj``, half each.
    """
    step, heads, key_dim = scope.step, mixer.heads, mixer.nope_dim + mixer.rope_dim
    nodes = _latent_projections(scope, mixer, key_dim)
    q, latent, k_rope = _latent_values(scope, mixer)
    turning = scope.value("q", mixer.rope_dim, heads, start=mixer.nope_dim, of=key_dim)
    turned = ((turning, k_rope, POSITIONS), (turning, k_rope))
    nodes.append(scope.pointwise("rope", "rope", (heads + 1) * mixer.rope_dim, "heads", flow=turned))
    if not step.training:
        cache = _append(scope, (latent, k_rope), 0, "")
        nodes.append(cache)
        latent, k_rope = cache.outputs
    attended = scope.value("attended", mixer.v_dim, heads)
    if step.phase == "generation":
        nodes += _absorbed(scope, mixer, (turning, latent, k_rope), attended)
    else:
        nodes += _expanded(scope, mixer, (q, latent, k_rope), attended)
    nodes.append(_out_proj(scope, attended, bias=mixer.bias))
    return nodes


def _absorbed(scope: Scope, mixer: LatentAttention, seen: Values, attended: Value) -> list[Node]:
    """Attention to the latents themselves; *seen*: rotary part of the queries, latents, rotary keys."""
    heads, lora = mixer.heads, mixer.kv_lora_rank
    plain = scope.value("q", mixer.nope_dim, heads, of=mixer.nope_dim + mixer.rope_dim)
    absorbed, found = scope.value("q_latent", lora, heads), scope.value("attended_latent", lora, heads)
    flow = ((absorbed, *seen), (found,))
    return [
        _absorb(scope, "q_absorb", plain, absorbed),
        scope.node("attention", _latent_op(scope.step, mixer), "heads", flow=flow),
        _absorb(scope, "v_absorb", found, attended),
    ]


def _expanded(scope: Scope, mixer: LatentAttention, seen: Values, attended: Value) -> list[Node]:
    """Attention to keys and values of every head; *seen*: queries, latents, rotary keys.

    A key is the expanded part of its head beside the rotary part that all heads share.
    """
    step, heads = scope.step, mixer.heads
    q, latent, k_rope = seen
    both = scope.value("kv", mixer.nope_dim + mixer.v_dim, heads)
    own = replace(both, width=mixer.nope_dim, of=both.width)
    v = replace(both, width=mixer.v_dim, start=mixer.nope_dim, of=both.width)
    keys = step.batch * step.kv_len
    kv_b = Linear(keys, both.columns, mixer.kv_lora_rank, step.dtype, step.weight_dtype, step.group_size)
    # Without a cache, expanded latent attention is plain attention: nothing must stay resident.
    key_dim = mixer.nope_dim + mixer.rope_dim
    op = _expanded_op(step, mixer, key_dim) if step.training else _latent_op(step, mixer)
    return [
        scope.node("kv_b_proj", kv_b, "column", flow=((latent,), (both,))),
        scope.node("attention", op, "heads", flow=((q, own, k_rope, v), (attended,))),
    ]


def _head_norm(scope: Scope, values: Values) -> Node:
    """RMS norms of query and key heads: a row a head; all query heads share one scale, all key heads another."""
    heads, head_dim = sum(value.parts for value in values), values[0].width
    op = Pointwise("rmsnorm", scope.tokens * heads, head_dim, scope.dtype, 2 * head_dim)
    return scope.node("qk_norm", op, "tokens", flow=(values, values))


def _append(scope: Scope, values: Values, window: int, split: str) -> Node:
    """Appends the new tokens' *values* to their caches and gives the caches, one row a key."""
    step, width = scope.step, sum(value.columns for value in values)
    kept = min(step.q_len, window) if window else step.q_len
    op = KVAppend(step.batch * kept, width, step.dtype, step.kv_dtype)
    cached = tuple(replace(value, name=f"{value.name}_cache") for value in values)
    return scope.node("kv_append", op, split, flow=(values, cached))


def _attention_op(step: Step, mixer: Attention, head_dim: int, value_dim: int) -> AttentionOp:
    return AttentionOp(
        "generation" if step.phase == "generation" else "context",
        step.batch,
        step.q_len,
        step.kv_len,
        mixer.heads,
        mixer.groups,
        head_dim,
        step.dtype,
        "" if step.training or not mixer.causal else step.kv_dtype,
        mixer.causal,
        mixer.window or 0,
        step.fused_attention,
        0 if value_dim == head_dim else value_dim,
        # Nothing that came before can be kept where later tokens change it.
        mixer.causal and not step.training,
    )


def _latent_projections(scope: Scope, mixer: LatentAttention, key_dim: int) -> list[Node]:
    hidden, queries, rank = scope.hidden, mixer.heads * key_dim, mixer.q_lora_rank
    q, latent, k_rope = _latent_values(scope, mixer)
    stream = (scope.normed(),)
    if rank is None:
        nodes = [scope.linear("q_proj", queries, hidden, "column", flow=(stream, (q,)))]
    else:
        low = (scope.value("q_low", rank),)
        nodes = [
            scope.linear("q_a_proj", rank, hidden, bias=mixer.bias, flow=(stream, low)),
            scope.pointwise("q_a_norm", "rmsnorm", rank, flow=(low, low)),
            scope.linear("q_b_proj", queries, rank, "column", flow=(low, (q,))),
        ]
    made = (stream, (latent, k_rope))
    nodes.append(scope.linear("kv_a_proj", mixer.kv_lora_rank + mixer.rope_dim, hidden, bias=mixer.bias, flow=made))
    nodes.append(scope.pointwise("kv_a_norm", "rmsnorm", mixer.kv_lora_rank, flow=((latent,), (latent,))))
    return nodes


def _latent_values(scope: Scope, mixer: LatentAttention) -> tuple[Value, Value, Value]:
    """Queries, the latent vector of a token, and its rotary key."""
    q = scope.value("q", mixer.nope_dim + mixer.rope_dim, mixer.heads)
    return q, scope.value("latent", mixer.kv_lora_rank), scope.value("k_rope", mixer.rope_dim)


def _absorb(scope: Scope, name: str, reads: Value, writes: Value) -> Node:
    """A product a head: [tokens, width read] → [tokens, width written]."""
    step, stored = scope.step, (scope.step.dtype, "weight", scope.step.weight_dtype, scope.step.group_size)
    op = WeightMatmul(reads.parts, step.tokens, writes.width, reads.width, *stored)
    return scope.node(name, op, "heads", flow=((reads,), (writes,)))


def _latent_op(step: Step, mixer: LatentAttention) -> LatentOp:
    return LatentOp(
        step.phase,
        step.batch,
        step.q_len,
        step.kv_len,
        mixer.heads,
        mixer.kv_lora_rank,
        mixer.rope_dim,
        step.dtype,
        step.kv_dtype,
        mixer.nope_dim,
        mixer.v_dim,
    )


def _expanded_op(step: Step, mixer: LatentAttention, key_dim: int) -> AttentionOp:
    return AttentionOp(
        "context",
        step.batch,
        step.q_len,
        step.kv_len,
        mixer.heads,
        mixer.heads,
        key_dim,
        step.dtype,
        fused=step.fused_attention,
        value_dim=mixer.v_dim,
        cached=False,
    )

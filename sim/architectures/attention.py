"""Attention blocks: grouped-query and latent (DeepSeek), from projections to the output projection."""

from __future__ import annotations

from ..graph.graph import Node
from ..graph.operators.attention import Attention as AttentionOp
from ..graph.operators.attention import KVAppend
from ..graph.operators.attention import LatentAttention as LatentOp
from ..graph.operators.linear import Linear, WeightMatmul
from ..graph.operators.pointwise import Pointwise
from ..spec.architecture import Attention, LatentAttention
from .step import Scope, Step


def attention(scope: Scope, mixer: Attention, *, head_dim: int, rope: bool, width: int) -> list[Node]:
    """Grouped-query attention on rows *width* wide; the result is as wide as the residual stream.

    One fused projection makes queries, keys and values (and the output gate): (heads + kv_heads)·head_dim +
    kv_heads·value_dim (+ heads·value_dim) outputs.
    """
    heads, groups, value_dim = mixer.heads, mixer.groups, mixer.value_dim or head_dim
    qk_width, v_width, out_width = (heads + groups) * head_dim, groups * value_dim, heads * value_dim
    projected = qk_width + v_width + (out_width if mixer.output_gate else 0)
    nodes = [scope.linear("qkv_proj", projected, width, "column", bias=mixer.qkv_bias)]
    if mixer.qk_norm:
        nodes.append(_head_norm(scope, heads + groups, head_dim))
    turned = round(head_dim * mixer.rope_fraction) if rope else 0
    if turned:
        nodes.append(scope.pointwise("rope", "rope", (heads + groups) * turned, "heads"))
    if not scope.step.training and mixer.causal:
        nodes.append(_append(scope, groups * (head_dim + value_dim), mixer.window or 0, "heads"))
    nodes.append(scope.node("attention", _attention_op(scope.step, mixer, head_dim, value_dim), "heads"))
    if mixer.output_gate:
        nodes.append(scope.pointwise("output_gate", "sigmoid", out_width, "column"))
        nodes.append(scope.pointwise("output_gate_mul", "mul", out_width, "column"))
    nodes.append(scope.linear("out_proj", scope.hidden, out_width, "row", "all_reduce", bias=mixer.out_bias))
    return nodes


def latent_attention(scope: Scope, mixer: LatentAttention) -> list[Node]:
    """Multi-head latent attention.

    Context and training expand the latents to keys and values of every head (``kv_b_proj``, over all keys, so that a
    cached prefix is expanded again). Generation is absorbed: ``q_absorb`` takes the queries into the latent space and
    ``v_absorb`` takes the result out of it; both use the weights of ``kv_b_proj``, half each.
    """
    step, heads, key_dim = scope.step, mixer.heads, mixer.nope_dim + mixer.rope_dim
    lora = mixer.kv_lora_rank
    nodes = _latent_projections(scope, mixer, key_dim)
    nodes.append(scope.pointwise("rope", "rope", (heads + 1) * mixer.rope_dim, "heads"))
    if not step.training:
        nodes.append(_append(scope, lora + mixer.rope_dim, 0, ""))
    if step.phase == "generation":
        nodes.append(_absorb(scope, "q_absorb", heads, lora, mixer.nope_dim))
        nodes.append(scope.node("attention", _latent_op(step, mixer), "heads"))
        nodes.append(_absorb(scope, "v_absorb", heads, mixer.v_dim, lora))
    else:
        keys, outputs = step.batch * step.kv_len, heads * (mixer.nope_dim + mixer.v_dim)
        kv_b = Linear(keys, outputs, lora, step.dtype, step.weight_dtype, step.group_size)
        nodes.append(scope.node("kv_b_proj", kv_b, "column"))
        # Without a cache, expanded latent attention is plain attention: nothing must stay resident.
        op = _expanded_op(step, mixer, key_dim) if step.training else _latent_op(step, mixer)
        nodes.append(scope.node("attention", op, "heads"))
    out = scope.linear("out_proj", scope.hidden, heads * mixer.v_dim, "row", "all_reduce", bias=mixer.bias)
    nodes.append(out)
    return nodes


def _head_norm(scope: Scope, heads: int, head_dim: int) -> Node:
    """RMS norms of query and key heads: a row a head; all query heads share one scale, all key heads another."""
    op = Pointwise("rmsnorm", scope.tokens * heads, head_dim, scope.dtype, 2 * head_dim)
    return scope.node("qk_norm", op, "tokens")


def _append(scope: Scope, width: int, window: int, split: str) -> Node:
    step = scope.step
    kept = min(step.q_len, window) if window else step.q_len
    return scope.node("kv_append", KVAppend(step.batch * kept, width, step.dtype, step.kv_dtype), split)


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
    if rank is None:
        nodes = [scope.linear("q_proj", queries, hidden, "column")]
    else:
        nodes = [
            scope.linear("q_a_proj", rank, hidden, bias=mixer.bias),
            scope.pointwise("q_a_norm", "rmsnorm", rank),
            scope.linear("q_b_proj", queries, rank, "column"),
        ]
    nodes.append(scope.linear("kv_a_proj", mixer.kv_lora_rank + mixer.rope_dim, hidden, bias=mixer.bias))
    nodes.append(scope.pointwise("kv_a_norm", "rmsnorm", mixer.kv_lora_rank))
    return nodes


def _absorb(scope: Scope, name: str, heads: int, n: int, k: int) -> Node:
    step = scope.step
    op = WeightMatmul(heads, scope.tokens, n, k, step.dtype, "weight", step.weight_dtype, step.group_size)
    return scope.node(name, op, "heads")


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

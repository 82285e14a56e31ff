"""Costs of attention, and what its mask means."""

from __future__ import annotations

from math import prod
from typing import Any

from .costs_products import flipped
from .ledger import Ledger
from .masks import Mask, classify
from .traced import Call, Value, unique, visible


def attention(ledger: Ledger, call: Call) -> None:
    """softmax(q·kᵀ)·v in one kernel, q [batch, heads, queries, width]."""
    query, key, value = call.inputs[:3]
    mask = Mask(causal=True) if call.get("is_causal") else _mask(ledger, call)
    _attend(ledger, call, query, key, value, mask, fused=True)


def unfused_attention(ledger: Ledger, call: Call) -> None:
    """The same as two products around a softmax."""
    query, key_t, value = call.inputs[:3]
    key = Value(key_t.name, flipped(key_t).shape, key_t.dtype, producer=key_t.producer)
    _attend(ledger, call, query, key, value, _mask(ledger, call), fused=False)


def _attend(ledger: Ledger, call: Call, query: Value, key: Value, value: Value, mask: Mask, *, fused: bool) -> None:
    queries, width = query.shape[-2:]
    keys, value_dim = value.shape[-2:]
    planes = prod(query.shape[:-2])
    scores = call.get("scores", query.shape)
    heads = int(scores[-3]) if len(scores) > 2 else 1
    if planes % heads:
        heads = planes
    stored = key.shape[-3] if len(key.shape) > 2 else 1
    if not fused or stored == heads:
        stored = max(1, heads * unique(key) // max(1, key.elements))
    kv_heads = stored if heads % stored == 0 else heads
    causal, window = mask.causal, mask.window
    if causal and queries > keys:
        ledger.note(call, "a causal mask with more queries than keys is counted as a full one")
        causal, window = False, 0
    dimensions: dict[str, Any] = {
        "phase": "generation" if queries < keys and (causal or queries == 1) else "context",
        "batch": max(1, planes // heads),
        "q_len": queries,
        "kv_len": keys,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": width,
        "dtype": call.out.dtype,
        "causal": bool(causal),
        "cached": bool(queries < keys and (causal or queries == 1)),
    }
    dimensions |= {"window": window} if window else {}
    dimensions |= {"value_dim": value_dim} if value_dim != width else {}
    dimensions |= {} if fused else {"fused": False}
    ledger.add(call, "attention", dimensions)


def _mask(ledger: Ledger, call: Call) -> Mask:
    given = call.value("attn_mask")
    if given is None:
        return Mask()
    computed = ledger.trace.evaluate(given)
    if computed is None:
        ledger.note(call, "its mask depends on values that are not known here: counted as a full one")
        return Mask()
    found = classify(visible(computed))
    if not found.exact:
        ledger.note(call, "its mask is neither full, causal nor a sliding window: counted as a full one")
        return Mask()
    return found

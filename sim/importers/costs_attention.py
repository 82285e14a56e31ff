"""Costs of attention, and what its mask means."""

from __future__ import annotations

from math import prod
from typing import Any, Final

import numpy.typing as npt

from .costs_products import flipped
from .ledger import Ledger
from .masks import Mask, classify
from .traced import Call, Trace, Value, unique, visible

ATTENTION: Final = ("scaled_dot_product_attention", "unfused_attention")


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


def understand_masks(trace: Trace) -> None:
    """Put the meaning of each mask in its place where that is full, causal or a sliding window.

    Kernels do without a mask that they know, so what computes it costs nothing then. Learned position biases are no
    mask: they are computed and read.
    """
    known: dict[tuple[int, bool], Mask | None] = {}

    def rule(call: Call) -> Call | None:
        given = call.value("attn_mask") if call.op in ATTENTION else None
        if given is None:
            return None
        key = (id(given), bool(call.get("hides")))
        if key not in known:
            computed = trace.evaluate(given)
            known[key] = None if computed is None else _meaning(computed, hides=key[1])
        found = known[key]
        if found is None or not found.exact or _learned(given):
            return Call(call.op, {**call.arguments, "known_mask": found}, call.outputs, call.scope, call.source)
        arguments = {**call.arguments, "attn_mask": None, "known_mask": found}
        return Call(call.op, arguments, call.outputs, call.scope, call.source)

    trace.rewrite(rule)


def _meaning(mask: npt.NDArray[Any], *, hides: bool) -> Mask:
    shown = visible(mask)
    return classify(~shown if hides else shown)


def _learned(value: Value) -> bool:
    """Whether a mask is made with weights."""
    todo, seen = [value], {id(value)}
    while todo:
        current = todo.pop()
        if current.role == "parameter":
            return True
        inputs = current.producer.inputs if current.producer is not None else []
        todo += [item for item in inputs if id(item) not in seen]
        seen |= {id(item) for item in inputs}
    return False


def _mask(ledger: Ledger, call: Call) -> Mask:
    found = call.arguments.get("known_mask")
    if isinstance(found, Mask) and found.exact:
        return found
    if call.value("attn_mask") is not None:
        why = "is neither full, causal nor a sliding window" if found else "depends on values that are not known here"
        ledger.note(call, f"its mask {why}: counted as a full one")
    return Mask()

"""Attention that a program writes out as products around a softmax."""

from __future__ import annotations

from typing import Final

from .pattern_parts import operands, replaced, scalar
from .traced import Call, Value, made_by, sole_user, source

_PRODUCTS: Final = ("matmul", "bmm", "baddbmm")


def unfused_attention(call: Call) -> Call | None:
    """softmax(q·kᵀ (scaled, masked))·v as matrix products: the scores pass through memory."""
    pair = _factors_of_product(call)
    soft = _probabilities(pair[0]) if pair is not None else None
    if pair is None or soft is None:
        return None
    mask: Value | None = None
    hides = False
    value = soft.inputs[0]
    while True:
        inner = source(value).producer
        if inner is None:
            return None
        if inner.op in _PRODUCTS:
            break
        step = _score_step(inner)
        if step is None:
            return None
        value, added, hiding = step
        mask, hides = (added, hiding) if added is not None else (mask, hides)
    scores = _factors_of_product(inner)
    if scores is None or any(v.fixed for v in (*scores, pair[1])):
        return None
    query, key_t = scores
    if soft.out.shape[-1] != key_t.shape[-1] or pair[1].shape[-2] != key_t.shape[-1]:
        return None
    heads = soft.inputs[0].shape
    query, key_t = _unscaled(query), _unscaled(key_t)
    return replaced(
        call,
        "unfused_attention",
        query=query,
        key=key_t,
        value=pair[1],
        attn_mask=mask,
        hides=hides,
        scores=list(heads),
    )


def _probabilities(value: Value) -> Call | None:
    """The softmax that makes *value* alone; rows that see nothing may be put to zero behind it."""
    call = made_by(value, "softmax", "where", "masked_fill")
    if call is None or call.op == "softmax":
        return call if call is not None and sole_user(call.out) is not None else None
    cleaned = [v for v in call.inputs if v.real]
    soft = made_by(cleaned[0], "softmax") if len(cleaned) == 1 else None
    only = soft is not None and all(user is call or user.op == "isnan" for user in soft.out.users)
    return soft if only else None


def _unscaled(value: Value) -> Value:
    """The tensor before a scale, which the product applies on its way (√(1/width) on queries and keys)."""
    producer = value.producer
    found = scalar(producer) if producer is not None and producer.op in ("mul", "div") else None
    return found[0] if found is not None and sole_user(value) is not None else value


def _factors_of_product(call: Call) -> tuple[Value, Value] | None:
    names = {"matmul": ("self", "other"), "bmm": ("self", "mat2")}.get(call.op)
    if names is None:
        return None
    a, b = (call.value(name) for name in names)
    return (a, b) if a is not None and b is not None else None


def _score_step(call: Call) -> tuple[Value, Value | None, bool] | None:
    """(scores before, mask, whether True hides) of one step between the products: a scale or a mask."""
    if call.op in ("mul", "div"):
        found = scalar(call)
        if found is not None:
            return found[0], None, False
        pair = operands(call) or ()
        large = [v for v in pair if v.elements > 1]
        return (large[0], None, False) if len(pair) == 2 and len(large) == 1 else None
    values = call.inputs
    scores = next((v for v in values if made_by(v, *_PRODUCTS, "mul", "div", "add") is not None), None)
    if scores is None or call.op not in ("add", "masked_fill", "where"):
        return None
    if call.op == "add":
        both = operands(call)
        return (scores, next(v for v in both if v is not scores), False) if both is not None else None
    masks = [v for v in values if v.dtype == "bool"]
    hides = call.op == "masked_fill" or call.value("other") is scores
    return scores, masks[0] if masks else None, hides

"""What rules of recognition share: operands of a call, and the call that takes another's place."""

from __future__ import annotations

from .op_names import CASTS
from .traced import Call, Value, number, source


def operands(call: Call) -> tuple[Value, Value] | None:
    """Both operands of a binary call, if both are tensors."""
    a, b = call.value("self"), call.value("other")
    return (a, b) if a is not None and b is not None else None


def scalar(call: Call) -> tuple[Value, float] | None:
    """The tensor and the number of a binary call that has one of each."""
    a, b = call.arguments.get("self"), call.arguments.get("other")
    for tensor, other in ((a, b), (b, a)):
        value = number(other)
        if isinstance(tensor, Value) and value is not None:
            return tensor, value
    return None


def replaced(call: Call, op: str, **arguments: object) -> Call:
    """A call that takes the place of *call* and makes its result; it reads what was cast for it alone."""
    plain = {
        name: source(item, CASTS) if isinstance(item, Value) and name != "attn_mask" else item
        for name, item in arguments.items()
    }
    return Call(op, plain, [call.out], call.scope, call.source)

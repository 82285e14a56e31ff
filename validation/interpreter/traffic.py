"""Bytes of the arrays that a node read and wrote, beside the compulsory traffic that its operator states."""

from __future__ import annotations

import numpy as np

from effsim.graph.operator import Role
from effsim.graph.operators import CausalConv1d, Embedding, Experts, KVAppend, Pointwise, TopK

from .call import Call
from .values import Array

WORD = 4.0
"""Bytes of float32, in which everything is executed."""

Traffic = dict[tuple[Role, bool], float]
"""Bytes by role and whether they are written."""


def stated(call: Call) -> Traffic:
    """What the operator states; unchanged by the execution."""
    out: Traffic = {}
    for access in call.op.accesses():
        key = (access.role, access.write)
        out[key] = out.get(key, 0.0) + access.bytes_moved
    return {key: size for key, size in out.items() if size}


def measured(call: Call, result: Array) -> Traffic:
    """What went through the functional model."""
    op = call.op
    read = sum(x.size for x, value in zip(call.inputs, call.reads, strict=False) if value.name != "positions") * WORD
    out: Traffic = {(Role.ACTIVATION, False): read, (Role.ACTIVATION, True): result.size * WORD}
    out[Role.WEIGHT, False] = call.weight_bytes
    if isinstance(op, Embedding):
        out[Role.ACTIVATION, False] = 0.0
        out[Role.WEIGHT, False] = min(len(result), op.vocabulary) * result.shape[1] * WORD
    elif isinstance(op, KVAppend):
        out[Role.KV_CACHE, True], out[Role.ACTIVATION, True] = call.cache_written, 0.0
        out[Role.ACTIVATION, False] = call.cache_written  # keys that a window drops at once are not read either
    elif call.cache_read:
        out[Role.ACTIVATION, False], out[Role.KV_CACHE, False] = call.queries_read, call.cache_read
    elif isinstance(op, TopK | Experts):
        # Routes come in as indices and shares, which the experts do not count; weights are an expectation there.
        out[Role.ACTIVATION, False] = call.inputs[0].size * WORD
        out[Role.WEIGHT, False] = stated(call).get((Role.WEIGHT, False), 0.0)
    elif isinstance(op, Pointwise) and op.op == "scale":
        out[Role.ACTIVATION, False] = call.inputs[0].size * WORD  # one number a row beside it
    elif call.state_bytes:
        out[Role.STATE, True] = call.state_bytes
        # A long prompt needs no inputs from before it but those that its first taps reach.
        whole = not isinstance(op, CausalConv1d) or op.length < op.kernel
        out[Role.STATE, False] = call.state_bytes if whole else 0.0
    return {key: size for key, size in out.items() if size}


def check(call: Call, result: Array) -> None:
    """Refuse an operator whose traffic is not that of the arrays.

    Raises:
        DataError: naming the node, the role and both sizes.
    """
    wanted, got = stated(call), measured(call, result)
    for role, write in sorted({*wanted, *got}):
        what = f"bytes of {role.value} {'written' if write else 'read'}"
        a, b = got.get((role, write), 0.0), wanted.get((role, write), 0.0)
        call.expect(what, a if not np.isclose(a, b, rtol=1e-12) else b, b)

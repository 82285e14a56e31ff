"""Calls of a trace → operators of a workload: the table of known calls, and what an unknown one costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from . import costs_attention as heads
from . import costs_products as products
from . import costs_rows as rows
from .costs_rows import Cost
from .ledger import Ledger
from .op_names import (
    ADDITIONS,
    CASTS,
    COPIES,
    CREATION,
    LOGIC,
    POOLS,
    REDUCTIONS,
    SIGMOIDS,
    SPECIAL,
    UNARY,
    VIEWS,
)
from .traced import Call


def emit(ledger: Ledger, call: Call) -> None:
    """Write down what one call costs; a call that is not known costs an element-wise pass and is remembered."""
    if call.op in VIEWS or call.op in CREATION or call.op.startswith(("_assert", "sym_", "_local_scalar")):
        return
    cost = COSTS.get(call.op)
    if cost is None:
        if call.op not in LOGIC:
            ledger.miss(call)
        cost = rows.elementwise
    if not call.out.real and cost is not products.matmul:
        cost = rows.moved  # positions, masks and indices: bytes, but no FLOPs
    cost(ledger, call)


def _entries() -> Iterator[tuple[str, Cost]]:
    groups = (
        (ADDITIONS, rows.binary("add")),
        (COPIES, rows.moved),
        (CASTS, rows.cast),
        (SPECIAL, rows.along_last("exp")),
        (UNARY, rows.along_last("scale")),
        (SIGMOIDS, rows.along_last("sigmoid")),
        (REDUCTIONS, rows.reduce),
        (POOLS, rows.pool),
    )
    for names, cost in groups:
        yield from dict.fromkeys(names, cost).items()
    for name in ("silu", "relu", "relu2", "sigmoid", "softplus", "silu_mul", "gelu_mul", "relu_mul", "rope"):
        yield name, rows.along_last(name)
    for name in ("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose2d", "conv_transpose1d"):
        yield name, products.convolution


COSTS: Final[dict[str, Cost]] = dict(_entries()) | {
    "linear": products.linear,
    "addmm": products.addmm,
    "matmul": products.matmul,
    "mm": products.matmul,
    "bmm": products.matmul,
    "baddbmm": products.matmul,
    "_int_mm": products.matmul,
    "mv": products.matmul,
    "dot": products.matmul,
    "einsum": products.einsum,
    "expert_mm": products.expert_product,
    "moe": products.expert_block,
    "scaled_dot_product_attention": heads.attention,
    "unfused_attention": heads.unfused_attention,
    "causal_conv1d": products.causal_conv1d,
    "ssd_scan": products.scan,
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu", "recurrent"), products.recurrent),
    "layer_norm": rows.norm("layernorm", 2),
    "rms_norm": rows.norm("rmsnorm", 1),
    "gated_rms_norm": rows.norm("gated_rmsnorm", 1),
    "batch_norm": rows.channel_norm,
    "_native_batch_norm_legit_no_training": rows.channel_norm,
    "group_norm": rows.channel_norm,
    "instance_norm": rows.channel_norm,
    "softmax": rows.softmax,
    "_softmax": rows.softmax,
    "log_softmax": rows.softmax,
    "_log_softmax": rows.softmax,
    "gelu": rows.gelu,
    "mul": rows.binary("mul"),
    "div": rows.binary("div"),
    "pow": rows.power,
    "embedding": rows.embedding,
    "index": rows.gather,
    "index_select": rows.gather,
    "glu": rows.along_last("silu_mul"),
    "cross_entropy_loss": rows.softmax,
}
"""What each known call costs."""

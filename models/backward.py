"""Gradients of products, tables, convolutions and experts, each as the products that the graph counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from effsim.models._arrays import Float32Array, expect_shape, float32, int64
from effsim.models.activation import swiglu
from effsim.models.gemm import gemm
from effsim.models.moe import Routing, group_by_expert
from effsim.models.pointwise_backward import swiglu_backward
from effsim.models.rounding import round_to


def linear_backward(
    x: npt.ArrayLike,
    weight: npt.ArrayLike,
    grad: npt.ArrayLike,
    *,
    dtype: str = "fp32",
    tile_m: int = 128,
    tile_n: int = 128,
    tile_k: int = 32,
) -> tuple[Float32Array, Float32Array]:
    """Gradients of ``y = x @ weight.T``: ``grad @ weight`` and ``grad.T @ x``.

    Args:
        x: (m, k), the saved input.
        weight: (n, k).
        grad: (m, n).
        dtype: format that all three are rounded to first; sums are float32.
        tile_m: rows of an output tile.
        tile_n: columns of an output tile.
        tile_k: length of a k block.

    Returns:
        (m, k) and (n, k).

    Raises:
        ValueError: for shapes that do not match.

    >>> dx, dw = linear_backward([[1.0, 2.0]], [[3.0, 4.0]], [[10.0]])
    >>> dx.tolist(), dw.tolist()
    ([[30.0, 40.0]], [[10.0, 20.0]])
    """
    rows, columns, upstream = float32("x", x, 2), float32("weight", weight, 2), float32("grad", grad, 2)
    expect_shape("weight", columns, (columns.shape[0], rows.shape[1]))
    expect_shape("grad", upstream, (rows.shape[0], columns.shape[0]))
    tiles = {"tile_m": tile_m, "tile_n": tile_n, "tile_k": tile_k}
    return (
        gemm(upstream, columns, input_dtype=dtype, **tiles),  # type: ignore[arg-type]
        gemm(upstream.T, rows, input_dtype=dtype, **tiles),  # type: ignore[arg-type]
    )


def embedding_backward(ids: npt.ArrayLike, grad: npt.ArrayLike, rows: int, *, dtype: str = "fp32") -> Float32Array:
    """Add every token's gradient row into the table's gradient, in token order.

    Args:
        ids: (tokens,) integers.
        grad: (tokens, width).
        rows: rows of the table.
        dtype: format of the table's gradient; every sum is rounded to it.

    Returns:
        float32 (rows, width).

    Raises:
        ValueError: for shapes that do not match or an id out of range.

    >>> embedding_backward([1, 1], [[1.0], [2.0]], 3).tolist()
    [[0.0], [3.0], [0.0]]
    """
    upstream, wanted = float32("grad", grad, 2), int64("ids", ids, 1)
    expect_shape("ids", wanted, (upstream.shape[0],))
    if wanted.size and (wanted.min() < 0 or wanted.max() >= rows):
        raise ValueError(f"ids: expected 0…{rows - 1}, got {wanted.min()}…{wanted.max()}")
    out = np.zeros((rows, upstream.shape[1]), np.float32)
    for token in range(wanted.size):
        out[wanted[token]] = round_to(out[wanted[token]] + upstream[token], dtype)
    return out


def conv2d_backward(
    x: npt.ArrayLike, weight: npt.ArrayLike, grad: npt.ArrayLike, *, stride: int = 1, padding: int = 0, groups: int = 1
) -> tuple[Float32Array, Float32Array]:
    """Gradients of :func:`effsim.models.conv.conv2d`, as two implicit GEMMs.

    The weight's is ``grad.T`` by the input's patches; the input's is ``grad`` by the weight, each patch added back at
    its place, kernel position by kernel position.

    Args:
        x: (batch, height, width, in_channels).
        weight: (out_channels, kernel_height, kernel_width, in_channels / groups).
        grad: (batch, out_height, out_width, out_channels).
        stride: step in both directions.
        padding: zeros on every side.
        groups: independent groups of channels.

    Returns:
        gradients of x and of weight.

    Raises:
        ValueError: for shapes that do not fit together.
    """
    image, filters, upstream = float32("x", x, 4), float32("weight", weight, 4), float32("grad", grad, 4)
    outputs, rows, columns, per_group = filters.shape
    padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    height, width = (padded.shape[1] - rows) // stride + 1, (padded.shape[2] - columns) // stride + 1
    expect_shape("grad", upstream, (image.shape[0], height, width, outputs))
    expect_shape("weight", filters, (outputs, rows, columns, image.shape[3] // groups))
    to_image, to_weight = np.zeros_like(padded), np.empty_like(filters)
    own = outputs // groups
    for g in range(groups):
        flat = upstream[..., g * own : (g + 1) * own].reshape(-1, own)
        inputs = slice(g * per_group, (g + 1) * per_group)
        for r in range(rows):
            for s in range(columns):
                across = slice(s, s + (width - 1) * stride + 1, stride)
                where = (slice(None), slice(r, r + (height - 1) * stride + 1, stride), across, inputs)
                patch = padded[where].reshape(-1, per_group)
                to_weight[g * own : (g + 1) * own, r, s] = gemm(flat.T, patch)
                product = gemm(flat, filters[g * own : (g + 1) * own, r, s])
                to_image[where] += product.reshape(image.shape[0], height, width, per_group)
    ends = slice(padding, padding + image.shape[1]), slice(padding, padding + image.shape[2])
    return np.ascontiguousarray(to_image[:, ends[0], ends[1]]), to_weight


@dataclass(frozen=True, slots=True)
class ExpertGradients:
    """Gradients of :func:`effsim.models.moe.grouped_experts`, shaped as its inputs."""

    x: Float32Array
    weights: Float32Array
    w_gate: Float32Array
    w_up: Float32Array
    w_down: Float32Array


def grouped_experts_backward(
    x: npt.ArrayLike,
    routing: Routing,
    w_gate: npt.ArrayLike,
    w_up: npt.ArrayLike,
    w_down: npt.ArrayLike,
    grad: npt.ArrayLike,
) -> ExpertGradients:
    """Gradients of routed SwiGLU experts: the intermediate rows are made again, then six products an expert.

    Args:
        x: (tokens, hidden).
        routing: of the forward.
        w_gate: (experts, hidden, intermediate).
        w_up: (experts, hidden, intermediate).
        w_down: (experts, intermediate, hidden).
        grad: (tokens, hidden).

    Raises:
        ValueError: for shapes that do not fit together.
    """
    tokens, upstream = float32("x", x, 2), float32("grad", grad, 2)
    gate, up, down = float32("w_gate", w_gate, 3), float32("w_up", w_up, 3), float32("w_down", w_down, 3)
    expect_shape("grad", upstream, tokens.shape)
    top_k = routing.experts.shape[1]
    groups = group_by_expert(routing, gate.shape[0])
    to_x = np.zeros((tokens.shape[0] * top_k, tokens.shape[1]), np.float32)
    to_weights = np.zeros(tokens.shape[0] * top_k, np.float32)
    to_gate, to_up, to_down = np.zeros_like(gate), np.zeros_like(up), np.zeros_like(down)
    for e in range(gate.shape[0]):
        slots = groups.slots[groups.offsets[e] : groups.offsets[e + 1]]
        if not slots.size:
            continue
        rows, out = tokens[slots // top_k], upstream[slots // top_k]
        opened, raised = gemm(rows, gate[e]), gemm(rows, up[e])
        middle = swiglu(opened, raised)
        to_weights[slots] = np.sum(gemm(middle, down[e]) * out, axis=1)
        out = out * routing.weights.reshape(-1)[slots, None]
        to_down[e] = gemm(middle.T, out)
        d_opened, d_raised = swiglu_backward(opened, raised, gemm(out, down[e].T))
        to_gate[e], to_up[e] = gemm(rows.T, d_opened), gemm(rows.T, d_raised)
        to_x[slots] = gemm(d_opened, gate[e].T) + gemm(d_raised, up[e].T)
    summed = np.zeros_like(tokens)
    for j in range(top_k):
        summed += to_x.reshape(tokens.shape[0], top_k, -1)[:, j]
    return ExpertGradients(summed, to_weights.reshape(tokens.shape[0], top_k), to_gate, to_up, to_down)


def router_backward(logits: npt.ArrayLike, routing: Routing, grad: npt.ArrayLike) -> Float32Array:
    """Gradient of the logits when weights are the softmax over the chosen ones (order ``topk_softmax``).

    ``d logit_j = w_j (g_j - sum_i w_i g_i)`` for the chosen experts, 0 for the others; the choice has no gradient.

    Args:
        logits: (tokens, experts), only for their shape.
        routing: of the forward.
        grad: (tokens, top_k) gradient of the weights.

    Raises:
        ValueError: for shapes that do not match.

    >>> r = Routing(np.array([[2, 0]]), np.array([[0.5, 0.5]], np.float32))
    >>> router_backward([[0.0, -1.0, 0.0]], r, [[1.0, 0.0]]).tolist()
    [[-0.25, 0.0, 0.25]]
    """
    scores, upstream = float32("logits", logits, 2), float32("grad", grad, 2)
    expect_shape("grad", upstream, routing.weights.shape)
    weighted = routing.weights * upstream
    inner = routing.weights * (upstream - np.sum(weighted, axis=1, keepdims=True))
    out = np.zeros_like(scores)
    np.put_along_axis(out, routing.experts, inner, axis=1)
    return out

"""Mixture of experts: a top-k router and grouped expert multiplications.

Sources: Shazeer et al., *Outrageously Large Neural Networks* (2017); Jiang et al., *Mixtral* (2024), softmax over the
chosen logits; Dai et al., *DeepSeekMoE* (2024), choice among softmax probabilities; Gale et al., *MegaBlocks* (2022),
grouped multiplication without dropped tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from effsim.models._arrays import Float32Array, Int64Array, expect_shape, float32
from effsim.models.activation import swiglu
from effsim.models.gemm import gemm
from effsim.models.sampling import softmax

RouterOrder = Literal["softmax_topk", "topk_softmax"]


@dataclass(frozen=True, slots=True)
class Routing:
    """Where each token goes.

    Attributes:
        experts: (tokens, top_k) expert numbers, best first, all different within a token.
        weights: (tokens, top_k) float32 factors on the experts' outputs.
    """

    experts: Int64Array
    weights: Float32Array


@dataclass(frozen=True, slots=True)
class ExpertGroups:
    """Token copies sorted by expert.

    Attributes:
        slots: (tokens * top_k,) indices into the flattened routing, grouped by expert, in token order within one.
        offsets: (experts + 1,); expert e owns ``slots[offsets[e]:offsets[e + 1]]``.
    """

    slots: Int64Array
    offsets: Int64Array


def route(
    logits: npt.ArrayLike, top_k: int, *, order: RouterOrder = "softmax_topk", renormalize: bool = False
) -> Routing:
    """Choose ``top_k`` experts a token; equal logits go to the lower expert number.

    Args:
        logits: (tokens, experts).
        top_k: 1…experts.
        order: ``softmax_topk`` weighs by probabilities over all experts, ``topk_softmax`` by probabilities over the
            chosen ones (which equals ``softmax_topk`` with ``renormalize``, up to rounding).
        renormalize: divide the weights by their sum.

    Raises:
        ValueError: for a top_k out of range or an unknown order.

    >>> r = route([[0.0, 9.0, 9.0]], 2, order="topk_softmax")
    >>> r.experts.tolist(), r.weights.tolist()
    ([[1, 2]], [[0.5, 0.5]])
    """
    scores = float32("logits", logits, 2)
    if not 1 <= top_k <= scores.shape[1]:
        raise ValueError(f"top_k: expected 1…{scores.shape[1]}, got {top_k}")
    if order not in ("softmax_topk", "topk_softmax"):
        raise ValueError(f"order: expected softmax_topk or topk_softmax, got {order!r}")
    # Choosing by logits rather than probabilities keeps the choice when probabilities underflow to equal zeros.
    experts = np.argsort(-scores, axis=1, kind="stable")[:, :top_k].astype(np.int64)
    if order == "topk_softmax":
        weights = softmax(np.take_along_axis(scores, experts, axis=1))
    else:
        weights = np.take_along_axis(softmax(scores), experts, axis=1)
    if renormalize:
        weights = weights / np.sum(weights, axis=1, keepdims=True)
    return Routing(experts, weights)


def group_by_expert(routing: Routing, experts: int) -> ExpertGroups:
    """Sort token copies by expert, keeping token order within an expert.

    Raises:
        ValueError: if an expert number is out of range.

    >>> g = group_by_expert(Routing(np.array([[2], [0], [2]]), np.ones((3, 1), np.float32)), 3)
    >>> g.slots.tolist(), g.offsets.tolist()
    ([1, 0, 2], [0, 1, 1, 3])
    """
    flat = routing.experts.ravel()
    if flat.size and (flat.min() < 0 or flat.max() >= experts):
        raise ValueError(f"routing: expert numbers must lie in 0…{experts - 1}")
    counts = np.bincount(flat, minlength=experts)
    return ExpertGroups(np.argsort(flat, kind="stable").astype(np.int64), np.concatenate([[0], np.cumsum(counts)]))


def padded_tiles(groups: ExpertGroups, tile_m: int) -> int:
    """Return the row tiles that grouped multiplication runs: ``sum ceil(tokens_e / tile_m)``.

    >>> padded_tiles(ExpertGroups(np.arange(5), np.array([0, 1, 1, 5])), 2)
    3
    """
    return int(np.sum(-(-np.diff(groups.offsets) // tile_m)))


def grouped_experts(
    x: npt.ArrayLike,
    routing: Routing,
    w_gate: npt.ArrayLike,
    w_up: npt.ArrayLike,
    w_down: npt.ArrayLike,
    *,
    tile_m: int = 128,
    tile_n: int = 128,
    tile_k: int = 32,
) -> Float32Array:
    """Run each token through its SwiGLU experts, one grouped multiplication per expert, and add the weighted results.

    ``y[t] = sum_j weights[t, j] * (swiglu(x[t] w_gate[e], x[t] w_up[e]) w_down[e])`` with ``e = experts[t, j]``; the
    sum runs over j in order, whatever order the experts ran in.

    Args:
        x: (tokens, hidden).
        routing: result of :func:`route`.
        w_gate: (experts, hidden, intermediate).
        w_up: (experts, hidden, intermediate).
        w_down: (experts, intermediate, hidden).
        tile_m: rows of an output tile.
        tile_n: columns of an output tile.
        tile_k: length of a k block.

    Returns:
        float32 array (tokens, hidden).

    Raises:
        ValueError: for shapes that do not fit together.
    """
    tokens = float32("x", x, 2)
    gate, up, down = float32("w_gate", w_gate, 3), float32("w_up", w_up, 3), float32("w_down", w_down, 3)
    experts, hidden, inner = gate.shape
    if tokens.shape[1] != hidden:
        raise ValueError(f"x: expected {hidden} columns as w_gate has, got shape {tokens.shape}")
    expect_shape("w_up", up, (experts, hidden, inner))
    expect_shape("w_down", down, (experts, inner, hidden))
    top_k = routing.experts.shape[1]
    expect_shape("routing.experts", routing.experts, (tokens.shape[0], top_k))
    expect_shape("routing.weights", routing.weights, (tokens.shape[0], top_k))
    groups = group_by_expert(routing, experts)
    results = np.zeros((tokens.shape[0] * top_k, hidden), np.float32)
    for e in range(experts):
        slots = groups.slots[groups.offsets[e] : groups.offsets[e + 1]]
        if slots.size:
            rows = tokens[slots // top_k]
            gated = swiglu(
                gemm(rows, gate[e], tile_m=tile_m, tile_n=tile_n, tile_k=tile_k),
                gemm(rows, up[e], tile_m=tile_m, tile_n=tile_n, tile_k=tile_k),
            )
            results[slots] = gemm(gated, down[e], tile_m=tile_m, tile_n=tile_n, tile_k=tile_k)
    out = np.zeros_like(tokens)
    for j in range(top_k):
        out += routing.weights[:, j : j + 1] * results.reshape(tokens.shape[0], top_k, hidden)[:, j]
    return out

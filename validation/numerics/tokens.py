"""Comparisons of what surrounds the layers: tables, losses, experts, collectives, the optimizer."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch.nn import functional

from effsim.models import collectives, cross_entropy, embedding, moe, optimizer

from .bounds import SILU_SLOPE, TINIES, TINY, UNIT, UNITS, Bounded, Float64Array, gamma, silu
from .case import Case, Check, Draw, Float32Array, normal, tokens, values
from .products import TORCH, numbers, wide
from .rows import softmax_bound


def compare_embedding(draw: Draw) -> Iterator[Check]:
    """Lookups exactly; bags within the sum of their rows."""
    rows, width, count = draw.integer(3, 20), draw.integer(1, 6), draw.integer(1, 30)
    table, ids = values(draw, rows, width), tokens(draw, count, rows)
    want = functional.embedding(torch.from_numpy(ids), wide(table))
    yield Check(embedding.lookup(table, ids), numbers(want), 0.0, "lookup")
    cut = draw.integer(1, rows - 1)
    parts = embedding.sharded_lookup([table[:cut], table[cut:]], ids)
    yield Check(parts[0] + parts[1], numbers(want), 0.0, "shards")
    offsets = np.concatenate([[0], np.sort(draw.generator().integers(0, count + 1, 3))])
    where = torch.from_numpy(ids), torch.from_numpy(offsets)
    bag = functional.embedding_bag(where[0], wide(table), where[1], mode="sum")
    large = functional.embedding_bag(where[0], wide(table).abs(), where[1], mode="sum")
    got = embedding.embedding_bag(table, ids, offsets)
    yield Check(got, numbers(bag), gamma(count) * numbers(large), "bags")


def loss_bound(logits: Bounded, targets: torch.Tensor) -> tuple[Float64Array, Float64Array]:
    """Loss and log-sum-exp: weights below a running maximum, their rescaled sum, a logarithm, two sums.

    Rescaling factors e^(m - m') have exponents that telescope to at most twice the largest logit.
    """
    n = logits.value.shape[1]
    largest = logits.high.max(-1)
    off = logits.error.max(-1) + 4 * UNIT * largest
    lse = np.log(np.sum(np.exp(logits.value - logits.value.max(-1, keepdims=True)), -1)) + logits.value.max(-1)
    error = off + gamma(4 * n + 8) + UNIT * (2 * np.abs(lse) + 2 * math.log(n) + 2 * largest)
    rows = np.arange(len(lse))
    picked = logits[rows, np.maximum(numbers(targets), 0)]
    return error + picked.error + UNIT * (np.abs(lse) + picked.high + error), error


def compare_loss(draw: Draw) -> Iterator[Check]:
    """Plain, chunked and cut, with their gradients; some targets are ignored."""
    rows, vocabulary, width = draw.integer(1, 6), draw.integer(2, 60), draw.integer(1, 12)
    hidden, weight = normal(draw, rows, width, scale=draw.choice((1.0, 10.0))), normal(draw, vocabulary, width)
    targets, grad, chunk = tokens(draw, rows, vocabulary), normal(draw, rows), draw.integer(1, 40)
    targets[draw.integer(0, rows - 1)] = draw.choice((cross_entropy.IGNORE, 0))
    ids, upstream = torch.from_numpy(targets), wide(grad)
    x, w = wide(hidden).requires_grad_(), wide(weight).requires_grad_()
    made = x @ w.T
    logits = numbers(made).astype(np.float32)
    given = wide(logits).requires_grad_()
    loss = functional.cross_entropy(given, ids, reduction="none")
    (to_logits,) = torch.autograd.grad(loss, given, upstream)
    bound, sums = loss_bound(Bounded.exact(logits), ids)
    for size in (None, chunk):
        got = cross_entropy.cross_entropy(logits, targets, chunk=size)
        yield Check(got.loss, numbers(loss), bound, f"chunk {size}")
        yield Check(got.lse, numbers(torch.logsumexp(wide(logits), -1)), sums, f"lse, chunk {size}")
    back = cross_entropy.cross_entropy_backward(logits, targets, got.lse, grad)
    slope = _slope_bound(Bounded.exact(logits), sums, targets, grad)
    yield Check(back, numbers(to_logits), slope.error, "gradient of the logits")
    cut = functional.cross_entropy(made, ids, reduction="none")
    to_hidden, to_weight = torch.autograd.grad(cut, (x, w), upstream)
    product = Bounded.exact(hidden) @ Bounded.exact(weight).mT
    bound, sums = loss_bound(product, ids)
    got = cross_entropy.cut_cross_entropy(hidden, weight, targets, chunk=chunk)
    yield Check(got.loss, numbers(cut), bound, "cut")
    dx, dw = cross_entropy.cut_cross_entropy_backward(hidden, weight, targets, got.lse, grad, chunk=chunk)
    slope = _slope_bound(product, sums, targets, grad)
    most = (slope @ Bounded.exact(weight)).error + gamma(-(-vocabulary // chunk) + 2) * (slope.high @ np.abs(weight))
    yield Check(dx, numbers(to_hidden), most, "cut, gradient of hidden states")
    yield Check(dw, numbers(to_weight), (slope.mT @ Bounded.exact(hidden)).error, "cut, gradient of weights")


def _slope_bound(logits: Bounded, lse_error: Float64Array, targets: np.ndarray, grad: Float32Array) -> Bounded:
    """``grad (e^{logits - lse} - onehot)``."""
    value = np.log(np.exp(logits.value - logits.value.max(-1, keepdims=True)).sum(-1)) + logits.value.max(-1)
    hot = np.zeros(logits.value.shape)
    kept = np.flatnonzero(targets != cross_entropy.IGNORE)
    hot[kept, targets[kept]] = 1.0
    out = (logits - Bounded(value, lse_error)[:, None]).exp() - hot
    out = out * Bounded.exact(grad)[:, None]
    used = (targets != cross_entropy.IGNORE)[:, None]
    return out.apply(lambda v: v * used)


def large_losses(draw: Draw) -> Iterator[Check]:
    """Logits of 1e4 and of minus infinity: nothing overflows, and impossible targets cost infinity."""
    logits, targets = normal(draw, 4, 9, scale=1e4), tokens(draw, 4, 9)
    logits[0, 0], targets[0] = -np.inf, 0
    safe = np.where(np.isneginf(logits), logits.max() - 1e6, logits)
    want = numbers(functional.cross_entropy(wide(logits), torch.from_numpy(targets), reduction="none"))
    bound = loss_bound(Bounded.exact(safe), torch.from_numpy(targets))[0]
    for chunk in (None, 2):
        yield Check(cross_entropy.cross_entropy(logits, targets, chunk=chunk).loss, want, bound, f"chunk {chunk}")


def compare_router(draw: Draw) -> Iterator[Check]:
    """Experts exactly as PyTorch's top-k chooses; weights within a softmax."""
    logits = normal(draw, draw.integer(1, 12), draw.integer(2, 16), scale=3.0)
    top_k = draw.integer(1, min(4, logits.shape[1]))
    best = torch.topk(wide(logits), top_k, -1)
    after = moe.route(logits, top_k, order="topk_softmax")
    yield Check(after.experts, numbers(best.indices), 0.0, "experts")
    chosen = np.take_along_axis(logits, numbers(best.indices), 1)
    yield Check(after.weights, numbers(torch.softmax(best.values, -1)), softmax_bound(chosen), "after the choice")
    before = moe.route(logits, top_k, order="softmax_topk")
    every = torch.softmax(wide(logits), -1)
    bound = np.take_along_axis(softmax_bound(logits), numbers(best.indices), 1)
    yield Check(before.weights, numbers(every.gather(-1, best.indices)), bound, "before the choice")
    scaled = moe.route(logits, top_k, order="softmax_topk", renormalize=True)
    share = Bounded(numbers(every.gather(-1, best.indices)), bound)
    want = numbers(torch.softmax(best.values, -1))
    yield Check(scaled.weights, want, (share / share.sum(-1, keepdims=True)).error, "renormalised")


def compare_experts(draw: Draw) -> Iterator[Check]:
    """Every token through all experts in PyTorch, weighted by a dense matrix."""
    count, experts, hidden, inner = draw.integer(1, 12), draw.integer(2, 5), draw.integer(1, 8), draw.integer(1, 8)
    x, logits = normal(draw, count, hidden), normal(draw, count, experts)
    gate, up, down = (normal(draw, experts, *s) for s in ((hidden, inner), (hidden, inner), (inner, hidden)))
    routing = moe.route(logits, draw.integer(1, 2))
    dense = torch.zeros(count, experts, dtype=torch.float64)
    dense = dense.scatter(1, torch.from_numpy(routing.experts), wide(routing.weights))
    middle = functional.silu(torch.einsum("th,ehi->tei", wide(x), wide(gate)))
    middle = middle * torch.einsum("th,ehi->tei", wide(x), wide(up))
    want = torch.einsum("tei,eih,te->th", middle, wide(down), dense)
    bound = np.zeros(x.shape)
    rows = Bounded.exact(x)
    for e in range(experts):
        opened = (rows @ Bounded.exact(gate[e])).through(silu, SILU_SLOPE)
        out = (opened * (rows @ Bounded.exact(up[e]))) @ Bounded.exact(down[e])
        weighted = out * Bounded.exact(numbers(dense)[:, e, None])
        used = numbers(dense)[:, e, None] > 0
        bound += np.where(used, weighted.error + gamma(4) * weighted.high, 0.0)
    got = moe.grouped_experts(x, routing, gate, up, down, tile_m=3, tile_k=4)
    yield Check(got, numbers(want), bound)


def compare_collectives(draw: Draw) -> Iterator[Check]:
    """Sums within p - 1 additions in the wire's format, on every device alike; movement exactly."""
    p, size, dtype = draw.integer(1, 7), draw.integer(1, 20), draw.choice(("fp32", "bf16", "fp16"))
    shards = [normal(draw, size) for _ in range(p)]
    stacked = torch.stack([wide(s, dtype) for s in shards])
    want, large = numbers(stacked.sum(0)), numbers(stacked.abs().sum(0))
    bound = gamma(p - 1, UNITS[dtype]) * large * (1 + 2 * UNIT) + p * TINIES[dtype]
    reduced = collectives.ring_all_reduce(shards, dtype=dtype)
    for device, got in enumerate(reduced):
        yield Check(got, want, bound, f"all-reduce {dtype} on {device}")
        yield Check(got, reduced[0], 0.0, "the same bits")
    parts = collectives.ring_reduce_scatter(shards, dtype=dtype)
    yield Check(np.concatenate(parts), want, bound, "reduce-scatter")
    whole = numbers(torch.cat([wide(s) for s in shards]))
    for got in collectives.ring_all_gather(shards):
        yield Check(got, whole, 0.0, "all-gather")
    root = draw.integer(0, p - 1)
    for got in collectives.broadcast(shards, root):
        yield Check(got, shards[root], 0.0, "broadcast")
    yield Check(
        np.stack(collectives.send_recv(shards, 2)), numbers(torch.stack([wide(s) for s in shards]).roll(2, 0)), 0.0
    )
    blocks = [[normal(draw, 2) for _ in range(p)] for _ in range(p)]
    turned = np.array(collectives.all_to_all(blocks))
    yield Check(turned, numbers(torch.from_numpy(np.array(blocks)).transpose(0, 1)), 0.0, "all-to-all")


def compare_optimizer(draw: Draw) -> Iterator[Check]:
    """Three steps of PyTorch's AdamW in float64; the working copy bit for bit from the master."""
    size, lr, decay = draw.integer(1, 20), draw.choice((1e-3, 0.1)), draw.choice((0.0, 0.1))
    start, dtype = normal(draw, size), draw.choice(("fp32", "bf16"))
    parameter = torch.nn.Parameter(wide(start))
    oracle = torch.optim.AdamW([parameter], lr=lr, weight_decay=decay, foreach=False)
    state = optimizer.AdamState(start, np.zeros(size, np.float32), np.zeros(size, np.float32), start)
    w, m, v = Bounded.exact(start), Bounded.exact(np.zeros(size)), Bounded.exact(np.zeros(size))
    for step in range(1, 4):
        grad = normal(draw, size, scale=draw.choice((1e-4, 1.0)))
        parameter.grad = wide(grad, dtype)
        oracle.step()
        state = optimizer.adamw(
            state.master, grad, state.first, state.second, step=step, lr=lr, weight_decay=decay, gradient_dtype=dtype
        )
        w, m, v = _adam_bound(w, m, v, numbers(parameter.grad), step, lr, decay)
        yield Check(state.master, numbers(parameter.detach()), w.error, f"step {step}")
        yield Check(state.working, numbers(wide(state.master, "bf16")), 0.0, "working copy")
    own = oracle.state[parameter]
    yield Check(state.first, numbers(own["exp_avg"]), m.error, "first moment")
    yield Check(state.second, numbers(own["exp_avg_sq"]), v.error, "second moment")


def _constant(x: float) -> Bounded:
    return Bounded(np.asarray(x), np.asarray(UNIT * abs(x)))


def _adam_bound(
    w: Bounded, m: Bounded, v: Bounded, grad: Float64Array, step: int, lr: float, decay: float
) -> tuple[Bounded, Bounded, Bounded]:
    g = Bounded.exact(grad)
    w = w * _constant(1.0 - lr * decay)
    m = _constant(0.9) * m + _constant(1.0 - 0.9) * g
    v = _constant(0.999) * v + _constant(1.0 - 0.999) * (g * g)
    root = v.root() * _constant(1.0 / math.sqrt(1.0 - 0.999**step)) + _constant(1e-8)
    return w - _constant(lr / (1.0 - 0.9**step)) * (m / root), m, v


CASES = (
    Case("embedding", ("embedding.lookup", "embedding.sharded_lookup", "embedding.embedding_bag"), compare_embedding),
    Case(
        "cross-entropy plain, chunked, cut",
        (
            "cross_entropy.cross_entropy", "cross_entropy.cut_cross_entropy", "cross_entropy.cross_entropy_backward",
            "cross_entropy.cut_cross_entropy_backward",
        ),
        compare_loss, (large_losses,),
    ),
    Case("router", ("moe.route",), compare_router),
    Case("experts", ("moe.grouped_experts",), compare_experts),
    Case(
        "collectives",
        tuple(
            f"collectives.{name}"
            for name in (
                "ring_all_reduce", "ring_reduce_scatter", "ring_all_gather", "all_to_all", "broadcast", "send_recv",
            )
        ),
        compare_collectives,
    ),
    Case("AdamW", ("optimizer.adamw",), compare_optimizer),
)  # fmt: skip

__all__ = ["CASES", "TINY", "TORCH"]

"""Comparisons of backward models with PyTorch's automatic differentiation in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch.nn import functional

from effsim.models import attention as forward_attention
from effsim.models import attention_backward, backward, gradients, moe, pointwise, pointwise_backward

from .attention import Problem, mask_of
from .bounds import (
    SILU_SLOPE,
    TINY,
    UNIT,
    UNITS,
    Bounded,
    Float64Array,
    gamma,
    sigmoid,
    silu,
    softmax_average,
)
from .case import Case, Check, Draw, Float32Array, normal, tokens, values
from .products import numbers, wide
from .rows import ACTIVATIONS

ex = Bounded.exact
"""Inputs without error, short because every line of a bound has several."""


def differentiate(
    function: Callable[..., torch.Tensor], inputs: Sequence[np.ndarray], grad: np.ndarray
) -> list[Float64Array]:
    """Gradients of ``sum(function(*inputs) * grad)``."""
    leaves = [wide(x).requires_grad_() for x in inputs]
    out = function(*leaves)
    return [numbers(g) for g in torch.autograd.grad(out, leaves, wide(grad).reshape(out.shape), materialize_grads=True)]


def compare_linear(draw: Draw) -> Iterator[Check]:
    """Two products; narrow inputs are rounded by PyTorch first."""
    m, n, k, dtype = draw.integer(1, 30), draw.integer(1, 30), draw.integer(1, 30), draw.choice(("fp32", "bf16"))
    x, weight, grad = values(draw, m, k), normal(draw, n, k), normal(draw, m, n)
    narrow = [numbers(wide(v, dtype)).astype(np.float32) for v in (x, weight, grad)]
    want = differentiate(lambda a, b: a @ b.T, narrow[:2], narrow[2])
    got = backward.linear_backward(x, weight, grad, dtype=dtype, tile_k=8)
    large = [np.abs(v).astype(np.float64) for v in narrow]
    yield Check(got[0], want[0], gamma(n + 2) * (large[2] @ large[1]) + 2 * n * TINY, "input")
    yield Check(got[1], want[1], gamma(m + 2) * (large[2].T @ large[0]) + 2 * m * TINY, "weight")


def compare_embedding(draw: Draw) -> Iterator[Check]:
    """Rows added one by one, in float32 or bf16."""
    count, rows, width, dtype = (
        draw.integer(1, 30),
        draw.integer(1, 8),
        draw.integer(1, 5),
        draw.choice(("fp32", "bf16")),
    )
    ids, grad = tokens(draw, count, rows), normal(draw, count, width)
    (want,) = differentiate(lambda t: functional.embedding(torch.from_numpy(ids), t), [np.zeros((rows, width))], grad)
    (large,) = differentiate(
        lambda t: functional.embedding(torch.from_numpy(ids), t), [np.zeros((rows, width))], np.abs(grad)
    )
    got = backward.embedding_backward(ids, grad, rows, dtype=dtype)
    yield Check(got, want, gamma(count, UNITS[dtype]) * large * (1 + count * 2 * UNIT), dtype)


def compare_conv2d(draw: Draw) -> Iterator[Check]:
    """Both gradients of a grouped, strided, padded convolution."""
    groups, stride, padding = draw.choice((1, 2)), draw.integer(1, 2), draw.integer(0, 2)
    x = normal(draw, 2, draw.integer(4, 7), draw.integer(4, 7), groups * draw.integer(1, 3))
    weight = normal(draw, groups * 2, draw.integer(1, 3), draw.integer(1, 3), x.shape[3] // groups)

    def run(a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        moved = functional.conv2d(
            a.permute(0, 3, 1, 2), w.permute(0, 3, 1, 2), stride=stride, padding=padding, groups=groups
        )
        return moved.permute(0, 2, 3, 1)

    grad = normal(draw, *run(wide(x), wide(weight)).shape)
    want = differentiate(run, (x, weight), grad)
    large = differentiate(run, (np.abs(x), np.abs(weight)), np.abs(grad))
    got = backward.conv2d_backward(x, weight, grad, stride=stride, padding=padding, groups=groups)
    terms = weight.shape[1] * weight.shape[2] * weight.shape[0], grad[..., 0].size
    for i, name in enumerate(("input", "weight")):
        yield Check(got[i], want[i], gamma(terms[i] + 4 + terms[i] // 32) * large[i] + 2 * terms[i] * TINY, name)


def compare_attention(draw: Draw) -> Iterator[Check]:
    """From the forward's own output and log-sum-exp, whose errors are part of the bound."""
    kv_heads, group, dim, value_dim = draw.integer(1, 2), draw.integer(1, 3), draw.integer(1, 6), draw.integer(1, 5)
    q_len, kv_len = draw.integer(1, 10), draw.integer(10, 14)
    causal, window = draw.choice(((True, None), (True, 3), (False, None)))
    scale = 1.0 / math.sqrt(dim)
    q, k = normal(draw, 1, q_len, kv_heads * group, dim), normal(draw, 1, kv_len, kv_heads, dim)
    v, grad = normal(draw, 1, kv_len, kv_heads, value_dim), normal(draw, 1, q_len, kv_heads * group, value_dim)
    seen = mask_of(q_len, kv_len, causal, window)

    def run(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        moved = [x.transpose(1, 2) for x in (a, b, c)]
        mask = torch.from_numpy(seen)
        out = functional.scaled_dot_product_attention(moved[0], moved[1], moved[2], attn_mask=mask, enable_gqa=True)
        return out.transpose(1, 2)

    want = differentiate(run, (q, k, v), grad)
    part = forward_attention.attention_partial(
        q, k, v, q_start=[kv_len - q_len], kv_begin=[0], kv_end=[kv_len], causal=causal, window=window
    )
    got = attention_backward.attention_backward(
        q, k, v, part.output, part.lse, grad, causal=causal, window=window, tile_q=draw.integer(1, 6), tile_kv=4
    )
    bound = _attention_bound(Problem(q, k, v, seen, scale), grad)
    for name, own, oracle, most in zip("qkv", (got.q, got.k, got.v), want, bound, strict=True):
        yield Check(own, oracle, most, name)


def _attention_bound(p: Problem, grad: Float32Array) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Scores, probabilities from the log-sum-exp, D, and five products; sums over tiles and heads on top."""
    group, n = p.q.shape[2] // p.k.shape[2], p.k.shape[1]
    factor = Bounded(np.asarray(p.scale), np.asarray(UNIT * p.scale))
    out = np.zeros(p.q.shape), np.zeros(p.k.shape), np.zeros(p.v.shape)
    for h in range(p.q.shape[2]):
        q, k, v, g = ex(p.q[0, :, h]), ex(p.k[0, :, h // group]), ex(p.v[0, :, h // group]), ex(grad[0, :, h])
        scores = (q @ k.mT).times(factor).rounded()
        average = softmax_average(scores, p.seen, v)
        hidden = np.where(p.seen, scores.value, -np.inf)
        peak = hidden.max(-1)
        lse = peak + np.log(np.exp(hidden - peak[:, None]).sum(-1))
        largest = np.where(p.seen, scores.high, 0).max(-1)
        off = np.where(p.seen, scores.error, 0).max(-1) + gamma(5 * n + 16) + UNIT * (6 * largest + 2 * np.abs(lse))
        weights = (scores - Bounded(lse, off)[:, None]).exp().apply(lambda x: np.where(p.seen, x, 0.0))
        dots = (g * average).sum(-1)
        slopes = weights * ((g @ v.mT) - dots[:, None]) * factor
        for i, part in enumerate((slopes @ k, slopes.mT @ q, weights.mT @ g)):
            head = h if i == 0 else h // group
            # Tiles of a head and heads of a group are added to one gradient.
            out[i][0, :, head] += part.error + gamma(2 * n + 2 * group) * part.high
    return out


SLOPE_LIMITS = {"silu": 0.5, "gelu": 0.8, "gelu_tanh": 0.82, "sigmoid": 0.1, "softplus": 0.25}
"""Largest second derivatives: how much an error of the input moves a slope."""


def compare_activations(draw: Draw) -> Iterator[Check]:
    """A slope rounded once and one product; slopes of GELU cancel in double only."""
    x, grad = normal(draw, 40, scale=draw.choice((0.01, 1.0, 8.0))), normal(draw, 40)
    for name, (_, oracle) in ACTIVATIONS.items():
        (want,) = differentiate(oracle, [x], grad)
        got = pointwise_backward.activation_backward(name, x, grad)
        bound = 2.01 * UNIT * np.abs(want) + (2.0**-48 + 2 * TINY) * (1 + np.abs(x)) * np.abs(grad) + TINY
        yield Check(got, want, bound, name)
    up = normal(draw, 40)
    for name, backward_of, act in (
        ("silu_mul", pointwise_backward.swiglu_backward, functional.silu),
        ("gelu_mul", pointwise_backward.geglu_backward, ACTIVATIONS["gelu"][1]),
        ("relu_mul", pointwise_backward.reglu_backward, functional.relu),
    ):
        wants = differentiate(lambda a, b, f=act: f(a) * b, [x, up], grad)
        small = (2.0**-48 + 2 * TINY) * (1 + np.abs(x)) * np.abs(grad) * (1 + np.abs(up)) + 2 * TINY
        for got, want in zip(backward_of(x, up, grad), wants, strict=True):
            yield Check(got, want, 3.01 * UNIT * np.abs(want) + small, name)


def activation_ends(_: Draw) -> Iterator[Check]:
    """Slopes far out in both tails are 0 or 1, never NaN."""
    x, grad = np.array([1e10, -1e10, 200.0, -200.0, 1e-40, 0.5], np.float32), np.full(6, 2.0, np.float32)
    for name in ("sigmoid", "silu", "gelu", "softplus", "relu"):
        (want,) = differentiate(ACTIVATIONS[name][1], [x], grad)
        got = pointwise_backward.activation_backward(name, x, grad)
        yield Check(got, np.nan_to_num(want), 2.01 * UNIT * np.abs(want) + 2.0**-45, name)


def compare_simple(draw: Draw) -> Iterator[Check]:
    """Gradients of sums, products, copies, masks and rotations."""
    x, y, grad = normal(draw, 3, 8), normal(draw, 3, 8), normal(draw, 3, 8)
    for got, want in zip(
        pointwise_backward.mul_backward(x, y, grad), differentiate(torch.mul, (x, y), grad), strict=True
    ):
        yield Check(got, want, UNIT * np.abs(want) + TINY, "mul")
    for got, want in zip(pointwise_backward.add_backward(grad), differentiate(torch.add, (x, y), grad), strict=True):
        yield Check(got, want, 0.0, "add")
    bottom = np.where(np.abs(y) < 0.1, np.float32(1), y)
    for got, want in zip(
        pointwise_backward.div_backward(x, bottom, grad), differentiate(torch.div, (x, bottom), grad), strict=True
    ):
        yield Check(got, want, 1.01 * UNIT * np.abs(want) + TINY, "div")
    (want,) = differentiate(torch.exp, (x,), grad)
    yield Check(pointwise_backward.exp_backward(pointwise.exp(x), grad), want, 2.01 * UNIT * np.abs(want) + TINY, "exp")
    rows, learned = pointwise_backward.bias_backward(grad)
    first, second = differentiate(torch.add, (x, y[0]), grad)
    yield Check(rows, first, 0.0, "bias")
    yield Check(learned, second, 2.01 * UNIT * np.abs(grad).sum(0) + TINY, "bias")
    (want,) = differentiate(lambda a: a.sum(-1), (x,), grad[:, 0].copy())
    yield Check(pointwise_backward.sum_backward(grad[:, 0].copy(), 8), want, 0.0, "sum")
    yield Check(pointwise_backward.copy_backward(grad), differentiate(torch.clone, (x,), grad)[0], 0.0, "copy")
    (want,) = differentiate(lambda a: a * 0.75, (x,), grad)
    yield Check(pointwise.scale(grad, 0.75), want, UNIT * np.abs(want), "scale")
    mask = (draw.generator().random((3, 8)) < 0.5).astype(np.float32)
    (want,) = differentiate(lambda a: a * wide(mask) / 0.5, (x,), grad)
    yield Check(pointwise_backward.dropout_backward(grad, mask, 0.5), want, 2.01 * UNIT * np.abs(want), "dropout")
    places = draw.generator().integers(0, 1000, 3)
    angles = torch.from_numpy(places).double()[:, None] * 10000.0 ** (-torch.arange(0, 8, 2, dtype=torch.float64) / 8)
    turn = torch.polar(torch.ones_like(angles), angles)

    def rotate(a: torch.Tensor) -> torch.Tensor:
        turned = torch.view_as_complex(a.reshape(3, 2, 4).transpose(-1, -2).contiguous()) * turn
        return torch.view_as_real(turned).transpose(-1, -2).flatten(-2)

    (want,) = differentiate(rotate, (x,), grad)
    got = pointwise_backward.rope_backward(grad[None, :, None], places)[0, :, 0]
    size = np.tile(np.abs(grad[:, :4]) + np.abs(grad[:, 4:]), 2).astype(np.float64)
    yield Check(got, want, (3.01 * UNIT + 2.0**-40) * size, "rope")


def compare_softmax(draw: Draw) -> Iterator[Check]:
    """From a softmax rounded to float32: the oracle differentiates at the same probabilities."""
    x, grad = normal(draw, 3, draw.integer(2, 20), scale=draw.choice((1.0, 10.0))), normal(draw, 1)
    grad = normal(draw, *x.shape)
    (want,) = differentiate(lambda a: torch.softmax(a, -1), (x,), grad)
    y = numbers(torch.softmax(wide(x), -1))
    kept = Bounded(y, UNIT * y + TINY)
    bound = kept * (ex(grad) - (kept * ex(grad)).sum(-1, keepdims=True))
    yield Check(pointwise_backward.softmax_backward(y.astype(np.float32), grad), want, bound.error, "softmax")
    (want,) = differentiate(lambda a: torch.log_softmax(a, -1), (x,), grad)
    y = numbers(torch.log_softmax(wide(x), -1))
    kept = Bounded(y, UNIT * np.abs(y))
    bound = ex(grad) - kept.exp() * ex(grad).sum(-1, keepdims=True)
    yield Check(pointwise_backward.log_softmax_backward(y.astype(np.float32), grad), want, bound.error, "log_softmax")


def _rms_bound(x: Bounded, weight: Float32Array, grad: Float32Array, eps: float) -> tuple[Bounded, Bounded]:
    columns = float(x.value.shape[1])
    square = (x * x).sum(1, keepdims=True) / columns + Bounded(np.asarray(eps), np.asarray(UNIT * eps))
    root = square.inverse_root(eps * (1 - 2 * UNIT))
    normed, weighted = x * root, ex(grad) * weight
    inner = (weighted * normed).sum(1, keepdims=True) / columns
    return root * (weighted - normed * inner), (ex(grad) * normed).sum(0)


def _layer_bound(x: Bounded, weight: Float32Array, grad: Float32Array, eps: float) -> tuple[Bounded, Bounded, Bounded]:
    columns = float(x.value.shape[1])
    centred = x - x.sum(1, keepdims=True) / columns
    variance = (centred * centred).sum(1, keepdims=True) / columns + Bounded(np.asarray(eps), np.asarray(UNIT * eps))
    root = variance.inverse_root(eps * (1 - 2 * UNIT))
    normed, weighted = centred * root, ex(grad) * weight
    mean = weighted.sum(1, keepdims=True) / columns
    inner = (weighted * normed).sum(1, keepdims=True) / columns
    return root * (weighted - mean - normed * inner), (ex(grad) * normed).sum(0), ex(grad).sum(0)


def compare_norms(draw: Draw) -> Iterator[Check]:
    """Norms alone, after an addition, and gated."""
    rows, columns, eps = draw.integer(1, 5), draw.integer(2, 40), 1e-5
    x, weight, bias = normal(draw, rows, columns, scale=3.0), normal(draw, columns), normal(draw, columns)
    grad, beside = normal(draw, rows, columns), normal(draw, rows, columns)
    rms, layer = functional.rms_norm, functional.layer_norm
    want = differentiate(lambda a, w: rms(a, (columns,), w, eps), (x, weight), grad)
    bound = _rms_bound(ex(x), weight, grad, eps)
    for i, got in enumerate(pointwise_backward.rmsnorm_backward(x, weight, grad, eps=eps)):
        yield Check(got, want[i], bound[i].error, f"rmsnorm {i}")
    total = pointwise_backward.add_rmsnorm_backward(x, weight, grad, beside, eps=eps)
    yield Check(total[0], want[0] + beside, (bound[0] + ex(beside)).error, "add_rmsnorm")
    want = differentiate(lambda a, w, b: layer(a, (columns,), w, b, eps), (x, weight, bias), grad)
    three = _layer_bound(ex(x), weight, grad, eps)
    for i, got in enumerate(pointwise_backward.layernorm_backward(x, weight, grad, eps=eps)):
        yield Check(got, want[i], three[i].error, f"layernorm {i}")
    summed = pointwise_backward.add_layernorm_backward(x, weight, grad, beside, eps=eps)
    yield Check(summed[0], want[0] + beside, (three[0] + ex(beside)).error, "add_layernorm")
    gate = normal(draw, rows, columns)
    want = differentiate(lambda a, g, w: rms(a * functional.silu(g), (columns,), w, eps), (x, gate, weight), grad)
    opened = ex(gate).through(silu, SILU_SLOPE)
    to_product, to_weight = _rms_bound(ex(x) * opened, weight, grad, eps)
    slope = ex(gate).through(lambda v: sigmoid(v) * (1 + v * (1 - sigmoid(v))), SLOPE_LIMITS["silu"])
    most = (to_product * opened, to_product * ex(x) * slope, to_weight)
    for i, got in enumerate(pointwise_backward.gated_rmsnorm_backward(x, gate, weight, grad, eps=eps)):
        yield Check(got, want[i], most[i].error, f"gated_rmsnorm {i}")


def compare_experts(draw: Draw) -> Iterator[Check]:
    """All five gradients against every token through every chosen expert."""
    count, experts, hidden, inner = draw.integer(1, 8), draw.integer(2, 4), draw.integer(1, 5), draw.integer(1, 5)
    x, grad = normal(draw, count, hidden), normal(draw, count, hidden)
    stacks = [normal(draw, experts, *s) for s in ((hidden, inner), (hidden, inner), (inner, hidden))]
    routing = moe.route(normal(draw, count, experts), 2, order="topk_softmax")
    chosen = torch.from_numpy(routing.experts)

    def run(a: torch.Tensor, w: torch.Tensor, g: torch.Tensor, u: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        dense = torch.zeros(count, experts, dtype=torch.float64).scatter(1, chosen, w)
        middle = functional.silu(torch.einsum("th,ehi->tei", a, g)) * torch.einsum("th,ehi->tei", a, u)
        return torch.einsum("tei,eih,te->th", middle, d, dense)

    want = differentiate(run, (x, routing.weights, *stacks), grad)
    got = backward.grouped_experts_backward(x, routing, stacks[0], stacks[1], stacks[2], grad)
    bound = _experts_bound(x, routing, stacks, grad)
    for name, most, oracle in zip(("x", "weights", "w_gate", "w_up", "w_down"), bound, want, strict=True):
        yield Check(getattr(got, name), oracle, most, name)
    upstream = normal(draw, count, 2)
    logits = normal(draw, count, experts)
    (want_logits,) = differentiate(lambda a: torch.softmax(a.gather(1, chosen), -1), (logits,), upstream)
    kept = numbers(torch.softmax(wide(logits).gather(1, chosen), -1))
    routed = moe.Routing(routing.experts, kept.astype(np.float32))
    share = Bounded(kept, UNIT * kept)
    inside = share * (ex(upstream) - (share * ex(upstream)).sum(-1, keepdims=True))
    most_logits = np.zeros(logits.shape)
    np.put_along_axis(most_logits, routing.experts, inside.error, 1)
    yield Check(backward.router_backward(logits, routed, upstream), want_logits, most_logits, "router")


def _experts_bound(
    x: Float32Array, routing: moe.Routing, stacks: list[Float32Array], grad: Float32Array
) -> list[Float64Array]:
    out = [np.zeros(a.shape) for a in (x, routing.weights, *stacks)]
    for e in range(stacks[0].shape[0]):
        token, slot = np.nonzero(routing.experts == e)
        if not token.size:
            continue
        gate, up, down = (ex(s[e]) for s in stacks)
        rows, upstream = ex(x[token]), ex(grad[token])
        opened, raised = rows @ gate, rows @ up
        active = opened.through(silu, SILU_SLOPE)
        slope = opened.through(lambda v: sigmoid(v) * (1 + v * (1 - sigmoid(v))), SLOPE_LIMITS["silu"])
        middle = active * raised
        out[1][token, slot] = ((middle @ down) * upstream).sum(-1).error
        weighted = upstream * ex(routing.weights[token, slot][:, None])
        inner = weighted @ down.mT
        to_opened, to_raised = inner * raised * slope, inner * active
        out[2][e], out[3][e] = (rows.mT @ to_opened).error, (rows.mT @ to_raised).error
        out[4][e] = (middle.mT @ weighted).error
        part = (to_opened @ gate.mT) + (to_raised @ up.mT)
        np.add.at(out[0], token, part.error + gamma(3) * part.high)
    return out


def _names(*kinds: str) -> tuple[str, ...]:
    return tuple(f"pointwise_backward.BACKWARD/{kind}" for kind in kinds)


def compare_step(draw: Draw) -> Iterator[Check]:
    """Sums of rows and microbatches, and clipping by the norm of all gradients."""
    m, n = draw.integer(1, 300), draw.integer(1, 9)
    grad, more = normal(draw, m, n), normal(draw, m, n)
    large = np.abs(grad).astype(np.float64)
    want = differentiate(lambda b: b.expand(m, n), [np.zeros(n)], grad)
    yield Check(gradients.bias_gradient(grad), want[0], gamma(m + 2) * large.sum(axis=0) + m * TINY, "bias")
    both = grad.astype(np.float64) + more.astype(np.float64)
    yield Check(gradients.gradient_sum(grad, more), both, gamma(1) * np.abs(both) + TINY, "sum")
    limit = draw.choice((0.1, 1e6))
    leaves = [torch.zeros(m, n, dtype=torch.float64) for _ in range(2)]
    for leaf, own in zip(leaves, (grad, more), strict=True):
        leaf.grad = wide(own)
    torch.nn.utils.clip_grad_norm_(leaves, limit)
    clipped, _ = gradients.gradient_clip([grad, more], limit)
    for leaf, got in zip(leaves, clipped, strict=True):
        assert leaf.grad is not None
        held = numbers(leaf.grad)
        yield Check(got, held, gamma(8) * np.abs(held) + TINY, "clipped")


CASES = (
    Case(
        "gradients of a step",
        ("gradients.bias_gradient", "gradients.gradient_sum", "gradients.gradient_clip"),
        compare_step,
    ),
    Case("linear, backward", ("backward.linear_backward",), compare_linear),
    Case("embedding, backward", ("backward.embedding_backward",), compare_embedding),
    Case("conv2d, backward", ("backward.conv2d_backward",), compare_conv2d),
    Case("attention, backward", ("attention_backward.attention_backward",), compare_attention),
    Case(
        "activations, backward", _names(*ACTIVATIONS, "silu_mul", "gelu_mul", "relu_mul"), compare_activations,
        (activation_ends,),
    ),
    Case(
        "element-wise, backward",
        _names("add", "mul", "copy", "scale", "dropout", "rope", "div", "exp", "bias", "sum"), compare_simple,
    ),
    Case("softmax, backward", _names("softmax", "log_softmax"), compare_softmax),
    Case(
        "norms, backward", _names("layernorm", "rmsnorm", "add_layernorm", "add_rmsnorm", "gated_rmsnorm"),
        compare_norms,
    ),
    Case(
        "experts and router, backward", ("backward.grouped_experts_backward", "backward.router_backward"),
        compare_experts,
    ),
)  # fmt: skip

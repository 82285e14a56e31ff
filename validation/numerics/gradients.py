"""Comparisons of backward models with PyTorch's automatic differentiation in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch.nn import functional

from effsim.models import attention as forward_attention
from effsim.models import attention_backward, backward, moe, pointwise, pointwise_backward, scan_backward

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
    stack,
)
from .case import Case, Check, Draw, Float32Array, normal, positive, tokens, values
from .convolutions import _causal, fft_bound
from .products import numbers, wide
from .rows import ACTIVATIONS
from .sequence import delta_oracle, selective_oracle, ssd_oracle

ex = Bounded.exact


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


def _selective(u: torch.Tensor, dt: torch.Tensor, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    return selective_oracle(u[0], dt[0], a, b[0], c[0])


def compare_selective(draw: Draw) -> Iterator[Check]:
    """Forward recomputed, then the transposed recurrence, with errors carried through both."""
    length, channels, state = draw.integer(1, 10), draw.integer(1, 3), draw.integer(1, 4)
    u, dt, a = normal(draw, 1, length, channels), positive(draw, 1, length, channels), -positive(draw, channels, state)
    b, c, grad = normal(draw, 1, length, state), normal(draw, 1, length, state), normal(draw, 1, length, channels)
    want = differentiate(_selective, (u, dt, a, b, c), grad)
    got = scan_backward.selective_scan_backward(u, dt, a, b, c, grad)
    bound = _selective_bound(ex(u[0]), ex(dt[0]), ex(a), ex(b[0]), ex(c[0]), ex(grad[0]))
    for i, name in enumerate(("u", "delta", "a", "b", "c")):
        yield Check(getattr(got, name), want[i], bound[i].error.reshape(want[i].shape), name)


def _selective_bound(u: Bounded, dt: Bounded, a: Bounded, b: Bounded, c: Bounded, grad: Bounded) -> list[Bounded]:
    length = u.value.shape[0]
    states, decays = [ex(np.zeros(a.value.shape))], []
    for t in range(length):
        decays.append(dt[t][:, None].times(a).exp())
        states.append(decays[t] * states[t] + (dt[t] * u[t])[:, None] * b[t])
    carried, to_a = states[0], states[0]
    rows: list[list[Bounded]] = [[], [], [], []]
    for t in range(length - 1, -1, -1):
        rows[3].append((grad[t][:, None] * states[t + 1]).sum(0))
        carried = carried + grad[t][:, None] * c[t]
        faded = carried * states[t] * decays[t]
        through = (carried * b[t]).sum(1)
        rows[0].append(through * dt[t])
        rows[1].append((faded * a).sum(1) + through * u[t])
        rows[2].append((carried * (dt[t] * u[t])[:, None]).sum(0))
        to_a = to_a + faded * dt[t][:, None]
        carried = carried * decays[t]
    back = [stack(part[::-1]) for part in rows]
    return [back[0], back[1], to_a, back[2], back[3]]


def compare_ssd(draw: Draw) -> Iterator[Check]:
    """Gradients of an SSD scan with grouped B and C; a bound of the longest chain times magnitudes."""
    length, groups, share, dim, state = (
        draw.integer(1, 8),
        draw.integer(1, 2),
        draw.integer(1, 2),
        3,
        draw.integer(1, 4),
    )
    heads = groups * share
    x, dt, a = normal(draw, 1, length, heads, dim), positive(draw, 1, length, heads), -positive(draw, heads)
    b, c = normal(draw, 1, length, groups, state), normal(draw, 1, length, groups, state)
    grad = normal(draw, 1, length, heads, dim)

    def run(*v: torch.Tensor) -> torch.Tensor:
        wide_b, wide_c = (y[0].repeat_interleave(share, 1) for y in v[3:])
        return ssd_oracle(v[0][0], v[1][0], v[2], wide_b, wide_c)

    want = differentiate(run, (x, dt, a, b, c), grad)
    got = scan_backward.ssd_backward(x, dt, a, b, c, grad)
    sizes = [np.abs(y).astype(np.float64) for y in (x, dt, a, b, c, grad)]
    bound = _ssd_bound(sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], share)
    relative = gamma(6 * length + dim * state + share * heads + 24)
    for name, oracle, large in zip(("x", "dt", "a", "b", "c"), want, bound, strict=True):
        yield Check(getattr(got, name), oracle, relative * large + 1e3 * TINY, name)


def _ssd_bound(
    x: Float64Array, dt: Float64Array, a: Float64Array, b: Float64Array, c: Float64Array, grad: Float64Array, share: int
) -> list[Float64Array]:
    """Every gradient as a sum of magnitudes: the reverse sweep with nothing that cancels."""
    b, c = np.repeat(b, share, 2)[0], np.repeat(c, share, 2)[0]
    x, dt, grad = x[0], dt[0], grad[0]
    length = len(x)
    decay = np.exp(-dt * a)
    states = [np.zeros((*x.shape[1:], b.shape[2]))]
    for t in range(length):
        states.append(decay[t][:, None, None] * states[t] + (dt[t][:, None] * x[t])[..., None] * b[t][:, None])
    carried, to_a = np.zeros_like(states[0]), np.zeros_like(a)
    out = [np.zeros(v.shape) for v in (x, dt, b, c)]
    for t in range(length - 1, -1, -1):
        out[3][t] = np.einsum("hp,hpn->hn", grad[t], states[t + 1])
        carried = carried + grad[t][..., None] * c[t][:, None]
        faded = np.sum(carried * states[t], (1, 2)) * decay[t]
        through = np.sum(carried * b[t][:, None], 2)
        out[0][t], out[1][t] = through * dt[t][:, None], faded * a + np.sum(through * x[t], 1)
        to_a += faded * dt[t]
        out[2][t] = np.einsum("hpn,hp->hn", carried, dt[t][:, None] * x[t])
        carried = carried * decay[t][:, None, None]
    fold = (length, b.shape[1] // share, share, b.shape[2])
    return [out[0][None], out[1][None], to_a, out[2].reshape(fold).sum(2)[None], out[3].reshape(fold).sum(2)[None]]


def compare_delta(draw: Draw) -> Iterator[Check]:
    """Gradients of the gated delta rule, head by head."""
    length, dim, value_dim = draw.integer(1, 8), draw.integer(1, 4), draw.integer(1, 4)
    q, k, v = (normal(draw, 1, length, 1, d) for d in (dim, dim, value_dim))
    k = (k / np.linalg.norm(k, axis=-1, keepdims=True)).astype(np.float32)
    g, beta = -positive(draw, 1, length, 1), positive(draw, 1, length, 1)
    grad = normal(draw, 1, length, 1, value_dim)

    def run(*x: torch.Tensor) -> torch.Tensor:
        return delta_oracle(*(y[0, :, 0] for y in x))

    want = differentiate(run, (q, k, v, g, beta), grad)
    got = scan_backward.gated_delta_backward(q, k, v, g, beta, grad)
    bound = _delta_bound(*(ex(y[0, :, 0]) for y in (q, k, v, g, beta, grad)))
    for i, name in enumerate(("q", "k", "v", "g", "beta")):
        yield Check(getattr(got, name), want[i], bound[i].error.reshape(want[i].shape), name)


def _delta_bound(q: Bounded, k: Bounded, v: Bounded, g: Bounded, beta: Bounded, grad: Bounded) -> list[Bounded]:
    length, dim = k.value.shape
    scale = Bounded(np.asarray(1.0 / math.sqrt(dim)), np.asarray(UNIT / math.sqrt(dim)))
    states, faded, errors = [ex(np.zeros((dim, v.value.shape[1])))], [], []
    for t in range(length):
        faded.append(g[t].exp() * states[t])
        errors.append(v[t] - (faded[t] * k[t][:, None]).sum(0))
        states.append(faded[t] + k[t][:, None] * (beta[t] * errors[t]))
    carried = states[0]
    rows: list[list[Bounded]] = [[] for _ in range(5)]
    for t in range(length - 1, -1, -1):
        scaled = scale * grad[t]
        rows[0].append((states[t + 1] * scaled).sum(1))
        carried = carried + q[t][:, None] * scaled
        write = (carried * k[t][:, None]).sum(0)
        to_v = beta[t] * write
        rows[4].append((write * errors[t]).sum(0))
        rows[2].append(to_v)
        rows[1].append((carried * (beta[t] * errors[t])).sum(1) - (faded[t] * to_v).sum(1))
        carried = carried - k[t][:, None] * to_v
        rows[3].append((carried * faded[t]).sum((0, 1)))
        carried = g[t].exp() * carried
    return [stack(part[::-1]) for part in rows]


def compare_convolutions(draw: Draw) -> Iterator[Check]:
    """Short and long causal convolutions."""
    length, channels, width = draw.integer(1, 16), draw.integer(1, 3), draw.integer(1, 5)
    x, weight, grad = (
        normal(draw, 2, length, channels),
        normal(draw, channels, width),
        normal(draw, 2, length, channels),
    )

    def short(a: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return _causal(a, w.flip(-1)) + b

    bias = normal(draw, channels)
    want = differentiate(short, (x, weight, bias), grad)
    large = differentiate(short, (np.abs(x), np.abs(weight), bias), np.abs(grad))
    got = scan_backward.causal_conv1d_backward(x, weight, grad)
    for i, name in enumerate(("input", "taps", "bias")):
        yield Check(got[i], want[i], gamma(2 * length + width) * large[i] + 4 * length * TINY, name)
    taps = normal(draw, channels, draw.integer(1, length))
    want = differentiate(_causal, (x, taps), grad)
    to_x, to_taps = scan_backward.long_conv_backward(x, taps, grad)
    yield Check(to_x, want[0], fft_bound(wide(grad), wide(taps)), "long, input")
    parts = [fft_bound(wide(grad)[i : i + 1], wide(x)[i].T)[0, 0] for i in range(2)]
    bound = (parts[0] + parts[1] + 2 * UNIT * np.abs(want[1]).max())[:, None]
    yield Check(to_taps, want[1], np.broadcast_to(bound, taps.shape), "long, taps")


def _names(*kinds: str) -> tuple[str, ...]:
    return tuple(f"pointwise_backward.BACKWARD/{kind}" for kind in kinds)


CASES = (
    Case("linear, backward", ("backward.linear_backward",), compare_linear),
    Case("embedding, backward", ("backward.embedding_backward",), compare_embedding),
    Case("conv2d, backward", ("backward.conv2d_backward",), compare_conv2d),
    Case("attention, backward", ("attention_backward.attention_backward",), compare_attention),
    Case(
        "activations, backward", _names(*ACTIVATIONS, "silu_mul", "gelu_mul", "relu_mul"), compare_activations,
        (activation_ends,),
    ),
    Case("element-wise, backward", _names("add", "mul", "copy", "scale", "dropout", "rope"), compare_simple),
    Case("softmax, backward", _names("softmax", "log_softmax"), compare_softmax),
    Case(
        "norms, backward", _names("layernorm", "rmsnorm", "add_layernorm", "add_rmsnorm", "gated_rmsnorm"),
        compare_norms,
    ),
    Case(
        "experts and router, backward", ("backward.grouped_experts_backward", "backward.router_backward"),
        compare_experts,
    ),
    Case("selective scan, backward", ("scan_backward.selective_scan_backward",), compare_selective),
    Case("SSD scan, backward", ("scan_backward.ssd_backward",), compare_ssd),
    Case("gated delta rule, backward", ("scan_backward.gated_delta_backward",), compare_delta),
    Case(
        "causal convolutions, backward",
        ("scan_backward.causal_conv1d_backward", "scan_backward.long_conv_backward"), compare_convolutions,
    ),
)  # fmt: skip

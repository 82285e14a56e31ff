"""Comparisons of row-wise operators: activations, norms, softmax, rotary embedding, token choice."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.nn import functional

from effsim.models import activation, norm, pointwise, rope, sampling

from .bounds import SILU_SLOPE, TINY, UNIT, Bounded, Float64Array, silu
from .case import Case, Check, Draw, Float32Array, normal, values
from .products import numbers, wide

ONCE = UNIT * (1.0 + 2.0**-20)
"""One rounding to float32 of a number that double arithmetic has nearly right."""

ACTIVATIONS: dict[str, tuple[Callable[..., Float32Array], Callable[[torch.Tensor], torch.Tensor]]] = {
    "sigmoid": (activation.sigmoid, torch.sigmoid),
    "silu": (activation.silu, functional.silu),
    "gelu": (activation.gelu, lambda x: 0.5 * x * torch.erfc(-x / math.sqrt(2.0))),
    "gelu_tanh": (pointwise.gelu_tanh, lambda x: functional.gelu(x, approximate="tanh")),
    "relu": (pointwise.relu, functional.relu),
    "relu2": (activation.relu2, lambda x: functional.relu(x).square()),
    "softplus": (pointwise.softplus, lambda x: torch.logaddexp(x, torch.zeros_like(x))),
}


def compare_activations(draw: Draw) -> Iterator[Check]:
    """Evaluated in double and rounded once; GELU's tails cancel in double, at 2**-50 of the argument."""
    x = values(draw, draw.integer(1, 200)) * np.float32(draw.choice((1.0, 10.0)))
    for name, (model, oracle) in ACTIVATIONS.items():
        want = numbers(oracle(wide(x)))
        with np.errstate(under="ignore"):
            yield Check(model(x), want, ONCE * np.abs(want) + 2.0**-50 * np.minimum(np.abs(x), 40.0) + 2 * TINY, name)


def activation_ends(_: Draw) -> Iterator[Check]:
    """The ends of the range, zeros of both signs, subnormals."""
    x = np.array([3e38, -3e38, 1e30, -1e30, 1e-45, -1e-45, 0.0, -0.0, 88.8, -103.9, 1e19, -1e4], np.float32)
    for name, (model, oracle) in ACTIVATIONS.items():
        own = x[np.abs(x) < 1e18] if name == "relu2" else x
        want = numbers(oracle(wide(own)))
        yield Check(model(own), want, ONCE * np.abs(want) + 2.0**-45 + 2 * TINY, name)


def compare_gated(draw: Draw) -> Iterator[Check]:
    """An activation rounded once, then one product."""
    gate, up = normal(draw, 5, 30, scale=3.0), values(draw, 5, 30)
    pairs = (
        ("silu_mul", activation.swiglu, functional.silu), ("relu_mul", pointwise.relu_mul, functional.relu),
        ("gelu_mul", activation.geglu, ACTIVATIONS["gelu"][1]),
    )  # fmt: skip
    for name, model, oracle in pairs:
        want = numbers(oracle(wide(gate)) * wide(up))
        yield Check(model(gate, up), want, 2.01 * UNIT * np.abs(want) + 2 * TINY * (1 + np.abs(up)), name)


def compare_elementwise(draw: Draw) -> Iterator[Check]:
    """One rounding each."""
    x, y, factor = values(draw, 6, 9), values(draw, 6, 9), float(np.float32(draw.integer(1, 99) / 7))
    a, b = wide(x), wide(y)
    checks = (
        ("add", pointwise.add(x, y), a + b), ("mul", pointwise.mul(x, y), a * b), ("copy", pointwise.copy(x), a),
        ("scale", pointwise.scale(x, factor), a * factor),
    )  # fmt: skip
    for name, got, oracle in checks:
        want = numbers(oracle)
        yield Check(got, want, UNIT * np.abs(want) + TINY, name)
    # Quotients that float32 holds; its own rounding of what it does not is infinity.
    top, bottom = np.clip(x, -1e30, 1e30), np.where(np.abs(y) < 1e-6, np.float32(1), y)
    small, learned = np.clip(x, -80, 80), y[0]
    more = (
        ("div", pointwise.div(top, bottom), wide(top) / wide(bottom)),
        ("exp", pointwise.exp(small), torch.exp(wide(small))),
        ("bias", pointwise.bias(x, learned), a + wide(learned)),
    )
    for name, got, oracle in more:
        want = numbers(oracle)
        yield Check(got, want, 1.01 * UNIT * np.abs(want) + TINY, name)
    # Pairwise: nine columns are added in four rounds.
    sums = numbers(a.sum(-1))
    yield Check(pointwise.row_sum(x), sums, 4.01 * UNIT * numbers(a.abs().sum(-1)) + TINY, "sum")
    mask = (draw.generator().random((6, 9)) < 0.5).astype(np.float32)
    want = numbers(a * wide(mask) / 0.75)
    yield Check(pointwise.dropout(x, mask, 0.25), want, 2.01 * UNIT * np.abs(want) + TINY, "dropout")


def rms_bound(x: Bounded, weight: Float32Array, eps: float) -> Bounded:
    """RMSNorm: squares, their sum in any order, mean, inverse root, two products."""
    columns = x.value.shape[-1]
    square = (x * x).sum(-1, keepdims=True) / float(columns) + Bounded(np.asarray(eps), np.asarray(UNIT * eps))
    return x * square.inverse_root(eps * (1 - 2 * UNIT)) * weight


def layer_bound(x: Bounded, weight: Float32Array, bias: Float32Array, eps: float) -> Bounded:
    """LayerNorm with a second pass over the deviations."""
    columns = float(x.value.shape[-1])
    centred = x - x.sum(-1, keepdims=True) / columns
    variance = (centred * centred).sum(-1, keepdims=True) / columns + Bounded(np.asarray(eps), np.asarray(UNIT * eps))
    return centred * variance.inverse_root(eps * (1 - 2 * UNIT)) * weight + bias


def _norm_inputs(draw: Draw) -> tuple[Float32Array, Float32Array, Float32Array]:
    rows, columns = draw.integer(1, 5), draw.integer(1, 100)
    x = normal(draw, rows, columns, scale=draw.choice((1e-3, 1.0, 1e4))) + np.float32(draw.choice((0.0, 3.0)))
    return x, normal(draw, columns), normal(draw, columns)


def compare_norms(draw: Draw) -> Iterator[Check]:
    """RMSNorm and LayerNorm, alone, after an addition, and gated."""
    x, weight, bias = _norm_inputs(draw)
    residual, columns, eps = normal(draw, *x.shape), x.shape[1], draw.choice((1e-6, 1e-5))
    a, w, b, total = wide(x), wide(weight), wide(bias), wide(x) + wide(residual)
    exact, summed = Bounded.exact(x), Bounded.exact(x) + Bounded.exact(residual)
    rms, layer = functional.rms_norm, functional.layer_norm
    bound = rms_bound(exact, weight, eps).error
    yield Check(norm.rmsnorm(x, weight, eps=eps), numbers(rms(a, (columns,), w, eps)), bound, "rmsnorm")
    bound = layer_bound(exact, weight, bias, eps).error
    yield Check(norm.layernorm(x, weight, bias, eps=eps), numbers(layer(a, (columns,), w, b, eps)), bound, "layernorm")
    got, sums = pointwise.add_rmsnorm(x, residual, weight, eps=eps)
    yield Check(sums, numbers(total), summed.error, "sum")
    yield Check(got, numbers(rms(total, (columns,), w, eps)), rms_bound(summed, weight, eps).error, "add_rmsnorm")
    got, _ = pointwise.add_layernorm(x, residual, weight, bias, eps=eps)
    bound = layer_bound(summed, weight, bias, eps).error
    yield Check(got, numbers(layer(total, (columns,), w, b, eps)), bound, "add_layernorm")
    opening = Bounded.exact(residual).through(silu, SILU_SLOPE)
    got = pointwise.gated_rmsnorm(x, residual, weight, eps=eps)
    want = rms(a * functional.silu(wide(residual)), (columns,), w, eps)
    yield Check(got, numbers(want), rms_bound(exact * opening, weight, eps).error, "gate first")
    got = pointwise.gated_rmsnorm(x, residual, weight, eps=eps, gate_first=False)
    want = rms(a, (columns,), w, eps) * functional.silu(wide(residual))
    yield Check(got, numbers(want), (rms_bound(exact, weight, eps) * opening).error, "gate last")


def constant_rows(draw: Draw) -> Iterator[Check]:
    """Rows without variance: only epsilon keeps the quotient finite."""
    x = np.full((2, 33), draw.choice((0.0, 1.0, 1e-20)), np.float32)
    weight, bias = np.ones(33, np.float32), np.full(33, 0.5, np.float32)
    want = numbers(functional.layer_norm(wide(x), (33,), wide(weight), wide(bias), 1e-5))
    bound = layer_bound(Bounded.exact(x), weight, bias, 1e-5).error
    yield Check(norm.layernorm(x, weight, bias), want, bound)


def softmax_bound(x: Float32Array, *, log: bool = False) -> Float64Array:
    """Difference, exponential, sum in any order, quotient (or logarithm and difference)."""
    peak = x.max(axis=-1, keepdims=True)
    peak = np.where(np.isneginf(peak), 0.0, peak)
    shifted = Bounded.exact(np.where(np.isneginf(x), peak - 200.0, x)) - peak  # e^-200 is nothing in float32
    weights = shifted.exp()
    total = weights.sum(-1, keepdims=True)
    if log:
        return (shifted - total.log()).error
    return np.where(np.isneginf(x).all(axis=-1, keepdims=True), 0.0, (weights / total).error)


def compare_softmax(draw: Draw) -> Iterator[Check]:
    """From flat rows to rows that one element takes."""
    x = normal(draw, draw.integer(1, 5), draw.integer(1, 80), scale=draw.choice((1.0, 30.0, 1e4)))
    yield Check(sampling.softmax(x), numbers(torch.softmax(wide(x), -1)), softmax_bound(x), "softmax")
    want = numbers(torch.log_softmax(wide(x), -1))
    yield Check(pointwise.log_softmax(x), want, softmax_bound(x, log=True), "log_softmax")


def masked_softmax(draw: Draw) -> Iterator[Check]:
    """Minus infinity gets nothing; a row of nothing but that gives zeros, where PyTorch gives NaN."""
    x = normal(draw, 3, 9)
    x[0, ::2], x[2] = -np.inf, -np.inf
    want = torch.softmax(wide(x), -1).nan_to_num(0.0)
    yield Check(sampling.softmax(x), numbers(want), softmax_bound(x))


def compare_rope(draw: Draw) -> Iterator[Check]:
    """As complex numbers: two products and a sum of sines and cosines rounded once, angles of double."""
    length, heads, dim = draw.integer(1, 8), draw.integer(1, 3), 2 * draw.integer(1, 16)
    x, places = normal(draw, 2, length, heads, dim), draw.generator().integers(0, 200_000, length)
    turning = draw.choice((1.0, 0.5)) if dim % 4 == 0 else 1.0
    width = int(dim * turning)
    theta = torch.tensor(10000.0, dtype=torch.float64) ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.from_numpy(places).double()[:, None] * theta
    turn = torch.polar(torch.ones_like(angles), angles)[None, :, None]
    own = wide(x)[..., :width]
    inner = own.reshape(*own.shape[:-1], width // 2, 2)
    halves = own.reshape(*own.shape[:-1], 2, width // 2).transpose(-1, -2)
    for style, pairs in (("interleaved", inner), ("half", halves)):
        turned = torch.view_as_real(torch.view_as_complex(pairs.contiguous()) * turn)
        flat = turned.flatten(-2) if style == "interleaved" else turned.transpose(-1, -2).flatten(-2)
        want = torch.cat([flat, wide(x)[..., width:]], -1)
        length_of = numbers(torch.linalg.vector_norm(pairs, ord=1, dim=-1, keepdim=True).expand_as(pairs))
        shape = (
            length_of.reshape(flat.shape)
            if style == "interleaved"
            else np.swapaxes(length_of, -1, -2).reshape(flat.shape)
        )
        bound = np.zeros(x.shape)
        bound[..., :width] = (3.01 * UNIT + 2.0**-50 * float(angles.max())) * shape + 3 * TINY
        got = rope.rope(x, places, fraction=turning, style=style)  # type: ignore[arg-type]
        yield Check(got, numbers(want), bound, style)


def compare_filters(draw: Draw) -> Iterator[Check]:
    """Top-k and top-p keep the tokens that PyTorch's sorted probabilities keep."""
    rows, vocabulary = draw.integer(1, 4), draw.integer(2, 50)
    x, top_k = normal(draw, rows, vocabulary, scale=3.0), draw.integer(1, 9)
    kept = torch.topk(wide(x), min(top_k, vocabulary), -1)
    want = torch.full((rows, vocabulary), -torch.inf, dtype=torch.float64).scatter(-1, kept.indices, kept.values)
    yield Check(sampling.top_k_filter(x, top_k), numbers(want), 0.0, "top-k")
    top_p = draw.choice((0.3, 0.9))
    probability, order = torch.softmax(wide(x), -1).sort(-1, descending=True)
    before = probability.cumsum(-1) - probability
    # Tokens whose cumulative probability is within rounding of the threshold may fall on either side.
    close = (before - top_p).abs() < vocabulary * UNIT
    got = torch.from_numpy(sampling.top_p_filter(x, top_p)).double().gather(-1, order)
    sure = torch.where(before < top_p, wide(x).gather(-1, order), -torch.inf)
    yield Check(numbers(torch.where(close, 0.0, got)), numbers(torch.where(close, 0.0, sure)), 0.0, "top-p")


def compare_sample(draw: Draw) -> Iterator[Check]:
    """A token's share of many draws within five deviations of its probability; temperature 0 takes the largest."""
    x = normal(draw, 1, 5)
    drawn = sampling.sample(np.repeat(x, 4000, 0), seed=draw.integer(0, 10_000), temperature=0.7)
    shares = np.bincount(drawn, minlength=5) / 4000
    want = numbers(torch.softmax(wide(x)[0] / 0.7, -1))
    yield Check(shares, want, 5.0 * np.sqrt(want * (1 - want) / 4000) + 1e-3, "shares")
    yield Check(sampling.sample(x, seed=0, temperature=0.0), numbers(wide(x).argmax(-1)), 0.0, "greedy")


def _names(*kinds: str) -> tuple[str, ...]:
    return tuple(f"pointwise.FORWARD/{kind}" for kind in kinds)


CASES = (
    Case("activations", _names(*ACTIVATIONS), compare_activations, (activation_ends,)),
    Case("gated activations", _names("silu_mul", "gelu_mul", "relu_mul"), compare_gated),
    Case(
        "element-wise", _names("add", "mul", "copy", "scale", "dropout", "div", "exp", "bias", "sum"),
        compare_elementwise,
    ),
    Case(
        "norms",
        _names("layernorm", "rmsnorm", "add_layernorm", "add_rmsnorm", "gated_rmsnorm"),
        compare_norms, (constant_rows,),
    ),
    Case("softmax", ("pointwise.FORWARD/softmax", "pointwise.FORWARD/log_softmax"), compare_softmax, (masked_softmax,)),
    Case("rotary embedding", ("pointwise.FORWARD/rope",), compare_rope),
    Case("token filters", (), compare_filters),
    Case("sampling", ("sampling.sample",), compare_sample),
)  # fmt: skip

"""Comparisons of recurrences: scans, the delta rule, attention without softmax, LSTM and GRU.

PyTorch's side sums over all earlier tokens at once (decays as exponentials of differences of cumulative sums, or
products of transition matrices), never step by step. Bounds of the recurrent forms follow the recurrence; those of the
chunked forms are roundings of the longest chain times the sum of magnitudes, where decays of a chunk carry the error of
their summed logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch

from effsim.models import delta, linear_attention, recurrent, scan, ssd

from .bounds import SILU_SLOPE, TINY, UNIT, Bounded, gamma, join, sigmoid, silu, stack
from .case import Case, Check, Draw, Float32Array, normal, positive
from .products import numbers, wide


def _earlier(length: int) -> torch.Tensor:
    """(t, s): token s is not after token t."""
    return torch.ones(length, length, dtype=torch.bool).tril()


def _decay(log_decay: torch.Tensor) -> torch.Tensor:
    """``exp(sum_{r=s+1..t} g_r)`` for (length, …) log decays, as (t, s, …); 0 for s > t."""
    total = log_decay.cumsum(0)
    seen = _earlier(len(total)).reshape(len(total), len(total), *[1] * (log_decay.ndim - 1))
    return torch.where(seen, torch.exp((total[:, None] - total[None]).masked_fill(~seen, 0.0)), 0.0)


def selective_oracle(
    u: torch.Tensor, dt: torch.Tensor, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor
) -> torch.Tensor:
    """One sequence: u, dt (length, channels), a (channels, n), b, c (length, n)."""
    decay = _decay(dt[:, :, None] * a)
    return torch.einsum("tsdn,tn,sn,sd->td", decay, c, b, dt * u)


def _selective_inputs(draw: Draw) -> tuple[Float32Array, ...]:
    length, channels, state = draw.integer(1, 24), draw.integer(1, 4), draw.integer(1, 6)
    steps = positive(draw, 1, length, channels, high=draw.choice((0.1, 1.0, 8.0)))
    return (
        normal(draw, 1, length, channels), steps, -positive(draw, channels, state, high=4.0),
        normal(draw, 1, length, state), normal(draw, 1, length, state),
    )  # fmt: skip


def selective_bound(u: Float32Array, dt: Bounded, a: Float32Array, b: Float32Array, c: Float32Array) -> Bounded:
    """The recurrence, step by step: (length, channels)."""
    state = Bounded.exact(np.zeros(a.shape))
    rows = []
    for t in range(u.shape[1]):
        decay = dt[0, t][:, None].times(a).exp()
        inflow = (dt[0, t] * u[0, t])[:, None] * b[0, t]
        state = decay * state + inflow
        rows.append((state * c[0, t]).sum(-1))
    return stack(rows)


def compare_selective(draw: Draw) -> Iterator[Check]:
    """Both forms; with bias, softplus, skip and gate besides."""
    u, dt, a, b, c = _selective_inputs(draw)
    x = [wide(v) for v in (u, dt, b, c)]
    want = numbers(selective_oracle(x[0][0], x[1][0], wide(a), x[2][0], x[3][0]))
    large = numbers(selective_oracle(x[0][0].abs(), x[1][0], wide(a), x[2][0].abs(), x[3][0].abs()))
    length, state = u.shape[1], a.shape[1]
    got = scan.selective_scan(u, dt, a, b, c)
    yield Check(got.y[0], want, selective_bound(u, Bounded.exact(dt), a, b, c).error, "recurrent")
    chunked = gamma(4 * length + state + 10) * large + 50 * length * TINY
    chunk = draw.integer(1, 12)
    yield Check(scan.selective_scan(u, dt, a, b, c, chunk=chunk).y[0], want, chunked, "chunked")
    skip, gate, bias = normal(draw, u.shape[2]), normal(draw, *u.shape), normal(draw, u.shape[2])
    raw = normal(draw, *u.shape)
    soft = torch.nn.functional.softplus(wide(raw) + wide(bias), threshold=1e9)
    full = selective_oracle(x[0][0], soft[0], wide(a), x[2][0], x[3][0]) + wide(skip) * x[0][0]
    full = full * torch.nn.functional.silu(wide(gate)[0])
    steps = (Bounded.exact(raw) + bias).through(lambda v: np.logaddexp(v, 0.0), 1.0)
    bound = selective_bound(u, steps, a, b, c) + Bounded.exact(u[0]) * skip
    bound = bound * Bounded.exact(gate[0]).through(silu, SILU_SLOPE)
    got = scan.selective_scan(u, raw, a, b, c, skip=skip, gate=gate, delta_bias=bias, delta_softplus=True)
    yield Check(got.y[0], numbers(full), bound.error, "with skip and gate")


def ssd_oracle(x: torch.Tensor, dt: torch.Tensor, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """The dual form: x (length, heads, p), dt (length, heads), a (heads,), b and c (length, heads, n)."""
    scores = torch.einsum("thn,shn->tsh", c, b) * _decay(dt * a)
    return torch.einsum("tsh,sh,shp->thp", scores, dt, x)


def compare_ssd(draw: Draw) -> Iterator[Check]:
    """Both forms, and the state they leave."""
    length, groups, dim, state = draw.integer(1, 24), draw.integer(1, 2), draw.integer(1, 4), draw.integer(1, 5)
    share = draw.integer(1, 2)
    heads = groups * share
    x, dt = normal(draw, 1, length, heads, dim), positive(draw, 1, length, heads, high=draw.choice((0.1, 1.0, 8.0)))
    a, b, c = (
        -positive(draw, heads, high=3.0),
        normal(draw, 1, length, groups, state),
        normal(draw, 1, length, groups, state),
    )
    wide_b, wide_c = (wide(v)[0].repeat_interleave(share, 1) for v in (b, c))
    want = numbers(ssd_oracle(wide(x)[0], wide(dt)[0], wide(a), wide_b, wide_c))
    large = numbers(ssd_oracle(wide(x)[0].abs(), wide(dt)[0], wide(a), wide_b.abs(), wide_c.abs()))
    last = _decay(wide(dt)[0] * wide(a))[-1]
    kept = torch.einsum("sh,sh,shp,shn->hpn", last, wide(dt)[0], wide(x)[0], wide_b)
    kept_large = torch.einsum("sh,sh,shp,shn->hpn", last, wide(dt)[0], wide(x)[0].abs(), wide_b.abs())
    got = ssd.ssd_scan(x, dt, a, b, c)
    relative = gamma(3 * length + state + 8)
    yield Check(got.y[0], want, relative * large + 20 * length * TINY, "recurrent")
    yield Check(got.state[0], numbers(kept), relative * numbers(kept_large) + 20 * length * TINY, "state")
    chunk = draw.integer(1, 12)
    # Logarithms of a chunk's decays are summed in float32: their error is that of the exponent.
    most = float(np.abs(dt[0] * a).astype(np.float64).sum(0).max())
    relative = gamma(3 * length + 2 * chunk + state + 20) + math.expm1(3 * gamma(chunk + 2) * most)
    got = ssd.ssd_scan(x, dt, a, b, c, chunk=chunk)
    yield Check(got.y[0], want, relative * large + 20 * length * TINY * (1 + state), "chunked")
    yield Check(got.state[0], numbers(kept), relative * numbers(kept_large) + 20 * length * TINY, "chunked state")


def delta_oracle(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, g: torch.Tensor, beta: torch.Tensor
) -> torch.Tensor:
    """One head by products of transition matrices: ``S_t = e^g (I - beta k k^T) S_{t-1} + beta k v^T``."""
    length, dim = k.shape
    eye = torch.eye(dim, dtype=torch.float64)
    turns = torch.exp(g)[:, None, None] * (eye - beta[:, None, None] * k[:, :, None] * k[:, None])
    rows = []
    for t in range(length):
        reach, state = eye, torch.zeros(dim, v.shape[1], dtype=torch.float64)
        for s in range(t, -1, -1):
            state = state + beta[s] * (reach @ k[s])[:, None] * v[s]
            reach = reach @ turns[s]
        rows.append(state.T @ q[t])
    return torch.stack(rows) / math.sqrt(dim)


def _factor(dim: int) -> Bounded:
    scale = 1.0 / math.sqrt(dim)
    return Bounded(np.asarray(scale), np.asarray(UNIT * scale))


def delta_bound(q: Bounded, k: Bounded, v: Bounded, g: Bounded, beta: Bounded) -> Bounded:
    """The recurrence of one head, step by step."""
    state = Bounded.exact(np.zeros((k.value.shape[1], v.value.shape[1])))
    rows = []
    for t in range(k.value.shape[0]):
        state = g[t].exp() * state
        write = beta[t] * (v[t] - (state * k[t][:, None]).sum(0))
        state = state + k[t][:, None] * write
        rows.append((state * q[t][:, None]).sum(0) * _factor(k.value.shape[1]))
    return stack(rows)


def delta_chunk_bound(q: Bounded, k: Bounded, v: Bounded, g: Bounded, beta: Bounded, chunk: int) -> Bounded:
    """The chunked form of one head: summed logarithms, forward substitution, products."""
    state = Bounded.exact(np.zeros((k.value.shape[1], v.value.shape[1])))
    rows = []
    for first in range(0, k.value.shape[0], chunk):
        own = [x[first : first + chunk] for x in (q, k, v, g, beta)]
        y, state = _delta_chunk(own[0], own[1], own[2], own[3], own[4], state)
        rows.append(y)
    return join(rows, 0)


def _delta_chunk(
    q: Bounded, k: Bounded, v: Bounded, g: Bounded, beta: Bounded, state: Bounded
) -> tuple[Bounded, Bounded]:
    size = k.value.shape[0]
    total = stack([g[: i + 1].sum(0) for i in range(size)])
    lower = np.tril(np.ones((size, size)))
    gaps = (total[:, None] - total[None]).apply(lambda x: x * lower)
    decay = gaps.exp().apply(lambda x: x * lower)
    kk, qk = decay * (k @ k.mT), decay * (q @ k.mT)
    inverse = [Bounded.exact(np.eye(size)[0])]
    for i in range(1, size):
        before = stack(inverse)  # (i, size)
        row = -(beta[i] * (kk[i, :i][:, None] * before).sum(0))
        inverse.append(row + np.eye(size)[i])
    solved = stack(inverse)
    weights = solved * beta[None] * total.exp()[None]
    writes = (solved * beta[None]) @ v - (weights @ k) @ state
    y = (total.exp()[:, None] * (q @ state) + qk @ writes) * _factor(k.value.shape[1])
    left = (total[size - 1] - total).exp()[:, None] * k
    kept = total[size - 1].exp() * state
    return y, kept + (left.mT @ writes).rounded()


def compare_delta(draw: Draw) -> Iterator[Check]:
    """Recurrent and chunked, keys of unit length."""
    length, heads, dim, value_dim = draw.integer(1, 16), draw.integer(1, 2), draw.integer(1, 5), draw.integer(1, 4)
    q, k = normal(draw, 1, length, heads, dim), normal(draw, 1, length, heads, dim)
    k = (k / np.linalg.norm(k, axis=-1, keepdims=True)).astype(np.float32)
    v, beta = normal(draw, 1, length, heads, value_dim), positive(draw, 1, length, heads)
    g, chunk = -positive(draw, 1, length, heads, high=draw.choice((0.05, 1.0, 5.0))), draw.integer(1, 6)
    plain, chunked = delta.gated_delta(q, k, v, g, beta), delta.gated_delta(q, k, v, g, beta, chunk=chunk)
    for h in range(heads):
        own = [x[0, :, h] for x in (q, k, v, g, beta)]
        want = numbers(delta_oracle(*(wide(x) for x in own)))
        exact = [Bounded.exact(x) for x in own]
        bound = delta_bound(*exact)
        yield Check(plain.y[0, :, h], want, bound.error, "recurrent")
        bound = delta_chunk_bound(exact[0], exact[1], exact[2], exact[3], exact[4], chunk)
        yield Check(chunked.y[0, :, h], want, bound.error, f"chunks of {chunk}")


def linear_oracle(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, g: torch.Tensor, bonus: torch.Tensor | None = None
) -> torch.Tensor:
    """All pairs of tokens at once: q, k, g (length, heads, d), v (length, heads, e)."""
    decay = _decay(g)
    if bonus is None:
        return torch.einsum("thd,tshd,shd,she->the", q, decay, k, v)
    shifted = torch.zeros_like(decay)
    shifted[1:] = decay[:-1]  # the state before a token has not faded by the token's own decay
    here = torch.eye(len(q), dtype=torch.float64)[:, :, None, None] * bonus
    return torch.einsum("thd,tshd,shd,she->the", q, shifted + here, k, v)


def _linear_checks(
    got: dict[str, Float32Array], want: torch.Tensor, large: torch.Tensor, g: Float32Array, chunk: int
) -> Iterator[Check]:
    length, dim = g.shape[1], g.shape[3]
    most = float(np.abs(g[0].astype(np.float64)).sum(0).max())
    for name, y in got.items():
        relative = gamma(4 * length + dim + 12)
        if name != "recurrent":
            relative += math.expm1(3 * gamma(chunk + 2) * most)
        yield Check(y[0], numbers(want), relative * numbers(large) + 40 * length * dim * TINY, name)


def compare_linear(draw: Draw) -> Iterator[Check]:
    """Linear attention (normalised), retention and RWKV-6, recurrent and in chunks."""
    length, heads, dim, value_dim = draw.integer(1, 20), draw.integer(1, 2), draw.integer(1, 5), draw.integer(1, 4)
    q, k, v = (normal(draw, 1, length, heads, d) for d in (dim, dim, value_dim))
    chunk = draw.integer(1, 8)
    forms = (("recurrent", None), ("chunked", chunk), ("parallel", length))
    a, b, c = (wide(x)[0] for x in (q, k, v))
    rates = -positive(draw, heads, high=draw.choice((0.1, 3.0)))
    g = np.broadcast_to(rates[:, None], q.shape)
    want = linear_oracle(a, b, c, wide(g)[0])
    large = linear_oracle(a.abs(), b.abs(), c.abs(), wide(g)[0])
    got = {name: linear_attention.retention(q, k, v, rates, chunk=size).y for name, size in forms}
    yield from _linear_checks(got, want, large, g, max(chunk, length))
    g, bonus = -positive(draw, *q.shape, high=draw.choice((0.1, 3.0))), normal(draw, heads, dim)
    want = linear_oracle(a, b, c, wide(g)[0], wide(bonus))
    large = linear_oracle(a.abs(), b.abs(), c.abs(), wide(g)[0], wide(bonus).abs())
    got = {name: linear_attention.rwkv6(q, k, v, g, bonus, chunk=size).y for name, size in forms}
    yield from _linear_checks(got, want, large, g, max(chunk, length))
    mapped = [torch.nn.functional.elu(x) + 1 for x in (a, b)]
    weights = torch.einsum("thd,shd->tsh", *mapped).masked_fill(~_earlier(length)[..., None], 0.0)
    weights = weights / weights.sum(1, keepdim=True)
    want, large = (torch.einsum("tsh,she->the", weights, x) for x in (c, c.abs()))
    # Feature maps are positive: numerator and denominator each have the relative error of their chain.
    got = {name: linear_attention.linear_attention(q, k, v, chunk=size).y for name, size in forms}
    yield from _linear_checks(got, want, 2.5 * large, np.zeros_like(q), max(chunk, length))


def compare_wkv(draw: Draw) -> Iterator[Check]:
    """RWKV-4 as a softmax-weighted mean over all earlier tokens, keys from small to enormous."""
    length, channels = draw.integer(1, 20), draw.integer(1, 4)
    k, v = normal(draw, 1, length, channels, scale=draw.choice((1.0, 50.0))), normal(draw, 1, length, channels)
    rate, bonus = positive(draw, channels, high=2.0), normal(draw, channels)
    keys, place = wide(k)[0], torch.arange(length)[:, None]
    exponent = keys[None] - (place - 1 - place.T)[..., None] * wide(rate)
    exponent = torch.where(torch.eye(length, dtype=torch.bool)[..., None], (keys + wide(bonus))[None], exponent)
    weights = torch.softmax(exponent.masked_fill(~_earlier(length)[..., None], -torch.inf), 1)
    want, large = (numbers(torch.einsum("tsc,sc->tc", weights, x)) for x in (wide(v)[0], wide(v)[0].abs()))
    largest = np.abs(k[0]).max(0) + np.abs(bonus) + length * rate
    relative = np.expm1(2 * UNIT * (2 * length + 4) * largest.astype(np.float64)) + gamma(6 * length + 6)
    got, _ = linear_attention.wkv4(k, v, rate, bonus)
    yield Check(got[0], want, relative * large + 40 * length * TINY * (1 + np.abs(v[0]).max()))


def _weights(draw: Draw, gates: int, inputs: int, hidden: int) -> tuple[Float32Array, ...]:
    shapes = ((gates * hidden, inputs), (gates * hidden, hidden), (gates * hidden,), (gates * hidden,))
    return tuple(normal(draw, *shape, scale=0.5) for shape in shapes)


def _load(layer: torch.nn.RNNBase, weights: tuple[Float32Array, ...]) -> None:
    with torch.no_grad():
        for name, value in zip(("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"), weights, strict=True):
            getattr(layer, name).copy_(wide(value))


def _sigmoid(x: Bounded) -> Bounded:
    return x.through(sigmoid, 0.25)


def _tanh(x: Bounded) -> Bounded:
    return x.through(np.tanh, 1.0)


def compare_lstm(draw: Draw) -> Iterator[Check]:
    """Against PyTorch's layer; gates amplify at most by the slopes of their functions."""
    length, inputs, hidden = draw.integer(1, 8), draw.integer(1, 6), draw.integer(1, 6)
    x, weights = normal(draw, 2, length, inputs, scale=draw.choice((1.0, 20.0))), _weights(draw, 4, inputs, hidden)
    h0, c0 = normal(draw, 2, hidden), normal(draw, 2, hidden)
    layer = torch.nn.LSTM(inputs, hidden, batch_first=True, dtype=torch.float64)
    _load(layer, weights)
    want, (_, cell) = layer(wide(x), (wide(h0)[None], wide(c0)[None]))
    w_in, w_own, b_in, b_own = (Bounded.exact(w) for w in weights)
    h, c, rows = Bounded.exact(h0), Bounded.exact(c0), []
    for t in range(length):
        gates = (Bounded.exact(x[:, t]) @ w_in.mT + b_in) + (h @ w_own.mT + b_own)
        i, f, g, o = (gates[:, j * hidden : (j + 1) * hidden] for j in range(4))
        c = _sigmoid(f) * c + _sigmoid(i) * _tanh(g)
        h = _sigmoid(o) * _tanh(c)
        rows.append(h)
    got = recurrent.lstm(x, *weights, hidden=h0, cell=c0)
    yield Check(got.y, numbers(want), stack(rows, 1).error, "outputs")
    assert got.cell is not None
    yield Check(got.cell, numbers(cell[0]), c.error, "cell")


def compare_gru(draw: Draw) -> Iterator[Check]:
    """Against PyTorch's layer."""
    length, inputs, hidden = draw.integer(1, 8), draw.integer(1, 6), draw.integer(1, 6)
    x, weights = normal(draw, 2, length, inputs, scale=draw.choice((1.0, 20.0))), _weights(draw, 3, inputs, hidden)
    h0 = normal(draw, 2, hidden)
    layer = torch.nn.GRU(inputs, hidden, batch_first=True, dtype=torch.float64)
    _load(layer, weights)
    want, _ = layer(wide(x), wide(h0)[None])
    w_in, w_own, b_in, b_own = (Bounded.exact(w) for w in weights)
    h, rows = Bounded.exact(h0), []
    for t in range(length):
        given, own = Bounded.exact(x[:, t]) @ w_in.mT + b_in, h @ w_own.mT + b_own
        cut = [slice(j * hidden, (j + 1) * hidden) for j in range(3)]
        z = _sigmoid(given[:, cut[1]] + own[:, cut[1]])
        n = _tanh(given[:, cut[2]] + _sigmoid(given[:, cut[0]] + own[:, cut[0]]) * own[:, cut[2]])
        h = (1.0 - z) * n + z * h
        rows.append(h)
    yield Check(recurrent.gru(x, *weights, hidden=h0).y, numbers(want), stack(rows, 1).error)


def vanishing(draw: Draw) -> Iterator[Check]:
    """Decays that underflow to nothing: only the newest token counts."""
    u, c, b = normal(draw, 1, 6, 2), normal(draw, 1, 6, 3), normal(draw, 1, 6, 3)
    dt, a = np.full((1, 6, 2), 50.0, np.float32), np.full((2, 3), -50.0, np.float32)
    want = torch.einsum("tn,tn,td->td", wide(c)[0], wide(b)[0], 50.0 * wide(u)[0])
    bound = gamma(8) * numbers(torch.einsum("tn,tn,td->td", wide(c)[0].abs(), wide(b)[0].abs(), 50 * wide(u)[0].abs()))
    for chunk in (None, 4):
        yield Check(scan.selective_scan(u, dt, a, b, c, chunk=chunk).y[0], numbers(want), bound + 1e-300, str(chunk))


CASES = (
    Case("selective scan", ("scan.selective_scan",), compare_selective, (vanishing,)),
    Case("SSD scan", ("ssd.ssd_scan",), compare_ssd),
    Case("gated delta rule", ("delta.gated_delta",), compare_delta),
    Case(
        "linear attention, retention, RWKV-6",
        ("linear_attention.linear_attention", "linear_attention.retention", "linear_attention.rwkv6"),
        compare_linear,
    ),
    Case("RWKV-4", ("linear_attention.wkv4",), compare_wkv),
    Case("LSTM", ("recurrent.lstm",), compare_lstm),
    Case("GRU", ("recurrent.gru",), compare_gru),
)

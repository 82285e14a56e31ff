"""Comparisons of the gradients of scans and causal convolutions with PyTorch's automatic differentiation."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch

from effsim.models import scan_backward

from .bounds import TINY, UNIT, Bounded, Float64Array, gamma, stack
from .case import Case, Check, Draw, normal, positive
from .convolutions import causal, fft_bound
from .gradients import differentiate, ex
from .products import wide
from .sequence import delta_oracle, selective_oracle, ssd_oracle


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
        return causal(a, w.flip(-1)) + b

    bias = normal(draw, channels)
    want = differentiate(short, (x, weight, bias), grad)
    large = differentiate(short, (np.abs(x), np.abs(weight), bias), np.abs(grad))
    got = scan_backward.causal_conv1d_backward(x, weight, grad)
    for i, name in enumerate(("input", "taps", "bias")):
        yield Check(got[i], want[i], gamma(2 * length + width) * large[i] + 4 * length * TINY, name)
    taps = normal(draw, channels, draw.integer(1, length))
    want = differentiate(causal, (x, taps), grad)
    to_x, to_taps = scan_backward.long_conv_backward(x, taps, grad)
    yield Check(to_x, want[0], fft_bound(wide(grad), wide(taps)), "long, input")
    parts = [fft_bound(wide(grad)[i : i + 1], wide(x)[i].T)[0, 0] for i in range(2)]
    bound = (parts[0] + parts[1] + 2 * UNIT * np.abs(want[1]).max())[:, None]
    yield Check(to_taps, want[1], np.broadcast_to(bound, taps.shape), "long, taps")


CASES = (
    Case("selective scan, backward", ("scan_backward.selective_scan_backward",), compare_selective),
    Case("SSD scan, backward", ("scan_backward.ssd_backward",), compare_ssd),
    Case("gated delta rule, backward", ("scan_backward.gated_delta_backward",), compare_delta),
    Case(
        "causal convolutions, backward",
        ("scan_backward.causal_conv1d_backward", "scan_backward.long_conv_backward"), compare_convolutions,
    ),
)  # fmt: skip

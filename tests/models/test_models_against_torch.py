"""The functional models against PyTorch in float64: the same operation, another implementation."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from effsim.models.attention import context_attention, generation_attention  # noqa: E402
from effsim.models.conv import causal_conv1d  # noqa: E402
from effsim.models.gemm import gemm  # noqa: E402
from effsim.models.norm import layernorm, rmsnorm  # noqa: E402

EPS32 = float(np.finfo(np.float32).eps)


def _numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _close(got: np.ndarray, want: torch.Tensor, bound: np.ndarray | float) -> None:
    error = np.abs(got.astype(np.float64) - want.numpy())
    assert np.all(error <= bound), float(np.max(error - bound))


def test_gemm() -> None:
    a, b = _numbers(33, 200, seed=1), _numbers(200, 17, seed=2)
    want = torch.from_numpy(a).double() @ torch.from_numpy(b).double()
    # γ_n = n·ε/(1 − n·ε) times the sum of magnitudes bounds any order of a sum of n products.
    n = a.shape[1]
    gamma = n * EPS32 / (1 - n * EPS32)
    _close(gemm(a, b), want, gamma * (np.abs(a).astype(np.float64) @ np.abs(b)))


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (8, 2), (4, 1)])
def test_context_attention(heads: int, kv_heads: int) -> None:
    q, k, v = (_numbers(2, 37, h, 16, seed=s) for s, h in enumerate((heads, kv_heads, kv_heads)))
    want = torch.nn.functional.scaled_dot_product_attention(
        *(torch.from_numpy(x).double().transpose(1, 2) for x in (q, k, v)), is_causal=True, enable_gqa=True
    ).transpose(1, 2)
    # A softmax average is a convex combination: errors of scores (16 products) and of the sum act on |v|.
    bound = (37 + 4 * 16 * float(np.abs(q).max() * np.abs(k).max())) * EPS32 * float(np.abs(v).max())
    _close(context_attention(q, k, v, causal=True), want, bound)


def test_generation_attention_with_splits() -> None:
    q, k, v = _numbers(2, 8, 16, seed=3), _numbers(2, 100, 2, 16, seed=4), _numbers(2, 100, 2, 16, seed=5)
    want = torch.nn.functional.scaled_dot_product_attention(
        *(torch.from_numpy(x).double().transpose(1, 2) for x in (q[:, None], k, v)), enable_gqa=True
    )[:, :, 0]
    bound = (100 + 4 * 16 * float(np.abs(q).max() * np.abs(k).max())) * EPS32 * float(np.abs(v).max())
    _close(generation_attention(q, k, v, splits=3), want, bound)


def test_norms() -> None:
    x, weight, bias = _numbers(5, 96, seed=6), _numbers(96, seed=7), _numbers(96, seed=8)
    t, w, b = (torch.from_numpy(y).double() for y in (x, weight, bias))
    scale = 96 * EPS32 * (np.abs(weight) * np.abs(x).max(axis=1, keepdims=True) / x.std(axis=1, keepdims=True) + 1)
    _close(rmsnorm(x, weight, eps=1e-6), torch.nn.functional.rms_norm(t, (96,), w, 1e-6), 2 * scale)
    got = layernorm(x, weight, bias, eps=1e-5)
    _close(got, torch.nn.functional.layer_norm(t, (96,), w, b, 1e-5), 2 * scale + np.abs(bias) * EPS32)


def test_causal_conv1d() -> None:
    x, taps, bias = _numbers(2, 50, 6, seed=9), _numbers(6, 4, seed=10), _numbers(6, seed=11)
    padded = torch.nn.functional.pad(torch.from_numpy(x).double().transpose(1, 2), (3, 0))
    want = torch.nn.functional.conv1d(
        padded, torch.from_numpy(taps).double()[:, None], torch.from_numpy(bias).double(), groups=6
    ).transpose(1, 2)
    _close(
        causal_conv1d(x, taps, bias).y,
        want,
        8 * EPS32 * (4 * np.abs(x).max() * np.abs(taps).max() + np.abs(bias).max()),
    )

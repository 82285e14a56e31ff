"""Sums and clipping of gradients against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

from effsim.models.gradients import bias_gradient, gradient_clip, gradient_sum

torch = pytest.importorskip("torch")
RNG = np.random.default_rng(5)


@pytest.mark.parametrize("shape", [(1, 3), (128, 7), (300, 33)])
def test_bias_gradient(shape: tuple[int, int]) -> None:
    grad = RNG.normal(size=shape).astype(np.float32)
    x = torch.zeros(shape[0], 2)
    bias = torch.zeros(shape[1], requires_grad=True)
    torch.nn.functional.linear(x, torch.zeros(shape[1], 2), bias).backward(torch.from_numpy(grad))
    np.testing.assert_allclose(bias_gradient(grad), bias.grad.numpy(), rtol=1e-5, atol=1e-5)


def test_sums_of_microbatches() -> None:
    weight = torch.zeros(4, 3, requires_grad=True)
    sums = np.zeros((4, 3), dtype=np.float32)
    for _ in range(3):
        x = torch.from_numpy(RNG.normal(size=(5, 3)).astype(np.float32))
        (x @ weight.T).sum().backward()
        own = torch.ones(5, 4).T @ x
        sums = gradient_sum(sums, own.numpy())
    np.testing.assert_allclose(sums, weight.grad.numpy(), rtol=1e-5)
    with pytest.raises(ValueError, match="differ"):
        gradient_sum(sums, sums[:2])


@pytest.mark.parametrize("limit", [0.5, 1e6])
def test_clipping(limit: float) -> None:
    grads = [RNG.normal(size=s).astype(np.float32) for s in ((4, 3), (7,), (2, 2, 2))]
    params = [torch.zeros(g.shape, requires_grad=True) for g in grads]
    for p, g in zip(params, grads, strict=True):
        p.grad = torch.from_numpy(g.copy())
    norm = torch.nn.utils.clip_grad_norm_(params, limit)
    clipped, found = gradient_clip(grads, limit)
    assert found == pytest.approx(float(norm), rel=1e-6)
    for p, c in zip(params, clipped, strict=True):
        np.testing.assert_allclose(c, p.grad.numpy(), rtol=1e-5)


def test_only_matrices_have_rows() -> None:
    with pytest.raises(ValueError, match="matrix"):
        bias_gradient([1.0, 2.0])

"""How slow the functional models are beside PyTorch's kernels: ``python benchmarks/models.py``.

CPU seconds of one thread, float32, least of several alternating repetitions, because machines are shared. The models
keep every rounding of the hardware's order (no fused multiply-add, no reassociation), PyTorch's kernels need not; the
target is a factor of 10.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch

from effsim.models.attention import context_attention, generation_attention
from effsim.models.gemm import gemm

REPEATS = 7
TARGET = 10.0
Pair = tuple[str, Callable[[], object], Callable[[], object]]


def gemms() -> Iterator[Pair]:
    rng = np.random.default_rng(0)
    for m, n, k in ((256, 256, 256), (1024, 1024, 1024), (100, 300, 500), (16, 1024, 1024), (1, 4096, 1024)):
        a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((m, k), (k, n)))
        x, y = torch.from_numpy(a), torch.from_numpy(b)
        yield f"gemm {m} x {n} x {k}", lambda a=a, b=b: gemm(a, b), lambda x=x, y=y: x @ y  # type: ignore[misc]


def attentions() -> Iterator[Pair]:
    rng = np.random.default_rng(1)
    sdpa = torch.nn.functional.scaled_dot_product_attention
    for batch, length, heads, kv_heads, dim in ((1, 512, 4, 4, 64), (1, 1024, 8, 2, 128), (2, 777, 4, 1, 64)):
        q, k, v = (rng.standard_normal((batch, length, h, dim)).astype(np.float32) for h in (heads, kv_heads, kv_heads))
        moved = [torch.from_numpy(x).transpose(1, 2) for x in (q, k, v)]
        yield (
            f"context {batch} x {length}, {heads}/{kv_heads} heads of {dim}",
            lambda q=q, k=k, v=v: context_attention(q, k, v),  # type: ignore[misc]
            lambda m=moved: sdpa(m[0], m[1], m[2], is_causal=True, enable_gqa=True),  # type: ignore[misc]
        )
    for batch, length, heads, kv_heads, dim in ((1, 4096, 8, 8, 64), (2, 2048, 8, 2, 128), (4, 1000, 32, 32, 128)):
        q = rng.standard_normal((batch, heads, dim)).astype(np.float32)
        k, v = (rng.standard_normal((batch, length, kv_heads, dim)).astype(np.float32) for _ in range(2))
        one = torch.from_numpy(q)[:, :, None]
        moved = [torch.from_numpy(x).transpose(1, 2) for x in (k, v)]
        yield (
            f"generation {batch} x {length}, {heads}/{kv_heads} heads of {dim}",
            lambda q=q, k=k, v=v: generation_attention(q, k, v, splits=4),  # type: ignore[misc]
            lambda o=one, m=moved: sdpa(o, m[0], m[1], enable_gqa=True),  # type: ignore[misc]
        )


def seconds(function: Callable[[], object]) -> float:
    """CPU seconds of one call, from enough calls to be measurable."""
    start, calls = time.process_time(), 0
    while time.process_time() - start < 10e-3:
        function()
        calls += 1
    return (time.process_time() - start) / calls


def main() -> None:
    torch.set_num_threads(1)
    worst = 0.0
    print(f"{'':38s} {'model':>10s} {'PyTorch':>10s} {'ratio':>6s}")
    for name, model, peer in (*gemms(), *attentions()):
        model(), peer()  # compiled, and in the caches
        times = [(seconds(model), seconds(peer)) for _ in range(REPEATS)]
        own, other = (min(column) for column in zip(*times, strict=True))
        worst = max(worst, own / other)
        print(f"{name:38s} {1e3 * own:7.3f} ms {1e3 * other:7.3f} ms {own / other:6.1f}")
    print(f"worst ratio {worst:.1f}, target {TARGET:g}: {'met' if worst <= TARGET else 'missed'}")


if __name__ == "__main__":
    main()

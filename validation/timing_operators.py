"""Operators of shapes that calibration does not use: rows of effsim's kernel table, and the same in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from effsim.explore.calibrate.cpu_benchmarks import rowwise_call, torch_dtype

PRODUCTS = {
    "fp32": (
        (1, 768, 768),
        (1, 3072, 768),
        (1, 2304, 768),
        (8, 768, 3072),
        (24, 768, 768),
        (64, 2304, 768),
        (128, 3072, 768),
        (128, 768, 3072),
        (256, 1536, 640),
        (640, 640, 640),
    ),
    "bf16": ((1, 768, 768), (1, 3072, 768), (64, 768, 768), (128, 768, 1536)),
}
ROWWISE = (
    ("softmax", 1536, 128),
    ("softmax", 2364, 197),
    ("layernorm", 128, 768),
    ("layernorm", 1024, 768),
    ("rmsnorm", 128, 768),
    ("rmsnorm", 512, 1024),
    ("gelu", 128, 3072),
    ("gelu", 197, 3072),
    ("gelu_tanh", 64, 3072),
    ("silu", 256, 1536),
    ("add", 128, 768),
    ("add", 1024, 768),
    ("add", 4096, 1024),
)
ATTENTION = (
    ("context", 128, 128, True),
    ("context", 197, 197, False),
    ("context", 384, 384, True),
    ("context", 768, 768, True),
    ("generation", 1, 256, True),
    ("generation", 1, 1024, True),
)
HEADS, HEAD = 12, 64
BATCHED = ((12, 128, 128, 64), (12, 197, 64, 197), (48, 64, 64, 64), (8, 256, 256, 96))
GATHERED = (32, 128, 512)
VOCABULARY, WIDTH = 50257, 768
CONV1D = ((1, 256, 1536), (1, 384, 768))
CONV2D = ((1, 56, 64, 64, 3, 1, 1), (1, 14, 256, 256, 3, 1, 1), (1, 28, 128, 256, 1, 1, 0), (1, 224, 3, 768, 16, 16, 0))


@dataclass(frozen=True, slots=True)
class TimedOperator:
    """A row of the kernel table (``kind`` and ``cells``) and the call that does the same."""

    kind: str
    name: str
    cells: Mapping[str, Any]
    call: Callable[[], Any]


def operators(torch: Any) -> Iterator[TimedOperator]:
    """All of them."""
    yield from _products(torch)
    yield from _rowwise(torch)
    yield from _attention(torch)
    yield from _others(torch)


def _named(kind: str, cells: Mapping[str, Any], call: Callable[[], Any]) -> TimedOperator:
    label = " ".join(str(v) for v in cells.values())
    return TimedOperator(kind, f"{kind} {label}", cells, call)


def _products(torch: Any) -> Iterator[TimedOperator]:
    for dtype, shapes in PRODUCTS.items():
        to = torch_dtype(torch, dtype)
        for m, n, k in shapes:
            x, w, b = torch.randn(m, k).to(to), torch.randn(n, k).to(to), torch.randn(n).to(to)
            call = partial(torch.nn.functional.linear, x, w, b)
            yield _named("linear", {"m": m, "n": n, "k": k, "dtype": dtype, "bias": True}, call)
    for batch, m, n, k in BATCHED:
        x, y = torch.randn(batch, m, k), torch.randn(batch, k, n)
        cells = {"batch": batch, "m": m, "n": n, "k": k, "dtype": "fp32"}
        yield _named("batched_matmul", cells, partial(torch.bmm, x, y))


def _rowwise(torch: Any) -> Iterator[TimedOperator]:
    for kind, rows, cols in ROWWISE:
        call = rowwise_call(torch, kind, torch.randn(rows, cols))
        yield _named(kind, {"rows": rows, "cols": cols, "dtype": "fp32"}, call)


def _attention(torch: Any) -> Iterator[TimedOperator]:
    f = torch.nn.functional
    for phase, q_len, kv_len, causal in ATTENTION:
        q, k, v = (torch.randn(1, HEADS, n, HEAD) for n in (q_len, kv_len, kv_len))
        cells = {"phase": phase, "batch": 1, "q_len": q_len, "kv_len": kv_len, "heads": HEADS, "kv_heads": HEADS}
        cells |= {"head_dim": HEAD, "dtype": "fp32", "causal": causal}
        masked = causal and q_len > 1
        call = partial(f.scaled_dot_product_attention, q, k, v, is_causal=masked)
        yield _named("attention", cells, call)


def _others(torch: Any) -> Iterator[TimedOperator]:
    f = torch.nn.functional
    table = torch.randn(VOCABULARY, WIDTH)
    for tokens in GATHERED:
        ids = torch.randint(0, VOCABULARY, (tokens,))
        cells = {"tokens": tokens, "vocabulary": VOCABULARY, "width": WIDTH, "dtype": "fp32"}
        yield _named("embedding", cells, partial(f.embedding, ids, table))
    for batch, length, channels in CONV1D:
        x, taps = torch.randn(batch, channels, length), torch.randn(channels, 1, 4)
        cells = {"batch": batch, "length": length, "channels": channels, "kernel": 4, "dtype": "fp32"}
        yield _named("conv1d", cells, partial(f.conv1d, x, taps, None, 1, 3, 1, channels))
    for batch, side, into, out, kernel, stride, padding in CONV2D:
        x, taps = torch.randn(batch, into, side, side), torch.randn(out, into, kernel, kernel)
        cells = {"batch": batch, "height": side, "width": side, "in_channels": into, "out_channels": out}
        cells |= {"kernel": kernel, "stride": stride, "padding": padding, "groups": 1, "dtype": "fp32"}
        call = partial(f.conv2d, x, taps, None, stride, padding)
        yield _named("conv2d", cells, call)

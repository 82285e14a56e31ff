"""What is run on a CPU to measure it: operators of PyTorch in inference mode, and two loops that PyTorch has none for.

Names of benchmarks are built by the functions here and read back by :mod:`.cpu`. All run on one core unless they are
among :func:`shared`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from .machine import MachineFacts
from .timing import Benchmark

MIB = 1 << 20
GEMM_SHAPES = ((1024, 1024), (2048, 512), (512, 2048))
GEMM_ROWS = (16, 48, 96, 192)
FEW_ROWS = (1, 2, 3, 4)
NARROW_ROWS = (32, 96)
COLUMNS = 512
KINDS = (
    "add",
    "mul",
    "copy",
    "relu",
    "silu",
    "gelu",
    "gelu_tanh",
    "sigmoid",
    "exp",
    "softplus",
    "softmax",
    "layernorm",
    "rmsnorm",
)
PASSES = {"rmsnorm": 6}
"""Passes over its data of an operator that PyTorch composes of others: square, mean, offset, root, two products."""

SHORT_ROW = 16
"""Width of a row in sums of short rows (the state of a scan)."""
NEAR_PRODUCTS = ((24, 192), (64, 192), (160, 160))
"""(rows, side of the matrix) of products whose operands stay in L2."""

CHASE_STEPS = 20_000
CLOCK_STEPS = 20_000
CLOCK_OPERATIONS = 6
"""Dependent single-cycle operations of one step of the clock loop: three shifts, three exclusive ors."""

CONV1D_LENGTHS = (256, 1024)
CONV1D_CHANNELS = 512
"""Beyond L2: the library changes the layout before and after, in strides that no copy within L2 shows."""

GATHERED_ROWS = (32, 128)
GATHERED_WIDTH = 512
DEPTHWISE_SIDES = (16, 40)
DEPTHWISE_CHANNELS = 32
CONV2D_SHAPES = ((28, 64), (14, 128), (20, 96))
"""(side, channels) of 3 × 3 convolutions."""

FRESH_BYTES = 64 * MIB


def elements(facts: MachineFacts) -> tuple[int, int]:
    """Two sizes of a row-wise operator whose three fp32 tensors stay within half of L2."""
    rows = max(8, facts.caches[2] // 24 // COLUMNS)
    return rows // 4 * COLUMNS, rows * COLUMNS


def near_side(facts: MachineFacts, word: int) -> int:
    """Side of a square matrix that takes half of L2."""
    return int((facts.caches[2] / 2 / word) ** 0.5) // 64 * 64


NEAR_ROWS = (512, 1024)
"""A matrix of 2 MiB, in the last-level cache of whatever has one, read by one row."""


def far_rows(facts: MachineFacts) -> tuple[int, int]:
    """A matrix beyond every cache, read by one row."""
    return max(4096, copy_sizes(facts)[-1] // 2 // (4 * 1024)), 1024


def near_copies(facts: MachineFacts) -> list[int]:
    """Bytes read and written by copies around the size of L2."""
    return [int(facts.caches[2] * share) // 4096 * 4096 for share in (0.5, 0.75, 1.0, 1.25, 1.5)]


def copy_sizes(facts: MachineFacts) -> list[int]:
    """Bytes read and written by copies, from a few L2 to beyond every cache."""
    last, second = facts.caches[3], facts.caches[2]
    sizes = [2 * second, *(int(last * share) for share in (0.125, 0.25, 0.375, 0.5, 0.75, 1.0, 1.5)), 4 * last]
    return sorted({size // 4096 * 4096 for size in sizes if size >= 2 * second})


def linear_name(dtype: str, m: int, n: int, k: int) -> str:
    """Name of a product."""
    return f"linear {dtype} {m}x{n}x{k}"


def torch_dtype(torch: Any, dtype: str) -> Any:
    """The framework's type."""
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[dtype]


def one_core(torch: Any, facts: MachineFacts, dtypes: tuple[str, ...]) -> list[Benchmark]:
    """Everything that is measured on one core."""
    out = [*_tiny(torch), *_memory(torch, facts), *_convolutions(torch), *loops(facts)]
    for dtype in dtypes:
        out += _products(torch, facts, dtype)
        out += _rowwise(torch, facts, dtype)
    return out


def shared(torch: Any, facts: MachineFacts) -> list[Benchmark]:
    """What all cores do together."""
    small, large = copy_sizes(facts)[0], copy_sizes(facts)[-1]
    x = torch.randn(1 << 17)
    return [
        _copy(torch, small, "all cores copy "),
        _copy(torch, large, "all cores copy "),
        *_scaled(torch, large // 2, "all cores scale in place"),
        Benchmark("all cores relu", lambda: torch.relu(x)),
        Benchmark("all cores tiny add", _tiny_add(torch)),
    ]


def _tiny_add(torch: Any) -> Callable[[], object]:
    x = torch.randn(1)
    return lambda: x + x


def _tiny(torch: Any) -> Iterator[Benchmark]:
    """Operators on next to nothing: the framework's path and the library's preparation."""
    f = torch.nn.functional
    x, row, ones = torch.randn(1), torch.randn(1, 16), torch.ones(16)
    square, batch = torch.randn(16, 16), torch.randn(2, 16, 16)
    image, taps = torch.randn(1, 16, 8, 8), torch.randn(16, 16, 3, 3)
    index = torch.tensor([1])
    heads = torch.randn(1, 2, 16, 16)
    yield Benchmark("tiny add", _tiny_add(torch))
    yield Benchmark("tiny relu", lambda: torch.relu(x))
    yield Benchmark("tiny mul", lambda: row * row)
    yield Benchmark("tiny view", lambda: row[:, 1:])
    yield Benchmark("tiny transpose", lambda: row.transpose(0, 1))
    yield Benchmark("tiny linear", lambda: f.linear(row, square, ones))
    yield Benchmark("tiny batched_matmul", lambda: torch.bmm(batch, batch))
    yield Benchmark("tiny attention", lambda: f.scaled_dot_product_attention(heads, heads, heads))
    yield Benchmark("tiny embedding", lambda: f.embedding(index, square))
    yield Benchmark("tiny conv2d", lambda: f.conv2d(image, taps, None, 1, 1))


def _copy(torch: Any, size: int, prefix: str = "copy ") -> Benchmark:
    source, target = torch.ones(size // 8), torch.empty(size // 8)
    return Benchmark(f"{prefix}{size}", lambda: target.copy_(source))


def _scaled(torch: Any, size: int, name: str) -> Iterator[Benchmark]:
    x = torch.ones(size // 4)
    yield Benchmark(name, lambda: x.mul_(1.0))


def _memory(torch: Any, facts: MachineFacts) -> Iterator[Benchmark]:
    for size in (*near_copies(facts), *copy_sizes(facts)):
        yield _copy(torch, size)
    large = copy_sizes(facts)[-1]
    x = torch.ones(large // 8)
    yield Benchmark("read memory", lambda: x.sum())
    yield from _scaled(torch, large // 2, "scale in place")
    old, count = torch.empty(FRESH_BYTES // 4), FRESH_BYTES // 4
    yield Benchmark("fill old pages", lambda: old.fill_(1.0))
    yield Benchmark("fill new pages", lambda: torch.empty(count).fill_(1.0))


def _products(torch: Any, facts: MachineFacts, dtype: str) -> Iterator[Benchmark]:
    kind = torch_dtype(torch, dtype)
    word = torch.empty(0, dtype=kind).element_size()
    side = near_side(facts, word)
    shapes = [(m, n, k) for n, k in GEMM_SHAPES for m in GEMM_ROWS] if dtype == "fp32" else []
    shapes += [(m, near, near) for m, near in NEAR_PRODUCTS]
    if dtype != "fp32":
        shapes += [(m, *GEMM_SHAPES[0]) for m in NARROW_ROWS]
    shapes += [(m, side, side) for m in FEW_ROWS]
    if dtype == "fp32":
        shapes += [(1, *NEAR_ROWS), (1, *far_rows(facts))]
    weights: dict[tuple[int, int], Any] = {}
    for m, n, k in shapes:
        w = weights.setdefault((n, k), torch.randn(n, k).to(kind))
        x, b = torch.randn(m, k).to(kind), torch.randn(n).to(kind)
        yield Benchmark(linear_name(dtype, m, n, k), _linear(torch, x, w, b))


def _linear(torch: Any, x: Any, w: Any, b: Any) -> Callable[[], object]:
    return lambda: torch.nn.functional.linear(x, w, b)


def rowwise_call(torch: Any, kind: str, x: Any) -> Callable[[], object]:
    """One row-wise operator on ``x`` [rows, cols], as the framework runs it."""
    f = torch.nn.functional
    w, shape, y = torch.ones_like(x[0]), (x.shape[1],), x.clone()
    calls: dict[str, Callable[[], object]] = {
        "add": lambda: x + y,
        "mul": lambda: x * y,
        "copy": lambda: x.clone(),
        "relu": lambda: torch.relu(x),
        "silu": lambda: f.silu(x),
        "gelu": lambda: f.gelu(x),
        "gelu_tanh": lambda: f.gelu(x, approximate="tanh"),
        "sigmoid": lambda: torch.sigmoid(x),
        "exp": lambda: torch.exp(x),
        "softplus": lambda: f.softplus(x),
        "softmax": lambda: f.softmax(x, -1),
        "layernorm": lambda: f.layer_norm(x, shape, w, w),
        "rmsnorm": lambda: f.rms_norm(x, shape, w),
    }
    return calls[kind]


def _rowwise(torch: Any, facts: MachineFacts, dtype: str) -> Iterator[Benchmark]:
    kind = torch_dtype(torch, dtype)
    for size in elements(facts):
        x = torch.randn(size // COLUMNS, COLUMNS).to(kind)
        for name in KINDS:
            yield Benchmark(f"{name} {dtype} {size}", rowwise_call(torch, name, x))
        if dtype != "fp32":
            yield Benchmark(f"widen {dtype} {size}", _widen(x))
        else:
            yield Benchmark(f"short_sum {dtype} {size}", _short_sums(x))


def _short_sums(x: Any) -> Callable[[], object]:
    short = x.view(-1, SHORT_ROW)
    return lambda: short.sum(-1)


def _widen(x: Any) -> Callable[[], object]:
    return lambda: x.float()


def _convolutions(torch: Any) -> Iterator[Benchmark]:
    f = torch.nn.functional
    table = torch.randn(256, GATHERED_WIDTH)
    for rows in GATHERED_ROWS:
        ids = torch.randint(0, 256, (rows,))
        yield Benchmark(f"embedding {rows}", partial(f.embedding, ids, table))
    for length in CONV1D_LENGTHS:
        x, taps = torch.randn(1, CONV1D_CHANNELS, length), torch.randn(CONV1D_CHANNELS, 1, 4)
        yield Benchmark(f"conv1d {length}", partial(f.conv1d, x, taps, None, 1, 3, 1, CONV1D_CHANNELS))
    for side in DEPTHWISE_SIDES:
        x, taps = torch.randn(1, DEPTHWISE_CHANNELS, side, side), torch.randn(DEPTHWISE_CHANNELS, 1, 3, 3)
        call = partial(f.conv2d, x, taps, None, 1, 1, 1, DEPTHWISE_CHANNELS)
        yield Benchmark(f"depthwise_conv2d {side}", call)
    for side, channels in CONV2D_SHAPES:
        x, taps = torch.randn(1, channels, side, side), torch.randn(channels, channels, 3, 3)
        yield Benchmark(f"conv2d {side} {channels}", partial(f.conv2d, x, taps, None, 1, 1))


def loops(facts: MachineFacts) -> Iterator[Benchmark]:
    """Clock and latencies: chains in which every step waits for the one before."""
    import numba
    import numpy as np

    @numba.njit
    def spin(steps: int, x: Any) -> Any:
        for _ in range(steps):
            x ^= x << np.uint64(13)
            x ^= x >> np.uint64(7)
            x ^= x << np.uint64(17)
        return x

    @numba.njit
    def chase(steps: int, lines: Any, at: int) -> int:
        for _ in range(steps):
            at = lines[at, 0]
        return at

    start = np.uint64(88172645463325252)
    spin(1, start)
    yield Benchmark("clock", lambda: spin(CLOCK_STEPS, start))
    for name, size in (("L3", 4 * facts.caches[2]), ("memory", 2 * facts.caches[3])):
        lines = _ring(np, max(1024, size // 64))
        yield Benchmark(f"chase {name}", _walk(chase, lines))


def _walk(chase: Any, lines: Any) -> Callable[[], object]:
    """Calls that go on where the one before stopped, so that none finds its lines in a nearer cache."""
    at = [int(chase(1, lines, 0))]

    def call() -> None:
        at[0] = chase(CHASE_STEPS, lines, at[0])

    return call


def _ring(np: Any, count: int) -> Any:
    """A random cycle through *count* cache lines of 64 bytes: entry 0 of each names the next."""
    order = np.random.default_rng(0).permutation(count)
    lines = np.zeros((count, 8), dtype=np.int64)
    lines[order, 0] = np.roll(order, -1)
    return lines

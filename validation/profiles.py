"""Tables of microsoft/vidur (kernel times of Llama-2 on A100) and of PrincetonUniversity/LLMCompass (eager kernels).

Vidur sums the device time of the kernels of one module (its clock ticks in microseconds, hence :data:`SHORTEST_S`).
Its all-reduce ``size`` is in bytes: read as 2-byte elements, the bus bandwidth of 8 devices would exceed the link
(348 of 300 GB/s); below :data:`SMALLEST_ALL_REDUCE` its rows are host time (10 to 60 us in no order).

LLMCompass timed one operator at a time from Python, synchronised: launch is in each row. Softmax is the framework's
own kernel; ``layernorm`` and ``gelu`` (with tanh) are functions that torch.compile compiled. ``matmul`` rows are m, k,
n and milliseconds. ``softmax``, ``layernorm`` (rows, columns) and ``gelu`` (elements) give a rate; that it counts 1e9
*elements* a second follows from both ends: 4096 × 32 softmax elements at 9.996 are 13.1 us, close to the launch
overhead that the authors state (12 us), and 537 million GELU elements at 390.3, two bytes in and two out, are
1.56 TB/s, 77 % of the memory's peak; read as bytes the small end would take 52 us and the large end
use a fifth of the memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .engines import MS
from .tables import Measured, number, read_csv

SHORTEST_S = 8e-6
SMALLEST_ALL_REDUCE = 1 << 20
MICRO_BATCH = 1024
GIGA = 1e9
COMPILED = ("layernorm", "gelu")
LLMCOMPASS_HARDWARE = {"A100": "gpu_a100", "MI210": "gpu_mi210"}


def vidur_layers(path: Path, hardware: str) -> Iterator[Measured]:
    """Linear layers and row-wise kernels of one model at several tensor-parallel degrees."""
    for row in read_csv(path):
        get = {
            name: int(number(row, name, path))
            for name in (
                "num_tokens",
                "num_tensor_parallel_workers",
                "n_embd",
                "n_expanded_embd",
                "n_head",
                "n_kv_head",
            )
        }
        m, ways, hidden, inner = (
            get["num_tokens"],
            get["num_tensor_parallel_workers"],
            get["n_embd"],
            get["n_expanded_embd"] // get["num_tensor_parallel_workers"],
        )
        head = hidden // get["n_head"]
        rotated = (get["n_head"] + get["n_kv_head"]) * head // ways
        qkv = (get["n_head"] + 2 * get["n_kv_head"]) * head // ways
        linears = {
            "attn_pre_proj": (qkv, hidden),
            "attn_post_proj": (hidden, hidden // ways),
            "mlp_up_proj": (2 * inner, hidden),
            "mlp_down_proj": (hidden, inner),
        }
        pointwise = {
            "input_layernorm": ("rmsnorm", hidden),
            "mlp_act": ("silu_mul", inner),
            "add": ("add", hidden),
            "attn_rope": ("rope", rotated),
        }
        for name, (n, k) in linears.items():
            cells = {"m": m, "n": n, "k": k, "dtype": "fp16"}
            yield from _timed(
                row, name, path, Measured(hardware, path.name, "linear fp16 (vidur)", "linear", cells, 0.0)
            )
        for name, (kind, cols) in pointwise.items():
            cells = {"rows": m, "cols": cols, "dtype": "fp16"}
            yield from _timed(row, name, path, Measured(hardware, path.name, f"{kind} (vidur)", kind, cells, 0.0))


def _timed(row: dict[str, str], name: str, path: Path, blank: Measured) -> Iterator[Measured]:
    seconds = number(row, f"time_stats.{name}.median", path) * MS
    if seconds >= SHORTEST_S:
        yield Measured(blank.hardware, blank.source, blank.label, blank.kind, blank.cells, seconds, blank.launch)


def vidur_all_reduce(path: Path, hardware: str) -> Iterator[Measured]:
    """All-reduces inside one node."""
    for row in read_csv(path):
        devices, size = int(number(row, "num_workers", path)), int(number(row, "size", path))
        if devices != int(number(row, "devices_per_node", path)) or size < SMALLEST_ALL_REDUCE:
            continue
        cells = {"op": "all_reduce", "bytes": size, "devices": devices, "runtime": "nccl"}
        seconds = number(row, "time_stats.all_reduce.median", path) * MS
        yield Measured(hardware, path.name, "collective all_reduce (vidur)", "collective", cells, seconds)


def llmcompass(folder: Path) -> Iterator[Measured]:
    """Matrix products, softmax, layer norm and GELU, launched from Python one at a time."""
    for name, hardware in LLMCOMPASS_HARDWARE.items():
        path = folder / f"matmul_{name}.csv"
        if path.is_file():
            yield from _matmuls(path, hardware)
        for kind in ("softmax", "layernorm", "gelu"):
            path = folder / f"{kind}_{name}.csv"
            if path.is_file():
                yield from _rates(path, kind, hardware)


def _matmuls(path: Path, hardware: str) -> Iterator[Measured]:
    for row in read_csv(path, ("m", "k", "n", "time", "rate")):
        cells = {name: int(number(row, name, path)) for name in ("m", "n", "k")} | {"dtype": "fp16"}
        seconds = number({"time": str(row["time"]).strip().removesuffix("ms")}, "time", path) * MS
        yield Measured(hardware, path.name, "linear fp16, eager (LLMCompass)", "linear", cells, seconds, "eager")


def _rates(path: Path, kind: str, hardware: str) -> Iterator[Measured]:
    flat = kind == "gelu"
    for row in read_csv(path, ("elements", "rate") if flat else ("rows", "cols", "rate")):
        if flat:
            elements = int(number(row, "elements", path))
            shape = {"rows": elements // MICRO_BATCH, "cols": MICRO_BATCH}
        else:
            shape = {name: int(number(row, name, path)) for name in ("rows", "cols")}
            elements = shape["rows"] * shape["cols"]
        seconds = elements / (number(row, "rate", path) * GIGA)
        compiled = kind in COMPILED
        cells = {**shape, "dtype": "fp16", "compiled": compiled}
        label = f"{kind}, {'compiled' if compiled else 'eager'} (LLMCompass)"
        yield Measured(hardware, path.name, label, kind, cells, seconds, "eager")

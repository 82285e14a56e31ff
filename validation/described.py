"""GPUs that are only described: what their files predict, held against datasheets and the few published figures.

No kernel table stands behind these files. What can be checked without one: peak rates are those of the datasheet,
common shapes land where every GPU that was measured lands relative to its own limits, and the best matrix products that
others publish are nearly reached and hardly surpassed. ``python -m effsim.validation.described [GPU…]`` prints it all.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from effsim.devices.gpu.device import GpuDevice
from effsim.devices.registry import load_machine, timed_briefly
from effsim.graph.table import from_row
from effsim.readings.launch import single_launch_s
from effsim.spec.catalogue import names

DATASHEET: Mapping[str, Mapping[str, float]] = {
    "gpu_a10": {"tf32": 62.5, "fp16": 125, "bf16": 125, "int8": 250, "memory": 600},
    "gpu_a40": {"tf32": 74.8, "fp16": 149.7, "bf16": 149.7, "int8": 299.3, "memory": 696},
    "gpu_b200": {"tf32": 1125, "fp16": 2250, "bf16": 2250, "fp8": 4500, "int8": 4500, "fp4": 9000, "memory": 8000},
    "gpu_gb200": {"tf32": 1250, "fp16": 2500, "bf16": 2500, "fp8": 5000, "int8": 5000, "fp4": 10000, "memory": 8000},
    "gpu_l4": {"tf32": 60, "fp16": 121, "bf16": 121, "fp8": 242.5, "int8": 242.5, "memory": 300},
    "gpu_l40s": {"tf32": 183, "fp16": 362, "bf16": 362, "fp8": 733, "int8": 733, "int4": 733, "memory": 864},
    "gpu_mi210": {"fp16": 181, "bf16": 181, "int8": 181, "memory": 1638},
    "gpu_mi250x": {"fp16": 191.5, "bf16": 191.5, "int8": 191.5, "memory": 1638},
    "gpu_mi300x": {"fp32": 163.4, "fp16": 1307, "bf16": 1307, "fp8": 2615, "int8": 2615, "memory": 5300},
    "gpu_p100": {"fp16": 21.2, "fp32": 10.6, "memory": 732},
    "gpu_rtx_3090": {"tf32": 35.6, "fp16": 71, "bf16": 71, "int8": 284, "memory": 936},
    "gpu_rtx_4090": {"tf32": 82.6, "fp16": 165.2, "bf16": 165.2, "fp8": 330.3, "int8": 660.6, "memory": 1008},
    "gpu_rtx_pro_6000": {"fp32": 120, "bf16": 480, "fp8": 960, "fp4": 1920, "memory": 1597},
    "gpu_t4": {"fp16": 65, "int8": 130, "int4": 260, "memory": 320},
    "gpu_v100": {"fp16": 125, "memory": 900},
}
"""Dense peaks in TFLOP/s with fp32 accumulation, GB/s of memory. MI250X: one of its two dies."""

BEST_PRODUCTS: tuple[tuple[str, int, int, int, str, float], ...] = (
    ("gpu_b200", 1792, 16128, 3072, "bf16", 1745.0),
    ("gpu_b200", 15360, 4096, 3072, "fp8", 3432.5),
    ("gpu_gb200", 4096, 9728, 2048, "bf16", 1822.0),
    ("gpu_gb200", 19456, 5120, 1536, "fp8", 3615.6),
    ("gpu_mi300x", 10240, 15360, 8192, "bf16", 668.4),
)
"""m, n, k, type, TFLOP/s: the fastest of thousands of shapes (stas00/ml-engineering@744d01e1, compute/accelerator)."""

WIDE, TALL = 28672, 8192
"""A feed-forward matrix of a 70-billion-parameter model: 470 MB in 16 bits, beyond every cache."""
CUBE = 8192


@dataclass(frozen=True, slots=True)
class Finding:
    """A predicted number and the range in which it is plausible."""

    hardware: str
    what: str
    value: float
    low: float
    high: float

    @property
    def plausible(self) -> bool:
        """Within the range."""
        return self.low <= self.value <= self.high


@lru_cache(maxsize=64)
def gpu(name: str) -> GpuDevice:
    """A GPU of the catalogue."""
    device = timed_briefly(load_machine(name)).device
    assert isinstance(device, GpuDevice)
    return device


def seconds(device: GpuDevice, kind: str, cells: Mapping[str, object]) -> float:
    """Predicted time of a row, replayed from a graph."""
    lowered = device.lower(from_row(kind, cells))
    return lowered.analytic_s + single_launch_s(device.launch, "graph", lowered)


def wide_type(device: GpuDevice) -> str:
    """Its 16-bit type of the matrix unit."""
    return "bf16" if "bf16" in device.spec.matrix else "fp16"


def reachable_flops(device: GpuDevice, dtype: str) -> float:
    """Peak, or what its held power allows where that is less."""
    peak, power, energy = device.peak_matrix_flops(dtype), device.spec.power, device.spec.energy.matrix
    joules = (energy or {}).get(dtype)  # type: ignore[call-overload]
    if power.held is None or power.idle is None or joules is None:
        return peak
    return min(peak, (float(power.held) - float(power.idle)) / float(joules))


def findings(name: str) -> Iterator[Finding]:
    """Everything that is checked of one GPU."""
    device = gpu(name)
    yield from _datasheet(name, device)
    yield from _products(name, device)
    yield from _attention(name, device)
    for best, m, n, k, dtype, published in BEST_PRODUCTS:
        if best == name:
            cells = {"m": m, "n": n, "k": k, "dtype": dtype, "activation_dtype": dtype}
            reached = 2.0 * m * n * k / seconds(device, "linear", cells) / 1e12
            yield Finding(name, f"{dtype} {m}x{n}x{k}: share of the best published", reached / published, 0.8, 1.1)


def _datasheet(name: str, device: GpuDevice) -> Iterator[Finding]:
    for dtype, rate in DATASHEET.get(name, {}).items():
        value = device.memory_peak_bytes_per_s / 1e9 if dtype == "memory" else device.peak_matrix_flops(dtype) / 1e12
        yield Finding(name, f"{dtype}: share of the datasheet's peak", value / rate, 0.98, 1.02)


def _products(name: str, device: GpuDevice) -> Iterator[Finding]:
    dtype, p = wide_type(device), device.parameters
    flops = 2.0 * CUBE**3 / seconds(device, "linear", {"m": CUBE, "n": CUBE, "k": CUBE, "dtype": dtype})
    yield Finding(
        name, "large product: share of what peak and power allow", flops / reachable_flops(device, dtype), 0.55, 1.0
    )
    weights = 2.0 * WIDE * TALL
    for n, k in ((WIDE, TALL), (TALL, WIDE)):
        rate = weights / seconds(device, "linear", {"m": 1, "n": n, "k": k, "dtype": dtype})
        yield Finding(name, f"one token, {n}x{k}: share of the stream", rate / p.memory_bytes_per_s, 0.72, 0.98)
    small = seconds(device, "linear", {"m": 128, "n": 128, "k": 128, "dtype": dtype})
    yield Finding(name, "smallest product: launch cadences", small / float(device.spec.launch.graph), 1.0, 6.0)
    for rows in (1, 64):
        ratio = [seconds(device, "linear", {"m": rows, "n": 4096, "k": 4096 * f, "dtype": dtype}) for f in (1, 2)]
        yield Finding(name, f"{rows} tokens, twice the depth: times", ratio[1] / ratio[0], 1.0, 4.0)


def _attention(name: str, device: GpuDevice) -> Iterator[Finding]:
    dtype, p = wide_type(device), device.parameters
    heads = {"heads": 32, "kv_heads": 8, "head_dim": 128, "dtype": dtype}
    batch, keys = 64, 8192
    cache = batch * keys * 8 * 128 * 2 * 2.0
    one = {"phase": "generation", "batch": batch, "q_len": 1, "kv_len": keys, **heads}
    rate = cache / seconds(device, "attention", one)
    yield Finding(name, "generation, long caches: share of the stream", rate / p.memory_bytes_per_s, 0.6, 1.0)
    many = {"phase": "context", "batch": 4, "q_len": 4096, "kv_len": 4096, **heads}
    flops = 4.0 * 4 * 32 * 128 * 4096.0**2 / 2.0 / seconds(device, "attention", many)
    yield Finding(name, "prompts of 4096: share of the peak", flops / device.peak_matrix_flops(dtype), 0.25, 0.85)
    floor = seconds(device, "attention", one | {"batch": 1, "kv_len": 16})
    yield Finding(
        name, "one query of one short sequence: launch cadences", floor / float(device.spec.launch.graph), 2.0, 14.0
    )


def main(arguments: Sequence[str]) -> int:
    """Print findings; 1 if one is implausible."""
    wrong = 0
    for name in arguments or [n for n in names("hardware") if n.startswith("gpu_")]:
        for f in findings(name):
            wrong += not f.plausible
            mark = " " if f.plausible else "!"
            print(f"{mark} {f.hardware:18s} {f.what:62s} {f.value:7.3f}  [{f.low:g}, {f.high:g}]")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

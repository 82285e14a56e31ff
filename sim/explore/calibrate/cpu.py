"""From measured times to the fields of a ``kind: cpu`` file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import DataError
from . import cpu_benchmarks as b
from .allocator import KEPT_BYTES, keep_memory
from .machine import MachineFacts
from .timing import CAREFUL, HostTimer, NoisyMachineError, Samples, Sampling, Timer, measure

DTYPES = ("fp32", "bf16", "fp16")
QUICK_DTYPES = ("fp32", "bf16")
SAME_PASS = 1.35
"""A product of few rows that takes no more than this share of the time of one row is one pass over its operand."""


SCHEDULER_S = 0.5e-3
"""Parallel regions start and end in microseconds; waits of this order are time slices of a scheduler."""


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Undisturbed times by benchmark: ``one`` on one core, ``all`` on all threads (empty for one thread)."""

    one: Mapping[str, float]
    all: Mapping[str, float]
    threads: int
    dtypes: tuple[str, ...]
    samples: tuple[Samples, ...] = ()


def take_times(
    facts: MachineFacts,
    threads: int,
    dtypes: tuple[str, ...] = DTYPES,
    sampling: Sampling = CAREFUL,
    timer: Timer | None = None,
    progress: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> CpuTimes:
    """Run the benchmarks with PyTorch; *timer* replaces the clocks (tests).

    Raises:
        DataError: PyTorch is not installed.
        NoisyMachineError: times do not repeat.
    """
    torch = load_torch()
    keep_memory()
    before = torch.get_num_threads()
    try:
        with torch.inference_mode():
            torch.set_num_threads(1)
            one = measure(b.one_core(torch, facts, dtypes), timer or HostTimer.of_threads(1), sampling, progress)
            together: Mapping[str, Samples] = {}
            if threads > 1:
                torch.set_num_threads(threads)
                together = measure(b.shared(torch, facts), timer or HostTimer(), sampling, progress)
    finally:
        torch.set_num_threads(before)
    small, large = ({name: s.steady for name, s in found.items()} for found in (one, together))
    return CpuTimes(small, large, threads, dtypes, (*one.values(), *together.values()))


def load_torch() -> Any:
    """PyTorch.

    Raises:
        DataError: it is not installed; says how to.
    """
    try:
        import torch
    except ImportError:
        raise DataError('measuring this machine needs PyTorch; pip install "effsim[torch]"') from None
    return torch


def cpu_document(facts: MachineFacts, times: CpuTimes, when: str) -> dict[str, Any]:
    """The complete hardware file as nested mappings; *when* enters the sources."""
    return _Document(facts, times, when).build()


class _Document:
    """Derives the fields in the order in which they need each other."""

    def __init__(self, facts: MachineFacts, times: CpuTimes, when: str) -> None:
        self.facts, self.times, self.one = facts, times, times.one
        self.how = f"effsim calibrate, {when}, PyTorch in inference mode"
        self.dispatch = self.one["tiny add"]
        steps = b.CLOCK_STEPS * b.CLOCK_OPERATIONS
        self.clock = steps / self.one["clock"]
        self.sizes = b.copy_sizes(facts)
        self.near_sizes = [*b.near_copies(facts), self.sizes[0]]
        self.l2 = self._copied(self.near_sizes[0])
        self.l3 = max(self._copied(size) for size in self.sizes[:2])
        self.l2_capacity = self._capacity(self.near_sizes, self.l2, self.l3, facts.caches[2] / 4, facts.caches[2])
        self.stream = min(max(self._copied(self.sizes[-1]), self._read()), self.l3)

    # --- rates of memory ------------------------------------------------------------------------------------------

    def _copied(self, size: int) -> float:
        return size / max(1e-9, self.one[f"copy {size}"] - self.dispatch)

    def _read(self) -> float:
        return self.sizes[-1] / 2 / self.one["read memory"]

    def _capacity(self, sizes: Sequence[int], rate: float, beyond: float, low: float, high: float) -> float:
        """Working set up to which copies run at the rate of a cache: nearest to what the copies took.

        ``t(W) = W·(f/rate + (1 − f)/beyond)`` with the share ``f = 2 − W/C`` (between 0 and 1) that is kept.
        """

        def distance(capacity: float) -> float:
            total = 0.0
            for size in sizes:
                kept = min(1.0, max(0.0, 2.0 - size / capacity))
                seconds = size * (kept / rate + (1.0 - kept) / beyond)
                total += math.log(seconds * self._copied(size) / size) ** 2
            return total

        grid = [low * (high / low) ** (i / 80) for i in range(81)] if high > low else [high]
        return min(grid, key=distance)

    # --- products -------------------------------------------------------------------------------------------------

    def _net(self, name: str, kind: str) -> float:
        return max(1e-9, self.one[name] - max(self.dispatch, self.one.get(f"tiny {kind}", 0.0)))

    def _far(self, size: float) -> float:
        return 1.0 - min(1.0, max(0.0, 2.0 - size / self.l2_capacity))

    def product(self, dtype: str) -> tuple[float, float, float]:
        """(FLOP/s, seconds to pack an element, seconds more for one beyond L2): least squares on relative times.

        ``t = 2·m·n·k / rate + pack·(n·k + m·k) + far·(elements beyond L2) + their bytes / L3 rate``; none is negative.
        """
        import numpy as np
        from scipy.optimize import nnls

        word, rows, right = (4 if dtype == "fp32" else 2), [], []
        for name in self.one:
            if not name.startswith(f"linear {dtype} "):
                continue
            m, n, k = (int(x) for x in name.split()[2].split("x"))
            if m in b.FEW_ROWS:
                continue
            seconds = self._net(name, "linear")
            far = n * k * self._far((n * k + m * (n + k)) * word) + m * k * self._far(m * (n + k) * word)
            left = max(0.2 * seconds, seconds - far * word / self.l3)
            rows.append((2.0 * m * n * k / left, (n * k + m * k) / left, far / left))
            right.append(1.0)
        scale = np.array(rows).max(axis=0)
        scale[scale == 0.0] = 1.0
        (per_flop, pack, far), _ = nnls(np.array(rows) / scale, np.array(right))
        return float(scale[0] / per_flop), float(pack / scale[1]), float(far / scale[2])

    def direct(self, dtype: str) -> tuple[float, int]:
        """(seconds an element of the second operand without panels, rows that one pass serves)."""
        side = b.near_side(self.facts, 4 if dtype == "fp32" else 2)
        times = {m: self._net(b.linear_name(dtype, m, side, side), "linear") for m in b.FEW_ROWS}
        rows = max(m for m in b.FEW_ROWS if times[m] <= SAME_PASS * times[1])
        return min(times[m] for m in b.FEW_ROWS if m <= rows) / side**2, rows

    def matrix_rate(self, shape: tuple[int, int]) -> float:
        """Bytes a second of an fp32 matrix that one row is multiplied with."""
        n, k = shape
        return 4.0 * n * k / self._net(b.linear_name("fp32", 1, n, k), "linear")

    # --- row-wise operators ---------------------------------------------------------------------------------------

    def slope(self, names: tuple[str, str], sizes: tuple[float, float], passes: int = 1) -> tuple[float, float]:
        """(seconds an element, seconds beyond dispatch before the first) from two sizes."""
        small, large = (self.one[name] for name in names)
        each = max((large - small) / (sizes[1] - sizes[0]), 0.05 * large / sizes[1])
        return each, max(0.0, small - each * sizes[0] - passes * self.dispatch)

    def rowwise(self, dtype: str, kind: str) -> tuple[float, float]:
        """The same for a row-wise operator."""
        small, large = b.elements(self.facts)
        return self.slope((f"{kind} {dtype} {small}", f"{kind} {dtype} {large}"), (small, large), b.PASSES.get(kind, 1))

    def build(self) -> dict[str, Any]:
        """All fields."""
        rate, _, _ = self.product("fp32")
        lanes = self.facts.vector_bits // 32
        pipes = 2 if rate > lanes * 2 * self.clock * 0.98 else 1
        per_cycle = 2.0 * lanes * pipes * (1 if self.facts.multiply_add else 0.5)
        efficiency = min(1.0, rate / (per_cycle * self.clock))
        low, high = self.facts.caches[2], self.facts.caches[3]
        capacity = self._capacity(self.sizes, self.l3, self.stream, low, high)
        return {
            "kind": "cpu",
            "name": f"{self.facts.model}, {self.times.threads} of {self.facts.cores} cores"[:120],
            "description": f"this machine as measured: {self.how}"[:400],
            "vendor": self.facts.vendor,
            "provenance": {"kind": "measured", "source": self.how},
            "sockets": 1,
            "threads": self.times.threads,
            "clock": {"boost": self._q(self.clock, "Hz", "chain of dependent shifts and exclusive ors, one a cycle")},
            "core": self._core(),
            **self._arithmetic(per_cycle, efficiency),
            "l3": self._l3(capacity),
            "memory": self._memory(),
            "launch": self._launch(),
            "power": {"limit": _given("250 W", "unverified", "not measured; no result but energy depends on it")},
            "kernels": self._kernels(efficiency, per_cycle),
        }

    def _core(self) -> dict[str, Any]:
        l1, size = self.facts.vector_bits // 8 * 2, f"{self.facts.caches[1]} B"
        first = _given(size, "datasheet", "/sys: first-level data cache")
        if 1 in self.facts.guessed:
            first = _given(size, "assumed", "the kernel does not describe the caches")

        return {
            "count": max(self.facts.cores, self.times.threads),
            "l1": {
                "capacity": first,
                "bandwidth": _given(
                    f"{l1} B/cycle", "assumed", "two vector loads a cycle; the framework cannot show it"
                ),
            },
            "l2": {
                "capacity": self._q(self.l2_capacity, "B", "working set up to which copies keep the cache's rate"),
                "bandwidth": self._q(self.l2 / self.clock, "B/cycle", "copy within half of L2, read and written bytes"),
            },
            "stream": self._q(self.stream, "B/s", "copy and sum beyond every cache, one core, read and written bytes"),
            "l3_stream": self._q(self.l3, "B/s", "copies of two and more times L2, one core"),
        }

    def _arithmetic(self, per_cycle: float, efficiency: float) -> dict[str, Any]:
        vector: dict[str, Any] = {
            "fp64": _given(f"{per_cycle / 2:g} FLOP/cycle", "assumed", "half of fp32"),
            "fp32": _given(
                f"{per_cycle:g} FLOP/cycle",
                "assumed",
                f"{self.facts.vector_bits}-bit registers; as many pipes as the measured products need",
            ),
        }
        matrix: dict[str, Any] = {}
        for dtype in self.times.dtypes:
            if dtype == "fp32":
                continue
            rate, _, _ = self.product(dtype)
            text = "products of the framework in this type, divided by 'efficiency'"
            target = matrix if f"amx_{dtype}" in self.facts.flags else vector
            target[dtype] = self._q(rate / (self.clock * efficiency), "FLOP/cycle", text)
        return {"vector": vector, **({"matrix": matrix} if matrix else {})}

    def _l3(self, capacity: float) -> dict[str, Any]:
        own, text = self.l3, "one core's rate; one thread was measured"
        if self.times.threads > 1:
            size = self.sizes[0]
            seconds = self.times.all[f"all cores copy {size}"] - self.times.all["all cores tiny add"]
            own, text = max(own, size / max(1e-9, seconds)), "copy of two times one L2 by all threads"
        steps = b.CHASE_STEPS
        return {
            "capacity": self._q(capacity, "B", "working set up to which copies of one core keep the cache's rate"),
            "slices": 1,
            "bandwidth": self._q(own, "B/s", text),
            "latency": self._q(self.one["chase L3"] / steps, "s", "pointer chase over four times L2"),
            "inclusive": True,
        }

    def _memory(self) -> dict[str, Any]:
        large, half = self.sizes[-1], self.sizes[-1] // 2
        reached, peak = self.stream, 2.0 * half / self.one["scale in place"]
        text = "one thread was measured"
        if self.times.threads > 1:
            reached = max(reached, large / self.times.all[f"all cores copy {large}"])
            peak = max(peak, 2.0 * half / self.times.all["all cores scale in place"])
            text = "all threads"
        peak = max(peak, reached)
        latency = self.one["chase memory"] / b.CHASE_STEPS - self.one["chase L3"] / b.CHASE_STEPS
        extra = (self.one["fill new pages"] - self.one["fill old pages"]) / b.FRESH_BYTES
        out: dict[str, Any] = {
            "kind": "ddr5" if any("amx" in flag for flag in self.facts.flags) else "ddr4",
            "capacity": _given(f"{self.facts.memory_bytes} B", "datasheet", "/proc/meminfo"),
            "bandwidth": self._q(peak, "B/s", f"scaling in place, read and written bytes: most that was seen, {text}"),
            "latency": self._q(max(1e-9, latency), "s", "pointer chase over two times L3, less that within L3"),
            "stream_fraction": self._q(reached / peak, "", f"copy beyond every cache, {text}"),
            "reserved": _given("1 GiB", "assumed", "operating system and the framework itself"),
        }
        if extra > 0.0:
            above = _given(f"{KEPT_BYTES} B", "datasheet", "glibc: largest M_MMAP_THRESHOLD it adapts to")
            text = "fill of 64 MiB just allocated against the same fill of an old buffer"
            out["fresh"] = {"above": above, "bandwidth": self._q(1.0 / extra, "B/s", text)}
        return out

    def _launch(self) -> dict[str, Any]:
        view = max(self.one["tiny view"], self.one["tiny transpose"])
        return {
            "graph": _given("0.5 us", "assumed", "call of one compiled operator; eager operators were measured"),
            "dispatch": self._q(max(0.0, self.dispatch - 0.5e-6), "s", "addition of two numbers, less 'graph'"),
            "view": self._q(view, "s", "slice or transpose of a small tensor, the slower"),
        }

    def _kernels(self, efficiency: float, per_cycle: float) -> dict[str, Any]:
        clock = self.clock
        direct = {dtype: self.direct(dtype) for dtype in self.times.dtypes}
        packs = {dtype: self.product(dtype)[1:] for dtype in self.times.dtypes}
        rates, setup = self._rates()
        small, large = b.elements(self.facts)
        narrow = next((d for d in self.times.dtypes if d != "fp32"), "")
        widen = 0.0
        if narrow:
            widen, _ = self.slope((f"widen {narrow} {small}", f"widen {narrow} {large}"), (small, large))
        operations = per_cycle * clock / 2.0
        exponential = self.rowwise("fp32", "exp")[0]
        text = "products with few to many rows, least squares; includes the clock's drop under wide vectors"
        panels = "the same, what does not grow with the arithmetic"
        return {
            "fork_join": self._fork(),
            "special": self._q(exponential * operations, "cycles", "exponential within L2"),
            "dequantise": self._q(widen * operations, "cycles", f"{narrow or 'no type'} to fp32 within L2"),
            "elementwise": rates,
            "passes": {
                k: _given(str(n), "datasheet", "operators that PyTorch composes it of") for k, n in b.PASSES.items()
            },
            "setup": setup,
            "convolution": {
                "reorder": self._q(
                    self._reorder(efficiency * per_cycle * clock) * clock,
                    "cycles",
                    "3 × 3 convolutions, what arithmetic at the rate of products leaves",
                )
            },
            "gemm": {
                "rows": _given("6", "assumed", "register tile of common libraries"),
                "columns": _given("16", "assumed", "one vector"),
                "efficiency": self._q(efficiency, "", text),
                "pack": {d: self._q(near * clock, "cycles", panels) for d, (near, _) in packs.items()},
                "pack_far": {d: self._q(far * clock, "cycles", panels) for d, (_, far) in packs.items()},
                "direct": {
                    d: self._q(v * clock, "cycles", "one row against a matrix in L2") for d, (v, _) in direct.items()
                },
                "direct_stream": self._q(
                    self.matrix_rate(b.far_rows(self.facts)), "B/s", "one row, matrix beyond every cache"
                ),
                "direct_l3_stream": self._q(self.matrix_rate(b.NEAR_ROWS), "B/s", "one row, matrix of twice L2 or so"),
                "direct_rows": _given(str(direct["fp32"][1]), "measured", self.how),
            },
            "attention": {
                "rows": _given("32", "datasheet", _FLASH),
                "blocks": [
                    {"length": 192, "rows": _given("64", "datasheet", _FLASH)},
                    {"length": 768, "rows": _given("256", "datasheet", _FLASH)},
                ],
                "keys": _given("512", "datasheet", _FLASH),
                "split_keys": False,
            },
            "collective": {
                name: _given(value, "assumed", "not measured; one machine")
                for name, value in (
                    ("setup", "20 us"),
                    ("step", "10 us"),
                    ("efficiency", "0.85"),
                    ("one_shot_limit", "0 B"),
                )
            },
        }

    def _rates(self) -> tuple[dict[str, Any], dict[str, Any]]:
        rates: dict[str, Any] = {}
        setup: dict[str, float] = {}
        for dtype in self.times.dtypes:
            rates[dtype] = {}
            for kind in b.KINDS:
                each, before = self.rowwise(dtype, kind)
                rates[dtype][kind] = self._q(each * self.clock, "cycles", "two sizes within L2")
                if dtype == "fp32" and before > 0.1 * self.dispatch:
                    setup[kind] = before
        small, large = b.elements(self.facts)
        each, _ = self.slope((f"short_sum fp32 {small}", f"short_sum fp32 {large}"), (small, large))
        rates["fp32"]["short_sum"] = self._q(each * self.clock, "cycles", f"sums of {b.SHORT_ROW} numbers, an input")
        lengths = [float(n * b.CONV1D_CHANNELS) for n in b.CONV1D_LENGTHS]
        names = [f"conv1d {n}" for n in b.CONV1D_LENGTHS]
        each, setup["conv1d"] = self.slope((names[0], names[1]), (lengths[0], lengths[1]))
        rates["fp32"]["conv1d"] = self._q(each * self.clock, "cycles", "depthwise, four taps, two lengths beyond L2")
        gathered = [float(n * b.GATHERED_WIDTH) for n in b.GATHERED_ROWS]
        names = [f"embedding {n}" for n in b.GATHERED_ROWS]
        each, _ = self.slope((names[0], names[1]), (gathered[0], gathered[1]))
        rates["fp32"]["embedding"] = self._q(each * self.clock, "cycles", "rows of 512 numbers from a table in L2")
        areas = [float(side * side * b.DEPTHWISE_CHANNELS) for side in b.DEPTHWISE_SIDES]
        names = [f"depthwise_conv2d {side}" for side in b.DEPTHWISE_SIDES]
        each, _ = self.slope((names[0], names[1]), (areas[0], areas[1]))
        rates["fp32"]["depthwise_conv2d"] = self._q(each * self.clock, "cycles", "3 × 3 taps, two sizes")
        for kind in ("linear", "batched_matmul", "attention", "embedding", "conv2d"):
            setup[kind] = max(0.0, self.one[f"tiny {kind}"] - self.dispatch)
        text = "smallest operator, less dispatch"
        return rates, {kind: self._q(value, "s", text) for kind, value in sorted(setup.items())}

    def _reorder(self, rate: float) -> float:
        """Seconds an element, median over the shapes."""
        found = []
        for side, channels in b.CONV2D_SHAPES:
            flops = 2.0 * side * side * channels * channels * 9
            tensors = 2.0 * side * side * channels + 9.0 * channels * channels
            found.append(max(0.0, self._net(f"conv2d {side} {channels}", "conv2d") - flops / rate) / tensors)
        return sorted(found)[len(found) // 2]

    def _fork(self) -> dict[str, str]:
        if self.times.threads == 1:
            return _given("0 s", "assumed", "one thread")
        each = self.rowwise("fp32", "relu")[0]
        share = (1 << 17) * each / self.times.threads
        extra = self.times.all["all cores relu"] - self.times.all["all cores tiny add"] - share
        if extra > SCHEDULER_S:
            raise NoisyMachineError(
                f"the {self.times.threads} threads wait {1e3 * extra:.3g} ms for each other in 'all cores relu': other "
                f"work holds the cores; stop it, or use fewer threads (--threads 1 counts CPU time)"
            )
        return self._q(max(0.0, extra), "s", "relu by all threads, less its share of one core's work")

    def _q(self, value: float, unit: str, text: str) -> dict[str, str]:
        return _given(f"{value:.5g} {unit}".strip(), "measured", f"{self.how}: {text}")


_FLASH = "pytorch aten/src/ATen/native/cpu/FlashAttentionKernel.cpp: split sizes by query length"


def _given(value: str, kind: str, source: str) -> dict[str, str]:
    return {"value": value, "kind": kind, "source": source}

"""A GPU measured through PyTorch: what a file of its generation leaves open, and what this one really does.

Kernel shapes, caches of an SM and instruction rates come from the bundled file of the generation (by compute
capability); sizes from the driver; clock held, bandwidths, latencies of launches from events and captured graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import DataError, UnsupportedError
from .timing import CAREFUL, Benchmark, HostTimer, Samples, Sampling, Timer, measure

MIB = 1 << 20

GENERATIONS = {
    (6, 0): "pascal",
    (7, 0): "volta",
    (7, 5): "turing",
    (8, 0): "ampere",
    (8, 6): "ampere_consumer",
    (8, 9): "ada",
    (9, 0): "hopper",
    (10, 0): "blackwell",
    (12, 0): "blackwell_consumer",
}
"""Compute capability to the bundled file of the generation."""

GRAPH_KERNELS = 200
"""Kernels of one captured graph."""


@dataclass(frozen=True, slots=True)
class CudaFacts:
    """What the driver says."""

    name: str
    capability: tuple[int, int]
    sms: int
    memory_bytes: int
    l2_bytes: int
    clock_hz: float = 0.0


@dataclass(frozen=True, slots=True)
class CudaTimes:
    """Undisturbed seconds by benchmark."""

    facts: CudaFacts
    times: Mapping[str, float]
    samples: tuple[Samples, ...] = ()


class EventTimer:
    """Times on the device between two events, so that the host's share does not count as long as it keeps ahead."""

    name = "CUDA events"

    def __init__(self, torch: Any) -> None:
        self._torch = torch

    def seconds(self, call: Callable[[], object], calls: int) -> float:
        """See :class:`effsim.explore.calibrate.timing.Timer`."""
        cuda = self._torch.cuda
        start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
        cuda.synchronize()
        start.record()
        for _ in range(calls):
            call()
        end.record()
        cuda.synchronize()
        return float(start.elapsed_time(end)) * 1e-3


class SynchronisedTimer:
    """Wall time with the device idle before and after."""

    name = "wall time around a synchronised device"

    def __init__(self, torch: Any) -> None:
        self._torch, self._host = torch, HostTimer()

    def seconds(self, call: Callable[[], object], calls: int) -> float:
        """See :class:`effsim.explore.calibrate.timing.Timer`."""
        self._torch.cuda.synchronize()
        return self._host.seconds(call, calls)


def captured(torch: Any, call: Callable[[], object], kernels: int) -> Callable[[], object]:
    """A replay of *kernels* calls in one captured graph."""
    cuda = torch.cuda
    side = cuda.Stream()
    with cuda.stream(side):
        for _ in range(3):
            call()
    cuda.current_stream().wait_stream(side)
    graph = cuda.CUDAGraph()
    with cuda.graph(graph):
        for _ in range(kernels):
            call()
    replay: Callable[[], object] = graph.replay
    return replay


def take_cuda_times(
    sampling: Sampling = CAREFUL,
    timer: Timer | None = None,
    progress: Callable[[Sequence[int]], Iterable[int]] = iter,
    torch: Any = None,
) -> CudaTimes:
    """Run the benchmarks on the current CUDA device.

    Raises:
        DataError: PyTorch or a CUDA device is missing.
        UnsupportedError: no bundled generation has this compute capability.
        NoisyMachineError: times do not repeat.
    """
    if torch is None:
        from .cpu import load_torch

        torch = load_torch()
    if not torch.cuda.is_available():
        raise DataError("PyTorch finds no CUDA device here; --device cpu measures the processor")
    facts = cuda_facts(torch)
    generation_of(facts)
    with torch.inference_mode():
        on_device = measure(device_benchmarks(torch, facts), timer or EventTimer(torch), sampling, progress)
        on_host = measure(host_benchmarks(torch), timer or SynchronisedTimer(torch), sampling, progress)
    both = {**on_device, **on_host}
    return CudaTimes(facts, {name: s.steady for name, s in both.items()}, tuple(both.values()))


def cuda_facts(torch: Any) -> CudaFacts:
    """Of the current device."""
    p = torch.cuda.get_device_properties(torch.cuda.current_device())
    l2 = int(getattr(p, "L2_cache_size", 0)) or 4 * MIB
    capability, clock = (int(p.major), int(p.minor)), float(getattr(p, "clock_rate", 0)) * 1e3
    return CudaFacts(str(p.name), capability, int(p.multi_processor_count), int(p.total_memory), l2, clock)


def generation_of(facts: CudaFacts) -> str:
    """Bundled generation file of a device.

    Raises:
        UnsupportedError: there is none for its compute capability.
    """
    found = GENERATIONS.get(facts.capability)
    if found is None:
        known = ", ".join(f"{a}.{b}" for a, b in GENERATIONS)
        major, minor = facts.capability
        raise UnsupportedError(
            f"{facts.name}: no generation file for compute capability {major}.{minor}; there are {known}"
        )
    return found


def copy_bytes(facts: CudaFacts) -> tuple[int, int]:
    """Bytes read by a sum within half of L2, and far beyond it."""
    return max(MIB, facts.l2_bytes // 2), max(256 * MIB, 8 * facts.l2_bytes)


def device_benchmarks(torch: Any, facts: CudaFacts) -> list[Benchmark]:
    """Timed on the device."""
    place = {"device": "cuda"}
    small, large = copy_bytes(facts)
    near, far = torch.ones(small // 4, **place), torch.ones(large // 4, **place)
    target = torch.empty(large // 4, **place)
    tiny = torch.ones(1, **place)
    empty = captured(torch, lambda: tiny.add_(0.0), GRAPH_KERNELS)
    out = [
        Benchmark("read L2", lambda: near.sum()),
        Benchmark("read memory", lambda: far.sum()),
        Benchmark("copy memory", lambda: target.copy_(far)),
        Benchmark("graph", empty),
        Benchmark("stream", lambda: tiny.add_(0.0)),
    ]
    for dtype, kind in (("fp16", torch.float16), ("bf16", torch.bfloat16), ("fp32", torch.float32)):
        if dtype == "bf16" and facts.capability < (8, 0):
            continue
        a = torch.ones(GEMM_SIDE, GEMM_SIDE, dtype=kind, **place)
        out.append(Benchmark(f"matmul {dtype}", _product(torch, a)))
    return out


GEMM_SIDE = 4096


def _product(torch: Any, a: Any) -> Callable[[], object]:
    return lambda: torch.mm(a, a)


def host_benchmarks(torch: Any) -> list[Benchmark]:
    """Timed on the host: queueing of an operator, and one that is waited for."""
    tiny = torch.ones(1, device="cuda")

    def waited() -> None:
        tiny.add_(0.0)
        torch.cuda.synchronize()

    return [Benchmark("dispatch", lambda: tiny.add_(0.0)), Benchmark("eager", waited)]


def cuda_document(found: CudaTimes, when: str) -> dict[str, Any]:
    """The hardware file: the generation extended with this device. *when* enters the sources.

    The clock held under matrix work is read off a product: FLOPs over time over the file's rate of all SMs. It is a
    lower limit (products lose a little to their edges) and stands as ``sustained``; ``boost`` is the driver's.
    """
    from ...spec.catalogue import load_document
    from ...units import parse

    facts, t = found.facts, found.times
    how = f"effsim calibrate, {when}, PyTorch on {facts.name}"
    generation = generation_of(facts)
    rates = load_document("generations", generation).data["matrix"]
    small, large = copy_bytes(facts)
    held = 0.0
    for dtype in ("fp16", "bf16"):
        if f"matmul {dtype}" in t and dtype in rates:
            rate = rates[dtype]["value"] if isinstance(rates[dtype], dict) else rates[dtype]
            per_clock = parse(rate, "flop_per_cycle") * facts.sms
            held = max(held, 2.0 * GEMM_SIDE**3 / t[f"matmul {dtype}"] / per_clock)
    if held <= 0.0:
        raise UnsupportedError(f"{facts.name}: the generation file has no fp16 or bf16 rate to read the clock off")
    read, copied = large / t["read memory"], 2.0 * large / t["copy memory"]
    peak = max(read, copied)
    graph = t["graph"] / GRAPH_KERNELS

    def q(value: float, unit: str, text: str) -> dict[str, str]:
        return {"value": f"{value:.5g} {unit}".strip(), "kind": "measured", "source": f"{how}: {text}"}

    def given(value: str, kind: str, source: str) -> dict[str, str]:
        return {"value": value, "kind": kind, "source": source}

    product = f"fp16 or bf16 product of {GEMM_SIDE}³, the clock at which all matrix units would take as long"
    return {
        "extends": f"generations/{generation}",
        "kind": "gpu",
        "name": facts.name[:120],
        "description": f"this device as measured: {how}"[:400],
        "provenance": {"kind": "measured", "source": how},
        "clock": {
            "boost": given(f"{facts.clock_hz:.6g} Hz", "datasheet", "CUDA driver")
            if facts.clock_hz >= held
            else q(held, "Hz", product),
            "sustained": q(held, "Hz", product),
        },
        "sm": {"count": given(str(facts.sms), "datasheet", "CUDA driver")},
        "memory": {
            "kind": "hbm2e" if facts.capability[1] == 0 else "gddr6",
            "capacity": given(f"{facts.memory_bytes} B", "datasheet", "CUDA driver"),
            "bandwidth": q(peak, "B/s", "sum or copy beyond L2, the faster"),
            "latency": given("500 ns", "assumed", "order of published pointer chases; PyTorch cannot show it"),
            "stream_fraction": q(read / peak, "", "sum beyond L2"),
            "reserved": given("1.3 GiB", "assumed", "context and libraries"),
        },
        "l2": {
            "capacity": given(f"{facts.l2_bytes} B", "datasheet", "CUDA driver"),
            "bandwidth": q(max(read, small / max(1e-9, t["read L2"] - graph)), "B/s", "sum within half of L2"),
            "latency": given("200 ns", "assumed", "order of published pointer chases; PyTorch cannot show it"),
        },
        "launch": {
            "graph": q(graph, "s", f"captured graph of {GRAPH_KERNELS} additions of one number"),
            "stream": q(t["stream"], "s", "additions of one number queued back to back"),
            "dispatch": q(t["dispatch"], "s", "host time to queue an addition"),
            "eager": q(max(0.0, t["eager"] - graph), "s", "addition of one number, waited for, less its kernel"),
        },
        "power": {"limit": given("300 W", "unverified", "not measured; no result but energy depends on it")},
    }

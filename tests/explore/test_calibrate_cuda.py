"""A GPU measured through PyTorch, with a stand-in for ``torch.cuda`` and a timer that knows what every call costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from effsim.devices.registry import load_machine
from effsim.errors import DataError, UnsupportedError
from effsim.explore.calibrate.cuda import (
    GEMM_SIDE,
    GRAPH_KERNELS,
    CudaFacts,
    CudaTimes,
    EventTimer,
    captured,
    copy_bytes,
    cuda_document,
    generation_of,
    take_cuda_times,
)
from effsim.explore.calibrate.timing import QUICK
from effsim.explore.calibrate.write import write_checked, yaml_text
from effsim.spec.catalogue import find

MIB = 1 << 20
FACTS = CudaFacts("a GPU", (8, 0), 108, 80 << 30, 40 * MIB, 1.41e9)


class FakeTensor:
    """Knows its size and moves the device's clock."""

    def __init__(self, torch: FakeTorch, *shape: int) -> None:
        self.torch, self.size = torch, 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)

    def sum(self) -> None:
        rate = 4e12 if self.size < FACTS.l2_bytes else 1.8e12
        self.torch.work(1e-6 + self.size / rate)

    def copy_(self, other: FakeTensor) -> None:
        self.torch.work(1e-6 + 2 * self.size / 1.6e12)

    def add_(self, value: float) -> None:
        self.torch.work(2e-6)


class FakeTorch:
    """What the calibration uses of PyTorch; one clock for device and host."""

    float16 = bfloat16 = float32 = "type"

    def __init__(self) -> None:
        self.now_s, self.capturing, self.queue = 0.0, False, 0.0
        self.cuda = SimpleNamespace(
            is_available=lambda: True,
            current_device=lambda: 0,
            get_device_properties=lambda index: SimpleNamespace(
                name=FACTS.name,
                major=8,
                minor=0,
                multi_processor_count=108,
                total_memory=80 << 30,
                L2_cache_size=40 * MIB,
                clock_rate=1410000,
            ),
            synchronize=lambda: None,
            Event=lambda enable_timing: FakeEvent(self),
            Stream=lambda: None,
            stream=self.inside,
            current_stream=lambda: SimpleNamespace(wait_stream=lambda side: None),
            CUDAGraph=lambda: FakeGraph(self),
            graph=self.record,
        )

    def work(self, seconds: float) -> None:
        if self.capturing:
            self.queue += seconds / 2.0  # a replayed kernel starts sooner
        else:
            self.now_s += seconds

    @contextmanager
    def inside(self, stream: Any) -> Iterator[None]:
        yield

    @contextmanager
    def record(self, graph: FakeGraph) -> Iterator[None]:
        self.capturing, self.queue = True, 0.0
        yield
        self.capturing, graph.seconds = False, self.queue

    @contextmanager
    def inference_mode(self) -> Iterator[None]:
        yield

    def ones(self, *shape: int, device: str = "", dtype: str = "") -> FakeTensor:
        return FakeTensor(self, *shape)

    empty = ones

    def mm(self, a: FakeTensor, b: FakeTensor) -> None:
        self.work(2.0 * GEMM_SIDE**3 / 270e12)


class FakeGraph:
    def __init__(self, torch: FakeTorch) -> None:
        self.torch, self.seconds = torch, 0.0

    def replay(self) -> None:
        self.torch.now_s += self.seconds


class FakeEvent:
    def __init__(self, torch: FakeTorch) -> None:
        self.torch, self.at = torch, 0.0

    def record(self) -> None:
        self.at = self.torch.now_s

    def elapsed_time(self, end: FakeEvent) -> float:
        return (end.at - self.at) * 1e3  # milliseconds, as the real one


def test_events_count_seconds() -> None:
    torch = FakeTorch()
    assert EventTimer(torch).seconds(lambda: torch.work(1e-3), 5) == pytest.approx(5e-3)


def test_a_graph_replays_what_it_recorded() -> None:
    torch = FakeTorch()
    replay: Callable[[], object] = captured(torch, lambda: torch.work(1e-3), 10)
    start = torch.now_s
    replay()
    assert torch.now_s - start == pytest.approx(10 * 0.5e-3)


def test_the_file_holds_what_the_device_did(tmp_path: Path) -> None:
    torch = FakeTorch()
    timer = EventTimer(torch)
    found = take_cuda_times(QUICK, timer, torch=torch)
    path = tmp_path / "gpu.yaml"
    write_checked(path, yaml_text(cuda_document(found, "2020-01-01")))
    spec = load_machine(str(path)).spec
    value = {name: float(leaf) for name, leaf in spec.leaves()}
    assert value["sm.count"] == 108
    assert value["clock.boost"] == pytest.approx(1.41e9)
    assert value["clock.sustained"] == pytest.approx(270e12 / (108 * 2048), rel=1e-3)
    assert value["memory.bandwidth"] * value["memory.stream_fraction"] == pytest.approx(1.8e12, rel=0.01)
    assert value["launch.graph"] == pytest.approx(1e-6, rel=1e-3)
    assert value["launch.stream"] == pytest.approx(2e-6, rel=1e-3)
    assert value["l2.bandwidth"] == pytest.approx(4e12, rel=0.01)
    assert "effsim calibrate, 2020-01-01" in str(dict(spec.leaves())["launch.graph"].source)


def test_every_generation_has_its_file() -> None:
    from effsim.explore.calibrate.cuda import GENERATIONS

    for name in GENERATIONS.values():
        assert find("generations", name).is_file()


def test_an_unknown_generation_is_said() -> None:
    with pytest.raises(UnsupportedError, match=r"no generation file for compute capability 3\.5"):
        generation_of(CudaFacts("old", (3, 5), 1, 1, 1))


def test_a_generation_without_matrix_rates_is_said() -> None:
    small, large = copy_bytes(FACTS)
    times = {"read memory": 1.0, "copy memory": 1.0, "graph": 1.0 * GRAPH_KERNELS, "read L2": small / large}
    with pytest.raises(UnsupportedError, match="no fp16 or bf16 rate"):
        cuda_document(CudaTimes(FACTS, times), "2020-01-01")


def test_no_device_is_said() -> None:
    torch = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: False))
    with pytest.raises(DataError, match="no CUDA device"):
        take_cuda_times(torch=torch)

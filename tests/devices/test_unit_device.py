"""Times on the unit and null GPUs (``tests/hardware``), with the arithmetic that gives them.

The unit GPU does 1 FLOP/s and moves 1 B/s with no latency; a time is therefore the larger of its FLOPs and its bytes.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from effsim.devices.device import Device
from effsim.devices.registry import load_machine
from effsim.graph.operator import Operator
from effsim.graph.operators.attention import Attention, KVAppend
from effsim.graph.operators.communication import Collective, HostTransfer
from effsim.graph.operators.convolution import CausalConv1d
from effsim.graph.operators.embedding import Embedding
from effsim.graph.operators.linear import BatchedMatmul, Linear
from effsim.graph.operators.pointwise import Pointwise
from effsim.readings.events import kernel_seconds

HARDWARE = Path(__file__).parent.parent / "hardware"
HAND = 1e-6
"""Relative tolerance: what is left of shared memory, which moves 1 GB/s there, and of a millionth of a byte of L2."""


@pytest.fixture(scope="module")
def unit() -> Device:
    return load_machine(str(HARDWARE / "unit_gpu.yaml")).device


@pytest.fixture(scope="module")
def null() -> Device:
    return load_machine(str(HARDWARE / "null_gpu.yaml")).device


def read_three_ways(device: Device, op: Operator) -> tuple[float, float, float]:
    low = device.lower(op)
    return low.roofline_s, low.analytic_s, sum(kernel_seconds(k) for k in low.kernels)


HAND_WORKED: list[tuple[Operator, float, str]] = [
    # A dot product: 2·1000 FLOP, but 2·(1000 + 1000 + 1) B.
    (Linear(1, 1, 1000), 4002.0, "memory"),
    # One 64 × 64 tile: 2·64³ = 524 288 FLOP against 2·64²·2 B read, then 64²·2 B written.
    (Linear(64, 64, 64), 524_288.0 + 8192.0, "matrix"),
    # tf32 is stored in 4 B: 4·(1000 + 1000 + 1).
    (Linear(1, 1, 1000, "tf32"), 8004.0, "memory"),
    # int8 weights halve only the weight: 2·1000 + 1000 + 2 B, but 2·1000 FLOP, 1.5·1000 vector operations, 2 B written.
    (Linear(1, 1, 1000, "fp16", "int8"), 3502.0, "matrix"),
    # Four 64 × 64 products of 16-deep operands: 4 · 2·64·64·16 FLOP, each then written.
    (BatchedMatmul(4, 64, 64, 16), 4 * (2 * 64 * 64 * 16.0 + 64 * 64 * 2), "matrix"),
    # Two inputs and one output of 32 fp16 numbers.
    (Pointwise("add", 4, 8), 192.0, "memory"),
    # 8 vector operations a number on a unit that does one plain operation a second (2 FLOP/s fused): 320 against 160 B.
    (Pointwise("gelu", 4, 10), 320.0, "vector"),
    # Per head 16 queries see 16 keys of 32 numbers: 2 · 2·16·16·32 FLOP, 4 heads; q and o are 8192 B, which a tile that
    # is alone on its SM waits for, k and v (as much) come meanwhile.
    (Attention("context", 1, 16, 16, 4, 4, 32, causal=False), 4 * 2 * 2 * 16 * 16 * 32.0 + 8192.0, "matrix"),
    # 5 rows of 8 numbers out of the table and into the stream.
    (Embedding(5, 100, 8), 160.0, "memory"),
    # 16 B in and out a token take as long as one integer operation of each of the 32 threads that copy them.
    (KVAppend(3, 8), 2 * 3 * 8 * 2.0, "vector"),
    # 40 numbers in and out, 4 taps and a bias for each of 4 channels, a window of 3·4 written: 2·(80 + 20 + 12) B
    # against 40·4 fused multiply-adds.
    (CausalConv1d(1, 10, 4, 4), 224.0, "memory"),
]


@pytest.mark.parametrize(("op", "seconds", "bound"), HAND_WORKED, ids=lambda v: getattr(v, "kind", None))
def test_hand_worked_times(unit: Device, op: Operator, seconds: float, bound: str) -> None:
    roofline_s, analytic_s, events_s = read_three_ways(unit, op)
    assert analytic_s == pytest.approx(seconds, rel=HAND)
    assert events_s == pytest.approx(seconds, rel=HAND)
    assert roofline_s <= seconds * (1 + HAND)
    assert unit.lower(op).bound == bound


def test_roofline_is_the_larger_of_work_and_bytes(unit: Device) -> None:
    for op in (Linear(1, 1, 1000), Linear(64, 64, 64), Linear(3, 5, 7), Linear(200, 300, 400)):
        assert unit.lower(op).roofline_s == pytest.approx(max(op.flops, op.bytes_moved), rel=HAND)


def test_several_tiles_follow_each_other(unit: Device) -> None:
    # Four 64 × 64 tiles on the one SM, each written when it is done.
    expected = 2 * 128 * 128 * 64 + 128 * 128 * 2
    assert unit.lower(Linear(128, 128, 64)).analytic_s == pytest.approx(expected, rel=HAND)


def test_collectives_on_the_unit_link(unit: Device) -> None:
    # Ring all-reduce of 80 B over 8: 2·7/8·80 B at 1 B/s.
    assert unit.lower(Collective("all_reduce", 80.0, 8)).analytic_s == pytest.approx(140.0)
    assert unit.lower(Collective("all_gather", 80.0, 8)).analytic_s == pytest.approx(70.0)
    assert unit.lower(Collective("send_recv", 80.0, 2)).analytic_s == pytest.approx(80.0)
    assert unit.lower(Collective("all_reduce", 80.0, 1)).kernels == ()
    assert unit.lower(HostTransfer(10.0)).analytic_s == pytest.approx(20.0)  # PCIe at half a byte a second


def test_launch_costs_vanish(unit: Device) -> None:
    launch = unit.launch
    assert (launch.gap_s, launch.stream_gap_s, launch.dispatch_s, launch.isolated_s) == (0, 0, 0, 0)


@pytest.mark.parametrize("op", [op for op, _, _ in HAND_WORKED], ids=lambda op: op.kind)
def test_null_device_takes_no_time(null: Device, op: Operator) -> None:
    assert max(read_three_ways(null, op)) < 1e-15

"""The closed form of a kernel against its simulation, and the simulation against a plain one written here."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import one_class_kernels, tile_classes

from effsim.devices.kernel import Kernel, TileClass, kernel_time
from effsim.readings.tiles import simulate, simulated_time, tile_log


def max_min(needs: list[float], caps: list[float], total: float) -> float:
    """Equal share of *total* such that nobody gets more than its cap: water filling, the slowest first."""
    users = sorted((cap * need, need) for need, cap in zip(needs, caps, strict=True) if need > 0)
    left, count = total, len(users)
    for wanted, _ in users:
        if wanted * count > left:
            return left / count
        left, count = left - wanted, count - 1
    return math.inf


def plain_simulation(kernel: Kernel) -> float:
    """Processor by processor, tile by tile; no grouping, no extrapolation."""
    waiting = [c for c in kernel.classes for _ in range(c.count)][::-1]
    places: list[dict[str, object]] = []
    for _ in range(kernel.slots):
        for unit in range(kernel.units):
            if waiting:
                c = waiting.pop()
                places.append({"unit": unit, "tile": c, "ready": c.serial_s, "left": 1.0})
    current: dict[int, dict[str, object]] = {}
    now = 0.0
    while places:
        for unit in range(kernel.units):
            if unit not in current:
                ready = [p for p in places if p["unit"] == unit and p["ready"] <= now * (1 + 1e-12)]
                if ready:
                    current[unit] = min(ready, key=lambda p: p["ready"])
        caps, work = [], list(current.values())
        for place in work:
            c = place["tile"]
            resident = sum(p["unit"] == place["unit"] for p in places)
            heavy = max(c.l2_bytes, c.memory_bytes)
            flow = c.flow_bytes_per_s * resident / heavy if heavy else math.inf
            caps.append(min(1 / c.busy_s if c.busy_s else math.inf, flow))
        l2 = max_min([p["tile"].l2_bytes for p in work], caps, kernel.l2_bytes_per_s)
        memory = max_min([p["tile"].memory_bytes for p in work], caps, kernel.memory_bytes_per_s)
        rates = []
        for place, cap in zip(work, caps, strict=True):
            c = place["tile"]
            shares = [s / b for s, b in ((l2, c.l2_bytes), (memory, c.memory_bytes)) if b]
            rates.append(min([cap, *shares]))
        ends = [0.0 if r == math.inf else p["left"] / r for p, r in zip(work, rates, strict=True)]
        ends += [p["ready"] - now for p in places if p["ready"] > now * (1 + 1e-12)]
        step = min(ends)
        now += step
        for place, rate in zip(work, rates, strict=True):
            place["left"] -= place["left"] if rate == math.inf else rate * step
            if place["left"] <= 1e-12 * max(1.0, now) * (0 if rate == math.inf else rate):
                del current[place["unit"]]
                if waiting:
                    c = waiting.pop()
                    place.update(tile=c, ready=now + c.serial_s, left=1.0)
                else:
                    places.remove(place)
    return now


@st.composite
def small_kernels(draw: st.DrawFn, classes: int) -> Kernel:
    kernel = draw(one_class_kernels())
    tiles = tuple(
        replace(t, count=draw(st.integers(1, 30))) for t in draw(st.lists(tile_classes(), min_size=1, max_size=classes))
    )
    return replace(kernel, classes=tiles, units=draw(st.integers(1, 6)))


@settings(max_examples=60)
@given(small_kernels(3))
def test_simulation_against_a_plain_one(kernel: Kernel) -> None:
    assert simulated_time(kernel) == pytest.approx(plain_simulation(kernel), rel=1e-9)


@settings(max_examples=40)
@given(small_kernels(3))
def test_python_and_compiled_simulation_agree_exactly(kernel: Kernel) -> None:
    counts = [c.count for c in kernel.classes]
    costs = [[c.busy_s, c.serial_s, c.l2_bytes, c.memory_bytes, c.flow_bytes_per_s] for c in kernel.classes]
    shared = (kernel.units, kernel.slots, kernel.l2_bytes_per_s, kernel.memory_bytes_per_s)
    logs = [0.0] * 60, [0.0] * 60
    plain = simulate.python(list(counts), costs, *shared, logs[0])
    assert plain == simulate.compiled(list(counts), costs, *shared, logs[1])


@given(one_class_kernels())
def test_one_slot_closed_form_is_exact(kernel: Kernel) -> None:
    alone = replace(kernel, slots=1)
    assert kernel_time(alone).total_s == pytest.approx(simulated_time(alone), rel=1e-9)


@given(one_class_kernels())
def test_busy_processors_are_exact_with_any_slots(kernel: Kernel) -> None:
    # No latency, no shared traffic: rounds of busy_s whatever the slots.
    tile = replace(kernel.classes[0], serial_s=0.0, l2_bytes=0.0, memory_bytes=0.0)
    bound = replace(kernel, classes=(tile,))
    expected = math.ceil(tile.count / kernel.units) * tile.busy_s
    assert kernel_time(bound).total_s == pytest.approx(expected, rel=1e-9)
    assert simulated_time(bound) == pytest.approx(expected, rel=1e-9)


@given(one_class_kernels())
def test_full_rounds_agree_within_two_percent_where_bytes_in_flight_do_not_bind(kernel: Kernel) -> None:
    tile = replace(kernel.classes[0], flow_bytes_per_s=math.inf)
    count = max(1, tile.count // kernel.units) * kernel.units
    full = replace(kernel, classes=(replace(tile, count=count),))
    assert simulated_time(full) == pytest.approx(kernel_time(full).total_s, rel=0.02)


@settings(max_examples=80)
@given(one_class_kernels())
def test_simulation_never_beats_a_resource(kernel: Kernel) -> None:
    c = kernel.classes[0]
    bounds = (
        math.ceil(c.count / kernel.units) * c.busy_s,
        kernel.memory_bytes / kernel.memory_bytes_per_s,
        kernel.l2_bytes / kernel.l2_bytes_per_s,
        c.serial_s + c.busy_s,
    )
    assert simulated_time(kernel) >= max(bounds) * (1 - 1e-9)
    assert kernel_time(kernel).total_s >= max(bounds) * (1 - 1e-9)


@given(one_class_kernels(), st.integers(1, 50))
def test_more_tiles_never_take_less(kernel: Kernel, extra: int) -> None:
    c = kernel.classes[0]
    larger = replace(kernel, classes=(replace(c, count=c.count + extra),))
    assert simulated_time(larger) >= simulated_time(kernel) * (1 - 1e-9)
    assert kernel_time(larger).total_s >= kernel_time(kernel).total_s * (1 - 1e-9)


def test_rounds_by_hand() -> None:
    # Five tiles on two processors: three rounds. One slot: each waits 0.5 s and works 1 s.
    tile = TileClass(5, 1.0, 0.5, 0.0, 0.0)
    assert kernel_time(Kernel("k", (tile,), 2, 1, 1.0, 1.0, ())).total_s == 4.5
    # Three slots: all wait together, then 3 s of work.
    assert kernel_time(Kernel("k", (tile,), 2, 3, 1.0, 1.0, ())).total_s == 3.5
    # Memory: 5 tiles of 4 B at 1 B/s are 20 s of traffic behind 0.5 s.
    wide = replace(tile, memory_bytes=4.0)
    assert kernel_time(Kernel("k", (wide,), 2, 3, 1.0, 1.0, ())).total_s == 20.5
    # Start-up adds; a fixed part is a floor.
    assert kernel_time(Kernel("k", (tile,), 2, 3, 1.0, 1.0, (), setup_s=2.0)).total_s == 5.5
    assert kernel_time(Kernel("k", (tile,), 2, 3, 1.0, 1.0, (), fixed_s=9.0)).total_s == 9.0
    assert kernel_time(Kernel("k", (), 1, 1, 1.0, 1.0, (), fixed_s=9.0)).bound == "network"


@settings(max_examples=30)
@given(small_kernels(2))
def test_log_accounts_for_every_tile(kernel: Kernel) -> None:
    log = tile_log(kernel, 1000)
    assert len(log) == kernel.tiles
    assert (log[:, 2] <= log[:, 3]).all()
    assert (log[:, 3] <= log[:, 4]).all()
    assert log[:, 4].max() == pytest.approx(simulated_time(kernel))
    for unit in range(kernel.units):  # one tile at a time works on a processor
        mine = log[log[:, 0] == unit]
        mine = mine[mine[:, 3].argsort()]
        assert (mine[1:, 3] >= mine[:-1, 4] - 1e-9).all()

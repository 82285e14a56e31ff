"""Shares of streams, mixes and runs: what is kept is what the controller model says."""

from __future__ import annotations

import json
import math
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effsim.devices.gpu.device import GpuDevice
from effsim.devices.registry import load_machine
from effsim.memory import shares_cache
from effsim.memory.achieved import RUNS, Achieved, achieved, at_clock, flat, of_memory, simulate_shares
from effsim.memory.preset import load_preset
from effsim.memory.shares_cache import bundled_parts, key_of
from effsim.spec.catalogue import names

SHARES = st.floats(0.05, 1.0)


@st.composite
def tables(draw: st.DrawFn) -> Achieved:
    read = draw(SHARES)
    runs = sorted(draw(st.lists(st.floats(0.02, read), min_size=len(RUNS), max_size=len(RUNS))))
    return Achieved(read, draw(SHARES), read * draw(SHARES), tuple(runs), 32)


@given(tables(), st.floats(1, 1 << 20), st.floats(1.0, 4.0))
def test_longer_runs_never_get_less(table: Achieved, size: float, factor: float) -> None:
    assert table.run(size * factor) >= table.run(size) * (1 - 1e-12)
    assert 0.0 < table.run(size) <= table.read * (1 + 1e-12)


@given(tables(), st.floats(0.0, 1.0), st.floats(1, 1e6))
def test_a_sweep_is_no_faster_than_its_parts(table: Achieved, written: float, run: float) -> None:
    best = max(table.read, table.write, table.mixed)
    assert table.sweep(written, run) <= table.sweep(written) * (1 + 1e-12) <= best * (1 + 2e-12)
    assert table.sweep(0.0) == pytest.approx(table.read)
    assert table.sweep(1.0 / 3.0) == pytest.approx(table.mixed)


def test_half_an_access_gets_half() -> None:
    table = Achieved(0.9, 0.9, 0.8, (0.4,) * len(RUNS), 32)
    assert table.run(16) == pytest.approx(0.2)
    assert flat(0.7).run(1) == 0.7


def test_a_measured_stream_scales_the_rest() -> None:
    table = Achieved(0.8, 0.9, 0.7, tuple(0.1 * i for i in range(1, 9)), 32).anchored(0.4)
    assert table.read == 0.4
    assert table.mixed == pytest.approx(0.35)
    assert table.runs[1] == pytest.approx(0.1)


def test_nanoseconds_survive_another_clock() -> None:
    spec = load_preset("hbm2e").spec
    slow = at_clock(spec, 2 * float(spec.clock))
    assert slow.timing.burst == spec.timing.burst
    for name in ("rcd_read", "rp", "ras", "faw", "rfc", "refi"):
        before = getattr(spec.timing, name) * float(spec.clock)
        after = getattr(slow.timing, name) * float(slow.clock)
        assert before * (1 - 1e-9) <= after < before + float(slow.clock)
    assert at_clock(spec, float(spec.clock)).timing == spec.timing


def test_refresh_of_all_banks_costs_its_share_of_time() -> None:
    """A channel stands still for tRFC of every tREFI; a bank at a time, others go on."""
    part = load_preset("hbm2")
    t = part.spec.timing
    everything, one = achieved("hbm2", "all_bank"), achieved("hbm2", "per_bank")
    assert everything.read <= 1 - t.rfc / t.refi
    assert everything.read == pytest.approx(one.read * (1 - t.rfc / t.refi), rel=0.03)


def test_every_bundled_part_is_in_the_table() -> None:
    table = json.loads((files("effsim.hw_configs") / "dram" / "achieved.json").read_text(encoding="utf-8"))
    assert set(table["parts"]) == set(bundled_parts())


def _again(key: str) -> None:
    part, refresh = bundled_parts()[key]
    kept = achieved(part, refresh)
    fresh = simulate_shares(part, refresh)
    for name in ("read", "write", "mixed"):
        assert getattr(kept, name) == pytest.approx(getattr(fresh, name), abs=1e-5)
    assert kept.runs == pytest.approx(fresh.runs, abs=1e-5)


def test_the_table_is_what_the_model_says() -> None:
    _again(sorted(bundled_parts())[0])


@pytest.mark.slow
@pytest.mark.parametrize("key", sorted(bundled_parts()))
def test_the_whole_table_is_what_the_model_says(key: str) -> None:
    _again(key)


def test_a_part_of_ones_own_is_simulated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFSIM_CACHE", str(tmp_path))
    part = load_preset("ddr4", ("dram.clock=0.7 ns",))
    calls = []
    real = simulate_shares
    monkeypatch.setattr(shares_cache, "simulate_shares", lambda *a: (calls.append(a), real(*a))[1])
    monkeypatch.setattr(shares_cache, "_MEMORY", {})
    first = achieved(part)
    monkeypatch.setattr(shares_cache, "_MEMORY", {})
    assert achieved(part) == first
    assert len(calls) == 1
    file = tmp_path / "effsim" / "dram" / f"{key_of(part, 'on')}.json"
    file.write_text("{broken")
    monkeypatch.setattr(shares_cache, "_MEMORY", {})
    assert achieved(part) == first
    assert len(calls) == 2


def test_real_gpus_take_their_bandwidth_from_the_model() -> None:
    """No GPU of the catalogue writes down what a stream reaches, but two with public figures and three whose check bits
    take a part of the transfers."""
    anchored = set()
    for name in names("hardware"):
        if not name.startswith("gpu_"):
            continue
        device = load_machine(name).device
        assert isinstance(device, GpuDevice)
        memory, p = device.spec.memory, device.parameters
        assert memory.dram is not None, name
        if memory.stream_fraction is not None:
            anchored.add(name)
            continue
        clock = None if memory.dram.clock is None else float(memory.dram.clock)
        assert p.shares == achieved(memory.dram.preset, memory.dram.refresh, clock)
        assert p.memory_bytes_per_s == pytest.approx(float(memory.bandwidth) * p.shares.read)
    assert anchored == {"gpu_p100", "gpu_t4", "gpu_l40s", "gpu_l4", "gpu_a10"}


def test_the_clock_of_a_part_is_the_gpus_data_rate() -> None:
    """Pins · rate = bandwidth: what the file says of the part must give the bandwidth that it says of the memory."""
    for name in names("hardware"):
        if not name.startswith("gpu_"):
            continue
        device = load_machine(name).device
        assert isinstance(device, GpuDevice)
        memory = device.spec.memory
        if memory.dram is None or memory.channels is None or memory.dram.clock is None:
            continue
        part = load_preset(memory.dram.preset)
        o, per = part.spec.organization, part.access_bytes / part.slot_clocks / float(memory.dram.clock)
        channel = per * int(o.pseudo_channels)
        ratio = channel * int(memory.channels) / float(memory.bandwidth)
        # A file may count a channel of the standard as two, or two of them as one.
        assert any(math.isclose(ratio, count, rel_tol=0.02) for count in (0.5, 1.0, 2.0)), (name, ratio)


def test_no_part_is_an_ideal_memory() -> None:
    assert of_memory(None, None).run(8) == 1.0

"""The controller against arithmetic that can be done by hand."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from effsim.memory import layout as at
from effsim.memory.engine import simulate_requests
from effsim.memory.mapping import Located
from effsim.memory.preset import catalogue, load_preset
from effsim.memory.simulate import simulate_dram
from effsim.memory.stream import stream_efficiency

MIB = 1 << 20


@pytest.mark.parametrize(
    ("preset", "closed"),
    # One request to a closed bank: tRCD + CL + burst, one clock to enter, one to be handed back; the bank queue takes one more.
    [
        ("ddr4", 22 + 22 + 4 + 1),
        ("hbm2", 1 + 14 + 14 + 2 + 1),
        ("hbm2_dramsim3", 14 + 14 + 2 + 2),
        ("ddr4_dramsim3", 22 + 22 + 4 + 2),
    ],
)
def test_unloaded_latency_is_the_sum_of_its_steps(preset, closed):
    part = load_preset(preset)
    result = simulate_dram(preset, trace="chase", bytes_moved=part.access_bytes, refresh="off")
    assert result.read_latency_s == pytest.approx(closed * part.clock_s)


@pytest.mark.parametrize("preset", catalogue())
def test_a_stream_without_refresh_comes_near_its_peak(preset):
    """With a deep queue: one of 32 requests does not cover the opening of rows on the fastest parts."""
    assert stream_efficiency(preset, "read", refresh="off") > 0.965


def test_refresh_costs_its_share_of_time():
    """All banks stop for tRFC and the rows open again, every tREFI: 1 − (260 + 14 + 14)/3900 = 0.926."""
    with_refresh = simulate_dram("hbm2_dramsim3", bytes_moved=16 * MIB, mapping="rorabgbachco")
    without = simulate_dram("hbm2_dramsim3", bytes_moved=16 * MIB, mapping="rorabgbachco", refresh="off")
    expected = 1 - (260 + 14 + 14) / 3900
    assert with_refresh.fraction / without.fraction == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("preset", ["ddr4", "ddr4_dramsim3", "gddr6", "hbm2"])
def test_the_first_refresh_begins_with_the_last_clock_of_its_interval(preset):
    """Clocks count from 0, and nothing but a refresh closes the one row that is read."""
    part = load_preset(preset).replace(organization={"channels": 1, "ranks": 1})
    where = Located(np.zeros(2000, dtype=np.int64), np.zeros(2000, dtype=np.int64))
    log = simulate_requests(part, where, np.zeros(2000, dtype=np.int64), keep_log=8000).log
    first = log[np.isin(log[:, 1], [at.PRE, at.PREA, at.REF])][0]
    last_clock = int(part.spec.timing.refi) - 1
    assert last_clock <= first[0] <= last_clock + int(part.spec.timing.rtp)


def test_random_accesses_are_bound_by_tfaw():
    """Four activations of a 2-clock burst in 30 clocks: 8/30 of the peak at most, and nearly that."""
    result = simulate_dram("hbm2_dramsim3", trace="random_read", bytes_moved=4 * MIB, refresh="off")
    assert 0.95 * 8 / 30 < result.fraction < 8 / 30
    assert max(result.limiters, key=result.limiters.__getitem__) == "tFAW"


def test_one_bank_group_is_bound_by_tccd_l():
    """A stream that stays in a row runs at BL/tCCD_L = 1/2 of the peak."""
    result = simulate_dram("hbm2", bytes_moved=MIB, mapping="RoBaRaCoCh", refresh="off")
    assert 0.5 <= result.fraction < 0.55
    assert max(result.limiters, key=result.limiters.__getitem__) == "tCCD_L"


def test_one_row_after_another_in_one_bank_is_bound_by_its_cycle():
    """A stride that stays in a bank and changes the row: one access of 4 clocks a tRC of 74."""
    result = simulate_dram(
        "ddr4", trace="stride", stride=MIB, bytes_moved=MIB // 4, mapping="rorababgcoch", refresh="off"
    )
    assert result.fraction == pytest.approx(4 / 74, rel=0.01)
    assert result.row_hit_rate == 0
    assert max(result.limiters, key=result.limiters.__getitem__) == "row_conflict"


def test_a_dependent_chain_is_bound_by_its_own_latency():
    result = simulate_dram("hbm2", trace="chase", bytes_moved=MIB // 16)
    assert result.limiters["injection"] > 0.9 * (result.cycles - result.ideal_cycles)


@pytest.mark.parametrize("preset", catalogue())
@pytest.mark.parametrize("trace", ["seq_read", "seq_write", "triad", "random_mixed", "chase"])
def test_limiters_add_up_to_the_lost_cycles(preset, trace):
    result = simulate_dram(preset, trace=trace, bytes_moved=MIB // 4)
    assert sum(result.limiters.values()) == pytest.approx(result.cycles - result.ideal_cycles, abs=1e-6)
    assert min(part for name, part in result.limiters.items() if name != "injection") >= 0


@pytest.mark.parametrize("preset", ["ddr4", "hbm2_dramsim3"])
@pytest.mark.parametrize("trace", ["seq_read", "mixed_2r1w", "random_read"])
def test_extrapolation_agrees_with_simulating_everything(preset, trace, monkeypatch):
    size = 24 * MIB
    quick = simulate_dram(preset, trace=trace, bytes_moved=size)
    monkeypatch.setattr("effsim.memory.simulate.WHOLE_BELOW", 1 << 40)
    whole = simulate_dram(preset, trace=trace, bytes_moved=size)
    assert quick.simulated_requests < whole.simulated_requests == size // load_preset(preset).access_bytes
    assert quick.cycles == pytest.approx(whole.cycles, rel=0.01)
    assert quick.row_hit_rate == pytest.approx(whole.row_hit_rate, abs=0.01)
    assert sum(quick.limiters.values()) == pytest.approx(quick.cycles - quick.ideal_cycles, abs=1e-3)


def test_a_seventy_billion_weight_stream_takes_a_moment():
    result = simulate_dram("hbm2e", bytes_moved=140e9)
    assert result.simulated_requests < 1e-3 * result.requests
    assert 0.8 < result.fraction < 0.95


def test_more_channels_carry_more():
    rates = [simulate_dram("hbm2", bytes_moved=4 * MIB, channels=n).bandwidth_bytes_per_s for n in (1, 2, 4, 8)]
    assert rates == sorted(rates)


def test_a_slower_clock_scales_everything():
    part = load_preset("gddr6")
    slow = type(part)(part.spec.model_copy(update={"clock": 2 * part.spec.clock}))
    fast, half = (simulate_dram(each, trace="triad", bytes_moved=MIB) for each in (part, slow))
    assert half.cycles == fast.cycles
    assert half.time_s == pytest.approx(2 * fast.time_s)
    assert half.fraction == pytest.approx(fast.fraction)


@pytest.mark.parametrize("preset", ["hbm2", "lpddr5", "gddr6", "hbm3"])
def test_refreshing_bank_by_bank_costs_a_stream_little(preset):
    modes = ("off", "per_bank", "all_bank")
    off, per_bank, all_bank = (stream_efficiency(preset, "read", refresh=mode) for mode in modes)
    assert all_bank < per_bank <= off + 0.002
    assert per_bank > 0.97 * off


@pytest.mark.parametrize("preset", ["ddr4_dramsim3", "hbm2_dramsim3", "ddr4"])
@pytest.mark.parametrize("trace", ["seq_write", "mixed_2r1w"])
def test_one_request_at_a_time_ends(preset, trace):
    """A posted write makes room for the next request when it is accepted, though it waits in the buffer for long."""
    one = simulate_dram(preset, trace=trace, bytes_moved=MIB // 32, outstanding=1)
    many = simulate_dram(preset, trace=trace, bytes_moved=MIB // 32)
    assert one.cycles > many.cycles


def test_energy_of_one_read_is_that_of_its_commands():
    """DDR4, one read from a closed bank, all by the currents of eight chips."""
    part = load_preset("ddr4_dramsim3")
    result = simulate_dram(part, trace="chase", bytes_moved=64, refresh="off")
    clock, vdd, chips = part.clock_s, 1.2, 8
    act = 57e-3 * 74 - (52e-3 * 52 + 37e-3 * 22)
    read = (168e-3 - 52e-3) * 4
    open_clocks = (
        result.cycles - 2
    )  # the row opens a clock after the request came and stays open until the data is there
    standby = 52e-3 * open_clocks + 37e-3 * (2 * result.cycles - open_clocks)
    assert result.energy_j == pytest.approx(vdd * chips * clock * (act + read + standby), rel=1e-3)


def test_unknown_energy_stays_unknown():
    assert simulate_dram("hbm4", bytes_moved=MIB // 16).energy_j is None


CODE = """
from effsim.memory.simulate import simulate_dram
for preset in ("hbm2_dramsim3", "ddr4", "hbm3", "lpddr5"):
    for trace in ("triad", "random_mixed"):
        r = simulate_dram(preset, trace=trace, bytes_moved=20000, channels=2)
        print(r.cycles, r.row_hit_rate, r.read_latency_s, sorted(r.limiters.items()))
"""


def test_interpreted_and_compiled_agree():
    runs = [
        subprocess.run(
            [sys.executable, "-c", CODE],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "NUMBA_DISABLE_JIT": flag},
        ).stdout
        for flag in ("0", "1")
    ]
    assert runs[0] == runs[1]
    assert len(runs[0].splitlines()) == 8


def test_records_fit_their_rows():
    names = [name for name in vars(at) if name[:2] in ("B_", "C_", "D_", "G_", "I_", "N_", "P_", "U_")]
    assert at.T_COUNT <= at.COUNTERS
    last = {name[0]: max(getattr(at, other) for other in names if other[0] == name[0]) for name in names}
    assert last.pop("D") + 4 <= at.WIDTH  # the last slot begins four times of activations
    assert last.pop("N") <= at.WIDTH  # its count is not a slot
    assert max(last.values()) < at.WIDTH
    assert np.int64(at.NEVER) + np.int64(at.NEVER) > 0


def test_kept_machine_code_is_named_after_all_the_source_it_depends_on(tmp_path, monkeypatch):
    before = at.fingerprint.__wrapped__()
    for name in at.KERNELS:
        (tmp_path / f"{name}.py").write_bytes(Path(at.__file__).with_name(f"{name}.py").read_bytes())
    monkeypatch.setattr(at, "__file__", str(tmp_path / "layout.py"))
    assert at.fingerprint.__wrapped__() == before
    (tmp_path / "device.py").write_text("changed")
    assert at.fingerprint.__wrapped__() != before

"""The independent checker: silent on what the controller emits, loud on what it must not."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from effsim.memory import layout as at
from effsim.memory.checker import check_log
from effsim.memory.engine import simulate_requests
from effsim.memory.mapping import locate
from effsim.memory.preset import catalogue, load_preset

PRESETS = [name for name in catalogue() if not name.endswith(("_ramulator", "lpddr4_dramsim3"))]
MOST_COMMANDS = 4000


def commands(preset, addresses, writes, mapping="hashed", outstanding=0):
    where = locate(preset, mapping, np.array(addresses, dtype=np.int64))
    write = np.array(writes, dtype=np.int64)
    return simulate_requests(preset, where, write, outstanding, keep_log=MOST_COMMANDS)


@st.composite
def traces(draw):
    """Addresses that collide in banks and rows often enough to matter, with writes among them."""
    span = draw(st.sampled_from([1 << 14, 1 << 20, 1 << 28]))
    step = draw(st.sampled_from([1, 64, 4096, 65536]))
    n = draw(st.integers(1, 400))
    seed = draw(st.integers(0, 2**32 - 1))
    share = draw(st.sampled_from([0.0, 0.3, 1.0]))
    random = np.random.default_rng(seed)
    addresses = random.integers(0, max(1, span // step), n) * step
    return addresses, (random.random(n) < share).astype(np.int64)


@pytest.mark.parametrize("name", PRESETS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    trace=traces(),
    mapping=st.sampled_from(["hashed", "RoBaRaCoCh", "rochrababgco"]),
    page=st.sampled_from(["open", "closed"]),
)
def test_no_command_breaks_a_constraint(name, trace, mapping, page):
    preset = load_preset(name).replace(controller={"page": page}, organization={"channels": 1})
    # Refresh often, so that short traces meet it.
    refi = int(preset.spec.timing.rfc) + 400
    preset = preset.replace(timing={"refi": refi})
    run = commands(preset, *trace, mapping)
    assert list(map(str, check_log(preset, run.log))) == []
    posted = bool(preset.spec.controller.posted_writes)
    writes = int(trace[1].sum())
    assert run.counter[at.N_RD] == len(trace[1]) - writes
    assert posted or run.counter[at.N_WR] == writes


@pytest.mark.parametrize("name", ["gddr6", "hbm2", "hbm3", "lpddr5"])
def test_per_bank_refresh_keeps_the_constraints(name):
    preset = load_preset(name).replace(refresh={"mode": "per_bank"}, organization={"channels": 1})
    addresses = np.random.default_rng(1).integers(0, 1 << 22, 600) * 64
    run = commands(preset, addresses, np.zeros(600))
    assert list(check_log(preset, run.log)) == []
    assert (run.log[:, 1] == at.REFB).sum() > 0


def test_every_channel_keeps_its_constraints():
    preset = load_preset("hbm2")
    run = commands(preset, np.arange(1500) * 32, np.arange(1500) % 3 == 2)
    assert list(check_log(preset, run.log)) == []
    assert len(set(run.log[:, 2] // 32)) == 8


@pytest.mark.parametrize(
    ("command", "earlier", "rule"),
    [(at.RD, 1, "tRCD"), (at.ACT, 1, "tRP"), (at.PRE, 1, "tRAS")],
)
def test_a_command_moved_forward_is_found(command, earlier, rule):
    """Row conflicts one at a time: each command comes as soon as one constraint lets it."""
    preset = load_preset("ddr4").replace(refresh={"mode": "off"}, timing={"rtp": 1, "rc": 60})
    run = commands(preset, [0, 1 << 20, 2 << 20], [0, 0, 0], "rorababgcoch", outstanding=0)
    assert list(check_log(preset, run.log)) == []
    log = run.log.copy()
    last = np.flatnonzero(log[:, 1] == command)[-1]
    log[last, 0] -= earlier
    assert rule in {violation.rule for violation in check_log(preset, log)}


@pytest.mark.parametrize("gap", [0, 1])
def test_the_fifth_activation_waits_for_tfaw(gap):
    preset = load_preset("hbm2_dramsim3").replace(timing={"faw": 40})
    times = [0, 6, 12, 18, 40 - gap]
    log = np.array(
        [[when, at.ACT, bank, 3] for when, bank in zip(times, (0, 4, 8, 12, 1), strict=True)], dtype=np.int64
    )
    assert [violation.rule for violation in check_log(preset, log)] == ["tFAW"] * gap


def test_a_read_of_a_closed_row_is_found():
    preset = load_preset("ddr4")
    log = np.array([[0, at.ACT, 0, 3], [22, at.RD, 0, 4], [40, at.RD, 1, 0]], dtype=np.int64)
    assert [violation.rule for violation in check_log(preset, log)] == ["row open", "row open"]

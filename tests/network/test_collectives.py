"""Collectives: lower bounds, formulas by hand, hierarchies, and who shares which level."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effsim.devices.registry import load_machine
from effsim.errors import UnsupportedError
from effsim.network.collectives import CollectiveCosts, bound_s, plan
from effsim.network.topology import Network, NetworkLevel
from effsim.spec.hardware import Link

FREE = CollectiveCosts(0.0, 0.0, 1.0, 0.0)
OPS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "send_recv")


def level(size: int, rate: float, latency: float = 0.0, kind: str = "switch", reduces: bool = False) -> NetworkLevel:
    return NetworkLevel(f"{kind} {size}", kind, size, rate, latency, reduces)


@st.composite
def networks(draw: st.DrawFn) -> Network:
    kinds = st.sampled_from(["switch", "ring", "fully_connected", "fat_tree"])
    rates, latencies = st.floats(1e9, 1e12), st.floats(0.0, 1e-5)
    levels = [
        level(draw(st.sampled_from([2, 4, 8])), draw(rates), draw(latencies), draw(kinds), draw(st.booleans()))
        for _ in range(draw(st.integers(1, 3)))
    ]
    return Network(tuple(levels))


costs = st.builds(
    CollectiveCosts, st.floats(0, 1e-5), st.floats(0, 1e-6), st.floats(0.3, 1.0), st.sampled_from([0.0, 5e5, 1e7])
)
amounts = st.floats(1.0, 1e10)


@settings(max_examples=80)
@given(networks(), costs, st.sampled_from(OPS), amounts, st.sampled_from([2, 4, 8, 16]))
def test_no_plan_beats_the_bytes_that_must_travel(
    network: Network, cost: CollectiveCosts, op: str, size: float, devices: int
) -> None:
    devices = min(devices, network.devices)
    priced = plan(network, cost, op, size, devices)
    assert priced.total_s >= bound_s(network, op, size, devices) * (1 - 1e-9)
    assert priced.total_s == pytest.approx(priced.latency_s + priced.transfer_s)
    assert priced.steps >= 1


@settings(max_examples=60)
@given(networks(), costs, st.sampled_from(OPS), amounts, st.floats(1.0, 100.0), st.sampled_from([2, 4, 8]))
def test_more_bytes_never_take_less(
    network: Network, cost: CollectiveCosts, op: str, size: float, factor: float, devices: int
) -> None:
    devices = min(devices, network.devices)
    small, large = (plan(network, cost, op, s, devices).total_s for s in (size, size * factor))
    assert large >= small * (1 - 1e-9)


@settings(max_examples=60)
@given(costs, st.sampled_from(OPS[:4]), amounts, st.sampled_from(["switch", "ring"]), st.booleans())
def test_more_devices_on_one_level_never_take_less(
    cost: CollectiveCosts, op: str, size: float, kind: str, reduces: bool
) -> None:
    network = Network((level(16, 1e11, 1e-6, kind, reduces),))
    times = [plan(network, cost, op, size, d).total_s for d in (1, 2, 4, 8, 16)]
    assert times[0] == 0.0
    assert all(a <= b * (1 + 1e-9) for a, b in itertools.pairwise(times))
    bounds = [bound_s(network, op, size, d) for d in (1, 2, 4, 8, 16)]
    assert all(a <= b * (1 + 1e-9) for a, b in itertools.pairwise(bounds))


def test_ring_by_hand() -> None:
    # 8 ranks on a ring, 800 MB, 100 GB/s, 1 us a link and 0.5 us a step of software, 3 us of set-up, 80 % payload.
    network = Network((level(8, 100e9, 1e-6, "ring"),))
    cost = CollectiveCosts(3e-6, 0.5e-6, 0.8, 0.0)
    reduced = plan(network, cost, "all_reduce", 800e6, 8)
    assert reduced.latency_s == pytest.approx(3e-6 + 14 * 1.5e-6)
    assert reduced.transfer_s == pytest.approx(2 * 7 / 8 * 800e6 / 80e9)
    gathered = plan(network, cost, "all_gather", 800e6, 8)
    assert gathered.transfer_s == pytest.approx(7 / 8 * 800e6 / 80e9)
    assert gathered.latency_s == pytest.approx(3e-6 + 7 * 1.5e-6)


def test_all_reduce_is_scatter_and_gather() -> None:
    network = Network((level(8, 100e9),))
    times = {op: plan(network, FREE, op, 1e9, 8).transfer_s for op in OPS}
    assert times["all_reduce"] == pytest.approx(times["reduce_scatter"] + times["all_gather"])
    assert bound_s(network, "all_reduce", 1e9, 8) == pytest.approx(2 * 7 / 8 * 1e9 / 100e9)


def test_small_messages_take_one_step_large_ones_the_ring() -> None:
    network = Network((level(8, 100e9, 1e-6),))
    cost = CollectiveCosts(0.0, 0.0, 1.0, 1e6)
    assert plan(network, cost, "all_reduce", 1e3, 8).algorithm.startswith("one-shot")
    assert plan(network, cost, "all_reduce", 1e9, 8).algorithm.startswith("ring")
    tree = Network((level(64, 100e9, 1e-6, "ring"),))
    assert plan(tree, cost, "all_reduce", 1e3, 64).algorithm.startswith("tree")


def test_a_switch_that_adds_sends_one_copy() -> None:
    plain, adding = (Network((level(8, 100e9, reduces=r),)) for r in (False, True))
    assert bound_s(adding, "all_reduce", 1e9, 8) == pytest.approx(1e9 / 100e9)
    assert plan(adding, FREE, "all_reduce", 1e9, 8).transfer_s == pytest.approx(0.01)
    assert plan(plain, FREE, "all_reduce", 1e9, 8).transfer_s == pytest.approx(0.0175)


def test_hierarchy_by_hand() -> None:
    # 4 nodes of 8: 400 GB/s inside, 50 GB/s outside. 1.6 GB are scattered inside (7/8 at 400), the eighth is reduced
    # over the nodes (2·3/4 of 0.2 GB at 50), and gathered inside again.
    network = Network((level(8, 400e9), level(4, 50e9)))
    priced = plan(network, FREE, "all_reduce", 1.6e9, 32)
    assert priced.transfer_s == pytest.approx(2 * 7 / 8 * 1.6e9 / 400e9 + 2 * 3 / 4 * 0.2e9 / 50e9)
    flat = plan(Network((level(32, 50e9),)), FREE, "all_reduce", 1.6e9, 32)
    assert priced.transfer_s < flat.transfer_s
    # With one bandwidth everywhere the hierarchy sends exactly as much as the ring.
    even = plan(Network((level(8, 50e9), level(4, 50e9))), FREE, "all_reduce", 1.6e9, 32)
    assert even.transfer_s == pytest.approx(flat.transfer_s)


@pytest.mark.parametrize("op", ["all_gather", "reduce_scatter", "all_to_all"])
def test_levels_share_what_a_flat_network_sends(op: str) -> None:
    nested = plan(Network((level(8, 50e9), level(4, 50e9))), FREE, op, 1.6e9, 32)
    flat = plan(Network((level(32, 50e9),)), FREE, op, 1.6e9, 32)
    assert nested.transfer_s == pytest.approx(flat.transfer_s) == pytest.approx(31 / 32 * 1.6e9 / 50e9)


def test_all_to_all_sends_every_level_its_partners() -> None:
    # Of 31 partners 7 are inside (400 GB/s) and 24 outside (50 GB/s), each gets 1/32 of 1.6 GB.
    network = Network((level(8, 400e9), level(4, 50e9)))
    priced = plan(network, FREE, "all_to_all", 1.6e9, 32)
    assert priced.transfer_s == pytest.approx(7 / 32 * 1.6e9 / 400e9 + 24 / 32 * 1.6e9 / 50e9)
    assert bound_s(network, "all_to_all", 1.6e9, 32) == pytest.approx(24 / 32 * 1.6e9 / 50e9)


# --- topology ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("devices", "stride", "expected"),
    [
        (1, 1, []),
        (4, 1, [("a", 4)]),
        (8, 1, [("a", 8)]),
        (32, 1, [("a", 8), ("b", 4)]),
        (16, 1, [("a", 8), ("b", 2)]),
        (4, 8, [("b", 4)]),  # one device of every node
        (2, 4, [("a", 2)]),  # both halves of a node
        (8, 4, [("a", 2), ("b", 4)]),
        (2, 16, [("b", 2)]),  # nodes 0 and 2
    ],
)
def test_spans(devices: int, stride: int, expected: list[tuple[str, int]]) -> None:
    a, b = (NetworkLevel(n, "switch", s, 1e9, 0.0) for n, s in (("a", 8), ("b", 4)))
    found = Network((a, b)).spans(devices, stride)
    assert [(lvl.name, members) for lvl, members in found] == expected


@pytest.mark.parametrize(("devices", "stride"), [(33, 1), (8, 8), (2, 32)])
def test_groups_larger_than_the_network_are_refused(devices: int, stride: int) -> None:
    network = Network((level(8, 1e9), level(4, 1e9)))
    with pytest.raises(UnsupportedError, match=f"group of {devices} devices does not fit on a network of 32"):
        network.spans(devices, stride)


def test_links_of_a_bare_device() -> None:
    slow = Link(kind="pcie", bandwidth=63e9, latency=1e-6, max_devices=4)
    fast = Link(kind="nvlink", bandwidth=450e9, latency=5e-7, max_devices=8, in_network_reduction=True)
    network = Network.from_links({"pcie": slow, "nvlink": fast})
    assert network.devices == 8
    (only,) = network.levels
    assert (only.name, only.bytes_per_s, only.reduces) == ("nvlink", 450e9, True)
    assert Network.from_links({}).devices == 1


def test_bundled_systems_multiply_to_their_devices() -> None:
    machine = load_machine("system_h100_64")
    assert machine.network.devices == 64
    assert len(machine.network.levels) == 2
    inside = plan(machine.network, FREE, "all_reduce", 1e9, 8).total_s
    outside = plan(machine.network, FREE, "all_reduce", 1e9, 8, 8).total_s
    assert outside > inside


def test_unknown_collective_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="no algorithm"):
        plan(Network((level(8, 1e9),)), FREE, "gossip", 1e9, 8)

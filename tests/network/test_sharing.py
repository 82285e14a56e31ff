"""Links that groups share: counting against queues, and by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effsim.network.collectives import CollectiveCosts, plan
from effsim.network.sharing import Traffic, counted, queued, ring_path, shared
from effsim.network.topology import Network, NetworkLevel

FREE = CollectiveCosts(0.0, 0.0, 1.0, 0.0)


@st.composite
def traffics(draw: st.DrawFn) -> Traffic:
    distance = draw(st.sampled_from([1, 2, 4]))
    members = draw(st.sampled_from([2, 4, 8]))
    size = distance * members * draw(st.sampled_from([1, 2]))
    lanes = draw(st.sampled_from([1, 2, 4]))
    return Traffic(
        kind=draw(st.sampled_from(["fat_tree", "switch", "ring"])),
        size=size,
        lanes=lanes,
        devices=draw(st.sampled_from([n for n in (1, 2, 4) if n <= lanes])),
        shared_by=draw(st.sampled_from([n for n in (1, 2, 4) if n <= lanes])),
        oversubscription=draw(st.sampled_from([1.0, 2.0, 3.0])),
        leaf=draw(st.sampled_from([n for n in (1, 2, 4, 8) if n <= size])),
        members=members,
        distance=distance,
        side_by_side=distance if draw(st.booleans()) else 1,
        everyone=draw(st.booleans()),
    )


@settings(max_examples=120, deadline=None)
@given(traffics())
def test_queues_take_what_counting_says(traffic: Traffic) -> None:
    """Within the granularity of the queues: pieces of a message pass several links one after another."""
    assert queued(traffic) == pytest.approx(counted(traffic), rel=0.12)
    assert counted(traffic) >= 1.0


@pytest.mark.parametrize(
    ("traffic", "slowed"),
    [
        # Leaves of one member, groups two apart: of the two side by side each leaf sends one, at half an adapter's rate.
        (Traffic("fat_tree", 4, 1, 1, 1, 2.0, 1, 2, 2, 2, False), 2.0),
        # Two devices of one adapter, all to all on a ring: the links would take 4/3, the adapter sends one by one.
        (Traffic("ring", 4, 2, 2, 2, 1.0, 4, 4, 1, 1, True), 2.0),
        # Eight messages over each of 28 links back to the first: that a piece passes them all does not hide it.
        (Traffic("ring", 64, 2, 2, 2, 1.0, 8, 8, 4, 4, False), 8.0),
    ],
)
def test_both_ways_find_what_the_busiest_link_carries(traffic: Traffic, slowed: float) -> None:
    assert counted(traffic) == pytest.approx(slowed)
    assert queued(traffic) == pytest.approx(slowed)


@settings(max_examples=60)
@given(traffics())
def test_more_groups_or_narrower_links_never_help(traffic: Traffic) -> None:
    for wider in (
        replace(traffic, side_by_side=1),
        replace(traffic, shared_by=1),
        replace(traffic, oversubscription=1.0),
    ):
        assert counted(wider) <= counted(traffic) * (1 + 1e-12)


def node_of(shared_by: int = 1, **level: float) -> Network:
    near = NetworkLevel("near", "switch", 4, 400e9, 1e-6)
    return Network((near, NetworkLevel("far", "fat_tree", 8, 50e9, 5e-6, shared_by=shared_by, **level)))  # type: ignore[arg-type]


@pytest.mark.parametrize(("shared_by", "groups", "slowed"), [(1, 4, 1), (2, 4, 2), (4, 4, 4), (4, 1, 1), (4, 2, 2)])
def test_groups_through_one_adapter_divide_it(shared_by: int, groups: int, slowed: int) -> None:
    """Groups of two ranks, one in each node: so many of them leave a node through one adapter."""
    alone = plan(node_of(), FREE, "all_reduce", 1e9, 2, 4)
    seen = plan(node_of(shared_by), FREE, "all_reduce", 1e9, 2, 4, groups=groups)
    assert seen.transfer_s == pytest.approx(slowed * alone.transfer_s)
    assert seen.latency_s == alone.latency_s


def test_a_group_over_whole_nodes_shares_with_itself() -> None:
    """All four devices of a node reduce their quarter outside at once, through one adapter."""
    wide = plan(node_of(), FREE, "all_reduce", 1e9, 8).transfer_s
    narrow = plan(node_of(4), FREE, "all_reduce", 1e9, 8).transfer_s
    assert narrow - wide == pytest.approx(3 * 2 * 1 / 2 * 0.25e9 / 50e9)
    # One ring through all ranks has the adapter to itself.
    flat = [plan(net, FREE, "all_reduce", 1e9, 8, algorithm="ring").transfer_s for net in (node_of(), node_of(4))]
    assert flat[0] == flat[1]


def test_what_leaves_an_oversubscribed_leaf_is_slowed() -> None:
    tree = {"oversubscription": 4.0, "leaf": 4}
    plain = plan(node_of(), FREE, "all_reduce", 1e9, 2, 4, groups=4).transfer_s
    assert plan(node_of(**tree), FREE, "all_reduce", 1e9, 2, 4, groups=4).transfer_s == plain  # neighbours, one leaf
    # Four nodes apart every group leaves its leaf: sixteen groups over a quarter of sixteen uplinks.
    far, wide = (plan(net, FREE, "all_reduce", 1e9, 2, 16, groups=16) for net in (node_of(**tree), node_of()))
    assert far.transfer_s == pytest.approx(4 * wide.transfer_s)
    # A ring of all nodes crosses a leaf's border once.
    once, never = (plan(net, FREE, "all_reduce", 1e9, 8, 4, groups=4) for net in (node_of(**tree), node_of()))
    assert once.transfer_s == pytest.approx(never.transfer_s)


def test_rings_between_distant_ranks_share_the_links_between() -> None:
    network = Network((NetworkLevel("ring", "ring", 8, 100e9, 1e-6),))
    near = plan(network, FREE, "all_reduce", 1e9, 4, 1, groups=2).transfer_s
    far = plan(network, FREE, "all_reduce", 1e9, 4, 2, groups=2).transfer_s
    assert far == pytest.approx(2 * near)
    assert plan(network, FREE, "all_reduce", 1e9, 4, 2, groups=1).transfer_s == pytest.approx(near)


def test_networks_without_shared_links_stay_as_they_are() -> None:
    network = node_of()
    assert shared(network, "all_reduce", 8, 1, 4, counted) is network


def test_ways_around_a_ring() -> None:
    assert ring_path(8, 2, 5, closed=False) == (("forward", 2), ("forward", 3), ("forward", 4))
    assert ring_path(8, 3, 0, closed=False) == (("backward", 3), ("backward", 2), ("backward", 1))
    assert [len(ring_path(8, 0, n, closed=True, shortest=True)) for n in range(1, 8)] == [1, 2, 3, 4, 3, 2, 1]

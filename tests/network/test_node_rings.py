"""Rings and trees through nodes, and published figures that nothing was fitted to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effsim.errors import DataError
from effsim.network.protocols import MEBI, PACKET_SHARE, NodeRings, ProtocolCosts, Ring
from effsim.validation.collectives import Case, bus_factor, device_of, section, validate_collectives
from effsim.validation.tables import data_folder

COSTS = ProtocolCosts(16, 15e-6, 1.5e-6, 1e12, 1e11, 0.0, 3e-6, 0.6, 0.0, 8)


def rings(inner: int = 8, nodes: int = 4, adapter: float = 50e9) -> NodeRings:
    return NodeRings(Ring(COSTS, 4e-6, 0.3e-6, 370e9, 0.5e-6), inner, nodes, adapter * PACKET_SHARE, 2.7e-6)


def test_a_long_ring_runs_at_the_narrower_of_links_and_adapters() -> None:
    size = 64e9
    for adapter, rate in ((50e9, 370e9), (25e9, 8 * 25e9 * PACKET_SHARE)):
        seconds = rings(adapter=adapter).collective("all_reduce", size).total_s
        ideal = bus_factor("all_reduce", 32) * size / rate
        assert ideal < seconds < 1.03 * ideal


def test_one_hop_in_a_node_is_a_network_hop() -> None:
    ring = rings().ring(2, 62, 0.0)
    assert ring.latency_s == pytest.approx(62 * (7 * 2.0e-6 + 14e-6) / 8)


def test_trees_take_short_messages_over_many_nodes() -> None:
    assert rings(nodes=64).collective("all_reduce", 4096.0).name.startswith("tree")
    assert rings(nodes=2).collective("all_reduce", 8e9).name == "ring"


@given(
    st.floats(1.0, 64e9), st.floats(1.0, 2.0), st.sampled_from(["all_reduce", "all_gather"]), st.sampled_from([1, 4, 8])
)
def test_more_bytes_and_slower_adapters_never_take_less(size: float, more: float, op: str, inner: int) -> None:
    base = rings(inner).collective(op, size).total_s
    assert rings(inner).collective(op, size * more).total_s >= base * (1 - 1e-12)
    assert rings(inner, adapter=50e9 / more).collective(op, size).total_s >= base * (1 - 1e-12)
    assert rings(inner, nodes=8).exchange(size).total_s >= rings(inner, nodes=4).exchange(size).total_s * (1 - 1e-12)


def test_peers_of_an_exchange_start_in_doubling_batches() -> None:
    node = Ring(replace(COSTS, peer_setup_s=12e-6), 4e-6, 0.3e-6, 370e9, 0.5e-6)
    times = [node.exchange(d, 8.0 * d).latency_s for d in (2, 4, 8)]
    assert times == pytest.approx([2 * 0.8e-6, 3 * 0.8e-6, 4 * 0.8e-6])
    # Beyond the low-latency protocol the start is what was measured.
    assert node.exchange(2, 4 * MEBI).setup_s == 12e-6


def test_a_case_on_levels_of_its_own() -> None:
    device = device_of("system_h100_64", ((8, 0.0), (16, 25e9)))
    assert [(level.size, level.bytes_per_s) for level in device.network.levels] == [(8, 450e9), (16, 25e9)]
    case = Case("x", "system_h100_64", ((8, 0.0), (16, 25e9)), "all_reduce", 8e9, 128, 1, "fp16", 1.0)
    assert case.predicted_s() > bus_factor("all_reduce", 128) * 8e9 / (8 * 25e9)


def test_published_figures() -> None:
    try:
        path = data_folder() / "published.csv"
    except DataError:
        pytest.skip("no published figures here")
    if not Path(path).is_file():
        pytest.skip("no published figures here")
    scores = {(s.label, s.above): s.score for s in validate_collectives(path)}
    rings_over_nodes = [
        s for (label, _), s in scores.items() if label.endswith("nodes") and "SimAI all_reduce, " in label
    ]
    assert len(rings_over_nodes) == 4
    assert all(s.median < 0.1 for s in rings_over_nodes)
    assert scores["H100, eight, all_reduce", True].median < 0.1
    assert section(validate_collectives(path))[0].startswith("##")

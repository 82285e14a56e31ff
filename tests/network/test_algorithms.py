"""Named algorithms: α–β closed forms by hand, and which one is taken at which size and level."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from effsim.devices.registry import load_machine
from effsim.graph.operators.communication import Collective
from effsim.network.algorithms import halving_doubling, ring, tree
from effsim.network.collectives import CollectiveCosts, bound_s, plan
from effsim.network.topology import Network, NetworkLevel
from effsim.spec.system import Level

ALPHA, RATE = 2e-6, 100e9
COSTS = CollectiveCosts(3e-6, 0.5e-6, 0.8, 0.0)
NAMES = ("ring", "tree", "halving_doubling", "hierarchical")


def flat(d: int, kind: str = "switch") -> Network:
    return Network((NetworkLevel("one", kind, d, RATE, ALPHA),))


def nested(inner: int = 8, outer: int = 4) -> Network:
    near = NetworkLevel("near", "switch", inner, 400e9, 1e-6)
    return Network((near, NetworkLevel("far", "fat_tree", outer, 50e9, 5e-6)))


def forced(network: Network, algorithm: str, op: str, size: float, d: int, stride: int = 1) -> tuple[float, float]:
    priced = plan(network, COSTS, op, size, d, stride, algorithm=algorithm)
    return priced.latency_s - COSTS.setup_s, priced.transfer_s


@pytest.mark.parametrize("d", [2, 4, 8, 16, 64])
@pytest.mark.parametrize("size", [1e3, 1e9])
def test_closed_forms_on_one_level(d: int, size: float) -> None:
    step, rate, share = ALPHA + 0.5e-6, 0.8 * RATE, (d - 1) / d
    expected = {
        "ring": (2 * (d - 1) * step, 2 * share * size / rate),
        "tree": (2 * math.log2(d) * step, 2 * size / rate),
        "halving_doubling": (2 * math.log2(d) * step, 2 * share * size / rate),
    }
    for name, terms in expected.items():
        assert forced(flat(d), name, "all_reduce", size, d) == pytest.approx(terms)
    for op in ("all_gather", "reduce_scatter"):
        assert forced(flat(d), "ring", op, size, d) == pytest.approx(((d - 1) * step, share * size / rate))
        assert forced(flat(d), "halving_doubling", op, size, d) == pytest.approx(
            (math.log2(d) * step, share * size / rate)
        )


def test_ranks_beyond_a_power_of_two_fold_first() -> None:
    steps = halving_doubling("all_reduce", 6, 4e9)
    assert (steps.count, steps.moved) == (2 + 2 + 2, 2 * 3 / 4 * 4e9 + 2 * 4e9)


def test_flat_and_hierarchical_over_two_levels() -> None:
    size, slow, fast = 1.6e9, 0.8 * 50e9, 0.8 * 400e9
    latency, transfer = forced(nested(), "ring", "all_reduce", size, 32)
    assert (latency, transfer) == pytest.approx((62 * 5.5e-6, 2 * 31 / 32 * size / slow))
    latency, transfer = forced(nested(), "tree", "all_reduce", size, 32)
    assert (latency, transfer) == pytest.approx((6 * 1.5e-6 + 4 * 5.5e-6, 2 * size / slow))
    latency, transfer = forced(nested(), "halving_doubling", "all_reduce", size, 32)
    expected = 2 * 7 / 8 * size / fast + 2 * 3 / 4 * size / 8 / slow
    assert (latency, transfer) == pytest.approx((6 * 1.5e-6 + 4 * 5.5e-6, expected))
    # Inside, out and in again moves the same bytes; its steps are those of each level's own choice.
    assert forced(nested(), "hierarchical", "all_reduce", size, 32)[1] == pytest.approx(expected)


def test_size_and_level_decide() -> None:
    """Trees take short messages, rings long ones; halving-doubling both where any two members are joined directly."""
    by_size = [plan(flat(64, "ring"), COSTS, "all_reduce", size, 64).algorithm for size in (1e3, 1e10)]
    assert by_size == ["tree (one)", "ring (one)"]
    switched = plan(flat(64, "fat_tree"), COSTS, "all_reduce", 1e6, 64).algorithm
    assert switched == "halving-doubling (one)"
    assert plan(flat(48, "fat_tree"), COSTS, "all_reduce", 1e10, 48).algorithm == "ring (one)"
    both = plan(nested(), COSTS, "all_reduce", 1e9, 32).algorithm
    assert "near" in both
    assert "far" in both


@settings(max_examples=60)
@given(
    st.sampled_from(NAMES),
    st.sampled_from(["all_reduce", "all_gather", "reduce_scatter"]),
    st.floats(1.0, 1e10),
    st.sampled_from([2, 4, 6, 8, 16, 32]),
    st.floats(1.0, 10.0),
)
def test_no_algorithm_beats_the_bound_and_faster_links_never_hurt(
    name: str, op: str, size: float, d: int, more: float
) -> None:
    network = nested()
    priced = plan(network, COSTS, op, size, d, algorithm=name)
    assert priced.total_s >= bound_s(network, op, size, d) * (1 - 1e-12)
    faster = Network(tuple(_faster(level, more) for level in network.levels))
    assert plan(faster, COSTS, op, size, d, algorithm=name).total_s <= priced.total_s * (1 + 1e-12)
    assert plan(network, COSTS, op, size * more, d, algorithm=name).total_s >= priced.total_s * (1 - 1e-12)


def _faster(level: NetworkLevel, factor: float) -> NetworkLevel:
    return NetworkLevel(level.name, level.kind, level.size, level.bytes_per_s * factor, level.latency_s)


def test_steps_by_hand() -> None:
    assert (ring("all_gather", 4, 4.0).count, ring("all_gather", 4, 4.0).moved) == (3, 3.0)
    assert tree("all_gather", 4, 4.0) is None
    whole = tree("all_reduce", 5, 4.0)
    assert whole is not None
    assert whole.count == 6


def test_a_system_file_forces_and_a_workload_overrides() -> None:
    machine = load_machine("system_h100_64", ["hardware.collectives=tree"])
    assert machine.network.algorithm == "tree"
    device = machine.device
    named = device.lower(Collective("all_reduce", 1e8, 16)).kernels[0].name
    assert named == "all_reduce tree (nvlink + infiniband)"
    named = device.lower(Collective("all_reduce", 1e8, 16, algorithm="ring")).kernels[0].name
    assert named == "all_reduce ring (nvlink + infiniband)"
    # What a tree cannot do is left to the library.
    assert "tree" not in device.lower(Collective("all_gather", 1e8, 16)).kernels[0].name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"oversubscription": 0.5, "leaf": 4}, "expected 1 or more"),
        ({"kind": "switch", "oversubscription": 2.0, "leaf": 4}, "for levels of kind fat_tree"),
        ({"oversubscription": 2.0}, "needs 'leaf'"),
        ({"oversubscription": 2.0, "leaf": 8}, "below 'size'"),
    ],
)
def test_wrong_fat_trees_are_refused(change: dict[str, object], message: str) -> None:
    fields = {"name": "n", "kind": "fat_tree", "size": 8, "bandwidth": "50 GB/s", "latency": "3 us"}
    with pytest.raises(ValidationError, match=message):
        Level.model_validate(fields | change)

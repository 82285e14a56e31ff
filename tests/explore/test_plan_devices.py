"""A plan counts the devices that a simulation runs on, however replicas are divided; or it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import effsim
from effsim.errors import SpecError
from effsim.explore.plan.pools import packed, shared

LOAD = (
    "workload.serving={arrivals: {rate: 1200, requests: 100}, prompt: {distribution: lognormal, mean: 700, cv: 0.8}, "
    "output: {distribution: lognormal, mean: 40, cv: 0.5}, scheduler: {max_sequences: 32, max_tokens: 1024}}"
)
SMALL = [LOAD, "workload.layers=4"]
PRICE = 3.0


def tiny(**changes: Any) -> dict[str, Any]:
    plan: dict[str, Any] = {
        "kind": "plan",
        "name": "tiny",
        "workload": "llama3_8b_generate",
        "set": SMALL,
        "slo": {"ttft": {"p95": "15 ms"}, "tpot": {"p95": "3 ms"}},
        "candidates": [{"hardware": "gpu_h100"}],
        "parallelism": [{"tensor": 1}],
        "prices": {"gpu_h100": f"{PRICE} USD/h"},
        "most_devices": 8,
        "finalists": 1,
        "upgrades": False,
    }
    return plan | changes


def served(*sets: str) -> effsim.ServeResult:
    return effsim.serve("gpu_h100", "llama3_8b_generate", set=[*SMALL, *sets])


def keeps(result: effsim.ServeResult) -> bool:
    assert result.ttft_s is not None
    assert result.tpot_s is not None
    return not result.refused and result.ttft_s["p95"] <= 0.015 and result.tpot_s["p95"] <= 0.003


def test_pools_are_found_as_serve_alone_would_find_them() -> None:
    found = effsim.plan(tiny(disaggregation=[{"prefill": 2, "decode": 1, "bandwidth": "50 GB/s", "decode_tensor": 2}]))
    winner = found.answer.winner
    assert winner is not None
    assert winner.replicas is not None
    assert winner.replicas > 2, "the fewest replicas there can be prove nothing"

    def run(replicas: int) -> effsim.ServeResult:
        reading, generating = shared(replicas, 2, 1)
        pools = f"prefill_replicas: {reading}, decode_replicas: {generating}, decode_tensor: 2, bandwidth: 50 GB/s"
        return served(f"workload.serving.disaggregated={{{pools}}}", "workload.parallelism={tensor: 1}")

    fewest = next(n for n in range(2, 8) if keeps(run(n)))
    one = run(fewest)
    reading, generating = shared(fewest, 2, 1)
    assert (winner.replicas, winner.devices) == (fewest, reading + 2 * generating)
    assert winner.devices == one.devices
    assert winner.usd_per_hour == PRICE * one.devices
    assert winner.measured is not None
    assert winner.measured.latencies["ttft"] == one.ttft_s
    assert winner.measured.energy_j is not None
    assert 30.0 * one.device_seconds < winner.measured.energy_j < 700.0 * one.device_seconds
    record = found.as_dict()["winner"]
    assert record["pools"] == [
        {"name": "prefill", "replicas": reading, "devices": 1},
        {"name": "decode", "replicas": generating, "devices": 2},
    ]


@pytest.mark.slow
def test_pools_and_one_kind_compete_and_each_pool_can_grow() -> None:
    ways: list[Any] = ["off", {"bandwidth": "50 GB/s"}]
    found = effsim.plan(tiny(disaggregation=ways, finalists=2, upgrades=True))
    assert {f.configuration.split is None for f in found.answer.fleets} == {True, False}
    only = effsim.plan(tiny(disaggregation=ways[1:], upgrades=True))
    assert only.explanation is not None
    more = {u.name: u.devices for u in only.explanation.upgrades if u.kind == "fleet"}
    assert only.answer.winner is not None
    n = only.answer.winner.devices
    assert n is not None
    assert more == {"one more prefill replica": n + 1, "one more decode replica": n + 1}


@pytest.mark.parametrize(
    "change",
    [
        {"candidates": [{"hardware": "gpu_h100", "set": ["hardware.links=null"]}]},
        {"most_devices": 16},
    ],
    ids=["no network", "a fleet larger than its network"],
)
def test_pools_without_a_network_between_them_are_not_planned(change: dict[str, Any]) -> None:
    found = effsim.plan(tiny(disaggregation=[{"decode": 2}]) | change)
    assert [s.status for s in found.answer.screened] == ["unsupported"]
    assert "state the 'bandwidth'" in found.answer.screened[0].message


def test_data_ranks_that_share_nothing_are_the_replicas_they_are() -> None:
    def fleet(parallelism: dict[str, int]) -> dict[str, Any]:
        found = effsim.plan(tiny(parallelism=[parallelism], objective="devices"))
        return found.as_dict()["winner"]

    together, apart = fleet({"data": 2}), fleet({"data": 1})
    assert apart["devices"] == apart["replicas"]
    assert together["devices"] == 2 * together["replicas"] == together["measured"]["replicas"] * 2
    assert together["devices"] in (apart["devices"], apart["devices"] + 1), "data ranks come two at a time"
    if together["devices"] == apart["devices"]:
        for name in ("usd_per_hour", "power_w", "usd_per_million_output_tokens"):
            assert together[name] == pytest.approx(apart[name])


@pytest.mark.parametrize(
    ("workload", "degrees", "devices"),
    [
        ("llama3_8b_generate", {"tensor": 8, "pipeline": 2}, 16),
        ("llama3_8b_generate", {"tensor": 2, "context": 2}, 4),
        ("mixtral_8x7b_decode", {"tensor": 4, "expert": 4}, 4),
        ("mixtral_8x7b_decode", {"data": 4, "expert": 4}, 4),
    ],
)
def test_every_degree_counts_its_devices(workload: str, degrees: dict[str, int], devices: int) -> None:
    load = LOAD.replace("rate: 1200, requests: 100", "rate: 20, requests: 10")
    one = [{"hardware": "system_h100_64", "unit": 8}]
    found = effsim.plan(
        tiny(
            workload=workload,
            set=[load, "workload.layers=4"],
            slo={"ttft": {"p95": "5 s"}},
            candidates=one,
            prices={"system_h100_64": f"{PRICE} USD/h"},
            parallelism=[degrees],
            most_devices=32,
        )
    )
    fleet = found.as_dict()["winner"]
    assert fleet is not None, [s.message for s in found.answer.screened]
    assert fleet["replicas"] == 1
    assert fleet["devices_per_replica"] == devices
    assert fleet["devices"] == max(8, devices)
    m = fleet["measured"]
    assert 20.0 * devices * m["duration_s"] < m["energy_j"] < 700.0 * devices * m["duration_s"]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("workload.serving.autoscaling={max_replicas: 4}", "autoscaling"),
        ("workload.serving.disaggregated={decode_hardware: gpu_a100, bandwidth: 50 GB/s}", "two kinds of device"),
        ("workload.serving.failures={outages: [{replica: 2, at: 1 s, lasts: 1 s}]}", "outage of replica 2"),
    ],
)
def test_what_has_no_fixed_devices_is_refused(extra: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        effsim.plan(tiny(set=[*SMALL, extra]))


def test_a_fleet_that_survives_an_outage_is_larger_and_pays_for_what_is_down() -> None:
    load = "workload.serving.failures={outages: [{replica: 0, at: 0.01 s, lasts: 10 s}], detection: 0 s}"
    whole, hurt = (effsim.plan(tiny(set=sets)).answer.winner for sets in (SMALL, [*SMALL, load]))
    assert whole is not None
    assert hurt is not None
    assert (hurt.replicas or 0) > (whole.replicas or 0)


PLAN = """\
kind: plan
name: places
workload: llama3_8b_generate
set:
  - workload.layers=2
slo: {ttft: {p95: 1 s}}
candidates:
  - hardware: gpu_h100
    set:
      - hardware.memory.capacity=1 TB
variants:
  - name: a
    set:
      - workload.batch=2
whatif:
  - name: more
    set:
      - workload.serving.arrivals.requests=20
      - hardware.memory.bandwidth=8 TB/s
"""


@pytest.mark.parametrize(
    ("right", "wrong", "position"),
    [
        ("layers=2", "layerz=2", "5:5"),
        ("memory.capacity=1 TB", "memory.capacity=1 s", "10:9"),
        ("batch=2", "batch=two", "14:9"),
        ("arrivals.requests=20", "arrivals.requestz=20", "18:9"),
        ("bandwidth=8 TB/s", "bandwith=8 TB/s", "19:9"),
    ],
)
def test_a_wrong_assignment_is_pointed_at_where_it_stands(
    tmp_path: Path, right: str, wrong: str, position: str
) -> None:
    (tmp_path / "plan.yaml").write_text(PLAN.replace(right, wrong), encoding="utf-8")
    with pytest.raises(SpecError) as error:
        effsim.plan(str(tmp_path / "plan.yaml"))
    assert f"plan.yaml:{position}: " in str(error.value)


@given(st.integers(2, 60), st.integers(1, 9), st.integers(1, 9))
def test_pools_only_grow_and_stay_near_their_ratio(replicas: int, prefill: int, decode: int) -> None:
    now, then = shared(replicas, prefill, decode), shared(replicas + 1, prefill, decode)
    assert sum(now) == replicas
    assert min(now) >= 1
    assert all(b >= a for a, b in zip(now, then, strict=True))
    assert min(now) == 1 or abs(now[0] - replicas * prefill / (prefill + decode)) <= 0.5
    whole = 3 * (prefill + decode)
    assert shared(whole, prefill, decode) == (3 * prefill, 3 * decode)


sizes = st.integers(1, 12)


@given(sizes, sizes, st.integers(0, 12), st.integers(0, 12), st.integers(1, 12))
def test_two_sizes_are_packed_into_units_that_hold_them(a: int, b: int, x: int, y: int, unit: int) -> None:
    bought = packed([(x, a), (y, b)], unit)
    assert bought % unit == 0
    assert bought >= x * a + y * b
    assert bought <= packed([(x, a)], unit) + packed([(y, b)], unit)
    assert packed([(x + 1, a), (y, b)], unit) >= bought
    assert packed([(x, a), (y + 1, b)], unit) >= bought

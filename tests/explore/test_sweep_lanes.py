"""Many points at once are the same numbers as each point alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import effsim
from effsim.devices.gpu.device import GpuDevice
from effsim.devices.registry import load_machine
from effsim.elementwise import elementwise
from effsim.explore.sweep.evaluate import Evaluator
from effsim.explore.sweep.lane_gpu import rate_path
from effsim.explore.sweep.lanes import Diverged, Lanes, run
from effsim.explore.sweep.sampling import Points
from effsim.spec.study import StudySpec

RATES = {
    "memory.bandwidth": ("0.5 TB/s", "20 TB/s"),
    "memory.latency": ("100 ns", "900 ns"),
    "l2.bandwidth": ("1 TB/s", "20 TB/s"),
    "l2.latency": ("50 ns", "500 ns"),
    "l2.capacity": ("8 MiB", "200 MiB"),
    "clock.sustained": ("0.5 GHz", "3 GHz"),
    "clock.boost": ("0.5 GHz", "3 GHz"),
    "sm.l1.bandwidth": ("32 B/cycle", "512 B/cycle"),
    "special": ("4 OP/cycle", "64 OP/cycle"),
    "matrix.fp16": ("512 FLOP/cycle", "8192 FLOP/cycle"),
    "matrix.bf16": ("512 FLOP/cycle", "8192 FLOP/cycle"),
    "vector.fp32": ("64 FLOP/cycle", "512 FLOP/cycle"),
}


def evaluator(
    hardware: str,
    workload: str,
    prefix: str,
    reading: str = "analytic",
    rates: dict[str, tuple[str, str]] | None = None,
    **more: Any,
) -> Any:
    """An evaluator and its points over every rate, or the *rates* that are given."""
    chosen = RATES if rates is None else rates
    parameters = [{"path": f"{prefix}.{path}", "range": {"low": a, "high": b}} for path, (a, b) in chosen.items()]
    fields = {"kind": "study", "name": "t", "hardware": hardware, "workload": workload, "reading": reading}
    fields |= {"parameters": parameters, "method": "random", "objectives": [{"name": "time_s", "goal": "min"}]}
    study = StudySpec.model_validate(fields | {"samples": 24} | more)
    return Evaluator(study, "."), Points(study, int(study.seed)).take(0, 24)


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Equal rows, sums up to rounding."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, float):
            assert other[name] == pytest.approx(value, rel=1e-12), name
        else:
            assert other[name] == value, name


HOSTS = ("trtllm-like", "vllm-like", "fastertransformer")
"""Engines with a host beside the device, with one between its steps, and with kernels queued in a stream."""


def read_together(both: Any, points: Any) -> list[Any]:
    """Rows of the points that are read together, None for the others."""
    found: list[Any] = [None] * len(points)
    group, lanes = both._group(points[0])
    both._together(group, lanes, points, list(range(len(points))), found)
    return found


def read_alone(both: Any, point: Any) -> dict[str, Any]:
    """The row of one point, as the run command reads it."""
    row: dict[str, Any] = both._alone(both._group(point, lanes=False)[0])
    return row


@pytest.mark.parametrize(
    ("hardware", "workload", "prefix", "reading"),
    [
        ("gpu_h100", "llama70b_decode", "hardware", "analytic"),
        ("system_dgx_h100", "llama3_70b_fp8_decode", "hardware.device", "analytic"),
        ("gpu_a100", "mixtral_8x7b_decode", "hardware", "roofline"),
        ("gpu_a100", "mamba2_2_7b_prefill", "hardware", "analytic"),
        ("gpu_h100", "llama7b_int4_decode", "hardware", "analytic"),
        pytest.param("gpu_h200", "deepseek_v2_lite_generate", "hardware", "analytic", marks=pytest.mark.slow),
        pytest.param("gpu_a100", "gpt2_training", "hardware", "analytic", marks=pytest.mark.slow),
    ],
)
@settings(max_examples=2, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@example(seed=0)
@given(seed=st.integers(0, 2**31))
def test_points_read_together_are_points_read_alone(
    hardware: str, workload: str, prefix: str, reading: str, seed: int
) -> None:
    both, points = evaluator(hardware, workload, prefix, reading, seed=seed)
    together = both.rows(points)
    assert None not in read_together(both, points), "these points were meant to be read together"
    for index in (0, 7, 23):
        alone = both._judged(read_alone(both, points[index]))
        same(alone, {name: value for name, value in together[index].items() if name in alone})


def link(path: str) -> dict[str, tuple[str, str]]:
    """Ranges of a link's numbers, wide enough that other algorithms become the fastest."""
    return {f"{path}.bandwidth": ("70 GB/s", "2000 GB/s"), f"{path}.latency": ("0.1 us", "20 us")}


SIXTEEN = {"set": ["workload.parallelism={tensor: 16}"]}
"""Tensor ranks on two nodes."""

FAST = {"memory.bandwidth": ("0.5 TB/s", "20 TB/s"), "clock.sustained": ("0.5 GHz", "3 GHz")}


@pytest.mark.parametrize(
    ("hardware", "workload", "rates", "more"),
    [
        ("gpu_h100", "llama3_70b_decode", link("links.nvlink") | FAST, {}),
        ("gpu_h100", "llama3_70b_decode", link("links.nvlink"), {"reading": "roofline"}),
        ("system_dgx_h100", "llama3_70b_prefill", link("topology.0"), {}),
        ("system_h100_64", "llama3_70b_decode", link("topology.0") | link("topology.1"), SIXTEEN),
        (
            "system_a100_64",
            "llama3_70b_decode",
            link("topology.1"),
            {"set": [*SIXTEEN["set"], "hardware.collectives=halving_doubling"]},
        ),
    ],
)
def test_links_read_together_are_links_read_alone(
    hardware: str, workload: str, rates: dict[str, tuple[str, str]], more: dict[str, Any]
) -> None:
    both, points = evaluator(hardware, workload, "hardware", rates=rates, **more)
    found = read_together(both, points)
    assert None not in found
    assert len({row["time_s"] for row in found}) == len(points), "the program was meant to use these links"
    for point, row in zip(points, found, strict=True):
        same(read_alone(both, point), row)


def test_where_another_link_becomes_the_fastest_points_are_read_alone() -> None:
    slow = {"links.nvlink.bandwidth": ("10 GB/s", "200 GB/s")}  # below PCIe and above
    both, points = evaluator("gpu_h100", "llama3_70b_decode", "hardware", rates=slow)
    assert read_together(both, points) == [None] * len(points)
    alone, row = both._judged(read_alone(both, points[3])), both.rows(points)[3]
    same(alone, {name: row[name] for name in alone})


@pytest.mark.parametrize(
    ("hardware", "path"),
    [
        ("gpu_h100", "hardware.links.pcie.bandwidth"),  # copies to the host read it, too
        ("gpu_h100", "hardware.links.nvlink.max_devices"),
        ("gpu_h100", "hardware.topology.0.bandwidth"),
        ("system_dgx_h100", "hardware.topology.1.bandwidth"),
        ("system_dgx_h100", "hardware.topology.0.size"),
        ("system_dgx_h100", "hardware.device.links.nvlink.bandwidth"),  # the system's levels join its devices
        ("system_h100_attacc", "hardware.topology.0.bandwidth"),
    ],
)
def test_what_decides_more_than_a_rate_is_no_lane(hardware: str, path: str) -> None:
    assert rate_path(load_machine(hardware), path) is None


@pytest.mark.parametrize("engine", HOSTS)
@pytest.mark.parametrize("workload", ["llama3_8b_decode", "llama3_70b_decode"])
def test_launches_and_host_time_are_those_of_a_point_alone(engine: str, workload: str) -> None:
    both, points = evaluator("system_dgx_h100", workload, "hardware.device", engine=engine)
    found = read_together(both, points)
    assert None not in found
    for index in (0, 11, 23):
        same(read_alone(both, points[index]), found[index])


def test_a_host_beside_the_device_shows_only_where_it_is_longer() -> None:
    """Long host work beside fast devices: the step takes what the host takes, on every point."""
    more = {"engine": "trtllm-like", "set": ["engine.host_per_step=1 s", "hardware.launch.host_speed=1"]}
    both, points = evaluator("gpu_h100", "llama3_8b_decode", "hardware", **more)
    for index, row in enumerate(read_together(both, points)[:4]):
        assert row["bound"] == "host"
        assert row["time_per_token_s"] == pytest.approx(1.0, rel=1e-3)
        same(read_alone(both, points[index]), row)


@pytest.mark.parametrize("engine", ["eager-pytorch", "vllm-2023", "eager-synchronised", "llama-cpp"])
def test_where_a_host_runs_ahead_points_are_read_alone(engine: str) -> None:
    both, points = evaluator("gpu_h100", "llama3_8b_decode", "hardware", engine=engine)
    assert read_together(both, points) == [None] * len(points)
    alone, row = both._judged(read_alone(both, points[3])), both.rows(points[:4])[3]
    same(alone, {name: row[name] for name in alone})


def test_a_model_that_cannot_take_lanes_is_read_on_plain_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """``**`` is nothing that lanes know: every point then has the operator by itself, and the same numbers."""
    plain = GpuDevice._linear
    both, points = evaluator("gpu_h100", "llama3_8b_decode", "hardware")
    expected = read_together(both, points)

    def linear(self: Any, op: Any, fused: bool) -> Any:
        assert self.parameters.l2_latency_s**2 > 0.0
        return plain(self, op, fused)

    monkeypatch.setattr(GpuDevice, "_linear", linear)
    other, _ = evaluator("gpu_h100", "llama3_8b_decode", "hardware")
    found = read_together(other, points)
    assert None not in found
    for one, again in zip(expected, found, strict=True):
        same(one, again)


def test_a_point_is_what_the_run_command_says() -> None:
    both, points = evaluator("gpu_h100", "llama70b_decode", "hardware")
    row = both.rows(points)[5]
    assignments = [f"{path}={c.text}" for path, c in zip(both._paths, points[5], strict=True)]
    result = effsim.run("gpu_h100", "llama70b_decode", engine="analytic", set=assignments, sensitivity=False)
    said = (result.time_s, result.roofline_s, result.energy_j, result.cost_usd, result.flops, result.bytes_moved)
    names = ("time_s", "roofline_s", "energy_j", "cost_usd", "flops", "bytes_moved")
    assert [row[name] for name in names] == pytest.approx(list(said), rel=1e-12)
    assert row["tokens_per_s"] == pytest.approx(result.phases["decode"]["tokens_per_s"], rel=1e-12)
    assert (row["devices"], row["bound"]) == (result.devices, next(iter(result.bound)))


def test_replicas_multiply_rates_and_cost_but_not_time() -> None:
    one, points = evaluator("gpu_h100", "llama70b_decode", "hardware")
    two, _ = evaluator("gpu_h100", "llama70b_decode", "hardware", fleet={"replicas": 2})
    for a, b in zip(one.rows(points[:6]), two.rows(points[:6]), strict=True):
        assert a["time_s"] == b["time_s"]
        for name in ("tokens_per_s", "devices", "energy_j", "cost_usd", "flops", "usd_per_hour"):
            assert b[name] == 2 * a[name]
        assert b["usd_per_million_tokens"] == pytest.approx(a["usd_per_million_tokens"])


def branchy(x: Any, y: Any) -> Any:
    """Arithmetic with every kind of decision that device models take."""
    if x > y:
        x = x - y / 3.0
    steps = math.ceil(x) + math.floor(y)
    for _ in range(steps):
        x = max(x, y * 0.7, 1.5) + min(y, 2.0)
    return x * {True: 2.0, False: 0.5}[x == y] + (1.0 / y if y else -x)


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=40))
def test_branches_part_the_points_and_change_no_bit(pairs: list[tuple[int, int]]) -> None:
    columns = np.array(pairs, dtype=np.float64) / 4.0
    out = np.full(len(pairs), np.nan)

    def work(part: Any) -> tuple[Any, ...]:
        return (branchy(Lanes(columns[part, 0]), Lanes(columns[part, 1])),)

    def keep(part: Any, found: tuple[Any, ...]) -> None:
        out[part] = found[0].values if isinstance(found[0], Lanes) else found[0]

    run(len(pairs), work, keep)
    assert out.tolist() == [branchy(float(x), float(y)) for x, y in columns.tolist()]


@given(st.lists(st.tuples(st.integers(-40, 40), st.integers(1, 9)), min_size=1, max_size=20), st.integers(1, 7))
def test_whole_numbers_divide_as_those_of_one_point(pairs: list[tuple[int, int]], other: int) -> None:
    a, b = (Lanes(np.array(column, dtype=np.int64)) for column in zip(*pairs, strict=True))
    found = (*divmod(a, b), *divmod(a, other), *divmod(other, b), a // b, a % other, other // b, other % b)
    alone = [
        (*divmod(x, y), *divmod(x, other), *divmod(other, y), x // y, x % other, other // y, other % y)
        for x, y in pairs
    ]
    assert list(zip(*(one.values.tolist() for one in found), strict=True)) == alone


def test_whole_numbers_of_points_stay_whole() -> None:
    up, down = math.ceil(Lanes(np.array([1.5, 3.0]))), math.floor(Lanes(np.array([1.5, 3.0])))
    assert (up.values.tolist(), down.values.tolist()) == ([2, 3], [1, 3])  # type: ignore[attr-defined]
    assert math.ceil(Lanes(np.array([1.5, 1.7]))) == 2
    with pytest.raises(OverflowError):
        math.ceil(Lanes(np.array([math.inf, math.inf])))
    with pytest.raises(Diverged):
        math.ceil(Lanes(np.array([math.inf, 1.0])))
    with pytest.raises(ZeroDivisionError):
        Lanes(np.array([1, 2])) // Lanes(np.array([1, 0]))


def test_a_rule_that_searches_is_asked_point_by_point() -> None:
    rule = elementwise(lambda n, most: next(k for k in range(most, 0, -1) if n % k == 0))
    found = rule(Lanes(np.array([12, 35, 7])), 6)
    assert found.values.tolist() == [rule(12, 6), rule(35, 6), rule(7, 6)] == [6, 5, 1]


def test_a_number_that_differs_is_no_plain_number() -> None:
    assert float(Lanes(np.array([2.0, 2.0]))) == 2.0
    with pytest.raises(Diverged):
        float(Lanes(np.array([2.0, 3.0])))
    with pytest.raises(ZeroDivisionError):
        1.0 / Lanes(np.array([1.0, 0.0]))

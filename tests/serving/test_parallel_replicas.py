"""Replicas over pipeline stages, context ranks, data ranks that share experts, and data ranks that share nothing."""

from __future__ import annotations

from typing import Any

import pytest

import effsim
from effsim.devices.capacity import capacity_of
from effsim.devices.registry import load_machine
from effsim.program.place import StepGraph, step_graphs
from effsim.program.program import Degrees
from effsim.program.workload_file import load_engine, load_workload
from effsim.serving.metrics import ServeResult
from effsim.serving.replica_kind import cache_room

LOAD = "workload.serving={arrivals: {rate: 4, requests: 24}}"


def served(parallelism: str, workload: str = "llama3_8b_decode", *more: str) -> ServeResult:
    fields = ["prompt=256", "generate=16", "layers=4", f"parallelism={parallelism}"]
    return effsim.serve("system_h100_64", workload, set=[*(f"workload.{f}" for f in fields), LOAD, *more])


def graphs(degrees: Degrees, workload: str = "llama3_8b_decode") -> StepGraph:
    spec, base = load_workload(workload, ["workload.layers=4"])
    return step_graphs(spec, load_engine(spec.engine), capacity_of(load_machine("system_h100_64")), degrees, base)


def test_data_ranks_without_shared_experts_are_replicas() -> None:
    result = served("{tensor: 2, data: 4}")
    assert (result.devices, result.replicas) == (8, 4)
    assert result.completed == 24


def test_data_ranks_that_share_experts_step_together() -> None:
    result = served("{tensor: 2, data: 4, expert: 8}", "mixtral_8x7b_decode")
    assert (result.devices, result.replicas) == (8, 1)
    alone = served("{tensor: 8, expert: 8}", "mixtral_8x7b_decode")
    # Weights of attention are held by every data rank, so a little less is left for the same tokens.
    assert 0.9 * alone.cache_tokens < result.cache_tokens < alone.cache_tokens


@pytest.mark.parametrize(
    "ways", ["{pipeline: 2}", "{tensor: 2, pipeline: 2}", "{context: 2}", "{tensor: 2, context: 2}"]
)
def test_stages_and_context_ranks_are_served(ways: str) -> None:
    result = served(ways)
    assert (result.completed, result.replicas) == (24, 1)
    assert result.devices == (4 if "tensor" in ways else 2)
    assert any("pipeline" in note for note in result.notes) == ("pipeline" in ways)


@pytest.mark.parametrize("degrees", [Degrees(pipeline=2), Degrees(data=2, expert=2), Degrees(context=2)])
def test_caches_divide(degrees: Degrees) -> None:
    """A token of a replica takes its share of a device, whichever way the replica is divided."""
    workload: Any = "mixtral_8x7b_decode" if degrees.expert > 1 else "llama3_8b_decode"
    capacity = capacity_of(load_machine("system_h100_64"))
    alone = cache_room(graphs(Degrees(), workload), capacity, 2.0, 512)
    part = cache_room(graphs(degrees, workload), capacity, 2.0, 512, degrees)
    assert part.token_bytes == pytest.approx(alone.token_bytes / 2, rel=1e-3)
    assert part.bytes_free >= alone.bytes_free


def test_a_step_is_divided_over_data_ranks_and_microbatches() -> None:
    one, four = graphs(Degrees()), graphs(Degrees(data=2, pipeline=2))
    whole, part = one("generation", 64, 1, 512, 1), four("generation", 64, 1, 512, 1)
    assert 4 * part.flops == pytest.approx(whole.flops, rel=1e-9)
    whole, part = one("context", 1, 512, 2048, 64), four("context", 1, 512, 2048, 64)
    assert 4 * part.flops == pytest.approx(whole.flops, rel=1e-3)  # a chunk's pairs: half a query more or less

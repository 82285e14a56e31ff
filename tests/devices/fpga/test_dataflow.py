"""Spatial dataflow: folding, placement of weights, intervals and latencies, and what happens when it does not fit."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effsim._api import plan_on
from effsim.devices.fpga.dataflow import fpga_fit, map_graph
from effsim.devices.fpga.device import FpgaDevice
from effsim.devices.fpga.folding import smallest_folding
from effsim.devices.fpga.stages import Stage, sections_of
from effsim.devices.registry import load_machine
from effsim.errors import DoesNotFitError, UnsupportedError
from effsim.graph.graph import Graph, Node, Repeat
from effsim.graph.operators.communication import Collective
from effsim.graph.operators.linear import Linear
from effsim.graph.operators.pointwise import Pointwise
from effsim.program.workload_file import load_workload
from effsim.spec.fpga import FpgaSpec


def spec(name: str = "fpga_u280", *changes: str) -> FpgaSpec:
    found = load_machine(name, list(changes)).spec
    assert isinstance(found, FpgaSpec)
    return found


def mlp(vectors: int = 1) -> Graph:
    """A small classifier in 4-bit integers: 64 → 64 → 32."""
    return Graph(
        "mlp",
        (
            Node("first", Linear(vectors, 64, 64, "int4")),
            Node("relu", Pointwise("relu", vectors, 64, "int4")),
            Node("second", Linear(vectors, 32, 64, "int4")),
        ),
    )


def graph_of(workload: str, *changes: str) -> Graph:
    loaded, base = load_workload(workload, [f"workload.{c}" for c in changes])
    program = plan_on(load_machine("gpu_h100"), loaded, base)
    return program.phases[-1].executions[0].graph


def decoder(prompt: int = 128) -> Graph:
    return graph_of("gpt2_xl_generate", "model=gpt2", "precision.activations=int8", f"prompt={prompt}", "generate=32")


def mamba() -> Graph:
    return graph_of("mamba_2_8b_decode", "model=mamba_130m", "precision.activations=int8", "batch=1")


def test_folding_meets_the_target_at_the_least_cost() -> None:
    stage = Stage("s", "n", 64, 64, 10, 4096.0, 4, 4, False, True)
    assert smallest_folding(stage, 40960) == (1, 1)
    assert smallest_folding(stage, 640) == (1, 64)
    assert smallest_folding(stage, 10) == (64, 64)
    assert smallest_folding(stage, 3) == (64, 64)  # nothing is faster than one cycle a vector


@given(
    mh=st.integers(1, 512),
    mw=st.integers(1, 512),
    vectors=st.integers(1, 64),
    share=st.floats(0.0, 1.0),
)
def test_foldings_divide_and_are_fast_enough(mh: int, mw: int, vectors: int, share: float) -> None:
    stage = Stage("s", "n", mh, mw, vectors, float(mh * mw), 8, 8, False, True)
    target = vectors * (mh * mw) ** share
    pe, simd = smallest_folding(stage, target)
    assert (mh % pe, mw % simd) == (0, 0)
    assert stage.cycles(pe, simd) <= max(target, vectors)
    for less in (p for p in range(1, pe) if mh % p == 0):
        assert stage.cycles(less, simd) > target or (pe, simd) == (mh, mw)


def test_a_rate_is_met_by_hand() -> None:
    # 225 MHz / 64 cycles: first 64·64/64 = 64 multiply-adds a cycle, second 32.
    mapping = map_graph(mlp(), spec(), 225e6 / 64)
    first, relu, second = mapping.folded
    assert first.pe * first.simd == 64
    assert second.pe * second.simd == 32
    assert (first.cycles, second.cycles) == (64, 64)
    assert relu.cycles <= 64
    assert mapping.interval_s == pytest.approx(64 / 225e6)
    # 4-bit weights lie in look-up tables; four products share a DSP48 where four outputs run in parallel.
    assert mapping.used.dsp == math.ceil(first.pe / 4) * first.simd + math.ceil(second.pe / 4) * second.simd


def test_latency_is_fill_plus_interval_not_the_sum() -> None:
    mapping = map_graph(mlp(100), spec(), 225e6 / 6400)
    total = sum(stage.cycles for stage in mapping.folded) / 225e6
    fill = sum(stage.fill_cycles for stage in mapping.folded) / 225e6
    assert mapping.fill_s == pytest.approx(fill)
    assert mapping.latency_s == pytest.approx(fill + mapping.interval_s)
    assert mapping.interval_s <= mapping.latency_s < total


def test_the_slowest_stage_sets_the_interval() -> None:
    mapping = map_graph(decoder(), spec())
    passes = {s.section.name: s.section.passes for s in mapping.sections}
    assert max(passes.values()) == 12  # the blocks of the model share one piece of hardware
    slowest = max(s.slowest.cycles * s.section.passes for s in mapping.sections) / mapping.clock_hz
    assert mapping.interval_s >= slowest * (1 - 1e-12)


def test_more_parallel_costs_more() -> None:
    slow, fast = (map_graph(mlp(), spec(), rate) for rate in (1e5, 1e7))
    assert fast.interval_s < slow.interval_s
    assert fast.used.dsp > slow.used.dsp
    assert fast.used.lut > slow.used.lut


def test_narrow_weights_take_less() -> None:
    wide = map_graph(mlp(), spec("fpga_u280", "hardware.dataflow.weight_bits=8"), 1e6)
    narrow = map_graph(mlp(), spec("fpga_u280", "hardware.dataflow.weight_bits=3"), 1e6)
    assert narrow.used.lut < wide.used.lut


def test_multipliers_in_luts_take_no_dsp() -> None:
    mapping = map_graph(mlp(), spec("fpga_u280", "hardware.dataflow.multipliers=lut"), 1e6)
    assert mapping.used.dsp == 0


def test_what_does_not_fit_says_by_how_much_of_what() -> None:
    board = spec("fpga_u280", "hardware.fabric.dsp=40")
    with pytest.raises(
        DoesNotFitError, match=r"mlp does not fit AMD Alveo U280 for 2.25e\+08 .*DSPs of 32, \d+ too many"
    ):
        map_graph(mlp(), board, 225e6)
    report = fpga_fit(mlp(), board, 225e6)
    assert not report["fits"]
    # Fully parallel at 4 bits: 16·64 + 8·64 DSPs; 40·0.8 are there.
    assert report["over"]["dsp"] == pytest.approx(1536 - 32)
    assert fpga_fit(mlp(), board)["fits"]  # folded further it fits


def test_a_rate_beyond_the_clock_names_what_binds() -> None:
    with pytest.raises(DoesNotFitError, match="executions/s"):
        map_graph(mlp(100), spec(), 225e6)


def test_streamed_weights_must_lie_in_memory() -> None:
    big = graph_of("llama7b_decode", "precision.activations=int8")
    with pytest.raises(DoesNotFitError, match=r"GiB of streamed weights in 3.75 GiB of memory"):
        map_graph(big, spec("fpga_zcu102"))


def test_streaming_is_limited_by_memory() -> None:
    big = graph_of("llama7b_decode", "precision.activations=int8", "precision.weights=int4")
    mapping = map_graph(big, spec())
    streamed = sum(s.streamed_bytes for s in mapping.sections)
    assert streamed > 3e9
    assert mapping.interval_s >= streamed / (460e9 * 0.9) * (1 - 1e-12)


def test_blocks_of_their_own_take_more() -> None:
    def graph(dtype: str) -> Graph:
        return Graph("deep", (Repeat("layers", (Node("linear", Linear(1, 64, 64, dtype)),), 4),))

    looped = map_graph(graph("int8"), spec(), 1e5)
    unrolled = map_graph(graph("int8"), spec("fpga_u280", "hardware.dataflow.blocks=unrolled"), 1e5)
    assert [s.section.passes for s in looped.sections] == [4]
    assert [s.section.copies for s in unrolled.sections] == [4]
    assert max(looped.interval_s, unrolled.interval_s) <= 1e-5
    # 2250 cycles an execution: the loop has 562 for each of its passes, hardware of its own all of them.
    assert looped.folded[0].cycles <= 562 < unrolled.folded[0].cycles <= 2250
    assert 4 * unrolled.folded[0].resources.dsp >= looped.folded[0].resources.dsp


@pytest.mark.parametrize("graph", [decoder, mamba], ids=["transformer decoder", "mamba block"])
@pytest.mark.parametrize("name", ["fpga_u280", "fpga_v80"])
def test_models_map_end_to_end(graph: Any, name: str) -> None:
    report = fpga_fit(graph(), spec(name))
    assert report["fits"]
    assert 0.0 < report["interval_s"] <= report["latency_s"]
    for resource, amount in report["used"].items():
        assert amount <= report["budget"][resource]
    low, high = report["lut_range"]
    assert low < report["used"]["lut"] < high
    assert sum(row["dsp"] * row["copies"] for row in report["stages"]) == pytest.approx(report["used"]["dsp"])
    macs = sum(row["mh"] * row["mw"] * row["vectors"] * row["passes"] for row in report["stages"] if row["simd"])
    assert macs > 0


def test_a_prepared_device_shares_the_latency_among_its_operators() -> None:
    board = load_machine("fpga_u280", ["hardware.mode=dataflow"]).device
    assert isinstance(board, FpgaDevice)
    graph = decoder()
    mapping = board.prepare(graph)
    lowered = [(board.lower(node.op), count) for _, node, count in graph.walk()]
    assert sum(low.analytic_s * count for low, count in lowered) == pytest.approx(mapping.latency_s)
    for low, _ in lowered:
        assert low.roofline_s <= low.analytic_s


def test_an_operator_alone_gets_the_whole_board() -> None:
    board = load_machine("fpga_u280", ["hardware.mode=dataflow"]).device
    lowered = board.lower(Linear(64, 512, 512, "int8"))
    assert 0.0 < lowered.roofline_s <= lowered.analytic_s
    assert board.lower(Collective("all_reduce", 1e6, 2)).bound == "network"


def test_training_has_no_stages() -> None:
    backward = Linear(8, 64, 64).backward()[0]
    assert sections_of(Graph("g", (Node("n", backward),)), True)
    attention_like = Pointwise("softmax", 8, 64)
    assert sections_of(Graph("g", (Node("n", attention_like),)), True)
    with pytest.raises(UnsupportedError, match="a transfer between boards"):
        sections_of(Graph("g", (Node("n", Collective("all_reduce", 1.0, 2)),)), True)

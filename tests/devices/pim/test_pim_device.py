"""Memories that compute: times by hand, properties every device keeps, the mapping, and the references."""

from __future__ import annotations

import csv
import sys
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effsim._api import run
from effsim.devices.pim.device import PimDevice
from effsim.devices.registry import build_device, load_machine
from effsim.errors import DataError, SpecError, UnsupportedError
from effsim.graph.operator import Operator
from effsim.graph.operators.attention import Attention, KVAppend
from effsim.graph.operators.communication import Collective, HostTransfer, OptimizerStep
from effsim.graph.operators.embedding import Embedding
from effsim.graph.operators.linear import BatchedMatmul, Linear
from effsim.graph.operators.moe import Experts
from effsim.graph.operators.pointwise import Pointwise
from effsim.graph.operators.scan import SSDScan
from effsim.readings.tiles import simulated_time
from effsim.spec.fields import IntQuantity, Quantity, SpecModel
from effsim.spec.memory import MemoryPart
from effsim.validation import pim as validation

sys.path.insert(0, str(Path(__file__).parents[2]))
from strategies import operators

CATALOGUE = (
    "pim_hbm_pim",
    "pim_gddr6_aim",
    "pim_gpt",
    "pim_attacc",
    "pim_attacc_bank_group",
    "pim_attacc_buffer",
    "pim_neupims",
    "pim_upmem",
)
UNIT = str(Path(__file__).parent / "unit_pim.yaml")
SLACK = 1 + 1e-9


@cache
def device(name: str, *changes: str) -> PimDevice:
    built = load_machine(name, list(changes)).device
    assert isinstance(built, PimDevice)
    return built


def test_a_gemv_by_hand() -> None:
    # 3 outputs of 4 inputs. Written: 4 inputs and 2 clocks to arrive. Each output takes one row: 3 steps from its first to its
    # last column, its sum is read (1), and the next row needs 3 clocks from the last column (tRTP, tRP, tRCD).
    lowered = device(UNIT).lower(Linear(1, 3, 4, "fp32"))
    assert lowered.analytic_s == pytest.approx(4 + 2 + 3 * 3 + 2 * 3 + 1)
    assert device(UNIT).cycles(lowered) == pytest.approx(22.0)
    assert dict(lowered.kernels[0].terms) == pytest.approx({"matrix": 2 * 12 / (2 + 1), "memory": 48 / 4})


def test_many_vectors_are_multiplied_where_it_is_sooner() -> None:
    # On the host 64 vectors read the weights once: 2·64·16·16 FLOP at 1 FLOP/s; in the memory it is 2 FLOP/s at most.
    few, many = (device("pim_hbm_pim").lower(Linear(m, 4096, 4096, "fp16")) for m in (1, 256))
    assert "memory" in few.kernels[0].name
    assert "host" in many.kernels[0].name
    assert device("pim_hbm_pim").lower(Linear(2, 4096, 4096, "fp16")).analytic_s == pytest.approx(
        2 * few.analytic_s, rel=0.02
    )


def test_narrow_weights_are_widened_by_the_host() -> None:
    lowered = device("pim_hbm_pim").lower(Linear(1, 4096, 4096, "fp16", "int8"))
    assert "host" in lowered.kernels[0].name
    with pytest.raises(UnsupportedError, match="unit PIM has no int8 arithmetic; it supports fp32"):
        device(UNIT).lower(Linear(1, 1, 1, "int8"))
    with pytest.raises(UnsupportedError, match="no fp64"):
        device(UNIT).peak_matrix_flops("fp64")


def test_heads_fill_the_channels() -> None:
    aim = device("pim_gddr6_aim")
    detail = dict(aim.lower(Attention("generation", 1, 1, 4096, 32, 32, 128)).kernels[0].detail)
    assert detail["values_channels"] <= 4  # 32 heads work side by side, a few channels each
    alone = dict(aim.lower(Attention("generation", 1, 1, 4096, 1, 1, 128)).kernels[0].detail)
    assert alone["values_channels"] == 32
    assert alone["values_input_shares"] > 1  # 128 outputs do not fill 512 units: keys are divided as well


def test_values_without_lane_sums_lie_transposed() -> None:
    # 32 B an access for a 2 B element: half of the bytes grow 16-fold.
    op = KVAppend(1, 2 * 4096)
    aim = dict(device("pim_gddr6_aim").lower(op).kernels[0].detail)
    assert aim["interface_bytes"] == pytest.approx(0.5 * op.accesses()[1].bytes_moved * (1 + 16))
    plain = dict(device("pim_hbm_pim").lower(op).kernels[0].detail)
    assert plain["interface_bytes"] == pytest.approx(op.accesses()[1].bytes_moved)


def test_units_nearer_to_the_cells_read_faster() -> None:
    names = ("pim_attacc", "pim_attacc_bank_group", "pim_attacc_buffer")
    rates = [device(name).engine.peak_bytes_per_s for name in names]
    assert rates[0] > rates[1] > rates[2]
    op = Attention("generation", 64, 1, 4096, 96, 96, 128)
    times = [device(name).lower(op).analytic_s for name in names]
    assert times[0] < times[1] < times[2]
    weights = Linear(1, 8192, 8192)
    assert "host" in device("pim_attacc").lower(weights).kernels[0].name


def test_softmax_hides_under_products_only_where_both_may_work() -> None:
    op = Attention("generation", 8, 1, 4096, 32, 32, 128)
    serial = device("pim_neupims", "hardware.overlap=false").lower(op).analytic_s
    assert device("pim_neupims").lower(op).analytic_s < serial


def test_a_processor_in_the_chip_is_bound_by_its_instructions() -> None:
    upmem = device("pim_upmem")
    placed = upmem.engine.place(1, 2560 * 16, 1024, 1, "fp32")
    # 16 outputs of 1024 inputs each, 264 instructions a multiply-add at 350 MHz.
    assert dict(placed.detail)["instructions_s"] == pytest.approx(16 * 1024 * 264 / 350e6)
    assert upmem.engine.place(1, 2560, 1024, 1, "int8").seconds < upmem.engine.place(1, 2560, 1024, 1, "fp32").seconds
    fewer = device("pim_upmem", "hardware.unit.threads=4").engine.peak_flops("fp32")
    assert fewer == pytest.approx(upmem.engine.peak_flops("fp32") * 4 / 11)


@pytest.mark.parametrize("name", CATALOGUE)
@given(op=operators(), fused=st.booleans())
def test_no_reading_beats_the_roofline_and_events_agree(name: str, op: Operator, fused: bool) -> None:
    lowered = device(name).lower(op, fused)
    assert lowered.roofline_s <= lowered.analytic_s * SLACK
    for kernel, time in zip(lowered.kernels, lowered.times, strict=True):
        assert kernel.roofline_s <= time.total_s * SLACK
        simulated = simulated_time(kernel)
        assert kernel.roofline_s <= simulated * SLACK
        assert simulated == pytest.approx(time.total_s, rel=0.02)
    assert device(name).cycles(lowered) >= 0.0


def changed(node: object, path: list[str], factor: float) -> object:
    if not path:
        assert isinstance(node, float | int)
        return Quantity(node * factor, "assumed", "test")
    if isinstance(node, SpecModel):
        return node.model_copy(update={path[0]: changed(getattr(node, path[0]), path[1:], factor)})
    assert isinstance(node, dict)
    return {**node, path[0]: changed(node[path[0]], path[1:], factor)}


@pytest.mark.parametrize(
    ("name", "path", "factor"),
    [
        ("pim_hbm_pim", "memory.bandwidth", 1.7),
        ("pim_hbm_pim", "unit.interval", 0.5),
        ("pim_hbm_pim", "dram.clock", 0.7),
        ("pim_gpt", "host.buffer_bandwidth", 1.7),
        ("pim_attacc", "host.memory.bandwidth", 1.7),
        ("pim_neupims", "commands.activation_gap", 0.3),
        ("pim_upmem", "unit.broadcast", 1.7),
        ("pim_upmem", "unit.dma", 1.7),
    ],
)
@given(op=operators())
def test_more_bandwidth_is_never_slower(name: str, path: str, factor: float, op: Operator) -> None:
    base = device(name)
    faster = build_device(changed(base.spec, path.split("."), factor))  # type: ignore[arg-type]
    assert faster.lower(op).analytic_s <= base.lower(op).analytic_s * SLACK


RATES = ("bandwidth", "vector", "special", "buffer_bandwidth", "broadcast", "gather", "matrix")
TIMES = ("latency", "graph", "stream", "dispatch", "eager", "setup", "step", "start")


def scaled(node: object, factor: float, name: str = "", inside: str = "") -> object:
    """A specification with every rate times *factor* and every time divided by it; cycles stay.

    So does the DRAM that the host sees: at another rate it would reach another share of it.
    """
    if isinstance(node, MemoryPart):
        return node
    if isinstance(node, SpecModel):
        return node.model_copy(update={n: scaled(getattr(node, n), factor, n, name) for n in type(node).model_fields})
    if isinstance(node, dict):
        return {k: scaled(v, factor, name, name) for k, v in node.items()}
    if isinstance(node, Quantity) and not isinstance(node, IntQuantity):
        cycles = name in ("latency", "setup") and inside in ("unit", "commands")
        if name in RATES or (name == "clock" and inside == "unit"):
            return Quantity(node * factor, "assumed", "test")
        if (name in TIMES and not cycles) or (name == "clock" and inside == "dram"):
            return Quantity(node / factor, "assumed", "test")
    return node


@pytest.mark.parametrize("name", CATALOGUE)
@given(op=operators(), factor=st.sampled_from([0.5, 2.0, 8.0]))
def test_rates_and_times_scale_together(name: str, op: Operator, factor: float) -> None:
    base = device(name)
    quick = build_device(scaled(base.spec, factor))  # type: ignore[arg-type]
    assert quick.lower(op).analytic_s == pytest.approx(base.lower(op).analytic_s / factor, rel=1e-9)


@pytest.mark.parametrize(
    ("small", "large"),
    [
        (Linear(1, 4096, 4096), Linear(1, 4096, 8192)),
        (Linear(1, 4096, 4096), Linear(1, 4097, 4096)),
        (Linear(4, 4096, 4096), Linear(5, 4096, 4096)),
        (Linear(512, 4096, 4096), Linear(513, 4096, 4096)),
        (BatchedMatmul(56, 64, 64, 64), BatchedMatmul(57, 64, 64, 64)),
        (Pointwise("gelu", 64, 4096), Pointwise("gelu", 65, 4096)),
        (Attention("generation", 1, 1, 4096, 64, 8, 128), Attention("generation", 1, 1, 4097, 64, 8, 128)),
    ],
)
@pytest.mark.parametrize("name", CATALOGUE)
def test_more_work_is_never_quicker(name: str, small: Operator, large: Operator) -> None:
    assert device(name).lower(small).analytic_s <= device(name).lower(large).analytic_s * SLACK


TRAINING = (
    Linear(128, 1024, 1024),
    Attention("context", 2, 128, 128, 8, 8, 64),
    Experts(64, 512, 1024, 8, 2, "fp16"),
    SSDScan(1, 512, 8, 64, 64, 1, 128),
    Embedding(64, 32000, 1024),
    Pointwise("rmsnorm", 128, 1024),
)


@pytest.mark.parametrize("forward", TRAINING, ids=lambda op: op.kind)
@pytest.mark.parametrize("name", ["pim_hbm_pim", "pim_gpt", "pim_upmem"])
def test_backward_operators_lower(name: str, forward: Operator) -> None:
    for op in forward.backward():
        lowered = device(name).lower(op)
        assert 0.0 < lowered.roofline_s <= lowered.analytic_s * SLACK


@pytest.mark.parametrize("name", CATALOGUE)
def test_transfers_and_updates_lower(name: str) -> None:
    pim = device(name)
    assert pim.lower(Collective("all_reduce", 1e6, 4)).kernels[0].roofline_bound == "network"
    assert pim.lower(Collective("all_reduce", 1e6, 1)).kernels == ()
    assert pim.lower(HostTransfer(1e6)).analytic_s > 0.0
    assert pim.lower(OptimizerStep(1000)).analytic_s > 0.0


@pytest.mark.parametrize("name", CATALOGUE)
@pytest.mark.parametrize("engine", ["analytic", "events"])
def test_a_large_model_runs_with_all_outputs(name: str, engine: str) -> None:
    result = run(name, "llama70b_decode", engine=engine, sensitivity=engine == "analytic" and name == "pim_hbm_pim")
    assert result.memory["fits"]
    assert result.time_s >= result.roofline_s > 0.0
    assert sum(result.bound.values()) == pytest.approx(1.0)
    assert result.cost_usd is None  # no price is known
    assert result.assumptions


def test_sensitivities_name_the_pace_of_the_units() -> None:
    result = run("pim_gpt", "pim_gpt_decode", engine="analytic", set=["workload.generate=8"])
    found = {s["path"]: s["elasticity"] for s in result.sensitivity}
    assert found["hardware.dram.clock"] > 0.5
    assert found["hardware.unit.interval"] > 0.3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("hardware.unit.input=16 B", "holds less than one access"),
        ("hardware.memory.reserved=20 GiB", "leaves nothing"),
        ("hardware.unit.input_buffers=2", "cannot be written while the bank is read"),
    ],
)
def test_impossible_memories_are_refused(change: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load_machine("pim_hbm_pim", [change])


# Clocks of a public simulator for GEMV of out × in, batch (SAITPublic/PIMSimulator@b464dde0, 64 pseudo-channels).
GEMV = [
    (4096, 1024, 1, 3662),
    (4096, 2048, 1, 6970),
    (8192, 1024, 1, 7037),
    (4096, 4096, 1, 13166),
    (4096, 8192, 1, 26312),
    (8192, 4096, 1, 26337),
    (4096, 4096, 2, 26337),
    (4096, 4096, 4, 51941),
]


def test_hbm_pim_takes_the_clocks_of_its_simulator(tmp_path: Path) -> None:
    with (tmp_path / "dram_reference.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["trace_kind", "cycles", "note"])
        writer.writerow(["seq_read", "1", ""])
        for outputs, inputs, batch, clocks in GEMV:
            writer.writerow(["pim_gemv", clocks, f"GEMV out={outputs} in={inputs} batch={batch} FP16"])
    report = validation.gemv(tmp_path)
    assert report.score.n == len(GEMV)
    assert max(abs(row.error) for row in report.rows) < 0.01
    assert "n 8" in report.markdown()
    assert len(report.as_dict()["rows"]) == len(GEMV)


def test_a_folder_without_the_reference_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        validation.gemv(tmp_path)
    (tmp_path / "dram_reference.csv").write_text("trace_kind,cycles,note\nseq_read,1,\n")
    with pytest.raises(DataError, match="no rows"):
        validation.gemv(tmp_path)


def test_pim_gpt_beats_its_gpu_by_the_ratio_of_bandwidths() -> None:
    row = validation.pim_gpt(["gpt3_1_3b"], cpu=None)[0]
    # 4096 GB/s inside against 320 GB/s bound the ratio of rooflines by 12.8; rows, refresh and the ASIC take their part.
    assert 6.0 < row.gpu_roofline < 12.8
    assert row.gpu_roofline < row.gpu_graph <= row.gpu_eager * SLACK
    assert row.gpu_eager < row.gpu_slow
    assert "gpt3_1_3b" in validation.speedups_markdown([row])

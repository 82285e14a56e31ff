"""The FPGA overlay: times that can be worked out by hand, and the properties every device keeps."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import operators

from effsim._api import run
from effsim.devices.fpga.device import FpgaDevice
from effsim.devices.registry import build_device, load_machine
from effsim.errors import SpecError, UnsupportedError
from effsim.graph.operator import Operator
from effsim.graph.operators.attention import Attention
from effsim.graph.operators.communication import Collective, HostTransfer, OptimizerStep
from effsim.graph.operators.linear import Linear
from effsim.graph.operators.pointwise import Pointwise
from effsim.readings.tiles import simulated_time
from effsim.spec.fields import IntQuantity, Quantity, SpecModel

HARDWARE = Path(__file__).parents[2] / "hardware"
CATALOGUE = ("fpga_u280", "fpga_u250", "fpga_vhk158", "fpga_vck190", "fpga_zcu102", "fpga_v80")
SLACK = 1 + 1e-9


@cache
def device(name: str, *changes: str) -> FpgaDevice:
    built = load_machine(name, list(changes)).device
    assert isinstance(built, FpgaDevice)
    return built


def unit() -> FpgaDevice:
    return device(str(HARDWARE / "unit_fpga.yaml"))


def test_a_product_by_hand() -> None:
    # int16: 2 multiply-adds a second. 10·20·30 / 2 = 3000 s against (300 + 600)·2 B + 200·2 B, of which the
    # activations (1000 B) stay in the 2304 B of buffers: 1200 s of weights.
    lowered = unit().lower(Linear(10, 20, 30, "int16"))
    assert lowered.analytic_s == pytest.approx(3000.0)
    assert dict(lowered.kernels[0].terms) == pytest.approx({"matrix": 3000.0, "memory": 1200.0})


def test_decoding_is_bound_by_memory() -> None:
    # One row: 20·30/2 = 300 s of products, 1200 s of weights.
    lowered = unit().lower(Linear(1, 20, 30, "int16"))
    assert lowered.analytic_s == pytest.approx(1200.0)
    assert lowered.bound == "memory"


def test_a_pass_by_hand() -> None:
    # 400 elements of one operation each at one a second take less than 2400 B through a port of 4.5 B a second.
    assert unit().lower(Pointwise("add", 20, 20, "int16")).analytic_s == pytest.approx(2400.0 / 4.5)
    # Eight operations an element take longer than 1600 B through the port.
    assert unit().lower(Pointwise("gelu", 20, 20, "int16")).analytic_s == pytest.approx(8 * 400.0)


def test_narrow_types_pack_more_products_into_a_dsp() -> None:
    board = device("fpga_u280")
    rates = {name: board.peak_matrix_flops(name) for name in ("int16", "int8", "int4", "fp16")}
    assert rates["int8"] == pytest.approx(2.0 * rates["int16"], rel=0.02)
    # Four-bit products pack four to a DSP, but the adder trees then run out of LUTs: FINN's form caps them.
    assert rates["int8"] < rates["int4"] <= 4.01 * rates["int16"]
    assert rates["fp16"] == pytest.approx(rates["int16"] / 3.0, rel=0.03)


def test_unknown_types_are_refused_with_those_that_work() -> None:
    with pytest.raises(UnsupportedError, match="AMD Alveo U280 has no fp8 arithmetic; it supports fp16, bf16, fp32"):
        device("fpga_u280").lower(Linear(1, 64, 64, "fp8"))


def test_an_array_that_does_not_fit_says_so() -> None:
    with pytest.raises(UnsupportedError, match="do not fit"):
        device("fpga_zcu102", "hardware.overlay.simd=4096").lower(Linear(1, 64, 64, "fp32"))


def test_decode_streams_at_the_rate_of_memory() -> None:
    board = device("fpga_v80")
    op = Linear(1, 8192, 28672, "int8")
    assert board.lower(op).analytic_s == pytest.approx(op.weight_bytes / (819e9 * 0.85), rel=0.05)


def test_a_shell_larger_than_the_fabric_is_an_error() -> None:
    with pytest.raises(SpecError, match=r"'shell\.dsp' leaves nothing"):
        load_machine("fpga_u280", ["hardware.shell.dsp=9000"])


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


def changed(node: object, path: list[str], factor: float) -> object:
    if not path:
        assert isinstance(node, float | int)
        return Quantity(node * factor, "assumed", "test")
    assert isinstance(node, SpecModel)
    return node.model_copy(update={path[0]: changed(getattr(node, path[0]), path[1:], factor)})


@given(op=operators())
def test_more_bandwidth_is_never_slower(op: Operator) -> None:
    base = device("fpga_u280")
    faster = build_device(changed(base.spec, ["memory", "bandwidth"], 1.7))  # type: ignore[arg-type]
    assert faster.lower(op).analytic_s <= base.lower(op).analytic_s * SLACK


RATES = ("bandwidth", "clock")
TIMES = ("latency", "instruction", "enqueue", "setup", "step")


def scaled(node: object, factor: float, name: str = "") -> object:
    """A specification with every rate times *factor* and every time divided by it."""
    if isinstance(node, SpecModel):
        return node.model_copy(update={n: scaled(getattr(node, n), factor, n) for n in type(node).model_fields})
    if isinstance(node, dict):
        return {k: scaled(v, factor, name) for k, v in node.items()}
    if isinstance(node, Quantity) and not isinstance(node, IntQuantity):
        if name in RATES:
            return Quantity(node * factor, "assumed", "test")
        if name in TIMES:
            return Quantity(node / factor, "assumed", "test")
    return node


@given(op=operators(), factor=st.sampled_from([0.5, 2.0, 8.0]))
def test_rates_and_times_scale_together(op: Operator, factor: float) -> None:
    base = device("fpga_u280")
    quick = build_device(scaled(base.spec, factor))  # type: ignore[arg-type]
    assert quick.lower(op).analytic_s == pytest.approx(base.lower(op).analytic_s / factor, rel=1e-9)


@pytest.mark.parametrize(
    ("small", "large"),
    [
        (Linear(1, 4096, 4096), Linear(1, 4096, 8192)),
        (Linear(7, 1000, 512), Linear(8, 1000, 512)),
        (Linear(512, 4096, 4096), Linear(513, 4096, 4096)),
        (Pointwise("gelu", 64, 4096), Pointwise("gelu", 65, 4096)),
        (Attention("generation", 1, 1, 4096, 64, 8, 128), Attention("generation", 1, 1, 4097, 64, 8, 128)),
    ],
)
@pytest.mark.parametrize("name", CATALOGUE)
def test_more_work_is_never_quicker(name: str, small: Operator, large: Operator) -> None:
    assert device(name).lower(small).analytic_s <= device(name).lower(large).analytic_s * SLACK


def test_transfers_and_updates_lower() -> None:
    board = device("fpga_u280")
    reduce = board.lower(Collective("all_reduce", 1e6, 4))
    assert reduce.roofline_s == pytest.approx(2 * 0.75 * 1e6 / 12.5e9)
    assert reduce.analytic_s > reduce.roofline_s
    assert board.lower(HostTransfer(1e6)).analytic_s == pytest.approx(1e6 / 15.75e9 + 1e-6)
    assert board.lower(OptimizerStep(1000)).analytic_s > 0.0
    with pytest.raises(UnsupportedError, match="needs the way to its host"):
        device("fpga_zcu102").lower(HostTransfer(1e6))


def test_cycles_are_those_of_the_design() -> None:
    assert unit().cycles(unit().lower(Linear(1, 20, 30, "int16"))) == pytest.approx(1200.0)


PUBLISHED = (
    # FlightLLM (arXiv 2401.03868): LLaMA2-7B, 3.5-bit weights, 8-bit activations, sparsity, 225 MHz: 55 tokens/s. It
    # reports two thirds of the bandwidth used; the overlay here reaches nine tenths and has no sparsity.
    ("fpga_u280", "llama7b_int4_decode", ("workload.precision.activations=int8",), 55.0, 1.6, 2.2),
    # EdgeLLM (arXiv 2407.21325): GLM-6B, 4-bit weights, fp16 activations, VCU128 (460 GB/s, 280 MHz): 69 to 90.
    ("fpga_u280", "llama7b_int4_decode", ("hardware.clock=280 MHz",), 80.0, 0.7, 1.1),
    # Li et al. (arXiv 2502.10659): LLaMA2-7B, 4-bit weights, KV260 with 19.2 GB/s: 4.9 tokens/s, 84 % of the bandwidth.
    (
        "fpga_zcu102",
        "llama7b_int4_decode",
        ("hardware.memory.bandwidth=19.2 GB/s", "hardware.memory.capacity=8 GiB", "workload.prompt=512"),
        4.9,
        0.8,
        1.0,
    ),
    # Chen et al. (arXiv 2312.15159): GPT-2 345M, 8 bits, U280: 204 tokens/s at 23 % of the bandwidth. Small operators
    # pay for tails that the overlay does not have: the gap is the largest known.
    (
        "fpga_u280",
        "gpt2_xl_generate",
        (
            "workload.model=gpt2_medium",
            "workload.engine=cuda-graph",
            "workload.precision.activations=int8",
            "workload.prompt=32",
            "workload.generate=32",
        ),
        204.0,
        3.5,
        5.5,
    ),
)


@pytest.mark.parametrize(("board", "workload", "changes", "measured", "low", "high"), PUBLISHED)
def test_published_decode_rates_stay_within_the_stated_gap(
    board: str, workload: str, changes: tuple[str, ...], measured: float, low: float, high: float
) -> None:
    result = run(board, workload, engine="analytic", set=changes, sensitivity=False)
    assert low <= result.phases["decode"]["tokens_per_s"] / measured <= high


@pytest.mark.parametrize("workload", ["llama70b_decode", "llama7b_prefill", "mamba_2_8b_decode"])
@pytest.mark.parametrize("board", ["fpga_u280", "fpga_v80"])
def test_models_run_with_all_outputs(board: str, workload: str) -> None:
    result = run(board, workload)
    assert result.memory["fits"]
    assert result.time_s >= result.roofline_s > 0.0
    assert sum(result.bound.values()) == pytest.approx(1.0)
    assert result.cost_usd is None  # no price is known
    assert any(
        entry["path"].endswith("memory.bandwidth") or entry["path"].endswith("clock") for entry in result.sensitivity
    )
    assert result.assumptions

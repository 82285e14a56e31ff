"""The CPU device: times that can be worked out by hand, properties every device keeps, and its own habits."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import operators

from effsim._api import run
from effsim.devices.cpu.device import CpuDevice
from effsim.devices.registry import build_device, load_machine
from effsim.errors import SpecError, UnsupportedError
from effsim.graph.operator import Operator
from effsim.graph.operators.attention import Attention
from effsim.graph.operators.communication import Collective, HostTransfer, OptimizerStep
from effsim.graph.operators.embedding import Embedding
from effsim.graph.operators.linear import BatchedMatmul, Linear
from effsim.graph.operators.moe import Experts
from effsim.graph.operators.pointwise import Pointwise
from effsim.graph.operators.scan import SelectiveScan, SSDScan
from effsim.readings.tiles import simulated_time
from effsim.spec.fields import IntQuantity, Quantity, SpecModel

HARDWARE = Path(__file__).parents[2] / "hardware"
MEASURED = str(HARDWARE / "measured_cpu.yaml")
CATALOGUE = ("cpu_xeon", "cpu_epyc", "cpu_xeon_icelake", "cpu_haswell", "cpu_grace", "cpu_desktop", MEASURED)
SLACK = 1 + 1e-9


@cache
def device(name: str, *changes: str) -> CpuDevice:
    built = load_machine(name, list(changes)).device
    assert isinstance(built, CpuDevice)
    return built


def unit() -> CpuDevice:
    return device(str(HARDWARE / "unit_cpu.yaml"))


def test_a_product_by_hand() -> None:
    # 2·3·4·5 = 120 FLOP at 2 FLOP/s is 60 s of work; (15 + 20 + 12) · 4 B = 188 B at 1 B/s is 188 s of memory.
    lowered = unit().lower(Linear(3, 4, 5, "fp32"))
    assert lowered.analytic_s == pytest.approx(188.0)
    assert dict(lowered.kernels[0].terms) == pytest.approx({"matrix": 60.0, "memory": (20 * 4) + 27 * 4 - 1.0})
    assert lowered.bound == "memory"


def test_a_large_product_is_bound_by_the_core() -> None:
    # 2·200³ FLOP at 2 FLOP/s against 3·200²·4 B at 1 B/s.
    assert unit().lower(Linear(200, 200, 200, "fp32")).analytic_s == pytest.approx(200.0**3)


def test_a_pass_by_hand() -> None:
    # add: one operation an element, 1 a second (half of 2 FLOP/s); three tensors of 100 fp32 numbers at 1 B/s.
    assert unit().lower(Pointwise("add", 10, 10, "fp32")).analytic_s == pytest.approx(1200.0)


def test_fp16_is_widened_where_it_has_no_arithmetic() -> None:
    lowered = unit().lower(Linear(200, 200, 200, "fp16"))
    assert lowered.kernels[0].roofline_s == pytest.approx(200.0**3)
    with pytest.raises(UnsupportedError, match="unit CPU has no int8 arithmetic; it supports fp32, fp16"):
        unit().lower(Linear(1, 1, 1, "int8"))


def test_decode_products_stream_their_weights_with_all_cores() -> None:
    xeon = device("cpu_xeon")
    op = Linear(1, 8192, 28672, "bf16")
    sustained = 2 * 307.2e9 * 0.8
    assert xeon.lower(op).analytic_s == pytest.approx(op.weight_bytes / sustained, rel=0.03)
    assert xeon.lower(op).bound == "memory"
    assert xeon.lower(op).kernels[0].tiles >= 112


def test_one_core_is_limited_by_its_own_misses() -> None:
    one = device("cpu_xeon", "hardware.threads=1")
    op = Linear(1, 4096, 4096, "bf16")
    assert one.lower(op).analytic_s == pytest.approx(op.weight_bytes / 13e9, rel=0.02)


def test_prefill_reaches_most_of_the_matrix_unit() -> None:
    xeon = device("cpu_xeon")
    op = Linear(4096, 8192, 8192, "bf16")
    sustained = 112 * 2.6e9 * 1024
    assert 0.75 < op.flops / xeon.lower(op).analytic_s / sustained <= 0.9
    assert xeon.peak_matrix_flops("bf16") == pytest.approx(112 * 3.0e9 * 1024)


def test_interleaved_pages_cross_between_the_sockets() -> None:
    local, mixed = device("cpu_haswell"), device("cpu_haswell", "hardware.numa.placement=interleaved")
    # Half of all bytes cross; two sockets each receive 38.4 GB/s: 4 × 38.4 = 153.6 GB/s, more than the memories give.
    assert mixed.parameters.shared_memory_bytes_per_s == pytest.approx(local.parameters.shared_memory_bytes_per_s)
    narrow = device("cpu_haswell", "hardware.numa.placement=interleaved", "hardware.numa.bandwidth=10 GB/s")
    assert narrow.parameters.shared_memory_bytes_per_s == pytest.approx(40e9)


def test_threads_of_one_socket_use_its_memory_only() -> None:
    half = device("cpu_xeon", "hardware.threads=56")
    assert half.parameters.shared_memory_bytes_per_s == pytest.approx(307.2e9 * 0.8)
    with pytest.raises(SpecError, match="'threads' is 113 but there are 112 cores"):
        load_machine("cpu_xeon", ["hardware.threads=113"])


def test_small_passes_stay_on_one_core() -> None:
    xeon = device("cpu_xeon")
    assert xeon.lower(Pointwise("add", 1, 4096, "bf16")).kernels[0].tiles == 1
    assert xeon.lower(Pointwise("add", 4096, 8192, "bf16")).kernels[0].tiles == 112


def test_an_eager_framework_pays_its_dispatch_on_the_same_core() -> None:
    launch = device("cpu_xeon").launch
    assert launch.stream_gap_s - launch.gap_s == pytest.approx(6e-6)
    assert launch.dispatch_s == 0.0


def test_weights_measured_in_a_loop_stay_in_cache() -> None:
    op = Linear(1, 2048, 2048, "bf16")
    warm = device("cpu_xeon", "hardware.kernels.weights_cached=true")
    assert warm.lower(op).analytic_s < device("cpu_xeon").lower(op).analytic_s
    assert warm.lower(op).roofline_s <= warm.lower(op).analytic_s


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


BANDWIDTHS = (
    "memory.bandwidth",
    "core.stream",
    "core.l3_stream",
    "l3.bandwidth",
    "core.l1.bandwidth",
    "core.l2.bandwidth",
)


def changed(node: object, path: list[str], factor: float) -> object:
    if not path:
        assert isinstance(node, float | int)
        return Quantity(node * factor, "assumed", "test")
    if isinstance(node, SpecModel):
        return node.model_copy(update={path[0]: changed(getattr(node, path[0]), path[1:], factor)})
    assert isinstance(node, dict)
    return {**node, path[0]: changed(node[path[0]], path[1:], factor)}


@pytest.mark.parametrize("name", ["cpu_xeon", MEASURED])
@pytest.mark.parametrize("path", BANDWIDTHS)
@given(op=operators())
def test_more_bandwidth_is_never_slower(path: str, name: str, op: Operator) -> None:
    base = device(name)
    faster = build_device(changed(base.spec, path.split("."), 1.7))  # type: ignore[arg-type]
    assert faster.lower(op).analytic_s <= base.lower(op).analytic_s * SLACK


RATES = ("bandwidth", "stream", "l3_stream")
TIMES = ("latency", "fork_join", "graph", "dispatch", "setup", "step")


def scaled(node: object, factor: float, name: str = "", inside: str = "") -> object:
    """A specification with every rate times *factor* and every time divided by it."""
    if isinstance(node, SpecModel):
        return node.model_copy(update={n: scaled(getattr(node, n), factor, n, name) for n in type(node).model_fields})
    if isinstance(node, dict):
        return {k: scaled(v, factor, name, name) for k, v in node.items()}
    if isinstance(node, Quantity) and not isinstance(node, IntQuantity):
        if inside == "clock" or (name in RATES and inside not in ("l1", "l2")):
            return Quantity(node * factor, "assumed", "test")
        if name in TIMES:
            return Quantity(node / factor, "assumed", "test")
    return node


@given(op=operators(), factor=st.sampled_from([0.5, 2.0, 8.0]))
def test_rates_and_times_scale_together(op: Operator, factor: float) -> None:
    base = device("cpu_epyc")
    quick = build_device(scaled(base.spec, factor))  # type: ignore[arg-type]
    assert quick.lower(op).analytic_s == pytest.approx(base.lower(op).analytic_s / factor, rel=1e-9)


@pytest.mark.parametrize(
    ("small", "large"),
    [
        (Linear(1, 4096, 4096, "bf16"), Linear(1, 4096, 8192, "bf16")),
        (Linear(7, 1000, 512, "bf16"), Linear(8, 1000, 512, "bf16")),
        (Linear(512, 4096, 4096, "bf16"), Linear(513, 4096, 4096, "bf16")),
        (BatchedMatmul(56, 64, 64, 64), BatchedMatmul(57, 64, 64, 64)),
        (Pointwise("gelu", 64, 4096, "bf16"), Pointwise("gelu", 65, 4096, "bf16")),
        (Attention("generation", 1, 1, 4096, 64, 8, 128), Attention("generation", 1, 1, 4097, 64, 8, 128)),
    ],
)
@pytest.mark.parametrize("name", CATALOGUE)
def test_more_work_is_never_quicker(name: str, small: Operator, large: Operator) -> None:
    assert device(name).lower(small).analytic_s <= device(name).lower(large).analytic_s * SLACK


TRAINING = (
    Linear(128, 1024, 1024, "bf16"),
    Attention("context", 2, 128, 128, 8, 8, 64, "bf16"),
    Experts(64, 512, 1024, 8, 2),
    SSDScan(1, 512, 8, 64, 64, 1, 128),
    Embedding(64, 32000, 1024, "bf16"),
    Pointwise("rmsnorm", 128, 1024, "bf16"),
)


@pytest.mark.parametrize("forward", TRAINING, ids=lambda op: op.kind)
def test_backward_operators_lower(forward: Operator) -> None:
    for op in forward.backward():
        lowered = device("cpu_xeon").lower(op)
        assert 0.0 < lowered.roofline_s <= lowered.analytic_s * SLACK


def test_transfers_and_updates_lower() -> None:
    xeon = device("cpu_xeon")
    reduce = xeon.lower(Collective("all_reduce", 1e6, 4))
    assert reduce.kernels[0].roofline_bound == "network"
    assert reduce.roofline_s == pytest.approx(2 * 0.75 * 1e6 / 12.5e9)
    assert xeon.lower(Collective("all_reduce", 1e6, 1)).kernels == ()
    assert xeon.lower(HostTransfer(1e6)).analytic_s > 0.0
    assert xeon.lower(OptimizerStep(1000)).analytic_s > 0.0


def test_cycles_are_those_of_a_core() -> None:
    lowered = unit().lower(Linear(3, 4, 5, "fp32"))
    assert unit().cycles(lowered) == pytest.approx(188.0)


@pytest.mark.parametrize("workload", ["llama70b_decode", "llama7b_prefill", "mamba_2_8b_decode"])
@pytest.mark.parametrize("name", ["cpu_xeon", "cpu_epyc", "cpu_desktop"])
def test_models_run_with_all_outputs(name: str, workload: str) -> None:
    result = run(name, workload)
    assert result.memory["fits"]
    assert result.time_s >= result.roofline_s > 0.0
    assert sum(result.bound.values()) == pytest.approx(1.0)
    assert result.cost_usd is None  # no price is known
    assert result.sensitivity
    assert result.assumptions


def test_operands_are_packed_before_they_are_multiplied() -> None:
    base = device(MEASURED, "hardware.threads=1")
    free = device(
        MEASURED, "hardware.threads=1", "hardware.kernels.gemm.pack.fp32=0", "hardware.kernels.gemm.pack_far.fp32=0"
    )
    op = Linear(64, 1024, 1024, "fp32")
    # 0.4 cycles for each of 1024² + 64·1024 elements, 0.6 more for the weights, which lie beyond L2 (A's rows do not).
    # Without a price for packing nothing is packed; with one, the copy also waits for the weights from memory.
    seconds = (0.4 * (1024 * 1024 + 64 * 1024) + 0.6 * 1024 * 1024) / 2.6e9 + 4.0 * 1024 * 1024 / 11e9
    assert base.lower(op).analytic_s - free.lower(op).analytic_s == pytest.approx(seconds, rel=0.02)
    # One row is not packed: its matrix streams from memory at the rate of such reads.
    one = Linear(1, 8192, 8192, "fp32")
    assert base.lower(one).analytic_s == pytest.approx(one.weight_bytes / 9e9, rel=0.03)


def test_few_rows_read_the_matrix_once_for_every_three() -> None:
    base = device(MEASURED, "hardware.threads=1")
    seconds = [base.lower(Linear(m, 1024, 2048, "fp32")).analytic_s for m in (1, 3, 4)]
    assert seconds[0] == pytest.approx(seconds[1], rel=0.02)
    assert seconds[2] > 1.05 * seconds[0]


def test_measured_rates_replace_counted_operations() -> None:
    base = device(MEASURED, "hardware.threads=1")
    op = Pointwise("gelu", 64, 1024, "fp32")
    # 1.7 cycles an element at 2.6 GHz, 12 us of preparation; half a megabyte stays in L2.
    assert base.lower(op).analytic_s == pytest.approx(64 * 1024 * 1.7 / 2.6e9 + 12e-6, rel=0.01)
    assert len(base.lower(Pointwise("rmsnorm", 64, 1024, "fp32"), True).kernels) == 6


def test_results_that_are_mapped_anew_pay_for_their_pages() -> None:
    base = device(MEASURED, "hardware.threads=1")
    kept, fresh = (Pointwise("add", rows, 1024, "fp32") for rows in (8192, 8193))  # 32 MiB, and 4 KiB more
    extra = base.lower(fresh).analytic_s - base.lower(kept).analytic_s
    assert extra == pytest.approx(8193 * 4096 / 2.7e9, rel=0.02)


def test_an_eager_scan_runs_token_by_token() -> None:
    base = device(MEASURED, "hardware.threads=1")
    short, long = (base.lower(SelectiveScan(1, n, 256, 16, "fp32"), False) for n in (64, 128))
    gap = base.launch.stream_gap_s
    # Every token: four operators and four views.
    each = (long.analytic_s - short.analytic_s) / 64
    assert each > 4 * (gap + 1e-6)
    assert len(short.kernels) == len(long.kernels)
    assert base.lower(SelectiveScan(1, 64, 256, 16, "fp32"), True).analytic_s < short.analytic_s


def test_causal_attention_computes_whole_steps_of_keys() -> None:
    base = device(MEASURED, "hardware.threads=1")
    full, causal = (
        base.lower(Attention("context", 1, 256, 256, 8, 8, 64, "fp32", causal=c)).analytic_s for c in (False, True)
    )
    assert causal == pytest.approx(full, rel=1e-6)  # 256 keys are one step of 512
    longer = [
        base.lower(Attention("context", 1, 2048, 2048, 8, 8, 64, "fp32", causal=c)).analytic_s for c in (False, True)
    ]
    assert longer[1] < 0.75 * longer[0]

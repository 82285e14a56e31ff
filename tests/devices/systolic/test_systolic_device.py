"""Systolic accelerators: what every device must keep, times by hand, and the switches of the hardware file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import operators, sizes

from effsim.devices.registry import build_device, load_machine
from effsim.devices.systolic.device import CAUSES, SystolicDevice
from effsim.errors import SpecError, UnsupportedError
from effsim.graph.operator import Operator
from effsim.graph.operators.attention import Attention
from effsim.graph.operators.communication import Collective, HostTransfer
from effsim.graph.operators.linear import Linear
from effsim.graph.operators.pointwise import Pointwise
from effsim.readings.events import kernel_seconds
from effsim.spec.fields import SpecModel
from effsim.spec.systolic import SystolicSpec

UNIT = str(Path(__file__).parents[2] / "hardware" / "unit_systolic.yaml")
NAMES = [f"systolic_{name}" for name in ("tpu_v2", "tpu_v4", "tpu_v6e", "gemmini", "scalesim", "array")]
SHAPES: list[tuple[str, ...]] = [
    (),
    ("hardware.dataflow=os", "hardware.weight_double_buffer=false"),
    ("hardware.dataflow=is", "hardware.psum_home=dram"),
    ("hardware.interface={mode: user, bandwidth: 7 B/cycle, output: 3 B/cycle}",),
    ("hardware.interface={mode: calc}", "hardware.os_drain=none"),
    ("hardware.sparsity={kept: 2, block: 4}", "hardware.array.cores=2", "hardware.array.count=3"),
]


def load(name: str, *assignments: str) -> SystolicDevice:
    device = load_machine(name, assignments).device
    assert isinstance(device, SystolicDevice)
    return device


DEVICES = [load(name) for name in NAMES] + [load("systolic_array", *shape) for shape in SHAPES[1:]]
OWN_MODEL = [device for device in DEVICES if device.spec.compat is None]


@given(device=st.sampled_from(DEVICES), op=operators())
@settings(max_examples=250)
def test_no_schedule_beats_the_roofline_and_events_agree(device: SystolicDevice, op: Operator) -> None:
    low = device.lower(op)
    simulated = sum(kernel_seconds(kernel) for kernel in low.kernels)
    assert low.roofline_s <= low.analytic_s * (1 + 1e-9)
    assert low.roofline_s <= simulated * (1 + 1e-9)
    assert simulated == pytest.approx(low.analytic_s, rel=0.02)


def with_rates(spec: SpecModel, factor: float, *, only_memory: bool = False) -> SystolicSpec:
    """Every rate times *factor*, every latency divided by it."""
    assert isinstance(spec, SystolicSpec)
    memory = {"bandwidth": float(spec.memory.bandwidth) * factor}
    if only_memory:
        return spec.model_copy(update={"memory": spec.memory.model_copy(update=memory)})
    memory["latency"] = float(spec.memory.latency) / factor
    clock = {name: float(getattr(spec.clock, name) or spec.clock.boost) * factor for name in ("boost", "sustained")}
    update: dict[str, Any] = {
        "memory": spec.memory.model_copy(update=memory),
        "clock": spec.clock.model_copy(update=clock),
    }
    return spec.model_copy(update=update)


@given(device=st.sampled_from(DEVICES), op=operators(), factor=st.sampled_from([0.25, 2.0, 8.0]))
@settings(max_examples=100)
def test_scaling_every_rate_scales_the_time(device: SystolicDevice, op: Operator, factor: float) -> None:
    scaled = build_device(with_rates(device.spec, factor))
    assert scaled.lower(op).analytic_s == pytest.approx(device.lower(op).analytic_s / factor, rel=1e-6)


@given(device=st.sampled_from(DEVICES), op=operators(), factor=st.floats(1.0, 20.0))
@settings(max_examples=150)
def test_more_bandwidth_is_never_slower(device: SystolicDevice, op: Operator, factor: float) -> None:
    faster = build_device(with_rates(device.spec, factor, only_memory=True))
    assert faster.lower(op).analytic_s <= device.lower(op).analytic_s * (1 + 1e-9)


@given(
    device=st.sampled_from(DEVICES),
    m=sizes(1, 4096),
    n=sizes(1, 4096),
    k=sizes(1, 4096),
    grow=st.tuples(*[st.sampled_from([0, 1, 7, 100, 1000])] * 3),
)
@settings(max_examples=200)
def test_more_work_never_takes_less_time(
    device: SystolicDevice, m: int, n: int, k: int, grow: tuple[int, int, int]
) -> None:
    small = device.lower(Linear(m, n, k, "fp16")).analytic_s
    large = device.lower(Linear(m + grow[0], n + grow[1], k + grow[2], "fp16")).analytic_s
    assert large >= small * (1 - 1e-9)


@given(device=st.sampled_from(OWN_MODEL), m=sizes(1, 4096), n=sizes(1, 4096), k=sizes(1, 4096))
@settings(max_examples=100)
def test_causes_add_up_to_the_time(device: SystolicDevice, m: int, n: int, k: int) -> None:
    op = Linear(m, n, k, "fp16")
    parts = device.cycle_parts(op, True)
    assert sum(parts[cause] for cause in CAUSES) == pytest.approx(parts["total"], rel=1e-6)
    assert all(parts[cause] >= -1e-6 * parts["total"] for cause in CAUSES)
    assert parts["total"] == pytest.approx(device.lower(op).analytic_s * device.parameters.clock_hz)


def seconds(*assignments: str, op: Operator) -> float:
    return load(UNIT, *assignments).lower(op).analytic_s


FAST_MEMORY = "hardware.memory.bandwidth=1 TB/s"
FAST_CLOCK = "hardware.clock.boost=1 THz"


@pytest.mark.parametrize(
    ("assignments", "op", "expected"),
    [
        # 24 multiply-adds on one cell; each fold streams 2 lines; one cycle to load the first weight.
        ((FAST_MEMORY,), Linear(2, 3, 4, "int8"), 12 * 2 + 1),
        # 2·4 + 4·3 + 2·3 bytes at 1 B/s; the last product is done at once.
        ((FAST_CLOCK,), Linear(2, 3, 4, "int8"), 26),
        # A 2 × 2 grid: weights in 2 cycles, 5 lines, 2 of skew; 2·2 folds follow each other 5 lines apart.
        ((FAST_MEMORY, "hardware.array={rows: 2, columns: 2}"), Linear(5, 4, 4, "int8"), 2 + 4 * 5 + 2),
        # Without double buffering each of the 4 folds pays 2 + 5 + 2.
        (
            (FAST_MEMORY, "hardware.array={rows: 2, columns: 2}", "hardware.weight_double_buffer=false"),
            Linear(5, 4, 4, "int8"),
            36,
        ),
        # One line a fold: loading the next weights takes longer than streaming: 2 + 3·2 + 1 + 2.
        ((FAST_MEMORY, "hardware.array={rows: 2, columns: 2}"), Linear(1, 4, 4, "int8"), 11),
        # Outputs stay: 3·2 folds of 4 lines, then 2 + 2 − 2 of skew and 2 to shift out.
        (
            (FAST_MEMORY, "hardware.array={rows: 2, columns: 2}", "hardware.dataflow=os"),
            Linear(5, 4, 4, "int8"),
            6 * 4 + 2 + 2,
        ),
        # 2 of 4 rows of the weights are computed: half of the folds.
        ((FAST_MEMORY, "hardware.sparsity={kept: 2, block: 4}"), Linear(2, 3, 4, "int8"), 6 * 2 + 1),
        # Two inputs and an output of 32 fp16 numbers.
        ((), Pointwise("add", 4, 8), 192),
        # 8 operations a number, one a second, and one exponential.
        ((FAST_MEMORY,), Pointwise("gelu", 4, 10), 360),
        # Two rings of 3 of 4 parts of 80 B.
        ((), Collective("all_reduce", 80.0, 4), 120),
    ],
)
def test_times_by_hand(assignments: tuple[str, ...], op: Operator, expected: float) -> None:
    assert seconds(*assignments, op=op) == pytest.approx(expected, rel=1e-6)


def test_partial_sums_in_memory_cost_their_round_trips() -> None:
    # 4 row folds of 4 results of 4 B: written 4 times, read back 3 times, instead of 4 results of 1 B once.
    op = Linear(2, 2, 4, "int8")
    home = seconds(FAST_CLOCK, op=op)
    away = seconds(FAST_CLOCK, "hardware.psum_home=dram", op=op)
    assert away - home == pytest.approx(7 * 4 * 4 - 4, rel=1e-6)


def test_ports_of_their_own_run_side_by_side() -> None:
    # 8, 12 and 6 bytes through three ports of 1 B a cycle: the widest operand binds.
    op = Linear(2, 3, 4, "int8")
    ports = "hardware.interface={mode: user, bandwidth: 1e-12 B/cycle}"
    assert seconds(FAST_CLOCK, ports, op=op) == pytest.approx(12, rel=1e-6)


def test_small_scratchpads_read_operands_again() -> None:
    op = Linear(512, 512, 512, "fp16")
    tight = load("systolic_array", "hardware.sram={input: 4 KiB, weight: 4 KiB, output: 8 KiB}").lower(op)
    roomy = load("systolic_array", "hardware.sram={input: 4 MiB, weight: 4 MiB, output: 4 MiB}").lower(op)
    assert roomy.kernels[0].memory_bytes == pytest.approx(3 * 512 * 512 * 2)
    assert tight.kernels[0].memory_bytes > 3 * roomy.kernels[0].memory_bytes


def test_narrow_weights_move_less_and_are_widened() -> None:
    plain, narrow = Linear(1, 8192, 8192, "bf16"), Linear(1, 8192, 8192, "bf16", "int8")
    device = load("systolic_tpu_v4")
    assert device.lower(narrow).analytic_s < 0.6 * device.lower(plain).analytic_s
    slow = load("systolic_gemmini", "hardware.special=1e-3 OP/cycle")
    assert slow.lower(narrow).bound == "vector"  # a scalar core widens 67 million weights


def test_attention_reads_its_cache_once_and_waits_for_softmax_where_nothing_overlaps() -> None:
    op = Attention("generation", 4, 1, 4096, 32, 8, 128, "bf16")
    device = load("systolic_tpu_v4")
    assert device.lower(op).kernels[0].memory_bytes >= op.kv_bytes
    apart = load("systolic_tpu_v4", "hardware.overlap_softmax=false")
    prefill = Attention("context", 1, 2048, 2048, 32, 8, 128, "bf16")
    assert apart.lower(prefill).analytic_s > device.lower(prefill).analytic_s


def test_unsupported_types_and_links_say_what_there_is() -> None:
    with pytest.raises(UnsupportedError, match="no fp64 arithmetic; it supports bf16"):
        load("systolic_tpu_v4").lower(Linear(1, 1, 1, "fp64"))
    with pytest.raises(UnsupportedError, match="host"):
        load("systolic_scalesim").lower(HostTransfer(1.0))


@pytest.mark.parametrize(
    ("assignments", "match"),
    [
        (["hardware.array.cores=2"], "has one grid"),
        (["hardware.interface.mode=shared"], "no shared bus"),
        (["hardware.sram={shared: 1 MiB}"], "scratchpads 'input'"),
        (["hardware.sram={input: 1 MiB}"], "needs 'shared', or"),
        (["hardware.sram={shared: 1 MiB, input: 1 MiB}"], "either 'shared' or"),
        (["hardware.interface={mode: user}"], "needs 'bandwidth'"),
        (["hardware.sparsity={kept: 5, block: 4}"], "of a block of 4"),
        (["hardware.computes_as={fp64: fp6}"], "which has no rate"),
        (["hardware.vector={fp16: 2 FLOP/cycle}"], "fp32 rate"),
        (["hardware.matrix={}"], "at least one rate"),
        (["hardware.memory.reserved=2 TiB"], "leaves nothing"),
    ],
)
def test_files_that_make_no_sense_are_refused(assignments: Sequence[str], match: str) -> None:
    with pytest.raises(SpecError, match=match):
        load_machine("systolic_scalesim", assignments)


def test_published_peaks() -> None:
    peaks = {"tpu_v2": 46e12, "tpu_v3": 123e12, "tpu_v4": 275e12, "tpu_v5e": 197e12, "tpu_v5p": 459e12}
    peaks["tpu_v6e"] = 918e12
    for name, peak in peaks.items():
        assert load(f"systolic_{name}").peak_matrix_flops("bf16") == pytest.approx(peak, rel=0.01)
    assert load("systolic_tpu_v1").peak_matrix_flops("int8") == pytest.approx(92e12, rel=0.01)

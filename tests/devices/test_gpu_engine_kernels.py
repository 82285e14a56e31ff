"""Experts, scans, convolutions and row kernels of a GPU: blocks by hand, and what must hold on real ones."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effsim.devices.device import Device
from effsim.devices.registry import load_machine
from effsim.graph.operator import Launched
from effsim.graph.operators.convolution import CausalConv1d
from effsim.graph.operators.moe import Experts
from effsim.graph.operators.pointwise import Pointwise
from effsim.graph.operators.scan import GatedDelta, SSDScan
from effsim.graph.table import from_row
from effsim.readings.launch import single_launch_s

GPUS = ("gpu_a100", "gpu_h100", "gpu_b200", "gpu_l40s")
DEVICES: dict[str, Device] = {}
gpus = st.sampled_from(GPUS)
routings = st.sampled_from(["uniform", "balanced", "power_law_1.01", "power_law_1.2", "zipf_1.1"])


def device(name: str) -> Device:
    if name not in DEVICES:
        DEVICES[name] = load_machine(name).device
    return DEVICES[name]


def detail(gpu: str, op: Experts, part: str = "experts down") -> dict[str, float | str]:
    (kernel,) = [k for k in device(gpu).lower(op).kernels if k.name.startswith(part)]
    return dict(kernel.detail)


# --- experts ----------------------------------------------------------------------------------------------------------


def test_balanced_routing_uses_every_expert_it_can() -> None:
    # 4 tokens of 8 picks: 32 of 128 experts, a row each; 1000 tokens: 62.5 rows each, padded to one block of 64.
    few = detail("gpu_a100", Experts(4, 2048, 768, 128, 8, distribution="balanced"))
    assert few["active_experts"] == few["row_blocks"] == pytest.approx(32)
    many = detail("gpu_a100", Experts(1000, 2048, 768, 128, 8, distribution="balanced"))
    assert (many["tile"], many["row_blocks"]) == ("64x64x32", pytest.approx(128))
    more = detail("gpu_a100", Experts(1032, 2048, 768, 128, 8, distribution="balanced"))
    assert more["row_blocks"] == pytest.approx(256)  # 64.5 rows: a second block for every expert


def test_a_step_of_a_large_product_is_its_matrix_work_and_its_wait() -> None:
    # 16384 tokens, 8 of 128 experts: 1024 rows each are 16 blocks; 32 columns of tiles, 24 steps.
    op = Experts(16384, 2048, 768, 128, 8, distribution="balanced")
    gpu = device("gpu_a100")
    lowered = gpu.lower(op)
    (index,) = [i for i, k in enumerate(lowered.kernels) if k.name.startswith("experts down")]
    wait = float(gpu.spec.kernels.experts.step_wait)
    expected = 128 * 16 * 32 * 24 * (2 * 64 * 64 * 32 / 2048 + wait) / (1.41e9 * 108)
    assert lowered.times[index].total_s == pytest.approx(expected, rel=0.01)


def test_eight_bit_rows_are_narrowed_on_the_way() -> None:
    plain, narrow = (device("gpu_h100").lower(Experts(64, 4096, 1536, 128, 8, dtype)) for dtype in ("bf16", "fp8"))
    assert len(narrow.kernels) == len(plain.kernels) + 2
    assert narrow.analytic_s < plain.analytic_s


@settings(max_examples=60, deadline=None)
@given(gpus, routings, st.integers(1, 20000), st.integers(1, 4), st.sampled_from([(8, 2), (128, 8), (256, 6)]))
def test_more_tokens_never_take_less(gpu: str, routing: str, tokens: int, factor: int, shape: tuple[int, int]) -> None:
    small, large = (
        device(gpu).lower(Experts(n, 2048, 512, *shape, distribution=routing)) for n in (tokens, tokens * factor)
    )
    # The passes between the products are spread over other numbers of blocks, which is worth a per cent or two.
    assert large.analytic_s >= small.analytic_s * 0.97
    assert small.analytic_s >= small.roofline_s


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5000), st.sampled_from([(8, 2), (128, 8), (512, 22)]), st.sampled_from([1.0, 1.01, 1.2, 3.0]))
def test_power_law_shares_add_up(tokens: int, shape: tuple[int, int], alpha: float) -> None:
    op = Experts(tokens, 64, 64, *shape, distribution=f"power_law_{alpha}")
    shares = op.pick_probabilities()
    assert sum(shares) == pytest.approx(shape[1])
    assert max(shares) <= 1.0 + 1e-12
    assert shares == sorted(shares, reverse=True)
    assert min(shape[1], tokens) * 0.99 <= op.active_experts <= min(shape[0], tokens * shape[1]) + 1e-9


def test_balanced_never_uses_fewer_experts_than_skewed_or_independent_routing() -> None:
    for tokens in (1, 4, 16, 64, 1024):
        counts = [
            Experts(tokens, 64, 64, 128, 8, distribution=d).active_experts
            for d in ("balanced", "uniform", "power_law_1.2")
        ]
        assert counts[0] >= max(counts[1:]) - 1e-9


# --- scans and convolutions -------------------------------------------------------------------------------------------


def test_a_convolution_has_a_block_a_sequence_and_channel() -> None:
    # 64 sequences of 512 tokens and 2048 channels: 131072 blocks, 16 on each of 108 SMs, in 75.9 batches of 3 rounds.
    lowered = device("gpu_a100").lower(CausalConv1d(64, 512, 2048, 4, "bf16"))
    (kernel,) = lowered.kernels
    assert kernel.tiles == 64 * 2048
    batches = math.ceil(math.ceil(64 * 2048 / 108) / 16)
    assert lowered.analytic_s == pytest.approx(batches * 4.5e-6, rel=0.1)
    short = device("gpu_a100").lower(CausalConv1d(64, 8, 2048, 4, "bf16"))
    assert short.analytic_s == pytest.approx(lowered.analytic_s, rel=0.1)


def test_a_fused_scan_walks_the_chunks_of_one_head_on_one_processor() -> None:
    gpu = device("gpu_b200")

    def seconds(batch: int, length: int, heads: int) -> float:
        return gpu.lower(SSDScan(batch, length, heads, 64, 128, 8, 128, "bf16")).analytic_s

    chunk = (2 * 128 * 128 * (128 + 64) + 4 * 128 * 128 * 64) / (518 * 1.856e9)
    assert seconds(1, 4096, 128) - seconds(1, 2048, 128) == pytest.approx(16 * chunk, rel=0.02)
    assert seconds(1, 2048, 64) == pytest.approx(seconds(1, 2048, 128), rel=0.02)  # both fit 148 processors
    assert seconds(1, 2048, 256) == pytest.approx(2 * seconds(1, 2048, 128), rel=0.05)
    copies = 4 * (1.2e-6 + 0.7e-6)  # the last chunk is padded: four copies, each a start and its trips
    assert copies < seconds(1, 129, 128) - seconds(1, 256, 128) < 2.5 * copies


def test_other_generations_run_a_kernel_for_each_step_of_the_scan() -> None:
    op = SSDScan(1, 2048, 64, 64, 128, 8, 128, "bf16")
    assert len(device("gpu_h100").lower(op).kernels) == 5
    assert len(device("gpu_b200").lower(op).kernels) == 2


@settings(max_examples=60, deadline=None)
@given(gpus, st.integers(1, 64), st.integers(2, 5000), st.integers(1, 6000), st.integers(1, 4))
def test_longer_sequences_never_take_less(gpu: str, batch: int, length: int, channels: int, factor: int) -> None:
    for make in (
        lambda n: CausalConv1d(batch, n, channels, 4, "bf16"),
        lambda n: SSDScan(batch, n, 1 + channels // 64, 64, 128, 1, 128, "bf16"),
    ):
        small, large = (device(gpu).lower(make(n)) for n in (length, length * factor))
        assert large.analytic_s >= small.analytic_s * 0.999
        assert small.analytic_s >= small.roofline_s


def test_a_small_state_update_is_its_round_trips() -> None:
    for gpu, trip, setup in (("gpu_a100", 1.46e-6, 1.4e-6), ("gpu_h100", 0.87e-6, 1.2e-6)):
        found = device(gpu).lower(GatedDelta(1, 1, 1, 128, 128, 64, "bf16"))
        assert found.analytic_s == pytest.approx(setup + 2 * trip, rel=0.3)


# --- row kernels ------------------------------------------------------------------------------------------------------


def test_an_engines_row_kernel_takes_an_element_a_thread() -> None:
    gpu = device("gpu_a100")
    own, framework = (gpu.lower(Pointwise(kind, 4096, 8192, "fp16")) for kind in ("silu_mul", "add"))
    # 40 rows of 8192 stay in L2, an SM holds one block: eight turns of a trip to L2, 21 instructions an element on the
    # 64 lanes of the busier pipe, and three accesses of an element, two bytes each, through the port to L2.
    p = gpu.parameters
    short = gpu.lower(Pointwise("silu_mul", 40, 8192, "fp16"))
    port = max(3 / 32 / 1.41e9, 6 * 40 / p.l2_bytes_per_s)
    turn = 1024 * (21 / 64 / 1.41e9 + port) + p.l2_latency_s
    assert short.analytic_s == pytest.approx(8 * turn + p.memory_latency_s, rel=0.01)
    assert own.analytic_s > 1.3 * framework.analytic_s
    assert own.shares != framework.shares


def test_gates_of_a_product_of_two_waves_come_from_memory() -> None:
    gpu = device("gpu_a100")
    last, first = (gpu.lower(Pointwise("silu_mul", 1, cols, "fp16")) for cols in (108 * 128, 108 * 128 + 1))
    assert last.kernels[0].memory_bytes == 0.0  # 108 tiles of 256 columns, two halves: one wave
    assert first.kernels[0].memory_bytes == pytest.approx(2 * 2 * (108 * 128 + 1))
    # A row's loads now wait for memory, in each of its turns: 14 (a turn for the last column), once for each more.
    p = gpu.parameters
    farther = 14 * (p.memory_latency_s - p.l2_latency_s)
    assert first.analytic_s - last.analytic_s == pytest.approx(farther, rel=0.02)
    assert gpu.lower(Pointwise("rmsnorm", 1, 108 * 128 + 1, "fp16")).kernels[0].memory_bytes == 0.0


@settings(max_examples=60, deadline=None)
@given(gpus, st.sampled_from(["rmsnorm", "silu_mul", "rope"]), st.integers(1, 9000), st.integers(1, 9000))
def test_row_kernels_grow_with_rows_and_columns(gpu: str, kind: str, rows: int, cols: int) -> None:
    base, taller, wider = (
        device(gpu).lower(Pointwise(kind, r, c, "fp16")) for r, c in ((rows, cols), (2 * rows, cols), (rows, 2 * cols))
    )
    assert taller.analytic_s >= base.analytic_s * 0.999
    assert wider.analytic_s >= base.analytic_s * 0.999
    assert base.analytic_s >= base.roofline_s


def test_a_long_softmax_row_costs_three_sweeps_and_a_short_one_a_single_read() -> None:
    gpu = device("gpu_a100")
    short, long = (gpu.lower(Pointwise("softmax", rows, cols, "fp16")) for rows, cols in ((65536, 1024), (2048, 32768)))
    assert long.kernels[0].l2_bytes == pytest.approx(2 * short.kernels[0].l2_bytes)  # 3 reads + 1 write against 1 + 1
    elements = 2048 * 32768 / (1.41e9 * 108)
    assert long.analytic_s >= elements * (32.5 / 64 + 0.5 / 10)
    assert short.kernels[0].memory_bytes == pytest.approx(2 * 2 * 2048 * 32768)


def test_rows_in_work_beyond_l2_are_read_from_memory_in_every_sweep() -> None:
    small_l2, large_l2 = device("gpu_mi210"), device("gpu_h100")
    op = Pointwise("softmax", 16384, 16384, "fp16")  # 32 KiB a row, four rows on each of 104 or 132 processors
    once = op.bytes_moved
    assert large_l2.lower(op).kernels[0].memory_bytes == pytest.approx(once)
    assert 1.5 * once < small_l2.lower(op).kernels[0].memory_bytes < 2 * once


def test_the_residual_stream_comes_from_memory_and_returns_there() -> None:
    gpu = device("gpu_a100")
    add, gate = (gpu.lower(Pointwise(kind, 512, 4096, "fp16")).kernels[0] for kind in ("add", "mul"))
    assert (add.memory_bytes, gate.memory_bytes) == (pytest.approx(2 * 2 * 512 * 4096), 0.0)


@pytest.mark.parametrize(("launched", "cost"), [("library", 21e-6), ("native", 12e-6), ("compiled", 45e-6)])
def test_launch_classes_cost_what_was_measured_alone(launched: Launched, cost: float) -> None:
    assert device("gpu_a100").launch.alone_s(launched) == pytest.approx(cost)


def test_an_operator_says_how_it_is_launched_and_pays_for_it() -> None:
    gpu = device("gpu_a100")
    rows = {"rows": 64, "cols": 4096, "dtype": "fp16"}
    native, compiled = (from_row("layernorm", {**rows, "compiled": value}) for value in (False, True))
    product = from_row("linear", {"m": 64, "n": 64, "k": 64, "dtype": "fp16"})
    assert [op.launched for op in (product, native, compiled)] == ["library", "native", "compiled"]
    costs = [single_launch_s(gpu.launch, "eager", gpu.lower(op)) for op in (product, native, compiled)]
    assert costs == pytest.approx([21e-6, 12e-6, 45e-6])
    assert single_launch_s(gpu.launch, "graph", gpu.lower(compiled)) == pytest.approx(gpu.launch.gap_s)


# --- delta rule -------------------------------------------------------------------------------------------------------


def test_a_state_that_is_read_narrow_moves_fewer_bytes() -> None:
    wide, narrow = (GatedDelta(512, 1, 64, 128, 128, 64, "bf16", initial_state_dtype=dtype) for dtype in ("", "bf16"))
    state = 512 * 64 * 128 * 128
    assert wide.bytes_moved - narrow.bytes_moved == pytest.approx(2 * state)
    gpu = device("gpu_h100")
    assert gpu.lower(wide).analytic_s > 1.2 * gpu.lower(narrow).analytic_s


def test_a_timed_row_repeats_its_state_and_a_model_does_not() -> None:
    cells = {"batch": 8, "length": 1, "heads": 16, "key_dim": 128, "value_dim": 128, "dtype": "bf16"}
    alone, inside = from_row("gated_delta", cells), from_row("gated_delta", cells, strict=True)
    gpu = device("gpu_a100")
    assert gpu.lower(alone).kernels[0].memory_bytes == 0.0
    assert gpu.lower(inside).kernels[0].memory_bytes >= 2 * 4 * 8 * 16 * 128 * 128


def test_the_state_of_a_chunked_delta_rule_is_carried_chunk_by_chunk() -> None:
    gpu, trip = device("gpu_h100"), 0.8e-6

    def states(batch: int, length: int) -> float:
        found = gpu.lower(GatedDelta(batch, length, 16, 128, 128, 64, "bf16"))
        return next(t.total_s for k, t in zip(found.kernels, found.times, strict=True) if k.name == "delta states")

    assert states(1, 8192) - states(1, 4096) >= 64 * 2 * trip  # two dependent products a chunk
    assert states(2, 8192) < 1.5 * states(1, 8192)  # 128 blocks of 32 value columns fit 132 processors
    assert states(32, 8192) > 4 * states(1, 8192)


@pytest.mark.parametrize("kind", ["gated_delta", "ssd_scan", "conv1d"])
def test_a_prompt_of_one_token_goes_the_way_of_prompts(kind: str) -> None:
    sizes = {
        "gated_delta": {"heads": 16, "key_dim": 128, "value_dim": 128},
        "ssd_scan": {"heads": 64, "head_dim": 64, "state": 128},
        "conv1d": {"channels": 2048},
    }[kind]
    cells = {"batch": 16, "length": 1, "dtype": "bf16", **sizes}
    gpu = device("gpu_h100")
    names = {
        phase: [k.name for k in gpu.lower(from_row(kind, {**cells, "phase": phase})).kernels]
        for phase in ("context", "generation")
    }
    assert names["context"] != names["generation"]
    assert all("update" in name for name in names["generation"])
    longer = gpu.lower(from_row(kind, {**cells, "length": 64, "phase": "context"}))
    assert names["context"] == [k.name for k in longer.kernels] or kind != "conv1d"


# --- routed experts of block-scaled and of compact weights -------------------------------------------------------------


def _experts(tokens: int, intermediate: int = 2048, **other: object) -> Experts:
    given: dict[str, object] = {"dtype": "bf16", "weight_dtype": "int4", "group_size": 128, "distribution": "balanced"}
    return Experts(tokens, 7168, intermediate, 256, 8, **(given | other))  # type: ignore[arg-type]


def test_compact_experts_take_a_row_block_by_their_mean_rows_and_fill_every_processor() -> None:
    gpu = device("gpu_h100")
    # 256 tokens give an expert 8 rows: more than 0.9 of a block of 8, so it takes 16; 28 rows take 32, 64 and more 64.
    for tokens, rows in ((16, 8), (256, 16), (896, 32), (65536, 64)):
        up = next(k for k in gpu.lower(_experts(tokens)).kernels if "gate" in k.name)
        assert up.name.endswith(f" {rows}x128x64")
        assert up.tiles == 132 * up.slots
        assert up.slots <= (4 if rows <= 16 else 2)


@settings(max_examples=40, deadline=None)
@given(gpus, st.integers(256, 4096), st.sampled_from(["int4", "int8"]), st.sampled_from([128, 768, 2048]))
def test_compact_experts_grow_with_their_width_and_stay_above_the_roofline(
    gpu: str, tokens: int, stored: str, width: int
) -> None:
    dtype = "bf16" if "bf16" in device(gpu).spec.matrix else "fp16"
    narrow, wide = (
        device(gpu).lower(_experts(tokens, w, weight_dtype=stored, dtype=dtype)) for w in (width, 2 * width)
    )
    assert wide.analytic_s >= narrow.analytic_s * 0.999
    assert narrow.analytic_s >= narrow.roofline_s


def test_a_block_scaled_tile_of_one_step_costs_more_than_its_share_of_a_long_one() -> None:
    gpu = device("gpu_h100")
    scaled = {"dtype": "fp8", "weight_dtype": "fp8", "group_size": 128 * 128}
    short, long = (
        next(k for k in gpu.lower(_experts(64, w, **scaled)).kernels if "down" in k.name) for w in (128, 2048)
    )
    assert short.classes[0].count == long.classes[0].count
    # The columns' scales are found once a tile: 60 instructions for each of 32 columns of 128 threads.
    found = 32 * 128 * 60 / gpu.parameters.vector_op_rate()
    assert short.classes[0].busy_s > found
    assert 16 * (short.classes[0].busy_s - found) == pytest.approx(long.classes[0].busy_s - found)


def test_results_that_weights_pushed_out_of_l2_are_read_from_memory() -> None:
    gpu = device("gpu_h100")
    few, many = (
        next(
            k
            for k in gpu.lower(Experts(256, 2048, 128, n, 8, "bf16", distribution="balanced")).kernels
            if "sum" in k.name
        )
        for n in (8, 128)
    )
    read = 256 * 8 * 2048 * 2
    assert few.memory_bytes < 0.1 * read
    assert many.memory_bytes == pytest.approx(read, rel=0.01)

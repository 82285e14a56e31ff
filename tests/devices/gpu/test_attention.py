"""Attention on GPUs: steps worked out by hand, splits, what an engine's operator adds, and what must hold for all."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import attentions, latent_attentions

from effsim.devices.device import Lowered
from effsim.devices.gpu.attention import occupancy_split
from effsim.devices.gpu.device import GpuDevice
from effsim.devices.registry import load_machine
from effsim.graph.operator import Operator
from effsim.graph.operators.attention import Attention, LatentAttention
from effsim.graph.table import from_row
from effsim.readings.events import kernel_seconds
from effsim.readings.launch import single_launch_s

GPUS = ("gpu_a100", "gpu_h100", "gpu_h200", "gpu_l40s", "gpu_b200", "gpu_rtx_pro_6000", "gpu_t4", "gpu_mi300x")
ROW = {"phase": "generation", "batch": 4, "kv_len": 1024, "heads": 32, "kv_heads": 8, "head_dim": 128, "dtype": "fp16"}


@cache
def gpu(name: str) -> GpuDevice:
    device = load_machine(name).device
    assert isinstance(device, GpuDevice)
    return device


def names(low: Lowered) -> list[str]:
    return [kernel.name for kernel in low.kernels]


def detail(low: Lowered, word: str) -> dict[str, float | str]:
    return dict(next(k for k in low.kernels if word in k.name).detail)


def decode(batch: int = 1, kv_len: int = 4096, heads: int = 32, kv_heads: int = 8, call: bool = False) -> Attention:
    return Attention("generation", batch, 1, kv_len, heads, kv_heads, 128, "fp16", call=call)


# --- one inner step ---------------------------------------------------------------------------------------------------


def test_step_of_a_register_fed_kernel_by_hand() -> None:
    # A100, paged tile 64 x 128 at head size 128, 1410 MHz. Products: 4 x 64 x 128 x 128 FLOP at 2048 a clock: 2048
    # clocks. Four warps read 128 keys of 512 bytes each, and 16 KiB of queries, at 128 bytes a clock: 2176 clocks, the
    # longer of the two. Softmax: 8192 scores x 4 operations and 8192 rescales at 64 a clock, 8192 exponentials at 16.
    low = gpu("gpu_a100").lower(Attention("context", 1, 2048, 2048, 8, 8, 128, "fp16"))
    shared = (4 * 128 * 512 + 64 * 128 * 2) / 128
    softmax = (8192 * 4 + 8192) / 64 + 8192 / 16
    latency = float(gpu("gpu_a100").spec.kernels.attention.step_latency)
    assert detail(low, "context")["step_s"] == pytest.approx((shared + softmax) / 1410e6 + latency)


def test_step_with_softmax_behind_the_products_by_hand() -> None:
    # H100: 4 x 128 x 128 x 128 FLOP at 4096 a clock, 2048 clocks; 16384 x 5 operations at 128 and 16384 exponentials
    # at 16 a clock are 1664: hidden.
    low = gpu("gpu_h100").lower(Attention("context", 1, 2048, 2048, 8, 8, 128, "fp16"))
    latency = float(gpu("gpu_h100").spec.kernels.attention.step_latency)
    assert detail(low, "context")["step_s"] == pytest.approx(2048 / 1830e6 + latency)


def test_step_of_three_groups_of_warps_by_hand() -> None:
    # H100, head size 64: 192 x 128. Products: 4 x 192 x 128 x 64 FLOP at 4096 a clock are 1536 clocks, exponentials
    # 24576 at 16 a clock as many; the other operations (24576 x 4 and 192 x 64, at 128) run beside both.
    low = gpu("gpu_h100").lower(Attention("context", 1, 2048, 2048, 8, 8, 64, "fp16"))
    latency = float(gpu("gpu_h100").spec.kernels.attention.step_latency)
    assert detail(low, "context")["step_s"] == pytest.approx(1536 / 1830e6 + latency)


@pytest.mark.parametrize(
    ("name", "head_dim", "kv_dtype", "context", "steps"),
    [
        ("gpu_h100", 64, "", "192x128", 22),  # 4096 keys in steps of 192
        ("gpu_h100", 128, "", "128x128", 32),
        ("gpu_h100", 192, "", "128x96", 43),
        ("gpu_h100", 256, "", "128x80", 52),
        ("gpu_h100", 128, "fp8", "128x112", 37),
        ("gpu_a100", 64, "", "64x256", 16),
        ("gpu_a100", 256, "", "64x64", 64),
    ],
)
def test_tiles_of_a_head_size(name: str, head_dim: int, kv_dtype: str, context: str, steps: int) -> None:
    prompt = Attention("context", 1, 4096, 4096, 8, 8, head_dim, "bf16", kv_dtype)
    assert detail(gpu(name).lower(prompt), "context")["tile"] == context
    token = Attention("generation", 512, 1, 4096, 8, 8, head_dim, "bf16", kv_dtype)
    assert detail(gpu(name).lower(token), "generation")["steps"] == steps


def test_a_window_touches_the_block_it_starts_in() -> None:
    # Keys 3967 to 4095 lie in two blocks of 128; one key fewer would be in one.
    for window, steps in ((128, 2), (127, 1), (1024, 9)):
        op = Attention("generation", 512, 1, 4096, 8, 8, 128, "bf16", window=window)
        assert detail(gpu("gpu_h100").lower(op), "generation")["steps"] == steps


def test_queries_and_outputs_of_a_lone_block_are_exposed() -> None:
    # Head groups of 8 queries move eight times the queries and outputs of one, through the same tiles.
    one, many = (gpu("gpu_h100").lower(Attention("generation", 4096, 1, 64, 8 * g, 8, 128, "bf16")) for g in (1, 8))
    own = 4096 * 56 * 2 * 128 * 2
    per_second = gpu("gpu_h100").parameters.memory_bytes_per_s
    assert many.analytic_s - one.analytic_s == pytest.approx(own / per_second, rel=0.25)


def test_the_scheduler_walks_through_batches_up_to_its_largest() -> None:
    walk = gpu("gpu_h100").spec.kernels.attention.walk
    assert walk is not None

    def start_s(batch: int) -> float:
        return gpu("gpu_h100").lower(Attention("generation", batch, 1, 64, 8, 8, 128, "bf16")).kernels[0].setup_s

    most = int(walk.most)
    looks = (most - 31) / int(walk.sequences)
    assert start_s(most) - start_s(31) == pytest.approx(looks * float(walk.look))
    assert start_s(most + 1) < start_s(31)


def test_pieces_of_many_sequences_pass_through_memory() -> None:
    op = LatentAttention("generation", 1024, 1, 64, 128, 512, 64, "bf16")
    first, merge = gpu("gpu_a100").lower(op).kernels
    pieces = 1024 * 128 * 4 * 513 * 4
    assert merge.memory_bytes == pytest.approx(pieces)
    assert first.memory_bytes > pieces


def test_query_heads_of_a_group_are_free_until_they_fill_the_tile() -> None:
    for name in ("gpu_a100", "gpu_h100"):
        few, many, over = (gpu(name).lower(decode(heads=8 * g)).analytic_s for g in (2, 16, 128))
        assert many == pytest.approx(few, rel=0.05)
        assert over > 1.1 * many


# --- splits -----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 400), st.integers(1, 300), st.integers(1, 300), st.integers(1, 128))
def test_occupancy_split_is_the_fewest_that_fill_well(tiles: int, steps: int, places: int, most: int) -> None:
    split = occupancy_split(tiles, steps, places, most)
    assert 1 <= split <= max(1, min(steps, most, places))

    def fill(pieces: int) -> float:
        return tiles * pieces / (places * math.ceil(tiles * pieces / places))

    if tiles >= 0.8 * places:
        assert split == 1
    else:
        lengths = {math.ceil(steps / s): s for s in range(min(steps, most, places), 0, -1)}  # fewest of each length
        best = max(fill(s) for s in lengths.values())
        assert fill(split) >= 0.85 * best
        assert all(fill(s) < 0.85 * best for s in lengths.values() if s < split)


def test_long_caches_are_split_over_idle_sms_and_merged() -> None:
    low = gpu("gpu_h100").lower(decode(kv_len=65536))
    assert names(low)[-1] == "attention merge"
    count, units = low.kernels[0].tiles, gpu("gpu_h100").parameters.units
    assert 0.7 * units <= count <= units
    assert len(gpu("gpu_h100").lower(decode(batch=256, kv_len=256)).kernels) == 1


def test_keys_of_ungrouped_queries_stay_whole_where_the_library_cannot_split_them() -> None:
    grouped, plain = gpu("gpu_a100").lower(decode(heads=32)), gpu("gpu_a100").lower(decode(heads=8))
    assert detail(plain, "generation")["splits"] == 1
    assert int(detail(grouped, "generation")["splits"]) > 4
    assert plain.analytic_s > 2 * grouped.analytic_s


# --- the engine's operator --------------------------------------------------------------------------------------------


def test_table_rows_are_engine_operators_and_graph_entries_are_kernels() -> None:
    row, entry = from_row("attention", ROW), from_row("attention", ROW, strict=True)
    assert isinstance(row, Attention)
    assert isinstance(entry, Attention)
    assert (row.call, entry.call) == (True, False)
    assert from_row("attention", {**ROW, "call": False}) == entry
    assert (row.flops, row.bytes_moved) == (entry.flops, entry.bytes_moved)
    assert names(gpu("gpu_h100").lower(row))[0] == "cache write"
    assert "cache write" not in names(gpu("gpu_h100").lower(entry))


def test_grouped_queries_are_copied_where_the_library_regroups_them() -> None:
    copies = int(gpu("gpu_a100").spec.kernels.attention.call.regroup_copies or 0)
    assert copies > 1
    for op, wanted in (
        (decode(2, call=True), copies),
        (decode(1, call=True), 1),
        (decode(2, heads=8, kv_heads=1, call=True), 1),
        (decode(2, heads=8, call=True), 0),
    ):
        assert names(gpu("gpu_a100").lower(op)).count("regroup") == wanted
    assert "regroup" not in names(gpu("gpu_h100").lower(decode(2, call=True)))


def test_a_replayed_cache_that_fits_is_read_from_l2() -> None:
    # 32 MiB of keys and values: L40S keeps them in its 96 MB, and its memory would take 39 us.
    once, replayed = (gpu("gpu_l40s").lower(decode(8, 1024, call=call)).kernels for call in (False, True))
    assert sum(k.memory_bytes for k in once) >= 8 * 1024 * 4096
    assert sum(k.memory_bytes for k in replayed) == 0.0


def test_cache_write_costs_by_the_token() -> None:
    def write_s(tokens: int, kv_heads: int) -> float:
        op = Attention("context", 1, tokens, tokens, 8, kv_heads, 128, "fp16", call=True)
        low = gpu("gpu_h100").lower(op)
        return low.times[0].total_s - low.kernels[0].setup_s

    assert write_s(65536, 8) == pytest.approx(4 * write_s(16384, 8), rel=0.02)
    assert write_s(65536, 4) == pytest.approx(4 * write_s(65536, 1), rel=0.05)  # 512 threads against 128
    assert write_s(65536, 8) == pytest.approx(write_s(65536, 4), rel=0.05)  # no wider block: the same work


def test_narrow_caches_run_narrow_products_where_the_kernels_have_them() -> None:
    op = Attention("context", 4, 8192, 8192, 32, 8, 128, "bf16", "fp8")
    for name, ratio in (("gpu_h100", 0.5), ("gpu_l40s", 1.0)):
        wide, narrow = gpu(name).lower(replace(op, kv_dtype="")), gpu(name).lower(op)
        assert narrow.roofline_s == pytest.approx(ratio * wide.roofline_s, rel=0.01)


def test_a_row_may_leave_the_cache_write_out() -> None:
    row = {**ROW, "appends": "false"}
    whole, bare = (gpu("gpu_h100").lower(from_row("attention", r)) for r in (ROW, row))
    assert names(whole) == ["cache write", *names(bare)]
    assert bare.kernels[0].setup_s == pytest.approx(whole.kernels[0].setup_s + whole.kernels[1].setup_s)


@pytest.mark.parametrize(("name", "default"), [("gpu_h100", True), ("gpu_b200", False)])
def test_a_latent_row_says_whether_it_is_the_whole_module(name: str, default: bool) -> None:
    cells = {"phase": "generation", "batch": 1, "kv_len": 64, "heads": 16, "kv_lora_rank": 512, "rope_dim": 64}
    cells |= {"dtype": "bf16"}
    plain, module, bare = (
        names(gpu(name).lower(from_row("latent_attention", cells | more)))
        for more in ({}, {"module": True}, {"module": False})
    )
    assert plain == (module if default else bare)
    assert any("absorb" in n for n in module)
    assert not any("absorb" in n or "host" in n for n in bare)


def test_absorbed_prompts_see_only_earlier_keys() -> None:
    op = LatentAttention("context", 8, 512, 512, 128, 512, 64, "bf16", call=True)
    steps = detail(gpu("gpu_h100").lower(op), "generation")["steps"]
    assert float(steps) == pytest.approx((512 + 64) / 2 / 64, rel=0.1)


@pytest.mark.parametrize("name", ["gpu_a100", "gpu_h100"])
def test_latent_module_waits_for_the_host_and_no_longer(name: str) -> None:
    d = gpu(name)
    host_s = float(d.spec.kernels.attention.call.latent_host)

    def row_s(kv_len: int) -> float:
        low = d.lower(LatentAttention("generation", 16, 1, kv_len, 128, 512, 64, "bf16", call=True))
        return low.analytic_s + single_launch_s(d.launch, "graph", low)

    assert row_s(1) == pytest.approx(host_s, rel=1e-6)
    assert row_s(2) == pytest.approx(row_s(1), rel=1e-6)
    assert row_s(131072) > 3 * host_s


def test_short_prompts_of_latent_attention_may_run_absorbed() -> None:
    def kernels(name: str, length: int) -> list[str]:
        return names(gpu(name).lower(LatentAttention("context", 8, length, length, 128, 512, 64, "bf16", call=True)))

    assert any("absorb" in n for n in kernels("gpu_h100", 512))
    assert any("expand" in n for n in kernels("gpu_h100", 513))
    assert any("expand" in n for n in kernels("gpu_a100", 512))
    narrow = LatentAttention("context", 8, 129, 129, 128, 512, 64, "bf16", "fp8", call=True)
    assert any("expand" in n for n in names(gpu("gpu_h100").lower(narrow)))
    assert any("absorb" in n for n in names(gpu("gpu_h100").lower(replace(narrow, q_len=128, kv_len=128))))


# --- what must hold for every operator and GPU ------------------------------------------------------------------------

calls: st.SearchStrategy[Operator] = st.one_of(
    attentions(fused=True).map(lambda op: replace(op, call=True)),
    latent_attentions().map(lambda op: replace(op, call=True)),
)


@settings(max_examples=40)
@given(calls, st.sampled_from(GPUS))
def test_calls_obey_their_bounds_and_cost_more_than_the_kernel(op: Operator, name: str) -> None:
    low = gpu(name).lower(op)
    for kernel, timed in zip(low.kernels, low.times, strict=True):
        assert kernel.roofline_s <= timed.total_s * (1 + 1e-9)
        assert kernel.roofline_s <= kernel_seconds(kernel) * (1 + 1e-9)
    matrix = op.arithmetic().matrix
    assert low.analytic_s >= low.roofline_s >= matrix / gpu(name).peak_matrix_flops("fp16") * (1 - 1e-9)


@settings(max_examples=40)
@given(calls, st.sampled_from(GPUS), st.sampled_from([1.02, 1.5, 4.0]))
def test_more_sequences_never_take_less(op: Operator, name: str, factor: float) -> None:
    assert isinstance(op, Attention | LatentAttention)
    larger = replace(op, batch=max(op.batch + 1, round(op.batch * factor)))
    before, after = gpu(name).lower(op), gpu(name).lower(larger)
    assert after.roofline_s >= before.roofline_s * (1 - 1e-9)
    # A split that ends its last wave better may win a few per cent.
    assert after.analytic_s >= before.analytic_s * 0.9


@settings(max_examples=25)
@given(st.integers(1, 4096), st.sampled_from([64, 80, 96, 128, 192, 256]), st.booleans(), st.sampled_from(GPUS))
def test_masks_and_windows_only_save(length: int, head_dim: int, call: bool, name: str) -> None:
    full = Attention("context", 2, length, length, 16, 4, head_dim, "fp16", causal=False, call=call)
    causal, windowed = replace(full, causal=True), replace(full, causal=True, window=128)
    times = [gpu(name).lower(op).analytic_s for op in (windowed, causal, full)]
    assert times[0] <= times[1] * 1.1
    assert times[1] <= times[2] * 1.1

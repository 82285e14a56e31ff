"""Experts, scans, convolutions and row kernels of a GPU: blocks by hand, and what must hold on real ones."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effsim.devices.device import Device
from effsim.devices.registry import load_machine
from effsim.graph.operators.convolution import CausalConv1d
from effsim.graph.operators.moe import Experts
from effsim.graph.operators.pointwise import Pointwise
from effsim.graph.operators.scan import GatedDelta, SSDScan

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


def test_a_large_product_takes_its_blocks_at_the_gathering_rate() -> None:
    # 16384 tokens, 8 of 128 experts: 1024 rows each are 16 blocks; 32 columns of tiles, 24 steps and 2 more to fill.
    op = Experts(16384, 2048, 768, 128, 8, distribution="balanced")
    gpu = device("gpu_a100")
    lowered = gpu.lower(op)
    (index,) = [i for i, k in enumerate(lowered.kernels) if k.name.startswith("experts down")]
    steps = 128 * 16 * 32 * (24 + 2)
    expected = steps * (64 + 64) * 32 / (10.7 * 1.41e9 * 108)
    assert lowered.times[index].total_s == pytest.approx(expected, rel=0.02)


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
    for gpu, trip, setup in (("gpu_a100", 1.5e-6, 1.4e-6), ("gpu_h100", 0.8e-6, 1.2e-6)):
        found = device(gpu).lower(GatedDelta(1, 1, 1, 128, 128, 64, "bf16"))
        assert found.analytic_s == pytest.approx(setup + 2 * trip, rel=0.3)


# --- row kernels ------------------------------------------------------------------------------------------------------


def test_an_engines_row_kernel_takes_an_element_a_thread() -> None:
    gpu = device("gpu_a100")
    own, framework = (gpu.lower(Pointwise(kind, 4096, 8192, "fp16")) for kind in ("silu_mul", "add"))
    # Three accesses an element at 4.2 a clock on 108 SMs take longer than memory for the same three tensors.
    assert own.analytic_s >= 3 * 4096 * 8192 / (4.2 * 1.41e9 * 108)
    assert own.analytic_s > 1.3 * framework.analytic_s
    assert own.shares != framework.shares


@settings(max_examples=60, deadline=None)
@given(gpus, st.sampled_from(["rmsnorm", "silu_mul", "rope"]), st.integers(1, 9000), st.integers(1, 9000))
def test_row_kernels_grow_with_rows_and_columns(gpu: str, kind: str, rows: int, cols: int) -> None:
    base, taller, wider = (
        device(gpu).lower(Pointwise(kind, r, c, "fp16")) for r, c in ((rows, cols), (2 * rows, cols), (rows, 2 * cols))
    )
    assert taller.analytic_s >= base.analytic_s * 0.999
    assert wider.analytic_s >= base.analytic_s * 0.999
    assert base.analytic_s >= base.roofline_s

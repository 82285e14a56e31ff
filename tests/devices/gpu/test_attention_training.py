"""The training framework's attention: a backward step by hand, masks, bounds, and published figures where they are."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effsim._api import plan_on
from effsim.devices.gpu.attention_training import tile_for
from effsim.devices.gpu.device import GpuDevice
from effsim.devices.registry import load_machine
from effsim.errors import UnsupportedError
from effsim.graph.operator import Operator
from effsim.graph.operators.attention import Attention, AttentionBackward
from effsim.program.workload_file import load_workload
from effsim.validation.tables import read_csv


def gpu(name: str) -> GpuDevice:
    device = load_machine(name).device
    assert isinstance(device, GpuDevice)
    return device


def attention(batch: int, length: int, heads: int, head_dim: int, *, causal: bool, kv_heads: int = 0) -> Attention:
    kv = kv_heads or heads
    return Attention("context", batch, length, length, heads, kv, head_dim, "bf16", causal=causal, cached=False)


def test_a_step_by_hand() -> None:
    """A100, head size 128: 64 queries against 128 keys, eight warps, 2048 FLOP and 128 B of shared memory a clock."""
    device = gpu("gpu_a100")
    model = device._training_attention
    assert model is not None
    step, clock = model.step(attention(1, 4096, 1, 128, causal=False)), 1410e6
    assert step.matrix_s * clock == pytest.approx(5 * 2 * 64 * 128 * 128 / 2048)
    # Score products: 2 x 4 warps of 32 x 32; key and value gradients: 4 x 2 warps of 32 x 64; query gradient: 2 x 4.
    words = 8 * (2 * (32 + 32) * 128 + 2 * (32 + 64) * 64 + (32 + 32) * 128) + 2 * 64 * 128 + 2 * 64 * 128
    assert step.shared_s * clock == pytest.approx((words * 2 + 64 * 128 * 4) / 128)
    assert step.vector_s * clock == pytest.approx(5 * 64 * 128 / 64 + 64 * 128 / 16)
    assert step.total_s >= step.matrix_s


def test_a_kernel_without_a_pipeline_shows_its_loads_by_hand() -> None:
    """A100, head size 128, 128 x 128: trips to L2 at 150 ns, then the bytes at a 108th of 5427 GB/s."""
    model = gpu("gpu_a100")._training_attention
    assert model is not None
    usual = attention(1, 4096, 1, 128, causal=False)
    step = model.step(replace(usual, kernel="triton"))
    moved = 128 * (2 * 128 * 2 + 128 * 4)  # queries, gradients of the output, fp32 sums
    phases = 5 * float(model._kernels.phase_latency)
    assert step.latency_s == pytest.approx(phases + 4 * 150e-9 + moved / (5427e9 / 108))
    assert model.step(usual).latency_s == pytest.approx(phases)


@pytest.mark.parametrize("name", ["gpu_a100", "gpu_h100"])
@pytest.mark.parametrize("length", [512, 2048, 8192])
def test_a_kernel_without_a_pipeline_is_slower_and_does_the_same_work(name: str, length: int) -> None:
    device, usual = gpu(name), attention(4, length, 16, 128, causal=True)
    other = replace(usual, kernel="triton")
    pairs: tuple[tuple[Operator, Operator], ...] = (
        (usual, other),
        (AttentionBackward(usual), AttentionBackward(other)),
    )
    for one, two in pairs:
        first, second = device.lower(one), device.lower(two)
        assert first.analytic_s < second.analytic_s < 4.0 * first.analytic_s
        assert (first.flops, first.bytes_moved) == (second.flops, second.bytes_moved)
        assert second.roofline_s == pytest.approx(first.roofline_s)


def test_an_unknown_kernel_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnsupportedError, match=r"no training attention 'tritn'; it has triton; did you mean 'triton'"):
        gpu("gpu_a100").lower(replace(attention(1, 512, 4, 64, causal=True), kernel="tritn"))
    with pytest.raises(UnsupportedError, match="no training attention 'triton'"):
        gpu("gpu_b200").lower(replace(attention(1, 512, 4, 64, causal=True), kernel="triton"))


def test_the_workload_names_the_kernel() -> None:
    machine, names = load_machine("system_a100_64"), []
    for kernel in ("", "triton"):
        workload, _ = load_workload(
            "mpt_7b_training", [f"workload.training.attention_kernel={kernel}"] if kernel else []
        )
        nodes = [node for phase in plan_on(machine, workload).phases for _, _, node, _ in phase.nodes()]
        names.append({n.op.kernel for n in nodes if isinstance(n.op, Attention)})
    assert names == [{""}, {"triton"}]


def test_the_tile_of_the_next_head_size_is_taken() -> None:
    kernels = gpu("gpu_h100").spec.kernels.training
    assert kernels is not None
    assert [int(tile_for(kernels.backward, d).n) for d in (32, 64, 80, 128, 256, 512)] == [128, 128, 128, 128, 64, 64]


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["gpu_a100", "gpu_h100"]),
    st.integers(1, 8),
    st.integers(64, 4096),
    st.sampled_from([1, 4, 16]),
    st.sampled_from([64, 128]),
    st.booleans(),
)
def test_backward_respects_its_bound_and_grows(
    name: str, batch: int, length: int, heads: int, head_dim: int, causal: bool
) -> None:
    device = gpu(name)
    low = device.lower(AttentionBackward(attention(batch, length, heads, head_dim, causal=causal)))
    assert low.analytic_s >= low.roofline_s
    more = device.lower(AttentionBackward(attention(batch + 8, length, heads, head_dim, causal=causal)))
    assert more.analytic_s >= low.analytic_s * (1 - 1e-9)
    full = device.lower(AttentionBackward(attention(batch, length, heads, head_dim, causal=False)))
    assert full.analytic_s >= low.analytic_s * (1 - 1e-9)


def test_masked_steps_are_left_out_and_grouped_keys_add_up() -> None:
    device = gpu("gpu_h100")
    causal, full = (
        device.lower(AttentionBackward(attention(1, 16384, 16, 128, causal=c))).analytic_s for c in (True, False)
    )
    assert 0.49 < causal / full < 0.56
    grouped = device.lower(AttentionBackward(attention(1, 16384, 16, 128, causal=True, kv_heads=4)))
    assert grouped.kernels[-1].name.endswith("add grouped gradients")


def test_published_figures_of_flash_attention_2() -> None:
    path = Path(os.environ.get("EFFSIM_MEASUREMENTS", "../shared/measurements")) / "published.csv"
    if not path.is_file():
        pytest.skip("no measurements")
    machines = {"A100-SXM4-80GB": gpu("gpu_a100"), "H100-SXM5-80GB": gpu("gpu_h100")}
    errors: dict[str, list[float]] = {name: [] for name in machines}
    for row in read_csv(path):
        if "flash2" not in str(row["source"]) or not str(row["model_or_op"]).startswith("FlashAttention-2"):
            continue
        head_dim = int(str(row["model_or_op"]).split("hd=")[1].split()[0])
        batch, length, heads = int(str(row["batch_or_concurrency"])), int(str(row["input_len"])), 2048 // head_dim
        causal = str(row["model_or_op"]).endswith("causal")
        op, device = attention(batch, length, heads, head_dim, causal=causal), machines[str(row["hardware"])]
        seconds = device.lower(op).analytic_s + device.lower(AttentionBackward(op)).analytic_s
        flops = 3.5 * 4 * batch * heads * head_dim * length**2 * (0.5 if causal else 1.0)
        errors[str(row["hardware"])].append(seconds * float(str(row["value"])) * 1e12 / flops - 1.0)
    for found in errors.values():
        assert found
        assert median(map(abs, found)) < 0.05
        assert max(map(abs, found)) < 0.12

"""Hypothesis strategies: valid operators of every kind, tile classes and kernels."""

from __future__ import annotations

import math

from hypothesis import strategies as st

from effsim.devices.kernel import Kernel, TileClass
from effsim.graph.operator import Operator
from effsim.graph.operators.attention import Attention, KVAppend, LatentAttention
from effsim.graph.operators.convolution import CausalConv1d, Conv2d, FFTConv
from effsim.graph.operators.embedding import CrossEntropy, Embedding, Sampling
from effsim.graph.operators.linear import BatchedMatmul, Linear
from effsim.graph.operators.moe import Experts, TopK
from effsim.graph.operators.pointwise import RECIPES, Pointwise
from effsim.graph.operators.scan import GatedDelta, SelectiveScan, SSDScan

DTYPE = "fp16"
"""The one matrix type that every bundled GPU has."""


def sizes(low: int, high: int) -> st.SearchStrategy[int]:
    """Whole numbers from *low* to *high*, as many small ones as large ones, powers of two among them."""
    logarithmic = st.floats(math.log(low), math.log(high)).map(lambda x: min(high, max(low, round(math.exp(x)))))
    first, last = (low - 1).bit_length(), high.bit_length() - 1
    powers = st.integers(first, max(first, last)).map(lambda e: min(high, 1 << e))
    return st.one_of(logarithmic, powers)


@st.composite
def linears(draw: st.DrawFn) -> Linear:
    weight, group = draw(st.sampled_from([("", 0), ("", 0), ("int8", 0), ("int4", 128)]))
    return Linear(
        draw(sizes(1, 8192)), draw(sizes(1, 8192)), draw(sizes(1, 8192)), DTYPE, weight, group, bias=draw(st.booleans())
    )


@st.composite
def attentions(draw: st.DrawFn, phase: str | None = None, fused: bool | None = None) -> Attention:
    phase = phase or draw(st.sampled_from(["context", "generation"]))
    kv_heads, group = draw(st.sampled_from([1, 2, 8, 32])), draw(st.sampled_from([1, 4, 8]))
    q_len = draw(sizes(1, 2048)) if phase == "context" else draw(st.sampled_from([1, 1, 1, 4]))
    kv_len = q_len + draw(st.sampled_from([0, 0, 1000])) if phase == "context" else q_len + draw(sizes(1, 16384))
    causal = draw(st.booleans()) if phase == "context" else True
    window = draw(st.sampled_from([0, 0, 128, 1024])) if causal else 0
    batch = draw(sizes(1, 8 if phase == "context" else 64))
    head_dim = draw(st.sampled_from([64, 128]))
    keep = draw(st.booleans()) if fused is None else fused
    return Attention(
        phase,
        batch,
        q_len,
        kv_len,
        kv_heads * group,
        kv_heads,
        head_dim,
        DTYPE,
        "",
        causal,
        window,
        keep or phase == "context",
    )


@st.composite
def latent_attentions(draw: st.DrawFn) -> LatentAttention:
    phase = draw(st.sampled_from(["context", "generation"]))
    q_len = draw(sizes(1, 1024)) if phase == "context" else 1
    kv_len = q_len if phase == "context" else draw(sizes(1, 16384))
    return LatentAttention(
        phase, draw(sizes(1, 16)), q_len, kv_len, draw(st.sampled_from([8, 16, 64, 128])), 512, 64, DTYPE
    )


@st.composite
def experts(draw: st.DrawFn) -> Experts:
    number = draw(st.sampled_from([4, 8, 64]))
    return Experts(
        draw(sizes(1, 4096)),
        draw(sizes(64, 4096)),
        draw(sizes(64, 4096)),
        number,
        draw(st.integers(1, min(number, 8))),
        DTYPE,
        gated=draw(st.booleans()),
        distribution=draw(st.sampled_from(["uniform", "uniform", "power_law_1.2"])),
    )


def pointwises() -> st.SearchStrategy[Pointwise]:
    return st.builds(Pointwise, st.sampled_from(sorted(RECIPES)), sizes(1, 16384), sizes(1, 16384), st.just(DTYPE))


@st.composite
def conv2ds(draw: st.DrawFn) -> Conv2d:
    kernel = draw(st.sampled_from([1, 3, 7]))
    groups = draw(st.sampled_from([1, 1, 2]))
    channels = 2 * draw(sizes(1, 256))
    return (
        Conv2d(
            draw(sizes(1, 32)),
            draw(st.integers(kernel, 112)),
            draw(st.integers(kernel, 112)),
            channels,
            2 * draw(sizes(1, 256)),
            kernel,
            draw(st.sampled_from([1, 1, 2])),
            kernel // 2,
            draw(st.sampled_from([groups, channels])) if groups == 1 else groups,
            DTYPE,
        )
        if groups == 2
        else Conv2d(
            draw(sizes(1, 32)),
            draw(st.integers(kernel, 112)),
            draw(st.integers(kernel, 112)),
            channels,
            channels * draw(st.sampled_from([1, 2])),
            kernel,
            draw(st.sampled_from([1, 2])),
            kernel // 2,
            draw(st.sampled_from([1, channels])),
            DTYPE,
        )
    )


BY_KIND: dict[str, st.SearchStrategy[Operator]] = {
    "linear": linears(),
    "batched_matmul": st.builds(
        BatchedMatmul, sizes(1, 256), sizes(1, 2048), sizes(1, 2048), sizes(1, 1024), st.just(DTYPE)
    ),
    "attention": attentions(),
    "latent_attention": latent_attentions(),
    "kv_append": st.builds(KVAppend, sizes(1, 8192), sizes(1, 8192), st.just(DTYPE), st.sampled_from(["", "fp8"])),
    "moe": experts(),
    "moe_router": st.builds(TopK, sizes(1, 8192), st.just(64), st.integers(1, 8)),
    "pointwise": pointwises(),
    "embedding": st.builds(Embedding, sizes(1, 8192), st.just(32000), sizes(1, 8192), st.just(DTYPE)),
    "sampling": st.builds(Sampling, sizes(1, 256), sizes(1, 128000)),
    "cross_entropy": st.builds(CrossEntropy, sizes(1, 4096), sizes(1, 64000)),
    "selective_scan": st.builds(
        SelectiveScan, sizes(1, 16), sizes(1, 8192), sizes(1, 8192), st.sampled_from([8, 16, 64]), st.just(DTYPE)
    ),
    "ssd_scan": st.builds(
        SSDScan,
        sizes(1, 8),
        sizes(1, 4096),
        st.sampled_from([8, 24, 64]),
        st.just(64),
        st.sampled_from([64, 128]),
        st.sampled_from([1, 8]),
        st.sampled_from([64, 256]),
        st.just(DTYPE),
    ),
    "gated_delta": st.builds(
        GatedDelta,
        sizes(1, 8),
        sizes(1, 4096),
        st.sampled_from([4, 32]),
        st.just(128),
        st.just(128),
        st.just(64),
        st.just(DTYPE),
    ),
    "conv1d": st.builds(CausalConv1d, sizes(1, 16), sizes(1, 8192), sizes(1, 8192), st.just(4), st.just(DTYPE)),
    "conv2d": conv2ds(),
    "fft_conv": st.builds(FFTConv, sizes(1, 8), sizes(1, 8192), sizes(1, 1024), st.just("fp32")),
}
"""A strategy for every operator kind that one GPU runs alone."""


def operators() -> st.SearchStrategy[Operator]:
    """Any operator that one GPU runs alone."""
    return st.one_of(list(BY_KIND.values()))


@st.composite
def tile_classes(draw: st.DrawFn) -> TileClass:
    """A tile with any mix of work, latency and traffic, in units of the unit kernel's rates."""
    amount = st.one_of(st.just(0.0), st.floats(0.01, 10.0))
    return TileClass(
        count=draw(sizes(1, 3000)),
        busy_s=draw(st.floats(0.01, 10.0)),
        serial_s=draw(amount),
        l2_bytes=draw(amount),
        memory_bytes=draw(amount),
        flow_bytes_per_s=draw(st.one_of(st.just(math.inf), st.floats(0.1, 100.0))),
    )


@st.composite
def one_class_kernels(draw: st.DrawFn) -> Kernel:
    """A kernel of one tile class on few processors."""
    tile = draw(tile_classes())
    units, slots = draw(st.sampled_from([1, 2, 7, 40])), draw(st.sampled_from([1, 2, 3, 8]))
    bandwidth = st.floats(0.5, 100.0)
    return Kernel("k", (tile,), units, slots, draw(bandwidth), draw(bandwidth), ())

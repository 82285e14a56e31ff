"""Which functional model computes what an operator of the graph counts, kind by kind.

Names are ``module.function`` inside :mod:`effsim.models`. A kind that computes nothing has a reason instead of a model.
Several names of one kind are forms of the same operator (tilings, devices, number formats) that give the same result
up to rounding, or the parts of it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import MappingProxyType
from typing import Any, Final

MODELS: Final = MappingProxyType(
    {
        "attention": ("attention.context_attention", "attention.generation_attention", "attention.merge_partials"),
        "attention_backward": ("attention_backward.attention_backward",),
        "batched_matmul": ("gemm.batched_gemm",),
        "collective": (
            "collectives.ring_all_reduce",
            "collectives.ring_reduce_scatter",
            "collectives.ring_all_gather",
            "collectives.all_to_all",
            "collectives.broadcast",
            "collectives.send_recv",
        ),
        "conv1d": ("conv.causal_conv1d",),
        "conv2d": ("conv.conv2d", "winograd.winograd_conv2d"),
        "bias_backward": ("gradients.bias_gradient",),
        "cross_entropy_backward": (
            "cross_entropy.cross_entropy_backward",
            "cross_entropy.cut_cross_entropy_backward",
        ),
        "gradient_clip": ("gradients.gradient_clip",),
        "gradient_sum": ("gradients.gradient_sum",),
        "conv2d_backward": ("backward.conv2d_backward",),
        "cross_entropy": (
            "cross_entropy.cross_entropy",
            "cross_entropy.cut_cross_entropy",
            "cross_entropy.cross_entropy_backward",
            "cross_entropy.cut_cross_entropy_backward",
        ),
        "embedding": ("embedding.lookup", "embedding.sharded_lookup", "embedding.embedding_bag"),
        "embedding_backward": ("backward.embedding_backward",),
        "fft_conv": ("fftconv.long_conv", "ssm_conv.ssm_convolution"),
        "gated_delta": ("delta.gated_delta",),
        "kv_append": ("kv_cache.append", "kv_cache.append_paged"),
        "latent_attention": ("mla.latent_attention_expanded", "mla.latent_attention_absorbed"),
        "linear": (
            "gemm.gemm",
            "quantized.weight_only_gemm",
            "quantized.int8_gemm",
            "quantized.block_scaled_gemm",
            "systolic.systolic_gemm",
            "pim.bank_gemv",
            "fixed_point.fixed_gemm",
        ),
        "linear_backward": ("backward.linear_backward",),
        "moe": ("moe.grouped_experts",),
        "moe_backward": ("backward.grouped_experts_backward",),
        "moe_router": ("moe.route", "backward.router_backward"),
        "optimizer_step": ("optimizer.adamw",),
        "sampling": ("sampling.sample",),
        "selective_scan": ("scan.selective_scan", "ssm_conv.ssm_convolution"),
        "ssd_scan": ("ssd.ssd_scan", "ssm_conv.ssm_convolution"),
    }
)
"""Models of the kinds that are one class each."""

SCAN_BACKWARD: Final = MappingProxyType(
    {
        "selective_scan": "scan_backward.selective_scan_backward",
        "ssd_scan": "scan_backward.ssd_backward",
        "gated_delta": "scan_backward.gated_delta_backward",
        "conv1d": "scan_backward.causal_conv1d_backward",
        "fft_conv": "scan_backward.long_conv_backward",
    }
)
"""Model of ``scan_backward`` by the kind of its forward."""

WITHOUT_MODEL: Final = MappingProxyType(
    {
        "host_transfer": "copies bytes between device and host memory; nothing is computed",
        "transfer": "copies activations between groups of devices; nothing is computed",
    }
)
"""Reasons of the kinds that have no numbers of their own."""

BEYOND_THE_GRAPH: Final = (
    "linear_attention.linear_attention",
    "linear_attention.retention",
    "linear_attention.rwkv6",
    "linear_attention.wkv4",
    "recurrent.lstm",
    "recurrent.gru",
)
"""Models of operators that no architecture of the catalogue uses yet."""


def resolve(name: str) -> Callable[..., Any]:
    """The function behind ``module.function``.

    >>> resolve("gemm.gemm").__name__
    'gemm'
    """
    module, _, function = name.partition(".")
    found: Callable[..., Any] = getattr(import_module(f"effsim.models.{module}"), function)
    return found


def models_of(kind: str, forward: str = "") -> tuple[Callable[..., Any], ...]:
    """Models of an operator kind; empty for the kinds of :data:`WITHOUT_MODEL`.

    Args:
        kind: as the graph calls it; element-wise kinds included.
        forward: kind of the forward, for ``scan_backward`` and ``pointwise_backward``.

    Raises:
        KeyError: the kind is unknown here.

    >>> [model.__name__ for model in models_of("rmsnorm")]
    ['rmsnorm']
    >>> [model.__name__ for model in models_of("scan_backward", "conv1d")]
    ['causal_conv1d_backward']
    """
    if kind in WITHOUT_MODEL:
        return ()
    if kind in MODELS:
        return tuple(resolve(name) for name in MODELS[kind])
    if kind == "scan_backward":
        return (resolve(SCAN_BACKWARD[forward]),)
    if kind == "pointwise_backward":
        return (resolve("pointwise_backward.BACKWARD")[forward],)  # type: ignore[index]
    return (resolve("pointwise.FORWARD")[kind],)  # type: ignore[index]

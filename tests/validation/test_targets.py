"""Targets: which limit a figure is held to, and what the page says of it."""

from __future__ import annotations

import pytest

from effsim.validation.kernels import Outcome, score
from effsim.validation.tables import Measured
from effsim.validation.targets import TARGETS, kernel_standings, section, target_of


def group(hardware: str, label: str, error: float) -> list[Outcome]:
    row = Measured(hardware, "file", label, "linear", {}, 1e-3)
    return [Outcome(row, 1e-3 * (1.0 + error), 1e-4)]


@pytest.mark.parametrize(
    ("label", "what"),
    [
        ("linear bfloat16", "GEMM, 16 bit"),
        ("linear fp16, eager (LLMCompass)", "GEMM, 16 bit"),
        ("linear fp8_block", "GEMM, fp8, int8, weight-only"),
        ("attention generation fp8 cache", "attention, generation"),
        ("latent_attention generation", "experts, latent attention"),
        ("moe int4_wo", "experts, latent attention"),
        ("add (vidur)", "pointwise, softmax, norm"),
        ("layernorm, compiled (LLMCompass)", "pointwise, softmax, norm"),
        ("collective all_reduce (NCCL)", "collectives"),
    ],
)
def test_every_label_has_its_target(label: str, what: str) -> None:
    found = target_of(label)
    assert found is not None
    assert found.what == what
    assert sum(1 for t in TARGETS if t.what == what) == 1


def test_limits_are_wider_where_nothing_was_fitted() -> None:
    groups = score(group("gpu_h100", "linear bfloat16", 0.08) + group("gpu_h200", "linear bfloat16", 0.08))
    here, there = kernel_standings(groups)
    assert (here.limit, here.met) == (0.05, False)
    assert (there.limit, there.met) == (0.12, True)
    text = "\n".join(section([here, there]))
    assert "| GEMM, 16 bit | 2 | 1 | 8.0 % |" in text
    assert "gpu_h100: linear bfloat16" in text
    assert "gpu_h200: linear bfloat16" not in text


def test_without_a_miss_nothing_is_listed() -> None:
    (met,) = kernel_standings(score(group("gpu_a100", "moe bfloat16", 0.1)))
    assert "Not met" not in "\n".join(section([met]))

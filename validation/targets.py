"""What effsim aims at, kind by kind, and where it stands: the first thing to know before trusting a number."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .kernels import GroupScore
from .serving import NAMES
from .serving import TARGETS as SERVING_TARGETS

if TYPE_CHECKING:
    from .report import Report

GIVEN: Final = ("gpu_a100", "gpu_h100")
"""GPUs whose tables some parameters were fitted on; every other GPU is held to the wider limits."""


@dataclass(frozen=True, slots=True)
class Target:
    """Limits of the median error of labels that match ``pattern``: on the GPUs of the fits, and elsewhere."""

    what: str
    pattern: str
    given: float
    elsewhere: float


TARGETS: Final = (
    Target("GEMM, 16 bit", r"linear (bfloat16|fp16)", 0.05, 0.12),
    Target("GEMM, fp8, int8, weight-only", r"linear (fp8|fp8_block|sq|int8_wo|int4_wo)$", 0.08, 0.15),
    Target("attention, context", r"attention context", 0.12, 0.20),
    Target("attention, generation", r"attention generation", 0.12, 0.20),
    Target("experts, latent attention", r"(moe|latent_attention) ", 0.15, 0.25),
    Target("gated delta, SSD, convolution", r"(gated_delta|ssd_scan|conv1d) ", 0.20, 0.30),
    Target("collectives", r"collective ", 0.10, 0.20),
    Target("pointwise, softmax, norm", r"(add|rmsnorm|rope|silu_mul|gelu|layernorm|softmax)\b", 0.12, 0.20),
)
ENERGY_TARGET, TRAINING_TARGET, STATIC_TARGET, STATIC_ELSEWHERE = 0.15, 0.10, 0.10, 0.15
"""Limits of kernel energy (products on H200), of training time and memory, and of static batches."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One figure against its limit."""

    what: str
    where: str
    n: int
    median: float
    limit: float

    @property
    def met(self) -> bool:
        """Within the limit."""
        return self.median <= self.limit


def target_of(label: str) -> Target | None:
    """The target that a label of the kernel tables falls under.

    >>> target_of("latent_attention context").what, target_of("attention context fp8 cache").what
    ('experts, latent attention', 'attention, context')
    """
    return next((t for t in TARGETS if re.match(t.pattern, label)), None)


def kernel_standings(groups: Sequence[GroupScore]) -> Iterator[Standing]:
    """Every label of every GPU that has a target."""
    for g in groups:
        target = target_of(g.label) if g.bucket == "all" else None
        if target is not None:
            limit = target.given if g.hardware in GIVEN else target.elsewhere
            yield Standing(target.what, f"{g.hardware}: {g.label}", g.score.n, g.score.median, limit)


def standings(report: Report) -> list[Standing]:
    """Everything that has a target, in the order of the targets."""
    found = list(kernel_standings(report.kernels.groups)) if report.kernels is not None else []
    order = [t.what for t in TARGETS]
    found.sort(key=lambda s: order.index(s.what))
    for e in report.energy:
        if e.readings == "all" and e.hardware == "gpu_h200" and e.label == "linear bfloat16":
            found.append(Standing("energy", f"{e.hardware}: {e.label}", e.energy.n, e.energy.median, ENERGY_TARGET))
    for run in report.runs or ():
        if run.score is not None:
            where = f"{run.source}, {run.machine}: {run.label}"
            known = any(run.machine.endswith(gpu.removeprefix("gpu_")) for gpu in GIVEN)
            limit = STATIC_TARGET if known else STATIC_ELSEWHERE
            found.append(Standing("static batches", where, run.score.n, run.score.median, limit))
    for s in report.serving.scores if report.serving is not None else ():
        if s.whole and s.statistic == "mean" and s.quantity in SERVING_TARGETS:
            where = f"{s.source}, {s.machine}: {NAMES[s.quantity]}"
            found.append(Standing("serving", where, s.score.n, s.score.median, SERVING_TARGETS[s.quantity]))
    for t in report.training.totals if report.training is not None else ():
        if t.score is not None and t.source != "all":
            where = f"{t.source}, {t.machine}: {t.quantity}"
            found.append(Standing("training", where, t.score.n, t.score.median, TRAINING_TARGET))
    return found


def section(found: Sequence[Standing]) -> list[str]:
    """The page's part: how many figures are within their limits, and every one that is not."""
    from .page import percent, table

    kinds = list(dict.fromkeys(s.what for s in found))
    rows = []
    for kind in kinds:
        own = [s for s in found if s.what == kind]
        rows.append((kind, str(len(own)), str(sum(s.met for s in own)), percent(max(s.median for s in own))))
    missed = [
        (s.what, s.where, str(s.n), percent(s.median), percent(s.limit), percent(s.median - s.limit, signed=True))
        for s in found
        if not s.met
    ]
    out = ["## Against its targets", EXPLANATION, table(("what", "figures", "within", "largest median"), rows)]
    if missed:
        out += ["Not met:", table(("what", "where", "n", "median", "target", "beyond"), missed)]
    return out


EXPLANATION: Final = (
    "Targets are limits of the median error: tighter on A100 and H100, whose tables some parameters were fitted on, "
    "wider elsewhere. *The weakest spots* below names the mechanisms that are believed to be missing."
)

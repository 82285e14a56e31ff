"""What a user writes to find a fleet: the ``kind: plan`` file."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from .fields import Bandwidth, Count, MoneyRate, NonNegativeRatio, NonNegativeTime, SpecModel, Time
from .hardware import Provenance
from .serving import SchedulerSpec
from .workload import Parallelism, Precision

LATENCIES: Final = ("ttft", "tpot", "itl", "e2e")
"""Latencies that can be promised: first token, mean time a token after it, gap between two tokens, whole request."""

_ASSIGNMENT: Final = re.compile(r"(hardware|workload)\.[^=]+=.*", re.DOTALL)
Name = Annotated[str, Field(min_length=1, max_length=80)]
Multiple = Annotated[float, Field(gt=0.0, le=1000.0)]


def _assignment(text: str) -> str:
    if _ASSIGNMENT.fullmatch(text) is None:
        raise ValueError(f"{text[:60]!r} is no assignment; expected such as 'hardware.memory.bandwidth=4TB/s'")
    return text


def _on_hardware(text: str) -> str:
    if not _assignment(text).startswith("hardware."):
        raise ValueError(
            f"{text[:60]!r}: a candidate sets its hardware; expected such as 'hardware.memory.capacity=1TB'"
        )
    return text


def _on_workload(text: str) -> str:
    if not _assignment(text).startswith("workload."):
        raise ValueError(f"{text[:60]!r}: expected an assignment on the workload, such as 'workload.engine=vllm-like'")
    return text


Assignments = list[Annotated[str, AfterValidator(_assignment)]]


class Percentiles(SpecModel):
    """Largest acceptable values of a latency."""

    mean: Time | None = Field(None, description="of all requests")
    p50: Time | None = Field(None, description="half of the requests are faster")
    p90: Time | None = Field(None, description="90 % are faster")
    p95: Time | None = Field(None, description="95 % are faster")
    p99: Time | None = Field(None, description="99 % are faster")
    max: Time | None = Field(None, description="the slowest request")

    @model_validator(mode="after")
    def _any(self) -> Percentiles:
        if all(getattr(self, name) is None for name in type(self).model_fields):
            raise ValueError("promises nothing; expected such as {p95: 1 s}")
        return self


class PlanSlo(SpecModel):
    """What users are promised. All of it must hold."""

    ttft: Percentiles | None = Field(None, description="arrival to first token")
    tpot: Percentiles | None = Field(None, description="mean time a token after the first, of a request")
    itl: Percentiles | None = Field(None, description="gap between two tokens, over all tokens")
    e2e: Percentiles | None = Field(None, description="arrival to last token")

    @model_validator(mode="after")
    def _any(self) -> PlanSlo:
        if all(getattr(self, name) is None for name in LATENCIES):
            raise ValueError("promises nothing; expected such as 'ttft: {p95: 1 s}'")
        return self

    def limits(self) -> tuple[tuple[str, str, float], ...]:
        """(latency, percentile, seconds) of every promise."""
        out = []
        for latency in LATENCIES:
            wanted = getattr(self, latency)
            for percentile in Percentiles.model_fields if wanted is not None else ():
                value = getattr(wanted, percentile)
                if value is not None:
                    out.append((latency, percentile, float(value)))
        return tuple(out)


class Variant(SpecModel):
    """Another way to serve, by assignments on the workload (routing, cache, pools, anything)."""

    name: Name = Field(description="shown in reports")
    set: list[Annotated[str, AfterValidator(_on_workload)]] = Field(
        default_factory=list, description="workload.… assignments; none for the workload as it is"
    )


class Pools(SpecModel):
    """Replicas that read prompts and replicas that generate, in a ratio that a fleet keeps as it grows."""

    prefill: Count = Field(1, validate_default=True, description="replicas that read prompts, to …")
    decode: Count = Field(1, validate_default=True, description="… so many that generate")
    decode_tensor: Count | None = Field(
        None, description="devices that share each layer of a replica that generates; as those that read if absent"
    )
    bandwidth: Bandwidth | None = Field(
        None, description="of caches, each device, one direction; as the workload says or as the network has if absent"
    )
    latency: NonNegativeTime | None = Field(None, description="of one transfer; as 'bandwidth' if absent")
    overlap: bool = Field(False, description="layers travel while the prompt is still being read")


Division = Literal["off"] | Pools


class Candidate(SpecModel):
    """A kind of device (or a system of them) that may be bought, and how the model may be laid out on it.

    What stands here replaces the choices of the same name of the whole plan.
    """

    hardware: Name = Field(description="device or system: name of a bundled file, or a path relative to this file")
    name: str = Field("", max_length=80, description="shown in reports; that of the hardware file if empty")
    set: list[Annotated[str, AfterValidator(_on_hardware)]] = Field(
        default_factory=list, description="hardware.… assignments: a device that does not exist yet"
    )
    price: MoneyRate | None = Field(
        None, description="to rent one device for an hour; that of the hardware file if absent"
    )
    unit: Count | None = Field(
        None, description="devices are bought in multiples of this; all of a system, 1 of a bare device, if absent"
    )
    most_devices: Count | None = Field(None, description="largest fleet of these; that of the plan if absent")
    parallelism: Literal["auto"] | Annotated[list[Parallelism], Field(min_length=1)] | None = Field(
        None, description="degrees of one replica to try, instead of those of the plan"
    )
    precision: Annotated[list[Precision], Field(min_length=1)] | None = Field(
        None, description="element types to try, instead of those of the plan"
    )
    disaggregation: Annotated[list[Division], Field(min_length=1)] | None = Field(
        None, description="divisions into pools to try, instead of those of the plan"
    )


class WhatIf(SpecModel):
    """The plan again, with something changed."""

    name: Name = Field(description="shown in reports")
    load: Multiple = Field(1.0, description="times the requests a second")
    prompt: Multiple = Field(1.0, description="times the tokens of every prompt")
    output: Multiple = Field(1.0, description="times the tokens of every answer")
    price: Multiple = Field(1.0, description="times every price")
    prices: dict[Name, MoneyRate] = Field(default_factory=dict, description="other prices, as 'prices' of the plan")
    slo: PlanSlo | None = Field(None, description="other promises, instead of those of the plan")
    set: Assignments = Field(default_factory=list, description="further assignments, for every candidate")
    candidates: list[Candidate] = Field(default_factory=list, description="further candidates")


class PlanSpec(SpecModel):
    """A load, what its users are promised, and what a fleet for it may be built of."""

    kind: Literal["plan"] = Field(description="always 'plan'")
    name: Annotated[str, Field(min_length=1, max_length=120)] = Field(description="shown in reports")
    description: str = Field("", description="free text")
    provenance: Provenance | None = Field(None, description="origin of the numbers that carry none themselves")
    workload: Name = Field(
        description="model and load ('serving:'): name of a bundled file, or a path relative to this file"
    )
    set: Assignments = Field(default_factory=list, description="path=value assignments that hold for every candidate")
    slo: PlanSlo = Field(description="latencies that must hold")
    headroom: NonNegativeRatio = Field(
        "0 %", validate_default=True, description="so much more load must be within the promises, too"
    )
    candidates: Annotated[list[Candidate], Field(min_length=1, max_length=64)] = Field(description="devices to choose")
    parallelism: Literal["auto"] | Annotated[list[Parallelism], Field(min_length=1)] = Field(
        "auto", description="degrees of one replica to try; auto: powers of two of the devices that are joined"
    )
    precision: list[Precision] = Field(
        default_factory=list, description="element types to try; what an entry leaves out is that of the workload"
    )
    scheduler: list[SchedulerSpec] = Field(
        default_factory=list, description="batch limits and policies to try; what an entry leaves out is the workload's"
    )
    disaggregation: list[Division] = Field(
        default_factory=list,
        description="prompts and generation together (off) or on replicas of their own (ratios of them) to try; as the "
        "workload says if absent",
    )
    variants: list[Variant] = Field(default_factory=list, description="further ways to serve to try")
    objective: Literal["cost", "devices", "energy"] = Field("cost", description="what is to be least")
    prices: dict[Name, MoneyRate] = Field(
        default_factory=dict, description="to rent one device for an hour, by 'hardware' or 'name' of a candidate"
    )
    most_devices: Count = Field(256, validate_default=True, description="largest fleet")
    finalists: Annotated[int, Field(ge=1, le=1000)] = Field(8, description="candidates that are simulated in any case")
    upgrades: bool = Field(True, description="also say what binds first and what an upgrade would buy")
    whatif: list[WhatIf] = Field(default_factory=list, description="the plan again, with something changed")
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = Field(0, description="of arrivals and lengths")

    @model_validator(mode="after")
    def _names(self) -> PlanSpec:
        for what, names in (
            ("variant", [v.name for v in self.variants]),
            ("what-if", [w.name for w in self.whatif]),
            ("candidate", [c.name or c.hardware for c in self.candidates]),
        ):
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise ValueError(f"{what} {twice!r} stands there twice; give each a 'name' of its own")
        return self


def merged(base: SpecModel, choice: SpecModel) -> Any:
    """*base* with the fields that *choice* gives."""
    return base.model_copy(update={name: getattr(choice, name) for name in choice.model_fields_set})

"""What a user writes to describe a load and how it is served: the ``serving:`` part of a workload."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .fields import Bandwidth, Bytes, Count, SpecModel, Time
from .serving_fleet import AutoscalingSpec, DisaggregatedSpec, FailuresSpec

Chance = Annotated[float, Field(ge=0.0, le=1.0)]
Ratio = Annotated[float, Field(ge=0.0, le=100.0)]
MOST_REQUESTS = 10**7
"""Requests that a load may draw: more are hours of simulation and more memory than most machines have."""


class ArrivalsSpec(SpecModel):
    """When requests come."""

    process: Literal["poisson", "gamma", "constant", "on_off", "diurnal", "trace"] = Field(
        "poisson", description="random process of the arrivals, or 'trace': a recorded load"
    )
    rate: Annotated[float, Field(gt=0.0, le=1e6)] = Field(1.0, description="mean requests a second")
    cv: Annotated[float, Field(gt=0.0, le=100.0)] = Field(
        1.0, description="gamma: coefficient of variation of the gaps"
    )
    on: Time = Field("10 s", validate_default=True, description="on_off: seconds of arrivals")
    off: Time = Field("10 s", validate_default=True, description="on_off: seconds without")
    amplitude: Annotated[float, Field(ge=0.0, le=1.0)] = Field(0.5, description="diurnal: swing around the mean rate")
    period: Time = Field("86400 s", validate_default=True, description="diurnal: length of a day")
    requests: Count | None = Field(None, description="how many requests; 1000 if no duration either")
    duration: Time | None = Field(None, description="how long requests come")
    trace: str | None = Field(None, description="trace: file (Azure CSV, Mooncake JSONL, vllm bench JSON)")
    speed: Annotated[float, Field(gt=0.0, le=1e6)] = Field(1.0, description="trace: times faster than recorded")

    @model_validator(mode="after")
    def _trace_file(self) -> ArrivalsSpec:
        if (self.process == "trace") != (self.trace is not None):
            raise ValueError("process 'trace' goes with a 'trace' file, every other process without")
        return self

    @model_validator(mode="after")
    def _bounded(self) -> ArrivalsSpec:
        asked = [] if self.requests is None else [float(self.requests)]
        if self.process != "trace" and self.duration is not None:
            asked.append(float(self.rate) * float(self.duration))
        if asked and min(asked) > MOST_REQUESTS:
            raise ValueError(f"a load of {min(asked):.3g} requests; expected at most {MOST_REQUESTS:,}")
        return self


class LengthSpec(SpecModel):
    """How many tokens a request has."""

    distribution: Literal["constant", "uniform", "lognormal"] = Field("constant", description="shape")
    mean: Count | None = Field(None, description="mean tokens; the workload's 'prompt' or 'generate' if absent")
    cv: Ratio = Field(0.0, description="standard deviation over mean")
    longest: Count | None = Field(None, description="longer draws are cut to this")
    scale: Annotated[float, Field(gt=0.0, le=1000.0)] = Field(
        1.0, description="times as long as drawn or recorded: what if contexts were longer"
    )


class PrefixSpec(SpecModel):
    """Tokens that prompts share (system prompts): added in front of every prompt's own."""

    tokens: Annotated[int, Field(ge=0, le=10**7)] = Field(0, description="shared tokens")
    groups: Annotated[int, Field(ge=1, le=10**6)] = Field(1, description="different prefixes, drawn evenly")


class OffloadSpec(SpecModel):
    """A tier for blocks that the device has no room for."""

    name: Annotated[str, Field(min_length=1, max_length=40)] = Field(description="name in reports")
    capacity: Bytes = Field(description="of each device's share")
    bandwidth: Bandwidth = Field(description="to each device")
    latency: Time = Field(description="of one transfer")


class CacheSpec(SpecModel):
    """The paged key/value cache."""

    page: Annotated[int, Field(ge=1, le=4096)] = Field(16, description="tokens a page")
    block: Annotated[int, Field(ge=1, le=65536)] = Field(16, description="tokens of a block that prompts can share")
    prefix: bool = Field(True, description="keep blocks of prompts for later prompts that start with them")
    memory_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.9, description="share of device memory that the engine takes for weights, activations and cache"
    )
    offload: Annotated[list[OffloadSpec], Field(max_length=8)] = Field(
        default_factory=list, description="tiers behind the device, nearest first: host memory, a drive"
    )
    fetch: Literal["overlapped", "blocking"] = Field(
        "overlapped", description="a request waits for its blocks beside the steps of others, or all wait for them"
    )
    swap_bandwidth: Bandwidth = Field("25 GB/s", validate_default=True, description="to host memory, each device")

    @model_validator(mode="after")
    def _whole_pages(self) -> CacheSpec:
        if self.block % self.page:
            raise ValueError(f"'block' is {self.block}; expected a multiple of 'page' ({self.page})")
        return self


class SchedulerSpec(SpecModel):
    """How requests become steps."""

    policy: Literal["static", "continuous", "chunked", "prefill_first", "decode_first"] = Field(
        "chunked", description="how prompts and generation share steps"
    )
    order: Literal["fcfs", "priority"] = Field("fcfs", description="order of the queue")
    max_sequences: Count = Field(256, validate_default=True, description="sequences of a batch")
    max_tokens: Count = Field(2048, validate_default=True, description="tokens of a step")
    preemption: Literal["recompute", "swap"] = Field("recompute", description="what frees pages when they run out")


class SpeculativeSpec(SpecModel):
    """Speculative decoding: tokens drafted cheaply and checked together."""

    method: Literal["draft_model", "ngram", "heads"] = Field(
        description="draft_model: another model on the same devices; ngram: found in the text; heads: the model's own"
    )
    model: str | None = Field(None, description="draft_model: bundled architecture or file")
    tokens: Annotated[int, Field(ge=1, le=64)] = Field(description="drafted a step and sequence")
    acceptance: Chance | Annotated[list[Chance], Field(min_length=1, max_length=64)] = Field(
        description="chance that a draft is accepted where all before it were: one, or one for each position"
    )
    draft_time: Time | None = Field(
        None, description="time of one drafted token of a batch: of heads (required), of n-grams (none if absent)"
    )

    @model_validator(mode="after")
    def _complete(self) -> SpeculativeSpec:
        if (self.method == "draft_model") != (self.model is not None):
            raise ValueError("'model' goes with method draft_model, and with no other")
        if self.method == "heads" and self.draft_time is None:
            raise ValueError("heads need a 'draft_time': their cost is not derived from the model")
        if isinstance(self.acceptance, list) and len(self.acceptance) != self.tokens:
            raise ValueError(f"'acceptance' names {len(self.acceptance)} positions; 'tokens' is {self.tokens}")
        return self

    @property
    def chances(self) -> list[float]:
        """The chance of each position."""
        return self.acceptance if isinstance(self.acceptance, list) else [self.acceptance] * self.tokens


class SloSpec(SpecModel):
    """What users were promised."""

    ttft: Time = Field("1 s", validate_default=True, description="time to first token")
    tpot: Time = Field("50 ms", validate_default=True, description="mean time a token after the first")


class ServingSpec(SpecModel):
    """A load, and how it is served."""

    arrivals: ArrivalsSpec = Field(default_factory=lambda: ArrivalsSpec(), description="when requests come")
    prompt: LengthSpec = Field(default_factory=lambda: LengthSpec(), description="tokens of a prompt")
    output: LengthSpec = Field(default_factory=lambda: LengthSpec(), description="tokens generated")
    prefix: PrefixSpec = Field(default_factory=lambda: PrefixSpec(), description="what prompts share")
    cache: CacheSpec = Field(default_factory=lambda: CacheSpec(), description="the paged cache")
    scheduler: SchedulerSpec = Field(default_factory=lambda: SchedulerSpec(), description="how steps are formed")
    slo: SloSpec = Field(default_factory=lambda: SloSpec(), description="latencies promised")
    speculative: SpeculativeSpec | None = Field(None, description="speculative decoding, if any")
    sampling: Literal["plain", "filtered"] = Field(
        "plain", description="plain: a draw from all logits; filtered: top-p or top-k before it"
    )
    replicas: Count = Field(1, validate_default=True, description="copies of the model, each on its own devices")
    routing: Literal["round_robin", "least_loaded", "prefix_affinity"] = Field(
        "least_loaded", description="which replica a request goes to"
    )
    disaggregated: DisaggregatedSpec | None = Field(None, description="prompts and generation on different replicas")
    autoscaling: AutoscalingSpec | None = Field(None, description="replicas are added and given back with the load")
    failures: FailuresSpec | None = Field(None, description="replicas fail, requests are tried again")

    @model_validator(mode="after")
    def _one_fleet(self) -> ServingSpec:
        named = "replicas" in self.model_fields_set
        if self.disaggregated is not None and named:
            raise ValueError("a 'disaggregated' fleet has 'prefill_replicas' and 'decode_replicas', not 'replicas'")
        counts = {"replicas": int(self.replicas)} if named else {}
        if self.disaggregated is not None:
            counts = {
                name: int(getattr(self.disaggregated, name))
                for name in ("prefill_replicas", "decode_replicas")
                if name in self.disaggregated.model_fields_set
            }
        for name, count in counts.items():
            scaling = self.autoscaling
            if scaling is not None and not scaling.min_replicas <= count <= scaling.max_replicas:
                raise ValueError(
                    f"{name!r} is {count}; autoscaling keeps {scaling.min_replicas} to {scaling.max_replicas}"
                )
        return self

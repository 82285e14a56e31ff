"""What a user writes about a fleet: replicas that divide the work, grow in number, fail."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .fields import Bandwidth, Count, NonNegativeTime, SpecModel, Time

SHORTEST_MTBF_S = 0.1
"""Replicas that fail more often serve nothing, and the simulation would do little but count their failures."""


class DisaggregatedSpec(SpecModel):
    """Prompts are read on some replicas and continued on others; caches travel between them."""

    prefill_replicas: Count = Field(1, validate_default=True, description="replicas that read prompts")
    decode_replicas: Count = Field(1, validate_default=True, description="replicas that generate")
    decode_tensor: Count | None = Field(
        None, description="devices that share each layer of a replica that generates; as those that read if absent"
    )
    decode_hardware: str | None = Field(
        None, description="hardware of the replicas that generate (bundled name or path); the same if absent"
    )
    bandwidth: Bandwidth | None = Field(
        None, description="of caches, each device, one direction; that of the system's network if absent"
    )
    latency: NonNegativeTime | None = Field(None, description="of one transfer; that of the network if absent")
    overlap: bool = Field(False, description="layers travel while the prompt is still being read")


class AutoscalingSpec(SpecModel):
    """Replicas are added under load and given back; in a divided fleet every pool on its own."""

    min_replicas: Count = Field(1, validate_default=True, description="fewest replicas; so many there are at the start")
    max_replicas: Count = Field(description="most replicas")
    signal: Literal["in_flight", "queue", "utilisation"] = Field(
        "in_flight",
        description="requests that wait or run, or that wait, per serving replica; share of time in steps",
    )
    scale_out_above: Annotated[float, Field(gt=0.0, le=1e6)] = Field(16.0, description="signal that adds replicas")
    scale_in_below: Annotated[float, Field(ge=0.0, le=1e6)] = Field(4.0, description="signal that gives one back")
    step: Count = Field(1, validate_default=True, description="replicas added at a time")
    interval: Time = Field("5 s", validate_default=True, description="time between two looks at the signal")
    cooldown: NonNegativeTime = Field("30 s", validate_default=True, description="least time between two changes")
    startup: NonNegativeTime = Field(
        "30 s", validate_default=True, description="provisioning and process start, before weights are read"
    )
    storage_bandwidth: Bandwidth = Field(
        "5 GB/s", validate_default=True, description="at which one replica reads its weights"
    )

    @model_validator(mode="after")
    def _ranges(self) -> AutoscalingSpec:
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"'max_replicas' is {self.max_replicas}, less than 'min_replicas' ({self.min_replicas})")
        if self.scale_in_below >= self.scale_out_above:
            raise ValueError(
                f"'scale_in_below' is {self.scale_in_below:g}; expected less than 'scale_out_above' "
                f"({self.scale_out_above:g})"
            )
        if self.signal == "utilisation" and self.scale_out_above >= 1.0:
            raise ValueError(f"a utilisation never is above 1; 'scale_out_above' is {self.scale_out_above:g}")
        return self


class OutageSpec(SpecModel):
    """A replica fails at a stated time. In a divided fleet those that generate follow those that read."""

    replica: Annotated[int, Field(ge=0, le=10**6)] = Field(description="its number, from 0")
    at: NonNegativeTime = Field(description="when it fails")
    lasts: Time = Field(description="until it serves again, with an empty cache")


class FailuresSpec(SpecModel):
    """Replicas fail and come back; their requests are tried again elsewhere."""

    mtbf: Time | None = Field(None, description="mean time that a replica serves before it fails (exponential)")
    mttr: Time = Field("60 s", validate_default=True, description="mean time until it serves again (exponential)")
    outages: list[OutageSpec] = Field(default_factory=list, description="failures at stated times")
    detection: NonNegativeTime = Field(
        "5 s", validate_default=True, description="until the router notices; it sends requests there meanwhile"
    )
    retry: Literal["restart", "resume"] = Field(
        "restart", description="a request begins anew, or keeps its tokens and only its cache is computed again"
    )

    @model_validator(mode="after")
    def _some(self) -> FailuresSpec:
        if self.mtbf is None and not self.outages:
            raise ValueError("failures need an 'mtbf', 'outages', or both")
        if self.mtbf is not None and self.mtbf < SHORTEST_MTBF_S:
            raise ValueError(f"'mtbf' is {float(self.mtbf):g} s; expected at least {SHORTEST_MTBF_S:g} s")
        return self

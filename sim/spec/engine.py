"""What a user writes to describe the software that runs a model: the ``kind: engine`` profile."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .fields import SpecModel, Time
from .hardware import Provenance


class EngineSpec(SpecModel):
    """How kernels are launched, what is fused, and what the host costs a step.

    ``launch``: ``graph`` replays a captured graph, ``stream`` queues kernels from compiled code, ``eager`` dispatches
    each operator from a framework (hidden while the device is behind), ``isolated`` synchronises after every operator.
    """

    kind: Literal["engine"] = Field(description="always 'engine'")
    name: Annotated[str, Field(min_length=1, max_length=80)] = Field(description="name in reports")
    description: str = Field("", description="free text")
    provenance: Provenance | None = Field(None, description="origin of the numbers that carry none themselves")
    launch: Literal["graph", "stream", "eager", "isolated"] = Field(
        description="how kernels get started: graph, stream, eager or isolated"
    )
    fused_pointwise: bool = Field(description="activations, norms and rotary embedding are one kernel each")
    fused_residual_norm: bool = Field(description="the residual addition runs inside the norm that follows")
    fused_attention: bool = Field(True, description="scores stay on chip")
    host_per_step: Time | None = Field(None, description="scheduler and host work of one step, not hidden")
    host_per_sequence: Time | None = Field(None, description="host work a sequence of the batch in one step")

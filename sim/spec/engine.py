"""What a user writes to describe the software that runs a model: the ``kind: engine`` profile."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .fields import Count, SpecModel, Time
from .hardware import Provenance

MOST_BUCKETS = 1024
"""Captured batch sizes that a profile may list."""


class EngineSpec(SpecModel):
    """How kernels are launched, which kernels there are, and what the host costs.

    ``launch``: ``graph`` replays a captured graph, ``stream`` queues kernels from compiled code, ``eager`` dispatches
    each operator from a framework (hidden while the device is behind), ``isolated`` synchronises after every operator.

    Host times are those of a host of speed 1; ``launch.host_speed`` of the hardware file divides them. ``dispatch``
    and ``host_per_layer`` run ahead of the device and show only where they take longer than it does. The work of a
    step, a sequence, a request or a prompt pass stands between two steps, unless the engine is ``asynchronous``.
    """

    kind: Literal["engine"] = Field(description="always 'engine'")
    name: Annotated[str, Field(min_length=1, max_length=80)] = Field(description="name in reports")
    description: str = Field("", description="free text")
    provenance: Provenance | None = Field(None, description="origin of the numbers that carry none themselves")
    launch: Literal["graph", "stream", "eager", "isolated"] = Field(
        description="how kernels get started: graph, stream, eager or isolated"
    )
    uncaptured: Literal["stream", "eager"] | None = Field(
        None,
        description="launch of steps that no graph was captured for: prompts, larger batches; as 'launch' if absent",
    )
    graph_batches: Annotated[list[Count], Field(max_length=MOST_BUCKETS)] = Field(
        default_factory=list,
        description="batch sizes with a captured graph; a decode step is padded to the next one; empty: every size",
    )
    prompt_tokens: Count | None = Field(
        None, description="most tokens of prompts in one pass, whole prompts at a time; all in one pass if absent"
    )
    fused_pointwise: bool = Field(description="activations, norms and rotary embedding are one kernel each")
    fused_residual_norm: bool = Field(description="the residual addition runs inside the norm that follows")
    fused_attention: bool = Field(True, description="scores stay on chip")
    context_attention: Literal["fused", "unfused"] | None = Field(
        None, description="attention of prompts; as 'fused_attention' if absent"
    )
    per_head_attention: Count | None = Field(
        None,
        description="instructions an element of keys and values in the generation attention of the first engines: a "
        "block a query head, no matrix unit; today's split kernels if absent",
    )
    narrow_products: Literal["none", "fused", "separate"] = Field(
        "none",
        description="products of 8-bit floating-point weights in that type, on inputs narrowed by the kernel before "
        "(fused) or by kernels of their own (separate); none: the weights are widened",
    )
    attention_writes_cache: bool = Field(
        False, description="rotary embedding and cache write of a decode step run inside the attention kernel"
    )
    collectives: Literal["engine", "nccl"] = Field(
        "engine", description="engine: own kernels for small all-reduces; nccl: the library alone"
    )
    collective_start: Time | None = Field(
        None,
        description="host time by which a collective outside a graph begins later: its launch, ranks that arrive apart",
    )
    sampling_passes: Count = Field(
        3, validate_default=True, description="kernels that each read and write all logits; 1: the largest logit"
    )
    filtered_passes: Count | None = Field(
        None,
        description="sampling_passes where requests ask for top-p or top-k and logits are sorted; as those if absent",
    )
    dispatch: Time | None = Field(
        None, description="host time to start one kernel; launch.dispatch of the hardware if absent (eager only)"
    )
    host_per_layer: Time | None = Field(None, description="host time of a layer beside its dispatches, not in graphs")
    host_per_step: Time | None = Field(None, description="scheduler and host work of one step")
    host_per_sequence: Time | None = Field(None, description="host work a sequence of the batch in one step")
    host_per_request: Time | None = Field(None, description="host work of taking in one sequence, in its prompt pass")
    host_per_prompt_pass: Time | None = Field(
        None, description="further host work of one prompt pass, whatever its batch"
    )
    host_per_arrival: Time | None = Field(
        None,
        description="time of a request outside the engine's loop, seen by its client: connection, text to tokens, the "
        "way into the engine and of the first token back (serving)",
    )
    asynchronous: bool = Field(
        False,
        description="host work of a step runs while the device works on the one before; a request that arrives during "
        "a step then joins the step after the next, which is planned already (serving)",
    )

    @model_validator(mode="after")
    def _graphs_are_captured(self) -> EngineSpec:
        if self.launch != "graph" and (self.graph_batches or self.uncaptured):
            raise ValueError(f"'graph_batches' and 'uncaptured' go with launch graph; launch is {self.launch}")
        return self

    def captured_batch(self, batch: int) -> int | None:
        """The batch that a decode step of *batch* sequences really runs; None where it exceeds every captured one.

        >>> EngineSpec(kind="engine", name="e", launch="graph", graph_batches=[1, 8], fused_pointwise=True,
        ...            fused_residual_norm=True).captured_batch(3)
        8
        """
        if not self.graph_batches:
            return batch
        return min((int(size) for size in self.graph_batches if size >= batch), default=None)

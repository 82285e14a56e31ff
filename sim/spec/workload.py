"""What a user writes to describe work: the ``kind: workload`` file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from .fields import Count, SpecModel
from .hardware import DTypeName, Provenance


class Precision(SpecModel):
    """Element types. ``weights`` and ``kv_cache`` default to ``activations``."""

    activations: DTypeName = "fp16"
    weights: DTypeName | None = None
    kv_cache: DTypeName | None = None
    group_size: Annotated[int, Field(ge=0, le=65536, description="weights that share one scale; 0: a scale a row")] = 0


class Parallelism(SpecModel):
    """Degrees of parallelism; their product (without ``expert``) is the number of devices."""

    tensor: Count = Field(1, validate_default=True)
    pipeline: Count = Field(1, validate_default=True)
    data: Count = Field(1, validate_default=True)
    expert: Count = Field(1, validate_default=True, description="1, or as many as 'tensor' or 'tensor' × 'data'")
    microbatches: Count = Field(1, validate_default=True, description="pieces of the batch that fill the pipeline")

    @model_validator(mode="after")
    def _expert_degree(self) -> Parallelism:
        if self.expert not in (1, self.tensor, self.tensor * self.data):
            both = self.tensor * self.data
            raise ValueError(f"'expert' is {self.expert}; expected 1, tensor ({self.tensor}) or tensor × data ({both})")
        return self


class Training(SpecModel):
    """What a training step keeps and updates."""

    optimizer: Literal["adam", "sgd", "sgd_momentum"] = "adam"
    master_weights: bool = Field(True, description="fp32 copy of the weights in the optimizer")
    recompute: Literal["none", "selective", "full"] = Field(
        "none", description="selective: attention again in the backward pass; full: every block from its input"
    )
    zero: Literal[0, 1, 2, 3] = Field(0, description="optimizer state, gradients, weights divided over data ranks")
    gradient_dtype: DTypeName = "fp32"


class OperatorEntry(SpecModel):
    """One operator of an explicit graph, or a repeated group of them.

    ``kind`` and its columns are those of the kernel tables; ``repeat`` with ``operators`` makes a folded block.
    """

    name: Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[A-Za-z0-9_.\-]+$")]
    kind: str | None = None
    repeat: Count | None = None
    split: Literal["", "column", "row", "heads", "vocab", "experts", "tokens"] = ""
    after: Literal["", "all_reduce", "all_gather"] = ""
    dimensions: Annotated[dict[str, Any], Field(description="columns of the kind, for example m, n, k, dtype")] = Field(
        default_factory=dict
    )
    operators: list[OperatorEntry] | None = None

    @model_validator(mode="after")
    def _leaf_or_group(self) -> OperatorEntry:
        if (self.kind is None) == (self.operators is None):
            raise ValueError("an entry is either an operator (with 'kind') or a group (with 'operators')")
        if self.operators is not None and self.dimensions:
            raise ValueError("a group has no 'dimensions'")
        return self


class WorkloadSpec(SpecModel):
    """A model (or an explicit list of operators) and what is asked of it."""

    kind: Literal["workload"]
    name: Annotated[str, Field(min_length=1, max_length=120)]
    description: str = ""
    provenance: Provenance | None = None
    model: str | None = Field(None, description="bundled architecture, a native YAML, or a Hugging Face config.json")
    operators: list[OperatorEntry] | None = None
    task: Literal["prefill", "decode", "generate", "training_step", "operators"] = Field(
        description="generate = prefill then decode; operators = run the explicit list once"
    )
    batch: Count = Field(1, validate_default=True, description="sequences")
    prompt: Count = Field(1, validate_default=True, description="tokens of context (training: sequence length)")
    generate: Count = Field(1, validate_default=True, description="tokens generated a sequence")
    layers: Count | None = Field(None, description="run only so many layers of the model")
    precision: Precision = Field(default_factory=lambda: Precision())
    parallelism: Literal["auto"] | Parallelism = "auto"
    engine: str = Field("cuda-graph", description="engine profile: a bundled name or a path")
    attention: Literal["fused", "unfused"] | None = Field(None, description="overrides the engine's choice")
    training: Training = Field(default_factory=lambda: Training())

    @model_validator(mode="after")
    def _one_source(self) -> WorkloadSpec:
        if (self.model is None) == (self.operators is None):
            raise ValueError("a workload has either a 'model' or a list of 'operators'")
        if (self.operators is not None) != (self.task == "operators"):
            raise ValueError("task 'operators' goes with an 'operators' list, every other task with a 'model'")
        return self

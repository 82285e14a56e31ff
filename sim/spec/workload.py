"""What a user writes to describe work: the ``kind: workload`` file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from .fields import Count, SpecModel
from .hardware import DTypeName, Provenance
from .serving import ServingSpec


class Precision(SpecModel):
    """Element types. ``weights`` and ``kv_cache`` default to ``activations``."""

    activations: DTypeName = Field("fp16", description="type of activations, and of what has no type of its own")
    weights: DTypeName | None = Field(
        None, description="type in which weights are stored; as the activations if absent"
    )
    kv_cache: DTypeName | None = Field(None, description="type of cached keys and values; as the activations if absent")
    group_size: Annotated[int, Field(ge=0, le=65536, description="weights that share one scale; 0: a scale a row")] = 0


Algorithm = Literal["auto", "ring", "tree", "halving_doubling", "hierarchical"]
"""How an all-reduce (and its halves) is done; ``auto``: what is fastest, or what the library's own tuner takes."""


class Parallelism(SpecModel):
    """Degrees of parallelism. Devices: tensor × context × data × pipeline; ``expert`` divides some of the same devices.

    Neighbouring devices are tensor ranks first, then context ranks, then data ranks, then pipeline stages.
    """

    tensor: Count = Field(1, validate_default=True, description="devices that share each layer")
    pipeline: Count = Field(1, validate_default=True, description="stages of layers")
    data: Count = Field(1, validate_default=True, description="replicas that share the batch")
    expert: Count = Field(
        1,
        validate_default=True,
        description="devices over which whole experts are divided: a divisor of 'tensor' (each expert is then sliced "
        "over the rest of it), or 'tensor' times a divisor of 'data'",
    )
    context: Count = Field(
        1,
        validate_default=True,
        description="devices that share every sequence: its new tokens in a prefill, its cached keys when decoding",
    )
    sequence: bool = Field(
        False,
        description="tensor ranks divide the tokens of norms and residuals: reduce-scatter and all-gather instead of "
        "all-reduce (inference; a training step has training.sequence_parallel)",
    )
    context_exchange: Literal["all_gather", "ring"] = Field(
        "all_gather",
        description="prefill with context ranks: keys and values are gathered before attention, or go around in a ring "
        "beside it",
    )
    collectives: Algorithm = Field("auto", description="algorithm of collectives; overrides the system's")
    folded: bool = Field(
        True,
        description="identical ranks are simulated once; false: the event reading runs every rank and link by itself",
    )
    microbatches: Count = Field(1, validate_default=True, description="pieces of the batch that fill the pipeline")

    @model_validator(mode="after")
    def _expert_degree(self) -> Parallelism:
        """Experts lie over tensor ranks, or over those of several data ranks."""
        expert, tensor, data = int(self.expert), int(self.tensor), int(self.data)
        if tensor % expert == 0 or (expert % tensor == 0 and data % (expert // tensor) == 0):
            return self
        raise ValueError(
            f"'expert' is {expert}; expected 1, tensor ({tensor}) or tensor × data ({tensor * data}), a divisor of "
            f"tensor, or tensor times a divisor of data"
        )


class Training(SpecModel):
    """What a training step keeps and updates."""

    optimizer: Literal["adam", "sgd", "sgd_momentum"] = Field(
        "adam", description="adam keeps two moments a weight, sgd_momentum one, sgd none"
    )
    master_weights: bool = Field(True, description="fp32 copy of the weights in the optimizer")
    fused_optimizer: bool = Field(True, description="the update is one kernel; false: a pass for each operation")
    clip_gradients: bool = Field(False, description="the norm of all gradients is taken and they are scaled by it")
    recompute: Literal["none", "selective", "alternate", "full"] = Field(
        "none",
        description="again in the backward pass: attention (selective), all but the attention and every other product "
        "(alternate), every block from its input (full)",
    )
    recompute_stops: bool = Field(
        False, description="recomputation ends with the last value that the backward pass needs"
    )
    zero: Literal[0, 1, 2, 3] = Field(0, description="optimizer state, gradients, weights divided over data ranks")
    reshard: bool = Field(True, description="zero 3: weights are gathered again for the backward pass")
    gradient_dtype: DTypeName = Field("fp32", description="type in which gradients are kept")
    reduce_dtype: DTypeName | None = Field(
        None, description="type in which gradients travel; as they are kept if absent"
    )
    working_copy: bool = Field(
        True,
        description="zero 3: divided weights are kept in the working type too; false: fp32 masters alone (FSDP)",
    )
    accumulate_whole: bool = Field(
        False, description="zero 2 and 3: gradients stay whole until the last microbatch has added its own"
    )
    fused_projections: bool = Field(True, description="query, key and value, or gate and up, are one product")
    fused_loss: bool = Field(False, description="the loss reads logits as they come; false: in fp32, pass by pass")
    attention_kernel: Annotated[str, Field(max_length=40, pattern=r"^[a-z0-9_]*$")] = Field(
        "", description="fused attention other than the framework's usual one (kernels.training.others of the hardware)"
    )
    dropout: bool = Field(False, description="dropout behind attention probabilities and both parts of a block")
    sequence_parallel: bool = Field(
        False, description="tensor ranks divide the tokens of norms, residuals and dropout, and gather before products"
    )
    sequence_copies: bool = Field(
        False, description="sequence_parallel divides every sequence, not the batch: what is gathered is put in order"
    )
    overlap_tensor: bool = Field(
        False, description="collectives of tensor ranks are cut up and run beside the products they belong to"
    )
    virtual_stages: Count = Field(
        1, validate_default=True, description="pieces of the model on each pipeline stage (interleaved schedule)"
    )
    float8: Literal["none", "tensorwise", "rowwise"] = Field(
        "none", description="products of the blocks in fp8, scaled by tensor or by row, weights kept as they are"
    )


class OperatorEntry(SpecModel):
    """One operator of an explicit graph, or a repeated group of them.

    ``kind`` and its columns are those of the kernel tables; ``repeat`` with ``operators`` makes a folded block.
    """

    name: Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[A-Za-z0-9_.\-]+$")] = Field(
        description="name in reports"
    )
    kind: str | None = Field(None, description="kind of operator, as in kernel tables")
    repeat: Count | None = Field(None, description="times the operator or group runs; 1 if absent")
    split: Literal["", "column", "row", "heads", "vocab", "experts", "tokens"] = Field(
        "", description="dimension that tensor parallelism divides; empty: every device does all of it"
    )
    after: Literal["", "all_reduce", "all_gather"] = Field(
        "", description="collective that completes the divided result"
    )
    share: Annotated[str, Field(max_length=80, pattern=r"^[A-Za-z0-9_.\-]*$")] = Field(
        "", description="name of weights that other operators use too; they count once in memory"
    )
    dimensions: Annotated[dict[str, Any], Field(description="columns of the kind, for example m, n, k, dtype")] = Field(
        default_factory=dict
    )
    operators: list[OperatorEntry] | None = Field(None, description="entries of a group")

    @model_validator(mode="after")
    def _leaf_or_group(self) -> OperatorEntry:
        if (self.kind is None) == (self.operators is None):
            raise ValueError("an entry is either an operator (with 'kind') or a group (with 'operators')")
        if self.operators is not None and self.dimensions:
            raise ValueError("a group has no 'dimensions'")
        return self


class WorkloadSpec(SpecModel):
    """A model (or an explicit list of operators) and what is asked of it."""

    kind: Literal["workload"] = Field(description="always 'workload'")
    name: Annotated[str, Field(min_length=1, max_length=120)] = Field(description="name in reports")
    description: str = Field("", description="free text")
    provenance: Provenance | None = Field(None, description="origin of the numbers that carry none themselves")
    model: str | None = Field(None, description="bundled architecture, a native YAML, or a Hugging Face config.json")
    operators: list[OperatorEntry] | None = Field(None, description="explicit list of operators, instead of a model")
    task: Literal["prefill", "decode", "generate", "training_step", "operators"] = Field(
        description="generate = prefill then decode; operators = run the explicit list once"
    )
    batch: Count = Field(1, validate_default=True, description="sequences")
    prompt: Count = Field(1, validate_default=True, description="tokens of context (training: sequence length)")
    generate: Count = Field(1, validate_default=True, description="tokens generated a sequence")
    layers: Count | None = Field(None, description="run only so many layers of the model")
    precision: Precision = Field(default_factory=lambda: Precision(), description="element types")
    parallelism: Literal["auto"] | Parallelism = Field(
        "auto", description="degrees, or 'auto': the smallest number of devices that fits"
    )
    engine: str = Field("cuda-graph", description="engine profile: a bundled name or a path")
    routing: Annotated[str, Field(pattern=r"^(uniform|balanced|(zipf|power_law)_[0-9]+(\.[0-9]+)?)$")] = Field(
        "uniform",
        description="how tokens choose experts: uniform, balanced, zipf_<alpha> or power_law_<alpha>; with expert "
        "parallelism the device with the most popular experts sets the pace",
    )
    attention: Literal["fused", "unfused"] | None = Field(None, description="overrides the engine's choice")
    training: Training = Field(
        default_factory=lambda: Training(), description="what a training step keeps; for task training_step"
    )
    serving: ServingSpec | None = Field(None, description="load and scheduler of 'effsim serve'")

    @model_validator(mode="after")
    def _one_source(self) -> WorkloadSpec:
        if (self.model is None) == (self.operators is None):
            raise ValueError("a workload has either a 'model' or a list of 'operators'")
        if (self.operators is not None) != (self.task == "operators"):
            raise ValueError("task 'operators' goes with an 'operators' list, every other task with a 'model'")
        return self

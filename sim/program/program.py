"""What will run: phases of graph executions on one device of a symmetric group, with their memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ..graph.graph import Graph, Node


@dataclass(frozen=True, slots=True)
class Execution:
    """A graph, run ``times`` times (a fraction when it stands for several slightly different steps).

    ``work`` replaces ``times`` in totals of FLOPs and bytes where several runs overlap in time (pipelines).

    ``copies``: devices that each execute it, for totals of work. ``useful`` is False for the idle rounds of a pipeline:
    they take time but do no work. ``interleave`` > 1: so many sub-batches, each the graph as it stands, take turns on
    the device groups of a mixed system.

    ``stages``: the graph, cut into pipeline stages. ``microbatches`` of the graph as it stands flow through them in
    every one of ``times`` steps; of ``rounds`` steps in a row each follows the one before as soon as its own microbatch
    is through, as decoding does (1: the pipeline is filled and drained every time).
    """

    graph: Graph
    times: float
    copies: int = 1
    useful: bool = True
    work: float | None = None
    label: str = ""
    interleave: int = 1
    stages: tuple[Graph, ...] = ()
    microbatches: int = 1
    rounds: float = 1.0


@dataclass(frozen=True, slots=True)
class Phase:
    """A named part of the run: ``prefill``, ``decode`` or ``step``. ``tokens`` are those it processes or makes.

    ``launch`` is its own launch mode (empty: the program's). ``prompts``: it takes in new requests.
    """

    name: str
    executions: tuple[Execution, ...]
    tokens: float
    steps: float
    sequences: int
    launch: str = ""
    prompts: bool = False

    @property
    def shown(self) -> Execution:
        """The execution that timelines show: the first one that does work and takes time."""
        return next(run for run in self.executions if run.times > 0.0 and run.useful)

    def nodes(self) -> Iterator[tuple[Execution, str, Node, int]]:
        """Every distinct node of every execution with its count in one execution."""
        for execution in self.executions:
            for name, node, count in execution.graph.walk():
                yield execution, name, node, count


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on one device at the fullest moment.

    ``transient``: what comes and goes in a training step beside kept activations (gathered weights, whole gradients,
    recomputed activations of a block, gradients of the logits).
    """

    capacity_bytes: float
    reserved_bytes: float
    weights_bytes: float
    kv_cache_bytes: float = 0.0
    state_bytes: float = 0.0
    activation_bytes: float = 0.0
    gradient_bytes: float = 0.0
    optimizer_bytes: float = 0.0
    transient_bytes: float = 0.0

    @property
    def used_bytes(self) -> float:
        """Everything together."""
        return (
            self.reserved_bytes
            + self.weights_bytes
            + self.kv_cache_bytes
            + self.state_bytes
            + self.activation_bytes
            + self.gradient_bytes
            + self.optimizer_bytes
            + self.transient_bytes
        )

    @property
    def fits(self) -> bool:
        """Used does not exceed capacity."""
        return self.used_bytes <= self.capacity_bytes

    def parts(self) -> dict[str, float]:
        """Name and bytes of every part that is not zero."""
        named = {
            "weights": self.weights_bytes,
            "kv_cache": self.kv_cache_bytes,
            "state": self.state_bytes,
            "activations": self.activation_bytes,
            "gradients": self.gradient_bytes,
            "optimizer": self.optimizer_bytes,
            "transient": self.transient_bytes,
            "reserved": self.reserved_bytes,
        }
        return {name: size for name, size in named.items() if size}


@dataclass(frozen=True, slots=True)
class Degrees:
    """Degrees of parallelism. Ranks are laid out tensor first, then context, data and pipeline."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    expert: int = 1
    microbatches: int = 1
    context: int = 1

    @property
    def stage_devices(self) -> int:
        """Devices of one pipeline stage: how far apart neighbouring stages are.

        >>> Degrees(tensor=4, context=2, data=3, pipeline=2).stage_devices
        24
        """
        return self.tensor * self.context * self.data

    def send_stride(self, behind: int, inner: int) -> int:
        """How far a message from stage *behind* to the next one is priced to go, with *inner* devices a node.

        Where some rank's counterpart is in the next node, to the same place there.

        >>> [Degrees(tensor=4, pipeline=4).send_stride(stage, 8) for stage in range(3)]
        [4, 8, 4]
        """
        stage = self.stage_devices
        leaves = behind * stage // inner != ((behind + 2) * stage - 1) // inner
        return max(stage, inner) if leaves else stage

    @property
    def devices(self) -> int:
        """Devices that take part."""
        return self.stage_devices * self.pipeline

    def shown(self) -> dict[str, int]:
        """Degrees above 1; tensor always."""
        named = {
            "tensor": self.tensor,
            "context": self.context,
            "pipeline": self.pipeline,
            "data": self.data,
            "expert": self.expert,
        }
        return {name: n for name, n in named.items() if n > 1 or name == "tensor"}


@dataclass(frozen=True, slots=True)
class HostNumber:
    """A host time of the engine profile in seconds, with its origin."""

    field: str
    value: float
    kind: str
    source: str


@dataclass(frozen=True, slots=True)
class HostWork:
    """What the host has to do, in seconds of a host of speed 1; see the engine profile.

    ``dispatch_s`` (None: the device's own) and ``per_layer_s``, for each of ``layers``, run ahead of the device;
    ``collective_start_s`` keeps it waiting for its peers outside a captured graph. ``per_arrival_s`` delays a request
    on its way in and out and no step. The others stand between steps, or beside the device where the engine is
    ``asynchronous``.
    """

    dispatch_s: float | None = None
    collective_start_s: float = 0.0
    layers: int = 0
    per_layer_s: float = 0.0
    per_step_s: float = 0.0
    per_sequence_s: float = 0.0
    per_request_s: float = 0.0
    per_prompt_pass_s: float = 0.0
    per_arrival_s: float = 0.0
    asynchronous: bool = False

    def between_steps_s(self, steps: float, sequences: int, prompts: bool) -> float:
        """Work of *steps* steps of a batch; passes over prompts take in every sequence once.

        >>> HostWork(per_step_s=1e-3, per_sequence_s=1e-4).between_steps_s(10.0, 5, prompts=False)
        0.015
        """
        if prompts:
            each = self.per_sequence_s + self.per_request_s
            return steps * (self.per_step_s + self.per_prompt_pass_s) + sequences * each
        return steps * (self.per_step_s + sequences * self.per_sequence_s)


@dataclass(frozen=True, slots=True)
class Program:
    """A workload placed on devices."""

    name: str
    phases: tuple[Phase, ...]
    degrees: Degrees
    memory: Memory
    launch: str
    fused_pointwise: bool
    host: HostWork = field(default_factory=HostWork)
    host_numbers: tuple[HostNumber, ...] = ()
    notes: tuple[str, ...] = ()
    folded: bool = True

    @property
    def devices(self) -> int:
        """Devices that take part."""
        return self.degrees.devices

    def launch_of(self, phase: Phase) -> str:
        """Launch mode of a phase."""
        return phase.launch or self.launch

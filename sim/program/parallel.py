"""What parallel ranks of an inference program need beside their shares: checks, stage boundaries, who shares links."""

from __future__ import annotations

from dataclasses import replace

from ..errors import UnsupportedError
from ..graph.graph import Graph, Item, Node
from ..graph.operators.communication import Collective
from ..graph.operators.moe import Experts
from ..spec.architecture import ArchitectureSpec, LayerRun, Moe
from ..spec.workload import WorkloadSpec
from .memory import stages_of
from .program import Degrees
from .training_phase import residual_bytes

STAGE_SEND = "stage_send_"
"""Name of the node that hands activations to the next stage, with the number of the stage behind it."""


def least_batch(workload: WorkloadSpec) -> int:
    """Sequences that give every data rank and microbatch one."""
    ways = workload.parallelism
    return 1 if ways == "auto" else int(ways.data) * int(ways.microbatches)


def check_degrees(workload: WorkloadSpec, model: ArchitectureSpec | None, degrees: Degrees, *, mixed: bool) -> None:
    """Refuse degrees that leave devices without work.

    Raises:
        UnsupportedError: names the degree and what it would have to divide.
    """
    if workload.task == "training_step":
        _check_training(workload, degrees)
        return
    name = workload.name
    if mixed and (degrees.context > 1 or degrees.pipeline > 1):
        raise UnsupportedError(f"{name}: a mixed system has its groups; expected pipeline 1 and context 1")
    pieces = degrees.data * degrees.microbatches
    if pieces > int(workload.batch):
        raise UnsupportedError(
            f"{name}: a batch of {workload.batch} cannot be divided over {degrees.data} data ranks × "
            f"{degrees.microbatches} microbatches; expected at least {pieces} sequences"
        )
    if model is None and degrees.context > 1:
        raise UnsupportedError(f"{name}: context parallelism needs a 'model'; operators of a list have their sizes")
    experts = [int(ffn.experts) for ffn in _expert_layers(model)]
    if degrees.expert > 1 and model is not None and not experts:
        raise UnsupportedError(f"{name}: 'expert' is {degrees.expert} but {model.name} has no experts")
    for count in experts:
        if count % degrees.expert:
            raise UnsupportedError(f"{name}: {count} experts cannot be divided over {degrees.expert} devices")
    if degrees.context > 1 and workload.task in ("prefill", "generate") and int(workload.prompt) < 2 * degrees.context:
        raise UnsupportedError(
            f"{name}: a prompt of {workload.prompt} tokens is too short for {degrees.context} context ranks of two "
            f"chunks each"
        )


def _check_training(workload: WorkloadSpec, degrees: Degrees) -> None:
    ways = workload.parallelism
    if degrees.context > 1:
        raise UnsupportedError("context parallelism is for inference; a training step has tensor, data, pipeline")
    if ways != "auto" and ways.sequence:
        raise UnsupportedError("parallelism.sequence is for inference; use training.sequence_parallel")
    if ways != "auto" and not ways.folded:
        raise UnsupportedError("ranks are run one by one for inference; leave 'folded' true")


def _expert_layers(model: ArchitectureSpec | None) -> list[Moe]:
    found: list[Moe] = []

    def visit(runs: list[LayerRun]) -> None:
        for run in runs:
            if run.layers is not None:
                visit(run.layers)
            elif isinstance(run.ffn, Moe):
                found.append(run.ffn)

    visit(model.layers if model is not None else [])
    return found


def route(graph: Graph, routing: str) -> Graph:
    """The graph whose tokens choose experts as *routing* says."""
    if routing == "uniform":
        return graph

    def change(node: Node) -> tuple[Item, ...]:
        op = node.op
        return (replace(node, op=replace(op, distribution=routing)) if isinstance(op, Experts) else node,)

    return graph.map(change)


def with_sends(graph: Graph, degrees: Degrees, inner: int) -> Graph:
    """Adds the activations' way between pipeline stages: one message a boundary, every rank to its counterpart.

    *inner*: devices of the innermost level, see :meth:`Degrees.send_stride`.

    Raises:
        UnsupportedError: nothing says what stages hand on.
    """
    if degrees.pipeline == 1:
        return graph
    size, boundaries = residual_bytes(graph), range(degrees.pipeline - 1)
    ops = [Collective("send_recv", size, 2, degrees.send_stride(i, inner)) for i in boundaries]
    sends = tuple(Node(f"{STAGE_SEND}{i}", op) for i, op in enumerate(ops))
    return replace(graph, items=(*graph.items, *sends))


def in_stages(graph: Graph, pipeline: int) -> tuple[Graph, ...]:
    """The graph cut into stages, each with the message to the next one at its end.

    Raises:
        UnsupportedError: fewer blocks than stages.
    """
    sends = [item for item in graph.items if item.name.startswith(STAGE_SEND)]
    rest = replace(graph, items=tuple(item for item in graph.items if item not in sends))
    parts = stages_of(rest, pipeline)
    if not all(part.weight_bytes + part.cache_bytes + part.state_bytes > 0.0 for part in parts):
        raise UnsupportedError(f"{graph.name} cannot be cut into {pipeline} pipeline stages; expected fewer")
    return tuple(replace(part, items=(*part.items, *sends[i : i + 1])) for i, part in enumerate(parts))


def with_sharing(graph: Graph, degrees: Degrees, algorithm: str) -> Graph:
    """Tells every collective how many groups like its own run it at the same time, and which algorithm is forced.

    All ranks of a stage do the same at the same time, so the groups of a collective cover the stage's devices.
    """
    if degrees.devices == 1:
        return graph
    forced = "" if algorithm == "auto" else algorithm

    def change(node: Node) -> tuple[Item, ...]:
        op = node.op
        if not isinstance(op, Collective) or op.devices == 1:
            return (node,)
        between_stages = op.stride >= degrees.stage_devices  # every rank of a stage to its counterpart
        groups = degrees.stage_devices if between_stages else max(1, degrees.stage_devices // op.devices)
        return (replace(node, op=replace(op, groups=groups, algorithm=forced)),)

    return graph.map(change)

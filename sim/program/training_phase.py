"""The executions of a training step: one stage, or a pipeline of stages with its idle rounds."""

from __future__ import annotations

from dataclasses import replace

from ..errors import UnsupportedError
from ..graph.graph import Graph, Node
from ..graph.operators.communication import Collective
from ..transforms.training import TrainingPlan, training_step
from .memory import stages_of
from .program import Execution
from .training_memory import TrainingLayout

ADDITIONS = {"add": 1.0, "add_rmsnorm": 0.5, "add_layernorm": 0.5}
"""Residual additions, with the part of their result that goes on: a fused one writes the norm of it, too."""


def residual_bytes(graph: Graph) -> float:
    """Activations that pass from block to block on one rank.

    With sequence parallelism a rank adds up its share of the tokens; the embedding in front has all of them.

    Raises:
        UnsupportedError: there is no residual stream.
    """
    additions = [n.op.output_bytes * ADDITIONS[n.op.kind] for _, n, _ in graph.walk() if n.op.kind in ADDITIONS]
    if not additions:
        raise UnsupportedError(f"{graph.name}: no residual addition says what pipeline stages hand on; use pipeline 1")
    return max(additions)


def step_executions(whole: Graph, plan: TrainingPlan, layout: TrainingLayout, inner: int) -> tuple[Execution, ...]:
    """What one device (of the slowest stage) does in a training step; *inner* devices a node."""
    degrees = layout.degrees
    if degrees.pipeline == 1:
        return (Execution(training_step(whole, plan, degrees.microbatches), 1.0, degrees.devices),)
    return _pipelined(whole, plan, layout, inner)


def _pipelined(whole: Graph, plan: TrainingPlan, layout: TrainingLayout, inner: int) -> tuple[Execution, ...]:
    """A 1F1B pipeline: the busiest stage works through all microbatches, the others' work happens beside it.

    Its time is that of the busiest stage; before and after, it waits for one microbatch on every other stage. With
    ``virtual_stages`` v every device holds v pieces of the model: what it waits for is a v-th of a stage, and every
    microbatch is passed on v times (Narayanan et al., arXiv:2104.04473).
    """
    degrees, pieces = layout.degrees, layout.virtual_stages
    parts = stages_of(whole, degrees.pipeline)
    # The fullest stage in FLOPs is the slowest; ends with the output head often are.
    busiest = max(range(len(parts)), key=lambda i: parts[i].flops)
    copies = degrees.stage_devices
    # The stage whose messages go farthest sets the pace.
    stride = max(degrees.send_stride(i, inner) for i in range(degrees.pipeline - 1))
    send = Collective("send_recv", residual_bytes(whole), 2, stride, runtime="nccl")
    runs: list[Execution] = []
    for index, part in enumerate(parts):
        if not part.items:
            continue
        last = index == degrees.pipeline - 1
        sends = tuple(Node(f"stage_send_{i}" if pieces > 1 else "stage_send", send) for i in range(pieces - last))
        part = replace(part, items=(*part.items, *sends))
        step = training_step(part, plan, degrees.microbatches)
        runs.append(Execution(step, 1.0 if index == busiest else 0.0, copies, work=1.0))
        if index != busiest:
            once = training_step(part, replace(plan, data=1), 1)
            idle = tuple(item for item in once.items if not (isinstance(item, Node) and item.phase == "optimizer"))
            runs.append(Execution(Graph(once.name, idle), 1.0 / pieces, copies, useful=False, label="pipeline bubble"))
    return tuple(runs)

"""A forward graph to a whole training step: backward pass, recomputation, gradient exchange, optimizer."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..graph.dtypes import size_of
from ..graph.graph import Graph, Item, Node, Repeat
from ..graph.operators.attention import Attention
from ..graph.operators.communication import Collective, OptimizerStep

OPTIMIZER_STATES = {"adam": 2, "sgd_momentum": 1, "sgd": 0}
"""fp32 numbers an optimizer keeps for every parameter, without the master copy."""


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """Choices of a training step (see ``training`` of a workload file), with the ranks that share the batch."""

    optimizer: str = "adam"
    master_weights: bool = True
    recompute: str = "none"
    zero: int = 0
    data: int = 1
    data_stride: int = 1
    gradient_dtype: str = "fp32"
    dtype: str = "bf16"

    @property
    def states(self) -> int:
        """fp32 numbers a parameter that the optimizer keeps, master copy included."""
        return OPTIMIZER_STATES[self.optimizer] + (1 if self.master_weights else 0)


def training_step(forward: Graph, plan: TrainingPlan, microbatches: int = 1) -> Graph:
    """Forward, backward in reverse order, gradient exchange over the data ranks, optimizer update.

    ``microbatches`` repeats forward and backward before the single exchange and update.
    """
    backward = _reverse(forward.items, plan)
    once = (*forward.items, *backward)
    parts: tuple[Item, ...] = once if microbatches == 1 else (Repeat("microbatches", once, microbatches),)
    tail: list[Item] = list(_exchange(forward, plan))
    elements = forward.parameters
    if plan.zero >= 1:
        elements = -(-elements // plan.data)
    update = OptimizerStep(elements, plan.states, plan.dtype, gradient_dtype=plan.gradient_dtype)
    tail.append(Node("optimizer", update, phase="optimizer"))
    return replace(forward, items=(*parts, *tail))


def _reverse(items: tuple[Item, ...], plan: TrainingPlan) -> tuple[Item, ...]:
    out: list[Item] = []
    for item in reversed(items):
        if isinstance(item, Repeat):
            body = _reverse(item.body, plan)
            if plan.recompute == "full":
                body = (*(_again(i) for i in item.body), *body)
            out.append(replace(item, name=f"{item.name}_backward", body=body))
            continue
        if plan.recompute == "selective" and isinstance(item.op, Attention) and not item.op.fused:
            out.append(_again(item))
        for index, op in enumerate(item.op.backward()):
            suffix = f"_backward_{index}" if len(item.op.backward()) > 1 else "_backward"
            out.append(Node(f"{item.name}{suffix}", op, phase="backward"))
    return tuple(out)


def _again(item: Item) -> Item:
    if isinstance(item, Repeat):
        return replace(item, name=f"{item.name}_again", body=tuple(_again(i) for i in item.body))
    return replace(item, name=f"{item.name}_again", phase="backward")


def _exchange(forward: Graph, plan: TrainingPlan) -> tuple[Item, ...]:
    if plan.data == 1:
        return ()
    gradients = forward.parameters * size_of(plan.gradient_dtype)
    weights = forward.parameters * size_of(plan.dtype)

    def node(name: str, op: str, size: float) -> Node:
        collective = Collective(op, size, plan.data, plan.data_stride, plan.gradient_dtype)
        return Node(name, collective, phase="exchange", overlap=True)

    if plan.zero == 0:
        return (node("gradient_all_reduce", "all_reduce", gradients),)
    scatter = node("gradient_reduce_scatter", "reduce_scatter", gradients)
    gather = node("weight_all_gather", "all_gather", weights)
    if plan.zero < 3:
        return (scatter, gather)
    again = node("weight_all_gather_backward", "all_gather", weights)
    return (gather, again, scatter)

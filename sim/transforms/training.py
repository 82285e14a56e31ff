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

    ``microbatches`` repeats forward and backward; gradients travel in the last one, block by block behind the backward
    pass (ZeRO-3 also gathers every block's weights ahead of its use, in every microbatch).
    """
    last = _once(forward, plan, exchange=plan.data > 1)
    parts: tuple[Item, ...] = last
    if microbatches > 1:
        parts = (Repeat("microbatches", _once(forward, plan, exchange=False), microbatches - 1), *last)
    tail: list[Item] = []
    elements = forward.parameters
    if plan.zero >= 1:
        elements = -(-elements // plan.data)
    update = OptimizerStep(elements, plan.states, plan.dtype, gradient_dtype=plan.gradient_dtype)
    tail.append(Node("optimizer", update, phase="optimizer"))
    if plan.data > 1 and plan.zero in (1, 2):
        size = forward.parameters * size_of(plan.dtype)
        tail.append(_exchange("weight_all_gather", "all_gather", size, plan, "optimizer", overlap=False))
    return replace(forward, items=(*parts, *tail))


def _once(forward: Graph, plan: TrainingPlan, *, exchange: bool) -> tuple[Item, ...]:
    """One forward and backward pass."""
    ahead = forward.items
    if plan.data > 1 and plan.zero == 3:
        ahead = _gathered(ahead, plan, "forward")
    return (*ahead, *_reverse(forward.items, plan, exchange=exchange))


def _reverse(items: tuple[Item, ...], plan: TrainingPlan, *, exchange: bool) -> tuple[Item, ...]:
    out: list[Item] = []
    for item in reversed(items):
        if isinstance(item, Repeat):
            body = _reverse(item.body, plan, exchange=False)
            if plan.recompute == "full":
                body = (*(_again(i) for i in item.body), *body)
            if plan.data > 1 and plan.zero == 3:
                body = _gathered_body(body, _parameters(item.body), plan, "backward")
            if exchange:
                body = (*body, _gradients(_parameters(item.body), plan))
            out.append(replace(item, name=f"{item.name}_backward", body=body))
            continue
        if plan.recompute == "selective" and isinstance(item.op, Attention) and not item.op.fused:
            out.append(_again(item))
        steps = item.op.backward()
        for index, op in enumerate(steps):
            suffix = f"_backward_{index}" if len(steps) > 1 else "_backward"
            out.append(Node(f"{item.name}{suffix}", op, phase="backward"))
    loose = tuple(item for item in items if isinstance(item, Node))
    if exchange and _parameters(loose):
        out.append(_gradients(_parameters(loose), plan))
    return tuple(out)


def _again(item: Item) -> Item:
    if isinstance(item, Repeat):
        return replace(item, name=f"{item.name}_again", body=tuple(_again(i) for i in item.body))
    return replace(item, name=f"{item.name}_again", phase="backward")


def _parameters(items: tuple[Item, ...]) -> int:
    return Graph("part", items).parameters


def _gathered(items: tuple[Item, ...], plan: TrainingPlan, phase: str) -> tuple[Item, ...]:
    """Every repeated block with the gathering of its weights in front."""
    out: list[Item] = []
    for item in items:
        if isinstance(item, Repeat):
            out.append(replace(item, body=_gathered_body(item.body, _parameters(item.body), plan, phase)))
        else:
            out.append(item)
    return tuple(out)


def _gathered_body(body: tuple[Item, ...], elements: int, plan: TrainingPlan, phase: str) -> tuple[Item, ...]:
    gather = _exchange("weight_all_gather", "all_gather", elements * size_of(plan.dtype), plan, phase, overlap=True)
    return (gather, *body)


def _gradients(elements: int, plan: TrainingPlan) -> Node:
    op = "all_reduce" if plan.zero == 0 else "reduce_scatter"
    return _exchange(f"gradient_{op}", op, elements * size_of(plan.gradient_dtype), plan, "backward", overlap=True)


def _exchange(name: str, op: str, size: float, plan: TrainingPlan, phase: str, *, overlap: bool) -> Node:
    collective = Collective(op, size, plan.data, plan.data_stride, plan.gradient_dtype)
    return Node(name, collective, phase=phase, overlap=overlap)

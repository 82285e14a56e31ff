"""A forward graph to a whole training step: backward pass, recomputation, gradient exchange, optimizer."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..graph.dtypes import size_of
from ..graph.graph import Graph, Item, Node, Repeat
from ..graph.operators.communication import Collective, GradientClip, GradientSum, OptimizerStep
from ..graph.operators.linear import Linear
from ..graph.operators.pointwise import Pointwise
from .recompute import again

MOST_APART = 2
"""Results of one product whose gradients one kernel still writes side by side (gate and up)."""

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
    reduce_dtype: str = ""
    recompute_stops: bool = False
    reshard: bool = True
    fused_optimizer: bool = True
    clip: bool = False
    accumulate_whole: bool = False
    working_copy: bool = True
    sums: bool = False

    @property
    def states(self) -> int:
        """fp32 numbers a parameter that the optimizer keeps, master copy included."""
        return OPTIMIZER_STATES[self.optimizer] + (1 if self.master_weights else 0)

    @property
    def gathers(self) -> bool:
        """Weights are divided and gathered where they are used."""
        return self.data > 1 and self.zero == 3


def training_step(forward: Graph, plan: TrainingPlan, microbatches: int = 1) -> Graph:
    """Forward, backward in reverse order, gradient exchange over the data ranks, optimizer update.

    ``microbatches`` repeats forward and backward. Gradients travel block by block behind the backward pass: whole ones
    in the last microbatch, divided ones (ZeRO 2 and 3) in every one, as no rank has room for the whole, unless they are
    kept whole until then (``accumulate_whole``). ZeRO 3 also gathers every block's weights ahead of its use: for the
    forward and once more for the backward pass, or once a step where they stay (``reshard`` False).
    """
    shared = plan.data > 1
    if microbatches > 1 and (plan.zero < 2 or plan.accumulate_whole):
        plan = replace(plan, sums=True)  # whole gradients of every microbatch are added to those before
    last = _once(forward, plan, exchange=shared)
    parts: tuple[Item, ...] = last
    if microbatches > 1:
        # Weights that stay are gathered once a step: here in the last microbatch, which hides as much as the first.
        plan_early = replace(plan, zero=2) if plan.gathers and not plan.reshard else plan
        early = _once(forward, plan_early, exchange=shared and plan.zero >= 2 and not plan.accumulate_whole)
        parts = (Repeat("microbatches", early, microbatches - 1), *last)
    return replace(forward, items=(*parts, *_update(forward, plan)))


def _update(forward: Graph, plan: TrainingPlan) -> list[Item]:
    elements = forward.parameters
    if plan.zero >= 1:
        elements = -(-elements // plan.data)
    tail: list[Item] = []
    if plan.clip:
        tail.append(Node("gradient_clip", GradientClip(elements, plan.gradient_dtype), phase="optimizer"))
    kept = "" if plan.master_weights and plan.gathers and not plan.working_copy else plan.dtype
    update = OptimizerStep(elements, plan.states, kept, gradient_dtype=plan.gradient_dtype, fused=plan.fused_optimizer)
    tail.append(Node("optimizer", update, phase="optimizer"))
    if plan.data > 1 and plan.zero in (1, 2):
        size = forward.parameters * size_of(plan.dtype)
        tail.append(_exchange("weight_all_gather", "all_gather", size, plan, "optimizer", overlap=False))
    return tail


def _once(forward: Graph, plan: TrainingPlan, *, exchange: bool) -> tuple[Item, ...]:
    """One forward and backward pass."""
    ahead = _gathered(forward.items, plan) if plan.gathers else forward.items
    return (*ahead, *_reverse(forward.items, plan, exchange=exchange))


def _reverse(items: tuple[Item, ...], plan: TrainingPlan, *, exchange: bool, alone: bool = True) -> tuple[Item, ...]:
    """The backward pass of *items*; ``alone``: they stand in no block, which would run them again as a whole."""
    out: list[Item] = []
    for item in reversed(items):
        if isinstance(item, Repeat):
            body = (
                *again(item.body, plan.recompute, plan.recompute_stops),
                *_reverse(item.body, plan, exchange=False, alone=False),
            )
            if plan.gathers and plan.reshard:
                body = (_gather(item.body, plan, "backward"), *body)
            if plan.sums and _parameters(item.body):
                body = (*body, _sum(_parameters(item.body), plan))
            if exchange:
                body = (*body, _gradients(_parameters(item.body), plan))
            out.append(replace(item, name=f"{item.name}_backward", body=body))
            continue
        if _gathers_tokens(item) and plan.recompute in ("none", "selective"):
            # Ranks kept their own part of what the product read; its weight gradient needs all of it once more.
            out.append(replace(item, name=f"{item.name}_again", phase="backward"))
        if alone and plan.recompute == "selective":
            out.extend(again((item,), plan.recompute, plan.recompute_stops))
        steps = item.op.backward()
        if isinstance(item.op, Linear) and len(item.outputs) > MOST_APART:
            # Gradients of queries, keys and values come apart and are put side by side for the one product.
            joined = Pointwise("copy", item.op.m, item.op.n, item.op.dtype)
            out.append(Node(f"{item.name}_gradients", joined, phase="backward"))
        for index, op in enumerate(steps):
            suffix = f"_backward_{index}" if len(steps) > 1 else "_backward"
            out.append(Node(f"{item.name}{suffix}", op, phase="backward", overlap=item.overlap))
    loose = tuple(item for item in items if isinstance(item, Node))
    if alone and plan.sums and _parameters(loose):
        out.append(_sum(_parameters(loose), plan))
    if exchange and _parameters(loose):
        out.append(_gradients(_parameters(loose), plan))
    return tuple(out)


def _gathers_tokens(node: Node) -> bool:
    return isinstance(node.op, Collective) and node.op.op == "all_gather" and not node.overlap


def _parameters(items: tuple[Item, ...]) -> int:
    return Graph("part", items).parameters


def _gathered(items: tuple[Item, ...], plan: TrainingPlan) -> tuple[Item, ...]:
    """Every repeated block with the gathering of its weights in front, and one gathering of what is in no block."""
    out: list[Item] = []
    loose = tuple(item for item in items if isinstance(item, Node))
    if _parameters(loose):
        out.append(_gather(loose, plan, "forward"))
    for item in items:
        if isinstance(item, Repeat):
            out.append(replace(item, body=(_gather(item.body, plan, "forward"), *item.body)))
        else:
            out.append(item)
    return tuple(out)


def _gather(items: tuple[Item, ...], plan: TrainingPlan, phase: str) -> Node:
    size = _parameters(items) * size_of(plan.dtype)
    return _exchange("weight_all_gather", "all_gather", size, plan, phase, overlap=True)


def _gradients(elements: int, plan: TrainingPlan) -> Node:
    op = "all_reduce" if plan.zero == 0 else "reduce_scatter"
    size = elements * size_of(plan.reduce_dtype or plan.gradient_dtype)
    return _exchange(f"gradient_{op}", op, size, plan, "backward", overlap=True)


def _sum(elements: int, plan: TrainingPlan) -> Node:
    return Node("gradient_sum", GradientSum(elements, plan.gradient_dtype), phase="backward")


def _exchange(name: str, op: str, size: float, plan: TrainingPlan, phase: str, *, overlap: bool) -> Node:
    dtype = plan.dtype if op == "all_gather" else plan.reduce_dtype or plan.gradient_dtype
    collective = Collective(op, size, plan.data, plan.data_stride, dtype, runtime="nccl")
    return Node(name, collective, phase=phase, overlap=overlap)


def with_library(graph: Graph) -> Graph:
    """The graph with its collectives run by the communication library, as training frameworks do."""

    def change(node: Node) -> tuple[Item, ...]:
        if isinstance(node.op, Collective) and not node.op.runtime:
            return (replace(node, op=replace(node.op, runtime="nccl")),)
        return (node,)

    return graph.map(change)

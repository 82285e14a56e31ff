"""Memory of a training step: weights, gradients, optimizer, and activations at the fullest moment of the step.

Three moments can be the fullest; the largest counts.

* The start of the backward pass: everything the forward pass kept, with the loss and its gradient.
* The backward pass of a block near the end of the model: what the forward pass kept of all blocks before, with what the
  block itself recomputes, its incoming gradients and its weights' whole gradient.
* The update: the optimizer's temporary numbers (unfused updates).
"""

from __future__ import annotations

from dataclasses import dataclass

from ..graph.dtypes import size_of
from ..graph.graph import Graph, Item, Node, Repeat
from ..graph.operators.embedding import CrossEntropy
from ..graph.operators.linear import Linear
from ..transforms.recompute import saved_by_block
from ..transforms.training import TrainingPlan
from .memory import Capacity, stages_of, working_set
from .program import Degrees, Memory


@dataclass(frozen=True, slots=True)
class TrainingLayout:
    """Degrees of parallelism, pieces of the model on each pipeline stage, and whether kernels are fused."""

    degrees: Degrees
    virtual_stages: int = 1
    fused: bool = True

    def held(self, stage: int) -> float:
        """Microbatches whose activations *stage* keeps, in its own blocks: 1F1B, and p − 1 pieces more interleaved.

        >>> TrainingLayout(Degrees(pipeline=4, microbatches=8)).held(0)
        4.0
        >>> TrainingLayout(Degrees(pipeline=35, microbatches=280), 3).held(0) / 35  # 1 + (p − 1)/(p·v)
        1.3238095238095238
        """
        p, m, v = self.degrees.pipeline, self.degrees.microbatches, self.virtual_stages
        depth = float(p - stage) if v == 1 else p + (p - 1) / v - 2.0 * stage / v
        return min(depth, float(m))


def pipeline_memory(forward: Graph, plan: TrainingPlan, capacity: Capacity, layout: TrainingLayout) -> Memory:
    """Memory of the device that has most to hold."""
    pipeline = layout.degrees.pipeline
    if pipeline == 1:
        return training_memory(forward, plan, capacity)
    parts = enumerate(stages_of(forward, pipeline))
    found = [training_memory(part, plan, capacity, layout.held(i)) for i, part in parts if part.items]
    return max(found, key=lambda memory: memory.used_bytes)


def training_memory(forward: Graph, plan: TrainingPlan, capacity: Capacity, in_flight: float = 1) -> Memory:
    """Memory of one device in a training step.

    Weights in the working type, gradients, optimizer states (fp32), and what the forward keeps for the backward of
    ``in_flight`` microbatches. ZeRO divides states (1), gradients (2) and weights (3) over the data ranks; what ZeRO 3
    gathers, and whole gradients on their way, are with the activations: they come and go.
    """
    parameters = float(forward.parameters)
    share = 1.0 / plan.data
    weights = forward.weight_bytes * (share if plan.zero >= 3 else 1.0)
    if plan.gathers and plan.master_weights and not plan.working_copy:
        weights = 0.0  # gathered weights are made from the divided fp32 masters, which are all there is
    gradients = parameters * size_of(plan.gradient_dtype) * (share if plan.zero >= 2 else 1.0)
    if plan.accumulate_whole and plan.zero >= 2:
        gradients += parameters * size_of(plan.reduce_dtype or plan.gradient_dtype)
    states = parameters * 4.0 * plan.states * (share if plan.zero >= 1 else 1.0)
    kept = saved_activations(forward, plan) * in_flight
    return Memory(
        capacity_bytes=capacity.total_bytes,
        reserved_bytes=capacity.reserved_bytes,
        weights_bytes=weights,
        gradient_bytes=gradients,
        optimizer_bytes=states,
        activation_bytes=kept,
        transient_bytes=transient(forward, plan),
    )


def saved_activations(forward: Graph, plan: TrainingPlan) -> float:
    """Bytes that one forward pass leaves for its backward pass."""
    total = 0.0
    for item in forward.items:
        if isinstance(item, Repeat):
            total += item.count * saved_by_block(item.body, plan.recompute)
        else:
            total += saved_by_block((item,), "selective" if plan.recompute == "selective" else "none")
    return total


def transient(forward: Graph, plan: TrainingPlan) -> float:
    """Bytes that come and go beside what is kept: the larger of the loss's moment and a block's backward pass.

    Temporary numbers of an unfused update, one a parameter of this rank, appear when the rest is gone.
    """
    blocks = [item for item in forward.items if isinstance(item, Repeat)]
    loose = [item for item in forward.items if isinstance(item, Node)]
    ends = Graph("ends", tuple(loose))
    largest = max((_parameters(block.body) for block in blocks), default=0)
    gathered = 0.0
    if plan.gathers:
        # Parameters of no block stay gathered; of the blocks, one is used while the next arrives. Kept ones stay all.
        whole = float(forward.parameters)
        gathered = size_of(plan.dtype) * (ends.parameters + 2.0 * largest if plan.reshard else whole)
    loss = _loss_moment(loose) + _exchanged(float(ends.parameters), plan)
    inside = max((_block_moment(block, plan) for block in blocks), default=0.0)
    inside += _exchanged(float(largest), plan)
    return gathered + max(loss, inside, working_set(forward) if not blocks else 0.0)


def _exchanged(elements: float, plan: TrainingPlan) -> float:
    """A whole gradient in the working type, and its copy in the type it travels in, where gradients are divided."""
    if plan.data == 1 or plan.zero < 2:
        return 0.0
    travels = plan.reduce_dtype or plan.gradient_dtype
    return elements * (size_of(plan.dtype) + (size_of(travels) if travels != plan.dtype else 0.0))


def _parameters(items: tuple[Item, ...]) -> int:
    return Graph("part", items).parameters


def _loss_moment(loose: list[Node]) -> float:
    """Gradients at the loss, beside what it keeps: of the logarithms and of the logits, then of the head's input."""
    for node in loose:
        if isinstance(node.op, CrossEntropy):
            return node.op.gradient_bytes
    return 0.0


def _block_moment(block: Repeat, plan: TrainingPlan) -> float:
    """What the backward pass of one block holds beside what the forward pass kept of it."""
    whole = saved_by_block(block.body, "none")
    again = whole - saved_by_block(block.body, plan.recompute) if plan.recompute != "none" else 0.0
    widest = max((node.op.output_bytes for _, node, _ in Graph("b", block.body).walk() if _product(node)), default=0.0)
    return max(0.0, again) + 2.0 * widest  # the gradient that arrives at the widest product, and the one it makes


def _product(node: Node) -> bool:
    return isinstance(node.op, Linear)

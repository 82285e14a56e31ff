"""What has to be resident on one device: weights, caches, states, activations, training state."""

from __future__ import annotations

from dataclasses import dataclass

from ..graph.dtypes import size_of
from ..graph.graph import Graph, Item, Node, Repeat
from ..graph.operators.attention import Attention
from ..transforms.training import TrainingPlan
from .program import Memory


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a device offers, and how many devices can be joined."""

    device: str
    total_bytes: float
    reserved_bytes: float
    devices: int
    inner_devices: int


def stage(graph: Graph, pipeline: int) -> Graph:
    """The fullest pipeline stage: every repeated block's count divided and rounded up."""
    if pipeline == 1:
        return graph
    return Graph(graph.name, tuple(_fewer(item, pipeline) for item in graph.items))


def _fewer(item: Item, pipeline: int) -> Item:
    if isinstance(item, Repeat):
        return Repeat(item.name, item.body, -(-item.count // pipeline))
    return item


def working_set(graph: Graph) -> float:
    """Peak of live activations in inference: the largest operator's inputs and outputs, plus the residual stream.

    The residual is the widest tensor that a row-wise addition carries past the operators of a block.
    """
    largest = max((node.op.input_bytes + node.op.output_bytes for _, node, _ in graph.walk()), default=0.0)
    residual = max((node.op.output_bytes for _, node, _ in graph.walk() if node.op.kind == "add"), default=0.0)
    return largest + residual


def inference_memory(graph: Graph, capacity: Capacity, pipeline: int = 1, peak: Graph | None = None) -> Memory:
    """Memory of one device at the end of generation; *peak* is the graph with the largest activations (prefill)."""
    part = stage(graph, pipeline)
    return Memory(
        capacity_bytes=capacity.total_bytes,
        reserved_bytes=capacity.reserved_bytes,
        weights_bytes=part.weight_bytes,
        kv_cache_bytes=part.cache_bytes,
        state_bytes=part.state_bytes,
        activation_bytes=working_set(peak or graph),
    )


def training_memory(forward: Graph, plan: TrainingPlan, capacity: Capacity, in_flight: int = 1) -> Memory:
    """Memory of one device in a training step.

    Weights in the working type, gradients, optimizer states (fp32), and what the forward keeps for the backward of
    ``in_flight`` microbatches (a 1F1B pipeline holds as many as it has stages). ZeRO divides states (1), gradients (2)
    and weights (3) over the data ranks.
    """
    parameters = float(forward.parameters)
    share = 1.0 / plan.data
    weights = forward.weight_bytes * (share if plan.zero >= 3 else 1.0)
    gradients = parameters * size_of(plan.gradient_dtype) * (share if plan.zero >= 2 else 1.0)
    states = parameters * 4.0 * plan.states * (share if plan.zero >= 1 else 1.0)
    return Memory(
        capacity_bytes=capacity.total_bytes,
        reserved_bytes=capacity.reserved_bytes,
        weights_bytes=weights,
        gradient_bytes=gradients,
        optimizer_bytes=states,
        activation_bytes=saved_activations(forward, plan) * in_flight + working_set(forward),
    )


def saved_activations(forward: Graph, plan: TrainingPlan) -> float:
    """Bytes that one forward pass leaves for its backward pass.

    ``full`` recomputation keeps the input of every repeated block and one block's own activations at a time;
    ``selective`` recomputes unfused attention, whose scores are then not kept.
    """
    if plan.recompute != "full":
        return sum(_saved(node, plan) * count for _, node, count in forward.walk())
    total = 0.0
    for item in forward.items:
        if isinstance(item, Repeat):
            block = Graph(item.name, item.body)
            first = next((node for _, node, _ in block.walk()), None)
            total += item.count * (first.op.input_bytes if first else 0.0)
            total += sum(_saved(node, plan) * count for _, node, count in block.walk())
        else:
            total += _saved(item, plan)
    return total


def _saved(node: Node, plan: TrainingPlan) -> float:
    op = node.op
    size = float(op.saved_bytes)
    if plan.recompute == "selective" and isinstance(op, Attention) and not op.fused:
        size -= 2.0 * op.batch * op.q_len * op.heads * op.kv_len * size_of(op.dtype)
    return size

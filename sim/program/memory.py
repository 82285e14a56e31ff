"""What has to be resident on one device: weights, caches, states, activations, training state."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..graph.graph import Graph, Item, Repeat
from .placement import Placement
from .program import Memory


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a device offers, and how many devices can be joined."""

    device: str
    total_bytes: float
    reserved_bytes: float
    devices: int
    inner_devices: int
    placement: Placement | None = None


def stage(graph: Graph, pipeline: int) -> Graph:
    """The fullest of *pipeline* stages, cut at block borders so that resident bytes are as even as they can be.

    Blocks are taken one by one in order; a stage ends where the running total passes its share. Nested repeats that
    are too few for the stages are opened first.
    """
    if pipeline == 1:
        return graph
    stages = stages_of(graph, pipeline)
    return max(stages, key=lambda part: part.weight_bytes + part.cache_bytes + part.state_bytes)


def stages_of(graph: Graph, pipeline: int) -> list[Graph]:
    """The graph cut into *pipeline* consecutive parts of about equal resident bytes."""
    units = _units(_opened(graph.items, pipeline))
    total = sum(count * size for _, count, size in units)
    parts: list[list[Item]] = [[] for _ in range(pipeline)]
    done, index = 0.0, 0
    for item, count, size in units:
        left = count
        while left:
            room = (index + 1) * total / pipeline - done
            last = index == pipeline - 1 or size <= 0.0
            whole = left if last else min(left, round(room / size))
            if whole <= 0:
                index += 1
                continue
            parts[index].append(replace(item, count=whole) if isinstance(item, Repeat) else item)
            done += whole * size
            left -= whole
    return [Graph(f"{graph.name}, stage {i + 1} of {pipeline}", tuple(part)) for i, part in enumerate(parts)]


def _opened(items: tuple[Item, ...], pipeline: int) -> tuple[Item, ...]:
    """Repeats of fewer copies than stages are written out where their bodies hold repeats of their own."""
    out: list[Item] = []
    for item in items:
        if isinstance(item, Repeat) and item.count < 2 * pipeline and any(isinstance(i, Repeat) for i in item.body):
            for copy in range(item.count):
                out += [replace(inner, name=f"{item.name}_{copy}.{inner.name}") for inner in item.body]
        else:
            out.append(item)
    return tuple(out)


def _units(items: tuple[Item, ...]) -> list[tuple[Item, int, float]]:
    """(item, copies, resident bytes of one copy)."""
    out = []
    for item in items:
        body = Graph("one", item.body if isinstance(item, Repeat) else (item,))
        size = body.weight_bytes + body.cache_bytes + body.state_bytes
        out.append((item, item.count if isinstance(item, Repeat) else 1, size))
    return out


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

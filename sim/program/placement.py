"""Mixed systems: which device group runs a node, and the transfers where the work changes hands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from ..errors import DoesNotFitError
from ..graph.graph import Graph, Item, Node, Repeat
from ..graph.operators.placement import Placed, Transfer


@dataclass(frozen=True, slots=True)
class Group:
    """A device group other than the first: how many devices it has and what each can hold."""

    name: str
    device: str
    count: int
    total_bytes: float
    reserved_bytes: float


@dataclass(frozen=True, slots=True)
class Placement:
    """Rules (pattern, group) over dotted node names, the groups, and the name of the first group."""

    home: str
    rules: tuple[tuple[str, str], ...]
    groups: Mapping[str, Group]


def assign(graph: Graph, placement: Placement) -> Graph:
    """Mark every node that a rule moves with its group; the first pattern that matches wins."""

    def place(items: tuple[Item, ...], prefix: str) -> tuple[Item, ...]:
        out: list[Item] = []
        for item in items:
            name = f"{prefix}{item.name}"
            if isinstance(item, Repeat):
                out.append(replace(item, body=place(item.body, f"{name}.")))
                continue
            rule = next((r for r in placement.rules if fnmatchcase(name, r[0])), None)
            if rule is not None:
                item = replace(item, place="" if rule[1] == placement.home else rule[1])
            out.append(item)
        return tuple(out)

    return replace(graph, items=place(graph.items, ""))


def unused_rules(graph: Graph, placement: Placement) -> tuple[str, ...]:
    """Notes on rules that match no operator of the graph: a model without attention, or a misspelt pattern."""
    names = [name for name, _, _ in graph.walk()]
    return tuple(
        f"placement rule {pattern!r} matches no operator of this model"
        for pattern, _ in placement.rules
        if not any(fnmatchcase(name, pattern) for name in names)
    )


def with_transfers(graph: Graph, home: str) -> Graph:
    """Insert the transfers that a run of nodes on another group needs: its inputs there, its result back.

    What one node of the run hands to the next stays on the group. Weights and caches live where they are used.
    """
    return replace(graph, items=_with_transfers(graph.items, home))


def _with_transfers(items: tuple[Item, ...], home: str) -> tuple[Item, ...]:
    out: list[Item] = []
    run: list[Node] = []

    def close() -> None:
        if run:
            out.extend(_framed(run, home))
            run.clear()

    for item in items:
        if isinstance(item, Repeat):
            close()
            out.append(replace(item, body=_with_transfers(item.body, home)))
        elif item.place and (not run or run[-1].place == item.place):
            run.append(item)
        elif item.place:
            close()
            run.append(item)
        else:
            close()
            out.append(item)
    close()
    return tuple(out)


def _framed(run: Sequence[Node], home: str) -> list[Item]:
    place = run[0].place
    inward, made = 0.0, 0.0
    for node in run:
        inward += max(0.0, node.op.input_bytes - made)
        made = node.op.output_bytes
    there = Node(f"{run[0].name}_to_{place}", Transfer(inward, home, place))
    back = Node(f"{run[-1].name}_from_{place}", Transfer(made, place, home))
    return [there, *run, back]


def wrap(graph: Graph) -> Graph:
    """Put the group into the operators themselves, where the device looks for it (after sharding)."""

    def change(node: Node) -> tuple[Item, ...]:
        return (replace(node, op=Placed(node.op, node.place)),) if node.place else (node,)

    return graph.map(change)


def group_degrees(placement: Placement | None) -> dict[str, int]:
    """Tensor degree of every group but the first: all its devices."""
    return {name: group.count for name, group in placement.groups.items()} if placement is not None else {}


def check_groups(graph: Graph, placement: Placement, pipeline: int) -> tuple[str, ...]:
    """Notes on the memory of the other groups.

    Raises:
        DoesNotFitError: one of them cannot hold what is placed on it.
    """
    notes = []
    for name, group in placement.groups.items():
        part = Graph(name, tuple(_only(graph.items, name)))
        used = group.reserved_bytes + (part.weight_bytes + part.cache_bytes + part.state_bytes) / pipeline
        text = f"{used / 2**30:.3g} GiB of {group.total_bytes / 2**30:.3g} GiB on each {group.device} ({name})"
        if used > group.total_bytes:
            over = (used - group.total_bytes) / 2**30
            raise DoesNotFitError(f"{text}: {over:.3g} GiB too much; would fit with more devices in group {name!r}")
        notes.append(f"placement: {text}")
    return tuple(notes)


def _only(items: tuple[Item, ...], place: str) -> list[Item]:
    out: list[Item] = []
    for item in items:
        if isinstance(item, Repeat):
            body = tuple(_only(item.body, place))
            if body:
                out.append(replace(item, body=body))
        elif isinstance(item.op, Placed) and item.op.place == place:
            out.append(item)
    return out


def home_only(graph: Graph) -> Graph:
    """The part of the graph that stays on the first group (for its memory)."""
    return replace(graph, items=tuple(_home(graph.items)))


def _home(items: tuple[Item, ...]) -> list[Item]:
    out: list[Item] = []
    for item in items:
        if isinstance(item, Repeat):
            out.append(replace(item, body=tuple(_home(item.body))))
        elif not isinstance(item.op, Placed):
            out.append(item)
    return out

"""The folded graph: nodes in execution order, with identical blocks kept as one ``Repeat``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from .operator import Operator


@dataclass(frozen=True, slots=True)
class Value:
    """Columns of a named activation: ``parts`` equal parts (heads), ``width`` columns of each, one row a token.

    ``of`` = 0 is the whole row. ``of`` > 0 is a slice of a row whose parts are ``of`` wide: columns ``start`` to
    ``start`` + ``width`` of every part; a node that writes it leaves the row's other columns as they are. ``last`` > 0
    are the last so many tokens of every sequence instead of all.
    """

    name: str
    width: int
    parts: int = 1
    start: int = 0
    of: int = 0
    last: int = 0

    @property
    def columns(self) -> int:
        """Columns in all.

        >>> Value("q", 64, parts=8, start=128, of=192).columns
        512
        """
        return self.parts * self.width


@dataclass(frozen=True, slots=True)
class Node:
    """An operator with a name and the way it divides over tensor-parallel devices.

    ``split`` is the axis handed to :meth:`Operator.split` (empty: every device repeats it). ``after`` names the
    collective that completes a divided result (``all_reduce`` behind a row split). ``share`` names a weight shared with
    other nodes (tied embeddings, looped blocks): its parameters count once. ``phase`` groups training parts.
    ``place`` is the device group of a mixed system that runs it (empty: the first group).

    ``inputs`` and ``outputs`` say which activations it reads, in the operator's order, and into which it writes: the
    columns of its result, left to right. A name that is written again holds the newer value, so the copies of a
    repeated body hand on what they share (``hidden``) by name. Costs do not depend on them. They describe the graph as
    it was built, before it is divided over devices; empty where the data flow is not recorded.
    """

    name: str
    op: Operator
    split: str = ""
    after: str = ""
    share: str = ""
    phase: str = "forward"
    overlap: bool = False
    place: str = ""
    inputs: tuple[Value, ...] = ()
    outputs: tuple[Value, ...] = ()


@dataclass(frozen=True, slots=True)
class Repeat:
    """``count`` identical copies of a body, one after another."""

    name: str
    body: tuple[Item, ...]
    count: int


Item = Node | Repeat


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes and repeats in execution order."""

    name: str
    items: tuple[Item, ...] = field(default_factory=tuple)

    def walk(self) -> Iterator[tuple[str, Node, int]]:
        """Every distinct node once, as (dotted name, node, how many times it runs)."""
        yield from _walk(self.items, "", 1)

    def map(self, change: Callable[[Node], tuple[Item, ...]]) -> Graph:
        """A graph in which every node is replaced by what *change* returns for it."""
        return replace(self, items=_map(self.items, change))

    def unfold(self) -> Graph:
        """The same graph with every repeat written out; layer indices enter the names."""
        return replace(self, items=tuple(_unfold(self.items)))

    @property
    def flops(self) -> float:
        """FLOPs of one execution."""
        return sum(node.op.flops * count for _, node, count in self.walk())

    @property
    def bytes_moved(self) -> float:
        """Compulsory bytes of one execution."""
        return sum(node.op.bytes_moved * count for _, node, count in self.walk())

    @property
    def parameters(self) -> int:
        """Parameters, shared ones once."""
        return int(_sum_shared(self, lambda node: node.op.parameters))

    @property
    def weight_bytes(self) -> float:
        """Bytes of weights that must be resident, shared ones once."""
        return _sum_shared(self, lambda node: node.op.weight_bytes)

    @property
    def cache_bytes(self) -> float:
        """Bytes of key/value cache after this step."""
        return sum(node.op.cache_bytes * count for _, node, count in self.walk())

    @property
    def state_bytes(self) -> float:
        """Bytes of recurrent state."""
        return sum(node.op.state_bytes * count for _, node, count in self.walk())


def _walk(items: tuple[Item, ...], prefix: str, count: int) -> Iterator[tuple[str, Node, int]]:
    for item in items:
        if isinstance(item, Repeat):
            yield from _walk(item.body, f"{prefix}{item.name}.", count * item.count)
        else:
            yield f"{prefix}{item.name}", item, count


def _map(items: tuple[Item, ...], change: Callable[[Node], tuple[Item, ...]]) -> tuple[Item, ...]:
    out: list[Item] = []
    for item in items:
        if isinstance(item, Repeat):
            out.append(replace(item, body=_map(item.body, change)))
        else:
            out.extend(change(item))
    return tuple(out)


def _unfold(items: tuple[Item, ...], prefix: str = "") -> Iterator[Node]:
    for item in items:
        if isinstance(item, Repeat):
            for index in range(item.count):
                yield from _unfold(item.body, f"{prefix}{item.name}.{index}.")
        else:
            yield replace(item, name=f"{prefix}{item.name}")


def _sum_shared(graph: Graph, measure: Callable[[Node], float]) -> float:
    total, seen = 0.0, set[str]()
    for _, node, count in graph.walk():
        if node.share:
            if node.share in seen:
                continue
            seen.add(node.share)
            count = 1
        total += measure(node) * count
    return total

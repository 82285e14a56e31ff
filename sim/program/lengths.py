"""One decode at many lengths of its prompt, without building every graph anew.

The length of the cache enters a graph of generation in few places: mostly as a dimension of attention. A graph is built
once with a :class:`Length` in the place of that number. It can be stored and compared, and nothing else; comparisons
are kept with their answers. So it is known for which lengths the same graph comes out, and which operators it enters;
where a builder does more with the number, there is no template, and every length is built by itself.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, cast

from ..errors import UnsupportedError
from ..graph.graph import Graph, Node
from ..graph.operator import Operator
from ..spec.architecture import ArchitectureSpec
from ..spec.engine import EngineSpec
from ..spec.fields import IntQuantity
from ..spec.workload import Parallelism, WorkloadSpec
from .builder import Builder, builder_of, degrees_of
from .fit import candidates
from .memory import Capacity
from .parallel import check_degrees
from .place import program_of, samples
from .program import Degrees, Memory, Program

Columns = dict[Operator, tuple[str, tuple[Operator, ...]]]
"""Operators of one point, each with the field that differs and the operators of all points in its place."""


class Opaque(Exception):  # noqa: N818 - a control signal, not an error
    """A graph depends on its length otherwise than by comparisons."""


class Length:
    """Stands for a length while a graph is built; ``asked`` holds the comparisons and what they answered."""

    __slots__ = ("_example", "asked")

    def __init__(self, example: int) -> None:
        self._example = example
        self.asked: list[tuple[Callable[[Any, Any], Any], int | float, bool]] = []

    def _compare(self, how: Callable[[Any, Any], Any], other: object) -> bool:
        if not isinstance(other, int | float):
            raise Opaque
        answer = bool(how(self._example, other))
        self.asked.append((how, other, answer))
        return answer

    def __lt__(self, other: object) -> bool:
        return self._compare(operator.lt, other)

    def __le__(self, other: object) -> bool:
        return self._compare(operator.le, other)

    def __gt__(self, other: object) -> bool:
        return self._compare(operator.gt, other)

    def __ge__(self, other: object) -> bool:
        return self._compare(operator.ge, other)

    def __eq__(self, other: object) -> bool:
        return self is other or self._compare(operator.eq, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return id(self)

    def _opaque(self, *_: object) -> Any:
        raise Opaque

    __bool__ = __int__ = __index__ = __float__ = __str__ = __repr__ = __format__ = _opaque
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __neg__ = __abs__ = _opaque
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __pow__ = __rpow__ = _opaque
    __ceil__ = __floor__ = __round__ = __trunc__ = __divmod__ = __rdivmod__ = _opaque


class GraphTemplate:
    """A graph of every length that answers all comparisons as the example did."""

    def __init__(self, graph: Graph, length: Length) -> None:
        self._graph, self._asked = graph, tuple(dict.fromkeys(length.asked))
        self._made: dict[tuple[int, ...], dict[str, tuple[Operator, ...]]] = {}
        self.places: list[tuple[str, Node, str]] = []
        for name, node, _ in graph.walk():
            held = _held_in(node.op, length)
            if len(held) > 1 or name in {known for known, _, _ in self.places}:
                raise Opaque
            self.places += [(name, node, field) for field in held]

    def admits(self, length: int) -> bool:
        """Whether the builder would have gone the same way with *length*."""
        return all(bool(how(length, other)) == answer for how, other, answer in self._asked)

    def varying(self, lengths: Sequence[int]) -> dict[str, tuple[Operator, ...]]:
        """The operators that depend on the length, by the names of their nodes, for all *lengths*.

        Raises:
            UnsupportedError: one of them cannot have such a length.
        """
        key = tuple(lengths)
        if key not in self._made:
            self._made[key] = {name: _with_each(node.op, part, key) for name, node, part in self.places}
        return self._made[key]

    def graph(self, length: int) -> Graph:
        """The whole graph of one length."""
        made = {id(node): _with_each(node.op, part, (length,))[0] for _, node, part in self.places}
        return self._graph.map(lambda node: (replace(node, op=made[id(node)]) if id(node) in made else node,))


def _with_each(op: Operator, part: str, lengths: Sequence[int]) -> tuple[Operator, ...]:
    """*op* with each of *lengths* in its field *part*."""
    make = cast(Any, type(op))
    given = {one.name: getattr(op, one.name) for one in fields(cast(Any, op)) if one.init and one.name != part}
    return tuple([make(**given, **{part: n}) for n in lengths])


def _held_in(op: Operator, length: Length) -> list[str]:
    """Fields of *op* that are the length itself.

    Raises:
        Opaque: it is deeper inside.
    """
    names = []
    for one in fields(cast(Any, op)):
        value = getattr(op, one.name)
        if value is length:
            names.append(one.name)
        elif isinstance(value, Operator) and _held_in(value, length):
            raise Opaque
    return names


def template(build: Callable[[int], Graph], example: int) -> GraphTemplate | None:
    """What *build* makes of every length; None where it does more with the number than compare and store it."""
    length = Length(example)
    try:
        return GraphTemplate(build(cast(int, length)), length)
    except (Opaque, TypeError):
        return None


@dataclass(frozen=True, slots=True)
class DecodePart:
    """Points with the same degrees: ``places`` among those asked for, the ``program`` of the first.

    ``columns``: for each operator of that program that depends on the length, those of all points. ``used_bytes``: an
    array over points.
    """

    places: tuple[int, ...]
    program: Program
    columns: Columns
    used_bytes: Any


@dataclass(frozen=True)
class _OpenBuilder(Builder):
    """A builder that makes graphs of generation from templates; shares them with copies of itself."""

    templates: dict[Any, GraphTemplate | None] = field(default_factory=dict)

    def token_graph(self, degrees: Degrees, kv_len: int, padded: int = 0) -> Graph:
        """See :meth:`Builder.token_graph`."""
        made = self.template(degrees, padded, kv_len)
        if made is not None and made.admits(kv_len):
            return made.graph(kv_len)
        return super().token_graph(degrees, kv_len, padded)

    def template(self, degrees: Degrees, padded: int, example: int) -> GraphTemplate | None:
        """The graph of a step with its length left open."""
        key = (degrees, 0 if padded == self.batch(degrees) else padded)
        if key not in self.templates:
            build = super().token_graph
            self.templates[key] = template(lambda kv: build(degrees, kv, padded), example)
        return self.templates[key]


class DecodeFamily:
    """A decode on devices of one kind, with its prompt left open."""

    def __init__(
        self, workload: WorkloadSpec, engine: EngineSpec, capacity: Capacity, base: Path, model: ArchitectureSpec
    ) -> None:
        b = builder_of(workload, engine, capacity, base, model)
        self._builder = _OpenBuilder(b.workload, b.engine, b.model, b.capacity)

    def parts(self, prompts: Sequence[int]) -> Iterator[DecodePart]:
        """Points that fit, by the degrees that they take; the others are left out."""
        b = self._builder
        if b.model is None or b.model.patches is not None or b.workload.task != "decode" or b.capacity.placement:
            return
        left, parallelism = tuple(range(len(prompts))), b.workload.parallelism
        fixed = None if parallelism == "auto" else degrees_of(parallelism)
        for degrees in candidates(b.capacity) if fixed is None else (fixed,):
            if degrees.pipeline > 1 or degrees.microbatches > 1 or degrees.devices > b.capacity.devices or not left:
                return
            try:
                if fixed is not None:
                    check_degrees(b.workload, b.model, degrees, mixed=False)
                memory = self._memory(degrees, [prompts[i] for i in left])
            except UnsupportedError:
                if fixed is None and degrees.devices > 1:  # more devices may divide it
                    continue
                return
            if memory is None:
                return
            used: Any = memory.used_bytes
            fits = (used <= b.capacity.total_bytes).tolist()
            chosen = tuple(place for place, held in zip(left, fits, strict=True) if held)
            left = tuple(place for place, held in zip(left, fits, strict=True) if not held)
            if chosen:
                first = _memory_at(memory, fits.index(True))
                found = self._part(degrees, first, [prompts[i] for i in chosen])
                if found is not None:
                    yield DecodePart(chosen, *found, used[fits])

    def _memory(self, degrees: Degrees, prompts: Sequence[int]) -> Memory | None:
        """The fullest moment of every prompt, as :func:`~.memory.inference_memory` adds it up; arrays over prompts.

        None where they cannot be told together.
        """
        import numpy as np

        b, new = self._builder, int(self._builder.workload.generate)
        lengths = [prompt + new for prompt in prompts]
        made = b.template(degrees, 0, lengths[0])
        if made is None or not all(made.admits(n) for n in lengths) or not all(map(_only_caches, made.places)):
            return None
        example = made.graph(lengths[0])
        varying = made.varying(lengths)
        cache, largest, residual = np.zeros(len(lengths)), np.zeros(len(lengths)), 0.0
        for name, node, count in example.walk():
            ops = varying.get(name)
            if ops is None:
                cache = cache + node.op.cache_bytes * count
                largest = np.maximum(largest, node.op.input_bytes + node.op.output_bytes)
            else:
                cache = cache + np.array([op.cache_bytes for op in ops]) * count
                largest = np.maximum(largest, np.array([op.input_bytes + op.output_bytes for op in ops]))
            if node.op.kind == "add":
                residual = max(residual, node.op.output_bytes)
        return Memory(
            capacity_bytes=b.capacity.total_bytes,
            reserved_bytes=b.capacity.reserved_bytes,
            weights_bytes=example.weight_bytes,
            kv_cache_bytes=cache,  # type: ignore[arg-type]
            state_bytes=example.state_bytes,
            activation_bytes=largest + residual,  # type: ignore[arg-type]
        )

    def _part(self, degrees: Degrees, memory: Memory, prompts: Sequence[int]) -> tuple[Program, Columns] | None:
        """The program of the first prompt, which takes *memory*, and the operators of all that depend on it."""
        b = self._builder
        given = Parallelism(tensor=degrees.tensor) if b.workload.parallelism == "auto" else b.workload.parallelism
        first = b.workload.model_copy(update={"prompt": IntQuantity(prompts[0]), "parallelism": given})
        program = program_of(replace(b, workload=first), degrees, memory)
        new = int(b.workload.generate)
        steps = [samples(prompt + 1, new) for prompt in prompts]
        captured = b.engine.captured_batch(b.batch(degrees)) or 0
        columns: Columns = {}
        for step in range(len(steps[0])):
            lengths = [lengths[step][0] for lengths in steps]
            made = b.template(degrees, captured, lengths[0])
            if made is None or not all(made.admits(n) for n in lengths):
                return None
            varying = made.varying(lengths)
            for name, _, part in made.places:
                columns[varying[name][0]] = (part, varying[name])
        return program, columns


def _memory_at(memory: Memory, place: int) -> Memory:
    """One point of a memory whose caches and activations are arrays."""
    held: Any = memory
    cache, activations = held.kv_cache_bytes[place].item(), held.activation_bytes[place].item()
    return replace(memory, kv_cache_bytes=cache, activation_bytes=activations)


def _only_caches(place: tuple[str, Node, str]) -> bool:
    """Whether an operator has neither weights nor state and is no residual addition, whatever its length."""
    op = place[1].op
    plain = type(op).weight_bytes is Operator.weight_bytes and type(op).state_bytes is Operator.state_bytes
    return plain and op.kind != "add"

"""A traced computation: calls on values, the same whether torch.export or an ONNX file gave it.

Calls carry the names of ATen operators and of their arguments; ONNX operators are translated to them. Costs and
patterns therefore exist once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .op_names import CASTS, RANDOM, VIEWS, WORK

INTEGER_BYTES: Final = {"int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1}
"""Types that hold no real numbers: positions, masks, indices."""


@dataclass(eq=False, slots=True)
class Value:
    """One tensor; ``parameter`` is the name of the weight that it is or was made of.

    ``role``: ``input``, ``parameter`` (a weight, or made of weights alone), ``constant`` or ``activation``.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    role: str = "activation"
    parameter: str = ""
    producer: Call | None = None
    users: list[Call] = field(default_factory=list)

    @property
    def elements(self) -> int:
        """Number of elements; a scalar has one."""
        return prod(self.shape)

    @property
    def real(self) -> bool:
        """Real numbers, on which arithmetic counts as FLOPs."""
        return self.dtype not in INTEGER_BYTES

    @property
    def fixed(self) -> bool:
        """Depends on no input: it is made once, not in every execution."""
        return self.role in ("parameter", "constant")


@dataclass(eq=False, slots=True)
class Call:
    """One operation: ``arguments`` by the names of the ATen schema; values stand among them, alone or in lists."""

    op: str
    arguments: dict[str, Any]
    outputs: list[Value]
    scope: str = ""
    source: str = ""

    @property
    def inputs(self) -> list[Value]:
        """All tensors among the arguments, in their order."""
        return list(_values(self.arguments.values()))

    @property
    def out(self) -> Value:
        """The first result."""
        return self.outputs[0]

    def value(self, name: str) -> Value | None:
        """The tensor of one argument, if it is one."""
        found = self.arguments.get(name)
        return found if isinstance(found, Value) else None

    def get(self, name: str, default: Any = None) -> Any:
        """An argument, or *default* where it is absent or None."""
        found = self.arguments.get(name)
        return default if found is None else found


def _values(items: Iterable[Any]) -> Iterator[Value]:
    for item in items:
        if isinstance(item, Value):
            yield item
        elif isinstance(item, list | tuple):
            yield from _values(item)


@dataclass(eq=False, slots=True)
class Trace:
    """All calls in execution order, what the graph returns, and a way to compute values that need no weights."""

    calls: list[Call]
    results: list[Value]
    evaluate: Callable[[Value], npt.NDArray[Any] | None] = lambda value: None
    notes: list[str] = field(default_factory=list)

    def link(self) -> None:
        """Set roles, producers and users, then drop what nothing needs and what depends on no input."""
        for call in self.calls:
            _assign_role(call)
        self.calls = [call for call in self.calls if not call.out.fixed]
        self.sweep()

    def sweep(self) -> None:
        """Drop calls whose results nobody uses, and bring users up to date."""
        needed = {id(value) for value in self.results}
        kept: list[Call] = []
        for call in reversed(self.calls):
            if any(id(value) in needed for value in call.outputs):
                kept.append(call)
                needed |= {id(value) for value in call.inputs}
        self.calls = kept[::-1]
        for call in self.calls:
            for value in (*call.inputs, *call.outputs):
                value.users = []
        for call in self.calls:
            for value in call.outputs:
                value.producer = call
            for value in call.inputs:
                value.users.append(call)

    def rewrite(self, rule: Callable[[Call], Call | None]) -> None:
        """Put the call that *rule* gives in the place of each call for which it gives one.

        The new call must produce values of the old one's; what only the old one needed is dropped.
        """
        for index, call in enumerate(self.calls):
            new = rule(call)
            if new is not None:
                self.calls[index] = new
                for value in new.outputs:
                    value.producer = new
                for value in new.inputs:
                    value.users.append(new)
        self.sweep()


def _assign_role(call: Call) -> None:
    sources = call.inputs
    weights = [value for value in sources if value.role == "parameter"]
    for value in call.outputs:
        value.producer = call
        if all(item.fixed for item in sources) and call.op not in RANDOM and not (weights and call.op in WORK):
            value.role = "parameter" if weights else "constant"
            value.parameter = weights[0].parameter if weights else ""


def source(value: Value, over: frozenset[str] = VIEWS | CASTS) -> Value:
    """The value that *value* is a view or a cast of (*over*: names of the calls that are looked through)."""
    while value.producer is not None and value.producer.op in over:
        inputs = value.producer.inputs
        if not inputs:
            break
        value = inputs[0]
    return value


def made_by(value: Value | None, *ops: str, over: frozenset[str] = VIEWS | CASTS) -> Call | None:
    """The call of one of *ops* that makes *value*, looking through views and casts."""
    if value is None:
        return None
    producer = source(value, over).producer
    return producer if producer is not None and producer.op in ops else None


def sole_user(value: Value) -> Call | None:
    """The only call that uses *value*; None if there are several or none."""
    return value.users[0] if len(value.users) == 1 else None


def reader(value: Value, over: frozenset[str] = VIEWS | CASTS) -> Call | None:
    """The only call that uses *value* once views and casts are looked through."""
    user = sole_user(value)
    while user is not None and user.op in over and len(user.outputs) == 1:
        user = sole_user(user.out)
    return user


def frontier(value: Value, barriers: frozenset[str]) -> list[Value]:
    """Values that *value* is computed from by calls outside *barriers*: results of barriers, and inputs."""
    found: dict[int, Value] = {}
    seen, todo = {id(value)}, [value]
    while todo:
        current = todo.pop()
        producer = current.producer
        if current.fixed:
            continue
        if producer is None or (producer.op in barriers and current is not value):
            found[id(current)] = current
            continue
        for item in producer.inputs:
            if id(item) not in seen:
                seen.add(id(item))
                todo.append(item)
    return list(found.values())


def unique(value: Value) -> int:
    """Distinct elements along each expanded or repeated axis: what is left of *value* when copies count once."""
    call = value.producer
    while call is not None and call.op in VIEWS | CASTS | {"repeat_interleave", "repeat"}:
        inputs = call.inputs
        if not inputs:
            break
        inner = inputs[0]
        # Parts (slices, splits) are fewer elements than their source and no copies.
        if inner.elements > value.elements:
            break
        value, call = inner, inner.producer
    return value.elements


def number(argument: Any) -> float | None:
    """The number that an argument is: a Python number; None for tensors."""
    if isinstance(argument, bool) or not isinstance(argument, int | float):
        return None
    return float(argument)


def visible(mask: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which scores a mask lets through: True, or a finite number that is added to them."""
    if mask.dtype == np.bool_:
        return mask
    return np.asarray(mask > -1e4, dtype=np.bool_)

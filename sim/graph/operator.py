"""What an operator says of itself: arithmetic by unit class, tensor traffic by role, what stays resident.

An operator knows no hardware. Devices read these numbers and the operator's own dimensions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, ClassVar, Literal

from ..errors import UnsupportedError


class Role(StrEnum):
    """What a tensor is for; memory accounting and traffic reports add up by role."""

    WEIGHT = "weight"
    ACTIVATION = "activation"
    KV_CACHE = "kv_cache"
    STATE = "state"
    GRADIENT = "gradient"
    OPTIMIZER = "optimizer"


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Operations by the unit that does them. A multiply-add counts as 2."""

    matrix: float = 0.0
    vector: float = 0.0
    special: float = 0.0
    integer: float = 0.0

    def __mul__(self, factor: float) -> Arithmetic:
        """Scale every class by *factor*."""
        return Arithmetic(self.matrix * factor, self.vector * factor, self.special * factor, self.integer * factor)

    def __add__(self, other: Arithmetic) -> Arithmetic:
        """Add class by class."""
        return Arithmetic(
            self.matrix + other.matrix,
            self.vector + other.vector,
            self.special + other.special,
            self.integer + other.integer,
        )


@dataclass(frozen=True, slots=True)
class Access:
    """One tensor read or written once: its role and the bytes of its distinct elements."""

    role: Role
    bytes_moved: float
    write: bool = False


Launched = Literal["library", "native", "compiled"]
"""Launch classes of an isolated operator: their host paths differ in length."""


class Operator(ABC):
    """One mathematical operation with fixed dimensions.

    Subclasses are frozen dataclasses, so that equal operators are equal keys: results are memoised by content.
    """

    __slots__ = ()
    kind: ClassVar[str]

    @property
    def launched(self) -> Launched:
        """How a framework starts it where it is run alone: through a library, as a kernel of its own, or compiled."""
        return "library"

    @abstractmethod
    def arithmetic(self) -> Arithmetic:
        """Operations by unit class."""

    @abstractmethod
    def accesses(self) -> tuple[Access, ...]:
        """Compulsory traffic: every distinct byte read or written once."""

    @property
    def flops(self) -> float:
        """FLOPs by the field's convention: contractions count their multiply-adds, other operators all arithmetic.

        The softmax inside fused attention is in :meth:`arithmetic`, not here, as in every published FLOP count.
        """
        a = self.arithmetic()
        return a.matrix if a.matrix else a.vector + a.special

    @property
    def bytes_moved(self) -> float:
        """Compulsory bytes of all tensors."""
        return sum(access.bytes_moved for access in self.accesses())

    def bytes_by_role(self) -> dict[Role, float]:
        """Compulsory bytes by tensor role."""
        out: dict[Role, float] = {}
        for access in self.accesses():
            out[access.role] = out.get(access.role, 0.0) + access.bytes_moved
        return out

    @property
    def parameters(self) -> int:
        """Trainable parameters that the operator owns."""
        return 0

    @property
    def weight_bytes(self) -> float:
        """Bytes of memory its parameters occupy, scales of quantised groups included."""
        return 0.0

    @property
    def cache_bytes(self) -> float:
        """Bytes of key/value cache that stay resident after the step."""
        return 0.0

    @property
    def state_bytes(self) -> float:
        """Bytes of recurrent state (SSM, convolution) that stay resident after the step."""
        return 0.0

    @property
    def output_bytes(self) -> float:
        """Bytes of the activations it produces."""
        return sum(a.bytes_moved for a in self.accesses() if a.write and a.role is Role.ACTIVATION)

    @property
    def input_bytes(self) -> float:
        """Bytes of the activations it consumes."""
        return sum(a.bytes_moved for a in self.accesses() if not a.write and a.role is Role.ACTIVATION)

    @property
    def saved_bytes(self) -> float:
        """Bytes kept from the forward for the backward pass (its inputs, unless a subclass says otherwise)."""
        return self.input_bytes

    def backward(self) -> tuple[Operator, ...]:
        """Operators of its backward pass.

        Raises:
            UnsupportedError: the operator has no backward (sampling, cache maintenance).
        """
        raise UnsupportedError(f"{self.kind} has no backward pass")

    def split(self, axis: str, degree: int) -> Operator:
        """The share of one of *degree* devices when the operator is divided along *axis*.

        Raises:
            UnsupportedError: the operator cannot be divided that way; the message says why.
        """
        raise UnsupportedError(f"{self.kind} cannot be split by {axis!r}")

    def dimensions(self) -> dict[str, Any]:
        """Field names and values, for reports."""
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]


def divide(value: int, degree: int, what: str, kind: str) -> int:
    """*value* / *degree*, exact.

    >>> divide(64, 8, "heads", "attention")
    8

    Raises:
        UnsupportedError: *value* is not a multiple of *degree*.
    """
    if value % degree:
        raise UnsupportedError(f"{kind}: {value} {what} cannot be divided over {degree} devices")
    return value // degree


def ceil_div(a: int, b: int) -> int:
    """Smallest integer not below a / b."""
    return -(-a // b)


def positive(operator: Operator, *names: str) -> None:
    """Refuse a dimension below 1.

    Raises:
        UnsupportedError: names the operator, the dimension and its value.
    """
    for name in names:
        value = getattr(operator, name)
        if value < 1:
            raise UnsupportedError(f"{operator.kind}: {name} is {value}; expected at least 1")

"""Operators on mixed systems: which group of devices runs one, and what crosses between groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..operator import Access, Arithmetic, Operator, Role


@dataclass(frozen=True, slots=True)
class Placed(Operator):
    """An operator that runs on the device group ``place``; everything else is the operator's own."""

    op: Operator
    place: str

    @property
    def kind(self) -> str:  # type: ignore[override]
        """Kind of the operator it holds."""
        return self.op.kind

    def arithmetic(self) -> Arithmetic:
        """Of the operator it holds."""
        return self.op.arithmetic()

    def accesses(self) -> tuple[Access, ...]:
        """Of the operator it holds."""
        return self.op.accesses()

    @property
    def flops(self) -> float:
        """Of the operator it holds."""
        return self.op.flops

    @property
    def parameters(self) -> int:
        """Of the operator it holds."""
        return self.op.parameters

    @property
    def weight_bytes(self) -> float:
        """Of the operator it holds."""
        return self.op.weight_bytes

    @property
    def cache_bytes(self) -> float:
        """Of the operator it holds."""
        return self.op.cache_bytes

    @property
    def state_bytes(self) -> float:
        """Of the operator it holds."""
        return self.op.state_bytes

    def dimensions(self) -> dict[str, Any]:
        """Dimensions of the operator it holds, and where it runs."""
        return {**self.op.dimensions(), "place": self.place}


@dataclass(frozen=True, slots=True)
class Transfer(Operator):
    """Activations that cross from the device group ``source`` to ``target``; all devices of both take part."""

    kind: ClassVar[str] = "transfer"
    payload_bytes: float
    source: str
    target: str

    def arithmetic(self) -> Arithmetic:
        """None."""
        return Arithmetic()

    def accesses(self) -> tuple[Access, ...]:
        """Read on one side, written on the other."""
        return (
            Access(Role.ACTIVATION, self.payload_bytes),
            Access(Role.ACTIVATION, self.payload_bytes, write=True),
        )

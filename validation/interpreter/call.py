"""What one operator is handed when a graph runs, and what it counts while it works."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from effsim.errors import DataError
from effsim.graph.graph import Node, Value
from effsim.graph.operator import Operator

from .values import Array


@dataclass(frozen=True, slots=True)
class Constants:
    """Numbers of a model that change its results and not its cost, so that a graph does not hold them.

    ``gated_norm_parts``: groups of columns that a gated norm normalises apart; ``norm_before_gate``: it gates its
    result instead of its input.
    """

    norm_eps: float = 1e-6
    rope_base: float = 10_000.0
    rope_style: str = "half"
    attention_scale: float | None = None
    router_order: str = "softmax_topk"
    renormalize: bool = True
    routed_scale: float = 1.0
    gated_norm_parts: int = 1
    norm_before_gate: bool = False
    gelu: str = "none"
    embedding_scale: float = 1.0


@dataclass(slots=True)
class Call:
    """One execution of a node: its operator, what it reads, its weights, and the states of its layer.

    ``multiply_adds`` counts the products of contractions that ran; ``operations`` all arithmetic of other operators.
    The ``…_bytes``, ``…_read`` and ``…_written`` are sizes of what they read and wrote besides inputs and result. All
    come from the arrays that went through the functional models, not from the operator.
    """

    path: str
    node: Node
    inputs: list[Array]
    weights: Mapping[str, Any]
    constants: Constants
    states: dict[str, Any]
    batch: int
    multiply_adds: int = 0
    operations: float = 0.0
    weight_bytes: float = 0.0
    queries_read: float = 0.0
    cache_read: float = 0.0
    cache_written: float = 0.0
    state_bytes: float = 0.0

    @property
    def op(self) -> Operator:
        """The operator."""
        return self.node.op

    @property
    def reads(self) -> tuple[Value, ...]:
        """The values that the inputs are."""
        return self.node.inputs

    def expect(self, what: str, got: object, wanted: object) -> None:
        """Refuse a dimension of the operator that is not that of the arrays.

        Raises:
            DataError: *got* (of the arrays) differs from *wanted* (of the operator).
        """
        if got != wanted:
            raise DataError(f"{self.path}: {what} is {got}; the operator says {wanted}")

    def weight(self, name: str, *shape: int) -> Array:
        """A weight, which must have the *shape* that follows from the operator.

        Raises:
            DataError: missing, or of another shape.
        """
        if name not in self.weights:
            raise DataError(f"{self.path}: no weight {name!r}; there are {sorted(self.weights)}")
        found = np.asarray(self.weights[name], np.float32)
        self.expect(f"shape of {name}", found.shape, shape)
        self.weight_bytes += found.size * 4.0
        return found

    def only(self, *names: str) -> None:
        """Refuse weights that the operator does not have.

        Raises:
            DataError: a weight besides *names*.
        """
        extra = sorted(set(self.weights) - set(names))
        if extra:
            raise DataError(f"{self.path}: the operator has no weight {extra[0]!r}")

"""Named activations while a graph runs: what a node reads, what it writes, in the columns that the graph says."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from effsim.errors import DataError
from effsim.graph.graph import Node, Value

Array = npt.NDArray[np.float32]


class Values:
    """Activations by name, one row a token, sequences one after another.

    Token numbers and positions are activations of one column, kept as float32: exact up to 2²⁴.
    """

    def __init__(self, batch: int) -> None:
        self._rows: dict[str, Array] = {}
        self._batch = batch

    def put(self, name: str, rows: Array) -> None:
        """Set a whole activation."""
        self._rows[name] = rows

    def get(self, name: str) -> Array:
        """A whole activation.

        Raises:
            DataError: nothing wrote it.
        """
        if name not in self._rows:
            raise DataError(f"no node wrote {name!r}")
        return self._rows[name]

    def read(self, value: Value) -> Array:
        """Columns of an activation, parts side by side.

        Raises:
            DataError: nothing wrote it, or its row is not as wide as the graph says.
        """
        rows = self.get(value.name)
        part = value.of or value.width
        if rows.shape[1] != value.parts * part:
            wanted = f"{value.parts} × {part} columns"
            raise DataError(f"{value.name!r} is {rows.shape[1]} columns wide; the graph reads {wanted}")
        if value.of:
            parts = rows.reshape(len(rows), value.parts, part)[:, :, value.start : value.start + value.width]
            rows = parts.reshape(len(rows), value.columns)
        if value.last:
            sequences = rows.reshape(self._batch, -1, rows.shape[1])[:, -value.last :]
            rows = sequences.reshape(-1, rows.shape[1])
        return rows

    def write(self, value: Value, rows: Array) -> None:
        """Set an activation, or the slice of one.

        Raises:
            DataError: the slice is not inside the activation.
        """
        if not value.of:
            self._rows[value.name] = rows
            return
        whole = self.get(value.name)
        if whole.shape != (len(rows), value.parts * value.of):
            raise DataError(f"{value.name!r} has shape {whole.shape}; the graph writes {len(rows)} rows of {value}")
        out = whole.copy().reshape(len(rows), value.parts, value.of)
        out[:, :, value.start : value.start + value.width] = rows.reshape(len(rows), value.parts, value.width)
        self._rows[value.name] = out.reshape(whole.shape)

    def store(self, node: Node, result: Array) -> None:
        """Hand the columns of a node's result to its outputs, left to right.

        Raises:
            DataError: the outputs are wider or narrower than the result.
        """
        width = sum(value.columns for value in node.outputs)
        if width != result.shape[1]:
            raise DataError(f"{node.name}: its outputs take {width} columns, its result has {result.shape[1]}")
        first = 0
        for value in node.outputs:
            self.write(value, np.ascontiguousarray(result[:, first : first + value.columns]))
            first += value.columns

"""LSTM and GRU layers, step by step: two products a step, gates evaluated in double and rounded once.

Sources: Hochreiter & Schmidhuber (1997) with the forget gate of Gers et al. (2000); Cho et al. (2014), in the variant
whose reset gate follows the recurrent product, as libraries run it. Gate order along the rows of the weights is
i, f, g, o (LSTM) and r, z, n (GRU). The input product of all steps is one GEMM; the recurrent one is a GEMM a step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from effsim.models._arrays import Float32Array, expect_shape, float32
from effsim.models.activation import sigmoid
from effsim.models.gemm import gemm


@dataclass(frozen=True, slots=True)
class RecurrentResult:
    """Outputs of a layer.

    Attributes:
        y: (batch, length, hidden).
        hidden: (batch, hidden), after the last step.
        cell: (batch, hidden), after the last step; None for a GRU.
    """

    y: Float32Array
    hidden: Float32Array
    cell: Float32Array | None = None


def tanh32(x: Float32Array) -> Float32Array:
    """``tanh`` in double, rounded once."""
    return np.tanh(x.astype(np.float64)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class _Layer:
    x: Float32Array
    w_input: Float32Array
    w_hidden: Float32Array
    b_input: Float32Array
    b_hidden: Float32Array

    @classmethod
    def checked(
        cls, gates: int, x: npt.ArrayLike, w_input: npt.ArrayLike, w_hidden: npt.ArrayLike,
        b_input: npt.ArrayLike | None, b_hidden: npt.ArrayLike | None,
    ) -> _Layer:  # fmt: skip
        inputs, wide, deep = float32("x", x, 3), float32("w_input", w_input, 2), float32("w_hidden", w_hidden, 2)
        rows = gates * deep.shape[1]
        expect_shape("w_hidden", deep, (rows, deep.shape[1]))
        expect_shape("w_input", wide, (rows, inputs.shape[2]))
        biases = []
        for name, bias in (("b_input", b_input), ("b_hidden", b_hidden)):
            biases.append(np.zeros(rows, np.float32) if bias is None else float32(name, bias, 1))
            expect_shape(name, biases[-1], (rows,))
        return cls(inputs, wide, deep, *biases)

    def start(self, name: str, state: npt.ArrayLike | None) -> Float32Array:
        shape = (self.x.shape[0], self.w_hidden.shape[1])
        value = np.zeros(shape, np.float32) if state is None else float32(name, state, 2)
        expect_shape(name, value, shape)
        return value

    def from_input(self) -> Float32Array:
        """(batch, length, gates * hidden)."""
        batch, length, width = self.x.shape
        product = gemm(self.x.reshape(batch * length, width), self.w_input.T, bias=self.b_input)
        return product.reshape(batch, length, self.w_input.shape[0])

    def from_hidden(self, hidden: Float32Array) -> Float32Array:
        return gemm(hidden, self.w_hidden.T, bias=self.b_hidden)


def lstm(
    x: npt.ArrayLike,
    w_input: npt.ArrayLike,
    w_hidden: npt.ArrayLike,
    b_input: npt.ArrayLike | None = None,
    b_hidden: npt.ArrayLike | None = None,
    *,
    hidden: npt.ArrayLike | None = None,
    cell: npt.ArrayLike | None = None,
) -> RecurrentResult:
    """``i, f, o = sigmoid(…), g = tanh(…), c = f c + i g, h = o tanh(c)``.

    Args:
        x: (batch, length, inputs).
        w_input: (4 hidden, inputs).
        w_hidden: (4 hidden, hidden).
        b_input: (4 hidden,) or None.
        b_hidden: (4 hidden,) or None.
        hidden: (batch, hidden) before the first step; None is zeros.
        cell: (batch, hidden) before the first step; None is zeros.

    Raises:
        ValueError: for shapes that do not fit together.

    >>> lstm(np.zeros((1, 1, 1)), np.zeros((4, 1)), np.zeros((4, 1)), cell=[[2.0]]).cell.tolist()
    [[1.0]]
    """
    layer = _Layer.checked(4, x, w_input, w_hidden, b_input, b_hidden)
    h, c = layer.start("hidden", hidden), layer.start("cell", cell)
    given = layer.from_input()
    y = np.empty((*given.shape[:2], h.shape[1]), np.float32)
    for t in range(given.shape[1]):
        i, f, g, o = np.split(given[:, t] + layer.from_hidden(h), 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * tanh32(g)
        h = sigmoid(o) * tanh32(c)
        y[:, t] = h
    return RecurrentResult(y, h, c)


def gru(
    x: npt.ArrayLike,
    w_input: npt.ArrayLike,
    w_hidden: npt.ArrayLike,
    b_input: npt.ArrayLike | None = None,
    b_hidden: npt.ArrayLike | None = None,
    *,
    hidden: npt.ArrayLike | None = None,
) -> RecurrentResult:
    """``r, z = sigmoid(…), n = tanh(W x + b + r (U h + b')), h = (1 - z) n + z h``.

    Args:
        x: (batch, length, inputs).
        w_input: (3 hidden, inputs).
        w_hidden: (3 hidden, hidden).
        b_input: (3 hidden,) or None.
        b_hidden: (3 hidden,) or None.
        hidden: (batch, hidden) before the first step; None is zeros.

    Raises:
        ValueError: for shapes that do not fit together.

    >>> gru(np.zeros((1, 1, 1)), np.zeros((3, 1)), np.zeros((3, 1)), hidden=[[2.0]]).hidden.tolist()
    [[1.0]]
    """
    layer = _Layer.checked(3, x, w_input, w_hidden, b_input, b_hidden)
    h = layer.start("hidden", hidden)
    given = layer.from_input()
    y = np.empty((*given.shape[:2], h.shape[1]), np.float32)
    for t in range(given.shape[1]):
        r_in, z_in, n_in = np.split(given[:, t], 3, axis=1)
        r_own, z_own, n_own = np.split(layer.from_hidden(h), 3, axis=1)
        z = sigmoid(z_in + z_own)
        n = tanh32(n_in + sigmoid(r_in + r_own) * n_own)
        h = (np.float32(1) - z) * n + z * h
        y[:, t] = h
    return RecurrentResult(y, h)

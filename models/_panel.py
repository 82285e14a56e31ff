"""The inner loops of matrix products: four rows at a time against a packed panel of columns.

A panel is a block of the second operand copied to one flat array, ``width`` columns to a line, zeros where the block is
narrower. Indices count from the start of a view, because an offset that might be negative keeps loops scalar. The
constant line length lets the compiler vectorise over columns. Every sum still belongs to one column and
takes its products in the order of k, one rounding after each multiplication and one after each addition, so results do
not depend on the width of the vectors, nor on whether the code is compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from effsim.models._arrays import Float32Array
from effsim.models._kernel import kernel

ROWS = 4
"""Rows that share each load of the panel."""

_Quad: TypeAlias = Callable[[Float32Array, int, tuple[int, int], Float32Array, Float32Array], None]


def make_quad(width: int) -> _Quad:
    """Compile the product of four rows with a panel of *width* columns."""

    @kernel
    def quad(
        a: Float32Array, row: int, ks: tuple[int, int], panel: Float32Array, sums: Float32Array
    ) -> None:  # fmt: skip
        """Add rows ``row … row + 3`` of ``a[:, ks]`` times the panel's lines to ``sums`` (4 x width)."""
        k, first = ks[0], 0
        while k + 4 <= ks[1]:
            a00, a01, a02, a03 = a[row, k], a[row, k + 1], a[row, k + 2], a[row, k + 3]
            a10, a11, a12, a13 = a[row + 1, k], a[row + 1, k + 1], a[row + 1, k + 2], a[row + 1, k + 3]
            a20, a21, a22, a23 = a[row + 2, k], a[row + 2, k + 1], a[row + 2, k + 2], a[row + 2, k + 3]
            a30, a31, a32, a33 = a[row + 3, k], a[row + 3, k + 1], a[row + 3, k + 2], a[row + 3, k + 3]
            for j in range(width):
                b0, b1 = panel[first + j], panel[first + width + j]
                b2, b3 = panel[first + 2 * width + j], panel[first + 3 * width + j]
                sums[j] = (((sums[j] + a00 * b0) + a01 * b1) + a02 * b2) + a03 * b3
                sums[width + j] = (((sums[width + j] + a10 * b0) + a11 * b1) + a12 * b2) + a13 * b3
                sums[2 * width + j] = (((sums[2 * width + j] + a20 * b0) + a21 * b1) + a22 * b2) + a23 * b3
                sums[3 * width + j] = (((sums[3 * width + j] + a30 * b0) + a31 * b1) + a32 * b2) + a33 * b3
            first += 4 * width
            k += 4
        while k < ks[1]:
            for r in range(ROWS):
                left = a[row + r, k]
                for j in range(width):
                    sums[r * width + j] += left * panel[first + j]
            first += width
            k += 1

    return quad


@kernel
def add_row(left: Float32Array, b: Float32Array, column: int, sums: Float32Array) -> None:
    """Add ``left @ b[:, column : column + len(sums)]`` to ``sums``, reading ``b`` where it lies."""
    depth, width = left.shape[0], sums.shape[0]
    k = 0
    while k + 4 <= depth:
        a0, a1, a2, a3 = left[k], left[k + 1], left[k + 2], left[k + 3]
        b0, b1, b2, b3 = b[k][column:], b[k + 1][column:], b[k + 2][column:], b[k + 3][column:]
        for j in range(width):
            sums[j] = (((sums[j] + a0 * b0[j]) + a1 * b1[j]) + a2 * b2[j]) + a3 * b3[j]
        k += 4
    while k < depth:
        right = b[k][column:]
        for j in range(width):
            sums[j] += left[k] * right[j]
        k += 1

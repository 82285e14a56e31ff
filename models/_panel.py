"""The inner loops of matrix products: four rows at a time against a packed panel of columns.

A panel is a block of the second operand copied to one flat array, :data:`WIDTH` columns to a line, zeros where it is
narrower. Indices count from the start of a view, because an offset that might be negative keeps loops scalar. The
constant line length lets the compiler vectorise over columns. Every sum still belongs to one column and
takes its products in the order of k, one rounding after each multiplication and one after each addition, so results do
not depend on the width of the vectors, nor on whether the code is compiled.
"""

from __future__ import annotations

from effsim.models._arrays import Float32Array
from effsim.models._kernel import kernel

ROWS = 4
"""Rows that share each load of the panel."""

WIDTH = 64
"""Columns of a panel: wide enough for long vectors, narrow enough for four sums and four lines to stay close."""


@kernel
def quad(a: Float32Array, row: int, begin: int, end: int, panel: Float32Array, sums: Float32Array) -> None:
    """Add rows ``row … row + 3`` of ``a[:, begin:end]`` times the panel's lines to ``sums`` ((4 x :data:`WIDTH`)."""
    k, first = begin, 0
    while k + 4 <= end:
        a00, a01, a02, a03 = a[row, k], a[row, k + 1], a[row, k + 2], a[row, k + 3]
        a10, a11, a12, a13 = a[row + 1, k], a[row + 1, k + 1], a[row + 1, k + 2], a[row + 1, k + 3]
        a20, a21, a22, a23 = a[row + 2, k], a[row + 2, k + 1], a[row + 2, k + 2], a[row + 2, k + 3]
        a30, a31, a32, a33 = a[row + 3, k], a[row + 3, k + 1], a[row + 3, k + 2], a[row + 3, k + 3]
        for j in range(WIDTH):
            b0, b1 = panel[first + j], panel[first + WIDTH + j]
            b2, b3 = panel[first + 2 * WIDTH + j], panel[first + 3 * WIDTH + j]
            sums[j] = (((sums[j] + a00 * b0) + a01 * b1) + a02 * b2) + a03 * b3
            sums[WIDTH + j] = (((sums[WIDTH + j] + a10 * b0) + a11 * b1) + a12 * b2) + a13 * b3
            sums[2 * WIDTH + j] = (((sums[2 * WIDTH + j] + a20 * b0) + a21 * b1) + a22 * b2) + a23 * b3
            sums[3 * WIDTH + j] = (((sums[3 * WIDTH + j] + a30 * b0) + a31 * b1) + a32 * b2) + a33 * b3
        first += 4 * WIDTH
        k += 4
    while k < end:
        for r in range(ROWS):
            left = a[row + r, k]
            for j in range(WIDTH):
                sums[r * WIDTH + j] += left * panel[first + j]
        first += WIDTH
        k += 1


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

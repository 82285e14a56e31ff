"""A systolic array register by register: the product it computes and the cycles it takes.

Every cell has the registers that hardware has, and every value moves one cell a cycle. Operands meet only if the
schedule lets them: a fold that starts too early reads weights of its predecessor and the product comes out wrong.
Cycles are counted, not computed: those from the first weight (or operand) that enters to the last result that leaves.

``ws``: weights are shifted down into shadow registers, one column a cycle later than its neighbour; activations move
right, partial sums down. A flag that travels with the first activation copies the shadow to the working weight.
``is`` is the same grid with the operands' roles exchanged. ``os``: both operands move, sums stay; a flag with the last
pair copies a sum to a shadow register, from where it is shifted down and out (or appears at once, ``drain="none"``).

With ``double_buffer`` a fold starts as soon as its weights can be in place, or its results' shadows are free.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from effsim.models._arrays import Float32Array, expect_positive, float32
from effsim.models._kernel import kernel

Int64Array = npt.NDArray[np.int64]


@kernel
def _starts(folds: int, steps: int, load: int, tail: int, drain: int, double_buffer: bool) -> Int64Array:
    """Cycle in which each fold's first operand enters the corner of the grid.

    ``tail`` is what follows the stream of a fold: skew and drain.
    """
    out = np.empty(folds, np.int64)
    for fold in range(folds):
        if fold == 0:
            out[fold] = load
        elif double_buffer:
            out[fold] = out[fold - 1] + max(steps, load, drain)
        else:
            out[fold] = out[fold - 1] + steps + tail + load
    return out


@kernel
def _load_shadows(w: Float32Array, shadow: Float32Array, loading: Int64Array, start: Int64Array, cycle: int) -> None:
    """Move weights down the shadow registers; column c works on fold ``loading[c]``, row r from its r-th cycle on."""
    rows, columns = shadow.shape
    depth, width = w.shape
    down = (depth + rows - 1) // rows
    for c in range(columns):
        fold = loading[c]
        if fold >= start.size:
            continue
        begin = start[fold] - rows + c
        for r in range(rows - 1, 0, -1):
            if begin + r <= cycle <= begin + rows - 1:
                shadow[r, c] = shadow[r - 1, c]
        if begin <= cycle <= begin + rows - 1:
            k = fold % down * rows + rows - 1 - (cycle - begin)
            n = fold // down * columns + c
            shadow[0, c] = w[k, n] if k < depth and n < width else np.float32(0)
        if cycle == begin + rows - 1:
            loading[c] += 1


@kernel
def _weight_stationary(
    x: Float32Array, w: Float32Array, rows: int, columns: int, double_buffer: bool, out: Float32Array
) -> int:
    """Fill ``out`` (zeros at first) with ``x @ w``; return the cycles. Column folds outside, row folds inside."""
    steps, depth = x.shape
    width = w.shape[1]
    down, across = (depth + rows - 1) // rows, (width + columns - 1) // columns
    folds = down * across
    start = _starts(folds, steps, rows, rows + columns - 2, 0, double_buffer)
    weight, shadow = np.zeros((rows, columns), np.float32), np.zeros((rows, columns), np.float32)
    moving, sums = np.zeros((rows, columns), np.float32), np.zeros((rows, columns), np.float32)
    tag = -np.ones((rows, columns), np.int64)  # fold · steps + line of the activation in a cell; −1: nothing
    loading, feeding = np.zeros(columns, np.int64), np.zeros(rows, np.int64)
    last, cycle, end = 0, 0, start[folds - 1] + steps + 2 * (rows + columns)
    while cycle < end:
        for r in range(rows - 1, -1, -1):
            for c in range(columns - 1, -1, -1):
                if c > 0:
                    value, mark = moving[r, c - 1], tag[r, c - 1]
                else:
                    value, mark = np.float32(0), -1
                    fold = feeding[r]
                    if fold < folds and cycle - r >= start[fold]:
                        line = cycle - r - start[fold]
                        mark = fold * steps + line
                        k = fold % down * rows + r
                        value = x[line, k] if k < depth else np.float32(0)
                        if line == steps - 1:
                            feeding[r] += 1
                if mark >= 0 and mark % steps == 0:
                    weight[r, c] = shadow[r, c]
                above = sums[r - 1, c] if r > 0 else np.float32(0)
                moving[r, c], tag[r, c] = value, mark
                sums[r, c] = above + value * weight[r, c]
                if mark >= 0 and r == rows - 1:
                    last = cycle
                    n = mark // steps // down * columns + c
                    if n < width:
                        out[mark % steps, n] += sums[r, c]
        _load_shadows(w, shadow, loading, start, cycle)  # at the end of the cycle
        cycle += 1
    return last + 1


@kernel
def _drain_shadows(
    out: Float32Array, shadow: Float32Array, draining: Int64Array, start: Int64Array, steps: int, down: int, cycle: int
) -> bool:
    """Move finished sums down their columns; the bottom row leaves into ``out``. Whether anything left."""
    rows, columns = shadow.shape
    left = False
    for c in range(columns):
        fold = draining[c]
        if fold >= start.size or cycle < start[fold] + steps + rows - 1 + c:
            continue
        begin = start[fold] + steps + rows - 1 + c
        m, n = fold % down * rows + rows - 1 - (cycle - begin), fold // down * columns + c
        left = True
        if m < out.shape[0] and n < out.shape[1]:
            out[m, n] = shadow[rows - 1, c]
        for r in range(rows - 2, -1, -1):
            if cycle <= begin + r:
                shadow[r + 1, c] = shadow[r, c]
        if cycle == begin + rows - 1:
            draining[c] += 1
    return left


@kernel
def _output_stationary(
    x: Float32Array, w: Float32Array, rows: int, columns: int, double_buffer: bool, shift: bool, out: Float32Array
) -> int:
    """Fill ``out`` with ``x @ w``; return the cycles. Column folds outside, row folds inside."""
    height, steps = x.shape
    width = w.shape[1]
    down, across = (height + rows - 1) // rows, (width + columns - 1) // columns
    folds = down * across
    drain = rows if shift else 0
    start = _starts(folds, steps, 0, rows + columns - 2 + drain, drain, double_buffer)
    right, below = np.zeros((rows, columns), np.float32), np.zeros((rows, columns), np.float32)
    tag = -np.ones((rows, columns), np.int64)
    sums, shadow = np.zeros((rows, columns), np.float32), np.zeros((rows, columns), np.float32)
    feeding, draining = np.zeros(rows, np.int64), np.zeros(columns, np.int64)
    last, cycle, end = 0, 0, start[folds - 1] + steps + 2 * (rows + columns)
    while cycle < end:
        if shift and _drain_shadows(out, shadow, draining, start, steps, down, cycle):
            last = cycle
        for r in range(rows - 1, -1, -1):
            for c in range(columns - 1, -1, -1):
                if c > 0:
                    a, mark = right[r, c - 1], tag[r, c - 1]
                else:
                    a, mark = np.float32(0), -1
                    fold = feeding[r]
                    if fold < folds and cycle - r >= start[fold]:
                        line = cycle - r - start[fold]
                        mark = fold * steps + line
                        m = fold % down * rows + r
                        a = x[m, line] if m < height else np.float32(0)
                        if line == steps - 1:
                            feeding[r] += 1
                if r > 0:
                    b = below[r - 1, c]
                else:
                    n = mark // steps // down * columns + c
                    b = w[mark % steps, n] if mark >= 0 and n < width else np.float32(0)
                right[r, c], below[r, c], tag[r, c] = a, b, mark
                if mark < 0:
                    continue
                sums[r, c] = a * b if mark % steps == 0 else sums[r, c] + a * b
                if mark % steps == steps - 1 and shift:
                    shadow[r, c] = sums[r, c]
                elif mark % steps == steps - 1:
                    last = cycle
                    m, n = mark // steps % down * rows + r, mark // steps // down * columns + c
                    if m < height and n < width:
                        out[m, n] = sums[r, c]
        cycle += 1
    return last + 1


def systolic_gemm(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    rows: int,
    columns: int,
    dataflow: str = "ws",
    double_buffer: bool = True,
    drain: str = "shift",
) -> tuple[Float32Array, int]:
    """Return ``a @ b`` as a grid of *rows* × *columns* computes it, and the cycles that it takes.

    Args:
        a: (m, k).
        b: (k, n).
        rows: rows of the grid.
        columns: columns of the grid.
        dataflow: ``ws``, ``os`` or ``is``: weights (``b``), results or inputs (``a``) stay in the cells.
        double_buffer: the next fold's stationary operand (``os``: the last fold's results) moves beside the stream.
        drain: ``shift`` or ``none``: how results of ``os`` leave.

    Returns:
        float32 array (m, n) and the number of cycles.

    Raises:
        ValueError: for shapes that do not match, sizes below 1, or an unknown dataflow or drain.

    >>> product, cycles = systolic_gemm([[1, 2], [3, 4]], [[1, 0], [0, 2]], rows=2, columns=2, double_buffer=False)
    >>> product.tolist(), cycles  # 2 to load, 2 lines, 2 of skew
    ([[1.0, 4.0], [3.0, 8.0]], 6)
    """
    expect_positive(rows=rows, columns=columns)
    if dataflow not in ("ws", "os", "is"):
        raise ValueError(f"dataflow: expected ws, os or is, got {dataflow!r}")
    if drain not in ("shift", "none"):
        raise ValueError(f"drain: expected shift or none, got {drain!r}")
    left, right = float32("a", a, 2), float32("b", b, 2)
    if left.shape[1] != right.shape[0]:
        raise ValueError(f"b: expected {left.shape[1]} rows to match a of shape {left.shape}, got shape {right.shape}")
    out = np.zeros((left.shape[0], right.shape[1]), np.float32)
    if dataflow == "os":
        return out, int(_output_stationary(left, right, rows, columns, double_buffer, drain == "shift", out))
    if dataflow == "ws":
        return out, int(_weight_stationary(left, right, rows, columns, double_buffer, out))
    turned = np.zeros((right.shape[1], left.shape[0]), np.float32)
    x, w = np.ascontiguousarray(right.T), np.ascontiguousarray(left.T)
    cycles = int(_weight_stationary(x, w, rows, columns, double_buffer, turned))
    return np.ascontiguousarray(turned.T), cycles

"""SCALE-Sim 3 compatibility: its cycle counts, for all dataflows, exactly.

``CALC`` (unlimited bandwidth) is a closed form; ``USER`` adds the stalls of :mod:`.stalls`. What differs from effsim's
own model: the stationary operand is not loaded behind the previous fold, results of an output-stationary fold leave at
no cost, partial sums go to memory after every fold and are never read back, each operand has a memory port of its own,
the first half of each buffer is filled before cycle 0, and the count is that of the last cycle from 0 (one less).
"""

from __future__ import annotations

from dataclasses import dataclass

from ...graph.operator import ceil_div
from . import stalls as st

SETS = 100
"""Sets that the reference divides a read buffer into."""


@dataclass(frozen=True, slots=True)
class Patches:
    """Where the rows of a convolution's first operand come from: overlapping patches of *channels* wide pixels.

    A word that several patches share is in a buffer as soon as one of them is.
    """

    kernel: int
    stride: int
    height: int
    width: int
    channels: int


@dataclass(frozen=True, slots=True)
class Layer:
    """One product ``[m, k] · [k, n]`` on a grid of *rows* × *columns*."""

    m: int
    n: int
    k: int
    rows: int
    columns: int
    dataflow: str
    patches: Patches | None = None

    @property
    def pinned(self) -> tuple[int, int, int]:
        """(extent along the rows, extent along the columns, steps in time) of the dataflow."""
        if self.dataflow == "ws":
            return self.k, self.n, self.m
        if self.dataflow == "is":
            return self.k, self.m, self.n
        return self.m, self.n, self.k

    @property
    def folds(self) -> tuple[int, int]:
        """Folds along rows and columns."""
        along_rows, along_columns, _ = self.pinned
        return ceil_div(along_rows, self.rows), ceil_div(along_columns, self.columns)

    @property
    def cycles_of_fold(self) -> int:
        """Lines of one fold: ``2R + C + T − 2`` with a stationary operand to load, ``R + C + T − 2`` without.

        >>> Layer(128, 128, 128, 32, 32, "ws").cycles_of_fold
        222
        """
        load = 0 if self.dataflow == "os" else self.rows
        return load + self.rows + self.columns + self.pinned[2] - 2

    @property
    def compute_cycles(self) -> int:
        """Cycles of all folds one after another, counted from 1."""
        down, across = self.folds
        return down * across * self.cycles_of_fold

    @property
    def memory_words(self) -> tuple[int, int, int]:
        """Words of inputs, weights, results that cross the memory ports when the buffers hold everything."""
        down, _ = self.folds
        spills = 1 if self.dataflow == "os" else down
        return self.m * self.k, self.k * self.n, self.m * self.n * spills


def sparse_depth(k: int, kept: int, block: int) -> int:
    """Rows of a weight matrix that *kept* : *block* sparsity leaves.

    >>> sparse_depth(128, 2, 4), sparse_depth(10, 1, 4)
    (64, 3)
    """
    return k // block * kept + min(k % block, kept)


@dataclass(frozen=True, slots=True)
class Ports:
    """Buffer sizes in words and port widths in words a cycle, of inputs, weights and results."""

    input_words: int
    weight_words: int
    output_words: int
    input_width: int
    weight_width: int
    output_width: int


def total_cycles(layer: Layer, ports: Ports | None = None) -> tuple[int, int]:
    """(total, stall) cycles as the reference reports them: "Total Cycles" and "Stall Cycles".

    ``ports`` None is ``CALC``: unlimited bandwidth, no stalls. The total counts the last result; stalls behind it do
    not show.

    >>> total_cycles(Layer(128, 128, 128, 32, 32, "ws"))
    (3551, 0)
    >>> total_cycles(Layer(128, 128, 128, 32, 32, "os"), Ports(8192, 8192, 8192, 4, 4, 4))
    (65426, 62387)
    """
    if ports is None:
        return layer.compute_cycles - 1, 0
    inputs, weights = _operands(layer, ports)
    _, _, steps = layer.pinned
    down, across = layer.folds
    along_rows, along_columns, _ = layer.pinned
    outputs_pinned = layer.dataflow == "os"
    shape = [
        down,
        across,
        layer.cycles_of_fold,
        1 if layer.dataflow == "is" else 0,
        0 if layer.dataflow == "is" else 1,
        steps - 1 if outputs_pinned else 2 * layer.rows - 1,
        layer.columns,
        along_columns - (across - 1) * layer.columns,
        layer.rows if outputs_pinned else steps,
        along_rows - (down - 1) * layer.rows if outputs_pinned else steps,
        1 if outputs_pinned else 0,
    ]
    stall = int(st.walk(inputs, weights, _writer(ports), shape))
    return layer.compute_cycles - 1 + stall, stall


def _writer(ports: Ports) -> list[int]:
    words = ports.output_words
    state = [0] * st.WRITER_FIELDS
    state[st.TOTAL], state[st.HALF] = words, words - ceil_div(words, 2)
    state[st.BURST], state[st.FREE] = ports.output_width, words
    return state


def _operands(layer: Layer, ports: Ports) -> tuple[list[int], list[int]]:
    """State of inputs and weights at cycle 0."""
    along_rows, along_columns, steps = layer.pinned
    down, across = layer.folds
    last_row = along_rows - (down - 1) * layer.rows
    last_column = along_columns - (across - 1) * layer.columns
    inputs, weights = (ports.input_words, ports.input_width), (ports.weight_words, ports.weight_width)
    if layer.dataflow == "os":
        by_rows = _diagonal(0, steps, layer.rows, down, last_row, *inputs)
        _overlap(by_rows, layer)
        return by_rows, _diagonal(0, steps, layer.columns, across, last_column, *weights)
    moving, fixed = (inputs, weights) if layer.dataflow == "ws" else (weights, inputs)
    stream = _diagonal(layer.rows, steps, layer.rows, down, last_row, *moving)
    rows = _operand(along_rows * along_columns, *fixed)
    rows[st.WIDTH], rows[st.FOLDS], rows[st.LAST] = layer.columns, across, last_column
    rows[st.DEPTH], rows[st.ROWS] = along_rows, layer.rows
    first, second = (stream, rows) if layer.dataflow == "ws" else (rows, stream)
    _overlap(first, layer)
    return first, second


def _overlap(inputs: list[int], layer: Layer) -> None:
    """Tell the inputs which of their words are the same."""
    if layer.patches is None:
        return
    p = layer.patches
    inputs[st.KERNEL], inputs[st.STRIDE], inputs[st.CHANNELS] = p.kernel, p.stride, p.channels
    inputs[st.HIGH], inputs[st.WIDE] = p.height, p.width
    inputs[st.LANES] = 0 if layer.dataflow == "ws" else 1


def _diagonal(offset: int, length: int, width: int, folds: int, last: int, words: int, port: int) -> list[int]:
    """An operand that streams into *width* lanes, one lane a cycle later than the one before."""
    o = _operand(length * (width * (folds - 1) + last), words, port)
    o[st.DIAGONAL], o[st.OFFSET], o[st.LENGTH] = 1, offset, length
    o[st.WIDTH], o[st.FOLDS], o[st.LAST] = width, folds, last
    return o


def _operand(elements: int, words: int, port: int) -> list[int]:
    """Sets, window and prefetch time of a read buffer of *words* behind a port of *port* words a cycle."""
    o = [0] * st.OPERAND_FIELDS
    half = ceil_div(words, 2)
    o[st.SET] = ceil_div(words, SETS)
    o[st.SETS] = elements // o[st.SET] + 1
    o[st.ACTIVE] = min(ceil_div(half, o[st.SET]), o[st.SETS])
    o[st.STEP] = min(ceil_div(words - half, o[st.SET]), o[st.SETS] - o[st.ACTIVE])
    o[st.WAIT] = ceil_div(words - half, port) + 1
    o[st.END], o[st.READY] = o[st.ACTIVE], -1
    return o

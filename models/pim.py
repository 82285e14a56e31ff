"""Matrix-vector products inside DRAM banks: the layout in the banks, the order of the columns, narrow accumulators.

A unit sits at a bank and multiplies one column (``lanes`` words) of an open row with as many words of a vector that was
broadcast to its input buffer. Weights lie in the order in which a program reads them: a unit owns whole outputs,
``accumulators`` of them make a tile, inputs are divided into chunks that the input buffer holds. The program is, for
every tile and chunk (either one outside), every accumulator of the tile and every column of the chunk in turn.

* Lanes kept apart (HBM-PIM: 16 fp16 multipliers and 16 adders a unit, eight accumulator registers): products and sums
  are rounded to the accumulator's type one by one, and the host adds the lanes in float32.
* Lanes reduced (GDDR6-AiM, AttAcc: an adder tree): exact products are added in a tree of float32, rounded once to the
  accumulator's type, then added to the accumulator, rounded again.

Inputs may be divided over ``shares`` groups of channels; what leaves the memory more than once for an output (shares,
and chunks when inputs are outermost) the host adds in float32, in order.

Sources: Lee et al., *Hardware Architecture and Software Stack for PIM Based on Commercial DRAM Technology* (2021) for
HBM-PIM; Kwon et al., *System Architecture and Software Stack for GDDR6-AiM* (2022).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from effsim.models._arrays import Float32Array, expect_positive, float32
from effsim.models.rounding import round_to


@dataclass(frozen=True, slots=True)
class BankUnits:
    """Units of a memory and how a program uses them.

    Attributes:
        channels: channels that share one matrix.
        units: units of a channel.
        lanes: multipliers of a unit.
        accumulators: sums that a unit holds at a time.
        input_words: words that the input buffer holds.
        reduced: lanes are added in the unit; otherwise by the host.
        padded: a program always runs over all accumulators and the whole input buffer.
        dtype: type of weights and vectors.
        accumulate_dtype: type of the sums.
        shares: groups of channels that divide the inputs among them.
        inputs_outer: a chunk of inputs serves all tiles before the next; partial sums leave after every chunk.
    """

    channels: int
    units: int
    lanes: int = 16
    accumulators: int = 8
    input_words: int = 128
    reduced: bool = False
    padded: bool = True
    dtype: str = "fp16"
    accumulate_dtype: str = "fp16"
    shares: int = 1
    inputs_outer: bool = False

    def __post_init__(self) -> None:
        expect_positive(
            channels=self.channels, units=self.units, lanes=self.lanes, accumulators=self.accumulators,
            input_words=self.input_words, shares=self.shares,
        )  # fmt: skip
        if self.channels % self.shares:
            raise ValueError(f"shares: {self.shares} groups do not divide {self.channels} channels")
        if self.reduced and self.lanes & (self.lanes - 1):
            raise ValueError(f"lanes: an adder tree needs a power of two, got {self.lanes}")


@dataclass(frozen=True, slots=True)
class Program:
    """Sizes of the loops: ``tiles`` of ``sums`` outputs a unit, ``chunks`` of ``columns`` columns of inputs."""

    tiles: int
    sums: int
    chunks: int
    columns: int

    @property
    def multiplications(self) -> int:
        """Columns that every unit reads and multiplies for one vector."""
        return self.tiles * self.sums * self.chunks * self.columns


@dataclass(frozen=True, slots=True)
class BankProduct:
    """A product and the program that made it."""

    output: Float32Array
    program: Program


def program_of(n: int, k: int, memory: BankUnits) -> Program:
    """Loops of a product of *n* outputs and *k* inputs.

    >>> program_of(4096, 4096, BankUnits(channels=64, units=8)).multiplications  # 32 chunks of 8 columns, 8 sums
    2048
    """
    own = -(-n // (memory.channels // memory.shares * memory.units))
    sums = memory.accumulators if memory.padded else min(memory.accumulators, own)
    inputs = -(-k // memory.shares)
    chunks = -(-inputs // memory.input_words)
    words = memory.input_words if memory.padded else -(-inputs // chunks)
    return Program(-(-own // sums), sums, chunks, -(-words // memory.lanes))


def lay_out(weights: Float32Array, memory: BankUnits) -> Float32Array:
    """Weights (n, k) as they lie in the banks: (shares, unit, tile, chunk, sum, column, lane), zeros in the padding.

    Output ``n`` belongs to tile and sum before unit, so that neighbouring units hold neighbouring outputs.
    """
    n, k = weights.shape
    p = program_of(n, k, memory)
    across = memory.channels // memory.shares * memory.units
    inputs = -(-k // memory.shares)
    words = memory.input_words if memory.padded else -(-inputs // p.chunks)
    image = np.zeros((memory.shares, across, p.tiles, p.chunks, p.sums, p.columns * memory.lanes), np.float32)
    rows = np.zeros((p.tiles * p.sums * across, k), np.float32)
    rows[:n] = weights
    units = rows.reshape(p.tiles, p.sums, across, k)
    for share in range(memory.shares):
        for chunk in range(p.chunks):
            first = share * inputs + chunk * words
            last = min(first + words, min(k, (share + 1) * inputs))
            if first < last:
                image[share, :, :, chunk, :, : last - first] = units[..., first:last].transpose(2, 0, 1, 3)
    return image.reshape(*image.shape[:-1], p.columns, memory.lanes)


def _vector(x: Float32Array, p: Program, memory: BankUnits) -> Float32Array:
    """The vector as it is written to the input buffers: (shares, chunk, column, lane)."""
    inputs = -(-x.size // memory.shares)
    words = memory.input_words if memory.padded else -(-inputs // p.chunks)
    out = np.zeros((memory.shares, p.chunks, p.columns * memory.lanes), np.float32)
    for share in range(memory.shares):
        for chunk in range(p.chunks):
            first = share * inputs + chunk * words
            last = min(first + words, min(x.size, (share + 1) * inputs))
            if first < last:
                out[share, chunk, : last - first] = x[first:last]
    return out.reshape(memory.shares, p.chunks, p.columns, memory.lanes)


def _tree(lanes: Float32Array) -> Float32Array:
    """Add neighbouring lanes level by level, in float32."""
    while lanes.shape[-1] > 1:
        lanes = lanes[..., 0::2] + lanes[..., 1::2]
    return lanes[..., 0]


def _multiply_column(sums: Float32Array, weights: Float32Array, x: Float32Array, memory: BankUnits) -> Float32Array:
    """One column command in all units: ``sums`` (…, lanes or 1) after it."""
    # Two narrow numbers have an exact product in float32, and its rounding of their sum is harmless: 24 >= 2 * 11 + 2.
    products = weights * x
    if memory.reduced:
        added = round_to(_tree(products)[..., None], memory.accumulate_dtype)
    else:
        added = round_to(products, memory.accumulate_dtype)
    return round_to(sums + added, memory.accumulate_dtype)


def bank_gemv(weights: npt.ArrayLike, x: npt.ArrayLike, memory: BankUnits) -> BankProduct:
    """Return ``weights @ x`` as the units of a memory compute it.

    Args:
        weights: (n, k), rounded to the memory's type first.
        x: (k,), rounded likewise.
        memory: units and habits.

    Returns:
        float32 (n,) and the program.

    Raises:
        ValueError: for shapes that do not match or an empty matrix.

    >>> memory = BankUnits(channels=1, units=2, lanes=2, accumulators=1, input_words=2, padded=False)
    >>> product = bank_gemv([[1, 2, 3], [4, 5, 6], [7, 8, 9]], [1, 1, 1], memory)
    >>> product.output.tolist(), product.program
    ([6.0, 15.0, 24.0], Program(tiles=2, sums=1, chunks=2, columns=1))
    """
    matrix, vector = float32("weights", weights, 2), float32("x", x, 1)
    n, k = matrix.shape
    expect_positive(outputs=n, inputs=k)
    if vector.size != k:
        raise ValueError(f"x: expected {k} elements as the weights have columns, got {vector.size}")
    image = lay_out(round_to(matrix, memory.dtype), memory)
    p = program_of(n, k, memory)
    written = _vector(round_to(vector, memory.dtype), p, memory)
    width = 1 if memory.reduced else memory.lanes
    host = np.zeros((image.shape[1], p.tiles, p.sums), np.float32)
    for share in range(memory.shares):
        for tile, chunk, leaves in _phases(p, memory.inputs_outer):
            if chunk == 0 or memory.inputs_outer:
                sums = np.zeros((image.shape[1], p.sums, width), np.float32)
            for accumulator in range(p.sums):
                for column in range(p.columns):
                    sums[:, accumulator] = _multiply_column(
                        sums[:, accumulator], image[share, :, tile, chunk, accumulator, column],
                        written[share, chunk, column], memory,
                    )  # fmt: skip
            if leaves:
                for lane in range(width):
                    host[:, tile] += sums[..., lane]
    return BankProduct(host.transpose(1, 2, 0).reshape(-1)[:n].copy(), p)


def _phases(p: Program, inputs_outer: bool) -> list[tuple[int, int, bool]]:
    """(tile, chunk, sums leave afterwards) in program order."""
    if inputs_outer:
        return [(tile, chunk, True) for chunk in range(p.chunks) for tile in range(p.tiles)]
    return [(tile, chunk, chunk == p.chunks - 1) for tile in range(p.tiles) for chunk in range(p.chunks)]

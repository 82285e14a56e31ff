"""What a user writes to describe a systolic-array accelerator: the ``kind: systolic`` file.

A grid of multiply-accumulate cells fed from scratchpads, a vector unit beside it, DRAM behind. Rates of the grid are
per cell and clock, those of the vector unit per core and clock; a multiply-add counts as 2 FLOP. Every number may be a
bare quantity or ``{value, kind, source}``.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .fields import (
    Bandwidth,
    Bytes,
    BytesPerCycle,
    Count,
    FlopPerCycle,
    Frequency,
    NonNegativeBytes,
    NonNegativeCycles,
    NonNegativeTime,
    OpPerCycle,
    Power,
    Ratio,
    SpecModel,
)
from .hardware import CollectiveKernels, DTypeName, Energy, Launch, Price, Provenance
from .links import DeviceLink
from .memory import STREAM_FRACTION, MemoryPart, described


class SystolicClock(SpecModel):
    """Clock of grid, scratchpads and vector unit."""

    boost: Frequency = Field(description="highest clock; lower bounds refer to it")
    sustained: Frequency | None = Field(None, description="clock held under long matrix work; boost if absent")


class Array(SpecModel):
    """The grid of cells, and how many there are."""

    rows: Count = Field(description="cells along which products of one result are summed (weight, input stationary)")
    columns: Count = Field(description="cells along which different results lie (weight, input stationary)")
    count: Count = Field(1, validate_default=True, description="grids that work side by side in one core")
    cores: Count = Field(1, validate_default=True, description="cores; each has its grids and its vector unit")


class Scratchpads(SpecModel):
    """On-chip memory of the whole device: three of their own, or one that all operands share."""

    input: Bytes | None = Field(None, description="activations; none where 'shared' is given")
    weight: Bytes | None = Field(None, description="weights; none where 'shared' is given")
    output: Bytes | None = Field(None, description="results; none where 'shared' is given")
    shared: Bytes | None = Field(None, description="one memory for all operands, instead of the three")
    accumulators: Bytes | None = Field(None, description="where partial sums stay; the output scratchpad if absent")
    double_buffered: bool = Field(True, description="half of each memory is filled while the other half is used")
    keeps_activations: bool = Field(
        False, description="what one operator leaves on chip is still there for the next, as far as it fits"
    )

    @model_validator(mode="after")
    def _one_form(self) -> Scratchpads:
        own = [self.input, self.weight, self.output]
        if self.shared is None and any(size is None for size in own):
            raise ValueError("'sram' needs 'shared', or 'input', 'weight' and 'output'")
        if self.shared is not None and any(size is not None for size in own):
            raise ValueError("'sram' has either 'shared' or 'input', 'weight', 'output'")
        return self


class Interface(SpecModel):
    """How operands reach DRAM.

    ``shared``: one bus of ``memory.bandwidth``. ``user``: a port an operand with the widths given here, as in
    SCALE-Sim's ``InterfaceBandwidth = USER``. ``calc``: no limit, as in its ``CALC``. Other operators (softmax, norms,
    …) always use the bus.
    """

    mode: Literal["shared", "user", "calc"] = Field("shared", description="one bus, a port an operand, or no limit")
    bandwidth: BytesPerCycle | None = Field(None, description="width of every port whose own is not given")
    input: BytesPerCycle | None = Field(None, description="port of the activations; 'bandwidth' if absent")
    weight: BytesPerCycle | None = Field(None, description="port of the weights; 'bandwidth' if absent")
    output: BytesPerCycle | None = Field(None, description="port of the results; 'bandwidth' if absent")

    @model_validator(mode="after")
    def _widths(self) -> Interface:
        missing = self.bandwidth is None and None in (self.input, self.weight, self.output)
        if self.mode == "user" and missing:
            raise ValueError("'interface.mode: user' needs 'bandwidth', or 'input', 'weight' and 'output'")
        return self


class Sparsity(SpecModel):
    """N:M structured sparsity: of every ``block`` rows of a weight matrix, ``kept`` are stored and computed."""

    kept: Count = Field(description="rows of a block that are stored and computed")
    block: Count = Field(description="rows of a block")

    @model_validator(mode="after")
    def _no_more_than_all(self) -> Sparsity:
        if self.kept > self.block:
            raise ValueError(f"'kept' is {int(self.kept)} of a block of {int(self.block)}")
        return self


class SystolicMemory(SpecModel):
    """Device memory."""

    kind: Literal[
        "hbm", "hbm2", "hbm2e", "hbm3", "hbm3e", "hbm4", "ddr3", "ddr4", "ddr5", "lpddr4", "lpddr5", "gddr6", "ideal"
    ] = Field(description="technology")
    capacity: Bytes = Field(description="of the whole device")
    bandwidth: Bandwidth = Field(description="datasheet bandwidth: data rate times width of all channels")
    latency: NonNegativeTime = Field(description="from a request to its first data")
    dram: MemoryPart | None = Field(None, description="the DRAM behind it; its model gives what is reached")
    stream_fraction: Ratio | None = Field(None, description=STREAM_FRACTION)
    reserved: NonNegativeBytes = Field(description="taken by runtime and program")

    @model_validator(mode="after")
    def _described(self) -> SystolicMemory:
        described(self.dram, self.stream_fraction)
        return self


class SystolicLink(DeviceLink):
    """A link out of the device. Bandwidth counts one direction, all ports together."""

    kind: Literal["ici", "pcie", "ethernet"] = Field(description="technology; the same word as the key")


class SystolicPower(SpecModel):
    """Electrical limits."""

    limit: Power | None = Field(None, description="thermal design power; unknown stays null")
    idle: Power | None = Field(None, description="power of the idle device; unknown stays null")


class SystolicSpec(SpecModel):
    """A systolic-array accelerator: one device (chip), possibly of several cores."""

    kind: Literal["systolic"] = Field(description="says that this file describes a systolic-array accelerator")
    name: Annotated[str, Field(min_length=1, max_length=120)] = Field(description="shown in reports")
    description: str = Field("", description="free text")
    vendor: str = Field("", description="who makes it")
    generation: str = Field("", description="family")
    released: int | None = Field(None, description="year")
    provenance: Provenance | None = Field(None, description="origin of numbers that state none")
    clock: SystolicClock = Field(description="clock of grid, scratchpads and vector unit")
    array: Array = Field(description="the grid of cells, and how many there are")
    dataflow: Literal["ws", "os", "is"] = Field(description="which operand stays: weights, outputs or inputs")
    weight_double_buffer: bool = Field(
        description="the next stationary operand (results of os) moves behind the current fold instead of after it"
    )
    os_drain: Literal["shift", "none"] = Field(
        "shift", description="how results of an output-stationary fold leave: shifted through the rows, or at no cost"
    )
    psum_home: Literal["accumulator", "dram"] = Field(
        "accumulator", description="where partial sums wait for the next fold along the rows (ws, is)"
    )
    compat: Literal["scalesim-3"] | None = Field(None, description="cycle counts of another tool, with its habits")
    matrix: dict[DTypeName, FlopPerCycle] = Field(description="rate of one cell per clock, by dtype")
    computes_as: dict[DTypeName, DTypeName] = Field(
        default_factory=dict, description="types that the grid has no arithmetic for, and what they are computed in"
    )
    sparsity: Sparsity | None = Field(None, description="structured sparsity of weight matrices; absent: all are dense")
    vector: dict[DTypeName, FlopPerCycle] = Field(description="vector rate of one core per clock, by dtype")
    special: OpPerCycle = Field(description="exponentials, reciprocals, … of one core per clock")
    vector_latency: NonNegativeCycles = Field(description="a dependent step of the vector unit")
    overlap_softmax: bool = Field(description="softmax of one tile runs beside the grid's work on another")
    sram: Scratchpads = Field(description="on-chip memory")
    interface: Interface = Field(default_factory=lambda: Interface(), description="how operands reach device memory")
    memory: SystolicMemory = Field(description="device memory")
    links: dict[Literal["ici", "pcie", "ethernet"], SystolicLink] = Field(
        default_factory=dict, description="links out of the device, by technology"
    )
    launch: Launch = Field(description="cost of starting an operator")
    collective: CollectiveKernels = Field(description="what the communication library adds to the links")
    power: SystolicPower = Field(default_factory=lambda: SystolicPower(), description="electrical limits")
    energy: Energy = Field(default_factory=lambda: Energy(), description="unknown stays null")
    price: Price = Field(default_factory=lambda: Price(), description="unknown stays null")

    @model_validator(mode="after")
    def _consistent(self) -> SystolicSpec:
        if not self.matrix:
            raise ValueError("'matrix' needs at least one rate")
        if "fp32" not in self.vector:
            raise ValueError("'vector' needs an fp32 rate: norms and softmax accumulate in it")
        if self.memory.reserved >= self.memory.capacity:
            raise ValueError("'memory.reserved' leaves nothing of 'memory.capacity'")
        for name, other in self.computes_as.items():
            if other not in self.matrix:
                raise ValueError(f"'computes_as' turns {name} into {other}, which has no rate")
        if self.compat is not None:
            if self.array.count * self.array.cores > 1:
                raise ValueError("'compat: scalesim-3' has one grid; use 'array.count: 1' and 'array.cores: 1'")
            if self.sram.shared is not None:
                raise ValueError("'compat: scalesim-3' has scratchpads 'input', 'weight' and 'output'")
            if self.interface.mode == "shared":
                raise ValueError("'compat: scalesim-3' has 'interface.mode: calc' or 'user', no shared bus")
        return self

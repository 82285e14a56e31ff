"""What a user writes to describe processing in memory: the ``kind: pim`` file.

One schema for multiply-accumulate units behind DRAM banks (HBM-PIM, GDDR6-AiM, AttAcc, Newton, PIM-GPT) and for small
processors inside DRAM chips (UPMEM). Bank organisation and timings are those of a DRAM preset, in clocks. The *host* is
whatever computes what the memory cannot: a GPU, an NPU, an ASIC beside the memory, a CPU.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .dram import Organization, Timing
from .fields import (
    Bandwidth,
    Bytes,
    BytesPerCycle,
    Count,
    Cycles,
    FlopRate,
    Frequency,
    NonNegativeBytes,
    NonNegativeCycles,
    NonNegativeTime,
    Ratio,
    SpecModel,
    Time,
)
from .hardware import CollectiveKernels, DTypeName, Energy, Launch, PowerEnvelope, Price, Provenance
from .links import DeviceLink
from .memory import STREAM_FRACTION, MemoryPart, described

Operand = Literal["weight", "kv_cache"]
LinkName = Literal["pcie", "cxl", "nvlink", "xgmi", "ethernet"]


class PimDram(SpecModel):
    """Banks under the units: the organisation and timings of a DRAM preset."""

    clock: Time = Field(description="command clock period; all cycles of this file count in it")
    organization: Organization = Field(description="how many of everything, as in a DRAM preset")
    timing: Timing = Field(description="delays between commands, in clocks, as in a DRAM preset")
    refresh: bool = Field(True, description="false: no refresh, for tests against bare command programs")


class PimMemory(SpecModel):
    """The same memory as the host sees it."""

    capacity: Bytes = Field(description="of the whole device")
    reserved: NonNegativeBytes = Field(description="taken by microcode, tables and the runtime")
    bandwidth: Bandwidth = Field(description="what the host can move: pins of all channels, or a link before them")
    dram: MemoryPart | None = Field(None, description="the DRAM as the host's controller sees it")
    link_payload: Ratio | None = Field(None, description="payload share of the link, where one stands before the pins")

    @model_validator(mode="after")
    def _described(self) -> PimMemory:
        if self.dram is None and self.link_payload is None:
            raise ValueError("needs 'dram' (the host sits at the pins) or 'link_payload' (a link stands before them)")
        return self


class MacUnit(SpecModel):
    """Multipliers with adders at the banks, driven column by column."""

    kind: Literal["mac"] = Field(description="multiply-add units at the banks")
    place: Literal["bank", "bank_group", "buffer_die"] = Field(description="where the units sit (for reports)")
    count: Count = Field(description="units of one (pseudo) channel")
    lanes: dict[DTypeName, Count] = Field(description="multiply-adds of one unit in one interval, by dtype")
    substitutes: dict[DTypeName, DTypeName] = Field(
        default_factory=dict, description="types stored and computed as another of the same size"
    )
    interval: Cycles = Field(description="clocks between two multiplications of a unit")
    rcd: Cycles = Field(description="clocks from the activation to the first multiplication")
    latency: NonNegativeCycles = Field(description="clocks from the last multiplication to its sum being readable")
    accumulators: Count = Field(description="sums that a unit holds at a time")
    input: Bytes = Field(description="vector data that the units of a channel hold, broadcast to all of them")
    input_buffers: Annotated[int, Field(ge=1, le=2)] = Field(
        1, description="2: the next data are written, and sums read, while the units work"
    )
    operands: Literal["bus", "rows"] = Field(
        description="bus: buffer and sums have commands of their own; rows: registers are rows of the unit's last bank"
    )
    reduced: bool = Field(description="lanes are added in the unit; otherwise the host adds them")
    padded: bool = Field(description="a program always runs over all accumulators and the whole input buffer")
    result: Bytes = Field(description="one sum, as it leaves the unit")
    bank_sets: Annotated[int, Field(ge=1, le=2)] = Field(1, description="banks of a unit that take turns")
    hidden_rows: bool = Field(False, description="a unit reads several banks, so that activations hide behind columns")
    value_layout: Literal["rows", "transposed"] = Field(
        description="how values of a cache lie: transposed where units add over lanes only"
    )


class PipelineUnit(SpecModel):
    """Small processors with a scratchpad, each beside its own DRAM bank."""

    kind: Literal["pipeline"] = Field(description="small processors beside the banks")
    count: Count = Field(description="processors of the device")
    clock: Frequency = Field(description="clock of the processors")
    revolver: Count = Field(description="clocks between two instructions of one thread")
    threads: Count = Field(description="threads of a processor that the program starts")
    instructions: dict[DTypeName, Cycles] = Field(
        description="instructions of one multiply-add with its loads and loop, by dtype"
    )
    dma: BytesPerCycle = Field(description="bytes a clock between bank and scratchpad")
    dma_setup: NonNegativeCycles = Field(description="clocks of one transfer beyond its bytes")
    block: Bytes = Field(description="bytes of one transfer")
    broadcast: Bandwidth = Field(description="host to all processors together")
    gather: Bandwidth = Field(description="all processors to the host together")
    start: NonNegativeTime = Field(description="start of a program on all processors and the wait for its end")


class Commands(SpecModel):
    """Habits of the command program."""

    activations: Count = Field(1, description="commands that open a row in every bank of a channel")
    activation_gap: NonNegativeCycles = Field(0, description="clocks between them (power limit, as tFAW)")
    input_write: Cycles = Field(description="clocks of one write of input data")
    result_read: Cycles = Field(description="clocks of one read of sums")
    setup: NonNegativeCycles = Field(description="modes entered and left, microcode, barriers: once a kernel")


class HostMemory(SpecModel):
    """Memory of the host's own, where it has any beside the one that computes."""

    capacity: Bytes = Field(description="of the host's own memory")
    reserved: NonNegativeBytes = Field(description="taken by the runtime and libraries")
    bandwidth: Bandwidth = Field(description="datasheet bandwidth of the host's own memory")
    dram: MemoryPart | None = Field(None, description="the DRAM behind it; its model gives what is reached")
    stream_fraction: Ratio | None = Field(None, description=STREAM_FRACTION)

    @model_validator(mode="after")
    def _described(self) -> HostMemory:
        described(self.dram, self.stream_fraction)
        return self


class PimHost(SpecModel):
    """What computes the rest: totals of the whole host part that belongs to one device."""

    name: Annotated[str, Field(min_length=1, max_length=120)] = Field(description="shown in reports")
    matrix: dict[DTypeName, FlopRate] = Field(description="matrix rate by dtype; a multiply-add counts as 2 FLOP")
    widen: dict[DTypeName, DTypeName] = Field(
        default_factory=dict, description="types without arithmetic that are converted to another on the way"
    )
    efficiency: Ratio = Field(description="share of the matrix rate that products sustain")
    vector: FlopRate = Field(description="fp32 vector rate; a multiply-add counts as 2 FLOP")
    special: FlopRate = Field(description="exponentials, roots, reciprocals a second")
    buffer: Bytes = Field(description="on-chip memory that keeps activations between operators")
    buffer_bandwidth: Bandwidth = Field(description="bytes a second between the buffer and the arithmetic units")
    latency: NonNegativeTime = Field(description="from the start of a kernel to its first data")
    memory: HostMemory | None = Field(None, description="absent: everything lies in the memory that computes")


class NearUnit(SpecModel):
    """Vector unit on the buffer die, for softmax between two products of attention."""

    vector: FlopRate = Field(
        description="fp32 vector rate of all buffer dies together; a multiply-add counts as 2 FLOP"
    )
    special: FlopRate = Field(description="exponentials, roots, reciprocals a second, all buffer dies together")


class PimLink(DeviceLink):
    """A link between devices. Bandwidth counts one direction."""

    kind: LinkName = Field(description="technology; the same word as the key")


class PimKernels(SpecModel):
    """Habits of the communication library."""

    collective: CollectiveKernels = Field(description="what the communication library adds to the links")


class PimSpec(SpecModel):
    """A memory that computes, with its host part."""

    kind: Literal["pim"] = Field(description="says that this file describes a memory that computes")
    name: Annotated[str, Field(min_length=1, max_length=120)] = Field(description="shown in reports")
    description: str = Field("", description="free text")
    vendor: str = Field("", description="who makes it")
    generation: str = Field("", description="family")
    released: int | None = Field(None, description="year")
    provenance: Provenance | None = Field(None, description="origin of numbers that state none")
    dram: PimDram | None = Field(None, description="needed by 'mac' units")
    memory: PimMemory = Field(description="the same memory as the host sees it")
    unit: Annotated[MacUnit | PipelineUnit, Field(discriminator="kind")] = Field(
        description="what computes in the memory"
    )
    commands: Commands | None = Field(None, description="needed by 'mac' units")
    computes: Annotated[list[Operand], Field(min_length=1)] = Field(
        description="second operands of products that lie in this memory and are multiplied there"
    )
    overlap: bool = Field(
        description="units and host work at the same time (softmax of one head under the products of the next); "
        "false: normal traffic and commands to the units exclude each other"
    )
    host: PimHost = Field(description="what computes the rest")
    near: NearUnit | None = Field(
        None, description="vector unit on the buffer die; without one the host does the softmax"
    )
    links: dict[LinkName, PimLink] = Field(default_factory=dict, description="links between devices, by technology")
    launch: Launch = Field(description="cost of starting a kernel")
    power: PowerEnvelope = Field(description="electrical limits of the device with its host part")
    energy: Energy = Field(default_factory=lambda: Energy(), description="unknown stays null")
    price: Price = Field(default_factory=lambda: Price(), description="unknown stays null")
    kernels: PimKernels = Field(description="habits of the communication library")

    @model_validator(mode="after")
    def _consistent(self) -> PimSpec:
        if self.memory.reserved >= self.memory.capacity:
            raise ValueError("'memory.reserved' leaves nothing of 'memory.capacity'")
        for narrow, wide in self.host.widen.items():
            if wide not in self.host.matrix:
                raise ValueError(f"'host.widen' turns {narrow} into {wide}, which has no rate")
        if isinstance(self.unit, MacUnit):
            self._check_mac(self.unit)
        return self

    def _check_mac(self, unit: MacUnit) -> None:
        if self.dram is None or self.commands is None:
            raise ValueError("'mac' units need 'dram' and 'commands'")
        if unit.input < self.dram.organization.access:
            raise ValueError("'unit.input' holds less than one access of 'dram.organization'")
        for name, other in unit.substitutes.items():
            if other not in unit.lanes:
                raise ValueError(f"'unit.substitutes' turns {name} into {other}, which has no 'lanes'")
        if unit.operands == "rows" and unit.input_buffers > 1:
            raise ValueError("registers that are rows of a bank cannot be written while the bank is read")

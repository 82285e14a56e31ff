"""What a user writes to describe an FPGA board: the ``kind: fpga`` file.

The fabric is a budget of LUTs, DSPs and memory blocks; what is built from it is a choice: an *overlay* (one matrix
engine that runs operator after operator) or *dataflow* (every operator has hardware of its own). Every number may be a
bare quantity or ``{value, kind, source}``.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .fields import (
    Bandwidth,
    Bytes,
    Count,
    Frequency,
    NonNegativeBytes,
    NonNegativeCount,
    NonNegativeCycles,
    NonNegativeTime,
    OpPerCycle,
    Ratio,
    SpecModel,
)
from .hardware import CollectiveKernels, Energy, PowerEnvelope, Price, Provenance
from .links import DeviceLink


class Fabric(SpecModel):
    """Programmable resources of the device."""

    lut: Count = Field(description="six-input look-up tables")
    ff: Count = Field(description="flip-flops")
    dsp: Count = Field(description="DSP slices")
    bram18: Count = Field(description="18 Kbit block RAMs (a 36 Kbit block is two)")
    uram: NonNegativeCount = Field(description="288 Kbit UltraRAMs")
    dsp_kind: Literal["dsp48", "dsp58"] = Field(description="DSP48E2 (UltraScale+) or DSP58 (Versal)")
    fp16_dsps: Count = Field(description="DSP slices of one fp16 or bf16 multiply-add")
    fp32_dsps: Count = Field(description="DSP slices of one fp32 multiply-add")


class Usable(SpecModel):
    """Share of each resource that a design can use and still close timing."""

    lut: Ratio = Field(description="look-up tables")
    ff: Ratio = Field(description="flip-flops")
    dsp: Ratio = Field(description="DSP slices")
    bram18: Ratio = Field(description="block RAMs")
    uram: Ratio = Field(description="UltraRAMs")


class Shell(SpecModel):
    """What the static region and the memory controllers take before a design starts."""

    lut: NonNegativeCount = Field(description="look-up tables")
    ff: NonNegativeCount = Field(description="flip-flops")
    dsp: NonNegativeCount = Field(description="DSP slices")
    bram18: NonNegativeCount = Field(description="block RAMs")
    uram: NonNegativeCount = Field(description="UltraRAMs")


class FpgaMemory(SpecModel):
    """Memory that weights and caches lie in: HBM where there is any, else DDR."""

    kind: Literal["hbm2", "hbm2e", "ddr4", "lpddr4", "ideal"] = Field(description="technology")
    capacity: Bytes = Field(description="installed")
    bandwidth: Bandwidth = Field(description="datasheet bandwidth of all channels")
    channels: Count = Field(description="independent channels the fabric sees")
    latency: NonNegativeTime = Field(description="from the address in the fabric to the data in the fabric")
    stream_fraction: Ratio = Field(description="share of the bandwidth that long bursts on all channels reach")
    reserved: NonNegativeBytes = Field(description="kept for instructions, tables and buffers")


class FpgaLink(DeviceLink):
    """A link out of the board. Bandwidth counts one direction."""

    kind: Literal["ethernet", "aurora"] = Field(description="technology; the same word as the key")


class HostLink(SpecModel):
    """The way to the host's memory."""

    bandwidth: Bandwidth = Field(description="one direction, all lanes")
    latency: NonNegativeTime = Field(description="of one transfer")


class FpgaLaunch(SpecModel):
    """What it costs to start an operator."""

    instruction: NonNegativeTime = Field(description="fetch and decode of the overlay's next instruction")
    enqueue: NonNegativeTime = Field(
        description="host call that starts one operator by itself (driver, PCIe, interrupt)"
    )


class Overlay(SpecModel):
    """The temporal design: equal cores, each an array of ``PE × SIMD`` multiply-adds with vector lanes beside it."""

    cores: Count = Field(description="equal cores that share the memory, usually one a super logic region")
    simd: Count = Field(description="multiply-adds along the inner dimension of one output")
    dsp_share: Ratio = Field(description="share of the usable DSPs that the matrix arrays get")
    buffer_share: Ratio = Field(description="share of the usable block RAM and UltraRAM that buffers operands")
    vector: OpPerCycle = Field(description="vector operations of all cores together in a clock")
    special: OpPerCycle = Field(description="exponentials, reciprocals and roots of all cores together in a clock")
    depth: NonNegativeCycles = Field(description="pipeline depth from the first operand to the first result of a tile")


class Dataflow(SpecModel):
    """The spatial design: FINN-style streaming stages."""

    weight_bits: Count | None = Field(None, description="bits of a weight; those of the graph's type if absent")
    activation_bits: Count | None = Field(
        None, description="bits of an activation; those of the graph's type if absent"
    )
    multipliers: Literal["dsp", "lut"] = Field("dsp", description="what multiplies")
    blocks: Literal["looped", "unrolled"] = Field(
        "looped", description="repeated blocks share one piece of hardware, or each gets its own"
    )
    vector_block: Count = Field(
        description="vectors that wait in a buffer for one reading of weights streamed from memory"
    )
    depth: NonNegativeCycles = Field(description="pipeline depth of one stage beyond its folds")
    fifo: Count = Field(description="entries of the FIFO behind every stage")
    lane_lut: Count = Field(description="look-up tables of one lane of an element-wise stage")
    special_lane_lut: Count = Field(description="look-up tables of one lane with an exponential, reciprocal or root")
    lut_low: Ratio = Field(description="low end of a LUT estimate as a share of the closed form")
    lut_high: Annotated[float, Field(ge=1.0, le=10.0, description="high end as a multiple of the closed form")]


class FpgaSpec(SpecModel):
    """An FPGA board and the design that runs on it."""

    kind: Literal["fpga"] = Field(description="says that this file describes an FPGA board")
    name: Annotated[str, Field(min_length=1, max_length=120, description="shown in reports")]
    description: str = Field("", description="free text")
    vendor: str = Field("", description="who makes it")
    generation: str = Field("", description="family")
    released: int | None = Field(None, description="year")
    provenance: Provenance | None = Field(None, description="origin of numbers that state none")
    mode: Literal["overlay", "dataflow"] = Field("overlay", description="temporal or spatial design")
    fabric: Fabric = Field(description="resources of the device")
    usable: Usable = Field(description="share of them a design can use")
    shell: Shell = Field(description="what the platform takes")
    clock: Frequency = Field(description="clock that the design closes timing at")
    memory: FpgaMemory = Field(description="memory of weights and caches")
    links: dict[Literal["ethernet", "aurora"], FpgaLink] = Field(
        default_factory=dict, description="links to other boards"
    )
    host: HostLink | None = Field(None, description="PCIe, where there is any")
    launch: FpgaLaunch = Field(description="cost of starting an operator")
    overlay: Overlay = Field(description="the temporal design")
    dataflow: Dataflow = Field(description="the spatial design")
    collective: CollectiveKernels = Field(description="what board-to-board collectives add to the links")
    power: PowerEnvelope = Field(description="electrical limits")
    energy: Energy = Field(default_factory=lambda: Energy(), description="unknown stays null")
    price: Price = Field(default_factory=lambda: Price(), description="unknown stays null")

    @model_validator(mode="after")
    def _consistent(self) -> FpgaSpec:
        for name in ("lut", "ff", "dsp", "bram18", "uram"):
            whole, share = getattr(self.fabric, name), getattr(self.usable, name)
            if getattr(self.shell, name) > whole * share and whole:
                raise ValueError(f"'shell.{name}' leaves nothing of the usable {name} of the fabric")
        if self.memory.reserved >= self.memory.capacity:
            raise ValueError("'memory.reserved' leaves nothing of 'memory.capacity'")
        return self

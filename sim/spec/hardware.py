"""What a user writes to describe a GPU: the ``kind: gpu`` file.

A file may start from another with ``extends:``; a GPU takes its *generation* that way (tile shapes, launch costs,
instruction style: shared by all members), and adds sizes, clocks and bandwidths. Every number may be a bare quantity
or ``{value, kind, source}``.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .fields import (
    Bandwidth,
    Bytes,
    BytesPerCycle,
    Count,
    EnergyPerByte,
    EnergyPerFlop,
    Factor,
    FlopPerCycle,
    Frequency,
    Money,
    MoneyRate,
    NonNegativeBytes,
    NonNegativeRatio,
    NonNegativeTime,
    OpPerCycle,
    Power,
    Quantity,
    Ratio,
    SpecModel,
)
from .gpu_kernels import AttentionKernels, ExpertKernels, GemmKernels, PointwiseKernels, SequenceKernels
from .links import DeviceLink
from .memory import STREAM_FRACTION, MemoryPart, described
from .training_kernels import TrainingKernels

DTypeName = Literal[
    "fp64", "fp32", "tf32", "fp16", "bf16", "fp8", "fp6", "fp4", "int32", "int16", "int8", "int4", "int2", "int1"
]
"""Spelling of the element types; :mod:`effsim.graph.dtypes` gives them their sizes (a test keeps the two equal)."""


class Provenance(SpecModel):
    """Where the bare numbers of a file come from, when they do not say so themselves."""

    kind: Literal["datasheet", "measured", "fitted", "assumed", "unverified"] = Field(
        description="origin of the numbers that carry none themselves"
    )
    source: str = Field(description="document, measurement or reasoning they come from")


class Clock(SpecModel):
    """Clock frequencies of the compute units."""

    base: Frequency | None = Field(None, description="guaranteed clock under any load")
    boost: Frequency = Field(description="datasheet boost clock; datasheet peak rates refer to it")
    sustained: Frequency | None = Field(None, description="clock held under long matrix kernels; boost if absent")


class L1(SpecModel):
    """First-level cache / shared memory of one SM (compute unit)."""

    capacity: Bytes = Field(description="cache and shared memory together")
    bandwidth: BytesPerCycle = Field(description="bytes per clock from shared memory or L1 to the registers of one SM")
    latency: NonNegativeTime | None = Field(None, description="load-to-use latency of a hit; 0 if absent")


class StreamingMultiprocessor(SpecModel):
    """One SM (NVIDIA) or compute unit (AMD), and how many there are."""

    count: Count = Field(description="enabled SMs of the product, not of the full die")
    registers: Bytes = Field(description="register file of one SM")
    shared_memory: Bytes = Field(description="shared memory usable by the blocks of one SM")
    max_threads: Count = Field(description="resident threads of one SM")
    max_blocks: Count = Field(description="resident thread blocks of one SM")
    l1: L1 = Field(description="first-level cache")


class L2(SpecModel):
    """Last-level cache shared by all SMs."""

    capacity: Bytes = Field(description="size of the whole cache, all partitions")
    bandwidth: Bandwidth = Field(description="read bandwidth of all SMs together")
    latency: NonNegativeTime = Field(description="load-to-use latency of a hit")
    unified: bool = Field(True, description="false when an SM sees only its partition at full speed (A100, H100)")


class Memory(SpecModel):
    """Device memory."""

    kind: Literal["hbm2", "hbm2e", "hbm3", "hbm3e", "hbm4", "gddr5", "gddr6", "gddr6x", "gddr7", "lpddr5", "ideal"] = (
        Field(description="memory technology; 'ideal' for test devices")
    )
    capacity: Bytes = Field(description="size as the driver reports it (80 GiB, not 80 GB, where that is meant)")
    bandwidth: Bandwidth = Field(description="datasheet bandwidth: data rate times width")
    channels: Count | None = Field(None, description="independent channels; for information, no time depends on it")
    dram: MemoryPart | None = Field(None, description="the DRAM behind it; its model gives what is reached")
    latency: NonNegativeTime = Field(description="load-to-use latency of one SM, idle memory")
    stream_fraction: Ratio | None = Field(None, description=STREAM_FRACTION)
    reserved: NonNegativeBytes = Field(description="taken by driver, context and libraries before a model is loaded")

    @model_validator(mode="after")
    def _described(self) -> Memory:
        described(self.dram, self.stream_fraction)
        return self


class Link(DeviceLink):
    """A link out of the device. Bandwidth counts one direction."""

    kind: Literal["nvlink", "xgmi", "pcie", "c2c"] = Field(description="technology; the same word as the key")


class Launch(SpecModel):
    """What it costs to start a kernel, by mode (the physics of a kernel starts after this)."""

    graph: NonNegativeTime = Field(description="cadence of empty kernels replayed from a captured graph")
    stream: NonNegativeTime = Field(description="cadence of empty kernels launched back to back into a stream")
    dispatch: NonNegativeTime = Field(
        description="host time of one eager framework operator; hidden while the device is behind"
    )
    eager: NonNegativeTime = Field(
        description="cost of one isolated, synchronised eager operator beyond its kernel: a product of a library"
    )
    eager_native: NonNegativeTime | None = Field(
        None, description="the same of the framework's own kernels (activation, softmax, norm); as eager if absent"
    )
    eager_compiled: NonNegativeTime | None = Field(
        None, description="the same of a function that the framework compiled: guards and wrapper; as eager if absent"
    )
    host_speed: Factor = Field(
        default_factory=lambda: Quantity(1.0, "assumed", "a host as fast as that of a DGX A100"),
        description="speed of one thread of the usual host of these devices; 1: that of a DGX A100 (EPYC 7742)",
    )


class PowerEnvelope(SpecModel):
    """Electrical limits."""

    limit: Power = Field(description="board power limit (TDP)")
    idle: Power | None = Field(
        None, description="power of the board at its clocks while nothing runs; energy is unknown if absent"
    )
    active: Power | None = Field(
        None,
        description="what processors that hold work draw beyond that, all of them together: clocks, schedulers, "
        "registers; contained in the energies if absent",
    )
    held: Power | None = Field(
        None,
        description="power to which clocks come down in matrix products; absent: 'limit', and only in whole runs",
    )
    brief: bool = Field(
        False, description="kernels are timed in runs too short for 'limit', as tables of kernels are; 'held' counts"
    )

    @model_validator(mode="after")
    def _leaves_something(self) -> PowerEnvelope:
        standing = float(self.idle or 0.0) + float(self.active or 0.0)
        if standing >= min(float(self.limit), float(self.held or self.limit)):
            raise ValueError("'power.idle' and 'power.active' leave nothing of 'power.limit' (or 'power.held')")
        return self


class Energy(SpecModel):
    """Energy of operations and of moved bytes; unknown stays null, then results have no energy."""

    matrix: dict[DTypeName, EnergyPerFlop] | None = Field(
        None, description="energy of one matrix-unit operation, by dtype"
    )
    vector: EnergyPerFlop | None = Field(None, description="energy of one vector operation")
    memory: EnergyPerByte | None = Field(None, description="energy to move one byte between memory and L2")
    l2: EnergyPerByte | None = Field(None, description="energy to move one byte between L2 and an SM")


class Price(SpecModel):
    """What it costs; unknown stays null."""

    purchase: Money | None = Field(None, description="price to buy one")
    hourly: MoneyRate | None = Field(None, description="price to rent one for an hour; results have no cost without it")


class CollectiveProtocols(SpecModel):
    """A GPU communication library with several protocols, and the engines' own all-reduce kernels in front of it."""

    channels: Count = Field(description="thread blocks that a large collective uses, a buffer each")
    simple_setup: NonNegativeTime = Field(description="fixed cost of the full-bandwidth protocol before its first step")
    simple_step: NonNegativeTime = Field(description="software cost of one of its steps beyond the link latency")
    drain: Bandwidth = Field(description="rate at which the channels copy what arrived to its place")
    ll_assumed: Bandwidth = Field(
        description="what the library itself takes its low-latency protocol to reach inside a node when it chooses"
    )
    in_network_efficiency: NonNegativeRatio = Field(
        0.0, description="share of the payload rate that in-network reduction reaches; 0 where there is none"
    )
    peer_setup: NonNegativeTime | None = Field(
        None, description="start of a point-to-point transfer in the full-bandwidth protocol; between both if absent"
    )
    peer_channels: Count | None = Field(
        None, description="thread blocks among which a point-to-point transfer is divided; channels if absent"
    )
    ll128: bool = Field(True, description="the middle protocol is safe on these links (NVLink, not PCIe)")
    direct_setup: NonNegativeTime = Field(description="start and barriers of one shot of an engine's own all-reduce")
    direct_efficiency: Ratio = Field(description="share of the link that reads of peers' memory reach")
    direct_limit: NonNegativeBytes = Field(description="message from which an engine leaves its own all-reduce")
    direct_devices: Count = Field(8, description="most devices for which an engine uses its own all-reduce")


class CollectiveKernels(SpecModel):
    """What the communication library adds to the links."""

    setup: NonNegativeTime = Field(description="fixed cost of a collective kernel before its first step")
    step: NonNegativeTime = Field(description="software cost of one step (flag, fence) beyond the link latency")
    efficiency: Ratio = Field(description="payload share of the link bandwidth (packet headers, flags)")
    one_shot_limit: NonNegativeBytes = Field(
        description="largest message for which every device reads every other's buffer"
    )


class GpuCollectiveKernels(CollectiveKernels):
    """What a GPU communication library adds to the links."""

    protocols: CollectiveProtocols | None = Field(
        None, description="its protocols; setup and step are then those of the low-latency one"
    )


class Kernels(SpecModel):
    """The kernel library's habits on this generation."""

    setup: NonNegativeTime = Field(
        description="start of a matrix-unit kernel before its first load: instruction fetch, descriptors, barriers"
    )
    gemm: GemmKernels = Field(description="matrix products")
    attention: AttentionKernels = Field(description="fused attention")
    pointwise: PointwiseKernels = Field(description="element-wise kernels, reductions, copies")
    sequence: SequenceKernels = Field(
        default_factory=lambda: SequenceKernels(), description="scans and causal convolutions"
    )
    experts: ExpertKernels = Field(
        default_factory=lambda: ExpertKernels(), description="grouped products over routed experts"
    )
    training: TrainingKernels | None = Field(None, description="a training framework's attention, where it differs")
    collective: GpuCollectiveKernels = Field(description="communication library")


class GpuSpec(SpecModel):
    """A GPU. Rates are per SM and clock, so that SM count and clock can be varied; a multiply-add counts as 2 FLOP."""

    kind: Literal["gpu"] = Field(description="always 'gpu'")
    name: Annotated[str, Field(min_length=1, max_length=120)] = Field(description="name in reports")
    description: str = Field("", description="free text")
    vendor: str = Field("", description="who makes it; free text")
    generation: str = Field("", description="family it belongs to; free text")
    released: int | None = Field(None, description="year")
    provenance: Provenance | None = Field(None, description="origin of the numbers that carry none themselves")
    clock: Clock = Field(description="clock frequencies")
    sm: StreamingMultiprocessor = Field(description="one SM (compute unit), and how many there are")
    matrix: dict[DTypeName, FlopPerCycle] = Field(description="dense matrix-unit rate of one SM per clock, by dtype")
    vector: dict[DTypeName, FlopPerCycle] = Field(description="vector rate of one SM per clock, by dtype")
    special: OpPerCycle = Field(description="exponentials, reciprocals, … of one SM per clock")
    memory: Memory = Field(description="device memory")
    l2: L2 = Field(description="last-level cache")
    links: dict[Literal["nvlink", "xgmi", "pcie", "c2c"], Link] = Field(
        default_factory=dict,
        description="links out of the device, by technology; the fastest joins devices where no system file is given",
    )
    launch: Launch = Field(description="what it costs to start a kernel")
    power: PowerEnvelope = Field(description="electrical limits")
    energy: Energy = Field(default_factory=lambda: Energy(), description="energy of operations and moved bytes")
    price: Price = Field(default_factory=lambda: Price(), description="what it costs")
    kernels: Kernels = Field(description="habits of the kernel library on this generation")

    @model_validator(mode="after")
    def _consistent(self) -> GpuSpec:
        if not self.matrix and not self.vector:
            raise ValueError("a GPU needs at least one rate in 'matrix' or 'vector'")
        if "fp32" not in self.vector:
            raise ValueError("'vector' needs an fp32 rate: norms and softmax accumulate in it")
        if self.memory.reserved >= self.memory.capacity:
            raise ValueError("'memory.reserved' leaves nothing of 'memory.capacity'")
        return self

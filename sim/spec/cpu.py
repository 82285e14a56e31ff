"""What a user writes to describe a CPU server: the ``kind: cpu`` file.

Rates and caches are per core and clock, memory and last-level cache per socket; ``sockets`` of them make the device.
A multiply-add counts as 2 FLOP. Every number may be a bare quantity or ``{value, kind, source}``.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .fields import (
    Bandwidth,
    Bytes,
    BytesPerCycle,
    Count,
    Cycles,
    FlopPerCycle,
    Frequency,
    NonNegativeBytes,
    NonNegativeCycles,
    NonNegativeTime,
    Ratio,
    SpecModel,
)
from .hardware import CollectiveKernels, DTypeName, Energy, PowerEnvelope, Price, Provenance
from .links import DeviceLink


class CpuClock(SpecModel):
    """Clock frequencies of the cores."""

    base: Frequency | None = Field(None, description="guaranteed clock")
    boost: Frequency = Field(description="highest clock of all cores together; lower bounds refer to it")
    vector: Frequency | None = Field(None, description="clock held under long vector work; boost if absent")
    matrix: Frequency | None = Field(None, description="clock held under long matrix-unit work; vector if absent")


class CoreCache(SpecModel):
    """A cache of one core."""

    capacity: Bytes = Field(description="of one core")
    bandwidth: BytesPerCycle = Field(description="bytes a clock that the core loads from it")


class Core(SpecModel):
    """One core, and how many a socket has."""

    count: Count = Field(description="cores of one socket")
    l1: CoreCache = Field(description="first-level data cache")
    l2: CoreCache = Field(description="second-level cache")
    stream: Bandwidth = Field(description="bytes a second that one core alone reads from memory")
    l3_stream: Bandwidth = Field(description="bytes a second that one core alone reads from the last-level cache")


class L3(SpecModel):
    """Last-level cache of one socket."""

    capacity: Bytes = Field(description="all slices of one socket together")
    slices: Count = Field(1, validate_default=True, description="separate caches, each seen by its own cores only")
    bandwidth: Bandwidth = Field(description="read bandwidth of all cores of one socket together")
    latency: NonNegativeTime = Field(description="load-to-use latency of a hit")
    inclusive: bool = Field(description="holds a copy of what the L2 caches hold, so that they add no capacity")


class FreshPages(SpecModel):
    """Results that the allocator takes from the operating system instead of from its free lists."""

    above: Bytes = Field(description="larger results are mapped anew every time (glibc: 32 MiB)")
    bandwidth: Bandwidth = Field(description="bytes a second at which one core faults and clears new pages")


class CpuMemory(SpecModel):
    """Memory of one socket."""

    kind: Literal["ddr4", "ddr5", "lpddr5x", "hbm2e", "mrdimm", "ideal"] = Field(description="technology")
    capacity: Bytes = Field(description="installed at one socket")
    bandwidth: Bandwidth = Field(description="data rate times width of all channels of one socket")
    channels: Count | None = Field(None, description="memory channels of one socket")
    latency: NonNegativeTime = Field(description="load-to-use latency, local and idle")
    stream_fraction: Ratio = Field(description="share of the bandwidth that all cores together read")
    reserved: NonNegativeBytes = Field(description="taken by the operating system and libraries, at one socket")
    fresh: FreshPages | None = Field(None, description="cost of results in newly mapped pages; none if absent")


class Numa(SpecModel):
    """How sockets reach each other's memory."""

    placement: Literal["local", "interleaved"] = Field(
        description="local: each socket's threads find their data in its own memory; interleaved: pages alternate"
    )
    bandwidth: Bandwidth = Field(description="between two sockets, one direction, all links together")
    latency: NonNegativeTime = Field(description="what a remote access takes longer than a local one")


class CpuLink(DeviceLink):
    """A link out of the server. Bandwidth counts one direction."""

    kind: Literal["ethernet", "infiniband"] = Field(description="technology; the same word as the key")


class CpuLaunch(SpecModel):
    """What it costs to start an operator. The caller's thread computes too, so nothing of it is hidden."""

    graph: NonNegativeTime = Field(description="call of one operator of a compiled graph")
    dispatch: NonNegativeTime = Field(description="path of one operator through an eager framework")
    view: NonNegativeTime | None = Field(None, description="an operator that moves no data (slice, transpose), eager")


class CpuGemm(SpecModel):
    """Habits of the matrix-multiply library."""

    rows: Count = Field(description="rows of the register tile")
    columns: Count = Field(description="columns of the register tile; narrower edges are padded to it")
    efficiency: Ratio = Field(description="share of the peak that the inner loop sustains on data in L1")
    pack: dict[DTypeName, NonNegativeCycles] = Field(
        default_factory=dict, description="cycles of a core to copy one operand element into panels, by dtype"
    )
    pack_far: dict[DTypeName, NonNegativeCycles] = Field(
        default_factory=dict,
        description="cycles more for an element from beyond L2 (the copy into panels reads in strides), by dtype",
    )
    direct: dict[DTypeName, Cycles] = Field(
        default_factory=dict,
        description="cycles of a core for one element of the second operand where few rows make panels not worth it",
    )
    direct_stream: Bandwidth | None = Field(
        None, description="bytes a second that one core reads of such an operand in memory; core.stream if absent"
    )
    direct_l3_stream: Bandwidth | None = Field(
        None, description="the same of one in the last-level cache; core.l3_stream if absent"
    )
    direct_rows: Count = Field(1, validate_default=True, description="rows that one pass without panels serves at once")


class AttentionBlock(SpecModel):
    """Query rows of a piece of work for long enough sequences."""

    length: Count = Field(description="queries from which on it holds")
    rows: Count = Field(description="query rows of one piece of work")


class CpuAttention(SpecModel):
    """Habits of the fused attention kernel."""

    rows: Count = Field(description="query rows of one piece of work")
    blocks: list[AttentionBlock] = Field(
        default_factory=list, description="rows fixed by the length of the sequence; 'rows' or less where none holds"
    )
    keys: Count | None = Field(None, description="keys of one step, computed whole under a causal mask too")
    split_keys: bool = Field(description="generation divides the keys over idle cores (flash decoding)")


class CpuConvolution(SpecModel):
    """Habits of the convolution library."""

    reorder: NonNegativeCycles = Field(
        description="cycles of a core to bring one element of input, filter or result from or into its blocked layout"
    )


class CpuKernels(SpecModel):
    """Habits of the kernel library."""

    fork_join: NonNegativeTime = Field(description="start and end of a parallel region over all threads")
    special: Cycles = Field(description="vector-pipe cycles of a vector of exponentials, reciprocals or roots")
    dequantise: NonNegativeCycles = Field(description="vector-pipe cycles to widen a vector of a narrow type")
    weights_cached: bool = Field(
        False, description="small weights are still in cache (a table measured in a loop), not in memory (a model)"
    )
    elementwise: dict[DTypeName, dict[str, Cycles]] = Field(
        default_factory=dict,
        description="cycles of a core for one result of a row-wise operator in cache, by dtype and kind; else counted",
    )
    passes: dict[str, Count] = Field(
        default_factory=dict, description="passes over the data of a row-wise operator that has no kernel of its own"
    )
    setup: dict[str, NonNegativeTime] = Field(
        default_factory=dict, description="what the library does before an operator starts, by kind"
    )
    convolution: CpuConvolution | None = Field(None, description="convolutions with more than one tap")
    gemm: CpuGemm = Field(description="matrix products")
    attention: CpuAttention = Field(description="fused attention")
    collective: CollectiveKernels = Field(description="what the communication library adds to the links")


class CpuSpec(SpecModel):
    """A server of one or more equal sockets, or a desktop."""

    kind: Literal["cpu"] = Field(description="says that this file describes a CPU server")
    name: Annotated[str, Field(min_length=1, max_length=120, description="shown in reports")]
    description: str = Field("", description="free text")
    vendor: str = Field("", description="who makes it")
    generation: str = Field("", description="family")
    released: int | None = Field(None, description="year")
    provenance: Provenance | None = Field(None, description="origin of numbers that state none")
    sockets: Count = Field(1, validate_default=True, description="equal sockets of one server")
    threads: Count | None = Field(None, description="cores that work, one thread each; all of them if absent")
    clock: CpuClock = Field(description="clock frequencies")
    core: Core = Field(description="one core and how many there are")
    matrix: dict[DTypeName, FlopPerCycle] = Field(
        default_factory=dict, description="rate of one core's matrix unit (AMX, SME) per clock, by dtype"
    )
    vector: dict[DTypeName, FlopPerCycle] = Field(description="rate of one core's vector units per clock, by dtype")
    widen: dict[DTypeName, DTypeName] = Field(
        default_factory=dict, description="types without arithmetic that are converted to another on the way"
    )
    l3: L3 = Field(description="last-level cache of one socket")
    memory: CpuMemory = Field(description="memory of one socket")
    numa: Numa | None = Field(None, description="how sockets reach each other; needed for several")
    links: dict[Literal["ethernet", "infiniband"], CpuLink] = Field(
        default_factory=dict, description="links to other servers"
    )
    launch: CpuLaunch = Field(description="cost of starting an operator")
    power: PowerEnvelope = Field(description="limits of one socket")
    energy: Energy = Field(default_factory=lambda: Energy(), description="unknown stays null")
    price: Price = Field(default_factory=lambda: Price(), description="unknown stays null")
    kernels: CpuKernels = Field(description="habits of the kernel library")

    @model_validator(mode="after")
    def _consistent(self) -> CpuSpec:
        if "fp32" not in self.vector:
            raise ValueError("'vector' needs an fp32 rate: norms and softmax accumulate in it")
        if self.sockets > 1 and self.numa is None:
            raise ValueError("several sockets need 'numa': how they reach each other's memory")
        if self.threads is not None and self.threads > self.sockets * self.core.count:
            most = int(self.sockets * self.core.count)
            raise ValueError(f"'threads' is {int(self.threads)} but there are {most} cores (one thread each)")
        if self.memory.reserved >= self.memory.capacity:
            raise ValueError("'memory.reserved' leaves nothing of 'memory.capacity'")
        for narrow, wide in self.widen.items():
            if wide not in self.vector and wide not in self.matrix:
                raise ValueError(f"'widen' turns {narrow} into {wide}, which has no rate")
        return self

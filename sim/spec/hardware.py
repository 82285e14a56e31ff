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
    NonNegativeCount,
    NonNegativeCycles,
    NonNegativeRatio,
    NonNegativeTime,
    OpPerCycle,
    Power,
    Quantity,
    Ratio,
    SpecModel,
)
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
        description="power to which clocks come down in long runs of matrix products; absent: runs are too short",
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


class GemmTile(SpecModel):
    """One matrix-multiply tile that the kernel library of a generation offers."""

    m: Count = Field(description="output rows of the tile")
    n: Count = Field(description="output columns of the tile")
    k: Count = Field(description="depth of one step of the k loop")
    stages: Count = Field(description="shared-memory buffers of the k loop")
    warps_m: Count = Field(description="warps that divide the tile's rows")
    warps_n: Count = Field(description="warps that divide the tile's columns")


class GemmKernels(SpecModel):
    """Matrix-multiply kernels of a generation."""

    instruction: Literal["fma", "mma.sync", "wgmma", "tcgen05", "mfma"] = Field(
        description="matrix instruction of the generation; for information"
    )
    operands_from_shared_memory: bool = Field(
        description="the matrix unit reads tiles from shared memory itself (wgmma, tcgen05) instead of from registers"
    )
    tiles: Annotated[list[GemmTile], Field(min_length=1)] = Field(
        description="tiles the library can choose from; the fastest is taken"
    )
    split_k: Annotated[list[Count], Field(min_length=1)] = Field(
        description="pieces into which the k loop may be cut; contains 1"
    )
    issue_latency: NonNegativeCycles = Field(
        description="from operands in shared memory to the result of one k step, where nothing overlaps it"
    )
    start: NonNegativeCycles | None = Field(
        None, description="start of a matrix product before its first load; kernels.setup if absent"
    )
    module_setup: NonNegativeTime | None = Field(
        None, description="what a runtime adds to a product with integer weights that is called alone, not in a model"
    )
    step_sync: NonNegativeCycles | None = Field(
        None, description="matrix unit idle in every k step: barrier, wait for the stage, first operands; 0 if absent"
    )
    l2_fills: Count | None = Field(
        None,
        description="writes into L2 of a line that comes from memory, each in the place of a read: 2 where both "
        "partitions keep a copy; free if absent",
    )
    vector_kernel: bool = Field(
        False, description="products of one row run in a matrix-vector kernel, without steps of the matrix unit"
    )
    cluster: Count | None = Field(
        None, description="blocks that load what they share once: 2 the second operand, 4 both; 1 if absent"
    )
    quantise_at_once: bool = Field(
        False, description="a product called alone narrows its activations in one kernel of a library, not step by step"
    )
    pair: bool = Field(
        False, description="two SMs execute one product: each stages half of the second operand (tcgen05, two blocks)"
    )
    reduction: NonNegativeTime | None = Field(
        None, description="fixed cost of adding up a split k loop; launch and latencies of a small kernel if absent"
    )
    fetch: Bytes | None = Field(None, description="bytes of a tile row that one load brings into L2 at least")


class LatentKernels(SpecModel):
    """Absorbed latent attention (multi-head latent attention in generation), where it has kernels of its own."""

    rows: Count = Field(description="query heads of one tile")
    keys: Count = Field(description="keys of one inner step")
    splits: Count = Field(description="pieces into which every sequence is cut, whatever the batch")
    trips: Count = Field(description="loads of a step that wait for each other and that nothing hides")


class AttentionTile(SpecModel):
    """Tiles of heads up to a size, where they are not those of head size 128 with its keys scaled."""

    head_dim: Count = Field(description="widest key this applies to; the first entry that fits is taken")
    value_dim: Count | None = Field(None, description="widest value this applies to; the key's width if absent")
    narrow: bool = Field(False, description="for products in an 8-bit type")
    context_m: Count | None = Field(None, description="query rows of a context tile")
    context_n: Count | None = Field(None, description="keys of one inner step")
    paged_m: Count | None = Field(None, description="query rows of a tile over a paged cache")
    paged_n: Count | None = Field(None, description="keys of one step over a paged cache")
    generation_m: Count | None = Field(None, description="rows of a split-KV tile")
    generation_n: Count | None = Field(None, description="keys of one split-KV step")


class SequenceWalk(SpecModel):
    """A tile scheduler that finds its tiles by walking through the sequences of a batch."""

    sequences: Count = Field(description="sequences it looks at in one go")
    most: Count = Field(description="largest batch that it walks through; larger ones are dealt in order")
    look: NonNegativeTime = Field(description="one look: lengths and splits of the sequences, sums over them")


class AttentionCall(SpecModel):
    """What an inference engine's attention operator does around the kernel; rows of kernel tables time all of it."""

    replay: NonNegativeTime = Field(0.0, description="start of a captured graph that holds this operator alone")
    appends: bool = Field(
        True,
        description="a table row of attention contains the write of the new tokens to the cache; a row may say itself "
        "(``appends``)",
    )
    append_threads: Count = Field(512, description="threads of a block that writes one token's keys and values")
    append_operations: Count = Field(1, description="integer operations of one such thread: addresses, loop control")
    regroup_copies: Count | None = Field(
        None, description="copies that bring grouped queries and outputs of generation into the kernel's order"
    )
    latent_module: bool = Field(
        True,
        description="a table row of latent attention is the engine's whole module, launched by the host; otherwise a "
        "captured graph of the attention alone; a row may say itself which (``module``)",
    )
    latent_host: NonNegativeTime = Field(
        0.0, description="host time of the latent-attention module, which the framework launches kernel by kernel"
    )
    latent_host_narrow: NonNegativeTime = Field(
        0.0, description="host time more where the cache is narrower than the queries: scales and conversions"
    )
    latent_absorbed: Count = Field(1, description="longest prompt that latent attention computes in the absorbed form")
    latent_absorbed_narrow: Count | None = Field(
        None, description="the same where the cache is narrower than the queries; as above if absent"
    )
    latent_joined: bool = Field(
        True,
        description="absorbed queries and their rotary part are copied into one tensor for the kernel; narrow caches "
        "always have that copy, which converts",
    )
    latent_padded: bool = Field(False, description="the kernel has no narrower value: it is padded to the key's width")


class AttentionKernels(SpecModel):
    """Fused-attention kernels of a generation. Tiles are those of head size 128; others keep the bytes of a step,
    unless ``tiles`` has them.
    """

    context_m: Count = Field(description="query rows of a context tile")
    context_n: Count = Field(description="keys of one inner step")
    paged_m: Count | None = Field(None, description="query rows of a tile over a paged cache; context_m if absent")
    paged_n: Count | None = Field(None, description="keys of one step over a paged cache; context_n if absent")
    generation_m: Count = Field(16, description="rows of a split-KV tile: query heads of one group are padded to it")
    generation_n: Count = Field(description="keys of one split-KV step")
    warps: Count = Field(
        4, description="warps that divide a tile's rows; each reads all keys where operands come from registers"
    )
    overlap_softmax: bool = Field(description="exponentials of one tile run under the matrix unit's work on another")
    blocks_per_sm: Count = Field(description="thread blocks of the fused kernel that share an SM")
    tiles: list[AttentionTile] = Field(default_factory=list, description="tiles of other head sizes and narrow types")
    prefetch: bool = Field(
        False, description="a persistent block loads for its next tile while it works on one: no latency between tiles"
    )
    step_latency: NonNegativeTime = Field(0.0, description="added to an inner step's work: barriers, dependent reads")
    tile_latency: NonNegativeTime = Field(
        0.0, description="start and end of a tile: scheduling, page table, first loads, last rescale, store"
    )
    walk: SequenceWalk | None = Field(None, description="how tiles are found in a batch; at no cost if absent")
    pack_groups: bool = Field(False, description="short prompts put the query heads of a group into one tile")
    split: Literal["occupancy", "even"] = Field(
        "even",
        description="occupancy: fewest splits near the best wave efficiency; even: equal keys for every place",
    )
    split_ungrouped: bool = Field(True, description="keys are split where every query head has its own keys, too")
    max_splits: Count = Field(128, description="most pieces of one sequence's keys")
    merge_waits: bool = Field(
        False, description="the kernel that merges splits is launched early and waits ready: its start is hidden"
    )
    stored_type_products: bool = Field(False, description="products run in the type of a narrower cache")
    narrow_operations: NonNegativeCount = Field(
        0,
        description="vector operations a score where products run in a narrower type: scale, convert, rearrange a "
        "probability, and the like for the value's transpose",
    )
    latent: LatentKernels | None = Field(None, description="absorbed latent attention; the kernels above if absent")
    call: AttentionCall = Field(default_factory=lambda: AttentionCall(), description="the engine's operator")


class ExpertKernels(SpecModel):
    """Grouped products over routed experts, as the engines' kernels do them: rows of a block are gathered."""

    few: GemmTile = Field(
        default_factory=lambda: GemmTile(m=16, n=32, k=64, stages=3, warps_m=1, warps_n=4),
        description="tile where there are no more tokens than experts",
    )
    many: GemmTile = Field(
        default_factory=lambda: GemmTile(m=64, n=64, k=32, stages=3, warps_m=2, warps_n=2),
        description="tile for more tokens",
    )
    scaled: GemmTile = Field(
        default_factory=lambda: GemmTile(m=64, n=128, k=128, stages=3, warps_m=2, warps_n=2),
        description="tile for weights with a scale for every block of them, whatever the tokens",
    )
    step_wait: NonNegativeCycles = Field(
        0.0,
        description="a block's k step beside its products: addresses and masks of gathered rows, barrier, wait for "
        "the stage",
    )


class PointwiseKernels(SpecModel):
    """Element-wise, reduction and copy kernels."""

    threads: Count = Field(description="threads of one block")
    bytes_per_thread: Bytes = Field(description="vector load width")
    loads_in_flight: Count = Field(description="independent vector loads a thread issues before it waits")
    accesses: OpPerCycle | None = Field(
        None,
        description="single elements that the load/store path of one SM takes in a clock, in the engines' row kernels "
        "(norm, gated activation, rotary embedding), which load and store them one by one; free if absent",
    )


class SequenceKernels(SpecModel):
    """Scans and causal convolutions."""

    trip: NonNegativeTime | None = Field(
        None,
        description="one dependent round of a block through memory on a busy GPU: issue, load, exchange, store; "
        "latencies of idle memory if absent",
    )
    fused_scan: FlopPerCycle | None = Field(
        None,
        description="rate at which one SM works through the dependent products of a chunk in a scan kernel that walks "
        "the chunks of one head itself; a kernel for each step of the scan if absent",
    )


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

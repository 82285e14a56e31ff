"""What a user writes about the kernels that run on a GPU: the ``kernels`` section of its file, but for collectives.

Which tiles products and attention take, how blocks load and wait, what an engine's operator contains.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .fields import (
    Bytes,
    BytesPerCycle,
    Count,
    FlopPerCycle,
    NonNegativeCount,
    NonNegativeCycles,
    NonNegativeTime,
    OpPerCycle,
    SpecModel,
)


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
    operands: BytesPerCycle | None = Field(
        None,
        description="what copies of pieces of rows take from L2 (an SM, all of them loading); l2.bandwidth if absent",
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
        description="single elements that the load/store path of one SM takes in a clock where a kernel writes what it "
        "reads (rotary embedding; the units' own rate if absent), or where all accesses of a kernel are counted "
        "(softmax in several sweeps, the portable quantiser; free if absent)",
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

"""What a user writes about the kernels of a training framework: the ``kernels.training`` section of a GPU file."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .fields import Count, NonNegativeTime, Ratio, SpecModel


class BackwardTile(SpecModel):
    """Tile of the fused attention backward kernel up to a head size, and how its warps divide its products.

    A block keeps ``n`` keys and walks over the queries ``m`` at a time. Of its eight warps ``scores_m`` divide the
    queries of the score products, ``keys_n`` the keys of the key and value gradients, ``queries_m`` the queries of the
    query gradient; the rest divide the other side.
    """

    head_dim: Count = Field(description="largest head size that takes this tile")
    m: Count = Field(description="query rows of an inner step")
    n: Count = Field(description="keys of a block")
    warps: Count = Field(8, description="warps of a block")
    scores_m: Count = Field(description="warps along the queries in Q·Kᵀ and dO·Vᵀ")
    keys_n: Count = Field(description="warps along the keys in the gradients of keys and values")
    queries_m: Count = Field(description="warps along the queries in the gradient of the queries")


class ForwardTile(SpecModel):
    """Tile of the fused attention forward kernel of the framework, up to a head size."""

    head_dim: Count = Field(description="largest head size that takes this tile")
    m: Count = Field(description="query rows of a tile")
    n: Count = Field(description="keys of an inner step")
    warps: Count = Field(4, description="warps that divide the rows")
    blocks: Count = Field(1, description="blocks that share an SM")


class OtherTrainingKernels(SpecModel):
    """Fused attention that a training framework can take instead, without a pipeline of loads.

    What a step needs is loaded when it is needed: every trip waits for the second-level cache, and the operands arrive
    at the processor's share of its bandwidth, beside nothing.
    """

    forward: Annotated[list[ForwardTile], Field(min_length=1, description="by head size")]
    backward: Annotated[list[BackwardTile], Field(min_length=1, description="by head size")]
    forward_trips: Count = Field(description="loads of a forward step that follow each other")
    backward_trips: Count = Field(description="loads and updates of a backward step that follow each other")


class TrainingKernels(SpecModel):
    """Kernels of a training framework where they differ from those of an inference engine."""

    warp_matrix: Ratio = Field(
        1.0, description="rate of warp-level matrix instructions (mma.sync) as a share of the matrix unit's"
    )
    forward: Annotated[list[ForwardTile], Field(description="fused attention, by head size")] = Field(
        default_factory=list
    )
    backward: Annotated[list[BackwardTile], Field(min_length=1, description="its backward pass, by head size")]
    others: dict[str, OtherTrainingKernels] = Field(
        default_factory=dict, description="further fused kernels by name; training.attention_kernel takes one"
    )
    step_latency: NonNegativeTime = Field(0.0, description="added to an inner step of the forward kernel")
    phase_latency: NonNegativeTime = Field(
        0.0, description="added to each of the five products of a backward step: barrier, first operands, last results"
    )
    tile_latency: NonNegativeTime = Field(0.0, description="start and end of a tile of 64 rows")

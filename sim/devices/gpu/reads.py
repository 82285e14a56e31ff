"""Which numbers of a GPU's file the kernels of an operator depend on.

Sections that one family of kernels reads alone (its tiles, its waits, the links) say nothing about the others. Who
varies one number at a time keeps what the others were lowered to. An operator that is not named here reads everything.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...graph.operator import Operator
from ...graph.operators.attention import Attention, AttentionBackward, KVAppend, LatentAttention
from ...graph.operators.communication import Collective, GradientClip, GradientSum, HostTransfer
from ...graph.operators.convolution import CausalConv1d, Conv2d, Convolution2dBackward, FFTConv
from ...graph.operators.embedding import Embedding, EmbeddingBackward, Sampling
from ...graph.operators.linear import BatchedMatmul, Linear
from ...graph.operators.moe import Experts, ExpertsBackward, TopK
from ...graph.operators.pointwise import Pointwise, PointwiseBackward
from ...graph.operators.scan import GatedDelta, ScanBackward, SelectiveScan, SSDScan

SEQUENCE = (
    SelectiveScan,
    SSDScan,
    GatedDelta,
    ScanBackward,
    CausalConv1d,
    Conv2d,
    Convolution2dBackward,
    FFTConv,
)
ATTENTION = (Attention, LatentAttention, AttentionBackward)

OWN: tuple[tuple[str, tuple[type[Operator], ...]], ...] = (
    ("links.", (Collective, HostTransfer)),
    ("topology.", (Collective, HostTransfer)),
    ("kernels.collective.", (Collective,)),
    ("kernels.training.", (Attention, AttentionBackward)),
    ("kernels.attention.", (*ATTENTION, KVAppend)),
    ("kernels.experts.", (Experts, ExpertsBackward, TopK)),
    ("kernels.sequence.", SEQUENCE),
)
"""Sections by the operators whose kernels alone depend on them. A collective beside an operator prices that, too."""

SWEEPS = (Pointwise, PointwiseBackward, Embedding, EmbeddingBackward, Sampling, KVAppend, GradientClip, GradientSum)
"""Operators without a matrix product."""

PRODUCTS = ("kernels.gemm.", "energy.")
"""What products alone depend on: their tiles, and energies by way of the power limit."""

LAUNCHES = ("launch.stream", "launch.dispatch", "launch.eager", "launch.host_speed")
"""Costs around kernels, never in them; the launch from a graph lies between a product and its reduction as well."""

AROUND = ("launch.", "kernels.collective.protocols.channels")
"""What a whole program may depend on beside its kernels: launches, processors that collectives take."""


def reads(path: str, op: Operator) -> bool:
    """Whether kernels of *op* may depend on the number at *path* of the GPU's file or, ``topology.``, of a system's."""
    if path.startswith(LAUNCHES):
        return False
    if isinstance(op, Collective) and op.beside is not None:
        return True
    if path.startswith("kernels.training.") and isinstance(op, Attention):
        return op.phase == "context"  # steps of generation are not trained
    for section, owners in OWN:
        if path.startswith(section):
            return isinstance(op, owners)
    if path.startswith(PRODUCTS):
        if isinstance(op, (*SWEEPS, Collective, HostTransfer)):
            return False
        if path.startswith("energy.matrix.") and isinstance(op, Linear | BatchedMatmul):
            return _narrowed(op) or path == f"energy.matrix.{op.dtype}"
        return True
    if path.startswith("kernels.pointwise."):
        alone = isinstance(op, Linear | BatchedMatmul) and not _narrowed(op)
        return not (alone or isinstance(op, Collective | HostTransfer))
    return True


def _narrowed(op: Linear | BatchedMatmul) -> bool:
    """Whether kernels that quantise operands run before a product, or it runs in a type that is not its own."""
    return isinstance(op, Linear) and (op.quantises or bool(op.float8))


def anybody_reads(path: str, operators: Iterable[Operator]) -> bool:
    """Whether the time of a program of *operators* may depend on the number at *path*."""
    return path.startswith(AROUND) or any(reads(path, op) for op in operators)

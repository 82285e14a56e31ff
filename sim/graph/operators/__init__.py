"""Operators, one file a family."""

from .attention import Attention, AttentionBackward, KVAppend, LatentAttention
from .communication import Collective, HostTransfer, OptimizerStep
from .convolution import CausalConv1d, Conv2d, FFTConv
from .embedding import CrossEntropy, Embedding, Sampling
from .linear import BatchedMatmul, Linear, MatmulGradient, WeightMatmul
from .moe import Experts, TopK
from .pointwise import Pointwise
from .scan import GatedDelta, SelectiveScan, SSDScan

__all__ = [
    "Attention",
    "AttentionBackward",
    "BatchedMatmul",
    "CausalConv1d",
    "Collective",
    "Conv2d",
    "CrossEntropy",
    "Embedding",
    "Experts",
    "FFTConv",
    "GatedDelta",
    "HostTransfer",
    "KVAppend",
    "LatentAttention",
    "Linear",
    "MatmulGradient",
    "OptimizerStep",
    "Pointwise",
    "SSDScan",
    "Sampling",
    "SelectiveScan",
    "TopK",
    "WeightMatmul",
]

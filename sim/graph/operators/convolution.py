"""Convolutions: causal depthwise 1-D (in SSM blocks), dense or grouped 2-D, long convolution by FFT."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from ...errors import UnsupportedError
from ..dtypes import size_of
from ..operator import Access, Arithmetic, Operator, Role, divide, positive
from .scan import ScanBackward


@dataclass(frozen=True, slots=True)
class CausalConv1d(Operator):
    """Depthwise causal convolution of ``kernel`` taps along the sequence, with bias: 2·B·L·C·kernel FLOP.

    Its state is the last kernel − 1 inputs of every channel. ``context``: a prompt, also where it is one token.
    """

    kind: ClassVar[str] = "conv1d"
    batch: int
    length: int
    channels: int
    kernel: int = 4
    dtype: str = "fp16"
    bias: bool = True
    context: bool = False

    def __post_init__(self) -> None:
        positive(self, "batch", "length", "channels", "kernel")

    @property
    def updates(self) -> bool:
        """A single token moves every channel's window, unless it is a prompt (``context``)."""
        return self.length == 1 and not self.context

    @property
    def elements(self) -> float:
        """Output elements."""
        return float(self.batch) * self.length * self.channels

    def arithmetic(self) -> Arithmetic:
        """Vector multiply-adds; no matrix unit helps a depthwise kernel."""
        return Arithmetic(vector=2.0 * self.batch * self.length * self.channels * self.kernel)

    def accesses(self) -> tuple[Access, ...]:
        """Input, output, taps; a single step reads and writes its window."""
        word, elements = size_of(self.dtype), float(self.batch) * self.length * self.channels
        return (
            Access(Role.ACTIVATION, elements * word),
            Access(Role.WEIGHT, self.weight_bytes),
            Access(Role.ACTIVATION, elements * word, write=True),
            Access(Role.STATE, self.state_bytes if self.length < self.kernel else 0.0),
            Access(Role.STATE, self.state_bytes, write=True),
        )

    @property
    def parameters(self) -> int:
        """Taps and biases."""
        return self.channels * (self.kernel + (1 if self.bias else 0))

    @property
    def weight_bytes(self) -> float:
        """Bytes of taps and biases."""
        return self.parameters * size_of(self.dtype)

    @property
    def state_bytes(self) -> float:
        """Window of past inputs."""
        return float(self.batch) * self.channels * (self.kernel - 1) * size_of(self.dtype)

    def split(self, axis: str, degree: int) -> Operator:
        """``column``/``heads`` divides the channels."""
        if axis in ("column", "heads"):
            return replace(self, channels=divide(self.channels, degree, "channels", self.kind))
        raise UnsupportedError(f"conv1d cannot be split by {axis!r}; expected column")

    def backward(self) -> tuple[Operator, ...]:
        """Input and tap gradients in one sweep."""
        return (ScanBackward(self),)


@dataclass(frozen=True, slots=True)
class Conv2d(Operator):
    """2-D convolution in NHWC: 2·B·Ho·Wo·Cout·(Cin/groups)·kernel² FLOP."""

    kind: ClassVar[str] = "conv2d"
    batch: int
    height: int
    width: int
    in_channels: int
    out_channels: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    dtype: str = "fp16"
    bias: bool = False

    def __post_init__(self) -> None:
        positive(self, "batch", "height", "width", "in_channels", "out_channels", "kernel", "stride", "groups")
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise UnsupportedError(f"conv2d: groups {self.groups} does not divide the channels")
        if min(self.height, self.width) + 2 * self.padding < self.kernel:
            raise UnsupportedError(f"conv2d: kernel {self.kernel} is larger than the padded input")

    @property
    def out_height(self) -> int:
        """Output rows."""
        return (self.height + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def out_width(self) -> int:
        """Output columns."""
        return (self.width + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def depth(self) -> int:
        """Multiply-adds of one output element."""
        return self.in_channels // self.groups * self.kernel**2

    @property
    def rows(self) -> int:
        """Rows of the equivalent matrix product: output positions."""
        return self.batch * self.out_height * self.out_width

    @property
    def depthwise(self) -> bool:
        """One input channel a group: vector work."""
        return self.in_channels == self.groups and self.groups > 1

    def arithmetic(self) -> Arithmetic:
        """On the matrix unit as an implicit GEMM; depthwise on the vector unit."""
        work = 2.0 * self.rows * self.out_channels * self.depth
        return Arithmetic(vector=work) if self.depthwise else Arithmetic(matrix=work)

    def accesses(self) -> tuple[Access, ...]:
        """Input, weights and output once (the implicit GEMM never materialises the patches)."""
        word = size_of(self.dtype)
        # A stride longer than the kernel steps over rows and columns that nothing reads.
        rows = min(self.height, self.out_height * self.kernel)
        columns = min(self.width, self.out_width * self.kernel)
        return (
            Access(Role.ACTIVATION, float(self.batch) * rows * columns * self.in_channels * word),
            Access(Role.WEIGHT, self.weight_bytes),
            Access(Role.ACTIVATION, float(self.rows) * self.out_channels * word, write=True),
        )

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return self.out_channels * (self.depth + (1 if self.bias else 0))

    @property
    def weight_bytes(self) -> float:
        """Bytes of the parameters."""
        return self.parameters * size_of(self.dtype)

    def backward(self) -> tuple[Operator, ...]:
        """Input and weight gradients: twice the forward."""
        return (Convolution2dBackward(self),)


@dataclass(frozen=True, slots=True)
class Convolution2dBackward(Operator):
    """Input and weight gradients of a 2-D convolution: two implicit GEMMs of the forward's size."""

    kind: ClassVar[str] = "conv2d_backward"
    forward: Conv2d

    def arithmetic(self) -> Arithmetic:
        """Twice the forward."""
        return self.forward.arithmetic() * 2.0

    def accesses(self) -> tuple[Access, ...]:
        """Saved input, dy twice, weights in; dx and dW out."""
        f = self.forward
        return (
            Access(Role.ACTIVATION, f.input_bytes + 2 * f.output_bytes),
            Access(Role.WEIGHT, f.weight_bytes),
            Access(Role.ACTIVATION, f.input_bytes, write=True),
            Access(Role.GRADIENT, f.weight_bytes, write=True),
        )


@dataclass(frozen=True, slots=True)
class FFTConv(Operator):
    """Long causal convolution by FFT, one filter a channel, zero-padded to 2·length.

    Two real forward transforms and one inverse of n = 2·length points (the filter's spectrum is made once a channel),
    5/2·n·log2 n FLOP each for real data, and 6 FLOP a complex product of n/2 bins.
    """

    kind: ClassVar[str] = "fft_conv"
    batch: int
    length: int
    channels: int
    dtype: str = "fp32"

    def __post_init__(self) -> None:
        positive(self, "batch", "length", "channels")

    @property
    def points(self) -> int:
        """Transform length: the next power of two from 2·length."""
        return 1 << (2 * self.length - 1).bit_length()

    @property
    def transform_flops(self) -> float:
        """FLOP of one real transform."""
        return 2.5 * self.points * math.log2(self.points)

    def arithmetic(self) -> Arithmetic:
        """Forward and inverse for every sequence and channel, one filter transform a channel."""
        rows = float(self.batch) * self.channels
        return Arithmetic(vector=(2 * rows + self.channels) * self.transform_flops + rows * 3.0 * self.points)

    def accesses(self) -> tuple[Access, ...]:
        """Signal in and out, filter in."""
        word = size_of(self.dtype)
        elements = float(self.batch) * self.channels * self.length
        return (
            Access(Role.ACTIVATION, elements * word),
            Access(Role.WEIGHT, float(self.channels) * self.length * word),
            Access(Role.ACTIVATION, elements * word, write=True),
        )

    def split(self, axis: str, degree: int) -> Operator:
        """``column`` divides the channels."""
        if axis in ("column", "heads"):
            return replace(self, channels=divide(self.channels, degree, "channels", self.kind))
        raise UnsupportedError(f"fft_conv cannot be split by {axis!r}; expected column")

    def backward(self) -> tuple[Operator, ...]:
        """Two more convolutions."""
        return (ScanBackward(self),)

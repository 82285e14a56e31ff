"""Movement between devices and hosts, and the optimizer's update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...errors import UnsupportedError
from ..dtypes import size_of
from ..operator import Access, Arithmetic, Operator, Role

COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "send_recv")
RUNTIMES = ("engine", "nccl")


@dataclass(frozen=True, slots=True)
class Collective(Operator):
    """A collective over ``devices`` ranks.

    ``payload_bytes`` is the size of the full buffer by NCCL's convention: what every rank holds before an all-reduce
    or reduce-scatter, what every rank holds after an all-gather, what every rank sends in all to an all-to-all.
    ``stride``: distance of neighbouring ranks. ``runtime``: who runs it, "engine" (an inference engine, whose own
    kernels take small all-reduces; also the default) or "nccl" (the communication library alone).
    """

    kind: ClassVar[str] = "collective"
    op: str
    payload_bytes: float
    devices: int
    stride: int = 1
    dtype: str = "fp16"
    runtime: str = ""

    def __post_init__(self) -> None:
        if self.runtime not in ("", *RUNTIMES):
            raise UnsupportedError(f"collective: runtime {self.runtime!r}; expected one of {', '.join(RUNTIMES)}")
        if self.op not in COLLECTIVES:
            raise UnsupportedError(f"collective: unknown op {self.op!r}; expected one of {', '.join(COLLECTIVES)}")
        if self.devices < 1 or self.payload_bytes < 0:
            raise UnsupportedError("collective: needs at least one device and no negative size")

    @property
    def wire_bytes(self) -> float:
        """Bytes one rank must send at least (ring and tree alike): 2(d−1)/d for all-reduce, (d−1)/d for its halves."""
        if self.devices == 1:
            return 0.0
        if self.op in ("broadcast", "send_recv"):
            return self.payload_bytes
        share = (self.devices - 1) / self.devices
        return (2.0 if self.op == "all_reduce" else 1.0) * share * self.payload_bytes

    def arithmetic(self) -> Arithmetic:
        """One addition an element received in the reducing operations."""
        reduces = self.op in ("all_reduce", "reduce_scatter")
        share = (self.devices - 1) / self.devices
        return Arithmetic(vector=share * self.payload_bytes / size_of(self.dtype) if reduces else 0.0)

    def accesses(self) -> tuple[Access, ...]:
        """What is sent is read, what is received is written, in device memory."""
        return (
            Access(Role.ACTIVATION, self.wire_bytes),
            Access(Role.ACTIVATION, self.wire_bytes, write=True),
        )

    def backward(self) -> tuple[Operator, ...]:
        """The same collective on the gradients."""
        return (self,)


@dataclass(frozen=True, slots=True)
class HostTransfer(Operator):
    """A copy between device and host memory over PCIe (``to_device`` or not)."""

    kind: ClassVar[str] = "host_transfer"
    payload_bytes: float
    to_device: bool = True

    def arithmetic(self) -> Arithmetic:
        """None."""
        return Arithmetic()

    def accesses(self) -> tuple[Access, ...]:
        """Device memory written or read."""
        return (Access(Role.ACTIVATION, self.payload_bytes, write=self.to_device),)


@dataclass(frozen=True, slots=True)
class OptimizerStep(Operator):
    """One optimizer update of ``elements`` parameters, fused.

    ``states`` fp32 numbers a parameter are read and written (Adam: 2; with a master copy: 3), the gradient is read and
    the working copy written.
    """

    kind: ClassVar[str] = "optimizer_step"
    elements: int
    states: int = 3
    dtype: str = "bf16"
    vector_per_element: float = 12.0
    gradient_dtype: str = ""

    def arithmetic(self) -> Arithmetic:
        """Adam: two moment updates, bias correction, root, division, weight decay, step."""
        return Arithmetic(vector=self.vector_per_element * self.elements, special=2.0 * self.elements)

    def accesses(self) -> tuple[Access, ...]:
        """States in and out in fp32, gradient in, weight out."""
        state = 4.0 * self.states * self.elements
        word = size_of(self.dtype) * self.elements
        gradient = size_of(self.gradient_dtype or self.dtype) * self.elements
        return (
            Access(Role.OPTIMIZER, state),
            Access(Role.GRADIENT, gradient),
            Access(Role.OPTIMIZER, state, write=True),
            Access(Role.WEIGHT, word, write=True),
        )

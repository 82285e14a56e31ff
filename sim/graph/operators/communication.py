"""Movement between devices and hosts, and the optimizer's update."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ...errors import UnsupportedError
from ..dtypes import size_of
from ..operator import Access, Arithmetic, Operator, Role

_TRANSPOSED = {"all_gather": "reduce_scatter", "reduce_scatter": "all_gather"}
COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "send_recv")
RUNTIMES = ("engine", "nccl")


@dataclass(frozen=True, slots=True)
class Collective(Operator):
    """A collective over ``devices`` ranks.

    ``payload_bytes`` is the size of the full buffer by NCCL's convention: what every rank holds before an all-reduce
    or reduce-scatter, what every rank holds after an all-gather, what every rank sends in all to an all-to-all.
    ``stride``: distance of neighbouring ranks. ``runtime``: who runs it, "engine" (an inference engine, whose own
    kernels take small all-reduces; also the default) or "nccl" (the communication library alone). ``beside``: the
    product whose input it brings or whose result it takes away, cut into as many pieces as there are ranks, so that
    one piece travels while another is computed (asynchronous tensor parallelism); a ``send_recv`` travels beside all
    of it (a step of ring attention). ``groups``: how many groups like this one, all ranks between and beside its own,
    run the same collective at the same time (what may share links with it). ``algorithm``: forced, or empty.
    """

    kind: ClassVar[str] = "collective"
    op: str
    payload_bytes: float
    devices: int
    stride: int = 1
    dtype: str = "fp16"
    runtime: str = ""
    beside: Operator | None = None
    groups: int = 1
    algorithm: str = ""

    def __post_init__(self) -> None:
        if self.runtime not in ("", *RUNTIMES):
            raise UnsupportedError(f"collective: runtime {self.runtime!r}; expected one of {', '.join(RUNTIMES)}")
        if self.op not in COLLECTIVES:
            raise UnsupportedError(f"collective: unknown op {self.op!r}; expected one of {', '.join(COLLECTIVES)}")
        if self.devices < 1 or self.payload_bytes < 0:
            raise UnsupportedError("collective: needs at least one device and no negative size")

    def exposed_s(self, seconds: float, beside_s: float) -> float:
        """What shows of *seconds* beside an operator that takes *beside_s*.

        One piece of as many as there are ranks has nothing to run beside; the others show where they are longer.

        >>> Collective("all_gather", 8.0, 4, beside=Collective("broadcast", 1.0, 2)).exposed_s(4.0, 2.0)
        2.0
        """
        if self.beside is None:
            return seconds
        piece = 0.0 if self.op == "send_recv" else seconds / self.devices
        return piece + max(0.0, seconds - piece - beside_s)

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

    @property
    def saved_bytes(self) -> float:
        """Nothing: what it delivers is kept by the operators that read it."""
        return 0.0

    def backward(self) -> tuple[Operator, ...]:
        """Gradients travel the other way: gathered ones are added up and divided, divided ones are gathered."""
        beside = self.beside.backward()[0] if self.beside is not None else None
        return (replace(self, op=_TRANSPOSED.get(self.op, self.op), beside=beside),)

    @property
    def result_bytes(self) -> float:
        """Bytes that one rank holds afterwards."""
        return self.payload_bytes / self.devices if self.op == "reduce_scatter" else self.payload_bytes


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


ADAM_PASSES = ((1, 1), (2, 1), (1, 1), (2, 1), (1, 1), (1, 1), (1, 1), (3, 1))
"""fp32 numbers read and written an element by each pass of an unfused AdamW: weight decay, first moment, second moment
scaled and added to, its root, the bias correction, epsilon, the step (torch/optim/adamw.py, multi-tensor form)."""


@dataclass(frozen=True, slots=True)
class OptimizerStep(Operator):
    """One optimizer update of ``elements`` parameters.

    ``states`` fp32 numbers a parameter are read and written (Adam: 2; with a master copy: 3), the gradient is read and
    the working copy written where there is one (``dtype`` empty: none). ``fused``: one kernel; otherwise one pass for
    each operation.
    """

    kind: ClassVar[str] = "optimizer_step"
    elements: int
    states: int = 3
    dtype: str = "bf16"
    vector_per_element: float = 12.0
    gradient_dtype: str = ""
    fused: bool = True

    @property
    def passes(self) -> tuple[tuple[int, int], ...]:
        """fp32 numbers read and written an element by each kernel of an update that is not fused; empty if it is."""
        return () if self.fused or self.states < 2 else ADAM_PASSES

    def arithmetic(self) -> Arithmetic:
        """Adam: two moment updates, bias correction, root, division, weight decay, step."""
        return Arithmetic(vector=self.vector_per_element * self.elements, special=2.0 * self.elements)

    def accesses(self) -> tuple[Access, ...]:
        """States in and out in fp32, gradient in, weight out."""
        state = 4.0 * self.states * self.elements
        word = size_of(self.dtype) * self.elements if self.dtype else 0.0
        gradient = size_of(self.gradient_dtype or self.dtype or "fp32") * self.elements
        return (
            Access(Role.OPTIMIZER, state),
            Access(Role.GRADIENT, gradient),
            Access(Role.OPTIMIZER, state, write=True),
            Access(Role.WEIGHT, word, write=True),
        )


@dataclass(frozen=True, slots=True)
class GradientClip(Operator):
    """The norm of all gradients, and their scaling by it: ``elements`` numbers read, then read and written."""

    kind: ClassVar[str] = "gradient_clip"
    elements: int
    dtype: str = "fp32"

    def arithmetic(self) -> Arithmetic:
        """A multiply-add an element for the norm, a multiply for the scaling."""
        return Arithmetic(vector=3.0 * self.elements)

    def accesses(self) -> tuple[Access, ...]:
        """Gradients in twice, out once."""
        size = size_of(self.dtype) * self.elements
        return (Access(Role.GRADIENT, 2.0 * size), Access(Role.GRADIENT, size, write=True))


@dataclass(frozen=True, slots=True)
class GradientSum(Operator):
    """Gradients of a microbatch added to those of the microbatches before: ``elements`` sums read and written."""

    kind: ClassVar[str] = "gradient_sum"
    elements: int
    dtype: str = "fp32"

    def arithmetic(self) -> Arithmetic:
        """An addition an element."""
        return Arithmetic(vector=float(self.elements))

    def accesses(self) -> tuple[Access, ...]:
        """The sums in and out; what is added comes out of the product that made it."""
        size = size_of(self.dtype) * self.elements
        return (Access(Role.GRADIENT, size), Access(Role.GRADIENT, size, write=True))

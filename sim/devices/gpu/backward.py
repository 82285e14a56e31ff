"""Kernels of a training step on a GPU beside attention: gradients of rows, the loss, the update, narrowing to fp8."""

from __future__ import annotations

from dataclasses import replace

from ...graph.dtypes import size_of
from ...graph.operator import Operator
from ...graph.operators.communication import OptimizerStep
from ...graph.operators.embedding import CrossEntropy, CrossEntropyBackward
from ...graph.operators.linear import BiasGradient
from ...graph.operators.pointwise import PointwiseBackward, recipe
from ..kernel import Kernel
from .parameters import GpuParameters
from .pointwise import PointwiseModel, Sweep

FP8 = "fp8"


class BackwardModel:
    """Lowers the memory-bound operators of a training step for one GPU."""

    def __init__(self, parameters: GpuParameters, pointwise: PointwiseModel) -> None:
        self._p, self._pointwise = parameters, pointwise

    def pointwise(self, op: PointwiseBackward, fused: bool) -> tuple[Kernel, ...]:
        """One kernel for the input gradient; learned scales are summed over the rows by a second one.

        A framework without fused kernels runs the backward of each of its forward kernels.
        """
        f = op.forward
        r = recipe(f.op)
        passes = 1 if fused else max(1, r.passes_eager)
        read = sum(a.bytes_moved for a in op.accesses() if not a.write)
        main = self._kernel(op, f"{f.kind} backward", read, op.bytes_moved - read, f.rows if r.reduces else 0, passes)
        kernels = (main,) * passes
        if f.parameters:
            kernels = (*kernels, self._extra(read, 0.0, 2.0 * f.elements, f"{f.kind} backward: learned numbers"))
        return kernels

    def bias(self, op: BiasGradient) -> tuple[Kernel, ...]:
        """A sum over the rows."""
        read = sum(a.bytes_moved for a in op.accesses() if not a.write)
        return (self._kernel(op, "bias backward", read, op.bytes_moved - read),)

    def loss(self, op: CrossEntropy) -> tuple[Kernel, ...]:
        """In place one kernel; otherwise one widens the logits and one takes their logarithms."""
        size = op.saved_bytes
        if op.in_place or not op.logits_dtype:
            read = sum(a.bytes_moved for a in op.accesses() if not a.write)
            return (self._kernel(op, "cross entropy", read, op.bytes_moved - read, op.rows),)
        widen = self._extra(op.arriving_bytes, size, 0.0, "widen logits")
        return (widen, self._kernel(op, "cross entropy", size, size, op.rows))

    def loss_backward(self, op: CrossEntropyBackward) -> tuple[Kernel, ...]:
        """In place one kernel; otherwise zeros with a one a row, the gradient of the logarithms, the narrowing."""
        f, size = op.forward, op.forward.saved_bytes
        if f.in_place:
            return (self._kernel(op, "cross entropy backward", size, size, f.rows),)
        fill = self._extra(0.0, size, 0.0, "cross entropy backward: zeros")
        main = self._kernel(op, "cross entropy backward", 2.0 * size, size, f.rows)
        narrow = self._extra(size, f.arriving_bytes, 0.0, "narrow gradient") if f.logits_dtype else None
        return (fill, main, narrow) if narrow is not None else (fill, main)

    def optimizer(self, op: OptimizerStep) -> tuple[Kernel, ...]:
        """One kernel, or one for each operation of the update."""
        read = sum(a.bytes_moved for a in op.accesses() if not a.write)
        fused = self._kernel(op, "optimizer step", read, op.bytes_moved - read, kept=False)
        if not op.passes:
            return (fused,)
        word = 4.0 * op.elements
        share = 1.0 / len(op.passes)  # the bound of the whole update, a part on each kernel
        kernels = []
        for reads, writes in op.passes:
            sweep = Sweep(reads * word, writes * word, (reads + writes) * word, vector_ops=2.0 * op.elements)
            kernel = self._pointwise.kernel(sweep, "optimizer step")
            kernels.append(replace(kernel, terms=tuple((label, s * share) for label, s in fused.terms)))
        return tuple(kernels)

    def narrow(self, elements: float, source: str, again: bool = False) -> tuple[Kernel, ...]:
        """Narrowing of an operand to fp8: its largest magnitude, then the scaled copy; *again*: a transposed one.

        Matrix instructions for fp8 want both operands with the summed dimension in memory order, so the two products of
        a backward pass need the other order of what the forward product (or the other one) narrowed.
        """
        wide, word = size_of(source) * elements, size_of(FP8) * elements
        if again:
            return (self._extra(word, word, 0.0, "transpose fp8"),)
        return (
            self._extra(wide, 0.0, elements, "largest magnitude"),
            self._extra(wide, word, 2.0 * elements, "narrow to fp8"),
        )

    def _kernel(
        self, op: Operator, name: str, read: float, write: float, rows: int = 0, passes: int = 1, *, kept: bool = True
    ) -> Kernel:
        """One of *passes* passes with the operator's arithmetic and the bound of its compulsory bytes."""
        p, work = self._p, op.arithmetic()
        moved = read + write
        sweep = Sweep(
            read,
            write,
            moved * (1.0 - p.kept(moved)) if kept else moved,
            vector_ops=work.vector / passes,
            special_ops=work.special / passes,
            rows=rows,
        )
        kernel = self._pointwise.kernel(sweep, name)
        best = p.kept_at_best(moved) if kept else 0.0
        bound = op.bytes_moved / passes * (1.0 - best) / p.memory_peak_bytes_per_s
        terms = {**dict(kernel.terms), "memory": bound, "l2": op.bytes_moved / passes / p.l2_bytes_per_s}
        return replace(kernel, terms=tuple(terms.items()))

    def _extra(self, read: float, write: float, operations: float, name: str) -> Kernel:
        """A pass that another schedule could do without: no bound stands on it."""
        moved = read + write
        sweep = Sweep(read, write, moved * (1.0 - self._p.kept(moved)), vector_ops=operations)
        kernel = self._pointwise.kernel(sweep, name)
        return replace(kernel, terms=tuple((label, 0.0) for label, _ in kernel.terms))

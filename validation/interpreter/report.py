"""Graphs executed on real numbers against ``transformers`` modules with the same weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from effsim.architectures.build import Step, build_graph
from effsim.errors import EffsimError
from effsim.graph.graph import Graph
from effsim.graph.operator import Operator
from effsim.graph.operators import (
    Attention,
    CausalConv1d,
    Experts,
    GatedDelta,
    LatentAttention,
    Linear,
    Pointwise,
    SelectiveScan,
    SSDScan,
)
from effsim.graph.operators.linear import BatchedMatmul
from effsim.graph.operators.pointwise import recipe

from .reference import CASES, Case, Reference, cuts, one_thread, row_error
from .run import Session
from .weights import named_weights

UNIT_ROUNDOFF = 2.0**-24
"""Of float32."""


def summed(op: Operator) -> int:
    """How many rounded terms one result of an operator adds up."""
    if isinstance(op, Linear | BatchedMatmul):
        return op.k
    if isinstance(op, Attention | LatentAttention):
        dense = op if isinstance(op, Attention) else op.equivalent
        return dense.head_dim + dense.kv_len
    if isinstance(op, Experts):
        return op.hidden + op.intermediate + op.top_k
    if isinstance(op, SelectiveScan | SSDScan):
        return op.length + op.state
    if isinstance(op, GatedDelta):
        return op.length + op.key_dim
    if isinstance(op, CausalConv1d):
        return op.kernel
    return op.cols if isinstance(op, Pointwise) and recipe(op.op).reduces else 1


def error_bound(graph: Graph, growth: float) -> float:
    """Relative error of the logits that float32 can explain: ``growth · u · Σ √(terms summed)`` over all nodes.

    A sum of n rounded terms is off by about √n·u of its size, roundings being independent and centred (Higham & Mary,
    *A New Approach to Probabilistic Rounding Error Analysis*, 2019; n·u in the worst case). ``growth`` is how much a
    relative error of a layer's input grows on its way to the logits, measured on the judge in double precision. Adding
    the nodes up, not their squares, is on the safe side: errors of different nodes are independent too.
    """
    return growth * UNIT_ROUNDOFF * sum(math.sqrt(summed(node.op)) * count for _, node, count in graph.walk())


@dataclass(frozen=True, slots=True)
class Compared:
    """One model: relative errors of its logits, prompt and then token by token, and the FLOPs that ran.

    ``problem`` is why it could not be run to its end (empty: it could).
    """

    model: str
    layers: int
    prefill_error: float
    decode_error: float
    bound: float
    flops_run: float
    flops_graph: float
    unread_weights: tuple[str, ...] = ()
    problem: str = ""

    @property
    def passed(self) -> bool:
        """Same results within the bound, same FLOPs, and every weight used."""
        same = self.prefill_error <= self.bound and self.decode_error <= self.bound  # false for NaN
        counted = math.isclose(self.flops_run, self.flops_graph, rel_tol=1e-12)
        return not self.problem and same and counted and not self.unread_weights

    def complaint(self) -> str:
        """What is wrong, in a line."""
        if self.problem:
            return f"{self.model}: {self.problem}"
        if self.unread_weights:
            return f"{self.model}: no node reads {', '.join(self.unread_weights)}"
        errors = f"prefill {self.prefill_error:.3g}, decode {self.decode_error:.3g}; float32 explains {self.bound:.3g}"
        return f"{self.model}: {errors}; {self.flops_run:.0f} FLOPs ran, the graphs count {self.flops_graph:.0f}"


@dataclass(frozen=True, slots=True)
class InterpreterReport:
    """All models."""

    rows: tuple[Compared, ...]

    def failures(self) -> list[str]:
        """A line for every model that does not agree."""
        return [row.complaint() for row in self.rows if not row.passed]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"rows": [asdict(row) | {"passed": row.passed} for row in self.rows], "failures": self.failures()}

    def markdown(self) -> str:
        """A table."""
        lines = ["| model | layers | prefill error | decode error | float32 bound | FLOPs run = graph | passed |"]
        lines.append("|" + "---|" * 7)
        for r in self.rows:
            errors = f"{r.prefill_error:.2g} | {r.decode_error:.2g} | {r.bound:.2g}"
            same = (
                f"{r.flops_run:,.0f}" if r.flops_run == r.flops_graph else f"{r.flops_run:,.0f} ≠ {r.flops_graph:,.0f}"
            )
            lines.append(f"| {r.model} | {r.layers} | {errors} | {same} | {'yes' if r.passed else 'NO'} |")
        return "\n".join(lines)


@dataclass(slots=True)
class Judge:
    """A reference model with what it computes, so that several runs of the interpreter are compared with one run."""

    reference: Reference
    logits: Any
    growth: float

    @classmethod
    def of(cls, case: Case, seed: int = 0) -> Judge:
        """Build and run the reference of *case*."""
        with one_thread():
            reference = Reference.build(case, seed)
            return cls(reference, reference.run(), reference.growth())


def compare(judge: Judge) -> Compared:
    """Run the interpreter on the graphs of one model and put its logits beside the judge's."""
    reference = judge.reference
    case, spec = reference.case, reference.spec
    total, nan = case.prompt + case.generated, float("nan")
    last = Step("generation", 2, 1, total, "fp32", sampling=False)
    bound = error_bound(build_graph(spec, last), judge.growth)
    try:
        weights = named_weights(spec, case.model_type, reference.state())
        session = Session(spec, weights, case.constants, len(reference.tokens), case.stored)
        out = [session.step(reference.tokens[:, a:b], "generation" if a else "context") for a, b in cuts(case)]
    except (EffsimError, ValueError, KeyError) as error:
        return Compared(case.name, spec.depth, nan, nan, bound, 0.0, 0.0, (), f"{type(error).__name__}: {error}")
    got, wanted = np.concatenate(out, axis=1), judge.logits
    return Compared(
        case.name,
        spec.depth,
        row_error(got[:, : case.prompt], wanted[:, : case.prompt]),
        row_error(got[:, case.prompt :], wanted[:, case.prompt :]),
        bound,
        session.flops_run,
        session.flops_graph,
        tuple(sorted(set(weights) - session.interpreter.used)),
    )


def validate_interpreter(cases: Sequence[Case] = CASES, seed: int = 0) -> InterpreterReport:
    """Execute the graphs of small models and compare them with ``transformers``, prompt and then token by token."""
    return InterpreterReport(tuple(compare(Judge.of(case, seed)) for case in cases))

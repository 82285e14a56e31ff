"""What an operator is compared with: the class whose residuals it shares, and the regime it runs in.

A *class* is kind, phase (of attention; the operation of a collective), number types (or who runs a collective) and how
the kernel was launched. A *regime* is free of units: how far the predicted time lies above its roofline, and how many
launch gaps long it is. A machine whose rates are all k times as high therefore has the same regimes.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Final

from ..graph.operator import Operator
from ..graph.operators.communication import Collective

HALF: Final = ("fp16", "bf16")
"""Types of one size and rate on every device known: one class."""
ENERGY: Final = "energy:"
"""Begins the names of classes and groups that hold ln(measured / predicted) of energies."""
RUN: Final = "run"
"""Kind of the classes that hold ln(measured / predicted) of whole runs."""
ROOF_STEPS: Final = 5
"""Regimes above the roofline: up to 2, 4, 8, 16, 32 times it, and beyond."""
SIZE_FACTOR: Final = 8.0
SIZE_STEPS: Final = 4
"""Regimes of length: up to 1, 8, 64, 512 launch gaps, and beyond."""


def kernel_class(op: Operator, launch: str = "graph") -> str:
    """The class of an operator as ``kind|variant|types|launch``.

    ``launch``: ``graph`` (also any operator inside a run: the gaps of a stream or of a graph are in the prediction) or
    ``eager`` (synchronised, alone).

    >>> from effsim.graph.operators.linear import Linear
    >>> kernel_class(Linear(1, 8, 8, "bf16", weight_dtype="int4"))
    'linear||half/int4|graph'
    """
    if isinstance(op, Collective):
        variant, types = op.op, op.runtime or "engine"
    else:
        variant = str(getattr(op, "phase", ""))
        stored = str(getattr(op, "weight_dtype", "") or getattr(op, "kv_dtype", ""))
        types = _types(str(getattr(op, "dtype", "")), stored)
    return f"{op.kind}|{variant}|{types}|{launch}"


def energy_class(name: str) -> str:
    """The class under which the energy of the kernels of a class is kept."""
    return f"{ENERGY}{name}"


def run_class(phase: str, engine: str) -> str:
    """The class of whole runs of a phase (or, of both, ``generate``) under an engine profile.

    >>> run_class("decode", "vllm-like")
    'run|decode|vllm-like|graph'
    """
    return f"{RUN}|{phase}|{engine}|graph"


def kind_of(name: str) -> str:
    """The kind of a class.

    >>> kind_of("linear||half|graph")
    'linear'
    """
    return name.partition("|")[0]


@cache
def _types(dtype: str, stored: str) -> str:
    first, second = ("half" if name in HALF else name for name in (dtype, stored or dtype))
    return first if first == second else f"{first}/{second}"


def regime(seconds: float, roofline_s: float, gap_s: float) -> str:
    """The regime of a kernel: ``r`` counts doublings above its roofline, ``s`` factors of eight in launch gaps.

    *seconds*: predicted time with its launch, *roofline_s*: its lower bound, *gap_s*: launch gap of the device (without
    one every kernel counts as long).

    >>> regime(3e-6, 1e-6, 1e-6), regime(1.0, 1.0, 0.0)
    ('r1s1', 'r0s4')
    """
    above = ROOF_STEPS if roofline_s <= 0.0 else int(min(ROOF_STEPS, max(0.0, math.log2(seconds / roofline_s))))
    if gap_s <= 0.0 or seconds <= 0.0:
        return f"r{above}s{SIZE_STEPS}"
    size = math.floor(math.log(seconds / gap_s, SIZE_FACTOR)) + 1
    return f"r{above}s{min(SIZE_STEPS, max(0, size))}"

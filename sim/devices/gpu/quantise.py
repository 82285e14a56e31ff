"""Quantising activations before a product in a narrow type: unfused in a framework, or by a library's kernel."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ...graph.dtypes import size_of
from ..kernel import Kernel
from .parameters import GpuParameters
from .pointwise import PointwiseModel, Sweep

WIDE: Final = 4.0
"""Bytes of the fp32 numbers in between."""
SCALED_TOGETHER: Final = 16.0
"""Elements that share a scale of one byte (NVFP4)."""
REDUCED_AT_ONCE: Final = 4096.0
"""Bytes of a row that its block has on the way: 512 threads, four loads of one 16-bit number each."""


def quantise_kernels(
    p: GpuParameters,
    pointwise: PointwiseModel,
    rows: int,
    columns: int,
    source: str,
    target: str,
    at_once: bool = False,
) -> tuple[Kernel, ...]:
    """Largest magnitude of every row, then the scaled, clamped and narrowed copy: one kernel an operation.

    *at_once*: one kernel of a library reads the wide numbers and writes narrow ones and their scales. Types of less
    than a byte are always narrowed so: they come with block scales, which frameworks have no operations for.

    Passes (bytes an element read, written): magnitude, maximum, widen to fp32, divide by the scale, clamp, narrow.
    """
    a, b = size_of(source), size_of(target)
    elements = float(rows) * columns
    passes: tuple[tuple[str, float, float, int], ...] = (
        ("quantise: magnitude", a, a, 0),
        ("quantise: maximum", a, 0.0, rows),
        ("quantise: widen", a, WIDE, 0),
        ("quantise: scale", WIDE, WIDE, 0),
        ("quantise: clamp", WIDE, WIDE, 0),
        ("quantise: narrow", WIDE, b, 0),
    )
    if at_once or b < 1.0:
        scales = 1.0 / SCALED_TOGETHER if b < 1.0 else 0.0
        passes = (("quantise: at once", a, b + scales, 0),)
    kernels = []
    for name, read, write, reduced in passes:
        read_bytes, write_bytes = elements * read, elements * write + reduced * WIDE
        held = p.kept(read_bytes + write_bytes)
        turns = columns * a / REDUCED_AT_ONCE if reduced else 0.0
        sweep = Sweep(
            read_bytes,
            write_bytes,
            read_bytes + write_bytes,  # every pass streams through buffers of its own
            vector_ops=elements,
            rows=reduced,
            chain_s=turns * (p.l2_latency_s + (1.0 - held) * p.memory_latency_s),
        )
        kernel = pointwise.kernel(sweep, name)
        (tile,) = kernel.classes
        tile = replace(tile, serial_s=tile.serial_s - held * p.memory_latency_s)  # L2 answers
        bound = (read_bytes * (1.0 - p.kept_at_best(read_bytes + write_bytes))) / p.memory_peak_bytes_per_s
        terms = tuple((label, bound if label == "memory" else s) for label, s in kernel.terms)
        kernels.append(replace(kernel, classes=(tile,), terms=terms))
    return tuple(kernels)

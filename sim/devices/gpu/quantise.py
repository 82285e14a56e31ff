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
PORTABLE_INSTRUCTIONS: Final = 33.25
"""Instructions an element for the arithmetic pipes where a kernel rounds to eight bits in integer instructions: largest
magnitude of a group of 128 by 16 threads, a full division an element, limits, rounding. vllm-project/vllm
csrc/quantization/w8a8/fp8/per_token_group_quant.cu with the conversion of pytorch/pytorch c10/util/Float8_e4m3fn.h; a
kernel of that form compiled for compute capability 9.0 (nvcc 13) and counted on the path taken: 266 a thread, which has
eight elements, without 25 memory accesses, 62 branches and 21 special functions."""
PORTABLE_ACCESSES: Final = 0.5
"""Its loads and stores an element: eight elements each, from memory to shared memory and from there to memory."""


def quantise_kernels(
    p: GpuParameters, pointwise: PointwiseModel, rows: int, columns: int, source: str, target: str, group: int = 0
) -> tuple[Kernel, ...]:
    """Largest magnitude of every row, then the scaled, clamped and narrowed copy: one kernel an operation.

    Passes (bytes an element read, written): magnitude, maximum, widen to fp32, divide by the scale, clamp, narrow. With
    a scale for every *group* elements: a contiguous copy before and a pass that spreads the scales, and four kernels
    over the scales themselves (lower limit, division, fp32, the layout that the product reads).
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
    if group:
        scale = WIDE / group
        spread = ("quantise: spread scales", scale, WIDE, 0)
        passes = (("quantise: copy", a, a, 0), *passes[:3], spread, *passes[3:])
        passes += tuple(
            (f"quantise: scales, {step}", scale, scale, 0) for step in ("limit", "divide", "widen", "layout")
        )
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


def quantise_kernel(
    p: GpuParameters,
    pointwise: PointwiseModel,
    rows: int,
    columns: int,
    source: str,
    target: str,
    portable: bool = False,
) -> Kernel:
    """The same in one kernel, as engines that own one do it: rows are read once and written narrow.

    Types of less than a byte come with block scales, which are written beside them. *portable*: without the
    instruction that narrows, see :data:`PORTABLE_INSTRUCTIONS`.
    """
    elements, narrow = float(rows) * columns, size_of(target)
    scale = 1.0 / SCALED_TOGETHER if narrow < 1.0 else 0.0
    read, write = elements * size_of(source), elements * (narrow + scale)
    moved = read + write
    sweep = Sweep(
        read,
        write,
        moved * (1.0 - p.kept(moved)),
        vector_ops=4.0 * elements,
        instructions=PORTABLE_INSTRUCTIONS * elements if portable else 0.0,
        accesses=PORTABLE_ACCESSES * elements if portable else 0.0,
    )
    kernel = pointwise.kernel(sweep, "quantise")
    bound = moved * (1.0 - p.kept_at_best(moved)) / p.memory_peak_bytes_per_s
    return replace(kernel, terms=tuple((label, bound if label == "memory" else s) for label, s in kernel.terms))

"""An FPGA board's numbers as plain floats, derived once from its specification."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...errors import UnsupportedError
from ...graph.dtypes import dtype
from ...spec.fpga import FpgaSpec
from .resources import BRAM18_BYTES, URAM_BYTES, DspKind, Resources, macs_per_dsp, mvau_lut

FLOATS_16 = ("fp16", "bf16")
FLOATS_32 = ("fp32", "tf32")
INTEGERS = ("int1", "int2", "int4", "int8", "int16", "int32")
SUPPORTED = (*FLOATS_16, *FLOATS_32, *INTEGERS)
"""Types that designs here compute in; fp8, fp6 and fp4 are accepted as stored weights, which are widened on the way."""

BRAM18_PORT_BYTES = 4.5
"""Bytes a clock from one 18 Kbit block (36 bits)."""

URAM_PORT_BYTES = 9.0
"""Bytes a clock from one UltraRAM (72 bits)."""


@dataclass(frozen=True, slots=True)
class Engine:
    """The overlay's matrix arrays in one type: ``cores`` of ``pe × simd`` multiply-adds."""

    cores: int
    pe: int
    simd: int
    lut: float

    @property
    def macs(self) -> int:
        """Multiply-adds of all cores in a clock."""
        return self.cores * self.pe * self.simd


@dataclass(frozen=True, slots=True)
class FpgaParameters:
    """SI numbers of one board."""

    name: str
    clock_hz: float
    budget: Resources
    dsp_kind: DspKind
    fp16_dsps: int
    fp32_dsps: int
    memory_bytes_per_s: float
    memory_peak: float
    memory_latency_s: float
    cores: int
    simd: int
    dsp_share: float
    buffer_bytes: float
    chip_bytes: float
    buffer_bytes_per_s: float
    vector_ops_per_s: float
    special_ops_per_s: float
    depth_s: float

    @classmethod
    def from_spec(cls, spec: FpgaSpec) -> FpgaParameters:
        """Derive from an FPGA file; the budget is what is usable less what the platform takes."""
        clock, budget = float(spec.clock), budget_of(spec)
        chip = budget.bram18 * BRAM18_BYTES + budget.uram * URAM_BYTES
        ports = budget.bram18 * BRAM18_PORT_BYTES + budget.uram * URAM_PORT_BYTES
        return cls(
            name=spec.name,
            clock_hz=clock,
            budget=budget,
            dsp_kind=spec.fabric.dsp_kind,
            fp16_dsps=int(spec.fabric.fp16_dsps),
            fp32_dsps=int(spec.fabric.fp32_dsps),
            memory_bytes_per_s=float(spec.memory.bandwidth) * float(spec.memory.stream_fraction),
            memory_peak=float(spec.memory.bandwidth),
            memory_latency_s=float(spec.memory.latency),
            cores=int(spec.overlay.cores),
            simd=int(spec.overlay.simd),
            dsp_share=float(spec.overlay.dsp_share),
            buffer_bytes=chip * float(spec.overlay.buffer_share),
            chip_bytes=chip,
            buffer_bytes_per_s=ports * clock,
            vector_ops_per_s=float(spec.overlay.vector) * clock,
            special_ops_per_s=float(spec.overlay.special) * clock,
            depth_s=float(spec.overlay.depth) / clock,
        )

    def macs_per_dsp(self, name: str) -> float:
        """Multiply-adds of one DSP and clock in a type.

        Raises:
            UnsupportedError: designs here do not compute in it; lists those they do.
        """
        kind = dtype(name)
        if kind.name in FLOATS_16:
            return 1.0 / self.fp16_dsps
        if kind.name in FLOATS_32:
            return 1.0 / self.fp32_dsps
        if kind.name in INTEGERS:
            return macs_per_dsp(kind.bits, self.dsp_kind)
        raise UnsupportedError(f"{self.name} has no {name} arithmetic; it supports {', '.join(SUPPORTED)}")

    def engine(self, name: str) -> Engine:
        """The largest overlay for a type: DSPs first, then LUTs of the adder trees (FINN's form, float trees in DSPs).

        Raises:
            UnsupportedError: the type is not supported, or not one column of ``simd`` products fits.
        """
        macs = self.budget.dsp * self.dsp_share * self.macs_per_dsp(name)
        pe = math.floor(macs / (self.cores * self.simd))
        bits = dtype(name).bits
        if dtype(name).is_float:
            lut = 0.0
        else:
            one = mvau_lut(1 << 16, 1, self.simd, bits, bits, multipliers="dsp") * self.cores
            pe = min(pe, math.floor(self.budget.lut / one))
            lut = one * pe
        if pe < 1:
            raise UnsupportedError(
                f"{self.name}: {self.cores} cores of {self.simd} {name} products do not fit "
                f"{self.budget.dsp:.0f} DSPs; lower overlay.cores or overlay.simd"
            )
        return Engine(self.cores, pe, self.simd, lut)

    def kept(self, size_bytes: float) -> float:
        """Share of activations of that size that the buffers still hold for the next operator (none from twice on)."""
        return min(1.0, max(0.0, 2.0 - size_bytes / self.buffer_bytes))

    def kept_at_best(self, size_bytes: float) -> float:
        """Largest share that all memory on the chip could hold: for lower bounds."""
        return min(1.0, self.chip_bytes / max(size_bytes, 1.0))


def budget_of(spec: FpgaSpec) -> Resources:
    """Resources of a design: the usable share of the fabric less what the platform takes."""
    f, u, s = spec.fabric, spec.usable, spec.shell
    return Resources(
        lut=f.lut * u.lut - s.lut,
        dsp=f.dsp * u.dsp - s.dsp,
        bram18=f.bram18 * u.bram18 - s.bram18,
        uram=f.uram * u.uram - s.uram,
    )

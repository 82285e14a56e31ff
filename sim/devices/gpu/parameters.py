"""A GPU's numbers as plain floats, derived once from its specification."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ...errors import UnsupportedError
from ...memory.achieved import Achieved, of_memory
from ...spec.gpu_kernels import GemmKernels
from ...spec.hardware import GpuSpec

WARP_THREADS = 32
"""Threads of a warp on NVIDIA GPUs, and the granularity in which tile files count (AMD wavefronts are two of them)."""

WORKING_REGISTERS = 64.0
"""Registers of a thread beside its accumulators: addresses, operands, masks. Assumed."""

ACCUMULATOR_BYTES = 4.0
"""Bytes of one fp32 accumulator register."""

DEQUANT_OPS = 1.5
"""Vector operations to widen one weight: extract, convert, scale, for two weights of a register at once."""


@dataclass(frozen=True, slots=True)
class GpuParameters:
    """SI numbers of one GPU; per-SM rates are at the clock held under load, ``peak_*`` at the highest clock.

    ``search`` replaces the search for a product's tile where many GPUs are looked at together.
    """

    units: int
    clock_hz: float
    peak_clock_hz: float
    matrix_flops: dict[str, float]
    vector_flops: dict[str, float]
    special_ops: float
    l1_bytes_per_s: float
    l1_latency_s: float
    shared_bytes: float
    register_bytes: float
    max_threads: int
    max_blocks: int
    l2_capacity_bytes: float
    l2_whole_bytes: float
    l2_bytes_per_s: float
    l2_latency_s: float
    memory_bytes_per_s: float
    memory_peak_bytes_per_s: float
    memory_latency_s: float
    shares: Achieved
    search: Callable[..., None] | None = None

    @classmethod
    def from_spec(cls, spec: GpuSpec, shares: Achieved | None = None) -> GpuParameters:
        """Derive from a GPU file. An L2 in two partitions offers half its capacity to data shared by all SMs.

        *shares* are those of its memory part, where they are known already.
        """
        clock = float(spec.clock.sustained or spec.clock.boost)
        peak = max(clock, float(spec.clock.boost))
        sm = spec.sm
        shares = shares or of_memory(spec.memory.dram, spec.memory.stream_fraction)
        return cls(
            units=int(sm.count),
            clock_hz=clock,
            peak_clock_hz=peak,
            matrix_flops={name: float(rate) * clock for name, rate in spec.matrix.items()},
            vector_flops={name: float(rate) * clock for name, rate in spec.vector.items()},
            special_ops=float(spec.special) * clock,
            l1_bytes_per_s=float(sm.l1.bandwidth) * clock,
            l1_latency_s=float(sm.l1.latency or 0.0),
            shared_bytes=float(sm.shared_memory),
            register_bytes=float(sm.registers),
            max_threads=int(sm.max_threads),
            max_blocks=int(sm.max_blocks),
            l2_capacity_bytes=float(spec.l2.capacity) * (1.0 if spec.l2.unified else 0.5),
            l2_whole_bytes=float(spec.l2.capacity),
            l2_bytes_per_s=float(spec.l2.bandwidth),
            l2_latency_s=float(spec.l2.latency),
            memory_bytes_per_s=float(spec.memory.bandwidth) * shares.read,
            memory_peak_bytes_per_s=float(spec.memory.bandwidth),
            memory_latency_s=float(spec.memory.latency),
            shares=shares,
        )

    def kept(self, size_bytes: float) -> float:
        """Share of a tensor of that size that L2 still holds when the next kernel reads it.

        All of it up to the capacity, none from twice the capacity on (a stream longer than an LRU cache evicts itself).
        """
        return min(1.0, max(0.0, 2.0 - size_bytes / self.l2_capacity_bytes))

    def kept_at_best(self, size_bytes: float) -> float:
        """Largest share that any replacement policy could hold: for lower bounds."""
        return min(1.0, self.l2_whole_bytes / max(size_bytes, 1.0))

    def gather_bytes_per_s(self, run_bytes: float) -> float:
        """Memory bandwidth for reads of contiguous *run_bytes* at unrelated places."""
        return self.memory_peak_bytes_per_s * self.shares.run(run_bytes)

    def flow(self, in_flight_bytes: float) -> float:
        """Bytes a second that *in_flight_bytes* sustain against the memory latency; no limit where there is none."""
        return in_flight_bytes / self.memory_latency_s if self.memory_latency_s else math.inf

    @property
    def boost_ratio(self) -> float:
        """Highest clock over the clock under load: rooflines use the former."""
        return self.peak_clock_hz / self.clock_hz

    def matrix_rate(self, dtype: str, device: str) -> float:
        """Matrix FLOP/s of one SM in *dtype*; vector units stand in where there is no matrix unit for it.

        Raises:
            UnsupportedError: neither unit has the type; lists those that are there.
        """
        rate = self.matrix_flops.get(dtype) or self.vector_flops.get(dtype)
        if rate is None and dtype == "fp32":
            rate = self.vector_flops["fp32"]
        if rate is None:
            have = ", ".join(dict.fromkeys([*self.matrix_flops, *self.vector_flops]))
            raise UnsupportedError(f"{device} has no {dtype} arithmetic; it supports {have}")
        return rate

    def vector_rate(self, dtype: str) -> float:
        """Vector FLOP/s of one SM (multiply-add = 2); types without a rate of their own compute in fp32."""
        return self.vector_flops.get(dtype, self.vector_flops["fp32"])

    def vector_op_rate(self) -> float:
        """Vector operations that are no multiply-add: one a lane and clock, half the FLOP rate."""
        return self.vector_flops["fp32"] / 2.0

    def instruction_rate(self) -> float:
        """Lanes of one SM that issue an instruction of ordinary code a second: half floating point, half integer.

        Addresses, loop counts and comparisons are integer work, which some generations do on fewer lanes.
        """
        integer = self.vector_flops.get("int32", self.vector_flops["fp32"])
        return 1.0 / (1.0 / self.vector_flops["fp32"] + 1.0 / integer)


def tile_table(habits: GemmKernels) -> list[list[float]]:
    """GEMM tiles of the generation, a row each: m, n, k, stages, warps_m, warps_n."""
    return [
        [float(t.m), float(t.n), float(t.k), float(t.stages), float(t.warps_m), float(t.warps_n)] for t in habits.tiles
    ]

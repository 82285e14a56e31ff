"""A systolic accelerator's numbers as plain floats, derived once from its specification."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import UnsupportedError
from ...memory.achieved import Achieved, of_memory
from ...spec.systolic import SystolicSpec
from ..steps import SweepStep
from .folds import Buffers, Grid
from .scalesim import Ports

MULTIPLY_ADD = 2.0
"""FLOP of the one multiply-add that a cell of rate 1 does a cycle."""


@dataclass(frozen=True, slots=True)
class SystolicParameters:
    """SI numbers of one device; ``peak_*`` and lower bounds at the highest clock, the rest at the clock held."""

    clock_hz: float
    peak_clock_hz: float
    grid: Grid
    cells: int
    units: int
    cores: int
    matrix: dict[str, float]
    computes_as: dict[str, str]
    vector_flops: float
    special_ops: float
    vector_step_s: float
    buffers: Buffers
    on_chip_bytes: float
    keeps_activations: bool
    memory_bytes_per_s: float
    shares: Achieved
    memory_peak_bytes_per_s: float
    memory_latency_s: float
    widths: tuple[float, float, float] | None
    unlimited: bool
    ports: Ports | None
    kept: int
    block: int

    @classmethod
    def from_spec(cls, spec: SystolicSpec) -> SystolicParameters:
        """Derive from a file."""
        clock = float(spec.clock.sustained or spec.clock.boost)
        array, memory, cores = spec.array, spec.memory, int(spec.array.cores)
        widths = _widths(spec)
        shares = of_memory(memory.dram, memory.stream_fraction)
        shift = spec.os_drain == "shift"
        grid = Grid(int(array.rows), int(array.columns), spec.dataflow, spec.weight_double_buffer, shift)
        s = spec.sram
        held = float(s.shared or 0.0) or sum(float(x or 0.0) for x in (s.input, s.weight, s.output))
        return cls(
            clock_hz=clock,
            peak_clock_hz=max(clock, float(spec.clock.boost)),
            grid=grid,
            cells=grid.rows * grid.columns,
            units=int(array.count) * cores,
            cores=cores,
            matrix={str(name): float(rate) for name, rate in spec.matrix.items()},
            computes_as={str(name): str(other) for name, other in spec.computes_as.items()},
            vector_flops=float(spec.vector["fp32"]) * clock,
            special_ops=float(spec.special) * clock,
            vector_step_s=float(spec.vector_latency) / clock,
            buffers=_buffers(spec),
            on_chip_bytes=held,
            keeps_activations=s.keeps_activations,
            memory_bytes_per_s=float(memory.bandwidth) * shares.read,
            shares=shares,
            memory_peak_bytes_per_s=float(memory.bandwidth),
            memory_latency_s=float(memory.latency),
            widths=None if widths is None else (widths[0] * clock, widths[1] * clock, widths[2] * clock),
            unlimited=spec.interface.mode == "calc",
            ports=None if widths is None or spec.compat is None else _ports(spec, widths),
            kept=int(spec.sparsity.kept) if spec.sparsity else 1,
            block=int(spec.sparsity.block) if spec.sparsity else 1,
        )

    def sweep_bytes_per_s(self, step: SweepStep) -> float:
        """Memory bandwidth for the mix of reading and writing of a pass."""
        return self.memory_peak_bytes_per_s * self.shares.sweep(step.write_share, step.run_bytes)

    @property
    def boost_ratio(self) -> float:
        """Highest clock over the clock held."""
        return self.peak_clock_hz / self.clock_hz

    def cell_rate(self, dtype: str, device: str) -> float:
        """FLOP of one cell a cycle in *dtype*, or in the type that it is computed in.

        Raises:
            UnsupportedError: the grid has no arithmetic for it; lists what there is.
        """
        rate = self.matrix.get(self.computes_as.get(dtype, dtype))
        if rate is None:
            have = ", ".join(dict.fromkeys([*self.matrix, *self.computes_as]))
            raise UnsupportedError(f"{device} has no {dtype} arithmetic; it supports {have}")
        return rate

    def resident(self, size_bytes: float) -> float:
        """Share of activations of that size that are still on chip: all up to the capacity, none from twice it on."""
        if not self.keeps_activations:
            return 0.0
        return min(1.0, max(0.0, 2.0 - size_bytes / self.on_chip_bytes))

    def resident_at_best(self, size_bytes: float) -> float:
        """Largest share that any schedule could keep on chip: for lower bounds."""
        return min(1.0, self.on_chip_bytes / max(size_bytes, 1.0)) if self.keeps_activations else 0.0

    @property
    def vector_ops_per_s(self) -> float:
        """Operations of one core that are no multiply-add: one a lane and cycle."""
        return self.vector_flops / MULTIPLY_ADD


def _buffers(spec: SystolicSpec) -> Buffers:
    s, usable = spec.sram, 0.5 if spec.sram.double_buffered else 1.0
    shared = float(s.shared or 0.0) * usable
    output = float(s.output or 0.0) * usable
    sums = float(s.accumulators) if s.accumulators is not None else output or shared / 3.0
    return Buffers(float(s.input or 0.0) * usable, float(s.weight or 0.0) * usable, output, shared, sums)


def _widths(spec: SystolicSpec) -> tuple[float, float, float] | None:
    """Bytes a cycle of the ports of inputs, weights and results; None without ports of their own."""
    i = spec.interface
    if i.mode != "user":
        return None
    one = i.bandwidth or 0.0
    return float(i.input or one), float(i.weight or one), float(i.output or one)


def _ports(spec: SystolicSpec, widths: tuple[float, float, float]) -> Ports:
    s = spec.sram
    sizes = [int(float(size or 0.0)) for size in (s.input, s.weight, s.output)]
    whole = [max(1, int(width)) for width in widths]
    return Ports(sizes[0], sizes[1], sizes[2], whole[0], whole[1], whole[2])

"""A CPU's numbers as plain floats, derived once from its specification."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...errors import UnsupportedError
from ...spec.cpu import CpuSpec


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """How one core computes in a type.

    ``rate`` is FLOP/s at the clock held under that work, ``peak`` at the highest clock. ``on_matrix``: the matrix unit
    does it, so that vector work runs beside it. ``converts``: operands are widened element by element on the way.
    """

    rate: float
    peak: float
    on_matrix: bool
    converts: bool


@dataclass(frozen=True, slots=True)
class CpuParameters:
    """SI numbers of one server; rates are those of one core unless they say ``shared``."""

    name: str
    units: int
    clock_hz: float
    matrix: dict[str, float]
    vector: dict[str, float]
    widen: dict[str, str]
    vector_hz: float
    matrix_hz: float
    peak_hz: float
    special: float
    dequantise: float
    l1_bytes: float
    l1_bytes_per_s: float
    l2_bytes: float
    l2_bytes_per_s: float
    stream_bytes_per_s: float
    l3_stream_bytes_per_s: float
    shared_l3_bytes_per_s: float
    caches_bytes: float
    domains: int
    shared_memory_bytes_per_s: float
    shared_memory_peak: float
    first_load_s: float
    fork_join_s: float
    weights_cached: bool
    elementwise: dict[str, dict[str, float]]
    fresh_above: float
    fresh_bytes_per_s: float

    @classmethod
    def from_spec(cls, spec: CpuSpec) -> CpuParameters:
        """Derive from a CPU file.

        Threads fill one socket after another. ``interleaved`` pages lie on all sockets: of every byte a share
        (S − 1)/S crosses between sockets, so that U reading sockets together get at most
        min(S·BW, U·BW_between·S/(S − 1)).
        """
        cores, sockets = int(spec.core.count), int(spec.sockets)
        units = int(spec.threads) if spec.threads is not None else cores * sockets
        used = -(-units // cores)
        own = float(spec.memory.bandwidth) * float(spec.memory.stream_fraction)
        memory, peak, latency = used * own, used * float(spec.memory.bandwidth), float(spec.memory.latency)
        if spec.numa is not None and sockets > 1 and spec.numa.placement == "interleaved":
            between = used * float(spec.numa.bandwidth) * sockets / (sockets - 1)
            memory, peak = min(sockets * own, between), min(sockets * float(spec.memory.bandwidth), between)
            latency += float(spec.numa.latency) * (sockets - 1) / sockets
        vector_hz = float(spec.clock.vector or spec.clock.boost)
        matrix_hz = float(spec.clock.matrix or vector_hz)
        private = 0.0 if spec.l3.inclusive else units * float(spec.core.l2.capacity)
        return cls(
            name=spec.name,
            units=units,
            clock_hz=vector_hz,
            matrix={name: float(rate) for name, rate in spec.matrix.items()},
            vector={name: float(rate) for name, rate in spec.vector.items()},
            widen={str(a): str(b) for a, b in spec.widen.items()},
            vector_hz=vector_hz,
            matrix_hz=matrix_hz,
            peak_hz=max(float(spec.clock.boost), vector_hz, matrix_hz),
            special=float(spec.kernels.special),
            dequantise=float(spec.kernels.dequantise),
            l1_bytes=float(spec.core.l1.capacity),
            l1_bytes_per_s=float(spec.core.l1.bandwidth) * vector_hz,
            l2_bytes=float(spec.core.l2.capacity),
            l2_bytes_per_s=float(spec.core.l2.bandwidth) * vector_hz,
            stream_bytes_per_s=float(spec.core.stream),
            l3_stream_bytes_per_s=float(spec.core.l3_stream),
            shared_l3_bytes_per_s=used * float(spec.l3.bandwidth),
            caches_bytes=used * float(spec.l3.capacity) + private,
            domains=used * int(spec.l3.slices),
            shared_memory_bytes_per_s=memory,
            shared_memory_peak=peak,
            first_load_s=latency + float(spec.l3.latency),
            fork_join_s=float(spec.kernels.fork_join),
            weights_cached=spec.kernels.weights_cached,
            elementwise={d: {k: float(c) for k, c in rates.items()} for d, rates in spec.kernels.elementwise.items()},
            fresh_above=float(spec.memory.fresh.above) if spec.memory.fresh is not None else math.inf,
            fresh_bytes_per_s=float(spec.memory.fresh.bandwidth) if spec.memory.fresh is not None else math.inf,
        )

    def cycles_per_element(self, dtype: str, kind: str) -> float | None:
        """Measured core cycles of one result in cache; None where the file has none and operations are counted."""
        return self.elementwise.get(dtype, {}).get(kind)

    def fresh_s(self, result_bytes: float, cores: int) -> float:
        """Seconds in which *cores* fault and clear the pages of a result that is mapped anew; 0 for smaller ones."""
        return result_bytes / (self.fresh_bytes_per_s * cores) if result_bytes > self.fresh_above else 0.0

    def wait_s(self, read_bytes: float, memory_bytes: float, persistent: float, cores: int) -> float:
        """Seconds in which one of *cores* waits for its share of a row-wise reduction's input.

        *memory_bytes* of the operator's traffic come from memory, the rest of the input from the last-level cache as
        far as L2 does not hold it.
        """
        passing = max(0.0, read_bytes - persistent)
        own = min(passing, memory_bytes) / cores
        near = max(0.0, passing * self.beyond_l2(2.0 * passing, cores) / cores - own)
        return own / self.stream_bytes_per_s + near / self.l3_stream_bytes_per_s

    def beyond_l2(self, size_bytes: float, cores: int) -> float:
        """Share of activations of that size that the L2 caches of *cores* do not hold for the next kernel.

        As :meth:`kept`, one level up: every core comes back to the rows it wrote.
        """
        return 1.0 - min(1.0, max(0.0, 2.0 - size_bytes / (cores * self.l2_bytes)))

    def kept(self, size_bytes: float) -> float:
        """Share of activations of that size that the caches still hold for the next kernel.

        All up to the capacity, none from twice the capacity on (a stream longer than an LRU cache evicts itself).
        """
        return min(1.0, max(0.0, 2.0 - size_bytes / self.caches_bytes))

    def kept_at_best(self, size_bytes: float) -> float:
        """Largest share that any replacement policy could hold: for lower bounds."""
        return min(1.0, self.caches_bytes / max(size_bytes, 1.0))

    def from_memory(self, persistent: float, passing: float) -> tuple[float, float]:
        """(expected, least) bytes from memory of a kernel with weights and activations of these sizes."""
        lasting = persistent
        least = persistent
        if self.weights_cached:
            lasting *= 1.0 - self.kept(persistent + passing)
            least *= 1.0 - self.kept_at_best(persistent)
        expected = lasting + passing * (1.0 - self.kept(passing))
        return expected, min(expected, least + passing * (1.0 - self.kept_at_best(passing)))

    def arithmetic(self, dtype: str) -> Arithmetic:
        """How a core computes products in *dtype*.

        Raises:
            UnsupportedError: no unit has the type and nothing widens it; lists those that can be used.
        """
        converts = dtype not in self.matrix and dtype not in self.vector
        unit = self.widen.get(dtype, "") if converts else dtype
        if unit in self.matrix:
            return Arithmetic(self.matrix[unit] * self.matrix_hz, self.matrix[unit] * self.peak_hz, True, converts)
        if unit in self.vector:
            return Arithmetic(self.vector[unit] * self.vector_hz, self.vector[unit] * self.peak_hz, False, converts)
        have = ", ".join(dict.fromkeys([*self.matrix, *self.vector, *self.widen]))
        raise UnsupportedError(f"{self.name} has no {dtype} arithmetic; it supports {have}")

    @property
    def vector_ops_per_s(self) -> float:
        """Vector operations that are no multiply-add: half the fp32 FLOP rate of one core."""
        return self.vector["fp32"] * self.vector_hz / 2.0

    @property
    def vector_ops_peak(self) -> float:
        """The same at the highest clock."""
        return self.vector["fp32"] * self.peak_hz / 2.0

    def flow(self, l3_bytes: float, memory_bytes: float) -> float:
        """Bytes a second of one core on a mix of memory and last-level cache, counted on the larger of both."""
        beyond = max(0.0, l3_bytes - memory_bytes)
        seconds = memory_bytes / self.stream_bytes_per_s + beyond / self.l3_stream_bytes_per_s
        return max(l3_bytes, memory_bytes) / seconds if seconds > 0.0 else self.l3_stream_bytes_per_s

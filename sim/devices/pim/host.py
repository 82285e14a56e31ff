"""The host beside the memory: products, passes and softmax on its own units, behind the memory's interface."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import UnsupportedError
from ...graph.dtypes import size_of
from ...graph.operators.attention import SOFTMAX_VECTOR_PER_SCORE, Attention
from ...memory.achieved import IDEAL, Achieved, of_memory
from ...spec.pim import PimSpec
from ..kernel import Kernel, TileClass
from ..steps import ProductStep, SweepStep

WIDEN_OPS = 2.0
"""Vector operations to widen one stored element: extract and convert."""


Detail = tuple[tuple[str, float | str], ...]
Terms = tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class HostParameters:
    """SI numbers of the host. ``own_*`` is where activations and weights that the memory does not multiply lie."""

    name: str
    matrix: dict[str, float]
    widen: dict[str, str]
    efficiency: float
    vector_flops: float
    special_ops: float
    buffer_bytes: float
    buffer_bytes_per_s: float
    latency_s: float
    own_bytes_per_s: float
    own_peak: float
    own_shares: Achieved
    shared_bytes_per_s: float
    shared_peak: float

    @classmethod
    def from_spec(cls, spec: PimSpec) -> HostParameters:
        """Derive from a device file; without memory of its own the host uses the one that computes."""
        h, m = spec.host, spec.host.memory
        shared = float(spec.memory.bandwidth)
        pins = IDEAL if spec.memory.dram is None else of_memory(spec.memory.dram, None)
        link = 1.0 if spec.memory.link_payload is None else float(spec.memory.link_payload)
        through = shared * min(pins.read, link)
        own = pins.anchored(min(pins.read, link)) if m is None else of_memory(m.dram, m.stream_fraction)
        peak = shared if m is None else float(m.bandwidth)
        return cls(
            name=spec.name,
            matrix={str(k): float(v) for k, v in h.matrix.items()},
            widen={str(k): str(v) for k, v in h.widen.items()},
            efficiency=float(h.efficiency),
            vector_flops=float(h.vector),
            special_ops=float(h.special),
            buffer_bytes=float(h.buffer),
            buffer_bytes_per_s=float(h.buffer_bandwidth),
            latency_s=float(h.latency),
            own_bytes_per_s=peak * own.read,
            own_peak=peak,
            own_shares=own,
            shared_bytes_per_s=through,
            shared_peak=shared,
        )

    def matrix_flops(self, dtype: str) -> float:
        """Matrix rate in *dtype* or the type it is widened to; 0 where there is neither."""
        return self.matrix.get(dtype) or self.matrix.get(self.widen.get(dtype, ""), 0.0)

    def converts(self, dtype: str, stored: str) -> bool:
        """Elements must be widened on the way."""
        narrow = bool(stored) and size_of(stored) < size_of(dtype)
        return narrow or (dtype not in self.matrix and dtype in self.widen)

    def kept(self, size_bytes: float) -> float:
        """Share of activations that stay on chip: all up to the buffer, none from twice its size on."""
        return min(1.0, max(0.0, 2.0 - size_bytes / self.buffer_bytes))

    def kept_at_best(self, size_bytes: float) -> float:
        """Largest share that any policy keeps: for lower bounds."""
        return min(1.0, self.buffer_bytes / max(size_bytes, 1.0))


@dataclass(frozen=True, slots=True)
class HostWork:
    """A kernel of the host: FLOP by unit, bytes by place. ``shared_bytes`` cross the interface of the memory."""

    name: str
    matrix_flops: float
    dtype: str
    vector_ops: float
    special_ops: float
    own_bytes: float
    shared_bytes: float
    buffer_bytes: float
    runs: int = 1
    serial_chain: int = 0


class HostModel:
    """Prices host kernels: the slowest of matrix, vector and special unit, buffer, and memory."""

    def __init__(self, parameters: HostParameters) -> None:
        self.p = parameters

    def seconds(self, work: HostWork) -> tuple[float, str]:
        """Time of the units on data that is there, and the unit that takes longest."""
        p = self.p
        vector = 2.0 * work.vector_ops / p.vector_flops + work.special_ops / p.special_ops
        if not work.matrix_flops:
            return vector, "vector"
        return max((work.matrix_flops / (p.matrix_flops(work.dtype) * p.efficiency), "matrix"), (vector, "vector"))

    def kernel(self, work: HostWork, terms: Terms, more: Detail = (), rate: float = 0.0) -> Kernel:
        """One kernel; bytes of both memories count at the rate of the one they come from.

        *rate*: bytes a second of the host's own memory for this access pattern; a read stream's if 0.
        """
        p = self.p
        own = rate or p.own_bytes_per_s
        busy, binding = self.seconds(work)
        # Both memories in one number: bytes of the shared one are weighted by how much slower (or faster) it is.
        moved = work.own_bytes + work.shared_bytes * own / p.shared_bytes_per_s
        tile = TileClass(
            count=1,
            busy_s=busy * work.runs,
            serial_s=p.latency_s * (work.runs + work.serial_chain),
            l2_bytes=work.buffer_bytes * work.runs,
            memory_bytes=moved * work.runs,
        )
        return Kernel(
            name=work.name,
            classes=(tile,),
            units=1,
            slots=1,
            l2_bytes_per_s=p.buffer_bytes_per_s,
            memory_bytes_per_s=own,
            terms=terms,
            binding=binding,
            detail=(
                ("where", "host"),
                ("unit_s", busy * work.runs),
                ("interface_bytes", work.shared_bytes * work.runs),
                *more,
            ),
        )

    def product(self, step: ProductStep, shared: bool, terms: Terms, more: Detail = ()) -> Kernel | None:
        """A product on the host; None where it has no arithmetic of the type. *shared*: weights lie in the memory."""
        p = self.p
        if not p.matrix_flops(step.dtype):
            return None
        passing = step.a_bytes + (0.0 if step.b_persistent else step.b_bytes)
        passing += 0.0 if step.c_persistent else step.c_bytes
        lasting = (step.b_bytes if step.b_persistent else 0.0) + (step.c_bytes if step.c_persistent else 0.0)
        moved = passing * (1.0 - p.kept(max(passing, step.live_bytes)))
        elements = float(step.n) * step.k * step.batch
        work = HostWork(
            name=f"{step.name} on host",
            matrix_flops=step.flops,
            dtype=step.dtype,
            vector_ops=WIDEN_OPS * elements if p.converts(step.dtype, step.b_dtype) else 0.0,
            special_ops=0.0,
            own_bytes=moved + (0.0 if shared else lasting),
            shared_bytes=lasting if shared else 0.0,
            buffer_bytes=passing + lasting,
            runs=step.repeat,
        )
        return self.kernel(work, terms, more)

    def sweep(self, step: SweepStep, shared: float, terms: Terms) -> Kernel:
        """A pass over data; *shared* bytes of it cross the interface of the memory."""
        p = self.p
        passing = max(0.0, step.total_bytes - step.persistent_bytes)
        work = HostWork(
            name=f"{step.name} on host",
            matrix_flops=0.0,
            dtype="fp32",
            vector_ops=step.vector_ops,
            special_ops=step.special_ops,
            own_bytes=passing * (1.0 - p.kept(passing)) + (0.0 if shared else step.persistent_bytes),
            shared_bytes=shared,
            buffer_bytes=step.total_bytes,
        )
        return self.kernel(work, terms, rate=p.own_peak * p.own_shares.sweep(step.write_share, step.run_bytes))

    def attention(self, op: Attention, shared: bool, terms: Terms, more: Detail = ()) -> Kernel | None:
        """Fused attention on the host: keys and values once, scores on chip."""
        p = self.p
        if not p.matrix_flops(op.dtype):
            return None
        arithmetic = op.arithmetic()
        passing = op.bytes_moved - op.kv_bytes
        stored = op.kv_bytes / size_of(op.stored_dtype)
        cached = op.phase == "generation"
        size = 0.0 if cached else op.kv_bytes * (1.0 - p.kept(op.bytes_moved))
        work = HostWork(
            name=f"attention {op.phase} on host",
            matrix_flops=arithmetic.matrix,
            dtype=op.dtype,
            vector_ops=arithmetic.vector + (WIDEN_OPS * stored if p.converts(op.dtype, op.stored_dtype) else 0.0),
            special_ops=arithmetic.special,
            own_bytes=passing * (1.0 - p.kept(passing)) + size + (op.kv_bytes if cached and not shared else 0.0),
            shared_bytes=op.kv_bytes if cached and shared else 0.0,
            buffer_bytes=op.bytes_moved,
        )
        return self.kernel(work, terms, more)

    def require(self, dtype: str, others: list[str]) -> None:
        """Refuse a type that neither host nor memory multiplies.

        Raises:
            UnsupportedError: lists the types that can be used.
        """
        if not self.p.matrix_flops(dtype):
            have = ", ".join(dict.fromkeys([*self.p.matrix, *self.p.widen, *others]))
            raise UnsupportedError(f"{self.p.name} has no {dtype} arithmetic; it supports {have}")


def softmax_seconds(scores: float, vector_flops: float, special_ops: float) -> float:
    """Vector and special time of a softmax over so many scores, one after the other on the same unit."""
    return 2.0 * SOFTMAX_VECTOR_PER_SCORE * scores / vector_flops + scores / special_ops

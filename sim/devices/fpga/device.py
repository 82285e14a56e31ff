"""An FPGA board behind the device seam: the overlay operator by operator, or a graph folded into streaming stages."""

from __future__ import annotations

from ...graph.graph import Graph, Node
from ...graph.operator import Operator
from ...graph.operators.communication import Collective, HostTransfer
from ...network.collectives import CollectiveCosts
from ...network.topology import Network
from ...spec.fpga import FpgaSpec
from ..device import LaunchCosts, Lowered
from ..kernel import Kernel
from ..stepped import SteppedDevice, bare_network
from ..steps import AttentionStep, ProductStep, SweepStep
from .dataflow import Mapping, map_graph
from .overlay import OverlayModel
from .parameters import FpgaParameters


class FpgaDevice(SteppedDevice):
    """An FPGA board built from its file; *network* joins it to its peers."""

    def __init__(self, spec: FpgaSpec, network: Network | None = None) -> None:
        super().__init__()
        p = FpgaParameters.from_spec(spec)
        self.name, self.spec, self.parameters = spec.name, spec, p
        self.network = network or bare_network({str(k): v for k, v in spec.links.items()})
        gap, enqueue = float(spec.launch.instruction), float(spec.launch.enqueue)
        if spec.mode == "dataflow":  # stages wait for data, not for instructions
            gap = 0.0
        self.launch = LaunchCosts(gap_s=gap, stream_gap_s=gap, dispatch_s=enqueue, isolated_s=enqueue + gap)
        self.memory_capacity_bytes = float(spec.memory.capacity)
        self.memory_reserved_bytes = float(spec.memory.reserved)
        self.memory_peak_bytes_per_s = p.memory_peak
        self.power_limit_w = float(spec.power.limit)
        self.price_usd_per_hour = None if spec.price.hourly is None else float(spec.price.hourly)
        c = spec.collective
        self.collective_costs = CollectiveCosts(
            float(c.setup), float(c.step), float(c.efficiency), float(c.one_shot_limit)
        )
        self.host_bytes_per_s = float(spec.host.bandwidth) if spec.host is not None else 0.0
        self.host_latency_s = float(spec.host.latency) if spec.host is not None else 0.0
        self._overlay = OverlayModel(p)
        self.mapping: Mapping | None = None
        self._shares: dict[Operator, tuple[float, float]] = {}

    def prepare(self, graph: Graph, target_per_s: float | None = None) -> Mapping | None:
        """Fold *graph* as one design; from now on its operators take their shares of its latency.

        An overlay runs any operator and needs no design: it returns None.

        Raises:
            DoesNotFitError: by how much, and which resource.
            UnsupportedError: an operator without a streaming stage.
        """
        if self.spec.mode != "dataflow":
            return None
        mapping = map_graph(graph, self.spec, target_per_s)
        seconds, bound = mapping.node_seconds(), mapping.ideal_s / mapping.latency_s
        runs: dict[Operator, tuple[float, float]] = {}
        for path, node, count in graph.walk():
            # Nodes of one name share an entry in the mapping; each run gets an equal part.
            runs.setdefault(node.op, (0.0, 0.0))
            time, times = runs[node.op]
            alike = sum(c for p, n, c in graph.walk() if n.name == node.name)
            share = seconds.get(node.name, 0.0) * count / alike if path else 0.0
            runs[node.op] = (time + share, times + count)
        self._shares = {op: (t / n, t / n * bound) for op, (t, n) in runs.items()}
        self.mapping = mapping
        self._kept.clear()
        return mapping

    def peak_matrix_flops(self, dtype: str) -> float:
        """All arrays of the overlay built for *dtype*, every clock."""
        return 2.0 * self._overlay.engine(dtype).macs * self.parameters.clock_hz

    def more_roofs(self) -> tuple[tuple[str, str, float], ...]:
        """Vector lanes and on-chip buffers."""
        p = self.parameters
        return (
            ("vector lanes", "compute", p.vector_ops_per_s),
            ("on-chip buffers", "bandwidth", p.buffer_bytes_per_s),
        )

    def cycles(self, lowered: Lowered) -> float:
        """Cycles of the design's clock."""
        return lowered.analytic_s * self.parameters.clock_hz

    def kernels_of(self, op: Operator, fused: bool) -> tuple[Kernel, ...]:
        """See :meth:`Device.kernels_of`; in dataflow an operator takes its share of the prepared graph.

        An operator of no prepared graph is folded alone, with the whole board to itself.
        """
        if self.spec.mode == "overlay" or isinstance(op, Collective | HostTransfer):
            return super().kernels_of(op, fused)
        if op in self._shares:
            seconds, bound = self._shares[op]
            label = "memory" if self.mapping is not None and self.mapping.bound == "memory" else "matrix"
            return (self._fixed(f"{op.kind} in dataflow", seconds, label, bound),)
        alone = map_graph(Graph(op.kind, (Node(op.kind, op),)), self.spec)
        label = "memory" if alone.bound == "memory" else "matrix"
        detail: tuple[tuple[str, float | str], ...] = (
            ("interval_s", alone.interval_s),
            ("fill_s", alone.fill_s),
            ("slowest", alone.slowest),
            ("dsp", alone.used.dsp),
            ("lut", alone.used.lut),
        )
        return (self._fixed(f"{op.kind} alone in dataflow", alone.latency_s, label, alone.ideal_s, detail),)

    def product_kernel(self, step: ProductStep) -> Kernel:
        """On the overlay's arrays."""
        return self._overlay.product(step)

    def sweep_kernel(self, step: SweepStep) -> Kernel:
        """On the overlay's vector lanes."""
        return self._overlay.sweep(step)

    def attention_kernel(self, step: AttentionStep) -> Kernel:
        """On the overlay's arrays and lanes."""
        return self._overlay.attention(step)

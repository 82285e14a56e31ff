"""What a GPU communication library does on one level: NCCL's rings by protocol, NVLS, and the engines' direct kernels.

NCCL moves data in one of three protocols over a ring of ``d`` ranks:

* ``LL``: every 8 bytes carry their flag, so half of the link is payload and a hop is short. A small message uses one
  channel: every rank's block then goes around in passes of 4 KiB of payload, a second turn is under way already.
* ``LL128``: 120 of 128 bytes are payload; latencies lie between the others (their geometric mean is taken).
* ``Simple``: whole slices behind a flag; full rate, long hops, and a pipeline that must fill.

The time of a protocol over ``n`` steps (all-reduce 2(d−1), its halves d−1) of a buffer of ``S`` bytes is

    ``setup + n·hop + d·pass + n/d·S/rate + S/d/drain + fill``.

``drain``: the last step of every loop only copies what arrived to its place, at the rate of the copying blocks.
``fill``: one slice of every channel before the pipeline runs, at most a sixteenth of the message.

The library does not take the fastest: it takes the one that its *own* cost table says is fastest (NVIDIA/nccl
src/graph/tuning.cc, 2.27 and 2.28), which is what makes measured times jump by up to a factor of two with the size.
Protocols beyond the nominal choice in the order LL, LL128, Simple are let in where they are really faster, so that a
longer message never takes less time.

Inference engines put kernels of their own in front of small all-reduces: every device reads every other's buffer
(one-shot), or its share and then the sums (two-shot); vllm-project/vllm csrc/custom_all_reduce.cuh.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .topology import NetworkLevel

US, GB = 1e-6, 1e9
MEBI = float(1 << 20)

TUNER_BASE_S = (6.6 * US, 14.0 * US, 8.4 * US)
"""Latency before the first hop of a ring by protocol, as the library assumes it (tuning.cc, baseLatencies)."""

TUNER_HOP_S = (0.6 * US, 1.9 * US, 3.4 * US)
"""Latency of a hop over NVLink by protocol, as the library assumes it (tuning.cc, hwLatencies)."""

TUNER_LINK_LATENCY_S = 0.5 * US
"""Link latency that the table belongs to; slower links scale it."""

TUNER_NVLS_S = 25.0 * US
"""Latency of in-network reduction, as the library assumes it (tuning.cc, hwLatencies)."""

NETWORK_HOP_S = (2.7 * US, 4.0 * US, 14.0 * US)
"""Latency of a hop between nodes by protocol (tuning.cc, hwLatencies): Simple hands whole slices to a proxy thread."""

NETWORK_TREE_HOP_S = (5.0 * US, 8.5 * US, 14.0 * US)
"""The same for the trees over nodes."""

NETWORK_LINK_LATENCY_S = 2.7 * US
"""Latency of a network level that the two tables belong to; others scale them."""

TREE_SHARE = 0.92
"""Bandwidth of the trees over that of rings on more than two nodes (tuning.cc)."""

PACKET_SHARE = 4096.0 / (4096.0 + 66.0)
"""Payload of network packets of the largest size, beside their headers."""

LL_PASS_BYTES = 4096.0
"""Payload of one pass of a block in LL: 512 threads of 8 bytes."""

LL_SHARE, LL128_SHARE = 0.5, 120.0 / 128.0
"""Payload share of the low-latency protocols; Simple sends nothing else."""

SLICE_BYTES = MEBI
"""One slice of one channel: a quarter of its 4 MiB buffer (NVIDIA/nccl src/include/device.h)."""

SLICES_A_MESSAGE = 16.0
"""A message is cut into at least this many slices a channel and loop."""

P2P_SLICE_BYTES, P2P_SLICES = 0.5 * MEBI, 4.0
"""The same for point-to-point transfers, of which an all-to-all is made."""

P2P_LL_BYTES = 16384.0
"""Largest message to one peer that goes in LL (NCCL_P2P_LL_THRESHOLD)."""


@dataclass(frozen=True, slots=True)
class ProtocolCosts:
    """See ``kernels.collective.protocols`` of a hardware file. Seconds and bytes a second."""

    channels: int
    simple_setup_s: float
    simple_step_s: float
    drain_bytes_per_s: float
    ll_assumed_bytes_per_s: float
    in_network_efficiency: float
    direct_setup_s: float
    direct_efficiency: float
    direct_limit_bytes: float
    direct_devices: int
    ll128: bool = True
    peer_setup_s: float | None = None
    peer_channels: int | None = None

    @property
    def protocols(self) -> tuple[int, ...]:
        """LL (0), LL128 (1) where the links allow it, Simple (2)."""
        return (0, 1, 2) if self.ll128 else (0, 2)


@dataclass(frozen=True, slots=True)
class Option:
    """One way to do a collective on one level."""

    name: str
    setup_s: float
    latency_s: float
    transfer_s: float
    steps: int

    @property
    def total_s(self) -> float:
        """All of it."""
        return self.setup_s + self.latency_s + self.transfer_s


@dataclass(frozen=True, slots=True)
class Ring:
    """The library on one level of ``d`` ranks: ``setup_s``, ``step_s`` are those of LL, ``rate`` the payload rate."""

    costs: ProtocolCosts
    setup_s: float
    step_s: float
    rate: float
    link_latency_s: float

    @property
    def channel_rate(self) -> float:
        """Payload rate of one channel in LL."""
        return LL_SHARE * self.rate / self.costs.channels

    def latencies(self, protocol: int) -> tuple[float, float]:
        """(setup, hop) of LL, LL128 and Simple."""
        lib = self.costs
        low = (self.setup_s, self.step_s)
        high = (lib.simple_setup_s, lib.simple_step_s)
        setup, step = (low, (math.sqrt(low[0] * high[0]), math.sqrt(low[1] * high[1])), high)[protocol]
        return setup, step + self.link_latency_s

    def ring(self, protocol: int, steps: int, d: int, size: float) -> Option:
        """A ring of *steps* steps that each move ``size / d``."""
        setup, hop = self.latencies(protocol)
        share = (LL_SHARE, LL128_SHARE, 1.0)[protocol]
        rate, drain = share * self.rate, self.costs.drain_bytes_per_s
        block = size / d
        latency = steps * hop
        if protocol == 0:
            latency += d * min(block, LL_PASS_BYTES) / self.channel_rate
            drain = min(drain, rate)  # flags are checked on the way out too
        fill = 0.0
        if protocol == 2:
            fill = min(size / SLICES_A_MESSAGE, self.costs.channels * SLICE_BYTES) / rate
        transfer = steps * block / rate + block / drain + fill
        return Option(("ring LL", "ring LL128", "ring")[protocol], setup, latency, transfer, steps)

    def assumed_s(self, protocol: int, steps: int, d: int, size: float) -> float:
        """What the library believes a protocol takes: its own table, by which it chooses."""
        scale = self._belief_scale
        rate = self.rate
        if protocol == 0:
            rate = min(LL_SHARE * rate, self.costs.ll_assumed_bytes_per_s)
        elif protocol == 1:
            rate *= 0.92
        return scale * (TUNER_BASE_S[protocol] + steps * TUNER_HOP_S[protocol]) + steps * size / d / rate

    @property
    def _belief_scale(self) -> float:
        """Latencies of the table are those of NVLink."""
        return self.link_latency_s / TUNER_LINK_LATENCY_S

    def in_network(self, d: int, size: float) -> Option:
        """NVLS all-reduce: a device gives its whole buffer to the adding switch and one share of the sums back."""
        lib = self.costs
        rate = self.in_network_rate
        fill = min(size / SLICES_A_MESSAGE, lib.channels * SLICE_BYTES) / rate
        latency = 2.0 * (lib.simple_step_s + self.link_latency_s)
        return Option("in-network", lib.simple_setup_s, latency, (1.0 + 1.0 / d) * size / rate + fill, 2)

    @property
    def in_network_rate(self) -> float:
        """Bytes a second into the adding switch; one channel synchronises the others."""
        return self.costs.in_network_efficiency * self.rate * (1.0 - 1.0 / self.costs.channels)

    def collective(self, op: str, d: int, size: float, reduces: bool) -> Option:
        """All-reduce, all-gather or reduce-scatter, by the library's own choice."""
        steps = 2 * (d - 1) if op == "all_reduce" else d - 1
        beliefs = {p: self.assumed_s(p, steps, d, size) for p in self.costs.protocols}
        chosen = min(beliefs, key=lambda p: (beliefs[p], p))
        options = [self.ring(p, steps, d, size) for p in beliefs if p >= chosen]
        if op == "all_reduce" and reduces and self.costs.in_network_efficiency > 0.0:
            nvls = self.in_network(d, size)
            # Two operations share the way: twice the rate of one.
            believed = self._belief_scale * TUNER_NVLS_S + steps * size / d / (2.0 * self.in_network_rate)
            if believed < beliefs[chosen]:
                options = options[-1:]
            options.append(nvls)
        return min(options, key=lambda option: option.total_s)

    def broadcast(self, d: int, size: float) -> Option:
        """Down a chain of d − 1 hops, every byte over every link once."""
        options = []
        for protocol, share in enumerate((LL_SHARE, LL128_SHARE, 1.0)):
            setup, hop = self.latencies(protocol)
            rate = share * self.rate
            fill = min(size / SLICES_A_MESSAGE, self.costs.channels * SLICE_BYTES) / rate
            options.append(Option("chain", setup, (d - 1) * (hop + fill / d), size / rate, d - 1))
        return min(options, key=lambda option: option.total_s)

    def exchange(self, d: int, size: float) -> Option:
        """All-to-all: a send and a receive with each of d − 1 peers at once; the own share is copied.

        Peers are served in batches, each twice the one before: a hop to start and one for each.
        """
        peer = size / d
        simple = self._exchange_simple(d, size)
        if peer > P2P_LL_BYTES:
            return simple
        setup, hop = self.latencies(0)
        latency = hop * (1.0 + math.log2(d))
        low = Option("point-to-point LL", setup, latency, peer / self._peer_channel_rate, 1)
        return min(low, simple, key=lambda option: option.total_s)

    @property
    def _peer_channel_rate(self) -> float:
        """Payload rate of one channel of a point-to-point transfer in LL; a short one uses one."""
        return LL_SHARE * self.rate / (self.costs.peer_channels or self.costs.channels)

    def _peer_start(self) -> tuple[float, float]:
        """(setup, latency) of a point-to-point transfer in Simple; between the protocols where it is not known."""
        if self.costs.peer_setup_s is not None:
            return self.costs.peer_setup_s, self.link_latency_s
        setup, hop = self.latencies(1)
        return setup, 2 * hop

    def _exchange_simple(self, d: int, size: float) -> Option:
        setup, latency = self._peer_start()
        fill = min(size / P2P_SLICES, self.costs.channels * P2P_SLICE_BYTES)
        transfer = ((d - 1) / d * size + fill) / self.rate + size / d / self.costs.drain_bytes_per_s
        return Option("point-to-point", setup, latency, transfer, 1)

    def send(self, size: float) -> Option:
        """One message to one peer."""
        setup, latency = self._peer_start()
        fill = min(size / P2P_SLICES, self.costs.channels * P2P_SLICE_BYTES)
        simple = Option("point-to-point", setup, latency, (size + fill) / self.rate, 1)
        if size > P2P_LL_BYTES:
            return simple
        setup, hop = self.latencies(0)
        low = Option("point-to-point LL", setup, 2 * hop, size / self._peer_channel_rate, 1)
        return min(low, simple, key=lambda option: option.total_s)


@dataclass(frozen=True, slots=True)
class NodeRings:
    """Rings and trees of the library through nodes of ``inner`` ranks and the network between ``nodes`` of them.

    Every node enters and leaves its rings through all its adapters at once, so a ring runs at the smaller of the links'
    rate and ``inner`` adapters' payload together. One hop in ``inner`` is a network hop.
    """

    node: Ring
    inner: int
    nodes: int
    adapter_bytes_per_s: float
    network_latency_s: float

    @property
    def ranks(self) -> int:
        """All of them."""
        return self.inner * self.nodes

    @property
    def rate(self) -> float:
        """Payload rate of all rings together."""
        adapters = self.inner * self.adapter_bytes_per_s
        return adapters if self.inner == 1 else min(self.node.rate, adapters)

    def _hop(self, table: tuple[float, float, float], protocol: int) -> float:
        return table[protocol] * self.network_latency_s / NETWORK_LINK_LATENCY_S

    def ring(self, protocol: int, steps: int, size: float) -> Option:
        """*steps* steps around all ranks."""
        costs, d = self.node.costs, self.ranks
        setup, hop = self.node.latencies(protocol)
        mean = ((self.inner - 1) * hop + self._hop(NETWORK_HOP_S, protocol)) / self.inner
        rate = (LL_SHARE, LL128_SHARE, 1.0)[protocol] * self.rate
        drain = min(costs.drain_bytes_per_s, rate) if protocol == 0 else costs.drain_bytes_per_s
        fill = min(size / SLICES_A_MESSAGE, costs.channels * SLICE_BYTES) / rate if protocol == 2 else 0.0
        name = ("ring LL", "ring LL128", "ring")[protocol]
        return Option(name, setup, steps * mean, steps * size / d / rate + size / d / drain + fill, steps)

    def tree(self, protocol: int, size: float) -> Option:
        """All-reduce up and down two trees over the nodes, a chain inside each."""
        setup, hop = self.node.latencies(protocol)
        depth = math.ceil(math.log2(self.nodes))
        latency = 2.0 * ((self.inner - 1) * hop + depth * self._hop(NETWORK_TREE_HOP_S, protocol))
        share = (LL_SHARE, LL128_SHARE, 1.0)[protocol] * (TREE_SHARE if self.nodes > 2 else 1.0)
        name = ("tree LL", "tree LL128", "tree")[protocol]
        return Option(name, setup, latency, 2.0 * size / (share * self.rate), 2 * (self.inner - 1 + depth))

    def collective(self, op: str, size: float) -> Option:
        """All-reduce, all-gather or reduce-scatter: the fastest of protocols, rings and trees."""
        steps = self.ranks - 1
        protocols = self.node.costs.protocols
        if op != "all_reduce":
            return min((self.ring(p, steps, size) for p in protocols), key=lambda option: option.total_s)
        options = [self.ring(p, 2 * steps, size) for p in protocols] + [self.tree(p, size) for p in protocols]
        return min(options, key=lambda option: option.total_s)

    def exchange(self, size: float) -> Option:
        """All-to-all: links and adapters work at the same time, each on the share of the partners behind it."""
        d = self.ranks
        setup, latency = self.node._peer_start()
        latency += self._hop(NETWORK_HOP_S, 2)
        inside = (self.inner - 1) / d * size / self.node.rate
        outside = (d - self.inner) / d * size / (self.adapter_bytes_per_s)
        copy = size / d / self.node.costs.drain_bytes_per_s
        return Option("point-to-point", setup, latency, max(inside, outside) + copy, 1)


def direct_all_reduce(
    costs: ProtocolCosts, level: NetworkLevel, d: int, size: float, one_shot_limit: float
) -> Option | None:
    """The engines' own kernel, or None where they leave it: too long, too many devices, no direct way.

    One-shot always for two devices; else up to *one_shot_limit* for four, half of it for eight (the reads of a device
    grow with their number); then two-shot up to ``direct_limit``. Each shot starts and ends with a barrier.
    """
    if level.kind not in ("switch", "fully_connected") or d > costs.direct_devices:
        return None
    if size >= costs.direct_limit_bytes:
        return None
    rate = costs.direct_efficiency * level.bytes_per_s
    start = costs.direct_setup_s + level.latency_s
    one = Option("one-shot", start, 0.0, (d - 1) * size / rate, 1)
    if d == 2:
        return one
    two = Option("two-shot", start, start, 2.0 * (d - 1) / d * size / rate, 2)
    if size >= one_shot_limit * min(1.0, 4.0 / d):
        return two
    return min(one, two, key=lambda option: option.total_s)

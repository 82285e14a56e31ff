"""Time of a collective: α–β per level, the fastest algorithm that the level offers, levels nested."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import UnsupportedError
from .algorithms import REDUCING, halving_doubling, is_flat, named
from .protocols import PACKET_SHARE, NodeRings, ProtocolCosts, Ring, direct_all_reduce
from .sharing import Sharing, counted, queued, shared
from .topology import Network, NetworkLevel


@dataclass(frozen=True, slots=True)
class CollectiveCosts:
    """What the library adds: see ``kernels.collective`` of a hardware file.

    Without a ``protocols`` the fastest algorithm of a level is taken, in one protocol.
    """

    setup_s: float
    step_s: float
    efficiency: float
    one_shot_limit_bytes: float
    protocols: ProtocolCosts | None = None


ENGINE, LIBRARY = "engine", "nccl"
"""Who runs a collective: an inference engine (own kernels in front of the library) or the library alone."""


@dataclass(frozen=True, slots=True)
class CollectivePlan:
    """A priced collective: which algorithm on which level, its latency and its transfer part."""

    algorithm: str
    latency_s: float
    transfer_s: float
    steps: int

    @property
    def total_s(self) -> float:
        """Latency and transfer."""
        return self.latency_s + self.transfer_s


def bound_s(network: Network, op: str, size_bytes: float, devices: int, stride: int = 1) -> float:
    """No algorithm is faster: the bytes every rank must send over its narrowest level, at full bandwidth.

    All-reduce 2·(d−1)/d·B (one copy, B, where the switch adds), its halves (d−1)/d·B. A message between two goes over
    the outermost level that they span alone.
    """
    worst = 0.0
    inner = 1
    spans = network.spans(devices, stride)
    for level, members in spans[-1:] if op == "send_recv" else spans:
        share = size_bytes / inner
        factor = (members - 1) / members
        if op == "all_to_all":  # of all partners, those reached over this level
            share, factor = size_bytes, (members - 1) * inner / devices
        if op == "all_reduce":
            factor = 1.0 if level.reduces else 2.0 * factor
        elif op in ("broadcast", "send_recv"):
            factor = 1.0
        worst = max(worst, factor * share / level.bytes_per_s)
        inner *= members
    return worst


def plan(
    network: Network,
    costs: CollectiveCosts,
    op: str,
    size_bytes: float,
    devices: int,
    stride: int = 1,
    by: str = ENGINE,
    adds: bool = True,
    groups: int = 1,
    algorithm: str = "",
    sharing: Sharing = counted,
) -> CollectivePlan:
    """Price a collective over *devices* ranks *stride* apart, run *by* an engine or the library alone.

    ``adds``: switches that reduce can add numbers of this type. So many *groups* run it at the same time; *sharing*
    says by how much they slow each other on the links they share. *algorithm* (or the network's own) is forced where it
    is one for *op*: see :mod:`effsim.network.algorithms`.

    With ``protocols`` and a network between nodes, the library's rings and trees through all of them. Otherwise, over
    several levels, an all-reduce is reduce-scatter inside, all-reduce outside on what is left, all-gather inside;
    gathers and scatters shrink or grow the same way; an all-to-all sends to each level its share of the partners.

    >>> net = Network((NetworkLevel("n", "switch", 8, 100e9, 1e-6),))
    >>> free = CollectiveCosts(0.0, 0.0, 1.0, 0.0)
    >>> round(plan(net, free, "reduce_scatter", 8e9, 8).transfer_s, 6)  # 7/8 of 8 GB at 100 GB/s
    0.07
    """
    if devices == 1:
        return CollectivePlan("none", 0.0, 0.0, 0)
    forced = (algorithm or network.algorithm) if op in REDUCING else ""
    if forced == "tree" and op != "all_reduce":
        forced = ""
    network = shared(network, op, devices, stride, groups, sharing, flat=is_flat(forced, op))
    spans = network.spans(devices, stride)
    if op == "send_recv":
        spans = spans[-1:]  # between neighbours that are farthest apart
    if forced:
        return _forced(forced, spans, costs, op, size_bytes, devices)
    if costs.protocols is not None and len(spans) == 1 and spans[0][0] is network.levels[0]:
        return _inside_node(spans[0][0], spans[0][1], costs, costs.protocols, op, size_bytes, by, adds)
    if costs.protocols is not None and len(network.levels) == 2 and spans[-1][0] is network.levels[1]:
        through = _through_nodes(network, spans, costs, costs.protocols, op, size_bytes)
        if through is not None:
            return through
    return _level_by_level(spans, costs, op, size_bytes, devices)


@dataclass(frozen=True, slots=True)
class Exchange:
    """A collective with all it is priced by, so that the event reading can price it again with queues at its links."""

    network: Network
    costs: CollectiveCosts
    op: str
    size_bytes: float
    devices: int
    stride: int
    by: str
    adds: bool
    groups: int
    algorithm: str

    def plan(self, sharing: Sharing = queued) -> CollectivePlan:
        """Priced with links as *sharing* finds them."""
        return plan(
            self.network,
            self.costs,
            self.op,
            self.size_bytes,
            self.devices,
            self.stride,
            self.by,
            self.adds,
            self.groups,
            self.algorithm,
            sharing,
        )

    @property
    def contends(self) -> bool:
        """Whether any link it uses is shared at all."""
        return any(level.can_contend for level in self.network.levels)


def _forced(
    algorithm: str, spans: list[tuple[NetworkLevel, int]], costs: CollectiveCosts, op: str, size: float, devices: int
) -> CollectivePlan:
    """A named algorithm, each step at the link latency and the library's flag handling."""
    if algorithm == "hierarchical":
        return _level_by_level(spans, costs, op, size, devices)
    if algorithm == "halving_doubling":
        parts, left = [], size
        for level, members in spans:
            steps = halving_doubling(op, members, left)
            rate = level.bytes_per_s * costs.efficiency
            latency = steps.count * (level.latency_s + costs.step_s)
            parts.append(CollectivePlan(f"halving-doubling ({level.name})", latency, steps.moved / rate, steps.count))
            left /= members
        return _join(parts, costs)
    steps_ = named(algorithm, op, devices, size)
    assert steps_ is not None
    rate = min(level.bytes_per_s for level, _ in spans) * costs.efficiency
    slowest = max(level.latency_s for level, _ in spans)
    count, latency = steps_.count, steps_.count * (slowest + costs.step_s)
    if algorithm == "tree":
        depths = [(level.latency_s + costs.step_s, 2 * math.ceil(math.log2(m))) for level, m in spans]
        count, latency = sum(n for _, n in depths), sum(alpha * n for alpha, n in depths)
    where = " + ".join(level.name for level, _ in spans)
    return CollectivePlan(f"{algorithm} ({where})", costs.setup_s + latency, steps_.moved / rate, count)


def _level_by_level(
    spans: list[tuple[NetworkLevel, int]], costs: CollectiveCosts, op: str, size_bytes: float, devices: int
) -> CollectivePlan:
    """One level after the other, each with its own fastest algorithm."""
    if op == "all_reduce" and len(spans) > 1:
        return _hierarchical_all_reduce(spans, costs, size_bytes)
    parts: list[CollectivePlan] = []
    left, inner = size_bytes, 1
    for level, members in spans:
        part_bytes = size_bytes if op in ("broadcast", "send_recv") else left
        if op == "all_to_all":  # (members − 1) groups of *inner* of all the partners are reached over this level
            part_bytes = size_bytes * members * inner / devices
        parts.append(_on_level(level, members, costs, op, part_bytes))
        left /= members
        inner *= members
    return _join(parts, costs)


def _inside_node(
    level: NetworkLevel,
    d: int,
    costs: CollectiveCosts,
    protocols: ProtocolCosts,
    op: str,
    size: float,
    by: str,
    adds: bool,
) -> CollectivePlan:
    """On the innermost level alone: protocols, and the engines' own kernels in front of small all-reduces."""
    ring = Ring(protocols, costs.setup_s, costs.step_s, costs.efficiency * level.bytes_per_s, level.latency_s)
    if op in ("all_reduce", "all_gather", "reduce_scatter"):
        # Engines switch off the memory handles that in-network reduction needs.
        best = ring.collective(op, d, size, level.reduces and adds and by == LIBRARY)
        if op == "all_reduce" and by == ENGINE:
            own = direct_all_reduce(protocols, level, d, size, costs.one_shot_limit_bytes)
            best = min((own or best, best), key=lambda option: option.total_s)
    elif op == "all_to_all":
        best = ring.exchange(d, size)
    elif op == "send_recv":
        best = ring.send(size)
    elif op == "broadcast":
        best = ring.broadcast(d, size)
    else:
        raise UnsupportedError(f"no algorithm for collective {op!r}")
    return CollectivePlan(f"{best.name} ({level.name})", best.setup_s + best.latency_s, best.transfer_s, best.steps)


def _through_nodes(
    network: Network,
    spans: list[tuple[NetworkLevel, int]],
    costs: CollectiveCosts,
    protocols: ProtocolCosts,
    op: str,
    size: float,
) -> CollectivePlan | None:
    """Over nodes joined by a network: the library's rings and trees; None for what goes from one to one or all."""
    inner = spans[0][1] if len(spans) == 2 else 1
    near, (far, nodes) = network.levels[0], spans[-1]
    if op not in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all"):
        return None
    ring = Ring(protocols, costs.setup_s, costs.step_s, costs.efficiency * near.bytes_per_s, near.latency_s)
    # What a file says of its network counts where it is less than the headers of the largest packets leave.
    rings = NodeRings(ring, inner, nodes, far.bytes_per_s * min(far.payload, PACKET_SHARE), far.latency_s)
    best = rings.exchange(size) if op == "all_to_all" else rings.collective(op, size)
    where = f"{near.name} + {far.name}" if inner > 1 else far.name
    return CollectivePlan(f"{best.name} ({where})", best.setup_s + best.latency_s, best.transfer_s, best.steps)


def _hierarchical_all_reduce(
    spans: list[tuple[NetworkLevel, int]], costs: CollectiveCosts, size_bytes: float
) -> CollectivePlan:
    parts, left = [], size_bytes
    for level, members in spans[:-1]:
        half = _on_level(level, members, costs, "reduce_scatter", left)
        parts += [half, half]  # the all-gather on the way back mirrors it
        left /= members
    level, members = spans[-1]
    parts.append(_on_level(level, members, costs, "all_reduce", left))
    return _join(parts, costs)


def _join(parts: list[CollectivePlan], costs: CollectiveCosts) -> CollectivePlan:
    names = " + ".join(dict.fromkeys(part.algorithm for part in parts))
    return CollectivePlan(
        algorithm=names,
        latency_s=costs.setup_s + sum(p.latency_s for p in parts),
        transfer_s=sum(p.transfer_s for p in parts),
        steps=sum(p.steps for p in parts),
    )


def _on_level(level: NetworkLevel, d: int, costs: CollectiveCosts, op: str, size: float) -> CollectivePlan:
    """Fastest algorithm on one level. A step costs the link latency and the library's flag handling."""
    alpha = level.latency_s + costs.step_s
    rate = level.bytes_per_s * costs.efficiency
    direct = level.kind in ("switch", "fully_connected", "fat_tree")
    share = (d - 1) / d
    options: list[tuple[str, int, float]]
    if op == "all_reduce":
        options = [("ring", 2 * (d - 1), 2.0 * share * size), ("tree", 2 * math.ceil(math.log2(d)), 2.0 * size)]
        if level.kind == "fat_tree" and d & (d - 1) == 0:
            halves = halving_doubling(op, d, size)
            options.append(("halving-doubling", halves.count, halves.moved))
        if direct:
            options.append(("two-shot", 2, 2.0 * share * size))
            if size <= costs.one_shot_limit_bytes:
                options.append(("one-shot", 1, (d - 1) * size))
            else:
                options.pop()  # beyond its buffer the library leaves the direct kernels
        if level.reduces:
            options.append(("in-network", 2, size))
    elif op in ("all_gather", "reduce_scatter"):
        options = [("ring", d - 1, share * size)]
        if direct:
            options.append(("direct", 1 if size <= costs.one_shot_limit_bytes else d - 1, share * size))
    elif op == "all_to_all":
        options = [("pairwise", 1 if direct else d - 1, share * size)]
    elif op == "broadcast":
        options = [("pipelined", d - 1, size), ("tree", math.ceil(math.log2(d)), size)]
    elif op == "send_recv":
        options = [("point-to-point", 1, size)]
    else:
        raise UnsupportedError(f"no algorithm for collective {op!r}")
    name, steps, moved = min(options, key=lambda o: (o[1] * alpha + o[2] / rate, o[1]))
    return CollectivePlan(f"{name} ({level.name})", steps * alpha, moved / rate, steps)

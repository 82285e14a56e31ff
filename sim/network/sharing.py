"""Links that several groups use at the same time: by how much each is slowed.

A program runs the same collective in all its groups at once. They share three kinds of links:

* an adapter that stands for several devices (``shared_by``): its devices divide it;
* the uplinks of the leaf switches of an oversubscribed fat tree (``oversubscription`` r, ``leaf`` L members below one):
  they carry what leaves the leaf, at L/r members' rate together;
* the links of a ring, which groups of ranks that are not neighbours pass on their way: with a distance of ``q``
  members, ``q`` groups lie side by side and each link carries all of them.

The analytic reading counts shares (:func:`counted`); the event reading sends the messages of one step of all groups
through queues at the links (:func:`queued`) and takes the ratio to a group alone.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

from .topology import Network

MOST_CHUNKS, MOST_PIECES, MOST_MESSAGES = 64, 20_000, 200_000
"""A message queues in as many pieces as these allow (the granularity is hops/pieces of a message); beyond so many
messages shares are counted after all."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What all groups do on one level.

    Attributes:
        kind: of the level.
        size: members of the level (nodes, say).
        lanes: devices of one member.
        devices: those of them that send at once.
        shared_by: devices behind one adapter.
        oversubscription: rate into a leaf switch over that of its uplinks.
        leaf: members below one leaf switch.
        members: of one group on this level.
        distance: between neighbouring members of a group.
        side_by_side: groups that lie between each other's members (at most *distance*).
        everyone: all partners are sent to, not the next one.
    """

    kind: str
    size: int
    lanes: int
    devices: int
    shared_by: int
    oversubscription: float
    leaf: int
    members: int
    distance: int
    side_by_side: int
    everyone: bool

    @property
    def within_leaf(self) -> bool:
        """No message leaves a leaf switch (groups start at leaf boundaries)."""
        return self.distance * self.members <= self.leaf

    @property
    def uplink(self) -> float:
        """Time of a leaf's uplinks for a message of every sending device of one member; 1: of an adapter for one."""
        adapters = max(1.0, self.lanes / self.shared_by)
        return self.devices / adapters * self.oversubscription / self.leaf

    @property
    def leaf_members(self) -> int:
        """Members of one group below one leaf switch."""
        return max(1, min(self.members, self.leaf // self.distance))


Sharing = Callable[[Traffic], float]
"""By what factor a message of one group is slowed by the others."""


def counted(traffic: Traffic) -> float:
    """Share counting.

    Adapters: the devices behind one. Leaf switches: groups that leave a leaf, each at a member's rate, over its uplinks
    ``L/r``: those that lie side by side, of which a leaf smaller than their distance holds one a member (an exchange
    with everyone: the share of the partners outside, ``r`` times as slow, beside those inside). Rings: groups side by
    side.

    >>> counted(Traffic("fat_tree", 8, 8, 8, 2, 1.0, 8, 4, 1, 1, False))  # two devices behind an adapter
    2.0
    >>> counted(Traffic("fat_tree", 8, 1, 1, 1, 2.0, 4, 2, 4, 4, False))  # four groups leave a leaf of 4, two uplinks
    2.0
    >>> counted(Traffic("fat_tree", 16, 1, 1, 1, 2.0, 4, 2, 8, 8, False))  # of eight groups four are below one leaf
    2.0
    """
    adapters = float(min(traffic.shared_by, traffic.devices))
    if traffic.kind == "ring":
        return max(adapters, adapters * traffic.side_by_side * _ring_load(traffic))
    if traffic.kind != "fat_tree" or traffic.oversubscription <= 1.0 or traffic.within_leaf:
        return adapters
    t, leaving = traffic, 1.0
    if t.everyone:
        leaving = t.leaf_members * (t.members - t.leaf_members) / (t.members - 1)
    return max(adapters, leaving * min(t.side_by_side, t.leaf) * t.uplink)


def _ring_load(traffic: Traffic) -> float:
    """Messages on the busiest link of a ring, from one group: to the next member, or shares to all, both ways round.

    Of ``m`` members that close the ring, the distances to all others are ``m²/4`` together, over two links a member;
    an open chain has ``(m/2)²`` pairs across its middle.
    """
    m = traffic.members
    if not traffic.everyone or m == 2:  # a message is not split over both ways
        return 1.0
    closed = m * traffic.distance >= traffic.size
    return m * m / ((8.0 if closed else 4.0) * (m - 1))


@lru_cache(maxsize=256)
def queued(traffic: Traffic) -> float:
    """The same from messages that queue at the links, in pieces, first come first served."""
    partners = traffic.members - 1 if traffic.everyone else 1
    if traffic.side_by_side * traffic.members * partners * min(traffic.shared_by, traffic.devices) > MOST_MESSAGES:
        return counted(traffic)
    if traffic.kind == "ring" and traffic.everyone:  # what a device sends would leave its adapter in one unit of time
        return max(float(min(traffic.shared_by, traffic.devices)), _makespan(traffic, traffic))
    alone = _makespan(replace(traffic, devices=1, lanes=1, shared_by=1, side_by_side=1, oversubscription=1.0), traffic)
    return max(1.0, _makespan(traffic, traffic) / alone)


def _makespan(running: Traffic, real: Traffic) -> float:
    """When the last message of one step has arrived; an adapter sends one message in one unit of time.

    A message comes in many more pieces than are queued here: the time that one piece takes behind its slowest link is
    taken off, down to what the busiest link carries.

    Members are those that *running* groups lie on; devices that share nothing are alike, so one adapter of each member
    stands for all, with its part of the uplinks.
    """
    behind = min(running.shared_by, running.devices)
    free: dict[tuple[str, int], float] = {}
    carried: dict[tuple[str, int], float] = {}
    uplink = running.uplink / behind  # of one message; the adapter's part of the uplinks
    paths: list[tuple[tuple[tuple[str, int], ...], float]] = []
    for side in range(running.side_by_side):
        nodes = [side + real.distance * i for i in range(real.members)]
        for index, node in enumerate(nodes):
            # Partners are served in turn, every member beginning with the one behind it.
            around = nodes[index + 1 :] + nodes[:index]
            partners = around if running.everyone else around[:1]
            span, size = real.distance * real.members, 1.0 / len(partners)
            odd = index % 2 == 1
            paths += [(_path(running, node, partner, span, odd=odd), size) for partner in partners] * behind
    chunks = max(1, min(MOST_CHUNKS, MOST_PIECES // len(paths)))
    passing = 0.0  # of the longest way: one piece over all of its links but the slowest
    for links, size in paths:
        lengths = [size * (uplink if link[0] in ("up", "down") else 1.0) for link in links]
        passing = max(passing, (sum(lengths) - max(lengths)) / chunks)
        for link, length in zip(links, lengths, strict=True):
            carried[link] = carried.get(link, 0.0) + length
    events = [(0.0, serial, serial % len(paths), 0) for serial in range(chunks * len(paths))]
    serial, last = len(events), 0.0
    while events:
        now, _, path, hop = heapq.heappop(events)
        links, size = paths[path]
        link = links[hop]
        length = size / chunks * (uplink if link[0] in ("up", "down") else 1.0)
        done = max(now, free.get(link, 0.0)) + length
        free[link] = done
        if hop + 1 < len(links):
            heapq.heappush(events, (done, serial, path, hop + 1))
            serial += 1
        else:
            last = max(last, done)
    return max(last - passing, *carried.values())


def _path(traffic: Traffic, source: int, target: int, span: int, *, odd: bool) -> tuple[tuple[str, int], ...]:
    """Links from one member to another."""
    if traffic.kind == "ring":
        closed = span >= traffic.size
        return ring_path(traffic.size, source, target, closed=closed, shortest=traffic.everyone, odd=odd)
    out: tuple[tuple[str, int], ...] = (("out", source), ("in", target))
    below, there = source // traffic.leaf, target // traffic.leaf
    if traffic.kind == "fat_tree" and below != there:
        return (out[0], ("up", below), ("down", there), out[1])
    return out


def ring_path(
    size: int, source: int, target: int, *, closed: bool, shortest: bool = False, odd: bool = False
) -> tuple[tuple[str, int], ...]:
    """Links between two places of a ring of *size*: forward, and back again where the group does not *close* the ring.

    *shortest*: the shorter way round a closed ring; between opposite places an *odd* member goes backward.

    >>> ring_path(8, 6, 0, closed=True)
    (('forward', 6), ('forward', 7))
    >>> len(ring_path(8, 0, 6, closed=True, shortest=True))
    2
    """
    ahead = (target - source) % size
    back = closed and shortest and (ahead > size - ahead or (odd and 2 * ahead == size))
    if (target > source or closed) and not back:
        return tuple(("forward", (source + i) % size) for i in range(ahead))
    return tuple(("backward", (source - i) % size) for i in range(size - ahead if closed else source - target))


def shared(
    network: Network, op: str, devices: int, stride: int, groups: int, sharing: Sharing, *, flat: bool = False
) -> Network:
    """The network as one of *groups* groups of *devices* ranks, *stride* apart, finds it: shared links are slower.

    *flat*: one device of a group enters and leaves a member (a ring through all ranks), not all at once.
    """
    if not any(level.can_contend for level in network.levels):
        return network
    levels, below, left, step = [], 1, devices, stride
    for level in network.levels:
        inside = max(1, level.size // step) if step < level.size else 1
        members = min(left, inside)
        if members > 1 and level.can_contend:
            per_member = devices // left  # ranks of this group in one member of the level
            abreast = min(max(1, below // per_member), groups)
            distance = max(1, stride // below)
            traffic = Traffic(
                kind=level.kind,
                size=level.size,
                lanes=below,
                devices=abreast if flat else min(below, per_member * abreast),
                shared_by=level.shared_by,
                oversubscription=level.oversubscription,
                leaf=min(level.leaf or level.size, level.size),
                members=members,
                distance=distance,
                side_by_side=min(distance, max(1, groups // abreast)),
                everyone=op == "all_to_all",
            )
            level = replace(level, bytes_per_s=level.bytes_per_s / sharing(traffic))
        levels.append(level)
        step = max(1, step // level.size)
        left = -(-left // members)
        below *= level.size
    return replace(network, levels=tuple(levels))

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
        devices: devices of one member that send at once.
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
    def leaf_members(self) -> int:
        """Members of one group below one leaf switch."""
        return max(1, min(self.members, self.leaf // self.distance))


Sharing = Callable[[Traffic], float]
"""By what factor a message of one group is slowed by the others."""


def counted(traffic: Traffic) -> float:
    """Share counting.

    Adapters: the devices behind one. Leaf switches: groups that leave a leaf, each at a member's rate, over its uplinks
    ``L/r`` (an exchange with everyone: the share of the partners outside, ``r`` times as slow, beside those inside).
    Rings: groups side by side.

    >>> counted(Traffic("fat_tree", 8, 8, 2, 1.0, 8, 4, 1, 1, False))  # two devices behind an adapter
    2.0
    >>> counted(Traffic("fat_tree", 8, 1, 1, 2.0, 4, 2, 4, 4, False))  # four groups leave a leaf of 4, two uplinks
    2.0
    """
    adapters = float(min(traffic.shared_by, traffic.devices))
    if traffic.kind == "ring":
        return adapters * traffic.side_by_side
    if traffic.kind != "fat_tree" or traffic.oversubscription <= 1.0 or traffic.within_leaf:
        return adapters
    t, rate = traffic, traffic.oversubscription / traffic.leaf
    # Devices that do not share an adapter leave through more of them, so uplinks count in whole members.
    if t.everyone:
        outside = (t.members - t.leaf_members) / (t.members - 1)
        return adapters * max(1.0, outside * t.leaf_members * t.side_by_side * rate)
    return adapters * max(1.0, t.side_by_side * rate)


@lru_cache(maxsize=256)
def queued(traffic: Traffic) -> float:
    """The same from messages that queue at the links, in pieces, first come first served."""
    partners = traffic.members - 1 if traffic.everyone else 1
    if traffic.side_by_side * traffic.members * partners * min(traffic.shared_by, traffic.devices) > MOST_MESSAGES:
        return counted(traffic)
    alone = _makespan(replace(traffic, devices=1, shared_by=1, side_by_side=1, oversubscription=1.0), traffic)
    return max(1.0, _makespan(traffic, traffic) / alone)


def _makespan(running: Traffic, real: Traffic) -> float:
    """When the last message of one step has arrived; an adapter sends one message in one unit of time.

    Members are those that *running* groups lie on; devices that share nothing are alike, so one adapter of each member
    stands for all, with its part of the uplinks.
    """
    behind = min(running.shared_by, running.devices)
    free: dict[tuple[str, int], float] = {}
    uplink = running.oversubscription / running.leaf  # unit messages of one adapter a member
    paths: list[tuple[tuple[tuple[str, int], ...], float]] = []
    for side in range(running.side_by_side):
        nodes = [side + real.distance * i for i in range(real.members)]
        for index, node in enumerate(nodes):
            # Partners are served in turn, every member beginning with the one behind it.
            around = nodes[index + 1 :] + nodes[:index]
            partners = around if running.everyone else around[:1]
            span, size = real.distance * real.members, 1.0 / len(partners)
            paths += [(_path(running, node, partner, span), size) for partner in partners] * behind
    chunks = max(1, min(MOST_CHUNKS, MOST_PIECES // len(paths)))
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
    return last


def _path(traffic: Traffic, source: int, target: int, span: int) -> tuple[tuple[str, int], ...]:
    """Links from one member to another."""
    if traffic.kind == "ring":
        if target > source:
            return tuple(("forward", i) for i in range(source, target))
        if span >= traffic.size:  # the group closes around the ring
            return tuple(("forward", i % traffic.size) for i in range(source, target + traffic.size))
        return tuple(("backward", i) for i in range(source, target, -1))
    out: tuple[tuple[str, int], ...] = (("out", source), ("in", target))
    below, there = source // traffic.leaf, target // traffic.leaf
    if traffic.kind == "fat_tree" and below != there:
        return (out[0], ("up", below), ("down", there), out[1])
    return out


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

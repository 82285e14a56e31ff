"""The inside of a kernel, simulated: tiles on processors that share L2 and memory.

Every processor holds up to ``slots`` tiles. A tile first waits out its latency, then queues for its processor, which
works on one tile at a time in the order in which they became ready. Working tiles progress at a rate that is the least
of: the processor's own, what the bytes in flight sustain, and fair shares of L2 and memory bandwidth (max–min: what a
slow tile leaves, the others get). Processors with the same history are one group, so a kernel of identical tiles costs
an event a round whatever the number of processors; a group splits where its processors get different tiles.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..accelerate import Accelerated
from ..devices.kernel import Kernel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHARE_ROUNDS = 8
"""Rounds of the max–min share computation; identical tiles need two, a handful of classes a few."""

STEADY_BATCHES = 12
"""Full batches of tiles that are simulated before a long kernel's steady state is extrapolated."""

_EMPTY, _LATENT, _READY, _WORKING = 0, 1, 2, 3
_RELATIVE = 1e-12
_LOG_ROW = 6


def _share(groups: int, sizes: list[int], need: list[float], cap: list[float], total: float) -> float:
    """Equal bandwidth share of processors that are not held back by their own cap."""
    share = math.inf
    for _ in range(SHARE_ROUNDS):
        fixed, free = 0.0, 0
        for g in range(groups):
            if need[g] <= 0.0:
                continue
            if share < math.inf and cap[g] * need[g] <= share:
                fixed += sizes[g] * cap[g] * need[g]
            else:
                free += sizes[g]
        if free == 0:
            break
        new = (total - fixed) / free
        if share < math.inf and abs(new - share) <= _RELATIVE * share:
            break
        share = new
    return share


def _deal(
    slot: int,
    now: float,
    g: int,
    groups: int,
    slots: int,
    remaining: list[int],
    serial: list[float],
    sizes: list[int],
    first: list[int],
    busy: list[int],
    state: list[int],
    kind: list[int],
    until: list[float],
    since: list[float],
    left: list[float],
) -> int:
    """Give every processor of group *g* its next tile for *slot*; splits the group where tiles run out.

    Returns the number of groups.
    """
    while True:
        c = 0
        while c < len(remaining) and remaining[c] == 0:
            c += 1
        i = g * slots + slot
        if c == len(remaining):
            state[i] = _EMPTY
            return groups
        new = g
        if remaining[c] < sizes[g]:  # the last of a class: the other processors of the group go their own way
            new = groups
            groups += 1
            sizes[new], first[new] = sizes[g] - remaining[c], first[g] + remaining[c]
            sizes[g] = remaining[c]
            busy[new] = busy[g]
            for s in range(slots):
                a, b = g * slots + s, new * slots + s
                state[b], kind[b], until[b], since[b], left[b] = state[a], kind[a], until[a], since[a], left[a]
        remaining[c] -= sizes[g]
        state[i], kind[i] = _LATENT, c
        until[i], since[i] = now + serial[c], now
        if new == g:
            return groups
        g = new


def _simulate(
    counts: list[int],
    costs: list[list[float]],
    units: int,
    slots: int,
    l2_bw: float,
    mem_bw: float,
    log: list[float],
) -> tuple[float, int]:
    """Run all tiles; return (end time, entries written to *log*).

    ``costs`` has a row a class: busy, serial, l2 bytes, memory bytes, flow. ``log`` receives (first processor, number
    of processors, class, start, work start, end) in a row while it has room.
    """
    places = units * slots
    state, kind, busy = [0] * places, [0] * places, [-1] * units
    until, since, left, worked = [0.0] * places, [0.0] * places, [0.0] * places, [0.0] * places
    sizes, first = [0] * units, [0] * units
    rate, cap, need_l2, need_mem = [0.0] * units, [0.0] * units, [0.0] * units, [0.0] * units
    remaining = [c for c in counts]  # noqa: C416 - a copy that numba can type
    serial = [row[1] for row in costs]
    sizes[0] = units
    groups, now, written = 1, 0.0, 0
    for slot in range(slots):  # slot by slot: every processor gets a first tile before any gets a second
        g = 0
        while g < groups:
            if state[g * slots + slot] == _EMPTY:
                groups = _deal(
                    slot, 0.0, g, groups, slots, remaining, serial, sizes, first, busy, state, kind, until, since, left
                )
            g += 1
    while True:
        active = False
        for g in range(groups):
            if busy[g] < 0:  # the earliest ready tile takes an idle processor
                best = -1
                for s in range(slots):
                    i = g * slots + s
                    if state[i] == _READY and (best < 0 or until[i] < until[best]):
                        best = i
                if best >= 0:
                    busy[g] = best - g * slots
                    state[best], left[best], worked[best] = _WORKING, 1.0, now
            cap[g], need_l2[g], need_mem[g] = 0.0, 0.0, 0.0
            if busy[g] >= 0:
                row = costs[kind[g * slots + busy[g]]]
                resident = 0
                for s in range(slots):
                    if state[g * slots + s] != _EMPTY:
                        resident += 1
                heavy = max(row[2], row[3])
                own = math.inf
                if row[0] > 0.0:
                    own = 1.0 / row[0]
                if heavy > 0.0:
                    own = min(own, row[4] * resident / heavy)
                cap[g], need_l2[g], need_mem[g] = own, row[2], row[3]
        share_l2 = _share(groups, sizes, need_l2, cap, l2_bw)
        share_mem = _share(groups, sizes, need_mem, cap, mem_bw)
        step = math.inf
        for g in range(groups):
            for s in range(slots):
                i = g * slots + s
                if state[i] == _LATENT:
                    active = True
                    step = min(step, until[i] - now)
            if busy[g] >= 0:
                active = True
                r = cap[g]
                if need_l2[g] > 0.0:
                    r = min(r, share_l2 / need_l2[g])
                if need_mem[g] > 0.0:
                    r = min(r, share_mem / need_mem[g])
                rate[g] = r
                step = min(step, 0.0 if r == math.inf else left[g * slots + busy[g]] / r)
        if not active:
            return now, written
        step = max(step, 0.0)
        now += step
        slack = _RELATIVE * now
        known = groups
        for g in range(known):
            if busy[g] < 0:
                continue
            i = g * slots + busy[g]
            left[i] -= left[i] if rate[g] == math.inf else rate[g] * step
            if left[i] > 0.0 and left[i] / rate[g] > slack:
                continue
            if (written + 1) * _LOG_ROW <= len(log):
                base = written * _LOG_ROW
                log[base], log[base + 1], log[base + 2] = float(first[g]), float(sizes[g]), float(kind[i])
                log[base + 3], log[base + 4], log[base + 5] = since[i], worked[i], now
                written += 1
            slot = busy[g]
            busy[g] = -1
            groups = _deal(
                slot, now, g, groups, slots, remaining, serial, sizes, first, busy, state, kind, until, since, left
            )
        for g in range(groups):
            for s in range(slots):
                i = g * slots + s
                if state[i] == _LATENT and until[i] <= now + slack:
                    state[i] = _READY


simulate = Accelerated(_simulate, (_share, _deal), arrays=(0, 1, 6), whole=(0,))
"""``simulate(counts, costs, units, slots, l2_bw, mem_bw, log)``: see :func:`_simulate`."""


def _arrays(kernel: Kernel) -> tuple[list[int], list[list[float]]]:
    counts = [c.count for c in kernel.classes]
    costs = [[c.busy_s, c.serial_s, c.l2_bytes, c.memory_bytes, c.flow_bytes_per_s] for c in kernel.classes]
    return counts, costs


def simulated_time(kernel: Kernel) -> float:
    """Seconds from the kernel's start to the last tile's end, without launch.

    A kernel of one class with many batches is simulated up to its steady state; the batches between are extrapolated
    from the time that two further batches take.
    """
    if not kernel.classes:
        return kernel.fixed_s if kernel.queued is None else kernel.queued()
    counts, costs = _arrays(kernel)
    batch = kernel.units * kernel.slots
    if len(counts) == 1 and counts[0] > (STEADY_BATCHES + 4) * batch:
        tail = counts[0] % batch
        short = tail + STEADY_BATCHES * batch
        a = _run(kernel, [short], costs)
        b = _run(kernel, [short + 2 * batch], costs)
        batches = (counts[0] - short) // batch
        time = a + (b - a) / 2.0 * batches
    else:
        time = _run(kernel, counts, costs)
    return max(time + kernel.setup_s, kernel.fixed_s)


def _run(kernel: Kernel, counts: list[int], costs: list[list[float]]) -> float:
    end, _ = simulate(
        counts, costs, kernel.units, kernel.slots, kernel.l2_bytes_per_s, kernel.memory_bytes_per_s, [0.0]
    )
    return float(end)


def tile_log(kernel: Kernel, limit: int) -> NDArray[np.float64]:
    """(processor, class, start, work start, end) of up to *limit* tiles, in the order in which they end."""
    import numpy as np

    if not kernel.classes:
        return np.zeros((0, 5))
    counts, costs = _arrays(kernel)
    log = [0.0] * (limit * _LOG_ROW)
    _, written = simulate.python(
        counts, costs, kernel.units, kernel.slots, kernel.l2_bytes_per_s, kernel.memory_bytes_per_s, log
    )
    rows = []
    for entry in range(written):
        unit, size, *rest = log[entry * _LOG_ROW : (entry + 1) * _LOG_ROW]
        rows += [(unit + offset, *rest) for offset in range(int(size))]
        if len(rows) >= limit:
            break
    found = np.array(rows[:limit]).reshape(-1, 5)
    found[:, 2:] += kernel.setup_s
    return found

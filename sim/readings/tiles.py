"""The inside of a kernel, simulated: tiles on processors that share L2 and memory (numba; identical un-jitted).

Every processor holds up to ``slots`` tiles. A tile first waits out its latency, then queues for its processor, which
works on one tile at a time in the order in which they became ready. Working tiles progress at a rate that is the least
of: the processor's own, what the bytes in flight sustain, and fair shares of L2 and memory bandwidth (max–min: what a
slow tile leaves, the others get). Simultaneous completions are one event, so identical processors cost one event.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from ..devices.kernel import Kernel

SHARE_ROUNDS = 6
"""Rounds of the max–min share computation; identical tiles need one, a handful of classes at most a few."""

STEADY_BATCHES = 12
"""Full batches of tiles that are simulated before a long kernel's steady state is extrapolated."""

_EMPTY, _LATENT, _READY, _WORKING = 0, 1, 2, 3
_RELATIVE = 1e-12


@numba.njit(cache=True, nogil=True)
def _share(
    working: NDArray[np.int64], n: int, need: NDArray[np.float64], cap: NDArray[np.float64], total: float
) -> float:
    """Equal bandwidth share of tiles that are not held back by their own cap."""
    share = np.inf
    for _ in range(SHARE_ROUNDS):
        fixed, free = 0.0, 0
        for i in range(n):
            w = working[i]
            if need[w] <= 0.0:
                continue
            if cap[w] * need[w] <= share and share < np.inf:
                fixed += cap[w] * need[w]
            else:
                free += 1
        if free == 0:
            break
        new = (total - fixed) / free
        if share < np.inf and abs(new - share) <= _RELATIVE * share:
            break
        share = new
    return share


@numba.njit(cache=True, nogil=True)
def simulate(
    counts: NDArray[np.int64],
    costs: NDArray[np.float64],
    units: int,
    slots: int,
    l2_bw: float,
    mem_bw: float,
    log: NDArray[np.float64],
) -> tuple[float, int]:
    """Run all tiles; return (end time, rows written to *log*).

    ``costs`` has a row a class: busy, serial, l2 bytes, memory bytes, flow. ``log`` receives (unit, class, start, work
    start, end) while it has room; pass an empty array to skip it.
    """
    places = units * slots
    state = np.zeros(places, np.int64)
    kind = np.zeros(places, np.int64)
    until = np.zeros(places)
    since = np.zeros(places)
    worked = np.zeros(places)
    left = np.zeros(places)
    rate = np.zeros(places)
    cap = np.zeros(places)
    need_l2 = np.zeros(places)
    need_mem = np.zeros(places)
    busy_unit = np.full(units, -1, np.int64)
    resident = np.zeros(units, np.int64)
    working = np.zeros(units, np.int64)
    now, next_class, written = 0.0, 0, 0
    remaining = counts.copy()
    active = 0
    # Slot-major order spreads the first tiles over all processors before any gets a second one.
    for place in range(places):
        while next_class < remaining.size and remaining[next_class] == 0:
            next_class += 1
        if next_class == remaining.size:
            break
        unit = place % units
        index = unit * slots + place // units
        remaining[next_class] -= 1
        state[index], kind[index] = _LATENT, next_class
        until[index], since[index] = costs[next_class, 1], 0.0
        resident[unit] += 1
        active += 1
    while active > 0:
        # Ready tiles take idle processors, earliest ready first.
        for unit in range(units):
            if busy_unit[unit] >= 0:
                continue
            best = -1
            for s in range(slots):
                i = unit * slots + s
                if state[i] == _READY and (best < 0 or until[i] < until[best]):
                    best = i
            if best >= 0:
                busy_unit[unit] = best
                state[best] = _WORKING
                left[best] = 1.0
                worked[best] = now
        n = 0
        for unit in range(units):
            i = busy_unit[unit]
            if i < 0:
                continue
            c = kind[i]
            heavy = max(costs[c, 2], costs[c, 3])
            own = np.inf
            if costs[c, 0] > 0.0:
                own = 1.0 / costs[c, 0]
            if heavy > 0.0:
                own = min(own, costs[c, 4] * resident[unit] / heavy)
            cap[i], need_l2[i], need_mem[i] = own, costs[c, 2], costs[c, 3]
            working[n] = i
            n += 1
        share_l2 = _share(working, n, need_l2, cap, l2_bw)
        share_mem = _share(working, n, need_mem, cap, mem_bw)
        step = np.inf
        for k in range(n):
            i = working[k]
            r = cap[i]
            if need_l2[i] > 0.0:
                r = min(r, share_l2 / need_l2[i])
            if need_mem[i] > 0.0:
                r = min(r, share_mem / need_mem[i])
            rate[i] = r
            ends = 0.0 if r == np.inf else left[i] / r
            step = min(step, ends)
        for i in range(places):
            if state[i] == _LATENT:
                step = min(step, until[i] - now)
        step = max(step, 0.0)
        slack = _RELATIVE * (now + step)
        now += step
        for k in range(n):
            i = working[k]
            done = left[i] if rate[i] == np.inf else rate[i] * step
            left[i] -= done
            if left[i] > 0.0 and rate[i] != np.inf and left[i] / rate[i] > slack:
                continue
            unit = i // slots
            if written < log.shape[0]:
                log[written, 0], log[written, 1] = unit, kind[i]
                log[written, 2], log[written, 3], log[written, 4] = since[i], worked[i], now
                written += 1
            busy_unit[unit] = -1
            while next_class < remaining.size and remaining[next_class] == 0:
                next_class += 1
            if next_class < remaining.size:
                remaining[next_class] -= 1
                state[i], kind[i] = _LATENT, next_class
                until[i], since[i] = now + costs[next_class, 1], now
            else:
                state[i] = _EMPTY
                resident[unit] -= 1
                active -= 1
        for i in range(places):
            if state[i] == _LATENT and until[i] <= now + slack:
                state[i] = _READY
    return now, written


_NO_LOG = np.zeros((0, 5))


def _arrays(kernel: Kernel) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    counts = np.array([c.count for c in kernel.classes], dtype=np.int64)
    costs = np.array(
        [(c.busy_s, c.serial_s, c.l2_bytes, c.memory_bytes, c.flow_bytes_per_s) for c in kernel.classes]
    )
    return counts, costs


def simulated_time(kernel: Kernel) -> float:
    """Seconds from the first tile's start to the last one's end, without launch.

    A kernel of one class with many batches is simulated up to its steady state; the batches between are extrapolated
    from the time that two further batches take.
    """
    if not kernel.classes:
        return kernel.fixed_s
    counts, costs = _arrays(kernel)
    batch = kernel.units * kernel.slots
    if counts.size == 1 and counts[0] > (STEADY_BATCHES + 4) * batch:
        tail = int(counts[0]) % batch
        short = tail + STEADY_BATCHES * batch
        a = _run(kernel, np.array([short]), costs)
        b = _run(kernel, np.array([short + 2 * batch]), costs)
        batches = (int(counts[0]) - short) // batch
        time = a + (b - a) / 2.0 * batches
    else:
        time = _run(kernel, counts, costs)
    return max(time + kernel.setup_s, kernel.fixed_s)


def _run(kernel: Kernel, counts: NDArray[np.int64], costs: NDArray[np.float64]) -> float:
    end, _ = simulate(
        counts, costs, kernel.units, kernel.slots, kernel.l2_bytes_per_s, kernel.memory_bytes_per_s, _NO_LOG
    )
    return float(end)


def tile_log(kernel: Kernel, limit: int) -> NDArray[np.float64]:
    """(unit, class, start, work start, end) of up to *limit* tiles, in the order in which they end."""
    if not kernel.classes:
        return _NO_LOG
    counts, costs = _arrays(kernel)
    log = np.zeros((limit, 5))
    _, written = simulate(
        counts, costs, kernel.units, kernel.slots, kernel.l2_bytes_per_s, kernel.memory_bytes_per_s, log
    )
    return log[:written]

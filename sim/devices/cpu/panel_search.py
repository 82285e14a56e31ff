"""How a matrix product is cut over cores: row panels × column panels × pieces of k, blocked for L1 and L2.

Every candidate cut is priced with the closed form of :func:`effsim.devices.kernel.kernel_time` for one tile a core and
the fastest is taken, as threading heuristics of BLAS libraries aim to.

Where the file says what packing costs, a product copies both operands into panels before it multiplies: the copy waits
for the operands (nothing is multiplied meanwhile), so that its cycles and its loads add to the arithmetic. For few rows
the library reads the second operand as it lies instead, once for every ``direct_rows`` rows; loads then run beside.
"""

from __future__ import annotations

import math

from ...accelerate import Accelerated

# Slots of the result.
TIME, COUNT, ROWS, COLUMNS, SPLIT, BUSY, L3, MEMORY, FLOW, COMPUTE, LOADS, EXTRA = range(12)
RESULT_SIZE = 12

# Slots of the problem.
(
    P_M,
    P_N,
    P_K,
    P_BATCH,
    P_EA,
    P_EB,
    P_EC,
    P_RATE,
    P_WIDEN_A,
    P_WIDEN_B,
    P_BESIDE,
    P_A_MEM,
    P_B_MEM,
    P_C_MEM,
    P_PACK,
    P_DIRECT,
    P_DIRECT_ROWS,
    P_A_FAR,
    P_B_FAR,
    P_PACK_FAR,
) = range(20)

# Slots of the machine.
(
    D_THREADS,
    D_L1,
    D_L1_BW,
    D_L2,
    D_L2_BW,
    D_L3_BW,
    D_MEM_BW,
    D_STREAM,
    D_L3_STREAM,
    D_FIRST,
    D_FORK,
    D_MR,
    D_NR,
    D_DIRECT_STREAM,
    D_DIRECT_L3,
) = range(15)

LEAST_DEPTH = 256.0
"""Shortest piece of k that a library splits off."""

ACCUMULATOR_BYTES = 4.0
"""Bytes of a partial sum (fp32 or int32)."""


def _blocked(bm: float, bn: float, bk: float, ea: float, eb: float, core: list[float]) -> tuple[float, float]:
    """(bytes L2 → L1, bytes L3 → L2) of one panel product with blocks of k and of one operand held in the caches.

    A slice of B (nr columns, kc deep) sits in half of L1 while A passes, and mc rows of A sit in half of L2; or the
    other way round, whichever moves less.
    """
    kc = max(1.0, min(bk, core[D_L1] / 2.0 / (core[D_NR] * eb)))
    a, b = bm * bk * ea, bn * bk * eb
    turns = 1.0 if bm * kc * ea <= core[D_L1] / 2.0 else math.ceil(bn / core[D_NR])
    mc = max(core[D_MR], core[D_L2] / 2.0 / (kc * ea))
    nc = max(core[D_NR], core[D_L2] / 2.0 / (kc * eb))
    partial = bm * bn * ACCUMULATOR_BYTES
    passes = math.ceil(bk / kc) - 1.0
    spill = 2.0 * partial * passes if partial > core[D_L2] / 2.0 else 0.0
    return a * turns + b, min(a + b * math.ceil(bm / mc), a * math.ceil(bn / nc) + b) + spill


def _fetched(problem: list[float], tm: float, tn: float, pairs: list[list[float]]) -> float:
    """Bytes from memory when separate caches each fetch what they share: the best arrangement of the caches."""
    a, b, batch = problem[P_A_MEM], problem[P_B_MEM], problem[P_BATCH]
    best = math.inf
    for index in range(len(pairs)):
        down, across = pairs[index][0], pairs[index][1]
        if index > 0 and down > tm * batch:  # there are no rows for so many
            continue
        copies_a = min(across, tn)
        copies_b = max(1.0, min(down / batch, tm))
        best = min(best, a * copies_a + b * copies_b)
    return best


def _round(busy: float, alone: float, memory: float, l3: float, active: float, core: list[float]) -> float:
    """Time of *active* cores that each do one tile beside the others."""
    return max(busy, alone, memory * active / core[D_MEM_BW], l3 * active / core[D_L3_BW])


def _packing(problem: list[float], a: float, b: float, memory: float, active: float, core: list[float]) -> float:
    """Seconds in which one core copies *a* and *b* elements into panels and waits for their bytes."""
    near = a * problem[P_EA] * problem[P_A_FAR] + b * problem[P_EB] * problem[P_B_FAR] - memory
    seconds = max(memory / core[D_STREAM], memory * active / core[D_MEM_BW]) + max(0.0, near) / core[D_L3_STREAM]
    strided = problem[P_PACK_FAR] * (a * problem[P_A_FAR] + b * problem[P_B_FAR])
    return problem[P_PACK] * (a + b) + strided + seconds


def _search(
    problem: list[float],
    core: list[float],
    rows: list[float],
    splits: list[float],
    pairs: list[list[float]],
    out: list[float],
) -> None:
    """Fill *out* with the fastest cut of ``problem``. Units: bytes, seconds, FLOP/s of one core."""
    m, n, k, batch = problem[P_M], problem[P_N], problem[P_K], problem[P_BATCH]
    ea, eb, ec = problem[P_EA], problem[P_EB], problem[P_EC]
    threads, nr = core[D_THREADS], core[D_NR]
    columns = math.ceil(n / nr)
    places = max(1.0, math.floor(threads / batch))
    out[TIME] = math.inf
    for s in range(len(splits)):
        split = splits[s]
        if split > 1.0 and (split * LEAST_DEPTH > k or split > places):
            continue
        bk = math.ceil(k / split)
        for r in range(len(rows)):
            tm = rows[r]
            if tm > m:
                break
            bm = math.ceil(m / tm)
            fit = max(1.0, math.floor(places / (tm * split)))
            for turn in range(4):
                tn = 1.0 if turn == 0 else fit * (1 << (turn - 1))
                if (turn == 1 and fit == 1.0) or tn > columns:
                    continue
                bn = math.ceil(columns / tn) * nr
                count = batch * tm * tn * split
                compute = 2.0 * bm * bn * bk / problem[P_RATE]
                if problem[P_DIRECT] == 0.0 and compute * count >= out[TIME] * threads:
                    continue
                used = min(bn, n)
                widen = problem[P_WIDEN_A] * bm * bk + problem[P_WIDEN_B] * used * bk
                l1 = used * bk * eb * math.ceil(bm / core[D_MR]) + bm * bk * ea * math.ceil(used / nr)
                l2, l3 = _blocked(bm, used, bk, ea, eb, core)
                loads = max(l1 / core[D_L1_BW], l2 / core[D_L2_BW])
                work = max(compute, widen) if problem[P_BESIDE] > 0.0 else compute + widen
                l3 += bm * used * ec
                fetched = _fetched(problem, tm, tn, pairs) / count
                memory = fetched + problem[P_C_MEM] / count
                if problem[P_PACK] > 0.0:
                    work += _packing(problem, bm * bk, used * bk, fetched, min(count, threads), core)
                seconds = memory / core[D_STREAM] + max(0.0, l3 - memory) / core[D_L3_STREAM]
                if problem[P_DIRECT] > 0.0:
                    passes = math.ceil(bm / problem[P_DIRECT_ROWS])
                    direct = max(problem[P_DIRECT] * passes * used * bk, 2.0 * bm * used * bk / problem[P_RATE])
                    read = passes * used * bk * eb + bm * bk * ea + bm * used * ec
                    alone = memory / core[D_DIRECT_STREAM] + max(0.0, read - memory) / core[D_DIRECT_L3]
                    if max(direct, alone) <= max(work, loads):
                        work, loads, l3, seconds = direct, 0.0, read, alone
                busy = max(work, loads)
                flow = max(l3, memory) / seconds
                extra = core[D_FORK] if count > 1.0 else 0.0
                if split > 1.0:  # partial sums through the shared cache, then a second region that adds them
                    partial = m * n * batch * ACCUMULATOR_BYTES
                    extra += partial * (split + 1.0) / core[D_L3_BW] + core[D_FORK]
                full = math.floor(count / threads)
                rest = count - full * threads
                total = extra + (full + (1.0 if rest > 0.0 else 0.0)) * core[D_FIRST]
                if full > 0.0:
                    total += full * _round(busy, seconds, memory, l3, threads, core)
                if rest > 0.0:
                    total += _round(busy, seconds, memory, l3, rest, core)
                if total < out[TIME]:
                    out[TIME], out[COUNT], out[ROWS], out[COLUMNS], out[SPLIT] = total, count, tm, tn, split
                    out[BUSY], out[L3], out[MEMORY], out[FLOW] = busy, l3, memory, flow
                    out[COMPUTE], out[LOADS], out[EXTRA] = work, loads, extra


search = Accelerated(
    _search, (_blocked, _fetched, _round, _packing), arrays=(0, 1, 2, 3, 4, 5), fills=(5,), constants=(1, 2, 3, 4)
)
"""``search(problem, core, rows, splits, pairs, out)``: see :func:`_search`."""


def row_panels(threads: int) -> list[float]:
    """Numbers of row panels worth trying: divisors of the thread count, powers of two, the count itself."""
    wanted = {d for d in range(1, threads + 1) if threads % d == 0}
    wanted |= {1 << i for i in range((4 * threads).bit_length())}
    return [float(x) for x in sorted(wanted)]


def cache_pairs(domains: int) -> list[list[float]]:
    """Arrangements of separate caches over the result as (down, across)."""
    return [[float(d), float(domains // d)] for d in range(1, domains + 1) if domains % d == 0]

"""Which GEMM tile a library would launch, and what each of its blocks needs.

Every candidate tile × split of the k loop is priced with the closed form of :func:`effsim.devices.kernel.kernel_time`
and the fastest is taken: vendor libraries choose by heuristics trained for exactly that.
"""

from __future__ import annotations

import math

from ...accelerate import Accelerated
from .parameters import ACCUMULATOR_BYTES, WARP_THREADS, WORKING_REGISTERS

# Slots of the result array.
TIME, TILE, SPLIT, TILES, SLOTS, BUSY, SERIAL, L2 = range(8)
MEMORY, FLOW, MATRIX_S, L1_S, VECTOR_S, STEPS, EXTRA, RATE, L2_RATE = range(8, 17)
RESULT_SIZE = 17

# Slots of the device array.
(
    D_UNITS,
    D_L1_BW,
    D_L2_BW,
    D_MEM_BW,
    D_L2_CAP,
    D_MEM_LAT,
    D_L2_LAT,
    D_ISSUE,
    D_SHARED,
    D_REGS,
    D_THREADS,
    D_BLOCKS,
    D_FROM_SHARED,
    D_REDUCE,
    D_WRITE_BW,
    D_SYNC,
    D_FILLS,
    D_CLUSTER,
    D_PAIR,
    D_GEMV,
) = range(20)

# Slots of a tile: shape, pipeline stages, warps, and the memory bandwidth that its loads of either operand reach.
T_M, T_N, T_K, T_STAGES, T_WARPS_M, T_WARPS_N, T_A_BW, T_B_BW = range(8)

# Slots of the problem array.
(
    P_M,
    P_N,
    P_K,
    P_BATCH,
    P_EA,
    P_EB,
    P_EC,
    P_RATE,
    P_DEQUANT,
    P_A_MEM,
    P_B_MEM,
    P_C_MEM,
    P_B_SHARED,
    P_SPLITS,
    P_RESCALE,
) = range(15)

MAX_RASTER = 32
"""Largest number of tile rows that consecutive blocks walk before they move one column on."""


def _traffic(tm: int, tn: int, concurrent: float, a_bytes: float, b_bytes: float, cap: float) -> tuple[float, float]:
    """Memory traffic of both operands over the whole product, for the best rasterisation.

    Blocks run in bands of ``g`` tile rows. The concurrent set covers g × c tiles and walks k together, so it loads
    each of its rows and columns of tiles once; an operand that fits the cache whole is read once altogether.
    """
    best_a, best_b = a_bytes * tn, b_bytes * tm
    a_fits, b_fits = a_bytes <= cap, b_bytes <= cap
    g = 1
    while g <= MAX_RASTER:
        rows = min(g, tm)
        columns = min(max(concurrent / rows, 1.0), float(tn))
        if columns >= tn:  # the set is wider than the matrix: it spans several bands
            rows_f = min(concurrent / tn, float(tm))
            rows_f = max(rows_f, 1.0)
        else:
            rows_f = float(rows)
        a = a_bytes * (1.0 if a_fits else math.ceil(tn / columns))
        b = b_bytes * (1.0 if b_fits else math.ceil(tm / rows_f))
        if a + b < best_a + best_b:
            best_a, best_b = a, b
        if rows < g:
            break
        g *= 2
    return best_a, best_b


def _search(
    problem: list[float], device: list[float], tiles: list[list[float]], splits: list[float], out: list[float]
) -> None:
    """Fill *out* with the fastest candidate for ``problem`` on ``device``. Units: bytes, seconds, FLOP/s of one SM."""
    m, n, k, batch = problem[P_M], problem[P_N], problem[P_K], problem[P_BATCH]
    ea, eb, ec = problem[P_EA], problem[P_EB], problem[P_EC]
    units = device[D_UNITS]
    # Narrow weights are stored in the order of the fragments: one load serves two steps of the matrix unit.
    steps_at_once = 2.0 if eb < ea else 1.0
    issue, sync = device[D_ISSUE] / steps_at_once, device[D_SYNC] / steps_at_once
    if m == 1.0 and device[D_GEMV] > 0.0:  # dot products: no barriers, no chain of matrix instructions
        issue = sync = 0.0
    if problem[P_RESCALE] > 0.0:  # sums leave the matrix unit before the next step: nothing covers its latency
        sync = issue
    out[TIME] = math.inf
    for index in range(len(tiles)):
        tile = tiles[index]
        bm, bn, bk, stages = tile[T_M], tile[T_N], tile[T_K], tile[T_STAGES]
        wm, wn = tile[T_WARPS_M], tile[T_WARPS_N]
        tm, tn = math.ceil(m / bm), math.ceil(n / bn)
        threads = wm * wn * WARP_THREADS
        # Two processors that multiply as one each stage half of the second operand.
        staged_n = bn * 0.5 if device[D_PAIR] > 0.0 and tm > 1 else bn
        stage_bytes = bk * (bm * ea + staged_n * eb)
        slots: float = math.floor(device[D_SHARED] / (stages * stage_bytes))
        if slots < 1.0:
            continue
        registers = bm * bn * ACCUMULATOR_BYTES + threads * 4.0 * WORKING_REGISTERS
        if problem[P_RESCALE] > 0.0:  # the sum of a step and that of all before it
            registers += bm * bn * ACCUMULATOR_BYTES
            if registers > device[D_REGS]:
                continue
        slots = min(slots, math.floor(device[D_THREADS] / threads), math.floor(device[D_REGS] / registers))
        slots = max(1.0, min(slots, device[D_BLOCKS]))
        base = tm * tn * batch
        used_m, used_n = min(bm, m), min(bn, n)
        for s in range(len(splits)):
            split = splits[s]
            if split > 1.0 and (problem[P_SPLITS] == 0.0 or base >= 2.0 * units or split * bk > k):
                continue
            steps = math.ceil(math.ceil(k / bk) / split)
            count = base * split
            depth = min(steps * bk, float(k))
            matrix_s = 2.0 * bm * bn * steps * bk / problem[P_RATE]
            read = stage_bytes if device[D_FROM_SHARED] > 0.0 else bk * (bm * wn * ea + bn * wm * eb)
            l1_s = steps * (read + stage_bytes) / device[D_L1_BW]
            vector_s = (problem[P_DEQUANT] * bn + problem[P_RESCALE] * bm * bn) * depth
            if max(matrix_s, l1_s) * count >= out[TIME] * units:
                continue  # the processors alone take longer than the best so far
            c_bytes = used_m * used_n * ec
            c_mem = m * n * ec * batch * problem[P_C_MEM]
            # Blocks run in phase: they widen weights between loading and multiplying, wait at every step's barrier,
            # and all write their results at the same time.
            written = used_m * used_n * 4.0 if split > 1.0 else c_bytes
            active = min(count, units)
            write_s = max(written / device[D_L1_BW], written * active / device[D_L2_BW])
            if split == 1.0:
                write_s = max(write_s, c_mem / count * active / device[D_WRITE_BW])
            busy = max(max(matrix_s + vector_s, l1_s) + steps * sync, steps * issue) + write_s
            # A cluster loads what its blocks share once: two of them the second operand, four both.
            load_a = used_m * ea * (0.5 if device[D_CLUSTER] >= 4.0 and tn > 1 else 1.0)
            load_b = used_n * eb * (0.5 if device[D_CLUSTER] >= 2.0 and tm > 1 else 1.0)
            l2 = depth * (load_a + load_b) + c_bytes
            if tm == 1 or tn == 1:  # one band of tiles: every operand is read once
                a_mem, b_mem = m * k * ea, n * k * eb
            else:
                concurrent = max(min(count, units * slots) / batch, 1.0)
                a_mem, b_mem = _traffic(tm, tn, concurrent, m * k * ea, n * k * eb, device[D_L2_CAP])
            scale_b = 1.0 if problem[P_B_SHARED] > 0.0 else batch
            a_mem *= problem[P_A_MEM] * batch
            b_mem *= problem[P_B_MEM] * scale_b
            memory = a_mem + b_mem + c_mem
            least_s = a_mem / tile[T_A_BW] + b_mem / tile[T_B_BW] + c_mem / device[D_WRITE_BW]
            rate = memory / least_s if least_s > 0.0 else device[D_MEM_BW]
            flight = max(stages - 1.0, 1.0) * bk * (used_m * ea + used_n * eb)
            flow = flight / device[D_MEM_LAT] if device[D_MEM_LAT] > 0.0 else math.inf
            serial = device[D_MEM_LAT] + device[D_ISSUE] + device[D_L2_LAT]
            extra = 0.0
            if split > 1.0:  # partial sums in fp32 through L2, then a second kernel that adds them
                partial = m * n * 4.0 * batch
                l2 += used_m * used_n * 4.0 - c_bytes
                extra = partial * (split + 1.0) / device[D_L2_BW] + device[D_REDUCE]
            tile_memory = memory / count
            # Lines that arrive from memory are written into the cache in the place of reads.
            l2_rate = device[D_L2_BW] * l2 / (l2 + device[D_FILLS] * tile_memory)
            least = max(busy * count / units, least_s, l2 * count / l2_rate)
            if least + serial + extra >= out[TIME]:
                continue
            total = _time(count, units, slots, busy, serial, l2, tile_memory, flow, rate, l2_rate) + extra
            if total < out[TIME]:
                out[TIME], out[TILE], out[SPLIT], out[TILES], out[SLOTS] = total, index, split, count, slots
                out[BUSY], out[SERIAL], out[L2], out[MEMORY], out[FLOW] = busy, serial, l2, tile_memory, flow
                out[MATRIX_S], out[L1_S], out[VECTOR_S], out[STEPS], out[EXTRA] = matrix_s, l1_s, vector_s, steps, extra
                out[RATE], out[L2_RATE] = rate, l2_rate


def _time(
    count: float,
    units: float,
    slots: float,
    busy: float,
    serial: float,
    l2: float,
    memory: float,
    flow: float,
    memory_bw: float,
    l2_bw: float,
) -> float:
    """The closed form of kernel_time for one class."""
    full = math.floor(count / units)
    rest = count - full * units
    rounds = full + (1.0 if rest > 0.0 else 0.0)
    resident = min(slots, rounds)
    heavy = max(l2, memory)
    whole = 0.0
    if full > 0.0:
        whole = max(busy, memory * units / memory_bw, l2 * units / l2_bw, heavy / (flow * resident))
    last = 0.0
    if rest > 0.0:
        alone = 1.0 if full > 0.0 else resident
        last = max(busy, memory * rest / memory_bw, l2 * rest / l2_bw, heavy / (flow * alone))
    work = full * whole + last
    if slots == 1.0:
        return rounds * serial + work
    batches = math.ceil(rounds / slots)
    if batches == 1.0:
        return serial + work
    step = max(whole, last)
    return max(serial + work, (batches - 1.0) * (serial + step) + serial + (rounds - (batches - 1.0) * slots) * step)


search = Accelerated(_search, (_traffic, _time), arrays=(0, 1, 2, 3, 4), fills=(4,), constants=(1, 2, 3))
"""``search(problem, device, tiles, splits, out)``: see :func:`_search`."""

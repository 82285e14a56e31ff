"""The DRAM side of the simulation: when a command may come and what it does to later ones.

Every function takes the array of :mod:`~effsim.memory.layout`, positions of records in it, and absolute times in ticks.
Importing this module loads numba.
"""

from __future__ import annotations

import numpy as np

from .layout import (
    ACT,
    B_ACT,
    B_BUS,
    B_DOMAIN,
    B_FAW_DELAY,
    B_GROUP,
    B_HITS,
    B_PRE,
    B_RD,
    B_ROW,
    B_SLOT,
    B_UNIT,
    B_WR,
    COUNTERS,
    D_ACT,
    D_ACTS,
    D_BANKS,
    D_FAW,
    D_FIRST,
    D_OPEN,
    D_OPEN_SINCE,
    D_PRE,
    D_REF,
    D_REF_FROM,
    D_REF_TO,
    D_WINDOW,
    G_ACT,
    G_RD,
    G_SLOT,
    G_WR,
    L_CCD,
    L_CONFLICT,
    L_FAW,
    L_INJECTION,
    L_REFRESH,
    L_SCHEDULING,
    L_TURNAROUND,
    LOG_WIDTH,
    LOST,
    N_ACT,
    N_LOGGED,
    N_OPEN_TICKS,
    N_PRE,
    N_RD,
    N_REF,
    N_WR,
    O_LOG_ROW,
    O_LOG_SIZE,
    O_PER_CHANNEL,
    O_PER_GROUP,
    P_FREE,
    P_LAST,
    PRE,
    PREA,
    RD,
    RDA,
    REF,
    REFB,
    T_ACT_REF,
    T_AW32,
    T_C_ACT,
    T_C_REF,
    T_FAW,
    T_PPD,
    T_RAS,
    T_RC,
    T_RCD_R,
    T_RCD_W,
    T_RDA,
    T_RFC,
    T_RFCB,
    T_RP,
    T_RP_REF,
    T_RPA,
    T_RPA_REF,
    T_RR_L,
    T_RR_S,
    T_RR_X,
    T_RRD_L,
    T_RRD_S,
    T_RREFD,
    T_RTP,
    T_RW,
    T_RW_X,
    T_SLOT,
    T_WR_L,
    T_WR_S,
    T_WR_X,
    T_WRA,
    T_WTP,
    T_WW_L,
    T_WW_S,
    T_WW_X,
    U_FIRST,
    U_PEERS,
    U_RD,
    U_WR,
    V_ACT,
    V_RD,
    V_WR,
    WIDTH,
    WR,
    WRA,
    Ints,
    compiled,
    seldom,
)


@compiled
def log(s: Ints, at: int, command: int, bank: int, row: int) -> None:
    """Note a command, if a log is kept: time, command, bank, row."""
    n = s[COUNTERS + N_LOGGED]
    if n < s[O_LOG_SIZE]:
        r = s[O_LOG_ROW] + n * LOG_WIDTH
        s[r + 0] = at
        s[r + 1] = command
        s[r + 2] = bank
        s[r + 3] = row
        s[COUNTERS + N_LOGGED] = n + 1


@compiled
def activation_limit(s: Ints, d: int) -> int:
    """Earliest activation as far as a domain goes: tRRD, tFAW, t32AW, refresh of a neighbour."""
    n = s[d + D_ACTS]
    soonest = max(s[d + D_ACT], s[d + D_FAW + (n & 3)] + s[T_FAW])
    if s[T_AW32] > 0:
        soonest = max(soonest, s[s[d + D_WINDOW] + (n & 31)] + s[T_AW32])
    return int(soonest)


@compiled
def push_group(s: Ints, g: int, vector: int, at: int) -> None:
    """No command of a kind to the banks of a group before *at*."""
    # Unsigned positions spare the check for negative ones.
    first = np.uint64(s[g + G_SLOT] + vector * s[O_PER_CHANNEL])
    for k in range(s[O_PER_GROUP]):
        s[first + np.uint64(k)] = max(s[first + np.uint64(k)], at)


@compiled
def activate(s: Ints, bank: int, row: int, at: int, wanted: int) -> None:
    """Open *row*. *wanted* is when the bank itself and the request were ready."""
    d, g = s[bank + B_DOMAIN], s[bank + B_GROUP]
    s[bank + B_FAW_DELAY] = max(0, min(at, max(s[g + G_ACT], activation_limit(s, d))) - wanted)
    s[bank + B_ROW] = row
    s[bank + B_HITS] = 0
    s[bank + B_RD] = at + s[T_RCD_R]
    s[bank + B_WR] = at + s[T_RCD_W]
    s[bank + B_PRE] = max(s[bank + B_PRE], at + s[T_RAS])
    s[bank + B_ACT] = at + s[T_RC]
    s[g + G_ACT] = at + s[T_RRD_L]
    push_group(s, g, V_ACT, s[g + G_ACT])
    s[d + D_ACT] = max(s[d + D_ACT], at + s[T_RRD_S])
    s[d + D_REF] = max(s[d + D_REF], at + s[T_ACT_REF])
    n = s[d + D_ACTS]
    s[d + D_FAW + (n & 3)] = at
    s[s[d + D_WINDOW] + (n & 31)] = at
    s[d + D_ACTS] = n + 1
    if s[d + D_OPEN] == 0:
        s[d + D_OPEN_SINCE] = at
    s[d + D_OPEN] += 1
    s[COUNTERS + N_ACT] += 1
    log(s, at, ACT, bank, row)


@compiled
def _closed(s: Ints, d: int, at: int) -> None:
    s[d + D_OPEN] -= 1
    if s[d + D_OPEN] == 0:
        s[COUNTERS + N_OPEN_TICKS] += at - s[d + D_OPEN_SINCE]


@compiled
def precharge(s: Ints, bank: int, at: int) -> None:
    """Close the row of a bank."""
    d = s[bank + B_DOMAIN]
    s[bank + B_ROW] = -1
    s[bank + B_ACT] = max(s[bank + B_ACT], at + s[T_RP])
    s[d + D_REF] = max(s[d + D_REF], at + s[T_RP_REF])
    s[d + D_PRE] = max(s[d + D_PRE], at + s[T_PPD])
    _closed(s, d, at)
    s[COUNTERS + N_PRE] += 1
    log(s, at, PRE, bank, -1)


@seldom
def precharge_all(s: Ints, d: int, at: int) -> None:
    """Close every row of a domain."""
    first = s[d + D_FIRST]
    for bank in range(first, first + s[d + D_BANKS] * WIDTH, WIDTH):
        s[bank + B_ACT] = max(s[bank + B_ACT], at + s[T_RPA])
        if s[bank + B_ROW] >= 0:
            s[bank + B_ROW] = -1
            _closed(s, d, at)
    s[d + D_REF] = max(s[d + D_REF], at + s[T_RPA_REF])
    s[d + D_PRE] = max(s[d + D_PRE], at + s[T_PPD])
    s[COUNTERS + N_PRE] += 1
    log(s, at, PREA, first, -1)


@seldom
def precharge_all_ready(s: Ints, d: int) -> int:
    """Earliest precharge of all banks of a domain."""
    soonest = s[d + D_PRE]
    first = s[d + D_FIRST]
    for bank in range(first, first + s[d + D_BANKS] * WIDTH, WIDTH):
        soonest = max(soonest, s[bank + B_PRE])
    return int(soonest)


@compiled
def _push_act(s: Ints, bank: int, at: int) -> None:
    s[bank + B_ACT] = max(s[bank + B_ACT], at)
    slot = s[bank + B_SLOT] + V_ACT * s[O_PER_CHANNEL]
    s[slot] = max(s[slot], at)


@seldom
def refresh(s: Ints, d: int, target: int, at: int) -> None:
    """Refresh a domain (*target* −1) or one of its banks."""
    first = s[d + D_FIRST]
    if target >= 0:
        _push_act(s, target, at + s[T_RFCB])
        s[d + D_ACT] = max(s[d + D_ACT], at + s[T_RREFD])
        s[d + D_REF_TO] = at + s[T_RFCB]
        log(s, at, REFB, target, -1)
    else:
        for bank in range(first, first + s[d + D_BANKS] * WIDTH, WIDTH):
            _push_act(s, bank, at + s[T_RFC])
        s[d + D_REF] = max(s[d + D_REF], at + s[T_RFC])
        s[d + D_REF_TO] = at + s[T_RFC]
        log(s, at, REF, first, -1)
    s[COUNTERS + N_REF] += 1


@compiled
def column(s: Ints, bank: int, write: int, at: int, closing: int) -> None:
    """Read or write one access; *closing* precharges the bank as soon as it may."""
    g, u = s[bank + B_GROUP], s[bank + B_UNIT]
    peers = s[u + U_PEERS]
    if write:
        s[g + G_RD] = max(s[g + G_RD], at + s[T_WR_L])
        s[g + G_WR] = max(s[g + G_WR], at + s[T_WW_L])
        s[u + U_RD] = max(s[u + U_RD], at + s[T_WR_S])
        s[u + U_WR] = max(s[u + U_WR], at + s[T_WW_S])
    else:
        s[g + G_RD] = max(s[g + G_RD], at + s[T_RR_L])
        s[u + U_RD] = max(s[u + U_RD], at + s[T_RR_S])
        s[u + U_WR] = max(s[u + U_WR], at + s[T_RW])
    if peers > 1:
        cross_r = s[T_WR_X] if write else s[T_RR_X]
        cross_w = s[T_WW_X] if write else s[T_RW_X]
        first = s[u + U_FIRST]
        for other in range(first, first + peers * WIDTH, WIDTH):
            if other != u:
                s[other + U_RD] = max(s[other + U_RD], at + cross_r)
                s[other + U_WR] = max(s[other + U_WR], at + cross_w)
    push_group(s, g, V_RD, s[g + G_RD])
    push_group(s, g, V_WR, s[g + G_WR])
    s[bank + B_HITS] += 1
    s[COUNTERS + (N_WR if write else N_RD)] += 1
    row = s[bank + B_ROW]
    if closing == 0:
        s[bank + B_PRE] = max(s[bank + B_PRE], at + (s[T_WTP] if write else s[T_RTP]))
        log(s, at, WR if write else RD, bank, row)
        return
    d = s[bank + B_DOMAIN]
    # The device starts the precharge itself, no sooner than tRAS allows.
    ready = max(at + (s[T_WRA] if write else s[T_RDA]), s[bank + B_PRE] + s[T_RP])
    s[bank + B_ACT] = max(s[bank + B_ACT], ready)
    s[bank + B_ROW] = -1
    # The delay to an activation, which may take longer on the command bus than a refresh.
    s[d + D_REF] = max(s[d + D_REF], ready + s[T_C_ACT] - s[T_C_REF])
    _closed(s, d, at)
    log(s, at, WRA if write else RDA, bank, row)


@compiled
def account(s: Ints, bank: int, write: int, at: int, came: int) -> None:
    """Say why the data bus idled before this column command (called before :func:`column`).

    The idle time is cut in this order: nothing was asked for; the rank was refreshed; the activation waited for tFAW or
    tRRD; the rest of opening the row; the column command waited for its bank group or for the bus to turn; the rest.
    """
    bus = s[bank + B_BUS]
    free, last = s[bus + P_FREE], s[bus + P_LAST]
    s[bus + P_FREE] = at + s[T_SLOT]
    s[bus + P_LAST] = write
    gap = at - free
    if gap <= 0:
        return
    d = s[bank + B_DOMAIN]
    if came > free:
        part = min(came, at) - free
        s[LOST + L_INJECTION] += part
        free += part
        gap -= part
    part = max(0, min(s[d + D_REF_TO], at) - max(s[d + D_REF_FROM], free))
    s[LOST + L_REFRESH] += part
    gap -= part
    if s[bank + B_HITS] == 0:
        row_part = min(gap, max(0, s[bank + B_RD + write] - free))
        part = min(row_part, s[bank + B_FAW_DELAY])
        s[LOST + L_FAW] += part
        s[LOST + L_CONFLICT] += row_part - part
        gap -= row_part
    by_group, by_unit = s[s[bank + B_GROUP] + G_RD + write], s[s[bank + B_UNIT] + U_RD + write]
    part = min(gap, max(0, max(by_group, by_unit) - (at - gap)))
    # Beyond the group only the bus itself can hold a column command back: it turns, or another rank takes it.
    s[LOST + (L_CCD if last == write and by_group >= by_unit else L_TURNAROUND)] += part
    s[LOST + L_SCHEDULING] += gap - part


@compiled
def take_out(s: Ints, first: int, i: int, count: int) -> None:
    """Remove entry *i* of *count* entries from *first* on, keeping the order."""
    for k in range(first + i, first + count - 1):
        s[k] = s[k + 1]

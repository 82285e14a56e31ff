"""A controller with one window of reads and one of writes.

Every tick: (1) the oldest ready column command of a request that has opened its row; (2) a pending refresh, which
holds back everything else, or its bank if it is of one; (3) the oldest request, of the direction being served, whose
next command is ready. A row that a request has opened stays open until that request is served. Writes are drained
between two watermarks. With two command buses the column bus chooses first, then the row bus. This is the discipline
of Ramulator 2.1's FR-FCFS.
"""

from __future__ import annotations

import numpy as np

from .admission import admit, due_refresh, next_event, refreshed, served, start_refreshes
from .device import (
    account,
    activate,
    activation_limit,
    column,
    precharge,
    precharge_all,
    precharge_all_ready,
    refresh,
)
from .layout import (
    B_ACT,
    B_GROUP,
    B_OWNED,
    B_PRE,
    B_RD,
    B_ROW,
    B_SLOT,
    B_UNIT,
    B_WR,
    C_COL_BUS,
    C_INFO,
    C_NEXT,
    C_QUEUED,
    C_REF_AT,
    C_REF_COUNT,
    C_ROW_BUS,
    C_SPLIT,
    C_SPLIT_BY,
    C_SYNC,
    C_WRITING,
    CHANNELS,
    COUNTERS,
    D_BANKS,
    D_FIRST,
    D_PRE,
    D_REF,
    G_ACT,
    G_RD,
    G_WR,
    I_FIRST,
    I_UNIT,
    I_UNITS,
    I_VECTORS,
    N_HITS,
    N_SYNC,
    NEVER,
    O_CHANNELS,
    O_CLOSED,
    O_DRAIN_FROM,
    O_DRAIN_TO,
    O_DUAL,
    O_FIRST_REQUEST,
    O_HALF,
    O_PER_CHANNEL,
    O_PER_UNIT,
    R_BANK,
    R_CAME,
    R_NEXT,
    R_ROW,
    R_SEEN,
    READ,
    T_AAD,
    T_C_ACT,
    T_C_COL,
    T_C_PRE,
    T_C_REF,
    T_SYNC_R,
    T_SYNC_W,
    U_DOMAIN,
    U_RD,
    U_WR,
    V_ACT,
    V_HITS,
    V_OWNER,
    V_OWNER_W,
    V_PRE,
    V_RD,
    V_ROWS,
    V_WR,
    WIDTH,
    WRITE,
    Ints,
    compiled,
)
from .waiting import first_of_row, remove, sort_out

COLUMN, ROW = 1, 2


@compiled
def _edge(s: Ints, at: int) -> int:
    """*at*, or the next rising clock edge (an odd tick) where commands need one."""
    return int(at | s[O_HALF])


@compiled
def _note(s: Ints, bank: int) -> None:
    """Note from when on a bank's commands may go, as far as the bank and its group go, and who waits for its row.

    A row that a request has opened is not closed before that request is served. Commands to other banks only push the
    times back (:func:`~effsim.memory.device.push_group`).
    """
    banks, slot, g = s[O_PER_CHANNEL], s[bank + B_SLOT], s[bank + B_GROUP]
    is_open, owned = s[bank + B_ROW] >= 0, s[bank + B_OWNED] > 0
    s[slot + V_ACT * banks] = NEVER if is_open else max(s[bank + B_ACT], s[g + G_ACT])
    s[slot + V_PRE * banks] = s[bank + B_PRE] if is_open and not owned else NEVER
    s[slot + V_RD * banks] = max(s[bank + B_RD], s[g + G_RD]) if is_open else NEVER
    s[slot + V_WR * banks] = max(s[bank + B_WR], s[g + G_WR]) if is_open else NEVER


@compiled
def _active_unit(
    s: Ints, first: int, rd: int, wr: int, now: int, split: int, found: tuple[int, int]
) -> tuple[int, int]:
    """Oldest request that opened a row, of a rank's banks from slot *first* on: when it came, and when one can go.

    *rd* and *wr* are what the rank allows, *split* is the number of the bank whose activation is not complete, *found*
    what was found so far. Unsigned positions spare the check for negative ones, and let the loop run on vectors.
    """
    banks, half = s[O_PER_CHANNEL], s[O_HALF]
    reads, writes = np.uint64(first + V_RD * banks), np.uint64(first + V_WR * banks)
    owners, owners_w = np.uint64(first + V_OWNER * banks), np.uint64(first + V_OWNER_W * banks)
    oldest, soonest = found
    for k in range(s[O_PER_UNIT]):
        i = np.uint64(k)
        came = s[owners + i] if k != split else NEVER
        came_w = s[owners_w + i] if k != split else NEVER
        at, at_w = max(s[reads + i], rd) | half, max(s[writes + i], wr) | half
        oldest = min(oldest, min(came if at <= now else NEVER, came_w if at_w <= now else NEVER))
        soonest = min(soonest, min(at if came < NEVER else NEVER, at_w if came_w < NEVER else NEVER))
    return oldest, soonest


@compiled
def _active(s: Ints, c: int, now: int) -> tuple[int, int]:
    """Bank of the oldest request that has opened its row and whose column command is ready (or −1), and when one is."""
    info, banks, per = s[c + C_INFO], s[O_PER_CHANNEL], s[O_PER_UNIT]
    first, slot, found = s[info + I_UNIT], s[info + I_VECTORS], (NEVER, NEVER)
    split = (s[c + C_SPLIT] - s[info + I_FIRST]) // WIDTH if s[c + C_SPLIT] else -1
    for u in range(first, first + s[info + I_UNITS] * WIDTH, WIDTH):
        found = _active_unit(s, slot, s[u + U_RD], s[u + U_WR], now, split, found)
        slot += per
        split -= per
    if found[0] == NEVER:
        return -1, found[1]
    # Of those that came together, the one whose row opened first.
    best = -1
    for bank in range(s[info + I_FIRST], s[info + I_FIRST] + banks * WIDTH, WIDTH):
        if s[bank + B_OWNED] and bank != s[c + C_SPLIT] and (best < 0 or s[bank + B_RD] < s[best + B_RD]):
            w = _owner_writes(s, bank)
            ready = max(s[s[bank + B_SLOT] + (V_RD + w) * banks], s[s[bank + B_UNIT] + U_RD + w])
            if s[s[bank + B_SLOT] + (V_OWNER + w) * banks] == found[0] and _edge(s, ready) <= now:
                best = bank
    return best, now


@compiled
def _owner_writes(s: Ints, bank: int) -> int:
    """Whether the request that opened the bank's row writes."""
    return 1 if s[s[bank + B_SLOT] + V_OWNER * s[O_PER_CHANNEL]] == NEVER else 0


@compiled
def _queued_unit(
    s: Ints, first: int, w: int, act: int, pre: int, col: int, now: int, held: int, split: int, found: tuple[int, int]
) -> tuple[int, int]:
    """Oldest request of a direction whose next command is ready, of a rank's banks from slot *first* on, and when one is.

    *act*, *pre* and *col* are what the rank allows; bank number *held* may have no command, *split* no column command.
    """
    banks, half = s[O_PER_CHANNEL], s[O_HALF]
    acts, pres = np.uint64(first + V_ACT * banks), np.uint64(first + V_PRE * banks)
    columns = np.uint64(first + (V_RD + w) * banks)
    others, hits = np.uint64(first + (V_ROWS + w) * banks), np.uint64(first + (V_HITS + w) * banks)
    oldest, soonest = found
    for k in range(s[O_PER_UNIT]):
        i = np.uint64(k)
        other = s[others + i] if k != held else NEVER
        hit = s[hits + i] if k != held and k != split else NEVER
        at = min(max(s[acts + i], act) | half, max(s[pres + i], pre))
        at_hit = max(s[columns + i], col) | half
        oldest = min(oldest, min(other if at <= now else NEVER, hit if at_hit <= now else NEVER))
        soonest = min(soonest, min(at if other < NEVER else NEVER, at_hit if hit < NEVER else NEVER))
    return oldest, soonest


@compiled
def _queued(s: Ints, c: int, w: int, now: int, classes: int, held: int) -> tuple[int, int]:
    """Oldest request of a direction whose next command is ready (or −1), and when one is.

    Requests for bank *held* wait.
    """
    if s[c + C_QUEUED + w] == 0:
        return -1, NEVER
    info, per = s[c + C_INFO], s[O_PER_UNIT]
    first, slot, found = s[info + I_UNIT], s[info + I_VECTORS], (NEVER, NEVER)
    split = (s[c + C_SPLIT] - s[info + I_FIRST]) // WIDTH if s[c + C_SPLIT] else -1
    out = (held - s[info + I_FIRST]) // WIDTH if held >= 0 else -1
    for u in range(first, first + s[info + I_UNITS] * WIDTH, WIDTH):
        act, pre, col = NEVER, NEVER, NEVER
        if classes & ROW:
            d = s[u + U_DOMAIN]
            pre = s[d + D_PRE]
            if s[c + C_SPLIT] == 0:
                act = activation_limit(s, d)
        if classes & COLUMN:
            col = s[u + U_RD + w]
        found = _queued_unit(s, slot, w, act, pre, col, now, out, split, found)
        slot += per
        split -= per
        out -= per
    return (-1 if found[0] == NEVER else found[0]), found[1]


@compiled
def _changed(s: Ints, bank: int) -> None:
    """Note what follows from the bank's row having been opened or closed."""
    _note(s, bank)
    sort_out(s, bank)


@compiled
def _any(s: Ints, d: int, target: int, slot: int, least: int) -> bool:
    """Whether the target bank, or any bank of the domain, has *least* or more in *slot*."""
    if target >= 0:
        return bool(s[target + slot] >= least)
    first, found = s[d + D_FIRST], False
    for bank in range(first, first + s[d + D_BANKS] * WIDTH, WIDTH):
        found = found or s[bank + slot] >= least
    return found


@compiled
def _refresh(s: Ints, c: int, now: int) -> int:
    """Send the next command of the first pending refresh if it is ready: 0, else when it will be."""
    d, target = due_refresh(s, c)
    if s[c + C_SPLIT]:
        return NEVER
    if _any(s, d, target, B_ROW, 0):
        # A row that a request has opened is closed only when that request was served.
        if _any(s, d, target, B_OWNED, 1):
            return NEVER
        at = max(s[target + B_PRE], s[d + D_PRE]) if target >= 0 else precharge_all_ready(s, d)
        if at > now:
            return int(at)
        if target >= 0:
            precharge(s, target, now)
            _changed(s, target)
        else:
            precharge_all(s, d, now)
            for bank in range(s[d + D_FIRST], s[d + D_FIRST] + s[d + D_BANKS] * WIDTH, WIDTH):
                _changed(s, bank)
        s[c + C_ROW_BUS] = now + s[T_C_PRE]
        return 0
    # What a bank knows is when it may be activated, which may take longer on the command bus than a refresh.
    ready = s[target + B_ACT] + s[T_C_ACT] - s[T_C_REF] if target >= 0 else s[d + D_REF]
    at = _edge(s, ready)
    if at > now:
        return int(at)
    refresh(s, d, target, now)
    s[c + C_ROW_BUS] = now + s[T_C_REF]
    refreshed(s, c)
    return 0


@compiled
def _wanted_again(s: Ints, bank: int) -> bool:
    """Whether a waiting request wants the open row (closed-page policy)."""
    hits = s[bank + B_SLOT] + V_HITS * s[O_PER_CHANNEL]
    return bool(min(s[hits], s[hits + s[O_PER_CHANNEL]]) < NEVER)


@compiled
def _column(s: Ints, c: int, w: int, bank: int, came: int, now: int) -> None:
    """Send a column command, syncing the data clock first where it has stopped."""
    at = now
    sync = s[T_SYNC_W if w else T_SYNC_R]
    if sync > 0:
        if now >= s[c + C_SYNC]:
            at = now + 1
            s[COUNTERS + N_SYNC] += 1
        s[c + C_SYNC] = max(s[c + C_SYNC], at + sync)
    # Neither a request that opened the row nor one that still wants it may lose it.
    wanted = s[bank + B_OWNED] or (s[O_CLOSED] and _wanted_again(s, bank))
    closing = 1 if s[O_CLOSED] and not wanted else 0
    account(s, bank, w, at, came)
    column(s, bank, w, at, closing)
    if closing:
        _changed(s, bank)
    else:
        _note(s, bank)
    served(s, w, came, at)
    s[c + (C_COL_BUS if s[O_DUAL] else C_ROW_BUS)] = at + s[T_C_COL]


@compiled
def _choose_direction(s: Ints, c: int) -> int:
    """Whether writes are served now."""
    reads, writes = s[c + C_QUEUED + READ], s[c + C_QUEUED + WRITE]
    if s[c + C_WRITING] == 0:
        if writes >= s[O_DRAIN_FROM] or reads == 0:
            s[c + C_WRITING] = 1
    elif writes <= s[O_DRAIN_TO] and reads != 0:
        s[c + C_WRITING] = 0
    return int(s[c + C_WRITING])


@compiled
def _issue_queued(s: Ints, c: int, w: int, request: int, now: int) -> None:
    """Send the next command of a request; one whose row opens waits no longer for the queue."""
    bank, row, came = s[request + R_BANK], s[request + R_ROW], s[request + R_CAME]
    open_row, first_command = s[bank + B_ROW], s[request + R_SEEN] == 0
    s[request + R_SEEN] = 1
    if open_row != row and open_row >= 0:
        precharge(s, bank, now)
        _changed(s, bank)
        s[c + C_ROW_BUS] = now + s[T_C_PRE]
        return
    remove(s, bank, w, request)
    s[c + C_QUEUED + w] -= 1
    if open_row == row:
        if first_command:
            s[COUNTERS + N_HITS] += 1
        hits = s[bank + B_SLOT] + (V_HITS + w) * s[O_PER_CHANNEL]
        s[hits] = first_of_row(s, s[request + R_NEXT], row)
        _column(s, c, w, bank, came, now)
        return
    activate(s, bank, row, now, max(s[bank + B_ACT], came))
    s[c + C_ROW_BUS] = now + s[T_C_ACT]
    if s[T_AAD] > 0:
        s[c + C_SPLIT] = bank
        s[c + C_SPLIT_BY] = now + s[T_AAD]
    s[bank + B_OWNED] = 1
    s[s[bank + B_SLOT] + (V_OWNER + w) * s[O_PER_CHANNEL]] = came
    _changed(s, bank)


@compiled
def _issue_active(s: Ints, c: int, bank: int, now: int) -> None:
    """Send the column command of the request that has opened the bank's row."""
    w = _owner_writes(s, bank)
    slot = s[bank + B_SLOT] + (V_OWNER + w) * s[O_PER_CHANNEL]
    came = s[slot]
    s[slot] = NEVER
    s[bank + B_OWNED] = 0
    _column(s, c, w, bank, came, now)


@compiled
def _bus_turn(s: Ints, c: int, now: int, classes: int) -> tuple[bool, int]:
    """One choice on one command bus: whether something was sent, else when something could be."""
    soonest = NEVER
    if classes & COLUMN:
        bank, soonest = _active(s, c, now)
        if bank >= 0:
            _issue_active(s, c, bank, now)
            return True, now
    held = -1
    if s[c + C_REF_COUNT] > 0:
        if classes & ROW:
            at = _refresh(s, c, now)
            if at == 0:
                return True, now
            soonest = min(soonest, at)
        _, held = due_refresh(s, c)
        if held < 0:
            return False, soonest
    w = _choose_direction(s, c)
    request, at = _queued(s, c, w, now, classes, held)
    if request >= 0:
        _issue_queued(s, c, w, request, now)
        return True, now
    return False, min(soonest, at)


@compiled
def _one_bus(s: Ints, c: int, now: int) -> int:
    """A tick of a channel with one command bus: when it has something to do again."""
    if s[c + C_ROW_BUS] > now:
        return int(s[c + C_ROW_BUS])
    split = s[c + C_SPLIT]
    if split and s[c + C_SPLIT_BY] <= now:
        s[c + C_SPLIT] = 0
        return now + 1
    sent, soonest = _bus_turn(s, c, now, COLUMN | ROW)
    if sent:
        return now + 1
    if split:
        s[c + C_SPLIT] = 0
        return now + 1
    return int(soonest)


@compiled
def _two_buses(s: Ints, c: int, now: int) -> int:
    """A tick of a channel with a column and a row bus: when it has something to do again."""
    soonest, sent = int(s[c + C_COL_BUS]), False
    if soonest <= now:
        sent, soonest = _bus_turn(s, c, now, COLUMN)
    soonest_row, sent_row = int(s[c + C_ROW_BUS]), False
    if soonest_row <= now:
        sent_row, soonest_row = _bus_turn(s, c, now, ROW)
    if sent or sent_row:
        return now + 1
    return min(soonest, soonest_row)


@compiled
def run(s: Ints, begin: int) -> None:
    """Serve all requests, in the order given, from time *begin* on."""
    sent, now = s[O_FIRST_REQUEST], begin
    while now < NEVER:
        sent = admit(s, sent, now)
        soonest = NEVER
        for c in range(CHANNELS, CHANNELS + s[O_CHANNELS] * WIDTH, WIDTH):
            if s[c + C_NEXT] > now:
                soonest = min(soonest, s[c + C_NEXT])
                continue
            start_refreshes(s, c, now)
            at = _two_buses(s, c, now) if s[O_DUAL] else _one_bus(s, c, now)
            at = max(now + 1, min(at, s[c + C_REF_AT]))
            s[c + C_NEXT] = at
            soonest = min(soonest, at)
        now = next_event(s, sent, now, soonest)

"""A controller with one window of reads and one of writes.

Every tick: (1) the oldest ready column command of a request that has opened its row; (2) a pending refresh, which
holds back everything else, or its bank if it is of one; (3) the oldest request, of the direction being served, whose
next command is ready. A row that a request has opened stays open until that request is served. Writes are drained
between two watermarks. With two command buses the column bus chooses first, then the row bus. This is the discipline
of Ramulator 2.1's FR-FCFS.
"""

from __future__ import annotations

from .admission import admit, due_refresh, next_event, refreshed, served, start_refreshes
from .device import (
    account,
    activate,
    column,
    precharge,
    precharge_all,
    precharge_all_ready,
    refresh,
)
from .layout import (
    B_ACT,
    B_OWNED,
    B_PRE,
    B_ROW,
    B_SLOT,
    C_ACTIVE,
    C_COL_BUS,
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
    N_HITS,
    N_SYNC,
    NEVER,
    O_CHANNELS,
    O_CLOSED,
    O_DRAIN_FROM,
    O_DRAIN_TO,
    O_DUAL,
    O_FIRST_REQUEST,
    O_PER_CHANNEL,
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
    V_HITS,
    V_OWNER,
    WIDTH,
    WRITE,
    Ints,
    compiled,
    seldom,
)
from .shared_scan import COLUMN, ROW, TIE, active, edge, note, queued
from .waiting import first_of_row, remove, set_hit, sort_out


@seldom
def _changed(s: Ints, bank: int) -> None:
    """Note what follows from the bank's row having been opened or closed."""
    note(s, bank)
    sort_out(s, bank)


@seldom
def _any(s: Ints, d: int, target: int, slot: int, least: int) -> bool:
    """Whether the target bank, or any bank of the domain, has *least* or more in *slot*."""
    if target >= 0:
        return bool(s[target + slot] >= least)
    first, found = s[d + D_FIRST], False
    for bank in range(first, first + s[d + D_BANKS] * WIDTH, WIDTH):
        found = found or s[bank + slot] >= least
    return found


@seldom
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
    at = edge(s, ready)
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
        note(s, bank)
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
        set_hit(s, bank, w, first_of_row(s, s[request + R_NEXT], row))
        _column(s, c, w, bank, came, now)
        return
    activate(s, bank, row, now, max(s[bank + B_ACT], came))
    s[c + C_ROW_BUS] = now + s[T_C_ACT]
    if s[T_AAD] > 0:
        s[c + C_SPLIT] = bank
        s[c + C_SPLIT_BY] = now + s[T_AAD]
    s[bank + B_OWNED] = 1
    # Of those that came together, the one whose row opened first is the older.
    s[s[bank + B_SLOT] + (V_OWNER + w) * s[O_PER_CHANNEL]] = came * TIE + min(now - came, TIE - 1)
    s[c + C_ACTIVE] += 1
    _changed(s, bank)


@compiled
def _issue_active(s: Ints, c: int, bank: int, now: int) -> None:
    """Send the column command of the request that has opened the bank's row."""
    slot, w = s[bank + B_SLOT] + V_OWNER * s[O_PER_CHANNEL], 0
    if s[slot] == NEVER:
        slot, w = slot + s[O_PER_CHANNEL], 1
    came = s[slot] // TIE
    s[slot] = NEVER
    s[bank + B_OWNED] = 0
    s[c + C_ACTIVE] -= 1
    _column(s, c, w, bank, came, now)


@compiled
def _bus_turn(s: Ints, c: int, now: int, classes: int) -> tuple[bool, int]:
    """One choice on one command bus: whether something was sent, else when something could be."""
    soonest = NEVER
    if classes & COLUMN:
        bank, soonest = active(s, c, now)
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
    request, at = queued(s, c, w, now, classes, held)
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
    elif s[c + C_REF_COUNT] == 0:
        _choose_direction(s, c)  # what the column bus took may be the last write of a drain
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
            if now >= s[c + C_REF_AT]:
                start_refreshes(s, c, now)
            at = _two_buses(s, c, now) if s[O_DUAL] else _one_bus(s, c, now)
            at = max(now + 1, min(at, s[c + C_REF_AT]))
            s[c + C_NEXT] = at
            soonest = min(soonest, at)
        now = next_event(s, sent, now, soonest)

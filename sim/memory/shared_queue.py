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
    activation_limit,
    column,
    column_ready,
    precharge,
    precharge_all,
    precharge_all_ready,
    refresh,
    take_out,
)
from .layout import (
    B_ACT,
    B_DOMAIN,
    B_OWNED,
    B_PRE,
    B_ROW,
    C_ACTIVE,
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
    I_ACTIVES,
    I_QUEUE,
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
    R_BANK,
    R_CAME,
    R_ROW,
    R_SEEN,
    R_WRITE,
    READ,
    T_AAD,
    T_C_ACT,
    T_C_COL,
    T_C_PRE,
    T_C_REF,
    T_SYNC_R,
    T_SYNC_W,
    WIDTH,
    WRITE,
    Ints,
    compiled,
)

COLUMN, ROW = 1, 2
K_COLUMN, K_ACTIVATE, K_PRECHARGE = 0, 1, 2


@compiled
def _edge(s: Ints, at: int) -> int:
    """*at*, or the next rising clock edge where commands need one."""
    return at + 1 if s[O_HALF] and at & 1 == 0 else at


@compiled
def _active(s: Ints, c: int, now: int) -> tuple[int, int]:
    """Oldest request with an open row whose column command is ready (or −1), and when the first one will be."""
    best, soonest, oldest = -1, NEVER, NEVER
    first = s[s[c + C_INFO] + I_ACTIVES]
    for i in range(s[c + C_ACTIVE]):
        request = s[first + i]
        bank = s[request + R_BANK]
        if s[c + C_SPLIT] == bank:
            continue
        at = _edge(s, column_ready(s, bank, s[request + R_WRITE]))
        if at <= now:
            if s[request + R_CAME] < oldest:
                best, oldest = i, s[request + R_CAME]
        elif at < soonest:
            soonest = at
    return best, soonest


@compiled
def _queued(s: Ints, c: int, w: int, now: int, classes: int, held: int) -> tuple[int, int, int]:
    """First request of a queue whose next command is ready: (index or −1, kind of command, when one will be).

    Requests for bank *held* wait.
    """
    soonest = NEVER
    first, split = s[s[c + C_INFO] + I_QUEUE + w], s[c + C_SPLIT]
    for i in range(s[c + C_QUEUED + w]):
        request = s[first + i]
        bank = s[request + R_BANK]
        if bank == held:
            continue
        open_row = s[bank + B_ROW]
        if open_row == s[request + R_ROW]:
            if not classes & COLUMN or split == bank:
                continue
            kind, at = K_COLUMN, _edge(s, column_ready(s, bank, w))
        elif not classes & ROW:
            continue
        elif open_row < 0:
            if split:
                continue
            kind, at = K_ACTIVATE, s[bank + B_ACT]
            if at < soonest:
                at = _edge(s, max(at, activation_limit(s, bank)))
        else:
            if s[bank + B_OWNED]:
                continue
            kind, at = K_PRECHARGE, max(s[bank + B_PRE], s[s[bank + B_DOMAIN] + D_PRE])
        if at <= now:
            return i, kind, at
        if at < soonest:
            soonest = at
    return -1, 0, soonest


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
        else:
            precharge_all(s, d, now)
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
def _wanted_again(s: Ints, c: int, bank: int, row: int) -> bool:
    """Whether another waiting request wants the open row (closed-page policy)."""
    for w in range(2):
        first = s[s[c + C_INFO] + I_QUEUE + w]
        for k in range(first, first + s[c + C_QUEUED + w]):
            if s[s[k] + R_BANK] == bank and s[s[k] + R_ROW] == row:
                return True
    return False


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
    wanted = s[bank + B_OWNED] or (s[O_CLOSED] and _wanted_again(s, c, bank, s[bank + B_ROW]))
    closing = 1 if s[O_CLOSED] and not wanted else 0
    account(s, bank, w, at, came)
    column(s, bank, w, at, closing)
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
def _issue_queued(s: Ints, c: int, w: int, i: int, kind: int, now: int) -> None:
    """Send the command of entry *i*; a request whose row opens moves to the active list."""
    first = s[s[c + C_INFO] + I_QUEUE + w]
    request = s[first + i]
    bank, row, came = s[request + R_BANK], s[request + R_ROW], s[request + R_CAME]
    if s[request + R_SEEN] == 0 and kind == K_COLUMN:
        s[COUNTERS + N_HITS] += 1
    s[request + R_SEEN] = 1
    if kind == K_PRECHARGE:
        precharge(s, bank, now)
        s[c + C_ROW_BUS] = now + s[T_C_PRE]
        return
    if kind == K_ACTIVATE:
        activate(s, bank, row, now, max(s[bank + B_ACT], came))
        s[c + C_ROW_BUS] = now + s[T_C_ACT]
        if s[T_AAD] > 0:
            s[c + C_SPLIT] = bank
            s[c + C_SPLIT_BY] = now + s[T_AAD]
        s[s[s[c + C_INFO] + I_ACTIVES] + s[c + C_ACTIVE]] = request
        s[c + C_ACTIVE] += 1
        s[bank + B_OWNED] = 1
    take_out(s, first, i, s[c + C_QUEUED + w])
    s[c + C_QUEUED + w] -= 1
    if kind == K_COLUMN:
        _column(s, c, w, bank, came, now)


@compiled
def _issue_active(s: Ints, c: int, i: int, now: int) -> None:
    """Send the column command of active request *i*."""
    first = s[s[c + C_INFO] + I_ACTIVES]
    request = s[first + i]
    bank, w, came = s[request + R_BANK], s[request + R_WRITE], s[request + R_CAME]
    s[bank + B_OWNED] = 0
    take_out(s, first, i, s[c + C_ACTIVE])
    s[c + C_ACTIVE] -= 1
    _column(s, c, w, bank, came, now)


@compiled
def _bus_turn(s: Ints, c: int, now: int, classes: int) -> tuple[bool, int]:
    """One choice on one command bus: whether something was sent, else when something could be."""
    soonest = NEVER
    if classes & COLUMN:
        i, soonest = _active(s, c, now)
        if i >= 0:
            _issue_active(s, c, i, now)
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
    i, kind, at = _queued(s, c, w, now, classes, held)
    if i >= 0:
        _issue_queued(s, c, w, i, kind, now)
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

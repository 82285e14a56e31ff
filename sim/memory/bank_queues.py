"""A controller with transaction buffers in front of short queues per bank.

Every clock: (1) a due refresh sends its precharges and itself, while its rank's queues wait; (2) else the queues are
asked in turn for a ready command, and a second time for one of the other kind where row and column commands have
buses of their own; (3) one transaction, the first that finds room, moves into its bank's queue. A row is closed when
the head of the queue wants another and nobody behind it wants the open one, or four have had it. Writes wait in a
buffer until it is full. This is the discipline of DRAMsim3.
"""

from __future__ import annotations

import numpy as np

from .admission import admit, due_refresh, next_event, refreshed, served, start_refreshes
from .device import account, activate, activation_limit, column, precharge, refresh, take_out
from .layout import (
    B_ACT,
    B_CHANNEL,
    B_DOMAIN,
    B_GROUP,
    B_HITS,
    B_NEXT,
    B_PRE,
    B_QUEUE,
    B_QUEUED,
    B_RD,
    B_ROW,
    B_UNIT,
    C_DRAIN,
    C_INFO,
    C_NEXT,
    C_QUEUED,
    C_REF_AT,
    C_REF_COUNT,
    C_TURN,
    CHANNELS,
    COUNTERS,
    D_BANKS,
    D_FIRST,
    D_PRE,
    D_REF,
    G_RD,
    I_BANKS,
    I_FIRST,
    I_FREED,
    I_MARKED,
    I_NEXTS,
    I_QUEUE,
    I_STUCK,
    I_STUCK_WRITES,
    I_UNIT,
    I_UNITS,
    N_HITS,
    NEVER,
    O_BANKS,
    O_BQ,
    O_CHANNELS,
    O_CLOSED,
    O_DRAIN_IDLE,
    O_DUAL,
    O_FIRST_REQUEST,
    O_READS,
    O_REQUESTS,
    O_WQ,
    R_BANK,
    R_CAME,
    R_ROW,
    R_WRITE,
    READ,
    T_C_ACT,
    T_C_REF,
    U_RD,
    U_WR,
    WIDTH,
    WRITE,
    Ints,
    compiled,
)

K_NONE, K_COLUMN, K_ACTIVATE, K_PRECHARGE = -1, 0, 1, 2
MOST_HITS = 4
"""Accesses to a row after which a waiting conflict may close it although more are queued."""


@compiled
def _bank_command(s: Ints, bank: int, now: int) -> tuple[int, int]:
    """First ready command of a bank's queue: (kind, entry).

    If none is ready, notes since when a row command could go, and since when a column command could as far as the
    bank and its group go: commands to other banks only push these times back, so they stand until the bank itself
    changes.
    """
    first, count, notes = s[bank + B_QUEUE], s[bank + B_QUEUED], s[bank + B_NEXT]
    at_row, at_column, kind, entry, hits = NEVER, NEVER, K_NONE, 0, 0
    open_row = s[bank + B_ROW]
    if count > 0 and open_row < 0:
        at_row = max(s[bank + B_ACT], activation_limit(s, bank))
        kind = K_ACTIVATE if at_row <= now else K_NONE
    elif count > 0:
        head = s[first]
        conflict = s[head + R_ROW] != open_row
        for i in range(count):
            request = s[first + i]
            if s[request + R_ROW] == open_row:
                hits += 1
                w = s[request + R_WRITE]
                at_bank = max(s[bank + B_RD + w], s[s[bank + B_GROUP] + G_RD + w])
                at_column = min(at_column, at_bank)
                if kind == K_NONE and max(at_bank, s[s[bank + B_UNIT] + U_RD + w]) <= now:
                    kind, entry = K_COLUMN, i
                if not conflict and (kind == K_COLUMN or s[O_READS] == s[O_REQUESTS]):
                    break  # found, or the others of the row are reads too, and no sooner
        if conflict and (hits == 0 or s[bank + B_HITS] >= MOST_HITS):
            at_row = max(s[bank + B_PRE], s[s[bank + B_DOMAIN] + D_PRE])
            if at_row <= now:
                kind, entry = K_PRECHARGE, 0
    s[notes] = at_row
    s[notes + s[O_BANKS]] = at_column
    return kind, entry


@compiled
def _bus_free(s: Ints, info: int) -> int:
    """Earliest column command of a channel as far as its ranks go."""
    soonest, first = NEVER, s[info + I_UNIT]
    for u in range(first, first + s[info + I_UNITS] * WIDTH, WIDTH):
        soonest = min(soonest, min(s[u + U_RD], s[u + U_WR]))
    return soonest


@compiled
def _earliest(s: Ints, c: int) -> int:
    """When the first bank of a channel may have a command.

    Unsigned positions spare the check for negative ones, and let the loop run on vectors.
    """
    info = s[c + C_INFO]
    rows, columns = np.uint64(s[info + I_NEXTS]), np.uint64(s[info + I_NEXTS] + s[O_BANKS])
    row, column = NEVER, NEVER
    for k in range(s[info + I_BANKS]):
        row = min(row, s[rows + np.uint64(k)])
        column = min(column, s[columns + np.uint64(k)])
    soonest: int = min(row, max(_bus_free(s, info), column))
    return soonest


@compiled
def _first_due(s: Ints, first: int, begin: int, end: int, now: int, column_now: int) -> int:
    """First bank from number *begin* on noted for a row command *now* or a column command by *column_now*; or *end*."""
    rows, columns = np.uint64(first), np.uint64(first + s[O_BANKS])
    for k in range(begin, end):
        if s[rows + np.uint64(k)] <= now or s[columns + np.uint64(k)] <= column_now:
            return k
    return end


@compiled
def _next_command(s: Ints, c: int, now: int) -> tuple[int, int, int]:
    """Ask the queues in turn for a ready command: (bank or −1, kind, entry)."""
    info = s[c + C_INFO]
    banks, marked, first, rows = s[info + I_BANKS], s[info + I_MARKED], s[info + I_FIRST], s[info + I_NEXTS]
    turn = s[c + C_TURN]
    column_now = now if _bus_free(s, info) <= now else -1
    for half in range(2):
        k, end = (turn + 1, banks) if half == 0 else (0, turn + 1)
        while True:
            k = _first_due(s, rows, k, end, now, column_now)
            if k >= end:
                break
            bank = first + k * WIDTH
            if bank != marked and s[bank + B_DOMAIN] != marked:
                kind, i = _bank_command(s, bank, now)
                if kind >= 0:
                    s[c + C_TURN] = k
                    return bank, kind, i
            k += 1
    return -1, K_NONE, 0


@compiled
def _send(s: Ints, bank: int, kind: int, i: int, now: int) -> None:
    """Send the command of entry *i* of a bank's queue."""
    first = s[bank + B_QUEUE]
    request = s[first + i]
    came, w = s[request + R_CAME], s[request + R_WRITE]
    if kind == K_PRECHARGE:
        precharge(s, bank, now)
        return
    if kind == K_ACTIVATE:
        activate(s, bank, s[request + R_ROW], now, max(s[bank + B_ACT], came))
        return
    if s[bank + B_HITS] > 0:
        s[COUNTERS + N_HITS] += 1
    take_out(s, first, i, s[bank + B_QUEUED])
    s[bank + B_QUEUED] -= 1
    s[s[s[bank + B_CHANNEL] + C_INFO] + I_FREED] = bank
    account(s, bank, w, now, came)
    column(s, bank, w, now, s[O_CLOSED])
    served(s, w, came, now)


@compiled
def _refresh(s: Ints, c: int, now: int) -> int:
    """Send the next command of the pending refresh if one is ready: 0, else when one will be."""
    d, target = due_refresh(s, c)
    s[s[c + C_INFO] + I_MARKED] = d if target < 0 else target
    first, count = s[d + D_FIRST], s[d + D_BANKS]
    if target >= 0:
        first, count = target, 1
    soonest, opened = NEVER, False
    for bank in range(first, first + count * WIDTH, WIDTH):
        if s[bank + B_ROW] >= 0:
            opened = True
            at = max(s[bank + B_PRE], s[d + D_PRE])
            if at <= now:
                precharge(s, bank, now)
                return 0
            soonest = min(soonest, at)
    if opened:
        return soonest
    at = int(s[target + B_ACT] + s[T_C_ACT] - s[T_C_REF] if target >= 0 else s[d + D_REF])
    if at > now:
        return at
    refresh(s, d, target, now)
    refreshed(s, c)
    s[s[c + C_INFO] + I_MARKED] = 0
    return 0


@compiled
def _direction(s: Ints, c: int) -> int:
    """Whether writes move now: a full buffer is drained, or one that is full enough while no read waits."""
    if s[c + C_DRAIN] == 0:
        writes = s[c + C_QUEUED + WRITE]
        idle = s[c + C_QUEUED + READ] == 0 and writes >= s[O_DRAIN_IDLE]
        if writes >= s[O_WQ] or (idle and writes > 0):
            s[c + C_DRAIN] = writes
    return 1 if s[c + C_DRAIN] > 0 else 0


@compiled
def _movable(s: Ints, info: int, first: int, count: int) -> int:
    """First of the transactions whose bank's queue has room, or −1.

    Those already found stuck stay so, but for the bank of which an access has been sent since: that one has room for
    one.
    """
    stuck, freed = s[info + I_STUCK], s[info + I_FREED]
    s[info + I_FREED] = 0
    if freed:
        for i in range(stuck):
            if s[s[first + i] + R_BANK] == freed:
                s[info + I_STUCK] = stuck - 1
                return i
    for i in range(stuck, count):
        if s[s[s[first + i] + R_BANK] + B_QUEUED] < s[O_BQ]:
            s[info + I_STUCK] = i
            return i
    s[info + I_STUCK] = count
    return -1


@compiled
def _move_transaction(s: Ints, c: int) -> bool:
    """Move the first transaction that finds room into its bank's queue."""
    w, info = _direction(s, c), s[c + C_INFO]
    if w != s[info + I_STUCK_WRITES]:
        s[info + I_STUCK_WRITES] = w
        s[info + I_STUCK] = 0
    first, count = s[info + I_QUEUE + w], s[c + C_QUEUED + w]
    i = _movable(s, info, first, count)
    if i < 0:
        return False
    bank = s[s[first + i] + R_BANK]
    s[s[bank + B_QUEUE] + s[bank + B_QUEUED]] = s[first + i]
    s[bank + B_QUEUED] += 1
    s[s[bank + B_NEXT]] = 0
    take_out(s, first, i, count)
    s[c + C_QUEUED + w] = count - 1
    s[c + C_DRAIN] -= w
    return True


@compiled
def _commands(s: Ints, c: int, now: int) -> int:
    """Send what can be sent this clock: 0 if something was, else when something could be."""
    soonest, sent_column, sent = NEVER, False, False
    if s[c + C_REF_COUNT] > 0:
        soonest = _refresh(s, c, now)
        sent = soonest == 0
    if not sent:
        bank, kind, i = _next_command(s, c, now)
        if kind < 0:
            next_one: int = min(soonest, _earliest(s, c))
            return next_one
        _send(s, bank, kind, i, now)
        sent_column = kind == K_COLUMN
    if s[O_DUAL]:
        bank, kind, i = _next_command(s, c, now)
        if kind >= 0 and (kind == K_COLUMN) != sent_column:
            _send(s, bank, kind, i, now)
    return 0


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
            at = _commands(s, c, now)
            if _move_transaction(s, c):
                at = 0
            at = max(now + 1, min(at, s[c + C_REF_AT]))
            s[c + C_NEXT] = at
            soonest = min(soonest, at)
        now = next_event(s, sent, now, soonest)

"""A controller with transaction buffers in front of short queues per bank.

Every clock: (1) a due refresh sends its precharges and itself, while its rank's queues wait; (2) else the queues are
asked in turn for a ready command, and a second time for one of the other kind where row and column commands have
buses of their own; (3) one transaction, the first that finds room, moves into its bank's queue. A row is closed when
the head of the queue wants another and nobody behind it wants the open one, or four have had it. Writes wait in a
buffer until it is full, or more than a few while no queue has anything. This is the discipline of DRAMsim3.
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
    B_PRE,
    B_QUEUE,
    B_QUEUED,
    B_RD,
    B_ROW,
    B_SLOT,
    B_UNIT,
    C_ACTIVE,
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
    G_ACT,
    G_RD,
    I_FIRST,
    I_MARKED,
    I_UNIT,
    I_UNITS,
    I_VECTORS,
    N_HITS,
    NEVER,
    O_BQ,
    O_CHANNELS,
    O_CLOSED,
    O_DRAIN_IDLE,
    O_DUAL,
    O_FIRST_REQUEST,
    O_PER_CHANNEL,
    O_PER_UNIT,
    O_WQ,
    R_BANK,
    R_CAME,
    R_ROW,
    R_WRITE,
    T_C_ACT,
    T_C_REF,
    U_DOMAIN,
    U_RD,
    U_WR,
    V_ACT,
    V_FULL,
    V_HEAD,
    V_PRE,
    V_RD,
    V_WR,
    WIDTH,
    WRITE,
    Ints,
    compiled,
    seldom,
)
from .waiting import remove

K_COLUMN, K_ACTIVATE, K_PRECHARGE = 0, 1, 2
MOST_HITS = 4
"""Accesses to a row after which a waiting conflict may close it although more are queued."""


@compiled
def _note(s: Ints, bank: int) -> None:
    """Note from when on which commands the queue of a bank asks for may go, as far as the bank and its group go.

    Commands to other banks only push these times back (:func:`~effsim.memory.device.push_group`), so they stand until
    the bank or its queue changes.
    """
    banks, slot, count, row = s[O_PER_CHANNEL], s[bank + B_SLOT], s[bank + B_QUEUED], s[bank + B_ROW]
    for vector in range(V_ACT, V_WR + 1):
        s[slot + vector * banks] = NEVER
    if count == 0 or s[s[s[bank + B_CHANNEL] + C_INFO] + I_MARKED] == bank:
        return
    g, first, hits = s[bank + B_GROUP], s[bank + B_QUEUE], 0
    if row < 0:
        s[slot + V_ACT * banks] = max(s[bank + B_ACT], s[g + G_ACT])
        return
    for i in range(first, first + count):
        request = s[i]
        if s[request + R_ROW] == row:
            w = s[request + R_WRITE]
            s[slot + (V_RD + w) * banks] = max(s[bank + B_RD + w], s[g + G_RD + w])
            hits += 1
    if s[s[first] + R_ROW] != row and (hits == 0 or s[bank + B_HITS] >= MOST_HITS):
        s[slot + V_PRE * banks] = s[bank + B_PRE]


@compiled
def _scan_unit(
    s: Ints, first: int, act: int, pre: int, rd: int, wr: int, now: int, turn: int, found: tuple[int, int]
) -> tuple[int, int]:
    """Ask the banks of a rank: turns until the first that may have a command now, and when one may.

    *first* is the slot of the first bank, which is asked *turn* turns after the one that was served last; *act* to *wr*
    are what the rank allows, *found* is what was found so far. Unsigned positions spare the check for negative ones,
    and let the loop run on vectors.
    """
    banks = s[O_PER_CHANNEL]
    acts, pres = np.uint64(first + V_ACT * banks), np.uint64(first + V_PRE * banks)
    reads, writes = np.uint64(first + V_RD * banks), np.uint64(first + V_WR * banks)
    best, soonest, mask = found[0], found[1], banks - 1
    for k in range(s[O_PER_UNIT]):
        i = np.uint64(k)
        row = min(max(s[acts + i], act), max(s[pres + i], pre))
        at = min(row, min(max(s[reads + i], rd), max(s[writes + i], wr)))
        soonest = min(soonest, at)
        best = min(best, (turn + k) & mask if at <= now else NEVER)
    return best, soonest


@compiled
def _next_bank(s: Ints, c: int, now: int) -> tuple[int, int]:
    """The first bank in turn that may have a command now, or −1, and when one may."""
    info, banks, per = s[c + C_INFO], s[O_PER_CHANNEL], s[O_PER_UNIT]
    first, marked, slot, turn = s[info + I_UNIT], s[info + I_MARKED], s[info + I_VECTORS], banks - 1 - s[c + C_TURN]
    found = (NEVER, NEVER)
    for u in range(first, first + s[info + I_UNITS] * WIDTH, WIDTH):
        d = s[u + U_DOMAIN]
        if d != marked:
            limit = activation_limit(s, d)
            found = _scan_unit(s, slot, limit, s[d + D_PRE], s[u + U_RD], s[u + U_WR], now, turn, found)
        slot += per
        turn += per
    if found[0] == NEVER:
        return -1, found[1]
    s[c + C_TURN] = (s[c + C_TURN] + 1 + found[0]) & (banks - 1)
    return s[info + I_FIRST] + s[c + C_TURN] * WIDTH, now


@compiled
def _bank_command(s: Ints, bank: int, now: int) -> tuple[int, int]:
    """Command and entry of a bank that may have one now. A row that is done with closes before another access."""
    row, slot, first = s[bank + B_ROW], s[bank + B_SLOT], s[bank + B_QUEUE]
    if row < 0:
        return K_ACTIVATE, 0
    if max(s[slot + V_PRE * s[O_PER_CHANNEL]], s[s[bank + B_DOMAIN] + D_PRE]) <= now:
        return K_PRECHARGE, 0
    i = 0
    while s[s[first + i] + R_ROW] != row or not _column_ready(s, bank, s[s[first + i] + R_WRITE], now):
        i += 1
    return K_COLUMN, i


@compiled
def _column_ready(s: Ints, bank: int, w: int, now: int) -> bool:
    at = max(s[bank + B_RD + w], s[s[bank + B_GROUP] + G_RD + w])
    return bool(max(at, s[s[bank + B_UNIT] + U_RD + w]) <= now)


@seldom
def _send(s: Ints, bank: int, kind: int, i: int, now: int) -> None:
    """Send the command of entry *i* of a bank's queue."""
    first = s[bank + B_QUEUE]
    request = s[first + i]
    came, w = s[request + R_CAME], s[request + R_WRITE]
    if kind == K_PRECHARGE:
        precharge(s, bank, now)
    elif kind == K_ACTIVATE:
        activate(s, bank, s[request + R_ROW], now, max(s[bank + B_ACT], came))
    else:
        if s[bank + B_HITS] > 0:
            s[COUNTERS + N_HITS] += 1
        take_out(s, first, i, s[bank + B_QUEUED])
        s[bank + B_QUEUED] -= 1
        s[s[bank + B_CHANNEL] + C_ACTIVE] -= 1
        s[s[bank + B_SLOT] + V_FULL * s[O_PER_CHANNEL]] = 0
        account(s, bank, w, now, came)
        column(s, bank, w, now, s[O_CLOSED])
        served(s, w, came, now)
    _note(s, bank)


@seldom
def _mark(s: Ints, c: int, marked: int, target: int) -> None:
    """Hold a rank or bank back for a refresh, or (0) let it go on."""
    info = s[c + C_INFO]
    if s[info + I_MARKED] != marked:
        s[info + I_MARKED] = marked
        if target >= 0:
            _note(s, target)


@seldom
def _refresh(s: Ints, c: int, now: int) -> int:
    """Send the next command of the pending refresh if one is ready: 0, else when one will be."""
    d, target = due_refresh(s, c)
    _mark(s, c, d if target < 0 else target, target)
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
                _note(s, bank)
                return 0
            soonest = min(soonest, at)
    if opened:
        return soonest
    at = int(s[target + B_ACT] + s[T_C_ACT] - s[T_C_REF] if target >= 0 else s[d + D_REF])
    if at > now:
        return at
    refresh(s, d, target, now)
    refreshed(s, c)
    _mark(s, c, 0, target)
    return 0


@compiled
def _direction(s: Ints, c: int) -> int:
    """Whether writes move now: a full buffer is drained, or one that is full enough while no bank has work."""
    if s[c + C_DRAIN] == 0:
        writes = s[c + C_QUEUED + WRITE]
        if writes >= s[O_WQ] or (s[c + C_ACTIVE] == 0 and writes > s[O_DRAIN_IDLE]):
            s[c + C_DRAIN] = writes
    return 1 if s[c + C_DRAIN] > 0 else 0


@compiled
def _movable(s: Ints, info: int, w: int) -> int:
    """First of the transactions of a direction whose bank's queue has room, or NEVER."""
    banks = s[O_PER_CHANNEL]
    heads, full = np.uint64(s[info + I_VECTORS] + (V_HEAD + w) * banks), np.uint64(s[info + I_VECTORS] + V_FULL * banks)
    found = NEVER
    for k in range(banks):
        found = min(found, max(s[heads + np.uint64(k)], s[full + np.uint64(k)]))
    return found


@compiled
def _move_transaction(s: Ints, c: int) -> bool:
    """Move the first transaction that finds room into its bank's queue."""
    w = _direction(s, c)
    if s[c + C_QUEUED + w] == 0:
        return False
    request = _movable(s, s[c + C_INFO], w)
    if request == NEVER:
        return False
    bank, n = s[request + R_BANK], s[s[request + R_BANK] + B_QUEUED]
    remove(s, bank, w, request)
    s[s[bank + B_QUEUE] + n] = request
    s[bank + B_QUEUED] = n + 1
    s[c + C_ACTIVE] += 1
    if n + 1 >= s[O_BQ]:
        s[s[bank + B_SLOT] + V_FULL * s[O_PER_CHANNEL]] = NEVER
    if n == 0 or s[bank + B_ROW] >= 0:
        _note(s, bank)
    s[c + C_QUEUED + w] -= 1
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
        bank, at = _next_bank(s, c, now)
        if bank < 0:
            next_one: int = min(soonest, at)
            return next_one
        kind, i = _bank_command(s, bank, now)
        _send(s, bank, kind, i, now)
        sent_column = kind == K_COLUMN
    if s[O_DUAL]:
        bank, _ = _next_bank(s, c, now)
        if bank >= 0:
            kind, i = _bank_command(s, bank, now)
            if (kind == K_COLUMN) != sent_column:
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
            if now >= s[c + C_REF_AT]:
                start_refreshes(s, c, now)
            at = _commands(s, c, now)
            if _move_transaction(s, c):
                at = 0
            at = max(now + 1, min(at, s[c + C_REF_AT]))
            s[c + C_NEXT] = at
            soonest = min(soonest, at)
        now = next_event(s, sent, now, soonest)

"""A controller with transaction buffers in front of short queues per bank.

Every clock: (1) a due refresh sends its precharges and itself, while its rank's queues wait; (2) else the queues are asked
in turn for a ready command, and a second time for one of the other kind where row and column commands have buses of their
own; (3) one transaction, the first that finds room, moves into its bank's queue. A row is closed when the head of the queue
wants another and nobody behind it wants the open one, or four have had it. Writes wait in a buffer until it is full. This
is the discipline of DRAMsim3.
"""

from __future__ import annotations

from .admission import admit, due_refresh, next_event, refreshed, served, start_refreshes
from .device import (
    account,
    activate,
    activation_limit,
    column,
    column_ready,
    earliest,
    first_due,
    precharge,
    refresh,
    take_out,
)
from .layout import (B_ACT, B_CHANNEL, B_DOMAIN, B_HITS, B_NEXT, B_PRE, B_QUEUE, B_QUEUED, B_ROW, CHANNELS, COUNTERS, C_DRAIN, C_INFO, C_NEXT, C_QUEUED, C_REF_AT, C_REF_COUNT, C_STUCK, C_TURN, D_BANKS, D_FIRST, D_PRE, D_REF, I_BANKS, I_FIRST, I_MARKED, I_NEXTS, I_QUEUE, Ints, NEVER, N_HITS, O_BQ, O_CHANNELS, O_CLOSED, O_DRAIN_IDLE, O_DUAL, O_FIRST_REQUEST, O_READS, O_REQUESTS, O_WQ, READ, R_BANK, R_CAME, R_ROW, R_WRITE, T_C_ACT, T_C_REF, WIDTH, WRITE, compiled)  # fmt: skip

K_NONE, K_COLUMN, K_ACTIVATE, K_PRECHARGE = -1, 0, 1, 2
MOST_HITS = 4
"""Accesses to a row after which a waiting conflict may close it although more are queued."""


@compiled
def _bank_command(s: Ints, bank: int, now: int) -> tuple[int, int, int]:
    """First ready command of a bank's queue: (kind, entry, when one will be)."""
    first, count = s[bank + B_QUEUE], s[bank + B_QUEUED]
    if count == 0:
        return K_NONE, 0, NEVER
    open_row = s[bank + B_ROW]
    if open_row < 0:
        at = max(s[bank + B_ACT], activation_limit(s, bank))
        return (K_ACTIVATE if at <= now else K_NONE), 0, at
    head = s[first]
    if s[head + R_ROW] == open_row:
        at = column_ready(s, bank, s[head + R_WRITE])
        if at <= now:
            return K_COLUMN, 0, at
        if s[O_READS] == s[O_REQUESTS]:  # others of the row are reads too, and no sooner
            return K_NONE, 0, at
    soonest, ready, hits = NEVER, -1, 0
    for i in range(count):
        request = s[first + i]
        if s[request + R_ROW] == open_row:
            hits += 1
            at = column_ready(s, bank, s[request + R_WRITE])
            soonest = min(soonest, at)
            if ready < 0 and at <= now:
                ready = i
    if s[head + R_ROW] != open_row and (hits == 0 or s[bank + B_HITS] >= MOST_HITS):
        at = max(s[bank + B_PRE], s[s[bank + B_DOMAIN] + D_PRE])
        if at <= now:
            return K_PRECHARGE, 0, at
        soonest = min(soonest, at)
    return (K_COLUMN if ready >= 0 else K_NONE), ready, soonest


@compiled
def _next_command(s: Ints, c: int, now: int) -> tuple[int, int, int, int]:
    """Ask the queues in turn: (bank, kind, entry, when one will be ready if none is)."""
    info = s[c + C_INFO]
    banks, marked, first, nexts = s[info + I_BANKS], s[info + I_MARKED], s[info + I_FIRST], s[info + I_NEXTS]
    turn, soonest = s[c + C_TURN], earliest(s, nexts, banks)
    if soonest > now:
        return -1, K_NONE, 0, soonest
    for half in range(2):
        k, end = (turn + 1, banks) if half == 0 else (0, turn + 1)
        while True:
            k = first_due(s, nexts, k, end, now)
            if k >= end:
                break
            bank = first + k * WIDTH
            if bank != marked and s[bank + B_DOMAIN] != marked:
                kind, i, at = _bank_command(s, bank, now)
                if kind >= 0:
                    s[c + C_TURN] = k
                    return bank, kind, i, at
                # Commands to other banks only push this one's back: this stands until the bank itself changes.
                s[nexts + k] = at
            k += 1
    return -1, K_NONE, 0, earliest(s, nexts, banks)


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
    s[s[bank + B_CHANNEL] + C_STUCK] = 0
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
def _move_transaction(s: Ints, c: int) -> bool:
    """Move the first transaction that finds room into its bank's queue."""
    if s[c + C_STUCK]:
        return False
    writes = s[c + C_QUEUED + WRITE]
    if s[c + C_DRAIN] == 0:
        idle = s[c + C_QUEUED + READ] == 0 and writes >= s[O_DRAIN_IDLE]
        if writes >= s[O_WQ] or (idle and writes > 0):
            s[c + C_DRAIN] = writes
    w = 1 if s[c + C_DRAIN] > 0 else 0
    first, count = s[s[c + C_INFO] + I_QUEUE + w], s[c + C_QUEUED + w]
    for i in range(count):
        bank = s[s[first + i] + R_BANK]
        n = s[bank + B_QUEUED]
        if n >= s[O_BQ]:
            continue
        s[s[bank + B_QUEUE] + n] = s[first + i]
        s[bank + B_QUEUED] = n + 1
        s[s[bank + B_NEXT]] = 0
        take_out(s, first, i, count)
        s[c + C_QUEUED + w] = count - 1
        s[c + C_DRAIN] -= w
        return True
    s[c + C_STUCK] = 1
    return False


@compiled
def _commands(s: Ints, c: int, now: int) -> int:
    """Send what can be sent this clock: 0 if something was, else when something could be."""
    soonest, sent_column, sent = NEVER, False, False
    if s[c + C_REF_COUNT] > 0:
        soonest = _refresh(s, c, now)
        sent = soonest == 0
    if not sent:
        bank, kind, i, at = _next_command(s, c, now)
        if kind >= 0:
            _send(s, bank, kind, i, now)
            sent, sent_column = True, kind == K_COLUMN
        soonest = min(soonest, at)
    if sent and s[O_DUAL]:
        bank, kind, i, at = _next_command(s, c, now)
        if kind >= 0 and (kind == K_COLUMN) != sent_column:
            _send(s, bank, kind, i, now)
    return 0 if sent else soonest


@compiled
def run(s: Ints, begin: int) -> None:
    """Serve all requests, in the order given, from time *begin* on."""
    sent, now = s[O_FIRST_REQUEST], begin
    while now < NEVER:
        sent = admit(s, sent, now)
        for c in range(CHANNELS, CHANNELS + s[O_CHANNELS] * WIDTH, WIDTH):
            if s[c + C_NEXT] > now:
                continue
            start_refreshes(s, c, now)
            at = _commands(s, c, now)
            if _move_transaction(s, c):
                at = 0
            s[c + C_NEXT] = max(now + 1, min(at, s[c + C_REF_AT]))
        now = next_event(s, sent, now)

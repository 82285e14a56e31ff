"""What both controllers share: requests enter in order, refreshes fall due, results are booked."""

from __future__ import annotations

from .device import take_out
from .layout import (
    B_CHANNEL,
    B_DOMAIN,
    C_INFO,
    C_NEXT,
    C_QUEUED,
    C_REF_AT,
    C_REF_COUNT,
    COUNTERS,
    D_BANKS,
    D_FIRST,
    D_NEXT_BANK,
    D_REF_FROM,
    D_REF_TO,
    I_DOMAIN,
    I_DOMAINS,
    I_REF_TURN,
    I_REFRESHES,
    L_COUNT,
    LOST,
    N_COUNT,
    N_HOLD,
    N_LAST,
    N_LATENCY,
    N_MAX_LATENCY,
    N_RD,
    N_SAMPLED,
    N_WR,
    NEVER,
    O_INJECT,
    O_OUTSTANDING,
    O_POSTED,
    O_READS,
    O_REFRESH,
    O_REQUESTS,
    O_REQUESTS_END,
    O_RQ,
    O_SAMPLE_EVERY,
    O_SAMPLE_ROW,
    O_SAMPLES,
    O_STAGGER,
    R_BANK,
    R_CAME,
    R_WIDTH,
    R_WRITE,
    REFRESH_BANK,
    S_TIME,
    T_REFI,
    T_RL,
    WIDTH,
    Ints,
    compiled,
    seldom,
)
from .waiting import append


@compiled
def admit(s: Ints, sent: int, now: int) -> int:
    """Let requests in, in order, until one is refused by its channel: position of the next.

    A refused request holds back those behind it, whatever their channel. With a limit of one outstanding request, the
    next enters a tick after the data of the last has come.
    """
    end = s[O_REQUESTS_END]
    limited = s[O_OUTSTANDING] > 0
    if not limited:
        s[COUNTERS + N_HOLD] = 0
    for _ in range(s[O_INJECT]):
        if sent >= end or (limited and s[COUNTERS + N_HOLD] > now):
            break
        w, bank = s[sent + R_WRITE], s[sent + R_BANK]
        c = s[bank + B_CHANNEL]
        n = s[c + C_QUEUED + w]
        if n >= s[O_RQ + w]:
            if not limited:
                s[COUNTERS + N_HOLD] = NEVER  # room comes only with a command of that channel
            break
        append(s, bank, w, sent)
        s[sent + R_CAME] = now
        s[c + C_QUEUED + w] = n + 1
        s[c + C_NEXT] = now
        sent += R_WIDTH
        if w and s[O_POSTED]:
            s[COUNTERS + N_LAST] = max(s[COUNTERS + N_LAST], now + 1)
            if limited:
                s[COUNTERS + N_HOLD] = now + 2  # done in a clock
        elif limited:
            s[COUNTERS + N_HOLD] = NEVER
    return sent


@seldom
def start_refreshes(s: Ints, c: int, now: int) -> None:
    """Queue the refreshes of a channel that are due."""
    domains = s[s[c + C_INFO] + I_DOMAINS]
    per_bank = s[O_REFRESH] == REFRESH_BANK
    first, count, turns = 0, domains, 1
    if s[O_STAGGER]:
        first, count, turns = s[s[c + C_INFO] + I_REF_TURN], 1, domains
        s[s[c + C_INFO] + I_REF_TURN] = (first + 1) % domains
    for i in range(first, first + count):
        d = s[s[c + C_INFO] + I_DOMAIN] + i * WIDTH
        # A positive entry is a domain, a negative one a bank.
        entry = d
        if per_bank:
            entry = -(s[d + D_FIRST] + s[d + D_NEXT_BANK] * WIDTH)
            s[d + D_NEXT_BANK] = (s[d + D_NEXT_BANK] + 1) % s[d + D_BANKS]
        s[s[s[c + C_INFO] + I_REFRESHES] + s[c + C_REF_COUNT]] = entry
        s[c + C_REF_COUNT] += 1
        if s[d + D_REF_TO] < now:
            s[d + D_REF_FROM] = now
        s[d + D_REF_TO] = NEVER
    if per_bank:
        turns *= s[s[s[c + C_INFO] + I_DOMAIN] + D_BANKS]
    s[c + C_REF_AT] += s[T_REFI] // turns


@compiled
def due_refresh(s: Ints, c: int) -> tuple[int, int]:
    """First refresh on the list of a channel: domain, and bank or −1."""
    entry = s[s[s[c + C_INFO] + I_REFRESHES]]
    if entry > 0:
        return entry, -1
    return s[-entry + B_DOMAIN], -entry


@seldom
def refreshed(s: Ints, c: int) -> None:
    """Take the first refresh off the list of a channel."""
    take_out(s, s[s[c + C_INFO] + I_REFRESHES], 0, s[c + C_REF_COUNT])
    s[c + C_REF_COUNT] -= 1


@compiled
def served(s: Ints, w: int, came: int, at: int) -> None:
    """Book a request whose column command went out at *at*."""
    done = at if w else at + s[T_RL]
    if not w:
        latency = done + 1 - came
        s[COUNTERS + N_LATENCY] += latency
        s[COUNTERS + N_MAX_LATENCY] = max(s[COUNTERS + N_MAX_LATENCY], latency)
    if w and s[O_POSTED]:
        return
    if s[O_OUTSTANDING]:
        s[COUNTERS + N_HOLD] = done + 1
    s[COUNTERS + N_LAST] = max(s[COUNTERS + N_LAST], done)


@seldom
def _sample(s: Ints, now: int) -> None:
    """Note all counters, once a sampling period."""
    n = s[COUNTERS + N_SAMPLED]
    row = s[O_SAMPLE_ROW] + 2 * n * WIDTH
    for k in range(N_COUNT):
        s[row + k] = s[COUNTERS + k]
    for k in range(L_COUNT):
        s[row + WIDTH + k] = s[LOST + k]
    s[row + WIDTH + S_TIME] = now
    s[COUNTERS + N_SAMPLED] = n + 1


@compiled
def next_event(s: Ints, sent: int, now: int, soonest: int) -> int:
    """When something happens again; :data:`~effsim.memory.layout.NEVER` when all is done.

    *soonest* is when the first channel has something to do. Done is also a run of which as many samples as were asked
    for have been taken.
    """
    if s[O_SAMPLES] > 0 and now >= (s[COUNTERS + N_SAMPLED] + 1) * s[O_SAMPLE_EVERY]:
        _sample(s, now)
        if s[COUNTERS + N_SAMPLED] >= s[O_SAMPLES]:
            return NEVER
    waiting = sent < s[O_REQUESTS_END]
    if not waiting:
        reads, writes = s[COUNTERS + N_RD], s[COUNTERS + N_WR]
        if reads >= s[O_READS] and (s[O_POSTED] or reads + writes >= s[O_REQUESTS]):
            return NEVER
    if waiting:
        soonest = min(soonest, max(now + 1, s[COUNTERS + N_HOLD]))
    return soonest

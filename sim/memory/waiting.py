"""Requests that wait for a bank, oldest first: one list per bank and direction, linked through the requests.

Requests enter in order, so the older of two is the one with the lower position, whatever their banks.
"""

from __future__ import annotations

from .layout import (
    B_CHANNEL,
    B_ROW,
    B_SLOT,
    C_HITS,
    NEVER,
    O_PER_CHANNEL,
    O_SHARED,
    R_NEXT,
    R_ROW,
    V_HEAD,
    V_HITS,
    V_ROWS,
    V_TAIL,
    Ints,
    compiled,
)


@compiled
def set_hit(s: Ints, bank: int, w: int, request: int) -> None:
    """The oldest request of a direction for the bank's open row, or NEVER."""
    slot = s[bank + B_SLOT] + (V_HITS + w) * s[O_PER_CHANNEL]
    if s[slot] < NEVER:
        s[s[bank + B_CHANNEL] + C_HITS] -= 1
    if request < NEVER:
        s[s[bank + B_CHANNEL] + C_HITS] += 1
    s[slot] = request


@compiled
def append(s: Ints, bank: int, w: int, request: int) -> None:
    """The request waits for its bank."""
    banks = s[O_PER_CHANNEL]
    slot = s[bank + B_SLOT] + w * banks
    s[request + R_NEXT] = NEVER
    if s[slot + V_HEAD * banks] == NEVER:
        s[slot + V_HEAD * banks] = request
    else:
        s[s[slot + V_TAIL * banks] + R_NEXT] = request
    s[slot + V_TAIL * banks] = request
    if s[O_SHARED]:
        if s[request + R_ROW] != s[bank + B_ROW]:
            s[slot + V_ROWS * banks] = min(s[slot + V_ROWS * banks], request)
        elif s[slot + V_HITS * banks] == NEVER:
            set_hit(s, bank, w, request)


@compiled
def remove(s: Ints, bank: int, w: int, request: int) -> None:
    """The request waits no longer."""
    banks = s[O_PER_CHANNEL]
    slot = s[bank + B_SLOT] + w * banks
    after, before = s[request + R_NEXT], s[slot + V_HEAD * banks]
    if before == request:
        s[slot + V_HEAD * banks] = after
        return
    while s[before + R_NEXT] != request:
        before = s[before + R_NEXT]
    s[before + R_NEXT] = after
    if after == NEVER:
        s[slot + V_TAIL * banks] = before


@compiled
def first_of_row(s: Ints, request: int, row: int) -> int:
    """The first of the list from *request* on that wants *row*, or NEVER."""
    while request != NEVER and s[request + R_ROW] != row:
        request = s[request + R_NEXT]
    return request


@compiled
def sort_out(s: Ints, bank: int) -> None:
    """Oldest request of the open row and oldest one of another, by direction, after a row was opened or closed."""
    banks, row = s[O_PER_CHANNEL], s[bank + B_ROW]
    for w in range(2):
        slot = s[bank + B_SLOT] + w * banks
        head = s[slot + V_HEAD * banks]
        hit, other = NEVER, head
        if row >= 0:
            hit = first_of_row(s, head, row)
            while other != NEVER and s[other + R_ROW] == row:
                other = s[other + R_NEXT]
        set_hit(s, bank, w, hit)
        s[slot + V_ROWS * banks] = other

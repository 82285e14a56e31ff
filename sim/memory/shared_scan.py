"""Which request a controller with shared queues serves next: minima over the vectors of a channel's banks."""

from __future__ import annotations

import numpy as np

from .device import activation_limit
from .layout import (
    B_ACT,
    B_GROUP,
    B_OWNED,
    B_PRE,
    B_RD,
    B_ROW,
    B_SLOT,
    B_WR,
    C_ACTIVE,
    C_HITS,
    C_INFO,
    C_QUEUED,
    C_SPLIT,
    D_PRE,
    G_ACT,
    G_RD,
    G_WR,
    I_FIRST,
    I_UNIT,
    I_UNITS,
    I_VECTORS,
    NEVER,
    O_HALF,
    O_PER_CHANNEL,
    O_PER_UNIT,
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
    Ints,
    compiled,
)

COLUMN, ROW = 1, 2
"""Kinds of commands a bus may carry."""
TIE = 1 << 24
"""Ticks from a request's coming to the opening of its row that are told apart."""


@compiled
def edge(s: Ints, at: int) -> int:
    """*at*, or the next rising clock edge (an odd tick) where commands need one."""
    return int(at | s[O_HALF])


@compiled
def note(s: Ints, bank: int) -> None:
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
    """Oldest request that opened a row of a rank and can go now, and when one can.

    *first* is the slot of the rank's first bank, *rd* and *wr* are what the rank allows, *split* is the number of the
    bank whose activation is not complete, *found* what was found so far. Unsigned positions spare the check for
    negative ones, and let the loop run on vectors.
    """
    banks, half = s[O_PER_CHANNEL], s[O_HALF]
    reads, writes = np.uint64(first + V_RD * banks), np.uint64(first + V_WR * banks)
    owners, owners_w = np.uint64(first + V_OWNER * banks), np.uint64(first + V_OWNER_W * banks)
    oldest, soonest = found
    for k in range(s[O_PER_UNIT]):
        i = np.uint64(k)
        owner = s[owners + i] if k != split else NEVER
        owner_w = s[owners_w + i] if k != split else NEVER
        at, at_w = max(s[reads + i], rd) | half, max(s[writes + i], wr) | half
        oldest = min(oldest, min(owner if at <= now else NEVER, owner_w if at_w <= now else NEVER))
        soonest = min(soonest, min(at if owner < NEVER else NEVER, at_w if owner_w < NEVER else NEVER))
    return oldest, soonest


@compiled
def active(s: Ints, c: int, now: int) -> tuple[int, int]:
    """Bank of the oldest request that has opened its row and whose column command is ready (or −1), and when one is."""
    if s[c + C_ACTIVE] == 0:
        return -1, NEVER
    info, banks, per = s[c + C_INFO], s[O_PER_CHANNEL], s[O_PER_UNIT]
    first, slot, found = s[info + I_UNIT], s[info + I_VECTORS], (NEVER, NEVER)
    split = (s[c + C_SPLIT] - s[info + I_FIRST]) // WIDTH if s[c + C_SPLIT] else -1
    for u in range(first, first + s[info + I_UNITS] * WIDTH, WIDTH):
        found = _active_unit(s, slot, s[u + U_RD], s[u + U_WR], now, split, found)
        slot += per
        split -= per
    if found[0] == NEVER:
        return -1, found[1]
    owners, owners_w = (
        np.uint64(s[info + I_VECTORS] + V_OWNER * banks),
        np.uint64(s[info + I_VECTORS] + V_OWNER_W * banks),
    )
    number = banks
    for k in range(banks):
        owner = min(s[owners + np.uint64(k)], s[owners_w + np.uint64(k)])
        number = min(number, k if owner == found[0] else banks)
    return s[info + I_FIRST] + number * WIDTH, now


@compiled
def _rows_unit(
    s: Ints, first: int, w: int, act: int, pre: int, now: int, held: int, found: tuple[int, int]
) -> tuple[int, int]:
    """Oldest request of a direction for a rank whose row command can go now, and when one can.

    *act* and *pre* are what the rank allows; bank number *held* may have no command. Else as :func:`_active_unit`.
    """
    banks, half = s[O_PER_CHANNEL], s[O_HALF]
    acts, pres = np.uint64(first + V_ACT * banks), np.uint64(first + V_PRE * banks)
    requests = np.uint64(first + (V_ROWS + w) * banks)
    oldest, soonest = found
    for k in range(s[O_PER_UNIT]):
        i = np.uint64(k)
        request = s[requests + i] if k != held else NEVER
        at = min(max(s[acts + i], act) | half, max(s[pres + i], pre))
        oldest = min(oldest, request if at <= now else NEVER)
        soonest = min(soonest, at if request < NEVER else NEVER)
    return oldest, soonest


@compiled
def _hits_unit(
    s: Ints, first: int, w: int, col: int, now: int, held: int, split: int, found: tuple[int, int]
) -> tuple[int, int]:
    """Oldest request of a direction for an open row of a rank whose column command can go now, and when one can.

    *col* is what the rank allows; bank number *held* may have no command. Else as :func:`_active_unit`.
    """
    banks, half = s[O_PER_CHANNEL], s[O_HALF]
    columns, requests = np.uint64(first + (V_RD + w) * banks), np.uint64(first + (V_HITS + w) * banks)
    oldest, soonest = found
    for k in range(s[O_PER_UNIT]):
        i = np.uint64(k)
        request = s[requests + i] if k != held and k != split else NEVER
        at = max(s[columns + i], col) | half
        oldest = min(oldest, request if at <= now else NEVER)
        soonest = min(soonest, at if request < NEVER else NEVER)
    return oldest, soonest


@compiled
def queued(s: Ints, c: int, w: int, now: int, classes: int, held: int) -> tuple[int, int]:
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
        if classes & ROW:
            d = s[u + U_DOMAIN]
            act = activation_limit(s, d) if s[c + C_SPLIT] == 0 else NEVER
            found = _rows_unit(s, slot, w, act, s[d + D_PRE], now, out, found)
        if classes & COLUMN and s[c + C_HITS] > 0:
            found = _hits_unit(s, slot, w, s[u + U_RD + w], now, out, split, found)
        slot += per
        split -= per
        out -= per
    return (-1 if found[0] == NEVER else found[0]), found[1]

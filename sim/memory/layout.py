"""Names of the slots in the one array that the command-level controller works on.

``s`` is a flat int64 array: delays and switches first; then records of ``WIDTH`` slots for counters, channels, data
buses, ranks, bank groups and banks; then the vectors of the banks, the refreshes that wait, the queues of the banks
(positions of requests, in order), the requests, samples and the command log. A thing is known by the position of its
record, and holds the positions of those it belongs to. Plain integers and one array, so that the compiled and the
interpreted controller are one source, and a call costs little.

What is asked of all banks of a channel at every step lies in vectors of one slot a bank, vector after vector.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Ints: TypeAlias = "NDArray[np.int64]"

READ, WRITE = 0, 1
NEVER = 1 << 60
LONG_AGO = -(1 << 40)
WIDTH = 16
"""Slots of a record."""

# Commands in the log.
ACT, PRE, RD, WR, PREA, REF, REFB, RDA, WRA = range(9)
COMMAND_NAMES = ("ACT", "PRE", "RD", "WR", "PREA", "REF", "REFB", "RDA", "WRA")

# Delays between commands in ticks, command occupancy taken into account; sizes; switches.
(
    T_RCD_R, T_RCD_W, T_RAS, T_RP, T_RC, T_RRD_S, T_RRD_L, T_FAW, T_AW32, T_RR_L, T_RR_S, T_RR_X, T_WW_L, T_WW_S,
    T_WW_X, T_RW, T_RW_X, T_WR_L, T_WR_S, T_WR_X, T_RTP, T_WTP, T_RDA, T_WRA, T_PPD, T_RPA, T_RP_REF, T_RPA_REF,
    T_ACT_REF, T_RFC, T_RFCB, T_RREFD, T_REFI, T_RL, T_C_ACT, T_C_COL, T_C_PRE, T_C_REF, T_AAD, T_SYNC_R, T_SYNC_W,
    T_SLOT, O_CHANNELS, O_BANKS, O_GROUPS, O_UNITS, O_DOMAINS, O_BUSES, O_DUAL, O_HALF, O_CLOSED, O_REFRESH,
    O_STAGGER, O_RQ, O_WQ, O_BQ, O_DRAIN_FROM, O_DRAIN_TO, O_DRAIN_IDLE, O_POSTED, O_INJECT, O_OUTSTANDING, O_READS,
    O_LOG_ROW, O_LOG_SIZE, O_SAMPLE_ROW, O_SAMPLES, O_SAMPLE_EVERY, O_REQUESTS, O_FIRST_REQUEST, O_REQUESTS_END,
    O_SHARED, O_PER_CHANNEL, O_PER_UNIT, O_PER_GROUP, T_COUNT,
) = range(76)  # fmt: skip
REFRESH_OFF, REFRESH_ALL, REFRESH_BANK = 0, 1, 2

# Positions of the first records.
COUNTERS, LOST, CHANNELS = range(5 * WIDTH, 8 * WIDTH, WIDTH)
LOG_WIDTH = 4
"""Time, command, bank, row."""

# Bank: open row, earliest ACT, PRE, RD, WR, columns since ACT, delay of that ACT by tFAW and tRRD, whether the
# request that opened the row still waits, positions of its group, unit, domain, bus and channel, its queue and the
# entries in it, its slot in the first vector.
(
    B_ROW, B_ACT, B_PRE, B_RD, B_WR, B_HITS, B_FAW_DELAY, B_OWNED, B_GROUP, B_UNIT, B_DOMAIN, B_BUS, B_CHANNEL, B_QUEUE,
    B_QUEUED, B_SLOT,
) = range(16)  # fmt: skip
# Bank group: earliest ACT, RD, WR; slot of its first bank in the first vector.
G_ACT, G_RD, G_WR, G_SLOT = range(4)
# Unit (rank or stack): earliest RD, WR; first and number of the units on its bus; its domain.
U_RD, U_WR, U_FIRST, U_PEERS, U_DOMAIN = range(5)
# Domain (what activation limits and refresh apply to): earliest ACT, PRE, REF; activations so far; refresh since,
# until; open banks, since when; bank refreshed next; its banks and its 32-activation window; times of the last four
# activations.
(
    D_ACT, D_PRE, D_REF, D_ACTS, D_REF_FROM, D_REF_TO, D_OPEN, D_OPEN_SINCE, D_NEXT_BANK, D_FIRST, D_BANKS,
    D_WINDOW, D_FAW,
) = range(13)  # fmt: skip
# Data bus: end of the last slot, direction of the last access.
P_FREE, P_LAST = range(2)
# Channel: command buses busy until; next event; writes left to drain; serving writes; queue asked last; bank whose
# activation lacks its second half, its deadline; data clock runs until; next refresh; refreshes that wait; its second
# record; reads and writes in its queues; requests that opened a row and still wait, or are in the queue of a bank;
# banks and directions with requests for the open row. Second record: refresh list; first bank; first domain, domains;
# its banks' vectors; whose turn to be refreshed; rank or bank held back for a refresh; first rank, ranks.
(
    C_ROW_BUS, C_COL_BUS, C_NEXT, C_DRAIN, C_WRITING, C_TURN, C_SPLIT, C_SPLIT_BY, C_SYNC, C_REF_AT, C_REF_COUNT,
    C_INFO, C_QUEUED, C_QUEUED_W, C_ACTIVE, C_HITS,
) = range(16)  # fmt: skip
(
    I_REFRESHES, I_FIRST, I_DOMAIN, I_DOMAINS, I_VECTORS, I_REF_TURN, I_MARKED, I_UNIT, I_UNITS,
) = range(9)  # fmt: skip
# Vectors over the banks of a channel, NEVER where there is none. Earliest ACT, PRE, RD, WR as far as the bank and its
# group go; oldest and youngest request waiting for the bank, by direction; oldest one that needs a row command, oldest
# one of the open row; age of the request that opened the row and still waits; NEVER while the bank's queue is full.
(
    V_ACT, V_PRE, V_RD, V_WR, V_HEAD, V_HEAD_W, V_TAIL, V_TAIL_W, V_ROWS, V_ROWS_W, V_HITS, V_HITS_W, V_OWNER,
    V_OWNER_W, V_FULL, V_COUNT,
) = range(16)  # fmt: skip
# Request: bank, row, direction, time it came, first command sent, the next that waits for its bank.
R_BANK, R_ROW, R_WRITE, R_CAME, R_SEEN, R_NEXT, R_WIDTH = range(7)
# Counters.
(
    N_ACT, N_PRE, N_RD, N_WR, N_REF, N_HITS, N_LATENCY, N_MAX_LATENCY, N_LAST, N_LOGGED, N_HOLD, N_SYNC, N_SAMPLED,
    N_OPEN_TICKS, N_COUNT,
) = range(15)  # fmt: skip
# Why a data bus was idle.
L_REFRESH, L_CCD, L_FAW, L_TURNAROUND, L_CONFLICT, L_INJECTION, L_SCHEDULING, L_COUNT = range(8)
S_TIME = L_COUNT
"""A sample is two records: the counters; the lost times and, here, when."""
LIMITERS = ("refresh", "tCCD_L", "tFAW", "turnaround", "row_conflict", "injection", "scheduling")


KERNELS = ("layout", "device", "waiting", "admission", "bank_queues", "shared_scan", "shared_queue")
"""Modules whose source goes into the compiled controller."""


@cache
def fingerprint() -> str:
    """A short hash of the source of all kernels."""
    here = Path(__file__).parent
    return sha256(b"".join((here / f"{name}.py").read_bytes() for name in KERNELS)).hexdigest()[:12]


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """*function* through numba, which keeps the machine code for the next process. Its callers contain it.

    Numba looks only at the file a function is in to see whether kept code is still good; constants and helpers from
    other files would go stale. So the name under which code is kept carries the source of them all. Reference counts
    are not needed: nothing here makes or keeps an array. Inlining spares a third of the time.
    """
    return _through_numba(function, forceinline=True)


def seldom(function: Callable[..., Any]) -> Callable[..., Any]:
    """As :func:`compiled`, for what is called seldom: a copy in every caller would only take time to compile."""
    return _through_numba(function, forceinline=False)


def _through_numba(function: Callable[..., Any], *, forceinline: bool) -> Callable[..., Any]:
    from numba import njit

    function.__qualname__ = f"{function.__name__}_{fingerprint()}"
    options: dict[str, Any] = {"cache": True, "nogil": True, "_nrt": False, "forceinline": forceinline}
    made: Callable[..., Any] = njit(**options)(function)
    return made

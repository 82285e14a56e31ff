"""Run requests through the controller: arrays in, counters and limiters out."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from . import layout as at
from .layout import WIDTH, Ints
from .mapping import Located
from .preset import Preset

REFRESHES_PER_BANK = 2
"""Refreshes that may wait, per bank of a channel."""
WINDOW_RECORDS = 2
"""Records of a domain for the times of its last 32 activations."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a simulation counted: ``counter`` by the ``N_`` names, ``lost`` by the ``L_`` names. Times in ticks.

    ``lost`` adds up, over all data buses, to idle time between accesses; ``open_ticks`` is how long ranks had an open
    row, added over ranks. ``log`` has columns time, command, bank, row; ``samples`` has shape (n, 2, WIDTH): the
    counters, and ``lost`` with the time at ``S_TIME``.
    """

    ticks: int
    counter: Ints
    lost: Ints
    open_ticks: int
    log: Ints
    samples: Ints


@dataclass(frozen=True, slots=True)
class _Counts:
    """How many of everything."""

    channels: int
    buses: int
    domains: int
    units: int
    groups: int
    banks: int

    @classmethod
    def of(cls, t: Ints) -> _Counts:
        keys = (at.O_CHANNELS, at.O_BUSES, at.O_DOMAINS, at.O_UNITS, at.O_GROUPS, at.O_BANKS)
        return cls(*(int(t[key]) for key in keys))


@dataclass(frozen=True, slots=True)
class _Places:
    """Positions of the parts of the array."""

    infos: int
    buses: int
    domains: int
    windows: int
    units: int
    groups: int
    banks: int
    vectors: int
    refreshes: int
    bank_queues: int
    requests: int
    samples: int
    log: int
    end: int

    @classmethod
    def of(cls, t: Ints, n: _Counts, requests: int, samples: int, keep_log: int) -> _Places:
        records = (n.channels, n.channels, n.buses, n.domains, WINDOW_RECORDS * n.domains, n.units, n.groups, n.banks)
        queues = (REFRESHES_PER_BANK * n.banks, n.banks * int(t[at.O_BQ]))
        rest = (requests * at.R_WIDTH, 2 * samples * WIDTH, keep_log * at.LOG_WIDTH)
        sizes = (*(WIDTH * count for count in records), at.V_COUNT * n.banks, *queues, *rest)
        return cls(*list(accumulate(sizes, initial=at.CHANNELS))[1:])


def simulate_requests(
    preset: Preset, where: Located, write: Ints, outstanding: int = 0, *, keep_log: int = 0, samples: int = 0
) -> Run:
    """Serve requests in order; *where* and *write* have shape (n,).

    *keep_log* is how many commands to note. With *samples*, counters are noted once every tREFI, and the run ends
    with the last of so many.
    """
    from . import bank_queues, shared_queue

    s, places = _array(preset, where, write, outstanding, keep_log, samples)
    shared = bool(s[at.O_SHARED])
    # A request that comes before clock 0 is served at clock 1 by one discipline, at clock 0 by the other.
    begin = 1 if shared else 0
    run = shared_queue.run if shared else bank_queues.run
    run(s, begin)
    counter, lost = s[at.COUNTERS : at.LOST], s[at.LOST : at.LOST + at.L_COUNT]
    last = int(counter[at.N_LAST])
    domains = s[places.domains : places.windows].reshape(-1, WIDTH)
    still_open = np.where(domains[:, at.D_OPEN] > 0, np.maximum(last - domains[:, at.D_OPEN_SINCE], 0), 0)
    log = s[places.log :][: int(counter[at.N_LOGGED]) * at.LOG_WIDTH].reshape(-1, at.LOG_WIDTH).copy()
    log[:, 2] = (log[:, 2] - places.banks) // WIDTH
    taken = s[places.samples :][: 2 * WIDTH * int(counter[at.N_SAMPLED])].reshape(-1, 2, WIDTH).copy()
    open_ticks = int(counter[at.N_OPEN_TICKS] + still_open.sum())
    return Run(last + 1 - begin, counter.copy(), lost.copy(), open_ticks, log, taken)


def _array(
    preset: Preset, where: Located, write: Ints, outstanding: int, keep_log: int, samples: int
) -> tuple[Ints, _Places]:
    t = preset.settings
    n = _Counts.of(t)
    places = _Places.of(t, n, len(write), samples, keep_log)
    s = np.zeros(places.end, dtype=np.int64)
    s[: at.T_COUNT] = t
    s[at.O_OUTSTANDING], s[at.O_READS] = outstanding, np.count_nonzero(write == 0)
    s[at.O_SAMPLE_ROW], s[at.O_SAMPLES], s[at.O_SAMPLE_EVERY] = places.samples, samples, t[at.T_REFI]
    s[at.O_LOG_ROW], s[at.O_LOG_SIZE] = places.log, keep_log
    s[at.O_REQUESTS], s[at.O_FIRST_REQUEST], s[at.O_REQUESTS_END] = len(write), places.requests, places.samples
    request = s[places.requests : places.samples].reshape(-1, at.R_WIDTH)
    request[:, at.R_BANK] = places.banks + where.bank * WIDTH
    request[:, at.R_ROW], request[:, at.R_WRITE] = where.row, write
    _channels(s, n, places)
    _ranks(s, n, places)
    _banks(s, n, places)
    return s, places


def _channels(s: Ints, n: _Counts, places: _Places) -> None:
    c = np.arange(n.channels)
    banks, domains = n.banks // n.channels, n.domains // n.channels
    channel = s[at.CHANNELS : places.infos].reshape(-1, WIDTH)
    info = s[places.infos : places.buses].reshape(-1, WIDTH)
    channel[:, at.C_INFO] = places.infos + c * WIDTH
    first_refresh = at.NEVER
    if s[at.O_REFRESH] != at.REFRESH_OFF:
        turns = domains if s[at.O_STAGGER] else 1
        if s[at.O_REFRESH] == at.REFRESH_BANK:
            turns *= banks // domains
        # Clocks count from 0: the first interval ends with the clock before.
        first_refresh = int(s[at.T_REFI]) // turns - 1
    channel[:, at.C_REF_AT] = channel[:, at.C_NEXT] = first_refresh
    info[:, at.I_REFRESHES] = places.refreshes + REFRESHES_PER_BANK * c * banks
    info[:, at.I_VECTORS] = places.vectors + at.V_COUNT * c * banks
    info[:, at.I_FIRST] = places.banks + c * banks * WIDTH
    units = n.units // n.channels
    info[:, at.I_UNIT], info[:, at.I_UNITS] = places.units + c * units * WIDTH, units
    info[:, at.I_DOMAIN], info[:, at.I_DOMAINS] = places.domains + c * domains * WIDTH, domains


def _ranks(s: Ints, n: _Counts, places: _Places) -> None:
    d, u = np.arange(n.domains), np.arange(n.units)
    banks, peers = n.banks // n.domains, n.units // n.buses
    domain = s[places.domains : places.windows].reshape(-1, WIDTH)
    domain[:, at.D_REF_FROM] = domain[:, at.D_REF_TO] = at.LONG_AGO
    domain[:, at.D_FIRST], domain[:, at.D_BANKS] = places.banks + d * banks * WIDTH, banks
    domain[:, at.D_WINDOW] = places.windows + d * WINDOW_RECORDS * WIDTH
    domain[:, at.D_FAW : at.D_FAW + 4] = at.LONG_AGO
    s[places.windows : places.units] = at.LONG_AGO
    unit = s[places.units : places.groups].reshape(-1, WIDTH)
    unit[:, at.U_FIRST], unit[:, at.U_PEERS] = places.units + u // peers * peers * WIDTH, peers
    unit[:, at.U_DOMAIN] = places.domains + u // (n.units // n.domains) * WIDTH


def _banks(s: Ints, n: _Counts, places: _Places) -> None:
    b = np.arange(n.banks)
    bank = s[places.banks : places.vectors].reshape(-1, WIDTH)
    bank[:, at.B_ROW] = -1
    for slot, first, count in (
        (at.B_GROUP, places.groups, n.groups), (at.B_UNIT, places.units, n.units), (at.B_BUS, places.buses, n.buses),
        (at.B_DOMAIN, places.domains, n.domains), (at.B_CHANNEL, at.CHANNELS, n.channels),
    ):  # fmt: skip
        bank[:, slot] = first + b // (n.banks // count) * WIDTH
    bank[:, at.B_QUEUE] = places.bank_queues + b * int(s[at.O_BQ])
    per = n.banks // n.channels
    bank[:, at.B_SLOT] = places.vectors + b // per * per * at.V_COUNT + b % per
    group = s[places.groups : places.banks].reshape(-1, WIDTH)
    group[:, at.G_SLOT] = bank[:: n.banks // n.groups, at.B_SLOT]
    vector = s[places.vectors : places.refreshes].reshape(n.channels, at.V_COUNT, per)
    vector[:] = at.NEVER
    vector[:, at.V_FULL] = 0
    if s[at.O_SHARED]:
        vector[:, at.V_ACT] = 0

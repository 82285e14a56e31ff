"""Drive the DRAM model with a trace: bandwidth, latency, row hits, energy, and what kept it from its peak."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ..errors import SpecError
from . import layout as at
from .energy import energy_j
from .engine import Run, simulate_requests
from .layout import LIMITERS
from .mapping import check_mapping, locate
from .preset import Preset, checked_sizes, load_preset
from .traces import STEADY, check_kind, make_trace

WARM_UP_SAMPLES: Final = 1
"""Refresh intervals that are left out of the steady rate."""
LEAST_SAMPLES: Final = 4
MOST_SAMPLES: Final = 24
"""Refresh intervals over which the steady rate is taken: refreshes of all ranks are in it in equal number."""
EVEN: Final = frozenset({"seq_read", "seq_write", "stride"})
"""Kinds of which every refresh interval is like the next; others scatter, and are watched for longer."""
ENOUGH: Final = 1 << 19
"""Requests that are enough for kinds that scatter."""
WHOLE_BELOW: Final = 1 << 17
"""Requests up to which a trace is simulated to its end."""


@dataclass(frozen=True, slots=True)
class DramResult:
    """What a trace did.

    Cycles are of the command clock; ``limiters`` are cycles that add up to ``cycles − ideal_cycles``.
    """

    preset: str
    trace: str
    mapping: str
    requests: int
    bytes_moved: int
    cycles: float
    ideal_cycles: float
    time_s: float
    bandwidth_bytes_per_s: float
    peak_bytes_per_s: float
    row_hit_rate: float
    read_latency_s: float | None
    energy_j: float | None
    limiters: dict[str, float]
    activations: float
    refreshes: float
    simulated_requests: int

    @property
    def fraction(self) -> float:
        """Share of the peak bandwidth."""
        return self.bandwidth_bytes_per_s / self.peak_bytes_per_s

    def to_json(self) -> dict[str, Any]:
        """Everything, with the names of the public interface."""
        return {
            "preset": self.preset,
            "trace": self.trace,
            "mapping": self.mapping,
            "requests": self.requests,
            "bytes": self.bytes_moved,
            "cycles": self.cycles,
            "ideal_cycles": self.ideal_cycles,
            "time_s": self.time_s,
            "bandwidth_bytes_per_s": self.bandwidth_bytes_per_s,
            "peak_bytes_per_s": self.peak_bytes_per_s,
            "fraction": self.fraction,
            "row_hit_rate": self.row_hit_rate,
            "read_latency_s": self.read_latency_s,
            "energy_j": self.energy_j,
            "limiters": self.limiters,
            "simulated_requests": self.simulated_requests,
        }


@dataclass(frozen=True, slots=True)
class _Totals:
    """Counters of a whole trace, simulated or extrapolated. Times in ticks."""

    ticks: float
    reads: float
    writes: float
    activations: float
    refreshes: float
    hits: float
    latency: float
    lost: np.ndarray[Any, np.dtype[np.float64]]
    open_ticks: float


def simulate_dram(
    preset: str | Preset,
    *,
    trace: str = "seq_read",
    bytes_moved: float = 1 << 24,
    stride: int = 0,
    mapping: str | None = None,
    refresh: str | None = None,
    channels: int | None = None,
    page: str | None = None,
    outstanding: int | None = None,
) -> DramResult:
    """Run a trace of *bytes_moved* bytes.

    Long traces of a steady kind are simulated for some refresh intervals; the rest follows at the rate of the last of
    them.

    Parameters
    ----------
    preset : bundled name, path, or a preset.
    trace : see :mod:`~effsim.memory.traces`.
    bytes_moved : rounded up to whole accesses.
    stride : bytes, for ``trace="stride"``.
    mapping : see :mod:`~effsim.memory.mapping`; the preset's own if None.
    refresh : ``on`` (the preset's), ``off``, ``all_bank`` or ``per_bank``.
    channels : the preset's if None.
    page : ``open`` or ``closed``; the preset's if None.
    outstanding : 1 for one request at a time; the trace's own limit (none but for ``chase``) if None.

    Raises
    ------
    SpecError, UnknownNameError : something of this is wrong.
    """
    part = variant(load_preset(preset) if isinstance(preset, str) else preset, refresh, channels, page)
    check_kind(trace)
    mapping = check_mapping(mapping or str(part.spec.controller.mapping))
    if not bytes_moved >= 1:
        raise SpecError(f"a trace of {bytes_moved:g} bytes", expected="one byte or more")
    requests = int(-(-bytes_moved // part.access_bytes))
    if outstanding not in (None, 0, 1):
        raise SpecError(f"{outstanding} outstanding requests", expected="1, or 0 for no limit")
    totals, simulated = _run(part, trace, requests, stride, mapping, outstanding)
    return _result(part, trace, mapping, requests, simulated, totals)


def variant(part: Preset, refresh: str | None, channels: int | None, page: str | None) -> Preset:
    """The preset with other refresh, channels or page policy; None and ``on`` leave it.

    Raises:
        SpecError: a value that does not suit.
    """
    part = checked_sizes(part, channels)
    if refresh not in (None, "on"):
        if refresh not in ("off", "all_bank", "per_bank"):
            raise SpecError(f"refresh {refresh!r}", expected="on, off, all_bank or per_bank")
        if refresh == "per_bank" and part.spec.timing.rfc_bank is None:
            raise SpecError(f"{part.name} has no per-bank refresh", expected="a preset with 'timing.rfc_bank'")
        part = part.replace(refresh={"mode": refresh})
    if page is not None:
        if page not in ("open", "closed"):
            raise SpecError(f"page policy {page!r}", expected="open or closed")
        part = part.replace(controller={"page": page})
    return part


def _run(
    part: Preset, kind: str, requests: int, stride: int, mapping: str, outstanding: int | None
) -> tuple[_Totals, int]:
    """Totals of the whole trace, and how many requests were simulated for them."""
    if requests > WHOLE_BELOW and kind in STEADY and not outstanding:
        per_sample = int(part.settings[at.T_REFI]) * part.buses / int(part.settings[at.T_SLOT])
        samples = WARM_UP_SAMPLES + LEAST_SAMPLES
        if kind not in EVEN:
            samples = max(samples, min(MOST_SAMPLES, int(ENOUGH / per_sample)))
        enough = int((samples + 1) * per_sample)
        if requests > enough:
            run = _simulate(part, kind, enough, stride, mapping, 0, samples)
            if len(run.samples) == samples:
                return _extrapolated(run, part, requests), int(_served(run.samples[-1]))
    return _whole(_simulate(part, kind, requests, stride, mapping, outstanding, 0)), requests


def _simulate(
    part: Preset, kind: str, requests: int, stride: int, mapping: str, outstanding: int | None, samples: int
) -> Run:
    trace = make_trace(kind, requests, part.access_bytes, stride=stride)
    where = locate(part, mapping, trace.address)
    limit = trace.outstanding if outstanding is None else outstanding
    return simulate_requests(part, where, trace.write, limit, samples=samples)


def _whole(run: Run) -> _Totals:
    c = run.counter
    return _Totals(
        float(run.ticks), float(c[at.N_RD]), float(c[at.N_WR]), float(c[at.N_ACT]), float(c[at.N_REF]),
        float(c[at.N_HITS]), float(c[at.N_LATENCY]), run.lost.astype(float), float(run.open_ticks),
    )  # fmt: skip


def _served(sample: np.ndarray[Any, Any]) -> float:
    return float(sample[0, at.N_RD] + sample[0, at.N_WR])


def _extrapolated(run: Run, part: Preset, requests: int) -> _Totals:
    first, last = run.samples[WARM_UP_SAMPLES - 1].astype(float), run.samples[-1].astype(float)
    steps = (requests - _served(first)) / (_served(last) - _served(first))
    counter, lost = first + steps * (last - first)
    ticks = float(lost[at.S_TIME]) + float(part.settings[at.T_RL])
    share = run.open_ticks / max(1, run.ticks)
    return _Totals(
        ticks, counter[at.N_RD], counter[at.N_WR], counter[at.N_ACT], counter[at.N_REF], counter[at.N_HITS],
        counter[at.N_LATENCY], lost[: at.L_COUNT], share * ticks,
    )  # fmt: skip


def _result(part: Preset, kind: str, mapping: str, requests: int, simulated: int, totals: _Totals) -> DramResult:
    per_clock = part.ticks_per_clock
    cycles = totals.ticks / per_clock
    time_s = cycles * part.clock_s
    ideal = requests * part.slot_clocks / part.buses
    served = totals.reads + totals.writes
    moved = requests * part.access_bytes
    latency = totals.latency / totals.reads / per_clock * part.clock_s if totals.reads else None
    return DramResult(
        preset=part.name,
        trace=kind,
        mapping=mapping,
        requests=requests,
        bytes_moved=moved,
        cycles=cycles,
        ideal_cycles=ideal,
        time_s=time_s,
        bandwidth_bytes_per_s=moved / time_s,
        peak_bytes_per_s=part.peak_bytes_per_s,
        row_hit_rate=totals.hits / served if served else 0.0,
        read_latency_s=latency,
        energy_j=energy_j(part, totals.reads, totals.writes, totals.activations, totals.refreshes, time_s,
                          totals.open_ticks / per_clock * part.clock_s),
        limiters=_limiters(totals.lost / per_clock / part.buses, cycles - ideal),
        activations=totals.activations,
        refreshes=totals.refreshes,
        simulated_requests=simulated,
    )  # fmt: skip


def _limiters(lost: np.ndarray[Any, np.dtype[np.float64]], total: float) -> dict[str, float]:
    """Lost cycles by reason, mean over data buses.

    A bus is idle after its last access until the data of the last of all has come: nothing is asked of it, so that is
    injection, and makes the sum exact.
    """
    found = dict(zip(LIMITERS, (float(part) for part in lost), strict=True))
    found["injection"] += total - sum(found.values())
    return found

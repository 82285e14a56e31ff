"""What a reading returns: times by phase and by operator, and a timeline where there is one."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..graph.operator import Operator


@dataclass(frozen=True, slots=True)
class OperatorTime:
    """One operator of a phase, summed over the phase.

    ``count``: how often it runs in one step. ``flops`` and ``bytes_moved``: of all devices. ``time_s`` is wall-clock
    and adds up over operators to the phase; ``shares`` splits it by resource.
    """

    name: str
    kind: str
    op: Operator | None
    count: int
    flops: float
    bytes_moved: float
    time_s: float
    roofline_s: float
    bound: str
    shares: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class PhaseTime:
    """A phase: wall-clock time, its lower bound, tokens and steps."""

    name: str
    time_s: float
    roofline_s: float
    tokens: float
    steps: float
    operators: tuple[OperatorTime, ...]


@dataclass(frozen=True, slots=True)
class Slice:
    """A bar of the timeline, in integer picoseconds."""

    track: str
    name: str
    start_ps: int
    duration_ps: int
    detail: tuple[tuple[str, float | str], ...] = ()


@dataclass(frozen=True, slots=True)
class Timeline:
    """Bars of one representative step; ``notes`` say what was folded."""

    slices: tuple[Slice, ...] = ()
    counters: tuple[tuple[str, int, float], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """All phases as one engine reads them."""

    engine: str
    phases: tuple[PhaseTime, ...]
    timeline: Timeline = field(default_factory=Timeline)

    @property
    def time_s(self) -> float:
        """Wall-clock of all phases."""
        return sum(phase.time_s for phase in self.phases)

    @property
    def roofline_s(self) -> float:
        """Lower bound of all phases."""
        return sum(phase.roofline_s for phase in self.phases)

    def shares(self) -> dict[str, float]:
        """Share of the time that each resource binds; they sum to 1."""
        totals: dict[str, float] = {}
        for phase in self.phases:
            for operator in phase.operators:
                for label, seconds in operator.shares:
                    totals[label] = totals.get(label, 0.0) + seconds
        whole = sum(totals.values()) or 1.0
        return {label: seconds / whole for label, seconds in sorted(totals.items(), key=lambda item: -item[1])}

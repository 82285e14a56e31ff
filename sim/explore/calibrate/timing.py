"""Repeatable times on a machine that others use too.

All benchmarks take turns, a round at a time: a disturbance hits a sample of each instead of every sample of one.
Disturbances mostly add time (another's core, cache and memory), a short burst of clock now and then takes some off:
the value is the lower quartile, and it is believed when it lies close to the lowest decile, that is, when a share of
the samples agrees on how fast the undisturbed machine is. Benchmarks without such a floor are sampled again; those
that never find one make the measurement fail, by name, rather than become a wrong number.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ...errors import EffsimError

ROUNDS = 9
"""Samples of a benchmark before it is judged."""

MOST_ROUNDS = 45
"""Samples after which a benchmark that does not settle is given up."""

SAMPLE_S = 4e-3
"""Length of a sample: far above the clock's resolution and the cost of reading it, far below a scheduler's patience."""

FLOOR_SPREAD = 0.15
"""How far above the lowest decile the lower quartile may lie."""

MOST_CALLS = 1 << 16


class NoisyMachineError(EffsimError):
    """The machine is too busy to be measured; the message names the benchmarks whose times do not repeat."""

    exit_code = 1


class Timer(Protocol):
    """Times a number of calls."""

    @property
    def name(self) -> str:
        """What it counts, for messages."""

    def seconds(self, call: Callable[[], object], calls: int) -> float:
        """Seconds that *calls* calls take together."""


@dataclass(frozen=True, slots=True)
class HostTimer:
    """Times on the host by a clock.

    With one thread the thread's CPU time leaves out what other processes take away; with several, only wall time sees
    them wait for each other.
    """

    name: str = "wall time"
    now: Callable[[], float] = time.perf_counter

    @classmethod
    def of_threads(cls, threads: int) -> HostTimer:
        """CPU time for one thread, wall time for several."""
        return cls("CPU time of one thread", time.thread_time) if threads == 1 else cls()

    def seconds(self, call: Callable[[], object], calls: int) -> float:
        """See :class:`Timer`."""
        start = self.now()
        for _ in range(calls):
            call()
        return self.now() - start


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One thing to time: ``call`` runs it once; ``before`` is run, untimed, before every sample."""

    name: str
    call: Callable[[], object]
    before: Callable[[], object] | None = None


@dataclass(frozen=True, slots=True)
class Samples:
    """Seconds a call, one entry a sample, smallest first.

    >>> s = Samples("copy", (1.0, 1.1, 1.2, 2.0))
    >>> s.minimum, round(s.median, 2), round(s.steady, 3), round(s.floor_spread, 3)
    (1.0, 1.15, 1.075, 0.044)
    """

    name: str
    seconds: tuple[float, ...]

    @property
    def minimum(self) -> float:
        """The fastest sample."""
        return self.seconds[0]

    @property
    def steady(self) -> float:
        """The lower quartile: what the machine takes when it is not disturbed, and not once by luck."""
        return self.quantile(0.25)

    @property
    def median(self) -> float:
        """The middle sample."""
        return self.quantile(0.5)

    @property
    def floor_spread(self) -> float:
        """How far the lower quartile lies above the lowest decile, as a share of it."""
        low = self.quantile(0.1)
        return self.steady / low - 1.0 if low > 0.0 else math.inf

    @property
    def quartile_spread(self) -> float:
        """Distance of the quartiles, as a share of the median: how restless the machine was."""
        return (self.quantile(0.75) - self.quantile(0.25)) / self.median if self.median > 0.0 else math.inf

    def quantile(self, share: float) -> float:
        """Linear interpolation between samples."""
        place = share * (len(self.seconds) - 1)
        low = math.floor(place)
        high = min(low + 1, len(self.seconds) - 1)
        return self.seconds[low] + (place - low) * (self.seconds[high] - self.seconds[low])


@dataclass(frozen=True, slots=True)
class Sampling:
    """How often and how long to sample."""

    rounds: int = ROUNDS
    most_rounds: int = MOST_ROUNDS
    sample_s: float = SAMPLE_S
    floor_spread: float = FLOOR_SPREAD


QUICK = Sampling(rounds=5, most_rounds=25, sample_s=2e-3, floor_spread=0.25)
CAREFUL = Sampling()


@dataclass(slots=True)
class _Series:
    benchmark: Benchmark
    calls: int
    seconds: list[float] = field(default_factory=list)

    def sample(self, timer: Timer) -> None:
        if self.benchmark.before is not None:
            self.benchmark.before()
        self.seconds.append(timer.seconds(self.benchmark.call, self.calls) / self.calls)

    def samples(self) -> Samples:
        return Samples(self.benchmark.name, tuple(sorted(self.seconds)))


def measure(
    benchmarks: Sequence[Benchmark],
    timer: Timer,
    protocol: Sampling = CAREFUL,
    progress: Callable[[Sequence[int]], Iterable[int]] = iter,
    optional: Collection[str] = (),
) -> Mapping[str, Samples]:
    """Samples of every benchmark by name.

    Args:
        benchmarks: what to time; names are unique.
        timer: what to time with.
        protocol: rounds, length of a sample, accepted spread.
        progress: wraps the numbers of the rounds (a progress bar).
        optional: names that may stay restless; the caller looks at their ``floor_spread``.

    Raises:
        NoisyMachineError: some times do not repeat even after ``most_rounds``; names the worst three.
    """
    series = [_Series(benchmark, _calls(benchmark, timer, protocol.sample_s)) for benchmark in benchmarks]
    for turn in progress(range(protocol.rounds)):
        _round(series, turn, timer)
    for turn in range(protocol.rounds, protocol.most_rounds):
        restless = [one for one in series if one.samples().floor_spread > protocol.floor_spread]
        if not restless:
            break
        _round(restless, turn, timer)
    found = {one.benchmark.name: one.samples() for one in series}
    _judge([s for name, s in found.items() if name not in optional], timer, protocol)
    return found


def _round(series: Sequence[_Series], turn: int, timer: Timer) -> None:
    """One sample of each, starting at another one every round."""
    shift = turn * len(series) // 3 % len(series)
    for one in (*series[shift:], *series[:shift]):
        one.sample(timer)


def _calls(benchmark: Benchmark, timer: Timer, sample_s: float) -> int:
    """Calls that fill a sample, after the first ones, which also load code and fill caches."""
    timer.seconds(benchmark.call, 2)
    once = timer.seconds(benchmark.call, 1)
    return min(MOST_CALLS, max(1, round(sample_s / max(once, 1e-7))))


def _judge(found: Iterable[Samples], timer: Timer, protocol: Sampling) -> None:
    noisy = [s for s in found if s.floor_spread > protocol.floor_spread]
    if not noisy:
        return
    noisy.sort(key=lambda s: -s.floor_spread)
    shown = ", ".join(
        f"{s.name!r} ({len(s.seconds)} samples, lowest tenth {s.quantile(0.1):.3g} s, lowest quarter {s.steady:.3g} s)"
        for s in noisy[:3]
    )
    more = f" and {len(noisy) - 3} more" if len(noisy) > 3 else ""
    raise NoisyMachineError(
        f"this machine is too noisy to be measured by {timer.name}: {shown}{more}; "
        f"stop other work, or use fewer threads (--threads 1 counts CPU time)"
    )

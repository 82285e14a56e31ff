"""Where requests come from: random processes and length distributions, all from one seed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..spec.serving import ArrivalsSpec, LengthSpec, ServingSpec
from .request import Request

if TYPE_CHECKING:
    import numpy as np

CHUNK = 4096
"""Random numbers drawn at a time."""
DEFAULT_REQUESTS = 1000
"""Where neither a number nor a duration is given."""


def arrival_times(spec: ArrivalsSpec, random: np.random.Generator) -> Iterator[float]:
    """Endless arrival times of a process with mean rate λ.

    ``poisson``: independent, gaps exponential with mean 1/λ. ``gamma``: gaps with coefficient of variation ``cv``
    (shape 1/cv²); above 1 they come in bursts. ``constant``: every 1/λ. ``on_off``: Poisson with rate λ·(on + off)/on
    during ``on`` seconds, nothing for ``off``. ``diurnal``: Poisson with rate λ·(1 + a·sin(2πt/period)), thinned.
    """
    rate = float(spec.rate)
    if spec.process == "constant":
        return _constant(rate)
    if spec.process == "gamma":
        shape = 1.0 / float(spec.cv) ** 2
        return _renewal(lambda: random.gamma(shape, 1.0 / (rate * shape), CHUNK))
    if spec.process == "on_off":
        return _on_off(rate, float(spec.on), float(spec.off), random)
    if spec.process == "diurnal":
        return _diurnal(rate, float(spec.amplitude), float(spec.period), random)
    return _renewal(lambda: random.exponential(1.0 / rate, CHUNK))


def _constant(rate: float) -> Iterator[float]:
    index = 0
    while True:
        yield index / rate
        index += 1


def _renewal(draw: object) -> Iterator[float]:
    assert callable(draw)
    now = 0.0
    while True:
        for gap in draw().tolist():
            now += gap
            yield now


def _on_off(rate: float, on: float, off: float, random: np.random.Generator) -> Iterator[float]:
    """Arrivals of a Poisson process in busy time, with the pauses put back in."""
    for busy in _renewal(lambda: random.exponential(on / (rate * (on + off)), CHUNK)):
        yield busy + math.floor(busy / on) * off


def _diurnal(rate: float, amplitude: float, period: float, random: np.random.Generator) -> Iterator[float]:
    most = rate * (1.0 + amplitude)
    for time in _renewal(lambda: random.exponential(1.0 / most, CHUNK)):
        now = rate * (1.0 + amplitude * math.sin(2.0 * math.pi * time / period))
        if random.random() * most < now:
            yield time


def lengths(spec: LengthSpec, default: int, random: np.random.Generator) -> Iterator[int]:
    """Endless token counts, at least 1 and at most ``spec.longest``.

    ``lognormal`` has the mean and coefficient of variation asked for: σ² = ln(1 + cv²), μ = ln mean − σ²/2.
    """
    mean = float(spec.mean or default)
    longest = int(spec.longest) if spec.longest is not None else 2**31
    spread = math.sqrt(math.log1p(float(spec.cv) ** 2))
    while True:
        if spec.distribution == "constant":
            drawn = [mean] * CHUNK
        elif spec.distribution == "uniform":
            half = min(1.0, math.sqrt(3.0) * float(spec.cv)) * mean
            drawn = random.uniform(mean - half, mean + half, CHUNK).tolist()
        else:
            drawn = random.lognormal(math.log(mean) - spread**2 / 2.0, spread, CHUNK).tolist()
        for length in drawn:
            yield min(longest, max(1, round(length)))


def requests(spec: ServingSpec, prompt: int, output: int, seed: int) -> Iterator[Request]:
    """Requests of a random load, up to ``arrivals.requests`` or ``arrivals.duration``, whichever comes first.

    Arrivals, prompts, outputs and prefixes have generators of their own, so that changing one leaves the others.
    """
    import numpy as np

    arrivals = spec.arrivals
    when, how_long, how_much, which = (np.random.default_rng([seed, i]) for i in range(4))
    prompts, outputs = lengths(spec.prompt, prompt, how_long), lengths(spec.output, output, how_much)
    endless = DEFAULT_REQUESTS if arrivals.duration is None else math.inf
    last = endless if arrivals.requests is None else int(arrivals.requests)
    until = math.inf if arrivals.duration is None else float(arrivals.duration)
    shared, groups, block = int(spec.prefix.tokens), int(spec.prefix.groups), int(spec.cache.block)
    for index, time in enumerate(arrival_times(arrivals, when)):
        if index >= last or time > until:
            return
        group = int(which.integers(groups)) if shared else -1
        length = next(prompts) + shared
        names = tuple(group * (shared // block) + i for i in range(shared // block)) if shared else ()
        yield Request(index, time, length, next(outputs), blocks=names)

"""What binds first, what the next upgrade would buy, and what a plan without solution lacks.

What binds is found by experiment: the load grows until a promise breaks (that names the promise), and one number at a
time grows by a quarter (the one that lets the most load through names the resource).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ...spec.workload import Precision
from .configurations import Configuration
from .evaluate import Measured
from .search import MOST_LOAD
from .work import Change, Found, Pool, Task

if TYPE_CHECKING:
    from .plan import Answer

QUARTER = 1.25
RESOURCES: tuple[tuple[str, str], ...] = (
    ("memory bandwidth", r"memory\.bandwidth"),
    ("memory capacity", r"memory\.capacity"),
    ("matrix units", r"matrix\..+"),
    ("links", r"(links\..+|topology\..+)\.bandwidth"),
)
"""What a device could have more of, and where files say how much it has."""
MOST_OTHERS = 4
"""Other devices that are tried in place of the winner's."""
CURVE = (0.25, 0.5, 0.75, 0.9, 1.0, 1.05, 1.15)
"""Loads of the headroom curve, over the most load."""

OR = " or "
"""Between resources that help alike."""

Asker = Callable[..., Task]
Progress = Callable[[Any], Iterable[Any]]


@dataclass(frozen=True, slots=True)
class Upgrade:
    """One change of a fleet: the most load it then carries, over the planned load, and what the fleet then costs.

    ``kind``: ``fleet`` (more or other devices), ``resource`` (a device with more of something), ``types`` (narrower
    elements), ``scheduler`` (settings). ``holds``: within the promises at the planned load.
    """

    name: str
    kind: str
    load: float
    holds: bool
    devices: int
    usd_per_hour: float | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a fleet is at its limit, or beyond it.

    Attributes:
        fleet: the fleet, with its most load and what was measured just beyond.
        promise: the promise that breaks first, such as ``ttft p95``.
        binds: what the promise waits for: a resource (``a or b`` where several help alike), a scheduler's setting, or
            "" where nothing that was tried alone helps.
        why: the same in a sentence.
        upgrades: what was tried, most load first.
        curve: measurements at loads around the most load.
    """

    fleet: Found
    promise: str
    binds: str
    why: str
    upgrades: tuple[Upgrade, ...]
    curve: tuple[Measured, ...] = ()

    @property
    def load(self) -> float:
        """Most load within the promises, over the planned load."""
        return self.fleet.load or 0.0


@dataclass(frozen=True, slots=True)
class _Try:
    name: str
    kind: str
    configuration: Configuration
    replicas: int
    changes: tuple[Change, ...] = ()


def explain(answer: Answer, ask: Asker, pool: Pool, progress: Progress) -> Explanation:
    """Explain the winner."""
    winner = answer.winner
    assert winner is not None
    assert winner.replicas is not None
    c, n = winner.configuration, winner.replicas
    guess = 1.0 if winner.at_headroom is None else winner.at_headroom.load
    limit: Found = next(iter(pool.ask([ask("load", c, start=n, guess=guess, headroom=1.0)])))
    tries = [*_resources(c, n, QUARTER), *_settings(c, n), *_types(c, n), *_fleets(answer, c, n)]
    most = max(limit.load or 1.0, 1.0)
    tasks = [
        ask(
            "load",
            t.configuration,
            start=t.replicas,
            guess=min(MOST_LOAD, most * t.replicas / n),
            changes=t.changes,
            headroom=1.0,
            report=False,
        )
        for t in tries
    ]
    found = list(progress(list(pool.ask(tasks))))
    upgrades = _upgrades(tries, found)
    tasks = [ask("measure", c, start=n, headroom=most * x) for x in CURVE]
    curve = [m for f in pool.ask(tasks) if (m := f.at_headroom or f.measured) is not None]
    fleet = replace(winner, load=limit.load, broken=limit.broken)
    promise = limit.broken or winner.measured
    assert promise is not None
    binds = _binding(upgrades, limit.load or 1.0)
    return Explanation(fleet, promise.worst.name, binds, _why(fleet, binds), upgrades, tuple(curve))


def nearest_miss(answer: Answer, ask: Asker, pool: Pool, progress: Progress) -> Explanation | None:
    """Explain the configuration that misses least, at its largest fleet; None where none could run at all."""
    near = sorted(
        (s for s in answer.screened if s.status in ("too_slow", "too_large") and s.configuration.most_replicas > 0),
        key=lambda s: (s.floor, s.configuration.label),
    )[:2]
    tasks = [ask("measure", s.configuration, start=s.configuration.most_replicas) for s in near]
    measured = [f for f in pool.ask(tasks) if f.measured is not None]
    if not measured and not answer.missed:  # all that was simulated was far too much
        near = sorted((s for s in answer.screened if s.status == "ok"), key=lambda s: (s.least, s.floor))[:1]
        tasks = [ask("measure", s.configuration, start=s.configuration.most_replicas) for s in near]
        measured = [f for f in pool.ask(tasks) if f.measured is not None]
    candidates = sorted((*answer.missed, *measured), key=lambda f: (f.miss, f.configuration.label))
    if not candidates:
        return None
    c = candidates[0].configuration
    n = c.most_replicas
    fleet: Found = next(iter(pool.ask([ask("load", c, start=n, guess=0.5, headroom=1.0)])))
    more = replace(c, most_devices=2 * c.most_devices)
    tries = [
        *_resources(c, n, QUARTER),
        *_resources(c, n, 2.0),
        *_settings(c, n),
        *_types(c, n),
        _Try("twice the devices", "fleet", more, more.most_replicas),
    ]
    guess = min(1.0, fleet.load or 1.0)
    tasks = [
        ask("load", t.configuration, start=t.replicas, guess=guess, changes=t.changes, headroom=1.0, report=False)
        for t in tries
    ]
    upgrades = _upgrades(tries, list(progress(list(pool.ask(tasks)))))
    missed = fleet.measured
    assert missed is not None
    fleet = replace(fleet, replicas=None)
    promise = missed.worst.name
    binds = _binding(upgrades, fleet.load or 0.0)
    return Explanation(fleet, promise, binds, _why(fleet, binds), upgrades)


def _resources(c: Configuration, n: int, factor: float) -> Iterator[_Try]:
    text = f"+{100 * (factor - 1):.0f} %" if factor < 2.0 else f"× {factor:g}"
    for name, pattern in RESOURCES:
        if name != "links" or c.split is not None or c.replica_devices > 1:
            yield _Try(f"{name} {text}", "resource", c, n, (Change(name, pattern, factor),))


def _settings(c: Configuration, n: int) -> Iterator[_Try]:
    serving = c.workload.serving
    assert serving is not None
    how = serving.scheduler
    for field, factor in (("max_tokens", 2.0), ("max_tokens", 0.5), ("max_sequences", 2.0)):
        value = max(1, int(int(getattr(how, field)) * factor))
        changed = how.model_copy(update={field: type(how.max_tokens)(value)})
        served = serving.model_copy(update={"scheduler": changed})
        other = replace(c, workload=c.workload.model_copy(update={"serving": served}))
        yield _Try(f"scheduler.{field} {value}", "scheduler", other, n)


def _types(c: Configuration, n: int) -> Iterator[_Try]:
    p: Precision = c.workload.precision
    for field, shown in (("weights", "fp8 weights"), ("kv_cache", "fp8 cache")):
        if str(getattr(p, field) or p.activations) in ("bf16", "fp16", "fp32"):
            other = c.workload.model_copy(update={"precision": p.model_copy(update={field: "fp8"})})
            yield _Try(shown, "types", replace(c, workload=other), n)


def _fleets(answer: Answer, c: Configuration, n: int) -> Iterator[_Try]:
    """One replica more; the same number of devices of another kind, laid out alike."""
    for name, other in _one_more(c, n):
        if other.bought(n + 1) <= c.most_devices:
            yield _Try(name, "fleet", other, n + 1)
    others = [s.configuration for s in answer.screened if s.status == "ok"]
    alike = [o for o in others if o.device != c.device and o.ways == c.ways]
    for other in alike[:MOST_OTHERS]:
        yield _Try(f"{other.device} instead", "fleet", other, n)


def _one_more(c: Configuration, n: int) -> Iterator[tuple[str, Configuration]]:
    """A replica more; of each pool, where they are apart."""
    if c.split is None:
        yield "one more replica", c
        return
    have = {pool.name: pool.replicas for pool in c.pools(n)}
    for name in have:
        more = c.divided({key: count + (key == name) for key, count in have.items()})
        yield f"one more {name} replica", replace(c, workload=more)


def _upgrades(tries: Sequence[_Try], found: Sequence[Found]) -> tuple[Upgrade, ...]:
    out = []
    for t, f in zip(tries, found, strict=True):
        if f.error or f.load is None:
            continue  # the device has no such number, or no such type
        # A device with more of something has no price yet.
        price = None if t.kind == "resource" else t.configuration.usd_per_hour(t.replicas)
        out.append(Upgrade(t.name, t.kind, f.load, f.load >= 1.0, t.configuration.bought(t.replicas), price))
    return tuple(sorted(out, key=lambda u: (-u.load, u.name)))


def _binding(upgrades: Sequence[Upgrade], load: float) -> str:
    """The resource or setting whose change lets through the most load; every resource of those that help alike."""
    alone = [u for u in upgrades if u.kind in ("resource", "scheduler") and u.load > load * 1.001]
    best = [u for u in alone if u.load == max(other.load for other in alone)]
    resources = [name for name, _ in RESOURCES if any(u.kind == "resource" and u.name.startswith(name) for u in best)]
    return OR.join(resources) or (best[0].name.split(" ")[0] if best else "")


_MEANING = {
    "memory bandwidth": "steps wait for weights and caches to be read from memory",
    "memory capacity": "the cache has no room for more sequences at once",
    "matrix units": "steps wait for arithmetic, mostly that of prompts",
    "links": "steps wait for the network between the devices of a replica",
    "scheduler.max_tokens": "the tokens that a step may take are the limit",
    "scheduler.max_sequences": "the sequences that a batch may take are the limit",
    "": "no single resource or setting that was tried; bursts, host work and launches remain",
}


def _why(fleet: Found, binds: str) -> str:
    m = fleet.broken or fleet.measured
    assert m is not None
    text = ", or ".join(_MEANING[name] for name in binds.split(OR))
    first = m.served.ttft_s
    promised = next((p for p in m.promises if p.latency == "ttft"), None)
    if m.worst.latency == "ttft" and first is not None and promised is not None and fleet.alone_ttft_s:
        alone = fleet.alone_ttft_s / max(first[promised.percentile], 1e-12)
        share = f"{100 * min(1.0, alone):.0f} %"
        text += f"; of {promised.name} at the limit {share} is a prompt's own time, the rest is waiting"
    if m.served.peak_cache_fraction > 0.99:
        text += f"; the cache was full ({m.served.preemptions:,} preemptions)"
    return text

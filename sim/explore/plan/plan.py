"""From a plan to a fleet: screen every configuration, simulate the promising ones, say what was found."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ...errors import EffsimError, located
from ...spec.build import build
from ...spec.plan import PlanSpec, WhatIf
from ...spec.yaml_loader import Document
from .configurations import Configuration, Load, Source, enumerate_configurations, load_base
from .explain import Asker, Explanation, Progress, explain, nearest_miss
from .mistakes import Assignment, standing
from .replica import requests_of
from .screen import Screened
from .work import Found, Pool, Task

WAVE = 4
"""Configurations that are searched before the bound of the rest is looked at again, whatever the processes."""
SHORT = 50
"""A load that lasts less than so many of its first-token promises says little about a queue that grows."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a plan came to.

    ``fleets`` are those within the promises, best first; ``unpriced`` those whose objective is unknown, fewest devices
    first; ``missed`` what was simulated and is not within them; ``screened`` every configuration. ``proven``: what was
    not simulated cannot be better than the winner, by its bound.
    """

    fleets: tuple[Found, ...]
    unpriced: tuple[Found, ...]
    missed: tuple[Found, ...]
    screened: tuple[Screened, ...]
    proven: bool
    simulations: int

    @property
    def winner(self) -> Found | None:
        """The best fleet; without any price, the one of fewest devices."""
        return self.fleets[0] if self.fleets else self.unpriced[0] if self.unpriced else None


@dataclass(frozen=True, slots=True)
class Changed:
    """The answer to one what-if."""

    name: str
    answer: Answer


@dataclass(frozen=True, slots=True)
class PlanResult:
    """A plan and its answer."""

    plan: PlanSpec
    seed: int
    answer: Answer
    explanation: Explanation | None
    nearest: Explanation | None
    whatif: tuple[Changed, ...]
    load: dict[str, float]
    notes: tuple[str, ...] = field(default=())

    @property
    def solved(self) -> bool:
        """Some fleet keeps the promises."""
        return self.answer.winner is not None

    def as_dict(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        from .record import plan_record

        return plan_record(self)


def plan(
    document: Document,
    *,
    assignments: Sequence[str] = (),
    seed: int | None = None,
    processes: int | None = 1,
    progress: Progress = iter,
) -> PlanResult:
    """Find the best fleet of a plan.

    Raises:
        SpecError: the plan, or something it names, is wrong; with its position.
        DataError: a trace that cannot be read; a process that was killed.
    """
    spec = build(PlanSpec, document, root="plan")
    source = Source(spec, document, tuple(assignments))
    used = int(spec.seed) if seed is None else seed
    pool = Pool(processes)
    try:
        load = Load()
        about = _describe(source, load, used)
        _check(source)
        answer = solve(source, load, used, pool, progress)
        changes = tuple(_what_if(source, number, what, used, pool, progress) for number, what in enumerate(spec.whatif))
        asker = _asker(source, load, used)
        explanation = nearest = None
        if answer.winner is None:
            nearest = nearest_miss(answer, asker, pool, progress)
        elif spec.upgrades:
            explanation = explain(answer, asker, pool, progress)
    finally:
        pool.close()
    return PlanResult(spec, used, answer, explanation, nearest, changes, about, _notes(spec, answer, about))


def _asker(source: Source, load: Load, seed: int) -> Asker:
    """Makes tasks of this plan: question, configuration, and what is particular."""
    spec = source.plan
    _, folder = load_base(source)
    headroom = 1.0 + float(spec.headroom)

    def ask(question: str, configuration: Configuration, **particular: Any) -> Task:
        given: dict[str, Any] = {"headroom": headroom, **particular}
        return Task(question, configuration, load, spec.slo, seed, str(folder), **given)

    return ask


def _describe(source: Source, load: Load, seed: int) -> dict[str, float]:
    """The load in numbers, read once before anything is simulated."""
    workload, folder = load_base(source)
    try:
        requests, _ = requests_of(workload, folder, load, seed)
    except EffsimError as error:
        raise located(error, source.document.location(("workload",))) from None
    count = len(requests)
    span = requests[-1].arrival_s - requests[0].arrival_s if count else 0.0
    return {
        "requests": float(count),
        "span_s": span,
        "requests_per_s": (count - 1) / span if span > 0.0 else 0.0,
        "prompt_mean": sum(r.prompt for r in requests) / max(1, count),
        "output_mean": sum(r.output for r in requests) / max(1, count),
    }


def solve(
    source: Source, load: Load, seed: int, pool: Pool, progress: Progress, extra: Sequence[Assignment] = ()
) -> Answer:
    """Screen all, search the finalists, then whatever could still beat the best of them."""
    spec, ask = source.plan, _asker(source, load, seed)
    configurations = enumerate_configurations(source, extra)
    screened: list[Screened] = list(
        progress(_sized(pool.ask([ask("screen", c) for c in configurations]), configurations))
    )
    ranked = sorted((s for s in screened if s.status == "ok"), key=lambda s: _estimated(spec, s))
    final, rest = ranked[: spec.finalists], ranked[spec.finalists :]
    found: list[Found] = list(progress(_sized(pool.ask([_search(ask, s) for s in final]), final)))
    proven = True
    if spec.objective == "energy":
        proven = not rest  # energy has no bound before it is simulated
    else:
        found += _challengers(spec, ask, rest, found, pool, progress)
    held = [f for f in found if f.replicas is not None and not f.error]
    known = [f for f in held if objective(spec, f) is not None]
    unknown = [f for f in held if objective(spec, f) is None]
    missed = [f for f in found if f.replicas is None and f.measured is not None]
    return Answer(
        fleets=_different(sorted(known, key=lambda f: _rank(spec, f))),
        unpriced=_different(sorted(unknown, key=lambda f: (f.devices or 0, f.miss, f.configuration.label))),
        missed=_different(sorted(missed, key=lambda f: (f.miss, f.configuration.label))),
        screened=tuple(screened),
        proven=proven,
        simulations=sum(f.simulations for f in found),
    )


def _different(found: Sequence[Found]) -> tuple[Found, ...]:
    """Every fleet once: another ratio of pools may come to the same replicas of each."""
    fleets: dict[str, Found] = {}
    for f in found:
        fleets.setdefault(repr((f.shown, f.configuration.fleet(f.shown or 1))), f)
    return tuple(fleets.values())


def _search(ask: Asker, screened: Screened, most: int | None = None, report: bool = True) -> Task:
    limit = screened.configuration.most_replicas if most is None else most
    start = min(limit, screened.estimated)
    return ask("search", screened.configuration, start=start, most=limit, report=report)


def _challengers(
    spec: PlanSpec, ask: Asker, rest: Sequence[Screened], found: Sequence[Found], pool: Pool, progress: Progress
) -> list[Found]:
    """Search what is left as far as it would be cheaper than the best so far; a bound dearer than that ends it."""
    out: list[Found] = []
    left = sorted(rest, key=lambda s: (_bound(spec, s), s.configuration.label))
    while left:
        values = [v for f in (*found, *out) if f.replicas is not None and (v := objective(spec, f)) is not None]
        best = min(values, default=math.inf)
        wave, left = left[:WAVE], left[WAVE:]
        tasks = []
        for s in wave:
            most = _affordable(spec, s, best)
            if most >= s.least:
                tasks.append(_search(ask, s, most, report=best == math.inf))
        if not tasks:
            break  # the bounds grow from here on
        out += progress(_sized(pool.ask(tasks), tasks))
    return out


def _affordable(spec: PlanSpec, screened: Screened, best: float) -> int:
    """Most replicas that cost less than *best*; all where that is unknown."""
    c = screened.configuration
    if best == math.inf or (spec.objective == "cost" and c.price is None):
        return c.most_replicas
    low, high = 0, c.most_replicas + 1
    while high - low > 1:
        middle = (low + high) // 2
        value = c.usd_per_hour(middle) if spec.objective == "cost" else float(c.bought(middle))
        low, high = (middle, high) if value is not None and value < best else (low, middle)
    return low


def _bound(spec: PlanSpec, screened: Screened) -> float:
    """Objective at the fewest replicas there could be; 0 where a price is unknown: it cannot be excluded."""
    c = screened.configuration
    value = c.usd_per_hour(screened.least) if spec.objective == "cost" else float(c.bought(screened.least))
    return 0.0 if value is None else value


def objective(spec: PlanSpec, found: Found) -> float | None:
    """What is to be least; None where unknown."""
    if spec.objective == "cost":
        return found.usd_per_hour
    if spec.objective == "energy":
        return found.power_w
    return None if found.devices is None else float(found.devices)


def _estimated(spec: PlanSpec, screened: Screened) -> tuple[bool, float, int, str]:
    """Order of finalists: by estimated objective; what has no price stands by its devices behind the rest."""
    c = screened.configuration
    devices, cost = c.bought(screened.estimated), screened.usd_per_hour
    if spec.objective == "cost":
        return cost is None, cost if cost is not None else float(devices), devices, c.label
    return False, float(devices), devices, c.label


def _rank(spec: PlanSpec, found: Found) -> tuple[float, int, float, str]:
    return objective(spec, found) or 0.0, found.devices or 0, found.miss, found.configuration.label


def _with(source: Source, what: WhatIf) -> Source:
    """The plan with one thing changed."""
    spec = source.plan
    changed = spec.model_copy(
        update={
            "slo": what.slo or spec.slo,
            "prices": {**spec.prices, **what.prices},
            "candidates": [*spec.candidates, *what.candidates],
        }
    )
    return replace(source, plan=changed, price_factor=float(what.price))


def _check(source: Source) -> None:
    """Find mistakes of what-ifs before anything is simulated."""
    for number, what in enumerate(source.plan.whatif):
        try:
            enumerate_configurations(_with(source, what), standing(what.set, "whatif", number, "set"))
        except EffsimError as error:
            raise source.blamed(error, "whatif", number) from None


def _what_if(source: Source, number: int, what: WhatIf, seed: int, pool: Pool, progress: Progress) -> Changed:
    """The answer under one what-if."""
    load = Load(float(what.load), float(what.prompt), float(what.output))
    extra = standing(what.set, "whatif", number, "set")
    try:
        return Changed(what.name, solve(_with(source, what), load, seed, pool, progress, extra))
    except EffsimError as error:
        raise source.blamed(error, "whatif", number) from None


def _notes(spec: PlanSpec, answer: Answer, about: dict[str, float]) -> tuple[str, ...]:
    out = []
    longest = max((limit for latency, _, limit in spec.slo.limits() if latency == "ttft"), default=0.0)
    if longest and about["span_s"] < SHORT * longest:
        out.append(
            f"the load lasts {about['span_s']:.4g} s, less than {SHORT} times the promised time to first token: "
            "a queue that grows slowly may not show; use more requests"
        )
    if answer.unpriced and spec.objective == "cost":
        out.append(f"{len(answer.unpriced)} configurations have no price and stand apart, by devices")
    if answer.unpriced and spec.objective == "energy":
        out.append(f"the energy of {len(answer.unpriced)} configurations is not known; they stand apart, by devices")
    if not answer.proven:
        out.append("configurations beyond the finalists were not simulated and might be better")
    return tuple(out)


class _Sized:
    """An iterator whose length is known: what progress bars ask for."""

    def __init__(self, items: Iterable[Any], count: int) -> None:
        self._items, self._count = iter(items), count

    def __iter__(self) -> Any:
        return self._items

    def __next__(self) -> Any:
        return next(self._items)

    def __len__(self) -> int:
        return self._count


def _sized(items: Iterable[Any], like: Sequence[Any]) -> _Sized:
    return _Sized(items, len(like))

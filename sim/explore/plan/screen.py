"""Analytic screening: which configurations can keep the promises at all, and about how many replicas they need.

Three judgements, from sure to rough:

* *floor*: a request that has a replica to itself already misses a promise (then no number of replicas helps);
* *least replicas*: all prompt tokens at the fastest rate of a step take longer than the load lasts on fewer;
* *estimated replicas*: the steady state of continuous batching. With ``B`` sequences that generate, a step brings
  ``B`` tokens and ``B/O`` requests end, so ``c = B·P/O`` prompt tokens have to be read a step; the step takes
  ``t(B, c)``, the replica serves ``B/(O·t)`` requests a second, and a token takes ``t``. A prompt waits as in a queue
  with one server whose service is reading a prompt beside the batch: ``P(wait > w) = ρ·exp(−(1−ρ)·w/S)``,
  with ``S`` what a prompt adds to the steps it is read in.

``P`` and ``O``: mean tokens of prompts (without what they share) and of answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ...serving.request import Request
from ...serving.step_cost import grid
from ...spec.plan import PlanSlo
from .configurations import Configuration
from .replica import Replica

Judge = Callable[[int], tuple[float, float, int] | None]
"""Replicas → (first-token time, token time, batch), or None where a promise is missed."""

SURE = 1.05
"""A floor or a bound is believed beyond so many times its limit: step costs are interpolated, and batches padded."""
COARSE = (1, 2, 4, 8, 12, 16)
"""Batches up to 16 whose steady state is looked at; above, two to every doubling."""
BUSIEST = 0.95
"""Largest share of its time that an estimated replica reads prompts, beside which waits have no end."""


@dataclass(frozen=True, slots=True)
class LoadShape:
    """What screening knows of a load. Tokens; requests a second; seconds."""

    requests: int
    span_s: float
    rate: float
    prompt: float
    new: float
    output: float
    prompts: tuple[int, ...]
    news: tuple[int, ...]
    outputs: tuple[int, ...]

    @classmethod
    def of(cls, requests: Sequence[Request], block: int) -> LoadShape:
        """Measure a load; a block of *block* tokens is read where it first comes (0: nothing is shared)."""
        count = max(1, len(requests))
        span = requests[-1].arrival_s - requests[0].arrival_s if len(requests) > 1 else 0.0
        seen: set[int] = set()
        news = []
        for r in requests:
            news.append(max(1, r.prompt - block * sum(name in seen for name in r.blocks)))
            seen.update(r.blocks)
        return cls(
            requests=len(requests),
            span_s=span,
            rate=(count - 1) / span if span > 0.0 else 0.0,
            prompt=sum(r.prompt for r in requests) / count,
            new=sum(news) / count,
            output=sum(r.output for r in requests) / count,
            prompts=tuple(r.prompt for r in requests),
            news=tuple(news),
            outputs=tuple(r.output for r in requests),
        )


@dataclass(frozen=True, slots=True)
class Screened:
    """A configuration after screening.

    ``status``: ``ok``, ``does_not_fit``, ``unsupported``, ``too_slow`` (a floor is beyond its limit), ``too_large``
    (even the bound is more than the largest fleet).
    """

    configuration: Configuration
    status: str
    message: str = ""
    least: int = 1
    estimated: int = 1
    estimated_ttft_s: float | None = None
    estimated_tpot_s: float | None = None
    batch: int = 0
    floor: float = 0.0
    cache_tokens: int = 0

    @property
    def usd_per_hour(self) -> float | None:
        """Estimated cost."""
        return self.configuration.usd_per_hour(self.estimated)


def quantile(values: Sequence[float], share: float) -> float:
    """Nearest rank, as in :mod:`effsim.serving.metrics`.

    >>> quantile([4, 1, 3, 2], 0.5)
    2
    """
    held = sorted(values)
    return held[max(0, math.ceil(round(share * len(held), 9)) - 1)] if held else 0.0


def share_of(percentile: str) -> float | None:
    """``p95`` is 0.95, ``max`` 1; None for the mean."""
    return None if percentile == "mean" else 1.0 if percentile == "max" else int(percentile[1:]) / 100.0


def at(values: Sequence[float], percentile: str) -> float:
    """A percentile, or the mean, of *values*."""
    share = share_of(percentile)
    return sum(values) / max(1, len(values)) if share is None else quantile(values, share)


def alone_ttft_s(replica: Replica, new: int, past: int) -> float:
    """Time to first token of a request that has the replica to itself: its pieces one after the other."""
    most = replica.cost_tokens
    if replica.serving.scheduler.policy in ("continuous", "prefill_first", "static"):
        return replica.cost.mixed_s(0, 0.0, [(new, past)], 1)
    seconds, done = 0.0, 0
    while done < new:
        piece = min(most, new - done)
        done += piece
        seconds += replica.cost.mixed_s(0, 0.0, [(piece, past + done - piece)], int(done >= new))
    return seconds


def screen(configuration: Configuration, replica: Replica, load: LoadShape, slo: PlanSlo) -> Screened:
    """Judge a configuration whose weights fit."""
    floor = _floor(replica, load, slo)
    base = Screened(configuration, "ok", floor=floor, cache_tokens=replica.cache_tokens)
    longest = max((p + o for p, o in zip(load.prompts, load.outputs, strict=True)), default=0)
    if longest > replica.cache_tokens:
        message = (
            f"a request of {longest:,} tokens is longer than the cache of a replica, {replica.cache_tokens:,} tokens"
        )
        return replace(base, status="does_not_fit", message=message)
    if floor > SURE:
        message = f"a request alone on a replica already takes {floor:.2f} times what is promised"
        return replace(base, status="too_slow", message=message)
    least = configuration.holding(least_replicas(replica, load, slo), 1)
    if least > configuration.most_replicas:
        message = f"the load needs at least {least} replicas; the largest fleet has {configuration.most_replicas}"
        return replace(base, status="too_large", message=message, least=least)
    judge = _judge_pools(replica, load, slo) if replica.divided else _judge(replica, load, slo)
    n, ttft, tpot, batch = _estimate(judge, least, configuration.most_replicas)
    return replace(base, least=least, estimated=n, estimated_ttft_s=ttft, estimated_tpot_s=tpot, batch=batch)


def _floor(replica: Replica, load: LoadShape, slo: PlanSlo) -> float:
    """Largest ratio of a latency without any other request to its promise."""
    worst = 0.0
    for latency, percentile, limit in slo.limits():
        if latency == "ttft":
            order = sorted(zip(load.news, load.prompts, strict=True))
            new = at([n for n, _ in order], percentile)
            value = alone_ttft_s(replica, max(1, int(new)), 0)
        elif latency == "tpot":
            contexts = [p + o / 2.0 for p, o in zip(load.prompts, load.outputs, strict=True) if o > 1]
            value = replica.decode_cost.generate_s(1, at(contexts, percentile)) if contexts else 0.0
            value /= replica.most_a_step
        else:
            continue
        worst = max(worst, value / limit)
    return worst


def least_replicas(replica: Replica, load: LoadShape, slo: PlanSlo) -> int:
    """A lower bound on the replicas that read prompts: work at the best rate over the time there is for it.

    The slowest requests that promises allow to miss do not count, and what is promised of the last ones is added to
    the time there is. Steps are as full as they may be, of prompts of the mean length: attention to prompts of other
    lengths, or in pieces, takes more in all.
    """
    window, kept = 0.0, 1.0
    for latency, percentile, limit in slo.limits():
        if latency == "ttft":
            # With a mean of m, at most half of the requests take more than 2 m.
            share = share_of(percentile)
            window, kept = (load.span_s + 2.0 * limit, 0.5) if share is None else (load.span_s + limit, share)
    if window <= 0.0 or not load.requests:
        return 1
    counted = max(1, math.floor(kept * load.requests))
    tokens = sum(sorted(load.news)[:counted])
    mean, rates = max(1, tokens // counted), []
    for step in (replica.cost_tokens // part for part in (1, 2, 4)):
        piece = max(1, min(step, mean))
        count = max(1, step // piece)
        rates.append(replica.cost.mixed_s(0, 0.0, [(piece, 0)] * count, 1) / (piece * count))
    return max(1, math.ceil(tokens * min(rates) / window / SURE))


@dataclass(frozen=True, slots=True)
class _State:
    """A steady state: sequences that generate, seconds a step, requests a second, seconds to read a prompt.

    ``work_s`` is what a prompt adds to the steps that read it: prompts that wait together share the rest.
    """

    batch: int
    step_s: float
    rate: float
    prompt_s: float
    work_s: float


def steady_states(replica: Replica, load: LoadShape) -> list[_State]:
    """Steady states by batch, as far as batch, cache and tokens of a step allow."""
    p, new, out = load.prompt, max(1.0, load.new), max(1.0, load.output)
    context = p + out / 2.0
    room = int(replica.cache_tokens // max(1.0, p + out))
    most = replica.cost_tokens
    states = []
    for batch in (n for n in grid(max(1, min(replica.most_sequences, room)), 2) if n in COARSE or n > max(COARSE)):
        wanted = batch * new / out
        piece = int(max(1.0, min(new, most - batch))) if most > batch else 0
        if not piece or wanted > most - batch:
            break
        past = max(0, int(p - piece))
        mixed = replica.cost.mixed_s(batch, context, [(piece, past // 2)], 1)
        if wanted <= piece:
            share = wanted / piece
            step = share * mixed + (1.0 - share) * replica.cost.generate_s(batch, context)
        else:
            pieces = [(piece, past // 2)] * int(wanted // piece)
            rest = int(wanted - piece * len(pieces))
            step = replica.cost.mixed_s(batch, context, [*pieces, *([(rest, past // 2)] if rest else [])], len(pieces))
        more = max(0.0, mixed - replica.cost.generate_s(batch, context))
        states.append(_State(batch, step, batch / (out * step), mixed * new / piece, more * new / piece))
    return states


def _estimate(judge: Judge, least: int, most: int) -> tuple[int, float | None, float | None, int]:
    """Replicas that the steady state asks for, with its first-token time, token time and batch."""
    found: tuple[int, float | None, float | None, int] | None = None
    low, high = least, most
    while low <= high:
        middle = (low + high) // 2
        judged = judge(middle)
        if judged is not None:
            found, high = (middle, *judged), middle - 1
        else:
            low = middle + 1
    return found or (most, None, None, 0)


def _judge(replica: Replica, load: LoadShape, slo: PlanSlo) -> Judge:
    """Fleets whose replicas read prompts and generate."""
    states = steady_states(replica, load)
    return lambda n: _at_rate(states, load, slo, load.rate / n) if states else None


def _judge_pools(replica: Replica, load: LoadShape, slo: PlanSlo) -> Judge:
    """Fleets whose prompts are read on other replicas than answers are generated on.

    A prompt waits for a replica that reads one after the other, its answer takes steps without prompts beside it.
    What the way of its cache takes is left to the simulation.
    """
    out, context = max(1.0, load.output), load.prompt + max(1.0, load.output) / 2.0
    room = int(replica.cache_tokens // max(1.0, load.prompt + out))
    prompt_s = alone_ttft_s(replica, max(1, round(load.new)), 0)
    states = []
    for batch in grid(max(1, min(replica.most_sequences, room)), 2):
        step = replica.decode_cost.generate_s(batch, context)
        states.append(_State(batch, step, batch / (out * step), prompt_s, prompt_s))

    def judge(n: int) -> tuple[float, float, int] | None:
        reading, generating = (pool.replicas for pool in replica.configuration.pools(n))
        state = next((s for s in states if s.rate >= load.rate / generating), None)
        return None if state is None else _promised(state, load, slo, load.rate / reading)

    return judge


def _at_rate(states: Sequence[_State], load: LoadShape, slo: PlanSlo, rate: float) -> tuple[float, float, int] | None:
    """(first-token time, token time, batch) at a rate a replica; None where a promise is missed."""
    state = next((s for s in states if s.rate >= rate), None)
    return None if state is None else _promised(state, load, slo, rate)


def _promised(state: _State, load: LoadShape, slo: PlanSlo, rate: float) -> tuple[float, float, int] | None:
    """(first-token time, token time, batch) where prompts come at a rate; None where a promise is missed."""
    busy = rate * state.work_s
    if busy >= BUSIEST:
        return None
    first = 0.0
    for latency, percentile, limit in slo.limits():
        if latency == "ttft":
            share = min(0.99, share_of(percentile) or 0.63)  # the mean of an exponential is its 63rd percentile
            wait = state.work_s / (1.0 - busy) * math.log(busy / (1.0 - share)) if busy > 1.0 - share else 0.0
            longer = at(load.news, percentile) / max(1.0, load.new)
            first = wait + state.step_s / 2.0 + state.prompt_s * longer
            if first > limit:
                return None
        elif latency in ("tpot", "itl"):
            if state.step_s > limit:
                return None
        elif (state.prompt_s + state.step_s * at(load.outputs, percentile)) > limit:
            return None
    return first, state.step_s, state.batch

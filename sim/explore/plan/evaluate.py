"""A fleet under a load: what was promised against what a simulation gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from ...serving.metrics import ServeResult
from ...serving.request import Request
from ...spec.plan import LATENCIES, PlanSlo

EVERY = 32
"""Arrivals between two looks at the requests that ended."""


@dataclass(frozen=True, slots=True)
class Promise:
    """One promise and how it was kept. ``value`` is None where nothing was measured (no second token, say)."""

    latency: str
    percentile: str
    limit_s: float
    value_s: float | None

    @property
    def ratio(self) -> float:
        """Value over limit: at most 1 where it is kept."""
        return 0.0 if self.value_s is None else self.value_s / self.limit_s

    @property
    def name(self) -> str:
        """``ttft p95``."""
        return f"{self.latency} {self.percentile}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "latency": self.latency,
            "percentile": self.percentile,
            "limit_s": self.limit_s,
            "value_s": self.value_s,
            "ratio": self.ratio,
        }


@dataclass(frozen=True, slots=True)
class Measured:
    """A simulated fleet: its promises, and what the simulation gave (without its course).

    ``replicas`` as the plan counts them: data ranks may be several of ``served``. ``load``: factor on the planned one.
    """

    replicas: int
    load: float
    promises: tuple[Promise, ...]
    served: ServeResult

    @property
    def worst(self) -> Promise:
        """The promise that is nearest to its limit, or furthest beyond."""
        return max(self.promises, key=lambda p: p.ratio)

    @property
    def holds(self) -> bool:
        """Every promise is kept and no request was refused."""
        return not self.served.refused and self.worst.ratio <= 1.0

    @property
    def miss(self) -> float:
        """How far from its promises: the worst ratio; infinite where requests were refused."""
        return float("inf") if self.served.refused else self.worst.ratio

    @property
    def joules_per_output_token(self) -> float | None:
        """None where the energy is unknown."""
        joules, tokens = self.served.energy_j, self.served.output_tokens
        return None if joules is None or not tokens else joules / tokens

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        s = self.served
        return {
            "replicas": self.replicas,
            "load": self.load,
            "within_slo": self.holds,
            "promises": [p.as_dict() for p in self.promises],
            **{name: getattr(s, name) for name in _SHOWN},
            "attainment": s.slo_attainment,
            "energy_j": s.energy_j,
            "latencies": {name: None if v is None else dict(v) for name, v in latencies_of(s).items()},
        }


_SHOWN: Final = (
    "requests",
    "refused",
    "duration_s",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "utilisation",
    "peak_cache_fraction",
    "cache_tokens",
    "preemptions",
)
"""What a plan's JSON repeats of a simulation."""


def latencies_of(served: ServeResult) -> dict[str, Mapping[str, float] | None]:
    """Percentiles by the latency's name in promises."""
    return {name: getattr(served, f"{name}_s") for name in LATENCIES}


class BrokenError(Exception):
    """A promise is broken whatever happens from here on."""


class Watch:
    """Looks at requests while later ones arrive, and ends a simulation that cannot keep its promises any more.

    A percentile breaks when more requests miss the limit than may: ``⌊(1 − p)·N⌋`` of *count*. A request that has no
    first token at its limit misses it, whatever comes. Means are not watched. *least*: share of the requests that may
    miss a limit in any case.
    """

    def __init__(self, slo: PlanSlo, count: int, least: float = 0.0) -> None:
        most = int(least * count)
        allowed = {(a, limit): max(most, count - _rank(p, count)) for a, p, limit in slo.limits() if p != "mean"}
        self._first = sorted((limit, n) for (latency, limit), n in allowed.items() if latency == "ttft")
        self._after = [(limit, n) for (latency, limit), n in allowed.items() if latency == "tpot"]

    def __call__(self, arriving: Iterator[Request]) -> Iterator[Request]:
        """Pass requests on; those before are looked at when a later one is asked for.

        Raises:
            BrokenError: too many have missed a limit.
        """
        seen: list[Request] = []
        judged, missed = [0] * len(self._first), [0] * len(self._first)
        slow, open_ = [0] * len(self._after), list[Request]()
        for request in arriving:
            now = seen[-1].arrival_s if seen else 0.0
            for i, (limit, most) in enumerate(self._first):
                while judged[i] < len(seen) and seen[judged[i]].arrival_s + limit < now:
                    first = seen[judged[i]].first_token_s
                    missed[i] += first is None or first - seen[judged[i]].arrival_s > limit
                    judged[i] += 1
                if missed[i] > most:
                    raise BrokenError
            if len(seen) % EVERY == 0:
                still = []
                for one in open_:
                    if one.finish_s is None:
                        still.append(one)
                        continue
                    took = one.tpot_s
                    for i, (limit, _) in enumerate(self._after):
                        slow[i] += took is not None and took > limit
                open_ = still
                if any(n > most for n, (_, most) in zip(slow, self._after, strict=True)):
                    raise BrokenError
            seen.append(request)
            open_.append(request)
            yield request


def _rank(percentile: str, count: int) -> int:
    """How many requests are within a percentile (nearest rank)."""
    return count if percentile == "max" else max(1, -(-int(percentile[1:]) * count // 100))


def measured(served: ServeResult, slo: PlanSlo, replicas: int, load: float) -> Measured:
    """Judge a load served by *replicas*."""
    found = latencies_of(served)
    promises = []
    for latency, percentile, limit in slo.limits():
        values = found[latency]
        promises.append(Promise(latency, percentile, limit, None if values is None else values[percentile]))
    return Measured(replicas, load, tuple(promises), replace(served, history=(), served=None))

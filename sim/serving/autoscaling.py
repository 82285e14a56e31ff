"""Adding replicas under load and giving them back: thresholds on a signal, looked at every so often."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .replica_pool import ReplicaPool, State

if TYPE_CHECKING:
    import simpy

SIGNALS = ("in_flight", "queue", "utilisation")


@dataclass(frozen=True, slots=True)
class ScalingPlan:
    """When a pool grows and shrinks.

    Attributes:
        least, most: replicas; ``step``: how many are added at a time (they are given back one by one).
        signal: ``in_flight`` (requests that wait or run) or ``queue`` (that wait), per serving replica, or
            ``utilisation``: share of the last interval that serving replicas spent in steps.
        out_above, in_below: thresholds of the signal.
        interval_s: time between two looks.
        cooldown_s: least time between two changes.
        start_s: from the decision to the first request: provisioning, process start, weights.
    """

    least: int
    most: int
    signal: str = "in_flight"
    out_above: float = 16.0
    in_below: float = 4.0
    step: int = 1
    interval_s: float = 5.0
    cooldown_s: float = 30.0
    start_s: float = 60.0


class Scaler:
    """Scales one pool while the fleet lives."""

    def __init__(self, env: simpy.Environment, plan: ScalingPlan, pool: ReplicaPool) -> None:
        self.env, self.plan, self.pool = env, plan, pool
        self.outs = self.ins = 0
        self._busy_s: dict[int, float] = {}
        env.process(self._watch())

    def _watch(self) -> Generator[Any, Any, None]:
        quiet_until = -math.inf
        while True:
            yield self.env.timeout(self.plan.interval_s)
            signal = self.signal()
            if self.env.now >= quiet_until and self._act(signal):
                quiet_until = self.env.now + self.plan.cooldown_s

    def signal(self) -> float:
        """The signal now; without a serving replica, infinite if requests wait."""
        pool = self.pool
        serving = pool.serving()
        replicas = [m.replica for m in serving if m.replica is not None]
        busy, self._busy_s = self._busy_s, {m.index: m.replica.busy_s for m in serving if m.replica is not None}
        if not replicas:
            return math.inf if pool.backlog else 0.0
        if self.plan.signal == "utilisation":
            spent = sum(now - busy.get(index, now) for index, now in self._busy_s.items())
            return spent / (len(replicas) * self.plan.interval_s)
        if self.plan.signal == "queue":
            return (len(pool.backlog) + sum(r.waiting for r in replicas)) / len(replicas)
        return (len(pool.backlog) + sum(r.load for r in replicas)) / len(replicas)

    def _act(self, signal: float) -> bool:
        """Grow or shrink; whether anything changed."""
        plan, pool = self.plan, self.pool
        lasting = pool.lasting
        if signal > plan.out_above:
            places = pool.count(State.STOPPED, State.DRAINING)
            more = min(plan.step, plan.most - lasting, places)
            for _ in range(more):
                pool.start(plan.start_s)
            self.outs += max(0, more)
            return more > 0
        if signal < plan.in_below and lasting > plan.least and pool.count(State.SERVING, State.STARTING) > 1:
            pool.drain()
            self.ins += 1
            return True
        return False

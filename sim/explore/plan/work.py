"""What processes do: screen a configuration, find its fewest replicas, find the most load a fleet carries.

Every task says all it depends on and every answer is a function of its task, so that answers do not depend on who
works on what. A process keeps what it prepared and simulated.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...devices.registry import Machine, rebuild
from ...errors import DataError, DoesNotFitError, EffsimError, UnsupportedError
from ...spec.confine import enter, layers
from ...spec.plan import PlanSlo
from ..sensitivity import parameters, with_value
from .configurations import Configuration, Load
from .evaluate import BrokenError, Measured, Watch, measured
from .replica import Replica, prepare, requests_of
from .screen import LoadShape, Screened, alone_ttft_s, at, screen
from .search import FINENESS, fewest, largest_load

OVERLOADED = 0.5
"""A fleet that breaks a promise for so many of the requests is not simulated to its end."""
MOST_KEPT = 64
"""Prepared replicas that a process keeps."""


@dataclass(frozen=True, slots=True)
class Change:
    """Numbers of a device's or a system's file times a factor; ``pattern`` finds them by their dotted path."""

    name: str
    pattern: str
    factor: float


@dataclass(frozen=True, slots=True)
class Task:
    """One question about one configuration. ``headroom``: load factors that must hold beside the load itself.

    ``question``: ``screen``; ``search`` (fewest replicas from ``start``, at most ``most``); ``load`` (most load of
    ``start`` replicas, looked for from ``guess`` on); ``measure`` (``start`` replicas). ``report``: with measurements
    also where the promises are broken.
    """

    question: str
    configuration: Configuration
    load: Load
    slo: PlanSlo
    seed: int
    folder: str
    headroom: float = 1.0
    start: int = 1
    most: int = 1
    guess: float = 1.0
    changes: tuple[Change, ...] = ()
    report: bool = True


@dataclass(frozen=True, slots=True)
class Found:
    """Answer to ``search``, ``load`` and ``measure``.

    ``replicas`` is None where not even the most are enough; ``measured`` is then of those. ``at_headroom`` is under the
    load with its headroom. ``load`` is the most load; ``broken`` what was measured just beyond it. ``error`` says why
    there is no answer.
    """

    configuration: Configuration
    replicas: int | None = None
    measured: Measured | None = None
    at_headroom: Measured | None = None
    load: float | None = None
    broken: Measured | None = None
    alone_ttft_s: float | None = None
    simulations: int = 0
    error: str = ""

    @property
    def shown(self) -> int | None:
        """Replicas of the fleet, or of the one that was measured where none is enough; None without either."""
        return self.replicas if self.replicas is not None or self.measured is None else self.measured.replicas

    @property
    def miss(self) -> float:
        """How near its promises a fleet is, with its headroom; infinite where nothing was measured."""
        return max((m.miss for m in (self.measured, self.at_headroom) if m is not None), default=math.inf)

    @property
    def devices(self) -> int | None:
        """Devices to be bought."""
        return None if self.replicas is None else self.configuration.bought(self.replicas)

    @property
    def usd_per_hour(self) -> float | None:
        """Cost of the fleet."""
        return None if self.replicas is None else self.configuration.usd_per_hour(self.replicas)

    @property
    def power_w(self) -> float | None:
        """Mean power over the run; None where unknown."""
        s = None if self.measured is None else self.measured.served
        return None if s is None or s.energy_j is None or not s.duration_s else s.energy_j / s.duration_s

    def usd_per_million(self, tokens: str) -> float | None:
        """Cost of a million tokens: ``output``, or ``all`` (prompts, too)."""
        m, hourly = self.measured, self.usd_per_hour
        if m is None or hourly is None:
            return None
        count = m.served.output_tokens + (m.served.input_tokens if tokens == "all" else 0)
        return 1e6 * hourly / 3600.0 * m.served.duration_s / count if count else None


class Worker:
    """Answers tasks, and keeps what they have in common."""

    def __init__(self) -> None:
        self._replicas: dict[str, Replica | EffsimError] = {}
        self._shapes: dict[str, LoadShape] = {}
        self._measured: dict[str, Measured] = {}
        self._held: dict[str, bool] = {}
        self._counts: dict[str, int] = {}
        self._asked: set[str] = set()

    def answer(self, task: Task) -> Screened | Found:
        """The answer; a configuration that cannot be is an answer, too."""
        if task.question == "screen":
            return self._screen(task)
        try:
            replica = self._replica(task)
            self._asked.clear()
            found = {"search": self._search, "load": self._load, "measure": self._measure}[task.question](task, replica)
            return replace(found, simulations=len(self._asked))
        except (DoesNotFitError, UnsupportedError) as error:
            return Found(task.configuration, error=str(error))

    # --- questions

    def _screen(self, task: Task) -> Screened:
        try:
            replica = self._replica(task)
            if task.configuration.most_replicas < 1:
                c = task.configuration
                message = f"the smallest fleet takes {c.bought(c.fewest)} devices; the largest has {c.most_devices}"
                return Screened(c, "too_large", message)
            return screen(task.configuration, replica, self._shape(task, replica), task.slo)
        except DoesNotFitError as error:
            return Screened(task.configuration, "does_not_fit", str(error))
        except UnsupportedError as error:
            return Screened(task.configuration, "unsupported", str(error))

    def _search(self, task: Task, replica: Replica) -> Found:
        loads = sorted({1.0, task.headroom}, reverse=True)  # the harder one first

        def holds(replicas: int) -> bool:
            return all(self._holds(task, replica, replicas, factor) for factor in loads)

        replicas = fewest(holds, task.start, task.most)
        if replicas is None and not task.report:
            return Found(task.configuration, error="not better")
        return self._found(task, replica, replicas or task.most, replicas)

    def _measure(self, task: Task, replica: Replica) -> Found:
        return self._found(task, replica, task.start, task.start)

    def _load(self, task: Task, replica: Replica) -> Found:
        def holds(factor: float) -> bool:
            return self._holds(task, replica, task.start, factor)

        load = largest_load(holds, task.guess)
        if not task.report:
            return Found(task.configuration, replicas=task.start if load >= 1.0 else None, load=load)
        beyond = self._simulated(task, replica, task.start, load * FINENESS) if load else None
        broken = beyond if beyond is not None and not beyond.holds else None
        return replace(self._found(task, replica, task.start, task.start), load=load, broken=broken)

    def _found(self, task: Task, replica: Replica, shown: int, replicas: int | None) -> Found:
        if replicas is None and not self._holds(task, replica, shown, 1.0, OVERLOADED):
            return Found(task.configuration, error="overloaded: more than half of the requests miss a promise")
        shape = self._shape(task, replica)
        promised = next((p for latency, p, _ in task.slo.limits() if latency == "ttft"), "p95")
        return Found(
            task.configuration,
            replicas=replicas,
            measured=self._simulated(task, replica, shown, 1.0),
            at_headroom=None if task.headroom == 1.0 else self._simulated(task, replica, shown, task.headroom),
            alone_ttft_s=alone_ttft_s(replica, max(1, int(at(shape.news, promised))), 0),
        )

    # --- what is kept

    def _replica(self, task: Task) -> Replica:
        key = repr((task.configuration, task.changes, task.folder))
        found = self._replicas.get(key)
        if found is None:
            if len(self._replicas) >= MOST_KEPT:
                self._replicas.clear()
            try:
                found = prepare(task.configuration, Path(task.folder), lambda machine: changed(machine, task.changes))
            except (DoesNotFitError, UnsupportedError) as error:
                found = error
            self._replicas[key] = found
        if isinstance(found, EffsimError):
            raise found
        return found

    def _holds(self, task: Task, replica: Replica, replicas: int, factor: float, least: float = 0.0) -> bool:
        """Whether the promises hold; with *least*, whether no more than that share of the requests misses one."""
        if replicas < task.configuration.fewest:
            return False
        what = self._what(task, replicas, factor)
        key = f"{what} {least}"
        self._asked.add(key)
        if key not in self._held:
            load = task.load.times(factor)
            watch = Watch(task.slo, self._count(task, replica, load), least)
            try:
                served = replica.serve(replicas, load, task.seed, watch)
                found = measured(served, task.slo, replicas, factor)
                self._measured.setdefault(what, found)
                self._held[key] = found.holds or bool(least)
            except BrokenError:
                self._held[key] = False
        return self._held[key]

    def _count(self, task: Task, replica: Replica, load: Load) -> int:
        """Requests of a load."""
        key = repr((replica.serving, load, task.seed, task.folder))
        if key not in self._counts:
            self._counts[key] = len(requests_of(replica.workload, Path(task.folder), load, task.seed)[0])
        return self._counts[key]

    def _shape(self, task: Task, replica: Replica) -> LoadShape:
        load = task.load.times(task.headroom)
        key = repr((replica.serving, load, task.seed, task.folder, replica.workload.prompt, replica.workload.generate))
        if key not in self._shapes:
            requests, block = requests_of(replica.workload, Path(task.folder), load, task.seed)
            self._shapes[key] = LoadShape.of(requests, block)
        return self._shapes[key]

    @staticmethod
    def _what(task: Task, replicas: int, factor: float) -> str:
        """What a simulation depends on: ratios that give the same pools are the same fleet."""
        fleet = task.configuration.fleet(replicas)
        return repr((fleet, task.changes, task.load, task.slo, task.seed, task.folder, replicas, factor))

    def _simulated(self, task: Task, replica: Replica, replicas: int, factor: float) -> Measured:
        key = self._what(task, replicas, factor)
        self._asked.add(f"{key} {0.0}")
        if key not in self._measured:
            served = replica.serve(replicas, task.load.times(factor), task.seed)
            self._measured[key] = measured(served, task.slo, replicas, factor)
        return self._measured[key]


def changed(machine: Machine, changes: Sequence[Change]) -> Machine:
    """The machine with numbers of its files multiplied.

    Raises:
        UnsupportedError: it has no such numbers.
    """
    for change in changes:
        touched, spec, system = False, machine.spec, machine.system
        for owner, path, value in parameters(machine):
            if not re.fullmatch(change.pattern, path):
                continue
            if owner == "device":
                spec, touched = with_value(spec, path, value * change.factor), True
            elif owner == "system" and system is not None:
                system, touched = with_value(system, path, value * change.factor), True  # type: ignore[assignment]
        if not touched:
            raise UnsupportedError(f"{machine.name} has no {change.name}")
        machine = rebuild(machine, spec, system)
    return machine


_worker: list[Worker] = []


def work(task: Task) -> Screened | Found:
    """Answer in this process."""
    if not _worker:
        _worker.append(Worker())
    return _worker[0].answer(task)


class Pool:
    """Answers tasks here or on processes of this machine, in the order asked."""

    def __init__(self, processes: int | None) -> None:
        available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._count = available if processes is None else processes
        self._pool: Any = None
        self._worker = Worker()

    def ask(self, tasks: Sequence[Task]) -> Iterable[Any]:
        """Answers, as they come, in order.

        Raises:
            DataError: a process was killed.
        """
        if self._count <= 1 or len(tasks) <= 1:
            yield from (self._worker.answer(task) for task in tasks)
            return
        from concurrent.futures import ProcessPoolExecutor
        from concurrent.futures.process import BrokenProcessPool
        from multiprocessing import get_context

        if self._pool is None:
            # Started from nothing: a copy of this process would also copy its threads' locks.
            self._pool = ProcessPoolExecutor(self._count, get_context("spawn"), initializer=enter, initargs=(layers(),))
        try:
            yield from self._pool.map(work, tasks)
        except BrokenProcessPool:
            raise DataError("a worker process was killed; is there enough memory?") from None

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

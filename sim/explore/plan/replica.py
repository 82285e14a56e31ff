"""One configuration, ready to be simulated: machine, placed program, step costs, room for the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ...devices.capacity import capacity_of
from ...devices.registry import Machine, load_machine
from ...program.memory import Capacity
from ...program.place import StepGraph, place, step_graphs
from ...program.program import Program
from ...serving.metrics import ServeResult
from ...serving.replica_kind import kind_of_replica, replica_degrees
from ...serving.request import Request
from ...serving.simulate import load_requests, simulate
from ...serving.step_cost import StepCost
from ...spec.build import build
from ...spec.catalogue import load_document
from ...spec.engine import EngineSpec
from ...spec.serving import ServingSpec
from ...spec.workload import WorkloadSpec
from .configurations import Configuration, Load

Watch = Callable[[Iterator[Request]], Iterable[Request]]


@dataclass(frozen=True, slots=True)
class Replica:
    """A configuration with everything that does not depend on how many replicas a fleet has.

    Attributes:
        cache_tokens: tokens that the cache of one replica holds.
        most_sequences: sequences of a batch: the scheduler's limit, or what states of recurrent layers leave room for.
    """

    machine: Machine
    workload: WorkloadSpec
    engine: EngineSpec
    capacity: Capacity
    program: Program
    graphs: StepGraph
    cost: StepCost
    cache_tokens: int
    most_sequences: int
    base: Path

    @property
    def serving(self) -> ServingSpec:
        """Load and scheduler."""
        assert self.workload.serving is not None
        return self.workload.serving

    @property
    def cost_tokens(self) -> int:
        """Tokens of the largest step."""
        return int(self.serving.scheduler.max_tokens)

    def serve(self, replicas: int, load: Load, seed: int, watch: Watch = iter) -> ServeResult:
        """Simulate a fleet. Replicas do not talk to each other, so they need not be joined: only one has to be.

        *watch* wraps the requests while they arrive, and may end the simulation by raising.
        """
        serving = load.on(self.serving)
        workload = self.workload.model_copy(
            update={"serving": serving.model_copy(update={"replicas": type(serving.replicas)(replicas)})}
        )
        joined = max(self.capacity.devices, replicas * self.program.degrees.devices)
        capacity = replace(self.capacity, devices=joined)
        return simulate(
            self.machine, workload, self.engine, capacity, self.program, self.base, seed=seed, progress=watch
        )


def requests_of(workload: WorkloadSpec, base: Path, load: Load, seed: int) -> tuple[list[Request], int]:
    """The requests of a load, as the simulation will see them, and tokens of a block that they share (0: none)."""
    serving = load.on(workload.serving or ServingSpec())
    found, block = load_requests(serving, workload, base, seed)
    return list(found), (block or int(serving.cache.block)) if serving.cache.prefix else 0


def engine_of(workload: WorkloadSpec, base: Path) -> EngineSpec:
    """The engine profile of a workload."""
    nearby = base / workload.engine
    name = str(nearby) if nearby.is_file() else workload.engine
    return build(EngineSpec, load_document("engines", name), root="engine")


def prepare(configuration: Configuration, base: Path, change: Callable[[Machine], Machine]) -> Replica:
    """Place a configuration on its machine as *change* leaves it.

    Raises:
        DoesNotFitError: weights, or a cache beside them, do not fit.
        UnsupportedError: the device or the model cannot be used like this.
    """
    machine = change(load_machine(configuration.hardware, configuration.on_hardware))
    workload, capacity = configuration.workload, capacity_of(machine)
    engine = engine_of(workload, base)
    # Memory is judged by the cache that remains, not by a batch of full sequences: one sequence is placed.
    single = workload.model_copy(update={"batch": type(workload.batch)(1)})
    program = place(single, engine, capacity, base)
    graphs = step_graphs(workload, engine, capacity, replica_degrees(program.degrees)[0], base)
    assert workload.serving is not None
    kind = kind_of_replica(machine, workload, workload.serving, engine, capacity, program, base)
    cache_tokens, sequences = kind.pages * int(workload.serving.cache.page), kind.scheduling.most_sequences
    return Replica(machine, workload, engine, capacity, program, graphs, kind.plain_cost, cache_tokens, sequences, base)

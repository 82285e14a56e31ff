"""One configuration, ready to be simulated: machine, placed program, step costs, room for the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ...devices.capacity import capacity_of
from ...devices.registry import Machine, load_machine
from ...errors import SpecError, UnsupportedError
from ...program.memory import Capacity
from ...program.place import place
from ...program.program import Program
from ...serving.fleet_plan import decode_pool, decode_side
from ...serving.metrics import ServeResult
from ...serving.replica_kind import Deployment, ReplicaKind, kind_of_replica
from ...serving.request import Request
from ...serving.simulate import load_requests, simulate
from ...serving.step_cost import StepCost
from ...spec.build import build
from ...spec.catalogue import load_document
from ...spec.confine import is_file
from ...spec.engine import EngineSpec
from ...spec.serving import ServingSpec
from ...spec.workload import WorkloadSpec
from .configurations import Configuration, Load

Watch = Callable[[Iterator[Request]], Iterable[Request]]


@dataclass(frozen=True, slots=True)
class Replica:
    """A configuration with everything that does not depend on how many replicas a fleet has.

    Attributes:
        kind: what a replica is; the one that reads prompts, where pools are apart.
        decode: the one that generates; ``kind`` where pools are not apart.
    """

    configuration: Configuration
    machine: Machine
    workload: WorkloadSpec
    engine: EngineSpec
    capacity: Capacity
    program: Program
    kind: ReplicaKind
    decode: ReplicaKind
    base: Path

    @property
    def serving(self) -> ServingSpec:
        """Load and scheduler."""
        assert self.workload.serving is not None
        return self.workload.serving

    @property
    def divided(self) -> bool:
        """Prompts and generation are on replicas of their own."""
        return self.serving.disaggregated is not None

    @property
    def cost(self) -> StepCost:
        """Of steps that read prompts, without drafts."""
        return self.kind.plain_cost

    @property
    def decode_cost(self) -> StepCost:
        """Of steps that generate, without drafts."""
        return self.decode.plain_cost

    @property
    def cache_tokens(self) -> int:
        """Tokens that the cache of one replica holds: of either pool."""
        return min(self.kind.pages, self.decode.pages) * int(self.serving.cache.page)

    @property
    def most_sequences(self) -> int:
        """Sequences of a batch: the scheduler's limit, or what states of recurrent layers leave room for."""
        return self.decode.scheduling.most_sequences

    @property
    def cost_tokens(self) -> int:
        """Tokens of the largest step."""
        return int(self.serving.scheduler.max_tokens)

    @property
    def most_a_step(self) -> int:
        """Tokens that a sequence can get out of one step: more than one where drafts are accepted."""
        speculative = self.serving.speculative
        return 1 if speculative is None else 1 + int(speculative.tokens)

    def serve(self, replicas: int, load: Load, seed: int, watch: Watch = iter) -> ServeResult:
        """Simulate a fleet of so many replicas in all. They need not be joined: only each of them has to be.

        *watch* wraps the requests while they arrive, and may end the simulation by raising.

        Raises:
            SpecError: the simulation ran on other devices than the plan counts.
        """
        used, workload = self.configuration.used(replicas), self.configuration.fleet(replicas).workload
        assert workload.serving is not None
        workload = workload.model_copy(update={"serving": load.on(workload.serving)})
        capacity = replace(self.capacity, devices=max(self.capacity.devices, used))
        served = simulate(
            self.machine, workload, self.engine, capacity, self.program, self.base, seed=seed, progress=watch
        )
        if served.devices != used:
            what = f"{self.configuration.label}: {served.devices} devices were simulated where {used} are counted"
            raise SpecError(what, expected="a way to serve whose devices stay the same")
        return served


def requests_of(workload: WorkloadSpec, base: Path, load: Load, seed: int) -> tuple[list[Request], int]:
    """The requests of a load, as the simulation will see them, and tokens of a block that they share (0: none)."""
    serving = load.on(workload.serving or ServingSpec())
    found, block = load_requests(serving, workload, base, seed)
    return list(found), (block or int(serving.cache.block)) if serving.cache.prefix else 0


def engine_of(workload: WorkloadSpec, base: Path) -> EngineSpec:
    """The engine profile of a workload."""
    nearby = base / workload.engine
    name = str(nearby) if is_file(nearby) else workload.engine
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
    # Memory is judged by the cache that remains, not by a batch of full sequences: one for each data rank is placed.
    ranks = int(configuration.parallelism.data) * int(configuration.parallelism.microbatches)
    single = workload.model_copy(update={"batch": type(workload.batch)(ranks)})
    program = place(single, engine, capacity, base)
    serving = workload.serving
    assert serving is not None
    deployment = Deployment(machine, workload, serving, engine, capacity, program, base)
    kind = kind_of_replica(deployment)
    decode = kind
    if serving.disaggregated is not None:
        if kind.copies > 1:
            raise UnsupportedError(
                f"{kind.copies} data ranks that share nothing are replicas of their own; expected a data degree of 1 "
                "where prompts and generation are apart"
            )
        most = configuration.used(max(configuration.fewest, configuration.most_replicas))
        if serving.disaggregated.bandwidth is None and most > capacity.devices:
            raise UnsupportedError(
                f"caches travel between up to {most} devices and {capacity.device} joins {capacity.devices}; state the "
                "'bandwidth' of 'disaggregation', plan a system with a network, or a smaller 'most_devices'"
            )
        decode = decode_side(kind, deployment)
        try:
            decode_pool(serving, machine, kind, decode)
        except SpecError as error:
            raise UnsupportedError(error.what) from None
    return Replica(configuration, machine, workload, engine, capacity, program, kind, decode, base)

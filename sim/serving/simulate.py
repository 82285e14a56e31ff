"""From files to a served load: the replica's memory, its step costs, the requests, the simulation, the result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from ..devices.registry import Machine
from ..errors import SpecError, UnsupportedError
from ..program.memory import Capacity
from ..program.program import Program
from ..spec.confine import is_file
from ..spec.engine import EngineSpec
from ..spec.serving import ServingSpec
from ..spec.workload import WorkloadSpec
from .arrivals import DEFAULT_REQUESTS
from .arrivals import requests as random_requests
from .fleet import FleetPlan, serve_requests
from .fleet_plan import check_devices, decode_pool, decode_side, failure_plan, initial, scaling_plan
from .metrics import ServeResult
from .replica_kind import Deployment, kind_of_replica
from .request import Request
from .summary import summarise
from .traces import read_trace

NOTES_A_RUN = 2000
"""About so many entries of queue and cache history a replica."""
TRACE_S = 3600.0
"""How long a recorded load is taken to last where nothing is said, for the spacing of its history alone."""
PIPELINE_NOTE = (
    "pipeline stages are kept busy by as many microbatches of a step's tokens: times between tokens and throughput "
    "hold; the first token of a prompt that meets an empty pipeline comes up to one step later than said"
)
"""What a pipelined replica's latencies leave out."""


def simulate(
    machine: Machine,
    workload: WorkloadSpec,
    engine: EngineSpec,
    capacity: Capacity,
    program: Program,
    base: Path,
    *,
    seed: int = 0,
    progress: Callable[[Iterator[Request]], Iterable[Request]] = iter,
    record: bool = False,
) -> ServeResult:
    """Serve the load of *workload* on replicas divided as *program* is.

    Raises:
        UnsupportedError: systems that mix devices, which are not served yet.
        DoesNotFitError: no room for a cache, or more replicas than devices.
    """
    if workload.task == "training_step":
        raise UnsupportedError(
            f"{workload.name}: a training step is not served; expected task prefill, decode or generate"
        )
    if seed < 0:
        raise SpecError(f"seed {seed}", expected="a whole number, 0 or more")
    serving = workload.serving or ServingSpec()
    arrivals, block = load_requests(serving, workload, base, seed)
    deployment = Deployment(machine, workload, serving, engine, capacity, program, base, block, seed)
    side = kind_of_replica(deployment)
    if side.copies > 1 and (serving.disaggregated is not None or serving.autoscaling is not None):
        raise SpecError(
            f"{side.copies} data ranks that share nothing are replicas of their own",
            expected="a data degree of 1 where pools are divided or scaled",
        )
    decode = None if serving.disaggregated is None else decode_side(side, deployment)
    plan = FleetPlan(
        replicas=initial(serving, "prefill_replicas") * side.copies,
        pages=side.pages,
        page=int(serving.cache.page),
        block=side.block,
        routing=serving.routing,
        swap_page_s=side.swap_page_s,
        note_every_s=_span(serving) / NOTES_A_RUN,
        decode=None if decode is None else decode_pool(serving, machine, side, decode),
        failures=failure_plan(serving),
        scaling=scaling_plan(serving, side if decode is None else max(side, decode, key=lambda s: s.weight_bytes)),
        record=record,
    )
    sides = (side,) if decode is None else (side, decode)
    check_devices(serving, plan, sides)
    served = serve_requests(arrivals, side.cost, side.scheduling, plan, progress, seed)
    result = summarise(machine.name, workload, serving, plan, sides, served)
    return replace(result, notes=(*result.notes, PIPELINE_NOTE)) if side.degrees.pipeline > 1 else result


def _span(serving: ServingSpec) -> float:
    """About how long the load lasts."""
    a = serving.arrivals
    if a.process == "trace" and a.duration is None:
        return TRACE_S
    requests = DEFAULT_REQUESTS if a.requests is None and a.duration is None else a.requests
    spans = [] if a.duration is None else [float(a.duration)]
    if a.process != "trace" and requests is not None:
        spans.append(int(requests) / float(a.rate))
    return min(spans)


def load_requests(serving: ServingSpec, workload: WorkloadSpec, base: Path, seed: int) -> tuple[Iterable[Request], int]:
    """Requests, and the tokens a block name of theirs stands for (0: the cache's own)."""
    arrivals = serving.arrivals
    if arrivals.trace is None:
        drawn = random_requests(serving, int(workload.prompt), int(workload.generate), seed)
        return (_scaled(r, serving) for r in drawn), 0
    path = Path(arrivals.trace)
    if not path.is_absolute() and is_file(base / path):
        path = base / path
    found, block = read_trace(path, None if arrivals.requests is None else int(arrivals.requests))
    for request in found:
        request.arrival_s /= float(arrivals.speed)
    if arrivals.duration is not None:
        found = [r for r in found if r.arrival_s <= float(arrivals.duration)]
    return [_scaled(r, serving) for r in found], block


def _scaled(request: Request, serving: ServingSpec) -> Request:
    """The request with its tokens times the load's scales. A longer prompt shares no more than before."""
    scale = float(serving.prompt.scale)
    request.prompt = max(1, round(request.prompt * scale))
    request.blocks = request.blocks[: int(len(request.blocks) * min(1.0, scale))]
    request.output = max(1, round(request.output * float(serving.output.scale)))
    return request

"""The fleet that a plan found, as a load to serve: a view of the Serve page that gives the plan's own numbers."""

from __future__ import annotations

import json
from typing import Any

from ..devices.capacity import capacity_of
from ..devices.registry import load_machine
from ..errors import EffsimError
from ..explore.plan.configurations import Configuration
from ..explore.plan.plan import PlanResult
from ..program.workload_file import open_workload
from ..spec.workload import WorkloadSpec
from . import serve_form
from .plan_form import Asked, changes_of
from .service import MAX_CHANGES, Service


def serve_view(service: Service, asked: Asked, result: PlanResult) -> serve_form.Asked | None:
    """What serves the winner; None where it cannot be said exactly.

    It can where the files are bundled, the fleet is no larger than what its hardware file joins, and the assignments
    below make the very workload that the plan simulated (a variant, say, has assignments of its own).
    """
    winner = result.answer.winner
    shelf = service.shelf
    if winner is None or winner.replicas is None or result.plan.workload not in shelf.names("workloads"):
        return None
    c = winner.configuration
    if c.hardware not in shelf.names("hardware"):
        return None
    try:
        with service.confined():
            typed = (*result.plan.set, *changes_of(service, asked))
            fleet = c.fleet(winner.replicas).workload
            on_workload = [text for text in typed if text.startswith("workload.")]
            changes = _needed(result.plan.workload, on_workload, _choices(c, fleet), fleet)
            have = capacity_of(load_machine(c.hardware, c.on_hardware)).devices
    except EffsimError:
        return None
    if changes is None or c.used(winner.replicas) > have:
        return None
    changes = [*c.on_hardware, *changes]
    if len(changes) > MAX_CHANGES:
        return None
    return serve_form.Asked(c.hardware, result.plan.workload, tuple(changes), result.seed)


def _needed(workload: str, typed: list[str], choices: list[str], fleet: WorkloadSpec) -> list[str] | None:
    """Assignments that make *fleet* of a workload, without choices that change nothing; None where they do not."""
    wanted = _plain(fleet)

    def made(some: list[str]) -> bool:
        return _plain(open_workload(workload, [*typed, *some]).spec) == wanted

    if not made(choices):
        return None
    kept = list(choices)
    for one in choices:
        fewer = [other for other in kept if other != one]
        if made(fewer):
            kept = fewer
    return [*typed, *kept]


def _choices(c: Configuration, fleet: WorkloadSpec) -> list[str]:
    """Assignments for what the plan chose: degrees, types, scheduler, promises, and how many replicas."""
    serving = fleet.serving
    assert serving is not None
    scheduler = _given(serving.scheduler)
    out = [
        f"workload.parallelism={json.dumps(_given(c.parallelism))}",
        f"workload.precision={json.dumps(_given(fleet.precision))}",
        *([f"workload.serving.scheduler={json.dumps(scheduler)}"] if scheduler else []),
        f"workload.serving.slo.ttft={float(serving.slo.ttft)!r} s",
        f"workload.serving.slo.tpot={float(serving.slo.tpot)!r} s",
    ]
    if serving.disaggregated is None:
        return [*out, "workload.serving.disaggregated=null", f"workload.serving.replicas={int(serving.replicas)}"]
    split = json.dumps(_given(serving.disaggregated))
    return [*out, "workload.serving.replicas=null", f"workload.serving.disaggregated={split}"]


def _given(spec: Any) -> dict[str, Any]:
    """What differs from the usual."""
    given: dict[str, Any] = spec.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    return given


def _plain(spec: WorkloadSpec) -> dict[str, Any]:
    """The values, without where they come from."""
    return spec.model_dump(mode="json")

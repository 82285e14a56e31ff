"""What a user wrote about a fleet, as the simulation takes it: pools, links, failures, scaling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..devices.capacity import capacity_of
from ..devices.registry import Machine, load_machine
from ..errors import DoesNotFitError, SpecError
from ..program.place import place
from ..spec.confine import is_file
from ..spec.serving import ServingSpec
from ..spec.serving_fleet import DisaggregatedSpec
from ..spec.workload import Parallelism
from .autoscaling import ScalingPlan
from .disaggregated import DecodePool
from .failures import FailurePlan, Outage
from .fleet import FleetPlan
from .replica_kind import Deployment, ReplicaKind, kind_of_replica

MOST_REPLICAS = 10_000
"""Replicas of a fleet that is simulated."""


def initial(serving: ServingSpec, name: str) -> int:
    """Replicas of a pool at the start: those asked for, or the fewest that autoscaling keeps."""
    split, scaling = serving.disaggregated, serving.autoscaling
    owner = serving if split is None else split
    field = "replicas" if split is None else name
    if scaling is not None and field not in owner.model_fields_set:
        return int(scaling.min_replicas)
    return int(getattr(owner, field))


def decode_side(side: ReplicaKind, deployment: Deployment) -> ReplicaKind:
    """Replicas that continue what *side* of a deployment has read: the same, or with a degree or devices of their own.

    Raises:
        DoesNotFitError: the model does not fit them.
    """
    split, base = deployment.serving.disaggregated, deployment.base
    machine, workload, capacity = deployment.machine, deployment.workload, deployment.capacity
    assert split is not None
    if split.decode_hardware is None and split.decode_tensor is None:
        return side
    if split.decode_hardware is not None:
        nearby = base / split.decode_hardware
        machine = load_machine(str(nearby) if is_file(nearby) else split.decode_hardware)
        capacity = capacity_of(machine)
    changes: dict[str, object] = {"batch": type(workload.batch)(1)}
    if split.decode_tensor is not None:
        expert = deployment.program.degrees.expert > 1
        tensor = int(split.decode_tensor)
        changes["parallelism"] = Parallelism(tensor=tensor, expert=tensor if expert else 1)
    program = place(workload.model_copy(update=changes), deployment.engine, capacity, base)
    return kind_of_replica(replace(deployment, machine=machine, capacity=capacity, program=program))


def decode_pool(serving: ServingSpec, machine: Machine, side: ReplicaKind, decode: ReplicaKind) -> DecodePool:
    """The replicas that generate, and the links to them.

    A cache has as many bytes as it takes on the side that stores fewer (where more devices than key/value heads share a
    model, some of them hold copies). All devices of a replica send and receive at once.

    Raises:
        SpecError: no bandwidth is stated and none is known.
    """
    split = serving.disaggregated
    assert split is not None
    rate, latency = _link(split, serving, machine, side, decode)
    return DecodePool(
        replicas=initial(serving, "decode_replicas"),
        pages=decode.pages,
        swap_page_s=decode.swap_page_s,
        cost=decode.cost,
        scheduling=decode.scheduling,
        token_bytes=min(k.room.token_bytes * k.devices for k in (side, decode)),
        sequence_bytes=min(k.room.sequence_bytes * k.devices for k in (side, decode)),
        out_bytes_per_s=rate * side.devices,
        in_bytes_per_s=rate * decode.devices,
        latency_s=latency,
        layers=side.layers if split.overlap else 0,
        stateful=side.room.sequence_bytes > 0.0,
    )


def _link(
    split: DisaggregatedSpec, serving: ServingSpec, machine: Machine, side: ReplicaKind, decode: ReplicaKind
) -> tuple[float, float]:
    """Bytes a second of one device and seconds of one transfer: stated, or of the level that joins the pools."""
    levels = machine.network.levels
    if split.bandwidth is not None and (split.latency is not None or not levels):
        return float(split.bandwidth), float(split.latency or 0.0)
    if split.bandwidth is None and (split.decode_hardware is not None or not levels):
        raise SpecError(
            "no network joins the two pools; state the 'bandwidth' of 'serving.disaggregated'",
            expected="bytes a second of one device, for example 50 GB/s",
        )
    devices = sum(most * kind.devices for most, kind in zip(_most(serving), (side, decode), strict=True))
    inside = 1
    for level in levels:
        inside *= level.size
        if devices <= inside or level is levels[-1]:
            rate = level.bytes_per_s * level.payload if split.bandwidth is None else float(split.bandwidth)
            return rate, level.latency_s if split.latency is None else float(split.latency)
    raise AssertionError("there is a last level")


def _most(serving: ServingSpec) -> list[int]:
    """Most replicas of each pool."""
    names = ("replicas",) if serving.disaggregated is None else ("prefill_replicas", "decode_replicas")
    if serving.autoscaling is not None:
        return [int(serving.autoscaling.max_replicas)] * len(names)
    return [initial(serving, name) for name in names]


def check_devices(serving: ServingSpec, plan: FleetPlan, kinds: Sequence[ReplicaKind]) -> None:
    """Refuse more replicas than devices, and outages of replicas that there are not.

    Raises:
        DoesNotFitError: too many replicas.
        SpecError: an outage of an unknown replica.
    """
    most = [count * kind.copies for count, kind in zip(_most(serving), kinds, strict=True)]
    if sum(most) > MOST_REPLICAS:
        raise SpecError(f"{sum(most)} replicas", expected=f"at most {MOST_REPLICAS}")
    needed: dict[int, int] = {}
    for count, kind in zip(most, kinds, strict=True):
        needed[id(kind.machine)] = needed.get(id(kind.machine), 0) + count * kind.devices
    for kind in kinds:
        have, want = kind.capacity.devices, needed[id(kind.machine)]
        if have > 1 and want > have:
            ways = " and ".join(f"{n} replicas of {k.devices} devices" for n, k in zip(most, kinds, strict=True))
            raise DoesNotFitError(f"{ways} need {want}; {kind.capacity.device} joins {have}")
    last = sum(most) - 1
    for outage in plan.failures.outages if plan.failures is not None else ():
        if outage.replica > last:
            raise SpecError(f"an outage of replica {outage.replica}", expected=f"a number from 0 to {last}")


def failure_plan(serving: ServingSpec) -> FailurePlan | None:
    """How replicas fail."""
    spec = serving.failures
    if spec is None:
        return None
    return FailurePlan(
        mtbf_s=None if spec.mtbf is None else float(spec.mtbf),
        mttr_s=float(spec.mttr),
        outages=tuple(Outage(o.replica, float(o.at), float(o.lasts)) for o in spec.outages),
        detection_s=float(spec.detection),
        resume=spec.retry == "resume",
    )


def scaling_plan(serving: ServingSpec, kind: ReplicaKind) -> ScalingPlan | None:
    """How pools are scaled; a start reads all weights of a replica from storage."""
    spec = serving.autoscaling
    if spec is None:
        return None
    return ScalingPlan(
        least=int(spec.min_replicas),
        most=int(spec.max_replicas),
        signal=spec.signal,
        out_above=spec.scale_out_above,
        in_below=spec.scale_in_below,
        step=int(spec.step),
        interval_s=float(spec.interval),
        cooldown_s=float(spec.cooldown),
        start_s=float(spec.startup) + kind.weight_bytes * kind.devices / float(spec.storage_bandwidth),
    )

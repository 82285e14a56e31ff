"""Sub-batches that take turns on the device groups of a mixed system.

While one sub-batch is in its attention on one group, another is in its linear layers on the other. With ``m``
sub-batches and ``T_g`` seconds of work of one of them on group ``g``, the closed form is ``Σ T_g + (m − 1)·max T_g``:
the busiest group never waits once it has started, the others' work shows once. The event reading lets the sub-batches
contend for the groups (first come, first served) and measures.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import simpy

from ..devices.device import Device
from ..graph.graph import Node
from ..graph.operators.placement import Placed, Transfer
from ..program.program import Execution, Program
from .launch import node_launch_s

BRIDGE = "bridge"


def group_of(node: Node) -> str:
    """Resource that a node occupies: a device group, the first one (empty name), or the bridge."""
    if isinstance(node.op, Placed):
        return node.op.place
    return BRIDGE if isinstance(node.op, Transfer) else ""


def factors(program: Program, run: Execution, device: Device, mode: str, *, bound_only: bool) -> dict[str, float]:
    """How often each group's share of one sub-batch shows in the wall-clock time of all.

    ``interleave`` times for the busiest group, once for the others; in a lower bound the others can hide altogether.
    """
    if run.interleave == 1:
        return {}
    busy: dict[str, float] = {}
    for _, node, count in run.graph.walk():
        lowered = device.lower(node.op, program.fused_pointwise)
        own = lowered.seconds
        seconds = lowered.analytic_s + node_launch_s(device.launch, mode, program.host, node.op, own)
        group = group_of(node)
        busy[group] = busy.get(group, 0.0) + (lowered.roofline_s if bound_only else seconds) * count
    busiest = max(busy, key=lambda group: busy[group])
    rest = 0.0 if bound_only else 1.0
    return {group: float(run.interleave) if group == busiest else rest for group in busy}


def simulate_interleaved(
    stream: list[Any], durations: dict[str, int], mark: type, pieces: int
) -> tuple[float, dict[str, float]]:
    """Wall-clock picoseconds of *pieces* sub-batches over one execution, and the busy time of each group.

    *stream* is the execution order with marks around repeated blocks (see the event reading); copies that did not run
    count as the second one.
    """
    env = simpy.Environment()
    groups = {group_of(entry[1]): simpy.Resource(env) for entry in stream if not isinstance(entry, mark)}
    busy = dict.fromkeys(groups, 0.0)
    ends: dict[tuple[str, int], float] = {}
    counts: dict[str, int] = {}

    def sub_batch() -> Generator[simpy.Event, Any, None]:
        for entry in stream:
            if isinstance(entry, mark):
                key = (entry.name, entry.copy)  # type: ignore[attr-defined]
                ends[key] = max(ends.get(key, 0.0), float(env.now))
                counts[entry.name] = entry.count  # type: ignore[attr-defined]
                continue
            name, node, weight, _ = entry
            group = group_of(node)
            with groups[group].request() as turn:
                yield turn
                yield env.timeout(durations[name])
            busy[group] += durations[name] * weight

    for _ in range(pieces):
        env.process(sub_batch())
    env.run()
    extra = sum((counts[name] - 2) * (ends[name, 2] - ends[name, 1]) for name in counts)
    return float(env.now) + extra, busy

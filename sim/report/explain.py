"""The terms of one operator's time, as plain data: kernels, tiles, bounds, launches, parameters with their origin."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..devices.registry import Machine
from ..errors import UnknownNameError, nearest
from ..explore.sensitivity import parameters, sensitivities, shown_path
from ..graph.graph import Graph, Node
from ..intervals.kernel import SystemIntervals
from ..program.program import Execution, HostWork, Phase, Program
from ..readings.launch import node_launch_s


def explain_operator(machine: Machine, program: Program, name: str) -> dict[str, Any]:
    """Everything about one operator of the program's middle step.

    ``rows`` are its kernels with the lower bounds of each resource (``terms``), ``parameters`` the numbers its time
    answers to, strongest first, with kind and source.

    Raises:
        UnknownNameError: no such operator; names the nearest.
    """
    phase, execution, node, count = _find(program, name)
    device = machine.device
    lowered = device.lower(node.op, program.fused_pointwise)
    own = tuple(t.total_s for t in lowered.times)
    launch_s = node_launch_s(device.launch, program.launch_of(phase), program.host, node.op, own)
    alone = _only(program, phase, execution, node)
    origins = {shown_path(machine, "device", path): leaf for path, leaf in machine.spec.leaves()}
    if machine.system is not None:
        origins |= {shown_path(machine, "system", path): leaf for path, leaf in machine.system.leaves()}
    for owner, spec in machine.others:
        origins |= {shown_path(machine, owner, path): leaf for path, leaf in spec.leaves()}
    known = {shown_path(machine, owner, path) for owner, path, _ in parameters(machine)}
    relative = SystemIntervals(device).relative(node.op, node.op.kind, launch_s, program.fused_pointwise)
    low, high = relative.interval(sum(own) + launch_s)
    used = [s for s in sensitivities(alone, machine) if s.path in known]
    return {
        "schema": "effsim/explain@1",
        "hardware": machine.name,
        "workload": program.name,
        "name": name,
        "phase": phase.name,
        "operator": {"kind": node.op.kind, **_plain(node.op.dimensions())},
        "count": count,
        "flops": node.op.flops,
        "bytes": node.op.bytes_moved,
        "bytes_by_role": {str(role): size for role, size in node.op.bytes_by_role().items()},
        "time_s": sum(own) + launch_s,
        "time_low_s": low,
        "time_high_s": high,
        "interval": relative.as_dict(),
        "launch_s": launch_s,
        "roofline_s": lowered.roofline_s,
        "bound": lowered.bound,
        "rows": [
            {
                "kernel": kernel.name,
                "tiles": kernel.tiles,
                "slots": kernel.slots,
                "units": kernel.units,
                "time_s": time.total_s,
                "work_s": time.work_s,
                "latency_s": time.latency_s,
                "bound": time.bound,
                "roofline_s": kernel.roofline_s,
                "memory_bytes": kernel.memory_bytes,
                "l2_bytes": kernel.l2_bytes,
                "terms": dict(kernel.terms),
                "detail": dict(kernel.detail),
            }
            for kernel, time in zip(lowered.kernels, lowered.times, strict=True)
        ],
        "parameters": [
            {
                "path": s.path,
                "value": s.value,
                "elasticity": s.elasticity,
                "kind": origins[s.path].kind,
                "source": origins[s.path].source,
            }
            for s in used
        ],
    }


def _find(program: Program, wanted: str) -> tuple[Phase, Execution, Node, int]:
    names: dict[str, None] = {}
    for phase in reversed(program.phases):
        timed = [run for run in phase.executions if run.times > 0.0 and run.useful]
        execution = timed[len(timed) // 2]
        for name, node, count in execution.graph.walk():
            if name == wanted:
                return phase, execution, node, count
            names[name] = None
    guess = nearest(wanted, names)
    raise UnknownNameError(
        f"{program.name} has no operator {wanted!r}", expected=f"one of {', '.join(names)}", suggestion=guess
    )


def _only(program: Program, phase: Phase, execution: Execution, node: Node) -> Program:
    """The program reduced to one operator, for its own sensitivities."""
    one = replace(execution, graph=Graph(node.name, (node,)), times=1.0, stages=())
    return replace(program, phases=(replace(phase, executions=(one,)),), host=HostWork())


def _plain(dimensions: dict[str, Any]) -> dict[str, Any]:
    """Dimensions as JSON values; a nested operator becomes its own dimensions."""
    return {k: _plain(v.dimensions()) if hasattr(v, "dimensions") else v for k, v in dimensions.items()}

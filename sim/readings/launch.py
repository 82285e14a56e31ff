"""What it costs to get kernels started, by launch mode, and what the host does meanwhile."""

from __future__ import annotations

from ..devices.device import LaunchCosts, Lowered
from ..graph.operator import Launched, Operator
from ..graph.operators.communication import Collective
from ..program.program import HostWork, Phase, Program

MODES = ("graph", "stream", "eager", "isolated")


def device_gap_s(costs: LaunchCosts, mode: str) -> float:
    """Dead time on the device in front of every kernel."""
    return costs.gap_s if mode == "graph" else costs.stream_gap_s


def operator_launch_s(
    costs: LaunchCosts, mode: str, kernels: int, times: tuple[float, ...], launched: Launched = "library"
) -> float:
    """Launch time of one operator that shows, given its kernels' own *times* and its launch class.

    ``graph``, ``stream``: a gap a kernel. ``eager``: the gap only; the host is compared with the device for a whole
    step (:func:`dispatch_s`). ``isolated``: the full latency of one synchronised operator, and behind it the host's
    dispatch of every further kernel as far as the kernel before does not hide it.
    """
    if kernels == 0:
        return 0.0
    if mode != "isolated":
        return kernels * device_gap_s(costs, mode)
    later = sum(max(costs.dispatch_s - t, costs.stream_gap_s) for t in times[:-1])
    return costs.alone_s(launched) + later


def collective_start_s(costs: LaunchCosts, mode: str, host: HostWork, op: Operator) -> float:
    """Time by which a collective begins later because its ranks are started one by one; none inside a graph."""
    if mode == "graph" or not isinstance(op, Collective) or op.devices == 1:
        return 0.0
    return host.collective_start_s / costs.host_speed


def node_launch_s(costs: LaunchCosts, mode: str, host: HostWork, op: Operator, times: tuple[float, ...]) -> float:
    """Launch time of one operator of a program: of its kernels, and the start of a collective."""
    launch = operator_launch_s(costs, mode, len(times), times, op.launched)
    return launch + collective_start_s(costs, mode, host, op)


def dispatch_s(costs: LaunchCosts, mode: str, host: HostWork) -> float:
    """Host time to start one kernel; it runs ahead of the device and shows only where it is longer.

    The engine's own on the device's usual host, or, of a framework, what the device's file says.

    >>> costs = LaunchCosts(1e-6, 2e-6, 6e-6, 2e-5, host_speed=2.0)
    >>> dispatch_s(costs, "eager", HostWork()), dispatch_s(costs, "stream", HostWork(dispatch_s=4e-6))
    (6e-06, 2e-06)
    """
    if mode not in ("stream", "eager"):
        return 0.0
    if host.dispatch_s is not None:
        return host.dispatch_s / costs.host_speed
    return costs.dispatch_s if mode == "eager" else 0.0


def ahead_s(costs: LaunchCosts, mode: str, host: HostWork, kernels: float) -> float:
    """Host time of one step of *kernels* that runs ahead of the device: dispatches, and what its layers need beside."""
    if mode not in ("stream", "eager"):
        return 0.0
    return kernels * dispatch_s(costs, mode, host) + host.layers * host.per_layer_s / costs.host_speed


def between_steps_s(program: Program, phase: Phase, costs: LaunchCosts) -> float:
    """Host time of a phase that stands between its steps, on the host of these devices."""
    sequences = -(-phase.sequences // program.degrees.data)
    return program.host.between_steps_s(phase.steps, sequences, phase.prompts) / costs.host_speed


def single_launch_s(costs: LaunchCosts, mode: str, lowered: Lowered) -> float:
    """Launch time of one operator timed alone (a row of a kernel table): ``graph`` or ``eager``."""
    times = tuple(t.total_s for t in lowered.times)
    return operator_launch_s(costs, "isolated" if mode == "eager" else "graph", len(times), times, lowered.launched)

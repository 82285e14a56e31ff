"""What it costs to get kernels started, by launch mode."""

from __future__ import annotations

from ..devices.device import LaunchCosts, Lowered
from ..graph.operator import Launched

MODES = ("graph", "stream", "eager", "isolated")


def device_gap_s(costs: LaunchCosts, mode: str) -> float:
    """Dead time on the device in front of every kernel."""
    return costs.gap_s if mode == "graph" else costs.stream_gap_s


def operator_launch_s(
    costs: LaunchCosts, mode: str, kernels: int, times: tuple[float, ...], launched: Launched = "library"
) -> float:
    """Launch time of one operator that shows, given its kernels' own *times* and its launch class.

    ``graph``, ``stream``: a gap a kernel. ``eager``: the gap only; the host is compared with the device for a whole
    phase (:func:`host_s`). ``isolated``: the full latency of one synchronised operator, and behind it the host's
    dispatch of every further kernel as far as the kernel before does not hide it.
    """
    if kernels == 0:
        return 0.0
    if mode != "isolated":
        return kernels * device_gap_s(costs, mode)
    later = sum(max(costs.dispatch_s - t, costs.stream_gap_s) for t in times[:-1])
    return costs.alone_s(launched) + later


def host_s(costs: LaunchCosts, mode: str, kernels: int) -> float:
    """Host time to dispatch *kernels*; it runs ahead of the device and shows only where it is longer."""
    return kernels * costs.dispatch_s if mode == "eager" else 0.0


def single_launch_s(costs: LaunchCosts, mode: str, lowered: Lowered) -> float:
    """Launch time of one operator timed alone (a row of a kernel table): ``graph`` or ``eager``."""
    times = tuple(t.total_s for t in lowered.times)
    return operator_launch_s(costs, "isolated" if mode == "eager" else "graph", len(times), times, lowered.launched)

"""The analytic and the roofline reading of one program on many GPUs that differ in rates, operator by operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from ...devices.device import Device
from ...graph.operator import Operator
from ...program.program import Phase, Program
from ...readings.launch import ahead_s, between_steps_s, node_launch_s
from .lanes import UNTRACED, Diverged, Lanes, run

READINGS = ("analytic", "roofline")
MODES = ("graph", "stream")
"""Launch modes whose cost is a sum over operators, unless a host runs ahead of the device."""


def readable(program: Program, reading: str, device: Device) -> bool:
    """Whether this module can read a program: nothing overlaps, nobody takes turns, no host runs ahead of the device.

    A host that starts kernels one by one is compared with the device over a whole step: that is read point by point.
    """
    return (
        reading in READINGS
        and all(_alike(program, program.launch_of(phase), device) for phase in program.phases)
        and all(run.interleave == 1 and not run.stages for phase in program.phases for run in phase.executions)
        and not any(node.overlap for phase in program.phases for _, _, node, _ in phase.nodes())
    )


def _alike(program: Program, mode: str, device: Device) -> bool:
    """Whether kernels of this launch mode cost the host no time of its own."""
    return mode in MODES and ahead_s(device.launch, mode, program.host, 1.0) == 0.0


class Devices(Protocol):
    """Devices of ``count`` points; those of a part of the points as one."""

    count: int

    def device(self, part: Any) -> Device:
        """The device of the points *part* (indices)."""


class LaneReading:
    """Times of every point: ``phase_s`` by phase, ``roofline_s``, ``energy_j`` (None if unknown), ``shares`` by label.

    The sums are those of :func:`effsim.readings.analytic.analytic` and :func:`effsim.readings.energy.energy_j`.
    """

    def __init__(self, program: Program, gpus: Devices, reading: str) -> None:
        self._program, self._gpus, self._bound_only = program, gpus, reading == "roofline"
        self._priced: dict[tuple[Operator, str], Any] = {}
        self.phase_s: dict[str, Any] = {}
        self.shares: dict[str, Any] = {}
        self.roofline_s = np.zeros(gpus.count)
        self.work: tuple[Any, Any] = (0.0, 0.0)
        with np.errstate(all="ignore"):
            for phase in program.phases:
                self._read(phase)
            self.energy_j = self._energy()

    def bound(self) -> list[str]:
        """Label with the largest share, of every point."""
        labels = list(self.shares)
        return [labels[i] for i in np.argmax(np.stack([self.shares[label] for label in labels]), axis=0).tolist()]

    def _read(self, phase: Phase) -> None:
        mode = self._program.launch_of(phase)
        total = np.zeros(self._gpus.count)
        flops: Any = 0.0
        bytes_moved: Any = 0.0
        for execution, _, node, count in phase.nodes():
            if self._bound_only and not execution.useful:
                continue
            one = self._price(node.op, mode)
            if execution.useful:
                work = (execution.times if execution.work is None else execution.work) * count * execution.copies
                flops = flops + one.flops * work
                bytes_moved = bytes_moved + one.bytes_moved * work
            times = execution.times * count
            if times == 0.0:
                continue
            if execution.useful:
                self.roofline_s += one.roofline_s * times
            for label, seconds in one.shares(self._bound_only).items():
                self._share(label, seconds * times)
                total += seconds * times
        if not self._bound_only:
            host = self._host_s(phase, total)
            self._share("host", host)
            total = total + host
        self.phase_s[phase.name] = total
        self.work = (self.work[0] + flops, self.work[1] + bytes_moved)

    def _host_s(self, phase: Phase, running: Any) -> Any:
        """Host time that shows, as :func:`effsim.readings.analytic.exposed_s` says it where no host runs ahead."""
        between = between_steps_s(self._program, phase, self._gpus.device(np.arange(1)).launch)
        if self._program.host.asynchronous:
            return np.maximum(0.0, between - running)
        return np.full(self._gpus.count, between)

    def _share(self, label: str, seconds: Any) -> None:
        self.shares[label] = self.shares.get(label, 0.0) + seconds

    def _energy(self) -> Any:
        device = self._gpus.device(np.arange(1))
        idle = device.idle_power_w
        if idle is None:
            return None
        total = idle * sum(self.phase_s.values()) * self._program.devices
        for phase in self._program.phases:
            mode = self._program.launch_of(phase)
            for execution, _, node, count in phase.nodes():
                if execution.useful:
                    one = self._price(node.op, mode).energy_j
                    if one is None:
                        return None
                    work = execution.times if execution.work is None else execution.work
                    total = total + one * count * execution.copies * work
        return total

    def _price(self, op: Operator, mode: str) -> Any:
        found = self._priced.get((op, mode))
        if found is None:
            found = self._priced[op, mode] = _Priced(op, self._gpus, self._program, mode)
        return found


class _Priced:
    """One operator on every point."""

    def __init__(self, op: Operator, gpus: Devices, program: Program, mode: str) -> None:
        self._count = gpus.count
        self.flops, self.bytes_moved = op.flops, op.bytes_moved
        self.roofline_s = np.zeros(gpus.count)
        self.energy_j: Any = np.zeros(gpus.count)
        self._analytic: dict[str, Any] = {}
        self._bounds: dict[str, Any] = {}
        run(gpus.count, _lower(op, gpus, program, mode), self._keep)

    def shares(self, bound_only: bool) -> dict[str, Any]:
        """Seconds by label, launches among them."""
        return self._bounds if bound_only else self._analytic

    def _keep(self, part: Any, found: tuple[Any, ...]) -> None:
        analytic, bounds, roofline_s, energy_j = found
        for kept, labels in ((self._analytic, analytic), (self._bounds, bounds)):
            for label, seconds in labels:
                if label not in kept:
                    kept[label] = np.zeros(self._count)
                kept[label][part] += _values(seconds)
        self.roofline_s[part] = _values(roofline_s)
        if energy_j is None:
            self.energy_j = None
        elif self.energy_j is not None:
            self.energy_j[part] = _values(energy_j)


def _lower(op: Operator, gpus: Devices, program: Program, mode: str) -> Callable[[Any], tuple[Any, ...]]:
    fused = program.fused_pointwise

    def work(part: Any) -> tuple[Any, ...]:
        device: Device = gpus.device(part)
        try:
            lowered = device.lower(op, fused)
            launch = node_launch_s(device.launch, mode, program.host, op, lowered.seconds)
            energy_j = device.energy_j(op, lowered)
        except UNTRACED:
            if len(part) == 1:
                raise
            raise Diverged(np.arange(len(part))) from None  # each point by itself, on plain numbers
        return (*lowered.shares, ("launch", launch)), lowered.bounds, lowered.roofline_s, energy_j

    return work


def _values(x: Any) -> Any:
    return x.values if isinstance(x, Lanes) else x

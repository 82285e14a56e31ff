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
        self.roofline_s: Any = np.zeros(gpus.count)
        self.work: tuple[Any, Any] = (0.0, 0.0)
        with np.errstate(all="ignore"):
            self.energy_j = self._energy([self._read(phase) for phase in program.phases])

    def bound(self) -> list[str]:
        """Label with the largest share, of every point."""
        labels = list(self.shares)
        return [labels[i] for i in np.argmax(np.stack([self.shares[label] for label in labels]), axis=0).tolist()]

    def _read(self, phase: Phase) -> Any:
        """Adds a phase to the sums; returns the joules of its operators, None where they are not known."""
        mode = self._program.launch_of(phase)
        shares, sums, known = _Sums(), _Sums(), True
        for execution, _, node, count in phase.nodes():
            if self._bound_only and not execution.useful:
                continue
            one = self._price(node.op, mode)
            times = execution.times * count
            if execution.useful:
                runs = (execution.times if execution.work is None else execution.work) * count * execution.copies
                sums.add("flops", one.flops, runs)
                sums.add("bytes", one.bytes_moved, runs)
                sums.add("roofline", one.roofline_s, times)
                joules = one.energy_j
                known = known and joules is not None
                if known:
                    sums.add("joules", joules, runs)
            if times == 0.0:
                continue
            for label, seconds in one.shares(self._bound_only).items():
                shares.add(label, seconds, times)
        found = shares.together()
        total = np.zeros(self._gpus.count) + sum(found.values())
        if not self._bound_only:
            found["host"] = self._host_s(phase, total)
            total = total + found["host"]
        for label, seconds in found.items():
            self.shares[label] = self.shares.get(label, 0.0) + seconds
        self.phase_s[phase.name] = total
        done = sums.together()
        self.roofline_s = self.roofline_s + done.get("roofline", 0.0)
        self.work = (self.work[0] + done.get("flops", 0.0), self.work[1] + done.get("bytes", 0.0))
        return done.get("joules", 0.0) if known else None

    def _host_s(self, phase: Phase, running: Any) -> Any:
        """Host time that shows, as :func:`effsim.readings.analytic.exposed_s` says it where no host runs ahead."""
        between = between_steps_s(self._program, phase, self._gpus.device(np.arange(1)).launch)
        if self._program.host.asynchronous:
            return np.maximum(0.0, between - running)
        return np.full(self._gpus.count, between)

    def _energy(self, joules: list[Any]) -> Any:
        """Energy of all devices from that of the operators of each phase; None where it is not known."""
        idle = self._gpus.device(np.arange(1)).idle_power_w
        if idle is None or any(one is None for one in joules):
            return None
        return idle * sum(self.phase_s.values()) * self._program.devices + sum(joules)

    def _price(self, op: Operator, mode: str) -> Any:
        found = self._priced.get((op, mode))
        if found is None:
            found = self._priced[op, mode] = _Priced(op, self._gpus, self._program, mode)
        return found


class _Sums:
    """Sums by name. Numbers that all points share are added as plain ones, apart from those of every point."""

    def __init__(self) -> None:
        self._plain: dict[str, float] = {}
        self._arrays: dict[str, Any] = {}

    def add(self, name: str, value: Any, times: float) -> None:
        """Add *times* of a number or of an array over points."""
        kept = self._arrays if isinstance(value, np.ndarray) else self._plain
        kept[name] = kept.get(name, 0.0) + value * times

    def together(self) -> dict[str, Any]:
        """All sums, plain numbers where nothing differs."""
        return self._plain | {name: value + self._plain.get(name, 0.0) for name, value in self._arrays.items()}


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

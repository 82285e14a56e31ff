"""Readings of one decode at many lengths of its prompt: what does not depend on the length is read once."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...devices.device import Device, Lowered
from ...graph.operator import Operator
from ...program.lengths import DecodePart
from ...program.program import Program
from ...readings.launch import node_launch_s
from .lane_reading import LaneReading


class LengthReading(LaneReading):
    """As :class:`LaneReading`, of points that differ in operators rather than in the device."""

    def __init__(self, part: DecodePart, device: Device, reading: str) -> None:
        self._columns = part.columns
        super().__init__(part.program, _Same(device, len(part.places)), reading)

    def _price(self, op: Operator, mode: str) -> Any:
        found = self._priced.get((op, mode))
        if found is None:
            device, program = self._gpus.device(np.arange(1)), self._program
            ops = self._columns.get(op)
            if ops is None:
                lowered = device.lower(op, program.fused_pointwise)
                launch_s = node_launch_s(device.launch, mode, program.host, op, lowered.seconds)
                found = _Scalar(op, lowered, device, launch_s)
            else:
                found = _Column(ops, device, program, mode)
            self._priced[op, mode] = found
        return found

    def bound(self) -> list[str]:
        """Label with the largest share, of every point."""
        self.shares = {label: np.broadcast_to(seconds, (self._gpus.count,)) for label, seconds in self.shares.items()}
        return super().bound()


class _Same:
    """One device for all points."""

    def __init__(self, device: Device, count: int) -> None:
        self._device, self.count = device, count

    def device(self, part: Any) -> Device:
        return self._device


class _Scalar:
    """An operator that all points have in common."""

    def __init__(self, op: Operator, lowered: Lowered, device: Device, launch_s: float) -> None:
        self.flops, self.bytes_moved = lowered.flops, lowered.bytes_moved
        self.roofline_s = lowered.roofline_s
        self.energy_j = device.energy_j(op, lowered)
        self._analytic = {**dict(lowered.shares), "launch": launch_s}
        self._bounds = dict(lowered.bounds)

    def shares(self, bound_only: bool) -> dict[str, float]:
        return self._bounds if bound_only else self._analytic


class _Column:
    """An operator that every point has with its own length; not remembered by the device, which has no end of them."""

    def __init__(self, ops: tuple[Operator, ...], device: Device, program: Program, mode: str) -> None:
        fused, count = program.fused_pointwise, len(ops)
        self._analytic: dict[str, Any] = {}
        self._bounds: dict[str, Any] = {}
        rows, joules = [], []
        for place, op in enumerate(ops):
            lowered = Lowered.of(op, device.kernels_of(op, fused))
            launch = node_launch_s(device.launch, mode, program.host, op, lowered.seconds)
            for kept, labels in (
                (self._analytic, (*lowered.shares, ("launch", launch))),
                (self._bounds, lowered.bounds),
            ):
                for label, seconds in labels:
                    if label not in kept:
                        kept[label] = [0.0] * count
                    kept[label][place] += seconds
            rows.append((lowered.flops, lowered.bytes_moved, lowered.roofline_s))
            joules.append(device.energy_j(op, lowered))
        self._analytic = {label: np.array(seconds) for label, seconds in self._analytic.items()}
        self._bounds = {label: np.array(seconds) for label, seconds in self._bounds.items()}
        self.flops, self.bytes_moved, self.roofline_s = np.array(rows).T
        self.energy_j = None if any(one is None for one in joules) else np.array(joules)

    def shares(self, bound_only: bool) -> dict[str, Any]:
        return self._bounds if bound_only else self._analytic

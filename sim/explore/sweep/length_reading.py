"""Readings of one decode at many lengths of its prompt: what does not depend on the length is read once."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...devices.device import Device, Lowered
from ...graph.operator import Operator
from ...program.lengths import DecodePart
from ...readings.launch import node_launch_s
from .columns import Column, Columns
from .lane_reading import LaneReading

ColumnsOf = dict[tuple[Operator, str], Column]
"""Columns of a program by operator and launch mode."""


def columns_of(part: DecodePart, columns: Columns) -> ColumnsOf:
    """What the reading of *part* needs, added to *columns*."""
    modes = dict.fromkeys(part.program.launch_of(phase) for phase in part.program.phases)
    return {(op, mode): columns.add(*found, part.program, mode) for op, found in part.columns.items() for mode in modes}


class LengthReading(LaneReading):
    """As :class:`LaneReading`, of points that differ in operators rather than in the device."""

    def __init__(self, part: DecodePart, columns: ColumnsOf, device: Device, reading: str) -> None:
        self._columns = columns
        super().__init__(part.program, _Same(device, len(part.places)), reading)

    def _price(self, op: Operator, mode: str) -> Any:
        found = self._priced.get((op, mode))
        if found is None:
            device, program = self._gpus.device(np.arange(1)), self._program
            found = self._columns.get((op, mode))
            if found is None:
                lowered = device.lower(op, program.fused_pointwise)
                launch_s = node_launch_s(device.launch, mode, program.host, op, lowered.seconds)
                found = _Scalar(op, lowered, device, launch_s)
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

"""Operators that differ in whole numbers from point to point, lowered together on one device.

Points of a study that share neither a batch nor a length still run the same attention with other numbers. What they
need is collected first, then every family (equal but for these) is lowered once with :class:`~.lanes.Lanes` in their
place.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import fields, replace
from typing import Any, Final, cast

import numpy as np

from ...devices.device import Device, Lowered
from ...errors import EffsimError
from ...graph.operator import Operator
from ...program.program import Program
from ...readings.launch import node_launch_s
from .lanes import UNTRACED, Diverged, Lanes, run

BATCH: Final = "batch"
"""The field that may differ within a family beside the one that its columns name."""

Priced = tuple[Any, ...]


class Columns:
    """Operators of many programs on one *device*, by family."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._families: dict[Hashable, Family] = {}

    def add(self, varying: str, ops: Sequence[Operator], program: Program, mode: str) -> Column:
        """A column of *ops*, which differ in the field *varying*, launched as *program* launches in *mode*."""
        first: Any = ops[0]
        same = tuple([getattr(first, one.name) for one in fields(first) if one.name not in (BATCH, varying)])
        key = (type(first), varying, same, mode, program.host, program.fused_pointwise)
        family = self._families.get(key)
        if family is None:
            names = tuple([one.name for one in fields(first) if one.name in (BATCH, varying)])
            family = self._families[key] = Family(self._device, program, mode, names)
        start = len(family.ops)
        family.ops.extend(ops)
        return Column(family, slice(start, len(family.ops)))


class Family:
    """Operators that differ in the fields *names* alone; priced when first asked, with all that were added."""

    def __init__(self, device: Device, program: Program, mode: str, names: tuple[str, ...]) -> None:
        self._device, self._program, self._mode, self._names = device, program, mode, names
        self.ops: list[Operator] = []
        self._error: EffsimError | None = None
        self.sums = np.zeros((0, 4))
        """A row an operator: FLOPs, bytes, seconds of the roofline, joules (not a number: unknown)."""
        self.analytic: dict[str, Any] = {}
        self.bounds: dict[str, Any] = {}

    def price(self) -> None:
        """Lower all operators, unless that is done.

        Raises:
            EffsimError: one of them cannot run; the same for all columns.
        """
        if self._error is not None:
            raise self._error
        count = len(self.ops)
        if len(self.sums) == count:
            return
        self.sums, self.analytic, self.bounds = np.zeros((count, 4)), {}, {}
        numbers = {name: np.array([getattr(op, name) for op in self.ops], dtype=np.int64) for name in self._names}
        try:
            with np.errstate(all="ignore"):
                run(count, self._lower(numbers), self._keep)
        except EffsimError as error:
            self._error = error
            raise

    def _lower(self, numbers: dict[str, Any]) -> Callable[[Any], Priced]:
        device, program, mode = self._device, self._program, self._mode

        def work(part: Any) -> Priced:
            op = self.ops[part[0]]
            try:
                if len(part) > 1:
                    op = cast(Operator, replace(cast(Any, op), **{n: Lanes(v[part]) for n, v in numbers.items()}))
                lowered = Lowered.of(op, device.kernels_of(op, program.fused_pointwise))
                launch_s = node_launch_s(device.launch, mode, program.host, op, lowered.seconds)
                joules = device.energy_j(op, lowered)
            except UNTRACED:
                if len(part) == 1:
                    raise
                raise Diverged(np.arange(len(part))) from None  # each point by itself, on plain numbers
            sums = (lowered.flops, lowered.bytes_moved, lowered.roofline_s, np.nan if joules is None else joules)
            return (*lowered.shares, ("launch", launch_s)), lowered.bounds, sums

        return work

    def _keep(self, part: Any, found: Priced) -> None:
        analytic, bounds, sums = found
        for kept, labels in ((self.analytic, analytic), (self.bounds, bounds)):
            for label, seconds in labels:
                if label not in kept:
                    kept[label] = np.zeros(len(self.ops))
                kept[label][part] += _values(seconds)
        for place, value in enumerate(sums):
            self.sums[part, place] = _values(value)


class Column:
    """Operators of one program's points, one a point."""

    def __init__(self, family: Family, rows: slice) -> None:
        self._family, self._rows = family, rows

    def _sums(self, place: int) -> Any:
        self._family.price()
        return self._family.sums[self._rows, place]

    @property
    def flops(self) -> Any:
        """FLOPs of every point."""
        return self._sums(0)

    @property
    def bytes_moved(self) -> Any:
        """Compulsory bytes of every point."""
        return self._sums(1)

    @property
    def roofline_s(self) -> Any:
        """Lower bound of every point in seconds."""
        return self._sums(2)

    @property
    def energy_j(self) -> Any:
        """Joules of every point; None where they are not known."""
        joules = self._sums(3)
        return None if np.isnan(joules).any() else joules

    def shares(self, bound_only: bool) -> dict[str, Any]:
        """Seconds by label, launches among them."""
        self._family.price()
        found = self._family.bounds if bound_only else self._family.analytic
        return {label: seconds[self._rows] for label, seconds in found.items() if seconds[self._rows].any()}


def _values(x: Any) -> Any:
    return x.values if isinstance(x, Lanes) else x

"""Energy of what was read: operations, moved bytes and idle power, where the hardware file knows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..devices.device import Device
from ..program.program import Program
from .result import OperatorTime, Reading


@dataclass(frozen=True, slots=True)
class EnergyParts:
    """Joules of all devices over the whole run, part by part; None where a part is unknown (never 0 for unknown).

    ``idle_j`` is what is drawn whatever runs, waiting for others and for the host included; ``operators`` what each
    adds to that, by (phase, operator).
    """

    total_j: float | None
    idle_j: float | None
    operators: Mapping[tuple[str, str], float | None]

    def of(self, phase: str, row: OperatorTime) -> float | None:
        """Joules of one row of a reading.

        Rows without work on a device (the host's, rounds of a pipeline without work) add nothing to idle power, so they
        are known to be 0 as soon as that is known.
        """
        nothing = 0.0 if row.op is None and self.idle_j is not None else None
        return self.operators.get((phase, row.name), nothing)


def energy_parts(program: Program, device: Device, reading: Reading) -> EnergyParts:
    """Energy of a run and of its parts.

    ``Σ operations · energy + Σ bytes · energy`` over every operator of every device, plus idle power for the time read.
    What an operator costs is the same however its time shows: beside another pipeline stage or behind computing.
    """
    idle_w = device.idle_power_w
    idle = None if idle_w is None else idle_w * reading.time_s * program.devices
    total, operators = idle, dict[tuple[str, str], float | None]()
    for phase in program.phases:
        for run, name, node, count in phase.nodes():
            if not run.useful:
                continue
            one = device.energy_j(node.op, device.lower(node.op, program.fused_pointwise))
            key = (phase.name, name)
            if one is None:
                total = operators[key] = None
                continue
            joules = one * count * run.copies * (run.times if run.work is None else run.work)
            so_far = operators.get(key, 0.0)
            operators[key] = None if so_far is None else so_far + joules
            total = None if total is None else total + joules
    return EnergyParts(total, idle, operators)


def energy_j(program: Program, device: Device, reading: Reading) -> float | None:
    """Joules of all devices over the whole run; None if any part of it is unknown (never 0 for unknown)."""
    return None if device.idle_power_w is None else energy_parts(program, device, reading).total_j

"""Energy of what was read: operations, moved bytes and idle power, where the hardware file knows them."""

from __future__ import annotations

from ..devices.device import Device
from ..program.program import Program
from .result import Reading


def energy_j(program: Program, device: Device, reading: Reading) -> float | None:
    """Joules of all devices over the whole run; None if any part of it is unknown (never 0 for unknown).

    ``Σ operations · energy + Σ bytes · energy`` over every operator of every device, plus idle power for the time read.
    """
    idle = device.idle_power_w
    if idle is None:
        return None
    total = idle * reading.time_s * program.devices
    for phase in program.phases:
        for run, _, node, count in phase.nodes():
            if not run.useful:
                continue
            one = device.energy_j(node.op, device.lower(node.op, program.fused_pointwise))
            if one is None:
                return None
            total += one * count * run.copies * (run.times if run.work is None else run.work)
    return total

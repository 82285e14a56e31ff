"""Energy of DRAM from data-sheet currents."""

from __future__ import annotations

from .preset import Preset


def energy_j(
    part: Preset, reads: float, writes: float, activations: float, refreshes: float, time_s: float, open_s: float
) -> float | None:
    """Energy of all channels, J; None where nothing is known.

    With currents, per chip: an activation costs VDD·(IDD0·tRC − IDD3N·tRAS − IDD2N·tRP), a burst VDD·(IDD4 −
    IDD3N)·tBL, a refresh VDD·(IDD5B − IDD3N)·tRFC, and at all times VDD·IDD3N flows while the rank has an open row,
    VDD·IDD2N otherwise (Micron TN-40-07). No interface energy. Otherwise bytes times the energy of one.

    *open_s* is the time with an open row, added over ranks.
    """
    spec = part.spec
    if spec.energy.idd is None:
        if spec.energy.access is None:
            return None
        return (reads + writes) * part.access_bytes * float(spec.energy.access)
    idd, t, clock_s = spec.energy.idd, spec.timing, part.clock_s
    ranks = part.buses * int(spec.organization.ranks)
    vdd, idle, active = float(idd.vdd), float(idd.idd2n), float(idd.idd3n)
    act = float(idd.idd0) * (t.ras + t.rp) - active * t.ras - idle * t.rp
    charge = clock_s * (
        activations * act
        + reads * (float(idd.idd4r) - active) * t.burst
        + writes * (float(idd.idd4w) - active) * t.burst
        + refreshes * (float(idd.idd5b) - active) * t.rfc
    )
    charge += active * open_s + idle * max(0.0, ranks * time_s - open_s)
    return vdd * charge * int(spec.organization.devices)

"""The columns of a point: the same arithmetic for one point (floats) and for many (arrays)."""

from __future__ import annotations

from typing import Any

from ...devices.registry import Machine
from ...program.program import Program
from ...spec.study import METRICS, TEXTS

COLUMNS = ("status", "message", "feasible", *METRICS, *TEXTS)
"""What every row has besides its index and its parameters; None where unknown."""


def failed(status: str, message: str) -> dict[str, Any]:
    """The row of a point that has no numbers."""
    row = dict.fromkeys(COLUMNS) | {"status": status, "message": message, "feasible": False}
    return row | ({"memory_fits": False} if status == "does_not_fit" else {})


def measured(
    machine: Machine,
    program: Program,
    phase_s: dict[str, Any],
    roofline_s: Any,
    work: tuple[Any, Any],
    energy_j: Any,
    replicas: int,
) -> dict[str, Any]:
    """Columns of points that run; ``bound`` and ``feasible`` are left to the caller.

    Args:
        machine: where it runs.
        program: what runs.
        phase_s: seconds of each phase, floats or arrays over points.
        roofline_s: lower bound of the whole.
        work: FLOPs and bytes of all devices, floats or arrays over points.
        energy_j: joules of all devices, None if unknown.
        replicas: copies, each with its own batch: times are of one, rates, work, energy and cost of all.

    ``tokens_per_s`` is that of the last phase in that phase's time, as ``effsim run`` reports it: generated tokens of a
    decode, prompt tokens of a prefill, trained tokens of a training step.
    """
    last = program.phases[-1]
    total: Any = sum(phase_s.values())
    devices = program.devices * replicas
    price, limit = machine.price_usd_per_hour, machine.device.power_limit_w
    device_s = total * program.devices  # the order of the run command, so that sums round alike
    cost = None if price is None else price * device_s / 3600.0 * replicas
    rate = last.tokens / phase_s[last.name] * replicas
    return dict.fromkeys(COLUMNS) | {
        "status": "ok",
        "message": "",
        "time_s": total,
        "roofline_s": roofline_s,
        "prefill_s": phase_s.get("prefill"),
        "time_per_token_s": phase_s["decode"] / last.steps if "decode" in phase_s else None,
        "tokens_per_s": rate,
        "tokens_per_s_per_device": rate / devices,
        "devices": devices,
        "memory_fits": program.memory.fits,
        "memory_used_bytes": program.memory.used_bytes,
        "memory_capacity_bytes": program.memory.capacity_bytes,
        "flops": work[0] * replicas,
        "bytes_moved": work[1] * replicas,
        "energy_j": None if energy_j is None else energy_j * replicas,
        "energy_limit_j": None if limit is None else limit * device_s * replicas,
        "cost_usd": cost,
        "usd_per_hour": None if price is None else price * devices,
        "usd_per_million_tokens": None if cost is None else cost / (last.tokens * replicas) * 1e6,
    }

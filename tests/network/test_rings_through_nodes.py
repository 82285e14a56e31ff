"""The library's rings over several nodes: the narrowest level sets the pace, every member's adapter is used."""

from __future__ import annotations

import pytest

from effsim.devices.registry import load_machine
from effsim.graph.operators.communication import Collective
from effsim.network.collectives import bound_s


@pytest.mark.parametrize("op", ["all_gather", "reduce_scatter", "all_reduce"])
@pytest.mark.parametrize("devices", [16, 128, 512])
def test_large_messages_run_at_the_narrowest_level(op: str, devices: int) -> None:
    machine, size = load_machine("system_h100_512"), 8e9
    seconds = machine.device.lower(Collective(op, size, devices, runtime="nccl")).analytic_s
    turns = 2 if op == "all_reduce" else 1
    rate = min(450e9 * 0.82, 8 * 50e9 * 0.96)  # NVLink payload; eight adapters of a node
    assert seconds == pytest.approx(turns * (devices - 1) / devices * size / rate, rel=0.12)
    assert seconds >= bound_s(machine.network, op, size, devices)


def test_more_ranks_take_longer() -> None:
    device = load_machine("system_h100_512").device
    times = [device.lower(Collective("all_gather", 4e8, n, runtime="nccl")).analytic_s for n in (16, 64, 512)]
    assert times == sorted(times)


def test_the_payload_of_a_network_counts() -> None:
    """On 16 GPUs a large message runs at eight adapters' payload, or at the links' where those are narrower."""
    op = Collective("all_gather", 64e9, 16, runtime="nccl")
    stated, headers = (
        load_machine("system_h100_512", [f"hardware.topology.1.payload={p}"]).device.lower(op).analytic_s
        for p in ("0.5", "1.0")
    )
    assert stated / headers == pytest.approx(min(370e9, 400e9 * 4096 / 4162) / 200e9, rel=0.1)

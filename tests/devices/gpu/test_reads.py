"""A number that an operator is said not to read changes nothing about its kernels."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import operators

from effsim._api import plan_on
from effsim.devices.device import Device
from effsim.devices.gpu.device import GpuDevice
from effsim.devices.gpu.reads import anybody_reads, reads
from effsim.devices.registry import Machine, build_device, load_machine
from effsim.errors import EffsimError
from effsim.explore.sensitivity import STRUCTURAL, sensitivities, with_value
from effsim.graph.operator import Operator
from effsim.graph.operators.attention import Attention, AttentionBackward, KVAppend
from effsim.graph.operators.communication import Collective, HostTransfer
from effsim.graph.operators.linear import Linear
from effsim.graph.operators.moe import TopK
from effsim.program.workload_file import load_workload

GPUS = ("gpu_a100", "gpu_h100", "gpu_b200")
CAUSAL = Attention("context", 2, 512, 512, 32, 8, 128, dtype="bf16")
NAMED = (
    Linear(m=64, n=4096, k=4096, dtype="fp8", activation_dtype="fp16"),
    Linear(m=64, n=4096, k=4096, dtype="bf16", weight_dtype="int4", group_size=128),
    CAUSAL,
    AttentionBackward(CAUSAL),
    KVAppend(4, 1024, "fp16"),
    TopK(256, 64, 4),
    Collective("all_reduce", 1 << 20, 8),
    HostTransfer(1 << 20),
)


@cache
def varied(name: str) -> tuple[Device, tuple[tuple[str, Device], ...]]:
    """A GPU, and as many as its file has numbers: each with one of them changed a lot."""
    machine = load_machine(name)
    out = []
    for path, leaf in machine.spec.leaves():
        if STRUCTURAL.search(path) or float(leaf) == 0.0:
            continue
        try:
            out.append((path, build_device(with_value(machine.spec, path, float(leaf) * 1.7), machine.network)))
        except EffsimError:
            continue
    return machine.device, tuple(out)


def unread_change_nothing(name: str, op: Operator) -> int:
    """Check all numbers that *op* does not read; returns how many those were."""
    device, others = varied(name)
    try:
        own = device.kernels_of(op, True)
    except EffsimError:
        return 0
    unread = [(path, other) for path, other in others if not reads(path, op)]
    for path, other in unread:
        assert other.kernels_of(op, True) == own, path
    return len(unread)


@given(operators(), st.sampled_from(GPUS))
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_is_not_read_changes_nothing(op: Operator, name: str) -> None:
    unread_change_nothing(name, op)


@pytest.mark.parametrize("op", NAMED, ids=lambda op: op.kind)
def test_named_operators_read_what_they_are_said_to(op: Operator) -> None:
    assert max(unread_change_nothing(name, op) for name in ("gpu_a100", "gpu_h100")) > 0


def test_a_program_without_collectives_does_not_depend_on_links() -> None:
    product, exchange = Linear(m=1, n=64, k=64, dtype="fp16"), Collective("all_reduce", 1024, 2)
    assert not anybody_reads("links.nvlink.bandwidth", [product])
    assert anybody_reads("links.nvlink.bandwidth", [product, exchange])
    assert anybody_reads("launch.stream", [product])  # around kernels, though in none


@pytest.mark.parametrize(
    ("hardware", "workload"),
    [("gpu_a100", "llama70b_decode"), ("gpu_h100", "gpt2_training"), ("system_dgx_h100", "mixtral_8x7b_decode")],
)
def test_elasticities_are_those_of_devices_that_inherit_nothing(
    hardware: str, workload: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(machine: Machine) -> object:
        return sensitivities(plan_on(machine, *load_workload(workload)), machine)

    quick = found(load_machine(hardware))
    monkeypatch.setattr(GpuDevice, "depends_on", lambda *_: True)
    monkeypatch.setattr(GpuDevice, "inherit", lambda *_: 0)
    assert quick == found(load_machine(hardware))

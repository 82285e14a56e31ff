"""``--set path=value``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from effsim.errors import SpecError
from effsim.spec.build import build
from effsim.spec.hardware import GpuSpec
from effsim.spec.overrides import apply
from effsim.spec.yaml_loader import Document

Edited = Callable[..., Document]


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("hardware.memory.bandwidth=4TB/s", ("memory", "bandwidth"), "4TB/s"),
        ("hardware.name = a: b # c", ("name",), "a: b # c"),
        ("hardware.released=1e3", ("released",), 1000.0),
        ("hardware.l2.unified=true", ("l2", "unified"), True),
        ("hardware.kernels.gemm.split_k=[1, 0x10]", ("kernels", "gemm", "split_k"), [1, 16]),
        ("hardware.kernels.gemm.tiles.1.m=32", ("kernels", "gemm", "tiles", 1, "m"), 32),
        ("hardware.energy.matrix={fp8: 1 pJ/FLOP}", ("energy", "matrix"), {"fp8": "1 pJ/FLOP"}),
        ("hardware.energy.l2=1 pJ/B", ("energy", "l2"), "1 pJ/B"),
        ("hardware.links.c2c.kind=c2c", ("links", "c2c"), {"kind": "c2c"}),
        ("hardware.name='null'", ("name",), "null"),
        ("hardware.name=x=y", ("name",), "x=y"),
        ("hardware.memory.bandwidth.value=4TB/s", ("memory", "bandwidth"), "4TB/s"),
        ("hardware.memory.capacity.source=a hunch", ("memory", "capacity"), {"value": "80 GB", "source": "a hunch"}),
    ],
)
def test_sets(edited: Edited, assignment: str, path: tuple[str | int, ...], value: Any) -> None:
    before = edited()
    after = apply(before, [assignment], "hardware")
    node = after.node(path)
    assert node is not None
    assert node.data == value
    assert type(node.data) is type(value)
    assert before.data == edited().data  # the document itself is never changed


def test_the_last_assignment_wins_and_others_are_left_alone(edited: Edited) -> None:
    document = apply(edited(), ["hardware.name=a", "workload.batch=8", "hardware.name=b"], "hardware")
    assert document.data["name"] == "b"
    assert "batch" not in document.data
    same = edited()
    assert apply(same, ["workload.batch=8"], "hardware") is same


def test_null_removes(edited: Edited) -> None:
    spec = build(
        GpuSpec, apply(edited(), ["hardware.memory.channels=null", "hardware.price=~"], "hardware"), root="hardware"
    )
    assert (spec.memory.channels, spec.price.hourly) == (None, None)


def test_what_is_set_is_assumed(edited: Edited) -> None:
    document = apply(
        edited(),
        [
            "hardware.memory.bandwidth=4TB/s",
            "hardware.l2.bandwidth={value: 9 TB/s, kind: fitted}",
            "hardware.memory.latency.source=a hunch",
        ],
        "hardware",
    )
    leaves = {path: (leaf, leaf.kind, leaf.source) for path, leaf in build(GpuSpec, document, root="hardware").leaves()}
    assert leaves["memory.bandwidth"] == (4e12, "assumed", "set on the command line")
    assert leaves["l2.bandwidth"] == (9e12, "fitted", "set on the command line")
    assert leaves["memory.latency"] == (500e-9, "datasheet", "a hunch")
    assert leaves["l2.capacity"] == (40 * 2**20, "datasheet", "a data sheet")


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("hardware.memroy.bandwidth=4TB/s", "hardware.memroy: no such field; did you mean 'hardware.memory'?"),
        ("hardware.memory.bandwith=4TB/s",
         "hardware.memory.bandwith: no such field; did you mean 'hardware.memory.bandwidth'?"),
        ("hardware.clock.zzz=4", "hardware.clock.zzz: no such field; expected 'base', 'boost' or 'sustained'"),
        ("hardware.memory.bandwidth=4TB",
         "hardware.memory.bandwidth: '4TB' is an amount of data; expected a bandwidth such as '2.039 TB/s'"),
        ("hardware.memory.bandwidth=.nan", "hardware.memory.bandwidth: .nan is not a finite number"),
        ("hardware.kernels.gemm.tiles.2.m=1",
         "hardware.kernels.gemm.tiles.2: '2' is no item of a list of 2; expected a number from 0 to 1"),
        ("hardware.kernels.gemm.tiles.m=1",
         "hardware.kernels.gemm.tiles.m: 'm' is no item of a list of 2; expected a number from 0 to 1"),
        ("hardware.name.first=x", "hardware.name.first: hardware.name is a plain value; expected a path to a field"),
        ("hardware=x", "hardware: the whole document cannot be set; expected hardware.field=…"),
        ("hardwre.name=x", "hardwre.name: unknown first part 'hardwre'; expected a path that starts with hardware. or "
         "workload.; did you mean 'hardware.name'?"),
        ("hardware.name",
         "'hardware.name' is not an assignment; expected path=value, such as hardware.memory.bandwidth=4TB/s"),
        ("hardware..name=x",
         "'hardware..name' is not a path; expected path=value, such as hardware.memory.bandwidth=4TB/s"),
        ("hardware.memory.kind=hbm5", "hardware.memory.kind: unknown value 'hbm5'; expected 'hbm2', 'hbm2e', 'hbm3', "
         "'hbm3e', 'hbm4', 'gddr5', 'gddr6', 'gddr6x', 'gddr7', 'lpddr5' or 'ideal'; did you mean 'hbm4'?"),
    ],
)  # fmt: skip
def test_messages(edited: Edited, assignment: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        build(GpuSpec, apply(edited(), [assignment], "hardware"), root="hardware")
    assert str(caught.value) == f"command line: {message}"


@pytest.mark.parametrize(
    "assignment",
    ["hardware.name=[1", "hardware.name={a: !!str x}", "hardware.name='a' b", "hardware." + "a." * 80 + "a=1", "=", ""],
)
def test_values_that_are_refused(edited: Edited, assignment: str) -> None:
    with pytest.raises(SpecError, match=r"^command line: "):
        apply(edited(), [assignment], "hardware")

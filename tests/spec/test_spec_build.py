"""Errors that point at the line, and an origin for every number."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import Field, model_validator

from effsim.errors import SpecError
from effsim.spec.build import build, build_by_kind
from effsim.spec.fields import Count, SpecModel, Time
from effsim.spec.hardware import GpuSpec
from effsim.spec.system import SystemSpec
from effsim.spec.yaml_loader import Document, load_yaml, load_yaml_text

Edited = Callable[..., Document]

ERRORS = [
    # what replaces what, and the whole message
    ("bandwidth: {value: 2 TB/s,", "bandwith: {value: 2 TB/s,",
     "gpu.yaml:25:3: hardware.memory.bandwith: unknown key 'bandwith'; did you mean 'bandwidth'?"),
    ("clock: {base: 1 GHz", "clock: {zzz: 1, base: 1 GHz",
     "gpu.yaml:9:9: hardware.clock.zzz: unknown key 'zzz'; expected 'base', 'boost' or 'sustained'"),
    ("  latency: 500 ns\n", "",
     "gpu.yaml:23:3: hardware.memory: missing 'latency'; expected a time such as '14 ns' "
     "(load-to-use latency of one SM, idle memory)"),
    ("special: 16 OP/clk\n", "",
     "gpu.yaml:2:1: hardware: missing 'special'; expected an operation rate per clock such as '16 OP/cycle' "
     "(exponentials, reciprocals, … of one SM per clock)"),
    ("power: {limit: 400 W, idle: 50 W}\n", "",
     "gpu.yaml:2:1: hardware: missing 'power'; expected a mapping with limit, idle, active, held, brief (electrical limits)"),
    ("kind: hbm3", "kind: hbm5",
     "gpu.yaml:23:9: hardware.memory.kind: unknown value 'hbm5'; expected 'hbm2', 'hbm2e', 'hbm3', 'hbm3e', 'hbm4', "
     "'gddr5', 'gddr6', 'gddr6x', 'gddr7', 'lpddr5' or 'ideal'; did you mean 'hbm4'?"),
    ("  fp16: 1024 FLOP/cycle", "  fp61: 1024 FLOP/cycle",
     "gpu.yaml:18:3: hardware.matrix.fp61: unknown key 'fp61'; expected 'fp64', 'fp32', 'tf32', 'fp16', 'bf16', 'fp8', "
     "'fp6', 'fp4', 'int32', 'int16', 'int8', 'int4', 'int2' or 'int1'; did you mean 'fp6'?"),
    ("capacity: 80 GB", "capacity: 80 gb",
     "gpu.yaml:24:13: hardware.memory.capacity: '80 gb': 'gb' is ambiguous; GB (bytes) or Gb (bits)?; "
     "expected an amount of data such as '80 GiB'"),
    ("{value: 2 TB/s, kind: measured", "{value: 2 TB, kind: measured",
     "gpu.yaml:25:22: hardware.memory.bandwidth.value: '2 TB' is an amount of data; "
     "expected a bandwidth such as '2.039 TB/s'"),
    ("{value: 2 TB/s, kind: measured", "{value: 2 TB/s, kind: measurd",
     "gpu.yaml:25:36: hardware.memory.bandwidth.kind: unknown kind 'measurd'; "
     "expected one of datasheet, measured, fitted, assumed, unverified; did you mean 'measured'?"),
    ("{value: 2 TB/s, kind: measured", "{vaule: 2 TB/s, kind: measured",
     "gpu.yaml:25:15: hardware.memory.bandwidth.vaule: unknown key 'vaule'; expected one of value, kind, source; "
     "did you mean 'value'?"),
    ("{m: 64, n: 64,", "{m: 64.5, n: 64,",
     "gpu.yaml:44:13: hardware.kernels.gemm.tiles.1.m: 64.5 is not a whole number; expected a whole number, 1 or more"),
    ("split_k: [1, 2, 4]", "split_k: []",
     "gpu.yaml:45:14: hardware.kernels.gemm.split_k: the list is empty; expected at least 1 item"),
    ("split_k: [1, 2, 4]", "split_k: 4",
     "gpu.yaml:45:14: hardware.kernels.gemm.split_k: 4 is not a list; expected a list (pieces into which the k loop may be cut; contains 1)"),
    ("name: Test GPU", "name: ''", "gpu.yaml:3:7: hardware.name: the text is empty"),
    ("name: Test GPU", "name: 5", "gpu.yaml:3:7: hardware.name: 5 is not text; expected text (name in reports)"),
    ("released: 2024", "released: soon", "gpu.yaml:7:11: hardware.released: 'soon' is not a whole number; expected a whole number (year)"),
    ("overlap_softmax: false", "overlap_softmax: no",
     "gpu.yaml:47:81: hardware.kernels.attention.overlap_softmax: 'no' is not true or false; expected true or false "
     "(exponentials of one tile run under the matrix unit's work on another)"),
    ("clock: {base: 1 GHz, boost: 1.5 GHz, sustained: 1.25 GHz}", "clock: 1 GHz",
     "gpu.yaml:9:8: hardware.clock: '1 GHz' is not a mapping; expected a mapping with base, boost, sustained (clock frequencies)"),
    ("clock: {base: 1 GHz, boost: 1.5 GHz, sustained: 1.25 GHz}", "clock:",
     "gpu.yaml:9:7: hardware.clock: null is not a mapping; expected a mapping with base, boost, sustained (clock frequencies)"),
    ("reserved: 1 GiB", "reserved: 1 TB",
     "gpu.yaml:2:1: hardware: 'memory.reserved' leaves nothing of 'memory.capacity'"),
    ("kind: gpu", "kind: gpuu",
     "gpu.yaml:2:7: hardware.kind: unknown kind 'gpuu'; expected 'gpu' or 'system'; did you mean 'gpu'?"),
    ("kind: gpu\n", "", "gpu.yaml:2:1: hardware: missing 'kind'; expected 'gpu' or 'system'"),
    ("kind: gpu", "kind: [gpu]", "gpu.yaml:2:7: hardware.kind: unknown kind a list; expected 'gpu' or 'system'"),
    ("{kind: datasheet, source", "{kind: datashet, source",
     "gpu.yaml:8:20: hardware.provenance.kind: unknown value 'datashet'; "
     "expected 'datasheet', 'measured', 'fitted', 'assumed' or 'unverified'; did you mean 'datasheet'?"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), ERRORS)
def test_messages(edited: Edited, read: Callable[[Document], SpecModel], old: str, new: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        read(edited(old, new))
    assert str(caught.value) == message


def test_the_first_error_of_the_file_is_told(edited: Edited, read: Callable[[Document], SpecModel]) -> None:
    text = "special: 16 OP/clk"
    document = edited(text, "special: 16 GB")
    document = load_yaml_text(_text(document).replace("idle: 50 W", "idle: 50 V"), "gpu.yaml")
    with pytest.raises(SpecError, match=r"hardware\.special"):
        read(document)
    with pytest.raises(SpecError, match=r"hardware\.clock\.boost"):
        read(load_yaml_text(_text(document).replace("boost: 1.5 GHz", "boost: 1.5 B"), "gpu.yaml"))


def _text(document: Document) -> str:
    return yaml.safe_dump(document.data, sort_keys=False)


def test_a_good_file(edited: Edited) -> None:
    spec = build(GpuSpec, edited(), root="hardware")
    assert (spec.memory.bandwidth, spec.memory.capacity, spec.matrix["bf16"]) == (2e12, 80e9, 1024.0)
    assert spec.links["pcie"].max_devices == 1
    assert (spec.energy.l2, spec.price.hourly) == (None, 2.0)


def test_every_number_has_an_origin(edited: Edited) -> None:
    leaves = dict(build(GpuSpec, edited(), root="hardware").leaves())
    assert all(leaf.kind and leaf.source for leaf in leaves.values())
    origins = {
        path: (leaves[path].kind, leaves[path].source)
        for path in ("memory.bandwidth", "memory.capacity", "kernels.gemm.tiles.1.m", "links.pcie.max_devices")
    }
    assert origins == {
        "memory.bandwidth": ("measured", "a bench"),
        "memory.capacity": ("datasheet", "a data sheet"),
        "kernels.gemm.tiles.1.m": ("datasheet", "a data sheet"),
        "links.pcie.max_devices": ("assumed", "default value, not given in gpu.yaml"),
    }


def test_without_provenance_a_number_is_assumed(data: Path) -> None:
    leaves = dict(build(SystemSpec, load_yaml(data / "system.yaml"), root="hardware").leaves())
    origin = {path: (leaf.kind, leaf.source) for path, leaf in leaves.items()}
    assert origin["devices.0.count"] == ("assumed", "no source given in system.yaml")
    assert origin["devices.1.count"] == ("assumed", "a guess")


def test_a_system_that_does_not_add_up(data: Path) -> None:
    text = (data / "system.yaml").read_text(encoding="utf-8").replace("size: 2", "size: 3")
    with pytest.raises(SpecError) as caught:
        build(SystemSpec, load_yaml_text(text, "s.yaml"), root="hardware")
    expected = "s.yaml:1:1: hardware: the topology joins 4 × 3 = 12 devices but 'devices' lists 8"
    assert str(caught.value) == expected


class Ring(SpecModel):
    kind: Literal["ring"]
    hops: Count


class Tree(SpecModel):
    kind: Literal["tree"]
    depth: Count
    latency: Time

    @model_validator(mode="after")
    def _shallow(self) -> Tree:
        if self.depth > 9:
            raise ValueError("too deep")
        return self


class Net(SpecModel):
    shape: Annotated[Ring | Tree, Field(discriminator="kind")]
    spare: list[Ring | Tree] = Field(default_factory=list)

    @model_validator(mode="after")
    def _refuse(self) -> Net:
        if len(self.spare) > 1:
            raise SpecError("too many spares", expected="one")
        return self


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shape: {kind: tree, depth: 2, latncy: 3 ns}",
         "f:1:31: shape.latncy: unknown key 'latncy'; did you mean 'latency'?"),
        ("shape: {kind: tree, depth: 2}", "f:1:8: shape: missing 'latency'; expected a time such as '14 ns'"),
        ("shape: {kind: tree, depth: 10, latency: 1 s}", "f:1:8: shape: too deep"),
        ("shape: {kind: ring, hops: 1}\nspare: [{kind: ring, hops: x}]",
         "f:2:28: spare.0.hops: 'x' does not start with a number; expected a whole number, 1 or more"),
        ("shape: {kind: ring, hops: 1}\nspare: [{kind: ring, hops: 1}, {kind: ring, hops: 1}]",
         "f:1:1: too many spares; expected one"),
    ],
)  # fmt: skip
def test_unions_and_validators(text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        build(Net, load_yaml_text(text, "f"), root="")
    assert str(caught.value) == message


def test_a_union_without_its_kind() -> None:
    with pytest.raises(SpecError, match=r"^f:1:8: shape: .*kind"):
        build(Net, load_yaml_text("shape: {hops: 1}", "f"), root="")
    with pytest.raises(SpecError, match=r"^f:1:8: shape: .*'ring', 'tree'"):
        build(Net, load_yaml_text("shape: {kind: star, hops: 1}", "f"), root="")


def test_kinds_build_their_model(data: Path) -> None:
    models: dict[str, Any] = {"gpu": GpuSpec, "system": SystemSpec}
    assert isinstance(build_by_kind(models, load_yaml(data / "system.yaml"), root="hardware"), SystemSpec)


def test_the_catalogue_and_the_errors_do_not_need_pydantic() -> None:
    code = (
        "import sys, effsim.spec, effsim.units; from effsim.spec import catalogue, overrides, yaml_loader; "
        "catalogue.names('hardware'); print('pydantic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"

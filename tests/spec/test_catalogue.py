"""Finding files, and laying one over another."""

from __future__ import annotations

from pathlib import Path

import pytest

from effsim.errors import EffsimError, SpecError, UnknownNameError
from effsim.spec import catalogue
from effsim.spec.build import build
from effsim.spec.hardware import GpuSpec


@pytest.mark.parametrize("section", catalogue.SECTIONS)
def test_every_bundled_file_can_be_read(section: str) -> None:
    names = catalogue.names(section)
    assert names == sorted(names)
    for name in names:
        assert catalogue.find(section, name) == catalogue.find(section, f"{name}.yaml")
        assert catalogue.load_document(section, name).data


def test_hardware_has_devices_and_hides_generations() -> None:
    names = catalogue.names("hardware")
    assert "gpu_a100" in names
    assert not set(names) & set(catalogue.names("generations"))


def test_a_path_wins_over_a_bundled_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpu_a100").mkdir()
    assert catalogue.find("hardware", "gpu_a100") != Path("gpu_a100")  # a folder is no file
    (tmp_path / "gpu_h100").write_text("kind: gpu")
    assert catalogue.find("hardware", "gpu_h100") == Path("gpu_h100")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "gpu_a1000",
            "no file 'gpu_a1000' and no bundled hardware of that name; "
            "expected a path or a name from 'effsim list hardware'; did you mean 'gpu_a100'?",
        ),
        ("./nowhere.yaml", "no such file './nowhere.yaml'; expected a path or a name from 'effsim list hardware'"),
        ("", "no such file ''; expected a path or a name from 'effsim list hardware'"),
        ("a\0b", "no file 'a\\x00b' and no bundled hardware of that name; "
         "expected a path or a name from 'effsim list hardware'"),
    ],
)  # fmt: skip
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        catalogue.find("hardware", name)
    assert str(caught.value) == message


def test_unknown_section() -> None:
    with pytest.raises(UnknownNameError, match=r"no catalogue section 'hardwar'; .*did you mean 'hardware'\?"):
        catalogue.names("hardwar")


def test_a_child_changes_adds_and_removes(data: Path) -> None:
    document = catalogue.load_document("hardware", str(data / "child.yaml"))
    assert "extends" not in document.data
    spec = build(GpuSpec, document, root="hardware")
    assert (spec.name, spec.memory.capacity, spec.memory.channels) == ("Test GPU, more memory", 160e9, None)
    assert (spec.memory.latency, set(spec.links)) == (500e-9, {"pcie"})
    assert spec.matrix == {"fp16": 2048, "bf16": 1024, "fp8": 4096}
    leaves = {path: (leaf.kind, leaf.source) for path, leaf in spec.leaves()}
    assert leaves["memory.capacity"] == ("unverified", "a rumour")
    assert leaves["memory.bandwidth"] == ("unverified", "a rumour")  # not the bench of the file it extends
    assert leaves["energy.matrix.fp16"] == ("unverified", "a rumour")
    assert leaves["energy.memory"] == ("datasheet", "a data sheet")
    assert leaves["matrix.bf16"] == ("datasheet", "a data sheet")


def test_a_quantity_with_an_origin_is_not_merged(tmp_path: Path, data: Path) -> None:
    path = tmp_path / "g.yaml"
    path.write_text(f"extends: {data / 'gpu.yaml'}\nmemory: {{bandwidth: {{value: 3 TB/s}}}}\n")
    leaf = dict(build(GpuSpec, catalogue.load_document("hardware", str(path)), root="hardware").leaves())[
        "memory.bandwidth"
    ]
    assert (leaf, leaf.kind, leaf.source) == (3e12, "assumed", "no source given in g.yaml")


def test_errors_point_at_the_file_that_wrote_the_value(tmp_path: Path, data: Path) -> None:
    parent = tmp_path / "parent.yaml"
    parent.write_text((data / "gpu.yaml").read_text(encoding="utf-8").replace("special: 16 OP/clk", "special: 16 GB"))
    child = tmp_path / "child.yaml"
    child.write_text("extends: parent\nname: x\n")
    with pytest.raises(UnknownNameError, match=r"child\.yaml:1:10: extends: no file 'parent' beside this one"):
        catalogue.load_document("hardware", str(child))
    child.write_text("extends: parent.yaml\nname: x\n")
    with pytest.raises(SpecError, match=r"parent\.yaml:21:10: hardware\.special: '16 GB' is an amount of data"):
        build(GpuSpec, catalogue.load_document("hardware", str(child)), root="hardware")
    child.write_text("extends: parent.yaml\nname: x\nspecial: 16 OP/clk\nmemory: {latency: null}\n")
    with pytest.raises(SpecError, match=r"child\.yaml:4:9: hardware\.memory: missing 'latency'"):
        build(GpuSpec, catalogue.load_document("hardware", str(child)), root="hardware")


def test_a_generation_is_extended_by_name(tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    generation = catalogue.names("generations")[0]
    for name in (generation, f"generations/{generation}", f"{generation}.yaml"):
        path.write_text(f"extends: {name}\nkind: gpu\n")
        assert len(catalogue.load_document("hardware", str(path)).data) > 2


def test_cycles_name_both_places(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("kind: gpu\nextends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    with pytest.raises(SpecError) as caught:
        catalogue.load_document("hardware", str(tmp_path / "a.yaml"))
    assert str(caught.value) == f"{tmp_path}/b.yaml:1:10: extends: extends itself through {tmp_path}/a.yaml:2:10"
    (tmp_path / "c.yaml").write_text("extends: c.yaml\n")
    with pytest.raises(SpecError, match=r"c\.yaml:1:10: extends: extends itself$"):
        catalogue.load_document("hardware", str(tmp_path / "c.yaml"))


def test_long_chains_are_refused(tmp_path: Path) -> None:
    for index in range(9):
        (tmp_path / f"f{index}.yaml").write_text(f"extends: f{index + 1}.yaml\nk{index}: 1\n")
    (tmp_path / "f9.yaml").write_text("last: 1\n")
    with pytest.raises(SpecError, match=r"f8\.yaml:1:10: extends: too long a chain of files; expected at most 8"):
        catalogue.load_document("hardware", str(tmp_path / "f1.yaml"))
    assert len(catalogue.load_document("hardware", str(tmp_path / "f2.yaml")).data) == 8


@pytest.mark.parametrize("value", ["5", "[a]", "null", "''"])
def test_extends_must_be_a_name(tmp_path: Path, value: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(f"extends: {value}\n")
    with pytest.raises(SpecError, match=r"f\.yaml:1:10: extends: not the name of a file"):
        catalogue.load_document("hardware", str(path))


@pytest.mark.parametrize(
    ("provenance", "message"),
    [
        ("5", "1:13: provenance: 5 is not a mapping; expected kind and source"),
        ("{kind: datasheet}", "1:13: provenance: missing 'source'; expected text"),
        ("{kind: [1], source: x}", "1:20: provenance.kind: a list is not text; expected text"),
        (
            "{kind: measurd, source: x}",
            "1:20: provenance.kind: unknown kind 'measurd'; expected 'datasheet', 'measured', 'fitted', 'assumed' or "
            "'unverified'; did you mean 'measured'?",
        ),
    ],
)
def test_provenance_is_checked_in_every_file(tmp_path: Path, provenance: str, message: str) -> None:
    (tmp_path / "parent.yaml").write_text(f"provenance: {provenance}\n")
    (tmp_path / "child.yaml").write_text("extends: parent.yaml\n")
    with pytest.raises(EffsimError) as caught:
        catalogue.load_document("hardware", str(tmp_path / "child.yaml"))
    assert str(caught.value) == f"{tmp_path}/parent.yaml:{message}"

"""Documents that are remembered: read anew each time, parsed once, never changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from effsim.errors import YamlError
from effsim.spec.overrides import apply
from effsim.spec.yaml_loader import load_yaml


def test_a_changed_file_is_another_document_even_with_the_same_size_and_time(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("batch: 8\n")
    status = file.stat()
    assert load_yaml(file).data == {"batch": 8}
    file.write_text("batch: 9\n")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert load_yaml(file).data == {"batch": 9}


def test_the_same_text_in_two_files_keeps_its_own_positions(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.yaml", "b.yaml")]
    for file in files:
        file.write_text("batch: 8\n")
    assert [load_yaml(file).location(("batch",)).file for file in files] == [str(file) for file in files]


def test_assignments_leave_the_remembered_document_alone(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("memory: {bandwidth: 1 TB/s, sizes: [1, 2]}\n")
    before = load_yaml(file).data
    changed = apply(load_yaml(file), ["hardware.memory.bandwidth=2TB/s", "hardware.memory.sizes.0=7"], "hardware")
    assert changed.data != before
    assert load_yaml(file).data == before


def test_errors_come_every_time(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("a: 1\na: 2\n")
    for _ in range(2):
        with pytest.raises(YamlError, match="twice"):
            load_yaml(file)
    file.unlink()
    with pytest.raises(YamlError, match="no such file"):
        load_yaml(file)

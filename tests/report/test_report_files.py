"""Files are whole or absent; Parquet gives back what went in; nothing foreign is replaced."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from effsim import DataError
from effsim._api import FullRun
from effsim.report.files import TABLES, atomic_write_text, write_parquet


def read(folder: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(folder / f"{name}.parquet").to_pylist()
    return rows


@pytest.mark.parametrize("kind", ["generate", "train", "operators"])
def test_parquet_round_trip(full: Callable[..., FullRun], tmp_path: Path, kind: str) -> None:
    result = full(kind).result
    folder = tmp_path / "tables"
    write_parquet(result, folder)
    assert sorted(f.name for f in folder.iterdir()) == sorted(f"{name}.parquet" for name in TABLES)
    operators = read(folder, "operators")
    assert [row["name"] for row in operators] == [row.name for row in result.operators]
    for row, source in zip(operators, result.operators, strict=True):
        assert row["time_s"] == source.time_s
        assert row["flops"] == source.flops
        assert sum(v for k, v in row.items() if k.startswith("term_")) == pytest.approx(source.time_s, rel=1e-9)
    (run,) = read(folder, "run")
    assert run["time_s"] == result.time_s
    assert run["energy_j"] == result.energy_j
    assert run["memory_used_bytes"] == result.memory["used_bytes"]
    assert json.loads(run["parallelism"]) == dict(result.parallelism)
    assert [row["path"] for row in read(folder, "assumptions")] == [a.path for a in result.assumptions]
    assert [row["elasticity"] for row in read(folder, "sensitivity")] == [s["elasticity"] for s in result.sensitivity]
    assert {row["phase"] for row in read(folder, "phases")} == set(result.phases)


def test_types_of_columns_do_not_depend_on_the_values(full: Callable[..., FullRun], tmp_path: Path) -> None:
    result = full("decode").result
    write_parquet(result, tmp_path / "a")
    write_parquet(replace(result, sensitivity=(), assumptions=(), energy_j=1.0, cost_usd=None), tmp_path / "b")
    for name in TABLES:
        one, other = (pyarrow.parquet.read_schema(tmp_path / d / f"{name}.parquet") for d in ("a", "b"))
        assert one.equals(other), name


def test_own_tables_are_replaced_and_leave_nothing_behind(full: Callable[..., FullRun], tmp_path: Path) -> None:
    folder = tmp_path / "tables"
    write_parquet(full("decode").result, folder)
    write_parquet(full("prefill").result, folder)
    assert read(folder, "run")[0]["workload"] == "prefill"
    assert [entry.name for entry in tmp_path.iterdir()] == ["tables"]


def test_an_empty_directory_is_used(full: Callable[..., FullRun], tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    write_parquet(full("decode").result, tmp_path / "tables")
    assert read(tmp_path / "tables", "run")


@pytest.mark.parametrize("foreign", ["thesis.tex", "run.parquet"])
def test_foreign_files_are_never_replaced(full: Callable[..., FullRun], tmp_path: Path, foreign: str) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / foreign).write_text("mine", encoding="utf-8")
    with pytest.raises(DataError, match="effsim did not write"):
        write_parquet(full("decode").result, folder)
    assert (folder / foreign).read_text(encoding="utf-8") == "mine"
    assert [entry.name for entry in tmp_path.iterdir()] == ["work"]


def test_a_file_in_the_way_and_a_missing_parent_are_clear(full: Callable[..., FullRun], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(DataError, match="not a directory"):
        write_parquet(full("decode").result, tmp_path / "file")
    with pytest.raises(DataError, match="there is no directory"):
        write_parquet(full("decode").result, tmp_path / "no" / "where")


def test_text_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    atomic_write_text(file, "one")
    atomic_write_text(file, "zwei µ\n")
    assert file.read_bytes() == "zwei µ\n".encode()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]
    plain = tmp_path / "plain.txt"
    plain.write_text("", encoding="utf-8")
    assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_failing_write_keeps_the_old_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.txt"
    atomic_write_text(file, "old")

    def full_disk(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(DataError, match="No space left"):
        atomic_write_text(file, "new")
    assert file.read_text(encoding="utf-8") == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.txt").write_text("old", encoding="utf-8")
    (tmp_path / "link.txt").symlink_to("real.txt")
    atomic_write_text(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text(encoding="utf-8") == "new"


def test_a_device_is_written_through(tmp_path: Path) -> None:
    atomic_write_text(os.devnull, "gone")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


@pytest.mark.parametrize("target", ["missing/a.txt", "file/a.txt", "folder"])
def test_bad_targets_are_data_errors(tmp_path: Path, target: str) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="cannot write") as caught:
        atomic_write_text(tmp_path / target, "text")
    assert caught.value.exit_code == 2


def _without(patch: pytest.MonkeyPatch, *missing: str) -> None:
    """Make ``import name`` fail, as it does where the package is not installed."""
    for name in missing:
        patch.setitem(sys.modules, name, None)


def test_frame_is_pandas_else_arrow_else_a_clear_error(
    full: Callable[..., FullRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = full("decode").result
    frame = result.to_frame()
    assert list(frame["name"]) == [row.name for row in result.operators]
    assert frame["time_s"].sum() == pytest.approx(result.time_s, rel=1e-9)
    with monkeypatch.context() as patch:
        _without(patch, "pandas")
        table = result.to_frame()
        assert table.column("name").to_pylist() == list(frame["name"])
    with monkeypatch.context() as patch:
        _without(patch, "pandas", "pyarrow")
        with pytest.raises(DataError, match=r"effsim\[parquet\]"):
            result.to_frame()


def test_parquet_without_pyarrow_names_the_extra(
    full: Callable[..., FullRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = full("decode").result
    with monkeypatch.context() as patch:
        _without(patch, "pyarrow")
        with pytest.raises(DataError, match=r"effsim\[parquet\]"):
            write_parquet(result, tmp_path / "tables")
    assert list(tmp_path.iterdir()) == []

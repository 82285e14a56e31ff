"""What property tests draw depends on nothing but themselves."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

CONSTANTS = [100_003 + 7 * i for i in range(40)]


def drawn() -> list[int]:
    found: list[int] = []

    @settings(max_examples=300)
    @given(st.integers(0, 2**40))
    def draw(number: int) -> None:
        found.append(number)

    draw()
    return found


def test_modules_imported_meanwhile_change_no_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = drawn()
    source = tmp_path / "full_of_constants.py"
    source.write_text(f"ALL = {CONSTANTS}\n", encoding="utf-8")
    spec = importlib.util.spec_from_file_location(source.stem, source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, source.stem, module)
    spec.loader.exec_module(module)
    assert drawn() == before

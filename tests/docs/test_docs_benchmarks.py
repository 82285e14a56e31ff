"""The benchmark measures what it says: its step is the program's, its table is a kernel table. Nothing is timed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from effsim import kernel_table, load_workload
from effsim._api import plan_on
from effsim.readings.analytic import analytic

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "run.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("effsim_benchmarks", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_its_step_is_a_step_of_the_program(bench: ModuleType) -> None:
    b = bench.prepare(1)
    assignments = ["workload.generate=1", f"workload.prompt={bench.KV_LEN - 1}"]
    spec, base = load_workload(bench.WORKLOAD, assignments)
    whole = analytic(plan_on(b.machine, spec, base), b.machine.device)
    assert analytic(b.step(bench.KV_LEN), b.machine.device).time_s == pytest.approx(whole.time_s, rel=1e-12)


def test_its_table_has_no_equal_rows(bench: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    bench.write_table(file, 40)
    lines = file.read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(set(lines)) == 41
    assert len(kernel_table("gpu_a100", file).rows) == 40


def test_the_report_compares_with_the_target(bench: ModuleType) -> None:
    rows = [
        bench.Row("quick", ((2e-3, 1e-3), (1e-3, 1e-3), (4e-3, 2e-3)), 5e-3),
        bench.Row("slow", ((7e-3, 1e-3),), 5e-3),
        bench.Row("free", ((1.0, 1e-3),)),
    ]
    lines = bench.report(rows).splitlines()
    assert "| quick | 1 ms | 2 ms | 2 | < 5 ms | yes |" in lines
    assert "| slow | 7 ms | 7 ms | 7 | < 5 ms | **no** |" in lines
    assert "| free | 1 s | 1 s | 1e+03 |  |  |" in lines

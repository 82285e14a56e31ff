"""Fitting named parameters: tables that our own model made give back the parameters that made them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effsim._api import kernel_table
from effsim.devices.registry import load_machine
from effsim.errors import DataError, SpecError, UnsupportedError
from effsim.explore.calibrate.command import fit_table
from effsim.explore.calibrate.fit import fit, limits, place_of
from effsim.explore.calibrate.fitted import UNITS, dimension_of
from effsim.graph.operators.linear import Linear
from effsim.graph.table import from_row

GPU = "gpu_l40s"


def table(path: Path, hardware: str, changes: list[str], noise: float = 0.0) -> Path:
    """Products of many shapes as the changed hardware would take, every other one *noise* slower, the rest quicker."""
    device = load_machine(hardware, changes).device
    rows = []
    for m in (1, 8, 64, 256, 1024, 4096):
        for n, k in ((1024, 1024), (4096, 4096), (11008, 4096), (1280, 8192), (8192, 1024)):
            cells = {"kind": "linear", "m": m, "n": n, "k": k, "dtype": "fp16"}
            lowered = device.lower(from_row("linear", cells))
            seconds = lowered.analytic_s + device.launch.gap_s * len(lowered.kernels)
            rows.append({**cells, "measured_s": seconds * (1.0 + noise * (-1) ** len(rows))})
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_known_parameters_come_back(tmp_path: Path) -> None:
    rows = table(tmp_path / "t.csv", GPU, ["hardware.memory.stream_fraction=0.7", "hardware.launch.graph=2.5us"])
    result = fit(GPU, rows, ["hardware.memory.stream_fraction", "launch.graph"])
    found = {m.path: m.new for m in result.moved}
    assert found["memory.stream_fraction"] == pytest.approx(0.7, rel=0.01)
    assert found["launch.graph"] == pytest.approx(2.5e-6, rel=0.02)
    assert result.before.test.median > 0.02
    assert result.after.test.median < 0.005
    assert result.before.train.n + result.before.test.n == result.rows == result.used == 30


def test_noise_is_not_learnt(tmp_path: Path) -> None:
    rows = table(tmp_path / "t.csv", GPU, ["hardware.memory.stream_fraction=0.7"], noise=0.05)
    (moved,) = fit(GPU, rows, ["memory.stream_fraction"]).moved
    assert moved.new == pytest.approx(0.7, rel=0.05)


def test_parameters_without_influence_are_refused_by_name(tmp_path: Path) -> None:
    rows = table(tmp_path / "t.csv", GPU, [])
    with pytest.raises(UnsupportedError, match=r"identify none.*kernels.collective.step: the rows do not answer"):
        fit(GPU, rows, ["kernels.collective.step"])
    result = fit(GPU, rows, ["memory.stream_fraction", "kernels.collective.step"])
    assert [m.path for m in result.moved] == ["memory.stream_fraction"]
    assert [path for path, _ in result.refused] == ["kernels.collective.step"]


def test_parameters_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    rows = table(tmp_path / "t.csv", GPU, [])
    # Sustained bandwidth is the product of both.
    result = fit(GPU, rows, ["memory.stream_fraction", "memory.bandwidth"])
    assert len(result.moved) == 1
    assert "cannot be told from" in result.refused[0][1]


def test_the_written_file_extends_the_original_and_predicts_better(tmp_path: Path) -> None:
    rows = table(tmp_path / "t.csv", GPU, ["hardware.memory.stream_fraction=0.7"])
    out = tmp_path / "gpu_fitted.yaml"
    result = fit_table(GPU, rows, ["memory.stream_fraction"], out)
    text = out.read_text()
    assert f"extends: {GPU}" in text
    leaves = dict(load_machine(str(out)).spec.leaves())
    leaf = leaves["memory.stream_fraction"]
    assert leaf.kind == "fitted"
    assert "t.csv" in str(leaf.source)
    assert "seed 0" in str(leaf.source)
    original = dict(load_machine(GPU).spec.leaves())
    assert {path for path in leaves if float(leaves[path]) != float(original[path])} == {"memory.stream_fraction"}
    assert leaves["l2.bandwidth"].source == original["l2.bandwidth"].source
    assert kernel_table(str(out), rows).scores["linear"].median < 0.005
    assert json.dumps(result.as_dict(), allow_nan=False)
    with pytest.raises(DataError, match="cannot replace"):
        fit_table(str(out), rows, ["memory.stream_fraction"], out)


def test_results_repeat_and_depend_on_the_seed(tmp_path: Path) -> None:
    rows = table(tmp_path / "t.csv", GPU, ["hardware.memory.stream_fraction=0.7"], noise=0.02)
    one, two = (fit(GPU, rows, ["memory.stream_fraction"], seed=3) for _ in range(2))
    assert one == two
    other = fit(GPU, rows, ["memory.stream_fraction"], seed=4)
    assert other.before.train != one.before.train


def test_large_tables_are_sampled_and_say_so(tmp_path: Path) -> None:
    rows = table(tmp_path / "t.csv", GPU, ["hardware.memory.stream_fraction=0.7"])
    result = fit(GPU, rows, ["memory.stream_fraction"], most_rows=16)
    assert (result.rows, result.used) == (30, 16)
    assert result.moved[0].new == pytest.approx(0.7, rel=0.02)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("memory.bandwith", "did you mean 'memory.bandwidth'"),
        ("sm.count", "a count"),
        ("kernels.gemm.tiles.0.m", "a count"),
    ],
)
def test_wrong_parameters_are_said(tmp_path: Path, path: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        fit(GPU, table(tmp_path / "t.csv", GPU, []), [path])


def test_a_table_without_measurements_is_said(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("kind,m,n,k,dtype\nlinear,1,2,3,fp16\n")
    with pytest.raises(DataError, match="0 rows with measured_s"):
        fit(GPU, path, ["memory.stream_fraction"])
    with pytest.raises(DataError, match="--split"):
        fit(GPU, path, [], split=1.0)


def test_every_quantity_of_the_catalogue_has_a_unit() -> None:
    for name in ("gpu_a100", "cpu_xeon", "fpga_u280", "systolic_tpu_v4"):
        spec = load_machine(name).spec
        for path, _ in spec.leaves():
            if not any(part.isdigit() for part in path.split(".")) and not path.startswith(("price", "energy")):
                assert dimension_of(type(spec), path) in {*UNITS, "count"}, path


@given(st.integers(1, 10**6), st.integers(0, 100))
def test_rows_of_equal_work_stay_together(m: int, seed: int) -> None:
    place = place_of(Linear(m, 8, 8), seed)
    assert 0.0 <= place < 1.0
    assert place == place_of(Linear(m, 8, 8), seed)


def test_limits_are_physical() -> None:
    spec = load_machine("gpu_a100").spec
    assert limits(spec, "memory.stream_fraction", 0.868)[1] == 1.0
    assert limits(spec, "clock.sustained", 1.4e9)[1] == pytest.approx(1.41e9)
    assert limits(spec, "launch.graph", 1e-6) == (0.25e-6, 4e-6)

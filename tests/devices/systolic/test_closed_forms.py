"""Closed forms against a grid simulated register by register: the product proves the schedule, the cycles the formula."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effsim.devices.systolic.folds import Buffers, Grid, Work, cuts, grid_cycles
from effsim.devices.systolic.scalesim import Layer
from effsim.models import systolic
from effsim.models.systolic import systolic_gemm

RTL = Path(__file__).with_name("grid.v")


@given(
    m=st.integers(1, 24),
    n=st.integers(1, 24),
    k=st.integers(1, 24),
    rows=st.integers(1, 8),
    columns=st.integers(1, 8),
    dataflow=st.sampled_from(["ws", "os", "is"]),
    double_buffer=st.booleans(),
    drain=st.sampled_from(["shift", "none"]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=300)
def test_the_grid_multiplies_in_the_cycles_of_the_formula(
    m: int, n: int, k: int, rows: int, columns: int, dataflow: str, double_buffer: bool, drain: str, seed: int
) -> None:
    random = np.random.default_rng(seed)
    a, b = random.integers(-8, 8, (m, k)), random.integers(-8, 8, (k, n))
    product, cycles = systolic_gemm(
        a, b, rows=rows, columns=columns, dataflow=dataflow, double_buffer=double_buffer, drain=drain
    )
    assert np.array_equal(product, a @ b)
    assert cycles == grid_cycles(m, n, k, Grid(rows, columns, dataflow, double_buffer, drain == "shift"))


@pytest.mark.parametrize("dataflow", ["ws", "os"])
def test_a_fold_that_starts_a_cycle_early_spoils_the_product(dataflow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipelined interval is the shortest there is: the simulated hardware has no slack to hide a wrong formula."""
    random = np.random.default_rng(1)
    a, b = random.integers(1, 8, (5, 2)), random.integers(1, 8, (2, 9))
    if dataflow == "ws":
        a, b = a[:2], random.integers(1, 8, (2, 9))  # two lines a fold: loading four rows of weights binds
    early = _early_starts(load=4 if dataflow == "ws" else 0)
    monkeypatch.setattr(systolic, "_starts", early)
    out = np.zeros((a.shape[0], b.shape[1]), np.float32)
    left, right = a.astype(np.float32), b.astype(np.float32)
    if dataflow == "ws":
        systolic._weight_stationary.py_func(left, right, 4, 3, True, out)
    else:
        systolic._output_stationary.py_func(left, right, 4, 3, True, True, out)
    assert not np.array_equal(out, a @ b)


def _early_starts(load: int):  # type: ignore[no-untyped-def]
    def starts(folds: int, steps: int, first: int, tail: int, drain: int, double_buffer: bool):  # type: ignore[no-untyped-def]
        return first + np.arange(folds, dtype=np.int64) * (max(steps, load, drain) - 1)

    return starts


def test_the_grid_refuses_what_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="dataflow"):
        systolic_gemm([[1]], [[1]], rows=1, columns=1, dataflow="rs")
    with pytest.raises(ValueError, match="drain"):
        systolic_gemm([[1]], [[1]], rows=1, columns=1, drain="fall")
    with pytest.raises(ValueError, match="match"):
        systolic_gemm([[1, 2]], [[1]], rows=1, columns=1)
    with pytest.raises(ValueError, match="rows"):
        systolic_gemm([[1]], [[1]], rows=0, columns=1)


@given(
    m=st.integers(1, 500),
    n=st.integers(1, 500),
    k=st.integers(1, 500),
    rows=st.integers(1, 64),
    columns=st.integers(1, 64),
    dataflow=st.sampled_from(["ws", "os", "is"]),
)
def test_the_other_tool_counts_a_grid_without_overlap_from_zero(
    m: int, n: int, k: int, rows: int, columns: int, dataflow: str
) -> None:
    grid = Grid(rows, columns, dataflow, double_buffer=False, drain_shift=False)
    assert Layer(m, n, k, rows, columns, dataflow).compute_cycles == grid_cycles(m, n, k, grid)


@given(
    m=st.integers(1, 5000),
    n=st.integers(1, 5000),
    k=st.integers(1, 5000),
    dataflow=st.sampled_from(["ws", "os", "is"]),
    size=st.sampled_from([1e3, 1e5, 1e8]),
    units=st.sampled_from([1, 8]),
)
def test_every_cut_covers_the_product_and_moves_each_operand_at_least_once(
    m: int, n: int, k: int, dataflow: str, size: float, units: int
) -> None:
    work = Work(m, n, k, 1, float(m * k), float(k * n), float(m * n))
    options = cuts(work, Grid(16, 16, dataflow, True), Buffers(size, size, size, 0.0, size), units, False)
    assert options
    for cut in options:
        assert cut.folds * 16 * 16 * cut.steps >= m * n * k
        assert cut.a_traffic >= work.a_bytes
        assert cut.b_traffic >= work.b_bytes
        assert cut.c_traffic >= work.c_bytes


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="Icarus Verilog is not installed")
@pytest.mark.parametrize("k", [1, 5, 8, 40])
def test_an_8x8_grid_in_verilog_takes_the_same_cycles(k: int, tmp_path: Path) -> None:
    """Output stationary, results shifted out: product and cycles of registers written in a hardware language."""
    binary = tmp_path / "grid"
    subprocess.run(["iverilog", "-g2012", f"-Pbench.K={k}", "-o", str(binary), str(RTL)], check=True)
    said = subprocess.run(["vvp", "-n", str(binary)], check=True, capture_output=True, text=True).stdout.split()
    cycles, results = int(said[0]), np.array([int(word) for word in said[1:]]).reshape(8, 8)
    i, j, steps = np.arange(8), np.arange(8), np.arange(k)
    a = (i[:, None] * 7 + steps[None, :] * 3) % 16 - 8
    b = (steps[:, None] * 5 + j[None, :] * 11) % 16 - 8
    assert np.array_equal(results, a @ b)
    assert cycles == grid_cycles(8, 8, k, Grid(8, 8, "os", False))
    assert cycles == systolic_gemm(a, b, rows=8, columns=8, dataflow="os", double_buffer=False)[1]

"""Fitting residuals: known distributions, few rows, devices that were left out, and the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from effsim.errors import DataError
from effsim.intervals.residuals import RELATED, TRANSFERRED, UNVALIDATED, VALIDATED, Residuals
from effsim.validation.coverage import Judged, coverage
from effsim.validation.residuals import (
    LEVEL,
    Residual,
    between,
    bounds,
    fit,
    held_out,
    pooled,
    within,
    write_residuals,
)
from effsim.validation.tables import Measured

Draw = Callable[[np.random.Generator, int], np.ndarray]
DEVICE = {"kind": "gpu", "vendor": "V", "memory_bytes_per_s": 1.0, "memory_capacity_bytes": 1.0, "uncertainty": {}}


def rows(device: str, name: str, values: np.ndarray, regime: str = "r0s2") -> list[Residual]:
    return [Residual(device, name, regime, float(v), i) for i, v in enumerate(values)]


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, n: rng.normal(0.05, 0.2, n),
        lambda rng, n: rng.exponential(0.4, n) - 0.1,
        lambda rng, n: rng.standard_t(3, n) * 0.1,
        lambda rng, n: rng.uniform(-0.1, 0.5, n),
    ],
)
def test_bounds_hold_their_level_on_rows_they_were_not_fitted_on(draw: Draw) -> None:
    rng = np.random.default_rng(7)
    held = []
    for _ in range(30):
        low, high = bounds(draw(rng, 400))
        fresh = draw(rng, 2000)
        held.append(np.mean((fresh >= low) & (fresh <= high)))
    assert LEVEL - 0.025 <= np.mean(held) <= LEVEL + 0.025


def test_bounds_are_no_wider_than_equal_tails_and_contain_zero() -> None:
    rng = np.random.default_rng(1)
    skewed = rng.exponential(1.0, 4000) - 0.2
    low, high = bounds(skewed)
    assert high - low < np.subtract(*np.quantile(skewed, [0.95, 0.05]))
    low, high = bounds(rng.normal(1.0, 0.01, 500))
    assert low == 0.0
    assert 0.9 < high < 1.1


def test_few_rows_give_their_whole_range() -> None:
    values = np.array([-0.3, -0.1, 0.0, 0.1, 0.4])
    assert bounds(values) == (-0.3, 0.4)


def test_spread_between_devices_is_found_again() -> None:
    rng = np.random.default_rng(3)
    groups = [[(f"d{d}", rng.normal(rng.normal(0.0, 0.3), 0.05, 300)) for d in range(4)] for _ in range(25)]
    assert between(groups) == pytest.approx(0.3, rel=0.3)
    assert between([[("only", np.zeros(10))]]) == 0.0
    inside = []
    for units in groups:
        low, high = pooled(within(units[1:]), between(groups))
        inside.append(np.mean((units[0][1] >= low) & (units[0][1] <= high)))
    assert 0.8 <= np.mean(inside) <= 1.0


def test_a_left_out_device_is_covered_wider_than_a_measured_one() -> None:
    rng = np.random.default_rng(5)
    sample = []
    for device, shift in (("a", 0.1), ("b", -0.1), ("c", 0.05)):
        sample += rows(device, "linear||half|graph", rng.normal(shift, 0.1, 300))
    found = Residuals.of(fit(sample, dict.fromkeys("abc", DEVICE), {}))
    own, other = (found.band("linear||half|graph", "r0s2", name, "V") for name in ("a", ""))
    assert (own.evidence, other.evidence) == (VALIDATED, TRANSFERRED)
    assert other.high - other.low > own.high - own.low
    assert found.band("linear||fp8|graph", "r0s2", "a", "V").evidence == RELATED
    assert found.band("batched_matmul||half|graph", "r0s2", "a", "V").evidence == RELATED
    assert found.band("conv2d||half|graph", "r0s2", "a", "V").evidence == UNVALIDATED
    assert found.band("linear||half|graph", "r0s2", "", "another maker").evidence == UNVALIDATED
    assert found.band("linear||half|graph", "r9s9", "a", "V").rows == 300


def test_a_regime_of_few_points_leans_on_its_class() -> None:
    rng = np.random.default_rng(6)
    sample = rows("a", "linear||half|graph", rng.normal(0.0, 0.1, 400))
    same = [Residual("a", "linear||half|graph", "r3s1", 0.0, 9) for _ in range(50)]  # one point, fifty times
    found = Residuals.of(fit(sample + same, {"a": DEVICE}, {}))
    few = found.band("linear||half|graph", "r3s1", "a", "V")
    whole = found.band("linear||half|graph", "r0s2", "a", "V")
    assert few.high > 0.5 * whole.high


def test_the_halves_depend_on_the_columns_alone() -> None:
    def row(m: int, seconds: float) -> Measured:
        return Measured("gpu_a100", "file", "label", "linear", {"m": m, "k": 3}, seconds)

    assert held_out(row(5, 1.0)) == held_out(row(5, 2.0))
    share = np.mean([held_out(row(m, 1.0)) for m in range(2000)])
    assert 0.45 < share < 0.55


def test_coverage_counts_rows_that_are_judged() -> None:
    inside, outside = Judged(1.0, 2.0, 0.5, True, False), Judged(1.0, 2.0, 1.5, False, None)
    found = coverage([inside, outside, None])
    assert found is not None
    assert (found.rows, found.inside, found.width, found.elsewhere) == (2, 0.5, 1.0, 0.0)
    assert coverage([None]) is None


def test_the_file_reads_back_and_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    content = fit(rows("a", "linear||half|graph", np.linspace(-0.2, 0.2, 50)), {"a": DEVICE}, {"by": "a test"})
    file = tmp_path / "residuals.json"
    write_residuals(content, file)
    assert json.loads(file.read_text()) == content
    assert content == fit(rows("a", "linear||half|graph", np.linspace(-0.2, 0.2, 50)), {"a": DEVICE}, {"by": "a test"})
    with pytest.raises(DataError, match="does not exist"):
        write_residuals(content, tmp_path / "none" / "r.json")
    with pytest.raises(DataError, match="no rows"):
        fit([], {}, {})

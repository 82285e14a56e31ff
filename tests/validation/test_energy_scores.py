"""Scores of energy by hand, how often power was read, and the tables where they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effsim.errors import DataError
from effsim.validation.energy import EnergyOutcome, class_of, readings, score, section, validate_energy
from effsim.validation.tables import Measured, data_folder


def outcome(watts: float, joules: float, predicted_s: float = 1e-3) -> EnergyOutcome:
    cells = {"m": 8, "n": 64, "k": 64, "dtype": "bf16"}
    row = Measured("gpu_h200", "file", "x", "linear", cells, 1e-3)
    return EnergyOutcome(row, watts, readings(watts), predicted_s, joules)


@given(st.lists(st.integers(100_000, 700_000), min_size=1, max_size=12))
def test_a_mean_of_milliwatts_says_how_many_there_were(milliwatts: list[int]) -> None:
    found = readings(sum(milliwatts) / len(milliwatts) / 1e3)
    assert 1 <= found <= len(milliwatts)
    assert len(milliwatts) % found == 0  # a shorter mean only where numbers cancel


def test_scores_by_hand() -> None:
    # 200.1 W for 1 ms is 0.2001 J; twice the energy in twice the time is the same power.
    scores = score([outcome(200.1, 0.2001), outcome(200.1, 0.4002, 2e-3), outcome(600.0005, 0.3, 1e-3)])
    by_class = {s.readings: s for s in scores}
    assert list(by_class) == ["all", "once", "twice"]
    assert by_class["once"].energy.median == pytest.approx(0.5)
    assert by_class["once"].power.mape == pytest.approx(0.0, abs=1e-9)
    assert by_class["twice"].energy.bias == pytest.approx(-0.5, rel=1e-3)
    assert class_of(3) == class_of(11)
    assert "**gpu_h200 x**" in section(scores)[-1]


def test_measured_watts() -> None:
    """Rows that were read often enough: their power is predicted, on both generations that have watts."""
    try:
        data = data_folder()
        scores = validate_energy(data, "gpu_b200")
    except DataError:
        pytest.skip("no measured watts here")
    often = {s.label: s for s in scores if s.readings == "3 times or more" and s.energy.n > 50}
    assert often
    assert all(s.power.median < 0.2 for s in often.values())

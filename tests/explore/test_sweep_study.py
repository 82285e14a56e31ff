"""Studies: what is accepted, how points are drawn, and how mistakes read."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import effsim
from effsim.errors import SpecError
from effsim.explore.sweep.sampling import Points, choice, in_range, quantity
from effsim.spec.build import build
from effsim.spec.catalogue import load_document, names
from effsim.spec.study import METRICS, RangeSpec, StudySpec, parse_constraint

BASE = """\
kind: study
name: test
hardware: gpu_a100
workload: llama7b_decode
parameters:
  - path: hardware.memory.bandwidth
    range: {low: 1 TB/s, high: 4 TB/s, points: 3}
objectives: [{name: time_s, goal: min}]
"""


def study(**changes: Any) -> StudySpec:
    fields: dict[str, Any] = {
        "kind": "study",
        "name": "test",
        "hardware": "gpu_a100",
        "workload": "llama7b_decode",
        "parameters": [
            {"path": "hardware.memory.bandwidth", "range": {"low": "1 TB/s", "high": "4 TB/s", "points": 3}},
            {"path": "workload.batch", "values": [1, 8]},
        ],
        "objectives": [{"name": "time_s", "goal": "min"}],
    }
    return StudySpec.model_validate(fields | changes)


@pytest.mark.parametrize("name", names("studies"))
def test_bundled_studies_are_right(name: str) -> None:
    build(StudySpec, load_document("studies", name), root="study")
    assert effsim.check_file(name)[0] == "study"


def test_a_grid_takes_every_combination_and_varies_the_hardware_fastest() -> None:
    points = Points(study(), 0)
    values = [tuple(c.value for c in point) for point in points.take(0, points.count)]
    assert values == [(b * 1e12, n) for n in (1, 8) for b in (1.0, 2.5, 4.0)]
    assert points.take(2, 5) == points.take(0, 6)[2:5]


@pytest.mark.parametrize("method", ["random", "sobol"])
def test_drawn_points_depend_on_the_seed_only(method: str) -> None:
    one = Points(study(method=method, samples=40), 3)
    assert one.take(7, 31) == Points(study(method=method, samples=40), 3).take(0, 40)[7:31]
    assert one.take(0, 40) != Points(study(method=method, samples=40), 4).take(0, 40)
    assert all(1e12 <= float(p[0].value) <= 4e12 and p[1].value in (1, 8) for p in one.take(0, 40))


def test_sobol_points_fill_every_half_evenly() -> None:
    points = Points(study(method="sobol", samples=64), 0).take(0, 64)
    assert sum(float(p[0].value) < 2.5e12 for p in points) == 32
    assert sum(p[1].value == 1 for p in points) == 32


@given(st.floats(0.0, 1.0), st.sampled_from(["linear", "log"]))
def test_numbers_of_a_range_stay_inside_and_their_text_means_them(share: float, scale: str) -> None:
    found = in_range(RangeSpec.model_validate({"low": "1.3 TB/s", "high": "7.7 TB/s", "scale": scale}), share)
    assert 1.3e12 <= float(found.value) <= 7.7e12
    assert quantity(found.text) == found.value


def test_a_log_range_has_even_ratios_and_whole_numbers_stay_whole() -> None:
    given_ = RangeSpec.model_validate({"low": 1, "high": 256, "scale": "log", "points": 9, "integer": True})
    assert [in_range(given_, i / 8).value for i in range(9)] == [2**i for i in range(9)]


def test_values_keep_words_and_turn_quantities_into_si() -> None:
    assert choice("gpu_h100").value == "gpu_h100"
    assert choice("80 GiB").value == 80 * 2**30
    assert choice(True) != choice(1)


@pytest.mark.parametrize(
    ("text", "value", "holds"),
    [
        ("memory.fits", True, True),
        ("memory.fits", False, False),
        ("memory_fits == false", False, True),
        ("time_s <= 50 ms", 0.05, True),
        ("time_s < 50 ms", 0.05, False),
        ("memory.used_bytes>=1 GiB", float(2**30), True),
        ("tokens_per_s > 1e3", 999.0, False),
        ("devices != 4", 2, True),
        ("energy_j <= 5", None, False),
    ],
)
def test_constraints(text: str, value: float | None, holds: bool) -> None:
    assert parse_constraint(text).holds(value) is holds


@given(st.text(max_size=40))
def test_no_text_breaks_the_constraint_parser(text: str) -> None:
    try:
        found = parse_constraint(text)
    except ValueError as error:
        assert str(error)
    else:
        assert found.metric in METRICS
        assert not math.isnan(found.bound) or "nan" in text.lower()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("time_s, goal: min", "tme_s, goal: min", r"s.yaml:8:21: .*unknown metric 'tme_s'.*did you mean 'time_s'"),
        ("high: 4 TB/s", "high: 4 GHz", r"'low' is in 'TB/s', 'high' in 'GHz'"),
        ("low: 1 TB/s", "low: 5 TB/s", r"s.yaml:7:12: .*not below"),
        (", points: 3", "", r"needs 'points' in the range of 'hardware.memory.bandwidth'"),
        ("    range", "    values: []\n    range", r"s.yaml:7:13: .*list is empty"),
        ("hardware.memory.bandwidth", "hardwre.memory.bandwidth", r"s.yaml:6:11: .*is no path"),
        ("objectives", "constraints: [time_s ~ 3]\nobjectives", r"s.yaml:8:15: .*is not a constraint"),
        ("objectives", "constraints: [time_s <= 3 GB]\nobjectives", r"s.yaml:8:15: "),
        ("objectives", "method: random\nobjectives", r"needs 'samples'"),
        ("objectives", "set: [batch=3]\nobjectives", r"s.yaml:8:7: .*no assignment"),
        ("memory.bandwidth", "memory.bandwith", r"s.yaml:6:11: .*no such field; did you mean"),
        ("1 TB/s, high: 4 TB/s", "1 GHz, high: 4 GHz", r"s.yaml:6:11: .*GHz"),
        ("hardware: gpu_a100", "hardware: gpu_a10000", r"s.yaml:3:11: .*did you mean"),
    ],
)
def test_mistakes_are_pointed_at(tmp_path: Path, old: str, new: str, message: str) -> None:
    file = tmp_path / "s.yaml"
    assert old in BASE
    file.write_text(BASE.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(SpecError, match=message):
        effsim.sweep(str(file), out=tmp_path / "out", processes=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text", ["3.35 TB/s", "80 GiB", "1.2 GHz", "87 %", "14 ns", "128 B/cycle", "16 OP/cycle", "700 W"]
)
def test_quantities_are_those_of_their_own_dimension(text: str) -> None:
    from effsim.errors import UnitError
    from effsim.units import DIMENSIONS, parse

    found = set()
    for dimension in DIMENSIONS:
        with contextlib.suppress(UnitError):
            found.add(parse(text, dimension))
    assert found == {quantity(text)}


def test_names_are_no_quantities() -> None:
    assert [quantity(text) for text in ("gpu_h100", "bf16", "", "4 parsecs", "3..5 TB/s")] == [None] * 5

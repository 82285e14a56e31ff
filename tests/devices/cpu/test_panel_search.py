"""The search over panels: both forms agree, and its parts by hand."""

from __future__ import annotations

import pytest

from effsim.devices.cpu import panel_search as ps
from effsim.devices.registry import load_machine
from effsim.graph.operators.linear import BatchedMatmul, Linear


def test_the_compiled_search_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    ops = [Linear(1, 4096, 4096), Linear(300, 1000, 700), BatchedMatmul(64, 30, 200, 128), Linear(4096, 64, 8192)]
    plain = load_machine("cpu_epyc").device
    expected = [plain.lower(op) for op in ops]
    monkeypatch.setattr(ps, "search", ps.search.compiled)
    compiled = load_machine("cpu_epyc").device
    for op, want in zip(ops, expected, strict=True):
        got = compiled.lower(op)
        assert got.kernels[0].name == want.kernels[0].name
        assert got.analytic_s == pytest.approx(want.analytic_s, rel=1e-12)


def test_row_panels_are_divisors_and_powers_of_two() -> None:
    assert ps.row_panels(6) == [1, 2, 3, 4, 6, 8, 16]


def test_caches_can_lie_over_the_result_in_every_shape() -> None:
    assert ps.cache_pairs(6) == [[1, 6], [2, 3], [3, 2], [6, 1]]


def test_separate_caches_each_fetch_what_they_share() -> None:
    # 100 B of rows and 10 B of columns, four caches, 8 × 8 panels: four row bands fetch the columns four times.
    problem = [0.0] * 14
    problem[ps.P_BATCH], problem[ps.P_A_MEM], problem[ps.P_B_MEM] = 1.0, 100.0, 10.0
    assert ps._fetched(problem, 8.0, 8.0, ps.cache_pairs(4)) == 100.0 + 4 * 10.0
    # With one row of panels all four caches need the rows; the columns are not shared.
    assert ps._fetched(problem, 1.0, 8.0, ps.cache_pairs(4)) == 4 * 100.0 + 10.0
    # Four independent products: nothing is shared between the caches.
    problem[ps.P_BATCH] = 4.0
    assert ps._fetched(problem, 1.0, 8.0, ps.cache_pairs(4)) == 100.0 + 10.0

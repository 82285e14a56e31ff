"""The comparison of functional models with PyTorch: every model is in it, it holds, and it can fail."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

from effsim.errors import SpecError
from effsim.models import attention, gemm, norm, pointwise, pointwise_backward, quantized, registry, scan
from effsim.validation.numerics import NumericsReport, all_cases, validate_numerics
from effsim.validation.numerics.bounds import TINY, UNIT, Bounded, gamma
from effsim.validation.numerics.case import Case, Check, RandomDraw

CASES = {case.name: case for case in all_cases()}
_T = TypeVar("_T")


class HypothesisDraw:
    """Sizes and options by hypothesis, so that a failure shrinks; elements by a generator that it seeds."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data
        self._rng = np.random.default_rng(data.draw(st.integers(0, 2**32), label="seed"))

    def integer(self, low: int, high: int) -> int:
        return self._data.draw(st.integers(low, high))

    def choice(self, options: Sequence[_T]) -> _T:
        return self._data.draw(st.sampled_from(list(options)))

    def generator(self) -> np.random.Generator:
        return self._rng


def check_all(case: Case, data: st.DataObject) -> None:
    for check in case.compare(HypothesisDraw(data)):
        assert check.ratio() <= 1.0, f"{case.name} {check.what}: {check.ratio():.3g} times its bound"


@pytest.mark.parametrize("name", sorted(CASES))
def test_models_stay_within_their_bounds(name: str) -> None:
    @given(st.data())
    @settings(max_examples=3, deadline=None, derandomize=True, database=None)
    def run(data: st.DataObject) -> None:
        check_all(CASES[name], data)

    run()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CASES))
def test_models_stay_within_their_bounds_often(name: str) -> None:
    @given(st.data())
    @settings(max_examples=200, deadline=None)
    def run(data: st.DataObject) -> None:
        check_all(CASES[name], data)

    run()


@pytest.mark.parametrize("name", sorted(name for name, case in CASES.items() if case.adversarial))
def test_adversarial_values(name: str) -> None:
    for compare in CASES[name].adversarial:
        for seed in range(3):
            for check in compare(RandomDraw(seed)):
                assert check.ratio() <= 1.0, f"{compare.__name__} {check.what}"


def test_every_model_of_the_registry_is_compared() -> None:
    compared = {name for case in CASES.values() for name in case.models}
    expected = {name for names in registry.MODELS.values() for name in names}
    expected |= set(registry.SCAN_BACKWARD.values()) | set(registry.BEYOND_THE_GRAPH)
    expected |= {f"pointwise.FORWARD/{kind}" for kind in pointwise.FORWARD}
    expected |= {f"pointwise_backward.BACKWARD/{kind}" for kind in pointwise_backward.BACKWARD}
    assert compared == expected


@pytest.fixture(scope="module")
def report() -> NumericsReport:
    return validate_numerics(seed=1, examples=2)


def test_the_report_has_a_row_a_case_and_passes(report: NumericsReport) -> None:
    assert report.failures() == []
    assert [row.name for row in report.rows] == list(CASES)
    assert all(row.passed and row.checks >= row.cases >= 2 for row in report.rows)
    assert any(row.adversarial for row in report.rows)
    assert "pass" in report.text()
    assert "FAIL" not in report.text()


def test_bounds_are_small_enough_to_see_errors(report: NumericsReport) -> None:
    """In float32 a typical bound is below 1e-3 of the result; narrow formats are coarser by their own step."""
    coarse = {
        "gemm bf16/fp16/fp8", "group quantisation", "PIM banks", "FPGA fixed point", "sampling", "collectives",
        "embedding, backward",
    }  # fmt: skip
    for row in report.rows:
        assert row.bound < (0.3 if row.name in coarse else 1e-3), row.name


def test_the_same_seed_gives_the_same_report(report: NumericsReport) -> None:
    chosen = validate_numerics(seed=1, examples=2, models=("softmax", "gemm int8"))
    assert [row.name for row in chosen.rows] == ["gemm int8", "softmax", "softmax, backward"]
    assert set(chosen.rows) <= set(report.rows)
    plain = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert plain["schema"] == "effsim/numerics@1"
    assert len(plain["rows"]) == len(report.rows)


def test_bad_requests() -> None:
    with pytest.raises(SpecError, match="no comparison"):
        validate_numerics(models=("no such model",))
    with pytest.raises(SpecError, match="examples"):
        validate_numerics(examples=0)


def _fails(name: str) -> bool:
    return bool(validate_numerics(seed=0, examples=6, models=(name,)).failures())


def test_a_dropped_block_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = gemm.gemm
    monkeypatch.setattr(gemm, "gemm", lambda a, b, **options: whole(a[:, :-1], b[:-1], **options))
    assert _fails("gemm fp32")


def test_sums_in_bf16_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = gemm.gemm
    monkeypatch.setattr(gemm, "gemm", lambda a, b, **options: whole(a, b, **options | {"output_dtype": "bf16"}))
    assert _fails("gemm fp32")


def test_unrounded_weights_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = quantized.weight_only_gemm
    changed = {"compute_dtype": "fp32"}
    monkeypatch.setattr(quantized, "weight_only_gemm", lambda a, q, **options: whole(a, q, **options | changed))
    assert _fails("gemm int4/int8 weights")


def test_a_mask_off_by_one_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = attention.context_attention

    def shifted(*arrays: np.ndarray, window: int | None = None, **options: object) -> np.ndarray:
        return whole(*arrays, window=None if window is None else window + 1, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(attention, "context_attention", shifted)
    assert _fails("attention, context")


def test_a_narrow_exponential_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = scan.selective_scan

    def narrow(u: np.ndarray, delta: np.ndarray, *rest: np.ndarray, **options: object) -> scan.ScanResult:
        return whole(u, delta.astype(np.float16), *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(scan, "selective_scan", narrow)
    assert _fails("selective scan")


def test_a_forgotten_epsilon_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = norm.layernorm
    monkeypatch.setattr(norm, "layernorm", lambda x, w, b=None, **_: whole(x, w, b, eps=1e-30))
    assert _fails("norms")


def test_checks_compare_infinities_and_shapes() -> None:
    inf = np.array([np.inf, np.nan, 1.0])
    assert Check(inf, inf, 0.0).ratio() == 0.0
    assert Check(np.array([-np.inf, np.nan, 1.0]), inf, 9.0).ratio() == np.inf
    assert Check(np.array([np.inf, 0.0, 1.0]), inf, 9.0).ratio() == np.inf
    assert Check(np.array([1.0, 2.0]), np.array([1.0]), 9.0).ratio() == np.inf
    assert Check(np.array([np.nan]), np.array([1.0]), 9.0).ratio() == np.inf
    assert Check(np.array([1.5]), np.array([1.0]), 0.25).ratio() == 2.0
    assert Check(np.array([1.0]), np.array([2.0]), np.inf).ratio() == np.inf
    assert Check(np.array([1.0 + 1e-9]), np.array([1.0]), 0.0).ratio() == np.inf


def _float32(name: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    with np.errstate(under="ignore"):
        return {
            "add": lambda: x + y,
            "mul": lambda: x * y,
            "div": lambda: x / y,
            "exp": lambda: np.exp(x.astype(np.float64)).astype(np.float32),
            "sum": lambda: np.cumsum(x * y, dtype=np.float32)[-1:],
            "root": lambda: np.sqrt(np.abs(x)),
            "norm": lambda: x / np.sqrt(np.cumsum(x * x, dtype=np.float32)[-1:] + np.float32(1)),
        }[name]()


def _bounded(name: str, x: Bounded, y: Bounded) -> Bounded:
    return {
        "add": lambda: x + y,
        "mul": lambda: x * y,
        "div": lambda: x / y,
        "exp": lambda: x.exp(),
        "sum": lambda: (x * y).sum(0, keepdims=True),
        "root": lambda: Bounded(np.abs(x.value), x.error).root(),
        "norm": lambda: x / ((x * x).sum(0, keepdims=True) + 1.0).root(),
    }[name]()


@given(
    name=st.sampled_from(["add", "mul", "div", "exp", "sum", "root", "norm"]), seed=st.integers(0, 10_000),
    exponent=st.integers(-22, 1), n=st.integers(1, 60), perturbed=st.booleans(),
)  # fmt: skip
@settings(max_examples=80, deadline=None, derandomize=True, database=None)
def test_bounds_hold_for_float32_arithmetic(name: str, seed: int, exponent: int, n: int, perturbed: bool) -> None:
    """Also when operands already carry an error: the float32 side then starts from moved operands."""
    rng = np.random.default_rng(seed)
    x, y = (rng.standard_normal(n) * 10.0**exponent).astype(np.float32), rng.standard_normal(n).astype(np.float32)
    y = np.where(y == 0, np.float32(1), y)
    moved = x * np.float32(1 + (1e-4 if perturbed else 0))
    start = Bounded(x.astype(np.float64), np.abs(moved.astype(np.float64) - x))
    bound = _bounded(name, start, Bounded.exact(y))
    got = _float32(name, moved, y)
    assert Check(got, bound.value, bound.error).ratio() <= 1.0


def test_bounds_of_single_operations() -> None:
    one = Bounded.exact(np.array([1.0]))
    assert (one + one).error.tolist() == [2 * UNIT]
    assert (one * 3.0).error.tolist() == [3 * UNIT + TINY]
    assert gamma(0) == 0.0
    with pytest.raises(ValueError, match="no bound"):
        gamma(2.0**24)

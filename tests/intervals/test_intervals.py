"""Intervals of predicted times: what must hold for every device, class and sum."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effsim._api import run
from effsim.devices.registry import build_device, load_machine, rebuild
from effsim.errors import DataError
from effsim.explore.sensitivity import with_value
from effsim.graph.operators.attention import Attention
from effsim.graph.operators.linear import Linear
from effsim.intervals.classes import kernel_class, regime
from effsim.intervals.kernel import DeviceIntervals, Relative, half_widths
from effsim.intervals.origins import GIVEN, resource_uncertainty, rules
from effsim.intervals.residuals import (
    EVIDENCE,
    RELATED,
    TRANSFERRED,
    UNVALIDATED,
    VALIDATED,
    Band,
    Residuals,
    bundled_residuals,
    read_residuals,
)
from effsim.intervals.total import combine, widened
from effsim.spec.fields import Quantity

LOGS = st.floats(0.0, 2.0)
SECONDS = st.floats(1e-7, 10.0)


def relative(name: str, low: float, high: float, *parameters: tuple[str, float], evidence: str = VALIDATED) -> Relative:
    return Relative(name, Band(-low, high, evidence), parameters)


RELATIVES = st.builds(
    lambda name, low, high, half: relative(name, low, high, ("memory", half)),
    st.sampled_from(["a|||graph", "b|||graph", "c|||graph"]),
    LOGS,
    LOGS,
    st.floats(0.0, 1.0),
)
PARTS = st.lists(st.tuples(SECONDS, RELATIVES), min_size=1, max_size=8)


@given(RELATIVES, SECONDS)
def test_an_interval_holds_its_prediction(one: Relative, seconds: float) -> None:
    low, high = one.interval(seconds)
    assert 0.0 < low <= seconds <= high
    alone = combine(seconds, [(seconds, one)])
    assert (alone.low_s, alone.high_s) == (pytest.approx(low, rel=1e-9), pytest.approx(high, rel=1e-9))


@given(PARTS)
def test_a_sum_is_at_least_each_part_and_at_most_all_ends_together(parts: list[tuple[float, Relative]]) -> None:
    whole = sum(seconds for seconds, _ in parts)
    found = combine(whole, parts)
    ends = [one.interval(seconds) for seconds, one in parts]
    slack = 1e-9 * found.high_s
    assert found.low_s >= max(low for low, _ in ends) - slack
    assert found.high_s >= max(high for _, high in ends) - slack
    # A class and a resource each err together, so the sum can reach beyond neither √ nor the plain sum of all causes.
    causes = half_widths(parts)
    assert whole - found.low_s <= sum(below for below, _ in causes.values()) + slack
    assert found.high_s - whole <= sum(above for _, above in causes.values()) + slack
    assert list(found.causes.values()) == sorted(found.causes.values(), key=lambda ends: -max(ends))


@given(PARTS, st.floats(0.01, 100.0))
def test_rates_k_times_as_high_scale_the_interval_by_one_over_k(parts: list[tuple[float, Relative]], k: float) -> None:
    whole = sum(seconds for seconds, _ in parts)
    base = combine(whole, parts)
    fast = combine(whole / k, [(seconds / k, one) for seconds, one in parts])
    assert fast.low_s * k == pytest.approx(base.low_s, rel=1e-9, abs=1e-12)
    assert fast.high_s * k == pytest.approx(base.high_s, rel=1e-9)


def test_one_class_errs_together_and_two_classes_apart() -> None:
    same = combine(2.0, [(1.0, relative("a|||graph", 0.2, 0.3))] * 2)
    assert same.high_s == pytest.approx(2.0 * math.exp(0.3))
    apart = combine(2.0, [(1.0, relative("a|||graph", 0.2, 0.3)), (1.0, relative("b|||graph", 0.2, 0.3))])
    assert apart.high_s - 2.0 == pytest.approx(math.sqrt(2.0) * math.expm1(0.3))
    unknown = [(1.0, relative(f"{name}|||", 0.5, 0.5, evidence=UNVALIDATED)) for name in "xy"]
    assert combine(2.0, unknown).high_s == pytest.approx(2.0 * math.exp(0.5))


def test_whole_runs_widen_an_interval_and_never_narrow_it() -> None:
    inner = combine(1.0, [(1.0, relative("a|||graph", 0.2, 0.3))])
    wide = widened(inner, 1.0, Band(-0.1, 0.9, VALIDATED))
    assert (wide.low_s, wide.high_s) == (inner.low_s, pytest.approx(math.exp(0.9)))
    assert next(iter(wide.causes)).startswith("whole runs")
    assert widened(inner, 1.0, None) == inner


def test_time_without_a_cause_of_its_own_widens_in_proportion() -> None:
    part = (1.0, relative("a|||graph", 0.1, 0.2))
    assert combine(3.0, [part]).high_s == pytest.approx(3.0 * math.exp(0.2))


@given(SECONDS, SECONDS, st.floats(0.0, 1e-3), st.floats(0.01, 100.0))
def test_a_regime_has_no_unit(seconds: float, bound: float, gap: float, k: float) -> None:
    # Powers of two only: a quotient on the edge of a regime must not be rounded over it.
    k = 2.0 ** round(math.log2(k))
    assert regime(seconds / k, bound / k, gap / k) == regime(seconds, bound, gap)


def test_classes_part_what_errs_differently() -> None:
    assert kernel_class(Linear(1, 8, 8, "fp16")) == kernel_class(Linear(9, 4, 2, "bf16"))
    context = Attention("context", 1, 64, 64, 8, 8, 64)
    assert kernel_class(context) != kernel_class(replace(context, phase="generation"))
    assert kernel_class(context) != kernel_class(replace(context, kv_dtype="fp8"))
    assert kernel_class(context) != kernel_class(context, "eager")


def test_evidence_falls_from_own_measurements_to_none() -> None:
    h100, l40s = (DeviceIntervals(load_machine(name).device) for name in ("gpu_h100", "gpu_l40s"))

    def evidence(source: DeviceIntervals, op: Linear) -> Band:
        return source.relative(op, source.device.lower(op), source.device.launch.gap_s).band

    product, unusual = Linear(512, 4096, 4096, "bf16"), Linear(512, 4096, 4096, "tf32")
    assert evidence(h100, product).evidence == VALIDATED
    assert evidence(l40s, product).evidence == TRANSFERRED
    assert evidence(l40s, product).high - evidence(l40s, product).low > 0.0
    assert evidence(h100, unusual).evidence == RELATED
    band = h100.unknown("sampling").band
    assert band.evidence == UNVALIDATED
    assert band.high == -band.low == bundled_residuals().unvalidated
    assert "never" in band.note


@pytest.mark.parametrize("name", ["cpu_xeon", "pim_attacc", "systolic_tpu_v4", "fpga_u280"])
def test_other_kinds_of_device_are_unvalidated_and_wide(name: str) -> None:
    device = load_machine(name).device
    op = Linear(16, 1024, 1024, "int8" if name == "fpga_u280" else "bf16")
    found = DeviceIntervals(device).relative(op, device.lower(op), 0.0)
    assert found.band.evidence == UNVALIDATED
    assert found.high >= bundled_residuals().unvalidated


def _with_kind(kind: str) -> float:
    machine = load_machine("gpu_l40s")
    field = machine.spec.memory.bandwidth  # type: ignore[attr-defined]
    memory = machine.spec.memory.model_copy(  # type: ignore[attr-defined]
        update={"bandwidth": Quantity(float(field), kind, "a test")}
    )
    device = build_device(machine.spec.model_copy(update={"memory": memory}))
    op = Linear(1, 16384, 16384, "bf16")
    return DeviceIntervals(device).relative(op, device.lower(op), device.launch.gap_s).high


def test_a_number_of_worse_origin_widens_the_interval() -> None:
    datasheet, measured, fitted, assumed = map(_with_kind, ("datasheet", "measured", "fitted", "assumed"))
    assert datasheet < measured < fitted < assumed


def test_numbers_of_a_measured_device_are_in_its_residuals_until_they_get_worse() -> None:
    machine = load_machine("gpu_h100")
    op = Linear(1, 16384, 16384, "bf16")

    def found(spec: object) -> Relative:
        device = build_device(spec)  # type: ignore[arg-type]
        return DeviceIntervals(device).relative(op, device.lower(op), device.launch.gap_s)

    assert found(machine.spec).parameters == ()
    guessed = machine.spec.memory.model_copy(  # type: ignore[attr-defined]
        update={"bandwidth": Quantity(float(machine.spec.memory.bandwidth), "assumed", "a guess")}  # type: ignore[attr-defined]
    )
    worse = found(machine.spec.model_copy(update={"memory": guessed}))
    assert [resource for resource, _ in worse.parameters] == ["memory"]
    assert worse.high > found(machine.spec).high


def test_a_what_if_is_another_device_but_its_number_is_exact() -> None:
    plain, what_if = (load_machine("gpu_h100", given).device for given in ((), ("hardware.memory.bandwidth=4TB/s",)))
    op = Linear(1, 16384, 16384, "bf16")
    bands = [DeviceIntervals(device).relative(op, device.lower(op), device.launch.gap_s) for device in (plain, what_if)]
    assert [one.band.evidence for one in bands] == [VALIDATED, TRANSFERRED]
    assert "memory" not in dict(bands[1].parameters)
    machine = load_machine("gpu_h100")
    renamed = rebuild(machine, with_value(machine.spec, "memory.bandwidth", 4e12), None).device
    assert DeviceIntervals(renamed).relative(op, renamed.lower(op), 1e-6).band.evidence == TRANSFERRED


def test_uncertainties_follow_the_origin() -> None:
    for kind, value in rules().relative.items():
        assert resource_uncertainty([("memory.bandwidth", Quantity(1.0, kind, "x"))]) == {"memory": value}
    assert resource_uncertainty([("memory.bandwidth", Quantity(1.0, "assumed", GIVEN))]) == {"memory": 0.0}
    factors = [("matrix.bf16", Quantity(1.0, "assumed", "x")), ("clock.boost", Quantity(1.0, "assumed", "x"))]
    assert resource_uncertainty(factors)["matrix"] == pytest.approx(rules().relative["assumed"] * math.sqrt(2.0))


def test_bundled_residuals_hold_zero_and_only_names_that_are_known() -> None:
    found = bundled_residuals()
    entries = [own for entry in found.classes.values() for own in (*entry["own"].values(), entry["elsewhere"])]
    for entry in [*entries, *found.groups.values()]:
        assert "all" in entry["regimes"]
        for low, high, rows in entry["regimes"].values():
            assert low <= 0.0 <= high
            assert rows > 0
    names = {name for entry in found.classes.values() for name in entry["elsewhere"]["devices"]}
    assert names <= set(found.devices)


def test_a_file_of_another_schema_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    with pytest.raises(DataError, match="cannot be read"):
        read_residuals(file)
    file.write_text("[]")
    with pytest.raises(DataError, match="not a residual file"):
        read_residuals(file)
    with pytest.raises(DataError, match="schema"):
        Residuals.of({"schema": "other"})


@pytest.mark.parametrize("engine", ["roofline", "analytic", "events"])
def test_a_run_shows_intervals_of_everything(engine: str) -> None:
    result = run("gpu_h100", "llama3_8b_decode", engine=engine, sensitivity=False)
    data = result.to_dict()
    assert data["time_low_s"] <= data["time_s"] <= data["time_high_s"]
    assert data["energy_low_j"] < data["energy_j"] < data["energy_high_j"]
    phase = data["phases"]["decode"]
    assert phase["time_per_token_low_s"] <= phase["time_per_token_s"] <= phase["time_per_token_high_s"]
    for row in data["operators"]:
        assert row["time_low_s"] <= row["time_s"] <= row["time_high_s"] <= data["time_high_s"]
        assert row["evidence"] in EVIDENCE
    assert sum(data["interval"]["evidence"].values()) == pytest.approx(1.0)
    if engine == "roofline":
        assert data["time_low_s"] == data["time_s"]  # a bound is where the interval begins

"""Rows of compared measurements: what the command writes, and what the record says of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from effsim.cli.validate import validate as command
from effsim.errors import DataError, SpecError
from effsim.validation import comparisons, guard, serving
from effsim.validation.collectives import Case, scores
from effsim.validation.coverage import Coverage, Judged
from effsim.validation.endtoend import Outcome as RunOutcome
from effsim.validation.energy import EnergyOutcome
from effsim.validation.energy import score as score_energies
from effsim.validation.kernels import KernelReport, Outcome, score
from effsim.validation.published import convert
from effsim.validation.record import (
    LEVELS,
    Figure,
    Row,
    load_rows,
    parse_record,
)
from effsim.validation.report import Report
from effsim.validation.residuals import held_out
from effsim.validation.row_files import write_rows
from effsim.validation.tables import Measured
from effsim.validation.training import Outcome as Step
from effsim.validation.training import TrainingReport
from effsim.validation.training import _score as score_steps
from effsim.validation.training_rows import Case as StepCase


def measured(index: int) -> Measured:
    cells = {"m": 8 + index, "n": 64, "k": 64, "dtype": "bf16"}
    return Measured("gpu_a100", "gemm.parquet", "linear bf16", "linear", cells, 1e-5)


def kernel_outcomes(errors: list[float]) -> list[Outcome]:
    out = []
    for index, error in enumerate(errors):
        seconds = 1e-5 * (1.0 + error)
        low, high = 0.9 * seconds, 1.2 * seconds
        mark = Judged(low, high, 0.3, low <= 1e-5 <= high, None, fitted=index % 3 == 0)
        out.append(Outcome(measured(index), seconds, 1e-6, judged=mark))
    return out


@settings(max_examples=50, deadline=None)
@given(errors=st.lists(st.floats(-0.9, 5.0), min_size=1, max_size=60))
def test_the_spread_of_kernels_is_that_of_their_rows(errors: list[float]) -> None:
    outcomes = kernel_outcomes(errors)
    groups = tuple(score(outcomes))
    kernels = KernelReport(groups, {}, len(errors), outcomes=tuple(outcomes))
    (figure,) = guard.figures(Report(kernels, None, None, rows=tuple(comparisons.of_kernels(kernels))))
    assert figure.n == len(errors)
    assert figure.worst is not None
    assert abs(figure.worst) == pytest.approx(max(map(abs, errors)), abs=1e-9)
    assert figure.quantiles is not None
    for level, value in zip(LEVELS, figure.quantiles, strict=True):  # no more than a row away from the exact share
        below = sum(error < value - 1e-9 for error in errors)
        to = sum(error <= value + 1e-9 for error in errors)
        assert below <= level * (len(errors) - 1) + 1 <= to + 1
    found: Coverage | None = next(g for g in groups if g.bucket == "all").coverage
    assert figure.inside == (None if found is None else pytest.approx(found.inside))


def published(tmp_path: Path) -> Iterator[RunOutcome]:
    row = {"source": "Mutinifni/splitwise-sim:data/perf_model.csv@1", "hardware": "A100-SXM4-80GB", "notes": ""}
    row |= {"num_devices": 2, "model_or_op": "Llama-2-70B", "precision": "FP16", "input_len": 512, "output_len": 8}
    for index, (batch, predicted) in enumerate([(1, 0.04), (2, 0.055), (4, None)]):
        more = {"id": f"r{index}", "batch_or_concurrency": batch, "metric": "time_per_output_token", "value": 50}
        case = convert(row | more, tmp_path)
        assert case is not None
        assert not isinstance(case, str)
        ends = (None, None) if predicted is None else (0.8 * predicted, 1.2 * predicted)
        yield RunOutcome(case, predicted, *ends)


def test_published_runs_and_what_does_not_fit(tmp_path: Path) -> None:
    found = list(comparisons.of_runs(published(tmp_path)))
    assert [row.label.partition(":")[0] for row in found] == ["r0", "r1"]
    assert [row.error for row in found] == pytest.approx([-0.2, 0.1])
    assert all(row.fitted is not None and row.unit == "s" and row.low is not None for row in found)
    assert "batch 2, prompt 512, new 8, tensor 2" in found[1].label


def training_report(errors: dict[str, list[float]]) -> TrainingReport:
    work = next(published(Path())).case.workload
    steps = []
    for source, values in errors.items():
        case = StepCase("t", source, "system_x", "llama", "time", work, 2.0)
        steps += [Step(case, 2.0 * (1.0 + error)) for error in values]
        steps.append(Step(case, None))
    totals = [score_steps(("time", "all", "all", "all"), steps)]
    totals += [score_steps(("time", s, "system_x", "all"), [x for x in steps if x.case.source == s]) for s in errors]
    return TrainingReport((), tuple(totals), {}, tuple(steps))


def test_every_figure_of_a_report_has_the_spread_of_its_own_rows(tmp_path: Path) -> None:
    report = training_report({"a": [0.1, -0.2], "b": [0.4]})
    cases = [Case("x", "m", (), "all_reduce", size, 8, 1, "fp16", 1.0, "src") for size in (1024.0, 2.0**24)]
    others = [(case, 1.0 + 0.1 * index) for index, case in enumerate(cases)]
    joules = [
        EnergyOutcome(measured(i), 100.0, 1, 1e-5, 1e-3 * (1 + e), (5e-4, 2e-3)) for i, e in enumerate([0.5, -0.1])
    ]
    found = [
        *comparisons.of_training(report),
        *comparisons.of_collectives(others),
        *comparisons.of_energy(joules),
    ]
    whole = Report(
        None,
        None,
        None,
        training=report,
        collectives=scores(others),
        energy=tuple(score_energies(joules)),
        rows=tuple(found),
    )
    held = {figure.key: figure for figure in parse_record(guard.record(whole))}
    assert {key: figure.worst for key, figure in held.items()} == {
        ("published", "all, all", "training time, all"): 0.4,
        ("published", "a, system_x", "training time, all"): -0.2,
        ("published", "b, system_x", "training time, all"): 0.4,
        ("published", "collectives, published", "x, below 1 MiB"): 0.0,
        ("published", "collectives, published", "x, above 1 MiB"): 0.1,
        ("energy", "gpu_a100", "linear bf16"): 0.5,
    }
    assert {row.unit for row in found} == {"s", "J"}
    assert [row.fitted for row in found if row.unit == "J"] == [
        False if held_out(measured(i)) else None for i in range(2)
    ]
    path = tmp_path / "rows.csv"
    write_rows(found, path)
    assert load_rows(path) == tuple(found)


def test_rows_of_servers_under_load_say_which_statistic_they_are() -> None:
    from effsim.validation.serving_rows import Case as Load

    loads = [
        (Load("r", "src", "system_x", "run", "mean", "ttft", (), 0.1, False, whole=True), 0.2),
        (Load("r", "src", "system_x", "run", "p99", "e2e", (), 0.1, False, whole=False), 0.1),
        (Load("r", "src", "system_x", "run", "mean", "throughput", (), 900.0, False, whole=True), 950.0),
    ]
    report = serving.ServingReport(tuple(serving._scores(loads)), tuple(loads), {})
    found = list(comparisons.of_serving(report))
    assert [(row.what, row.unit) for row in found] == [
        ("serving, ttft", "s"),
        ("serving, p99 e2e, one stage", "s"),
        ("serving, throughput", "tokens/s"),
    ]
    held = {f.what: f for f in guard.figures(Report(None, None, None, serving=report, rows=tuple(found)))}
    assert held["serving, ttft"].worst == pytest.approx(1.0)
    assert set(held) == {"serving, ttft", "serving, throughput"}


def test_a_figure_never_takes_the_rows_of_another() -> None:
    figure = Figure("kernels", "gpu_a100", "linear", 2, 0.1, 0.1, 0.1)
    with pytest.raises(ValueError, match="1 rows, but the figure is of 2"):
        guard.spread(
            figure, [Row("kernels", "gpu_a100", "linear", "table", "x", 1e-5, 1.1e-5, "s", 9e-6, 1.2e-5, False)]
        )


def test_the_command_writes_rows(tmp_path: Path) -> None:
    data = tmp_path / "data" / "llmcompass"
    data.mkdir(parents=True)
    (data / "matmul_A100.csv").write_text(
        "4096, 4096, 4096, 0.6ms, 1Tflops\n64, 12288, 12288, 0.1900ms, 1Tflops\n", encoding="utf-8"
    )
    app, out = typer.Typer(), tmp_path / "rows.csv"
    app.command()(command)
    asked = ["--data", str(data.parent), "--quiet", "--rows"]
    done = CliRunner().invoke(app, ["kernels", *asked, str(out)])
    assert done.exit_code == 0, done.output
    found = load_rows(out)
    assert [(row.check, row.where, row.source, row.measured) for row in found] == [
        ("kernels", "gpu_a100", "matmul_A100.csv", pytest.approx(6e-4)),
        ("kernels", "gpu_a100", "matmul_A100.csv", pytest.approx(1.9e-4)),
    ]
    for row in found:
        assert row.low is not None
        assert row.high is not None
        assert row.low <= row.predicted <= row.high
        assert isinstance(row.fitted, bool)
    assert "m 4096" in found[0].label
    for check, name, error in (
        ("kernels", "rows.txt", DataError),
        ("kernels", "missing/rows.csv", DataError),
        ("peers", "rows.csv", SpecError),
        ("numerics", "rows.csv", SpecError),
    ):
        failed = CliRunner().invoke(app, [check, *asked, str(tmp_path / name)])
        assert isinstance(failed.exception, error)

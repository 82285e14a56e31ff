"""Pictures of errors, and the guard that keeps errors from growing."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from effsim.cli.validate import validate as command
from effsim.errors import DataError
from effsim.validation.charts import accuracy_svg, write_charts
from effsim.validation.guard import figures, read_record, record, regressions
from effsim.validation.kernels import GroupScore, KernelReport, Outcome, quantiles, score
from effsim.validation.report import Report, validate
from effsim.validation.tables import Measured, data_folder

CHECKOUT = Path(__file__).resolve().parents[2]


def outcomes(label: str, errors: list[float], measured_s: float = 1e-5) -> list[Outcome]:
    cells = {"m": 8, "n": 64, "k": 64, "dtype": "bf16"}
    row = Measured("gpu_a100", "file", label, "linear", cells, measured_s)
    return [Outcome(row, measured_s * (1.0 + error), measured_s / 2) for error in errors]


def report(errors: list[float], label: str = "<a & b>") -> Report:
    return Report(KernelReport(tuple(score(outcomes(label, errors))), {}, len(errors)), None, None)


def groups(errors: list[float]) -> tuple[GroupScore, ...]:
    found = report(errors).kernels
    assert found is not None
    return found.groups


def test_quantiles_of_one_and_of_many() -> None:
    assert quantiles([2.0]) == (2.0,) * 5
    assert quantiles([float(i) for i in range(101)]) == (5.0, 25.0, 50.0, 75.0, 95.0)


def test_a_picture_is_well_formed_and_shows_every_kernel_and_span(tmp_path: Path) -> None:
    spread = score(outcomes("<a & b>", [-0.1, 0.0, 0.2]) + outcomes("c", [5.0], 1e-3))
    tree = ET.fromstring(accuracy_svg(spread, "gpu_a100"))
    words = [node.text for node in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert "<a & b> (3)" in words
    assert "c (1)" in words
    assert words.count("10 %") == 1  # the only span of <a & b>
    (path,) = write_charts(spread, tmp_path / "new")
    assert path.name == "accuracy_gpu_a100.svg"
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_record_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "accuracy.json"
    path.write_text(record(report([0.1, -0.3, 0.05])), encoding="utf-8")
    (held,) = read_record(path).values()
    assert (held.check, held.where, held.what, held.n) == ("kernels", "gpu_a100", "<a & b>", 3)
    assert held.median == pytest.approx(0.1)
    assert regressions(report([0.1, -0.3, 0.05]), read_record(path)) == []


@pytest.mark.parametrize(("now", "worse"), [(0.112, []), (0.114, ["median", "p90"]), (0.01, [])])
def test_a_tenth_worse_is_a_regression(now: float, worse: list[str]) -> None:
    held = {figure.key: figure for figure in figures(report([0.1]))}
    found = regressions(report([now]), held)
    assert len(found) == len(worse)
    assert all(name in line for name, line in zip(worse, found, strict=True))


def test_a_comparison_that_vanished_is_a_regression_and_one_not_made_is_not() -> None:
    held = {figure.key: figure for figure in figures(report([0.1]))}
    gone = replace(next(iter(held.values())), what="other")
    elsewhere = replace(gone, where="gpu_h100")
    published = replace(gone, check="published")
    assert regressions(report([0.1]), {f.key: f for f in (gone, elsewhere, published)}) == [
        "gpu_a100, other: on record and not compared any more"
    ]


@pytest.mark.parametrize("text", ["", "[]", '{"schema": "effsim/accuracy@1"}', '{"schema": 3}', '{"figures": []}'])
def test_what_is_no_record_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "accuracy.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="accuracy"):
        read_record(path)


def test_the_command_fails_on_a_regression(tmp_path: Path) -> None:
    data = tmp_path / "data" / "llmcompass"
    data.mkdir(parents=True)
    (data / "matmul_A100.csv").write_text("4096, 4096, 4096, 1, 0.0006\n", encoding="utf-8")
    app = typer.Typer()
    app.command()(command)
    against = tmp_path / "accuracy.json"
    try:
        found = validate(data.parent, "kernels")
    except DataError as error:
        pytest.fail(str(error))
    held = json.loads(record(found))
    against.write_text(json.dumps(held), encoding="utf-8")
    asked = ["kernels", "--data", str(data.parent), "--against", str(against), "--quiet"]
    assert CliRunner().invoke(app, asked).exit_code == 0
    held["figures"][0] |= {"median": 0.0, "p90": 0.0}
    against.write_text(json.dumps(held), encoding="utf-8")
    failed = CliRunner().invoke(app, asked)
    assert failed.exit_code == 1
    assert "less accurate than on record: gpu_a100" in failed.stderr


@pytest.mark.slow
def test_no_figure_is_worse_than_on_record() -> None:
    """Where the measurements are present: nothing became more than a tenth worse than docs/accuracy.json says."""
    try:
        data = data_folder(checkout=CHECKOUT)
    except DataError as error:
        pytest.skip(str(error))
    held = read_record(CHECKOUT / "docs" / "accuracy.json")
    found = validate(data)
    assert regressions(found, held) == []
    assert {check for check, _, _ in held} == {"kernels", "published", "energy"}

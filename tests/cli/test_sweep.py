"""``effsim sweep`` as people type it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")

from effsim.cli import main

STUDY = """\
kind: study
name: "Odd <b>name</b>"
hardware: gpu_a100
workload: llama7b_decode
parameters:
  - path: hardware.memory.bandwidth
    range: {low: 0.4 TB/s, high: 2 TB/s, points: 8}
  - {path: workload.batch, values: [1, 8, 100000]}
constraints: [memory.fits]
objectives:
  - {name: time_per_token_s, goal: min}
  - {name: tokens_per_s, goal: max}
"""


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["effsim", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("odd.yaml").write_text(STUDY, encoding="utf-8")
    return "odd.yaml"


def test_json_table_and_page(study: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "sweep", study, "--processes", "1", "--json", "--html", "page.html") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "effsim/sweep@1"
    assert (found["points"], found["ok"], found["failed"], found["feasible"]) == (24, 16, 8, 16)
    assert found["statuses"] == {"ok": 16, "does_not_fit": 8}
    assert {row["hardware.memory.bandwidth"] for row in found["pareto"]} == {2e12}
    assert {row["workload.batch"] for row in found["pareto"]} == {1, 8}
    assert found["best"]["tokens_per_s"]["workload.batch"] == 8
    shares = {(i["path"], i["objective"]): i["value"] for i in found["importance"]}
    assert shares["hardware.memory.bandwidth", "time_per_token_s"] > 0.5
    assert shares["workload.batch", "tokens_per_s"] > 0.5
    page = Path("page.html").read_text(encoding="utf-8")
    assert "<b>name" not in page
    assert "Points without numbers" in page
    assert "would fit with" in page
    assert Path(found["out"], "points.parquet").is_file()
    assert run(monkeypatch, "sweep", study, "--resume") == 0
    text = capsys.readouterr().out
    assert "24 points, 16 ran, 16 of them within the constraints, 8 do not fit" in text
    assert "Pareto front (2 points)" in text


def test_mistakes_end_with_two_and_one_sentence(
    study: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("odd.yaml").write_text(STUDY.replace("goal: max", "goal: most"), encoding="utf-8")
    assert run(monkeypatch, "sweep", study) == 2
    assert capsys.readouterr().err.startswith("effsim: odd.yaml:12:32: ")
    assert run(monkeypatch, "sweep", study, "--resume", "--fresh") == 2
    assert "exclude each other" in capsys.readouterr().err
    assert run(monkeypatch, "sweep", "gpu_what_iff") == 2
    assert "did you mean 'gpu_what_if'" in capsys.readouterr().err


def test_a_fresh_start_and_another_seed(
    study: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "sweep", study, "--quiet") == 0
    assert run(monkeypatch, "sweep", study, "--quiet", "--seed", "7") == 2
    assert "--fresh" in capsys.readouterr().err
    assert run(monkeypatch, "sweep", study, "--quiet", "--seed", "7", "--fresh") == 0
    assert not capsys.readouterr().out

"""``effsim plan`` as people type it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from effsim.cli import main

PLAN = """\
kind: plan
name: "Odd <b>name</b>"
workload: llama3_8b_generate
set:
  - "workload.serving={arrivals: {rate: 60, requests: 8}, scheduler: {max_sequences: 16, max_tokens: 512}}"
  - workload.layers=1
  - workload.prompt=200
  - workload.generate=30
slo:
  ttft: {p95: 200 ms}
candidates:
  - {hardware: gpu_h100, name: H100}
  - {hardware: gpu_l40s, name: "<i>L40S</i>"}
parallelism: [{tensor: 1}]
most_devices: 4
whatif: [{name: twice the load, load: 2}]
"""


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["effsim", "plan", *words, "--processes", "1"])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("odd.yaml").write_text(PLAN, encoding="utf-8")
    return "odd.yaml"


def test_json_text_page_and_tables(
    plan: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, plan, "--json", "--html", "page.html") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["schema"], found["solved"], len(found["screened"])) == ("effsim/plan@1", True, 2)
    winner = found["winner"]
    assert winner["usd_per_hour"] == pytest.approx(winner["usd_per_device_hour"] * winner["devices"])
    assert found["explanation"]["most_load"] >= 1.0
    assert found["whatif"][0]["name"] == "twice the load"
    page = Path("page.html").read_text(encoding="utf-8")
    assert "<b>name" not in page
    assert "<i>L40S" not in page
    assert "What the next upgrade would buy" in page
    assert run(monkeypatch, plan, "--set", "plan.candidates.0.most_devices=1", "--set", "plan.most_devices=1") == 0
    text = capsys.readouterr().out
    assert "winner: " in text
    assert "what binds: " in text
    assert "what if twice the load: " in text


def test_parquet_tables(plan: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    assert (
        run(
            monkeypatch,
            plan,
            "--quiet",
            "--parquet",
            "tables",
            "--set",
            "plan.whatif=[]",
            "--set",
            "plan.upgrades=false",
        )
        == 0
    )
    assert sorted(p.name for p in Path("tables").iterdir()) == [
        "configurations.parquet",
        "curve.parquet",
        "fleets.parquet",
        "upgrades.parquet",
        "whatif.parquet",
    ]
    fleets = pq.read_table("tables/fleets.parquet").to_pylist()
    assert fleets[0]["kind"] == "winner"
    assert 0.0 < fleets[0]["ttft_p95_s"] <= 0.2


def test_no_solution_ends_with_one(
    plan: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, plan, "--set", "plan.slo.ttft.p95=0.5 ms", "--html", "page.html") == 1
    text = capsys.readouterr().out
    assert "no solution" in text
    assert "nearest: 4 × " in text
    assert "instead of 500 µs" in text
    assert "No solution" in Path("page.html").read_text(encoding="utf-8")


def test_mistakes_end_with_two_and_a_position(
    plan: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(plan).write_text(PLAN.replace("p95: 200 ms", "p95: 200 GB"), encoding="utf-8")
    assert run(monkeypatch, plan) == 2
    assert capsys.readouterr().err.startswith("effsim: odd.yaml:10:15: ")
    Path(plan).write_text(PLAN.replace("hardware: gpu_l40s", "hardware: gpu_l40z"), encoding="utf-8")
    assert run(monkeypatch, plan) == 2
    err = capsys.readouterr().err
    assert err.startswith("effsim: odd.yaml:13:16: ")
    assert "did you mean 'gpu_l40s'" in err
    Path(plan).write_text(PLAN, encoding="utf-8")
    trace = ["--set", "workload.serving.arrivals={process: trace, trace: none.csv}"]
    assert run(monkeypatch, plan, *trace) == 2
    assert "none.csv" in capsys.readouterr().err
    assert run(monkeypatch, "llama70b_chatt") == 2
    assert "did you mean 'llama70b_chat'" in capsys.readouterr().err

"""Rows measured under load as workloads: what is read from a row, what is left out, how errors are scored."""

from __future__ import annotations

from pathlib import Path

import pytest

from effsim.validation import serving, targets
from effsim.validation.report import Report
from effsim.validation.serving_rows import SCOUT, Case, convert

HEAD = "id,source,hardware,num_devices,parallelism,model_or_op,phase,precision,batch_or_concurrency"
HEAD += ",input_len,output_len,metric,value,unit,notes"
VLLM = {
    "id": "r1",
    "source": "x/sim-to-real-accuracy-validation:y.csv",
    "hardware": "H100-SXM-80GB",
    "num_devices": "1",
    "parallelism": "TP1",
    "model_or_op": "Qwen2.5-7B-Instruct",
    "phase": "serving-online",
    "precision": "FP16",
    "batch_or_concurrency": "lite: 10s@2.5 then 20s@6 req/s; stage 1",
    "input_len": "100",
    "output_len": "20",
    "metric": "mean_ttft",
    "value": "25.0",
    "unit": "ms",
    "notes": "vLLM; max_num_batched_tokens=1024, gpu_mem=0.8; prompt 90+10 (3x5)",
}
TRITON = VLLM | {
    "source": "NVIDIA/TensorRT-LLM:docs/source/performance/perf-overview.md@1 (online serving, v0.14)",
    "model_or_op": "Llama-3.1-8B",
    "precision": "BF16",
    "batch_or_concurrency": "qps=INF",
    "metric": "output_throughput",
    "value": "900",
}


def case(row: dict[str, str]) -> Case:
    found = convert(row, Path("rows.csv"))
    assert isinstance(found, Case), found
    return found


def test_a_stage_of_a_run_becomes_a_load() -> None:
    found = case(VLLM)
    assert (found.statistic, found.quantity, found.measured, found.whole) == ("mean", "ttft", 0.025, False)
    (stage,) = found.stages
    load = stage.workload.serving
    assert load is not None
    assert stage.requests == load.arrivals.requests == 120
    # 96 of 100 tokens are whole blocks of the prompt that each of 15 users repeats.
    assert (load.prefix.tokens, load.prefix.groups, load.prompt.mean) == (96, 15, 4)
    assert (load.scheduler.max_tokens, load.scheduler.max_sequences) == (1024, 128)
    assert (float(load.cache.memory_fraction), load.sampling) == (0.8, "filtered")


def test_a_whole_run_is_the_mean_of_its_stages() -> None:
    found = case(VLLM | {"batch_or_concurrency": "lite: 10s@2.5 then 20s@6 req/s; all stages"})
    assert [stage.requests for stage in found.stages] == [25, 120]
    assert found.whole


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"phase": "decode"}, None),
        ({"hardware": "H900"}, "hardware file"),
        ({"model_or_op": "Unknown-1B"}, "architecture file"),
        ({"precision": "INT3"}, "element type"),
        ({"parallelism": "TP2;PP2"}, "tensor parallelism"),
        ({"notes": ""}, "not stated"),
        ({"batch_or_concurrency": "lite: 10s@2.5 req/s; stage 0"}, "only stage"),
        ({"batch_or_concurrency": "l: 1s@2 then 2s@6 req/s; all stages", "metric": "p90_e2e"}, "percentiles"),
    ],
)
def test_what_is_left_out_has_a_reason(change: dict[str, str], why: str | None) -> None:
    found = convert(VLLM | change, Path("rows.csv"))
    assert (found is None) if why is None else (isinstance(found, str) and why in found)


def test_an_infinite_rate_is_all_at_once() -> None:
    found = case(TRITON)
    load = found.stages[0].workload.serving
    assert load is not None
    assert (found.quantity, found.measured, load.arrivals.process) == ("throughput", 900.0, "constant")
    assert float(load.arrivals.rate) >= 1e6
    assert SCOUT.is_file()


def test_scores_targets_and_page(tmp_path: Path) -> None:
    """Two metrics of a short run, served for real; the third counted its tokens otherwise."""
    small = {"batch_or_concurrency": "lite: 10s@3 req/s; all stages", "output_len": "8"}
    rows = [
        VLLM | small,
        VLLM | small | {"id": "r2", "metric": "mean_e2e", "value": "80"},
        VLLM | small | {"id": "r3", "metric": "mean_itl", "value": "20"},
        VLLM | small | {"id": "r4", "model_or_op": "Unknown-1B"},
    ]
    text = "\n".join([HEAD, *(",".join(f'"{row[name]}"' for name in HEAD.split(",")) for row in rows)])
    (tmp_path / "published.csv").write_text(text + "\n", encoding="utf-8")
    report = serving.validate_serving(tmp_path)
    assert report is not None
    assert sorted((s.quantity, s.score.n, s.whole) for s in report.scores) == [("e2e", 1, True), ("ttft", 1, True)]
    assert sum(report.left_out.values()) == 2
    assert any("tokenised again" in why for why in report.left_out)
    predicted = {c.quantity: p for c, p in report.outcomes}
    assert 0.0 < predicted["ttft"] < predicted["e2e"] < 1.0
    page = "\n".join(serving.section(report))
    assert "Qwen2.5-7B-Instruct TP1 lite" in page
    found = targets.standings(Report(None, None, None, serving=report))
    assert {(s.what, s.limit) for s in found} == {("serving", 0.10), ("serving", 0.20)}


def test_nothing_to_compare_is_none(tmp_path: Path) -> None:
    assert serving.validate_serving(tmp_path) is None
    (tmp_path / "published.csv").write_text(HEAD + "\n", encoding="utf-8")
    assert serving.validate_serving(tmp_path) is None

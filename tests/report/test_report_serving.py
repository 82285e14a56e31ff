"""Page, trace and tables of a served load."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

import effsim
from effsim.errors import DataError
from effsim.report.serving_files import TABLES, write_serving_parquet
from effsim.report.serving_lines import distribution, in_flight, over_time, rates
from effsim.report.serving_page import serving_page, write_serving_page
from effsim.report.serving_trace import serving_trace, write_serving_trace
from effsim.serving.metrics import ServeResult
from effsim.serving.request import Request


@pytest.fixture(scope="module")
def served() -> ServeResult:
    """A divided fleet that grows and in which a replica fails."""
    sets = [
        "workload.name=<b>chat</b>",
        "workload.prompt=256",
        "workload.generate=64",
        "workload.serving={arrivals: {rate: 60, requests: 400}, disaggregated: {decode_replicas: 2}, "
        "autoscaling: {max_replicas: 2, scale_out_above: 3, scale_in_below: 1, interval: 1 s, cooldown: 1 s, "
        "startup: 0.5 s, storage_bandwidth: 50 GB/s}, failures: {outages: [{replica: 2, at: 2 s, lasts: 1 s}]}}",
    ]
    return effsim.serve("system_dgx_h100", "llama3_8b_generate", set=sets, record=True)


def test_distributions_are_bounded_and_exact_where_they_can_be() -> None:
    assert distribution([3.0, 1.0, 2.0]) == ([1.0, 2.0, 3.0], [1 / 3, 2 / 3, 1.0])
    x, y = distribution([float(i) for i in range(1, 100_001)])
    assert len(x) <= 400
    assert (x[0], x[-1], y[-1]) == (1.0, 100_000.0, 1.0)
    assert all(share == pytest.approx(value / 100_000) for value, share in zip(x, y, strict=True))


def test_requests_in_flight_by_hand() -> None:
    load = [Request(0, 1.0, 1, 1, finish_s=3.0), Request(1, 2.0, 1, 1, finish_s=5.0)]
    assert in_flight(load, [0.0, 1.0, 2.5, 3.0, 4.0, 5.0]) == [0, 1, 2, 1, 1, 0]


def test_lines_agree_with_the_result(served: ServeResult) -> None:
    fleet = over_time(served)
    assert max(fleet.cache_most) <= served.peak_cache_fraction
    assert fleet.in_flight[-1] == fleet.waiting[-1] == fleet.running[-1] == 0
    assert set(fleet.replicas) >= {"prefill: serving", "decode: serving", "down"}
    times, good, late = rates(served)
    width = times[1] - times[0]
    assert sum(good) * width == pytest.approx(served.goodput_requests_per_s * served.duration_s)
    assert (sum(good) + sum(late)) * width == pytest.approx(served.completed)


def test_the_page_stands_alone_and_escapes(served: ServeResult) -> None:
    text = serving_page(served, command="effsim serve <x>")
    assert "<b>chat</b>" not in text
    assert "&lt;b&gt;chat&lt;/b&gt;" in text
    assert "effsim serve &lt;x&gt;" in text
    assert text.count("Plotly.newPlot(") == 7
    assert len(re.findall(r"plotly\.js v\d", text)) == 1
    markup = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"(?:src|href)=", markup)
    for wanted in ("Latency", "Over time", "Failures of replicas: 1", "prefers-color-scheme: dark"):
        assert wanted in text


def test_a_load_of_which_nothing_ends_has_a_page() -> None:
    sets = ["workload.serving={arrivals: {requests: 3}, prompt: {mean: 1000000000}}"]
    refused = effsim.serve("gpu_h100", "llama3_8b_generate", set=sets, record=True)
    assert refused.refused == 3
    assert "requests are longer than the cache" in serving_page(refused, command="")
    assert json.dumps(refused.as_dict(), allow_nan=False)
    assert json.dumps(serving_trace(refused), allow_nan=False)


def test_a_trace_is_well_formed(served: ServeResult, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    write_serving_trace(served, path)
    events = json.loads(path.read_text())["traceEvents"]
    kinds = Counter(event["ph"] for event in events)
    assert kinds["b"] == kinds["e"]
    assert {"X", "C", "M"} <= set(kinds)
    names = {e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert {"requests", "replica 0 (prefill)", "replica 2 (decode)"} <= names
    whole = [e for e in events if e["ph"] == "b" and e["name"].startswith("request ")]
    assert len(whole) == served.completed
    assert {"queue", "prompt", "transfer", "generation"} <= {e["name"] for e in events if e["ph"] == "b"}
    bars = [e for e in events if e["ph"] == "X"]
    assert sum(e["args"]["steps"] for e in bars) == served.steps
    by_process: dict[int, float] = {}
    for bar in sorted(bars, key=lambda e: (e["pid"], e["ts"])):
        assert bar["ts"] >= by_process.get(bar["pid"], 0.0) - 1e-3  # a replica does one step after another
        by_process[bar["pid"]] = bar["ts"] + bar["dur"]


def test_tables(served: ServeResult, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    target = tmp_path / "out"
    write_serving_parquet(served, target)
    write_serving_parquet(served, target)  # one of ours is replaced
    assert {p.name for p in target.iterdir()} == {f"{name}.parquet" for name in TABLES}
    requests = parquet.read_table(target / "requests.parquet").to_pylist()
    assert len(requests) == served.requests
    good = sum(row["within_slo"] for row in requests)
    assert good / len(requests) == pytest.approx(served.slo_attainment)
    assert sum(row["retries"] for row in requests) == served.retries
    (run,) = parquet.read_table(target / "run.parquet").to_pylist()
    assert run["ttft_p99_s"] == served.ttft_s["p99"]  # type: ignore[index]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="did not write"):
        write_serving_parquet(served, tmp_path / "other")


def test_files_do_not_appear_where_they_cannot(served: ServeResult, tmp_path: Path) -> None:
    for write in (write_serving_page, write_serving_trace, write_serving_parquet):
        with pytest.raises(DataError, match="no directory"):
            write(served, tmp_path / "missing" / "x")

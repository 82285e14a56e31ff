"""Every control of every page is used once in a browser, and the server hears of it; no error in the console."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from dashboard_browser import Browser

from effsim.dashboard.app import build_app
from effsim.dashboard.service import Service

pytestmark = pytest.mark.slow
USED = ("value", "n_clicks", "clickData")
"""Properties that change when somebody uses a component."""


@pytest.fixture(scope="module")
def controls() -> Iterator[set[str]]:
    """``id.property`` of all controls that callbacks of the server listen to."""
    service = Service()
    callbacks = build_app(service).server.test_client().get("/_dash-dependencies").json
    heard = [one for found in callbacks if not found["clientside_function"] for one in found["inputs"]]
    yield {f"{one['id']}.{one['property']}" for one in heard if one["property"] in USED}
    service.close()


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """A file of every section, as a visitor would send it."""
    study = {
        "kind": "study",
        "name": "small",
        "hardware": "gpu_a100",
        "workload": "llama7b_decode",
        "reading": "roofline",
        "parameters": [
            {"path": "hardware.memory.bandwidth", "range": {"low": "1 TB/s", "high": "4 TB/s"}},
            {"path": "workload.batch", "range": {"low": 1, "high": 8, "integer": True}},
        ],
        "method": "random",
        "samples": 24,
        "objectives": [{"name": "time_s", "goal": "min"}, {"name": "energy_j", "goal": "min"}],
    }
    plan = {
        "kind": "plan",
        "name": "small plan",
        "workload": "llama3_8b_long_context",
        "set": ["workload.serving.arrivals.requests=8", "workload.serving.arrivals.rate=1"],
        "slo": {"ttft": {"p95": "10 s"}, "tpot": {"p95": "100 ms"}},
        "candidates": [{"hardware": "gpu_h100", "name": "ours", "price": {"value": "3 USD/h", "kind": "assumed", "source": "a test"}}],
        "parallelism": [{"tensor": 1}],
        "most_devices": 2,
        "finalists": 1,
        "upgrades": False,
    }  # fmt: skip
    service = Service()
    texts = {
        "hardware": "extends: gpu_a100\nname: mine\nprovenance: {kind: assumed, source: a test}\n",
        "workloads": service.shelf.text("workloads", "llama7b_decode"),
        "loads": service.shelf.text("workloads", "llama3_8b_long_context"),
        "studies": json.dumps(study),
        "plans": json.dumps(plan),
    }
    service.close()
    for name, text in texts.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    return {name: str(tmp_path / f"{name}.yaml") for name in texts}


def unused(prefix: str, controls: set[str], triggered: set[str]) -> set[str]:
    """Controls of a page that nobody has used."""
    return {name for name in controls if name.startswith(prefix)} - triggered


def saves(browser: Browser, names: list[str]) -> None:
    for name in names:
        browser.use(name)


def of(controls: set[str], prefix: str) -> list[str]:
    """Ids of the buttons whose names start so."""
    return sorted(name.removesuffix(".n_clicks") for name in controls if name.startswith(prefix))


def drawn_click(browser: Browser, graph: str) -> None:
    """A click on the first point of a figure, as Plotly reports one."""
    browser.find(f"[id='{graph}'] .main-svg")
    browser.driver.execute_script(
        "const g = document.querySelector(`[id='${arguments[0]}'] .js-plotly-plot`);"
        "const t = g.data.find(t => t.customdata), c = t.customdata, n = Array.isArray(c) ? c[0] : 0;"
        "g.emit('plotly_click', {points: [{curveNumber: g.data.indexOf(t), pointNumber: 0, data: t, fullData: t,"
        " customdata: n, x: 0, y: 0}], event: {}});",
        graph,
    )
    browser.settle(0.3)


def test_run(browser: Browser, controls: set[str], triggered: set[str], files: dict[str, str]) -> None:
    browser.open("/?hardware=gpu_a100&workload=llama7b_decode")
    browser.use("run-hardware", "gpu_a10")
    browser.use("run-workload", "llama7b_prefill")
    browser.use("run-hardware-upload", files["hardware"])
    browser.use("run-workload-upload", files["workloads"])
    browser.use("run-engine", "analytic")
    browser.use("run-changes", "workload.batch=2")
    browser.use("run-operator")
    browser.use("run-kind")
    for name in ("roofline", "operators"):
        drawn_click(browser, f"run-figure-{name}")
    saves(browser, of(controls, "run-save-"))
    assert not browser.all("#run-report > .error")
    assert unused("run-", controls, triggered) == set()


def test_what_if(browser: Browser, controls: set[str], triggered: set[str], files: dict[str, str]) -> None:
    browser.open("/what-if?hardware=gpu_a100&workload=llama7b_decode")
    browser.use("what-hardware", "gpu_a10")
    browser.use("what-workload", "llama7b_prefill")
    browser.use("what-hardware-upload", files["hardware"])
    browser.use("what-workload-upload", files["workloads"])
    browser.use("what-engine", "roofline")
    browser.use("what-group", "")
    browser.use("what-search", "bandwidth")
    browser.use('{"path":"hardware.memory.bandwidth","type":"what-slider"}')
    for name in ("what-pin-now", "what-unpin", "what-reset", *of(controls, "what-save-")):
        browser.use(name)
    assert not browser.all("#what-report .error, #what-said .error")
    assert unused("what-", controls, triggered) == set()


def test_compare(browser: Browser, controls: set[str], triggered: set[str], files: dict[str, str]) -> None:
    browser.open("/compare?hardware=gpu_a100&workload=llama7b_decode&engine=roofline")
    browser.use("compare-hardware", "gpu_h100")
    browser.use("compare-workload", "llama7b_prefill")
    browser.use("compare-hardware-upload", files["hardware"])
    browser.use("compare-workload-upload", files["workloads"])
    browser.use("compare-engine", "analytic")
    browser.use("compare-bars")
    browser.use("compare-changes", "workload.batch=2")
    browser.until(lambda: len(browser.all("#compare-table tbody tr")) == 9, "nine pairs")
    saves(browser, of(controls, "compare-save-"))
    assert not browser.all("#compare-saved .error")
    assert unused("compare-", controls, triggered) == set()


def test_serve(browser: Browser, controls: set[str], triggered: set[str], files: dict[str, str]) -> None:
    browser.open("/serve?hardware=gpu_h100&workload=llama3_70b_serve")
    browser.use("serve-hardware", "gpu_h200")
    browser.use("serve-workload-upload", files["loads"])
    browser.use("serve-hardware-upload", files["hardware"])
    browser.open("/serve?hardware=gpu_h100&workload=llama3_70b_serve")
    option = browser.find("#serve-workload")
    option.click()
    browser.until(lambda: [e for e in browser.all("[role=option]") if "llama3_8b_long_context" in e.text], "it")[
        0
    ].click()
    browser.settle()
    browser.use("serve-load")
    for name, value in (("rate", "2"), ("ttft", "20 s"), ("tpot", "200 ms"), ("replicas", "2"), ("seed", "3")):
        browser.use(f"serve-{name}", value)
    browser.use("serve-policy", "static")
    browser.use("serve-changes", "workload.serving.arrivals.requests=20000 workload.serving.scheduler.policy=null")
    browser.click("#serve-start")
    browser.until(lambda: browser.find("#serve-cancel").is_displayed(), "the work")
    browser.use("serve-cancel")
    browser.until(lambda: "Cancelled" in browser.text(), "the end of the work")
    browser.use("serve-changes", "workload.serving.arrivals.requests=30")
    browser.use("serve-start")
    browser.find("#serve-latencies")
    browser.settle()
    saves(browser, of(controls, "serve-save-"))
    browser.click("#serve-curve-start")
    browser.until(lambda: browser.find("#serve-curve-cancel").is_displayed(), "the load curve")
    browser.use("serve-curve-cancel")
    assert not browser.all("#serve-said .error")
    assert unused("serve-", controls, triggered) == set()


def test_plan(browser: Browser, controls: set[str], triggered: set[str], files: dict[str, str]) -> None:
    browser.open("/plan")
    browser.use("plan-file")
    browser.click("#plan-start")
    browser.until(lambda: browser.find("#plan-cancel").is_displayed(), "the work")
    browser.use("plan-cancel")
    browser.until(lambda: "Cancelled" in browser.text(), "the end of the work")
    browser.use("plan-file-upload", files["plans"])
    browser.use("plan-load")
    browser.use("plan-load-exact", "1.5")
    browser.use("plan-headroom", "5 %")
    browser.use("plan-objective")
    browser.use('{"name":"ours","type":"plan-price"}', "4")
    browser.use("plan-seed", "2")
    browser.use("plan-changes", "plan.most_devices=3")
    browser.use("plan-start")
    browser.find("#plan-winner")
    browser.settle()
    saves(browser, of(controls, "plan-save-"))
    assert '{"name":"ours","type":"plan-price"}.value' in triggered
    assert unused("plan-", controls, triggered) == set()


def test_sweep(browser: Browser, controls: set[str], triggered: set[str], files: dict[str, str]) -> None:
    for name in of(controls, "sweep-example-"):
        browser.open("/sweep")
        browser.use(name)
    browser.use("sweep-study", "gpu_what_if")
    browser.click("#sweep-run")
    browser.until(lambda: browser.find("#sweep-cancel").is_displayed(), "the work")
    browser.click("#sweep-cancel")
    browser.until(lambda: browser.find("#sweep-run").is_displayed(), "the end of the work")
    browser.use("sweep-study-upload", files["studies"])
    browser.use("sweep-run")
    browser.find("#sweep-scatter .main-svg")
    browser.settle()
    for name in ("x", "y", "colour", "log", "heat-x", "heat-y", "heat-z", "how"):
        browser.use(f"sweep-{name}")
    browser.driver.execute_script(
        "const g = document.querySelector('#sweep-parallel .js-plotly-plot'), r = g.data[0].dimensions[0].range;"
        "Plotly.restyle(g, {'dimensions[0].constraintrange': [[[r[0], (r[0] + r[1]) / 2]]]}, [0]);"
    )
    browser.until(lambda: "points are selected" in browser.find("#sweep-count").text, "what is brushed")
    browser.use("sweep-clear")
    browser.until(lambda: "nothing is selected" in browser.find("#sweep-count").text, "no selection")
    drawn_click(browser, "sweep-scatter")
    browser.until(lambda: browser.find("#sweep-point").get_attribute("value") != "", "the point that was clicked")
    browser.use("sweep-point", "3")
    browser.until(lambda: "Point 3" in browser.find("#sweep-panel").text, "the point that was typed")
    browser.find("#sweep-full")
    saves(browser, [name for name in of(controls, "sweep-save-") if browser.find(f"#{name}").is_displayed()])
    hidden = {f"{name}.n_clicks" for name in of(controls, "sweep-save-") if not browser.find(f"#{name}").is_displayed()}
    left = unused("sweep-", controls, triggered)
    assert left <= hidden | {"sweep-table.value"}, left


def test_accuracy(browser: Browser, controls: set[str], triggered: set[str], files: dict[str, str]) -> None:
    browser.open("/accuracy")
    browser.use("accuracy-save")
    for name in ("where", "what", "check"):
        browser.use(f"accuracy-{name}")
    browser.use("accuracy-hardware", "gpu_h100")
    browser.use("accuracy-hardware-upload", files["hardware"])
    browser.use("accuracy-kinds")
    browser.use("accuracy-find", "memory")
    assert unused("accuracy-", controls, triggered) == set()

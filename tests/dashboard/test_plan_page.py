"""The Plan page: its answer is that of the command line, its controls are exact assignments, its winner can be served."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("dash")

from dash import no_update
from dashboard_browser import Browser, text

import effsim
from effsim.dashboard import exports, plan_form, plan_report, plan_serve
from effsim.dashboard.jobs import Job
from effsim.dashboard.pages import plan as page
from effsim.dashboard.plan_form import Asked, Form
from effsim.dashboard.service import Service
from effsim.dashboard.uploads import receive
from effsim.dashboard.view import View
from effsim.dashboard.work import WORK
from effsim.errors import DataError, EffsimError
from effsim.explore.plan.plan import PlanResult
from effsim.spec.confine import confined

SMALL = """
kind: plan
name: A few long documents
workload: llama3_8b_long_context
set: [workload.serving.arrivals.requests=8, workload.serving.arrivals.rate=1]
slo: {ttft: {p95: 10 s}, tpot: {p95: 100 ms}}
candidates:
  - {hardware: gpu_h100, name: H100 of ours, price: {value: 3 USD/h, kind: assumed, source: a test}}
parallelism: [{tensor: 1}]
most_devices: 2
finalists: 1
upgrades: false
whatif: [{name: half as much again, load: 1.5}]
"""
CHANGED: dict[str, Any] = {"load": 1.5, "prices": (("H100 of ours", "9 USD/h"),), "seed": 2}


@pytest.fixture(scope="module")
def service(shared: Service) -> Service:
    """One for all tests here: answers are remembered."""
    return shared


@pytest.fixture(scope="module")
def small(service: Service) -> str:
    return receive(service.shelf, "plans", "small.yaml", SMALL.encode()).token


_answers: dict[tuple[int, Asked], PlanResult] = {}


def answer(service: Service, asked: Asked) -> PlanResult:
    """The work of the page, done here as its process does it, once."""
    key = id(service), asked
    if key not in _answers:
        _answers[key] = worked(service, asked)
    return _answers[key]


def worked(service: Service, asked: Asked) -> PlanResult:
    arguments = json.loads(json.dumps(plan_form.request(service, asked)))
    with confined(service.shelf.folder):
        result: PlanResult = WORK["plan"](arguments, iter)
    return result


def test_the_answer_is_that_of_the_command_line(service: Service, small: str, tmp_path: Any) -> None:
    asked = Asked(small, **CHANGED)
    result = answer(service, asked)
    file = tmp_path / "small.yaml"
    file.write_text(SMALL)
    changes = [
        'plan.prices={"H100 of ours": "9 USD/h"}',
        "workload.serving.arrivals.rate=1.5",
        "workload.serving.arrivals.requests=12",
    ]
    straight = effsim.plan(str(file), set=changes, seed=2)
    assert result.as_dict() == straight.as_dict()
    assert result.answer.winner is not None
    said = text(plan_report.report(service, asked, result))
    for found in (result.answer.winner, *result.answer.fleets):
        assert all(json.dumps(cell, ensure_ascii=False)[1:-1] in said for cell in plan_report.say.cells(found))
    assert "small.yaml" in plan_report.command(service, asked)
    # Taken away as a file, it is the same plan.
    written = plan_report.plan_files(service, asked)
    for name, content in written.items():
        (tmp_path / name).write_text(content)
    assert effsim.plan(str(tmp_path / list(written)[-1])).as_dict() == straight.as_dict()


def test_a_load_is_that_of_a_what_if(service: Service, small: str) -> None:
    before, changed = answer(service, Asked(small)), answer(service, Asked(small, load=1.5))
    one, other = before.whatif[0].answer.winner, changed.answer.winner
    assert one is not None
    assert other is not None
    assert plan_report.say.cells(one) == plan_report.say.cells(other)


def test_the_winner_is_served_with_its_own_numbers(service: Service, small: str) -> None:
    result = answer(service, Asked(small))
    served = plan_serve.serve_view(service, Asked(small), result)
    assert served is not None
    straight = effsim.serve(served.hardware, served.workload, set=list(served.changes), seed=served.seed)
    winner = result.answer.winner
    assert winner is not None
    assert winner.measured is not None
    planned = winner.measured.served
    for name in ("ttft_s", "tpot_s", "itl_s", "e2e_s", "energy_j", "cost_usd", "utilisation", "peak_cache_fraction"):
        assert getattr(straight, name) == getattr(planned, name), name
    assert straight.slo == planned.slo
    # A plan with a workload of its own cannot be said as a view.
    import dataclasses

    other = dataclasses.replace(result, plan=result.plan.model_copy(update={"workload": "somewhere.yaml"}))
    assert plan_serve.serve_view(service, Asked(small), other) is None


@pytest.mark.slow
def test_no_solution_is_said_with_the_nearest_miss(service: Service, small: str) -> None:
    asked = Asked(small, rest=("plan.slo.ttft.p95=1 ms", "plan.whatif=[]"))
    result = answer(service, asked)
    assert not result.solved
    said = text(plan_report.report(service, asked, result))
    assert "No fleet keeps these promises" in said
    assert all(json.dumps(line, ensure_ascii=False)[1:-1] in said for line in plan_report.say.nearest_lines(result))


def test_a_link_brings_every_control_back(service: Service) -> None:
    prices = {"H100": "2 USD/h"}
    form = Form("llama70b_chat", "2", "10 %", "energy", ("plan.most_devices=32",), "5", prices)
    back = Form.of_view(View.parse(form.asked.view.query))
    assert back.asked == form.asked
    laid = text(page.layout(service, View.parse(form.asked.view.query), []))
    assert all(
        json.dumps(value, ensure_ascii=False)[1:-1] in laid
        for value in ("2 USD/h", "10 %", "energy", "plan.most_devices=32")
    )
    assert plan_form.changes_of(service, form.asked) == (
        "plan.most_devices=32",
        "plan.headroom=10 %",
        "plan.objective=energy",
        'plan.prices={"H100": "2 USD/h"}',
        "workload.serving.arrivals.rate=11.0",
        "workload.serving.arrivals.requests=1200",
    )


def test_slider_and_number_say_the_same() -> None:
    assert page.moved("plan-load", 0.301, "") == (no_update, "2")
    assert page.moved("plan-load", 0, "3") == (no_update, "")
    assert page.moved("plan-load-exact", 0, "10") == (1.0, no_update)
    assert page.moved("plan-load-exact", 0, {}) == (0.0, no_update)


def test_a_price_is_in_dollars_an_hour() -> None:
    form = Form(prices={"H100": "2.5", "H200": ""})
    assert form.asked.prices == (("H100", "2.5 USD/h"),)


@pytest.mark.parametrize(
    "values",
    [
        [None] * 8,
        [{}, [], 3, None, "", "", [], []],
        ["../../etc/passwd", *[""] * 5, [], []],
        ["llama70b_chat", "-1", *[""] * 4, [], []],
        ["llama70b_chat", "inf", *[""] * 4, [], []],
        ["llama70b_chat", "", "lots", *[""] * 3, [], []],
        ["llama70b_chat", *[""] * 3, "plan.workload=/etc/passwd", "", [], []],
        ["llama70b_chat", *[""] * 4, "x", [], []],
        ["llama70b_chat", *[""] * 5, ["1"], [{"type": "plan-price", "name": "nobody"}]],
        ["llama70b_chat", *[""] * 5, [{"a": 1}], [{"type": "plan-price", "name": "H100"}]],
        ["llama70b_chat", *[""] * 5, ["free"], [{"type": "plan-price", "name": "H100"}]],
    ],
)
def test_forms_that_are_wrong_or_forged_are_errors(service: Service, values: list[Any]) -> None:
    with pytest.raises(EffsimError):
        page.PLAN.request(service, values)
    assert page.linked(values) is no_update or isinstance(page.linked(values), dict)


def test_too_many_requests_name_the_command_line(service: Service) -> None:
    with pytest.raises(DataError, match="command line"):
        plan_form.request(service, Asked("llama70b_chat", load=100.0))


def test_what_is_saved_is_the_answer(service: Service, small: str) -> None:
    asked = Asked(small, **CHANGED)
    result = answer(service, asked)
    job = Job("c" * 24, "plan", plan_form.request(service, asked), state="done", result=result)
    service.jobs._jobs[job.key] = job
    sent = {what: page.saved(service, {"key": job.key}, what)[0] for what in plan_report.EXPORTS}
    assert json.loads(sent["json"]["content"]) == json.loads(json.dumps(result.as_dict()))
    assert "A few long documents" in sent["html"]["content"]
    assert isinstance(exports.download(plan_report.plan_files(service, asked)), dict)
    assert page.saved(service, {"key": "d" * 24}, "json")[0] is no_update


@pytest.mark.slow
def test_the_page_in_a_browser(browser: Browser) -> None:
    few = "set=workload.serving.arrivals.requests%3D40&set=plan.whatif%3D%5B%5D"
    browser.open(f"/plan?plan=long_documents&{few}")
    assert "Nothing has been planned" in browser.text()
    browser.find("#plan-start").click()
    browser.find("#plan-winner")
    browser.settle()
    changes = ["workload.serving.arrivals.requests=40", "plan.whatif=[]"]
    straight = effsim.plan("long_documents", set=changes)
    assert straight.answer.winner is not None
    assert browser.find("#plan-winner").text == plan_report.say.fleet_text(straight.answer.winner)
    assert browser.find("[data-key=hour] b").text == f"{straight.answer.winner.usd_per_hour:,.2f} US$"
    assert browser.wide() <= 0
    browser.driver.execute_script("document.getElementById('plan-serve').click()")
    browser.find("#serve-start").click()
    browser.find("#serve-latencies")
    browser.settle()

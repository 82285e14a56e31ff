"""The Serve page: its numbers are those of the command line, its links bring a view back, its limits hold."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

pytest.importorskip("dash")

from dash import no_update
from dash.exceptions import PreventUpdate
from dashboard_browser import Browser, text
from hypothesis import given
from hypothesis import strategies as st

import effsim
from effsim.dashboard import serve_form, serve_report
from effsim.dashboard.jobs import Job, key_of
from effsim.dashboard.pages import serve as page
from effsim.dashboard.serve_form import Asked, Form, split
from effsim.dashboard.service import Service
from effsim.dashboard.serving_kept import MOST_REQUESTS, Counted, Kept
from effsim.dashboard.view import View
from effsim.dashboard.work import WORK
from effsim.errors import DataError, EffsimError
from effsim.serving.metrics import ServeResult
from effsim.spec.confine import confined

HARDWARE, WORKLOAD = "gpu_h100", "llama3_70b_serve"
FEW = "workload.serving.arrivals.requests=60"
ASKED = Asked(HARDWARE, WORKLOAD, (FEW, "workload.serving.arrivals.rate=12"), seed=3)


@pytest.fixture(scope="module")
def straight() -> ServeResult:
    """What the public function gives."""
    return effsim.serve(HARDWARE, WORKLOAD, set=list(ASKED.changes), seed=3)


@pytest.fixture(scope="module")
def service(shared: Service) -> Service:
    """One for all tests here: answers are remembered."""
    return shared


def worked(service: Service, kind: str, arguments: dict[str, Any]) -> Any:
    """The work of a kind, done here as its process does it."""
    with confined(service.shelf.folder):
        return WORK[kind](json.loads(json.dumps(arguments)), iter)


@pytest.mark.parametrize("process", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_job_gives_what_the_public_function_gives(service: Service, straight: ServeResult, process: bool) -> None:
    asked = serve_form.request(service, ASKED)
    if process:
        service.jobs._jobs.pop(key_of("serve", asked), None)
        job = service.jobs.start("serve", asked)
        while not job.ended:
            time.sleep(0.05)
    else:
        job = Job(key_of("serve", asked), "serve", asked, state="done", result=worked(service, "serve", asked))
        service.jobs._jobs[job.key] = job
    assert job.state == "done", job.message
    full = job.result.full()
    assert full.as_dict() == straight.as_dict()
    assert straight.served is not None
    assert full.served.requests != []
    ended = {"key": job.key}
    for what in serve_report.EXPORTS:
        sent, said = page.saved(service, ended, what)
        assert sent["content"], what
        assert said is no_update
    sent = page.saved(service, ended, "json")[0]["content"]
    assert json.loads(sent) == json.loads(json.dumps(straight.as_dict()))
    html = page.saved(service, ended, "html")[0]["content"]
    assert f"{straight.goodput_requests_per_s:.3g} requests/s" in html


def test_what_is_kept_draws_the_same_pictures(service: Service, straight: ServeResult) -> None:
    from effsim.report.serving_figures import latency_figures, queue_figure, rate_figure
    from effsim.report.serving_lines import over_time

    full = Kept.of(straight).full()
    for one, other in zip(latency_figures(full), latency_figures(straight), strict=True):
        assert one[1].to_plotly_json() == other[1].to_plotly_json()
    assert over_time(full) == over_time(straight)
    assert queue_figure(over_time(full)) == queue_figure(over_time(straight))
    assert rate_figure(full) == rate_figure(straight)
    for one, other in zip(full.served.requests, straight.served.requests, strict=True):  # type: ignore[union-attr]
        assert (one.ttft_s, one.tpot_s, one.e2e_s, one.replica) == (
            other.ttft_s,
            other.tpot_s,
            other.e2e_s,
            other.replica,
        )


def test_the_page_says_the_numbers(service: Service, straight: ServeResult) -> None:
    said = text(serve_report.report(service, ASKED, straight))
    assert straight.ttft_s is not None
    from effsim.units import format_quantity

    for value in straight.ttft_s.values():
        assert format_quantity(value, "time") in said
    assert f"{straight.goodput_requests_per_s:.3g} requests/s" in said
    assert "--seed 3" in said
    assert len(serve_report.requests_csv(straight).splitlines()) == 1 + straight.completed


def test_every_point_of_a_load_curve_is_a_served_load(service: Service) -> None:
    few = Asked(HARDWARE, WORKLOAD, ("workload.serving.arrivals.requests=10",))
    points = worked(service, "load_curve", serve_form.curve_request(service, few))
    assert [times for times, _ in points] == list(serve_form.LOADS)
    times, point = points[-1]
    changes = [*few.changes, f"workload.serving.arrivals.rate={6.0 * times!r}"]
    wanted = effsim.serve(HARDWARE, WORKLOAD, set=changes).as_dict()
    assert {k: v for k, v in point.as_dict().items() if k not in ("history", "pools")} == {
        k: v for k, v in wanted.items() if k not in ("history", "pools")
    }
    assert "promised 1 s" in json.dumps(serve_report.curve(points, offered=6.0, unit="requests/s"), default=_json)


def _json(part: Any) -> Any:
    return part.to_plotly_json()


def test_a_link_brings_every_control_back(service: Service) -> None:
    named = {"rate": "12.5", "ttft": "2 s", "tpot": "40 ms", "policy": "static", "replicas": "3"}
    form = Form(HARDWARE, WORKLOAD, named, (FEW,), "7")
    asked = form.asked(service)
    assert asked.changes == (
        FEW,
        "workload.serving.arrivals.rate=12.5",
        "workload.serving.slo.ttft=2 s",
        "workload.serving.slo.tpot=40 ms",
        "workload.serving.scheduler.policy=static",
        "workload.serving.replicas=3",
    )
    back = Form.of_view(service, View.parse(asked.view.query))
    assert (back.controls, back.rest, back.asked(service)) == (named, (FEW,), asked)
    laid = text(page.layout(service, View.parse(asked.view.query), []))
    assert all(value in laid for value in (*named.values(), FEW))


PATHS = (*serve_form.CONTROLS.values(), serve_form.SPEED, "workload.serving", "workload.serving.slo", "workload.batch")


@given(
    st.lists(st.tuples(st.sampled_from(PATHS), st.sampled_from(["1", "2 s", "null", ""])), max_size=6),
    st.sampled_from([serve_form.RATE, serve_form.SPEED]),
)
def test_controls_never_change_what_a_link_means(pairs: list[tuple[str, str]], load: str) -> None:
    changes = tuple(f"{path}={value}" for path, value in pairs)
    controls, rest = split(changes, load)
    mine = {**serve_form.CONTROLS, "rate": load}
    back = [*rest, *(f"{mine[name]}={value}" for name, value in controls.items())]
    assert sorted(back) == sorted(changes)
    paths = [path for path, _ in pairs]
    for name in controls:  # its place in the list does not matter
        assert sum(p == mine[name] or mine[name].startswith(f"{p}.") for p in paths) == 1


def test_too_many_requests_name_the_command_line(service: Service) -> None:
    for change in (
        f"workload.serving.arrivals.requests={MOST_REQUESTS + 1}",
        "workload.serving.arrivals.duration=1e6 s",
    ):
        with pytest.raises(DataError, match="command line"):
            serve_form.request(service, Asked(HARDWARE, WORKLOAD, ("workload.serving.arrivals.requests=null", change)))
    with pytest.raises(DataError, match="command line"):
        list(Counted(iter(range(MOST_REQUESTS + 1)), 0))


@pytest.mark.parametrize(
    "values",
    [
        [None] * 9,
        [{}, [], 3, None, "", "", "", "", ""],
        ["../../etc/passwd", WORKLOAD, *[""] * 7],
        [HARDWARE, WORKLOAD, "x", *[""] * 6],
        [HARDWARE, WORKLOAD, "nan", *[""] * 6],
        [HARDWARE, WORKLOAD, *[""] * 5, "workload.batch", ""],
        [HARDWARE, WORKLOAD, *[""] * 6, "1.5"],
        [HARDWARE, WORKLOAD, *[""] * 5, "workload.serving.arrivals.trace=/etc/passwd", ""],
    ],
)
def test_forms_that_are_wrong_or_forged_are_errors(service: Service, values: list[Any]) -> None:
    with pytest.raises(EffsimError):
        page.SERVE.request(service, values)
    assert page.linked(service, values) is no_update or isinstance(page.linked(service, values), dict)


def test_the_slider_and_the_rate_say_the_same(service: Service) -> None:
    at, rate, hint, *_ = page.moved(service, "serve-load", [0.3010, "", WORKLOAD, ""])
    assert (at, rate) == (no_update, "12")
    assert "2 ×" in hint
    at, rate, *_ = page.moved(service, "serve-rate", [0.0, "12", WORKLOAD, ""])
    assert (at, rate) == (pytest.approx(0.30), no_update)
    assert page.moved(service, "serve-workload", [0.3, "12", "llama3_70b_chat", ""])[:2] == (0.0, "")
    for forged in ([{}, "", WORKLOAD, ""], [None, "", WORKLOAD, ""]):
        with pytest.raises(PreventUpdate):
            page.moved(service, "serve-load", forged)


def test_workloads_with_a_load_stand_first(service: Service) -> None:
    from effsim.dashboard.pickers import options

    shown = serve_form.with_serving(service, options(service, "workloads", []))
    marked = [option["value"] for option in shown if "load" in option["label"].rpartition(" · ")[2]]
    assert set(marked) >= {"llama3_70b_serve", "llama3_70b_chat", "llama3_8b_long_context"}
    assert [option["value"] for option in shown[: len(marked)]] == marked
    assert len(shown) == len(service.shelf.names("workloads"))


def test_a_load_of_the_most_requests_is_held_in_megabytes() -> None:
    import dataclasses

    from effsim.serving.fleet import Served
    from effsim.serving.request import Request

    small = effsim.serve(HARDWARE, WORKLOAD, set=["workload.serving.arrivals.requests=2"])
    many = [Request(i, 0.0, 1, 1, first_token_s=1.0, finish_s=2.0) for i in range(MOST_REQUESTS)]
    kept = Kept.of(dataclasses.replace(small, served=Served(many, [], [], 2.0, 0)))
    assert kept.size < 6 * 2**20
    with pytest.raises(DataError, match="command line"):
        Kept.of(dataclasses.replace(small, served=None, history=[[(0.0, 0, 0, 0.0)] * 2000] * 300))


@pytest.mark.slow
def test_the_page_in_a_browser(browser: Browser) -> None:
    browser.open(f"/serve?hardware={HARDWARE}&workload={WORKLOAD}&set={FEW.replace('=', '%3D')}")
    assert "Nothing has been served" in browser.text()
    browser.find("#serve-start").click()
    browser.find("#serve-latencies")
    straight = effsim.serve(HARDWARE, WORKLOAD, set=[FEW])
    card = browser.find("[data-key=goodput] b").text
    assert card == f"{straight.goodput_requests_per_s:.3g} requests/s"
    browser.settle()
    browser.until(lambda: browser.find("#serve-curve-start").is_displayed())
    browser.driver.execute_script("document.getElementById('serve-curve-start').click()")
    browser.find("#serve-curve-table")
    browser.settle()
    assert browser.wide() <= 0
    browser.open(browser.driver.current_url.removeprefix(browser.base), width=390, height=844, dark=True)
    browser.find("#serve-latencies")  # the same request is found again
    browser.settle()
    assert browser.wide() <= 0

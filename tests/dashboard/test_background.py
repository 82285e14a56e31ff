"""Work in the background: nothing without a click, what was asked before is found, what is ended ends, what is forged
does nothing.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

pytest.importorskip("dash")

from dash import no_update
from dashboard_browser import text

from effsim.dashboard import background, serve_form
from effsim.dashboard.background import Background
from effsim.dashboard.jobs import Job
from effsim.dashboard.pages.plan import PLAN
from effsim.dashboard.pages.serve import CURVE, SERVE
from effsim.dashboard.service import Service

MANY = ("workload.serving.arrivals.requests=50000",)
FORGED = (None, "x", 7, [], {}, {"key": None}, {"key": 3}, {"key": ["a"]}, {"key": "x" * 100_000}, {"key": "../../etc"})


def _request(service: Service, values: Sequence[Any]) -> Mapping[str, Any]:
    return serve_form.request(service, serve_form.Asked(changes=MANY, seed=int(values[0])))


WORK = Background("t", "serve", "Serve", "serving", "requests", _request, lambda service, job: "the report", "idle")


def until(ready: Callable[[], Any]) -> Any:
    end = time.monotonic() + 60.0
    while time.monotonic() < end:
        if found := ready():
            return found
        time.sleep(0.02)
    raise AssertionError("waited in vain")


def running(service: Service, seed: int) -> tuple[dict[str, Any], Job, int]:
    """What the browser holds of a job that runs, the job and its process."""
    before = {p.pid for p in multiprocessing.active_children()}
    held, said = background.asked(service, WORK, [seed], None, start=True)
    job = WORK.job(service, held)
    assert job is not None
    assert said is None
    pid = until(lambda: next((p.pid for p in multiprocessing.active_children() if p.pid not in before), None))
    until(lambda: job.state == "running")
    return held, job, pid


def gone(pid: int) -> bool:
    multiprocessing.active_children()  # collects those that ended
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_nothing_starts_without_a_click(service: Service) -> None:
    held, said = background.asked(service, WORK, [0], None, start=False)
    assert held is no_update
    assert "idle" in text(said)
    assert service.jobs.find("serve", _request(service, [0])) is None


def test_cancel_ends_the_process(service: Service) -> None:
    held, job, pid = running(service, 1)
    hidden, _, _, words, stopped, ended = background.watched(service, WORK, held)
    assert (hidden, stopped, ended) == (False, False, None)
    assert "serving" in words
    assert background.asked(service, WORK, [1], None, start=False)[0] == {"key": job.key, "count": 1}
    other, said = background.asked(service, WORK, [2], held, start=False)
    assert other is no_update
    assert "other settings" in text(said)
    service.jobs.cancel(job.key)
    until(lambda: job.ended)
    until(lambda: gone(pid))
    ended = background.watched(service, WORK, held)[-1]
    assert "Cancelled" in text(background.shown(service, WORK, ended))
    assert background.asked(service, WORK, [1], None, start=False)[0] is no_update


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal here")
def test_a_killed_process_is_an_error_on_the_page_and_can_be_started_again(service: Service) -> None:
    held, job, pid = running(service, 3)
    os.kill(pid, signal.SIGKILL)
    until(lambda: job.ended)
    ended = background.watched(service, WORK, held)[-1]
    shown = text(background.shown(service, WORK, ended))
    assert '"error"' in shown
    assert "killed" in shown
    again, _ = background.asked(service, WORK, [3], held, start=True)
    assert again == {"key": job.key, "count": held["count"] + 1}  # another value, so that the page looks again
    fresh = WORK.job(service, again)
    assert fresh is not None
    assert not fresh.ended


@pytest.mark.parametrize("work", [SERVE, CURVE, PLAN])
@pytest.mark.parametrize("held", FORGED, ids=[str(n) for n in range(len(FORGED))])
def test_forged_names_of_jobs_do_nothing(service: Service, work: Background, held: Any) -> None:
    assert work.job(service, held) is None
    assert background.watched(service, work, held) == (True, None, None, "", True, None)
    assert background.shown(service, work, held) is None


def test_a_job_of_another_kind_is_none_of_a_page(service: Service) -> None:
    job = Job("a" * 24, "plan", {}, state="done")
    service.jobs._jobs[job.key] = job
    assert PLAN.job(service, {"key": job.key}) is job
    assert SERVE.job(service, {"key": job.key}) is None
    assert background.shown(service, SERVE, {"key": job.key}) is None


@pytest.mark.parametrize("message", ["out of memory; ask for less", "stopped after 3600 s"])
def test_what_failed_is_an_error_on_the_page(service: Service, message: str) -> None:
    job = Job("b" * 24, "serve", {}, state="failed", message=message)
    service.jobs._jobs[job.key] = job
    shown = text(background.shown(service, SERVE, {"key": job.key}))
    assert message in shown
    assert '"alert"' in shown


@pytest.mark.parametrize("bad", ["-1", "1.5", "x", "nan", "inf", "1e99", -1, 5.5, "9" * 40])
def test_numbers_of_a_form_are_whole(bad: Any) -> None:
    from effsim.errors import SpecError

    with pytest.raises(SpecError):
        background.whole_number(bad, "the seed", 0, 100)
    assert background.whole_number("", "the seed", 7, 100) == 7
    assert background.whole_number("42", "the seed", 7, 100) == 42


ODD: tuple[Any, ...] = (None, "x", -1, 1e308, True, [], [[1]], {}, {"key": {"a": 1}, "name": []}, "\0", "workload.=")


def _calls(app: Any) -> list[tuple[str, dict[str, Any]]]:
    """The callbacks of the two pages that run at the server."""
    mine = [(key, entry) for key, entry in app.callback_map.items() if "callback" in entry]
    return [(key, c) for key, c in mine if any(i["id"].startswith(("serve", "plan")) for i in c["inputs"])]


@pytest.mark.parametrize("odd", ODD, ids=[str(n) for n in range(len(ODD))])
def test_forged_calls_of_callbacks_are_answered_and_start_nothing(service: Service, odd: Any) -> None:
    from effsim.dashboard.app import build_app

    app = build_app(service)
    client = app.server.test_client()
    calls = _calls(app)
    assert len(calls) > 10
    for key, call in calls:
        outputs = [part.rsplit(".", 1) for part in key.strip(".").split("...")]
        wanted = [{"id": name, "property": prop} for name, prop in outputs]
        sent = [dict(part, value=odd) for part in call["inputs"] if not part["id"].startswith("{")]
        sent += [
            [{"id": {"type": "plan-price", "name": "H100"}, "property": part["property"], "value": odd}]
            for part in call["inputs"]
            if part["id"].startswith("{")
        ]
        state = [dict(part, value=odd) for part in call["state"]]
        one = sent[0] if isinstance(sent[0], dict) else sent[0][0]
        body = {
            "output": key,
            "outputs": wanted if key.startswith("..") else wanted[0],
            "inputs": sent,
            "state": state,
            "changedPropIds": [f"{one['id']}.{one['property']}"],
        }
        answer = client.post("/_dash-update-component", json=body, base_url="http://127.0.0.1")
        assert answer.status_code in (200, 204), (key, answer.get_data(as_text=True)[-2000:])
    assert not service.jobs._jobs

"""Long work: its states, and that no process outlives what it is for."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from effsim import DataError, sweep
from effsim.dashboard import jobs as jobs_module
from effsim.dashboard.jobs import MOST_WAITING, Job, Jobs, key_of


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    made = Jobs()
    yield made
    made.close()
    assert not multiprocessing.active_children()


def until(ready: Callable[[], Any], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.05)


def study(folder: Path, *, points: int) -> dict[str, Any]:
    """The arguments of a sweep of as many points."""
    file = folder / "study.yaml"
    file.write_text(
        f"""kind: study
name: small
hardware: gpu_a100
workload: llama3_8b_decode
parameters:
  - {{path: hardware.memory.bandwidth, range: {{low: 1 TB/s, high: 4 TB/s}}}}
method: sobol
samples: {points}
objectives:
  - {{name: time_per_token_s, goal: min}}
"""
    )
    return {"study": str(file), "out": str(folder / "out"), "root": str(folder)}


def test_the_same_request_is_the_same_work() -> None:
    assert key_of("sweep", {"a": 1, "b": 2}) == key_of("sweep", {"b": 2, "a": 1})
    assert key_of("sweep", {"a": 1}) != key_of("plan", {"a": 1})


def test_what_waits_is_limited_cancelled_and_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "_POLL_S", 0.01)
    jobs = Jobs(running_at_once=0)  # everything waits
    started = [jobs.start("sweep", {"n": n}) for n in range(MOST_WAITING)]
    assert jobs.start("sweep", {"n": 0}) is started[0] is jobs.find("sweep", {"n": 0})
    with pytest.raises(DataError, match="cancel one, or wait"):
        jobs.start("sweep", {"n": -1})
    jobs.cancel(started[0].key)
    until(lambda: started[0].state == "cancelled", 10)
    again = jobs.start("sweep", {"n": 0})
    assert again is not started[0]
    jobs.close()
    assert {job.state for job in [*started, again]} == {"cancelled"}
    with pytest.raises(DataError, match="ending"):
        jobs.start("sweep", {"n": 99})
    jobs.cancel("unknown")
    assert jobs.get("unknown") is None


def test_the_oldest_results_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "MOST_KEPT", 3)
    jobs = Jobs()

    def at_once(job: Job) -> None:
        job.result, job.state = job.arguments["n"], "done"

    monkeypatch.setattr(jobs, "_watch", at_once)
    for n in range(6):
        job = jobs.start("sweep", {"n": n})
        until(lambda job=job: job.ended, 10)
    assert [jobs.find("sweep", {"n": n}) is None for n in range(6)] == [True] * 3 + [False] * 3
    assert jobs.start("sweep", {"n": 5}).result == 5
    jobs.close()


def test_a_defect_of_the_work_is_words_and_goes_to_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    jobs = Jobs()
    job = jobs.start("sweep", {"n": 1})  # no root: an error of the program, not of the visitor
    until(lambda: job.ended, 60)
    jobs.close()
    assert job.state == "failed"
    assert job.message == "the work stopped for a reason nobody thought of; the server's log says more"
    assert "KeyError: 'root'" in capfd.readouterr().err


@pytest.mark.slow
def test_work_gives_what_the_function_gives(jobs: Jobs, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    arguments = study(tmp_path, points=16)
    job = jobs.start("sweep", arguments)
    until(lambda: job.ended)
    assert (job.state, job.message) == ("done", "")  # numba and pyarrow work within the limit of memory
    expected = sweep(arguments["study"], out=tmp_path / "mine")
    assert job.result.as_dict() | {"out": ""} == expected.as_dict() | {"out": ""}
    assert job.seconds > 0


@pytest.mark.slow
def test_work_is_confined_and_messages_name_files(jobs: Jobs, tmp_path: Path) -> None:
    jobs.readable = lambda message: message.replace("study.yaml", "mine.yaml")
    arguments = study(tmp_path, points=4)
    private = tmp_path.parent / "private.yaml"
    private.write_text("kind: gpu\nname: PLANTED\n")
    for hardware in (str(private), "../private.yaml", "/etc/passwd"):
        text = Path(arguments["study"]).read_text()
        (tmp_path / "other").mkdir(exist_ok=True)
        other = study(tmp_path / "other", points=4) | {"root": str(tmp_path / "other"), "which": hardware}
        Path(other["study"]).write_text(text.replace("gpu_a100", hardware))
        job = jobs.start("sweep", other)
        until(lambda job=job: job.ended)
        assert job.state == "failed"
        assert job.message.startswith("mine.yaml:3:11: no such file")
        assert "PLANTED" not in job.message
        assert str(tmp_path) not in job.message.replace(hardware, "")
        assert jobs.start("sweep", other) is not job  # what failed is started again
        jobs.cancel(key_of("sweep", other))
        until(lambda other=other: jobs.find("sweep", other).ended)


@pytest.mark.slow
def test_running_work_shows_progress_and_ends_at_once(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    jobs = Jobs()
    job = jobs.start("sweep", study(tmp_path, points=100_000))
    until(lambda: job.done > 0)
    (child,) = multiprocessing.active_children()
    if os.path.isdir(f"/proc/{child.pid}/fd"):
        held = [os.readlink(f"/proc/{child.pid}/fd/{number}") for number in os.listdir(f"/proc/{child.pid}/fd")]
        assert not [name for name in held if name.startswith("socket:")]  # nothing of the server's
    jobs.cancel(job.key)
    until(lambda: job.ended, 20)
    assert job.state == "cancelled"
    until(lambda: not multiprocessing.active_children(), 20)

    killed = jobs.start("sweep", job.arguments)
    until(lambda: killed.state == "running" and multiprocessing.active_children())
    for process in multiprocessing.active_children():
        process.kill()
    until(lambda: killed.ended, 20)
    assert killed.message == "the work ended without a result: it was killed, perhaps for want of memory"
    jobs.close()

    hasty = Jobs(limit_s=0.5)
    late = hasty.start("sweep", job.arguments)
    until(lambda: late.ended, 20)
    assert (late.state, late.message) == ("failed", "stopped after 0 s")
    hasty.close()
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_work_ends_with_a_server_that_is_killed(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    arguments = study(tmp_path, points=100_000)
    script = tmp_path / "server.py"
    script.write_text(
        "import json, multiprocessing, sys, time\n"
        "from effsim.dashboard.jobs import Jobs\n"
        "if __name__ == '__main__':\n"
        "    jobs = Jobs()\n"
        "    job = jobs.start('sweep', json.loads(sys.argv[1]))\n"
        "    while not job.done: time.sleep(0.05)\n"
        "    print(multiprocessing.active_children()[0].pid, flush=True)\n"
        "    time.sleep(100)\n"
    )
    server = subprocess.Popen([sys.executable, script, json.dumps(arguments)], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    child = int(server.stdout.readline())
    server.kill()
    server.communicate(timeout=20)
    until(lambda: not _alive(child), 20)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rsplit(")", 1)[1].split()[0] != "Z" if status.exists() else True
    except OSError:
        return False

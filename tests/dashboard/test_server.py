"""The server: what it refuses, that no request brings it down, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import random
import runpy
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from effsim.dashboard.app import build_app, serve
from effsim.dashboard.server import MAX_REQUEST_BYTES, address, check_address, is_local, is_open, warning
from effsim.dashboard.service import Service
from effsim.errors import DataError

ROOT = Path(__file__).parents[2]
UPDATE = "/_dash-update-component"


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the server that is nobody's to read."""
    path = tmp_path_factory.mktemp("private") / "secret.yaml"
    path.write_text("kind: gpu\nname: PLANTED-SECRET\nPLANTED-SECRET: 1\n")
    return path


@pytest.fixture(scope="module")
def held() -> Iterator[Service]:
    made = Service()
    yield made
    made.close()


@pytest.fixture(scope="module")
def client(held: Service) -> Any:
    return build_app(held).server.test_client()


def forged(callback: dict[str, Any], value: Any) -> dict[str, Any]:
    """A request of a callback with *value()* in every field."""
    output = callback["output"]
    outputs = [dict(zip(("id", "property"), o.rsplit(".", 1), strict=True)) for o in output.strip(".").split("...")]
    return {
        "output": output,
        "outputs": outputs if output.startswith("..") else outputs[0],
        "inputs": [{**one, "value": value()} for one in callback["inputs"]],
        "state": [{**one, "value": value()} for one in callback["state"]],
        "changedPropIds": [f"{one['id']}.{one['property']}" for one in callback["inputs"][:1]],
    }


def values(secret: Path) -> list[Any]:
    paths = [str(secret), "/etc/passwd", "../../etc/passwd", "upload-../../x", f"upload-{'0' * 32}"]
    url = "data:;base64,QUFBQQ=="
    return [
        *(None, 1, -1, True, float("nan"), float("inf"), "", [], {}, [[]], {"a": {"b": []}}, "\x00", "\ud800"),
        *paths,
        [paths[0]],
        *("<img src=x onerror=alert(1)>", "x" * 100_000, "gpu_a100", "llama70b_decode"),
        *({"name": name, "contents": url} for name in paths),
        {"name": 5, "contents": [1]},
        *(f"workload.model={path} hardware.extends={path} workload.engine={path}" for path in paths[:2]),
        [{"token": paths[0], "section": "hardware", "label": "x"}, 5],
    ]


@pytest.mark.parametrize("rounds", [5, pytest.param(40, marks=pytest.mark.slow)])
def test_no_request_brings_the_server_down(client: Any, held: Service, secret: Path, rounds: int) -> None:
    """Anybody can send any JSON: no 5xx, nothing of a file that was not asked to be shown, no path of this machine."""
    draw = random.Random(rounds)
    choices = values(secret)

    def send(body: Any) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body)
        got = client.post(UPDATE, data=data, content_type="application/json")
        said = got.get_data(as_text=True)
        assert got.status_code < 500, (data[:400], said[:400])
        for leak in ("PLANTED-SECRET:", "root:x", "Traceback", str(held.shelf.folder), str(ROOT), "site-packages"):
            assert leak not in said, (leak, data[:400])

    callbacks = [c for c in client.get("/_dash-dependencies").json if not c["clientside_function"]]
    assert callbacks
    for callback in callbacks:
        for _ in range(rounds):
            send(forged(callback, lambda: draw.choice(choices)))
        body = forged(callback, lambda: "x")
        for key in body:
            send({k: v for k, v in body.items() if k != key})
            for wrong in (None, 5, "x", [], {}, [1], [[]], [{}]):
                send(body | {key: wrong})
    for raw in (b"", b"null", b"5", b"[]", b"{}", b'"x"', b"{" * 99, b"[" * 100_000, b'{"output":NaN}', b"\xff\xfe"):
        send(raw)
    send({"output": "nobody.children"})
    large = client.post(UPDATE, data=b"x" * (MAX_REQUEST_BYTES + 1), content_type="application/json")
    assert large.status_code == 413
    assert client.get("/").status_code == 200


def test_an_unexpected_error_is_words_and_goes_to_the_log(
    client: Any, held: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("PLANTED-DETAIL")

    monkeypatch.setattr(type(held.shelf), "names", broken)
    callback = next(c for c in client.get("/_dash-dependencies").json if "page.children" in c["output"])
    got = client.post(UPDATE, json=forged(callback, lambda: "/"))
    assert got.status_code == 200
    assert "The server's log says more." in got.get_data(as_text=True)
    assert "PLANTED-DETAIL" not in got.get_data(as_text=True)
    assert "PLANTED-DETAIL" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *(("127.0.0.1:8050", 200), ("localhost:8050", 200), ("LOCALHOST", 200), ("[::1]:8050", 200), ("[0:0::1]", 200)),
        *(("evil.example", 403), ("127.0.0.1.evil.example:8050", 403), ("evil.example:127.0.0.1", 403)),
        *(("[::1", 403), ("[::2]:8050", 403), ("127.0.0.2", 403)),
    ],
)
def test_names_that_another_site_points_here_are_refused(client: Any, host: str, status: int) -> None:
    got = client.get("/", headers={"Host": host})
    assert got.status_code == status or (status == 403 and got.status_code == 400)  # 400: no host at all


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        *(("127.0.0.1:8050", "http://127.0.0.1:8050", 400), ("[::1]:8050", "http://[::1]:8050", 400)),
        *(("127.0.0.1:8050", "http://127.0.0.1:9999", 403), ("127.0.0.1:8050", "http://evil.example", 403)),
        *(
            ("127.0.0.1:8050", "null", 403),
            ("[::1]:8050", "http://[::1", 403),
            ("127.0.0.1:8050", "127.0.0.1:8050", 403),
        ),
        *(("127.0.0.1:8050", "http://evil.example@127.0.0.1:8050", 403), ("[::1]:8050", "http://[::1]", 403)),
    ],
)
def test_requests_of_other_sites_are_refused(client: Any, host: str, origin: str, status: int) -> None:
    got = client.post(UPDATE, data=b"{}", content_type="application/json", headers={"Host": host, "Origin": origin})
    assert got.status_code == status


def test_who_listens_everywhere_is_asked_under_any_name(held: Service) -> None:
    everywhere = build_app(held, "0.0.0.0").server.test_client()
    assert everywhere.get("/", headers={"Host": "big-machine.example:8050"}).status_code == 200
    origin = {"Host": "big-machine.example:8050", "Origin": "http://evil.example"}
    assert everywhere.post(UPDATE, data=b"{}", headers=origin).status_code == 403


def test_hosts_are_told_apart_in_every_spelling() -> None:
    assert all(is_local(host) for host in ("127.0.0.1", "localhost", "::1", "127.1", "127.0.0.9"))
    assert all(is_open(host) and warning(host) for host in ("0.0.0.0", "::", "0"))
    assert not warning("127.0.0.1")
    assert address("0", 80) == "http://127.0.0.1:80/"
    assert address("::1", 80) == "http://[::1]:80/"


def test_every_answer_keeps_to_itself(client: Any) -> None:
    for path in ("/", "/_dash-layout", "/assets/style.css", "/assets/nothing", "/_dash-component-suites/os/path.py"):
        with client.get(path) as got:
            headers = got.headers
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"], path
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize(
    "path",
    [
        "/assets/../app.py",
        "/assets/%2e%2e/app.py",
        "/assets/..%2fapp.py",
        "/_dash-component-suites/os/path.py",
        "/_dash-component-suites/effsim/_api.py",
        "/_dash-component-suites/dash/../../x.py",
        "/_dash-component-suites/dash/dash.py",
        "/static/x",
    ],
)
def test_no_path_leads_out_of_what_is_served(client: Any, path: str) -> None:
    got = client.get(path)
    assert got.status_code == 404
    assert "import" not in got.get_data(as_text=True)


def test_tools_of_developers_are_off(client: Any, held: Service) -> None:
    app = build_app(held)
    assert app.server.debug is False
    assert not app._dev_tools.ui
    assert not app._dev_tools.hot_reload
    assert client.get("/_alive_dash").get_data(as_text=True).startswith("<!DOCTYPE html>")  # the frame, as for any


def test_libraries_are_kept_by_browsers(client: Any) -> None:
    scripts = [part.split('"')[0] for part in client.get("/").get_data(as_text=True).split('src="')[1:]]
    suites = [script for script in scripts if "component-suites" in script]
    assert suites
    assert all("max-age=31536000" in client.get(script).headers["Cache-Control"] for script in suites)


def test_addresses_that_cannot_be_listened_on_are_one_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(DataError, match="cannot listen on 127"):
        serve("127.0.0.1", taken.getsockname()[1])
    for host in ("", "no such host", "999.1.1.1", "x" * 300, "\x00"):
        with pytest.raises(DataError, match="cannot listen on"):
            check_address(host, 8050)
    with pytest.raises(DataError, match="cannot listen on"):
        check_address("127.0.0.1", 99_999)


@pytest.mark.parametrize("package", ["dash", "waitress"])
def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DataError, match=rf"needs {package}: pip install \"effsim\[dashboard\]\""):
        serve()


def test_the_script_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    script = runpy.run_path(str(ROOT / "dash_app.py"))
    with pytest.raises(SystemExit) as stopped:
        script["main"](["--help"])
    assert stopped.value.code == 0
    assert "this machine only" in capsys.readouterr().out
    assert script["main"](["--host", "no such host"]) == 2
    assert capsys.readouterr().err.startswith("error: cannot listen on")


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("how", [("-m", "effsim", "dashboard"), (str(ROOT / "dash_app.py"),)])
def test_a_signal_ends_it_and_nothing_is_left(tmp_path: Path, how: tuple[str, ...], ending: signal.Signals) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, *how, "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        # What is started behind a shell ignores interrupts; a terminal's programs do not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5):
                break
        except OSError:
            time.sleep(0.1)
    assert [path.name.startswith("effsim-dashboard-") for path in tmp_path.iterdir()] == [True]
    process.send_signal(ending)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []

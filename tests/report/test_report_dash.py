"""The dashboard: its layout, its callback, and its errors as text."""

from __future__ import annotations

import json
import runpy
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from effsim import DataError
from effsim._api import FullRun, run
from effsim.report.dash_page import build_app, on_run, report, serve

pytest.importorskip("dash")


def text(component: Any) -> str:
    return json.dumps(component, default=lambda part: part.to_plotly_json())


def test_layout_offers_the_catalogue() -> None:
    layout = text(build_app(run).layout)
    assert "gpu_h100" in layout
    assert "llama70b_decode" in layout
    assert "roofline" in layout


def test_the_page_is_served_with_its_callback() -> None:
    client = build_app(run).server.test_client()
    assert b"effsim" in client.get("/").data
    assert b"report.children" in client.get("/_dash-dependencies").data


def test_a_run_shows_notes_headline_operators_and_assumptions() -> None:
    shown = text(on_run(run, "gpu_a100", "llama70b_decode", "analytic", "workload.generate=8"))
    for part in ("sharded over 2 devices", "Time per token", "layers.down_proj", "hardware.memory.latency"):
        assert part in shown


@pytest.mark.parametrize("changes", ["hardware.memory.bandwith=4TB/s", "nonsense", "workload.batch=100000"])
def test_errors_are_text(changes: str) -> None:
    shown = on_run(run, "gpu_a100", "llama70b_decode", "analytic", changes)
    assert shown.className == "error"
    assert isinstance(shown.children, str)
    assert shown.children


@pytest.mark.parametrize("kind", ["generate", "train", "operators"])
def test_every_task_has_a_report(full: Callable[..., FullRun], kind: str) -> None:
    shown = report(full(kind).result)
    assert sum(type(part).__name__ == "Graph" for part in shown) == 5


def test_a_taken_port_is_a_clear_error(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(DataError, match="cannot listen"):
            serve(run, "127.0.0.1", port)


def test_without_dash_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dash", None)
    with pytest.raises(DataError, match=r"effsim\[dashboard\]"):
        build_app(run)


def test_the_script_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    script = runpy.run_path(str(Path(__file__).parents[2] / "dash_app.py"))
    with pytest.raises(SystemExit) as stopped:
        script["main"](["--help"])
    assert stopped.value.code == 0
    assert "this machine only" in capsys.readouterr().out

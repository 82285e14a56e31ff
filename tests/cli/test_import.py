"""``effsim import``: each kind of source gives a file that runs; wrong ones give one line and exit code 2."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from effsim.cli import main

TORCH = """
import torch

def build():
    net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.Linear(64, 8))
    return net, torch.zeros(16, 64)

def odd():
    class Odd(torch.nn.Module):
        def forward(self, x):
            return torch.linalg.inv(x)
    return Odd(), torch.zeros(4, 4)
"""


def effsim(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["effsim", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_a_torch_module_becomes_a_file_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    (tmp_path / "net.py").write_text(TORCH)
    out = tmp_path / "net.yaml"
    assert effsim(monkeypatch, "import", "torch", f"{tmp_path}/net.py:build", "-o", out) == 0
    assert "wrote" in capsys.readouterr().err
    assert effsim(monkeypatch, "check", out) == 0
    for engine in ("roofline", "analytic", "events"):
        capsys.readouterr()
        assert effsim(monkeypatch, "run", "gpu_a100", out, "--engine", engine, "--json") == 0
        result = json.loads(capsys.readouterr().out)
        assert result["flops"] == 2 * 16 * (64 * 64 + 64 * 8) + 16 * 64 * 9


def test_what_is_not_exact_goes_to_stderr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    (tmp_path / "net.py").write_text(TORCH)
    assert effsim(monkeypatch, "import", "torch", f"{tmp_path}/net.py:odd") == 0
    shown = capsys.readouterr()
    assert shown.err.startswith("effsim: warning: Unknown operators")
    assert shown.out.startswith("kind: workload")


def test_a_scale_sim_topology_becomes_a_workload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.csv").write_text("Layer,M,N,K\nfirst,4,5,6\n")
    assert effsim(monkeypatch, "import", tmp_path / "t.csv", "-o", tmp_path / "t.yaml") == 0
    assert effsim(monkeypatch, "run", "systolic_scalesim", tmp_path / "t.yaml", "--json") == 0
    assert json.loads(capsys.readouterr().out)["flops"] == 2 * 4 * 5 * 6


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["torch"], "expected 'effsim import torch FILE.py:FUNCTION'"),
        (["config.json", "net.py:build"], "expected 'effsim import torch FILE.py:FUNCTION'"),
        (["config.json", "--dim", "a=1"], "--dim names dimensions of an .onnx file"),
        (["absent.json"], "absent.json: cannot be read"),
        (["absent.onnx"], "absent.onnx: no such file"),
        (["torch", "absent.py:build"], "absent.py: no such file"),
    ],
)
def test_wrong_sources(
    words: list[str], what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if words[0].endswith(".onnx"):
        pytest.importorskip("onnx")
    assert effsim(monkeypatch, "import", *words) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("effsim: ")
    assert what in shown.err
    assert shown.err.count("\n") == 1
    assert not shown.out

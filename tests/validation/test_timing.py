"""The comparison with PyTorch: what it predicts, when it fails, when it blames the machine."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from effsim.devices.cpu.device import CpuDevice
from effsim.devices.registry import load_machine
from effsim.graph.table import from_row
from effsim.validation.timing import TimingReport, TimingRow, model_s, operator_s, validate_timing

MEASURED = Path(__file__).parents[1] / "hardware/measured_cpu.yaml"
torch = pytest.importorskip("torch")


def device() -> CpuDevice:
    built = load_machine(str(MEASURED), ["hardware.threads=1"]).device
    assert isinstance(built, CpuDevice)
    return built


def report(error: float, drift: float = 0.0, noise: str = "") -> TimingReport:
    """One operator and one model, both predicted with *error*."""
    rows = tuple(TimingRow(g, "linear", g, 1.0 + error, 1.0, 1.05) for g in ("operators", "models"))
    return TimingReport("x", 1, "clock", rows, {"clock": drift}, (), noise)


def test_bounds_break_with_the_error() -> None:
    assert report(0.1).failures() == []
    assert report(0.18).failures() == ["operators: median error 18.0 % > 15 %"]
    assert report(-0.25).failures()[1] == "models: error -25.0 %, more than 20 %"


def test_a_restless_machine_is_no_wrong_model() -> None:
    moved = report(0.9, drift=0.5)
    assert moved.failures() == []
    assert "'clock' +50 %" in moved.noisy
    assert report(0.9, noise="too busy").failures() == []
    assert json.dumps(moved.as_dict(), allow_nan=False)


def test_the_table_prints(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    report(0.1, noise="too busy").print(Console(width=120))
    shown = capsys.readouterr().out
    assert "all operators" in shown
    assert "+10.0 %" in shown
    assert "too noisy to judge: too busy" in shown


def test_every_operator_computes_what_its_row_says() -> None:
    from effsim.validation.timing_operators import operators

    priced = device()
    with torch.inference_mode():
        torch.manual_seed(0)
        for item in operators(torch):
            op = from_row(item.kind, item.cells)
            assert operator_s(item, priced) > priced.launch.isolated_s
            if item.kind == "linear":
                assert item.call().shape == (op.m, op.n)
            elif item.kind == "batched_matmul":
                assert item.call().shape == (op.batch, op.m, op.n)


def test_held_out_shapes_are_not_those_of_the_calibration() -> None:
    from effsim.explore.calibrate import cpu_benchmarks as b
    from effsim.validation.timing_operators import PRODUCTS

    used = {(n, k) for n, k in b.GEMM_SHAPES}
    assert all((n, k) not in used for shapes in PRODUCTS.values() for _, n, k in shapes)


def test_the_models_graphs_do_the_work_of_the_code() -> None:
    """Weights and FLOPs by the graph against those of the modules: counted on paper for a layer of width 768."""
    from effsim.validation.timing_models import Width, bert, gpt2, mamba_block, scan, vit

    one = Width(layers=1)
    priced = device()
    with torch.inference_mode():
        torch.manual_seed(0)
        built = [gpt2(torch, one, tokens=4, past=0), gpt2(torch, one, tokens=1, past=3), vit(torch, one)]
        built += [bert(torch, one, tokens=4), mamba_block(torch, length=4)]
        shapes = [tuple(model.call().shape) for model in built]
    assert shapes == [(4, 50257), (1, 50257), (1, 1000), (4, 768), (4, 768)]
    layer = 12 * 768 * 768
    flops = {m.name: sum(n.op.flops * c for _, n, c in m.graph.walk() if n.op.kind == "linear") for m in built}
    assert flops[built[0].name] == 2 * 4 * (layer + 50257 * 768)
    assert flops[built[1].name] == 2 * 1 * (layer + 50257 * 768)
    assert flops[built[2].name] == 2 * (197 * layer + 1000 * 768)
    assert flops[built[3].name] == 2 * 4 * layer
    assert all(model_s(m, priced) > 0.0 for m in built)

    # The scan against the recurrence written out.
    x, delta, z = (torch.randn(3, 2).double() for _ in range(3))
    a, d = -torch.rand(2, 4).double(), torch.ones(2).double()
    b, c = torch.randn(3, 4).double(), torch.randn(3, 4).double()
    h, want = torch.zeros(2, 4).double(), []
    for t in range(3):
        h = torch.exp(delta[t][:, None] * a) * h + (delta[t] * x[t])[:, None] * b[t][None]
        want.append((h @ c[t] + d * x[t]) * z[t] * torch.sigmoid(z[t]))
    assert torch.allclose(scan(torch, x, delta, a, b, c, d, z), torch.stack(want))


@pytest.mark.slow
def test_this_machine_against_its_own_calibration() -> None:
    """The whole comparison runs and reports; its targets are read off a quiet machine, never asserted here."""
    found = validate_timing(quick=True, threads=1)
    assert len(found.rows) > 40
    ratios = sorted(row.predicted_s / row.measured_s for row in found.rows)
    assert all(math.isfinite(ratio) and ratio > 0.0 for ratio in ratios)
    # A wrong unit or a forgotten factor shows even on a busy machine; a busy machine is not ten times slower.
    assert 0.1 < ratios[len(ratios) // 2] < 10.0

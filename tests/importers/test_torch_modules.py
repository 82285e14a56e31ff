"""Small torch modules: each family of calls costs what its formula says, and nothing is silent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import effsim  # noqa: E402
from effsim.errors import DataError, UnsupportedError  # noqa: E402
from effsim.graph.graph import Graph  # noqa: E402
from effsim.importers.masks import band, classify  # noqa: E402
from effsim.importers.torch_export import from_module  # noqa: E402
from effsim.importers.torch_file import from_file  # noqa: E402
from effsim.importers.traced_workload import Imported  # noqa: E402
from effsim.program.source import explicit_graph  # noqa: E402

F = torch.nn.functional


def module(forward: Any, **parts: Any) -> Any:
    """A module with *parts* whose forward is *forward(module, …)*."""
    kind = type("Small", (torch.nn.Module,), {"forward": forward})
    made = kind()
    for name, part in parts.items():
        setattr(made, name, part)
    return made


def run(forward: Any, *inputs: Any, **parts: Any) -> Imported:
    with torch.device("meta"):
        return from_module(module(forward, **{k: v() if callable(v) else v for k, v in parts.items()}), inputs)


def zeros(*shape: int, **more: Any) -> Any:
    return torch.zeros(*shape, device="meta", **more)


def graph(found: Imported) -> Graph:
    return explicit_graph(found.workload)


def kinds(found: Imported) -> list[str]:
    return [node.op.kind for _, node, _ in graph(found).walk()]


def only(found: Imported, kind: str) -> Any:
    (op,) = (node.op for _, node, _ in graph(found).walk() if node.op.kind == kind)
    return op


def test_a_projection_is_linear_and_a_product_of_activations_is_not() -> None:
    found = run(lambda s, x: s.p(x) @ x.transpose(1, 2), zeros(3, 5, 8), p=lambda: torch.nn.Linear(8, 8))
    assert kinds(found) == ["linear", "batched_matmul"]
    assert only(found, "linear").flops == 2 * 15 * 8 * 8
    assert only(found, "linear").parameters == 8 * 8 + 8
    product = only(found, "batched_matmul")
    assert (product.batch, product.m, product.n, product.k) == (3, 5, 5, 8)
    assert product.parameters == 0


def test_batched_weights_count_as_parameters() -> None:
    found = run(lambda s, x: torch.bmm(x, s.w), zeros(4, 6, 8), w=lambda: torch.nn.Parameter(torch.zeros(4, 8, 10)))
    op = only(found, "batched_matmul")
    assert op.parameters == 4 * 8 * 10
    assert op.weight_bytes == 4 * 8 * 10 * 4


def test_tied_weights_count_once() -> None:
    def forward(s: Any, ids: Any) -> Any:
        return F.linear(s.table(ids), s.table.weight)

    found = run(forward, zeros(2, 3, dtype=torch.long), table=lambda: torch.nn.Embedding(50, 16))
    assert kinds(found) == ["embedding", "linear"]
    assert graph(found).parameters == 50 * 16
    assert graph(found).weight_bytes == 50 * 16 * 4


@pytest.mark.parametrize(
    ("layer", "shape", "kind", "flops"),
    [
        (lambda: torch.nn.Conv2d(3, 8, 3, 2, 1), (2, 3, 16, 16), "conv2d", 2 * 2 * 64 * 8 * 27),
        (lambda: torch.nn.Conv2d(8, 8, 3, padding="same", groups=8), (1, 8, 9, 9), "conv2d", 2 * 81 * 8 * 9),
        (lambda: torch.nn.Conv2d(4, 6, (3, 1)), (1, 4, 9, 9), "linear", 2 * 63 * 6 * 12),
        (lambda: torch.nn.Conv1d(4, 6, 3), (2, 4, 10), "linear", 2 * 16 * 6 * 12),
        (lambda: torch.nn.Conv1d(6, 6, 4, groups=6), (2, 6, 10), "conv1d", 2 * 2 * 7 * 6 * 4),
        (lambda: torch.nn.ConvTranspose2d(4, 6, 2, 2, bias=False), (1, 4, 5, 5), "linear", 2 * 25 * 4 * 24),
    ],
)
def test_convolutions(layer: Any, shape: tuple[int, ...], kind: str, flops: int) -> None:
    found = run(lambda s, x: s.conv(x), zeros(*shape), conv=layer)
    op = only(found, kind)
    assert op.flops == flops
    assert bool(found.warnings) == (kind == "linear"), "a form that the operator does not have is told"
    assert op.parameters == sum(p.numel() for p in layer().parameters())


def test_attention_forms() -> None:
    def heads(s: Any, q: Any, k: Any, v: Any) -> Any:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    found = run(heads, zeros(2, 8, 6, 16), zeros(2, 2, 6, 16), zeros(2, 2, 6, 16))
    op = only(found, "attention")
    assert (op.batch, op.heads, op.kv_heads, op.causal, op.fused, op.cached) == (2, 8, 2, True, True, False)
    assert op.flops == 2 * 8 * 21 * 4 * 16

    def written_out(s: Any, q: Any, k: Any, v: Any) -> Any:
        scores = q @ k.transpose(-1, -2) / 4.0
        hidden = torch.ones(6, 6, device=q.device).triu(1).bool()
        return torch.softmax(scores.masked_fill(hidden, float("-inf")), -1) @ v

    def sliding(s: Any, q: Any, k: Any, v: Any) -> Any:
        i = torch.arange(6, device=q.device)
        seen = (i[:, None] >= i[None, :]) & (i[:, None] - i[None, :] < 2)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)

    same = [zeros(2, 4, 6, 16) for _ in range(3)]
    unfused = only(run(written_out, *same), "attention")
    assert (unfused.fused, unfused.causal) == (False, True)
    assert unfused.flops == 2 * 4 * 21 * 4 * 16
    window = run(sliding, *same)
    assert only(window, "attention").window == 2
    assert only(window, "attention").flops == 2 * 4 * 11 * 4 * 16
    assert kinds(window) == ["attention"], "a mask that is understood costs nothing"


def test_a_mask_of_no_form_is_counted_as_full_and_told() -> None:
    def holes(s: Any, q: Any) -> Any:
        i = torch.arange(6, device=q.device)
        return F.scaled_dot_product_attention(q, q, q, attn_mask=(i[:, None] + i[None, :]) % 3 > 0)

    found = run(holes, zeros(1, 2, 6, 8))
    assert only(found, "attention").flops == 2 * 36 * 4 * 8
    assert any("counted as a full one" in text for text in found.warnings)


def test_masks_are_what_they_show() -> None:
    assert classify(band(5, 9, 0)).causal
    assert classify(band(7, 7, 3)).window == 3
    assert not classify(np.ones((2, 4, 4), dtype=bool)).causal
    mixed = np.stack([band(4, 4, 0), np.ones((4, 4), dtype=bool)])
    assert not classify(mixed).exact


@pytest.mark.parametrize("cols", [16])
def test_norms_and_gates_are_recognised_in_their_spelt_out_forms(cols: int) -> None:
    def rms(s: Any, x: Any) -> Any:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * (1 + s.w)

    def layer(s: Any, x: Any) -> Any:
        d = x - x.mean(-1, keepdim=True)
        return d / torch.sqrt((d * d).mean(-1, keepdim=True) + 1e-6) * s.w + s.w

    def gates(s: Any, x: Any) -> Any:
        a, b = x.chunk(2, -1)
        return a * torch.sigmoid(a) * b, 0.5 * a * (1 + torch.erf(a / 2**0.5)), F.relu(b).square()

    weight = lambda: torch.nn.Parameter(torch.zeros(cols))  # noqa: E731
    assert kinds(run(rms, zeros(3, cols), w=weight)) == ["rmsnorm"]
    assert kinds(run(layer, zeros(3, cols), w=weight)) == ["layernorm"]
    assert sorted(kinds(run(gates, zeros(3, cols)))) == ["gelu", "relu2", "silu_mul"]


def test_views_and_what_depends_on_no_input_cost_nothing() -> None:
    def forward(s: Any, x: Any) -> Any:
        table = torch.arange(8, device=x.device).float().cos()
        return x.view(4, 2, 8).transpose(0, 1).contiguous() + table

    found = run(forward, zeros(8, 8))
    assert kinds(found) == ["scale"]
    assert graph(found).flops == 64


def test_recurrent_layers_run_their_steps() -> None:
    found = run(lambda s, x: s.r(x)[0], zeros(7, 2, 4), r=lambda: torch.nn.LSTM(4, 6))
    steps = 7 * 2 * 2 * 24 * 6
    products = sum(n.op.arithmetic().matrix * c for _, n, c in graph(found).walk())
    assert products == 2 * 14 * 24 * 4 + steps
    assert graph(found).parameters == sum(p.numel() for p in torch.nn.LSTM(4, 6).parameters())


def test_an_unknown_call_is_costed_and_named() -> None:
    with torch.device("meta"):
        small = module(lambda s, x: torch.linalg.inv(x) + 1)
    with pytest.warns(effsim.ApproximationWarning, match="linalg_inv"):
        workload = effsim.from_torch(small, zeros(4, 8, 8))
    assert "linalg_inv" in workload.description
    assert explicit_graph(workload).bytes_moved >= 2 * 4 * 64 * 4


def test_values_of_real_inputs_decide_a_mask() -> None:
    def forward(s: Any, q: Any, mask: Any) -> Any:
        return F.scaled_dot_product_attention(q, q, q, attn_mask=mask.bool()[:, None, :, :])

    causal = torch.ones(1, 6, 6).tril().long()
    found = from_module(module(forward), (torch.zeros(1, 2, 6, 8), causal))
    assert only(found, "attention").causal
    assert not found.warnings


def test_the_modules_mode_is_kept_and_inputs_follow_the_weights() -> None:
    with torch.device("meta"):
        net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5))
    assert net.training
    found = from_module(net, (torch.zeros(2, 4),))
    assert net.training
    assert kinds(found) == ["linear"]


def test_what_cannot_be_exported_says_why() -> None:
    with pytest.raises(UnsupportedError, match=r"cannot be exported: .*; the program's path depends on values"):
        run(lambda s, x: x if x.sum() > 0 else -x, zeros(3))
    with pytest.raises(DataError, match=r"expected a torch\.nn\.Module"):
        effsim.from_torch("model", ())  # type: ignore[arg-type]


FILE = """
import torch

def build():
    return torch.nn.Linear(8, 4), torch.zeros(2, 8)

def keywords():
    return torch.nn.Linear(8, 4), {"input": torch.zeros(2, 8)}

def three():
    return torch.nn.Linear(8, 4), (), {"input": torch.zeros(2, 8)}

def wrong():
    return 3

def failing():
    raise RuntimeError("no such\\nthing")

def leaving():
    raise SystemExit(0)
"""


def test_a_factory_returns_its_inputs_in_three_forms(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(FILE)
    for name in ("build", "keywords", "three"):
        assert kinds(from_file(f"{tmp_path}/net.py:{name}")) == ["linear"]
        assert kinds(from_file(f"{tmp_path}/net.py:{name}", real=True)) == ["linear"]


@pytest.mark.parametrize(
    ("target", "what"),
    [
        ("net.py", "is not FILE.py:FUNCTION"),
        ("net.py:a b", "is not FILE.py:FUNCTION"),
        ("net.yaml:build", "is not FILE.py:FUNCTION"),
        ("absent.py:build", "no such file"),
        ("net.py:absent", "no function 'absent'; it has build"),
        ("net.py:wrong", "returned int; expected"),
        ("net.py:failing", "raised RuntimeError: no such"),
        ("net.py:leaving", "raised SystemExit"),
        ("broken.py:build", "raised SyntaxError"),
    ],
)
def test_a_wrong_target_is_one_clear_error(target: str, what: str, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(FILE)
    (tmp_path / "broken.py").write_text("def build(:\n")
    with pytest.raises(DataError, match=what):
        from_file(f"{tmp_path}/{target}")


def test_importing_effsim_does_not_import_torch() -> None:
    code = "import sys, effsim, effsim._api; sys.exit('torch' in sys.modules or 'onnx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UnsupportedError, match=r"effsim\[torch\]"):
        effsim.from_torch(object(), ())

"""Encoders: patches, segments, pooler and classifier; what an encoder cannot do is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import effsim
from effsim.architectures.build import Step, build_graph, parameter_count
from effsim.errors import UnsupportedError
from effsim.graph.graph import Graph
from effsim.importers.huggingface import load_architecture
from effsim.spec.architecture import ArchitectureSpec

MIXER = {"kind": "attention", "heads": 4, "causal": False}
FFN = {"kind": "mlp", "intermediate": 96, "activation": "gelu", "gated": False}


def spec(**fields: Any) -> ArchitectureSpec:
    base = {"kind": "architecture", "name": "e", "hidden": 32, "head": "none", "layers": [{"mixer": MIXER, "ffn": FFN}]}
    return ArchitectureSpec.model_validate(base | fields)


def products(graph: Graph) -> float:
    return sum(node.op.arithmetic().matrix * count for _, node, count in graph.walk())


def test_vit_by_hand() -> None:
    graph = build_graph(load_architecture("vit_b16"), Step("context", 2, 197, 197, "fp16"))
    patches = 2 * 196 * 768 * (3 * 16 * 16)
    layer = 2 * 197 * (4 * 768 * 768 + 2 * 768 * 3072) + 4 * 197 * 197 * 768  # projections, MLP; scores and values
    assert products(graph) == 2 * (patches + 12 * layer + 2 * 768 * 1000)
    assert graph.cache_bytes == 0
    assert not [name for name, node, _ in graph.walk() if node.op.kind in ("kv_append", "sampling")]


def test_bert_by_hand() -> None:
    graph = build_graph(load_architecture("bert_base"), Step("context", 3, 128, 128, "fp16"))
    layer = 2 * 128 * (4 * 768 * 768 + 2 * 768 * 3072) + 4 * 128 * 128 * 768
    assert products(graph) == 3 * (12 * layer + 2 * 768 * 768)  # the pooler sees one token


def test_a_training_step_of_a_classifier_has_a_loss_over_its_classes() -> None:
    graph = build_graph(load_architecture("vit_b16"), Step("training", 4, 197, 197, "fp16"))
    loss = next(node.op for _, node, _ in graph.walk() if node.op.kind == "cross_entropy")
    assert loss.dimensions()["rows"] == 4
    assert loss.dimensions()["vocabulary"] == 1000


def test_segments_and_pooler_count_their_parameters() -> None:
    plain, more = spec(vocab=50), spec(vocab=50, segments=2, pooler=True, head="classifier", classes=5)
    assert parameter_count(more) - parameter_count(plain) == 2 * 32 + (32 * 32 + 32) + (32 * 5 + 5)


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({}, "either a 'vocab' or 'patches'"),
        ({"vocab": 9, "patches": {"height": 32, "width": 32, "patch": 8}}, "either a 'vocab' or 'patches'"),
        ({"patches": {"height": 30, "width": 32, "patch": 8}}, "no whole patches"),
        ({"vocab": 9, "head": "classifier"}, "needs it"),
        ({"vocab": 9, "classes": 3}, "needs it"),
        ({"vocab": 9, "head": "language_model", "pooler": True}, "need the head"),
        ({"vocab": 9, "layers": [{"mixer": {**MIXER, "causal": True}}]}, "causal: false"),
        ({"patches": {"height": 32, "width": 32, "patch": 8}, "segments": 2}, "for tokens"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, Any], what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        spec(**fields)


def test_an_encoder_generates_nothing(tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text("kind: workload\nname: w\nmodel: bert_base\ntask: decode\nprompt: 8\ngenerate: 1\n")
    with pytest.raises(UnsupportedError, match="generates no tokens"):
        effsim.run("gpu_a100", str(file), engine="roofline")


def test_an_image_says_how_many_tokens_it_has() -> None:
    run = effsim.run("gpu_a100", "vit_b16", engine="roofline", sensitivity=False)
    assert run.phases["prefill"]["tokens_per_s"] * run.phases["prefill"]["time_s"] == pytest.approx(64 * 197)
    with pytest.raises(UnsupportedError, match="an image has 197 tokens"):
        effsim.run("gpu_a100", "vit_b16", engine="roofline", set=["workload.prompt=100"])

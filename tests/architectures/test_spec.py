"""What an architecture YAML may say, and how it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from effsim.errors import SpecError
from effsim.importers.huggingface import load_architecture
from effsim.spec.architecture import ArchitectureSpec

ATTENTION = {"kind": "attention", "heads": 8}
MLP = {"kind": "mlp", "intermediate": 100}
LAYER = {"mixer": ATTENTION, "ffn": MLP}
MAMBA2 = {"kind": "mamba2", "heads": 8, "head_dim": 16, "state": 16}


def spec(**changes: object) -> ArchitectureSpec:
    base = {"kind": "architecture", "name": "tiny", "vocab": 100, "hidden": 64, "layers": [LAYER]}
    return ArchitectureSpec.model_validate(base | changes)


def one(mixer: object = None, ffn: object = None, **more: object) -> dict[str, object]:
    return {"layers": [{"mixer": mixer, "ffn": ffn, **more}]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (one(ATTENTION | {"kv_heads": 3}), "8 heads is no multiple of 3 kv_heads"),
        (one(ATTENTION | {"heads": 7}), "hidden 64 is no multiple of 7 heads; give the attention a head_dim"),
        (one({"kind": "parallel", "mixers": [ATTENTION | {"heads": 7}, MAMBA2]}), "no multiple of 7 heads"),
        (one({"kind": "parallel", "mixers": [ATTENTION, ATTENTION]}), "must differ in kind"),
        (one(MAMBA2 | {"groups": 3}), "8 heads is no multiple of 3 groups"),
        (one({"kind": "mamba", "inner": 128, "dt_rank": 4, "heads": 3}), "inner 128 is no multiple of 3 heads"),
        (
            one({"kind": "gated_delta", "key_heads": 3, "value_heads": 4, "key_dim": 8, "value_dim": 8}),
            "4 value_heads is no multiple of 3 key_heads",
        ),
        (one(ffn=MLP | {"activation": "relu2"}), "'relu2' has no gated form"),
        (one(ffn={"kind": "moe", "experts": 4, "top_k": 5, "intermediate": 8}), "top_k 5 exceeds the 4 experts"),
        (
            one(ffn={"kind": "moe", "experts": 4, "top_k": 1, "intermediate": 8, "shared_gate": True}),
            "need shared_experts",
        ),
        (one(), "a layer needs a 'mixer', an 'ffn' or both"),
        ({"layers": [{"layers": [LAYER], "mixer": ATTENTION}]}, "'layers' makes a group"),
        ({"layers": [{"layers": []}]}, "'layers' is empty"),
        ({"layers": [LAYER | {"name": "a"}, LAYER | {"name": "a"}]}, "two runs of layers are named 'a'"),
        ({"layers": [LAYER | {"name": "layers_1"}, LAYER]}, "'layers_1' is a name that unnamed runs"),
        (
            {"layers": [LAYER | {"shared": {"name": "s"}}, one(ATTENTION)["layers"][0] | {"shared": {"name": "s"}}]},
            "layers that share the block 's' differ",
        ),
        ({"position": "learned"}, "needs 'max_positions'"),
        ({"position_offset": 2}, "position_offset 2 needs position 'learned'"),
        ({"vocab": 0}, "greater than or equal to 1"),
        ({"vocab": "32k"}, "valid integer"),
        ({"vocab_size": 5}, "Extra inputs"),
        ({"layers": []}, "at least 1 item"),
    ],
)
def test_what_cannot_be_true_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        spec(**changes)


def test_depth_counts_nested_layers() -> None:
    nested = {"repeat": 4, "layers": [LAYER | {"repeat": 3}, LAYER, {"repeat": 2, "layers": [LAYER]}]}
    assert spec(layers=[LAYER, nested]).depth == 1 + 4 * (3 + 1 + 2)


def test_defaults() -> None:
    built = spec()
    mixer = built.layers[0].mixer
    assert (mixer.groups, built.head_dim(mixer)) == (8, 8)
    assert (built.norm.kind, built.position, built.residual, built.published_parameters) == (
        "rmsnorm",
        "rope",
        "pre_norm",
        None,
    )
    assert spec(parameters=7).published_parameters == 7
    assert spec(parameters={"value": 7, "source": "a paper"}).published_parameters == 7


def test_an_architecture_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        spec().vocab = 5


@pytest.mark.parametrize(
    ("line", "replacement", "where", "message"),
    [
        ("heads: 8", "heads: 8, kv_heads: 3", "5", "no multiple of 3 kv_heads"),
        ("intermediate: 100", "intermediat: 100", "6", "intermediate"),
        ("vocab: 100", "vocab: none", "3", "vocab"),
    ],
)
def test_errors_point_into_the_file(tmp_path: Path, line: str, replacement: str, where: str, message: str) -> None:
    text = (
        "kind: architecture\n"
        "name: tiny\n"
        "vocab: 100\n"
        "layers:\n"
        "  - mixer: {kind: attention, heads: 8}\n"
        "    ffn: {kind: mlp, intermediate: 100}\n"
        "hidden: 64\n"
    )
    file = tmp_path / "tiny.yaml"
    file.write_text(text)
    assert load_architecture(str(file)).depth == 1
    file.write_text(text.replace(line, replacement))
    with pytest.raises(SpecError, match=message) as caught:
        load_architecture(str(file))
    assert f"{file}:{where}:" in str(caught.value)

"""Hugging Face configurations: the same graph as the bundled YAML, exact parameter counts, clear refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effsim.architectures.build import Step, build_graph, parameter_count
from effsim.errors import DataError, EffsimError, UnknownNameError, UnsupportedError
from effsim.importers.config_reader import MAX_CONFIG_BYTES
from effsim.importers.folding import fold
from effsim.importers.huggingface import SUPPORTED, from_config, load_architecture, load_config, to_yaml
from effsim.spec.architecture import ArchitectureSpec
from effsim.spec.catalogue import names


def sizes(model_type: str, hidden: int, inner: int, layers: int, heads: int, kv: int, vocab: int) -> dict[str, Any]:
    return {
        "model_type": model_type,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "vocab_size": vocab,
    }


CONFIGS: dict[str, dict[str, Any]] = {
    "llama2_70b": sizes("llama", 8192, 28672, 80, 64, 8, 32000) | {"max_position_embeddings": 4096},
    "mistral_7b": sizes("mistral", 4096, 14336, 32, 32, 8, 32000) | {"sliding_window": 4096},
    "qwen2_7b": sizes("qwen2", 3584, 18944, 28, 28, 4, 152064) | {"use_sliding_window": False},
    "qwen3_8b": sizes("qwen3", 4096, 12288, 36, 32, 8, 151936),
    "qwen3_30b_a3b": sizes("qwen3_moe", 2048, 6144, 48, 32, 4, 151936)
    | {"head_dim": 128, "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768},
    "gemma_7b": sizes("gemma", 3072, 24576, 28, 16, 16, 256000)
    | {"hidden_act": "gelu"}
    | {"hidden_activation": "gelu_pytorch_tanh"},
    "gemma3_27b": {
        "model_type": "gemma3",
        "text_config": sizes("gemma3_text", 5376, 21504, 62, 32, 16, 262208)
        | {"head_dim": 128, "sliding_window": 1024},
    },
    "gpt2_xl": {"model_type": "gpt2", "n_embd": 1600, "n_layer": 48, "n_head": 25, "n_positions": 1024},
    "opt_30b": {
        "model_type": "opt",
        "hidden_size": 7168,
        "num_hidden_layers": 48,
        "num_attention_heads": 56,
        "ffn_dim": 28672,
        "vocab_size": 50272,
        "max_position_embeddings": 2048,
    },
    "falcon_40b": {
        "model_type": "RefinedWeb",
        "hidden_size": 8192,
        "n_layer": 60,
        "n_head": 128,
        "n_head_kv": 8,
        "vocab_size": 65024,
        "new_decoder_architecture": True,
    },
    "mixtral_8x7b": sizes("mixtral", 4096, 14336, 32, 32, 8, 32000) | {"num_local_experts": 8, "sliding_window": None},
    "deepseek_v3": sizes("deepseek_v3", 7168, 18432, 61, 128, 128, 129280)
    | {"n_routed_experts": 256, "moe_intermediate_size": 2048},
    "mamba_2_8b": {"model_type": "mamba", "hidden_size": 2560, "num_hidden_layers": 64, "vocab_size": 50280},
    "jamba_v0_1": sizes("jamba", 4096, 14336, 32, 32, 8, 65536) | {"mamba_dt_rank": "auto"},
    "nemotron_h_8b": sizes("nemotron_h", 4096, 21504, 52, 32, 8, 131072)
    | {"hybrid_override_pattern": "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-", "attention_head_dim": 128},
    "zamba_7b": sizes("zamba", 3712, 14848, 76, 16, 16, 32000),
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("step", [Step("generation", 4, 1, 100), Step("context", 1, 300, 300)])
def test_configuration_gives_the_graph_of_the_bundled_file(name: str, step: Step) -> None:
    imported, bundled = from_config(CONFIGS[name]), load_architecture(name)
    assert build_graph(imported, step).items == build_graph(bundled, step).items
    assert imported.max_positions in (bundled.max_positions, None)


# Counted by the model classes of transformers 5.23.0 on PyTorch's meta device for the same configurations.
COUNTED = [
    (sizes("olmo", 4096, 11008, 32, 32, 32, 50304), 6_888_095_744),
    (sizes("cohere", 8192, 22528, 40, 64, 64, 256000), 34_980_831_232),
    (sizes("granite", 4096, 12800, 40, 32, 8, 49155) | {"tie_word_embeddings": True}, 8_170_848_256),
    (
        sizes("falcon_h1", 2560, 9216, 32, 10, 2, 65537)
        | {"head_dim": 128, "mamba_d_ssm": 4096, "mamba_n_heads": 32, "mamba_d_state": 256},
        3_904_236_032,
    ),
]


@pytest.mark.parametrize(
    ("config", "count"), COUNTED, ids=lambda item: item["model_type"] if isinstance(item, dict) else ""
)
def test_models_that_are_not_bundled(config: dict[str, Any], count: int) -> None:
    assert parameter_count(from_config(config)) == count


def test_a_configuration_file_works_from_its_path(tmp_path: Path) -> None:
    file = tmp_path / "my-model" / "config.json"
    file.parent.mkdir()
    file.write_text(json.dumps(sizes("llama", 512, 1376, 6, 8, 4, 9000)))
    spec = load_architecture(str(file))
    assert spec.name == "my-model"
    assert str(file) in spec.source
    # embeddings twice, per layer q+o, k+v, three feed-forward matrices and two norms, one final norm
    expected = 2 * 9000 * 512 + 6 * (2 * 512 * 512 + 2 * 512 * 256 + 3 * 512 * 1376 + 2 * 512) + 512
    assert parameter_count(spec) == expected


@pytest.mark.parametrize("name", names("architectures"))
def test_yaml_round_trip(name: str, tmp_path: Path) -> None:
    spec = load_architecture(name)
    file = tmp_path / "again.yaml"
    file.write_text(to_yaml(spec), encoding="utf-8")
    assert load_architecture(str(file)) == spec


def test_written_yaml_names_its_origin_first_and_keeps_its_order() -> None:
    text = to_yaml(from_config(CONFIGS["jamba_v0_1"], name="Jamba", file="models/jamba/config.json"))
    lines = text.splitlines()
    assert lines[0] == "# From models/jamba/config.json (model_type jamba)"
    assert lines[1:3] == ["kind: architecture", "name: Jamba"]
    assert text == to_yaml(from_config(CONFIGS["jamba_v0_1"], name="Jamba", file="models/jamba/config.json"))


def test_unknown_model_type_names_the_supported_ones() -> None:
    with pytest.raises(UnsupportedError) as caught:
        from_config({"model_type": "lama"}, file="x/config.json")
    message = str(caught.value)
    assert message.startswith("x/config.json: unsupported model_type 'lama'")
    assert all(name in message for name in SUPPORTED)
    assert "did you mean 'llama'" in message
    assert "'operators:' list" in message


REQUIRED = [
    ("llama2_70b", "hidden_size"),
    ("llama2_70b", "num_hidden_layers"),
    ("qwen2_7b", "vocab_size"),
    ("mixtral_8x7b", "intermediate_size"),
    ("deepseek_v3", "n_routed_experts"),
    ("gpt2_xl", "n_head"),
    ("opt_30b", "ffn_dim"),
    ("mamba_2_8b", "hidden_size"),
    ("nemotron_h_8b", "hybrid_override_pattern"),
    ("llama2_70b", "model_type"),
]


@pytest.mark.parametrize(("name", "key"), REQUIRED)
def test_a_missing_size_is_named(name: str, key: str) -> None:
    config = {other: value for other, value in CONFIGS[name].items() if other != key}
    with pytest.raises(DataError, match=rf"^some\.json: missing key '{key}'"):
        from_config(config, file="some.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": "big"}, "key 'hidden_size' is 'big'; expected a whole number"),
        ({"hidden_size": True}, "key 'hidden_size' is true"),
        ({"hidden_size": -1}, "expected a whole number, 1 or more"),
        ({"num_hidden_layers": 10**9}, "expected at most 1000"),
        ({"num_attention_heads": 0}, "key 'num_attention_heads' is 0"),
        ({"attention_bias": "no"}, "key 'attention_bias' is 'no'; expected true or false"),
        ({"hidden_act": "swiglu9"}, "key 'hidden_act' is 'swiglu9'; expected one of silu"),
        ({"num_key_value_heads": 7}, "64 heads is no multiple of 7 kv_heads"),
        ({"text_config": 5}, "key 'text_config' is 5; expected an object"),
        ({"model_type": 5}, "key 'model_type' is 5; expected text"),
    ],
)
def test_wrong_values_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_config(CONFIGS["llama2_70b"] | changes)


def test_families_check_what_only_they_can_know() -> None:
    nemotron = CONFIGS["nemotron_h_8b"]
    with pytest.raises(DataError, match="unknown layer type 'X'"):
        from_config(nemotron | {"hybrid_override_pattern": "MX"})
    with pytest.raises(DataError, match="routed experts"):
        from_config(nemotron | {"hybrid_override_pattern": "ME"})
    with pytest.raises(DataError, match="unknown layer type 'rnn'"):
        from_config(CONFIGS["zamba_7b"] | {"layers_block_type": ["rnn"]})
    with pytest.raises(DataError, match="use_qk_norm"):
        from_config(sizes("cohere", 64, 64, 1, 4, 4, 10) | {"use_qk_norm": True})
    mamba2 = {"model_type": "mamba2", "hidden_size": 768, "num_hidden_layers": 2, "vocab_size": 10, "num_heads": 24}
    assert from_config(mamba2).depth == 2
    with pytest.raises(DataError, match="expand × hidden_size is 1536, but 20 heads of 64 make 1280"):
        from_config(mamba2 | {"num_heads": 20})


def test_null_and_absent_keys_differ_where_the_defaults_do() -> None:
    """An absent window of Mistral is 4096 keys, a null one is none; the same for the query rank of DeepSeek."""
    base = sizes("mistral", 64, 64, 2, 4, 2, 10)
    assert from_config(base).layers[0].mixer.window == 4096
    assert from_config(base | {"sliding_window": None}).layers[0].mixer.window is None
    deepseek = {k: v for k, v in CONFIGS["deepseek_v3"].items() if k != "num_key_value_heads"}
    assert from_config(deepseek).layers[0].mixer.q_lora_rank == 1536
    assert from_config(deepseek | {"q_lora_rank": None}).layers[0].mixer.q_lora_rank is None


def test_layer_patterns() -> None:
    sparse = CONFIGS["qwen3_30b_a3b"] | {"num_hidden_layers": 6, "decoder_sparse_step": 2, "mlp_only_layers": [5]}
    kinds = [run.ffn.kind for run in _written_out(from_config(sparse))]
    assert kinds == ["mlp", "moe", "mlp", "moe", "mlp", "mlp"]
    gemma2 = from_config(sizes("gemma2", 64, 64, 4, 4, 2, 10))
    assert [run.mixer.window for run in _written_out(gemma2)] == [4096, None, 4096, None]
    qwen2 = from_config(sizes("qwen2", 64, 64, 4, 4, 2, 10) | {"use_sliding_window": True, "max_window_layers": 3})
    assert [run.mixer.window for run in _written_out(qwen2)] == [None, None, None, 4096]
    jamba = [run.mixer.kind for run in _written_out(from_config(CONFIGS["jamba_v0_1"]))]
    assert [index for index, kind in enumerate(jamba) if kind == "attention"] == [4, 12, 20, 28]


def _written_out(spec: ArchitectureSpec) -> list[Any]:
    def layers(runs: list[Any]) -> list[Any]:
        out: list[Any] = []
        for run in runs:
            out += (layers(run.layers) if run.layers else [run]) * run.repeat
        return out

    return layers(spec.layers)


def test_newer_files_nest_the_rotary_share() -> None:
    phi = sizes("phi", 64, 64, 2, 4, 4, 10)
    nested = from_config(phi | {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.4}})
    flat = from_config(phi | {"partial_rotary_factor": 0.4})
    assert nested.layers == flat.layers
    assert flat.layers[0].mixer.rope_fraction == 0.4
    with pytest.raises(DataError, match="a share from 0 to 1"):
        from_config(phi | {"partial_rotary_factor": 2})


class TestLoadConfig:
    def test_reads_an_object(self, tmp_path: Path) -> None:
        file = tmp_path / "config.json"
        file.write_bytes(b'\xef\xbb\xbf{"model_type": "llama", "a": 1, "a": 2}')
        assert load_config(file) == {"model_type": "llama", "a": 2}

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"[1, 2]", "holds a list; expected a JSON object"),
            (b'{"a": }', r":1:7: not JSON"),
            (b"", "not JSON"),
            (b"\xff\xfe\x00", "not UTF-8"),
            (b"[" * 200_000, "not JSON"),
            (b'{"a": ' + b"9" * 10_000 + b"}", "not JSON"),
        ],
    )
    def test_refuses_anything_else(self, tmp_path: Path, content: bytes, message: str) -> None:
        file = tmp_path / "config.json"
        file.write_bytes(content)
        with pytest.raises(DataError, match=message):
            load_config(file)

    def test_refuses_what_is_too_large(self, tmp_path: Path) -> None:
        file = tmp_path / "config.json"
        file.write_bytes(b" " * (MAX_CONFIG_BYTES + 1))
        with pytest.raises(DataError, match="larger than the 10 MiB"):
            load_config(file)

    def test_names_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="cannot be read: No such file"):
            load_config(tmp_path / "none.json")
        with pytest.raises(UnknownNameError):
            load_architecture("llama2_700b")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5000) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)

CHANGED_KEYS = [
    "hidden_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "sliding_window",
    "n_head",
    "tie_word_embeddings",
    "hidden_act",
    "mamba_dt_rank",
    "rope_parameters",
    "mlp_only_layers",
    "num_experts",
    "hybrid_override_pattern",
    "layers_block_type",
    "q_lora_rank",
    "n_positions",
    "text_config",
]


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(sorted(CONFIGS)),
    changes=st.dictionaries(st.sampled_from(CHANGED_KEYS), JSON, min_size=1, max_size=3),
)
def test_any_configuration_is_read_or_refused(name: str, changes: dict[str, Any]) -> None:
    try:
        count = parameter_count(from_config(CONFIGS[name] | changes))
    except EffsimError:
        return
    assert count > 0


LAYERS = st.lists(st.sampled_from([{"a": 1}, {"b": 2}, {"c": 3}]), min_size=1, max_size=40)


@given(LAYERS)
def test_folding_keeps_every_layer_in_order(layers: list[dict[str, int]]) -> None:
    def unfold(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        out: list[dict[str, Any]] = []
        for run in runs:
            body = {key: value for key, value in run.items() if key not in ("repeat", "layers")}
            out += (unfold(run["layers"]) if "layers" in run else [body]) * run.get("repeat", 1)
        return out

    assert unfold(fold(layers)) == layers

"""A Hugging Face ``config.json`` → an architecture, without ``transformers`` installed.

Nothing is executed and nothing is downloaded: the hyper-parameters in the file are all that is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from ..errors import DataError, UnsupportedError, nearest
from ..spec.architecture import ArchitectureSpec
from ..spec.build import build
from ..spec.catalogue import load_document
from . import hf_encoders, hf_recurrent, hf_transformers
from .config_reader import ConfigReader, load_config

__all__ = ["SUPPORTED", "from_config", "load_architecture", "load_config", "to_yaml"]

_FAMILIES: Final[dict[str, Callable[[ConfigReader], dict[str, Any]]]] = {
    "bamba": hf_recurrent.bamba,
    "bert": hf_encoders.bert,
    "bloom": hf_transformers.bloom,
    "cohere": hf_transformers.cohere,
    "deepseek_v2": hf_transformers.deepseek_v2,
    "deepseek_v3": hf_transformers.deepseek_v3,
    "falcon": hf_transformers.falcon,
    "falcon_h1": hf_recurrent.falcon_h1,
    "falcon_mamba": hf_recurrent.falcon_mamba,
    "gemma": hf_transformers.gemma,
    "gemma2": hf_transformers.gemma2,
    "gemma3_text": hf_transformers.gemma3_text,
    "gpt2": hf_transformers.gpt2,
    "gpt_neox": hf_transformers.gpt_neox,
    "gptj": hf_transformers.gptj,
    "granite": hf_transformers.llama,
    "jamba": hf_recurrent.jamba,
    "llama": hf_transformers.llama,
    "mamba": hf_recurrent.mamba,
    "mamba2": hf_recurrent.mamba2,
    "mistral": hf_transformers.mistral,
    "mixtral": hf_transformers.mixtral,
    "nemotron_h": hf_recurrent.nemotron_h,
    "olmo": hf_transformers.olmo,
    "opt": hf_transformers.opt,
    "phi": hf_transformers.phi,
    "phi3": hf_transformers.phi3,
    "qwen2": hf_transformers.qwen2,
    "qwen2_moe": hf_transformers.qwen2_moe,
    "qwen3": hf_transformers.qwen3,
    "qwen3_moe": hf_transformers.qwen3_moe,
    "qwen3_next": hf_recurrent.qwen3_next,
    "vit": hf_encoders.vit,
    "zamba": hf_recurrent.zamba,
}

SUPPORTED: Final[tuple[str, ...]] = tuple(_FAMILIES)
"""Every ``model_type`` that :func:`from_config` knows."""

_LEGACY: Final = {"RefinedWeb": "falcon", "RefinedWebModel": "falcon", "kimi_k2": "deepseek_v3"}
"""Older or derived names of the same architectures."""

_WIDTH: Final = 120
"""Longest line of a written YAML."""

MAX_NAME: Final = 120
"""Longest name of an architecture; a longer one (a path) is cut."""


def from_config(config: Mapping[str, Any], *, name: str = "", file: str = "") -> ArchitectureSpec:
    """The architecture that a model configuration describes.

    *name* defaults to what the configuration calls itself; *file* appears in messages. A multimodal configuration
    stands for its language model (``text_config``).

    Raises:
        UnsupportedError: a ``model_type`` that effsim does not know.
        DataError: a key is missing or has a wrong value.
    """
    outer = ConfigReader(config, file)
    reader = outer.section("text_config") if "text_config" in outer else outer
    given = reader.text("model_type") if "model_type" in reader else outer.text("model_type")
    model_type = _LEGACY.get(given, given)
    family = _FAMILIES.get(model_type)
    if family is None:
        raise UnsupportedError(_unknown(given, file))
    fields = family(reader)
    source = f"{file or 'a Hugging Face configuration'} (model_type {given})"
    title = name or outer.text("_name_or_path", "") or (Path(file).parent.name if file else "") or given
    try:
        return ArchitectureSpec.model_validate(
            {"kind": "architecture", "name": title[:120], "source": source, **fields}
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        what = str(first["msg"]).removeprefix("Value error, ")
        raise outer.problem(
            f"the configuration describes no possible model: {f'{where}: ' if where else ''}{what}"
        ) from None


def load_architecture(name_or_path: str) -> ArchitectureSpec:
    """The architecture that a user means: a bundled name, a YAML file, or a Hugging Face ``config.json``.

    Raises:
        UnknownNameError: no such file and no bundled architecture of that name.
        SpecError: the YAML is wrong, by position.
        DataError, UnsupportedError: as :func:`from_config`.
    """
    if name_or_path.endswith(".json"):
        return from_config(load_config(name_or_path), file=name_or_path)
    return build(ArchitectureSpec, load_document("architectures", name_or_path), root="architecture")


def to_yaml(spec: ArchitectureSpec) -> str:
    """The native YAML of an architecture: what was given, in the order of the specification, after a line of origin.

    Raises:
        DataError: the architecture cannot be written (never for one that was built from data).
    """
    fields = _without_nulls(spec.model_dump(mode="json", exclude_unset=True))
    try:
        body = yaml.safe_dump(
            {key: fields[key] for key in ArchitectureSpec.model_fields if key in fields},
            sort_keys=False,
            default_flow_style=None,
            allow_unicode=True,
            width=_WIDTH,
        )
    except yaml.YAMLError as error:
        raise DataError(f"{spec.name}: cannot be written as YAML: {error}") from None
    origin = "".join(c for c in " ".join(spec.source.split()) if c.isprintable())
    return (f"# From {origin}\n" if origin else "") + body


def _without_nulls(value: Any) -> Any:
    """A copy without null values, which stand for absent keys."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _unknown(model_type: str, file: str) -> str:
    guess = nearest(model_type, SUPPORTED)
    hint = f"; did you mean {guess!r}?" if guess else ""
    where = f"{file}: " if file else ""
    return (
        f"{where}unsupported model_type {model_type!r}; supported are {', '.join(SUPPORTED)}{hint}. Any other model "
        "can be written as an architecture YAML, or as a workload YAML with an explicit 'operators:' list"
    )

"""Typed reading of a model's ``config.json``: every wrong value is reported with its key and file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from ..errors import DataError
from ..spec.confine import readable

MAX_CONFIG_BYTES: Final = 10 * 2**20
"""Largest configuration that is read; real ones have a few kilobytes."""

MAX_LAYERS: Final = 1000
"""Most layers that a configuration may have."""

_REQUIRED: Final = object()
_T = TypeVar("_T")

_ACTIVATIONS: Final = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu2",
}


def load_config(path: str | Path) -> dict[str, Any]:
    """Read a JSON object from *path*.

    Raises:
        DataError: the file is missing, larger than 10 MB, no JSON, or no object.
    """
    file = Path(path)
    try:
        with readable(file).open("rb") as stream:
            data = stream.read(MAX_CONFIG_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path}: cannot be read: {reason}") from None
    if len(data) > MAX_CONFIG_BYTES:
        raise DataError(f"{path}: larger than the {MAX_CONFIG_BYTES // 2**20} MiB that a model configuration may have")
    try:
        config = json.loads(data.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}:{error.colno}: not JSON: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not JSON: not UTF-8 text at byte {error.start}") from None
    except (RecursionError, ValueError) as error:
        raise DataError(f"{path}: not JSON that can be read: {error}") from None
    if not isinstance(config, dict):
        raise DataError(f"{path}: holds {_shown(config)}; expected a JSON object with the model's hyper-parameters")
    return config


class ConfigReader:
    """A configuration and where it comes from. A key that is absent or null takes the default, if there is one.

    Several spellings of one key may be given; the first present one counts.
    """

    def __init__(self, config: Mapping[str, Any], file: str = "") -> None:
        """Read *config*; *file* is named in messages."""
        self._config, self._file = config, file

    def __contains__(self, key: str) -> bool:
        """Whether the key has a value other than null."""
        return self._config.get(key) is not None

    def integer(self, *keys: str, default: Any = _REQUIRED, minimum: int = 1) -> int:
        """A whole number of at least *minimum*."""
        key, value = self._find(keys, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise self.error(key, value, f"a whole number, {minimum} or more")
        return value

    def layers(self) -> int:
        """The number of layers, bounded so that a wrong one cannot exhaust memory."""
        count = self.integer("num_hidden_layers", "n_layer")
        if count > MAX_LAYERS:
            raise self.error("num_hidden_layers", count, f"at most {MAX_LAYERS}")
        return count

    def labels(self) -> int:
        """Outputs of a classifier: entries of ``id2label``, else ``num_labels``, else 2."""
        named = self._config.get("id2label")
        return len(named) if isinstance(named, dict) and named else self.integer("num_labels", default=2)

    def rotary_fraction(self, key: str, default: float) -> float:
        """The rotary share of a head, at *key* or (newer files) inside ``rope_parameters``."""
        nested = self.section("rope_parameters") if "rope_parameters" in self else self
        value = nested.number(key, default) if key not in self else self.number(key, default)
        if not 0.0 <= value <= 1.0:
            raise self.error(key, value, "a share from 0 to 1")
        return value

    def optional_integer(self, *keys: str, default: int | None = None) -> int | None:
        """A positive whole number, or None where the file says null or 0; *default* where it says nothing."""
        key = next((key for key in keys if key in self._config), keys[0])
        value = self._config.get(key, default)
        if value is None or value == 0:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self.error(key, value, "a whole number, or null")
        return value

    def boolean(self, key: str, default: bool) -> bool:
        """True or false."""
        _, value = self._find((key,), default)
        if not isinstance(value, bool):
            raise self.error(key, value, "true or false")
        return value

    def number(self, key: str, default: float) -> float:
        """A finite number."""
        _, value = self._find((key,), default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
            raise self.error(key, value, "a number")
        return float(value)

    def text(self, key: str, default: Any = _REQUIRED) -> str:
        """A string."""
        _, value = self._find((key,), default)
        if not isinstance(value, str):
            raise self.error(key, value, "text")
        return value

    def is_text(self, key: str, word: str) -> bool:
        """Whether the value of *key* is exactly *word*."""
        return bool(self._config.get(key) == word)

    def sequence(self, key: str, of: type[_T], default: Any = _REQUIRED) -> list[_T]:
        """A list whose items all have the type *of*."""
        _, value = self._find((key,), default)
        if not isinstance(value, list) or any(not isinstance(item, of) or isinstance(item, bool) for item in value):
            raise self.error(key, value, f"a list of {of.__name__}")
        return value

    def section(self, key: str) -> ConfigReader:
        """A nested object."""
        _, value = self._find((key,), _REQUIRED)
        if not isinstance(value, dict):
            raise self.error(key, value, "an object")
        return ConfigReader(value, self._file)

    def activation(self, key: str, default: str) -> str:
        """The name effsim has for an activation function."""
        name = self.text(key, default)
        if name not in _ACTIVATIONS:
            raise self.error(key, name, "one of " + ", ".join(_ACTIVATIONS))
        return _ACTIVATIONS[name]

    def error(self, key: str, value: object, expected: str) -> DataError:
        """The error for a key whose value is not what was expected."""
        return DataError(f"{self._where()}key {key!r} is {_shown(value)}; expected {expected}")

    def problem(self, what: str) -> DataError:
        """An error about the configuration as a whole."""
        return DataError(f"{self._where()}{what}")

    def _find(self, keys: tuple[str, ...], default: Any) -> tuple[str, Any]:
        for key in keys:
            if self._config.get(key) is not None:
                return key, self._config[key]
        if default is _REQUIRED:
            names = " or ".join(repr(key) for key in keys)
            raise DataError(f"{self._where()}missing key {names} in the model configuration")
        return keys[0], default

    def _where(self) -> str:
        return f"{self._file}: " if self._file else ""


def _shown(value: object, limit: int = 60) -> str:
    """*value* as JSON readers know it, cut to a readable length."""
    kinds = {dict: "an object", list: "a list", type(None): "null"}
    text = kinds.get(type(value)) or (str(value).lower() if isinstance(value, bool) else repr(value))
    return text if len(text) <= limit else f"{text[:limit]}…"

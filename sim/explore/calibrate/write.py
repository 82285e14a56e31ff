"""Writing a hardware file: YAML that people can read, put in place in one step, checked before."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import DataError

_QUANTITY = {"value", "kind", "source"}


def yaml_text(document: Mapping[str, Any], comment: str = "") -> str:
    """The document as YAML; quantities with their origin on one line each."""
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    _mapping(document, 0, lines)
    return "\n".join(lines) + "\n"


def _mapping(node: Mapping[str, Any], depth: int, lines: list[str]) -> None:
    for key, value in node.items():
        head = f"{'  ' * depth}{key}:"
        if isinstance(value, Mapping) and not _flat(value):
            lines.append(head)
            _mapping(value, depth + 1, lines)
        else:
            lines.append(f"{head} {_inline(value)}")


def _flat(value: Mapping[str, Any]) -> bool:
    return set(value) <= _QUANTITY or not value


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {_inline(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    return str(value)


def _text(value: str) -> str:
    """Plain where nothing in it can be mistaken, else in double quotes."""
    plain = value and all(c.isalnum() or c in " ._/+" for c in value) and value[0].isalnum() and value == value.strip()
    if plain and value.lower() not in ("true", "false", "null", "yes", "no", "on", "off"):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    return f'"{escaped}"'


def write_checked(path: Path, text: str) -> None:
    """Write *text* to a temporary file beside *path*, load it as hardware, then rename it.

    Raises:
        DataError: the folder is missing or cannot be written.
        SpecError: the text is no valid hardware file (nothing is left behind).
    """
    from ...devices.registry import load_machine

    if not path.parent.is_dir():
        raise DataError(f"{path}: the folder {path.parent} does not exist")
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=".yaml")
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error}") from None
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        load_machine(str(temporary))
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise

"""Entries of a hardware file, changed in the text itself: comments, order and everything else stay as they were."""

from __future__ import annotations

import difflib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ...errors import DataError, SpecError
from ...spec.yaml_loader import Document, Node, load_yaml
from .write import _inline


@dataclass(frozen=True, slots=True)
class Entry:
    """A number of kind ``fitted`` at a dotted path, as the file is to spell it."""

    path: str
    value: str
    source: str


def fitted_entries(document: Document) -> Iterator[str]:
    """Dotted paths of the entries that a file (without what it extends) calls ``fitted`` themselves."""
    stack: list[tuple[str, Node]] = [("", document.root)]
    while stack:
        path, node = stack.pop()
        if isinstance(node.content, dict):
            kind = node.child("kind")
            if kind is not None and "value" in node.content and kind.content == "fitted":
                yield path
            stack += [(f"{path}.{key}".lstrip("."), child) for key, (_, child) in node.content.items()]
        elif isinstance(node.content, list):
            stack += [(f"{path}.{i}", child) for i, child in enumerate(node.content)]


def with_entries(text: str, entries: Sequence[Entry], file: str) -> str:
    """*text* with its entries replaced.

    Raises:
        SpecError: the file has no entry at a path, or spells it over several lines.
    """
    root: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    spans = []
    for entry in entries:
        node = root
        for key in entry.path.split("."):
            pairs = node.value if isinstance(node, yaml.MappingNode) else []
            node = next((value for name, value in pairs if name.value == key), None)
        if node is None:
            raise SpecError(f"{file} has no entry {entry.path!r} to write a fitted number to")
        if isinstance(node, yaml.CollectionNode) and not node.flow_style:
            raise SpecError(f"{file}: {entry.path!r} is spelt over several lines; expected {{value, kind, source}}")
        written = _inline({"value": entry.value, "kind": "fitted", "source": entry.source})
        spans.append((node.start_mark.index, node.end_mark.index, written))
    for start, end, written in sorted(spans, reverse=True):
        text = text[:start] + written + text[end:]
    return text


def difference(path: Path, entries: Sequence[Entry]) -> str:
    """What :func:`write_entries` would change, as a unified diff."""
    old = path.read_text(encoding="utf-8")
    new = with_entries(old, entries, path.name)
    lines = difflib.unified_diff(old.splitlines(True), new.splitlines(True), path.name, path.name, n=0)
    return "".join(lines)


def write_entries(path: Path, entries: Sequence[Entry]) -> bool:
    """Put the entries into the file in one step; whether anything changed.

    Raises:
        DataError: the file cannot be written.
        SpecError: an entry is not there; nothing is written.
    """
    old = path.read_text(encoding="utf-8")
    new = with_entries(old, entries, path.name)
    if new == old:
        return False
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=".yaml")
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error}") from None
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(new)
        document = load_yaml(temporary)
        for entry in entries:
            node = document.node((*entry.path.split("."), "value"))
            if node is None or str(node.data) != entry.value:
                raise SpecError(f"{path.name}: {entry.path!r} cannot be written as {entry.value!r}")
        temporary.chmod(path.stat().st_mode)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return True

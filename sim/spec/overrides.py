"""``--set path=value``: what-if on any field of a document.

An assignment changes the document before it is checked, so that a wrong path, unit or value is reported exactly like
one in a file; its position is the command line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from ..errors import SpecError, UnknownNameError, YamlError, nearest
from .yaml_loader import MAX_BYTES, MAX_DEPTH, CommandLine, Document, Node, parse_node, resolve

COMMAND_LINE: Final = "command line"
ORIGIN: Final = ("assumed", "set on the command line")
PREFIXES: Final = ("hardware", "workload")
"""First parts that a path may have; each reading of a document takes those meant for it."""

_SEGMENT: Final = re.compile(r"[^.\s\[\]=]+")
_QUANTITY_KEYS: Final = frozenset({"value", "kind", "source"})


def apply(document: Document, assignments: Sequence[str], prefix: str) -> Document:
    """Return *document* with the assignments whose path starts with *prefix*; the others are for other documents.

    An assignment reads ``hardware.memory.bandwidth=4TB/s``: a dotted path (list items by number), then a YAML 1.2
    scalar or flow collection. ``null`` removes a value. A quantity with an origin is replaced as a whole; what is set
    here has the kind ``assumed`` and the source ``set on the command line``. A key the document does not have is
    added, and checked like any other when the model is built.

    Raises:
        SpecError: not an assignment; a path with an unknown first part, through a plain value, or past the end of a
            list; a value that is not YAML.
    """
    root = document.root
    touched = False
    for number, assignment in enumerate(assignments, start=1):
        place = CommandLine(COMMAND_LINE, number)
        path, text = _split(assignment, place)
        first, keys = path[0], path[1:]
        if first != prefix:
            if first not in PREFIXES:
                close = nearest(first, (*PREFIXES, prefix))
                raise UnknownNameError(
                    f"unknown first part {first!r}",
                    location=place,
                    path=".".join(path),
                    expected="a path that starts with " + " or ".join(f"{known}." for known in PREFIXES),
                    suggestion=".".join((close, *keys)) if close else "",
                )
            continue
        if not keys:
            raise SpecError("the whole document cannot be set", location=place, path=first, expected=f"{first}.field=…")
        root = _set(root, keys, _value(text, place, ".".join(path)), prefix, place)
        touched = True
    if not touched:
        return document
    return Document(document.file, root, {**document.origins, COMMAND_LINE: ORIGIN})


def _split(assignment: str, place: CommandLine) -> tuple[tuple[str, ...], str]:
    """Return the keys of the path and the text of the value."""
    path, equals, text = assignment.partition("=")
    keys = tuple(path.strip().split("."))
    wanted = "path=value, such as hardware.memory.bandwidth=4TB/s"
    if not equals:
        raise SpecError(f"{assignment!r} is not an assignment", location=place, expected=wanted)
    if not all(_SEGMENT.fullmatch(key) for key in keys) or len(keys) > MAX_DEPTH:
        raise SpecError(f"{path.strip()[:80]!r} is not a path", location=place, expected=wanted)
    return keys, text.strip()


def _value(text: str, place: CommandLine, path: str) -> Node:
    """Return the value; only flow collections and quoted text are YAML, all else is one plain scalar."""
    try:
        if len(text) > MAX_BYTES:
            raise YamlError("the value is too long", location=place)
        if not text.startswith(("[", "{", '"', "'")):
            return Node(resolve(text, place), place)
        node = parse_node(text, lambda _line, _column: place)
    except YamlError as error:
        raise YamlError(error.what, location=place, path=path, expected=error.expected) from None
    return node or Node(None, place)


def _set(node: Node, keys: tuple[str, ...], value: Node, path: str, place: CommandLine) -> Node:
    """Return *node* with *value* at *keys*; *path* is the way here, for messages."""
    if not keys:
        return value
    here, rest = keys[0], keys[1:]
    below = f"{path}.{here}"
    if isinstance(node.content, list):
        index = _index(node, here, below, place)
        items = list(node.content)
        items[index] = _set(items[index], rest, value, below, place)
        return Node(items, node.location)
    content = {} if node.content is None else node.content
    if not isinstance(content, dict):
        # A quantity written bare can still be given an origin: ``….bandwidth.source=…``.
        if here not in _QUANTITY_KEYS or rest:
            raise SpecError(f"{path} is a plain value", location=place, path=below, expected="a path to a field")
        content = {"value": (node.location, node)}
    if here == "value" and not rest and "value" in content and content.keys() <= _QUANTITY_KEYS:
        return value  # a new value is no longer what the old source says
    if not rest and value.content is None:
        return Node({key: item for key, item in content.items() if key != here}, node.location)
    old = content.get(here)
    child = _set(old[1] if old else Node(None, place), rest, value, below, place)
    return Node({**content, here: (place, child)}, place if node.content is None else node.location)


def _index(node: Node, text: str, path: str, place: CommandLine) -> int:
    length = len(node.content) if isinstance(node.content, list) else 0
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) >= length:
        raise SpecError(
            f"{text!r} is no item of a list of {length}",
            location=place,
            path=path,
            expected=f"a number from 0 to {length - 1}" if length else "a list that has items",
        )
    return int(text)

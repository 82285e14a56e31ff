"""YAML 1.2 (core schema) with positions, and with everything refused that a specification has no use for.

The text is read as a stream of parser events and built into a tree of :class:`Node` without recursion, so that neither
deep nesting nor alias bombs can hurt: limits are checked while reading. Scalars follow the YAML 1.2 core schema:
``1e9`` is a float, ``no``, ``on`` and ``12:30`` are text, ``0777`` is 777.
"""

from __future__ import annotations

import codecs
import json
import math
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeAlias

import yaml

from ..errors import Location, YamlError
from .confine import readable

Scalar: TypeAlias = str | int | float | bool | None
Key: TypeAlias = str | int
KeyPath: TypeAlias = tuple[Key, ...]

MAX_BYTES: Final = 2**20
MAX_NODES: Final = 50_000
MAX_DEPTH: Final = 64
MAX_DIGITS: Final = 30
MAX_KEY: Final = 200

_REMEMBERED: Final = 64
_REMEMBERED_TEXT: Final = 2**15
"""Documents kept, and characters of the longest one: together at most a few dozen MB."""

_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BOMS: Final = ((codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF32_BE, "UTF-32"), (codecs.BOM_UTF16_LE, "UTF-16"),
                (codecs.BOM_UTF16_BE, "UTF-16"))  # fmt: skip
_CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE: Final = frozenset({"true", "True", "TRUE"})
_FALSE: Final = frozenset({"false", "False", "FALSE"})
_INT: Final = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


class CommandLine(Location):
    """The position of a value that was given with ``--set``; ``line`` numbers the assignments."""

    __slots__ = ()

    def __str__(self) -> str:
        """Lines and columns mean nothing on a command line."""
        return self.file


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where it stands.

    ``content`` is a scalar, a list of nodes, or a mapping of key to (position of the key, node);
    ``size`` and ``height`` count nodes and levels with aliases expanded.
    """

    content: Scalar | list[Node] | dict[str, tuple[Location, Node]]
    location: Location
    size: int = 1
    height: int = 0

    @property
    def data(self) -> Any:
        """The value as plain dicts, lists and scalars. Depth is bounded by the loader, so recursion is safe."""
        if isinstance(self.content, dict):
            return {key: node.data for key, (_, node) in self.content.items()}
        if isinstance(self.content, list):
            return [node.data for node in self.content]
        return self.content

    def child(self, key: Key) -> Node | None:
        """Return the node under a key or index, or None."""
        if isinstance(self.content, dict):
            found = self.content.get(key) if isinstance(key, str) else None
            return found[1] if found else None
        if isinstance(self.content, list) and isinstance(key, int) and 0 <= key < len(self.content):
            return self.content[key]
        return None


@dataclass(frozen=True, slots=True)
class Document:
    """What one file says, or several joined by ``extends:``, with the position of everything.

    ``origins`` gives, for each contributing file, the kind and source of its bare numbers, as far as it says them.
    """

    file: str
    root: Node
    origins: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def data(self) -> dict[str, Any]:
        """A fresh plain copy of the content."""
        content: dict[str, Any] = self.root.data
        return content

    def node(self, path: KeyPath) -> Node | None:
        """Return the node at *path*, or None."""
        node: Node | None = self.root
        for key in path:
            node = node.child(key) if node else None
        return node

    def location(self, path: KeyPath) -> Location:
        """Return where the value at *path* stands, or its nearest existing ancestor."""
        node = self.root
        for key in path:
            child = node.child(key)
            if child is None:
                break
            node = child
        return node.location

    def key_location(self, path: KeyPath) -> Location:
        """Return where the key that ends *path* stands; for list items and unknown keys, like :meth:`location`."""
        parent = self.node(path[:-1]) if path else None
        if parent is not None and isinstance(parent.content, dict):
            found = parent.content.get(str(path[-1]))
            if found:
                return found[0]
        return self.location(path)


def load_yaml(path: Path) -> Document:
    """Read a file.

    Raises:
        YamlError: the file is missing, unreadable, not a regular file, larger than 1 MiB or not UTF-8; or its
            content is refused (see :func:`load_yaml_text`).
    """
    name = str(path).replace("\x00", "\\0")
    start = Location(name)
    try:
        status = readable(path).stat()
        if stat.S_ISDIR(status.st_mode):
            raise YamlError("is a directory", location=start, expected="a YAML file")
        if not stat.S_ISREG(status.st_mode):
            raise YamlError("is not a regular file", location=start, expected="a YAML file")
        _check_size(status.st_size, start)
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise YamlError("no such file", location=start) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise YamlError(f"cannot be read: {reason}", location=start) from None
    _check_size(len(raw), start)
    return load_yaml_text(_decode(raw, name), name)


def load_yaml_text(text: str, name: str) -> Document:
    """Read a text; *name* stands for the file in messages.

    Raises:
        YamlError: not YAML; empty; several documents; no mapping at top level; duplicate or non-text keys; tags, merge
            keys, alias cycles; more than 50,000 nodes (aliases expanded) or 64 levels; control characters; numbers
            that are not finite or have more than 30 digits.
    """
    return (_remembered if len(text) <= _REMEMBERED_TEXT else _parsed)(text, name)


def _parsed(text: str, name: str) -> Document:
    """As :func:`load_yaml_text`."""
    _check_size(len(text.encode("utf-8", "replace")), Location(name))
    text = text.removeprefix("\ufeff")
    _check_characters(text, name)
    root = parse_node(text, lambda line, column: Location(name, line, column))
    if root is None or (root.content is None and root.location.line == 1 and not text.strip()):
        raise YamlError("the file is empty", location=Location(name), expected="a mapping of keys to values")
    if not isinstance(root.content, dict):
        found = "a list" if isinstance(root.content, list) else "nothing" if root.content is None else "a single value"
        raise YamlError(f"{found} at the top level", location=root.location, expected="a mapping of keys to values")
    return Document(name, root)


_remembered = lru_cache(maxsize=_REMEMBERED)(_parsed)
"""The same text under the same name is the same document: files are read each time, but parsed only when they changed.

Documents are never changed in place (:mod:`effsim.spec.overrides` and ``extends:`` build new nodes).
"""


def resolve(text: str, location: Location) -> Scalar:
    """Return the YAML 1.2 core value of an unquoted scalar.

    Raises:
        YamlError: infinite, not a number, or an integer with more than 30 digits.
    """
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _INT.fullmatch(text):
        if len(text.lstrip("+-")) > MAX_DIGITS:
            raise YamlError(f"an integer of {len(text.lstrip('+-'))} digits", location=location, expected="at most 30")
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if _NOT_FINITE.fullmatch(text):
        raise YamlError(f"{text} is not a finite number", location=location)
    if _FLOAT.fullmatch(text):
        number = float(text)
        if not math.isfinite(number):
            raise YamlError(f"{text[:40]} is too large for a number", location=location)
        return number
    return text


def parse_node(text: str, locate: Callable[[int, int], Location]) -> Node | None:
    """Return the tree of the one document in *text*, or None if there is none. *locate* makes positions (1-based)."""
    builder = _Builder(locate)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.feed(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = locate(mark.line + 1, mark.column + 1) if mark else locate(1, 1)
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise YamlError(f"not valid YAML: {what}", location=where) from None
    except (yaml.YAMLError, UnicodeError) as error:
        raise YamlError(f"not valid YAML: {str(error).splitlines()[0]}", location=locate(1, 1)) from None
    return builder.root


@dataclass(slots=True)
class _Open:
    """A collection under construction."""

    content: list[Node] | dict[str, tuple[Location, Node]]
    location: Location
    anchor: str | None
    key: tuple[str, Location] | None = None
    size: int = 1
    height: int = 0


class _Builder:
    """Builds the tree from parser events, with an explicit stack."""

    def __init__(self, locate: Callable[[int, int], Location]) -> None:
        self.root: Node | None = None
        self._locate = locate
        self._stack: list[_Open] = []
        self._anchors: dict[str, Node | None] = {}
        self._nodes = 0
        self._documents = 0

    def feed(self, event: Any) -> None:
        """Take the next event."""
        here = self._locate(event.start_mark.line + 1, event.start_mark.column + 1)
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event, here)
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise YamlError("a second document starts", location=here, expected="one document a file")
            if event.tags:
                raise YamlError("%TAG directives are not allowed", location=here)
        elif isinstance(event, yaml.AliasEvent):
            node = self._alias(event.anchor, here)
            self._count(node.size, here)
            self._add(node, here, None)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._open(event, here)
        elif isinstance(event, yaml.CollectionEndEvent):
            closed = self._stack.pop()
            self._add(Node(closed.content, closed.location, closed.size, closed.height), closed.location, closed.anchor)

    def _alias(self, name: str | None, here: Location) -> Node:
        if name is None or name not in self._anchors:
            raise YamlError(f"the alias *{name} has no anchor &{name} before it", location=here)
        node = self._anchors[name]
        if node is None:
            raise YamlError(f"the alias *{name} stands inside its own anchor", location=here)
        return node

    def _scalar(self, event: Any, here: Location) -> None:
        _refuse_tag(event, here)
        parent = self._stack[-1] if self._stack else None
        is_key = parent is not None and isinstance(parent.content, dict) and parent.key is None
        plain = event.style is None or event.style == ""
        if is_key and plain and event.value == "<<":
            raise YamlError("merge keys (<<) are not YAML 1.2", location=here, expected="extends: at the top level")
        escaped = None if plain else _CONTROL.search(event.value)
        if escaped:
            raise YamlError(f"control character U+{ord(escaped[0]):04X} in a text", location=here)
        value = resolve(event.value, here) if plain else event.value
        self._count(1, here)
        self._add(Node(value, here), here, event.anchor)

    def _open(self, event: Any, here: Location) -> None:
        _refuse_tag(event, here)
        if len(self._stack) >= MAX_DEPTH:
            raise YamlError("nested too deeply", location=here, expected=f"at most {MAX_DEPTH} levels")
        parent = self._stack[-1] if self._stack else None
        if parent is not None and isinstance(parent.content, dict) and parent.key is None:
            raise YamlError("a collection as a key", location=here, expected="text")
        if event.anchor:
            self._anchors[event.anchor] = None
        self._stack.append(_Open({} if isinstance(event, yaml.MappingStartEvent) else [], here, event.anchor))
        self._count(1, here)

    def _add(self, node: Node, here: Location, anchor: str | None) -> None:
        """Put a finished node where it belongs: into the open collection, as a key, or at the root."""
        if anchor:
            self._anchors[anchor] = node
        if len(self._stack) + node.height > MAX_DEPTH:
            raise YamlError("nested too deeply", location=here, expected=f"at most {MAX_DEPTH} levels")
        if not self._stack:
            self.root = node
            return
        parent = self._stack[-1]
        if isinstance(parent.content, dict) and parent.key is None:
            parent.key = _key(node, parent.content, here), here
            return
        parent.size += node.size
        parent.height = max(parent.height, node.height + 1)
        if isinstance(parent.content, list):
            parent.content.append(node)
        elif parent.key is not None:
            parent.content[parent.key[0]] = parent.key[1], node
            parent.key = None

    def _count(self, nodes: int, here: Location) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise YamlError("too much content, aliases expanded", location=here, expected=f"at most {MAX_NODES} nodes")


def _refuse_tag(event: Any, here: Location) -> None:
    if event.tag is not None:
        tag = event.tag.replace("tag:yaml.org,2002:", "!!", 1)[:MAX_KEY]
        raise YamlError(f"the tag {tag} is not allowed", location=here, expected="values without tags")


def _key(node: Node, siblings: Mapping[str, tuple[Location, Node]], here: Location) -> str:
    """Return a mapping key, which must be text that is not there yet."""
    key = node.content
    if not isinstance(key, str):
        found = "a collection" if isinstance(key, list | dict) else json.dumps(key)
        raise YamlError(f"the key {found} is not text", location=here, expected="text; quote it")
    if len(key) > MAX_KEY:
        raise YamlError(f"a key of {len(key)} characters", location=here, expected=f"at most {MAX_KEY}")
    if key in siblings:
        first = siblings[key][0]
        raise YamlError(f"the key {key!r} is here twice, first in line {first.line}", location=here)
    return key


def _check_size(size: int, location: Location) -> None:
    if size > MAX_BYTES:
        raise YamlError(f"{size:,} bytes is too large", location=location, expected=f"at most {MAX_BYTES:,} bytes")


def _decode(raw: bytes, name: str) -> str:
    for bom, encoding in _BOMS:
        if raw.startswith(bom):
            raise YamlError(f"the file is {encoding}", location=Location(name), expected="UTF-8")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8")
        where = _position(before, name)
        raise YamlError(f"byte 0x{raw[error.start]:02x} is not UTF-8", location=where, expected="UTF-8") from None


def _position(before: str, name: str) -> Location:
    """Return the position just after *before*."""
    return Location(name, before.count("\n") + 1, len(before) - before.rfind("\n"))


def _check_characters(text: str, name: str) -> None:
    found = _CONTROL.search(text)
    if found:
        what = f"control character U+{ord(found[0]):04X}"
        raise YamlError(what, location=_position(text[: found.start()], name), expected="text")

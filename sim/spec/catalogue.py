"""The bundled files, and ``extends:``.

Files are found through the packages they are installed as, so an installed and an editable effsim find the same. A
document that extends another is merged with it: mappings join, everything else replaces, and every value remembers the
file it was written in.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Final

from ..errors import Location, SpecError, UnknownNameError, nearest
from .confine import is_file
from .yaml_loader import Document, Node, load_yaml

MAX_EXTENDS: Final = 8

_ROOT: Final = __name__.split(".")[0]
_FOLDERS: Final = MappingProxyType(
    {
        "hardware": (f"{_ROOT}.hw_configs", ""),
        "workloads": (f"{_ROOT}.workloads", ""),
        "architectures": (f"{_ROOT}.workloads", "architectures"),
        "techniques": (f"{_ROOT}.workloads", "techniques"),
        "engines": (f"{_ROOT}.workloads", "engines"),
        "studies": (f"{_ROOT}.workloads", "studies"),
        "plans": (f"{_ROOT}.workloads", "plans"),
        "generations": (f"{_ROOT}.hw_configs", "generations"),
        "dram": (f"{_ROOT}.hw_configs", "dram"),
        "fits": (f"{_ROOT}.hw_configs", "fits"),
    }
)
SECTIONS: Final = (
    "hardware",
    "workloads",
    "architectures",
    "techniques",
    "engines",
    "studies",
    "plans",
    "dram",
    "fits",
)
_EXTENDABLE: Final = MappingProxyType({"hardware": ("hardware", "generations")})
_SUFFIXES: Final = (".yaml", ".yml")
_MAX_SHOWN: Final = 120
_QUANTITY_KEYS: Final = frozenset({"value", "kind", "source"})


def names(section: str) -> list[str]:
    """Return the names of the bundled files of a section (see :data:`SECTIONS`), sorted."""
    return sorted(_bundled(section))


def find(section: str, name_or_path: str) -> Path:
    """Return the file that a user means: a path, or the name of a bundled file with or without ``.yaml``.

    Raises:
        UnknownNameError: there is no such file, with the nearest bundled name.
    """
    path = Path(name_or_path)
    if is_file(path):
        return path
    bundled = _bundled(section)
    stem = _stem(name_or_path)
    if stem in bundled:
        return bundled[stem]
    wanted = f"a path or a name from 'effsim list {section}'"
    if not name_or_path or _has_separator(name_or_path):
        raise UnknownNameError(f"no such file {_short(name_or_path)}", expected=wanted)
    what = f"no file {_short(name_or_path)} and no bundled {section} of that name"
    raise UnknownNameError(what, expected=wanted, suggestion=nearest(stem[:_MAX_SHOWN], bundled))


def load_document(section: str, name_or_path: str) -> Document:
    """Read a file of a section with everything it extends.

    ``extends:`` names a bundled file (for hardware also a generation) or a path relative to the file. Mappings are
    joined, scalars, lists and quantities replace, null removes what was inherited. ``provenance:`` is not inherited:
    it speaks for the numbers written in its own file.

    Raises:
        UnknownNameError: a file does not exist.
        SpecError: a file cannot be read, or extends itself, or the chain is longer than eight files.
    """
    return _load(section, find(section, name_or_path), ())


def merge(base: Node, top: Node) -> Node:
    """Return *top* laid over *base*: mappings join, other values and quantities replace, null removes."""
    if not isinstance(base.content, dict) or not isinstance(top.content, dict) or _is_quantity(top):
        return top
    joined = dict(base.content)
    for key, (where, node) in top.content.items():
        inherited = joined.get(key)
        if inherited is None:
            joined[key] = where, node
        elif node.content is None:
            del joined[key]
        else:
            joined[key] = where, merge(inherited[1], node)
    return Node(joined, top.location)


def _is_quantity(node: Node) -> bool:
    """Tell whether a mapping is a number with its origin: the origin of another value must not leak into it."""
    return isinstance(node.content, dict) and "value" in node.content and node.content.keys() <= _QUANTITY_KEYS


def _load(section: str, path: Path, chain: tuple[tuple[Path, Location], ...]) -> Document:
    """Read *path*; *chain* holds the files on the way here and where each names the next."""
    from .build import read_origin  # pydantic is loaded only when a document is

    document = load_yaml(path)
    origin = read_origin(document, root="")
    origins = {document.file: origin} if origin else {}
    extends = document.node(("extends",))
    if extends is None:
        return Document(document.file, document.root, origins)
    parent = _parent(section, path, extends)
    steps = (*chain, (path.resolve(), extends.location))
    _check_chain(steps, parent, extends.location)
    base = _load(section, parent, steps)
    inherited = _without(base.root, "provenance")
    root = merge(inherited, _without(document.root, "extends"))
    return Document(document.file, root, {**base.origins, **origins})


def _parent(section: str, path: Path, extends: Node) -> Path:
    """Return the file that ``extends:`` means."""
    name = extends.content
    if not isinstance(name, str) or not name:
        wanted = "the name of a bundled file, or a path relative to this one"
        raise SpecError("not the name of a file", location=extends.location, path="extends", expected=wanted)
    beside = path.parent / name
    if is_file(beside):
        return beside
    choices: dict[str, Path] = {}
    for kind in _EXTENDABLE.get(section, (section,)):
        choices |= _bundled(kind)
    stem = _stem(name.removeprefix("generations/"))
    if stem in choices:
        return choices[stem]
    raise UnknownNameError(
        f"no file {_short(name)} beside this one and no bundled file of that name",
        location=extends.location,
        path="extends",
        suggestion=nearest(stem[:_MAX_SHOWN], choices),
    )


def _check_chain(steps: tuple[tuple[Path, Location], ...], parent: Path, here: Location) -> None:
    seen = dict(steps)
    first = seen.get(parent.resolve())
    if first is not None:
        what = "extends itself" if len(steps) == 1 or first is here else f"extends itself through {first}"
        raise SpecError(what, location=here, path="extends")
    if len(steps) >= MAX_EXTENDS:
        raise SpecError("too long a chain of files", location=here, path="extends", expected=f"at most {MAX_EXTENDS}")


def _without(node: Node, key: str) -> Node:
    if not isinstance(node.content, dict):
        return node
    return Node({name: item for name, item in node.content.items() if name != key}, node.location)


@cache
def _bundled(section: str) -> Mapping[str, Path]:
    """Return the bundled files of a section by name; empty if the folder is not there."""
    if section not in _FOLDERS:
        raise UnknownNameError(
            f"no catalogue section {section!r}", expected=", ".join(SECTIONS), suggestion=nearest(section, SECTIONS)
        )
    package, folder = _FOLDERS[section]
    entries = list(files(package).iterdir())
    if folder:
        entries = [item for entry in entries if entry.name == folder and entry.is_dir() for item in entry.iterdir()]
    return {_stem(entry.name): Path(str(entry)) for entry in entries if entry.name.endswith(_SUFFIXES)}


def _short(name: str) -> str:
    return repr(name if len(name) <= _MAX_SHOWN else f"{name[:_MAX_SHOWN]}…")


def _stem(name: str) -> str:
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def _has_separator(name: str) -> bool:
    return any(separator in name for separator in (os.sep, os.altsep, "/") if separator)

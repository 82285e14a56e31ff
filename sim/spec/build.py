"""From a document to a checked model: errors that point at the line, and an origin for every number."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from ..errors import Location, SpecError, nearest
from .fields import ORIGINS, QUANTITY_ERROR, QuantityType, SpecModel, walk
from .yaml_loader import CommandLine, Document, KeyPath, Node

T = TypeVar("T", bound=SpecModel)

NO_SOURCE: Final = ("assumed", "no source given in {file}")
DEFAULT_SOURCE: Final = ("assumed", "default value, not given in {file}")

_WANTED: Final[Mapping[str, str]] = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_QUOTED: Final = re.compile(r"'((?:[^'\\]|\\.)*)'")
_MAX_SHOWN: Final = 60


def build(model: type[T], document: Document, *, root: str) -> T:
    """Return the document as an instance of *model*, every number with the kind and source of its value.

    *root* is the first part of the paths in messages (``hardware``, ``workload``); it may be empty. A number that does
    not say its origin takes it from the ``provenance:`` of the file in which it was written.

    Raises:
        SpecError: the first thing that is wrong, by position in the file.
    """
    try:
        built = model.model_validate(document.data)
    except ValidationError as error:
        raise _first(model, document, root, error.errors(include_url=False)) from None
    except SpecError as error:
        if error.location is not None:
            raise
        raise _located(error, document.location(()), root) from None
    _fill_origins(built, document, root)
    return built


def build_by_kind(models: Mapping[str, type[T]], document: Document, *, root: str) -> T:
    """Return the document as an instance of the model that its ``kind:`` names.

    Raises:
        SpecError: ``kind:`` is missing or unknown, or :func:`build` finds something wrong.
    """
    kind, path = document.node(("kind",)), _dotted(root, ("kind",))
    choices = _either(models)
    if kind is None:
        raise SpecError("missing 'kind'", location=document.location(()), path=root, expected=choices)
    if not isinstance(kind.content, str) or kind.content not in models:
        shown = _shown(kind.data)
        raise SpecError(
            f"unknown kind {shown}",
            location=kind.location,
            path=path,
            expected=choices,
            suggestion=nearest(kind.content[:_MAX_SHOWN], models) if isinstance(kind.content, str) else "",
        )
    return build(models[kind.content], document, root=root)


def read_origin(document: Document, *, root: str) -> tuple[str, str] | None:
    """Return kind and source from the ``provenance:`` of a single file, or None if it has none.

    Raises:
        SpecError: the provenance is not a mapping of a known kind and a source.
    """
    node = document.node(("provenance",))
    if node is None or node.content is None:
        return None
    if not isinstance(node.content, dict):
        path = _dotted(root, ("provenance",))
        raise SpecError(
            f"{_shown(node.data)} is not a mapping", location=node.location, path=path, expected="kind and source"
        )
    kind, source = (_provenance_text(node, key, root) for key in ("kind", "source"))
    if kind not in ORIGINS:
        path, where = _dotted(root, ("provenance", "kind")), document.location(("provenance", "kind"))
        raise SpecError(
            f"unknown kind {_shown(kind)}",
            location=where,
            path=path,
            expected=_either(ORIGINS),
            suggestion=nearest(kind[:_MAX_SHOWN], ORIGINS),
        )
    return kind, source


def _provenance_text(node: Node, key: str, root: str) -> str:
    child, path = node.child(key), _dotted(root, ("provenance",))
    if child is None:
        raise SpecError(f"missing {key!r}", location=node.location, path=path, expected="text")
    if not isinstance(child.content, str):
        raise SpecError(
            f"{_shown(child.data)} is not text", location=child.location, path=f"{path}.{key}", expected="text"
        )
    return child.content


# --- where numbers come from ------------------------------------------------------------------------------------------


def _fill_origins(built: SpecModel, document: Document, root: str) -> None:
    """Give every quantity the kind and source that it does not have yet."""
    origins = dict(document.origins)
    provenance = document.node(("provenance",))
    if document.file not in origins and provenance is not None and provenance.location.file == document.file:
        own = read_origin(document, root=root)
        if own:
            origins[document.file] = own
    for path, quantity in walk(built):
        if quantity.kind is not None and quantity.source is not None:
            continue
        node = document.node(path)
        if node is None:
            file, fallback = document.file, DEFAULT_SOURCE
            kind, source = fallback
        else:
            file = (node.child("value") or node).location.file
            kind, source = origins.get(file, NO_SOURCE)
        quantity.kind = quantity.kind or kind
        if not quantity.source:
            quantity.source = source.replace("{file}", Path(file).name) if "{file}" in source else source


# --- errors -----------------------------------------------------------------------------------------------------------


def _first(model: type[BaseModel], document: Document, root: str, errors: list[ErrorDetails]) -> SpecError:
    """Return the first error by position; misspelt keys come before the missing keys they explain."""
    found = [_Problem(model, document, error) for error in errors]
    strays = [problem.loc[:-1] for problem in found if problem.is_stray]
    found = [problem for problem in found if not any(problem.loc[: len(stray)] == stray for stray in strays)] or found
    found = [problem for problem in found if not _other_branch(problem, found)]
    spoilt = {problem.path[:-1] for problem in found if problem.kind == "extra_forbidden"}
    telling = [p for p in found if not (p.kind == "missing" and p.path[:-1] in spoilt)]
    first = min(telling, key=lambda problem: problem.order)
    return first.error(root)


def _other_branch(problem: _Problem, found: list[_Problem]) -> bool:
    """Whether this only says that a mapping could have been a word, while others say what is wrong in the mapping."""
    if problem.kind != "literal_error" or not isinstance(problem.detail["input"], dict | list):
        return False
    depth = len(problem.path)
    return any(other is not problem and other.path[:depth] == problem.path for other in found)


class _Problem:
    """One pydantic error, seen from the document."""

    def __init__(self, model: type[BaseModel], document: Document, error: ErrorDetails) -> None:
        self.kind: str = error["type"]
        self.loc = error["loc"]
        self.detail = error
        self.context: dict[str, Any] = error.get("ctx", {})
        self.is_key = bool(error["loc"]) and error["loc"][-1] == "[key]"
        self.path = _in_document(document, error["loc"], self.kind) + tuple(self.context.get("below", ()))
        self._model, self._document = model, document
        if self.kind == "extra_forbidden" or self.is_key or (self.context.get("what", "").startswith("unknown key")):
            self.location = document.key_location(self.path)
        else:
            self.location = document.location(self.path)

    @property
    def order(self) -> tuple[bool, int, int]:
        """Sort key: the main file before those it extends, then by position."""
        where = self.location
        return where.file != self._document.file, where.line, where.column

    @property
    def is_stray(self) -> bool:
        """Whether this only says that a member of a union is not the one whose ``kind`` the document names."""
        if self.kind != "literal_error" or self.path[-1:] != ("kind",):
            return False
        return any(_says_kind(parent, self.detail["input"]) for parent in self._parents())

    def error(self, root: str) -> SpecError:
        """Return the error as users see it."""
        what, expected, suggestion = self._text()
        path = self.path[:-1] if self.kind == "missing" else self.path
        if suggestion and self.kind == "extra_forbidden":
            suggestion = _dotted(root, (*self.path[:-1], suggestion)) if self._on_command_line() else suggestion
        return SpecError(
            what, location=self.location, path=_dotted(root, path), expected=expected, suggestion=suggestion
        )

    def _on_command_line(self) -> bool:
        return isinstance(self.location, CommandLine)

    def _text(self) -> tuple[str, str, str]:
        """Return what is wrong, what was expected, and the nearest valid spelling."""
        value = self.detail["input"]
        if self.kind == QUANTITY_ERROR:
            return self.context["what"], self.context["expected"], self.context["suggestion"]
        if self.kind == "extra_forbidden":
            return self._unknown_key()
        if self.kind == "missing":
            return f"missing {str(self.path[-1])!r}", self._expected_field(), ""
        if self.kind in {"literal_error", "enum"}:
            choices = _QUOTED.findall(str(self.context.get("expected", "")))
            noun = "unknown key" if self.is_key else "unknown value"
            close = nearest(value[:_MAX_SHOWN], choices) if isinstance(value, str) else ""
            return f"{noun} {_shown(value)}", str(self.context.get("expected", "")), close
        if self.kind == "value_error":
            return str(self.context.get("error", self.detail["msg"])), "", ""
        if self.kind == "too_short":
            return "the list is empty" if not value else "the list is too short", self._at_least(), ""
        if self.kind == "string_too_short" and not value:
            return "the text is empty", "", ""
        if self.kind in _WANTED:
            wanted = self._expected_field()
            return f"{_shown(value)} is not {_WANTED[self.kind]}", "" if wanted == _WANTED[self.kind] else wanted, ""
        return f"{_shown(value)}: {self.detail['msg'][:1].lower()}{self.detail['msg'][1:]}", "", ""

    def _at_least(self) -> str:
        count = self.context.get("min_length", 1)
        return f"at least {count} item{'s' if count != 1 else ''}"

    def _unknown_key(self) -> tuple[str, str, str]:
        fields = list(dict.fromkeys(name for m in self._parents() for name in _field_names(m)))
        close = nearest(str(self.path[-1]), fields)
        what = "no such field" if self._on_command_line() else f"unknown key {str(self.path[-1])!r}"
        return what, "" if close else _either(fields), close

    def _expected_field(self) -> str:
        """Say what the field should hold."""
        for parent in self._parents():
            field = next((f for n, f in parent.model_fields.items() if (f.alias or n) == self.path[-1]), None)
            if field is not None:
                wanted = describe_field(field)
                return f"{wanted} ({field.description})" if field.description else wanted
        return ""

    def _parents(self) -> list[type[BaseModel]]:
        """Return the models that the mapping around the path may be."""
        types: list[object] = [self._model]
        for depth, key in enumerate(self.path[:-1]):
            types = [below for kind in types for below in _below(kind, key)]
            types = _of_kind(types, self._document.node((*self.path[: depth + 1], "kind")))
        return [kind for kind in types if isinstance(kind, type) and issubclass(kind, BaseModel)]


def _in_document(document: Document, loc: tuple[int | str, ...], kind: str) -> KeyPath:
    """Return *loc* without what pydantic adds: names of union members, ``[key]``."""
    path: KeyPath = ()
    for position, key in enumerate(loc):
        last = position == len(loc) - 1
        if document.node((*path, key)) is not None or (last and kind in {"missing", "extra_forbidden"}):
            path = (*path, key)
    return path


def _unwrap(annotation: object) -> Iterator[object]:
    """Yield the members of a type without ``Annotated`` and unions."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _unwrap(get_args(annotation)[0])
    elif origin in {Union, UnionType}:
        for member in get_args(annotation):
            yield from _unwrap(member)
    elif annotation is not NoneType:
        yield annotation


def _below(kind: object, key: str | int) -> Iterator[object]:
    """Yield the types that *kind* may hold under *key*."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            if (field.alias or name) == key:
                yield from _unwrap(field.annotation)
        return
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is dict and len(arguments) == 2:
        yield from _unwrap(arguments[1])
    elif origin in {list, tuple} and arguments:
        yield from _unwrap(arguments[0])


def _of_kind(types: list[object], kind: Node | None) -> list[object]:
    """Keep the models whose ``kind`` is that of the document, if any of them is."""
    if kind is None or len(types) < 2:
        return types
    return [candidate for candidate in types if _says_kind(candidate, kind.content)] or types


def _says_kind(candidate: object, kind: object) -> bool:
    """Tell whether a type is a model with *kind* among the values of its ``kind`` field."""
    if not isinstance(candidate, type) or not issubclass(candidate, BaseModel):
        return False
    field = candidate.model_fields.get("kind")
    return field is not None and kind in get_args(field.annotation)


def describe_field(field: FieldInfo) -> str:
    """Return what a user should write into a field: its dimension with an example, its choices, or its type."""
    for marker in field.metadata:
        if isinstance(marker, QuantityType):
            return marker.expected()
    return _describe(field.annotation)


def _describe(annotation: object) -> str:
    if get_origin(annotation) is Annotated:
        markers = [marker for marker in get_args(annotation)[1:] if isinstance(marker, QuantityType)]
        return markers[0].expected() if markers else _describe(get_args(annotation)[0])
    if get_origin(annotation) in {Union, UnionType}:
        return " or ".join(dict.fromkeys(_describe(m) for m in get_args(annotation) if m is not NoneType))
    if get_origin(annotation) is Literal:
        return _either(map(str, get_args(annotation)))
    if get_origin(annotation) in {list, tuple}:
        return "a list"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "a mapping with " + ", ".join(_field_names(annotation))
    names: dict[object, str] = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    return names.get(annotation, "a mapping" if get_origin(annotation) is dict else "")


def _field_names(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _either(choices: Iterable[str]) -> str:
    """Return "'a', 'b' or 'c'"."""
    quoted = [repr(choice) for choice in choices]
    return " or ".join(filter(None, [", ".join(quoted[:-1]), quoted[-1]])) if quoted else "nothing"


def _dotted(root: str, path: KeyPath) -> str:
    return ".".join(str(part) for part in (root, *path) if part != "")


def _shown(value: object) -> str:
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = {True: "true", False: "false", None: "null"}.get(value) if isinstance(value, bool | None) else repr(value)
    text = text or ""
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def _located(error: SpecError, location: Location, root: str) -> SpecError:
    return type(error)(
        error.what,
        location=location,
        path=error.path or root,
        expected=error.expected,
        suggestion=error.suggestion,
    )

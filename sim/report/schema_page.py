"""Reference pages of the YAML formats, made from the models that check them.

A page has a table a mapping of the format, a row a field: dotted path, type with a spelling, required or default,
meaning. Nothing on a page is written by hand but the introduction and the example, so it cannot disagree with the code.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from ..devices.registry import DEVICE_SPECS
from ..errors import DataError, UnknownNameError, nearest
from ..spec.architecture import ArchitectureSpec
from ..spec.dram import DramSpec
from ..spec.engine import EngineSpec
from ..spec.fields import QuantityType, SpecModel
from ..spec.fit_recipe import FitSpec
from ..spec.hardware import DTypeName
from ..spec.plan import PlanSpec
from ..spec.study import StudySpec
from ..spec.system import SystemSpec
from ..spec.workload import WorkloadSpec
from ..units import DIMENSIONS, describe
from .files import atomic_write_text
from .schema_examples import EXAMPLES, INTRODUCTIONS

MODELS: Final[Mapping[str, type[SpecModel]]] = {
    **DEVICE_SPECS,
    "dram": DramSpec,
    "system": SystemSpec,
    "workload": WorkloadSpec,
    "engine": EngineSpec,
    "architecture": ArchitectureSpec,
    "study": StudySpec,
    "fit": FitSpec,
    "plan": PlanSpec,
}
"""The model of every kind of file."""

DTYPES: Final[tuple[str, ...]] = get_args(DTypeName)
"""A choice of all of these reads ``dtype``; the page lists them once."""

LARGEST_SHOWN: Final = 65536
"""Larger limits only keep typing errors out and are not worth a reader's time."""

_HEAD: Final = "| field | type | default | meaning |\n|---|---|---|---|"


@dataclass(frozen=True, slots=True)
class Row:
    """One field of a format. ``default`` is ``required`` where it must be given."""

    path: str
    type: str
    default: str
    meaning: str


@dataclass(slots=True)
class Section:
    """The fields of one mapping, and what its model says about itself.

    ``variant`` (``kind: …``) tells mappings at one path apart; ``same_as`` are titles of sections whose fields it has.
    """

    path: str
    model: type[SpecModel]
    variant: str = ""
    rows: list[Row] = field(default_factory=list)
    same_as: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The path, and which of several mappings at that path is meant."""
        shown = f"`{self.path}`" if self.path else "Top level"
        return f"{shown} with `{self.variant}`" if self.variant else shown


def sections(kind: str) -> list[Section]:
    """Every mapping of a format in reading order, each model once; later places refer to the first.

    Raises:
        UnknownNameError: no such format.

    >>> [row.path for row in sections("engine")[0].rows][:2]
    ['kind', 'name']
    """
    model = MODELS.get(kind)
    if model is None:
        raise UnknownNameError(f"no file kind {kind!r}", expected=", ".join(MODELS), suggestion=nearest(kind, MODELS))
    out: list[Section] = []
    _collect("", "", model, out, {})
    return out


def markdown(kind: str) -> str:
    """The reference page of one kind of file.

    Raises:
        UnknownNameError: no such kind.
    """
    found = sections(kind)
    parts = [f"# `kind: {kind}`", _documentation(found[0].model), INTRODUCTIONS.get(kind, "")]
    parts += [_section(section) for section in found]
    if any(row.type.startswith(("dtype", "mapping of dtype")) for section in found for row in section.rows):
        parts.append(f"A dtype is one of {_choices(list(DTYPES))}.")
    for caption, text in EXAMPLES.get(kind, ()):
        parts += ["## Example", caption, f"```yaml\n{text}```"]
    parts.append(f"`effsim check FILE` validates a file; `effsim schema {kind}` prints the JSON Schema for editors.")
    return "\n\n".join(part for part in parts if part) + "\n"


def write_pages(folder: Path | str, kinds: Sequence[str] = ()) -> list[Path]:
    """Write ``<kind>.md`` of *kinds* (all if empty) into an existing or new *folder*; returns the files.

    Raises:
        DataError: the folder cannot be written.
    """
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot write {target}: {error.strerror or error}") from error
    written = []
    for kind in kinds or MODELS:
        written.append(target / f"{kind}.md")
        atomic_write_text(written[-1], markdown(kind))
    return written


def type_text(annotation: Any, metadata: tuple[Any, ...] = ()) -> str:
    """A field's type as a user would say it, with a spelling where it has a unit.

    >>> type_text(Literal["a", "b"]), type_text(bool)
    ('`a` or `b`', 'true or false')
    """
    for mark in metadata:
        if isinstance(mark, QuantityType):
            return _quantity(mark)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_text(arguments[0], arguments[1:])
    if origin is Literal:
        return "dtype" if arguments == DTYPES else _choices([str(a) for a in arguments])
    if origin is list:
        return f"list of {_plural(type_text(arguments[0]))}"
    if origin is dict:
        key, value = (type_text(argument) for argument in arguments)
        return f"mapping of {'names' if key == 'text' else key} to {_plural(value)}"
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(type_text(a) for a in arguments if a is not types.NoneType))
    if isinstance(annotation, type) and issubclass(annotation, SpecModel):
        return "mapping"
    if annotation in (int, float):
        return _bounded("whole number" if annotation is int else "number", metadata)
    return {str: "text", bool: "true or false"}.get(annotation, "any value")


def _section(section: Section) -> str:
    title = f"## {section.title}"
    if section.same_as:
        return f"{title}\n\nThe fields are those of {', or '.join(section.same_as)}."
    words = _documentation(section.model) if section.path else ""
    lines = [f"| `{r.path}` | {r.type} | {r.default} | {r.meaning} |" for r in section.rows]
    return "\n\n".join(part for part in (title, words, "\n".join([_HEAD, *lines])) if part)


def _documentation(model: type[SpecModel]) -> str:
    """The model's docstring as Markdown paragraphs."""
    paragraphs = (model.__doc__ or "").replace("``", "`").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _collect(
    path: str, variant: str, model: type[SpecModel], out: list[Section], seen: dict[type[SpecModel], Section]
) -> None:
    section = Section(path, model, variant)
    if model in seen:
        if out[-1].path != path or not out[-1].same_as:
            out.append(Section(path, model))
        out[-1].same_as.append(seen[model].title)
        return
    seen[model] = section
    out.append(section)
    for name, info in model.model_fields.items():
        here = f"{path}.{name}" if path else name
        section.rows.append(Row(here, type_text(info.annotation, tuple(info.metadata)), _default(info), _meaning(info)))
        inside = list(_models(here, info.annotation))
        for below, inner in inside:
            _collect(below, _kind(inner) if len(inside) > 1 else "", inner, out, seen)


def _models(path: str, annotation: Any) -> Iterator[tuple[str, type[SpecModel]]]:
    """(path, model) of the mappings inside a field, all members of a union."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from _models(path, arguments[0])
    elif origin is list:
        yield from _models(f"{path}[]", arguments[0])
    elif origin is dict:
        yield from _models(f"{path}.<name>", arguments[1])
    elif origin in (Union, types.UnionType):
        for argument in arguments:
            yield from _models(path, argument)
    elif isinstance(annotation, type) and issubclass(annotation, SpecModel):
        yield path, annotation


def _kind(model: type[SpecModel]) -> str:
    """The one word that the model's ``kind`` may be; empty if it has none or a choice."""
    info = model.model_fields.get("kind")
    words = get_args(info.annotation) if info is not None else ()
    return f"kind: {words[0]}" if len(words) == 1 else ""


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    if info.default_factory is not None:
        return "empty" if get_origin(info.annotation) in (dict, list) else "its own defaults"
    value = info.default
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    return f"`{value}`"


def _meaning(info: FieldInfo) -> str:
    text = info.description or ""
    for mark in info.metadata:
        text = text or getattr(mark, "description", "") or ""
    return text.replace("|", "\\|")


def _quantity(mark: QuantityType) -> str:
    if mark.integer:
        return f"whole number, {1 if mark.positive else 0} or more"
    words = describe(mark.dimension).partition(" such as ")[0]
    row = DIMENSIONS[mark.dimension]
    example = row.example.split(" or ")[0]
    limits = "" if mark.maximum is None else f", at most {mark.maximum:g}"
    zero = "" if mark.positive else ", may be 0"
    return f"{words}, e.g. `{example}`{limits}{zero}"


def _bounded(word: str, metadata: tuple[Any, ...]) -> str:
    """A plain number with its least value, and its largest where that is more than a guard against typing errors."""
    marks = [mark for outer in metadata for mark in (outer, *getattr(outer, "metadata", ()))]
    least = next((mark.ge for mark in marks if getattr(mark, "ge", None) is not None), None)
    most = next((mark.le for mark in marks if getattr(mark, "le", None) is not None), None)
    if least is None:
        return word
    return f"{word}, {least} to {most}" if most is not None and most <= LARGEST_SHOWN else f"{word}, {least} or more"


def _choices(words: list[str]) -> str:
    """The words as code, joined; an empty one is spelt out."""
    shown = [f"`{word}`" for word in words if word]
    if len(shown) < len(words):
        shown.append("empty")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}"


def _plural(text: str) -> str:
    """The type of several: ``mappings``, ``whole numbers, 1 or more``."""
    for one, several in (("mapping", "mappings"), ("whole number", "whole numbers")):
        if text.startswith(one) and not text.startswith(several):
            return several + text[len(one) :]
    return text

"""Every parameter of a machine and a workload as a control can show it: its path, its value as text, what it accepts.

The tree is read from the built specifications and their types, so what a file leaves out is there too. The text of a
parameter is what ``--set`` takes: setting a parameter to its own text changes no number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from types import NoneType
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ..devices.registry import Machine
from ..errors import Location, YamlError
from ..spec.build import describe_field
from ..spec.catalogue import names
from ..spec.fields import AnyQuantity, IntQuantity, Quantity, QuantityType, members
from ..spec.workload import WorkloadSpec
from ..spec.yaml_loader import resolve
from ..units import DIMENSIONS, format_quantity, parse

LARGE: Final = 40
"""Parameters of a group from which its parts are groups of their own."""
NOTHING: Final = "null"
"""The text that removes a value."""
_UNUSED: Final = frozenset({"kind", "name", "description", "provenance", "vendor", "generation", "released"})
_SEGMENT: Final = re.compile(r"[^.\s\[\]=]+")
_NAMED: Final = (
    (re.compile(r"workload\.model"), "architectures"),
    (re.compile(r"workload\.engine"), "engines"),
    (re.compile(r".*\.dram\.preset"), "dram"),
    (re.compile(r"hardware\.devices\.\d+\.hardware"), "hardware"),
)
"""Parameters that name a bundled file, with its section."""
_BINARY: Final = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
_MAX_DIGITS: Final = 17


@dataclass(frozen=True, slots=True)
class Parameter:
    """One value of a file.

    ``text`` is empty where nothing is given; ``number`` is in the unit of the dimension (a plain number has the
    dimension ``""``), None for what is no number. ``least`` and ``most`` bound it; ``choices`` are texts to pick from.
    ``within`` is the assignment that writes out a default value around it that the file leaves out: a part of that
    cannot be given alone.
    """

    path: str
    text: str
    number: float | None = None
    dimension: str = ""
    whole: bool = False
    least: float = 0.0
    most: float | None = None
    choices: tuple[str, ...] = ()
    optional: bool = False
    kind: str = ""
    source: str = ""
    hint: str = ""
    within: str = ""

    def written(self, number: float) -> str:
        """A number of this parameter as text."""
        if self.dimension:
            return quantity_text(number, self.dimension)
        return str(round(number)) if self.whole else repr(float(number))


@dataclass(frozen=True, slots=True)
class Tree:
    """All parameters, by path and by group, in the order of the files."""

    parameters: Mapping[str, Parameter]
    groups: Mapping[str, tuple[Parameter, ...]]

    def search(self, words: str, limit: int = LARGE) -> list[Parameter]:
        """Parameters whose path has all *words* in it, shortest path first."""
        wanted = words.lower().split()
        found = [p for path, p in self.parameters.items() if all(word in path.lower() for word in wanted)]
        return sorted(found, key=lambda p: (not p.text, p.path.count(".")))[:limit]

    def group_of(self, path: str) -> str:
        """The group in which a parameter is; empty for an unknown one."""
        return next((name for name, held in self.groups.items() if any(p.path == path for p in held)), "")


def tree(machine: Machine, workload: WorkloadSpec) -> Tree:
    """The parameters of a machine and a workload."""
    device = "hardware" if machine.system is None else "hardware.device"
    roots: list[tuple[str, BaseModel]] = [(device, machine.spec), ("workload", workload)]
    roots[1:1] = [(f"hardware.{name}", spec) for name, spec in machine.others if _SEGMENT.fullmatch(name)]
    if machine.system is not None:
        roots.insert(0, ("hardware", machine.system))
    parameters: dict[str, Parameter] = {}
    groups: dict[str, tuple[Parameter, ...]] = {}
    for prefix, spec in roots:
        mine = {p.path: p for p in _fields(spec, prefix, _UNUSED)}
        parameters |= mine
        groups |= _grouped(prefix, list(mine.values()), always=True)
    return Tree(parameters, groups)


def _grouped(prefix: str, held: Sequence[Parameter], *, always: bool = False) -> dict[str, tuple[Parameter, ...]]:
    """Parameters by the key that follows *prefix*; what is large is divided further."""
    if not always and len(held) <= LARGE:
        return {prefix: tuple(held)}
    parts: dict[str, list[Parameter]] = {}
    for parameter in held:
        key, dot, _ = parameter.path[len(prefix) + 1 :].partition(".")
        parts.setdefault(f"{prefix}.{key}" if dot else prefix, []).append(parameter)
    for path in [name for name in parts if len(parts[name]) == 1 and name != prefix]:
        parts.setdefault(prefix, []).extend(parts.pop(path))
    out: dict[str, tuple[Parameter, ...]] = {}
    for name, mine in parts.items():
        out |= {name: tuple(mine)} if name == prefix else _grouped(name, mine)
    return out


# --- walking ----------------------------------------------------------------------------------------------------------


def _fields(spec: BaseModel, prefix: str, skipped: frozenset[str] = frozenset()) -> Iterator[Parameter]:
    for name, key, kind in _types(type(spec)):
        if key in skipped:
            continue
        path, value = f"{prefix}.{key}", getattr(spec, name)
        whole = "" if name in spec.model_fields_set or _is_scalar(value) else _flow(value, kind)
        for parameter in _value(value, path, kind):
            inside = parameter.path != path and whole not in ("", "{}", "[]")
            yield replace(parameter, within=f"{path}={whole}") if inside else parameter


@dataclass(frozen=True, slots=True)
class _Type:
    """What a field may hold: the members of its union with their markers, and what it says of itself."""

    members: tuple[tuple[Any, tuple[Any, ...]], ...]
    hint: str = ""
    optional: bool = False

    @classmethod
    def of(cls, field: FieldInfo) -> _Type:
        found = tuple(members(field.annotation, tuple(field.metadata)))
        optional = any(kind is NoneType for kind, _ in found) and not field.is_required()
        said = "; ".join(filter(None, (field.description or "", describe_field(field))))
        return cls(found, said, optional)

    def inner(self, annotation: Any) -> _Type:
        """The type of an item."""
        return _Type(tuple(members(annotation, ())), self.hint)

    @property
    def quantity(self) -> QuantityType | None:
        return next((m for _, markers in self.members for m in markers if isinstance(m, QuantityType)), None)

    @property
    def literals(self) -> tuple[str, ...]:
        found = [v for kind, _ in self.members if get_origin(kind) is Literal for v in get_args(kind)]
        if any(kind is bool for kind, _ in self.members):
            found += [True, False]
        return tuple(map(scalar_text, found))

    def item(self, origin: type) -> _Type:
        """Type of the items of a list or of the values of a mapping."""
        for kind, _ in self.members:
            if get_origin(kind) is origin:
                return self.inner(get_args(kind)[-1])
        return _Type(((Any, ()),))

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys that a mapping may have, where they are given."""
        for kind, _ in self.members:
            if get_origin(kind) is dict and get_origin(get_args(kind)[0]) is Literal:
                return tuple(map(str, get_args(get_args(kind)[0])))
        return ()


@cache
def _types(model: type[BaseModel]) -> tuple[tuple[str, str, _Type], ...]:
    """Name, key in a file and type of every field."""
    return tuple((name, field.alias or name, _Type.of(field)) for name, field in model.model_fields.items())


def _value(value: Any, path: str, kind: _Type) -> Iterator[Parameter]:
    """The parameters at and below a value."""
    if isinstance(value, BaseModel):
        if kind.literals or kind.optional:  # the whole can be something else
            whole = _flow(value, kind)
            yield _leaf(path, whole, kind, choices=(*kind.literals, whole) if kind.literals else ())
        yield from _fields(value, path)
    elif isinstance(value, Mapping):
        below = kind.item(dict)
        for key, item in value.items():
            if _SEGMENT.fullmatch(str(key)):
                yield from _value(item, f"{path}.{key}", below)
        if below.quantity is not None:
            for key in kind.keys:
                if key not in value:
                    yield _leaf(f"{path}.{key}", "", _Type(below.members, kind.hint, True))
    elif isinstance(value, list | tuple) and value and not all(_is_scalar(item) for item in value):
        for index, item in enumerate(value):
            yield from _value(item, f"{path}.{index}", kind.item(list))
    else:
        yield _scalar(value, path, kind)


def _scalar(value: Any, path: str, kind: _Type) -> Parameter:
    if isinstance(value, Quantity | IntQuantity):
        return _quantity(value, path, kind)
    if isinstance(value, list | tuple):
        return _leaf(path, _flow(value, kind), kind)
    choices = kind.literals
    section = next((section for pattern, section in _NAMED if pattern.fullmatch(path)), None)
    text = "" if value is None else scalar_text(value)
    if section is not None:
        choices = tuple(names(section))
    if any(_is_model(member) for member, _ in kind.members) and choices:
        choices = (*choices, "{}")
    if text and choices and text not in choices:
        choices = (text, *choices)
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) and not choices else None
    whole = any(member is int for member, _ in kind.members)
    least, most = _bounds(kind)
    return _leaf(path, text, kind, choices=choices, number=number, whole=whole, least=least, most=most)


def _quantity(value: AnyQuantity, path: str, kind: _Type) -> Parameter:
    marker = kind.quantity or QuantityType("count" if isinstance(value, IntQuantity) else "ratio")
    return Parameter(
        path,
        quantity_text(float(value), marker.dimension),
        float(value),
        marker.dimension,
        marker.integer,
        1.0 if marker.integer and marker.positive else 0.0,
        marker.maximum,
        kind.literals,
        kind.optional,
        value.kind or "",
        value.source or "",
        kind.hint,
    )


def _leaf(path: str, text: str, kind: _Type, **more: Any) -> Parameter:
    marker = kind.quantity
    given: dict[str, Any] = {"dimension": marker.dimension if marker else "", "optional": kind.optional}
    return Parameter(path, text, **given | {"hint": kind.hint} | more)


def _bounds(kind: _Type) -> tuple[float, float | None]:
    """Bounds of a plain number."""
    found: dict[str, float] = {}
    for _, markers in kind.members:
        for marker in markers:
            for one in (marker, *getattr(marker, "metadata", ())):
                for name in ("ge", "gt", "le", "lt"):
                    if isinstance(bound := getattr(one, name, None), int | float):
                        found[name] = float(bound)
    return found.get("ge", found.get("gt", 0.0)), found.get("le", found.get("lt"))


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _is_scalar(value: Any) -> bool:
    return not isinstance(value, BaseModel | Mapping | list | tuple)


# --- text -------------------------------------------------------------------------------------------------------------


def quantity_text(value: float, dimension: str) -> str:
    """The shortest text that is read as exactly this number.

    >>> quantity_text(80 * 2**30, "bytes"), quantity_text(2.039e12, "bandwidth"), quantity_text(0.1 + 0.2, "ratio")
    ('80 GiB', '2.039 TB/s', '30.000000000000004 %')
    """
    row = DIMENSIONS[dimension]
    if value == 0.0:
        return f"0 {row.symbol}".strip()
    if dimension == "bytes":
        for size, unit in _BINARY:
            if value >= size and (1000.0 * value / size).is_integer() and value / size < 2**10:
                return f"{value / size:.12g} {unit}"
    for digits in range(3, _MAX_DIGITS + 1):
        text = format_quantity(value, dimension, digits)
        if parse(text, dimension) == value:
            return text
    return f"{value!r} {row.symbol}".strip()


def scalar_text(value: Any) -> str:
    """A plain value as ``--set`` reads it: quoted where it would be taken for something else.

    >>> scalar_text("fp16"), scalar_text("12"), scalar_text(True), scalar_text("")
    ('fp16', '"12"', 'true', '""')
    """
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(int(value) if isinstance(value, int) else float(value))
    text = str(value)
    plain = text == text.strip() and not text.startswith(("[", "{", '"', "'"))
    return text if plain and resolve_text(text) == text else json.dumps(text, ensure_ascii=False)


def resolve_text(text: str) -> Any:
    """What YAML takes an unquoted text for; None where it refuses it."""
    try:
        return resolve(text, Location("text"))
    except YamlError:
        return None


def _flow(value: Any, kind: _Type) -> str:
    """A mapping or list as YAML flow, which JSON is."""
    return json.dumps(_plain_as(value, kind), ensure_ascii=False)


def _plain_as(value: Any, kind: _Type) -> Any:
    """Models and quantities as what a file could say: what was given, with units."""
    if isinstance(value, IntQuantity):
        return int(value)
    if isinstance(value, Quantity):
        return quantity_text(float(value), kind.quantity.dimension) if kind.quantity else float(value)
    if isinstance(value, Mapping):
        return {str(key): _plain_as(item, kind.item(dict)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_as(item, kind.item(list)) for item in value]
    if isinstance(value, BaseModel):
        given = [(name, key, kind) for name, key, kind in _types(type(value)) if name in value.model_fields_set]
        return {key: _plain_as(getattr(value, name), kind) for name, key, kind in given}
    return value


# --- changes ----------------------------------------------------------------------------------------------------------


def path_of(change: str) -> str:
    """The path of a ``path=value``."""
    return change.partition("=")[0].strip()


def with_change(changes: Iterable[str], path: str, text: str | None) -> tuple[str, ...]:
    """The changes with this one in its place; None undoes it. What was set below it goes with it.

    >>> with_change(("workload.batch=2", "workload.prompt=9"), "workload.batch", "4")
    ('workload.batch=4', 'workload.prompt=9')
    """
    kept = [c for c in changes if not path_of(c).startswith(f"{path}.")]
    paths = [path_of(c) for c in kept]
    if path not in paths:
        return (*kept, f"{path}={text}") if text is not None else tuple(kept)
    at = paths.index(path)
    now = [] if text is None else [f"{path}={text}"]
    return (*kept[:at], *now, *(c for c in kept[at + 1 :] if path_of(c) != path))


def assigned(changes: Sequence[str], parameter: Parameter, text: str | None) -> tuple[str, ...]:
    """The changes with this parameter set (None: as its file has it), and what is around it where that is needed."""
    path, around = parameter.path, parameter.within
    above = path_of(around)
    if text is not None:
        there = any(above == path_of(c) or above.startswith(f"{path_of(c)}.") for c in changes)
        return with_change(changes if there or not around else (*changes, around), path, text)
    left = with_change(changes, path, None)
    if around in left and around and not any(path_of(c).startswith(f"{above}.") for c in left):
        return with_change(left, above, None)
    return left

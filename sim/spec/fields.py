"""Numbers with a unit and an origin: the field types that specifications are made of.

A field such as ``bandwidth: Bandwidth`` accepts ``2.039 TB/s``, a plausible bare number, or a mapping
``{value: 2.039 TB/s, kind: datasheet, source: …}``. It becomes a :class:`Quantity`: a float in SI units that also knows
the kind and the source of its value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from ..errors import UnitError, nearest
from ..units import DIMENSIONS, STRING_PATTERN, describe, parse

Origin = Literal["datasheet", "measured", "fitted", "assumed", "unverified"]
ORIGINS: Final[tuple[str, ...]] = get_args(Origin)
"""The kinds of origin a number can have."""

QUANTITY_ERROR = "effsim_quantity"
"""Type of the pydantic error a quantity raises; its context has ``what``, ``expected``, ``suggestion``, ``below``."""

_MAX_COUNT = 2**53
"""Counts above this are not exact as floats."""


class Quantity(float):
    """A float in SI units that knows the kind and source of its value. Arithmetic gives plain floats.

    ``kind`` is one of :data:`ORIGINS`, or None until :func:`effsim.spec.build.build` has filled it in.
    """

    kind: str | None
    source: str | None

    def __new__(cls, value: float | str, kind: str | None = None, source: str | None = None) -> Quantity:
        """Make the number; equality and hash are those of the number alone."""
        self = super().__new__(cls, value)
        self.kind, self.source = kind, source
        return self


class IntQuantity(int):
    """The integer sibling of :class:`Quantity`, for counts."""

    kind: str | None
    source: str | None

    def __new__(cls, value: int | str, kind: str | None = None, source: str | None = None) -> IntQuantity:
        """Make the number; equality and hash are those of the number alone."""
        self = super().__new__(cls, value)
        self.kind, self.source = kind, source
        return self


AnyQuantity: TypeAlias = Quantity | IntQuantity
_Path: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class QuantityType:
    """Marker inside ``Annotated`` that makes pydantic read a quantity of one dimension.

    ``minimum`` is exclusive when ``positive``, inclusive otherwise; ``maximum`` is inclusive.
    """

    dimension: str
    integer: bool = False
    positive: bool = True
    maximum: float | None = None

    def expected(self) -> str:
        """Return what a user should write, for messages."""
        if self.integer:
            return f"a whole number, {1 if self.positive else 0} or more"
        text = describe(self.dimension)
        return text if self.maximum is None else f"{text}, at most {self.maximum:g}"

    def validate(self, value: object) -> AnyQuantity:
        """Return the quantity that *value* (bare or a mapping) stands for, or raise a pydantic error."""
        if isinstance(value, Quantity | IntQuantity):
            return self._number(value, value.kind, value.source, ())
        if not isinstance(value, Mapping):
            return self._number(value, None, None, ())
        for key in value:
            if key not in _KEYS:
                raise self._fail(f"unknown key {key!r}", (key,), "one of " + ", ".join(_KEYS), nearest(str(key), _KEYS))
        if "value" not in value:
            raise self._fail("missing 'value'", (), self.expected())
        kind, source = value.get("kind"), value.get("source")
        if kind is not None and kind not in ORIGINS:
            close = nearest(str(kind)[:60], ORIGINS)
            raise self._fail(f"unknown kind {_shown(kind)}", ("kind",), "one of " + ", ".join(ORIGINS), close)
        if source is not None and (not isinstance(source, str) or not source.strip()):
            raise self._fail(f"{_shown(source)} is not a source", ("source",), "text that says where the value is from")
        return self._number(value["value"], kind, source, ("value",))

    def _number(self, value: object, kind: str | None, source: str | None, below: tuple[str, ...]) -> AnyQuantity:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise self._fail(f"{_shown(value)} is not a quantity", below, self.expected())
        try:
            # A quantity is already in SI: no unit to ask for, however small it is.
            number = float(value) if isinstance(value, Quantity | IntQuantity) else parse(value, self.dimension)
        except UnitError as error:
            raise self._fail(error.what, below, self.expected(), error.suggestion) from None
        if self.positive and number == 0:
            raise self._fail(f"{_shown(value)} must be more than zero", below, self.expected())
        if self.maximum is not None and number > self.maximum:
            raise self._fail(f"{_shown(value)} is more than {self.maximum:g}", below, self.expected())
        if not self.integer:
            return Quantity(number, kind, source)
        if not number.is_integer():
            raise self._fail(f"{_shown(value)} is not a whole number", below, self.expected())
        if number > _MAX_COUNT:
            raise self._fail(f"{_shown(value)} is too large for a count", below, self.expected())
        return IntQuantity(int(number), kind, source)

    def _fail(self, what: str, below: tuple[str, ...], expected: str, suggestion: str = "") -> PydanticCustomError:
        context = {"what": what, "below": below, "expected": expected, "suggestion": suggestion}
        return PydanticCustomError(QUANTITY_ERROR, "{what}; expected {expected}", context)

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate with :meth:`validate`; serialise to JSON as the number."""
        number = core_schema.int_schema() if self.integer else core_schema.float_schema()
        plain = core_schema.plain_serializer_function_ser_schema(
            int if self.integer else float, return_schema=number, when_used="json"
        )
        return core_schema.no_info_plain_validator_function(self.validate, serialization=plain)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe the three spellings: text with a unit, a number, a mapping with an origin."""
        number: JsonSchemaValue = {"type": "integer" if self.integer else "number"}
        number["minimum" if self.integer or not self.positive else "exclusiveMinimum"] = int(
            self.integer and self.positive
        )
        if self.maximum is not None:
            number["maximum"] = self.maximum
        bare = [{"type": "string", "pattern": STRING_PATTERN}, number]
        properties = {
            "value": {"anyOf": bare},
            "kind": {"enum": list(ORIGINS)},
            "source": {"type": "string", "minLength": 1},
        }
        mapping = {"type": "object", "properties": properties, "required": ["value"], "additionalProperties": False}
        return {
            "anyOf": [*bare, mapping],
            "description": self.expected(),
            "examples": [DIMENSIONS[self.dimension].example.split(" or ")[0]],
        }


_KEYS: Final = ("value", "kind", "source")


def _shown(value: object, limit: int = 60) -> str:
    """Return *value* as YAML readers know it, cut to a readable length."""
    names: dict[type, str] = {dict: "a mapping", list: "a list", type(None): "null"}
    text = names.get(type(value)) or (str(value).lower() if isinstance(value, bool) else repr(value))
    return text if len(text) <= limit else f"{text[:limit]}…"


# Type checkers see plain numbers, so that specifications can be built in Python from floats and ints.
if TYPE_CHECKING:
    Time: TypeAlias = float
    NonNegativeTime: TypeAlias = float
    Bytes: TypeAlias = float
    NonNegativeBytes: TypeAlias = float
    Bandwidth: TypeAlias = float
    Frequency: TypeAlias = float
    Flops: TypeAlias = float
    FlopRate: TypeAlias = float
    FlopPerCycle: TypeAlias = float
    OpPerCycle: TypeAlias = float
    BytesPerCycle: TypeAlias = float
    Power: TypeAlias = float
    EnergyQuantity: TypeAlias = float
    EnergyPerFlop: TypeAlias = float
    EnergyPerByte: TypeAlias = float
    Voltage: TypeAlias = float
    Current: TypeAlias = float
    Money: TypeAlias = float
    MoneyRate: TypeAlias = float
    Ratio: TypeAlias = float
    NonNegativeRatio: TypeAlias = float
    Factor: TypeAlias = float
    Cycles: TypeAlias = float
    NonNegativeCycles: TypeAlias = float
    Count: TypeAlias = int
    NonNegativeCount: TypeAlias = int
else:
    Time = Annotated[Quantity, QuantityType("time")]
    NonNegativeTime = Annotated[Quantity, QuantityType("time", positive=False)]
    Bytes = Annotated[Quantity, QuantityType("bytes")]
    NonNegativeBytes = Annotated[Quantity, QuantityType("bytes", positive=False)]
    Bandwidth = Annotated[Quantity, QuantityType("bandwidth")]
    Frequency = Annotated[Quantity, QuantityType("frequency")]
    Flops = Annotated[Quantity, QuantityType("flops")]
    FlopRate = Annotated[Quantity, QuantityType("flop_rate")]
    FlopPerCycle = Annotated[Quantity, QuantityType("flop_per_cycle")]
    OpPerCycle = Annotated[Quantity, QuantityType("op_per_cycle")]
    BytesPerCycle = Annotated[Quantity, QuantityType("bytes_per_cycle")]
    Power = Annotated[Quantity, QuantityType("power")]
    EnergyQuantity = Annotated[Quantity, QuantityType("energy")]
    EnergyPerFlop = Annotated[Quantity, QuantityType("energy_per_flop")]
    EnergyPerByte = Annotated[Quantity, QuantityType("energy_per_byte")]
    Voltage = Annotated[Quantity, QuantityType("voltage")]
    Current = Annotated[Quantity, QuantityType("current")]
    Money = Annotated[Quantity, QuantityType("money")]
    MoneyRate = Annotated[Quantity, QuantityType("money_rate")]
    Ratio = Annotated[Quantity, QuantityType("ratio", maximum=1.0)]
    NonNegativeRatio = Annotated[Quantity, QuantityType("ratio", positive=False, maximum=1.0)]
    Factor = Annotated[Quantity, QuantityType("ratio")]
    Cycles = Annotated[Quantity, QuantityType("cycles")]
    NonNegativeCycles = Annotated[Quantity, QuantityType("cycles", positive=False)]
    Count = Annotated[IntQuantity, QuantityType("count", integer=True)]
    NonNegativeCount = Annotated[IntQuantity, QuantityType("count", integer=True, positive=False)]


class SpecModel(BaseModel):
    """Base of everything users write: unknown keys are errors, instances are immutable, nothing is coerced.

    Types are strict (text is not a number, 1 is not true) because the loader has already resolved YAML scalars; write
    sequences as ``list[…]``. Defaults are validated, so that a default quantity carries an origin like any other.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        defer_build=True,  # a model that is not used costs nothing at import
        extra="forbid",
        frozen=True,
        strict=True,
        validate_default=True,
        protected_namespaces=(),
    )

    def leaves(self) -> Iterator[tuple[str, AnyQuantity]]:
        """Yield every quantity with its dotted path, as ``("kernels.gemm.tiles.0.m", 128)``, in field order."""
        for path, quantity in walk(self):
            yield ".".join(map(str, path)), quantity


_PLAIN: Final = frozenset({str, bool, int, float})
"""Types of values that hold no quantity; quantities are subclasses of numbers."""


def walk(value: object, path: _Path = ()) -> Iterator[tuple[_Path, AnyQuantity]]:
    """Yield (path, quantity) for every quantity in a model, mapping or sequence."""
    found: list[tuple[_Path, AnyQuantity]] = []
    _collect(value, path, found)
    return iter(found)


def _collect(
    value: object, path: tuple[str | int, ...], found: list[tuple[tuple[str | int, ...], AnyQuantity]]
) -> None:
    """Append what :func:`walk` yields: a list grows faster than nested generators hand on."""
    if value is None or type(value) in _PLAIN:
        return
    if isinstance(value, Quantity | IntQuantity):
        found.append((path, value))
    elif isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            _collect(getattr(value, name), (*path, field.alias or name), found)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _collect(item, (*path, key), found)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _collect(item, (*path, index), found)


def members(annotation: Any, markers: tuple[Any, ...] = ()) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Yield (type, markers) of every member of an annotation, unions and ``Annotated`` taken apart.

    >>> [(kind.__name__, marks) for kind, marks in members(Annotated[int, "even"] | None)]
    [('int', ('even',)), ('NoneType', ())]
    """
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        yield from members(inner, (*markers, *more))
    elif origin in (Union, UnionType):
        for member in get_args(annotation):
            yield from members(member, markers)
    else:
        yield annotation, markers

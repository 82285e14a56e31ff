"""What a user writes to explore a design space: the ``kind: study`` file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from ..errors import UnitError, nearest
from ..units import DIMENSIONS, parse
from .fields import Count, SpecModel
from .hardware import Provenance

METRICS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "time_s": "time",
        "roofline_s": "time",
        "prefill_s": "time",
        "time_per_token_s": "time",
        "tokens_per_s": "",
        "tokens_per_s_per_device": "",
        "devices": "",
        "memory_fits": "bool",
        "memory_used_bytes": "bytes",
        "memory_capacity_bytes": "bytes",
        "flops": "",
        "bytes_moved": "bytes",
        "energy_j": "energy",
        "energy_limit_j": "energy",
        "cost_usd": "",
        "usd_per_hour": "",
        "usd_per_million_tokens": "",
    }
)
"""Numbers of a point that objectives and constraints can name, with the dimension of the units they take."""

TEXTS: Final = ("bound",)
"""Columns of a point that are words."""

PATHS: Final = ("hardware", "workload", "engine", "fleet")
"""First parts of a parameter's path; alone, the first three swap the whole file."""

_PATH: Final = re.compile(r"(hardware|workload|engine|fleet)(\.[^.\s\[\]=]+)*")
_CONSTRAINT: Final = re.compile(r"\s*([A-Za-z_][\w.]*)\s*(?:(<=|>=|==|!=|<|>)\s*(.+?)\s*)?")
Scalar = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Constraint:
    """``metric relation bound``; a bare name of a yes-or-no metric asks for yes."""

    metric: str
    relation: str
    bound: float

    def holds(self, value: float | bool | None) -> bool:
        """Whether *value* keeps it; what is unknown does not."""
        if value is None:
            return False
        x = float(value)
        return {
            "<": x < self.bound,
            "<=": x <= self.bound,
            ">": x > self.bound,
            ">=": x >= self.bound,
            "==": x == self.bound,
            "!=": x != self.bound,
        }[self.relation]


def metric_name(text: str) -> str:
    """The column that *text* names: ``memory.fits`` is ``memory_fits``.

    Raises:
        ValueError: there is none, with the nearest.
    """
    name = text.strip().replace(".", "_")
    if name not in METRICS:
        close = nearest(name, METRICS)
        hint = f"; did you mean {close!r}?" if close else ""
        raise ValueError(f"unknown metric {text[:60]!r}; expected one of {', '.join(METRICS)}{hint}")
    return name


def parse_constraint(text: str) -> Constraint:
    """Read ``memory.fits`` or ``time_s <= 50 ms``: a metric, a relation, a number with or without a unit.

    >>> parse_constraint("time_s <= 50 ms")
    Constraint(metric='time_s', relation='<=', bound=0.05)

    Raises:
        ValueError: not a constraint; says what is wrong.
    """
    match = _CONSTRAINT.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:60]!r} is not a constraint; expected such as 'memory.fits' or 'time_s <= 50 ms'")
    metric, relation, bound = metric_name(match[1]), match[2], match[3]
    dimension = METRICS[metric]
    if relation is None:
        if dimension != "bool":
            raise ValueError(f"{metric!r} is a number; expected a relation such as '{metric} <= 1'")
        return Constraint(metric, "==", 1.0)
    if dimension == "bool":
        words = {"true": 1.0, "false": 0.0}
        if bound not in words or relation not in ("==", "!="):
            raise ValueError(f"{metric!r} is true or false; expected '{metric}' or '{metric} == false'")
        return Constraint(metric, relation, words[bound])
    try:
        return Constraint(metric, relation, float(bound))
    except ValueError:
        if not dimension:
            raise ValueError(f"{bound[:40]!r} is not a number") from None
    try:
        return Constraint(metric, relation, parse(bound, dimension))
    except UnitError as error:
        raise ValueError(f"{error.what}; expected {DIMENSIONS[dimension].example}") from None


def _parses(text: str, dimension: str) -> bool:
    try:
        parse(text, dimension)
    except UnitError:
        return False
    return True


def _constraint(text: str) -> str:
    parse_constraint(text)
    return text


def _assignment(text: str) -> str:
    if not re.match(r"(hardware|workload|engine)\.[^=]+=", text):
        raise ValueError(f"{text[:60]!r} is no assignment; expected such as 'workload.batch=8'")
    return text


class RangeSpec(SpecModel):
    """Numbers between two bounds, both included; the bounds are written in the same unit."""

    low: str | int | float = Field(description="lower bound, with the unit of the field")
    high: str | int | float = Field(description="upper bound, in the same unit")
    scale: Literal["linear", "log"] = Field("linear", description="even steps, or even ratios")
    points: Annotated[int, Field(ge=2, le=100_000)] | None = Field(None, description="how many, for method 'grid'")
    integer: bool = Field(False, description="whole numbers only")

    @model_validator(mode="after")
    def _bounds(self) -> RangeSpec:
        low, high = split_number(self.low), split_number(self.high)
        if low[1] != high[1]:
            raise ValueError(f"'low' is in {low[1] or 'no unit'!r}, 'high' in {high[1] or 'no unit'!r}: write one unit")
        if low[1] and not any(_parses(str(self.low), dimension) for dimension in DIMENSIONS):
            raise ValueError(f"unknown unit {low[1][:40]!r}")
        if not low[0] < high[0]:
            raise ValueError(f"'low' ({self.low}) is not below 'high' ({self.high})")
        if self.scale == "log" and low[0] <= 0.0:
            raise ValueError("a log scale starts above zero")
        return self


@lru_cache(maxsize=4096, typed=True)
def split_number(text: str | int | float) -> tuple[float, str]:
    """Number and unit of a bound.

    >>> split_number("3.35 TB/s")
    (3.35, 'TB/s')

    Raises:
        ValueError: it does not begin with a number.
    """
    if isinstance(text, bool):
        raise ValueError("true and false are no bounds; list them as 'values'")
    if not isinstance(text, str):
        return float(text), ""
    match = re.fullmatch(r"\s*([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)\s*(\D.*?)?\s*", text)
    try:
        return float(match[1]), match[2] or ""  # type: ignore[index]
    except (TypeError, ValueError):
        raise ValueError(f"{text[:60]!r} is not a number with a unit") from None


class ParameterSpec(SpecModel):
    """One axis of the design space."""

    path: Annotated[str, Field(min_length=1, max_length=200)] = Field(
        description="what varies: hardware.…, workload.…, engine.…, fleet.replicas; or hardware, workload, engine alone"
    )
    values: Annotated[list[Any], Field(min_length=1, max_length=100_000)] | None = Field(
        None, description="the choices: names, quantities, numbers, true or false"
    )
    range: RangeSpec | None = Field(None, description="numbers between two bounds, instead of values")

    @field_validator("path")
    @classmethod
    def _known(cls, path: str) -> str:
        if _PATH.fullmatch(path) is None or path == "fleet":
            raise ValueError(f"{path[:60]!r} is no path; expected such as 'hardware.memory.bandwidth'")
        if path.startswith("fleet.") and path != "fleet.replicas":
            raise ValueError(f"{path[:60]!r}: a fleet has only 'fleet.replicas'")
        return path

    @field_validator("values")
    @classmethod
    def _scalars(cls, values: list[Any] | None) -> list[Any] | None:
        for value in values or []:
            if not isinstance(value, Scalar):
                raise ValueError("each value is a name, a quantity, a number, true or false")
        if values is not None and len({(type(v).__name__, v) for v in values}) < len(values):
            raise ValueError("a value stands there twice")
        return values

    @model_validator(mode="after")
    def _one(self) -> ParameterSpec:
        if (self.values is None) == (self.range is None):
            raise ValueError("a parameter has either 'values' or a 'range'")
        return self


class ObjectiveSpec(SpecModel):
    """What is wanted."""

    name: str = Field(description="a metric, such as time_s, tokens_per_s, energy_j, cost_usd")
    goal: Literal["min", "max"] = Field(description="smaller or larger is better")

    @field_validator("name")
    @classmethod
    def _metric(cls, name: str) -> str:
        return metric_name(name)


class FleetSpec(SpecModel):
    """Copies of the whole placed workload, each with a batch of its own."""

    replicas: Count = Field(1, validate_default=True, description="copies; rates, devices and cost grow with them")


class StudySpec(SpecModel):
    """A design space, how it is searched and what is wanted of it."""

    kind: Literal["study"] = Field(description="always 'study'")
    name: Annotated[str, Field(min_length=1, max_length=120)] = Field(description="shown in reports")
    description: str = Field("", description="free text")
    provenance: Provenance | None = Field(None, description="origin of the numbers that carry none themselves")
    hardware: str = Field(description="name of a bundled file, or a path relative to this file")
    workload: str = Field(description="name of a bundled file, or a path relative to this file")
    engine: str | None = Field(None, description="engine profile; that of the workload if absent")
    fleet: FleetSpec = Field(default_factory=lambda: FleetSpec(), description="copies of it all")
    set: list[Annotated[str, AfterValidator(_assignment)]] = Field(
        default_factory=list, description="path=value assignments that hold for every point"
    )
    reading: Literal["roofline", "analytic", "events"] = Field("analytic", description="how each point is timed")
    parameters: Annotated[list[ParameterSpec], Field(min_length=1, max_length=64)] = Field(description="the axes")
    method: Literal["grid", "random", "sobol", "optuna"] = Field("grid", description="how points are chosen")
    samples: Annotated[int, Field(ge=1, le=100_000_000)] | None = Field(
        None, description="how many points; every combination for 'grid'"
    )
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = Field(0, description="of random, sobol and optuna")
    constraints: list[Annotated[str, AfterValidator(_constraint)]] = Field(
        default_factory=list, description="such as 'memory.fits', 'time_s <= 50 ms'"
    )
    objectives: Annotated[list[ObjectiveSpec], Field(min_length=1, max_length=8)] = Field(
        description="one or several: several give a Pareto front"
    )

    @model_validator(mode="after")
    def _method(self) -> StudySpec:
        paths = [p.path for p in self.parameters]
        if len(set_of := {*paths}) < len(paths):
            twice = next(p for p in set_of if paths.count(p) > 1)
            raise ValueError(f"parameter {twice!r} stands there twice")
        if len({o.name for o in self.objectives}) < len(self.objectives):
            raise ValueError("an objective stands there twice")
        if self.method == "grid":
            if self.samples is not None:
                raise ValueError(
                    "'samples' is for the methods random, sobol and optuna; a grid takes every combination"
                )
            bare = [p.path for p in self.parameters if p.range is not None and p.range.points is None]
            if bare:
                raise ValueError(f"method 'grid' needs 'points' in the range of {bare[0]!r}")
        elif self.samples is None:
            raise ValueError(f"method {self.method!r} needs 'samples'")
        return self

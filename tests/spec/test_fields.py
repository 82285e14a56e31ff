"""Quantities with an origin, and the models made of them."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import Field, ValidationError

from effsim.spec import fields
from effsim.spec.fields import (
    Bandwidth,
    Count,
    IntQuantity,
    NonNegativeCount,
    NonNegativeTime,
    Quantity,
    QuantityType,
    Ratio,
    SpecModel,
    Time,
)
from effsim.spec.hardware import GpuSpec
from effsim.units import DIMENSIONS


class Inner(SpecModel):
    latency: Time | None = None


class Outer(SpecModel):
    count: Count = Field(3)
    zero: NonNegativeCount = 0
    wait: NonNegativeTime = 0.0
    share: Ratio = 1.0
    rates: dict[str, Bandwidth] = Field(default_factory=dict)
    inner: list[Inner] = Field(default_factory=list)
    flag: bool = False
    note: str = ""


def test_a_quantity_is_its_number() -> None:
    quantity = Quantity(2.5, "measured", "a bench")
    assert (quantity, repr(quantity), {2.5: 1}[quantity], quantity.kind) == (2.5, "2.5", 1, "measured")
    assert type(quantity * 2) is float
    assert type(quantity + quantity) is float
    count = IntQuantity(7, "datasheet", "a sheet")
    assert (count, repr(count), {7: 1}[count], range(10)[count], count.source) == (7, "7", 1, 7, "a sheet")
    assert type(count + 1) is int
    assert json.dumps([quantity, count]) == "[2.5, 7]"


@pytest.mark.parametrize("quantity", [Quantity(2.5, "measured", "x"), IntQuantity(7, "fitted", "y"), Quantity(1.0)])
def test_copies_keep_the_origin(quantity: Quantity | IntQuantity) -> None:
    for other in (pickle.loads(pickle.dumps(quantity)), copy.copy(quantity), copy.deepcopy(quantity)):
        assert (type(other), other, other.kind, other.source) == (
            type(quantity),
            quantity,
            quantity.kind,
            quantity.source,
        )


def test_bare_and_mapped_values() -> None:
    outer = Outer.model_validate(
        {
            "count": "1024",
            "share": "50 %",
            "rates": {"a": {"value": "1 B/s", "kind": "measured", "source": "hand"}, "b": 2e9},
            "inner": [{"latency": "3 ns"}, {}],
        }
    )
    assert list(outer.leaves()) == [
        ("count", 1024),
        ("zero", 0),
        ("wait", 0.0),
        ("share", 0.5),
        ("rates.a", 1.0),
        ("rates.b", 2e9),
        ("inner.0.latency", 3e-9),
    ]
    leaves = dict(outer.leaves())
    assert (leaves["rates.a"].kind, leaves["rates.a"].source) == ("measured", "hand")
    assert (leaves["rates.b"].kind, leaves["rates.b"].source) == (None, None)
    assert isinstance(leaves["count"], IntQuantity)


def test_a_quantity_is_taken_as_it_is() -> None:
    rates: Any = {"a": Quantity(1.0, "fitted", "a fit")}  # 1 B/s, implausible as a bare number
    leaf = dict(Outer(rates=rates).leaves())["rates.a"]
    assert (leaf, leaf.kind, leaf.source) == (1.0, "fitted", "a fit")
    assert leaf is not rates["a"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"count": 0}, "0 must be more than zero; expected a whole number, 1 or more"),
        ({"count": 2.5}, "2.5 is not a whole number; expected a whole number, 1 or more"),
        ({"count": True}, "true is not a quantity; expected a whole number, 1 or more"),
        ({"count": None}, "null is not a quantity; expected a whole number, 1 or more"),
        ({"count": 2**53 + 2}, "9007199254740994 is too large for a count; expected a whole number, 1 or more"),
        ({"zero": -1}, "-1 is negative; expected a whole number, 0 or more"),
        ({"share": 1.5}, "1.5 is more than 1; expected a ratio such as 0.87 or '87 %', at most 1"),
        ({"share": "0 %"}, "'0 %' must be more than zero; expected a ratio such as 0.87 or '87 %', at most 1"),
        ({"rates": {"a": [1]}}, "a list is not a quantity; expected a bandwidth such as '2.039 TB/s'"),
        ({"rates": {"a": {}}}, "missing 'value'; expected a bandwidth such as '2.039 TB/s'"),
        ({"rates": {"a": {"vale": 1}}}, "unknown key 'vale'; expected one of value, kind, source"),
        ({"rates": {"a": {"value": {}}}}, "a mapping is not a quantity; expected a bandwidth such as '2.039 TB/s'"),
        (
            {"rates": {"a": {"value": "1 B/s", "kind": "guess"}}},
            "unknown kind 'guess'; expected one of datasheet, measured, fitted, assumed, unverified",
        ),
        (
            {"rates": {"a": {"value": "1 B/s", "source": " "}}},
            "' ' is not a source; expected text that says where the value is from",
        ),
    ],
)
def test_wrong_values(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(data)
    assert [error["msg"] for error in caught.value.errors()] == [message]


@pytest.mark.parametrize("data", [{"flag": 1}, {"flag": "yes"}, {"note": 5}, {"other": 1}, {"inner": {}}])
def test_nothing_is_coerced(data: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Outer.model_validate(data)


def test_models_are_immutable_values() -> None:
    outer = Outer(count=5)
    with pytest.raises(ValidationError, match="frozen"):
        outer.count = 6  # type: ignore[misc]
    again = pickle.loads(pickle.dumps(outer))
    assert again == outer
    assert outer.model_dump(mode="json")["count"] == 5
    assert type(outer.model_dump(mode="json")["count"]) is int


def test_every_dimension_has_a_field_type() -> None:
    markers = [
        marker
        for kind in vars(fields).values()
        for marker in getattr(kind, "__metadata__", ())
        if isinstance(marker, QuantityType)
    ]
    assert {marker.dimension for marker in markers} == set(DIMENSIONS)
    for marker in markers:
        example = DIMENSIONS[marker.dimension].example.split(" or ")[0]
        assert marker.validate(example) > 0


def test_the_schema_accepts_what_the_model_accepts(data: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = GpuSpec.model_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    good = yaml.safe_load((data / "gpu.yaml").read_text(encoding="utf-8"))
    assert [error.message for error in validator.iter_errors(good)] == []
    for section, key, value in [
        ("memory", "bandwidth", "fast"),
        ("memory", "bandwidth", {"value": "2 TB/s", "kind": "guess"}),
        ("memory", "bandwidth", {"value": "2 TB/s", "knd": "measured"}),
        ("memory", "capacity", -1),
        ("sm", "count", 0),
        ("sm", "count", None),
    ]:
        bad = copy.deepcopy(good)
        bad[section][key] = value
        assert not validator.is_valid(bad), (section, key, value)


def test_the_schema_says_the_dimension() -> None:
    latency = Inner.model_json_schema()["properties"]["latency"]["anyOf"][0]
    assert latency["description"] == "a time such as '14 ns'"
    assert latency["examples"] == ["14 ns"]

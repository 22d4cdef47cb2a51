"""Types: whether values and other types fit, and what a misfit says."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from typing import Annotated, Any, Literal as OneOf
from uuid import UUID

import pytest
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from llmcompiler.plan.types import SchemaType, fits, fixed_length, misfit


class Window(BaseModel):
    first: int
    last: int = 9


@pytest.mark.parametrize(
    "kind",
    [
        int,
        float,
        bool,
        str,
        list[int],
        dict[str, int],
        int | None,
        OneOf["a", 1],
        Window,
        Any,
        tuple[int, str],
        list[str] | int,
        OneOf["a"] | None,
        date,
        datetime,
        time,
        timedelta,
        UUID,
        Annotated[int, Field(multiple_of=3)],
        Annotated[float, Field(multiple_of=0.1)],
        Annotated[str, Field(pattern="^[a-z]+$")],
    ],
)
@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        1,
        2,
        1.5,
        2.0,
        "",
        "a",
        "1",
        " 2 ",
        "x",
        "true",
        "1e3",
        [],
        [1],
        ["1"],
        ["x"],
        {},
        {"first": 1},
        {"first": "x"},
        {"a": 1},
        [1, "x"],
        "inf",
        1e300,
        "off",
        10**30,
        0.7,
        "2025-01-31",
        "2025-01-31T10:00:00Z",
        "10:00",
        "P1D",
        "12345678-1234-5678-1234-567812345678",
    ],
)
def test_no_value_is_refused_that_pydantic_takes(kind: Any, value: Any) -> None:
    """Some other values fit as well; those are refused at the call."""
    adapter = TypeAdapter(kind)
    schema = adapter.json_schema()
    try:
        adapter.validate_python(value)
    except ValidationError:
        return
    assert misfit(value, SchemaType(schema, schema)) is None


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (date, "tomorrow", "a date such as 2025-01-31"),
        (date | None, "tomorrow", "a date such as 2025-01-31 or null"),
        (list[datetime], ["2025-01-31", "noon"], "a date and time such as 2025-01-31T13:45:00Z"),
        (time, "noon", "a time such as 13:45"),
        (timedelta, "a day", "a duration such as PT1H30M"),
        (UUID, "12", "a UUID"),
        (Annotated[str, Field(pattern="^[a-z]+$")], "ABC", "text that matches ^[a-z]+$"),
        (Annotated[int, Field(multiple_of=5)], 7, "a multiple of 5"),
        (Annotated[int, Field(multiple_of=5)], 10**30 + 1, "a multiple of 5"),
        (Annotated[float, Field(multiple_of=0.5)], 0.7, "a multiple of 0.5"),
    ],
)
def test_forms_of_text_and_steps_of_numbers(kind: Any, value: Any, expected: str) -> None:
    schema = TypeAdapter(kind).json_schema()
    problem = misfit(value, SchemaType(schema, schema))
    assert problem is not None and problem.expected == expected


def test_numbers_beyond_a_double_are_not_counted_in_steps() -> None:
    half = {"type": "number", "multipleOf": 0.5}
    for value in (10**400, float("inf"), float("nan"), 1e300):
        assert misfit(value, SchemaType(half, half)) is None


def test_a_pattern_that_cannot_be_read_constrains_nothing() -> None:
    for pattern in ("(?=a)b", "(", None):
        schema = {"type": "string", "pattern": pattern, "format": "unheard-of"}
        assert misfit("x", SchemaType(schema, schema)) is None


def record(**fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(fields)}


def mapping(values: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": values}


POINT = record(x={"type": "number"}, y={"type": "number"})


@pytest.mark.parametrize(
    ("source", "target", "verdict"),
    [
        ({}, {"type": "string"}, True),
        ({"type": "integer"}, {"type": "number"}, True),
        ({"type": "number"}, {"type": "integer"}, True),
        ({"type": "integer"}, {"type": "string"}, False),
        ({"type": "string"}, {"type": "integer"}, None),
        ({"type": "null"}, {"type": "integer"}, False),
        ({"type": ["string", "null"]}, {"type": "string"}, True),
        ({"anyOf": [{"type": "array"}, {"type": "object"}]}, {"type": "string"}, False),
        ({"enum": ["a", "b"]}, {"enum": ["b", "c"]}, True),
        ({"enum": ["a", "b"]}, {"enum": ["c"]}, False),
        ({"type": "array", "items": {"type": "object"}}, {"type": "array"}, True),
        (
            {"type": "array", "items": {"type": "object"}},
            {"type": "array", "items": {"type": "string"}},
            False,
        ),
        ({"$ref": "#/$defs/missing"}, {"type": "string"}, True),
        (record(x={"type": "array"}, y={"type": "number"}), POINT, False),
        (record(x={"type": "string"}, y={"type": ["number", "null"]}), POINT, True),
        (record(x={"type": "number"}), POINT, False),
        (record(at=record(x={"type": "number"}, y={"type": "object"})), record(at=POINT), False),
        (mapping({"type": "array"}), mapping({"type": "integer"}), False),
        (mapping({"type": "integer"}), mapping({"type": "number"}), True),
        (record(x={"type": "number"}, y={"type": "array"}), mapping({"type": "number"}), False),
        (mapping({"type": "number"}), POINT, True),
    ],
)
def test_passing_one_type_as_another(source: Any, target: Any, verdict: bool | None) -> None:
    assert fits(SchemaType(source, source), SchemaType(target, target)) is verdict


def test_types_with_many_fields_of_their_own_kind_are_soon_compared() -> None:
    many = record(**{f"f{number}": {"$ref": "#"} for number in range(12)})
    assert fits(SchemaType(many, many), SchemaType(many, many)) is True


def test_a_schema_that_refers_to_itself() -> None:
    tree = TypeAdapter(list["list[Any]"]).json_schema()
    assert fixed_length(SchemaType(tree, tree)) is None
    loop = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}
    assert misfit(5, SchemaType(loop, loop)) is None
    nested = {
        "$ref": "#/$defs/n",
        "$defs": {"n": {"type": "array", "items": {"$ref": "#/$defs/n"}}},
    }
    assert misfit([[[]]], SchemaType(nested, nested)) is None
    assert misfit([[5]], SchemaType(nested, nested)) is not None
    assert fits(SchemaType(nested, nested), SchemaType(nested, nested)) is True


@pytest.mark.parametrize(
    ("source", "target", "does_fit"),
    [
        ({"x": "array", "y": "object"}, {"x": "number", "y": "number"}, False),
        ({"x": "integer", "y": "number"}, {"x": "number", "y": "number"}, True),
        ({"x": "integer"}, {"x": "number", "y": "number"}, False),
    ],
)
def test_fields_of_objects_are_compared(
    source: dict[str, str], target: dict[str, str], does_fit: bool
) -> None:
    def record_type(fields: dict[str, str]) -> SchemaType:
        properties = {name: {"type": kind} for name, kind in fields.items()}
        return SchemaType({"type": "object", "properties": properties, "required": [*fields]}, {})

    assert fits(record_type(source), record_type(target)) is does_fit


def test_values_of_mappings_are_compared() -> None:
    def mapping_type(values: dict[str, Any]) -> SchemaType:
        return SchemaType({"type": "object", "additionalProperties": values}, {})

    numbers, lists = {"type": "integer"}, {"type": "array", "items": {"type": "string"}}
    assert fits(mapping_type(lists), mapping_type(numbers)) is False
    assert fits(mapping_type(numbers), mapping_type({"type": "number"})) is True

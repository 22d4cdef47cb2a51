"""Sample values for the arguments of a tool, from its schema and its author's descriptions.

They stand in examples that a small model imitates, so they look like the author's own values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from llmcompiler.plan.types import SchemaType, misfit

_WORDS = ("red", "green", "blue")
_NUMBERS: Mapping[str, tuple[float, ...]] = {"integer": (3, 5, 8), "number": (0.3, 2.5, 8.0)}

_QUOTED = re.compile(r"(?<!\w)(['\"])([^'\"\n]+)\1(?!\w)")
_EXAMPLES = re.compile(
    r"\b(?:e\.?g\.?|for example|such as)[\s,:]+([^();\n]+?)(?:\.\s|\.?\s*(?:$|[();\n]))",
    re.IGNORECASE,
)
_LIST = re.compile(r",?\s*\betc\b\.?|,\s*(?:(?:or|and)\s+)?|\s+(?:or|and)\s+")
_PLACE = re.compile(r"[^,]+, [A-Z]{2,3}")
_FORMAT = re.compile(r"[ymdhs:/\s.-]+", re.IGNORECASE)

_LONGEST = 40
"""Most characters of a value in a description; longer texts are explanations."""

_LENGTHS = (2, 1, 3)
"""Lengths of lists, by variant: a small model would take a length they share for the rule."""

_DEEPEST = 4
"""Most levels of lists and objects."""


def sample_value(typed: SchemaType, variant: int, depth: int = 0) -> Any:
    """Make a value that fits a schema; ``None`` if that cannot be done.

    Args:
        typed: the schema; of a union, the first alternative that has a value counts.
        variant: counts from 0; different variants give different values as far as possible.
        depth: number of lists and objects around the value.
    """
    outer = typed.resolve().schema
    for branch in typed.alternatives():
        schema = {"description": outer.get("description"), **branch.schema}
        if (value := _value_of_branch(SchemaType(schema, typed.root), variant, depth)) is not None:
            return value
    return None


def _value_of_branch(typed: SchemaType, variant: int, depth: int) -> Any:
    schema = typed.schema
    if "const" in schema:
        return schema["const"]
    if choices := schema.get("examples") or schema.get("enum"):
        return _pick_fitting(choices, typed, variant)
    match schema.get("type"):
        case "string":
            return _pick_fitting(
                (*_described_values(schema["description"] or ""), *_WORDS), typed, variant
            )
        case "integer" | "number" as kind:
            bounds = [schema[key] for key in ("minimum", "maximum") if key in schema]
            return _pick_fitting((*_NUMBERS[kind], *bounds), typed, variant)
        case "boolean":
            return True
        case "array" if depth < _DEEPEST:
            items_schema = schema.get("items")
            inner = {
                "description": schema["description"],
                **(items_schema if type(items_schema) is dict else {}),
            }
            length = max(_LENGTHS[variant % len(_LENGTHS)], schema.get("minItems", 0))
            length = min(length, schema.get("maxItems", length))
            items = [
                sample_value(SchemaType(inner, typed.root), variant + n, depth + 1)
                for n in range(length)
            ]
            return None if None in items else items
        case "object" if depth < _DEEPEST:
            fields = schema.get("properties", {})
            names = schema.get("required") or list(fields)
            values = {
                name: sample_value(SchemaType(fields.get(name, {}), typed.root), variant, depth + 1)
                for name in names
            }
            return None if None in values.values() else values or None
    return None


def _pick_fitting(values: Sequence[Any], typed: SchemaType, variant: int) -> Any:
    """Pick one of the values that fit; a description may name some that do not."""
    fitting = [value for value in values if misfit(value, typed) is None]
    return fitting[variant % len(fitting)] if fitting else None


def _described_values(description: str) -> tuple[str, ...]:
    """Find the example values in a description: ``"e.g. Boston, MA"``, ``"'asc' or 'desc'"``.

    They say what a type does not, such as that the state belongs to the city. A spelled-out format
    such as ``YYYY-MM-DD`` is no value.
    """
    values = [match[2] for match in _QUOTED.finditer(description)]
    if not values and (match := _EXAMPLES.search(description)) is not None:
        values = [match[1]] if _PLACE.fullmatch(match[1]) else _LIST.split(match[1])
    fit = (value for value in values if 0 < len(value) <= _LONGEST and not _FORMAT.fullmatch(value))
    return tuple(dict.fromkeys(fit))

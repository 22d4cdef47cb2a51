"""Values made up for the arguments of a tool, from its schema and from what its author wrote.

They stand in examples that a small model imitates, so they are such as the author would give. The
module must not know what an example is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from llmcompiler.plan.types import Typed, misfit

_WORDS = ("red", "green", "blue")
_NUMBERS: Mapping[str, tuple[float, ...]] = {"integer": (3, 5, 8), "number": (0.3, 2.5, 8.0)}

_QUOTED = re.compile(r"(?<!\w)(['\"])([^'\"\n]+)\1(?!\w)")
_SAID = re.compile(
    r"\b(?:e\.?g\.?|for example|such as)[\s,:]+([^();\n]+?)(?:\.\s|\.?\s*(?:$|[();\n]))",
    re.IGNORECASE,
)
_LIST = re.compile(r",?\s*\betc\b\.?|,\s*(?:(?:or|and)\s+)?|\s+(?:or|and)\s+")
_PLACE = re.compile(r"[^,]+, [A-Z]{2,3}")
_FORMAT = re.compile(r"[ymdhs:/\s.-]+", re.IGNORECASE)

_LONGEST = 40
"""Characters of a value that a description gives; longer ones are explanations."""

_LENGTHS = (2, 1, 3)
"""Items of a list, by variant: were they all as long, a small model would take it for the rule."""

_DEEPEST = 4
"""Levels of lists and objects."""


def made_up(typed: Typed, variant: int, depth: int = 0) -> Any:
    """A value that fits a schema; ``None`` where none can be made up.

    Args:
        typed: the schema; of a union, the first alternative with a value is taken.
        variant: counts from 0; different numbers give different values as far as there are any.
        depth: how many lists and objects are around it.
    """
    said = typed.resolved().schema
    for branch in typed.branches():
        schema = {"description": said.get("description"), **branch.schema}
        if (value := _of_branch(Typed(schema, typed.root), variant, depth)) is not None:
            return value
    return None


def _of_branch(typed: Typed, variant: int, depth: int) -> Any:
    schema = typed.schema
    if "const" in schema:
        return schema["const"]
    if choices := schema.get("examples") or schema.get("enum"):
        return _one_of(choices, typed, variant)
    match schema.get("type"):
        case "string":
            return _one_of((*_told(schema["description"] or ""), *_WORDS), typed, variant)
        case "integer" | "number" as kind:
            bounds = [schema[key] for key in ("minimum", "maximum") if key in schema]
            return _one_of((*_NUMBERS[kind], *bounds), typed, variant)
        case "boolean":
            return True
        case "array" if depth < _DEEPEST:
            given = schema.get("items")
            inner = {"description": schema["description"], **(given if type(given) is dict else {})}
            length = max(_LENGTHS[variant % len(_LENGTHS)], schema.get("minItems", 0))
            length = min(length, schema.get("maxItems", length))
            items = [
                made_up(Typed(inner, typed.root), variant + n, depth + 1) for n in range(length)
            ]
            return None if None in items else items
        case "object" if depth < _DEEPEST:
            fields = schema.get("properties", {})
            needed = schema.get("required") or list(fields)
            inside = {
                name: made_up(Typed(fields.get(name, {}), typed.root), variant, depth + 1)
                for name in needed
            }
            return None if None in inside.values() else inside or None
    return None


def _one_of(values: Sequence[Any], typed: Typed, variant: int) -> Any:
    """One of the values that fit; a description may tell some that do not."""
    fitting = [value for value in values if misfit(value, typed) is None]
    return fitting[variant % len(fitting)] if fitting else None


def _told(description: str) -> tuple[str, ...]:
    """Values that a description gives as examples, ``"e.g. Boston, MA"`` or ``"'asc' or 'desc'"``.

    Authors say there what a type does not, as that the state belongs to the city. A spelt-out
    format, ``YYYY-MM-DD``, is no value.
    """
    values = [found[2] for found in _QUOTED.finditer(description)]
    if not values and (found := _SAID.search(description)) is not None:
        values = [found[1]] if _PLACE.fullmatch(found[1]) else _LIST.split(found[1])
    fit = (one for one in values if 0 < len(one) <= _LONGEST and not _FORMAT.fullmatch(one))
    return tuple(dict.fromkeys(fit))

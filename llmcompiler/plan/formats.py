"""Text of a certain form, as a JSON schema asks for it: dates, times, UUIDs, patterns.

It is read as pydantic reads it at the call, and patterns by an engine that no text can keep busy.
Formats and patterns that pydantic does not know constrain nothing. The module must not know where
a text stands.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from pydantic_core import SchemaError, SchemaValidator, ValidationError, core_schema

_FORMATS: Mapping[str, tuple[SchemaValidator, str]] = {
    "date": (SchemaValidator(core_schema.date_schema()), "a date such as 2025-01-31"),
    "date-time": (
        SchemaValidator(core_schema.datetime_schema()),
        "a date and time such as 2025-01-31T13:45:00Z",
    ),
    "time": (SchemaValidator(core_schema.time_schema()), "a time such as 13:45"),
    "duration": (SchemaValidator(core_schema.timedelta_schema()), "a duration such as PT1H30M"),
    "uuid": (SchemaValidator(core_schema.uuid_schema()), "a UUID"),
}


def format_text(schema: Mapping[str, Any]) -> str:
    """The schema's format in words; empty where it has none that is known."""
    known = _FORMATS.get(str(schema.get("format")))
    return known[1] if known is not None else ""


def misshapen(text: str, schema: Mapping[str, Any]) -> str:
    """What a text should be and is not, in words; empty where it has the schema's form."""
    known = _FORMATS.get(str(schema.get("format")))
    if known is not None and not _takes(known[0], text):
        return known[1]
    pattern = schema.get("pattern")
    if isinstance(pattern, str) and (reader := _matcher(pattern)) and not _takes(reader, text):
        return f"text that matches {pattern}"
    return ""


@functools.lru_cache(maxsize=256)
def _matcher(pattern: str) -> SchemaValidator | None:
    try:
        return SchemaValidator(core_schema.str_schema(pattern=pattern))
    except SchemaError:
        return None


def _takes(reader: SchemaValidator, text: str) -> bool:
    try:
        reader.validate_python(text)
    except ValidationError:
        return False
    return True

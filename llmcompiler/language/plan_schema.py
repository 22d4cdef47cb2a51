"""From a tool catalogue to the JSON schema of the plans that fit it.

For endpoints that hold models to a schema but to no grammar. The module must not know who asks
which model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmcompiler.language.grammar import MOST_LINES, SILENT, Schema, ToolView
from llmcompiler.passes.schemas import Typed, types_of

REFERENCE = r"^\$[1-9][0-9]?(\.[a-zA-Z_][a-zA-Z0-9_]*|\[[0-9]+\]|\[\*\])*$"
"""Pattern of a string that stands for the result of an earlier task."""


def plan_schema(tools: Mapping[str, ToolView]) -> Schema:
    """The JSON schema of plans that call these tools.

    A plan is ``{"tasks": [{"id": 1, "tool": "country", "args": {"name": "Chad"}}, …]}``. Strings
    are templates as everywhere, and where a parameter takes something else than text, a string
    that is a reference stands for the referenced value.

    Args:
        tools: what may be called, by name.
    """
    defs: Schema = {"reference": {"type": "string", "pattern": REFERENCE}}
    tasks = [_task_schema(number, tool, defs) for number, tool in enumerate(tools.values())]
    items: Schema = {"anyOf": tasks} if tasks else {"not": {}}
    return {
        "type": "object",
        "properties": {
            "tasks": {"type": "array", "items": items, "maxItems": MOST_LINES if tasks else 0}
        },
        "required": ["tasks"],
        "additionalProperties": False,
        "$defs": defs,
    }


def _task_schema(number: int, tool: ToolView, defs: Schema) -> Schema:
    schema = tool.parameters_schema
    prefix = f"t{number}-"
    for name, inner in schema.get("$defs", {}).items():
        defs[prefix + name] = moved_schema(inner, prefix)
    properties = {
        name: _or_reference(Typed(value, schema), moved_schema(value, prefix))
        for name, value in schema.get("properties", {}).items()
    }
    args = {
        "type": "object",
        "properties": properties,
        "required": [name for name in schema.get("required", ()) if name in properties],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {
            "id": {"type": "integer", "minimum": 1},
            "tool": {"const": tool.name},
            "args": args,
        },
        "required": ["id", "tool", "args"],
        "additionalProperties": False,
    }


def moved_schema(schema: Any, prefix: str) -> Any:
    """A schema whose ``$ref`` lead to where its definitions were put; prose is left out."""
    if isinstance(schema, list):
        return [moved_schema(item, prefix) for item in schema]
    if not isinstance(schema, dict):
        return schema
    out: Schema = {}
    for key, inner in schema.items():
        if key == "$ref":
            out[key] = f"#/$defs/{prefix}{str(inner).rsplit('/', 1)[-1]}"
        elif key == "properties":
            out[key] = {name: moved_schema(value, prefix) for name, value in inner.items()}
        elif key in ("enum", "const", "required"):
            out[key] = inner
        elif key not in SILENT:
            out[key] = moved_schema(inner, prefix)
    return out


def _or_reference(typed: Typed, schema: Schema) -> Schema:
    """The schema itself, or a reference; a list may also hold references among its items."""
    plain = typed.resolved().schema
    if "string" in types_of(typed) and not any(key in plain for key in ("enum", "const", "anyOf")):
        return schema
    if plain.get("type") == "array" and isinstance(plain.get("items"), dict) and "items" in schema:
        item = _or_reference(Typed(plain["items"], typed.root), schema["items"])
        schema = {**schema, "items": item}
    return {"anyOf": [schema, {"$ref": "#/$defs/reference"}]}

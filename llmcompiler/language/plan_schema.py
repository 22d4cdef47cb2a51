"""From a tool catalogue to the JSON schema of the plans that fit it.

For endpoints that hold models to a schema but to no grammar. The module must not know who asks
which model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmcompiler.language.grammar import MOST_LINES, SILENT, Schema, ToolView
from llmcompiler.plan.types import Typed, pointed, types_of

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
    moved = MovedSchemas(schema, f"t{number}-", defs)
    properties = {
        name: _or_reference(Typed(value, schema), moved(value))
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


class MovedSchemas:
    """Schemas of one tool as parts of a larger one; prose is left out.

    Args:
        root: where the tool's ``$ref`` lead to, by whatever path.
        prefix: begins the names of this tool's definitions.
        defs: what is referred to is put here.
    """

    def __init__(self, root: Schema, prefix: str, defs: Schema) -> None:
        self._root = root
        self._prefix = prefix
        self._defs = defs

    def __call__(self, schema: Any) -> Any:
        """The schema, its ``$ref`` led to where their targets were put."""
        if isinstance(schema, list):
            return [self(item) for item in schema]
        if not isinstance(schema, dict):
            return schema
        out: Schema = {}
        for key, inner in schema.items():
            if key == "$ref":
                out[key] = f"#/$defs/{self._name_of(str(inner))}"
            elif key == "properties":
                out[key] = {name: self(value) for name, value in inner.items()}
            elif key in ("enum", "const", "required"):
                out[key] = inner
            elif key not in SILENT and key not in ("$defs", "definitions"):
                out[key] = self(inner)
        return out

    def _name_of(self, ref: str) -> str:
        # No two paths have one name: what is no letter or digit is spelled by its number.
        path = "".join(char if char.isalnum() else f"_{ord(char):x}" for char in ref)
        name = f"{self._prefix}{path}"
        if name not in self._defs:
            self._defs[name] = {}  # a definition may refer to itself
            target = pointed(ref, self._root)
            self._defs[name] = self(target) if isinstance(target, dict) else {}
        return name


def _or_reference(typed: Typed, schema: Schema) -> Schema:
    """The schema itself, or a reference; a list may also hold references among its items."""
    plain = typed.resolved().schema
    if "string" in types_of(typed) and not any(key in plain for key in ("enum", "const", "anyOf")):
        return schema
    if plain.get("type") == "array" and isinstance(plain.get("items"), dict) and "items" in schema:
        item = _or_reference(Typed(plain["items"], typed.root), schema["items"])
        schema = {**schema, "items": item}
    return {"anyOf": [schema, {"$ref": "#/$defs/reference"}]}

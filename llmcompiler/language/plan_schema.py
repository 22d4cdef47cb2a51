"""The plan schema: the plans that fit a tool catalogue, as a JSON schema.

It serves endpoints that hold models to a schema, but not to a grammar.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmcompiler.language.grammar import MAX_TASKS, SILENT_KEYWORDS, GrammarTool, Schema
from llmcompiler.plan.types import SchemaType, json_types, resolve_pointer

REFERENCE = r"^\$[1-9][0-9]?(\.[a-zA-Z_][a-zA-Z0-9_]*|\[[0-9]+\]|\[\*\])*$"
"""Pattern of a string that stands for the result of an earlier task."""


def plan_schema(tools: Mapping[str, GrammarTool]) -> Schema:
    """The JSON schema of plans that call these tools.

    A plan is ``{"tasks": [{"id": 1, "tool": "country", "args": {"name": "Chad"}}, …]}``. Strings
    are templates, as in the plan language. Where a parameter takes something else than text, a
    string that is a reference stands for the referenced value.

    Args:
        tools: the tools that may be called, by name.
    """
    defs: Schema = {"reference": {"type": "string", "pattern": REFERENCE}}
    tasks = [_task_schema(number, tool, defs) for number, tool in enumerate(tools.values())]
    items: Schema = {"anyOf": tasks} if tasks else {"not": {}}
    return {
        "type": "object",
        "properties": {
            "tasks": {"type": "array", "items": items, "maxItems": MAX_TASKS if tasks else 0}
        },
        "required": ["tasks"],
        "additionalProperties": False,
        "$defs": defs,
    }


def _task_schema(number: int, tool: GrammarTool, defs: Schema) -> Schema:
    schema = tool.parameters_schema
    moved = SchemaMover(schema, f"t{number}-", defs)
    properties = {
        name: _or_reference(SchemaType(value, schema), moved(value))
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


class SchemaMover:
    """Copies schemas of one tool into a larger schema, without their prose.

    Args:
        root: the tool's schema, into which its ``$ref`` point.
        prefix: first part of the names of this tool's definitions.
        defs: the larger schema's definitions; targets of ``$ref`` are copied here.
    """

    def __init__(self, root: Schema, prefix: str, defs: Schema) -> None:
        self._root = root
        self._prefix = prefix
        self._defs = defs

    def __call__(self, schema: Any) -> Any:
        """Copy a schema; its ``$ref`` point to the copied definitions."""
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
            elif key not in SILENT_KEYWORDS and key not in ("$defs", "definitions"):
                out[key] = self(inner)
        return out

    def _name_of(self, ref: str) -> str:
        # Other characters than letters and digits become their code, so each path has its own name.
        path = "".join(char if char.isalnum() else f"_{ord(char):x}" for char in ref)
        name = f"{self._prefix}{path}"
        if name not in self._defs:
            self._defs[name] = {}  # a definition may refer to itself
            target = resolve_pointer(ref, self._root)
            self._defs[name] = self(target) if isinstance(target, dict) else {}
        return name


def _or_reference(typed: SchemaType, schema: Schema) -> Schema:
    """The schema or a reference; in a list, each item can be a reference too."""
    plain = typed.resolve().schema
    if "string" in json_types(typed) and not any(
        key in plain for key in ("enum", "const", "anyOf")
    ):
        return schema
    if plain.get("type") == "array" and isinstance(plain.get("items"), dict) and "items" in schema:
        item = _or_reference(SchemaType(plain["items"], typed.root), schema["items"])
        schema = {**schema, "items": item}
    return {"anyOf": [schema, {"$ref": "#/$defs/reference"}]}

"""Tools as Python stubs: what a model reads before it writes a program.

A tool is shown as a function with types; a record that it returns as a class with its fields. A
model has read far more Python than schemas, and takes names of fields from a class.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping

from llmcompiler.plan.types import SchemaType
from llmcompiler.tools.base import Tool

_MAX_DEPTH = 6
"""Levels of records inside records that are shown as classes."""

_NAMES = {"integer": "int", "number": "float", "string": "str", "boolean": "bool", "null": "None"}
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


def spelled_name(name: str) -> str:
    """A tool's name as a program can write it."""
    return "".join(char if char.isalnum() or char in "_." else "_" for char in name)


def stubs(tools: Mapping[str, Tool]) -> str:
    """Stubs of tools, behind the classes of their records.

    Args:
        tools: by name.
    """
    writer = _StubWriter()
    functions = [writer.function(tool) for tool in tools.values()]
    return "\n\n".join([*writer.classes.values(), *functions])


class _StubWriter:
    """Writes stubs; ``classes`` holds the records that they name, by name."""

    def __init__(self) -> None:
        self.classes: dict[str, str] = {}

    def function(self, tool: Tool) -> str:
        """The stub of a tool."""
        schema = tool.parameters_schema
        required = schema.get("required", ())
        parameters = []
        meanings = []
        for name, inner in schema.get("properties", {}).items():
            text = f"{name}: {self._type(SchemaType(inner, schema), name.title())}"
            if name not in required:
                text += f" = {inner.get('default', None)!r}"
            parameters.append(text)
            if meaning := first_sentence(str(inner.get("description") or "")):
                meanings.append(f"    {name}: {meaning}")
        result = "Any"
        if tool.return_schema:
            returned = SchemaType(tool.return_schema, tool.return_schema)
            result = self._type(returned, _class_name(tool.name))
        head = f"def {spelled_name(tool.name)}({', '.join(parameters)}) -> {result}:"
        lines = [first_sentence(tool.description), *meanings]
        lines = [line for line in lines if line]
        if not lines:
            return f"{head} ..."
        if len(lines) == 1:
            return f'{head}\n    """{lines[0]}"""'
        return "\n".join([head, f'    """{lines[0]}', *lines[1:], '    """'])

    def _type(self, typed: SchemaType, name: str, depth: int = 0) -> str:
        words = dict.fromkeys(self._branch(option, name, depth) for option in typed.alternatives())
        return "Any" if "Any" in words or not words else " | ".join(words)

    def _branch(self, branch: SchemaType, name: str, depth: int) -> str:
        schema = branch.schema
        if "const" in schema:
            return f"Literal[{schema['const']!r}]"
        if isinstance(schema.get("enum"), list):
            return f"Literal[{', '.join(map(repr, schema['enum']))}]"
        kind = schema.get("type")
        if kind == "array":
            items = schema.get("items")
            if not isinstance(items, dict):
                return "list"
            return f"list[{self._type(SchemaType(items, branch.root), name, depth + 1)}]"
        if schema.get("properties") and depth < _MAX_DEPTH:
            return self._class(branch, name, depth)
        if kind == "object":
            values = schema.get("additionalProperties")
            if isinstance(values, dict) and values:
                inner = self._type(SchemaType(values, branch.root), name, depth + 1)
                return f"dict[str, {inner}]"
            return "dict"
        return _NAMES.get(str(kind), "Any")

    def _class(self, branch: SchemaType, name: str, depth: int) -> str:
        schema = branch.schema
        title = str(schema.get("title") or "")
        name = title if title.isidentifier() else name
        required = schema.get("required", ())
        fields = []
        for field, inner in schema["properties"].items():
            text = self._type(SchemaType(inner, branch.root), _class_name(field), depth + 1)
            if field not in required and "None" not in text.split(" | "):
                text += " | None"
            is_plain = field.isidentifier() and not keyword.iskeyword(field)
            spelled = field if is_plain else f"[{field!r}]"
            meaning = first_sentence(str(inner.get("description") or ""))
            fields.append(f"    {spelled}: {text}" + (f"  # {meaning}" if meaning else ""))
        meaning = first_sentence(str(schema.get("description") or ""))
        body = "\n".join([f"  # {meaning}" if meaning else "", *fields])
        # Records of one name and other fields get names of their own.
        while self.classes.get(name, text := f"class {name}:{body}") != text:
            name += "_"
        self.classes[name] = text
        return name


def _class_name(name: str) -> str:
    """A class's name, made of a tool's or a field's."""
    return "".join(part.title() for part in re.split(r"\W|_", name)) or "Record"


def first_sentence(text: str) -> str:
    """The first sentence of a description, in one line."""
    return _SENTENCE.split(" ".join(text.split()), 1)[0].replace('"""', "'''")

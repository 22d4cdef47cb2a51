"""Tools as Python stubs: all that their authors wrote, in the form that models know best.

A stub says what a signature of one line leaves out: what each argument and each field of a result
means, bounds, formats, defaults, and whether a call changes something outside. Named types of
arguments and results are classes above the functions.
"""

from __future__ import annotations

import itertools
import json
import keyword
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from llmcompiler.tools.base import Tool

Schema: TypeAlias = Mapping[str, Any]

_SCALARS = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}
_FORMATS = {
    "date": "date",
    "date-time": "datetime",
    "time": "time",
    "duration": "timedelta",
    "uuid": "UUID",
    "binary": "bytes",
}
"""Python's types for formats of strings."""

_MAX_EXAMPLES = 3

WRITES = "Writes: a call changes something outside."


def describe_as_stubs(tools: Mapping[str, Tool]) -> str:
    """Describe tools as Python: classes of arguments and results, then a function for each tool."""
    classes = _Classes()
    functions = [_function_text(tool, classes) for tool in tools.values()]
    return "\n\n".join([*classes.texts(), *functions])


def describe_result(tool: Tool) -> str:
    """The result of a tool in a sentence; empty if nothing is known of it."""
    if tool.return_schema is None:
        return ""
    classes = _Classes()
    text = (
        f"Returns {classes.type_text(tool.return_schema, tool.return_schema, _pascal(tool.name))}"
    )
    return "\n\n".join([f"{text}.", *classes.texts()])


def full_description(tool: Tool) -> str:
    """All that the author wrote about a tool, and what a call of it does to the world."""
    parts = [tool.documentation or tool.description]
    if tool.effect == "write":
        parts.append(WRITES)
    return "\n\n".join(part for part in parts if part)


def _function_text(tool: Tool, classes: _Classes) -> str:
    schema = tool.parameters_schema
    required = schema.get("required", ())
    parameters, notes = [], []
    for name, inner in schema.get("properties", {}).items():
        label = f"{_pascal(tool.name)}{_pascal(name)}"
        parameters.append(
            f"{name}: {classes.type_text(inner, schema, label)}"
            f"{_default_text(inner, is_required=name in required)}"
        )
        notes.append(_note(inner, schema))
    arrow = ""
    if tool.return_schema is not None:
        label = f"{_pascal(tool.name)}Result"
        arrow = f" -> {classes.type_text(tool.return_schema, tool.return_schema, label)}"
    if any(notes):
        lines = [
            f"    {parameter},{f'  # {note}' if note else ''}"
            for parameter, note in zip(parameters, notes, strict=True)
        ]
        head = "\n".join([f"def {tool.name}(", *lines, f"){arrow}:"])
    else:
        head = f"def {tool.name}({', '.join(parameters)}){arrow}:"
    documentation = full_description(tool)
    return f"{head}\n{_docstring(documentation)}" if documentation else f"{head} ..."


class _Classes:
    """The named types of tools; equal types are one class."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._texts: dict[str, str] = {}

    def texts(self) -> Iterator[str]:
        """The classes, in the order in which tools need them."""
        return iter(self._texts.values())

    def type_text(self, schema: Any, root: Schema, label: str) -> str:
        """A schema as a type hint.

        Args:
            schema: of one value.
            root: holds the ``$defs``.
            label: the name of a class for an object that has none.
        """
        if not isinstance(schema, Mapping) or not schema:
            return "Any"
        if "$ref" in schema:
            name = str(schema["$ref"]).rsplit("/", 1)[-1]
            target = root.get("$defs", {}).get(name)
            return self.type_text(target, root, name) if target is not None else "Any"
        if "const" in schema:
            return f"Literal[{_literal(schema['const'])}]"
        if "enum" in schema:
            return f"Literal[{', '.join(map(_literal, schema['enum']))}]"
        for union in ("anyOf", "oneOf"):
            if union in schema:
                texts = [self.type_text(choice, root, label) for choice in schema[union]]
                return " | ".join(dict.fromkeys(texts))
        if len(schema.get("allOf", ())) == 1:
            return self.type_text(schema["allOf"][0], root, label)
        kind = schema.get("type")
        if isinstance(kind, list):
            return " | ".join(self.type_text({**schema, "type": one}, root, label) for one in kind)
        if kind == "array":
            return self._array_text(schema, root, label)
        if kind == "object" or "properties" in schema:
            return self._object_text(schema, root, label)
        if kind == "string":
            return _FORMATS.get(str(schema.get("format")), "str")
        return _SCALARS.get(str(kind), "Any")

    def _array_text(self, schema: Schema, root: Schema, label: str) -> str:
        if "prefixItems" in schema:
            texts = [self.type_text(item, root, label) for item in schema["prefixItems"]]
            return f"tuple[{', '.join(texts)}]"
        items = schema.get("items")
        return f"list[{self.type_text(items, root, label)}]" if items else "list"

    def _object_text(self, schema: Schema, root: Schema, label: str) -> str:
        if not schema.get("properties"):
            values = schema.get("additionalProperties")
            is_typed = isinstance(values, Mapping) and values
            return f"dict[str, {self.type_text(values, root, label)}]" if is_typed else "dict"
        key = json.dumps([schema, root.get("$defs", {})], sort_keys=True, default=str)
        if key not in self._names:
            title = str(schema.get("title") or label)
            title = title if title.isidentifier() else _pascal(title)
            for number in itertools.count(1):
                name = self._names[key] = title if number == 1 else f"{title}{number}"
                # The name is taken while the fields are written: a type may contain itself.
                earlier = self._texts.setdefault(name, "")
                text = self._class_text(name, schema, root)
                if earlier in ("", text):
                    self._texts[name] = text
                    break
        return self._names[key]

    def _class_text(self, name: str, schema: Schema, root: Schema) -> str:
        lines = [f"class {name}(TypedDict):"]
        if description := str(schema.get("description") or "").strip():
            lines.append(_docstring(description))
        required = schema.get("required", ())
        for field, inner in schema["properties"].items():
            text = self.type_text(inner, root, f"{name}{_pascal(field)}")
            default = _default_text(inner, is_required=field in required)
            if default == OMITTED:
                text, default = f"NotRequired[{text}]", ""
            note = _note(inner, root)
            lines.append(f"    {field}: {text}{default}{f'  # {note}' if note else ''}")
        return "\n".join(lines)


OMITTED = " = ..."
"""The default of an argument that may be left out, if its author's default is not known."""


def _default_text(schema: Any, *, is_required: bool) -> str:
    if is_required:
        return ""
    if isinstance(schema, Mapping) and "default" in schema:
        return f" = {_literal(schema['default'])}"
    return OMITTED


def _note(schema: Any, root: Schema) -> str:
    """What a type hint does not say: meaning, bounds, form, examples."""
    if not isinstance(schema, Mapping):
        return ""
    parts = [" ".join(str(schema.get("description") or "").split())]
    parts += _bounds(schema, root)
    if examples := schema.get("examples"):
        shown = ", ".join(_literal(example) for example in list(examples)[:_MAX_EXAMPLES])
        parts.append(f"for example {shown}")
    return "; ".join(part.rstrip(".;") if len(parts) > 1 else part for part in parts if part)


def _bounds(schema: Schema, root: Schema, depth: int = 0) -> list[str]:
    """The bounds of a value, in words."""
    if depth > 4:
        return []
    if "$ref" in schema:
        target = root.get("$defs", {}).get(str(schema["$ref"]).rsplit("/", 1)[-1], {})
        if target.get("type") == "object" or "properties" in target:
            return []  # a class says it
        about = " ".join(str(target.get("description") or "").split())
        return [*([about] if about else []), *_bounds(target, root, depth + 1)]
    texts = [
        *_interval(schema, "minimum", "maximum", ""),
        *_strict_bounds(schema),
        *_interval(schema, "minLength", "maxLength", "character"),
        *_interval(schema, "minItems", "maxItems", "item"),
    ]
    if "pattern" in schema:
        texts.append(f"matches {schema['pattern']}")
    if "multipleOf" in schema:
        texts.append(f"a multiple of {schema['multipleOf']}")
    if schema.get("uniqueItems"):
        texts.append("no item twice")
    if (form := schema.get("format")) and form not in _FORMATS:
        texts.append(f"format {form}")
    for union in ("anyOf", "oneOf", "allOf"):
        for choice in schema.get(union, ()):
            texts += _bounds(choice, root, depth + 1)
    for name, word in (("items", "each item"), ("additionalProperties", "each value")):
        if isinstance(inner := schema.get(name), Mapping):
            texts += [f"{word}: {text}" for text in _bounds(inner, root, depth + 1)]
    return list(dict.fromkeys(texts))


def _interval(schema: Schema, low: str, high: str, unit: str) -> list[str]:
    least, most = schema.get(low), schema.get(high)
    last = least if most is None else most
    noun = f" {unit}{'' if last == 1 else 's'}" if unit else ""
    if least is not None and least == most:
        return [f"exactly {least}{noun}"]
    if least is not None and most is not None:
        return [f"from {least} to {most}{noun}"]
    if least is not None:
        return [f"at least {least}{noun}"]
    return [f"at most {most}{noun}"] if most is not None else []


def _strict_bounds(schema: Schema) -> Iterator[str]:
    if "exclusiveMinimum" in schema:
        yield f"more than {schema['exclusiveMinimum']}"
    if "exclusiveMaximum" in schema:
        yield f"less than {schema['exclusiveMaximum']}"


def _docstring(text: str) -> str:
    lines = text.replace('"""', "'''").splitlines()
    if len(lines) == 1:
        return f'    """{lines[0]}"""'
    inner = "\n".join(f"    {line}".rstrip() for line in lines[1:])
    return f'    """{lines[0]}\n{inner}\n    """'


def _literal(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return repr(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, dict):
        return (
            f"{{{', '.join(f'{_literal(key)}: {_literal(item)}' for key, item in value.items())}}}"
        )
    return json.dumps(value, ensure_ascii=False)


def _pascal(text: str) -> str:
    name = "".join(part[:1].upper() + part[1:] for part in re.split(r"\W+|_", text))
    return f"{name}_" if keyword.iskeyword(name) else name

"""Tools that others describe by a name, a text and a JSON schema instead of a Python function.

MCP servers and other frameworks hand over such descriptions. This module makes ``Tool``s of them.
For a description from outside the program, ``origin`` names its source, and ``version`` is a hash
of the complete description, so that a change is noticed (``llmcompiler.history.tool_changes``).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, create_model

from llmcompiler.errors import ToolError
from llmcompiler.tools.base import Effect, Tool
from llmcompiler.tools.schema import Schema

OMITTED: Any = type("Omitted", (), {"__repr__": lambda self: "OMITTED"})()
"""Sentinel: the plan does not give this optional argument, so the other side uses its default."""

_UNFIT = re.compile(r"[^\w.\-]")
_SCALARS: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": int | float,  # a float alone would change integers above 2**53
    "boolean": bool,
    "null": None,
    "object": dict[str, Any],
}


@dataclass(frozen=True)
class ForeignTool(Tool):
    """A tool whose function gets only the arguments that the plan gives.

    Attributes:
        alternatives: for each choice in the description, sets of arguments; all arguments of at
            least one of the sets are needed.
    """

    alternatives: tuple[tuple[frozenset[str], ...], ...] = ()

    def validate(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """See ``Tool.validate``."""
        validated = super().validate(arguments)
        passed_arguments = {
            name: value for name, value in validated.items() if value is not OMITTED
        }
        for sets in self.alternatives:
            if not any(names <= passed_arguments.keys() for names in sets):
                ways = ", or ".join(" and ".join(map(repr, sorted(names))) for names in sets)
                raise ToolError(f"{self.name} needs {ways}", hint=self.signature())
        return passed_arguments


def foreign_tool(
    name: str,
    function: Callable[..., Any],
    *,
    description: str,
    parameters_schema: Mapping[str, Any],
    return_schema: Mapping[str, Any] | None = None,
    is_async: bool = True,
    effect: Effect = "write",
    origin: str = "",
    timeout: float | None = None,
) -> Tool:
    """A tool from its description.

    Args:
        name: the name by its owner; characters that plans cannot write become ``_``.
        function: called with the plan's arguments, by name.
        description: for planners; its line breaks become spaces.
        parameters_schema: a JSON schema of type ``object``.
        return_schema: JSON schema of the result; ``None`` if it is not known.
        is_async: True if ``function`` returns an awaitable.
        effect: ``write`` unless it is known that a call changes nothing.
        origin: the source of a description from outside the program; else empty.
        timeout: seconds that one attempt may take.
    """
    original = [description, {"properties": {}, **parameters_schema}, return_schema, effect]
    schema, alternatives = _join_choices({"properties": {}, **_without_nulls(parameters_schema)})
    usable = usable_name(name)
    return ForeignTool(
        name=usable,
        description=" ".join(description.split()),
        function=function,
        parameters=model_of(usable, schema),
        parameters_schema=schema,
        return_schema=_without_nulls(return_schema) if return_schema else None,
        is_async=is_async,
        effect=effect,
        timeout=timeout,
        version=fingerprint(original),
        origin=origin,
        alternatives=alternatives,
    )


def _join_choices(root: Schema) -> tuple[Schema, tuple[tuple[frozenset[str], ...], ...]]:
    """A description whose arguments all stand in ``properties``, not in choices beside them.

    An argument that only some of the choices require is optional.

    Args:
        root: the schema of all arguments.

    Returns:
        The schema without ``allOf``, ``anyOf`` and ``oneOf`` at its top, and for each ``anyOf`` or
        ``oneOf`` the arguments that each choice requires.
    """
    properties: dict[str, list[Any]] = {}
    alternatives: list[tuple[frozenset[str], ...]] = []
    further: list[Any] = []

    def add(schema: Any, above: tuple[str, ...], is_chosen: bool) -> frozenset[str]:
        """Add the arguments of a schema; returns those that it requires.

        Args:
            schema: the root, or a part of it.
            above: references that lead to it.
            is_chosen: True if the schema is one choice of several, so that it need not hold.
        """
        while isinstance(schema, Mapping) and isinstance(target := schema.get("$ref"), str):
            if target in above:
                return frozenset()
            above, schema = (*above, target), _resolve(target, root)
        if not isinstance(schema, Mapping):
            return frozenset()
        for name, subschema in schema.get("properties", {}).items():
            schemas = properties.setdefault(name, [])
            if subschema not in schemas:
                schemas.append(subschema)
        if "additionalProperties" in schema:
            further.append(schema["additionalProperties"])
        required_names = frozenset(schema.get("required", ()))
        for part in schema.get("allOf", ()):
            required_names |= add(part, above, is_chosen)
        for union in ("anyOf", "oneOf"):
            if choices := [add(part, above, True) for part in schema.get(union, ())]:
                common = frozenset.intersection(*choices)
                required_names |= common
                if all(choice - common for choice in choices) and not is_chosen:
                    alternatives.append(tuple(dict.fromkeys(choices)))
        return required_names

    if not any(root.get(keyword) for keyword in ("allOf", "anyOf", "oneOf", "$ref")):
        return root, ()
    required_names = add(root, (), False)
    schema = {key: value for key, value in root.items() if key not in _JOINED}
    schema["properties"] = {
        name: schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
        for name, schemas in properties.items()
    }
    schema["required"] = [name for name in properties if name in required_names]
    if further and "additionalProperties" not in root and any(further):
        schema["additionalProperties"] = True
    known_names = properties.keys()
    return schema, tuple(tuple(names & known_names for names in sets) for sets in alternatives)


_JOINED = ("allOf", "anyOf", "oneOf", "$ref")
_SUBSCHEMAS = ("properties", "$defs", "definitions", "patternProperties")
_VALUES = ("const", "default", "enum", "examples")
_CHOICES = ("enum", "anyOf", "oneOf", "allOf")


def _without_nulls(schema: Any) -> Any:
    """The schema without the nulls and empty choices that serializers write for absent entries."""
    if isinstance(schema, list):
        return [_without_nulls(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    out: Schema = {}
    for key, inner in schema.items():
        if key in _SUBSCHEMAS and isinstance(inner, Mapping):
            out[key] = {name: _without_nulls(subschema) for name, subschema in inner.items()}
        elif key in _CHOICES and not inner:
            continue
        elif inner is not None or key in ("const", "default"):
            out[key] = inner if key in _VALUES else _without_nulls(inner)
    return out


def fingerprint(data: Any) -> str:
    """A hash of JSON data."""
    text = json.dumps(data, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def usable_name(name: str) -> str:
    """A name that plans can write: letters, digits, ``_``, ``-`` and ``.``, no digit first."""
    usable = _UNFIT.sub("_", name)
    return usable if re.match(r"[^\W\d]", usable) and usable != "join" else f"tool_{usable}"


def model_of(name: str, schema: Schema) -> type[BaseModel]:
    """A model of the arguments that a JSON schema describes; it converts as pydantic's lax mode.

    The model checks types, choices and lists. The owner of the tool checks bounds, patterns and the
    content of objects.
    """
    required = set(schema.get("required", ()))
    fields: dict[str, Any] = {}
    for number, (parameter, subschema) in enumerate(schema.get("properties", {}).items()):
        default = ... if parameter in required else OMITTED
        # Names of parameters may be impossible as names of fields in Python or pydantic.
        fields[f"argument_{number}"] = (
            _type(subschema, schema, ()),
            Field(default, alias=parameter),
        )
    further = schema.get("additionalProperties")
    if further is None or further is False:
        config = ConfigDict(extra="forbid", protected_namespaces=())
        model: type[BaseModel] = create_model(name, __config__=config, **fields)
        return model
    # Arguments that the description does not name are allowed, of one type.
    further_type: Any = _type(further, schema, ())
    members = {
        "__module__": __name__,
        "__annotations__": {"__pydantic_extra__": dict[str, further_type]},
        "model_config": ConfigDict(extra="allow", protected_namespaces=()),
    }
    open_model: type[BaseModel] = create_model(
        name, __base__=type(name, (BaseModel,), members), **fields
    )
    return open_model


def _type(schema: Any, root: Schema, above: tuple[str, ...]) -> Any:
    """A Python type that accepts at least the values that the schema accepts."""
    if not isinstance(schema, Mapping):
        return Any
    if isinstance(target := schema.get("$ref"), str):
        subschema = None if target in above else _resolve(target, root)
        return _type(subschema, root, (*above, target))
    choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if choices and all(isinstance(choice, str | int | bool | None) for choice in choices):
        return Literal[tuple(choices)]
    for union in ("anyOf", "oneOf"):
        if schema.get(union):
            return _union([_type(subschema, root, above) for subschema in schema[union]])
    kind = schema.get("type")
    if isinstance(kind, list):
        return _union([_type({**schema, "type": name}, root, above) for name in kind])
    if kind == "array":
        return list[_type(schema.get("items"), root, above)]  # type: ignore[misc]
    return _SCALARS.get(str(kind), Any)


def _union(types: list[Any]) -> Any:
    return Any if not types or Any in types else Union[tuple(types)]  # noqa: UP007


def _resolve(target: str, root: Any) -> Any:
    """The schema to which a local ``$ref`` points; ``None`` if there is none."""
    if not target.startswith("#"):
        return None
    for part in target.removeprefix("#").strip("/").split("/"):
        if part and not isinstance(root, Mapping):
            return None
        root = root.get(part.replace("~1", "/").replace("~0", "~")) if part else root
    return root

"""Tools that others describe: a name, a text and a JSON schema instead of a Python function.

MCP servers and other frameworks hand over such descriptions. Here they become ``Tool``s, and the
rest of the package sees no difference. Where a description comes from outside the program, its
``origin`` says from where, and its ``version`` is a hash of all that was said, so that a change is
noticed (``llmcompiler.pins``). The module must not know any protocol or framework.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, create_model

from llmcompiler.tools.base import Effect, Tool
from llmcompiler.tools.schema import Schema

OMITTED: Any = type("Omitted", (), {"__repr__": lambda self: "OMITTED"})()
"""Stands for an optional argument that a plan does not give: whoever is called has the default."""

_UNFIT = re.compile(r"[^\w.\-]")
_SCALARS: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "null": None,
    "object": dict[str, Any],
}


class ForeignTool(Tool):
    """A tool that gets only the arguments which were given."""

    def validate(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """See ``Tool.validate``."""
        bound = super().validate(given)
        return {name: value for name, value in bound.items() if value is not OMITTED}


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
        name: as its owner calls it; what plans cannot write becomes ``_``.
        function: called with the arguments that were given, by name.
        description: for planners; cut to one paragraph.
        parameters_schema: a JSON schema of type ``object``.
        return_schema: of the result; ``None`` where it is not known.
        is_async: whether ``function`` gives an awaitable.
        effect: ``write`` unless it is known that a call changes nothing.
        origin: where the description comes from, if not from the program itself.
        timeout: seconds that one attempt may take.
    """
    said = [description, {"properties": {}, **parameters_schema}, return_schema, effect]
    schema = {"properties": {}, **_tidied(parameters_schema)}
    usable = usable_name(name)
    return ForeignTool(
        name=usable,
        description=" ".join(description.split()),
        function=function,
        parameters=model_of(usable, schema),
        parameters_schema=schema,
        return_schema=_tidied(return_schema) if return_schema else None,
        is_async=is_async,
        effect=effect,
        timeout=timeout,
        version=fingerprint(said),
        origin=origin,
    )


_SUBSCHEMAS = ("properties", "$defs", "definitions", "patternProperties")
_VALUES = ("const", "default", "enum", "examples")
_CHOICES = ("enum", "anyOf", "oneOf", "allOf")


def _tidied(schema: Any) -> Any:
    """The schema without nulls and empty choices, as serializers write what is not there."""
    if isinstance(schema, list):
        return [_tidied(one) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    out: Schema = {}
    for key, inner in schema.items():
        if key in _SUBSCHEMAS and isinstance(inner, Mapping):
            out[key] = {name: _tidied(one) for name, one in inner.items()}
        elif key in _CHOICES and not inner:
            continue
        elif inner is not None or key in ("const", "default"):
            out[key] = inner if key in _VALUES else _tidied(inner)
    return out


def fingerprint(said: Any) -> str:
    """A hash of JSON data."""
    text = json.dumps(said, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def usable_name(name: str) -> str:
    """A name that plans can write: letters, digits, ``_``, ``-`` and ``.``, no digit first."""
    usable = _UNFIT.sub("_", name)
    return usable if re.match(r"[^\W\d]", usable) and usable != "join" else f"tool_{usable}"


def model_of(name: str, schema: Schema) -> type[BaseModel]:
    """A model of arguments that a JSON schema describes, converting as pydantic's lax mode does.

    It knows types, choices and lists. Bounds, patterns and what is inside objects are left to
    whoever is called, who knows them best.
    """
    required = set(schema.get("required", ()))
    fields: dict[str, Any] = {}
    for number, (parameter, described) in enumerate(schema.get("properties", {}).items()):
        default = ... if parameter in required else OMITTED
        # Parameters may be called what Python, or pydantic, cannot call a field.
        fields[f"argument_{number}"] = (
            _type(described, schema, ()),
            Field(default, alias=parameter),
        )
    model: type[BaseModel] = create_model(
        name, __config__=ConfigDict(extra="forbid", protected_namespaces=()), **fields
    )
    return model


def _type(schema: Any, root: Schema, above: tuple[str, ...]) -> Any:
    """A Python type that takes at least what the schema takes."""
    if not isinstance(schema, Mapping):
        return Any
    if isinstance(target := schema.get("$ref"), str):
        found = None if target in above else _referred(target, root)
        return _type(found, root, (*above, target))
    choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if choices and all(isinstance(one, str | int | bool | None) for one in choices):
        return Literal[tuple(choices)]
    for union in ("anyOf", "oneOf"):
        if schema.get(union):
            return _union([_type(one, root, above) for one in schema[union]])
    kind = schema.get("type")
    if isinstance(kind, list):
        return _union([_type({**schema, "type": one}, root, above) for one in kind])
    if kind == "array":
        return list[_type(schema.get("items"), root, above)]  # type: ignore[misc]
    return _SCALARS.get(str(kind), Any)


def _union(types: list[Any]) -> Any:
    return Any if not types or Any in types else Union[tuple(types)]  # noqa: UP007


def _referred(target: str, root: Any) -> Any:
    """What a local ``$ref`` points to; ``None`` where that is not there."""
    if not target.startswith("#"):
        return None
    for part in target.removeprefix("#").strip("/").split("/"):
        if part and not isinstance(root, Mapping):
            return None
        root = root.get(part.replace("~1", "/").replace("~0", "~")) if part else root
    return root

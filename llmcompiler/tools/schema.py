"""Schemas of a function's arguments and result, and the one line of them that a planner reads."""

from __future__ import annotations

import collections.abc
import inspect
import json
import sys
import typing
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, create_model
from pydantic.errors import PydanticUserError
from pydantic.json_schema import GenerateJsonSchema

from llmcompiler.errors import UsageError

Schema = dict[str, Any]


@dataclass(frozen=True)
class Signature:
    """The types of a function's arguments and result.

    Attributes:
        parameters: a model with one field for each parameter, in order; it refuses unknown fields.
        parameters_schema: JSON schema of the model, properties in the order of the parameters.
        return_schema: JSON schema of the result; ``None`` if the function has no type hint for it.
    """

    parameters: type[BaseModel]
    parameters_schema: Schema
    return_schema: Schema | None


class _Plain(GenerateJsonSchema):
    """Generates schemas as planners and checks need them."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        # A title only repeats the field's name, and costs prompt tokens.
        return False

    def field_is_required(self, field: Any, total: bool) -> bool:
        # In a result, defaults are filled in; only a key of a TypedDict may be missing.
        if self.mode == "serialization" and field["type"] != "typed-dict-field":
            return True
        return super().field_is_required(field, total)


def read_signature(
    function: Callable[..., Any], name: str, descriptions: Mapping[str, str], *, method: bool
) -> Signature:
    """The schemas of a function.

    Args:
        function: the function.
        name: the tool's name, for error messages.
        descriptions: parameter name -> description.
        method: True if the first parameter is the instance, which no caller gives.

    Raises:
        UsageError: the function cannot be a tool; the message names the parameter at fault.
    """
    hints = _type_hints(function, name)
    parameters = list(inspect.signature(function).parameters.values())[1 if method else 0 :]
    fields: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**"
            raise UsageError(
                f"tool {name!r} has a parameter {stars}{parameter.name}, so that nobody can say "
                "what it takes",
                hint="give every parameter a name and a type; take a list or a dict instead",
            )
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise UsageError(
                f"tool {name!r} has a positional-only parameter {parameter.name!r}",
                hint="tools are called with keyword arguments; wrap it in a function of your own",
            )
        annotation = hints.get(parameter.name, Any)
        default = ... if parameter.default is parameter.empty else parameter.default
        if default is None:
            annotation = _or_none(annotation)
        # A tool's parameter may have a name that pydantic reserves.
        is_reserved = hasattr(BaseModel, parameter.name) or parameter.name.startswith("_")
        field_name = f"arg_{parameter.name.strip('_')}" if is_reserved else parameter.name
        options: dict[str, Any] = {"alias": parameter.name} if is_reserved else {}
        if parameter.name in descriptions:
            options["description"] = descriptions[parameter.name]
        if options:
            # A default such as ``Field(gt=0)`` has options of its own, which these join.
            annotation = typing.Annotated[annotation, Field(**options)]
        fields[field_name] = (annotation, default)
    try:
        model: type[BaseModel] = create_model(
            name,
            __config__=ConfigDict(extra="forbid", protected_namespaces=()),
            **fields,
        )
        schema = _json_schema(TypeAdapter(model), "validation")
    except PydanticUserError as error:
        raise _unusable(name, "a parameter", error) from error
    schema.pop("title", None)
    schema.setdefault("properties", {})
    result = _result_type(hints.get("return", Any))
    try:
        return_schema = (
            None if result is Any else _json_schema(TypeAdapter(result), "serialization")
        )
    except PydanticUserError as error:
        raise _unusable(name, "its return type", error) from error
    for part, checked in (("a parameter", schema), ("its return type", return_schema)):
        if _has_bytes(checked):
            raise UsageError(
                f"tool {name!r}: {part} is bytes, which JSON does not have",
                hint="use a str, such as a path or Base64 text (pydantic.Base64Bytes)",
            )
    return Signature(model, schema, return_schema or None)


def _or_none(annotation: Any) -> Any:
    """The type, or ``None``; what its author said of it stays outermost, where it is found."""
    if typing.get_origin(annotation) is typing.Annotated:
        base, *metadata = typing.get_args(annotation)
        return typing.Annotated[(typing.Optional[base], *metadata)]  # noqa: UP045
    return typing.Optional[annotation]  # noqa: UP045 - it may be any type form


_LISTED = (
    collections.abc.Iterator,
    collections.abc.Generator,
    collections.abc.AsyncIterator,
    collections.abc.AsyncIterable,
    collections.abc.AsyncGenerator,
)


def _result_type(hint: Any) -> Any:
    """The type of a call's result: what is awaited or yielded stands inside the declared type."""
    origin, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin is collections.abc.Awaitable or origin is collections.abc.Coroutine:
        return _result_type(inner[-1]) if inner else Any
    if origin in _LISTED:
        return list[inner[0]] if inner else list[Any]  # type: ignore[valid-type]
    return hint


def _has_bytes(schema: Any) -> bool:
    """True if raw bytes stand anywhere in a generated schema."""
    if isinstance(schema, list):
        return any(map(_has_bytes, schema))
    if not isinstance(schema, dict):
        return False
    is_bytes = schema.get("type") == "string" and schema.get("format") == "binary"
    return is_bytes or any(map(_has_bytes, schema.values()))


def _json_schema(
    adapter: TypeAdapter[Any], mode: typing.Literal["validation", "serialization"]
) -> Schema:
    with warnings.catch_warnings():
        # The schema leaves out a default that JSON cannot hold, with a warning.
        warnings.simplefilter("ignore")
        return adapter.json_schema(mode=mode, schema_generator=_Plain)


def _unusable(name: str, part: str, error: Exception) -> UsageError:
    return UsageError(
        f"tool {name!r}: {part} has a type that cannot be JSON: {str(error).splitlines()[0]}",
        hint="use str, int, float, bool, lists, dicts, dataclasses, TypedDicts "
        "(typing_extensions.TypedDict before Python 3.12) or pydantic models",
    )


def _type_hints(function: Callable[..., Any], name: str) -> dict[str, Any]:
    target = inspect.unwrap(function)
    while hasattr(target, "func"):
        target = target.func
    if not inspect.isroutine(target):
        target = type(target).__call__
    try:
        return typing.get_type_hints(target, localns=_callers_names(), include_extras=True)
    except NameError as error:
        raise UsageError(
            f"tool {name!r}: its annotations name {error.name!r}, which is not defined",
            hint="define or import it at the top of the module",
        ) from error
    except TypeError as error:
        raise UsageError(f"tool {name!r}: its annotations cannot be read: {error}") from error


def _callers_names() -> dict[str, Any]:
    """Local names where the tool is defined, for types that are defined inside a function."""
    frame = sys._getframe()
    while frame.f_back and str(frame.f_globals.get("__name__")).startswith("llmcompiler.tools."):
        frame = frame.f_back
    return dict(frame.f_locals) if frame.f_locals is not frame.f_globals else {}


_PLAIN = {
    "string": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "null": "None",
    "array": "list",
    "object": "dict",
}


def type_text(
    schema: Any, root: Mapping[str, Any] | None = None, within: tuple[str, ...] = ()
) -> str:
    """A JSON schema in the words of Python's type hints: ``{name: str, tags: list[str]}``.

    Args:
        schema: the schema of one value.
        root: the schema that has the ``$defs``; by default the schema itself.
        within: references that enclose this one; a type inside itself is only named.
    """
    if not isinstance(schema, Mapping) or not schema:
        return "any"
    root = schema if root is None else root
    if "$ref" in schema:
        reference = str(schema["$ref"])
        label = reference.rsplit("/", 1)[-1]
        target = root.get("$defs", {}).get(label)
        if reference in within or target is None:
            return label
        return type_text(target, root, (*within, reference))
    if "const" in schema:
        return _literal(schema["const"])
    if "enum" in schema:
        return " | ".join(_literal(value) for value in schema["enum"])
    for union in ("anyOf", "oneOf"):
        if union in schema:
            texts = [type_text(choice, root, within) for choice in schema[union]]
            return " | ".join(dict.fromkeys(texts))
    if "allOf" in schema and len(schema["allOf"]) == 1:
        return type_text(schema["allOf"][0], root, within)
    kind = schema.get("type")
    if isinstance(kind, list):
        return " | ".join(_PLAIN.get(name, "any") for name in kind)
    if kind == "array":
        if "prefixItems" in schema:
            inner = ", ".join(type_text(item, root, within) for item in schema["prefixItems"])
            return f"tuple[{inner}]"
        items = schema.get("items")
        return f"list[{type_text(items, root, within)}]" if items else "list"
    if kind == "object" or "properties" in schema:
        if properties := schema.get("properties"):
            required = schema.get("required", properties)
            inner = ", ".join(
                f"{key}{'' if key in required else '?'}: {type_text(value, root, within)}"
                for key, value in properties.items()
            )
            return f"{{{inner}}}"
        values = schema.get("additionalProperties")
        return (
            f"dict[str, {type_text(values, root, within)}]"
            if isinstance(values, Mapping) and values
            else "dict"
        )
    return _PLAIN.get(str(kind), "any")


def _literal(value: Any) -> str:
    return (
        repr(value)
        if value is None or isinstance(value, bool)
        else json.dumps(value, ensure_ascii=False)
    )


def signature_text(name: str, parameters: Schema, result: Schema | None) -> str:
    """``name(parameter: type = default) -> type``, as a planner's prompt shows a tool."""
    required = parameters.get("required", ())
    texts = []
    for parameter, schema in parameters.get("properties", {}).items():
        text = type_text(schema, parameters)
        if parameter not in required:
            default = schema.get("default") if isinstance(schema, Mapping) else None
            if default is None:
                text = text.removesuffix(" | None")
            text += f" = {_literal(default)}"
        texts.append(f"{parameter}: {text}")
    arrow = f" -> {type_text(result)}" if result is not None else ""
    return f"{name}({', '.join(texts)}){arrow}"

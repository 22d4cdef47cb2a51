"""Types, which are JSON schemas: whether a value or another type fits, and the types of parts.

The keywords that pydantic writes are understood: types, choices, unions, references to definitions,
fields, items, bounds, forms of text. A value that pydantic's lax mode would convert fits. Other
keywords constrain nothing.
"""

from __future__ import annotations

import functools
import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic_core import SchemaError, SchemaValidator, ValidationError, core_schema

from llmcompiler.plan.diagnostics import did_you_mean
from llmcompiler.plan.expressions import STAR, Segment

_MAX_DEPTH = 8
"""How many levels of types inside types are compared; deeper types count as fitting."""

_FIELD_DEPTH = 4
"""How many levels a step into a field counts, as types with many fields have many types inside."""

ALL_TYPES = frozenset({"string", "number", "integer", "boolean", "null", "array", "object"})
_TRUTHS = {"true", "false", "yes", "no", "on", "off", "y", "n", "t", "f", "1", "0"}
_NUMERIC = re.compile(
    r"\s*[-+]?(?:(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?|inf|infinity|nan)\s*", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class SchemaType:
    """A type.

    Attributes:
        schema: the type's JSON schema.
        root: the schema around it, in which references (``$ref``) are looked up.
    """

    schema: Any
    root: Mapping[str, Any]

    def resolve(self) -> SchemaType:
        """The type that a ``$ref`` leads to; a type without constraints if it leads nowplain."""
        schema: Any = self.schema
        for _ in range(32):
            if not isinstance(schema, dict) or not isinstance(schema.get("$ref"), str):
                break
            target = resolve_pointer(schema["$ref"], self.root)
            siblings = {key: value for key, value in schema.items() if key != "$ref"}
            schema = (
                {**target, **siblings} if isinstance(target, dict) and target is not schema else {}
            )
        return SchemaType(schema if isinstance(schema, dict) else {}, self.root)

    def alternatives(self, depth: int = 0) -> Iterator[SchemaType]:
        """The alternatives of a union, nested unions flattened; for any other type, the type.

        Constraints beside the union are in each alternative. A union inside itself is followed to a
        limited depth.
        """
        plain = self.resolve()
        if depth > _MAX_DEPTH:
            return
        choices = plain.schema.get("anyOf") or plain.schema.get("oneOf")
        if isinstance(choices, list):
            beside = {key: v for key, v in plain.schema.items() if key not in _UNION_KEYS}
            for choice in choices:
                inner = SchemaType(choice, plain.root).resolve().schema
                yield from SchemaType(_combine(beside, inner), plain.root).alternatives(depth + 1)
            return
        parts = plain.schema.get("allOf")
        if isinstance(parts, list) and len(parts) == 1 and isinstance(parts[0], dict):
            combined = _combine(plain.schema, parts[0])
            yield from SchemaType({**combined, "allOf": None}, plain.root).alternatives(depth + 1)
            return
        kind = plain.schema.get("type")
        if isinstance(kind, list):
            for name in kind:
                yield SchemaType({**plain.schema, "type": name}, plain.root)
            return
        yield plain

    def fields(self) -> list[str]:
        """Names of the fields that the type declares, in any alternative."""
        names: dict[str, None] = {}
        for branch in self.alternatives():
            names.update(dict.fromkeys(branch.schema.get("properties", {})))
        return list(names)


_UNION_KEYS = frozenset({"anyOf", "oneOf", "$defs", "definitions"})


def _combine(outer: Mapping[str, Any], inner: Mapping[str, Any]) -> dict[str, Any]:
    """One schema with the constraints of both; of a keyword in both, the inner schema's counts."""
    out = {**outer, **inner}
    if "properties" in outer and "properties" in inner:
        out["properties"] = {**outer["properties"], **inner["properties"]}
    if "required" in outer and "required" in inner:
        out["required"] = list(dict.fromkeys((*outer["required"], *inner["required"])))
    return out


def resolve_pointer(ref: str, root: Any) -> Any:
    """The part of a schema to which a local ``$ref`` points (RFC 6901), or ``None``."""
    target = root
    for part in ref.removeprefix("#").strip("/").split("/"):
        if not part:
            continue
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(target, list) and name.isdecimal() and int(name) < len(target):
            target = target[int(name)]
        else:
            target = target.get(name) if isinstance(target, dict) else None
    return target


def json_types(typed: SchemaType) -> frozenset[str]:
    """The JSON types that values can have."""
    return frozenset().union(*map(_branch_types, typed.alternatives()))


def _branch_types(branch: SchemaType) -> frozenset[str]:
    schema = branch.schema
    if "const" in schema:
        return frozenset({_type_name(schema["const"])})
    if isinstance(schema.get("enum"), list):
        return frozenset(map(_type_name, schema["enum"]))
    if isinstance(kind := schema.get("type"), str):
        return frozenset({kind})
    if "properties" in schema:
        return frozenset({"object"})
    return ALL_TYPES


def _type_name(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list() | tuple():
            return "array"
    return "object"


# Parts.


def part_type(typed: SchemaType, segment: Segment) -> SchemaType | None:
    """The type of a field, an element, or all elements (``STAR``) of a type's values.

    Returns:
        A type without constraints where the schema is silent; ``None`` if no alternative has such a
        part.
    """
    parts = [
        part
        for branch in typed.alternatives()
        if (part := _branch_part(branch, segment)) is not None
    ]
    if not parts:
        return None
    return (
        parts[0]
        if len(parts) == 1
        else SchemaType({"anyOf": [p.schema for p in parts]}, typed.root)
    )


def _branch_part(branch: SchemaType, segment: Segment) -> SchemaType | None:
    schema, root = branch.schema, branch.root
    kinds = _branch_types(branch)
    if isinstance(segment, str):
        if "object" not in kinds:
            return None
        properties = schema.get("properties", {})
        if segment in properties:
            return SchemaType(properties[segment], root)
        additional = schema.get("additionalProperties")
        if isinstance(additional, dict):
            return SchemaType(additional, root)
        is_closed = additional is False or (properties and additional is None)
        return None if is_closed else SchemaType({}, root)
    if "array" not in kinds:
        may_be_key = segment is not STAR and "object" in kinds
        return _branch_part(branch, str(segment)) if may_be_key else None
    prefix = schema.get("prefixItems")
    items = schema.get("items")
    if isinstance(prefix, list):
        if segment is STAR:
            further_items = [items] if isinstance(items, dict) else []
            return SchemaType({"anyOf": [*prefix, *further_items]}, root)
        assert isinstance(segment, int)
        if -len(prefix) <= segment < len(prefix) and fixed_length(branch) == len(prefix):
            return SchemaType(prefix[segment], root)
        if 0 <= segment < len(prefix):
            return SchemaType(prefix[segment], root)
        if fixed_length(branch) is not None:
            return None
    return SchemaType(items if isinstance(items, dict) else {}, root)


def fixed_length(typed: SchemaType) -> int | None:
    """How many items every list of the type has; ``None`` if the length may vary."""
    lengths: set[int | None] = set()
    for branch in typed.alternatives():
        least, most = branch.schema.get("minItems"), branch.schema.get("maxItems")
        lengths.add(least if least is not None and least == most else None)
    return lengths.pop() if len(lengths) == 1 else None


# Passing one type as another.


def fits(source: SchemaType, target: SchemaType, depth: int = 0) -> bool | None:
    """Whether values of the source type can be passed where the target type is expected.

    Args:
        source: the type of the values.
        target: the type that is expected.
        depth: how many levels of types were compared already.

    Returns:
        False if no value can, ``None`` if only text of a certain form can, True if some or all can.
    """
    if depth > _MAX_DEPTH:
        return True
    verdicts = {
        _branch_fits(source_branch, target_branch, depth)
        for source_branch in _without_null(source)
        for target_branch in target.alternatives()
    }
    return True if True in verdicts else None if None in verdicts else False


def _without_null(typed: SchemaType) -> list[SchemaType]:
    branches = list(typed.alternatives())
    return [branch for branch in branches if branch.schema.get("type") != "null"] or branches


_LAX_CONVERSIONS = {
    ("integer", "number"),
    ("number", "integer"),
    ("boolean", "number"),
    ("boolean", "integer"),
    ("integer", "boolean"),
    ("number", "boolean"),
}


def _branch_fits(source: SchemaType, target: SchemaType, depth: int) -> bool | None:
    is_text_converted = False
    choices = _choices(source)
    if choices is not None:
        return any(misfit(choice, target) is None for choice in choices)
    for kind in _branch_types(source):
        for target_kind in _branch_types(target):
            if kind == target_kind:
                if _parts_fit(kind, source, target, depth) is not False:
                    return True
            elif (kind, target_kind) in _LAX_CONVERSIONS:
                return True
            elif kind == "string" and target_kind in ("number", "integer", "boolean"):
                is_text_converted = True
            elif (
                kind in ("number", "integer")
                and target_kind == "string"
                and "format" in target.schema
            ):
                return True
    return None if is_text_converted else False


def _choices(typed: SchemaType) -> list[Any] | None:
    if "const" in typed.schema:
        return [typed.schema["const"]]
    choices = typed.schema.get("enum")
    return choices if isinstance(choices, list) else None


def _parts_fit(kind: str, source: SchemaType, target: SchemaType, depth: int) -> bool | None:
    if kind == "array":
        return _schema_fits("items", source, target, depth + 1)
    if kind == "object":
        required, certain = target.schema.get("required", ()), source.schema.get("required", ())
        for name in dict.fromkeys((*required, *certain)):
            field, target_field = part_type(source, name), part_type(target, name)
            if field is None:
                if name in required:
                    return False
            elif (
                target_field is not None
                and fits(field, target_field, depth + _FIELD_DEPTH) is False
            ):
                return False
        return _schema_fits("additionalProperties", source, target, depth + _FIELD_DEPTH)
    return True


def _schema_fits(keyword: str, source: SchemaType, target: SchemaType, depth: int) -> bool | None:
    inner, target_inner = source.schema.get(keyword), target.schema.get(keyword)
    if isinstance(inner, dict) and isinstance(target_inner, dict):
        return fits(SchemaType(inner, source.root), SchemaType(target_inner, target.root), depth)
    return True


# Values.


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why a value does not fit.

    Attributes:
        path: the way from the argument to the part at fault; empty for the argument itself.
        message: what is wrong; reads on from the argument's name and the path.
        expected: what would fit.
        hint: what to do about it.
    """

    path: str
    message: str
    expected: str = ""
    hint: str = ""


def misfit(value: Any, target: SchemaType, path: str = "") -> Misfit | None:
    """Why a value does not fit a type; ``None`` if it fits."""
    problems: list[Misfit] = []
    for branch in target.alternatives():
        problem = _branch_misfit(value, branch, path)
        if problem is None:
            return None
        problems.append(problem)
    # Of a union's alternatives, the one that fits up to the deepest part was meant, unless all fail
    # at the start.
    deepest = max(problems, key=lambda problem: len(problem.path), default=None)
    if deepest is not None and (len(problems) == 1 or len(deepest.path) > len(path)):
        return deepest
    return Misfit(path, f"cannot be {short_json(value)}", expected_text(target))


def _branch_misfit(value: Any, branch: SchemaType, path: str) -> Misfit | None:
    schema = branch.schema
    choices = _choices(branch)
    if choices is not None:
        # Python and pydantic take True for 1, and so does ==; text is never a number.
        if any(value == choice for choice in choices):
            return None
        texts = [choice for choice in choices if isinstance(choice, str)]
        hint = did_you_mean(value, texts) if isinstance(value, str) else ""
        return Misfit(path, f"cannot be {short_json(value)}", expected_text(branch), hint)
    kinds = _branch_types(branch)
    kind = _type_name(value)
    if kind not in kinds and not _converts(value, kind, kinds, schema):
        return Misfit(path, f"cannot be {short_json(value)}", expected_text(branch))
    if isinstance(value, list | tuple):
        return _list_misfit(list(value), branch, path)
    if isinstance(value, dict):
        return _dict_misfit(value, branch, path)
    return _out_of_bounds(value, branch, path)


def _converts(value: Any, kind: str, kinds: frozenset[str], schema: Mapping[str, Any]) -> bool:
    """True if pydantic's lax mode converts the value to one of the types."""
    match kind:
        case "string":
            if kinds & {"number", "integer"} and _NUMERIC.fullmatch(value):
                return True
            return "boolean" in kinds and value.lower() in _TRUTHS
        case "integer":
            return (
                "number" in kinds
                or ("boolean" in kinds and value in (0, 1))
                or ("string" in kinds and "format" in schema)
            )
        case "number":
            is_whole = value == int(value) if abs(value) < 2**63 else True
            return (
                ("integer" in kinds and is_whole)
                or ("boolean" in kinds and value in (0, 1))
                or ("string" in kinds and "format" in schema)
            )
        case "boolean":
            return bool(kinds & {"number", "integer"}) or schema.get("format") == "duration"
    return False


def _list_misfit(value: list[Any], branch: SchemaType, path: str) -> Misfit | None:
    schema = branch.schema
    least, most = schema.get("minItems"), schema.get("maxItems")
    if least is not None and len(value) < least:
        return Misfit(path, f"has {len(value)} items, and needs {least}")
    if most is not None and len(value) > most:
        return Misfit(path, f"has {len(value)} items, and takes {most} at most")
    for number, item in enumerate(value):
        item_type = part_type(branch, number)
        if item_type is None:
            continue
        if problem := misfit(item, item_type, f"{path}[{number}]"):
            return problem
    return None


def _dict_misfit(value: Mapping[str, Any], branch: SchemaType, path: str) -> Misfit | None:
    fields = list(branch.schema.get("properties", {}))
    for key, item in value.items():
        field_type = part_type(branch, key)
        if field_type is None:
            if branch.schema.get("additionalProperties") is not False:
                continue
            hint = did_you_mean(key, fields)
            return Misfit(path, f"has no field {key!r}", ", ".join(fields), hint)
        if problem := misfit(item, field_type, f"{path}.{key}"):
            return problem
    for key in branch.schema.get("required", ()):
        if key not in value:
            return Misfit(path, f"lacks the field {key!r}", expected_text(branch))
    return None


_Bound: TypeAlias = tuple[Callable[[float, float], bool], str]
_BOUNDS: dict[str, _Bound] = {
    "minimum": (operator.ge, "at least"),
    "maximum": (operator.le, "at most"),
    "exclusiveMinimum": (operator.gt, "more than"),
    "exclusiveMaximum": (operator.lt, "less than"),
}


def _out_of_bounds(value: Any, branch: SchemaType, path: str) -> Misfit | None:
    schema = branch.schema
    if isinstance(value, str):
        least, most = schema.get("minLength"), schema.get("maxLength")
        if least is not None and len(value) < least:
            return Misfit(path, f"cannot be {short_json(value)}", f"at least {least} characters")
        if most is not None and len(value) > most:
            return Misfit(path, f"cannot be {short_json(value)}", f"at most {most} characters")
        if "string" in _branch_types(branch) and (expected := _expected_form(value, schema)):
            return Misfit(path, f"cannot be {short_json(value)}", expected)
        try:
            value = float(value)
        except ValueError:
            return None
        if schema.get("type") == "string":
            return None
    if isinstance(value, int | float):
        for keyword, (compare, words) in _BOUNDS.items():
            bound = schema.get(keyword)
            if isinstance(bound, int | float) and not compare(value, bound):
                return Misfit(path, f"cannot be {short_json(value)}", f"{words} {bound}")
        factor = schema.get("multipleOf")
        if isinstance(factor, int | float) and factor > 0 and not _is_multiple(value, factor):
            return Misfit(path, f"cannot be {short_json(value)}", f"a multiple of {factor}")
    return None


def _is_multiple(value: float, factor: float) -> bool:
    if isinstance(value, int) and isinstance(factor, int):
        return value % factor == 0
    if not abs(value) <= 2**63:  # NaN included
        return True
    remainder = value % factor
    # Floats are inexact: 0.1 + 0.2 is no exact multiple of 0.1.
    return min(remainder, factor - remainder) <= abs(value) / 1e9


# Forms of text.


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
"""By a schema's ``format``: what pydantic takes for it, and the format in words."""


def _format_text(schema: Mapping[str, Any]) -> str:
    """The schema's format in words; empty if it has none or an unknown one."""
    entry = _FORMATS.get(str(schema.get("format")))
    return entry[1] if entry is not None else ""


def _expected_form(text: str, schema: Mapping[str, Any]) -> str:
    """The form that a text should have and has not, in words; empty if the text has it."""
    entry = _FORMATS.get(str(schema.get("format")))
    if entry is not None and not _is_valid(entry[0], text):
        return entry[1]
    pattern = schema.get("pattern")
    if isinstance(pattern, str) and (matcher := _matcher(pattern)) and not _is_valid(matcher, text):
        return f"text that matches {pattern}"
    return ""


@functools.lru_cache(maxsize=256)
def _matcher(pattern: str) -> SchemaValidator | None:
    """A validator for a pattern, whose time is linear in the text; ``None`` for a bad pattern."""
    try:
        return SchemaValidator(core_schema.str_schema(pattern=pattern))
    except SchemaError:
        return None


def _is_valid(validator: SchemaValidator, text: str) -> bool:
    try:
        validator.validate_python(text)
    except ValidationError:
        return False
    return True


# Words.


def short_json(value: Any) -> str:
    """A value as JSON of at most 60 characters, for messages."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:59]}…"


_TYPE_WORDS = {
    "string": "a string",
    "number": "a number",
    "integer": "an integer",
    "boolean": "true or false",
    "null": "null",
    "array": "a list",
    "object": "a dict",
}


def expected_text(typed: SchemaType, depth: int = 0) -> str:
    """A type in words."""
    words = dict.fromkeys(_branch_text(branch, depth) for branch in typed.alternatives())
    return " or ".join(words)


def _branch_text(branch: SchemaType, depth: int) -> str:
    schema = branch.schema
    choices = _choices(branch)
    if choices is not None:
        return ("one of " if len(choices) > 1 else "") + ", ".join(map(short_json, choices))
    kinds = _branch_types(branch)
    if kinds == ALL_TYPES:
        return "anything"
    kind = next(iter(kinds))
    if kind == "array" and isinstance(schema.get("items"), dict) and depth < 2:
        return f"a list of {expected_text(SchemaType(schema['items'], branch.root), depth + 1)}"
    if kind == "object" and (fields := branch.fields()) and depth < 2:
        return f"a dict with {', '.join(fields)}"
    values = schema.get("additionalProperties")
    if kind == "object" and isinstance(values, dict) and values and depth < 2:
        return f"a dict of {expected_text(SchemaType(values, branch.root), depth + 1)}"
    return (kind == "string" and _format_text(schema)) or _TYPE_WORDS.get(kind, kind)

"""Types as JSON schemas: does a value fit, can one type be passed as another, what is inside.

Covers what pydantic writes: types, choices, unions, references to definitions, fields, items,
bounds, forms of text. Conversions of pydantic's lax mode count as fitting. Keywords that are not
known constrain nothing. The module must not know tools or plans.
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
"""How far types that contain each other are compared; deeper ones are taken to fit."""

_FIELD_DEPTH = 4
"""What a step into a field counts towards that: types with many fields have many more inside."""

ALL_TYPES = frozenset({"string", "number", "integer", "boolean", "null", "array", "object"})
_TRUTHS = {"true", "false", "yes", "no", "on", "off", "y", "n", "t", "f", "1", "0"}
_NUMERIC = re.compile(
    r"\s*[-+]?(?:(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?|inf|infinity|nan)\s*", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Typed:
    """A schema, and the one around it in which its ``$ref`` are looked up."""

    schema: Any
    root: Mapping[str, Any]

    def resolved(self) -> Typed:
        """The schema that a ``$ref`` leads to; an empty one where it leads nowhere."""
        schema: Any = self.schema
        for _ in range(32):
            if not isinstance(schema, dict) or not isinstance(schema.get("$ref"), str):
                break
            target = pointed(schema["$ref"], self.root)
            rest = {key: value for key, value in schema.items() if key != "$ref"}
            schema = {**target, **rest} if isinstance(target, dict) and target is not schema else {}
        return Typed(schema if isinstance(schema, dict) else {}, self.root)

    def branches(self, depth: int = 0) -> Iterator[Typed]:
        """The alternatives of a union, those inside of it included; itself if it is none.

        What a union says besides its alternatives holds for each of them. One that is its own
        alternative ends somewhere.
        """
        here = self.resolved()
        if depth > _MAX_DEPTH:
            return
        choices = here.schema.get("anyOf") or here.schema.get("oneOf")
        if isinstance(choices, list):
            beside = {key: value for key, value in here.schema.items() if key not in _NO_PART}
            for choice in choices:
                inner = Typed(choice, here.root).resolved().schema
                yield from Typed(_both(beside, inner), here.root).branches(depth + 1)
            return
        parts = here.schema.get("allOf")
        if isinstance(parts, list) and len(parts) == 1 and isinstance(parts[0], dict):
            both = _both(here.schema, parts[0])
            yield from Typed({**both, "allOf": None}, here.root).branches(depth + 1)
            return
        kind = here.schema.get("type")
        if isinstance(kind, list):
            for one in kind:
                yield Typed({**here.schema, "type": one}, here.root)
            return
        yield here

    def fields(self) -> list[str]:
        """Names of the fields that the alternatives declare."""
        names: dict[str, None] = {}
        for branch in self.branches():
            names.update(dict.fromkeys(branch.schema.get("properties", {})))
        return list(names)


_NO_PART = frozenset({"anyOf", "oneOf", "$defs", "definitions"})


def _both(outer: Mapping[str, Any], inner: Mapping[str, Any]) -> dict[str, Any]:
    """What holds where both schemas do, as far as it can be said in one; the inner one leads."""
    out = {**outer, **inner}
    if "properties" in outer and "properties" in inner:
        out["properties"] = {**outer["properties"], **inner["properties"]}
    if "required" in outer and "required" in inner:
        out["required"] = list(dict.fromkeys((*outer["required"], *inner["required"])))
    return out


def pointed(ref: str, root: Any) -> Any:
    """What a local ``$ref`` means in a schema, by its JSON pointer (RFC 6901); else ``None``."""
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


def types_of(typed: Typed) -> frozenset[str]:
    """JSON types that values of the schema can have."""
    found: set[str] = set()
    for branch in typed.branches():
        found |= _branch_types(branch)
    return frozenset(found)


def _branch_types(branch: Typed) -> frozenset[str]:
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


# What is inside.


def step(typed: Typed, segment: Segment) -> Typed | None:
    """The type one step down a path: anything where the schema is silent, ``None`` for nothing.

    A union has the step if one of its alternatives does.
    """
    found: list[Typed] = []
    for branch in typed.branches():
        inner = _branch_step(branch, segment)
        if inner is not None:
            found.append(inner)
    if not found:
        return None
    if len(found) == 1:
        return found[0]
    return Typed({"anyOf": [one.schema for one in found]}, typed.root)


def _branch_step(branch: Typed, segment: Segment) -> Typed | None:
    schema, root = branch.schema, branch.root
    kinds = _branch_types(branch)
    if isinstance(segment, str):
        if "object" not in kinds:
            return None
        properties = schema.get("properties", {})
        if segment in properties:
            return Typed(properties[segment], root)
        rest = schema.get("additionalProperties")
        if isinstance(rest, dict):
            return Typed(rest, root)
        # A schema that lists no fields, or says that there are more, promises nothing.
        return None if rest is False or (properties and rest is None) else Typed({}, root)
    if "array" not in kinds:
        keyed = segment is not STAR and "object" in kinds
        return _branch_step(branch, str(segment)) if keyed else None
    prefix = schema.get("prefixItems")
    items = schema.get("items")
    if isinstance(prefix, list):
        if segment is STAR:
            rest_items = [items] if isinstance(items, dict) else []
            return Typed({"anyOf": [*prefix, *rest_items]}, root)
        assert isinstance(segment, int)
        if -len(prefix) <= segment < len(prefix) and length_of(branch) == len(prefix):
            return Typed(prefix[segment], root)
        if 0 <= segment < len(prefix):
            return Typed(prefix[segment], root)
        if length_of(branch) is not None:
            return None
    return Typed(items if isinstance(items, dict) else {}, root)


def length_of(typed: Typed) -> int | None:
    """How many items every list of the type has; ``None`` where that is open."""
    lengths: set[int | None] = set()
    for branch in typed.branches():
        least, most = branch.schema.get("minItems"), branch.schema.get("maxItems")
        lengths.add(least if least is not None and least == most else None)
    return lengths.pop() if len(lengths) == 1 else None


# Passing one type as another.


def fits(given: Typed, wanted: Typed, depth: int = 0) -> bool | None:
    """Whether values of one type can be taken for another.

    Returns:
        False if none can, None if only text of a certain form, True if some or all can.
    """
    if depth > _MAX_DEPTH:
        return True
    verdicts = {
        _branch_fits(one, other, depth)
        for one in _without_null(given)
        for other in wanted.branches()
    }
    return True if True in verdicts else None if None in verdicts else False


def _without_null(typed: Typed) -> list[Typed]:
    branches = list(typed.branches())
    return [one for one in branches if one.schema.get("type") != "null"] or branches


_LAX = {
    ("integer", "number"),
    ("number", "integer"),
    ("boolean", "number"),
    ("boolean", "integer"),
    ("integer", "boolean"),
    ("number", "boolean"),
}


def _branch_fits(given: Typed, wanted: Typed, depth: int) -> bool | None:
    texts = False
    choices = _choices(given)
    if choices is not None:
        return any(misfit(choice, wanted) is None for choice in choices)
    for one in _branch_types(given):
        for other in _branch_types(wanted):
            if one == other:
                if _inside_fits(one, given, wanted, depth) is not False:
                    return True
            elif (one, other) in _LAX:
                return True
            elif one == "string" and other in ("number", "integer", "boolean"):
                texts = True
            elif one in ("number", "integer") and other == "string" and "format" in wanted.schema:
                return True
    return None if texts else False


def _choices(typed: Typed) -> list[Any] | None:
    if "const" in typed.schema:
        return [typed.schema["const"]]
    found = typed.schema.get("enum")
    return found if isinstance(found, list) else None


def _inside_fits(kind: str, given: Typed, wanted: Typed, depth: int) -> bool | None:
    if kind == "array":
        return _part_fits("items", given, wanted, depth + 1)
    if kind == "object":
        needed, sure = wanted.schema.get("required", ()), given.schema.get("required", ())
        for name in dict.fromkeys((*needed, *sure)):
            mine, other = step(given, name), step(wanted, name)
            if mine is None:
                if name in needed:
                    return False
            elif other is not None and fits(mine, other, depth + _FIELD_DEPTH) is False:
                return False
        return _part_fits("additionalProperties", given, wanted, depth + _FIELD_DEPTH)
    return True


def _part_fits(keyword: str, given: Typed, wanted: Typed, depth: int) -> bool | None:
    mine, other = given.schema.get(keyword), wanted.schema.get(keyword)
    if isinstance(mine, dict) and isinstance(other, dict):
        return fits(Typed(mine, given.root), Typed(other, wanted.root), depth)
    return True


# Values.


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why a value does not fit.

    Attributes:
        where: path from the argument to the part at fault.
        message: what is wrong with it, for behind its name.
    """

    where: str
    message: str
    expected: str = ""
    hint: str = ""


def misfit(value: Any, wanted: Typed, where: str = "") -> Misfit | None:
    """What is wrong with a value; ``None`` if it fits."""
    found: list[Misfit] = []
    for branch in wanted.branches():
        problem = _branch_misfit(value, branch, where)
        if problem is None:
            return None
        found.append(problem)
    # A union: the alternative that came furthest knows best, unless all failed at the start.
    inner = max(found, key=lambda one: len(one.where), default=None)
    if inner is not None and (len(found) == 1 or len(inner.where) > len(where)):
        return inner
    return Misfit(where, f"cannot be {shown(value)}", expected_text(wanted))


def _branch_misfit(value: Any, branch: Typed, where: str) -> Misfit | None:
    schema = branch.schema
    choices = _choices(branch)
    if choices is not None:
        # Python and pydantic hold True for 1, and so does ==; text is never a number.
        if any(value == choice for choice in choices):
            return None
        texts = [choice for choice in choices if isinstance(choice, str)]
        hint = did_you_mean(value, texts) if isinstance(value, str) else ""
        return Misfit(where, f"cannot be {shown(value)}", expected_text(branch), hint)
    kinds = _branch_types(branch)
    kind = _type_name(value)
    if kind not in kinds and not _converts(value, kind, kinds, schema):
        return Misfit(where, f"cannot be {shown(value)}", expected_text(branch))
    if isinstance(value, list | tuple):
        return _list_misfit(list(value), branch, where)
    if isinstance(value, dict):
        return _dict_misfit(value, branch, where)
    return _out_of_bounds(value, branch, where)


def _converts(value: Any, kind: str, kinds: frozenset[str], schema: Mapping[str, Any]) -> bool:
    """Whether pydantic's lax mode takes the value for one of the types."""
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
            whole = value == int(value) if abs(value) < 2**63 else True
            return (
                ("integer" in kinds and whole)
                or ("boolean" in kinds and value in (0, 1))
                or ("string" in kinds and "format" in schema)
            )
        case "boolean":
            return bool(kinds & {"number", "integer"}) or schema.get("format") == "duration"
    return False


def _list_misfit(value: list[Any], branch: Typed, where: str) -> Misfit | None:
    schema = branch.schema
    least, most = schema.get("minItems"), schema.get("maxItems")
    if least is not None and len(value) < least:
        return Misfit(where, f"has {len(value)} items, and needs {least}")
    if most is not None and len(value) > most:
        return Misfit(where, f"has {len(value)} items, and takes {most} at most")
    for number, item in enumerate(value):
        inner = step(branch, number)
        if inner is not None and (problem := misfit(item, inner, f"{where}[{number}]")):
            return problem
    return None


def _dict_misfit(value: Mapping[str, Any], branch: Typed, where: str) -> Misfit | None:
    known = list(branch.schema.get("properties", {}))
    for key, item in value.items():
        inner = step(branch, key)
        if inner is None:
            if branch.schema.get("additionalProperties") is not False:
                continue
            hint = did_you_mean(key, known)
            return Misfit(where, f"has no field {key!r}", ", ".join(known), hint)
        if problem := misfit(item, inner, f"{where}.{key}"):
            return problem
    for key in branch.schema.get("required", ()):
        if key not in value:
            return Misfit(where, f"lacks the field {key!r}", expected_text(branch))
    return None


_Bound: TypeAlias = tuple[Callable[[float, float], bool], str]
_BOUNDS: dict[str, _Bound] = {
    "minimum": (operator.ge, "at least"),
    "maximum": (operator.le, "at most"),
    "exclusiveMinimum": (operator.gt, "more than"),
    "exclusiveMaximum": (operator.lt, "less than"),
}


def _out_of_bounds(value: Any, branch: Typed, where: str) -> Misfit | None:
    schema = branch.schema
    if isinstance(value, str):
        least, most = schema.get("minLength"), schema.get("maxLength")
        if least is not None and len(value) < least:
            return Misfit(where, f"cannot be {shown(value)}", f"at least {least} characters")
        if most is not None and len(value) > most:
            return Misfit(where, f"cannot be {shown(value)}", f"at most {most} characters")
        if "string" in _branch_types(branch) and (expected := _expected_form(value, schema)):
            return Misfit(where, f"cannot be {shown(value)}", expected)
        try:
            value = float(value)
        except ValueError:
            return None
        if schema.get("type") == "string":
            return None
    if isinstance(value, int | float):
        for keyword, (holds, words) in _BOUNDS.items():
            bound = schema.get(keyword)
            if isinstance(bound, int | float) and not holds(value, bound):
                return Misfit(where, f"cannot be {shown(value)}", f"{words} {bound}")
        step_by = schema.get("multipleOf")
        if isinstance(step_by, int | float) and step_by > 0 and not _multiple(value, step_by):
            return Misfit(where, f"cannot be {shown(value)}", f"a multiple of {step_by}")
    return None


def _multiple(value: float, of: float) -> bool:
    if isinstance(value, int) and isinstance(of, int):
        return value % of == 0
    if not abs(value) <= 2**63:  # also what is no number
        return True
    rest = value % of
    # A sum of tenths is no exact multiple of one.
    return min(rest, of - rest) <= abs(value) / 1e9


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


def shown(value: Any) -> str:
    """A value as it stands in a message, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:59]}…"


_SPOKEN = {
    "string": "a string",
    "number": "a number",
    "integer": "an integer",
    "boolean": "true or false",
    "null": "null",
    "array": "a list",
    "object": "a dict",
}


def expected_text(typed: Typed, depth: int = 0) -> str:
    """A type in words."""
    words = dict.fromkeys(_branch_text(branch, depth) for branch in typed.branches())
    return " or ".join(words)


def _branch_text(branch: Typed, depth: int) -> str:
    schema = branch.schema
    choices = _choices(branch)
    if choices is not None:
        return ("one of " if len(choices) > 1 else "") + ", ".join(map(shown, choices))
    kinds = _branch_types(branch)
    if kinds == ALL_TYPES:
        return "anything"
    kind = next(iter(kinds))
    if kind == "array" and isinstance(schema.get("items"), dict) and depth < 2:
        return f"a list of {expected_text(Typed(schema['items'], branch.root), depth + 1)}"
    if kind == "object" and (fields := branch.fields()) and depth < 2:
        return f"a dict with {', '.join(fields)}"
    values = schema.get("additionalProperties")
    if kind == "object" and isinstance(values, dict) and values and depth < 2:
        return f"a dict of {expected_text(Typed(values, branch.root), depth + 1)}"
    return (kind == "string" and _format_text(schema)) or _SPOKEN.get(kind, kind)

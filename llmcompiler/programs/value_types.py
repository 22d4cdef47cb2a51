"""Types of a program's values, as far as they are known before it runs.

A type is a tuple of alternatives, or ``None`` where nothing is known. Lists and dicts are objects
that several variables can share, as in the program: what one of them appends, all of them may hold.
So a type only ever widens, and what is said of it stays true under every order of statements.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from llmcompiler.plan.types import SchemaType, part_type

MAX_ALTERNATIVES = 6
"""A type with more alternatives counts as unknown."""

_MAX_DEPTH = 8


@dataclass(frozen=True, slots=True)
class Scalar:
    """Text, a number, a truth value or ``None``; ``kind`` is the name of the JSON type."""

    kind: Literal["string", "integer", "number", "boolean", "null"]


@dataclass(slots=True, eq=False)
class Items:
    """A list, set or tuple.

    Attributes:
        kind: which of them.
        item: the type of its elements; no alternatives at all while it is empty.
        places: the types of a tuple's elements, one by one; ``None`` if their number may vary.
    """

    kind: Literal["list", "set", "tuple"]
    item: Type = ()
    places: tuple[Type, ...] | None = None


@dataclass(slots=True, eq=False)
class Table:
    """A dict that a program made, or a result of one type for all keys."""

    key: Type = ()
    value: Type = ()


@dataclass(slots=True, eq=False)
class Record:
    """A result with fields.

    Attributes:
        schema: its type.
        fields: types of the fields that were looked at.
        extra: names of fields that the program has added.
        is_open: True once the program may have changed it in a way that was not followed.
    """

    schema: SchemaType
    fields: dict[str, Type] = field(default_factory=dict)
    extra: set[str] = field(default_factory=set)
    is_open: bool = False

    def field_type(self, name: str) -> Type | Literal[False]:
        """The type of a field; False if there is none."""
        if name in self.fields:
            return self.fields[name]
        if self.is_open or name in self.extra:
            return None
        part = part_type(self.schema, name)
        if part is None:
            return False
        typed = of_schema(part)
        required = self.schema.schema.get("required", ())
        if typed is not None and name not in required:
            typed = None
        self.fields[name] = typed
        return typed


Alternative: TypeAlias = Scalar | Items | Table | Record
Type: TypeAlias = tuple[Alternative, ...] | None

TEXT: Type = (Scalar("string"),)
INTEGER: Type = (Scalar("integer"),)
NUMBER: Type = (Scalar("number"),)
TRUTH: Type = (Scalar("boolean"),)
NOTHING: Type = (Scalar("null"),)
_SCALARS = {"string": TEXT, "integer": INTEGER, "number": NUMBER, "boolean": TRUTH, "null": NOTHING}


def list_of(item: Type, kind: Literal["list", "set", "tuple"] = "list") -> Type:
    """The type of a new list, set or tuple of such elements."""
    return (Items(kind, item),)


def tuple_of(places: Iterable[Type]) -> Type:
    """The type of a tuple with these elements."""
    places = tuple(places)
    return (Items("tuple", union(*places) if places else (), places),)


def of_schema(typed: SchemaType, depth: int = 0) -> Type:
    """The type that a JSON schema describes."""
    if depth > _MAX_DEPTH:
        return None
    parts = [_of_branch(branch, depth) for branch in typed.alternatives()]
    return union(*parts) if parts else None


def _of_branch(branch: SchemaType, depth: int) -> Type:
    schema = branch.schema
    if "const" in schema or "enum" in schema:
        choices = [schema["const"]] if "const" in schema else schema["enum"]
        return union(*map(of_constant, choices)) if isinstance(choices, list) else None
    kind = schema.get("type")
    if isinstance(kind, str) and kind in _SCALARS:
        return _SCALARS[kind]
    if kind == "array":
        items = schema.get("items")
        if isinstance(items, dict) and "prefixItems" not in schema:
            return list_of(of_schema(SchemaType(items, branch.root), depth + 1))
        return list_of(None)
    if kind == "object" or "properties" in schema:
        if schema.get("properties") and not schema.get("additionalProperties"):
            return (Record(branch),)
        values = schema.get("additionalProperties")
        if isinstance(values, dict) and values and not schema.get("properties"):
            return (Table(TEXT, of_schema(SchemaType(values, branch.root), depth + 1)),)
        return (Table(TEXT, None),)
    return None


def of_constant(value: object) -> Type:
    """The type of a literal."""
    match value:
        case None:
            return NOTHING
        case bool():
            return TRUTH
        case int():
            return INTEGER
        case float():
            return NUMBER
        case str():
            return TEXT
    return None


def union(*types: Type) -> Type:
    """A value of one of these types."""
    out: dict[Alternative, None] = {}
    for alt in types:
        if alt is None:
            return None
        out.update(dict.fromkeys(alt))
    return tuple(out) if len(out) <= MAX_ALTERNATIVES else None


def same(first: Type, second: Type) -> bool:
    """Whether two types have the same alternatives."""
    if first is None or second is None:
        return first is second
    return set(first) == set(second)


def without_none(typed: Type) -> Type:
    """The type less ``None``; the type itself if nothing would be left."""
    if typed is None:
        return None
    rest = tuple(alt for alt in typed if alt != Scalar("null"))
    return rest or typed


def forget(typed: Type, depth: int = 0) -> None:
    """Forget what a value holds: code that was not followed may have changed it."""
    if typed is None or depth > _MAX_DEPTH:
        return
    for alt in typed:
        match alt:
            case Items():
                forget(alt.item, depth + 1)
                alt.item, alt.places = None, None
            case Table():
                forget(alt.value, depth + 1)
                alt.key = alt.value = None
            case Record():
                for inner in alt.fields.values():
                    forget(inner, depth + 1)
                alt.fields.clear()
                alt.is_open = True


_WORDS = {
    "string": "text",
    "integer": "a number",
    "number": "a number",
    "boolean": "True or False",
    "null": "None",
}


def words(typed: Type) -> str:
    """A type in words."""
    if typed is None:
        return "anything"
    if not typed:
        return "nothing"
    return " or ".join(dict.fromkeys(map(_words_of, typed)))


def _words_of(alt: Alternative) -> str:
    match alt:
        case Scalar():
            return _WORDS[alt.kind]
        case Items():
            inner = {_plural(former) for former in alt.item} if alt.item else set()
            return f"a {alt.kind}" + (f" of {inner.pop()}" if len(inner) == 1 else "")
        case Table():
            return "a dict"
        case Record():
            name = str(alt.schema.schema.get("title") or "").lower()
            return f"a record ({name})" if name else "a record"


def _plural(alt: Alternative) -> str:
    match alt:
        case Scalar(kind="string"):
            return "texts"
        case Scalar(kind="integer" | "number"):
            return "numbers"
        case Record() | Table():
            return "records"
        case Items():
            return f"{alt.kind}s"
    return "values"

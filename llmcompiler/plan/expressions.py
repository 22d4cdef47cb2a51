"""Expressions: the arguments of tasks, the spelling of references, and the JSON form of both.

An argument is a literal, a reference to an earlier task's result (``$1.population``), a plan input
(``$city``), a string with such references in it (a template), or a list or dict that contains any
of these. Strings are scanned for references once, when a plan is read. Values that are put into a
template are never scanned, so a result that contains ``$1`` stays text.

Spelling, inside a string and outside:

* ``$N`` or ``${N}``, then any number of ``.name``, ``[0]``, ``[-1]``, ``["any key"]``, ``[*]``;
  the path may also stand inside the braces.
* ``$$`` is a dollar sign; ``${}`` is nothing, and ends a reference early (``$1${}.txt``).
* ``$1.50``, ``$1,000`` and a ``$N`` that names no earlier task are text.

JSON form: a literal is itself; a string is spelled as above; ``{"$ref": "$1.items[0]"}`` is a
reference as a whole argument, which keeps the type of the result. ``{"$code": {"source": ...,
"uses": [...]}}`` is code of a program. A dict of the user's whose only key is one of these markers
is written as ``{"$literal": {...}}``, so it is never read as one of them.
"""

from __future__ import annotations

import enum
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from pydantic import JsonValue, PlainSerializer, WithJsonSchema

HasTask: TypeAlias = Callable[[int], bool]
"""True for the id of a task to which the expression may refer."""

HasInput: TypeAlias = Callable[[str], bool]
"""True for the name of an input of the plan."""


class Star(enum.Enum):
    """The fan-out segment ``[*]`` of a path."""

    STAR = "*"


STAR = Star.STAR
Segment: TypeAlias = str | int | Star
Path: TypeAlias = tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Literal:
    """A JSON value that holds no reference."""

    value: Any


@dataclass(frozen=True, slots=True)
class Reference:
    """The result of task ``task``, followed along ``path``."""

    task: int
    path: Path = ()

    def __str__(self) -> str:
        return f"${self.task}{path_text(self.path) if self.path else ''}"


@dataclass(frozen=True, slots=True)
class Input:
    """The plan input ``name``, followed along ``path``."""

    name: str
    path: Path = ()

    def __str__(self) -> str:
        return f"${self.name}{path_text(self.path)}"


@dataclass(frozen=True, slots=True)
class Template:
    """A string with references in it; ``parts`` are texts and references in any order."""

    parts: tuple[str | Reference | Input, ...]

    def __str__(self) -> str:
        return template_text(self.parts)


@dataclass(frozen=True, slots=True)
class ListExpr:
    """A list at least one item of which is not a literal."""

    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class DictExpr:
    """A dict at least one value of which is not a literal; keys are always literal strings."""

    entries: tuple[tuple[str, Expr], ...]


@dataclass(frozen=True, slots=True)
class CodeExpr:
    """Pure code of a program, which the program computes before it makes the call.

    Attributes:
        source: the expression as the program spells it.
        uses: ids of the tasks whose results flow into it.
    """

    source: str
    uses: tuple[int, ...] = ()


Expr: TypeAlias = Literal | Reference | Input | Template | ListExpr | DictExpr | CodeExpr


_IDENT = re.compile(r"[^\W\d]\w*")
_REFERENCE = re.compile(r"\$(?:(?P<number>[1-9]\d*)|(?P<name>[^\W\d]\w*)|\{(?P<brace>[^{}]*)\})")
_PRICE = re.compile(r"\.\d|,\d{3}(?!\d)")
_SEGMENT = re.compile(
    r"""\.(?P<field>[^\W\d]\w*)
      | \[\s*(?:(?P<index>-?\d+)|(?P<star>\*)|(?P<key>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'))\s*\]""",
    re.VERBOSE,
)
_GOES_ON = re.compile(r"\w|\.\w|\[|,\d")
_BRACED = re.compile(r"\s*(?:(?P<number>[1-9]\d*)|(?P<name>[^\W\d]\w*))")


def is_identifier(text: str) -> bool:
    """True if ``text`` can stand behind a dot in a path, or name an input."""
    return _IDENT.fullmatch(text) is not None


def path_text(path: Path) -> str:
    """The spelling of ``path``, as it stands behind ``$N``."""
    out: list[str] = []
    for segment in path:
        if segment is STAR:
            out.append("[*]")
        elif isinstance(segment, int):
            out.append(f"[{segment}]")
        elif isinstance(segment, str) and is_identifier(segment):
            out.append(f".{segment}")
        else:
            out.append(f"[{json.dumps(segment, ensure_ascii=False)}]")
    return "".join(out)


def scan_path(text: str, start: int) -> tuple[Path, int]:
    """Read the path that begins at ``start``; it may be empty.

    Returns:
        The path, and the position behind it.
    """
    path: list[Segment] = []
    position = start
    while match := _SEGMENT.match(text, position):
        if (field := match["field"]) is not None:
            path.append(field)
        elif (index := match["index"]) is not None:
            path.append(int(index))
        elif match["star"]:
            path.append(STAR)
        else:
            path.append(_unquote(match["key"]))
        position = match.end()
    return tuple(path), position


def _unquote(quoted: str) -> str:
    body = quoted[1:-1]
    if quoted[0] == "'":
        body = body.replace("\\'", "'").replace('"', '\\"')
    try:
        return str(json.loads(f'"{body}"', strict=False))
    except ValueError:
        return body


def scan_reference(
    text: str, start: int, has_task: HasTask, has_input: HasInput
) -> tuple[Reference | Input | None, int]:
    """Read the reference that begins with the ``$`` at ``start``.

    Returns:
        The reference and the position behind it; ``None`` and ``start`` if the dollar sign is text;
        ``None`` and a later position for the empty separator ``${}``.
    """
    match = _REFERENCE.match(text, start)
    if match is None:
        return None, start
    number, name, brace = match["number"], match["name"], match["brace"]
    inner: Path = ()
    if brace is not None:
        if not brace.strip():
            return None, match.end()
        head = _BRACED.match(brace)
        if head is None:
            return None, start
        number, name = head["number"], head["name"]
        inner, stop = scan_path(brace, head.end())
        if brace[stop:].strip():
            return None, start
    elif number is not None and _PRICE.match(text, match.end()):
        return None, start
    if number is not None and not has_task(int(number)):
        return None, start
    if name is not None and not has_input(name):
        return None, start
    outer, end = scan_path(text, match.end())
    path = inner + outer
    if number is not None:
        return Reference(task=int(number), path=path), end
    assert name is not None
    return Input(name=name, path=path), end


def scan_string(text: str, has_task: HasTask, has_input: HasInput) -> Literal | Template:
    """The literal or, if the string holds references, the template that a string's content is."""
    if "$" not in text:
        return Literal(value=text)
    parts: list[str | Reference | Input] = []
    plain: list[str] = []
    position = 0
    while (dollar := text.find("$", position)) >= 0:
        plain.append(text[position:dollar])
        if text.startswith("$$", dollar):
            plain.append("$")
            position = dollar + 2
            continue
        ref, end = scan_reference(text, dollar, has_task, has_input)
        if ref is None:
            if end == dollar:
                plain.append("$")
                end += 1
            position = end
            continue
        if before := "".join(plain):
            parts.append(before)
        plain.clear()
        parts.append(ref)
        position = end
    plain.append(text[position:])
    if after := "".join(plain):
        parts.append(after)
    if any(not isinstance(part, str) for part in parts):
        return Template(parts=tuple(parts))
    return Literal(value="".join(part for part in parts if isinstance(part, str)))


def template_text(parts: Sequence[str | Reference | Input]) -> str:
    """The content of the string that ``scan_string`` reads as these parts."""
    out: list[str] = []
    for is_text, group in itertools.groupby(parts, lambda part: isinstance(part, str)):
        text = "".join(map(str, group))
        if is_text:
            text = text.replace("$", "$$")
            if out and _GOES_ON.match(text):
                out.append("${}")
        out.append(text)
    return "".join(out)


def make_list(items: Sequence[Expr]) -> Literal | ListExpr:
    """A list in its canonical form: a literal if every item is one."""
    values = [item.value for item in items if isinstance(item, Literal)]
    if len(values) == len(items):
        return Literal(value=values)
    return ListExpr(items=tuple(items))


def make_dict(entries: Mapping[str, Expr]) -> Literal | DictExpr:
    """A dict in its canonical form: a literal if every value is one."""
    values = {key: value.value for key, value in entries.items() if isinstance(value, Literal)}
    if len(values) == len(entries):
        return Literal(value=values)
    return DictExpr(entries=tuple(entries.items()))


def references(exprs: Iterable[Expr]) -> list[Reference | Input]:
    """Every reference in ``exprs``, in reading order, repetitions included."""
    refs: list[Reference | Input] = []
    for expr in exprs:
        if type(expr) is Reference or type(expr) is Input:
            refs.append(expr)
        elif type(expr) is ListExpr:
            refs += references(expr.items)
        elif type(expr) is Template:
            refs += [part for part in expr.parts if not isinstance(part, str)]
        elif type(expr) is DictExpr:
            refs += references([value for _, value in expr.entries])
        elif type(expr) is CodeExpr:
            refs += [Reference(task=task) for task in expr.uses]
    return refs


Change: TypeAlias = Callable[[Reference | Input], Reference | Input | Literal]
"""Returns what to put in a reference's place; the reference itself to leave it."""


def map_references(expr: Expr, change: Change, in_text: Change | None = None) -> Expr:
    """``expr`` with every reference replaced.

    Args:
        expr: any expression.
        change: returns what to put in a reference's place.
        in_text: the same for references in a template, in which a literal must be a string;
            ``None`` to use ``change``.
    """
    match expr:
        case Reference() | Input():
            return change(expr)
        case Template():
            parts: list[str | Reference | Input] = []
            for part in expr.parts:
                new = part if isinstance(part, str) else (in_text or change)(part)
                text = new.value if isinstance(new, Literal) else new
                if isinstance(text, str) and parts and isinstance(parts[-1], str):
                    parts[-1] += text
                elif text != "":
                    parts.append(text)
            if all(isinstance(part, str) for part in parts):
                return Literal(value="".join(str(part) for part in parts))
            return Template(parts=tuple(parts))
        case ListExpr():
            return make_list([map_references(item, change, in_text) for item in expr.items])
        case DictExpr():
            return make_dict({key: map_references(v, change, in_text) for key, v in expr.entries})
        case CodeExpr():
            references = [change(Reference(task=task)) for task in expr.uses]
            uses = tuple(new.task for new in references if isinstance(new, Reference))
            return CodeExpr(source=expr.source, uses=uses)
    return expr


_MARKERS = ("$ref", "$literal", "$code")


def expr_to_json(expr: Expr) -> JsonValue:
    """The JSON form of an expression (see the module's docstring)."""
    if type(expr) is Literal:
        return _literal_to_json(expr.value)
    if type(expr) is Reference or type(expr) is Input:
        return {"$ref": str(expr)}
    if type(expr) is Template:
        return template_text(expr.parts)
    if type(expr) is ListExpr:
        return [expr_to_json(item) for item in expr.items]
    if type(expr) is CodeExpr:
        return {"$code": {"source": expr.source, "uses": list(expr.uses)}}
    assert type(expr) is DictExpr
    return _protect({key: expr_to_json(value) for key, value in expr.entries})


def _literal_to_json(value: Any) -> JsonValue:
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, list | tuple):
        return [_literal_to_json(item) for item in value]
    if isinstance(value, dict):
        return _protect({str(key): _literal_to_json(item) for key, item in value.items()})
    plain: JsonValue = value
    return plain


def _protect(value: dict[str, JsonValue]) -> JsonValue:
    return {"$literal": value} if len(value) == 1 and next(iter(value)) in _MARKERS else value


def expr_from_json(value: Any, has_task: HasTask, has_input: HasInput) -> Expr:
    """Read the JSON form of an expression.

    Raises:
        ValueError: a ``$ref`` is no reference, or names no task or input.
    """
    if isinstance(value, str):
        return scan_string(value, has_task, has_input)
    if isinstance(value, list | tuple):
        return make_list([expr_from_json(item, has_task, has_input) for item in value])
    if isinstance(value, dict):
        if len(value) == 1:
            if "$ref" in value:
                text = value["$ref"]
                if isinstance(text, str):
                    ref, end = scan_reference(text, 0, has_task, has_input)
                    if ref is not None and end == len(text):
                        return ref
                raise ValueError(
                    f"{json.dumps(text)} does not refer to an earlier task or a plan input"
                )
            if isinstance(code := value.get("$code"), dict) and code.keys() == {"source", "uses"}:
                return CodeExpr(source=str(code["source"]), uses=tuple(map(int, code["uses"])))
            if isinstance(inner := value.get("$literal"), dict):
                return make_dict(
                    {str(k): expr_from_json(v, has_task, has_input) for k, v in inner.items()}
                )
        return make_dict({str(k): expr_from_json(v, has_task, has_input) for k, v in value.items()})
    return Literal(value=value)


Argument = Annotated[
    Expr,
    PlainSerializer(expr_to_json),
    WithJsonSchema(
        {
            "description": "Any JSON value. A string may hold references such as $1.population; "
            'an object {"$ref": "$1.items[0]"} is a typed one.'
        }
    ),
]
"""An expression as a field of a pydantic model, written in its JSON form."""

"""From a tool catalogue to a grammar of the plans that fit it.

A model that decodes under the grammar can only write plans that parse: numbered calls of tools that
exist, with parameters they have, literals of the right types, and references to tasks above. It is
GBNF, llama.cpp's notation, which vLLM's engines read too; ``plan_schema`` is the same for endpoints
that hold models to a JSON schema only.

A grammar without context cannot count, so what holds a reference is spelled out once a line; what
holds none is shared by all lines. What depends on *which* tool an earlier line calls is left to the
checks, and so are keys given twice in an open dict and bounds of numbers with a fraction. Inside of
strings a reference may name any number: one that names no earlier task is text there.

Constrained decoding by grammars is Geng et al., "Grammar-Constrained Decoding for Structured NLP
Tasks without Finetuning", arXiv 2305.13971. The module must not know who asks which model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from llmcompiler.language import gbnf
from llmcompiler.plan.expressions import STAR
from llmcompiler.plan.types import Typed, fits, step, types_of

Schema: TypeAlias = dict[str, Any]

LINES = 24
"""Lines of a plan that may hold references outside of strings; those behind hold literals."""

MOST_LINES = 64
"""Tasks of a plan at most: more calls than that are a fan-out's."""

SIZE = 48_000
"""Characters that a grammar should not exceed much; large catalogues get fewer such lines."""

LEAST_LINES = 6
"""Lines with references that every catalogue gets."""

DEPTH = 3
"""Steps of a reference's path into a result whose type is known."""

PATHS = 60
"""Paths into results that one parameter's rule lists; where there are more, any path may stand."""

SILENT = frozenset({"title", "description", "default", "examples", "deprecated"})
"""Keywords of a schema that constrain nothing."""

_FIELD = re.compile(r"[A-Za-z_]\w*", re.ASCII)


class ToolView(Protocol):
    """What a grammar is made of."""

    @property
    def name(self) -> str:
        """What plans call it."""
        ...

    @property
    def parameters_schema(self) -> Schema:
        """JSON schema of an object: ``properties`` in positional order, and ``required``."""
        ...

    @property
    def return_schema(self) -> Schema | None:
        """JSON schema of the result; ``None`` where it is not known."""
        ...


def plan_grammar(
    tools: Mapping[str, ToolView],
    *,
    first_id: int = 1,
    known: Iterable[int] = (),
    thoughts: bool = True,
) -> str:
    """The GBNF grammar of plans that call these tools.

    Args:
        tools: what may be called, by name.
        first_id: number of the plan's first task.
        known: ids of earlier tasks, which may be referred to.
        thoughts: whether ``Thought:`` lines may stand before tasks.

    Returns:
        The rules as text; the first symbol is ``root``.
    """
    known = sorted(set(known))
    least = _Grammar(tools, first_id, known, thoughts, LEAST_LINES).text()
    more = _Grammar(tools, first_id, known, thoughts, LEAST_LINES + 1).text()
    line = max(1, len(more) - len(least))
    lines = min(LINES, LEAST_LINES + max(0, SIZE - len(least)) // line)
    return _Grammar(tools, first_id, known, thoughts, lines).text()


def action_grammar(tools: Mapping[str, ToolView]) -> str:
    """The GBNF grammar of a thought and one call, or an answer, as the planner ``react`` wants.

    Args:
        tools: what may be called, by name; without any, there can only be an answer.
    """
    return _Grammar(tools, 1, (), True, 0, root=_action).text()


class _Grammar:
    """A grammar in the making: rules by name, and names by what the rules say."""

    def __init__(
        self,
        tools: Mapping[str, ToolView],
        first_id: int,
        known: Sequence[int],
        thoughts: bool,
        lines: int,
        root: Callable[[_Grammar], str] | None = None,
    ) -> None:
        self._tools = tools
        self._rules: dict[str, str] = {}
        self._names: dict[Any, str] = {}
        self._results = _results(tools)
        self._last = first_id + MOST_LINES
        fields = _field_names(self._results) if self._results is not None else None
        if fields:
            longest_first = sorted(fields, key=lambda name: (-len(name), name))
            self._rules["field"] = " | ".join(map(gbnf.literal, longest_first))
            self._strings = gbnf.STRING_OF_FIELDS
        else:
            self._strings = gbnf.STRING
        if root is None:
            self._plan(first_id, known, thoughts, lines)
        else:
            self._rules["root"] = root(self)

    def text(self) -> str:
        """All rules that ``root`` needs."""
        rules = self._rules | gbnf.SHARED | self._strings
        used = {"root": None}
        todo = ["root"]
        while todo:
            body = re.sub(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]', " ", rules[todo.pop()])
            for name in re.findall(r"[a-z][a-z0-9-]*", body):
                if name in rules and name not in used:
                    used[name] = None
                    todo.append(name)
        return "".join(f"{name} ::= {rules[name]}\n" for name in used)

    @property
    def has_tools(self) -> bool:
        """Whether there is anything to call."""
        return bool(self._tools)

    def _plan(self, first_id: int, known: Sequence[int], thoughts: bool, lines: int) -> None:
        thought = "thought? " if thoughts else ""
        self._rules["root"] = f"l{first_id}"
        ids = list(known)
        for number in range(first_id, self._last + 1):
            line = number if number < first_id + lines and ids else 0
            if line:
                self._rules[f"n{line}"] = gbnf.numbers(ids)
                shown = f'(")" | "$" n{line} (", $" n{line})* ")")'
            else:
                shown = '")"'
            join = f'"join(" {shown}'
            if self._tools and number < self._last:
                call = self.calls(line)
                join = f'({call} "\\n" l{number + 1} | {join})'
            self._rules[f"l{number}"] = f'{thought}"{number}. " {join}'
            ids.append(number)

    # Calls.

    def calls(self, line: int) -> str:
        return self._rule(
            ("calls", line),
            lambda: " | ".join(self._call(tool, line) for tool in self._tools.values()),
            "c",
        )

    def _call(self, tool: ToolView, line: int) -> str:
        schema = tool.parameters_schema
        required = set(schema.get("required", ()))
        given = [
            (name, self._value(Typed(value, schema), line), name in required)
            for name, value in schema.get("properties", {}).items()
        ]
        return f"{gbnf.literal(tool.name + '(')} {self._arguments(given)}"

    def _arguments(self, given: Sequence[tuple[str, str, bool]]) -> str:
        """Arguments and the closing parenthesis: some by position, then the rest by name.

        Those by name stand in the order of the parameters: any order would take a rule a subset.
        """
        by_name: list[str] = []
        for place in range(len(given) + 1):
            by_name.append(self._by_name(given, place, first=place == 0))
        out = by_name[len(given)]
        for place in reversed(range(len(given))):
            _, value, _ = given[place]
            comma = '", " ' if place else ""
            out = self._share(f"{comma}{value} {out}")
            out = self._share(f"{out} | {by_name[place]}")
        return f"({out})" if " | " in out else out

    def _by_name(self, given: Sequence[tuple[str, str, bool]], start: int, *, first: bool) -> str:
        choices: list[str] = []
        for place in range(start, len(given)):
            name, value, required = given[place]
            comma = "" if first else ", "
            rest = self._by_name(given, place + 1, first=False)
            choices.append(f"{gbnf.literal(comma + gbnf.keyword(name) + '=')} {value} {rest}")
            if required:
                break
        else:
            choices.append('")"')
        return self._share(" | ".join(choices))

    # Values.

    def _value(self, typed: Typed, line: int) -> str:
        """The rule of an argument, item or field: a literal, or a reference where there may be."""

        def body() -> str:
            choices = self._literals(typed, line)
            if line and (path := self._paths(typed)) is not None:
                choices.append(f'"$" n{line} {path}'.rstrip())
            return " | ".join(dict.fromkeys(choices))

        return self._rule(("value", _key(typed), line), body, "v")

    def _literals(self, typed: Typed, line: int) -> list[str]:
        choices: list[str] = []
        kinds = [branch.resolved() for branch in typed.branches()]
        numbers = any(branch.schema.get("type") == "number" for branch in kinds)
        for branch in kinds:
            schema = branch.schema
            if numbers and schema.get("type") == "integer":
                continue
            if "const" in schema:
                choices.append(gbnf.constant(schema["const"]))
            elif isinstance(options := schema.get("enum"), list):
                choices += map(gbnf.constant, options)
            else:
                for kind in sorted(types_of(branch)):
                    if not (kind == "integer" and "type" not in schema):
                        choices.append(self._literal(kind, branch, line))
        return choices

    def _literal(self, kind: str, branch: Typed, line: int) -> str:
        schema = branch.schema
        match kind:
            case "string":
                return gbnf.string(schema)
            case "integer":
                return gbnf.integer(schema)
            case "number":
                least = schema.get("minimum", schema.get("exclusiveMinimum"))
                return "pos" if isinstance(least, int | float) and least >= 0 else "num"
            case "boolean":
                return "bool"
            case "array":
                return self._rule(("list", _key(branch), line), lambda: self._list(branch, line))
            case "object":
                return self._rule(("dict", _key(branch), line), lambda: self._dict(branch, line))
        return "null"

    def _list(self, branch: Typed, line: int) -> str:
        schema, root = branch.schema, branch.root
        if isinstance(prefix := schema.get("prefixItems"), list):
            items = ' ", " '.join(self._value(Typed(item, root), line) for item in prefix)
            return f'"[" {items} "]"'
        items = schema.get("items")
        value = self._value(Typed(items if isinstance(items, dict) else {}, root), line)
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        least = min(least, gbnf.REPEATS)
        if most is not None and most > gbnf.REPEATS:
            most = None
        if most == 0:
            return '"[]"'
        more = gbnf.repeated(f'", " {value}', max(least - 1, 0), None if most is None else most - 1)
        return f'"[" {value} {more} "]"' if least else f'"[" ({value} {more})? "]"'

    def _dict(self, branch: Typed, line: int) -> str:
        schema, root = branch.schema, branch.root
        properties = schema.get("properties")
        if not properties:
            rest = schema.get("additionalProperties")
            if rest is False:
                return '"{}"'
            value = self._value(Typed(rest if isinstance(rest, dict) else {}, root), line)
            return f'"{{" (key ": " {value} (", " key ": " {value})*)? "}}"'
        required = set(schema.get("required", ()))
        given = [
            (name, self._value(Typed(value, root), line), name in required)
            for name, value in properties.items()
        ]
        return f'"{{" {self._fields(given, 0, first=True)}'

    def _fields(self, given: Sequence[tuple[str, str, bool]], start: int, *, first: bool) -> str:
        choices: list[str] = []
        for place in range(start, len(given)):
            name, value, required = given[place]
            lead = ("" if first else ", ") + json.dumps(name, ensure_ascii=False) + ": "
            rest = self._fields(given, place + 1, first=False)
            choices.append(f"{gbnf.literal(lead)} {value} {rest}")
            if required:
                break
        else:
            choices.append('"}"')
        return self._share(" | ".join(choices))

    # References.

    def _paths(self, wanted: Typed) -> str | None:
        """What may stand behind ``$N`` where such a value is wanted; ``None`` where nothing fits.

        A path fits if there is a tool whose result, or a fan-out of it, has a fitting part there.
        """
        if self._results is None:
            return "path"

        def body() -> str:
            paths = list(dict.fromkeys(path for path in _fitting(self._results or [], wanted)))
            if len(paths) > PATHS:
                return "path"
            return " | ".join(path or '""' for path in paths)

        name = self._rule(("paths", _key(wanted)), body, "p")
        return name if self._rules[name] else None

    # Names.

    def _rule(self, key: Any, body: Callable[[], str], prefix: str = "r") -> str:
        """The name of the rule for ``key``, made when it is first asked for.

        The name is known before the body is, so that types may hold themselves.
        """
        if key not in self._names:
            name = self._names[key] = f"{prefix}{len(self._names)}"
            self._rules[name] = ""
            self._rules[name] = body()
        return self._names[key]

    def _share(self, body: str) -> str:
        """The body itself if it is short, or else a rule for it that equal bodies share."""
        if " | " not in body and len(body) < 24:
            return body
        return self._rule(("text", body), lambda: body, "a")


def _action(grammar: _Grammar) -> str:
    answer = r'"Answer: " [^\n]+'
    calls = grammar.calls(0)
    return f'thought ("Action: " {calls} | {answer})' if grammar.has_tools else f"thought {answer}"


def _key(typed: Typed) -> str:
    """What two schemas that allow the same values have in common."""
    plain = json.dumps(_spoken(typed.schema), sort_keys=False, default=str)
    return f"{id(typed.root)}:{plain}" if '"$ref"' in plain else plain


def _spoken(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {
            key: {name: _spoken(value) for name, value in inner.items()}
            if key == "properties" and isinstance(inner, dict)
            else inner
            if key in ("enum", "const", "required")
            else _spoken(inner)
            for key, inner in schema.items()
            if key not in SILENT
        }
    return [_spoken(item) for item in schema] if isinstance(schema, list) else schema


# Results.


def _results(tools: Mapping[str, ToolView]) -> list[Typed] | None:
    """Types of all that tasks can result in; ``None`` where a tool does not say."""
    found: list[Typed] = []
    for tool in tools.values():
        schema = tool.return_schema
        if not schema or len(types_of(Typed(schema, schema))) > 3:
            return None
        found.append(Typed(schema, schema))
    return found


def _field_names(results: Sequence[Typed]) -> set[str]:
    names: set[str] = set()
    for result in results:
        for steps, _ in _parts(result, DEPTH):
            names.update(name for name in steps if name is not STAR and _FIELD.fullmatch(name))
    return names


def _parts(typed: Typed, depth: int) -> Iterator[tuple[tuple[Any, ...], Typed]]:
    """The parts of a value that paths lead to, itself included."""
    yield (), typed
    if not depth:
        return
    kinds = types_of(typed)
    if "array" in kinds and (item := step(typed, STAR)) is not None:
        for steps, part in _parts(item, depth - 1):
            yield (STAR, *steps), part
    if "object" in kinds:
        for name in typed.fields():
            if (field := step(typed, name)) is not None:
                for steps, part in _parts(field, depth - 1):
                    yield (name, *steps), part


def _fitting(results: Sequence[Typed], wanted: Typed) -> Iterator[str]:
    """Paths to what fits, in results and in lists of them, which fan-outs have."""
    for result in results:
        several = Typed({"type": "array", "items": result.schema}, result.root)
        if fits(several, wanted):
            yield ""
        for steps, part in _parts(result, DEPTH):
            if fits(part, wanted):
                spelled = " ".join(map(_segment, steps))
                yield f"index? {spelled}".rstrip() if spelled else "index?"


def _segment(segment: Any) -> str:
    if segment is STAR:
        return "index"
    if _FIELD.fullmatch(segment):
        return gbnf.literal(f".{segment}")
    return gbnf.literal(f"[{json.dumps(segment, ensure_ascii=False)}]")

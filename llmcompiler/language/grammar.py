"""The plan grammar: the plans that fit a tool catalogue, as a grammar for constrained decoding.

A model that decodes under the grammar can only write plans that parse: numbered calls of tools that
exist, with parameters that the tools have, literals of the right types, and references to tasks
above. The notation is llama.cpp's GBNF, which vLLM's engines read too. ``plan_schema`` does the
same for endpoints that hold models to a JSON schema only.

A context-free grammar cannot count. So a rule that holds a reference is written once for each line,
and a rule that holds none is shared by all lines. The static checks cover what the grammar cannot:
the result type of the tool that an earlier line calls, keys that stand twice in an open dict, and
bounds of numbers with a fraction. In a string a ``$N`` may have any number: one that names no
earlier task is text.

Constrained decoding by grammars is Geng et al., "Grammar-Constrained Decoding for Structured NLP
Tasks without Finetuning", arXiv 2305.13971.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from llmcompiler.language import gbnf
from llmcompiler.plan.expressions import STAR
from llmcompiler.plan.types import SchemaType, fits, json_types, part_type

Schema: TypeAlias = dict[str, Any]

MAX_REFERENCE_LINES = 24
"""Most lines that may hold references outside of strings; later lines hold literals only."""

MAX_TASKS = 64
"""Most tasks of a plan; a fan-out is for more calls than that."""

MAX_SIZE = 48_000
"""Characters that a grammar should hardly exceed: large catalogues get fewer reference lines."""

MIN_REFERENCE_LINES = 6
"""Reference lines that every catalogue gets."""

PATH_DEPTH = 3
"""Most steps of a path into a result whose type is known."""

MAX_PATHS = 60
"""Most paths into results that the rule of a parameter lists; with more, it allows any path."""

SILENT_KEYWORDS = frozenset({"title", "description", "default", "examples", "deprecated"})
"""Schema keywords that constrain nothing."""

_FIELD = re.compile(r"[A-Za-z_]\w*", re.ASCII)


class GrammarTool(Protocol):
    """The part of a tool that its grammar and its schema are made from."""

    @property
    def name(self) -> str:
        """The name that plans call the tool by."""
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
    tools: Mapping[str, GrammarTool],
    *,
    first_id: int = 1,
    earlier_ids: Iterable[int] = (),
    thoughts: bool = True,
) -> str:
    """The GBNF grammar of plans that call these tools.

    Args:
        tools: the tools that may be called, by name.
        first_id: number of the plan's first task.
        earlier_ids: ids of earlier tasks that references may name.
        thoughts: allow ``Thought:`` lines before tasks.

    Returns:
        The rules as text; the first symbol is ``root``.
    """
    earlier_ids = sorted(set(earlier_ids))
    base = _Grammar(tools, first_id, earlier_ids, thoughts, MIN_REFERENCE_LINES).text()
    base_and_line = _Grammar(tools, first_id, earlier_ids, thoughts, MIN_REFERENCE_LINES + 1).text()
    line_size = max(1, len(base_and_line) - len(base))
    lines = min(
        MAX_REFERENCE_LINES, MIN_REFERENCE_LINES + max(0, MAX_SIZE - len(base)) // line_size
    )
    return _Grammar(tools, first_id, earlier_ids, thoughts, lines).text()


def action_grammar(tools: Mapping[str, GrammarTool]) -> str:
    """The GBNF grammar of a turn of the planner ``react``: a thought, then a call or an answer.

    Args:
        tools: the tools that may be called, by name; without tools only an answer is allowed.
    """
    return _Grammar(tools, 1, (), True, 0, root=_action_rule).text()


class _Grammar:
    """A grammar in the making: rules by name, and names of rules by their meaning."""

    def __init__(
        self,
        tools: Mapping[str, GrammarTool],
        first_id: int,
        earlier_ids: Sequence[int],
        thoughts: bool,
        lines: int,
        root: Callable[[_Grammar], str] | None = None,
    ) -> None:
        self._tools = tools
        self._rules: dict[str, str] = {}
        self._names: dict[Any, str] = {}
        self._results = _result_types(tools)
        self._last = first_id + MAX_TASKS
        fields = _field_names(self._results) if self._results is not None else None
        if fields:
            longest_first = sorted(fields, key=lambda name: (-len(name), name))
            self._rules["field"] = " | ".join(map(gbnf.literal, longest_first))
            self._strings = gbnf.STRING_OF_FIELDS
        else:
            self._strings = gbnf.STRING
        if root is None:
            self._add_plan(first_id, earlier_ids, thoughts, lines)
        else:
            self._rules["root"] = root(self)

    def text(self) -> str:
        """The text of all rules that ``root`` needs."""
        rules = self._rules | gbnf.SHARED | self._strings
        names = {"root": None}
        todo = ["root"]
        while todo:
            body = re.sub(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]', " ", rules[todo.pop()])
            for name in re.findall(r"[a-z][a-z0-9-]*", body):
                if name in rules and name not in names:
                    names[name] = None
                    todo.append(name)
        return "".join(f"{name} ::= {rules[name]}\n" for name in names)

    @property
    def has_tools(self) -> bool:
        """True if there is a tool to call."""
        return bool(self._tools)

    def _add_plan(
        self, first_id: int, earlier_ids: Sequence[int], thoughts: bool, lines: int
    ) -> None:
        thought = "thought? " if thoughts else ""
        self._rules["root"] = f"l{first_id}"
        ids = list(earlier_ids)
        for number in range(first_id, self._last + 1):
            line = number if number < first_id + lines and ids else 0
            if line:
                self._rules[f"n{line}"] = gbnf.numbers_rule(ids)
                join_arguments = f'(")" | "$" n{line} (", $" n{line})* ")")'
            else:
                join_arguments = '")"'
            join = f'"join(" {join_arguments}'
            if self._tools and number < self._last:
                call = self.call_choice(line)
                join = f'({call} "\\n" l{number + 1} | {join})'
            self._rules[f"l{number}"] = f'{thought}"{number}. " {join}'
            ids.append(number)

    # Calls.

    def call_choice(self, line: int) -> str:
        return self._rule(
            ("calls", line),
            lambda: " | ".join(self._call_rule(tool, line) for tool in self._tools.values()),
            "c",
        )

    def _call_rule(self, tool: GrammarTool, line: int) -> str:
        schema = tool.parameters_schema
        required = set(schema.get("required", ()))
        parameters = [
            (name, self._value_rule(SchemaType(value, schema), line), name in required)
            for name, value in schema.get("properties", {}).items()
        ]
        return f"{gbnf.literal(tool.name + '(')} {self._arguments_rule(parameters)}"

    def _arguments_rule(self, parameters: Sequence[tuple[str, str, bool]]) -> str:
        """The rule of the arguments and the closing parenthesis.

        Arguments by position come first, then arguments by name. The latter stand in the order of
        the parameters: any order would take a rule for each subset.
        """
        by_name: list[str] = []
        for place in range(len(parameters) + 1):
            by_name.append(self._keywords_rule(parameters, place, first=place == 0))
        rule = by_name[len(parameters)]
        for place in reversed(range(len(parameters))):
            _, value, _ = parameters[place]
            comma = '", " ' if place else ""
            rule = self._share(f"{comma}{value} {rule}")
            rule = self._share(f"{rule} | {by_name[place]}")
        return f"({rule})" if " | " in rule else rule

    def _keywords_rule(
        self, parameters: Sequence[tuple[str, str, bool]], start: int, *, first: bool
    ) -> str:
        choices: list[str] = []
        for place in range(start, len(parameters)):
            name, value, required = parameters[place]
            comma = "" if first else ", "
            following = self._keywords_rule(parameters, place + 1, first=False)
            choices.append(
                f"{gbnf.literal(comma + gbnf.parameter_name(name) + '=')} {value} {following}"
            )
            if required:
                break
        else:
            choices.append('")"')
        return self._share(" | ".join(choices))

    # Values.

    def _value_rule(self, typed: SchemaType, line: int) -> str:
        """The rule of an argument, item or field: a literal or, where allowed, a reference."""

        def body() -> str:
            choices = self._literal_choices(typed, line)
            if line and (path := self._paths_rule(typed)) is not None:
                choices.append(f'"$" n{line} {path}'.rstrip())
            return " | ".join(dict.fromkeys(choices))

        return self._rule(("value", _key(typed), line), body, "v")

    def _literal_choices(self, typed: SchemaType, line: int) -> list[str]:
        choices: list[str] = []
        kinds = [branch.resolve() for branch in typed.alternatives()]
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
                for kind in sorted(json_types(branch)):
                    if not (kind == "integer" and "type" not in schema):
                        choices.append(self._literal_rule(kind, branch, line))
        return choices

    def _literal_rule(self, kind: str, branch: SchemaType, line: int) -> str:
        schema = branch.schema
        match kind:
            case "string":
                return gbnf.string_rule(schema)
            case "integer":
                return gbnf.integer_rule(schema)
            case "number":
                least = schema.get("minimum", schema.get("exclusiveMinimum"))
                return "pos" if isinstance(least, int | float) and least >= 0 else "num"
            case "boolean":
                return "bool"
            case "array":
                return self._rule(
                    ("list", _key(branch), line), lambda: self._list_rule(branch, line)
                )
            case "object":
                return self._rule(
                    ("dict", _key(branch), line), lambda: self._dict_rule(branch, line)
                )
        return "null"

    def _list_rule(self, branch: SchemaType, line: int) -> str:
        schema, root = branch.schema, branch.root
        if isinstance(prefix := schema.get("prefixItems"), list):
            items = ' ", " '.join(self._value_rule(SchemaType(item, root), line) for item in prefix)
            return f'"[" {items} "]"'
        items = schema.get("items")
        value = self._value_rule(SchemaType(items if isinstance(items, dict) else {}, root), line)
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        least = min(least, gbnf.REPEATS)
        if most is not None and most > gbnf.REPEATS:
            most = None
        if most == 0:
            return '"[]"'
        more = gbnf.repeat(f'", " {value}', max(least - 1, 0), None if most is None else most - 1)
        return f'"[" {value} {more} "]"' if least else f'"[" ({value} {more})? "]"'

    def _dict_rule(self, branch: SchemaType, line: int) -> str:
        schema, root = branch.schema, branch.root
        properties = schema.get("properties")
        if not properties:
            additional = schema.get("additionalProperties")
            if additional is False:
                return '"{}"'
            value = self._value_rule(
                SchemaType(additional if isinstance(additional, dict) else {}, root), line
            )
            return f'"{{" (key ": " {value} (", " key ": " {value})*)? "}}"'
        required = set(schema.get("required", ()))
        fields = [
            (name, self._value_rule(SchemaType(value, root), line), name in required)
            for name, value in properties.items()
        ]
        return f'"{{" {self._fields_rule(fields, 0, first=True)}'

    def _fields_rule(
        self, fields: Sequence[tuple[str, str, bool]], start: int, *, first: bool
    ) -> str:
        choices: list[str] = []
        for place in range(start, len(fields)):
            name, value, required = fields[place]
            lead = ("" if first else ", ") + json.dumps(name, ensure_ascii=False) + ": "
            following = self._fields_rule(fields, place + 1, first=False)
            choices.append(f"{gbnf.literal(lead)} {value} {following}")
            if required:
                break
        else:
            choices.append('"}"')
        return self._share(" | ".join(choices))

    # References.

    def _paths_rule(self, typed: SchemaType) -> str | None:
        """The rule of the path behind ``$N`` for a value of this type; ``None`` if no path fits.

        A path fits if the result of some tool, or of a fan-out of it, has a fitting part there.
        """
        if self._results is None:
            return "path"

        def body() -> str:
            paths = list(dict.fromkeys(path for path in _fitting_paths(self._results or [], typed)))
            if len(paths) > MAX_PATHS:
                return "path"
            return " | ".join(path or '""' for path in paths)

        name = self._rule(("paths", _key(typed)), body, "p")
        return name if self._rules[name] else None

    # Names.

    def _rule(self, key: Any, body: Callable[[], str], prefix: str = "r") -> str:
        """The name of the rule for ``key``; the rule is made on the first request.

        The name is registered before the body is built, so that a type may contain itself.
        """
        if key not in self._names:
            name = self._names[key] = f"{prefix}{len(self._names)}"
            self._rules[name] = ""
            self._rules[name] = body()
        return self._names[key]

    def _share(self, body: str) -> str:
        """Return a short body as it is, and for a long one the name of a rule that it shares."""
        if " | " not in body and len(body) < 24:
            return body
        return self._rule(("text", body), lambda: body, "a")


def _action_rule(grammar: _Grammar) -> str:
    answer = r'"Answer: " [^\n]+'
    calls = grammar.call_choice(0)
    return f'thought ("Action: " {calls} | {answer})' if grammar.has_tools else f"thought {answer}"


def _key(typed: SchemaType) -> str:
    """A key that is equal for schemas that allow the same values."""
    plain = json.dumps(_without_silent(typed.schema), sort_keys=False, default=str)
    return f"{id(typed.root)}:{plain}" if '"$ref"' in plain else plain


def _without_silent(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {
            key: {name: _without_silent(value) for name, value in inner.items()}
            if key == "properties" and isinstance(inner, dict)
            else inner
            if key in ("enum", "const", "required")
            else _without_silent(inner)
            for key, inner in schema.items()
            if key not in SILENT_KEYWORDS
        }
    return [_without_silent(item) for item in schema] if isinstance(schema, list) else schema


# Results.


def _result_types(tools: Mapping[str, GrammarTool]) -> list[SchemaType] | None:
    """The result types of all tools; ``None`` if a tool does not declare one."""
    results: list[SchemaType] = []
    for tool in tools.values():
        schema = tool.return_schema
        if not schema or len(json_types(SchemaType(schema, schema))) > 3:
            return None
        results.append(SchemaType(schema, schema))
    return results


def _field_names(results: Sequence[SchemaType]) -> set[str]:
    names: set[str] = set()
    for result in results:
        for steps, _ in _parts(result, PATH_DEPTH):
            names.update(name for name in steps if name is not STAR and _FIELD.fullmatch(name))
    return names


def _parts(typed: SchemaType, depth: int) -> Iterator[tuple[tuple[Any, ...], SchemaType]]:
    """The parts of a value that paths lead to, and the paths; the value itself comes first."""
    yield (), typed
    if not depth:
        return
    kinds = json_types(typed)
    if "array" in kinds and (item := part_type(typed, STAR)) is not None:
        for steps, part in _parts(item, depth - 1):
            yield (STAR, *steps), part
    if "object" in kinds:
        for name in typed.fields():
            if (field := part_type(typed, name)) is not None:
                for steps, part in _parts(field, depth - 1):
                    yield (name, *steps), part


def _fitting_paths(results: Sequence[SchemaType], typed: SchemaType) -> Iterator[str]:
    """Rules of the paths that lead to a fitting part: of a result, or of a fan-out's results."""
    for result in results:
        several = SchemaType({"type": "array", "items": result.schema}, result.root)
        if fits(several, typed):
            yield ""
        for steps, part in _parts(result, PATH_DEPTH):
            if fits(part, typed):
                spelled = " ".join(map(_segment, steps))
                yield f"index? {spelled}".rstrip() if spelled else "index?"


def _segment(segment: Any) -> str:
    if segment is STAR:
        return "index"
    if _FIELD.fullmatch(segment):
        return gbnf.literal(f".{segment}")
    return gbnf.literal(f"[{json.dumps(segment, ensure_ascii=False)}]")

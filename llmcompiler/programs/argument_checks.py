"""Checks of a call of a tool: do the arguments fit its schema?"""

from __future__ import annotations

import ast
from typing import Any

from llmcompiler.plan.diagnostics import did_you_mean
from llmcompiler.plan.types import SchemaType, expected_text, fits, misfit
from llmcompiler.programs.expression_checks import ExpressionChecks
from llmcompiler.programs.operator_checks import all_of
from llmcompiler.programs.statements import Invoke
from llmcompiler.programs.value_types import (
    Alternative,
    Items,
    Record,
    Scalar,
    Type,
    of_schema,
    union,
    words,
)
from llmcompiler.tools.base import Tool

_MAX_DEPTH = 4


class ArgumentChecks(ExpressionChecks):
    """Arguments of calls against the schemas of tools."""

    def invoked(self, call: Invoke) -> Type:
        """Check a call; returns the type of its result."""
        tool = self.tools[call.tool]
        schema = tool.parameters_schema
        names = list(schema.get("properties", {}))
        place: ast.AST = call.source if call.source is not None else ast.Constant(value=None)
        self._check_names(call, tool, names, place)
        arguments = [*zip(names, call.args, strict=False), *call.kwargs]
        for value in call.args[len(names) :]:
            self.typed(value)
        for name, value in arguments:
            typed = self.typed(value)
            if name in names:
                self._check_value(tool, name, value, typed)
        # One type for each place that calls: a loop that runs often makes no further ones.
        if call.site not in self._results:
            returned = tool.return_schema
            typed = of_schema(SchemaType(returned, returned)) if returned else None
            self._results[call.site] = typed
        return self._results[call.site]

    def _check_names(self, call: Invoke, tool: Tool, names: list[str], place: ast.AST) -> None:
        schema = tool.parameters_schema
        if len(call.args) > len(names):
            count = f"{len(names)} argument{'' if len(names) == 1 else 's'}"
            self.report(
                "E301",
                f"{tool.name} takes {count}, and {len(call.args)} are given",
                call.args[len(names)],
                expected=tool.signature(),
            )
        positional = names[: len(call.args)]
        is_open = schema.get("additionalProperties") not in (None, False)
        keywords = [name for name, _ in call.kwargs]
        for name, value in call.kwargs:
            if name in positional:
                self.report(
                    "E304",
                    f"{tool.name} gets {name!r} by position and by name",
                    value,
                    expected=tool.signature(),
                )
            elif name not in names and not is_open:
                unused = [n for n in names if n not in positional and n not in keywords]
                self.report(
                    "E303",
                    f"{tool.name} has no parameter {name!r}",
                    value,
                    hint=did_you_mean(name, unused),
                    expected=tool.signature(),
                )
        present = {*positional, *keywords}
        missing = [name for name in schema.get("required", ()) if name not in present]
        if missing:
            plural = "s" if len(missing) > 1 else ""
            self.report(
                "E302",
                f"{tool.name} needs the argument{plural} {', '.join(missing)}",
                place,
                expected=tool.signature(),
            )

    def _check_value(self, tool: Tool, name: str, value: ast.expr, typed: Type) -> None:
        root = tool.parameters_schema
        target = SchemaType(root["properties"][name], root)
        self._lint(tool, name, value)
        try:
            constant: Any = ast.literal_eval(value)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            self._check_type(tool, name, value, typed, target)
            return
        problem = misfit(constant, target) if _is_json(constant) else None
        if problem is not None:
            self.report(
                "E305",
                f"{tool.name}: {name}{problem.path} {problem.message}",
                value,
                hint=problem.hint,
                expected=problem.expected,
            )

    def _check_type(
        self, tool: Tool, name: str, value: ast.expr, typed: Type, target: SchemaType
    ) -> None:
        if not typed or any(_fits(alt, target) for alt in typed):
            return
        self.report(
            "E307",
            f"{tool.name}: {name} takes {expected_text(target)}, and {self.text(value)} is "
            f"{words(typed)}",
            value,
            hint=self._fitting(tool, name, self.text(value), typed, target),
        )

    def _fitting(self, tool: Tool, name: str, text: str, typed: Type, target: SchemaType) -> str:
        if all_of(typed, Items):
            item = union(*(alt.item for alt in typed or () if isinstance(alt, Items)))
            if item and any(_fits(alt, target) for alt in item):
                return f"one call for each: [{tool.name}(item) for item in {text}]"
        for alt in typed or ():
            if isinstance(alt, Record):
                fields = alt.schema.fields()
                for field in sorted(fields, key=lambda field: field != name):
                    field_type = alt.field_type(field)
                    if field_type and all(_fits(former, target) for former in field_type):
                        return f"a field of it fits: {text}.{field}"
        return ""

    def _lint(self, tool: Tool, name: str, value: ast.expr) -> None:
        pieces = _text_pieces(value)
        if tool.lint is None or not pieces:
            return
        problem = tool.lint(name, pieces)
        if problem is not None:
            linted = (tool.name, name, problem, *pieces)
            self.report("E309", f"{tool.name}: {name}: {problem}", value, linted=linted)


def _fits(alt: Alternative, target: SchemaType) -> bool:
    schema = _schema_of(alt, 0)
    return schema is None or fits(schema, target) is not False


def _schema_of(alt: Alternative, depth: int) -> SchemaType | None:
    """An alternative as a JSON schema; ``None`` if it has none that is known."""
    match alt:
        case Scalar():
            return SchemaType({"type": alt.kind}, {})
        case Record():
            return None if alt.is_open or alt.extra else alt.schema
        case Items():
            items: Any = {}
            if alt.item and len(alt.item) == 1 and depth < _MAX_DEPTH:
                inner = _schema_of(alt.item[0], depth + 1)
                if inner is not None:
                    return SchemaType({"type": "array", "items": inner.schema}, inner.root)
            return SchemaType({"type": "array", "items": items}, {})
    return SchemaType({"type": "object"}, {})


def _is_json(value: Any) -> bool:
    match value:
        case dict():
            return all(isinstance(key, str) and _is_json(item) for key, item in value.items())
        case list() | tuple():
            return all(map(_is_json, value))
    return value is None or isinstance(value, bool | int | float | str)


def _text_pieces(value: ast.expr) -> list[str]:
    """The pieces of a text before, between and behind computed parts; none if it is no text."""
    match value:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=values) if any(isinstance(v, ast.Constant) for v in values):
            pieces = [""]
            for part in values:
                if isinstance(part, ast.Constant):
                    pieces[-1] += str(part.value)
                else:
                    pieces.append("")
            return pieces
    return []

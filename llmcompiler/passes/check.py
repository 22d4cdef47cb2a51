"""The checker: does a plan fit the tools that it calls? It runs before any call does.

It works task by task, so a streamed plan is checked as it arrives. It sees only a tool's schemas,
and refuses only calls that are bound to fail: a value that pydantic's lax mode would convert, such
as ``"5"`` for a number, fits, and where a schema is silent, any value fits. Values that depend on
results are checked again when a call is bound.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any, TypeAlias

from llmcompiler.passes.base import TaskLocation, ToolView
from llmcompiler.plan.diagnostics import Diagnostic, Span, did_you_mean
from llmcompiler.plan.expressions import (
    STAR,
    CodeExpr,
    DictExpr,
    Expr,
    Input,
    ListExpr,
    Literal,
    Reference,
    Template,
    make_dict,
    make_list,
    path_text,
)
from llmcompiler.plan.model import Plan, PlanInput, Task
from llmcompiler.plan.types import (
    SchemaType,
    expected_text,
    fits,
    fixed_length,
    json_types,
    misfit,
    part_type,
)

Schema: TypeAlias = dict[str, Any]


def check_plan(
    plan: Plan, tools: Mapping[str, ToolView], spans: Mapping[int, TaskLocation] | None = None
) -> tuple[Plan, list[Diagnostic]]:
    """Check every task of a plan.

    Args:
        plan: any plan.
        tools: what it may call, by name.
        spans: where tasks stand in the plan's text, if it has one.

    Returns:
        The plan, with slips corrected that can be read in one way only, and the diagnostics.
    """
    result_types: dict[int, SchemaType | None] = {}
    tasks: list[Task] = []
    diagnostics: list[Diagnostic] = []
    for task in plan.tasks:
        checked, about_task = check_task(
            task, tools=tools, result_types=result_types, spans=spans, inputs=plan.inputs
        )
        tasks.append(checked)
        diagnostics += about_task
    is_changed = any(new is not old for new, old in zip(tasks, plan.tasks, strict=True))
    return (plan.model_copy(update={"tasks": tuple(tasks)}) if is_changed else plan), diagnostics


def check_task(
    task: Task,
    *,
    tools: Mapping[str, ToolView],
    result_types: MutableMapping[int, SchemaType | None],
    spans: Mapping[int, TaskLocation] | None = None,
    inputs: Iterable[PlanInput] = (),
) -> tuple[Task, list[Diagnostic]]:
    """Check one task.

    Args:
        task: refers only to tasks above it.
        tools: what may be called, by name.
        result_types: types of the results of the tasks above, by id; the type of this task's
            result is added. A task that is missing may have any result.
        spans: where tasks stand in the plan's text, if it has one.
        inputs: the plan's inputs.

    Returns:
        The task, with slips corrected that can be read in one way only, and the diagnostics. The
        task can be used unless one of these is an error.
    """
    tool = tools.get(task.tool)
    location = spans.get(task.id) if spans is not None else None
    if tool is None:
        result_types[task.id] = None
        span = location.span(location.tool) if location is not None else None
        return task, [_unknown_tool(task, tools, span)]
    sources = _SourceTypes(result_types, {declared.name: declared for declared in inputs})
    check = _TaskCheck(task, tool, sources, location, tools)
    checked = check.run()
    result_types[task.id] = sources.result_type(checked, tool)
    return checked, check.diagnostics


class _SourceTypes:
    """Types of results and inputs, to which references lead."""

    def __init__(
        self, result_types: Mapping[int, SchemaType | None], inputs: Mapping[str, PlanInput]
    ) -> None:
        self._result_types = result_types
        self._inputs = inputs

    def source_type(self, ref: Reference | Input) -> SchemaType | None:
        """The type of the result or input at which ``ref`` starts; ``None`` if it is not known."""
        if isinstance(ref, Reference):
            return self._result_types.get(ref.task)
        declared = self._inputs.get(ref.name)
        if declared is None or declared.type == "any":
            return None
        return SchemaType({"type": declared.type}, {})

    def result_type(self, task: Task, tool: ToolView) -> SchemaType | None:
        """The type of the task's result: the tool's, in a list for each fan-out dimension."""
        root = tool.return_schema or {}
        if not (task.rank or root):
            return None
        schema: Schema = root
        lengths = {level: length for _, level, length in self.lengths(task)}
        for level in reversed(range(task.rank)):
            schema = {"type": "array", "items": schema}
            if level in lengths:
                schema["minItems"] = schema["maxItems"] = lengths[level]
        return SchemaType(schema, root)

    def lengths(self, task: Task) -> Iterator[tuple[Reference | Input, int, int]]:
        """Every ``[*]`` behind a list of known length: reference, dimension from 0, length."""
        for ref in dict.fromkeys(task.references()):
            if STAR not in ref.path:
                continue
            current = self.source_type(ref)
            level = 0
            for segment in ref.path:
                if current is None:
                    break
                if segment is STAR:
                    if (length := fixed_length(current)) is not None:
                        yield ref, level, length
                    level += 1
                current = part_type(current, segment)


def _unknown_tool(task: Task, tools: Mapping[str, ToolView], span: Span | None) -> Diagnostic:
    names = sorted(tools)
    some_names = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return Diagnostic.at(
        span,
        "E203",
        f'unknown tool "{task.tool}"',
        expected=some_names,
        hint=did_you_mean(task.tool, tools),
        task=task.id,
    )


class _TaskCheck:
    def __init__(
        self,
        task: Task,
        tool: ToolView,
        sources: _SourceTypes,
        location: TaskLocation | None,
        tools: Iterable[str],
    ) -> None:
        self._task = task
        self._tools = tools
        self._tool = tool
        self._sources = sources
        self._location = location
        self._root = tool.parameters_schema
        self._properties: Mapping[str, Any] = self._root.get("properties", {})
        self.diagnostics: list[Diagnostic] = []

    def run(self) -> Task:
        task = self._task
        names = list(self._properties)
        self._check_names(names)
        self._check_fan_out()
        args = [
            self._check_argument(name, expr, self._arg_span(position))
            for position, (name, expr) in enumerate(zip(names, task.args, strict=False))
        ]
        args += task.args[len(names) :]
        kwargs = {
            name: self._check_argument(name, expr, self._kwarg_span(name))
            if name in self._properties
            else self._check_additional(name, expr)
            for name, expr in task.kwargs.items()
        }
        if tuple(args) == task.args and kwargs == task.kwargs:
            return task
        return task.model_copy(update={"args": tuple(args), "kwargs": kwargs})

    # Places.

    def _report(
        self, code: str, message: str, span: Span | None, *, hint: str = "", expected: str = ""
    ) -> None:
        self.diagnostics.append(
            Diagnostic.at(span, code, message, hint=hint, expected=expected, task=self._task.id)
        )

    def _tool_span(self) -> Span | None:
        return self._location.span(self._location.tool) if self._location is not None else None

    def _arg_span(self, position: int) -> Span | None:
        location = self._location
        return location.span(location.args[position]) if location is not None else None

    def _kwarg_span(self, name: str) -> Span | None:
        location = self._location
        return location.span(location.kwargs[name]) if location is not None else None

    def _signature(self) -> str:
        required = self._root.get("required", ())
        parameters = [
            f"{name}: {expected_text(SchemaType(schema, self._root))}"
            + ("" if name in required else " = …")
            for name, schema in self._properties.items()
        ]
        return f"{self._tool.name}({', '.join(parameters)})"

    # Names of arguments.

    def _check_names(self, names: list[str]) -> None:
        task, tool = self._task, self._tool
        if len(task.args) > len(names):
            count = f"{len(names)} argument{'' if len(names) == 1 else 's'}"
            self._report(
                "E301",
                f"{tool.name} takes {count}, and {len(task.args)} are given",
                self._arg_span(len(names)),
                expected=self._signature(),
            )
        positional = names[: len(task.args)]
        open_ended = self._root.get("additionalProperties") not in (None, False)
        for name in task.kwargs:
            if name in positional:
                self._report(
                    "E304",
                    f"{tool.name} gets {name!r} by position and by name",
                    self._kwarg_span(name),
                    expected=self._signature(),
                )
            elif name not in self._properties and not open_ended:
                unused = [n for n in names if n not in positional and n not in task.kwargs]
                self._report(
                    "E303",
                    f"{tool.name} has no parameter {name!r}",
                    self._kwarg_span(name),
                    hint=did_you_mean(name, unused),
                    expected=self._signature(),
                )
        present = {*positional, *task.kwargs}
        missing = [name for name in self._root.get("required", ()) if name not in present]
        if missing:
            plural = "s" if len(missing) > 1 else ""
            self._report(
                "E302",
                f"{tool.name} needs the argument{plural} {', '.join(missing)}",
                self._tool_span(),
                expected=self._signature(),
            )

    # Values of arguments.

    def _check_argument(self, name: str, expr: Expr, span: Span | None) -> Expr:
        checked = self._check_expr(expr, SchemaType(self._properties[name], self._root), name, span)
        if self._tool.lint is not None and (pieces := _text_pieces(checked)):
            self._lint(name, pieces, span)
        return checked

    def _lint(self, name: str, pieces: Sequence[str], span: Span | None) -> None:
        problem = self._tool.lint(name, pieces) if self._tool.lint is not None else None
        if problem is None:
            return
        called_names = _CALLED_NAME.findall(" ".join(pieces))
        tool_name = next(
            (name for name in called_names if name in self._tools and repr(name) in problem), None
        )
        self._report(
            "E309",
            f"{self._tool.name}: {name}: {problem}",
            span,
            hint=f"{tool_name} is a tool: call it in a line of its own, and refer to its result as "
            "$N"
            if tool_name is not None
            else "",
        )
        linted = (self._tool.name, name, problem, *pieces)
        self.diagnostics[-1] = dataclasses.replace(self.diagnostics[-1], linted=linted)

    def _check_additional(self, name: str, expr: Expr) -> Expr:
        additional = self._root.get("additionalProperties")
        schema = additional if isinstance(additional, dict) else {}
        return self._check_expr(expr, SchemaType(schema, self._root), name, self._kwarg_span(name))

    def _check_expr(self, expr: Expr, target: SchemaType, argument: str, span: Span | None) -> Expr:
        match expr:
            case Literal():
                if (problem := misfit(expr.value, target)) is not None:
                    self._report(
                        "E305",
                        f"{self._tool.name}: {argument}{problem.path} {problem.message}",
                        span,
                        hint=problem.hint,
                        expected=problem.expected,
                    )
                return expr
            case Reference() | Input():
                self._check_reference(expr, target, argument, span)
                return expr
            case Template():
                return self._check_template(expr, target, argument, span)
            case ListExpr():
                return self._check_list(expr, target, argument, span)
            case DictExpr():
                return self._check_dict(expr, target, argument, span)
            case CodeExpr():
                return expr  # the program's compiler has checked it

    def _check_template(
        self, expr: Template, target: SchemaType, argument: str, span: Span | None
    ) -> Expr:
        text = {"type": "string"}
        takes_text = fits(SchemaType(text, text), target)
        only_part = expr.parts[0] if len(expr.parts) == 1 else None
        if (
            "string" not in json_types(target)
            and only_part is not None
            and not isinstance(only_part, str)
        ):
            self._report(
                "W301",
                f"{self._tool.name}: {argument} takes {expected_text(target)}, so "
                f'"{only_part}" was read without its quotes',
                span,
                expected=str(only_part),
            )
            self._check_reference(only_part, target, argument, span)
            return only_part
        for part in expr.parts:
            if not isinstance(part, str):
                self._resolve(part, span)
        if takes_text is False:
            self._report(
                "E305",
                f"{self._tool.name}: {argument} takes {expected_text(target)}, not text",
                span,
                hint="compute it in a task of its own, and refer to that task's result",
            )
        elif takes_text is None:
            self._doubt(target, argument, span)
        return expr

    def _check_list(
        self, expr: ListExpr, target: SchemaType, argument: str, span: Span | None
    ) -> Expr:
        branch = self._only_branch(target, "array")
        if branch is None:
            self._wrong_kind("a list", target, argument, span)
            return expr
        return make_list(
            [
                self._check_expr(
                    item, part_type(branch, number) or _ANYTHING, f"{argument}[{number}]", span
                )
                for number, item in enumerate(expr.items)
            ]
        )

    def _check_dict(
        self, expr: DictExpr, target: SchemaType, argument: str, span: Span | None
    ) -> Expr:
        branch = self._only_branch(target, "object")
        if branch is None:
            self._wrong_kind("a dict", target, argument, span)
            return expr
        entries: dict[str, Expr] = {}
        for key, value in expr.entries:
            field_type = part_type(branch, key)
            if field_type is None:
                fields = list(branch.schema.get("properties", {}))
                self._report(
                    "E305",
                    f"{self._tool.name}: {argument} has no field {key!r}",
                    span,
                    hint=did_you_mean(key, fields),
                    expected=", ".join(fields),
                )
            entries[key] = self._check_expr(
                value, field_type or _ANYTHING, f"{argument}.{key}", span
            )
        for key in branch.schema.get("required", ()):
            if key not in entries:
                self._report(
                    "E305",
                    f"{self._tool.name}: {argument} lacks the field {key!r}",
                    span,
                    expected=expected_text(branch),
                )
        return make_dict(entries)

    def _only_branch(self, target: SchemaType, kind: str) -> SchemaType | None:
        """The alternative for a list or dict; a type without constraints if there are several."""
        branches = [branch for branch in target.alternatives() if kind in json_types(branch)]
        if not branches:
            return None
        return branches[0] if len(branches) == 1 else _ANYTHING

    def _wrong_kind(self, kind: str, target: SchemaType, argument: str, span: Span | None) -> None:
        self._report(
            "E305",
            f"{self._tool.name}: {argument} takes {expected_text(target)}, not {kind}",
            span,
        )

    # References.

    def _check_reference(
        self, ref: Reference | Input, target: SchemaType, argument: str, span: Span | None
    ) -> None:
        ref_type = self._resolve(ref, span)
        if ref_type is None:
            return
        verdict = fits(ref_type, target)
        if verdict is None and isinstance(ref, Reference) and not _leads_into_object(ref):
            self._doubt(target, argument, span)
        elif not verdict:
            text = expected_text(ref_type)
            self._report(
                "E307",
                f"{self._tool.name}: {argument} takes {expected_text(target)}, and {ref} is {text}",
                span,
                hint=self._suggest(ref, ref_type, target),
            )

    def _suggest(self, ref: Reference | Input, ref_type: SchemaType, target: SchemaType) -> str:
        """A hint: what the reference may have been meant to be."""
        kinds = json_types(ref_type)
        if kinds == {"array"}:
            item = part_type(ref_type, STAR)
            if item is not None and fits(item, target):
                return f"one call for each item: {ref}[*]"
        if "object" in kinds:
            for name in ref_type.fields():
                field = part_type(ref_type, name)
                if field is not None and fits(field, target):
                    return f"a field of it fits: {ref}{path_text((name,))}"
        for name in target.fields():
            field, target_field = part_type(ref_type, name), part_type(target, name)
            if field is None or target_field is None or fits(field, target_field) is not False:
                continue
            field_ref = f"{ref}{path_text((name,))}"
            return f"{field_ref} is {expected_text(field)}, not {expected_text(target_field)}"
        if json_types(target) == {"string"}:
            return f'as text: "{ref}"'
        return ""

    def _doubt(self, target: SchemaType, argument: str, span: Span | None) -> None:
        self._report(
            "W302",
            f"{self._tool.name}: {argument} takes {expected_text(target)}, and gets text",
            span,
        )

    def _resolve(self, ref: Reference | Input, span: Span | None) -> SchemaType | None:
        """The type of what a reference names; ``None`` if it is not known or does not exist."""
        current = self._sources.source_type(ref)
        for number, segment in enumerate(ref.path):
            if current is None:
                return None
            part = part_type(current, segment)
            if part is None:
                self._report_missing_part(ref, number, current, span)
                return None
            current = part
        return current

    def _report_missing_part(
        self, ref: Reference | Input, number: int, outer: SchemaType, span: Span | None
    ) -> None:
        segment = ref.path[number]
        root = f"${ref.task}" if isinstance(ref, Reference) else f"${ref.name}"
        outer_ref = root + path_text(ref.path[:number])
        fields = outer.fields()
        hint = did_you_mean(segment, fields) if isinstance(segment, str) else ""
        if not hint and isinstance(segment, str) and json_types(outer) == {"array"}:
            item = part_type(outer, STAR)
            if item is not None and part_type(item, segment) is not None:
                hint = f"for each item: {outer_ref}[*]{path_text((segment,))}"
        self._report(
            "E306",
            f"{ref}: {outer_ref} is {expected_text(outer)}, which has no {_segment_text(segment)}",
            span,
            hint=hint,
            expected=", ".join(fields),
        )

    # Fan-outs.

    def _check_fan_out(self) -> None:
        if not self._task.rank:
            return
        firsts: dict[int, tuple[Reference | Input, int]] = {}
        for ref, level, length in self._sources.lengths(self._task):
            first, first_length = firsts.setdefault(level, (ref, length))
            if first_length != length:
                self._report(
                    "E308",
                    f"{first} has {first_length} elements and {ref} has {length}",
                    self._tool_span(),
                    hint="starred references of one task run along together",
                )


_ANYTHING = SchemaType({}, {})
_CALLED_NAME = re.compile(r"([^\W\d][\w.\-]*)\s*\(")


def _text_pieces(expr: Expr) -> list[str]:
    """The pieces of text before, between and behind references; none if it is no text."""
    match expr:
        case Literal(value=str(text)):
            return [text]
        case Template(parts=parts) if any(isinstance(part, str) for part in parts):
            pieces = [""]
            for part in parts:
                if isinstance(part, str):
                    pieces[-1] += part
                else:
                    pieces.append("")
            return pieces
    return []


def _leads_into_object(ref: Reference) -> bool:
    """True if the reference is to a named field, whose type was declared on purpose."""
    return any(isinstance(segment, str) for segment in ref.path)


def _segment_text(segment: object) -> str:
    if segment is STAR:
        return "elements to fan out over"
    return f"field {segment!r}" if isinstance(segment, str) else f"element {segment}"

"""The checker: does a plan fit the tools it calls? Runs before any call does.

Works task by task, so that a streamed plan is checked as it arrives. It knows a tool by its schemas
only, and says no only where a call is bound to fail: what pydantic's lax mode would convert, such
as ``"5"`` for a number, fits, and where a schema is silent anything goes. Values that depend on the
data are checked again when a call is bound. The module must not know parsing or execution.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any, Protocol, TypeAlias

from llmcompiler.plan.diagnostics import Diagnostic, Span, did_you_mean
from llmcompiler.plan.expressions import (
    STAR,
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
    Typed,
    expected_text,
    fits,
    length_of,
    misfit,
    step,
    types_of,
)

Schema: TypeAlias = dict[str, Any]


class ToolView(Protocol):
    """What the checker knows of a tool."""

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

    @property
    def lint(self) -> Callable[[str, Sequence[str]], str | None] | None:
        """What is wrong with a text argument, given as the pieces between its references."""
        ...


class Source(Protocol):
    """Where a task stands in a plan's text; the parser's ``CallSource`` is one."""

    @property
    def tool(self) -> tuple[int, int]:
        """Offsets of the tool's name."""
        ...

    @property
    def args(self) -> tuple[tuple[int, int], ...]:
        """Offsets of the positional arguments."""
        ...

    @property
    def kwargs(self) -> Mapping[str, tuple[int, int]]:
        """Offsets of the keyword arguments' values."""
        ...

    def span(self, offsets: tuple[int, int]) -> Span:
        """The place that the offsets mean."""
        ...


def check_plan(
    plan: Plan, tools: Mapping[str, ToolView], spans: Mapping[int, Source] | None = None
) -> tuple[Plan, list[Diagnostic]]:
    """Check every task of a plan.

    Args:
        plan: any plan.
        tools: what it may call, by name.
        spans: where its tasks stand in its text, if it has one.

    Returns:
        The plan, slips of which only one reading is possible put right, and what was found.
    """
    produced: dict[int, Typed | None] = {}
    tasks: list[Task] = []
    found: list[Diagnostic] = []
    for task in plan.tasks:
        checked, diagnostics = check_task(
            task, tools=tools, produced=produced, spans=spans, inputs=plan.inputs
        )
        tasks.append(checked)
        found += diagnostics
    changed = any(new is not old for new, old in zip(tasks, plan.tasks, strict=True))
    return (plan.model_copy(update={"tasks": tuple(tasks)}) if changed else plan), found


def check_task(
    task: Task,
    *,
    tools: Mapping[str, ToolView],
    produced: MutableMapping[int, Typed | None],
    spans: Mapping[int, Source] | None = None,
    inputs: Iterable[PlanInput] = (),
) -> tuple[Task, list[Diagnostic]]:
    """Check one task.

    Args:
        task: refers only to tasks above it.
        tools: what may be called, by name.
        produced: types of the results of the tasks above, to which the task's own is added; one
            that is not in it may have any result.
        spans: where tasks stand in the plan's text, if it has one.
        inputs: the plan's inputs.

    Returns:
        The task, slips of which only one reading is possible put right, and what was found. The
        task can be used unless one of them is an error.
    """
    tool = tools.get(task.tool)
    source = spans.get(task.id) if spans is not None else None
    if tool is None:
        produced[task.id] = None
        return task, [
            _unknown_tool(task, tools, source.span(source.tool) if source is not None else None)
        ]
    results = _Results(produced, {given.name: given for given in inputs})
    check = _TaskCheck(task, tool, results, source, tools)
    checked = check.run()
    produced[task.id] = results.made_by(checked, tool)
    return checked, check.found


class _Results:
    """Types of what references can name: results of tasks, and inputs."""

    def __init__(
        self, produced: Mapping[int, Typed | None], inputs: Mapping[str, PlanInput]
    ) -> None:
        self._produced = produced
        self._inputs = inputs

    def of(self, ref: Reference | Input) -> Typed | None:
        """The type of what ``ref`` starts from; ``None`` where nothing is known of it."""
        if isinstance(ref, Reference):
            return self._produced.get(ref.task)
        given = self._inputs.get(ref.name)
        return None if given is None or given.type == "any" else Typed({"type": given.type}, {})

    def made_by(self, task: Task, tool: ToolView) -> Typed | None:
        """The type of the task's result: a list for each dimension of its fan-out."""
        root = tool.return_schema or {}
        if not (task.rank or root):
            return None
        wrapped: Schema = root
        lengths = {level: length for _, level, length in self.lengths(task)}
        for level in reversed(range(task.rank)):
            wrapped = {"type": "array", "items": wrapped}
            if level in lengths:
                wrapped["minItems"] = wrapped["maxItems"] = lengths[level]
        return Typed(wrapped, root)

    def lengths(self, task: Task) -> Iterator[tuple[Reference | Input, int, int]]:
        """Every ``[*]`` that runs along a list of known length: reference, dimension, length."""
        for ref in dict.fromkeys(task.references()):
            if STAR not in ref.path:
                continue
            at = self.of(ref)
            level = 0
            for segment in ref.path:
                if at is None:
                    break
                if segment is STAR:
                    if (length := length_of(at)) is not None:
                        yield ref, level, length
                    level += 1
                at = step(at, segment)


def _unknown_tool(task: Task, tools: Mapping[str, ToolView], span: Span | None) -> Diagnostic:
    names = sorted(tools)
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return Diagnostic.at(
        span,
        "E203",
        f'unknown tool "{task.tool}"',
        expected=shown,
        hint=did_you_mean(task.tool, tools),
        task=task.id,
    )


class _TaskCheck:
    def __init__(
        self,
        task: Task,
        tool: ToolView,
        results: _Results,
        source: Source | None,
        tools: Iterable[str],
    ) -> None:
        self._task = task
        self._tools = tools
        self._tool = tool
        self._results = results
        self._source = source
        self._root = tool.parameters_schema
        self._properties: Mapping[str, Any] = self._root.get("properties", {})
        self.found: list[Diagnostic] = []

    def run(self) -> Task:
        task = self._task
        names = list(self._properties)
        self._check_names(names)
        self._check_fan_out()
        args = [
            self._check_argument(name, expr, self._arg_span(place))
            for place, (name, expr) in enumerate(zip(names, task.args, strict=False))
        ]
        args += task.args[len(names) :]
        kwargs = {
            name: self._check_argument(name, expr, self._kwarg_span(name))
            if name in self._properties
            else self._check_rest(name, expr)
            for name, expr in task.kwargs.items()
        }
        if tuple(args) == task.args and kwargs == task.kwargs:
            return task
        return task.model_copy(update={"args": tuple(args), "kwargs": kwargs})

    # Places.

    def _say(
        self, code: str, message: str, span: Span | None, *, hint: str = "", expected: str = ""
    ) -> None:
        self.found.append(
            Diagnostic.at(span, code, message, hint=hint, expected=expected, task=self._task.id)
        )

    def _tool_span(self) -> Span | None:
        return self._source.span(self._source.tool) if self._source is not None else None

    def _arg_span(self, place: int) -> Span | None:
        source = self._source
        return source.span(source.args[place]) if source is not None else None

    def _kwarg_span(self, name: str) -> Span | None:
        source = self._source
        return source.span(source.kwargs[name]) if source is not None else None

    def _signature(self) -> str:
        required = self._root.get("required", ())
        shown = [
            f"{name}: {expected_text(Typed(schema, self._root))}"
            + ("" if name in required else " = …")
            for name, schema in self._properties.items()
        ]
        return f"{self._tool.name}({', '.join(shown)})"

    # Which arguments there are.

    def _check_names(self, names: list[str]) -> None:
        task, tool = self._task, self._tool
        if len(task.args) > len(names):
            takes = f"{len(names)} argument{'' if len(names) == 1 else 's'}"
            self._say(
                "E301",
                f"{tool.name} takes {takes}, and {len(task.args)} are given",
                self._arg_span(len(names)),
                expected=self._signature(),
            )
        positional = names[: len(task.args)]
        open_ended = self._root.get("additionalProperties") not in (None, False)
        for name in task.kwargs:
            if name in positional:
                self._say(
                    "E304",
                    f"{tool.name} gets {name!r} by position and by name",
                    self._kwarg_span(name),
                    expected=self._signature(),
                )
            elif name not in self._properties and not open_ended:
                left = [one for one in names if one not in positional and one not in task.kwargs]
                self._say(
                    "E303",
                    f"{tool.name} has no parameter {name!r}",
                    self._kwarg_span(name),
                    hint=did_you_mean(name, left),
                    expected=self._signature(),
                )
        given = {*positional, *task.kwargs}
        missing = [name for name in self._root.get("required", ()) if name not in given]
        if missing:
            many = "s" if len(missing) > 1 else ""
            self._say(
                "E302",
                f"{tool.name} needs the argument{many} {', '.join(missing)}",
                self._tool_span(),
                expected=self._signature(),
            )

    # What they are.

    def _check_argument(self, name: str, expr: Expr, span: Span | None) -> Expr:
        checked = self._check_expr(expr, Typed(self._properties[name], self._root), name, span)
        if self._tool.lint is not None and (pieces := _text_pieces(checked)):
            self._lint(name, pieces, span)
        return checked

    def _lint(self, name: str, pieces: Sequence[str], span: Span | None) -> None:
        problem = self._tool.lint(name, pieces) if self._tool.lint is not None else None
        if problem is None:
            return
        called = _CALLED.findall(" ".join(pieces))
        other = next((one for one in called if one in self._tools and repr(one) in problem), None)
        self._say(
            "E309",
            f"{self._tool.name}: {name}: {problem}",
            span,
            hint=f"{other} is a tool: call it in a line of its own, and refer to its result as $N"
            if other is not None
            else "",
        )
        linted = (self._tool.name, name, problem, *pieces)
        self.found[-1] = dataclasses.replace(self.found[-1], linted=linted)

    def _check_rest(self, name: str, expr: Expr) -> Expr:
        rest = self._root.get("additionalProperties")
        schema = rest if isinstance(rest, dict) else {}
        return self._check_expr(expr, Typed(schema, self._root), name, self._kwarg_span(name))

    def _check_expr(self, expr: Expr, wanted: Typed, place: str, span: Span | None) -> Expr:
        match expr:
            case Literal():
                if (problem := misfit(expr.value, wanted)) is not None:
                    self._say(
                        "E305",
                        f"{self._tool.name}: {place}{problem.where} {problem.message}",
                        span,
                        hint=problem.hint,
                        expected=problem.expected,
                    )
                return expr
            case Reference() | Input():
                self._check_reference(expr, wanted, place, span)
                return expr
            case Template():
                return self._check_template(expr, wanted, place, span)
            case ListExpr():
                return self._check_list(expr, wanted, place, span)
            case DictExpr():
                return self._check_dict(expr, wanted, place, span)

    def _check_template(self, expr: Template, wanted: Typed, place: str, span: Span | None) -> Expr:
        text = {"type": "string"}
        takes_text = fits(Typed(text, text), wanted)
        lone = expr.parts[0] if len(expr.parts) == 1 else None
        if "string" not in types_of(wanted) and lone is not None and not isinstance(lone, str):
            self._say(
                "W301",
                f'{self._tool.name}: {place} takes {expected_text(wanted)}, so "{lone}" was read '
                "without its quotes",
                span,
                expected=str(lone),
            )
            self._check_reference(lone, wanted, place, span)
            return lone
        for part in expr.parts:
            if not isinstance(part, str):
                self._resolve(part, span)
        if takes_text is False:
            self._say(
                "E305",
                f"{self._tool.name}: {place} takes {expected_text(wanted)}, not text",
                span,
                hint="compute it in a task of its own, and refer to that task's result",
            )
        elif takes_text is None:
            self._doubt(wanted, place, span)
        return expr

    def _check_list(self, expr: ListExpr, wanted: Typed, place: str, span: Span | None) -> Expr:
        branch = self._only_branch(wanted, "array")
        if branch is None:
            self._wrong_kind("a list", wanted, place, span)
            return expr
        return make_list(
            [
                self._check_expr(
                    item, step(branch, number) or _ANYTHING, f"{place}[{number}]", span
                )
                for number, item in enumerate(expr.items)
            ]
        )

    def _check_dict(self, expr: DictExpr, wanted: Typed, place: str, span: Span | None) -> Expr:
        branch = self._only_branch(wanted, "object")
        if branch is None:
            self._wrong_kind("a dict", wanted, place, span)
            return expr
        entries: dict[str, Expr] = {}
        for key, value in expr.entries:
            inner = step(branch, key)
            if inner is None:
                known = list(branch.schema.get("properties", {}))
                self._say(
                    "E305",
                    f"{self._tool.name}: {place} has no field {key!r}",
                    span,
                    hint=did_you_mean(key, known),
                    expected=", ".join(known),
                )
            entries[key] = self._check_expr(value, inner or _ANYTHING, f"{place}.{key}", span)
        for key in branch.schema.get("required", ()):
            if key not in entries:
                self._say(
                    "E305",
                    f"{self._tool.name}: {place} lacks the field {key!r}",
                    span,
                    expected=expected_text(branch),
                )
        return make_dict(entries)

    def _only_branch(self, wanted: Typed, kind: str) -> Typed | None:
        """The alternative for a list or dict; anything at all where several could be meant."""
        branches = [one for one in wanted.branches() if kind in types_of(one)]
        if not branches:
            return None
        return branches[0] if len(branches) == 1 else _ANYTHING

    def _wrong_kind(self, what: str, wanted: Typed, place: str, span: Span | None) -> None:
        self._say(
            "E305",
            f"{self._tool.name}: {place} takes {expected_text(wanted)}, not {what}",
            span,
        )

    # References.

    def _check_reference(
        self, ref: Reference | Input, wanted: Typed, place: str, span: Span | None
    ) -> None:
        given = self._resolve(ref, span)
        if given is None:
            return
        verdict = fits(given, wanted)
        if verdict is None and isinstance(ref, Reference) and not _leads_into_object(ref):
            self._doubt(wanted, place, span)
        elif not verdict:
            text = expected_text(given)
            self._say(
                "E307",
                f"{self._tool.name}: {place} takes {expected_text(wanted)}, and {ref} is {text}",
                span,
                hint=self._way_out(ref, given, wanted),
            )

    def _way_out(self, ref: Reference | Input, given: Typed, wanted: Typed) -> str:
        """How the reference might have been meant."""
        kinds = types_of(given)
        if kinds == {"array"}:
            item = step(given, STAR)
            if item is not None and fits(item, wanted):
                return f"one call for each item: {ref}[*]"
        if "object" in kinds:
            for name in given.fields():
                field = step(given, name)
                if field is not None and fits(field, wanted):
                    return f"a field of it fits: {ref}{path_text((name,))}"
        for name in wanted.fields():
            mine, other = step(given, name), step(wanted, name)
            if mine is not None and other is not None and fits(mine, other) is False:
                at = f"{ref}{path_text((name,))}"
                return f"{at} is {expected_text(mine)}, not {expected_text(other)}"
        if types_of(wanted) == {"string"}:
            return f'as text: "{ref}"'
        return ""

    def _doubt(self, wanted: Typed, place: str, span: Span | None) -> None:
        self._say(
            "W302",
            f"{self._tool.name}: {place} takes {expected_text(wanted)}, and gets text",
            span,
        )

    def _resolve(self, ref: Reference | Input, span: Span | None) -> Typed | None:
        """The type that a reference passes on; ``None`` where nothing is known, or it is wrong."""
        at = self._results.of(ref)
        for number, segment in enumerate(ref.path):
            if at is None:
                return None
            inner = step(at, segment)
            if inner is None:
                self._no_such_part(ref, number, at, span)
                return None
            at = inner
        return at

    def _no_such_part(
        self, ref: Reference | Input, number: int, at: Typed, span: Span | None
    ) -> None:
        segment = ref.path[number]
        root = f"${ref.task}" if isinstance(ref, Reference) else f"${ref.name}"
        where = root + path_text(ref.path[:number])
        known = at.fields()
        hint = did_you_mean(segment, known) if isinstance(segment, str) else ""
        if not hint and isinstance(segment, str) and types_of(at) == {"array"}:
            item = step(at, STAR)
            if item is not None and step(item, segment) is not None:
                hint = f"for each item: {where}[*]{path_text((segment,))}"
        self._say(
            "E306",
            f"{ref}: {where} is {expected_text(at)}, which has no {_spoken(segment)}",
            span,
            hint=hint,
            expected=", ".join(known),
        )

    # Fan-outs.

    def _check_fan_out(self) -> None:
        if not self._task.rank:
            return
        seen: dict[int, tuple[Reference | Input, int]] = {}
        for ref, level, length in self._results.lengths(self._task):
            first, known = seen.setdefault(level, (ref, length))
            if known != length:
                self._say(
                    "E308",
                    f"{first} has {known} elements and {ref} has {length}",
                    self._tool_span(),
                    hint="starred references of one task run along together",
                )


_ANYTHING = Typed({}, {})
_CALLED = re.compile(r"([^\W\d][\w.\-]*)\s*\(")


def _text_pieces(expr: Expr) -> list[str]:
    """What stands before, between and after the references of a text; none where it is no text."""
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
    """Whether the reference is to a named field, whose type was declared on purpose."""
    return any(isinstance(segment, str) for segment in ref.path)


def _spoken(segment: object) -> str:
    if segment is STAR:
        return "elements to fan out over"
    return f"field {segment!r}" if isinstance(segment, str) else f"element {segment}"

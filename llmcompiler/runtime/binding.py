"""Binding: a task as a node of the schedule, and the values that its calls get.

References get their values here. A value that is put into a text is never scanned, so a result that
contains ``$1`` stays text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from llmcompiler.errors import PlanError
from llmcompiler.events import Index
from llmcompiler.executors.value_handles import ValueHandle
from llmcompiler.plan.diagnostics import did_you_mean
from llmcompiler.plan.expressions import (
    STAR,
    CodeExpr,
    DictExpr,
    Expr,
    Input,
    ListExpr,
    Literal,
    Path,
    Reference,
    Template,
    path_text,
)
from llmcompiler.plan.model import Task
from llmcompiler.runtime.states import ScheduleNode
from llmcompiler.tools.base import Tool

Lookup: TypeAlias = Callable[[int], Any]
"""Returns the result of a task by its id."""


class BindingError(PlanError):
    """A reference names a part that its value does not have."""


def evaluate_expression(
    expr: Expr, lookup: Lookup, inputs: Mapping[str, Any], index: Index = ()
) -> Any:
    """The value of an expression.

    Args:
        expr: an argument, or a part of one.
        lookup: returns the results of the tasks to which the expression refers.
        inputs: values of the plan's inputs.
        index: the position in a fan-out: one number for each ``[*]`` of a path.

    Raises:
        BindingError: a path does not fit the value; the message names the reference and the part.
    """
    if type(expr) is Literal:
        return expr.value
    if type(expr) is Reference:
        value = lookup(expr.task)
        return follow(value, expr.path, index, expr) if expr.path else value
    if type(expr) is Input:
        return follow(inputs[expr.name], expr.path, index, expr)
    if type(expr) is Template:
        return "".join(
            part
            if isinstance(part, str)
            else render_value(evaluate_expression(part, lookup, inputs, index))
            for part in expr.parts
        )
    if type(expr) is ListExpr:
        items = []
        for item in expr.items:  # most items are whole results
            if type(item) is Reference and not item.path:
                items.append(lookup(item.task))
            else:
                items.append(evaluate_expression(item, lookup, inputs, index))
        return items
    if type(expr) is CodeExpr:
        raise AssertionError("a program computes its code itself")
    assert type(expr) is DictExpr
    return {key: evaluate_expression(item, lookup, inputs, index) for key, item in expr.entries}


def render_value(value: Any) -> str:
    """A value as text: a string is itself, a number its ``repr``, anything else compact JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def follow(value: Any, path: Path, index: Index, ref: Reference | Input) -> Any:
    """The part of ``value`` at ``path``; each ``[*]`` takes the next number of ``index``."""
    stars = 0
    for step, segment in enumerate(path):
        if segment is STAR:
            value = _part(value, index[stars], ref, path[: step + 1])
            stars += 1
        else:
            value = _part(value, segment, ref, path[: step + 1])
    return value


def _part(value: Any, segment: Any, ref: Reference | Input, path: Path) -> Any:
    if isinstance(segment, int) and isinstance(value, Sequence) and not isinstance(value, str):
        if -len(value) <= segment < len(value):
            return value[segment]
        raise BindingError(
            f"{ref}: there is no element {segment} in a list of {len(value)}",
            hint=f"the last is {len(value) - 1}" if value else "the list is empty",
        )
    if type(value) is ValueHandle:
        return value.part(segment)
    if isinstance(value, Mapping):
        key = str(segment)
        if key in value:
            return value[key]
        fields = list(map(str, value))
        some_fields = ", ".join(fields[:12]) or "none"
        raise BindingError(
            f"{ref}: there is no field {key!r} at {_outer(ref, path)}",
            hint=f"{did_you_mean(key, fields)} fields: {some_fields}".strip(),
        )
    part_name = "field" if isinstance(segment, str) else "element"
    raise BindingError(
        f"{ref}: {_outer(ref, path)} is {_kind(value)}, which has no {part_name} {segment!r}",
        hint=(
            f"each of its elements: {_outer(ref, path)}[*]"
            if isinstance(value, Sequence) and not isinstance(value, str)
            else f"refer to the value itself: {_outer(ref, path)}"
        ),
    )


def _outer(ref: Reference | Input, path: Path) -> str:
    """The reference without the last segment of the path."""
    root = ref.task if isinstance(ref, Reference) else ref.name
    return f"${root}{path_text(path[:-1])}"


def _kind(value: Any) -> str:
    names = {str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    if value is None:
        return "null"
    return names.get(type(value), "a list" if isinstance(value, Sequence) else "an object")


@dataclass(frozen=True, slots=True)
class FanOutShape:
    """The lists along which a fan-out runs.

    Attributes:
        extent: how many elements the fan-out has in all.
    """

    extent: int
    _nested: tuple[Any, ...] | None = None
    _indices: tuple[Index, ...] | None = None

    def index(self, element: int) -> Index:
        """The position of element number ``element``: one number for each dimension."""
        return (element,) if self._indices is None else self._indices[element]

    def nest(self, flat: list[Any]) -> list[Any]:
        """The results of the elements, nested like the lists along which the fan-out runs."""
        if self._nested is None:
            return flat
        results = iter(flat)
        return [_fill(inner, results) for inner in self._nested]


def _fill(shape: Any, results: Iterator[Any]) -> Any:
    return next(results) if shape is None else [_fill(inner, results) for inner in shape]


def fan_out(task: Task, lookup: Lookup, inputs: Mapping[str, Any]) -> FanOutShape:
    """The shape of a task with ``[*]`` in its arguments.

    The first ``[*]`` of every reference runs along the first dimension, the second along the
    second. So starred references run along together.

    Raises:
        BindingError: a ``[*]`` stands behind something that is no list, or lists that run along
            together differ in length.
    """
    starred = dict.fromkeys(ref for ref in task.references() if STAR in ref.path)
    values = [
        (ref, lookup(ref.task) if isinstance(ref, Reference) else inputs[ref.name])
        for ref in starred
    ]
    rank = task.rank
    if rank == 1:
        return FanOutShape(_extent(values, ()))
    indices: list[Index] = []
    nested = _nest(values, (), rank, indices)
    return FanOutShape(len(indices), nested, tuple(indices))


_Starred: TypeAlias = Sequence[tuple[Reference | Input, Any]]


def _nest(values: _Starred, prefix: Index, rank: int, indices: list[Index]) -> tuple[Any, ...]:
    """The shape of the lists below ``prefix``; adds the positions of elements to ``indices``."""
    out: list[Any] = []
    for number in range(_extent(values, prefix)):
        index = (*prefix, number)
        if len(index) < rank:
            out.append(_nest(values, index, rank, indices))
        else:
            indices.append(index)
            out.append(None)
    return tuple(out)


def _extent(values: _Starred, prefix: Index) -> int:
    """The common length of the lists along which the dimension below ``prefix`` runs."""
    first: tuple[Reference | Input, int] | None = None
    for ref, value in values:
        stars = [step for step, segment in enumerate(ref.path) if segment is STAR]
        if len(stars) <= len(prefix):
            continue
        path = ref.path[: stars[len(prefix)]]
        elements = follow(value, path, prefix, ref)
        length: int | None = None
        if type(elements) is ValueHandle:
            if (length := elements.length) is None:
                raise BindingError(
                    f"{ref}: {_outer(ref, (*path, STAR))} is kept on a cluster, and its handle "
                    "tells no length",
                    hint="only lists that are the value, or a field of it, can be fanned out there",
                )
        elif isinstance(elements, Sequence) and not isinstance(elements, str):
            length = len(elements)
        if length is None:
            raise BindingError(
                f"{ref}: {_outer(ref, (*path, STAR))} is {_kind(elements)}, not a list",
                hint="[*] stands behind a list",
            )
        if first is None:
            first = ref, length
        elif first[1] != length:
            raise BindingError(
                f"{first[0]} has {first[1]} elements and {ref} has {length}",
                hint="lists that are fanned out together must be equally long",
            )
    return first[1] if first is not None else 0


class TaskNode(ScheduleNode):
    """A task and its tool, as a node of the task fetching unit.

    Args:
        task: the task.
        tool: the tool that the task calls.
        nodes: the run's other tasks by id; those that the task refers to are among them.
        is_overridden: True if the result is there already, so that the task waits for nothing.
        weight: how long the task is expected to take.

    Attributes:
        dependencies: ids of the tasks whose results the task needs.
        rank: how many fan-out dimensions the task has.
        aligned: fan-outs that this fan-out follows element by element: it uses only ``$N[*]…`` of
            them.
    """

    __slots__ = ("dependencies", "rank", "task", "tool")

    def __init__(
        self,
        task: Task,
        tool: Tool,
        nodes: Mapping[int, TaskNode],
        is_overridden: bool,
        weight: float,
    ) -> None:
        self.task = task
        self.tool = tool
        needs_all: dict[int, bool] = {}  # by task: True if more than ``$N[*]…`` of it is used
        rank = 0
        for ref in task.references():
            path = ref.path
            if path:
                rank = max(rank, path.count(STAR))
            if type(ref) is Reference:
                needs_value = not path or path[0] is not STAR
                needs_all[ref.task] = needs_value or needs_all.get(ref.task, False)
        # An overridden result is a single value, never a fan-out.
        self.rank = rank = 0 if is_overridden else rank
        self.dependencies = tuple(needs_all)
        aligned: tuple[int, ...] = ()
        if rank == 1:
            aligned = tuple(
                dep
                for dep, needs_value in needs_all.items()
                if not needs_value and dep in nodes and nodes[dep].rank == 1
            )
        waits_for = () if is_overridden else self.dependencies
        if aligned:
            waits_for = tuple(dep for dep in waits_for if dep not in aligned)
        super().__init__(task.id, waits_for, rank > 0, aligned, weight, tool.name, tool.partial)

    def arguments(self, lookup: Lookup, inputs: Mapping[str, Any], index: Index) -> dict[str, Any]:
        """The arguments of a call by parameter name, before the tool validates them.

        Raises:
            BindingError: a path does not fit the value.
            ToolError: there are more positional arguments than parameters, or an argument twice.
        """
        arguments: dict[str, Any] = {}
        args, kwargs = self.task.args, self.task.kwargs
        if args:
            for name, expr in zip(self.tool.parameters_schema["properties"], args, strict=False):
                arguments[name] = evaluate_expression(expr, lookup, inputs, index)
        if kwargs:
            for name, expr in kwargs.items():
                arguments[name] = evaluate_expression(expr, lookup, inputs, index)
        if len(arguments) < len(args) + len(kwargs):
            values = [evaluate_expression(expr, lookup, inputs, index) for expr in args]
            self.tool.bind(values, {name: arguments[name] for name in kwargs})
        return arguments


class SiteNode(TaskNode):
    """A place of a program that calls a tool, as a node of the task fetching unit.

    The program computes the arguments of each call and says when to make it.

    Args:
        task: the call as written; its arguments are code.
        tool: the tool that it calls.
        depth: how many loops it stands in; each call has one number for each of them.
        weight: how long a call is expected to take.

    Attributes:
        call_arguments: arguments of calls that have not ended, by parameter name, by index.
    """

    __slots__ = ("call_arguments", "depth")

    def __init__(self, task: Task, tool: Tool, depth: int, weight: float) -> None:
        super().__init__(task, tool, {}, is_overridden=True, weight=weight)
        self.dependencies = task.dependencies
        self.is_map = depth > 0
        self.partial = True
        self.depth = depth
        self.call_arguments: dict[Index, dict[str, Any]] = {}

    def arguments(self, lookup: Lookup, inputs: Mapping[str, Any], index: Index) -> dict[str, Any]:
        """The arguments that the program computed for a call."""
        return self.call_arguments[index]


class GrowingShape:
    """The positions of a growing map's elements: each is told when it is added."""

    def __init__(self) -> None:
        self._indices: list[Index] = []

    @property
    def extent(self) -> int:
        """How many elements there are so far."""
        return len(self._indices)

    def add(self, index: Index) -> None:
        """Note the position of the next element."""
        self._indices.append(index)

    def index(self, element: int) -> Index:
        """The position of element number ``element``."""
        return self._indices[element]

    def nest(self, flat: list[Any]) -> list[Any]:
        """Results in the order of the program's iterations."""
        order = sorted(range(len(flat)), key=self._indices.__getitem__)
        return [flat[element] for element in order]

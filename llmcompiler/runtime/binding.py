"""Binding: from expressions to the values that a call gets.

Values are put in once and never scanned again, so a result that contains ``$1`` stays text. The
module must not know tools, schedules or where values come from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from llmcompiler.errors import PlanError
from llmcompiler.executors.value_handles import ValueHandle
from llmcompiler.plan.diagnostics import did_you_mean
from llmcompiler.plan.expressions import (
    STAR,
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

Lookup: TypeAlias = Callable[[int], Any]
"""Gives the result of a task by its id."""

Index: TypeAlias = tuple[int, ...]


class BindingError(PlanError):
    """A reference leads nowhere in the value that it was given."""


def evaluate(expr: Expr, lookup: Lookup, inputs: Mapping[str, Any], index: Index = ()) -> Any:
    """The value of an expression.

    Args:
        expr: what stands in the argument.
        lookup: results of the tasks that it refers to.
        inputs: values of the plan's inputs.
        index: the element of a fan-out that is bound: one number for each ``[*]`` of a path.

    Raises:
        BindingError: a path does not fit the value; names the reference and the step.
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
            part if isinstance(part, str) else render(evaluate(part, lookup, inputs, index))
            for part in expr.parts
        )
    if type(expr) is ListExpr:
        items = []
        for item in expr.items:  # by far the most are whole results
            if type(item) is Reference and not item.path:
                items.append(lookup(item.task))
            else:
                items.append(evaluate(item, lookup, inputs, index))
        return items
    assert type(expr) is DictExpr
    return {key: evaluate(item, lookup, inputs, index) for key, item in expr.entries}


def render(value: Any) -> str:
    """A value as it stands in a string: itself, ``repr`` of a number, else compact JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def follow(value: Any, path: Path, index: Index, ref: Reference | Input) -> Any:
    """``value`` followed along ``path``; each ``[*]`` takes the next number of ``index``."""
    taken = 0
    for step, segment in enumerate(path):
        if segment is STAR:
            value = _step(value, index[taken], ref, path[: step + 1])
            taken += 1
        else:
            value = _step(value, segment, ref, path[: step + 1])
    return value


def _step(value: Any, segment: Any, ref: Reference | Input, path: Path) -> Any:
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
        known = ", ".join(fields[:12]) or "none"
        raise BindingError(
            f"{ref}: there is no field {key!r} at {_place(ref, path)}",
            hint=f"{did_you_mean(key, fields)} fields: {known}".strip(),
        )
    what = "field" if isinstance(segment, str) else "element"
    raise BindingError(
        f"{ref}: {_place(ref, path)} is {_kind(value)}, which has no {what} {segment!r}",
        hint=(
            f"each of its elements: {_place(ref, path)}[*]"
            if isinstance(value, Sequence) and not isinstance(value, str)
            else f"refer to the value itself: {_place(ref, path)}"
        ),
    )


def _place(ref: Reference | Input, path: Path) -> str:
    root = ref.task if isinstance(ref, Reference) else ref.name
    return f"${root}{path_text(path[:-1])}"


def _kind(value: Any) -> str:
    names = {str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    if value is None:
        return "null"
    return names.get(type(value), "a list" if isinstance(value, Sequence) else "an object")


@dataclass(frozen=True, slots=True)
class Shape:
    """The extents of a fan-out.

    Attributes:
        extent: how many instances there are in all.
    """

    extent: int
    _nested: tuple[Any, ...] | None = None
    _indices: tuple[Index, ...] | None = None

    def index(self, element: int) -> Index:
        """The position of instance number ``element``."""
        return (element,) if self._indices is None else self._indices[element]

    def nest(self, flat: list[Any]) -> list[Any]:
        """A list of the instances' results, nested as the lists were that they come from."""
        if self._nested is None:
            return flat
        results = iter(flat)
        return [_fill(inner, results) for inner in self._nested]


def _fill(shape: Any, results: Iterator[Any]) -> Any:
    return next(results) if shape is None else [_fill(inner, results) for inner in shape]


def fan_out(task: Task, lookup: Lookup, inputs: Mapping[str, Any]) -> Shape:
    """How many instances a task with ``[*]`` in its arguments has.

    The first ``[*]`` of every reference runs along one dimension, the second along the next, so
    several starred arguments zip.

    Raises:
        BindingError: what a ``[*]`` stands behind is no list, or lists that zip differ in length.
    """
    starred = dict.fromkeys(ref for ref in task.references() if STAR in ref.path)
    values = [
        (ref, lookup(ref.task) if isinstance(ref, Reference) else inputs[ref.name])
        for ref in starred
    ]
    rank = task.rank
    if rank == 1:
        return Shape(_extent(values, ()))
    indices: list[Index] = []
    nested = _nest(values, (), rank, indices)
    return Shape(len(indices), nested, tuple(indices))


_Starred: TypeAlias = Sequence[tuple[Reference | Input, Any]]


def _nest(values: _Starred, prefix: Index, rank: int, indices: list[Index]) -> tuple[Any, ...]:
    """Shape of the lists below ``prefix``; notes the index of every instance on the way."""
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
    """The common length of the lists along which the next ``[*]`` behind ``prefix`` runs."""
    first: tuple[Reference | Input, int] | None = None
    for ref, value in values:
        stars = [step for step, segment in enumerate(ref.path) if segment is STAR]
        if len(stars) <= len(prefix):
            continue
        path = ref.path[: stars[len(prefix)]]
        found = follow(value, path, prefix, ref)
        length: int | None = None
        if type(found) is ValueHandle:
            if (length := found.length) is None:
                raise BindingError(
                    f"{ref}: {_place(ref, (*path, STAR))} is kept on a cluster, and its handle "
                    "tells no length",
                    hint="only lists that are the value, or a field of it, can be fanned out there",
                )
        elif isinstance(found, Sequence) and not isinstance(found, str):
            length = len(found)
        if length is None:
            raise BindingError(
                f"{ref}: {_place(ref, (*path, STAR))} is {_kind(found)}, not a list",
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

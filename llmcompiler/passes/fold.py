"""Calls whose results are certain are made while the plan is compiled: constant folding.

Only tools that are pure, that is, that give the same result for the same arguments, and only calls
on literals whose result nobody is shown. A call that fails is left for the run, which knows what to
do about failures. The module must not know how plans are executed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmcompiler.binding import BindingError, evaluate, render
from llmcompiler.expressions import (
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
)
from llmcompiler.passes.base import PassTool, results_of
from llmcompiler.plan import Plan, Task


def fold(plan: Plan, tools: Mapping[str, PassTool]) -> tuple[Plan, list[str]]:
    """The plan with certain results in place of the calls that give them, and a line for each."""
    shown = results_of(plan).shown
    users: dict[int, list[Reference]] = {}
    for task in plan.tasks:
        for ref in task.references():
            if isinstance(ref, Reference):
                users.setdefault(ref.task, []).append(ref)
    values: dict[int, Any] = {}
    tasks: list[Task] = []
    said: list[str] = []
    for task in plan.tasks:
        folded = _with_values(task, values)
        if task.id not in shown:
            known, value = _result(folded, tools.get(task.tool))
            if known and all(_leads_on(ref, value) for ref in users.get(task.id, ())):
                values[task.id] = value
                said.append(f"task {task.id} ({task.tool}) is always {_short(value)}")
                continue
        tasks.append(folded)
    return (plan.model_copy(update={"tasks": tuple(tasks)}), said) if said else (plan, [])


def _result(task: Task, tool: PassTool | None) -> tuple[bool, Any]:
    """Whether the call's result is certain, and what it is."""
    literal = all(isinstance(expr, Literal) for expr in task.expressions())
    if tool is None or not tool.pure or tool.is_async or tool.effect != "read" or not literal:
        return False, None
    args = [expr.value for expr in task.args if isinstance(expr, Literal)]
    kwargs = {name: e.value for name, e in task.kwargs.items() if isinstance(e, Literal)}
    try:
        return True, tool.encode(tool(**tool.bind(args, kwargs)))
    except Exception:  # noqa: BLE001 - whatever it is, the run will meet it and tell
        return False, None


def _leads_on(ref: Reference, value: Any) -> bool:
    """Whether the value has what the reference names; a fan-out is one by its reference."""
    if STAR in ref.path:
        return False
    try:
        evaluate(ref, lambda _: value, {})
    except BindingError:
        return False
    return True


def _with_values(task: Task, values: Mapping[int, Any]) -> Task:
    """The task with known results in place of references; as it is if one has no such part."""
    if values.keys().isdisjoint(task.dependencies):
        return task
    args = tuple(_replaced(expr, values) for expr in task.args)
    kwargs = {name: _replaced(expr, values) for name, expr in task.kwargs.items()}
    return task.model_copy(update={"args": args, "kwargs": kwargs})


def _replaced(expr: Expr, values: Mapping[int, Any]) -> Expr:
    match expr:
        case Reference() if expr.task in values:
            return Literal(value=evaluate(expr, values.__getitem__, {}))
        case Template():
            parts: list[str | Reference | Input] = []
            for part in expr.parts:
                text = part
                if isinstance(part, Reference) and part.task in values:
                    text = render(evaluate(part, values.__getitem__, {}))
                if isinstance(text, str) and parts and isinstance(parts[-1], str):
                    parts[-1] += text
                elif text != "":
                    parts.append(text)
            if all(isinstance(part, str) for part in parts):
                return Literal(value="".join(str(part) for part in parts))
            return Template(parts=tuple(parts))
        case ListExpr():
            return make_list([_replaced(item, values) for item in expr.items])
        case DictExpr():
            return make_dict({key: _replaced(value, values) for key, value in expr.entries})
    return expr


def _short(value: Any) -> str:
    text = render(value)
    return text if len(text) <= 60 else f"{text[:59]}…"

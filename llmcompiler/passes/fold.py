"""Calls whose results are certain are made while the plan is compiled: constant folding.

Only tools that are pure, that is, that give the same result for the same arguments, and only calls
on literals whose result nobody is shown, and to which nobody has to agree. A call that fails is
left for the run, which knows what to do about failures. The module must not know how plans are
executed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmcompiler.passes.base import PassTool, results_of
from llmcompiler.plan.expressions import STAR, Input, Literal, Reference, map_references
from llmcompiler.plan.model import Plan, Task
from llmcompiler.runtime.binding import BindingError, evaluate, render


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
    if tool is None or not literal or not _may_be_folded(tool):
        return False, None
    args = [expr.value for expr in task.args if isinstance(expr, Literal)]
    kwargs = {name: e.value for name, e in task.kwargs.items() if isinstance(e, Literal)}
    try:
        return True, tool.encode(tool(**tool.bind(args, kwargs)))
    except Exception:  # noqa: BLE001 - whatever it is, the run will meet it and tell
        return False, None


def _may_be_folded(tool: PassTool) -> bool:
    """Whether a call may be made while compiling: it asks nobody, and no timeout is kept here."""
    quick = not tool.is_async and tool.timeout is None
    return tool.pure and tool.effect == "read" and not tool.approve and quick


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

    def known(ref: Reference | Input) -> Reference | Input | Literal:
        if isinstance(ref, Reference) and ref.task in values:
            return Literal(value=evaluate(ref, values.__getitem__, {}))
        return ref

    def spoken(ref: Reference | Input) -> Reference | Input | Literal:
        found = known(ref)
        return Literal(value=render(found.value)) if isinstance(found, Literal) else found

    args = tuple(map_references(expr, known, spoken) for expr in task.args)
    kwargs = {name: map_references(expr, known, spoken) for name, expr in task.kwargs.items()}
    return task.model_copy(update={"args": args, "kwargs": kwargs})


def _short(value: Any) -> str:
    text = render(value)
    return text if len(text) <= 60 else f"{text[:59]}…"

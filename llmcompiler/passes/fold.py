"""Constant folding: calls whose results are certain are made while the plan is compiled.

A call is folded if its tool is pure (the same arguments always give the same result), its arguments
are literals, nobody is shown its result, and nobody has to agree to it. A call that fails is left
to the run, which reports failures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmcompiler.passes.base import PassTool, plan_results
from llmcompiler.plan.expressions import STAR, Input, Literal, Reference, map_references
from llmcompiler.plan.model import Plan, Task
from llmcompiler.runtime.binding import BindingError, evaluate_expression, render_value

_LONGEST_SHOWN = 60


def fold_constants(plan: Plan, tools: Mapping[str, PassTool]) -> tuple[Plan, list[str]]:
    """Put certain results in place of the calls that give them.

    Returns:
        The plan, and a line for each call that was folded.
    """
    joined_tasks = plan_results(plan).joined
    users: dict[int, list[Reference]] = {}
    for task in plan.tasks:
        for ref in task.references():
            if isinstance(ref, Reference):
                users.setdefault(ref.task, []).append(ref)
    values: dict[int, Any] = {}
    tasks: list[Task] = []
    changes: list[str] = []
    for task in plan.tasks:
        folded = _with_values(task, values)
        if task.id not in joined_tasks:
            is_certain, value = _result(folded, tools.get(task.tool))
            if is_certain and all(_leads_on(ref, value) for ref in users.get(task.id, ())):
                values[task.id] = value
                changes.append(f"task {task.id} ({task.tool}) is always {_short(value)}")
                continue
        tasks.append(folded)
    if not changes:
        return plan, []
    return plan.model_copy(update={"tasks": tuple(tasks)}), changes


def _result(task: Task, tool: PassTool | None) -> tuple[bool, Any]:
    """Whether the call's result is certain, and the result."""
    has_literals_only = all(isinstance(expr, Literal) for expr in task.expressions())
    if tool is None or not has_literals_only or not _may_be_folded(tool):
        return False, None
    args = [expr.value for expr in task.args if isinstance(expr, Literal)]
    kwargs = {name: e.value for name, e in task.kwargs.items() if isinstance(e, Literal)}
    try:
        return True, tool.encode(tool(**tool.bind(args, kwargs)))
    except Exception:  # noqa: BLE001 - the run makes the call again and reports the failure
        return False, None


def _may_be_folded(tool: PassTool) -> bool:
    """True if a call may be made here, where nobody can approve it and no timeout is kept."""
    is_plain = not tool.is_async and tool.timeout is None
    return tool.pure and tool.effect == "read" and not tool.approve and is_plain


def _leads_on(ref: Reference, value: Any) -> bool:
    """True if the value has the part that the reference names.

    A reference with ``[*]`` has to stay, as it makes its task a fan-out.
    """
    if STAR in ref.path:
        return False
    try:
        evaluate_expression(ref, lambda _: value, {})
    except BindingError:
        return False
    return True


def _with_values(task: Task, values: Mapping[int, Any]) -> Task:
    """The task with results in place of references to folded tasks."""
    if values.keys().isdisjoint(task.dependencies):
        return task

    def result_or_ref(ref: Reference | Input) -> Reference | Input | Literal:
        if isinstance(ref, Reference) and ref.task in values:
            return Literal(value=evaluate_expression(ref, values.__getitem__, {}))
        return ref

    def text_or_ref(ref: Reference | Input) -> Reference | Input | Literal:
        new = result_or_ref(ref)
        return Literal(value=render_value(new.value)) if isinstance(new, Literal) else new

    args = tuple(map_references(expr, result_or_ref, text_or_ref) for expr in task.args)
    kwargs = {
        name: map_references(expr, result_or_ref, text_or_ref) for name, expr in task.kwargs.items()
    }
    return task.model_copy(update={"args": args, "kwargs": kwargs})


def _short(value: Any) -> str:
    text = render_value(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 1]}…"

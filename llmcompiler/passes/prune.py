"""Calls that nothing needs are not made: dead code elimination.

A join that names tasks says what is needed; calls of tools that write are needed always. The module
must not know how plans are executed.
"""

from __future__ import annotations

from collections.abc import Mapping

from llmcompiler.passes.base import PassTool
from llmcompiler.plan.model import Plan


def prune(plan: Plan, tools: Mapping[str, PassTool]) -> tuple[Plan, list[str]]:
    """The plan without reading calls that neither the join nor a needed task uses."""
    if plan.join is None or not plan.join.on:
        return plan, []
    needed = set(plan.join.on)
    said: list[str] = []
    for task in reversed(plan.tasks):
        tool = tools.get(task.tool)
        if task.id in needed or tool is None or tool.effect != "read":
            needed |= {task.id, *task.dependencies}
        else:
            said.append(f"task {task.id} ({task.tool}) is not needed by the join")
    if not said:
        return plan, []
    tasks = tuple(task for task in plan.tasks if task.id in needed)
    return plan.model_copy(update={"tasks": tasks}), said[::-1]

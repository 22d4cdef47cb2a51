"""Calls that reason are led to the branch they become: what carries them out stands in the plan.

Which strategy a call without one uses is the default of the run it was planned for, so a plan that
is saved must say it, or it would reason otherwise under other settings. The module must not know
how plans are executed.
"""

from __future__ import annotations

from collections.abc import Mapping

from llmcompiler.passes.base import PassTool
from llmcompiler.plan.expressions import Literal
from llmcompiler.plan.model import Plan, Task

_STRATEGY = "strategy"


def lower(plan: Plan, tools: Mapping[str, PassTool]) -> tuple[Plan, list[str]]:
    """The plan with every reasoning call's strategy named, and a line for each such call."""
    tasks: list[Task] = []
    said: list[str] = []
    for task in plan.tasks:
        tool = tools.get(task.tool)
        if tool is None or not tool.reasons:
            tasks.append(task)
            continue
        lowered, how = _lowered(task, tool)
        tasks.append(lowered)
        said.append(f"task {task.id} ({task.tool}) is a branch: {how}")
    return (plan.model_copy(update={"tasks": tuple(tasks)}) if said else plan), said


def _lowered(task: Task, tool: PassTool) -> tuple[Task, str]:
    """The call with its strategy, and which it is."""
    names = list(tool.parameters_schema["properties"])
    given = dict(zip(names, task.args, strict=False)) | task.kwargs
    if _STRATEGY not in given:
        default = tool.parameters_schema["properties"][_STRATEGY]["default"]
        kwargs = {**task.kwargs, _STRATEGY: Literal(value=default)}
        return task.model_copy(update={"kwargs": kwargs}), f"{default}, as nothing else is said"
    chosen = given[_STRATEGY]
    how = str(chosen.value) if isinstance(chosen, Literal) else "as another task's result says"
    return task, how

"""Tasks in the order of their remaining critical paths, the longest first.

What many others wait for stands first, so that a reader sees the plan's spine and every executor
that starts calls in order starts with it: list scheduling by longest remaining path (Hu, "Parallel
Sequencing and Assembly Line Problems", 1961). A call counts as one. The module must not know how
plans are executed.
"""

from __future__ import annotations

from collections.abc import Mapping

from llmcompiler.passes.base import PassTool
from llmcompiler.plan.model import Plan


def rank(plan: Plan, tools: Mapping[str, PassTool]) -> tuple[Plan, list[str]]:
    """The plan in order of rank, and its critical path in a line."""
    height: dict[int, int] = {}
    follows: dict[int, int] = {}
    for task in reversed(plan.tasks):
        mine = height.setdefault(task.id, 1)
        for needed in task.dependencies:
            if height.get(needed, 0) < mine + 1:
                height[needed], follows[needed] = mine + 1, task.id
    # What a task needs is higher than the task, so every reference still points back.
    tasks = tuple(sorted(plan.tasks, key=lambda task: -height[task.id]))
    if not tasks or height[tasks[0].id] == 1:
        return plan, []
    path = [tasks[0].id]
    while path[-1] in follows:
        path.append(follows[path[-1]])
    said = [f"the critical path is {' -> '.join(map(str, path))}: {len(path)} calls in a row"]
    return (plan if tasks == plan.tasks else plan.model_copy(update={"tasks": tasks})), said

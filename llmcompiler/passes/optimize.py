"""The passes in their order, and the three short ones: prune, lower and rank.

Folding comes first, since it makes calls equal; pruning comes after the passes that leave calls
without users. No pass changes what a plan gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from llmcompiler.passes.base import PassTool
from llmcompiler.passes.deduplicate import deduplicate
from llmcompiler.passes.fold import fold_constants
from llmcompiler.plan.expressions import Literal
from llmcompiler.plan.model import Plan, Task

Pass: TypeAlias = Callable[[Plan, Mapping[str, PassTool]], tuple[Plan, list[str]]]
"""Returns the changed plan, and a line for each change."""

_STRATEGY = "strategy"


def optimize(plan: Plan, tools: Mapping[str, PassTool]) -> tuple[Plan, list[str]]:
    """Take a checked plan through all passes.

    Args:
        plan: without errors.
        tools: what it calls, by name.

    Returns:
        A plan that gives the same results, and a line for every change, such as ``deduplicate: task
        4 repeats task 1 (country) and is not called``.
    """
    changes: list[str] = []
    for name, optimize_plan in PASSES.items():
        plan, lines = optimize_plan(plan, tools)
        changes += [f"{name}: {line}" for line in lines]
    return plan, changes


def prune_tasks(plan: Plan, tools: Mapping[str, PassTool]) -> tuple[Plan, list[str]]:
    """Leave out reading calls that neither the join nor a needed task uses: dead code elimination.

    A join that names tasks says what is needed. Calls of tools that write are always needed.
    """
    if plan.join is None or not plan.join.on:
        return plan, []
    needed_ids = set(plan.join.on)
    changes: list[str] = []
    for task in reversed(plan.tasks):
        tool = tools.get(task.tool)
        if task.id in needed_ids or tool is None or tool.effect != "read":
            needed_ids |= {task.id, *task.dependencies}
        else:
            changes.append(f"task {task.id} ({task.tool}) is not needed by the join")
    if not changes:
        return plan, []
    tasks = tuple(task for task in plan.tasks if task.id in needed_ids)
    return plan.model_copy(update={"tasks": tasks}), changes[::-1]


def lower_reasoning(plan: Plan, tools: Mapping[str, PassTool]) -> tuple[Plan, list[str]]:
    """Write the strategy into every reasoning call.

    A call without a strategy uses the default of the run. A saved plan has to name the strategy, or
    other settings would make it reason in another way.
    """
    tasks: list[Task] = []
    changes: list[str] = []
    for task in plan.tasks:
        tool = tools.get(task.tool)
        if tool is None or not tool.reasons:
            tasks.append(task)
            continue
        with_strategy, strategy = _with_strategy(task, tool)
        tasks.append(with_strategy)
        changes.append(f"task {task.id} ({task.tool}) is a branch: {strategy}")
    return (plan.model_copy(update={"tasks": tuple(tasks)}) if changes else plan), changes


def _with_strategy(task: Task, tool: PassTool) -> tuple[Task, str]:
    """The call with its strategy, and the strategy in words."""
    properties = tool.parameters_schema["properties"]
    strategy = task.named_arguments(properties).get(_STRATEGY)
    if strategy is None:
        default = properties[_STRATEGY]["default"]
        kwargs = {**task.kwargs, _STRATEGY: Literal(value=default)}
        return task.model_copy(update={"kwargs": kwargs}), f"{default}, as nothing else is said"
    if isinstance(strategy, Literal):
        return task, str(strategy.value)
    return task, "as another task's result says"


def rank_tasks(plan: Plan, tools: Mapping[str, PassTool]) -> tuple[Plan, list[str]]:
    """Order tasks by their longest remaining path, the longest first; a call counts as one.

    So a reader sees the plan's spine first, and an executor that starts calls in order starts with
    it: list scheduling (Hu, "Parallel Sequencing and Assembly Line Problems", 1961).
    """
    heights: dict[int, int] = {}
    successors: dict[int, int] = {}
    for task in reversed(plan.tasks):
        height = heights.setdefault(task.id, 1)
        for dependency in task.dependencies:
            if heights.get(dependency, 0) < height + 1:
                heights[dependency], successors[dependency] = height + 1, task.id
    # A task's dependencies are higher than the task, so every reference still points back.
    tasks = tuple(sorted(plan.tasks, key=lambda task: -heights[task.id]))
    if not tasks or heights[tasks[0].id] == 1:
        return plan, []
    path = [tasks[0].id]
    while path[-1] in successors:
        path.append(successors[path[-1]])
    changes = [f"the critical path is {' -> '.join(map(str, path))}: {len(path)} calls in a row"]
    if tasks == plan.tasks:
        return plan, changes
    return plan.model_copy(update={"tasks": tasks}), changes


PASSES: dict[str, Pass] = {
    "fold": fold_constants,
    "deduplicate": deduplicate,
    "prune": prune_tasks,
    "lower": lower_reasoning,
    "rank": rank_tasks,
}
"""The passes by name, in the order in which they run."""

"""Equal calls are made once: tasks that repeat an earlier call are replaced by the first.

Only calls of tools that read can be left out, and only until a call writes: after a write, the same
call may have another result. It is common subexpression elimination (Cocke, "Global Common
Subexpression Elimination", 1970) on a DAG of calls.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Collection, Iterable, Mapping

from llmcompiler.passes.base import PassTool, plan_results
from llmcompiler.plan.diagnostics import Diagnostic
from llmcompiler.plan.expressions import Input, Reference, expr_to_json, map_references
from llmcompiler.plan.model import Join, Plan, Task


def deduplicate(plan: Plan, tools: Mapping[str, PassTool]) -> tuple[Plan, list[str]]:
    """Leave out calls that repeat another; a task whose own result the plan gives stays.

    Returns:
        The plan, and a line for each call that was left out.
    """
    results = plan_results(plan)
    deduplicator = Deduplicator(tools)
    tasks: list[Task] = []
    changes: list[str] = []
    for task in plan.tasks:

        def may_replace(first: int, task: Task = task) -> bool:
            # A new user of an unused result would take it out of what the plan gives.
            return task.id not in results.own and first not in results.unused

        accepted = deduplicator.accept(task, may_replace)
        if isinstance(accepted, Task):
            tasks.append(accepted)
        else:
            changes.append(repeated_call(task, accepted).message)
    if not changes:
        return plan, []
    join = plan.join and deduplicator.redirect_join(plan.join)
    return plan.model_copy(update={"tasks": tuple(tasks), "join": join}), changes


class Deduplicator:
    """Finds calls that were made before, and leads references to the tasks that made them.

    It works task by task, so it also serves a plan whose tasks start while it is written.

    Args:
        tools: by name.
        earlier: tasks that were called before, in order.
        earlier_only: False to find repeated reading calls, new ones included, up to the next call
            that writes. True to find the calls of ``earlier`` only, but those that write too: a
            planner that was asked for the rest of its plan may write a call of the plan again.

    Attributes:
        replacements: by the id of each task that was left out, the id of the task that stands for
            it.
    """

    def __init__(
        self,
        tools: Mapping[str, PassTool],
        earlier: Iterable[Task] = (),
        *,
        earlier_only: bool = False,
    ) -> None:
        self._tools = tools
        self._earlier_only = earlier_only
        self._callers: dict[str, int] = {}
        self.replacements: dict[int, int] = {}
        for task in earlier:
            if self._first_caller(task) is None:
                self._add(task)

    def accept(
        self, task: Task, may_replace: Callable[[int], bool] = lambda first: True
    ) -> Task | int:
        """Take the next task of the plan.

        Args:
            task: refers to tasks as the plan's text does.
            may_replace: False for the id of an earlier task that must not stand for this one.

        Returns:
            The task to call, its references led to tasks that are called; or the id of the task
            that has made the same call.
        """
        task = redirect(task, self.replacements)
        first = self._first_caller(task)
        if first is not None and may_replace(first):
            self.replacements[task.id] = first
            return first
        self.replacements.pop(task.id, None)
        if not self._earlier_only:
            self._add(task)
        return task

    def redirect_join(self, join: Join) -> Join:
        """The join, led to the tasks that are called."""
        on = tuple(dict.fromkeys(self.replacements.get(task, task) for task in join.on))
        return join.model_copy(update={"on": on})

    def _first_caller(self, task: Task) -> int | None:
        """The id of the task that made the same call."""
        tool = self._tools.get(task.tool)
        if tool is None or (tool.effect != "read" and not self._earlier_only):
            return None
        return self._callers.get(call_key(task, tool))

    def _add(self, task: Task) -> None:
        tool = self._tools.get(task.tool)
        if tool is not None and (tool.effect == "read" or self._earlier_only):
            self._callers[call_key(task, tool)] = task.id
        else:
            self._callers.clear()


def repeated_call(task: Task, first: int) -> Diagnostic:
    """The warning that a task is not called, as ``first`` made the same call."""
    return Diagnostic(
        "W401",
        f"task {task.id} repeats task {first} ({task.tool}) and is not called",
        task=task.id,
    )


def rewritten_call(task: Task, first: int) -> Diagnostic:
    """The warning that a planner has written a task of its plan again."""
    return Diagnostic(
        "W402",
        f"task {task.id} is task {first} ({task.tool}) written again",
        task=task.id,
    )


def redirect(task: Task, numbers: Mapping[int, int]) -> Task:
    """The task with its references led to other tasks.

    Args:
        task: any task.
        numbers: new task ids by old ones; references to other tasks stay.
    """
    if numbers.keys().isdisjoint(task.dependencies):
        return task

    def change(ref: Reference | Input) -> Reference | Input:
        if isinstance(ref, Reference) and ref.task in numbers:
            return dataclasses.replace(ref, task=numbers[ref.task])
        return ref

    args = tuple(map_references(expr, change) for expr in task.args)
    kwargs = {name: map_references(expr, change) for name, expr in task.kwargs.items()}
    return task.model_copy(update={"args": args, "kwargs": kwargs})


def call_key(task: Task, tool: PassTool) -> str:
    """A text that is the same for equal calls, whether arguments stand by position or by name."""
    names: Collection[str] = tool.parameters_schema.get("properties", {})
    arguments = task.named_arguments(names)
    forms = {name: expr_to_json(expr) for name, expr in sorted(arguments.items())}
    return f"{tool.name} {json.dumps([forms, len(task.args) > len(names)], sort_keys=True)}"

"""Equal calls are made once: later tasks that repeat a reading call are replaced by the first.

Only calls of tools that read are equal in effect, and only until something is written: behind a
call that writes, the same question may have another answer. It is common subexpression
elimination (Cocke, "Global Common Subexpression Elimination", 1970) on a DAG of calls. The module
must not know how plans are executed.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterable, Mapping, Sequence

from llmcompiler.passes.base import PassTool, results_of
from llmcompiler.plan.diagnostics import Diagnostic
from llmcompiler.plan.expressions import Input, Reference, expr_to_json, map_references
from llmcompiler.plan.model import Join, Plan, Task


def deduplicate(plan: Plan, tools: Mapping[str, PassTool]) -> tuple[Plan, list[str]]:
    """The plan without calls that repeat another, and a line for each.

    A task whose own result the plan gives stays, so that the plan gives the same results.
    """
    results = results_of(plan)
    repeats = Repeats(tools)
    tasks: list[Task] = []
    said: list[str] = []
    for task in map(repeats.redirected, plan.tasks):
        first = repeats.first(task)
        # Where a result is what nothing else uses, a new user of the first would hide the first.
        if first is None or task.id in results.own or first in results.unused:
            repeats.keep(task)
            tasks.append(task)
        else:
            repeats.drop(task.id, first)
            said.append(repeated(task, first).message)
    if not said:
        return plan, []
    join = plan.join and repeats.redirected_join(plan.join)
    return plan.model_copy(update={"tasks": tuple(tasks), "join": join}), said


class Restated:
    """Calls that a planner wrote again when it was asked to go on with a plan: they are made once.

    Whether they read or write: what was asked for is the rest, and calls have started meanwhile.

    Args:
        tools: by name.
        so_far: the plan's tasks when it was asked.
    """

    def __init__(self, tools: Mapping[str, PassTool], so_far: Sequence[Task] = ()) -> None:
        self._tools = tools
        self._made = {call_key(task, tools[task.tool]): task.id for task in reversed(so_far)}
        self._repeats = Repeats(tools)
        self.ids: set[int] = set()
        """Numbers under which calls were written again; the plan has no tasks of these."""

    def accept(self, task: Task) -> Task | int:
        """The task, or the id of the one that makes its call already."""
        task = self._repeats.redirected(task)
        first = self._made.get(call_key(task, self._tools[task.tool]))
        if first is None:
            return task
        self._repeats.drop(task.id, first)
        self.ids.add(task.id)
        return first

    def join(self, join: Join) -> Join:
        """The join, naming the tasks that there are."""
        return self._repeats.redirected_join(join)


def restated(task: Task, first: int) -> Diagnostic:
    """What a reader is told of a task that was there before."""
    return Diagnostic(
        "W402",
        f"task {task.id} is task {first} ({task.tool}) written again",
        task=task.id,
    )


def repeated(task: Task, first: int) -> Diagnostic:
    """What a reader is told of a task that is not called."""
    return Diagnostic(
        "W401",
        f"task {task.id} repeats task {first} ({task.tool}) and is not called",
        task=task.id,
    )


class StreamingPasses:
    """The passes that work task by task, for a plan whose tasks start while it is written.

    Args:
        tools: by name.
        earlier: tasks of the run's earlier plans whose results are there, in order. One that failed
            is not among them: another plan may well try it again.
    """

    def __init__(self, tools: Mapping[str, PassTool], earlier: Iterable[Task] = ()) -> None:
        self._repeats = Repeats(tools)
        for task in earlier:
            if self._repeats.first(task) is None:
                self._repeats.keep(task)

    def accept(self, task: Task) -> Task | int:
        """The task to start, or the id of the one that has its result already."""
        task = self._repeats.redirected(task)
        first = self._repeats.first(task)
        if first is None:
            self._repeats.keep(task)
            return task
        self._repeats.drop(task.id, first)
        return first

    def join(self, join: Join) -> Join:
        """The join, naming the tasks that were started."""
        return self._repeats.redirected_join(join)


class Repeats:
    """What was called so far, and by which task each dropped one is replaced."""

    def __init__(self, tools: Mapping[str, PassTool]) -> None:
        self._tools = tools
        self._first: dict[str, int] = {}
        self._instead: dict[int, int] = {}

    def first(self, task: Task) -> int | None:
        """The earlier task that makes the same reading call."""
        tool = self._tools.get(task.tool)
        return self._first.get(call_key(task, tool)) if tool and tool.effect == "read" else None

    def keep(self, task: Task) -> None:
        """The task is called."""
        self._instead.pop(task.id, None)
        tool = self._tools.get(task.tool)
        if tool is None or tool.effect != "read":
            self._first.clear()
        else:
            self._first[call_key(task, tool)] = task.id

    def drop(self, task: int, first: int) -> None:
        """The task is not called: ``first`` stands for it from here on."""
        self._instead[task] = first

    def redirected(self, task: Task) -> Task:
        """The task with its references to dropped tasks led to those that stand for them."""
        return renumbered(task, self._instead)

    def redirected_join(self, join: Join) -> Join:
        """The same for the join."""
        on = tuple(dict.fromkeys(self._instead.get(task, task) for task in join.on))
        return join.model_copy(update={"on": on})


def renumbered(task: Task, numbers: Mapping[int, int]) -> Task:
    """The task with its references led to other tasks, as far as there are others."""
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
    """The call, however its arguments are written."""
    names: Collection[str] = tool.parameters_schema.get("properties", {})
    given = dict(zip(names, task.args, strict=False)) | task.kwargs
    spelled = {name: expr_to_json(expr) for name, expr in sorted(given.items())}
    return f"{tool.name} {json.dumps([spelled, len(task.args) > len(names)], sort_keys=True)}"

"""A task as the engine sees it: what it waits for, and the arguments of its calls.

The module must not know when calls are made, or by whom.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmcompiler.events import Index
from llmcompiler.plan.expressions import STAR, Reference
from llmcompiler.plan.model import Task
from llmcompiler.runtime.binding import Lookup, evaluate
from llmcompiler.runtime.states import ScheduleNode
from llmcompiler.tools.base import Tool


class Job(ScheduleNode):
    """A task and its tool, as a node of the task fetching unit.

    Args:
        task: what is to be done.
        tool: what it calls.
        jobs: those it may refer to.
        is_given: whether its value is there already, so that it waits for nothing.
        weight: how long it is expected to take.

    Attributes:
        dependencies: ids of the tasks whose results it needs.
        rank: its fan-out dimensions.
        aligned: maps that this map follows element by element: all it takes of them is ``$N[*]…``.
    """

    __slots__ = ("dependencies", "rank", "task", "tool")

    def __init__(
        self, task: Task, tool: Tool, jobs: Mapping[int, Job], is_given: bool, weight: float
    ) -> None:
        self.task = task
        self.tool = tool
        needed: dict[int, bool] = {}  # whether more of it is taken than ``$N[*]…``
        rank = 0
        for ref in task.references():
            path = ref.path
            if path:
                rank = max(rank, path.count(STAR))
            if type(ref) is Reference:
                whole = not path or path[0] is not STAR
                needed[ref.task] = whole or needed.get(ref.task, False)
        # A value that is given is one, whatever it would have been made of.
        self.rank = rank = 0 if is_given else rank
        self.dependencies = tuple(needed)
        aligned: tuple[int, ...] = ()
        if rank == 1:
            aligned = tuple(
                dep
                for dep, whole in needed.items()
                if not whole and dep in jobs and jobs[dep].rank == 1
            )
        waits_for = () if is_given else self.dependencies
        if aligned:
            waits_for = tuple(dep for dep in waits_for if dep not in aligned)
        super().__init__(task.id, waits_for, rank > 0, aligned, weight, tool.name, tool.partial)

    def arguments(self, lookup: Lookup, inputs: Mapping[str, Any], index: Index) -> dict[str, Any]:
        """What a call is made with, by parameter name, as planned: the tool has not looked at it.

        Raises:
            BindingError: a path does not fit the value.
            ToolError: more positional arguments than the tool has, or one given twice.
        """
        named: dict[str, Any] = {}
        args, kwargs = self.task.args, self.task.kwargs
        if args:
            for name, expr in zip(self.tool.parameters_schema["properties"], args, strict=False):
                named[name] = evaluate(expr, lookup, inputs, index)
        if kwargs:
            for name, expr in kwargs.items():
                named[name] = evaluate(expr, lookup, inputs, index)
        if len(named) < len(args) + len(kwargs):
            values = [evaluate(expr, lookup, inputs, index) for expr in args]
            self.tool.bind(values, {name: named[name] for name in kwargs})
        return named

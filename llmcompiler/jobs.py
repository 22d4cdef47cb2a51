"""A task as the engine sees it: what it waits for, and the arguments of its calls.

The module must not know when calls are made, or by whom.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmcompiler.binding import Lookup, evaluate
from llmcompiler.events import Index
from llmcompiler.expressions import STAR, Reference
from llmcompiler.plan import Task
from llmcompiler.schedule import Node
from llmcompiler.tools.base import Tool


class Job:
    """A task and its tool.

    Args:
        jobs: those it may refer to.
        is_given: whether its value is there already, so that it waits for nothing.

    Attributes:
        dependencies: ids of the tasks whose results it needs.
        rank: its fan-out dimensions.
        aligned: maps that this map follows element by element: all it takes of them is ``$N[*]…``.
    """

    __slots__ = (
        "_is_given",
        "_named",
        "_surplus",
        "aligned",
        "dependencies",
        "rank",
        "task",
        "tool",
    )

    def __init__(self, task: Task, tool: Tool, jobs: Mapping[int, Job], is_given: bool) -> None:
        self._is_given = is_given
        self.task = task
        self.tool = tool
        needed: dict[int, bool] = {}  # whether more of it is taken than ``$N[*]…``
        self.rank = 0
        for ref in task.references():
            path = ref.path
            if path:
                self.rank = max(self.rank, path.count(STAR))
            if type(ref) is Reference:
                whole = not path or path[0] is not STAR
                needed[ref.task] = whole or needed.get(ref.task, False)
        self.dependencies = tuple(needed)
        self.aligned: tuple[int, ...] = ()
        if is_given:
            self.rank = 0  # its value is one, whatever it would have been made of
        if self.rank == 1:
            self.aligned = tuple(
                dep
                for dep, whole in needed.items()
                if not whole and dep in jobs and jobs[dep].rank == 1
            )
        named = tuple(zip(tool.parameters_schema["properties"], task.args, strict=False))
        self._named = (*named, *task.kwargs.items()) if task.kwargs else named
        self._surplus = len(named) < len(task.args) or any(name in task.kwargs for name, _ in named)

    def node(self, weight: float) -> Node:
        """What the task fetching unit needs to know.

        Args:
            weight: how long the task is expected to take.
        """
        waits_for = () if self._is_given else self.dependencies
        if self.aligned:
            waits_for = tuple(dep for dep in waits_for if dep not in self.aligned)
        task, tool = self.task, self.tool
        return Node(
            task.id, waits_for, self.rank > 0, self.aligned, weight, task.tool, tool.partial
        )

    def arguments(self, lookup: Lookup, inputs: Mapping[str, Any], index: Index) -> dict[str, Any]:
        """What a call is made with, by parameter name, as planned: the tool has not looked at it.

        Raises:
            BindingError: a path does not fit the value.
            ToolError: more positional arguments than the tool has, or one given twice.
        """
        named = {name: evaluate(expr, lookup, inputs, index) for name, expr in self._named}
        if self._surplus:
            task = self.task
            args = [evaluate(expr, lookup, inputs, index) for expr in task.args]
            self.tool.bind(args, {name: named[name] for name in task.kwargs})
        return named

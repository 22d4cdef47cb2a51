"""The symbol table of a plan: task numbers, inputs, and the meaning of references.

A *number* is what the plan's text says, an *id* is what the run uses. They differ where a plan that
follows another one was numbered from the start again. The methods take and keep numbers unless
they say otherwise.
"""

from __future__ import annotations

import dataclasses
import graphlib
from collections.abc import Iterable, Iterator
from typing import Literal as OneOf, TypeAlias

from llmcompiler.language.syntax_issue import Offsets, SyntaxIssue
from llmcompiler.plan.diagnostics import did_you_mean
from llmcompiler.plan.expressions import Input, Reference
from llmcompiler.plan.model import PlanInput

InputMode: TypeAlias = OneOf["declare", "none"]

HIGHEST = 99_999_999
"""The highest task number; the join's number behind it can still be read."""


class SymbolTable:
    """The tasks and inputs that a call can refer to (a ``Scope`` for its arguments).

    Args:
        earlier: ids of tasks of the run's earlier plans.
        inputs: whether the plan can have inputs.
        first_id: the id that the plan's first task should have.

    Attributes:
        inputs: inputs by name, in order.
        declared: True if the plan has ``input`` lines, so that each input needs one.
    """

    def __init__(self, earlier: Iterable[int], inputs: InputMode, first_id: int) -> None:
        self._earlier = frozenset(earlier)
        self._input_mode = inputs
        self._first_id = first_id
        self._highest = max(self._earlier, default=0)
        self._highest = max(self._highest, first_id - 1)
        self._offset: int | None = None
        self._ids: dict[int, int] = {}
        self._refused: dict[int, frozenset[int]] = {}
        self._targets: dict[str, int] = {}
        self._current = 0
        self.inputs: dict[str, PlanInput] = {}
        self.declared = False

    # Task numbers.

    @property
    def next_number(self) -> int:
        """The next free task number."""
        return self._highest + 1

    def begin(self, number: int, span: Offsets) -> tuple[int, bool]:
        """Start to read a task.

        Returns:
            The task's id, and True if this task shows that the plan is numbered from the start.

        Raises:
            SyntaxIssue: the number cannot be used.
        """
        is_renumbered = False
        if number == 0:
            raise SyntaxIssue("E114", "0 is not a task number", span, hint="count from 1")
        if number > HIGHEST:
            raise SyntaxIssue("E114", f"{number} is too high for a task number", span)
        if self._offset is None:
            is_renumbered = number < self._first_id
            self._offset = self._first_id - number if is_renumbered else 0
            if is_renumbered:
                self._highest = 0
        task_id = number + self._offset
        if number in self._ids or task_id in self._earlier:
            raise SyntaxIssue(
                "E201",
                f"task number {number} is used twice",
                span,
                hint=f"the next free number is {self.next_number}",
            )
        self._current = number
        self._highest = max(self._highest, number)
        return task_id, is_renumbered

    def accept(self, number: int, task_id: int, target: str | None) -> None:
        """Note that a task was yielded: later calls can refer to it."""
        self._ids[number] = task_id
        self._refused.pop(number, None)
        if target:
            self._targets[target] = number

    def refuse(self, number: int, uses: Iterable[int]) -> None:
        """Note that a task is in error; ``uses`` are the numbers that it refers to."""
        if number not in self._ids:
            self._refused[number] = frozenset(uses) - {number}
            self._highest = max(self._highest, number)

    def join_id(self, number: int) -> int:
        """The id of a join with that number."""
        return max(number + (self._offset or 0), 1)

    def in_plan(self, number: int) -> bool:
        """True if the plan has a task of that number, sound or refused."""
        return number in self._ids or number in self._refused

    def cycles(self) -> Iterator[list[int]]:
        """Find cycles of refused tasks that wait for each other, each in the order of waiting."""
        graph = {number: uses & self._refused.keys() for number, uses in self._refused.items()}
        while True:
            try:
                graphlib.TopologicalSorter(graph).prepare()
            except graphlib.CycleError as error:
                # graphlib names each node after the one that it precedes.
                cycle: list[int] = list(reversed(error.args[1]))
                start = cycle.index(min(cycle))
                cycle = cycle[start:-1] + cycle[:start]
                yield [*cycle, cycle[0]]
                graph = {n: uses - set(cycle) for n, uses in graph.items() if n not in cycle}
            else:
                return

    # Scope.

    def has_task(self, number: object) -> bool:
        """See ``Scope.has_task``."""
        return isinstance(number, int) and (number in self._ids or number in self._earlier)

    def has_input(self, name: str) -> bool:
        """See ``Scope.has_input``."""
        return name in self.inputs if self.declared else self._input_mode == "declare"

    @property
    def is_renumbered(self) -> bool:
        """See ``Scope.is_renumbered``."""
        return bool(self._offset)

    def resolve(self, ref: Reference | Input) -> Reference | Input:
        """See ``Scope.resolve``."""
        if isinstance(ref, Reference) and self._offset and ref.task in self._ids:
            return dataclasses.replace(ref, task=self._ids[ref.task])
        return ref

    def resolve_bare(self, ref: Reference | Input, span: Offsets) -> Reference | Input:
        """See ``Scope.resolve_bare``."""
        if isinstance(ref, Input):
            if self.has_input(ref.name):
                return ref
            raise self._unknown_input(ref, span)
        if self.has_task(ref.task):
            return self.resolve(ref)
        number = ref.task
        if number == self._current:
            raise SyntaxIssue("E205", f"task {number} waits for its own result {ref}", span)
        if number in self._refused:
            raise SyntaxIssue("E207", f"task {number} was refused, so {ref} has no value", span)
        if number > self._current:
            raise SyntaxIssue(
                "E204",
                f"{ref} is not the result of a task above",
                span,
                hint=f"put task {number} before task {self._current}",
            )
        numbers = sorted(self._ids) or sorted(self._earlier)
        raise SyntaxIssue(
            "E202",
            f"there is no task {number} for {ref} to refer to",
            span,
            hint=f"tasks so far: {', '.join(f'${n}' for n in numbers[-8:])}" if numbers else "",
        )

    def _unknown_input(self, ref: Input, span: Offsets) -> SyntaxIssue:
        if ref.name in self._targets:
            hint = f"results are referred to by number: ${self._targets[ref.name]}"
        elif self.declared:
            hint = did_you_mean(ref.name, self.inputs) or f"add a line: input {ref.name}"
        else:
            hint = "results are referred to by number, as in $1; text stands in quotes"
        return SyntaxIssue("E206", f"there is no input {ref.name!r}", span, hint=hint)

    def word_hint(self, word: str) -> str:
        """See ``Scope.word_hint``."""
        head = word.split(".")[0]
        if head in self._targets:
            return f"results are referred to by number: ${self._targets[head]}{word[len(head) :]}"
        if head in self.inputs:
            return f"an input is referred to by ${word}"
        return "put text into quotes; a result is referred to by $N"

"""Names in a plan: task numbers, inputs, and what a reference means.

Keeps what the parser needs to know of the tasks above: which numbers are taken and by what, which
calls were refused, which inputs there are. Numbers *written* in the text differ from the ids of
tasks where a plan that follows another was numbered from the start again; all methods take and
keep written numbers unless they say otherwise. The module must not know how text is read.
"""

from __future__ import annotations

import dataclasses
import graphlib
from collections.abc import Iterable, Iterator
from typing import Literal as OneOf, TypeAlias

from llmcompiler.language.syntax_issue import Offsets, Refusal
from llmcompiler.plan.diagnostics import did_you_mean
from llmcompiler.plan.expressions import Input, Reference
from llmcompiler.plan.model import PlanInput

Inputs: TypeAlias = OneOf["declare", "none"]

HIGHEST = 99_999_999
"""The highest task number; what follows it, such as the join's, has to be readable too."""


class Names:
    """What is known by name at a place in the plan (a ``Scope`` for its arguments).

    Args:
        earlier: ids of tasks of the run's earlier plans.
        inputs: whether the plan can have inputs.
        first_id: the id that the plan should go on counting from.

    Attributes:
        inputs: inputs by name, in order.
        declared: whether there were ``input`` lines, so that all inputs must have one.
    """

    def __init__(self, earlier: Iterable[int], inputs: Inputs, first_id: int) -> None:
        self._earlier = frozenset(earlier)
        self._mode = inputs
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
    def next(self) -> int:
        """The next free number."""
        return self._highest + 1

    def begin(self, number: int, span: Offsets) -> tuple[int, bool]:
        """Start to read the task of that number.

        Returns:
            Its id, and whether the plan turned out to be numbered from the start again.

        Raises:
            Refusal: the number cannot be used.
        """
        renumbered = False
        if number == 0:
            raise Refusal("E114", "0 is not a task number", span, hint="count from 1")
        if number > HIGHEST:
            raise Refusal("E114", f"{number} is too high for a task number", span)
        if self._offset is None:
            renumbered = number < self._first_id
            self._offset = self._first_id - number if renumbered else 0
            if renumbered:
                self._highest = 0
        task_id = number + self._offset
        if number in self._ids or task_id in self._earlier:
            raise Refusal(
                "E201",
                f"task number {number} is used twice",
                span,
                hint=f"the next free number is {self.next}",
            )
        self._current = number
        self._highest = max(self._highest, number)
        return task_id, renumbered

    def accept(self, number: int, task_id: int, target: str | None) -> None:
        """The task was given out, and can be referred to from now on."""
        self._ids[number] = task_id
        self._refused.pop(number, None)
        if target:
            self._targets[target] = number

    def refuse(self, number: int, uses: Iterable[int]) -> None:
        """The task was in error; ``uses`` are the numbers that it refers to."""
        if number not in self._ids:
            self._refused[number] = frozenset(uses) - {number}
            self._highest = max(self._highest, number)

    def join_id(self, number: int) -> int:
        """The id of a join that is written with that number."""
        return max(number + (self._offset or 0), 1)

    def in_plan(self, number: int) -> bool:
        """Whether the plan has a task of that number, sound or not."""
        return number in self._ids or number in self._refused

    def cycles(self) -> Iterator[list[int]]:
        """Circles of refused tasks that wait for each other, each in the order of waiting."""
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

    def known(self, number: object) -> bool:
        """See ``Scope.known``."""
        return isinstance(number, int) and (number in self._ids or number in self._earlier)

    def named(self, name: str) -> bool:
        """See ``Scope.named``."""
        return name in self.inputs if self.declared else self._mode == "declare"

    @property
    def renumbered(self) -> bool:
        """See ``Scope.renumbered``."""
        return bool(self._offset)

    def resolve(self, ref: Reference | Input) -> Reference | Input:
        """See ``Scope.resolve``."""
        if isinstance(ref, Reference) and self._offset and ref.task in self._ids:
            return dataclasses.replace(ref, task=self._ids[ref.task])
        return ref

    def bare(self, ref: Reference | Input, span: Offsets) -> Reference | Input:
        """See ``Scope.bare``."""
        if isinstance(ref, Input):
            if self.named(ref.name):
                return ref
            raise self._unknown_input(ref, span)
        if self.known(ref.task):
            return self.resolve(ref)
        number = ref.task
        if number == self._current:
            raise Refusal("E205", f"task {number} waits for its own result {ref}", span)
        if number in self._refused:
            raise Refusal("E207", f"task {number} was refused, so {ref} has no value", span)
        if number > self._current:
            raise Refusal(
                "E204",
                f"{ref} is not the result of a task above",
                span,
                hint=f"put task {number} before task {self._current}",
            )
        known = sorted(self._ids) or sorted(self._earlier)
        raise Refusal(
            "E202",
            f"there is no task {number} for {ref} to refer to",
            span,
            hint=f"tasks so far: {', '.join(f'${n}' for n in known[-8:])}" if known else "",
        )

    def _unknown_input(self, ref: Input, span: Offsets) -> Refusal:
        if ref.name in self._targets:
            hint = f"results are referred to by number: ${self._targets[ref.name]}"
        elif self.declared:
            hint = did_you_mean(ref.name, self.inputs) or f"add a line: input {ref.name}"
        else:
            hint = "results are referred to by number, as in $1; text stands in quotes"
        return Refusal("E206", f"there is no input {ref.name!r}", span, hint=hint)

    def word_hint(self, word: str) -> str:
        """See ``Scope.word_hint``."""
        head = word.split(".")[0]
        if head in self._targets:
            return f"results are referred to by number: ${self._targets[head]}{word[len(head) :]}"
        if head in self.inputs:
            return f"an input is referred to by ${word}"
        return "put text into quotes; a result is referred to by $N"

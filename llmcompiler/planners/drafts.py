"""The drafting planner: a model plans in several ways at once, and one draft becomes the plan.

A small model makes different mistakes with different forms of a question, while its correct calls
mostly recur in each form. So the planner drafts the plan with worked examples, without examples,
and as the function calls of one turn. The draft that has most in common with the others wins. That
is self-consistency (Wang et al., arXiv 2203.11171) with a measure of likeness in place of a vote,
known as minimum Bayes risk decoding (Kumar and Byrne, HLT 2004). Varying the prompt instead of the
sampling is from Li et al., "Making Large Language Models Better Reasoners with Step-Aware Verifier"
(arXiv 2206.02336).

A call that stands in every draft is in the plan whichever draft wins. So the calls that the first
draft begins with start at once, up to the first call that another draft lacks. Tasks and their
numbers thus depend on the drafts alone, and not on their speed: a replay plans the same.

Each model call has its draft's name in the log (``plan/1/examples``).
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import NoReturn

from llmcompiler.errors import LLMCompilerError, ModelError, PlanError, UsageError
from llmcompiler.llm.base import Completion, Request
from llmcompiler.passes.deduplicate import call_key, redirect
from llmcompiler.plan.diagnostics import Diagnostic
from llmcompiler.plan.model import Join, Task
from llmcompiler.planners.base import PlanItem, Planner, PlanningContext
from llmcompiler.planners.function_calling import FunctionCallingPlanner
from llmcompiler.planners.text import TextPlanner
from llmcompiler.prompting.prompts import Prompts


class DraftsPlanner:
    """A planner that takes one of several drafts (a ``Planner``).

    Args:
        prompts: the texts that the model reads.
    """

    name = "drafts"

    def __init__(self, prompts: Prompts | None = None) -> None:
        # The plan keeps the order of the first draft, and of equal drafts the first wins.
        self._planners: Mapping[str, Planner] = {
            "examples": TextPlanner(prompts),
            "bare": TextPlanner(prompts, examples=False),
            "functions": FunctionCallingPlanner(prompts),
        }

    async def plan(self, context: PlanningContext) -> AsyncGenerator[PlanItem, None]:
        """See ``Planner.plan``.

        Drafts that fail are left out, unless all of them fail.
        """
        interned: dict[str, int] = {}
        drafts = [
            _Draft(name, planner, context, interned)
            for name, planner in self._planners.items()
            # Where no example is invented, the draft without examples would only be a repetition.
            if name != "bare" or context.profile.invents_examples
        ]
        plan = _Plan(context)
        arrived = asyncio.Event()
        writers = [asyncio.create_task(draft.write(arrived)) for draft in drafts]
        for writer in writers:
            writer.add_done_callback(lambda _: arrived.set())
        try:
            while not all(writer.done() for writer in writers):
                await arrived.wait()
                arrived.clear()
                for writer in writers:
                    if writer.done():
                        writer.result()  # raises an error that ends the run
                for task in plan.take_agreed(drafts):
                    yield task
        finally:
            for writer in writers:
                writer.cancel()
            await asyncio.wait(writers)
        winner = _choose_draft(drafts)
        for task in plan.take_agreed(drafts):
            yield task
        for diagnostic in winner.diagnostics:
            yield diagnostic
        for task in plan.take_rest(winner):
            yield task
        if winner.error is not None:
            raise winner.error
        yield plan.join(winner)


class _Draft:
    """A draft that is being written.

    Args:
        name: name of its model calls in the log.
        planner: writes the draft.
        context: the context of the whole plan.
        interned: numbers of calls, shared by all drafts: calls that are equal, and whose referenced
            results are equal, have the same number.

    Attributes:
        tasks: its tasks, under the draft's own numbers.
        keys: a key for each task: the number of its call, and how often the draft has it before.
        diagnostics: its diagnostics, without the errors that the planner was asked to mend.
        join: its join, if it has one.
        refers: True if a task uses another task's result.
        error: the error that it failed with.
    """

    def __init__(
        self, name: str, planner: Planner, context: PlanningContext, interned: dict[str, int]
    ) -> None:
        self.name = name
        self.tasks: list[Task] = []
        self.keys: list[tuple[int, int]] = []
        self.diagnostics: list[Diagnostic] = []
        self.join: Join | None = None
        self.refers = False
        self.error: LLMCompilerError | None = None
        self._planner = planner
        self._ask_model = context.ask_as(name)
        self._context = dataclasses.replace(context, ask=self._ask, observe=_end_turn)
        self._interned = interned
        self._numbers: dict[int, int] = {}

    async def write(self, arrived: asyncio.Event) -> None:
        """Write the draft, and set ``arrived`` at each task."""
        try:
            async for item in self._planner.plan(self._context):
                match item:
                    case Task():
                        self._add(item)
                        arrived.set()
                    case Join():
                        self.join = item
                    case Diagnostic():
                        self.diagnostics.append(item)
        except _TurnEnd:
            pass
        except (ModelError, PlanError, UsageError) as error:
            self.error = error

    def _ask(self, request: Request) -> AsyncIterator[str | Completion]:
        self.diagnostics = [
            diagnostic for diagnostic in self.diagnostics if diagnostic.severity != "error"
        ]
        return self._ask_model(request)

    @property
    def is_sound(self) -> bool:
        """True if it has no errors; a draft that was cut off for its length has one."""
        return all(diagnostic.severity != "error" for diagnostic in self.diagnostics)

    def _add(self, task: Task) -> None:
        call = call_key(redirect(task, self._numbers), self._context.tools[task.tool])
        number = self._interned.setdefault(call, -1 - len(self._interned))
        self._numbers[task.id] = number  # negative, as ids of earlier plans' tasks are not
        self.refers = self.refers or bool(self._numbers.keys() & set(task.dependencies))
        self.keys.append((number, sum(number == earlier for earlier, _ in self.keys)))
        self.tasks.append(task)

    def likeness(self, draft: _Draft) -> float:
        """How much two drafts have in common, from 0 to 1 (Dice's coefficient)."""
        size = len(self.keys) + len(draft.keys)
        return 2 * len(set(self.keys) & set(draft.keys)) / size if size else 1.0


class _Plan:
    """The plan in the making: the calls that were yielded, and their task ids."""

    def __init__(self, context: PlanningContext) -> None:
        self._next_id = context.next_id
        self._ids: dict[tuple[int, int], int] = {}

    def take_agreed(self, drafts: list[_Draft]) -> list[Task]:
        """New tasks that all drafts have, up to the first one that is not in all of them."""
        first = drafts[0]
        shared = set(first.keys).intersection(*(draft.keys for draft in _eligible_drafts(drafts)))
        tasks: list[Task] = []
        for task, key in zip(first.tasks, first.keys, strict=True):
            if key not in shared:
                break
            tasks += self._take(first, task, key)
        return tasks

    def take_rest(self, draft: _Draft) -> list[Task]:
        """The tasks of a draft that were not yielded yet."""
        return [
            new_task
            for task, key in zip(draft.tasks, draft.keys, strict=True)
            for new_task in self._take(draft, task, key)
        ]

    def join(self, draft: _Draft) -> Join:
        """The draft's join, under the plan's task ids."""
        numbers = self._plan_ids(draft)
        on = (
            ()
            if draft.join is None
            else tuple(numbers.get(task_id, task_id) for task_id in draft.join.on)
        )
        return Join(id=self._next_id, on=on)

    def _take(self, draft: _Draft, task: Task, key: tuple[int, int]) -> list[Task]:
        if key in self._ids:
            return []
        task_id = self._ids[key] = self._next_id
        self._next_id += 1
        return [redirect(task, self._plan_ids(draft)).model_copy(update={"id": task_id})]

    def _plan_ids(self, draft: _Draft) -> dict[int, int]:
        return {
            task.id: self._ids[key]
            for task, key in zip(draft.tasks, draft.keys, strict=True)
            if key in self._ids
        }


def _eligible_drafts(drafts: list[_Draft]) -> list[_Draft]:
    """The drafts that count: they have not failed, and their form suffices for the question.

    One turn of function calls cannot use results. If another draft does use results, that turn is
    only the beginning of a plan.
    """
    eligible = [draft for draft in drafts if draft.error is None]
    if any(draft.refers for draft in eligible):
        eligible = [draft for draft in eligible if draft.name != "functions"]
    return eligible or drafts[:1]


def _choose_draft(drafts: list[_Draft]) -> _Draft:
    """The draft that is most like the others, among the sound ones if there are any."""
    eligible = _eligible_drafts(drafts)
    sound = [draft for draft in eligible if draft.is_sound]
    return max(
        sound or eligible, key=lambda draft: sum(draft.likeness(second) for second in eligible)
    )


class _TurnEnd(Exception):
    """Raised where a draft waits for results: its calls do not run before it is chosen."""


async def _end_turn() -> NoReturn:
    raise _TurnEnd

"""The drafting planner: a model plans in several ways at once, and one of the drafts is the plan.

A small model that is shown a question in another form makes other mistakes, while what it reads
rightly it mostly reads rightly in each. So the plan is drafted with worked examples, without any,
and as the function calls of one turn; the draft that has most in common with the others wins. That
is self-consistency (Wang et al., arXiv 2203.11171) with a measure of likeness in place of a vote,
which for things of many parts is known as minimum Bayes risk decoding (Kumar and Byrne, HLT 2004);
to vary the prompt and not the sampling is from Li et al., "Making Large Language Models Better
Reasoners with Step-Aware Verifier" (arXiv 2206.02336).

A call that every draft has written is in the plan whichever wins, so it starts at once, as far as
the first draft begins with such calls. Thereby tasks and their numbers follow from the drafts
alone, not from which of them was quicker, and a run that is derived again plans the same.

Every model call has a draft's name in the log (``plan/1/examples``). The module must not know how
a single draft is made.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import NoReturn

from llmcompiler.errors import LLMCompilerError, ModelError, PlanError, UsageError
from llmcompiler.llm.base import Completion, Request
from llmcompiler.passes.deduplicate import call_key, renumbered
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
        # The first one's order is kept, and of equals the first wins.
        self._planners: Mapping[str, Planner] = {
            "examples": TextPlanner(prompts),
            "bare": TextPlanner(prompts, examples=False),
            "functions": FunctionCallingPlanner(prompts),
        }

    async def plan(self, context: PlanningContext) -> AsyncGenerator[PlanItem, None]:
        """See ``Planner.plan``.

        A draft whose model fails, or that comes to nothing, is left out as long as one does not.
        """
        interned: dict[str, int] = {}
        drafts = [
            _Draft(name, planner, context, interned) for name, planner in self._planners.items()
        ]
        plan = _Plan(context)
        arrived = asyncio.Event()
        writing = [asyncio.create_task(draft.write(arrived)) for draft in drafts]
        for one in writing:
            one.add_done_callback(lambda _: arrived.set())
        try:
            while not all(one.done() for one in writing):
                await arrived.wait()
                arrived.clear()
                for one in writing:
                    if one.done():
                        one.result()  # what ends the run is no failure of a draft
                for task in plan.agreed(drafts):
                    yield task
        finally:
            for one in writing:
                one.cancel()
            await asyncio.wait(writing)
        chosen = _nearest(drafts)
        for task in plan.agreed(drafts):
            yield task
        for found in chosen.found:
            yield found
        for task in plan.rest(chosen):
            yield task
        if chosen.error is not None:
            raise chosen.error
        yield plan.join(chosen)


class _Draft:
    """A draft on its way.

    Args:
        name: of its model calls.
        planner: writes it.
        context: as the whole plan's.
        interned: numbers of calls, shared by all drafts: equal calls of equal results are one.

    Attributes:
        tasks: as it numbers them.
        keys: what each of them calls, in the same order: the number of the call, and how often it
            stands before.
        found: what there is to say about it; not what it was asked to mend since.
        joined: its end, if it has one.
        refers: whether a task uses another's result.
        error: what it died of.
    """

    def __init__(
        self, name: str, planner: Planner, context: PlanningContext, interned: dict[str, int]
    ) -> None:
        self.name = name
        self.tasks: list[Task] = []
        self.keys: list[tuple[int, int]] = []
        self.found: list[Diagnostic] = []
        self.joined: Join | None = None
        self.refers = False
        self.error: LLMCompilerError | None = None
        self._planner = planner
        self._ask_model = context.ask_as(name)
        self._context = dataclasses.replace(context, ask=self._ask, observe=_one_turn)
        self._interned = interned
        self._numbers: dict[int, int] = {}

    async def write(self, arrived: asyncio.Event) -> None:
        """Write it, and say so at every task."""
        try:
            async for item in self._planner.plan(self._context):
                match item:
                    case Task():
                        self._add(item)
                        arrived.set()
                    case Join():
                        self.joined = item
                    case Diagnostic():
                        self.found.append(item)
        except _TurnEnded:
            pass
        except (ModelError, PlanError, UsageError) as error:
            self.error = error

    def _ask(self, request: Request) -> AsyncIterator[str | Completion]:
        self.found = [one for one in self.found if one.severity != "error"]
        return self._ask_model(request)

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong with it; a model that repeats itself without end is cut off."""
        return all(one.severity != "error" for one in self.found)

    def _add(self, task: Task) -> None:
        call = call_key(renumbered(task, self._numbers), self._context.tools[task.tool])
        number = self._interned.setdefault(call, -1 - len(self._interned))
        self._numbers[task.id] = number  # below zero: no task of an earlier plan has such an id
        self.refers = self.refers or bool(self._numbers.keys() & set(task.dependencies))
        self.keys.append((number, sum(number == other for other, _ in self.keys)))
        self.tasks.append(task)

    def likeness(self, other: _Draft) -> float:
        """From 0 to 1, how much they have in common (Dice's coefficient)."""
        size = len(self.keys) + len(other.keys)
        return 2 * len(set(self.keys) & set(other.keys)) / size if size else 1.0


class _Plan:
    """The plan in the making: what was handed on of which draft, under which number."""

    def __init__(self, context: PlanningContext) -> None:
        self._next_id = context.next_id
        self._ids: dict[tuple[int, int], int] = {}

    def agreed(self, drafts: list[_Draft]) -> list[Task]:
        """What all drafts have, as far as the first begins with it."""
        first = drafts[0]
        everywhere = set(first.keys).intersection(*(one.keys for one in _heard(drafts)))
        new: list[Task] = []
        for task, key in zip(first.tasks, first.keys, strict=True):
            if key not in everywhere:
                break
            new += self._take(first, task, key)
        return new

    def rest(self, draft: _Draft) -> list[Task]:
        """What a draft has besides."""
        return [
            taken
            for task, key in zip(draft.tasks, draft.keys, strict=True)
            for taken in self._take(draft, task, key)
        ]

    def join(self, draft: _Draft) -> Join:
        """The end of the plan, as the draft has it."""
        numbers = self._numbers(draft)
        on = () if draft.joined is None else tuple(numbers.get(one, one) for one in draft.joined.on)
        return Join(id=self._next_id, on=on)

    def _take(self, draft: _Draft, task: Task, key: tuple[int, int]) -> list[Task]:
        if key in self._ids:
            return []
        task_id = self._ids[key] = self._next_id
        self._next_id += 1
        return [renumbered(task, self._numbers(draft)).model_copy(update={"id": task_id})]

    def _numbers(self, draft: _Draft) -> dict[int, int]:
        return {
            task.id: self._ids[key]
            for task, key in zip(draft.tasks, draft.keys, strict=True)
            if key in self._ids
        }


def _heard(drafts: list[_Draft]) -> list[_Draft]:
    """The drafts that count: those that live, in a form that can say what is to be said.

    One turn of function calls cannot use results; where another draft does, it would have gone on.
    """
    heard = [one for one in drafts if one.error is None]
    if any(one.refers for one in heard):
        heard = [one for one in heard if one.name != "functions"]
    return heard or drafts[:1]


def _nearest(drafts: list[_Draft]) -> _Draft:
    """The draft that is most like the others, sound if one is; of equals, the first."""
    heard = _heard(drafts)
    sound = [one for one in heard if one.is_sound]
    return max(sound or heard, key=lambda one: sum(one.likeness(other) for other in heard))


class _TurnEnded(Exception):
    """A draft waits for results, which nobody has yet."""


async def _one_turn() -> NoReturn:
    raise _TurnEnded

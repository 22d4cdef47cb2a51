"""The seam between the compiler and whatever writes plans.

A planner is given the question, the tools and what earlier plans of the run found out, and yields
tasks one by one, each checked and ready to start. Most write a plan and are done; a planner that
goes from result to result waits for what its tasks came to, goes on, and may answer itself. The
module must not know how any planner works, nor who executes the tasks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from llmcompiler.errors import UsageError
from llmcompiler.llm.base import StreamFunction
from llmcompiler.plan.diagnostics import Diagnostic
from llmcompiler.plan.model import Join, Plan, Task
from llmcompiler.runtime.observation import Observation
from llmcompiler.tools.base import Tool


@dataclass(frozen=True, slots=True)
class PlannerAnswer:
    """The answer to the question, from a planner that needs no joiner."""

    text: str


PlanItem: TypeAlias = Task | Join | Diagnostic | PlannerAnswer


@dataclass(frozen=True, slots=True)
class Round:
    """One turn of a run: a plan, what became of it, and why it was not enough.

    Attributes:
        plan: the tasks.
        observations: how each of them ended, by task id.
        reason: why the joiner asked for another plan; empty for the round it is judging now.
    """

    plan: Plan
    observations: Mapping[int, Observation]
    reason: str = ""


async def _nothing_runs() -> Mapping[int, Observation]:
    raise UsageError(
        "this planner goes on from results, so it cannot plan without running",
        hint="run the question, or plan it with --planner text or structured",
    )


def _one_thing_at_a_time(name: str) -> StreamFunction:
    raise UsageError(f'nobody can be asked as "{name}" here', hint="give the context an ask_as")


@dataclass(frozen=True, slots=True)
class PlanningContext:
    """All that a planner may know.

    Attributes:
        question: in the user's words.
        tools: what tasks may call, by name.
        ask: asks the planner's model.
        ask_as: the same for a planner that asks several things at once, whose calls the log then
            tells apart by a name for each.
        rounds: the earlier plans of the run, oldest first.
        next_id: the smallest task id that is free.
        repairs: how often the planner may have a broken plan continued.
        observe: waits until everything that was yielded has ended, and tells how each task of the
            run ended, by id. It raises ``UsageError`` where plans are written but not run, and what
            stopped the run where something did.
    """

    question: str
    tools: Mapping[str, Tool]
    ask: StreamFunction
    ask_as: Callable[[str], StreamFunction] = _one_thing_at_a_time
    rounds: tuple[Round, ...] = field(default=())
    next_id: int = 1
    repairs: int = 2
    observe: Callable[[], Awaitable[Mapping[int, Observation]]] = _nothing_runs


class Planner(Protocol):
    """Anything that writes plans.

    Attributes:
        name: how logs call it.
    """

    name: str

    def plan(self, context: PlanningContext) -> AsyncIterator[PlanItem]:
        """Yield each task the moment it is known and sound, and a ``Join`` behind the last.

        A ``PlannerAnswer`` behind that ends the run; without one the joiner answers.

        Diagnostics come in between; an error among them concerns text that yielded no task.

        Raises:
            PlanError: nothing that can be executed came out, ``diagnostics`` says why.
            ModelError: the model failed; what was yielded before stays good.
        """
        ...

"""The planner protocol: the seam between the compiler and whatever writes plans.

A planner gets the question, the tools and the results of the run's earlier plans. It yields tasks
one by one, each checked and ready to start. Most planners write one plan and are done. A planner
that goes from result to result waits for the results of its tasks, yields more tasks, and may
answer the question itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from llmcompiler.errors import UsageError
from llmcompiler.llm.base import StreamFunction
from llmcompiler.plan.diagnostics import Diagnostic
from llmcompiler.plan.model import Join, Plan, Task
from llmcompiler.programs.program import CompiledStatement
from llmcompiler.prompting.profile import Profile
from llmcompiler.runtime.results import Observation
from llmcompiler.tools.base import Tool


@dataclass(frozen=True, slots=True)
class PlannerAnswer:
    """The answer of a planner that needs no joiner."""

    text: str


PlanItem: TypeAlias = Task | Join | Diagnostic | PlannerAnswer | CompiledStatement


@dataclass(frozen=True, slots=True)
class PlanRound:
    """A plan of the run, its results, and the joiner's reason for another plan.

    Attributes:
        plan: the tasks.
        observations: how each task ended, by task id.
        reason: why the joiner asked for another plan; empty for the round that it judges now.
    """

    plan: Plan
    observations: Mapping[int, Observation]
    reason: str = ""


async def _refuse_to_observe() -> Mapping[int, Observation]:
    raise UsageError(
        "this planner goes on from results, so it cannot plan without running",
        hint="run the question, or plan it with --planner text or structured",
    )


def _refuse_to_name(name: str) -> StreamFunction:
    raise UsageError(f'nobody can be asked as "{name}" here', hint="give the context an ask_as")


@dataclass(frozen=True, slots=True)
class PlanningContext:
    """All that a planner gets.

    Attributes:
        question: in the user's words.
        tools: the tools that tasks may call, by name.
        ask: asks the planner's model.
        ask_as: asks it under a name, for a planner that asks several things at once: the log tells
            its calls apart by these names.
        rounds: the earlier plans of the run, oldest first.
        next_id: the smallest free task id.
        repairs: how often the planner may have a broken plan continued.
        observe: waits until all yielded tasks have ended, and returns how each task of the run
            ended, by id. It raises ``UsageError`` where plans are written but not run, and the
            error that stopped the run if one did.
        profile: says what the planner's model reads.
        today: the day that prompts name, in a sentence; empty where they name none.
    """

    question: str
    tools: Mapping[str, Tool]
    ask: StreamFunction
    ask_as: Callable[[str], StreamFunction] = _refuse_to_name
    rounds: tuple[PlanRound, ...] = field(default=())
    next_id: int = 1
    repairs: int = 2
    observe: Callable[[], Awaitable[Mapping[int, Observation]]] = _refuse_to_observe
    profile: Profile = field(default=Profile())
    today: str = ""


class Planner(Protocol):
    """Anything that writes plans.

    Attributes:
        name: its name in logs.
    """

    name: str

    def plan(self, context: PlanningContext) -> AsyncIterator[PlanItem]:
        """Yield each sound task as soon as it is written, and a ``Join`` behind the last one.

        A ``PlannerAnswer`` behind the join ends the run; without it the joiner answers. Diagnostics
        come in between; one that is an error concerns text that yielded no task.

        Raises:
            PlanError: the planner wrote no plan that can be executed; ``diagnostics`` says why.
            ModelError: the model failed; the tasks yielded before stay valid.
        """
        ...


def check_question(question: str) -> None:
    """Check that a question has words.

    Raises:
        UsageError: it has none.
    """
    if not question.strip():
        raise UsageError("the question is empty", hint='for example: "How dense is Japan?"')

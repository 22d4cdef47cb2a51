"""What planners that go from result to result share: their calls, checked, and what came of them.

Such a planner asks its model, yields the calls that it wants as tasks, waits until they have ended,
and asks again with the results. Everything else (scheduling, retries, limits, the log) is the same
as for a plan that was written at once. The module must not know in which form a model asks.
"""

from __future__ import annotations

from collections.abc import Mapping

from llmcompiler.errors import CallInterrupted, ModelError
from llmcompiler.llm.base import Completion, Request
from llmcompiler.passes.check import check_task
from llmcompiler.plan.diagnostics import Diagnostic
from llmcompiler.plan.model import Task
from llmcompiler.plan.types import Typed
from llmcompiler.planners.base import PlanningContext
from llmcompiler.planners.text import known_results
from llmcompiler.prompting.prompts import Prompts, fill
from llmcompiler.prompting.turn_prompts import Trajectory
from llmcompiler.runtime.observation import Observation
from llmcompiler.tools.base import Tool

MAX_TURNS = 12
"""Most turns of a plan; in the one behind the last the model has to answer."""

MAX_TOKENS = 600
"""Most tokens of a turn; a model that repeats itself is stopped there."""


class Turns:
    """The calls of a plan that grows turn by turn.

    Args:
        context: what the planner was given.

    Attributes:
        next_id: the number of the next call.
    """

    def __init__(self, context: PlanningContext) -> None:
        self.next_id = context.next_id
        self._context = context
        self._produced: dict[int, Typed | None] = {}
        for each in context.rounds:
            for task in each.plan.tasks:
                check_task(task, tools=context.tools, produced=self._produced)

    def check(self, task: Task) -> tuple[Task | None, list[Diagnostic]]:
        """The call, if it can be made, and what there is to say about it."""
        checked, found = check_task(task, tools=self._context.tools, produced=self._produced)
        if any(one.severity == "error" for one in found):
            self._produced.pop(task.id, None)
            return None, found
        self.next_id = task.id + 1
        return checked, found

    async def ask(self, request: Request) -> Completion:
        """The model's whole answer; one that a crash of ours cut short is asked for again.

        Raises:
            ModelError: the model failed.
        """
        while True:
            try:
                async for piece in self._context.ask(request):
                    if isinstance(piece, Completion):
                        return piece
            except CallInterrupted:
                continue
            raise ModelError("the planner's model ended without an answer", retryable=True)


def asked_of(prompts: Prompts, context: PlanningContext) -> str:
    """The question, and in a later plan of the run what is known by then."""
    if not context.rounds:
        return context.question
    return fill(
        prompts.again,
        question=context.question,
        observations=known_results(context),
        reason=context.rounds[-1].reason,
    )


def result_text(seen: Observation, tools: Mapping[str, Tool]) -> str:
    """What a model is shown of a call that has ended."""
    if seen.status == "done":
        return tools[seen.task.tool].observe(seen.value)
    failure = seen.failure
    why = f"{failure.message} ({failure.hint})" if failure and failure.hint else ""
    return f"{seen.status}: {why or (failure.message if failure else 'no result')}"


def problem_text(found: list[Diagnostic]) -> str:
    """What a model is told of a call that cannot be made."""
    errors = [one for one in found if one.severity == "error"]
    return "; ".join(
        f"error: {one.message} ({one.hint})" if one.hint else f"error: {one.message}"
        for one in errors
    )


def choose_trajectories(prompts: Prompts, tools: Mapping[str, Tool]) -> tuple[Trajectory, ...]:
    """The worked examples whose tools are all at hand."""
    return tuple(one for one in prompts.trajectories if one.tools <= tools.keys())

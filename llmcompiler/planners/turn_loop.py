"""The loop that planners share which go from result to result.

Such a planner asks its model, yields the model's calls as tasks, waits until they have ended, and
asks again with the results. Everything else (scheduling, retries, limits, the log) is the same as
for a plan that is written at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmcompiler.errors import CallInterrupted, ModelError
from llmcompiler.llm.base import Completion, Request
from llmcompiler.passes.check import check_task
from llmcompiler.plan.diagnostics import Diagnostic
from llmcompiler.plan.model import Task
from llmcompiler.planners.base import PlanningContext
from llmcompiler.planners.bounds import check_not_cut
from llmcompiler.planners.text import describe_earlier_results, earlier_result_types
from llmcompiler.prompting.prompts import Prompts, fill
from llmcompiler.prompting.results import describe_ends
from llmcompiler.prompting.size import estimate_tokens, shorten_message
from llmcompiler.prompting.turn_prompts import Trajectory
from llmcompiler.runtime.results import Observation
from llmcompiler.tools.base import Tool

MAX_TURNS = 12
"""Most turns of a plan with calls; in the turn behind the last one the model has to answer."""


class TurnLoop:
    """The state of a plan that grows turn by turn.

    Args:
        context: the planner's context.

    Attributes:
        next_id: the id of the next task.
    """

    def __init__(self, context: PlanningContext) -> None:
        self.next_id = context.next_id
        self._context = context
        self._produced = earlier_result_types(context)
        self._tokens_left = context.profile.result_tokens

    def check(self, task: Task) -> tuple[Task | None, list[Diagnostic]]:
        """Check a call: the task, or ``None`` if it cannot be made, and the diagnostics."""
        checked, diagnostics = check_task(
            task, tools=self._context.tools, result_types=self._produced
        )
        if any(diagnostic.severity == "error" for diagnostic in diagnostics):
            self._produced.pop(task.id, None)
            return None, diagnostics
        self.next_id = task.id + 1
        return checked, diagnostics

    def describe_ends(self, observations: Sequence[Observation]) -> list[str]:
        """The texts for the model about the calls of a turn.

        The messages of all turns stay in the prompt. So the results of a turn may take half of the
        tokens that earlier turns left.
        """
        tools, profile = self._context.tools, self._context.profile
        if not profile.whole_results:
            return [describe_observation(observation, tools) for observation in observations]
        texts = describe_ends(observations, tools, self._tokens_left // 2)
        self._tokens_left -= sum(map(estimate_tokens, texts))
        return texts

    async def ask(self, request: Request) -> Completion:
        """Ask the model for its complete answer, again if a crash of this program cut it short.

        Raises:
            ModelError: the model failed.
        """
        while True:
            try:
                async for piece in self._context.ask(request):
                    if isinstance(piece, Completion):
                        check_not_cut(piece, "turn")
                        return piece
            except CallInterrupted:
                continue
            raise ModelError("the planner's model ended without an answer", retryable=True)


def turn_question_text(prompts: Prompts, context: PlanningContext) -> str:
    """The question for the model; in a later round with the results of the plans before."""
    if not context.rounds:
        return context.question
    return fill(
        prompts.again,
        question=context.question,
        observations=describe_earlier_results(context),
        reason=context.rounds[-1].reason,
    )


def describe_observation(observation: Observation, tools: Mapping[str, Tool]) -> str:
    """The text for the model about a call that has ended."""
    if observation.status == "done":
        return tools[observation.task.tool].observe(observation.value)
    failure = observation.failure
    message = shorten_message(failure.message) if failure else "no result"
    hint = f" ({failure.hint})" if failure and failure.hint else ""
    return f"{observation.status}: {message}{hint}"


def describe_errors(diagnostics: list[Diagnostic]) -> str:
    """The text for the model about a call that cannot be made."""
    errors = [error for error in diagnostics if error.severity == "error"]
    return "; ".join(
        f"error: {error.message} ({error.hint})" if error.hint else f"error: {error.message}"
        for error in errors
    )


def select_trajectories(prompts: Prompts, tools: Mapping[str, Tool]) -> tuple[Trajectory, ...]:
    """Select the worked examples whose tools are all at hand."""
    return tuple(example for example in prompts.trajectories if example.tools <= tools.keys())

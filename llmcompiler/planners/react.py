"""The ReAct planner: a thought, a call and an observation in each turn.

It is the oldest way for a model to use tools, and the baseline of LLMCompiler's paper: calls run
one at a time, and each result passes through the model. Each call is a task of the same engine,
with the same tools and the same log as any other planner's.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from llmcompiler.errors import ModelError
from llmcompiler.language import Parser
from llmcompiler.language.lazy_grammar import lazy_action_grammar
from llmcompiler.llm.base import Request
from llmcompiler.llm.messages import Message
from llmcompiler.model_options import cut_off_note
from llmcompiler.plan.diagnostics import Diagnostic
from llmcompiler.plan.model import Join, Task
from llmcompiler.planners.base import PlanItem, PlannerAnswer, PlanningContext
from llmcompiler.planners.text import describe_tools, with_relevant_tools
from llmcompiler.planners.turn_loop import (
    MAX_TURNS,
    TurnLoop,
    describe_errors,
    select_trajectories,
    turn_question_text,
)
from llmcompiler.prompting.prompts import Prompts, fill

_LABEL = re.compile(
    r"^[ \t*]*(thought|action|(?:final )?answer)[ \t*]*:[ \t*]*", re.IGNORECASE | re.MULTILINE
)
_STOP = ("\nObservation:",)


class ReactPlanner:
    """A planner that thinks, calls and looks, one call at a time (a ``Planner``).

    Args:
        prompts: the texts that the model reads.
        constrained: hold models, where their endpoint can do so, to the form of a turn, to tools
            that exist, and to arguments of the right types.

    The loop is ReAct's (Yao et al., "ReAct: Synergizing Reasoning and Acting in Language Models",
    arXiv 2210.03629).
    """

    name = "react"

    def __init__(self, prompts: Prompts | None = None, *, constrained: bool = True) -> None:
        self._prompts = prompts or Prompts()
        self._constrained = constrained

    async def plan(self, context: PlanningContext) -> AsyncGenerator[PlanItem, None]:
        """See ``Planner.plan``."""
        context = with_relevant_tools(context)
        loop = TurnLoop(context)
        grammar = lazy_action_grammar(context.tools) if self._constrained else None
        last_grammar = lazy_action_grammar({}) if self._constrained else None
        messages = self._prefix(context)
        messages.append(Message("user", f"Question: {turn_question_text(self._prompts, context)}"))
        parts = _TurnParts()
        for turn in range(MAX_TURNS + 1):
            if turn == MAX_TURNS:
                messages.append(Message("user", self._prompts.last_turn))
                grammar = last_grammar
            request = Request(tuple(messages), purpose="turn", stop=_STOP, grammar=grammar)
            turn_answer = await loop.ask(request)
            text = turn_answer.text
            parts = _read_turn(text)
            if parts.answer:
                if turn_answer.finish == "length":
                    note = cut_off_note("turn", turn_answer.bound)
                    parts = dataclasses.replace(parts, answer=parts.answer + note)
                break
            messages.append(Message("assistant", text.strip()))
            task, diagnostics = _read_action(parts, loop)
            for diagnostic in diagnostics:
                yield diagnostic
            if task is None:
                observation = describe_errors(diagnostics)
            else:
                yield task
                ended = (await context.observe())[task.id]
                (observation,) = loop.describe_ends([ended])
            messages.append(Message("user", f"Observation: {observation}"))
        if not parts.answer:
            raise ModelError("the planner's model did not come to an answer")
        yield Join(id=loop.next_id)
        yield PlannerAnswer(parts.answer)

    def _prefix(self, context: PlanningContext) -> list[Message]:
        """The messages that are the same for every question, for the model's prefix cache."""
        system = fill(
            self._prompts.react,
            tools=describe_tools(context.tools, context.profile),
            guidelines="".join(f"- {line}\n" for line in self._prompts.guidelines),
            today=context.today,
        )
        messages = [Message("system", system)]
        for example in select_trajectories(self._prompts, context.tools):
            messages.append(Message("user", f"Question: {example.question}"))
            for step in (step for turn in example.turns for step in turn):
                text = f"Thought: {step.thought}\nAction: {step.call}"
                messages.append(Message("assistant", text))
                messages.append(Message("user", f"Observation: {step.result}"))
            text = f"Thought: {example.thought}\nAnswer: {example.answer}"
            messages.append(Message("assistant", text))
        return messages


@dataclass(frozen=True, slots=True)
class _TurnParts:
    """The model's text of a turn, in its parts; of action and answer the first one counts."""

    thought: str = ""
    action: str = ""
    answer: str = ""


def _read_turn(text: str) -> _TurnParts:
    parts = _LABEL.split(text)
    thought = "" if len(parts) > 1 else text.strip()
    for label, content in zip(parts[1::2], parts[2::2], strict=True):
        match label.lower():
            case "thought":
                thought = thought or content.strip()
            case "action":
                return _TurnParts(thought, action=content.strip())
            case _:
                return _TurnParts(thought, answer=content.strip())
    return _TurnParts(thought)


def _read_action(parts: _TurnParts, loop: TurnLoop) -> tuple[Task | None, list[Diagnostic]]:
    """Turn the action into a task; a ``$1`` in it is text, since no action can use references."""
    if not parts.action:
        hint = "write Action: tool(arguments), or Answer: and the answer"
        message = "there is neither an action nor an answer"
        return None, [Diagnostic("E401", message, task=loop.next_id, hint=hint)]
    parser = Parser(first_id=loop.next_id)
    action = re.sub(r"^\d+[.)]\s*", "", parts.action.strip("`"))
    items = [*parser.feed(f"{loop.next_id}. {action}"), *parser.close()]
    calls = [item for item in items if isinstance(item, Task)]
    diagnostics = list(parser.diagnostics)
    if not calls:
        if not any(diagnostic.severity == "error" for diagnostic in diagnostics):
            message = f"the action is not a call of a tool: {parts.action[:80]}"
            diagnostics.append(Diagnostic("E401", message, task=loop.next_id))
        return None, diagnostics
    task, check_diagnostics = loop.check(
        calls[0].model_copy(update={"thought": parts.thought or None})
    )
    return task, diagnostics + check_diagnostics

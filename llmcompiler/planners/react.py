"""The ReAct planner: one thought, one call, one observation, and again.

The oldest way for a model to use tools, and the baseline of LLMCompiler's paper: nothing is called
at once, and every result passes through the model. Each call is a task of the same engine, with
the same tools and the same log as any other planner's. The module must not know who executes the
tasks.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from llmcompiler.errors import ModelError
from llmcompiler.language import Parser
from llmcompiler.language.grammar import action_grammar
from llmcompiler.llm.base import Request
from llmcompiler.llm.messages import Message
from llmcompiler.plan.diagnostics import Diagnostic
from llmcompiler.plan.model import Join, Task
from llmcompiler.planners.base import PlanItem, PlannerAnswer, PlanningContext
from llmcompiler.planners.text import catalogue, relevant
from llmcompiler.planners.turn_loop import (
    MAX_TOKENS,
    MAX_TURNS,
    Turns,
    asked_of,
    choose_trajectories,
    problem_text,
    result_text,
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
        constrained: whether models whose endpoint can do so are held to the form, to tools that
            exist and to arguments of their types.

    The loop is ReAct's (Yao et al., "ReAct: Synergizing Reasoning and Acting in Language Models",
    arXiv 2210.03629).
    """

    name = "react"

    def __init__(self, prompts: Prompts | None = None, *, constrained: bool = True) -> None:
        self._prompts = prompts or Prompts()
        self._constrained = constrained

    async def plan(self, context: PlanningContext) -> AsyncGenerator[PlanItem, None]:
        """See ``Planner.plan``."""
        context = relevant(context)
        turns = Turns(context)
        grammar = action_grammar(context.tools) if self._constrained else None
        last_grammar = action_grammar({}) if self._constrained else None
        messages = self._prefix(context)
        messages.append(Message("user", f"Question: {asked_of(self._prompts, context)}"))
        step = _Step()
        for turn in range(MAX_TURNS + 1):
            if turn == MAX_TURNS:
                messages.append(Message("user", self._prompts.last_turn))
                grammar = last_grammar
            request = Request(tuple(messages), max_tokens=MAX_TOKENS, stop=_STOP, grammar=grammar)
            text = (await turns.ask(request)).text
            step = _read(text)
            if step.answer:
                break
            messages.append(Message("assistant", text.strip()))
            task, found = _task(step, turns)
            for one in found:
                yield one
            if task is None:
                seen = problem_text(found)
            else:
                yield task
                seen = result_text((await context.observe())[task.id], context.tools)
            messages.append(Message("user", f"Observation: {seen}"))
        if not step.answer:
            raise ModelError("the planner's model did not come to an answer")
        yield Join(id=turns.next_id)
        yield PlannerAnswer(step.answer)

    def _prefix(self, context: PlanningContext) -> list[Message]:
        """What is the same for every question, so that its prefill is paid once."""
        system = fill(
            self._prompts.react,
            tools=catalogue(context.tools),
            guidelines="".join(f"- {line}\n" for line in self._prompts.guidelines),
        )
        messages = [Message("system", system)]
        for example in choose_trajectories(self._prompts, context.tools):
            messages.append(Message("user", f"Question: {example.question}"))
            for step in (step for turn in example.turns for step in turn):
                said = f"Thought: {step.thought}\nAction: {step.call}"
                messages.append(Message("assistant", said))
                messages.append(Message("user", f"Observation: {step.result}"))
            said = f"Thought: {example.thought}\nAnswer: {example.answer}"
            messages.append(Message("assistant", said))
        return messages


@dataclass(frozen=True, slots=True)
class _Step:
    """What a model wrote in a turn; the first of action and answer counts."""

    thought: str = ""
    action: str = ""
    answer: str = ""


def _read(text: str) -> _Step:
    parts = _LABEL.split(text)
    thought = "" if len(parts) > 1 else text.strip()
    for label, said in zip(parts[1::2], parts[2::2], strict=True):
        match label.lower():
            case "thought":
                thought = thought or said.strip()
            case "action":
                return _Step(thought, action=said.strip())
            case _:
                return _Step(thought, answer=said.strip())
    return _Step(thought)


def _task(step: _Step, turns: Turns) -> tuple[Task | None, list[Diagnostic]]:
    """The action as a task; what it says of ``$1`` is text, as there are only observations."""
    if not step.action:
        hint = "write Action: tool(arguments), or Answer: and the answer"
        message = "there is neither an action nor an answer"
        return None, [Diagnostic("E401", message, task=turns.next_id, hint=hint)]
    parser = Parser(first_id=turns.next_id)
    action = re.sub(r"^\d+[.)]\s*", "", step.action.strip("`"))
    items = [*parser.feed(f"{turns.next_id}. {action}"), *parser.close()]
    calls = [item for item in items if isinstance(item, Task)]
    found = list(parser.diagnostics)
    if not calls:
        if not any(one.severity == "error" for one in found):
            message = f"the action is not a call of a tool: {step.action[:80]}"
            found.append(Diagnostic("E401", message, task=turns.next_id))
        return None, found
    task, more = turns.check(calls[0].model_copy(update={"thought": step.thought or None}))
    return task, found + more

"""The function-calling planner: the endpoint's own parallel function calls, turn after turn.

In each turn the model is given the results so far and asks for any number of calls, until it
answers instead. It is what most agent frameworks do, and here the baseline that plans written at
once are measured against: same engine, same tools, same log. Every call waits for the slowest one
of the turn before, and every result passes through the model. The module must not know who executes
the tasks.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from llmcompiler.errors import ModelError
from llmcompiler.language import parse_plan
from llmcompiler.llm.base import Request
from llmcompiler.llm.messages import Function, FunctionCall, Message
from llmcompiler.plan.diagnostics import Diagnostic
from llmcompiler.plan.expressions import Expr, Literal
from llmcompiler.plan.model import Join, Task
from llmcompiler.planners.base import PlanItem, PlannerAnswer, PlanningContext
from llmcompiler.planners.json_limits import read_written
from llmcompiler.planners.text import relevant
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
from llmcompiler.prompting.turn_prompts import Trajectory
from llmcompiler.tools.base import Tool

_UNUSUAL = re.compile(r"[^a-zA-Z0-9_-]")
_LONGEST_NAME = 64


class FunctionCallingPlanner:
    """A planner by function calls (a ``Planner``).

    Args:
        prompts: the texts that the model reads.
    """

    name = "function-calling"

    def __init__(self, prompts: Prompts | None = None) -> None:
        self._prompts = prompts or Prompts()

    async def plan(self, context: PlanningContext) -> AsyncGenerator[PlanItem, None]:
        """See ``Planner.plan``."""
        context = relevant(context)
        turns = Turns(context)
        names = function_names(context.tools)
        tools_by_function = {function: tool for tool, function in names.items()}
        functions = tuple(
            Function(names[tool.name], tool.description, tool.parameters_schema)
            for tool in context.tools.values()
        )
        messages = self._prefix(context, names)
        messages.append(Message("user", asked_of(self._prompts, context)))
        text = ""
        for turn in range(MAX_TURNS + 1):
            if turn == MAX_TURNS:
                messages.append(Message("user", self._prompts.last_turn))
                functions = ()
            request = Request(tuple(messages), max_tokens=MAX_TOKENS, functions=functions)
            answer = await turns.ask(request)
            text = answer.text.strip()
            if not answer.calls:
                break
            messages.append(Message("assistant", answer.text, calls=answer.calls))
            said: dict[str, str] = {}
            made: dict[str, int] = {}
            for call in answer.calls:
                task, found = _read(call, tools_by_function, turns)
                for one in found:
                    yield one
                if task is None:
                    said[call.id] = problem_text(found)
                else:
                    made[call.id] = task.id
                    yield task
            seen = await context.observe()
            said |= {call: result_text(seen[task], context.tools) for call, task in made.items()}
            messages += [Message("tool", said[call.id], call=call.id) for call in answer.calls]
        if not text:
            raise ModelError("the planner's model neither called a function nor answered")
        yield Join(id=turns.next_id)
        yield PlannerAnswer(text)

    def _prefix(self, context: PlanningContext, names: Mapping[str, str]) -> list[Message]:
        """What is the same for every question, so that its prefill is paid once."""
        guidelines = "".join(f"- {line}\n" for line in self._prompts.guidelines)
        messages = [Message("system", fill(self._prompts.functions, guidelines=guidelines))]
        for example in choose_trajectories(self._prompts, context.tools):
            messages += _shown(example, context.tools, names)
        return messages


def function_names(tools: Mapping[str, Tool]) -> dict[str, str]:
    """Names that every endpoint takes, by those of the tools."""
    names: dict[str, str] = {}
    for tool in tools:
        name = plain = _UNUSUAL.sub("_", tool)[:_LONGEST_NAME]
        number = 2
        while name in names.values():
            name = f"{plain[: _LONGEST_NAME - 4]}_{number}"
            number += 1
        names[tool] = name
    return names


def _read(
    call: FunctionCall, tools: Mapping[str, str], turns: Turns
) -> tuple[Task | None, list[Diagnostic]]:
    """A call as a task; what a model writes here are values, and never references."""
    try:
        arguments = read_written(call.arguments or "{}", 1)
        if not isinstance(arguments, dict):
            raise TypeError("they are not an object")
    except (ValueError, TypeError) as error:
        message = f"the arguments of {call.name} are not JSON: {error}"
        return None, [Diagnostic("E401", message, task=turns.next_id)]
    kwargs: dict[str, Expr] = {name: Literal(value=value) for name, value in arguments.items()}
    return turns.check(Task(id=turns.next_id, tool=tools.get(call.name, call.name), kwargs=kwargs))


def _shown(
    example: Trajectory, tools: Mapping[str, Tool], names: Mapping[str, str]
) -> list[Message]:
    messages = [Message("user", example.question)]
    for number, turn in enumerate(example.turns):
        calls = []
        for place, step in enumerate(turn):
            (task,) = parse_plan(f"1. {step.call}").tasks
            arguments = json.dumps(_values(task, tools[task.tool]), ensure_ascii=False)
            calls.append(FunctionCall(f"example-{number}-{place}", names[task.tool], arguments))
        messages.append(Message("assistant", "", calls=tuple(calls)))
        messages += [
            Message("tool", step.result, call=call.id)
            for step, call in zip(turn, calls, strict=True)
        ]
    messages.append(Message("assistant", example.answer))
    return messages


def _values(task: Task, tool: Tool) -> dict[str, Any]:
    """The constants that a call is given, by parameter."""
    names = tool.parameters_schema.get("properties", {})
    given = dict(zip(names, task.args, strict=False)) | task.kwargs
    return {name: expr.value for name, expr in given.items() if isinstance(expr, Literal)}

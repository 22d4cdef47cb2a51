"""The function-calling planner: the endpoint's own parallel function calls, turn after turn.

In each turn the model reads the results so far and makes any number of calls, until it answers
instead. Most agent frameworks work like this. Here it is the baseline for plans that are written at
once, with the same engine, the same tools and the same log. Each call waits for the slowest call of
the turn before, and each result passes through the model.
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
from llmcompiler.model_options import cut_off_note
from llmcompiler.plan.diagnostics import Diagnostic
from llmcompiler.plan.expressions import Expr, Literal
from llmcompiler.plan.model import Join, Task
from llmcompiler.planners.base import PlanItem, PlannerAnswer, PlanningContext
from llmcompiler.planners.json_limits import load_bounded_json
from llmcompiler.planners.text import with_relevant_tools
from llmcompiler.planners.turn_loop import (
    MAX_TURNS,
    TurnLoop,
    describe_errors,
    select_trajectories,
    turn_question_text,
)
from llmcompiler.prompting.profile import Profile
from llmcompiler.prompting.prompts import Prompts, fill
from llmcompiler.prompting.tool_stubs import describe_result, full_description
from llmcompiler.prompting.turn_prompts import Trajectory
from llmcompiler.tools.base import Tool

_FORBIDDEN = re.compile(r"[^a-zA-Z0-9_-]")
_MAX_NAME = 64


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
        context = with_relevant_tools(context)
        loop = TurnLoop(context)
        names = make_function_names(context.tools)
        tools_by_function = {function: tool for tool, function in names.items()}
        functions = tuple(
            Function(
                names[tool.name], _function_text(tool, context.profile), tool.parameters_schema
            )
            for tool in context.tools.values()
        )
        messages = self._prefix(context, names)
        messages.append(Message("user", turn_question_text(self._prompts, context)))
        text = ""
        for turn in range(MAX_TURNS + 1):
            if turn == MAX_TURNS:
                messages.append(Message("user", self._prompts.last_turn))
                functions = ()
            request = Request(tuple(messages), purpose="turn", functions=functions)
            answer = await loop.ask(request)
            text = answer.text.strip()
            if not answer.calls:
                if answer.finish == "length":
                    text += cut_off_note("turn", answer.bound)
                break
            messages.append(Message("assistant", answer.text, calls=answer.calls))
            replies: dict[str, str] = {}
            task_ids: dict[str, int] = {}
            for call in answer.calls:
                task, diagnostics = _read_call(call, tools_by_function, loop)
                for diagnostic in diagnostics:
                    yield diagnostic
                if task is None:
                    replies[call.id] = describe_errors(diagnostics)
                else:
                    task_ids[call.id] = task.id
                    yield task
            observations = await context.observe()
            ends = loop.describe_ends([observations[task] for task in task_ids.values()])
            replies |= dict(zip(task_ids, ends, strict=True))
            messages += [Message("tool", replies[call.id], call=call.id) for call in answer.calls]
        if not text:
            raise ModelError("the planner's model neither called a function nor answered")
        yield Join(id=loop.next_id)
        yield PlannerAnswer(text)

    def _prefix(self, context: PlanningContext, names: Mapping[str, str]) -> list[Message]:
        """The messages that are the same for every question, for the model's prefix cache."""
        guidelines = "".join(f"- {line}\n" for line in self._prompts.guidelines)
        system = fill(self._prompts.functions, guidelines=guidelines, today=context.today)
        messages = [Message("system", system)]
        for example in select_trajectories(self._prompts, context.tools):
            messages += _example_messages(example, context.tools, names)
        return messages


def _function_text(tool: Tool, profile: Profile) -> str:
    """The description of a function; for a strong model also effect and result of a call."""
    if not profile.tool_stubs:
        return tool.description
    parts = (full_description(tool), describe_result(tool))
    return "\n\n".join(part for part in parts if part)


def make_function_names(tools: Mapping[str, Tool]) -> dict[str, str]:
    """Function names that every endpoint accepts, by tool name."""
    names: dict[str, str] = {}
    for tool in tools:
        name = _FORBIDDEN.sub("_", tool)
        if not (name[0].isalpha() or name[0] == "_"):
            name = f"_{name}"  # some endpoints take no digit or dash at the beginning
        name = plain = name[:_MAX_NAME]
        number = 2
        while name in names.values():
            name = f"{plain[: _MAX_NAME - 4]}_{number}"
            number += 1
        names[tool] = name
    return names


def _read_call(
    call: FunctionCall, tools: Mapping[str, str], loop: TurnLoop
) -> tuple[Task | None, list[Diagnostic]]:
    """Turn a function call into a task; its arguments are values, never references."""
    try:
        text = call.arguments.strip()
        arguments = {} if text in ("", "null") else load_bounded_json(text, 1)
        if isinstance(arguments, str):
            # Some models write the object as a text, which their endpoint quotes once more.
            arguments = load_bounded_json(arguments, 1)
        if not isinstance(arguments, dict):
            raise TypeError("they are not an object")
    except (ValueError, TypeError) as error:
        message = f"the arguments of {call.name} are not JSON: {error}"
        return None, [Diagnostic("E401", message, task=loop.next_id)]
    kwargs: dict[str, Expr] = {name: Literal(value=value) for name, value in arguments.items()}
    return loop.check(Task(id=loop.next_id, tool=tools.get(call.name, call.name), kwargs=kwargs))


def _example_messages(
    example: Trajectory, tools: Mapping[str, Tool], names: Mapping[str, str]
) -> list[Message]:
    messages = [Message("user", example.question)]
    for number, turn in enumerate(example.turns):
        calls = []
        for place, step in enumerate(turn):
            (task,) = parse_plan(f"1. {step.call}").tasks
            arguments = json.dumps(_constant_arguments(task, tools[task.tool]), ensure_ascii=False)
            calls.append(FunctionCall(f"example-{number}-{place}", names[task.tool], arguments))
        messages.append(Message("assistant", "", calls=tuple(calls)))
        messages += [
            Message("tool", step.result, call=call.id)
            for step, call in zip(turn, calls, strict=True)
        ]
    messages.append(Message("assistant", example.answer))
    return messages


def _constant_arguments(task: Task, tool: Tool) -> dict[str, Any]:
    """The constant arguments of a call, by parameter."""
    names = tool.parameters_schema.get("properties", {})
    arguments = task.named_arguments(names)
    return {name: expr.value for name, expr in arguments.items() if isinstance(expr, Literal)}

"""Few-shot examples that fit the tools at hand.

A small model imitates: an example that calls a tool which does not exist brings forth calls of it.
So an example is shown only where all its tools are there, and tools that no example covers get one
derived from their schemas. And it imitates what it read last, so an example that is nearly
the question is shown once more right before it. The module must not know how examples are put to a
model.
"""

from __future__ import annotations

import difflib
import itertools
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from llmcompiler.language import print_task
from llmcompiler.plan.expressions import Expr, Literal, Reference
from llmcompiler.plan.model import Task
from llmcompiler.plan.types import Typed
from llmcompiler.planners.sample_arguments import made_up
from llmcompiler.prompting.prompts import Example, Prompts
from llmcompiler.tools.base import Tool

DIRECT = Example(question="Thank you, that is all!", plan="1. join()")
"""Fits any tools: not every message needs one."""

MOST = 16
"""Examples of the pool that every prompt begins with, so that their prefill is paid once."""

_ALIKE = 0.78
"""How alike two questions must be, from 0 to 1: an example that fits half misleads."""

_OTHERS = 3
"""Tools besides the first that a derived example calls."""


def choose_examples(prompts: Prompts, tools: Mapping[str, Tool]) -> tuple[Example, ...]:
    """The examples to show, the user's own last, where a model heeds them most."""
    own = _fitting(prompts.examples, tools)
    fitting = [one for one in _fitting(prompts.pool, tools) if one.tools][-MOST:]
    covered = {name for one in (*own, *fitting) for name in one.tools}
    derived = derive_example(
        [tool for name, tool in tools.items() if name not in covered], reckons="calc" in tools
    )
    return (DIRECT, *fitting, *([derived] if derived is not None else []), *own)


def nearest_example(prompts: Prompts, tools: Mapping[str, Tool], question: str) -> Example | None:
    """The example whose question is nearly this one, if there is one.

    Questions are alike if the same words come in the same order, whatever names and numbers stand
    between them: what is asked about Chad is planned like what is asked about Mali. Choosing
    examples by nearness is from Liu et al., "What Makes Good In-Context Examples for GPT-3?"
    (arXiv 2101.06804).
    """
    shape = _shape(question)

    def alike(one: Example) -> float:
        return difflib.SequenceMatcher(None, shape, _shape(one.question), autojunk=False).ratio()

    best = max(_fitting(prompts.pool + prompts.examples, tools), key=alike, default=None)
    return best if best is not None and alike(best) >= _ALIKE else None


_NAME = re.compile(r"(?<!^)\b[^\W\d_a-z]\w*(?:\s+[^\W\d_a-z]\w*)*")
_WORD = re.compile(r"\w+|@")


def _shape(question: str) -> list[str]:
    """The words of a question; one sign stands for each name and each number."""
    return _WORD.findall(re.sub(r"\d[\d.,]*", "0", _NAME.sub("@", question)).lower())


def _fitting(examples: tuple[Example, ...], tools: Mapping[str, Tool]) -> list[Example]:
    return [one for one in examples if one.tools <= tools.keys()]


def derive_example(tools: list[Tool], *, reckons: bool = False) -> Example | None:
    """An example made of the schemas of tools that no written one covers.

    It shows what a model cannot guess: a call for each thing that is asked for, independent ones
    first, an argument that may be left out, and a call that uses an earlier result.

    Args:
        tools: what to call in it.
        reckons: whether ``calc`` may be called too, with the numbers that they return.

    Returns:
        The example; ``None`` where no tool's arguments can be made up.
    """
    callable_tools = [tool for tool in tools if _arguments(tool, 0) is not None]
    if not callable_tools:
        return None
    first = next((tool for tool in callable_tools if _arguments(tool, 0)), callable_tools[0])
    others = [tool for tool in callable_tools if tool is not first][:_OTHERS]
    calls = _repeated(first, 2 if others or reckons else 3)
    lines = [call.text for call in calls]
    asked = [f"{first.name}{_listed([call.spoken for call in calls])}"]
    if reckons and len(lines) == 2 and (number := _number_of(first)) is not None:
        lines.append(f'calc("$1{number} + $2{number}")')
        asked[0] += ", taken together"
    for variant, tool in enumerate(others):
        if (linked := _linked_call(first, tool)) is not None:
            lines.append(linked)
            asked.append(f"{tool.name} of the first result")
        elif (call := _call(tool, variant)).text not in lines:
            lines.append(call.text)
            asked.append(f"{tool.name}{_listed([call.spoken])}")
    lines.append("join()")
    plan = "\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1))
    return Example(question=_request(asked), plan=plan)


def _request(asked: list[str]) -> str:
    """A question for all that is asked, in as many sentences: people tell long ones in order."""
    if len(asked) == 1:
        return f"What is {asked[0]}?"
    first, *middle, last = asked
    return " ".join([f"First, {first}.", *(f"Then, {one}." for one in middle), f"Finally, {last}."])


class _Call(NamedTuple):
    """A made-up call, and how one would ask for it."""

    text: str
    spoken: str


def _repeated(tool: Tool, times: int) -> list[_Call]:
    """Calls of one tool, all different; the last gives an argument that may be left out."""
    calls = [_call(tool, variant, optional=variant == times - 1) for variant in range(times)]
    return list(dict.fromkeys(calls))


def _listed(spoken: list[str]) -> str:
    """``" for a, for b and for c"``; nothing where a call takes nothing."""
    told = [f"for {one}" for one in spoken if one]
    return f" {', '.join(told[:-1])}{' and ' if told[1:] else ''}{told[-1]}" if told else ""


def _number_of(tool: Tool) -> str | None:
    """The path to a number in what the tool returns: empty where it is the result itself."""
    returned = tool.return_schema or {}
    if returned.get("type") in ("integer", "number"):
        return ""
    for name, schema in returned.get("properties", {}).items():
        if schema.get("type") in ("integer", "number") and name.isidentifier():
            return f".{name}"
    return None


def _required(tool: Tool) -> dict[str, Typed]:
    schema = tool.parameters_schema
    properties = schema.get("properties", {})
    return {name: Typed(properties[name], schema) for name in schema.get("required", ())}


def _arguments(tool: Tool, variant: int) -> list[Any] | None:
    """A made-up value for each argument that the tool needs; ``None`` where there is none."""
    values = [made_up(typed, variant) for typed in _required(tool).values()]
    # All true, or all false, would be taken for the rule.
    flags = itertools.cycle((True, False))
    values = [next(flags) if isinstance(value, bool) else value for value in values]
    return None if any(value is None for value in values) else values


def _option(tool: Tool, variant: int) -> dict[str, Any]:
    """The first argument that may be left out, if there is one that can be made up."""
    required = _required(tool)
    root = tool.parameters_schema
    for name, schema in root.get("properties", {}).items():
        if name not in required and (value := made_up(Typed(schema, root), variant)) is not None:
            return {name: value}
    return {}


def _call(tool: Tool, variant: int, *, optional: bool = False) -> _Call:
    """A call, by name where there are several arguments: small models mistake their order."""
    values = _arguments(tool, variant) or ()
    named = dict(zip(_required(tool), values, strict=False))
    named |= _option(tool, variant) if optional else {}
    text = _text(tool, {name: Literal(value=value) for name, value in named.items()})
    given = {name: json.dumps(value, ensure_ascii=False) for name, value in named.items()}
    lone = len(given) == 1 and bool(values)
    spoken = " and ".join(
        given.values() if lone else (f"{name} {one}" for name, one in given.items())
    )
    return _Call(text, spoken)


def _text(tool: Tool, given: Mapping[str, Expr]) -> str:
    """A call as plans write it; a lone argument that is the tool's first needs no name."""
    first = next(iter(tool.parameters_schema.get("properties", {})), None)
    if list(given) == [first] and first in _required(tool):
        task = Task(id=1, tool=tool.name, args=tuple(given.values()))
    else:
        task = Task(id=1, tool=tool.name, kwargs=dict(given))
    return print_task(task).removeprefix("1. ")


def _linked_call(producer: Tool, consumer: Tool) -> str | None:
    """A call of ``consumer`` on the producer's result, where the types say that it fits."""
    required = _required(consumer)
    if len(required) != 1:
        return None
    ((parameter, typed),) = required.items()
    wanted = typed.schema.get("type")
    returned = producer.return_schema or {}
    if wanted is not None and returned.get("type") == wanted:
        return _text(consumer, {parameter: Reference(task=1)})
    for name, schema in returned.get("properties", {}).items():
        if wanted is not None and schema.get("type") == wanted and name.isidentifier():
            return _text(consumer, {parameter: Reference(task=1, path=(name,))})
    return None

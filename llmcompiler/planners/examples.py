"""The selection of few-shot examples that fit the tools at hand.

A small model imitates: an example that calls a missing tool makes the model call that tool. So a
prompt shows an example only if all its tools are there, and an example for the other tools is
derived from their schemas. A small model imitates most of all the text that it read last. So an
example whose question is nearly the user's is shown once more right before it.
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
from llmcompiler.plan.types import SchemaType
from llmcompiler.planners.sample_arguments import sample_value
from llmcompiler.prompting.prompts import Example, Prompts
from llmcompiler.tools.base import Tool

DIRECT = Example(question="Thank you, that is all!", plan="1. join()")
"""An example without calls, which fits any tools: not every message needs a tool."""

MAX_POOL_EXAMPLES = 16
"""Most examples of the pool; all prompts begin with the same ones, for the prefix cache."""

_MIN_LIKENESS = 0.78
"""Likeness of two questions, from 0 to 1, that is enough: an example that half fits misleads."""

_MAX_OTHER_TOOLS = 3
"""Most tools besides the first one that a derived example calls."""


def select_examples(prompts: Prompts, tools: Mapping[str, Tool]) -> tuple[Example, ...]:
    """Select the examples to show; the user's own come last, where a model heeds them most."""
    own = _fitting_examples(prompts.examples, tools)
    fitting = [example for example in _fitting_examples(prompts.pool, tools) if example.tools][
        -MAX_POOL_EXAMPLES:
    ]
    covered = {name for example in (*own, *fitting) for name in example.tools}
    derived = derive_example(
        [
            tool
            for name, tool in tools.items()
            # An example never shows how to change something: a small model would do it unasked.
            if name not in covered and tool.effect != "write"
        ],
        reckons="calc" in tools,
    )
    return (DIRECT, *fitting, *([derived] if derived is not None else []), *own)


def written_examples(prompts: Prompts, tools: Mapping[str, Tool]) -> tuple[Example, ...]:
    """The examples that somebody wrote and that fit the tools, without any that is derived."""
    return (*_fitting_examples(prompts.pool, tools), *_fitting_examples(prompts.examples, tools))


def find_nearest_example(
    prompts: Prompts, tools: Mapping[str, Tool], question: str
) -> Example | None:
    """Find the example whose question is nearly this one; ``None`` if there is none.

    Questions are alike if they have the same words in the same order, whatever their names and
    numbers: a question about Chad needs the same plan as one about Mali. Choosing examples by
    nearness is from Liu et al., "What Makes Good In-Context Examples for GPT-3?"
    (arXiv 2101.06804).
    """
    shape = _question_shape(question)

    def likeness(example: Example) -> float:
        return difflib.SequenceMatcher(
            None, shape, _question_shape(example.question), autojunk=False
        ).ratio()

    best = max(
        _fitting_examples(prompts.pool + prompts.examples, tools), key=likeness, default=None
    )
    return best if best is not None and likeness(best) >= _MIN_LIKENESS else None


_NAME = re.compile(r"(?<!^)\b[^\W\d_a-z]\w*(?:\s+[^\W\d_a-z]\w*)*")
_WORD = re.compile(r"\w+|@")


def _question_shape(question: str) -> list[str]:
    """The words of a question, with ``@`` for each name and ``0`` for each number."""
    return _WORD.findall(re.sub(r"\d[\d.,]*", "0", _NAME.sub("@", question)).lower())


def _fitting_examples(examples: tuple[Example, ...], tools: Mapping[str, Tool]) -> list[Example]:
    return [example for example in examples if example.tools <= tools.keys()]


def derive_example(tools: list[Tool], *, reckons: bool = False) -> Example | None:
    """Derive an example from the schemas of tools that no written example covers.

    The example shows what a model cannot guess: a call for each thing in question, independent
    calls first, an optional argument, and a call that uses an earlier result.

    Args:
        tools: the tools to call.
        reckons: let the example call ``calc`` too, with numbers that the tools return.

    Returns:
        The example; ``None`` if there are no sample arguments for any of the tools.
    """
    callable_tools = [tool for tool in tools if _sample_arguments(tool, 0) is not None]
    if not callable_tools:
        return None
    first = next((tool for tool in callable_tools if _sample_arguments(tool, 0)), callable_tools[0])
    other_tools = [tool for tool in callable_tools if tool is not first][:_MAX_OTHER_TOOLS]
    calls = _sample_calls(first, 2 if other_tools or reckons else 3)
    lines = [call.text for call in calls]
    parts = [f"{first.name}{_list_phrase([call.phrase for call in calls])}"]
    if reckons and len(lines) == 2 and (number := _path_to_number(first)) is not None:
        lines.append(f'calc("$1{number} + $2{number}")')
        parts[0] += ", taken together"
    for variant, tool in enumerate(other_tools):
        if (linked := _linked_call(first, tool)) is not None:
            lines.append(linked)
            parts.append(f"{tool.name} of the first result")
        elif (call := _sample_call(tool, variant)).text not in lines:
            lines.append(call.text)
            parts.append(f"{tool.name}{_list_phrase([call.phrase])}")
    lines.append("join()")
    plan = "\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1))
    return Example(question=_question_for(parts), plan=plan)


def _question_for(parts: list[str]) -> str:
    """A question for these parts, a sentence for each: people ask for many things in order."""
    if len(parts) == 1:
        return f"What is {parts[0]}?"
    first, *middle, last = parts
    return " ".join(
        [f"First, {first}.", *(f"Then, {part}." for part in middle), f"Finally, {last}."]
    )


class _Call(NamedTuple):
    """A sample call, and the words that ask for it."""

    text: str
    phrase: str


def _sample_calls(tool: Tool, times: int) -> list[_Call]:
    """Different calls of one tool; the last one has an optional argument."""
    calls = [_sample_call(tool, variant, optional=variant == times - 1) for variant in range(times)]
    return list(dict.fromkeys(calls))


def _list_phrase(phrases: list[str]) -> str:
    """The phrase ``" for a, for b and for c"``; empty if the calls take no arguments."""
    parts = [f"for {phrase}" for phrase in phrases if phrase]
    return f" {', '.join(parts[:-1])}{' and ' if parts[1:] else ''}{parts[-1]}" if parts else ""


def _path_to_number(tool: Tool) -> str | None:
    """The path to a number in the tool's result: empty if the result is the number itself."""
    returned = tool.return_schema or {}
    if returned.get("type") in ("integer", "number"):
        return ""
    for name, schema in returned.get("properties", {}).items():
        if schema.get("type") in ("integer", "number") and name.isidentifier():
            return f".{name}"
    return None


def _required_parameters(tool: Tool) -> dict[str, SchemaType]:
    schema = tool.parameters_schema
    properties = schema.get("properties", {})
    return {name: SchemaType(properties[name], schema) for name in schema.get("required", ())}


def _sample_arguments(tool: Tool, variant: int) -> list[Any] | None:
    """Sample values of the required arguments; ``None`` if one of them has none."""
    values = [sample_value(typed, variant) for typed in _required_parameters(tool).values()]
    # A model would take flags that are all true, or all false, for the rule.
    flags = itertools.cycle((True, False))
    values = [next(flags) if isinstance(value, bool) else value for value in values]
    return None if any(value is None for value in values) else values


def _optional_argument(tool: Tool, variant: int) -> dict[str, Any]:
    """The first optional argument that has a sample value, and the value."""
    required = _required_parameters(tool)
    root = tool.parameters_schema
    for name, schema in root.get("properties", {}).items():
        if (
            name not in required
            and (value := sample_value(SchemaType(schema, root), variant)) is not None
        ):
            return {name: value}
    return {}


def _sample_call(tool: Tool, variant: int, *, optional: bool = False) -> _Call:
    """A sample call. Several arguments go by name: small models confuse their order."""
    values = _sample_arguments(tool, variant) or ()
    arguments = dict(zip(_required_parameters(tool), values, strict=False))
    arguments |= _optional_argument(tool, variant) if optional else {}
    text = _call_text(tool, {name: Literal(value=value) for name, value in arguments.items()})
    phrases = {name: json.dumps(value, ensure_ascii=False) for name, value in arguments.items()}
    is_single = len(phrases) == 1 and bool(values)
    phrase = " and ".join(
        phrases.values() if is_single else (f"{name} {phrase}" for name, phrase in phrases.items())
    )
    return _Call(text, phrase)


def _call_text(tool: Tool, arguments: Mapping[str, Expr]) -> str:
    """A call as plans write it; a single argument goes by position if it is the tool's first."""
    first = next(iter(tool.parameters_schema.get("properties", {})), None)
    if list(arguments) == [first] and first in _required_parameters(tool):
        task = Task(id=1, tool=tool.name, args=tuple(arguments.values()))
    else:
        task = Task(id=1, tool=tool.name, kwargs=dict(arguments))
    return print_task(task).removeprefix("1. ")


def _linked_call(producer: Tool, consumer: Tool) -> str | None:
    """A call of ``consumer`` on the producer's result; ``None`` if the types do not fit."""
    required = _required_parameters(consumer)
    if len(required) != 1:
        return None
    ((parameter, typed),) = required.items()
    needed_type = typed.schema.get("type")
    returned = producer.return_schema or {}
    if needed_type is not None and returned.get("type") == needed_type:
        return _call_text(consumer, {parameter: Reference(task=1)})
    for name, schema in returned.get("properties", {}).items():
        if needed_type is not None and schema.get("type") == needed_type and name.isidentifier():
            return _call_text(consumer, {parameter: Reference(task=1, path=(name,))})
    return None

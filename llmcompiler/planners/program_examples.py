"""Programs that the planner ``python`` shows: those that fit the tools, and derived ones.

A small model imitates. So an example is shown only if all functions that it calls are there, and
for tools that no written example covers, examples are derived from their schemas. An example never
calls a tool that writes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

from llmcompiler.plan.types import SchemaType, fits, json_types, part_type
from llmcompiler.planners.sample_arguments import sample_value
from llmcompiler.planners.stubs import spelled_name
from llmcompiler.programs import subset
from llmcompiler.prompting.program_prompts import FAREWELL, ProgramExample
from llmcompiler.prompting.prompts import Prompts
from llmcompiler.tools.base import Tool

_MAX_DERIVED = 3
"""Most examples that are derived."""


def select_programs(prompts: Prompts, tools: Mapping[str, Tool]) -> tuple[ProgramExample, ...]:
    """The examples to show; the user's own come last, where a model heeds them most."""
    readable = {spelled_name(name): tool for name, tool in tools.items() if tool.effect == "read"}
    own = [option for option in prompts.program_examples if _fits(option, readable)]
    pool = [option for option in prompts.program_pool if _fits(option, readable)]
    covered = {name for option in (*own, *pool) for name in option.calls()}
    rest = [tool for name, tool in readable.items() if name not in covered and not tool.reasons]
    derived = itertools.islice(derive_programs(rest), _MAX_DERIVED)
    return (FAREWELL, *pool, *derived, *own)


def _fits(example: ProgramExample, tools: Mapping[str, Tool]) -> bool:
    for name in example.calls():
        is_method = "." in name and name not in tools
        if not is_method and name not in tools and name not in subset.BUILTINS:
            return False
    return bool(example.calls() & tools.keys()) or not tools


def derive_programs(tools: Sequence[Tool]) -> Iterator[ProgramExample]:
    """Examples made of the schemas of tools, the plainest last of each kind."""
    for tool in tools:
        yield from itertools.islice(_of_list(tool, tools), 1)
    for tool in tools:
        yield from itertools.islice(_of_record(tool), 1)


def _of_list(tool: Tool, tools: Sequence[Tool]) -> Iterator[ProgramExample]:
    """A list that is filtered, or whose elements another tool takes."""
    call = _sample_call(tool, 0)
    returned = _returned(tool)
    if call is None or returned is None or json_types(returned) != {"array"}:
        return
    element = part_type(returned, 0)
    if element is None:
        return
    if number := _field_of(element, ("integer", "number")):
        name = _field_of(element, ("string",)) or number
        yield ProgramExample(
            question=f"Which {name} in {call} have a {number} above 3?",
            program=f"records = {call}\nanswer = [r.{name} for r in records if r.{number} > 3]",
        )
    for consumer in tools:
        if consumer is tool or (parameter := _only_parameter(consumer)) is None:
            continue
        if fits(element, parameter) is not True or json_types(element) != json_types(parameter):
            continue
        produced = _returned(consumer)
        field = _field_of(produced, ("integer", "number")) if produced is not None else None
        if field is not None:
            yield ProgramExample(
                question=f"What is the average {field} of all in {call}?",
                program=(
                    f"records = [{spelled_name(consumer.name)}(name) for name in {call}]\n"
                    f"answer = sum(r.{field} for r in records) / len(records)"
                ),
            )


def _of_record(tool: Tool) -> Iterator[ProgramExample]:
    """Two results that are compared, or one that is the answer."""
    first, second = _sample_call(tool, 0), _sample_call(tool, 1)
    returned = _returned(tool)
    if first is None or second is None:
        return
    number = _field_of(returned, ("integer", "number")) if returned is not None else None
    if number is not None and first != second:
        yield ProgramExample(
            question=f"How much larger is the {number} of {first} than that of {second}?",
            program=(
                f"first = {first}\nsecond = {second}\nanswer = first.{number} - second.{number}"
            ),
        )
    yield ProgramExample(question=f"What does {first} give?", program=f"answer = {first}")


def _returned(tool: Tool) -> SchemaType | None:
    return SchemaType(tool.return_schema, tool.return_schema) if tool.return_schema else None


def _field_of(typed: SchemaType, kinds: tuple[str, ...]) -> str | None:
    """The first field whose values are of one of these kinds only."""
    for name in typed.fields():
        part = part_type(typed, name)
        if name.isidentifier() and part is not None and json_types(part) <= set(kinds):
            return name
    return None


def _required(tool: Tool) -> dict[str, SchemaType]:
    schema = tool.parameters_schema
    properties = schema.get("properties", {})
    return {name: SchemaType(properties[name], schema) for name in schema.get("required", ())}


def _only_parameter(tool: Tool) -> SchemaType | None:
    required = _required(tool)
    first = next(iter(tool.parameters_schema.get("properties", {})), None)
    return next(iter(required.values())) if list(required) == [first] else None


def _sample_call(tool: Tool, variant: int) -> str | None:
    """A call as programs write it; ``None`` if an argument has no sample value."""
    values = {name: sample_value(typed, variant) for name, typed in _required(tool).items()}
    if any(value is None for value in values.values()):
        return None
    if not all(name.isidentifier() for name in values):
        return None
    if _only_parameter(tool) is not None:
        arguments = [repr(value) for value in values.values()]
    else:
        arguments = [f"{name}={value!r}" for name, value in values.items()]
    return f"{spelled_name(tool.name)}({', '.join(arguments)})"

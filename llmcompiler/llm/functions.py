"""Function calling for a model that has none of its own, by a JSON schema that it is held to.

Small models know no endpoint's markup of function calls, or write it wrong; nearly all of them
write JSON. So the functions are described in the system message, the model is held to
``{"calls": [{"name": …, "arguments": {…}}]}`` or ``{"answer": …}``, and earlier calls and results
are shown to it in that form. The module must not know any endpoint.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from llmcompiler.language.plan_schema import MovedSchemas
from llmcompiler.llm.base import Completion, Request
from llmcompiler.llm.messages import Function, FunctionCall, Message

_HOW = """\

Write JSON: {"calls": [{"name": function, "arguments": {parameter: value}}, ...]} to call \
functions, several at once where you can, or {"answer": text}.

Functions:
"""


def as_json(request: Request) -> Request:
    """The request without functions: the text describes them, and the schema holds to them."""
    messages: list[Message] = []
    for message in request.messages:
        if message.role == "tool":
            line = f"Result: {message.content}"
            if messages[-1].role == "user":
                line = f"{messages.pop().content}\n{line}"
            messages.append(Message("user", line))
        elif message.role == "assistant":
            messages.append(Message("assistant", _written(message)))
        else:
            messages.append(message)
    described = _HOW + "\n".join(
        f"{one.name}{json.dumps(one.parameters.get('properties', {}), ensure_ascii=False)}  "
        f"# {one.description}"
        for one in request.functions
    )
    if messages and messages[0].role == "system":
        messages[0] = Message("system", messages[0].content + described)
    else:
        messages.insert(0, Message("system", described.lstrip()))
    return dataclasses.replace(
        request, messages=tuple(messages), functions=(), schema=_schema(request.functions)
    )


def read_json(completion: Completion) -> Completion:
    """The answer or the calls that the model wrote; what it broke off stays text."""
    try:
        said = json.loads(completion.text)
        if "answer" in said:
            return dataclasses.replace(completion, text=str(said["answer"]))
        calls = tuple(
            FunctionCall(
                f"call-{number}", one["name"], json.dumps(one["arguments"], ensure_ascii=False)
            )
            for number, one in enumerate(said["calls"], 1)
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        return completion
    return dataclasses.replace(completion, text="", calls=calls, finish="tool_calls")


def _written(message: Message) -> str:
    if not message.calls:
        return json.dumps({"answer": message.content}, ensure_ascii=False)
    calls = ", ".join(
        f'{{"name": {json.dumps(call.name)}, "arguments": {call.arguments}}}'
        for call in message.calls
    )
    return f'{{"calls": [{calls}]}}'


def _schema(functions: Sequence[Function]) -> dict[str, Any]:
    defs: dict[str, Any] = {}
    calls = []
    for number, function in enumerate(functions):
        moved = MovedSchemas(dict(function.parameters), f"f{number}-", defs)
        arguments = moved(function.parameters)
        calls.append(_object(name={"const": function.name}, arguments=arguments))
    several = {"type": "array", "minItems": 1, "items": {"anyOf": calls}}
    return {
        "anyOf": [_object(calls=several), _object(answer={"type": "string"})],
        "$defs": defs,
    }


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }

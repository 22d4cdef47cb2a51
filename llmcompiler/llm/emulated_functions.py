"""Function calling for a model that has none of its own, by a JSON schema for its answer.

Small models do not know any endpoint's markup of function calls, or write it wrong; nearly all of
them write JSON. So the system message describes the functions, the schema allows only
``{"calls": [{"name": …, "arguments": {…}}]}`` or ``{"answer": …}``, and earlier calls and results
are shown to the model in that form.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from llmcompiler.language.plan_schema import SchemaMover
from llmcompiler.llm.base import Completion, Request
from llmcompiler.llm.json_text import find_json
from llmcompiler.llm.messages import Function, FunctionCall, Message

_HOW = """\

Write JSON: {"calls": [{"name": function, "arguments": {parameter: value}}, ...]} to call \
functions, several at once where you can, or {"answer": text}.

Functions:
"""


def request_as_json(request: Request) -> Request:
    """The request without functions: the text describes them, and the schema allows only them."""
    messages: list[Message] = []
    for message in request.messages:
        if message.role == "tool":
            line = f"Result: {message.content}"
            if messages[-1].role == "user":
                line = f"{messages.pop().content}\n{line}"
            messages.append(Message("user", line))
        elif message.role == "assistant":
            messages.append(Message("assistant", _assistant_json(message)))
        else:
            messages.append(message)
    description = _HOW + "\n".join(
        f"{function.name}"
        f"{json.dumps(function.parameters.get('properties', {}), ensure_ascii=False)}  "
        f"# {function.description}"
        for function in request.functions
    )
    if messages and messages[0].role == "system":
        messages[0] = Message("system", messages[0].content + description)
    else:
        messages.insert(0, Message("system", description.lstrip()))
    return dataclasses.replace(
        request, messages=tuple(messages), functions=(), schema=_schema(request.functions)
    )


def completion_from_json(completion: Completion) -> Completion:
    """The completion with the answer, or the calls, of its JSON text; other text stays as it is."""
    try:
        reply = find_json(completion.text, _is_reply)
        if "answer" in reply:
            return dataclasses.replace(completion, text=str(reply["answer"]))
        calls = tuple(
            FunctionCall(
                f"call-{number}", call["name"], json.dumps(call["arguments"], ensure_ascii=False)
            )
            for number, call in enumerate(reply["calls"], 1)
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        return completion
    return dataclasses.replace(completion, text="", calls=calls, finish="tool_calls")


def _is_reply(value: Any) -> bool:
    return isinstance(value, dict) and ("answer" in value or "calls" in value)


def _assistant_json(message: Message) -> str:
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
        moved = SchemaMover(dict(function.parameters), f"f{number}-", defs)
        arguments = moved(function.parameters)
        calls.append(_object(name={"const": function.name}, arguments=arguments))
    call_list = {"type": "array", "minItems": 1, "items": {"anyOf": calls}}
    return {
        "anyOf": [_object(calls=call_list), _object(answer={"type": "string"})],
        "$defs": defs,
    }


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }

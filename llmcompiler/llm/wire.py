"""What is sent to an OpenAI-compatible endpoint, from our own types.

All functions are pure: none sends anything or waits. What comes back is read in ``replies``.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from llmcompiler.llm.base import Request
from llmcompiler.llm.messages import Message
from llmcompiler.llm.replies import arguments_to_send
from llmcompiler.llm.samples import sample_count
from llmcompiler.llm.surrogates import join_surrogates_in

EXPECTED_COMPLETION_TOKENS = 512


def estimated_tokens(request: Request) -> int:
    """Tokens that a request may cost: four characters a token, and the longest answer."""
    characters = sum(len(message.content) for message in request.messages)
    characters += sum(len(str(function)) for function in request.functions)
    answer_tokens = request.max_tokens or EXPECTED_COMPLETION_TOKENS
    return characters // 4 + sample_count(request) * answer_tokens


# --- to the endpoint ------------------------------------------------------------------------------


def completion_payload(model: str, request: Request) -> dict[str, Any]:
    """The body of a request for a chat completion, ``extra`` included.

    A grammar has no field of the API's own; the caller puts one into ``extra``.
    """
    payload: dict[str, Any] = {
        "model": model,
        "messages": [message_to_json(message) for message in request.messages],
        "temperature": request.temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.max_tokens is not None:
        payload["max_tokens"] = request.max_tokens
    if request.top_p != 1.0:
        payload["top_p"] = request.top_p
    if request.stop:
        payload["stop"] = list(request.stop)
    if request.seed is not None:
        payload["seed"] = request.seed
    if request.logprobs is not None:
        payload |= {"logprobs": True, "top_logprobs": request.logprobs}
    if request.schema is not None:
        payload["response_format"] = {
            "type": "json_schema",
            "json_schema": {
                "name": "answer",
                "schema": request.schema,
                "strict": is_strict(request.schema),
            },
        }
    if request.functions:
        payload["tools"] = [
            {"type": "function", "function": dataclasses.asdict(function)}
            for function in request.functions
        ]
        payload["parallel_tool_calls"] = True
    payload |= request.extra
    # No server reads half a character, and no JSON that holds one can be encoded.
    joined: dict[str, Any] = join_surrogates_in(payload)
    return joined


def message_to_json(message: Message) -> dict[str, Any]:
    """A message as endpoints take it."""
    fields: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.calls:
        fields["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": arguments_to_send(call.arguments)},
            }
            for call in message.calls
        ]
    if message.call:
        fields["tool_call_id"] = message.call
    return fields


def is_strict(schema: object) -> bool:
    """True if strict mode takes the schema: closed objects with all their fields required."""
    if isinstance(schema, Mapping):
        if "properties" in schema or schema.get("type") == "object":
            fields = set(schema.get("properties", ()))
            if schema.get("additionalProperties") is not False:
                return False
            if fields != set(schema.get("required", ())):
                return False
        return all(is_strict(value) for value in schema.values())
    if isinstance(schema, (list, tuple)):
        return all(is_strict(value) for value in schema)
    return True


def root_cause(error: BaseException) -> str:
    """The words of the first exception in a chain of causes."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Seconds that ``retry-after-ms`` or ``Retry-After`` (seconds or a date) asks for."""
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        value = headers.get("retry-after")
        if value is None:
            return None
        if value.strip().replace(".", "", 1).isdigit():
            return float(value)
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None

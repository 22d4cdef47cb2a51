"""What is sent to an OpenAI-compatible endpoint and what comes back, from and to our own types.

All functions are pure: none sends anything or waits.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from llmcompiler.llm.base import Completion, Logprobs, Request, Usage
from llmcompiler.llm.messages import FunctionCall, Message
from llmcompiler.llm.samples import sample_count

if TYPE_CHECKING:
    from openai import APIError
    from openai.types.chat import ChatCompletionChunk
    from openai.types.chat.chat_completion_chunk import Choice

EXPECTED_COMPLETION_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one event of a stream adds to one sample.

    Attributes:
        text: the next piece of text; may be empty.
        finish: the finish reason; empty before the end.
        usage: the whole request's tokens, in the event that tells them.
        model: the model that answers; empty where the event does not say.
        calls: pieces of function calls, each with its call's place among the calls.
        logprobs: log-probabilities of the piece's tokens.
        sample: the sample's number, from 0.
    """

    text: str
    finish: str
    usage: Usage | None
    model: str
    calls: tuple[tuple[int, FunctionCall], ...] = ()
    logprobs: Logprobs | None = None
    sample: int = 0


@dataclass(slots=True)
class SampleBuffer:
    """Collects the chunks of one sample."""

    text: list[str] = field(default_factory=list)
    calls: dict[int, FunctionCall] = field(default_factory=dict)
    logprobs: Logprobs | None = None
    finish: str = ""

    def take(self, chunk: Chunk) -> None:
        """Add a chunk."""
        self.finish = chunk.finish or self.finish
        if chunk.logprobs is not None:
            self.logprobs = _join_logprobs(self.logprobs, chunk.logprobs)
        for place, piece in chunk.calls:
            self.calls[place] = _join_call(self.calls.get(place), piece, place)
        if chunk.text:
            self.text.append(chunk.text)

    @property
    def decoded(self) -> int:
        """Decoded tokens; without log-probabilities the number of pieces stands for them."""
        return len(self.logprobs.chosen) if self.logprobs is not None else len(self.text)

    def completion(self, usage: Usage, model: str) -> Completion:
        """The whole sample."""
        calls = tuple(self.calls[place] for place in sorted(self.calls))
        return Completion("".join(self.text), self.finish, usage, model, self.logprobs, calls)


def estimated_tokens(request: Request) -> int:
    """Tokens that a request may cost: four characters a token, and the longest answer."""
    characters = sum(len(message.content) for message in request.messages)
    characters += sum(len(str(function)) for function in request.functions)
    answer_tokens = request.max_tokens or EXPECTED_COMPLETION_TOKENS
    return characters // 4 + sample_count(request) * answer_tokens


# --- to the endpoint ------------------------------------------------------------------------------


def completion_payload(model: str, request: Request) -> dict[str, Any]:
    """The fields of a chat completion, with all that the API names but without ``extra``.

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
    return payload


def message_to_json(message: Message) -> dict[str, Any]:
    """A message as endpoints take it."""
    fields: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.calls:
        fields["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
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


# --- from the endpoint ----------------------------------------------------------------------------


def parse_chunk(chunk: ChatCompletionChunk) -> list[Chunk]:
    """One event of a stream as chunks, one a sample."""
    usage = None
    if tokens := chunk.usage:
        details = tokens.prompt_tokens_details
        cached = details.cached_tokens if details is not None else None
        if cached is None:
            # llama.cpp reports cached tokens here too, and its older releases only here.
            cached = (getattr(chunk, "timings", None) or {}).get("cache_n")
        usage = Usage(tokens.prompt_tokens, cached or 0, tokens.completion_tokens, 1)
    # The last event of a stream with usage has no choices.
    if not chunk.choices:
        return [Chunk("", "", usage, chunk.model or "")]
    return [_parse_choice(choice, usage, chunk.model or "") for choice in chunk.choices]


def _parse_choice(choice: Choice, usage: Usage | None, model: str) -> Chunk:
    text = choice.delta.content or ""
    calls = []
    for place, call in enumerate(choice.delta.tool_calls or ()):
        function = call.function
        piece = FunctionCall(
            call.id or "",
            (function and function.name) or "",
            (function and function.arguments) or "",
        )
        # Some servers send whole calls and do not number them.
        calls.append((place if call.index is None else call.index, piece))
    tokens = choice.logprobs.content if choice.logprobs is not None else None
    logprobs = None
    if tokens:
        logprobs = Logprobs(
            tuple(token.logprob for token in tokens),
            tuple(tuple(top.logprob for top in token.top_logprobs or ()) for token in tokens),
        )
    finish = choice.finish_reason or ""
    return Chunk(text, finish, usage, model, tuple(calls), logprobs, choice.index or 0)


def _join_logprobs(earlier: Logprobs | None, later: Logprobs) -> Logprobs:
    if earlier is None:
        return later
    return Logprobs(earlier.chosen + later.chosen, earlier.top + later.top)


def _join_call(call: FunctionCall | None, piece: FunctionCall, place: int) -> FunctionCall:
    """A call with its next piece added; only arguments come in several pieces."""
    if call is None:
        return dataclasses.replace(piece, id=piece.id or f"call-{place + 1}")
    return FunctionCall(call.id, call.name or piece.name, call.arguments + piece.arguments)


def error_text(error: APIError) -> str:
    """The endpoint's own words in a refusal, cut at 500 characters."""
    body = error.body
    if isinstance(body, Mapping):
        return str(body.get("message") or body)[:500]
    return str(body or error.message)[:500]


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

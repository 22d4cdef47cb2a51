"""What an OpenAI-compatible endpoint is sent and sends, from and to our own types.

Pure: it asks nobody and waits for nothing. The module must not know retries, limits or keys.
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
from llmcompiler.llm.samples import count

if TYPE_CHECKING:
    from openai import APIError
    from openai.types.chat import ChatCompletionChunk
    from openai.types.chat.chat_completion_chunk import Choice

EXPECTED_COMPLETION_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one event of a stream brings; of function calls, the pieces by the call's place."""

    text: str
    finish: str
    usage: Usage | None
    model: str
    calls: tuple[tuple[int, FunctionCall], ...] = ()
    logprobs: Logprobs | None = None
    sample: int = 0


@dataclass(slots=True)
class Sample:
    """What has come of one sample."""

    text: list[str] = field(default_factory=list)
    calls: dict[int, FunctionCall] = field(default_factory=dict)
    logprobs: Logprobs | None = None
    finish: str = ""

    def take(self, chunk: Chunk) -> None:
        """Add what a chunk brings."""
        self.finish = chunk.finish or self.finish
        if chunk.logprobs is not None:
            self.logprobs = more_logprobs(self.logprobs, chunk.logprobs)
        for place, piece in chunk.calls:
            self.calls[place] = joined_call(self.calls.get(place), piece, place)
        if chunk.text:
            self.text.append(chunk.text)

    @property
    def decoded(self) -> int:
        """Its tokens as far as one can tell: a piece may hold several."""
        return len(self.logprobs.chosen) if self.logprobs is not None else len(self.text)

    def completion(self, usage: Usage, model: str) -> Completion:
        """The whole of it."""
        calls = tuple(self.calls[place] for place in sorted(self.calls))
        return Completion("".join(self.text), self.finish, usage, model, self.logprobs, calls)


def estimated_tokens(request: Request) -> int:
    """Tokens that a request may cost: four characters a token, and the longest answer."""
    characters = sum(len(message.content) for message in request.messages)
    characters += sum(len(str(function)) for function in request.functions)
    return characters // 4 + count(request) * (request.max_tokens or EXPECTED_COMPLETION_TOKENS)


def read_chunk(chunk: ChatCompletionChunk) -> list[Chunk]:
    """What the event brings, of each sample by itself."""
    usage = None
    if counted := chunk.usage:
        details = counted.prompt_tokens_details
        cached = details.cached_tokens if details is not None else None
        if cached is None:
            # llama.cpp tells it here too, and older ones only here.
            cached = (getattr(chunk, "timings", None) or {}).get("cache_n")
        usage = Usage(counted.prompt_tokens, cached or 0, counted.completion_tokens, 1)
    # The last event of a stream with usage has no choices.
    if not chunk.choices:
        return [Chunk("", "", usage, chunk.model or "")]
    return [_read_choice(choice, usage, chunk.model or "") for choice in chunk.choices]


def _read_choice(choice: Choice, usage: Usage | None, model: str) -> Chunk:
    text = choice.delta.content or ""
    calls = []
    for place, call in enumerate(choice.delta.tool_calls or ()):
        said = call.function
        piece = FunctionCall(
            call.id or "", (said and said.name) or "", (said and said.arguments) or ""
        )
        # Some servers send whole calls and do not number them.
        calls.append((place if call.index is None else call.index, piece))
    told = choice.logprobs.content if choice.logprobs is not None else None
    logprobs = None
    if told:
        logprobs = Logprobs(
            tuple(token.logprob for token in told),
            tuple(tuple(one.logprob for one in token.top_logprobs or ()) for token in told),
        )
    finish = choice.finish_reason or ""
    return Chunk(text, finish, usage, model, tuple(calls), logprobs, choice.index or 0)


def more_logprobs(known: Logprobs | None, new: Logprobs) -> Logprobs:
    """Those of the tokens so far, and of the next ones."""
    if known is None:
        return new
    return Logprobs(known.chosen + new.chosen, known.top + new.top)


def joined_call(call: FunctionCall | None, piece: FunctionCall, place: int) -> FunctionCall:
    """A call so far and its next piece; only arguments come in several."""
    if call is None:
        return dataclasses.replace(piece, id=piece.id or f"call-{place + 1}")
    return FunctionCall(call.id, call.name or piece.name, call.arguments + piece.arguments)


def message_to_json(message: Message) -> dict[str, Any]:
    """A message as endpoints take it."""
    said: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.calls:
        said["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.calls
        ]
    if message.call:
        said["tool_call_id"] = message.call
    return said


def is_strict(schema: object) -> bool:
    """Whether strict mode takes the schema: closed objects with all their fields required."""
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


def what_it_said(error: APIError) -> str:
    """The words of a refusal, not more of them than a message should hold."""
    body = error.body
    if isinstance(body, Mapping):
        return str(body.get("message") or body)[:500]
    return str(body or error.message)[:500]


def root_cause(error: BaseException) -> str:
    """What was wrong at the bottom of a chain of exceptions."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__


def retry_after_of(headers: Mapping[str, str]) -> float | None:
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

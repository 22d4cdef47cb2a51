"""What an OpenAI-compatible endpoint sends back, read into our own types.

Servers differ in all that the protocol leaves open, and in much that it does not: numbers that are
``null``, content as a list of parts, whole messages in place of deltas, calls without an index. So
everything is read from plain JSON, and a field of another type than expected counts as absent. The
module sends nothing and waits for nothing.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from llmcompiler.llm.base import Completion, Logprobs, Usage
from llmcompiler.llm.json_text import load_strict_json
from llmcompiler.llm.messages import FunctionCall
from llmcompiler.llm.surrogates import SurrogateJoiner, join_surrogates, join_surrogates_in

MAX_BODY_BYTES = 16 * 1024 * 1024
"""Most bytes of an answer that is no stream, and of one line of a stream."""

_LINE_BREAK = re.compile(rb"\r\n|\n|\r(?!\Z)")

# Other words for the finish reasons of the protocol, in lower case.
_FINISHES = {
    "max_tokens": "length",
    "max_output_tokens": "length",
    "model_length": "length",
    "model_context_window_exceeded": "length",
    "end_turn": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "complete": "stop",
    "completed": "stop",
    "tool_use": "tool_calls",
    "tool_call": "tool_calls",
    "function_call": "tool_calls",
}

# Finish reasons of an answer that the endpoint withholds.
_WITHHELD = frozenset(
    "content_filter content_filtered safety recitation blocklist prohibited_content spii "
    "guardrail_intervened refusal sensitive blocked language malformed_function_call".split()
)


class EventReader:
    """Reads server-sent events, or one JSON document where the endpoint does not stream.

    Attributes:
        has_ended: True once the endpoint said that the stream is complete (``[DONE]``).
        body: what came in place of events; empty for a stream.
    """

    def __init__(self) -> None:
        self.has_ended = False
        self.body = b""
        self._parts: list[bytes] = []  # of the line, or of the body, that has not ended
        self._size = 0
        self._data: list[bytes] = []
        self._is_body: bool | None = None

    def feed(self, piece: bytes) -> Iterator[Any]:
        """Take in bytes; yields the JSON of the events that they complete.

        Raises:
            ValueError: an event is not JSON, or too long.
        """
        if self._is_body is None:
            begin = b"".join((*self._parts, piece)).lstrip()
            self._is_body = begin[:1] in (b"{", b"[", b"<", b'"') if begin else None
        self._parts.append(piece)
        self._size += len(piece)
        if self._size > MAX_BODY_BYTES:
            raise ValueError(f"more than {MAX_BODY_BYTES} bytes without an end")
        if not self._is_body and (b"\n" in piece or b"\r" in piece):
            *lines, rest = _LINE_BREAK.split(b"".join(self._parts))
            self._parts, self._size = [rest], len(rest)
            for line in lines:
                yield from self._read_line(line)

    def close(self) -> Iterator[Any]:
        """End the bytes; yields the JSON of what was not ended by a blank line.

        Raises:
            ValueError: an event, or the body, is not JSON.
        """
        rest = b"".join(self._parts)
        if not self._is_body:
            yield from self._read_line(rest.rstrip(b"\r"))
            yield from self._read_line(b"")
            return
        self.body = rest
        if rest.lstrip()[:1] == b"<":
            return
        try:
            yield _load(rest)
        except ValueError:
            lines = [line for line in rest.splitlines() if line.strip()]
            if len(lines) < 2:
                raise
            for line in lines:  # one document a line
                yield _load(line)

    def _read_line(self, line: bytes) -> Iterator[Any]:
        if line.startswith(b"data:"):
            self._data.append(line[5:].strip())
        elif not line and self._data:
            data, self._data = b"\n".join(self._data), []
            if data == b"[DONE]":
                self.has_ended = True
            elif data and not self.has_ended:
                yield _load(data)


def _load(data: bytes) -> Any:
    try:
        return json.loads(data.decode("utf-8", "replace"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def find_error(event: Any) -> Any:
    """The error that an event, or a body, reports; ``None`` if it reports none.

    Raises:
        ValueError: the event is no object.
    """
    if not isinstance(event, dict):
        raise ValueError(f"an event is a {type(event).__name__}, not an object")
    if error := event.get("error") or event.get("errors"):
        return error
    if "choices" in event:
        return None
    if event.get("object") == "error" or event.get("type") == "error" or "detail" in event:
        return event
    if isinstance(event.get("message"), str) and not event.get("usage"):
        return event
    return None


@dataclass(frozen=True, slots=True)
class CallPiece:
    """A piece of a function call.

    Attributes:
        index: the call's number among the calls of the answer; ``None`` if it has none.
        id: the call's id; may be empty.
        name: the function's name; may be empty.
        arguments: a piece of the arguments' text.
    """

    index: int | None
    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one event adds to one sample.

    Attributes:
        text: the next piece of text; may be empty.
        thinking: the next piece of what the model thinks; may be empty.
        refusal: the next piece of the words with which the model refuses; may be empty.
        finish: the finish reason; empty before the end.
        calls: pieces of function calls.
        logprobs: log-probabilities of the piece's tokens.
        sample: the sample's number, from 0.
    """

    text: str = ""
    thinking: str = ""
    refusal: str = ""
    finish: str = ""
    calls: tuple[CallPiece, ...] = ()
    logprobs: Logprobs | None = None
    sample: int = 0


def read_chunks(event: Mapping[str, Any]) -> list[Chunk]:
    """The chunks of an event, one a sample."""
    choices = event.get("choices")
    if isinstance(choices, dict):
        choices = [choices]
    if not isinstance(choices, list):
        return []
    return [_read_choice(choice) for choice in choices if isinstance(choice, dict)]


def read_usage(event: Mapping[str, Any]) -> Usage | None:
    """The tokens that an event reports; ``None`` if it reports none."""
    tokens = event.get("usage")
    if not isinstance(tokens, dict):
        return None
    prompt_details = _mapping(tokens.get("prompt_tokens_details"))
    completion_details = _mapping(tokens.get("completion_tokens_details"))
    # llama.cpp reports cached tokens among its timings, DeepSeek beside the others.
    cached = (
        prompt_details.get("cached_tokens"),
        tokens.get("prompt_cache_hit_tokens"),
        tokens.get("cached_tokens"),
        _mapping(event.get("timings")).get("cache_n"),
    )
    reasoning = (completion_details.get("reasoning_tokens"), tokens.get("reasoning_tokens"))
    return Usage(
        prompt_tokens=_count(tokens.get("prompt_tokens"), tokens.get("input_tokens")),
        cached_tokens=_count(*cached),
        completion_tokens=_count(tokens.get("completion_tokens"), tokens.get("output_tokens")),
        calls=1,
        reasoning_tokens=_count(*reasoning),
    )


def _count(*values: Any) -> int:
    """The first value that is a number of tokens; 0 if there is none."""
    for value in values:
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e15:
            return int(value)
    return 0


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _read_choice(choice: Mapping[str, Any]) -> Chunk:
    # A server that does not stream sends a message; some send it inside a stream.
    delta = _mapping(choice.get("delta")) or _mapping(choice.get("message"))
    text, thinking, refusal = _read_content(delta.get("content", choice.get("text")))
    for name in ("reasoning_content", "reasoning", "thinking"):
        more = delta.get(name)
        if isinstance(more, str) and more:
            thinking += more
            break
        if isinstance(more, dict | list):
            thinking += "".join(_texts(more))
            break
    if isinstance(delta.get("refusal"), str):
        refusal += delta["refusal"]
    finish = choice.get("finish_reason") or choice.get("stop_reason")
    index = choice.get("index")
    return Chunk(
        text,
        thinking,
        refusal,
        finish if isinstance(finish, str) else "",
        tuple(_read_calls(delta)),
        _read_logprobs(choice.get("logprobs")),
        index if isinstance(index, int) and index >= 0 else 0,
    )


def _read_content(content: Any) -> tuple[str, str, str]:
    """Text, thoughts and refusal of a content: a string, or a list of parts."""
    if isinstance(content, str):
        return content, "", ""
    parts = content if isinstance(content, list) else [content]
    texts: list[str] = []
    thoughts: list[str] = []
    refusals: list[str] = []
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict):
            kind = str(part.get("type") or "text")
            if "think" in kind or "reason" in kind or part.get("thought") is True:
                thoughts += _texts(part)
            elif kind == "refusal":
                refusals += _texts(part)
            else:
                texts += _texts(part)
    return "".join(texts), "".join(thoughts), "".join(refusals)


def _texts(value: Any) -> list[str]:
    """The strings that a part holds under the names for text."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    if isinstance(value, dict):
        for name in ("text", "thinking", "reasoning", "content", "summary", "refusal", "value"):
            if value.get(name):
                return _texts(value[name])
    return []


def _read_calls(delta: Mapping[str, Any]) -> Iterator[CallPiece]:
    calls = delta.get("tool_calls")
    if isinstance(calls, dict):
        calls = [calls]
    if not isinstance(calls, list):
        calls = []
    if isinstance(delta.get("function_call"), dict):
        calls = [*calls, {"index": 0, "function": delta["function_call"]}]
    for call in calls:
        if not isinstance(call, dict):
            continue
        function = _mapping(call.get("function")) or call
        index = call.get("index")
        call_id, name = call.get("id"), function.get("name")
        yield CallPiece(
            index if isinstance(index, int) else None,
            "" if call_id is None else str(call_id),
            name if isinstance(name, str) else "",
            _arguments_text(function.get("arguments")),
        )


def _arguments_text(arguments: Any) -> str:
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _read_logprobs(logprobs: Any) -> Logprobs | None:
    tokens = _mapping(logprobs).get("content")
    if not isinstance(tokens, list) or not tokens:
        return None
    chosen: list[float] = []
    top: list[tuple[float, ...]] = []
    for token in tokens:
        entry = _mapping(token)
        if not isinstance(entry.get("logprob"), int | float):
            return None
        chosen.append(float(entry["logprob"]))
        rivals = entry.get("top_logprobs")
        numbers = [_mapping(rival).get("logprob") for rival in rivals or ()]
        top.append(tuple(float(number) for number in numbers if isinstance(number, int | float)))
    return Logprobs(tuple(chosen), tuple(top))


@dataclass(slots=True)
class _OpenCall:
    """A function call that is still being written."""

    index: int | None
    id: str
    name: str
    arguments: list[str]

    @property
    def is_complete(self) -> bool:
        try:
            load_strict_json("".join(self.arguments))
        except (ValueError, RecursionError):
            return False
        return True


@dataclass(slots=True)
class SampleBuffer:
    """Collects the chunks of one sample."""

    finish: str = ""
    refusal: str = ""
    logprobs: Logprobs | None = None
    text: list[str] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    _calls: list[_OpenCall] = field(default_factory=list)
    _joiner: SurrogateJoiner = field(default_factory=SurrogateJoiner)

    def take(self, chunk: Chunk) -> str:
        """Add a chunk; returns the text that it completes."""
        self.finish = chunk.finish or self.finish
        self.refusal += chunk.refusal
        if chunk.logprobs is not None:
            self.logprobs = _join_logprobs(self.logprobs, chunk.logprobs)
        for piece in chunk.calls:
            self._add_call(piece)
        if chunk.thinking:
            self.thinking.append(chunk.thinking)
        text = self._joiner.feed(chunk.text) if chunk.text else ""
        if text:
            self.text.append(text)
        return text

    def close(self) -> str:
        """End the sample; returns the rest of its text."""
        text = self._joiner.close()
        if text:
            self.text.append(text)
        return text

    @property
    def has_content(self) -> bool:
        """True if there is text, or a call, or a refusal."""
        return bool(self._calls or self.refusal or any(self.text))

    @property
    def finish_reason(self) -> str:
        """The finish reason, in the protocol's words."""
        return _FINISHES.get(self.finish.lower(), self.finish)

    @property
    def withheld(self) -> str:
        """Why the endpoint or the model gives no answer; empty if there is an answer."""
        if self.refusal.strip() and not any(self.text) and not self._calls:
            return f"refused: {join_surrogates(self.refusal.strip())[:500]}"
        if self.finish.lower() in _WITHHELD:
            return f"stopped the answer ({self.finish})"
        return ""

    @property
    def decoded(self) -> int:
        """Decoded tokens; without log-probabilities the number of pieces stands for them."""
        return len(self.logprobs.chosen) if self.logprobs is not None else len(self.text)

    def completion(self, usage: Usage, model: str, bound: int | None) -> Completion:
        """The whole sample.

        Args:
            usage: the sample's tokens.
            model: the model that answered.
            bound: the request's most tokens.
        """
        names = set()
        calls = []
        for number, call in enumerate(self._calls, 1):
            # Results go back under these ids, so each must be there once.
            call_id = call.id if call.id and call.id not in names else f"call-{number}"
            names.add(call_id)
            calls.append(FunctionCall(call_id, *map(join_surrogates, _name_and_arguments(call))))
        return Completion(
            "".join(self.text),
            self.finish_reason,
            usage,
            model,
            self.logprobs,
            tuple(calls),
            thinking=join_surrogates("".join(self.thinking)),
            bound=bound,
        )

    def _add_call(self, piece: CallPiece) -> None:
        call = self._find_call(piece)
        if call is None:
            self._calls.append(_OpenCall(piece.index, piece.id, piece.name, [piece.arguments]))
        elif not (piece.id and piece.arguments == "".join(call.arguments) and call.is_complete):
            call.id = call.id or piece.id
            call.name = call.name or piece.name
            call.arguments.append(piece.arguments)

    def _find_call(self, piece: CallPiece) -> _OpenCall | None:
        """The call that a piece goes on with, or repeats; ``None`` if it begins another one.

        Some servers number no call, some number every call 0, and some repeat name and id in each
        piece. A name begins a call, unless the last call of that number lacks its end.
        """
        calls = self._calls
        if piece.index is not None:
            calls = [call for call in calls if call.index == piece.index]
        if not calls:
            return None
        last = calls[-1]
        if not piece.name or not last.name:
            return last
        if piece.name != last.name:
            return None
        if piece.id and last.id and piece.id != last.id:
            return last if any(last.arguments) and not last.is_complete else None
        if not last.is_complete:
            return last
        # A server that has given an id to one call gives one to the next call, too.
        repeats = last.id and (not piece.arguments or piece.arguments == "".join(last.arguments))
        return last if repeats else None


def _name_and_arguments(call: _OpenCall) -> tuple[str, str]:
    return call.name, "".join(call.arguments)


def _join_logprobs(earlier: Logprobs | None, later: Logprobs) -> Logprobs:
    if earlier is None:
        return later
    return dataclasses.replace(
        earlier, chosen=earlier.chosen + later.chosen, top=earlier.top + later.top
    )


def has_object(arguments: str) -> bool:
    """True if the text of a call's arguments is a JSON object, as all endpoints take it back."""
    try:
        return isinstance(load_strict_json(arguments), dict)
    except (ValueError, RecursionError):
        return False


def arguments_to_send(arguments: str) -> str:
    """A call's arguments as all endpoints take them back: text that is no object stands in one."""
    text = arguments.strip()
    if text in ("", "null"):
        return "{}"
    if has_object(text):
        return arguments
    return json.dumps({"invalid_json": join_surrogates_in(arguments)}, ensure_ascii=False)

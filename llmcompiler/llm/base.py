"""The seam between this package and any chat model.

Everything that asks a model for text does so through ``ChatModel.stream``. An endpoint, the
embedded model and a test's script are all behind it, so one implementation of limits, retries and
logging serves them all. The module must not know any endpoint.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

from llmcompiler.llm.messages import Function, FunctionCall, Message
from llmcompiler.llm.workspace import Seat


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call, or of several added up.

    Attributes:
        prompt_tokens: tokens of all prompts, cached ones included.
        cached_tokens: the part of them that the endpoint took from its prefix cache.
        completion_tokens: decoded tokens.
        calls: how many model calls these are the tokens of.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    calls: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.completion_tokens + other.completion_tokens,
            self.calls + other.calls,
        )


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Natural logarithms of token probabilities, token by token.

    Attributes:
        chosen: of the tokens that stand in the text.
        top: of the likeliest tokens at each place, as many as were asked for.
    """

    chosen: tuple[float, ...]
    top: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of a model.

    Attributes:
        messages: the chat; if the last message is the assistant's, the model continues it.
        max_tokens: most tokens to decode; ``None`` leaves it to the endpoint.
        temperature: 0 for the most likely text.
        top_p: nucleus sampling; 1 for none.
        stop: texts that end the answer and are left out of it.
        seed: makes sampling repeatable where the endpoint can.
        schema: JSON schema that the answer must fit (``response_format``).
        grammar: GBNF grammar that the answer must fit; endpoints that cannot hold a model to one
            answer without it.
        logprobs: how many of the likeliest tokens to report for each decoded one; ``None`` for no
            log-probabilities at all.
        functions: what the model may call instead of answering, several at once where it can.
        extra: further fields of the endpoint's own, passed as they are.
        seat: where the answer is written, if others write at the same time and see it.
    """

    messages: tuple[Message, ...]
    max_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    schema: Mapping[str, Any] | None = None
    grammar: str | None = None
    logprobs: int | None = None
    functions: tuple[Function, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    seat: Seat | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A model's whole answer.

    Attributes:
        text: the answer, the given beginning of a continued message left out.
        finish: why it ended: ``stop``, ``length``, or what else the endpoint says.
        usage: the call's tokens.
        model: the model that answered, in the endpoint's words.
        logprobs: of the answer's tokens, where they were asked for and the endpoint gave them.
        calls: the functions that it wants called, in its order.
    """

    text: str
    finish: str
    usage: Usage
    model: str
    logprobs: Logprobs | None = None
    calls: tuple[FunctionCall, ...] = ()


Ask: TypeAlias = Callable[[Request], AsyncIterator[str | Completion]]
"""Asks one model in one role: pieces of text, then a ``Completion``; see ``ChatModel.stream``."""


Pieces: TypeAlias = AsyncGenerator["str | Completion", None]
"""What ``ChatModel.stream`` gives where it can be closed early, as all of this package's can."""


@runtime_checkable
class ChatModel(Protocol):
    """Anything that answers a chat.

    Attributes:
        name: how the model is called in logs and reports, for example ``local:qwen2.5-coder-1.5b``.
    """

    name: str

    def stream(self, request: Request) -> AsyncIterator[str | Completion]:
        """Yield pieces of text as they are decoded, and last of all one ``Completion``.

        Closing the iterator early cancels the call at the endpoint.

        Raises:
            ModelError: the endpoint failed; ``retryable`` says whether asking again may help.
        """
        ...

    async def aclose(self) -> None:
        """Free connections and, for an embedded model, memory. May be called twice."""
        ...


async def complete(model: ChatModel, request: Request) -> Completion:
    """The whole answer at once."""
    answer: Completion | None = None
    # Read to the end: a stream left before it keeps its connection until it is collected.
    async for piece in model.stream(request):
        if isinstance(piece, Completion):
            answer = piece
    if answer is None:
        raise RuntimeError(f"{model.name} ended its stream without a Completion")
    return answer
